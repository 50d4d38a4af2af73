internal import VirtualCPU
internal import GuestMemory
internal import Synchronization
package import X86

//S:400 A second engine in the first one's chair
//
// The Translator runs a Guest's 64-bit code many times faster than we do, and
// knows nothing of gates, task switches, single steps or real mode. So it does
// not stand beside the Interpreter, it sits in its chair: the same core, the
// same run loop, and where the loop would start a chain of handlers, the
// accelerator runs instead and comes back with the same three kinds of news.
// Whatever it cannot do, it leaves to `execute`, one instruction at a time.

/// Memory for a core that somebody else provides, and keeps for as long as this is kept.
@safe package struct CoreStorage {
    let address: UnsafeMutableRawPointer
    private let owner: AnyObject

    /// - Parameter address: of `StateOffsets.coreBytes` zeroed bytes, aligned to 64.
    package init(_ address: UnsafeMutableRawPointer, of owner: AnyObject) {
        unsafe self.address = address
        self.owner = owner
    }
}

/// Which translations of addresses are void (SDM 3A, 4.10.4.1).
package enum FlushScope {
    case everything
    /// INVLPG: the page, global or not.
    case page(UInt64)
    /// CR3 was written; global translations stay, and with `keepsTranslations` those of the new PCID.
    case addressSpace(keepsTranslations: Bool)
    /// INVPCID's first, second and fourth type.
    case pageOf(pcid: UInt64, address: UInt64)
    case context(pcid: UInt64)
    case allContexts
}

/// Runs 64-bit code on an Interpreter's core. All calls are on the vCPU's thread.
package protocol Accelerator: AnyObject {
    /// Runs from RIP until the run loop is needed. Leaves as a handler does:
    /// with the event set, RIP at the next instruction or the one that stopped.
    func run()
    func flushTranslations(_ scope: FlushScope)
    /// `count` bytes from a physical address, in one page, change.
    func codeWritten(_ physical: UInt64, _ count: Int)
    func forgetCode()
    /// SYSCALL's MSRs are others: see `systemCallTemplates`.
    func systemCallsChanged()
}

/// What SYSCALL and SYSRET put into CS and SS.
package struct SystemCallTemplates {
    package var kernelCode, kernelStack, userCode, userStack: Segment
}

/// Where generated code finds what it needs, in bytes from the core.
package struct StateOffsets {
    package var rip: Int32 = 0, rflags: Int32 = 0, mxcsr: Int32 = 0, ymm: Int32 = 0, pollMask: Int32 = 0
    package var tscOffset: Int32 = 0, tscAux: Int32 = 0, kernelGSBase: Int32 = 0, cr2: Int32 = 0, cr3: Int32 = 0
    /// The first of the segment registers.
    package var segments: Int32 = 0
    /// The pointer to the Interpreter's own TLB set.
    package var tlb: Int32 = 0
    package var privilege: Int32 = 0, modeKey: Int32 = 0, lstar: Int32 = 0, syscallMask: Int32 = 0
    package static let codePage = Int32(AddressSlot.codePage * 8)
    package static func segmentBase(_ segment: Int) -> Int32 { Int32((AddressSlot.segmentBases + segment) * 8) }
    package func selector(_ segment: Int) -> Int32 { segments + Int32(segment * MemoryLayout<Segment>.stride) }
    /// `Segment.base`, the last eight bytes.
    package func base(_ segment: Int) -> Int32 {
        selector(segment) + Int32(MemoryLayout<Segment>.offset(of: \.base) ?? 16)
    }
    /// All of a core.
    package static var coreBytes: Int { unsafe MemoryLayout<Core>.size }
}

