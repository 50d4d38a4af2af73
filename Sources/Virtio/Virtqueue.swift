package import GuestMemory
internal import HostInterface
internal import Synchronization

//D:030 A queue, from the device's side
//
// Three counters chase each other around the rings, 16 bits each, and wrap:
//
//      available.idx     the driver's: chains it has put in so far
//      nextAvailable     ours: chains we have taken out
//      used.idx          ours: chains we have given back, in any order
//
// and the first two, and the last two, never differ by more than the queue's
// size. A driver that claims so has lost count or wants to hurt us, and is
// told to start over (`DriverBreach`). So is one whose descriptors run in a
// circle, or out of its memory, or come in the wrong order: each of these is
// a rule with a test (Tests/VirtioTests/HostileDriverTests).
//
// Everything here lies in memory that the Guest can change between any two of
// our instructions. A descriptor is therefore read once, into two words of our
// own, and only these are looked at.

/// The device's side of one split virtqueue (virtio 1.2, 2.7). One thread at a
/// time uses it: the queue's service thread.
@safe package final class Virtqueue: @unchecked Sendable {
    package let index: Int
    package let size: UInt16
    package let doorbell: Doorbell
    package let counters: QueueCounters

    private let memory: GuestMemory
    private let ram: RAMView
    private let usedAddress: GuestPhysicalAddress
    private let usedBytes: Int
    private let descriptors: UnsafeRawPointer
    private let availableFlags: UnsafePointer<Atomic<UInt16>>
    private let availableIndex: UnsafePointer<Atomic<UInt16>>
    private let availableHeads: UnsafePointer<UInt16>
    /// After the heads: from which used index on the driver wants an interrupt.
    private let usedEvent: UnsafePointer<Atomic<UInt16>>
    private let usedFlags: UnsafePointer<Atomic<UInt16>>
    private let usedIndex: UnsafePointer<Atomic<UInt16>>
    private let usedElements: UnsafeMutableRawPointer
    /// After the elements: from which available index on we want a notification.
    private let availableEvent: UnsafePointer<Atomic<UInt16>>

    private let hasEventIndex: Bool
    private let hasIndirect: Bool
    private let interrupt: @Sendable () -> Void
    private let isGuestAsleep: @Sendable () -> Bool

    private var nextAvailable: UInt16 = 0
    /// Chains that the driver has made available and we have not taken, as far as we have looked.
    private var known: UInt16 = 0
    private var nextUsed: UInt16 = 0
    /// Chains completed since we last thought about an interrupt.
    private var quiet = 0
    private var inFlight: UInt16 = 0
    private var spare: [DescriptorChain] = []
    /// With interrupts, and with sleep.
    private var patienceBefore = Patience()
    private var patienceAfter = Patience()

    /// - Parameters:
    ///   - layout: has been checked against `memory`.
    ///   - interrupt: tells the driver that there are used buffers.
    ///   - isGuestAsleep: whether the Guest can put nothing in before it is interrupted. A hint.
    package init(
        _ layout: QueueLayout, index: Int, memory: GuestMemory, features: UInt64, doorbell: Doorbell,
        counters: QueueCounters, interrupt: @escaping @Sendable () -> Void,
        isGuestAsleep: @escaping @Sendable () -> Bool = { false }
    ) {
        self.index = index
        size = layout.size
        self.memory = memory
        ram = memory.view
        self.doorbell = doorbell
        self.counters = counters
        self.interrupt = interrupt
        self.isGuestAsleep = isGuestAsleep
        hasEventIndex = features & VirtioFeature.eventIndex != 0
        hasIndirect = features & VirtioFeature.indirectDescriptors != 0
        usedAddress = layout.used
        usedBytes = layout.usedBytes

        // SAFETY: `QueueLayout.check` saw that each table is RAM, and RAM stays mapped while `memory` lives.
        guard let table = unsafe memory.hostPointer(layout.descriptors, layout.descriptorTableBytes),
            let available = unsafe memory.hostPointer(layout.available, layout.availableBytes),
            let used = unsafe memory.hostPointer(layout.used, layout.usedBytes)
        else { preconditionFailure("a queue outside RAM") }
        let count = Int(size)
        unsafe descriptors = UnsafeRawPointer(table)
        /// A word that both sides use at any time, where it is aligned: `check` saw to that.
        func shared(_ place: UnsafeMutableRawPointer) -> UnsafePointer<Atomic<UInt16>> {
            unsafe UnsafePointer(place.assumingMemoryBound(to: Atomic<UInt16>.self))
        }
        unsafe availableFlags = shared(available)
        unsafe availableIndex = shared(available + 2)
        unsafe availableHeads = UnsafePointer((available + 4).assumingMemoryBound(to: UInt16.self))
        unsafe usedEvent = shared(available + 4 + 2 * count)
        unsafe usedFlags = shared(used)
        unsafe usedIndex = shared(used + 2)
        unsafe usedElements = used + 4
        unsafe availableEvent = shared(used + 4 + 8 * count)
        spare.reserveCapacity(count)
    }

    // MARK: Taking chains

    /// The next chain that the driver has made available; nil if there is none now.
    package func next() throws(DriverBreach) -> DescriptorChain? {
        if known == 0 {
            // ORDERING: pairs with the driver's write barrier before it moves
            // the index: the heads and descriptors are there.
            known = unsafe availableIndex.pointee.load(ordering: .acquiring) &- nextAvailable
            guard known <= size else {
                throw DriverBreach("queue \(index): the available index jumped by \(known), over \(size) entries")
            }
            if known == 0 { return nil }
        }
        guard inFlight < size else {
            throw DriverBreach("queue \(index): more than \(size) chains at once")
        }
        let head = unsafe availableHeads[Int(nextAvailable & (size &- 1))]
        guard head < size else { throw DriverBreach("queue \(index): descriptor \(head) of \(size)") }
        let chain = spare.popLast() ?? DescriptorChain(capacity: Int(size))
        try read(chain, head)
        nextAvailable &+= 1
        known &-= 1
        inFlight &+= 1
        counters.took(chain, inFlight: inFlight)
        return chain
    }

    private struct Flag {
        static let next: UInt16 = 1
        static let write: UInt16 = 2
        static let indirect: UInt16 = 4
    }

    private func read(_ chain: DescriptorChain, _ head: UInt16) throws(DriverBreach) {
        chain.head = head
        chain.readable.clear()
        chain.writable.clear()
        var table = unsafe descriptors
        var length = size
        var isIndirect = false
        var position = head
        var steps: UInt16 = 0
        while true {
            // A chain may visit each descriptor once, so more steps than there are is a circle.
            guard steps < length else { throw DriverBreach("queue \(index): a chain that runs in a circle") }
            steps &+= 1
            // The one and only look at it.
            let place = unsafe table + Int(position) * QueueLayout.descriptorBytes
            let address = GuestPhysicalAddress(unsafe place.loadUnaligned(as: UInt64.self))
            let words = unsafe (place + 8).loadUnaligned(as: UInt64.self)
            let bytes = Int(words & 0xffff_ffff)
            let flags = UInt16(truncatingIfNeeded: words >> 32)

            if flags & Flag.indirect != 0 {
                guard hasIndirect else { throw DriverBreach("queue \(index): an indirect descriptor, not negotiated") }
                guard !isIndirect else { throw DriverBreach("queue \(index): an indirect table in an indirect table") }
                guard flags & Flag.next == 0 else {
                    throw DriverBreach("queue \(index): an indirect table with a next")
                }
                guard bytes > 0, bytes % QueueLayout.descriptorBytes == 0, bytes / 16 <= Int(size) else {
                    throw DriverBreach("queue \(index): an indirect table of \(bytes) bytes")
                }
                guard let pointer = unsafe ram.hostPointer(address, bytes) else {
                    throw DriverBreach("queue \(index): an indirect table at \(address), not inside RAM")
                }
                unsafe table = UnsafeRawPointer(pointer)
                (length, position, steps, isIndirect) = (UInt16(bytes / 16), 0, 0, true)
                continue
            }
            try append(chain, address, bytes, isWritable: flags & Flag.write != 0)
            guard flags & Flag.next != 0 else { return }
            position = UInt16(truncatingIfNeeded: words >> 48)
            guard position < length else {
                throw DriverBreach("queue \(index): a chain leads to descriptor \(position) of \(length)")
            }
        }
    }

    private func append(
        _ chain: DescriptorChain, _ address: GuestPhysicalAddress, _ bytes: Int, isWritable: Bool
    ) throws(DriverBreach) {
        guard let pointer = unsafe ram.hostPointer(address, bytes) else {
            throw DriverBreach("queue \(index): a buffer of \(bytes) bytes at \(address), not inside RAM")
        }
        guard isWritable || chain.writable.byteCount == 0 else {
            throw DriverBreach("queue \(index): a readable buffer after a writable one")
        }
        guard chain.readable.byteCount + chain.writable.byteCount + bytes <= 1 << 32 else {
            throw DriverBreach("queue \(index): a chain of more than 4 GiB")
        }
        let list = isWritable ? chain.writable : chain.readable
        guard unsafe list.append(pointer, bytes) else {
            throw DriverBreach("queue \(index): a chain longer than \(size) buffers")
        }
    }

    // MARK: Giving them back

    /// Gives the chain back to the driver; it is not ours any more.
    ///
    /// - Parameters:
    ///   - written: how many of its writable bytes we have filled, from the first one on.
    ///   - isLast: false for a part of something; the driver sees all parts when the last is given back.
    package func complete(_ chain: DescriptorChain, written: Int, isLast: Bool = true) {
        noteWrites(chain)
        let place = unsafe usedElements + 8 * Int(nextUsed & (size &- 1))
        let length = UInt32(clamping: min(written, chain.writable.byteCount))
        unsafe place.storeBytes(of: UInt32(chain.head), as: UInt32.self)
        unsafe (place + 4).storeBytes(of: length, as: UInt32.self)
        nextUsed &+= 1
        inFlight &-= 1
        quiet += 1
        // ORDERING: pairs with the driver's read barrier after it has read the
        // index: what we wrote, buffers and element, is there.
        if isLast { unsafe usedIndex.pointee.store(nextUsed, ordering: .releasing) }
        counters.completed(written: Int(length))
        spare.append(chain)
    }

    /// The device stops, and this chain with it: the driver never gets it back.
    package func giveUp(_ chain: DescriptorChain) { noteWrites(chain) }

    /// The chain's writable bytes have changed: engines that have translated
    /// code from there must hear of it before the driver can run it.
    private func noteWrites(_ chain: DescriptorChain) {
        guard chain.writable.byteCount > 0 else { return }
        // ORDERING: as in `GuestMemory.noteWrite`.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        unsafe chain.writable.forEachPiece { base, count in
            let start = ram.guestAddress(ofHost: UInt(bitPattern: base)).rawValue
            for page in start >> 12...(start &+ UInt64(count) &- 1) >> 12 where ram.isCode(page: page) {
                memory.noteWrite(GuestPhysicalAddress(page << 12), 1)
            }
        }
    }

    // MARK: Who wakes whom

    /// We are awake and shall look by ourselves: the driver need not notify us.
    package func suppressNotifications() {
        // With an event index there is nothing to do: ours lies behind us, and
        // the driver notifies us only when it passes it.
        if !hasEventIndex { unsafe usedFlags.pointee.store(1, ordering: .relaxed) }
    }

    /// From the next chain on the driver is to notify us.
    ///
    /// - Returns: true if there are chains already, for which it may not have done so.
    package func wantNotifications() -> Bool {
        if hasEventIndex {
            unsafe availableEvent.pointee.store(nextAvailable, ordering: .relaxed)
        } else {
            unsafe usedFlags.pointee.store(0, ordering: .relaxed)
        }
        // ORDERING: our wish, then our look; the driver puts a chain in, then looks for our wish.
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        return hasMore
    }

    /// Whether there are chains that the driver has made available.
    private var hasMore: Bool { unsafe availableIndex.pointee.load(ordering: .acquiring) != nextAvailable }

    /// All that there was has been done. Waits a little for more, if that was
    /// worth while lately; when there is none, interrupts the driver, and
    /// waits a little for what it does about that. When there is none then
    /// either, it is time to sleep.
    ///
    /// - Parameter other: whether there is something else to do.
    /// - Returns: true if there is something to do now.
    package func lingers(or other: () -> Bool = { false }) -> Bool {
        if doorbell.isStopped { return false }
        let found = { self.hasMore || other() || self.doorbell.isStopped }
        // A Guest that sleeps puts nothing in.
        if patienceBefore.look(for: found, unless: { self.isGuestAsleep() }) { return true }
        interruptIfWanted()
        return patienceAfter.look(for: found, unless: { false }) || wantNotifications()
    }

    /// Interrupts the driver for what has been completed since the last call,
    /// if it wants that (virtio 1.2, 2.7.7.2).
    package func interruptIfWanted() {
        if quiet == 0 { return }
        // A driver that finds what we have done by itself can keep us busy for
        // so long that the index comes round. Then it has passed every event.
        let passed = UInt16(clamping: quiet)
        quiet = 0
        // ORDERING: the used index, then our look at the wish; the driver
        // writes its wish, then looks at the index. `noteWrite` has the fence.
        memory.noteWrite(usedAddress, usedBytes)
        let isWanted: Bool
        if hasEventIndex {
            let event = unsafe usedEvent.pointee.load(ordering: .relaxed)
            isWanted = passed == .max || nextUsed &- event &- 1 < passed
        } else {
            isWanted = unsafe availableFlags.pointee.load(ordering: .relaxed) & 1 == 0
        }
        counters.asked(interrupted: isWanted)
        if isWanted { interrupt() }
    }

    /// Chains taken and not given back.
    package var chainsInFlight: Int { Int(inFlight) }
}
//:
