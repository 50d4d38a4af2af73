import Interpreter
import Testing
import VirtualCPU
import X86

@Suite struct RegisterFileTests {
    /// `CPU.rcx`, `rsp` and `codePage` have their places written out.
    @Test func namedRegistersAreWhereTheirNumbersSay() {
        let file = UnsafeMutablePointer<VCPUState>.allocate(capacity: 1)
        unsafe file.initialize(to: VCPUState())
        defer {
            unsafe file.deinitialize(count: 1)
            unsafe file.deallocate()
        }
        for number in 0..<24 { unsafe file.pointee.gpr[number] = UInt64(number) + 100 }
        let cpu = unsafe CPU(UnsafeMutableRawPointer(file))
        #expect(cpu.rcx == UInt64(Register.rcx) + 100)
        #expect(cpu.rsp == UInt64(Register.rsp) + 100)
        #expect(cpu.codePage == UInt64(AddressSlot.codePage) + 100)
    }
}