/// What of the CPU's mode decides how an instruction is translated.
@frozen public struct TranslationMode: OptionSet, Hashable, BitwiseCopyable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// CPL 3.
    @inlinable public static var user: TranslationMode { TranslationMode(rawValue: 1) }
    /// CPL 0, and user pages may be touched: SMAP off, or AC set.
    @inlinable public static var open: TranslationMode { TranslationMode(rawValue: 2) }
    /// SSE, AVX instructions would fault, or must be watched for SIMD exceptions.
    @inlinable public static var noSSE: TranslationMode { TranslationMode(rawValue: 4) }
    @inlinable public static var noAVX: TranslationMode { TranslationMode(rawValue: 8) }
    /// No access shares its check with another: for code that was left because they could not.
    @inlinable public static var alone: TranslationMode { TranslationMode(rawValue: 16) }
    /// CR4: SMAP, FSGSBASE, TSD.
    @inlinable public static var smap: TranslationMode { TranslationMode(rawValue: 32) }
    @inlinable public static var bases: TranslationMode { TranslationMode(rawValue: 64) }
    @inlinable public static var noTimeStamp: TranslationMode { TranslationMode(rawValue: 128) }
    /// The bits that seldom change.
    @inlinable public static var settings: UInt8 { 12 | 32 | 64 | 128 }
    @inlinable public var isUser: Bool { rawValue & 1 != 0 }
    /// Said here once more, because the library's is a call through a table.
    @inlinable public func contains(_ other: TranslationMode) -> Bool { rawValue & other.rawValue == other.rawValue }
}

/// How `execute` ended.
package enum Executed {
    /// RIP is the next instruction's.
    case done
    /// The run loop must look: a fault, an exit.
    case stopped
}

extension InterpreterVCPU {
    /// Whether an accelerator may run now: 64-bit code at CPL 0 or 3, and no access that must be looked at.
    var accelerates: Bool {
        let cpu = self.cpu
        return unsafe cpu.core.codeSize == .bits64 && (cpu.core.privilege == 0 || cpu.core.privilege == 3)
            && !cpu.seesEveryAccess
    }

    /// Something that only the run loop does is due: a request, a single step, a shadow's end.
    package var needsRunLoop: Bool {
        let cpu = self.cpu
        return unsafe !accelerates || cpu.core.stepping || cpu.core.shadow || cpu.isRequested
    }

    package var stateOffsets: StateOffsets {
        let cpu = self.cpu
        // SAFETY: only differences of addresses are taken.
        func offset<T>(_ field: UnsafeMutablePointer<T>) -> Int32 {
            unsafe Int32(UnsafeMutableRawPointer(field) - cpu.raw)
        }
        return unsafe StateOffsets(
            rip: offset(&cpu.core.state.rip), rflags: offset(&cpu.core.state.rflags),
            mxcsr: offset(&cpu.core.state.mxcsr), ymm: offset(&cpu.core.state.ymm),
            pollMask: offset(&cpu.core.pollMask), tscOffset: offset(&cpu.core.state.tscOffset),
            tscAux: offset(&cpu.core.state.tscAux),
            kernelGSBase: offset(&cpu.core.state.kernelGSBase), cr2: offset(&cpu.core.state.cr2),
            cr3: offset(&cpu.core.state.cr3), segments: offset(&cpu.core.state.segments),
            tlb: offset(&cpu.core.tlb), privilege: offset(&cpu.core.privilege), modeKey: offset(&cpu.core.modeKey),
            lstar: offset(&cpu.core.state.lstar), syscallMask: offset(&cpu.core.state.syscallMask))
    }

    package var translationMode: TranslationMode {
        let cpu = self.cpu
        var mode: UInt8 = 0
        if unsafe cpu.core.privilege == 3 {
            mode = 1
        } else if unsafe cpu.core.tlb != cpu.core.tlbSets + TLBEntry.supervisor * TLBEntry.setSize {
            mode = 2
        }
        let gates = unsafe cpu.core.closedGates
        let isWatched = cpu.state.mxcsr & 0x1f80 != 0x1f80
        if isWatched || gates & 4 != 0 { mode |= 4 }
        if isWatched || gates & 8 != 0 { mode |= 8 }
        let cr4 = cpu.state.cr4
        if cr4 & CR4.smap != 0 { mode |= 32 }
        if cr4 & CR4.fsGSBase != 0 { mode |= 64 }
        if cr4 & CR4.timeStampDisable != 0 { mode |= 128 }
        return TranslationMode(rawValue: mode)
    }

    // MARK: State

    package var rip: UInt64 {
        get { cpu.state.rip }
        set { cpu.state.rip = newValue }
    }
    package var codePage: UInt64 {
        get { cpu.codePage }
        set { cpu.codePage = newValue }
    }
    package var controlRegisters: (cr3: UInt64, cr4: UInt64) { (cpu.state.cr3, cpu.state.cr4) }
    package var arithmeticFlags: UInt64 {
        get { cpu.arithmeticFlags }
        set { cpu.setArithmeticFlags(newValue) }
    }

    /// What the pointer at `StateOffsets.tlb` is with SMAP in force, and without.
    package var dataSets: (closed: UInt, open: UInt, user: UInt) {
        let cpu = self.cpu
        func address(_ set: Int) -> UInt {
            unsafe UInt(bitPattern: cpu.core.tlbSets + set * TLBEntry.setSize)
        }
        return (address(TLBEntry.supervisor), address(TLBEntry.supervisorOpen), address(TLBEntry.user))
    }

    /// Nil where a kernel's SYSCALL does more than enter 64-bit code with
    /// interrupts, traps and AC off and no arithmetic flag set.
    package var systemCallTemplates: SystemCallTemplates? {
        let cpu = self.cpu
        let wanted = RFlags.arithmetic | RFlags.trap | RFlags.interrupt | RFlags.alignmentCheck
        guard cpu.state.efer & EFER.systemCallEnable != 0, cpu.state.syscallMask & wanted == wanted else { return nil }
        return cpu.systemCallSegments
    }

    // MARK: Work

    /// Bytes that `prepare` fills.
    package static var recordBytes: Int { unsafe 2 * MemoryLayout<Instruction>.stride }

    /// Makes the record of an instruction, for `execute(_:)`. Good until `forgetCode`.
    ///
    /// - Parameters:
    ///   - bytes: `count` of them, of which the instruction may need fewer.
    ///   - offset: the instruction's in its page.
    ///   - storage: for `recordBytes`.
    package func prepare(
        _ bytes: UnsafePointer<UInt8>, count: Int, offset: Int, into storage: UnsafeMutableRawPointer
    ) -> Bool {
        let records = unsafe storage.bindMemory(to: Instruction.self, capacity: 2)
        return unsafe makeRecord(bytes, count: count, offset: offset, into: records)
    }

    /// Runs a prepared instruction at RIP, which is on the present code page.
    package func execute(_ record: UnsafeRawPointer) -> Executed {
        let cpu = self.cpu
        unsafe cpu.core.event = .lookup
        let record = unsafe record.assumingMemoryBound(to: Instruction.self)
        unsafe fallbacks.add(record.pointee.mnemonic)
        unsafe run(cpu, record)
        return unsafe cpu.core.event == .lookup ? .done : .stopped
    }

    /// Runs the instruction at RIP.
    package func execute() -> Executed {
        let cpu = self.cpu
        unsafe cpu.core.event = .lookup
        fallbacks.add(step(cpu))
        return unsafe cpu.core.event == .lookup ? .done : .stopped
    }

    /// Where a data access at the present privilege leads; nil, with nothing
    /// left pending, if it would fault.
    package func translateData(_ address: UInt64, write: Bool) -> Translation? {
        let cpu = self.cpu
        do throws(Stop) {
            return try cpu.translate(address, write ? cpu.ownAccess.union(.write) : cpu.ownAccess)
        } catch {
            unsafe cpu.core.event = .lookup
            return nil
        }
    }

    /// Where code at RIP is fetched from; nil with the fault pending.
    package func translateRIP() -> Translation? {
        let cpu = self.cpu
        do throws(Stop) {
            if !isCanonical(cpu.state.rip) { throw cpu.generalProtection() }
            return try cpu.translate(cpu.state.rip, cpu.ownAccess.union(.fetch))
        } catch { return nil }
    }

    /// The physical page that code at a page's address is fetched from; nil, with nothing pending, if none.
    package func translateCode(_ address: UInt64) -> UInt64? {
        let cpu = self.cpu
        do throws(Stop) {
            if !isCanonical(address) { return nil }
            return try cpu.translateFetch(address) & ~0xfff
        } catch {
            unsafe cpu.core.event = .lookup
            return nil
        }
    }

    /// A page has become code: no write to it may go unseen.
    package func forgetWritablePages() { cpu.flushOwnTLB() }
}
//:
