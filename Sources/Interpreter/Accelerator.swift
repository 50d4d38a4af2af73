internal import VirtualCPU
internal import GuestMemory
internal import Synchronization
internal import X86

//S:400 A second engine in the first one's chair
//
// The Translator runs a Guest's 64-bit code many times faster than we do, and
// knows nothing of gates, task switches, single steps or real mode. So it does
// not stand beside the Interpreter, it sits in its chair: the same core, the
// same run loop, and where the loop would start a chain of handlers, the
// accelerator runs instead and comes back with the same three kinds of news.
// Whatever it cannot do, it leaves to `execute`, one instruction at a time.

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
}

/// Where generated code finds what it needs, in bytes from the core.
package struct StateOffsets {
    package var rip: Int32 = 0, rflags: Int32 = 0, mxcsr: Int32 = 0, ymm: Int32 = 0, pollMask: Int32 = 0
    package static let codePage = Int32(AddressSlot.codePage * 8)
    package static func segmentBase(_ segment: Int) -> Int32 { Int32((AddressSlot.segmentBases + segment) * 8) }
    /// All of a core.
    package static var coreBytes: Int { unsafe MemoryLayout<Core>.size }
}

/// What of the CPU's mode decides how an instruction is translated.
package struct TranslationMode: OptionSet, Hashable, BitwiseCopyable {
    package let rawValue: UInt8
    @inlinable package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// CPL 3.
    package static let user = TranslationMode(rawValue: 1)
    /// CPL 0 to 2, and user pages may be touched: SMAP off, or AC set.
    package static let open = TranslationMode(rawValue: 2)
    /// SSE, AVX instructions would fault, or must be watched for SIMD exceptions.
    package static let noSSE = TranslationMode(rawValue: 4)
    package static let noAVX = TranslationMode(rawValue: 8)
    /// Both; as a literal it would be an array on the heap first.
    package static let vectors = TranslationMode(rawValue: 12)
}

/// How `execute` ended.
package enum Executed {
    /// RIP is the next instruction's.
    case done
    /// The run loop must look: a fault, an exit.
    case stopped
}

extension InterpreterVCPU {
    /// Whether an accelerator may run now: 64-bit code, and no access that must be looked at.
    var accelerates: Bool { unsafe cpu.core.codeSize == .bits64 && !cpu.seesEveryAccess }

    /// Something that only the run loop does is due: a request, a single step, a shadow's end.
    package var needsRunLoop: Bool {
        let cpu = self.cpu
        return unsafe !accelerates || cpu.core.stepping || cpu.core.shadow
            || requests.pending.rawValue & cpu.core.pollMask != 0
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
            pollMask: offset(&cpu.core.pollMask))
    }

    package var translationMode: TranslationMode {
        let cpu = self.cpu
        var mode: TranslationMode = []
        if unsafe cpu.core.privilege == 3 {
            mode = .user
        } else if unsafe cpu.core.tlb != cpu.core.tlbSets + TLBEntry.supervisor * TLBEntry.setSize {
            mode = .open
        }
        let gates = unsafe Thunk.Gate(rawValue: cpu.core.closedGates)
        if cpu.state.mxcsr & 0x1f80 != 0x1f80 || gates.contains(.sse) { mode.insert(.noSSE) }
        if cpu.state.mxcsr & 0x1f80 != 0x1f80 || gates.contains(.avx) { mode.insert(.noAVX) }
        return mode
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

    // MARK: Work

    /// Runs the instruction at RIP.
    package func execute() -> Executed {
        let cpu = self.cpu
        unsafe cpu.core.event = .lookup
        step(cpu)
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

    /// The physical address that code at RIP is fetched from; nil with the fault pending.
    package func translateRIP() -> UInt64? {
        let cpu = self.cpu
        do throws(Stop) {
            if !isCanonical(cpu.state.rip) { throw cpu.generalProtection() }
            return try cpu.translateFetch(cpu.state.rip)
        } catch { return nil }
    }

    /// A page has become code: no write to it may go unseen.
    package func forgetWritablePages() { cpu.flushOwnTLB() }
}
//:
