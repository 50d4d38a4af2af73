package import GuestMemory
package import Testing
package import VirtualCPU
package import X86

/// A bare vCPU, of the engine whose turn it is, with a few MiB of RAM, and what the tests of privilege want in
/// it: tables at fixed places, programs as bytes with their assembly beside.
package final class Machine {
    package let memory: GuestMemory
    package let vcpu: any VCPU
    package let requests: VCPURequests

    package enum Place {
        package static let gdt: UInt64 = 0x5000, idt: UInt64 = 0x6000, tss: UInt64 = 0x7000, otherTSS: UInt64 = 0x7800
        /// Where programs and handlers are put.
        package static let code: UInt64 = 0x10000, user: UInt64 = 0x18000
        /// Tops of stacks.
        package static let stack: UInt64 = 0x21000, kernelStack: UInt64 = 0x23000, ist: UInt64 = 0x25000,
            userStack: UInt64 = 0x27000
        package static let data: UInt64 = 0x30000
        /// A page that is not mapped in long mode.
        package static let hole: UInt64 = 0x100000
        /// Handler of a vector: one HLT, at this address.
        package static func handler(_ vector: UInt8) -> UInt64 { 0x12000 + UInt64(vector) * 16 }
    }

    package enum Selector {
        package static let code: UInt16 = 0x08, data: UInt16 = 0x10
        package static let userCode32: UInt16 = 0x1b, userData: UInt16 = 0x23, userCode64: UInt16 = 0x2b
        package static let tss: UInt16 = 0x30
        /// Free for a test, 0x40 and up.
        package static let free: UInt16 = 0x40
    }

    package init(
        _ controller: FakeController? = nil, features: CPUFeatures = .forThisHost, foreignWindows: [Range<UInt64>] = []
    ) throws {
        memory = try GuestMemory(byteCount: 4 << 20, foreignWindows: foreignWindows)
        requests = controller?.requests ?? VCPURequests()
        vcpu = try TestedEngine.current.makeVCPU(memory, requests, controller, features: features)
    }

    // MARK: Memory

    package func put(_ bytes: [UInt8], at address: UInt64) throws {
        try memory.write(bytes, at: GuestPhysicalAddress(address))
    }
    package func put16(_ value: UInt16, at address: UInt64) throws {
        try memory.store(value, at: GuestPhysicalAddress(address))
    }
    package func put32(_ value: UInt32, at address: UInt64) throws {
        try memory.store(value, at: GuestPhysicalAddress(address))
    }
    package func put64(_ value: UInt64, at address: UInt64) throws {
        try memory.store(value, at: GuestPhysicalAddress(address))
    }
    package func get16(_ address: UInt64) throws -> UInt16 {
        try memory.load(at: GuestPhysicalAddress(address), as: UInt16.self)
    }
    package func get32(_ address: UInt64) throws -> UInt32 {
        try memory.load(at: GuestPhysicalAddress(address), as: UInt32.self)
    }
    package func get64(_ address: UInt64) throws -> UInt64 {
        try memory.load(at: GuestPhysicalAddress(address), as: UInt64.self)
    }

    // MARK: Tables

    package func setDescriptor(_ selector: UInt16, _ value: UInt64) throws {
        try put64(value, at: Place.gdt + UInt64(selector & 0xfff8))
    }

    /// A segment or TSS descriptor. `attributes`: bits 40…55.
    package static func descriptor(base: UInt64, limit: UInt32, attributes: UInt64) -> UInt64 {
        UInt64(limit & 0xffff) | (base & 0xff_ffff) << 16 | attributes << 40 | UInt64(limit & 0xf0000) << 32
            | (base & 0xff00_0000) << 32
    }

    /// A gate's low eight bytes. `type` with P and DPL: bits 40…47. `extra`: IST or parameter count.
    package static func gate(_ selector: UInt16, _ offset: UInt64, type: UInt64, extra: UInt64 = 0) -> UInt64 {
        offset & 0xffff | UInt64(selector) << 16 | extra << 32 | type << 40 | (offset & 0xffff_0000) << 32
    }

    private func flatGDT() throws {
        try setDescriptor(Selector.userData, 0x00cf_f300_0000_ffff)
        try setDescriptor(Selector.userCode32, 0x00cf_fb00_0000_ffff)
        try setDescriptor(Selector.data, 0x00cf_9300_0000_ffff)
    }

    package static func flat(_ selector: UInt16, _ attributes: UInt32) -> Segment {
        Segment(selector: selector, limit: .max, attributes: attributes)
    }

    // MARK: Modes

    /// 64-bit code at CPL 0 from `Place.code`, everything but the hole mapped
    /// for users, a HLT behind every vector (DPL 3 from 0x40 on).
    package func enterLongMode() throws {
        try put64(0x2007, at: 0x1000)
        try put64(0x3007, at: 0x2000)
        try put64(0x4007, at: 0x3000)
        for page in 0..<UInt64(512) where page << 12 != Place.hole { try put64(page << 12 | 7, at: 0x4000 + page * 8) }
        try flatGDT()
        try setDescriptor(Selector.code, 0x00af_9b00_0000_ffff)
        try setDescriptor(Selector.userCode64, 0x00af_fb00_0000_ffff)
        try setDescriptor(Selector.tss, Machine.descriptor(base: Place.tss, limit: 0x67, attributes: 0x8b))
        for vector in 0..<UInt8(0x60) { try setLongGate(vector) }
        try put64(Place.kernelStack, at: Place.tss + 4)
        try put64(Place.ist, at: Place.tss + 0x24)
        vcpu.withState { state in
            state.cr0 = CR0.protectedMode | CR0.paging | CR0.writeProtect | CR0.extensionType | CR0.numericError
            state.cr3 = 0x1000
            state.cr4 = CR4.physicalAddressExtension | CR4.debuggingExtensions
            state.efer = EFER.longModeEnable | EFER.longModeActive | EFER.systemCallEnable | EFER.noExecuteEnable
            state.segments[SegmentName.cs] = Machine.flat(Selector.code, 0xa09b)
            state.segments[SegmentName.ss] = Machine.flat(Selector.data, 0xc093)
        }
        setCommonState()
    }

    package func setLongGate(_ vector: UInt8, ist: UInt64 = 0, type: UInt64? = nil, to offset: UInt64? = nil) throws {
        let handler = offset ?? Place.handler(vector)
        let gate = Machine.gate(Selector.code, handler, type: type ?? (vector >= 0x40 ? 0xee : 0x8e), extra: ist)
        try put64(gate, at: Place.idt + UInt64(vector) * 16)
        try put64(0, at: Place.idt + UInt64(vector) * 16 + 8)
        if offset == nil { try put([0xf4], at: handler) }
    }

    /// 32-bit flat protected mode at CPL 0, no paging, gates as above.
    package func enterProtectedMode() throws {
        try flatGDT()
        try setDescriptor(Selector.code, 0x00cf_9b00_0000_ffff)
        try setDescriptor(Selector.tss, Machine.descriptor(base: Place.tss, limit: 0x67, attributes: 0x8b))
        for vector in 0..<UInt8(0x60) { try setGate(vector) }
        try put32(UInt32(Place.kernelStack), at: Place.tss + 4)
        try put32(UInt32(Selector.data), at: Place.tss + 8)
        vcpu.withState { state in
            state.cr0 = CR0.protectedMode | CR0.extensionType | CR0.numericError
            state.segments[SegmentName.cs] = Machine.flat(Selector.code, 0xc09b)
            state.segments[SegmentName.ss] = Machine.flat(Selector.data, 0xc093)
        }
        setCommonState()
    }

    package func setGate(_ vector: UInt8, type: UInt64? = nil) throws {
        let gate = Machine.gate(Selector.code, Place.handler(vector), type: type ?? (vector >= 0x40 ? 0xee : 0x8e))
        try put64(gate, at: Place.idt + UInt64(vector) * 8)
        try put([0xf4], at: Place.handler(vector))
    }

    private func setCommonState() {
        vcpu.withState { state in
            for number in [SegmentName.es, SegmentName.ds, SegmentName.fs, SegmentName.gs] {
                state.segments[number] = Machine.flat(Selector.data, 0xc093)
            }
            state.gdtr = DescriptorTable(base: Place.gdt, limit: 0xff)
            state.idtr = DescriptorTable(base: Place.idt, limit: 0x5ff)
            state.tr = Segment(selector: Selector.tss, base: Place.tss, limit: 0x67, attributes: 0x8b)
            state.ldtr = Segment(attributes: Segment.unusableBit)
            state.gpr[Register.rsp] = Place.stack
            state.rip = Place.code
            state.rflags = RFlags.alwaysOne
        }
    }

    /// The selectors of a 32- or 64-bit program at CPL 3 on its own stack.
    package func enterUser(long: Bool) {
        vcpu.withState { state in
            state.segments[SegmentName.cs] =
                long
                ? Machine.flat(Selector.userCode64, 0xa0fb) : Machine.flat(Selector.userCode32, 0xc0fb)
            for number in [SegmentName.ss, SegmentName.es, SegmentName.ds, SegmentName.fs, SegmentName.gs] {
                state.segments[number] = Machine.flat(Selector.userData, 0xc0f3)
            }
            state.gpr[Register.rsp] = Place.userStack
            state.rip = Place.user
        }
    }

    /// CPL 0 at the start of the code, in the segments of `enterLongMode` and `enterProtectedMode`.
    package func enterKernel(long: Bool) {
        vcpu.withState { state in
            state.segments[SegmentName.cs] = Machine.flat(Selector.code, long ? 0xa09b : 0xc09b)
            for number in [SegmentName.ss, SegmentName.es, SegmentName.ds, SegmentName.fs, SegmentName.gs] {
                state.segments[number] = Machine.flat(Selector.data, 0xc093)
            }
            state.gpr[Register.rsp] = Place.stack
            state.rip = Place.code
        }
    }

    // MARK: Running

    /// Runs to an exit; a program that never ends is stopped after a while.
    @discardableResult package func run() -> VCPUExit {
        Deadline.of(seconds: 20, requests) { vcpu.run() }
    }

    /// Runs to a HLT, and returns RIP after it.
    package func runToHalt(_ location: SourceLocation = #_sourceLocation) -> UInt64 {
        let exit = run()
        guard case .halt = exit else {
            Issue.record("\(exit)", sourceLocation: location)
            return 0
        }
        return vcpu.withState { $0.rip }
    }

    /// Runs until the handler of `vector` halts; the stack pointer in it.
    package func runToHandler(_ vector: UInt8, _ location: SourceLocation = #_sourceLocation) -> UInt64 {
        let rip = runToHalt(location)
        #expect(
            rip == Place.handler(vector) + 1, "vector \((rip &- 1 &- Place.handler(0)) / 16)", sourceLocation: location)
        return vcpu.withState { $0.gpr[Register.rsp] }
    }
}
