import GuestMemory
import Interpreter
import VirtualCPU
import X86

/// A Guest with nothing but memory and one vCPU in 64-bit mode, ring 0, low
/// 1 GiB mapped to itself. Code goes to 0x10000.
struct LongModeGuest {
    static let code: UInt64 = 0x10000
    static let stack: UInt64 = 0x80000
    let memory: GuestMemory
    let vcpu: InterpreterVCPU

    init(_ program: [UInt8]) throws {
        memory = try GuestMemory(byteCount: 16 << 20)
        vcpu = InterpreterVCPU(memory: memory, requests: VCPURequests(), interruptController: nil)
        try memory.write(program, at: GuestPhysicalAddress(Self.code))
        // PML4 at 0x1000 → PDPT at 0x2000 → one 1 GiB page.
        try memory.store(UInt64(0x2003), at: GuestPhysicalAddress(0x1000))
        try memory.store(UInt64(0x83), at: GuestPhysicalAddress(0x2000))
        vcpu.withState { state in
            state.cr0 = CR0.protectedMode | CR0.paging | CR0.extensionType | CR0.numericError | CR0.writeProtect
            state.cr3 = 0x1000
            state.cr4 = CR4.physicalAddressExtension | CR4.osFXSR | CR4.osXMMExceptions
            state.efer = EFER.longModeEnable | EFER.longModeActive | EFER.noExecuteEnable
            state.segments[SegmentName.cs] = Segment(selector: 8, limit: .max, attributes: 0xa09b)
            for name in [SegmentName.ss, SegmentName.ds, SegmentName.es] {
                state.segments[name] = Segment(selector: 16, limit: .max, attributes: 0xc093)
            }
            state.rip = Self.code
            state.gpr[Register.rsp] = Self.stack
            state.rflags = RFlags.alwaysOne
        }
    }

    func register(_ number: Int) -> UInt64 { vcpu.withState { $0.gpr[number] } }
}
