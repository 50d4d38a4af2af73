import CPUOracle
import GuestMemory
import VirtualCPU
import X86

//M:140 A Guest that does one instruction at a time
//
// The smallest kernel that can be told apart from a process by nothing: its
// user half has the oracle's pages at the oracle's addresses, CPL is 3 and
// the selectors are Linux's. Its kernel half has an IDT, every gate of which
// leads to a HLT of its own. Where the vCPU halts says which exception it
// was, and the frame on the kernel's stack says the rest.

/// Runs the oracle's cases on an engine.
@safe final class GuestCPU: EngineUnderTest {
    private enum Physical {
        static let pml4: UInt64 = 0x1000, lowPDPT: UInt64 = 0x2000, lowPD: UInt64 = 0x3000, lowPT: UInt64 = 0x4000
        static let highPDPT: UInt64 = 0x5000, highPD: UInt64 = 0x6000
        /// Page offset within the user half's 2 MiB + this = physical address.
        static let user: UInt64 = 0x40_0000
        static let kernel: UInt64 = 0x20_0000
    }
    static let kernelBase: UInt64 = 0xffff_8000_0000_0000
    static let idt = kernelBase, gdt = kernelBase + 0x1000, tss = kernelBase + 0x1100
    static let handlers = kernelBase + 0x2000, kernelStack = kernelBase + 0x8000

    let engine: any VCPU
    let memory: GuestMemory
    private let before: UnsafeMutableRawPointer
    private let image: [UInt8]
    private var dirtyCode: (address: UInt64, count: Int)?
    private let watchdog: Watchdog

    static func makeMemory() throws -> GuestMemory { try GuestMemory(byteCount: 16 << 20) }

    /// - Parameter memory: of `makeMemory`, and the engine's.
    init(engine: any VCPU, memory: GuestMemory, image: MemoryImage) throws {
        self.engine = engine
        watchdog = Watchdog(engine.requests)
        self.memory = memory
        self.image = unsafe image.withUnsafeBytes { unsafe [UInt8]($0) }
        unsafe before = .allocate(byteCount: self.image.count, alignment: 64)
        unsafe before.copyMemory(from: self.image, byteCount: self.image.count)
        try fillUserPages()
        try buildPageTables()
        try buildKernel()
        engine.withState { Self.enterLongMode(&$0) }
    }

    deinit {
        watchdog.end()
        unsafe before.deallocate()
    }

    private func physical(_ address: UInt64) -> GuestPhysicalAddress {
        GuestPhysicalAddress(Physical.user + address & 0x1f_ffff)
    }

    private func fillUserPages() throws {
        try memory.write([UInt8](repeating: 0xcc, count: 0x4000), at: physical(OracleLayout.code.lowerBound))
        for region in [OracleLayout.data, OracleLayout.stack, OracleLayout.rom] {
            let start = OracleLayout.imageOffset(region.lowerBound)!
            try memory.write(image[start..<start + region.count], at: physical(region.lowerBound))
        }
    }

    /// SDM 3A, 4.5. User pages one by one; the kernel half one supervisor page of 2 MiB.
    private func buildPageTables() throws {
        let present: UInt64 = 1, writable: UInt64 = 2, user: UInt64 = 4, noExecute: UInt64 = 1 << 63
        func entry(_ table: UInt64, _ index: UInt64, _ value: UInt64) throws {
            try memory.store(value, at: GuestPhysicalAddress(table + index * 8))
        }
        let base = OracleLayout.code.lowerBound
        try entry(Physical.pml4, 0, Physical.lowPDPT | present | writable | user)
        try entry(Physical.lowPDPT, 0, Physical.lowPD | present | writable | user)
        try entry(Physical.lowPD, base >> 21, Physical.lowPT | present | writable | user)
        func map(_ region: Range<UInt64>, _ rights: UInt64) throws {
            for page in stride(from: region.lowerBound, to: region.upperBound, by: 4096) {
                try entry(Physical.lowPT, page >> 12 & 511, physical(page).rawValue | present | user | rights)
            }
        }
        try map(OracleLayout.code, 0)
        try map(OracleLayout.data, writable | noExecute)
        try map(OracleLayout.stack, writable | noExecute)
        try map(OracleLayout.rom, noExecute)
        try entry(Physical.pml4, 256, Physical.highPDPT | present | writable)
        try entry(Physical.highPDPT, 0, Physical.highPD | present | writable)
        try entry(Physical.highPD, 0, Physical.kernel | present | writable | 1 << 7)
    }

    private func kernel(_ address: UInt64) -> GuestPhysicalAddress {
        GuestPhysicalAddress(Physical.kernel + address & 0x1f_ffff)
    }

    private func buildKernel() throws {
        // Gates (SDM 3A, figure 6-8): to 10:handler, interrupt gate; INT3's may be called by user code.
        for vector: UInt64 in 0..<256 {
            let handler = Self.handlers + vector * 16
            let attributes: UInt64 = vector == 3 ? 0xee00 : 0x8e00
            let low = handler & 0xffff | 0x10 << 16 | attributes << 32 | (handler >> 16 & 0xffff) << 48
            try memory.store(low, at: kernel(Self.idt + vector * 16))
            try memory.store(handler >> 32, at: kernel(Self.idt + vector * 16 + 8))
            try memory.store(UInt8(0xf4), at: kernel(handler))
        }
        // 10: kernel code, 18: kernel data, 2b: user data, 33: user code, 40: TSS.
        let base = Self.tss
        let tssLow = 103 | (base & 0xff_ffff) << 16 | 0x8b << 40 | (base >> 24 & 0xff) << 56
        let descriptors: [UInt64] = [
            0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff, 0,
            tssLow, base >> 32,
        ]
        for (index, descriptor) in descriptors.enumerated() {
            try memory.store(descriptor, at: kernel(Self.gdt + UInt64(index) * 8))
        }
        // RSP0, and an I/O map past the limit: no port is open.
        try memory.store(Self.kernelStack, at: kernel(base + 4))
        try memory.store(UInt16(104), at: kernel(base + 102))
    }

    private static func enterLongMode(_ state: inout VCPUState) {
        state.cr0 =
            CR0.protectedMode | CR0.monitorCoprocessor | CR0.extensionType | CR0.numericError | CR0.writeProtect
            | CR0.alignmentMask | CR0.paging
        state.cr3 = Physical.pml4
        state.cr4 =
            CR4.physicalAddressExtension | CR4.globalPages | CR4.osFXSR | CR4.osXMMExceptions | CR4.osXSave
            | CR4.fsGSBase
        state.efer =
            EFER.systemCallEnable | EFER.longModeEnable | EFER.longModeActive | EFER.noExecuteEnable
        state.xcr0 = 7
        state.gdtr = DescriptorTable(base: gdt, limit: 0x4f)
        state.idtr = DescriptorTable(base: idt, limit: 0xfff)
        state.tr = Segment(selector: 0x40, base: tss, limit: 103, attributes: 0x8b)
        state.ldtr = Segment(attributes: Segment.unusableBit)
        for name in [SegmentName.ds, SegmentName.es, SegmentName.fs, SegmentName.gs] {
            state.segments[name] = Segment(attributes: Segment.unusableBit)
        }
    }

    // MARK: A case

    func run(_ test: TestCase) -> Outcome {
        watchdog.beat()
        prepareMemory(test)
        engine.withState { Self.load(test, &$0) }
        var outcome = Outcome()
        switch engine.run() {
        case .halt: outcome = readOutcome()
        case .stopped:
            engine.requests.clear(.stop)
            outcome.vector = Outcome.timedOut
        default: outcome.vector = Outcome.died
        }
        watchdog.beat()
        finishMemory(test, &outcome)
        return outcome
    }

