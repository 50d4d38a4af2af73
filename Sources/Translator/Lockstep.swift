internal import Interpreter
internal import VirtualCPU
internal import X86

//S:530 Two engines in step
//
// A translator that is wrong seldom dies where it erred. What it got wrong is
// stored, loaded, and a second later a kernel follows a pointer to nowhere. So
// there is an engine that runs everything twice: a block's instructions one
// by one on the Interpreter, then, all of that undone (S:520), the same block
// translated; and it stops at the first block after which the two disagree.
//
// The Translator is held on a short leash: its look-up of code, through which
// every jump goes that is not linked, answers "out" after the first block, and
// the blocks that are on trial are neither linked nor in a jump table. Where
// the stretch ends follows from the block: a jump that is taken, a fault, or
// an instruction whose effects cannot be taken back (I/O, RDTSC, all that is
// the system's), which is the Interpreter's in both worlds and is run once,
// between two stretches. Interrupts come there too.
//
// To run all of a boot twice, block by block, is slow. A block that has agreed
// sixteen times from its beginning to its end is let loose: links and jump tables
// are made, and it runs as fast as ever until it leads to one that is still on
// trial. `lockstep-thorough` wants a thousand. To trust nobody ever works for
// small Guests only: real time goes on, and a kernel whose timer's handler
// takes longer than a tick does nothing else.
//
// Two things differ though nobody erred. An interrupt that is requested between
// the two runs ends only the second one early; and a device may write to what
// both read. So a difference counts if it comes back, three times, with
// nothing requested. What we cannot hide from is a device that looks at RAM
// unasked: it may see a write, its undoing, and the write once more.

/// Sits in the accelerator's place and has both engines run each block.
@safe final class Lockstep: Accelerator, BlockWatcher {
    private final class Trial {
        let listing: BlockListing
        /// Stretches that agreed, and those of them that went on to the block's end.
        var agreed = 0
        var completed = 0
        init(_ listing: BlockListing) { self.listing = listing }
    }

    /// Where the Interpreter's stretch ended.
    struct End {
        /// Lines that were run, and whether the next of them is to be run once.
        var count: Int
        var isFenced = false
        /// Flags that must agree.
        var flags: UInt64
    }

    private let core: InterpreterVCPU
    private let translator: Translator
    private let journal: WriteJournal
    /// So often must a block agree; nil: always.
    private let trials: Int?
    /// By the block's number; nil: trusted.
    private var blocks: [Trial?] = []
    /// Of the block at RIP, which must not run by itself.
    private var held: Trial?
    private var isInterpreting = false
    private var changedCode = false
    private var disagreements = 0

    private let before = CoreSnapshot()
    private let expected = CoreSnapshot()
    private let found = CoreSnapshot()

    /// For tests: is handed the host code of each block, to spoil it.
    var spoil: (_ guest: [UInt8], _ host: UnsafeMutableRawBufferPointer) -> Void = { _, _ in }

    init(core: InterpreterVCPU, translator: Translator, journal: WriteJournal, trials: Int?) {
        self.core = core
        self.translator = translator
        self.journal = journal
        self.trials = trials
        core.journal = journal
        core.accelerator = self
        translator.watcher = self
    }

    // MARK: Blocks on trial

    func translated(_ listing: BlockListing) {
        unsafe spoil(listing.bytes, listing.writable)
        let number = Int(listing.block)
        while blocks.count <= number { blocks.append(nil) }
        blocks[number] = listing.isAmbiguous ? nil : Trial(listing)
    }

    func mayRun(_ block: Int32) -> Bool {
        guard let trial = blocks[Int(block)] else { return true }
        // A block that always leaves by the side is trusted at last, too.
        if let trials, trial.completed >= trials || trial.agreed >= 8 * trials {
            blocks[Int(block)] = nil
            return true
        }
        held = trial
        return false
    }

    // MARK: Accelerator

    func run() {
        while true {
            held = nil
            translator.run()
            guard let trial = held, runTwice(trial, isAlone: translator.heldIsAlone), !core.needsRunLoop else { return }
        }
    }

    func flushTranslations(_ scope: FlushScope) { translator.flushTranslations(scope) }

    func codeWritten(_ physical: UInt64, _ count: Int) {
        if isInterpreting {
            // It will be undone; the Translator's own write is the one that kills.
            if translator.holdsCode(physical, count) { changedCode = true }
        } else {
            translator.codeWritten(physical, count)
        }
    }

    func forgetCode() { translator.forgetCode() }
    func systemCallsChanged() { translator.systemCallsChanged() }

    // MARK: A stretch

    /// False: the run loop is needed.
    ///
    /// Translated code may leave a block in the middle, for code whose accesses
    /// share no checks. Then the Interpreter tries again, up to `limit` lines.
    private func runTwice(_ trial: Trial, isAlone: Bool, limit: Int = .max) -> Bool {
        let listing = trial.listing
        core.save(before)
        journal.open()
        isInterpreting = true
        let end = interpret(listing, limit)
        isInterpreting = false
        journal.close()
        core.save(expected)
        journal.undo()
        core.restore(before)

        if end.count > 0 || !end.isFenced {
            translator.runBlock(until: end.isFenced ? expected.state.rip : nil, isAlone: isAlone)
            core.save(found)
            if !expected.agrees(with: found, flags: end.flags) || !journal.isRepeated {
                let left = found.state.rip &- before.state.rip
                if limit == .max, found.stop.isEmpty,
                    let line = listing.lines.prefix(end.count + 1).firstIndex(where: { UInt64($0.offset) == left }),
                    line > 0 || !isAlone
                {
                    journal.undo()
                    core.restore(before)
                    if core.needsRunLoop { return false }
                    return runTwice(trial, isAlone: isAlone || line == 0, limit: line == 0 ? .max : line)
                }
                return disagree(listing, end)
            }
            disagreements = 0
        }
        trial.agreed += 1
        if end.count == listing.lines.count || end.isFenced { trial.completed += 1 }
        if end.isFenced { return core.execute() == .done }
        return found.stop.isEmpty
    }

    /// Takes everything back, and tries again or gives up.
    private func disagree(_ listing: BlockListing, _ end: End) -> Bool {
        let differences = journal.differences
        journal.undo()
        core.restore(before)
        if core.needsRunLoop { return false }
        disagreements += 1
        if disagreements < 3 { return true }
        let comparison = Comparison(before: before, expected: expected, found: found, flags: end.flags)
        let report = LockstepReport(listing: listing, end: end, comparison: comparison, memory: differences)
        core.leave(.shutdown(reason: report.description))
        return false
    }

    /// The block's instructions one by one, up to where translated code would leave it.
    private func interpret(_ listing: BlockListing, _ limit: Int) -> End {
        var undefined: UInt64 = 0
        let mode = core.translationMode
        changedCode = false
        for (index, line) in listing.lines.enumerated() {
            if index == limit { return End(count: index, flags: line.liveBefore & ~undefined) }
            if !line.isRepeatable { return End(count: index, isFenced: true, flags: line.liveBefore & ~undefined) }
            let rip = core.rip
            guard core.execute() == .done else { return End(count: index, flags: line.liveBefore & ~undefined) }
            undefined = undefined & ~line.defines | line.undefines
            if core.rip != rip &+ UInt64(line.length) || line.kind.endsBlock || changedCode
                || line.kind == .interpret && core.translationMode != mode
            {
                return End(count: index + 1, flags: line.liveAfter & ~undefined)
            }
        }
        return End(
            count: listing.lines.count, flags: listing.lines[listing.lines.count - 1].liveAfter & ~undefined)
    }
}
//:
