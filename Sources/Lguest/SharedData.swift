internal import GuestMemory

/// The Guest's `struct lguest_data`, where the Host reads and writes it. The
/// Guest does the same at any time: each field is read once, and whatever it says is only ever a wish.
@safe struct SharedData {
    private let base: UnsafeMutableRawPointer
    private let memory: GuestMemory
    private let address: GuestPhysicalAddress

    /// Nil if it is not all inside memory.
    init?(at address: GuestPhysicalAddress, in memory: GuestMemory) {
        // SAFETY: memory stays mapped while `memory` lives, and that we keep.
        guard let base = unsafe memory.hostPointer(address, LguestData.byteCount) else { return nil }
        unsafe self.base = base
        self.memory = memory
        self.address = address
    }

    private func load(_ offset: UInt64) -> UInt64 {
        unsafe (base + Int(offset)).loadUnaligned(as: UInt64.self)
    }

    private func store<T: BitwiseCopyable>(_ value: T, at offset: UInt64) {
        unsafe (base + Int(offset)).storeBytes(of: value, as: T.self)
        memory.noteWrite(address + offset, MemoryLayout<T>.size)
    }

    // MARK: Interrupts

    var interruptsAreEnabled: Bool { load(LguestData.irqEnabled) != 0 }
    func enableInterrupts() { store(LguestData.interruptsEnabled, at: LguestData.irqEnabled) }
    var blockedInterrupts: UInt32 { UInt32(truncatingIfNeeded: load(LguestData.blockedInterrupts)) }
    func setInterruptPending(_ isPending: Bool) {
        let value = isPending ? LguestData.interruptsEnabled : 0
        if load(LguestData.irqPending) != value { store(value, at: LguestData.irqPending) }
    }
    /// Where no interrupt may come.
    func isQuiet(at rip: UInt64) -> Bool {
        rip >= load(LguestData.noInterruptStart) && rip < load(LguestData.noInterruptEnd)
    }
    func setTime(_ nanoseconds: UInt64) {
        store(nanoseconds / 1_000_000_000, at: LguestData.time)
        store(nanoseconds % 1_000_000_000, at: LguestData.time + 8)
    }

    // MARK: The ring

    func status(ofSlot slot: Int) -> UInt8 {
        unsafe (base + Int(LguestData.hypercallStatus) + slot).load(as: UInt8.self)
    }
    /// All of them, at once.
    var statuses: SIMD64<UInt8> {
        unsafe (base + Int(LguestData.hypercallStatus)).loadUnaligned(as: SIMD64<UInt8>.self)
    }
    func free(slot: Int) { store(LguestData.slotFree, at: LguestData.hypercallStatus + UInt64(slot)) }
    /// Number, then the arguments; no call looks at the fourth.
    func call(inSlot slot: Int) -> (number: UInt64, UInt64, UInt64, UInt64) {
        let place = LguestData.hypercalls + UInt64(slot) * LguestData.ringEntryBytes
        return (load(place), load(place + 8), load(place + 16), load(place + 24))
    }

    // MARK: What the Host tells

    func introduce(guestID: UInt16, tscKHz: UInt32) {
        store(UInt64(0), at: LguestData.reservedMemory)
        store(tscKHz, at: LguestData.tscKHz)
        store(guestID, at: LguestData.guestID)
    }
}