    private func prepareMemory(_ test: TestCase) {
        do {
            if let dirtyCode {
                try memory.write([UInt8](repeating: 0xcc, count: dirtyCode.count), at: physical(dirtyCode.address))
            }
            let room = Int(OracleLayout.code.upperBound - test.rip)
            let bytes = test.codeBytes.prefix(room)
            try memory.write(bytes, at: physical(test.rip))
            dirtyCode = (test.rip, bytes.count)
        } catch { preconditionFailure("\(error)") }
        unsafe forEachPatch(test) { patch, bytes in
            unsafe bytes.baseAddress.map { unsafe write($0, patch.address, bytes.count) }
        }
    }

    private func forEachPatch(_ test: TestCase, _ body: (MemoryPatch, UnsafeRawBufferPointer) -> Void) {
        for index in 0..<Int(test.patchCount) {
            let patch = test.patches[index]
            unsafe withUnsafeBytes(of: patch.bytes) { raw in
                unsafe body(patch, UnsafeRawBufferPointer(rebasing: raw.prefix(Int(patch.count))))
            }
        }
    }

    /// Into the Guest's memory and into what it will be compared with.
    private func write(_ bytes: UnsafeRawPointer, _ address: UInt64, _ count: Int) {
        guard let place = unsafe memory.hostPointer(physical(address), count),
            let offset = OracleLayout.imageOffset(address)
        else { preconditionFailure("patch outside of the pages") }
        unsafe place.copyMemory(from: bytes, byteCount: count)
        unsafe (before + offset).copyMemory(from: bytes, byteCount: count)
    }

    private static func load(_ test: TestCase, _ state: inout VCPUState) {
        for index in 0..<16 { state.gpr[index] = test.gpr[index] }
        state.rip = test.rip
        state.rflags = test.rflags
        state.cr2 = 0
        state.segments[SegmentName.cs] = Segment(selector: 0x33, limit: 0xffff_ffff, attributes: 0xa0fb)
        state.segments[SegmentName.ss] = Segment(selector: 0x2b, limit: 0xffff_ffff, attributes: 0xc0f3)
        for index in 0..<64 { state.ymm[index] = test.ymm[index] }
        for index in 0..<20 where index != 3 { state.x87[index] = test.fxsave[index] }
        state.mxcsr = test.mxcsr
    }

    private func readOutcome() -> Outcome {
        engine.withState { state in
            var outcome = Outcome()
            let slot = (state.rip &- Self.handlers) / 16
            outcome.vector = slot < 256 ? slot : Outcome.died
            var frame = state.gpr[Register.rsp]
            func pop() -> UInt64 {
                defer { frame &+= 8 }
                return (try? memory.load(at: kernel(frame), as: UInt64.self)) ?? 0
            }
            if Vector.hasErrorCode(UInt8(truncatingIfNeeded: slot)) { outcome.errorCode = pop() }
            outcome.rip = pop()
            _ = pop()
            outcome.rflags = pop()
            for index in 0..<16 { outcome.gpr[index] = state.gpr[index] }
            outcome.gpr[Register.rsp] = pop()
            outcome.cr2 = state.cr2
            for index in 0..<64 { outcome.ymm[index] = state.ymm[index] }
            for index in 0..<20 { outcome.fxsave[index] = state.x87[index] }
            outcome.fxsave[3] = UInt64(state.mxcsr)
            return outcome
        }
    }

    private func finishMemory(_ test: TestCase, _ outcome: inout Outcome) {
        for region in [OracleLayout.data, OracleLayout.stack] {
            let offset = OracleLayout.imageOffset(region.lowerBound)!
            guard let live = unsafe memory.hostPointer(physical(region.lowerBound), region.count) else { continue }
            let count = outcome.changeCount
            unsafe outcome.noteChanges(
                before: before + offset, after: live, bytes: region.count, address: region.lowerBound)
            if outcome.changeCount != count {
                unsafe image.withUnsafeBytes {
                    unsafe live.copyMemory(from: $0.baseAddress! + offset, byteCount: region.count)
                }
            }
        }
        unsafe forEachPatch(test) { patch, bytes in
            let offset = OracleLayout.imageOffset(patch.address)!
            unsafe image.withUnsafeBytes { unsafe write($0.baseAddress! + offset, patch.address, bytes.count) }
        }
    }
}
//:
