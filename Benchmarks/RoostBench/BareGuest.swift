import GuestMemory
import HostInterface
import Interpreter
import VirtualCPU
import X86

/// A Guest with memory, one vCPU in 64-bit mode, and page tables that map
///
///     0 … 1 GiB             itself, by one large page, for user code too
///     1 GiB … +64 MiB       by 4 KiB pages, all of them the page at `sharedPage`
///     3 GiB … 4 GiB         itself: the hole, where every access is an exit
///
/// Exceptions go to `handler`, system calls to `systemCall`.
struct BareGuest {
    static let code: UInt64 = 0x10_0000
    static let stack: UInt64 = 0x8_0000
    static let handler: UInt64 = 0x1_0000
    static let systemCall: UInt64 = 0x1_1000
    static let sharedPage: UInt64 = 0x1_2000
    static let smallPages: UInt64 = 1 << 30
    static let smallPageCount: UInt64 = 16384

    private static let interruptTable: UInt64 = 0x3000, descriptorTable: UInt64 = 0x4000
    private static let taskState: UInt64 = 0x5000, pageTables: UInt64 = 0x20_0000
    private static let user: UInt64 = 7  // present, writable, user

    let memory: GuestMemory
    let vcpu: InterpreterVCPU

    init(_ program: [UInt8]) throws {
        memory = try GuestMemory(byteCount: 64 << 20)
        vcpu = InterpreterVCPU(memory: memory, requests: VCPURequests(), interruptController: nil)
        try put(program, at: Self.code)
        try makePageTables()
        // One gate is enough: 64-bit interrupt gates (SDM 3A, figure 6-8) for all exceptions.
        for vector in 0..<32 {
            try store(
                Self.handler & 0xffff | 8 << 16 | 0x8e00 << 32 | (Self.handler & 0xffff_0000) << 32,
                at: Self.interruptTable + UInt64(vector) * 16)
        }
        for (index, descriptor) in [UInt64(0), 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff].enumerated() {
            try store(descriptor, at: Self.descriptorTable + UInt64(index) * 8)
        }
        try store(Self.stack >> 32 | (Self.stack & 0xffff_ffff) << 32, at: Self.taskState)  // RSP0 at offset 4
        vcpu.withState { state in
            state.cr0 = CR0.protectedMode | CR0.paging | CR0.extensionType | CR0.numericError | CR0.writeProtect
            state.cr3 = 0x1000
            state.cr4 = CR4.physicalAddressExtension | CR4.osFXSR | CR4.osXMMExceptions
            state.efer = EFER.longModeEnable | EFER.longModeActive | EFER.noExecuteEnable | EFER.systemCallEnable
            state.idtr = DescriptorTable(base: Self.interruptTable, limit: 32 * 16 - 1)
            state.gdtr = DescriptorTable(base: Self.descriptorTable, limit: 3 * 8 - 1)
            state.tr = Segment(selector: 24, base: Self.taskState, limit: 103, attributes: 0x8b)
            state.segments[SegmentName.cs] = Segment(selector: 8, limit: .max, attributes: 0xa09b)
            for name in [SegmentName.ss, SegmentName.ds, SegmentName.es] {
                state.segments[name] = Segment(selector: 16, limit: .max, attributes: 0xc093)
            }
            state.star = 8 << 32 | 0x18 << 48
            state.lstar = Self.systemCall
            state.rip = Self.code
            state.gpr[Register.rsp] = Self.stack
            state.rflags = RFlags.alwaysOne
        }
    }

    private func makePageTables() throws {
        try store(0x2000 | Self.user, at: 0x1000)
        try store(0x80 | Self.user, at: 0x2000)  // PS: 1 GiB
        try store(Self.pageTables | Self.user, at: 0x2008)
        try store(0xc000_0080 | Self.user, at: 0x2018)
        for table in 0..<Self.smallPageCount / 512 {
            try store((Self.pageTables + 0x1000 * (table + 1)) | Self.user, at: Self.pageTables + table * 8)
        }
        for page in 0..<Self.smallPageCount {
            try store(Self.sharedPage | Self.user, at: Self.pageTables + 0x1000 + page * 8)
        }
    }

    func put(_ bytes: [UInt8], at address: UInt64) throws { try memory.write(bytes, at: GuestPhysicalAddress(address)) }
    private func store(_ value: UInt64, at address: UInt64) throws {
        try memory.store(value, at: GuestPhysicalAddress(address))
    }

    /// Goes on at privilege level 3.
    func enterUser() {
        vcpu.withState { state in
            state.segments[SegmentName.cs] = Segment(selector: 0x2b, limit: .max, attributes: 0xa0fb)
            state.segments[SegmentName.ss] = Segment(selector: 0x23, limit: .max, attributes: 0xc0f3)
        }
    }

    /// Goes on at privilege level 0.
    func enterKernel() {
        vcpu.withState { state in
            state.segments[SegmentName.cs] = Segment(selector: 8, limit: .max, attributes: 0xa09b)
            state.segments[SegmentName.ss] = Segment(selector: 16, limit: .max, attributes: 0xc093)
        }
    }

    /// Where to begin again, with what in RBX and RDI.
    func start(rounds: UInt64, at address: UInt64 = code) {
        vcpu.withState { state in
            state.rip = address
            state.gpr[Register.rsp] = Self.stack
            state.gpr[Register.rbx] = rounds
            state.gpr[Register.rdi] = rounds
        }
    }

    /// Runs to HLT, answering what is asked with zeroes.
    ///
    /// - Returns: nanoseconds.
    @discardableResult func runToHalt() throws -> UInt64 {
        let begin = HostClock.monotonicNanoseconds
        while true {
            switch vcpu.run() {
            case .halt: return HostClock.monotonicNanoseconds - begin
            case .portRead, .portWrite, .mmioRead, .mmioWrite: vcpu.complete(0)
            case let exit: throw HostError("the benchmark's guest stopped: \(exit)\n\(vcpu.describe())")
            }
        }
    }
}
