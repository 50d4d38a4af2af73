internal import Interpreter

//S:465 Where the flags are
//
// The check of an address spoils the CPU's arithmetic flags, and the Guest may
// still want them: a function's first pushes come before its first CMP, and
// who knows what its caller left behind. To put them aside and take them back
// around every access costs more than the access. So while a block is written
// we know where the flags are: in the CPU, in their slot, in both, or, when
// nobody will look at them, in neither.
//
//      spill     before anything that spoils the CPU's: into the slot, once
//      fetch     before an instruction that reads them, or changes but a few
//      note      after an instruction that changes them: the slot's are old
//
// A block begins with the flags in the slot if it wants them at all, because
// what it does first, to look at the request word, spoils them. Jumps between
// blocks come in by the entry that suits what they left. Whatever calls Swift
// has the flags in the slot before, and in both places afterwards.

extension BlockTranslator {
    /// The CPU's flags may be spoiled from here on.
    func spillFlags(_ index: Int) {
        if unsafe instruction(index).pointee.liveBefore != 0 && !flagsInSlot { storeFlags() }
        flagsInCPU = false
    }

    /// Into the slot, wanted or not, what is in the CPU alone; there it stays, too.
    func storeFlags() {
        if flagsInCPU && !flagsInSlot {
            e.saveFlags()
            flagsInSlot = true
        }
    }

    /// Whether an instruction that is about to be run wants the flags that are there.
    private func wantsFlags(_ d: Decoded) -> Bool {
        d.reads != 0 || d.changes != 0 && d.liveAfter & ~d.writes != 0
    }

    /// The CPU's flags are what instruction `index` needs them to be.
    func fetchFlags(_ index: Int) {
        if unsafe wantsFlags(instruction(index).pointee) { fetchFlags() }
    }

    func fetchFlags() {
        if flagsInCPU || !flagsInSlot { return }
        e.restoreFlags()
        flagsInCPU = true
    }

    /// Instruction `index` has been run by the CPU.
    func noteFlags(_ index: Int) {
        guard unsafe instruction(index).pointee.changes != 0 else { return }
        flagsInCPU = true
        flagsInSlot = false
    }
}
//:
