internal import GuestMemory
internal import HostInterface

//H:320 Two Guests meet at a key
//
// A Guest that wants to receive binds an array of empty buffers to a key; one
// that wants to send names a key and a full one. The key is an address, and
// what counts is not its number but what is there: two Guests that have the
// same page of shared memory, each at an address of its own, mean the same key
// when they mean the same word of it. lguest borrowed that from futexes
// (get_futex_key), which have the very same problem; we ask the Guest's memory
// for the place.
//
// A word that nobody else can see is a key, too: between the Guest and its own
// Launcher.

/// What a binding hangs on.
enum DMAKey: Hashable {
    /// Guests that share memory meet here.
    case shared(MemoryPlace)
    /// A Guest's own memory: it is its Launcher that receives, and answers.
    case own(guest: UInt16, address: UInt64)

    /// Nil for what cannot be a key.
    init?(_ address: GuestPhysicalAddress, of guest: LguestGuest, in memory: GuestMemory) {
        guard address.rawValue % 4 == 0, memory.contains(address, 4) else { return nil }
        self = memory.place(of: address).map(DMAKey.shared) ?? .own(guest: guest.id, address: address.rawValue)
    }

    var isShared: Bool { if case .shared = self { true } else { false } }
}

/// An array of buffers that a Guest has put out.
final class DMABinding: @unchecked Sendable {
    let key: DMAKey
    let guest: LguestGuest
    let memory: GuestMemory
    let array: GuestPhysicalAddress
    let count: Int
    let irq: Int
    /// Where to look for a free one first.
    private var next = 0

    init(key: DMAKey, guest: LguestGuest, memory: GuestMemory, array: GuestPhysicalAddress, count: Int, irq: Int) {
        (self.key, self.guest, self.memory) = (key, guest, memory)
        (self.array, self.count, self.irq) = (array, count, irq)
    }

    /// The first free buffer from the cursor on.
    ///
    /// - Throws: for an array that is not in memory.
    func findFree() throws(DMAFault) -> GuestPhysicalAddress? {
        for step in 0..<count {
            let address = array + UInt64((next &+ step) % count * LguestDMA.byteCount)
            guard let used = DMAUsedLength.load(at: address, in: memory) else {
                throw DMAFault(reason: "bad address in registered DMA struct \(address)")
            }
            if used == 0 { return address }
        }
        return nil
    }

    /// A buffer was filled.
    func advance() { next = (next + 1) % max(count, 1) }
}

/// All bindings of all Guests of one Host. Used under the Host's lock.
struct DMARegistry: @unchecked Sendable {
    /// In the order in which they were bound.
    private var bindings: [DMAKey: [DMABinding]] = [:]
    private var counts: [UInt16: Int] = [:]

    /// False if the Guest has bound all that it may.
    mutating func bind(_ binding: DMABinding) -> Bool {
        let bound = counts[binding.guest.id, default: 0]
        guard bound < LguestDMA.maximumBindings else { return false }
        counts[binding.guest.id] = bound + 1
        bindings[binding.key, default: []].append(binding)
        return true
    }

    /// False if there is no such binding. Of two the first goes.
    mutating func unbind(_ key: DMAKey, guest: LguestGuest, array: GuestPhysicalAddress) -> Bool {
        guard let index = bindings[key]?.firstIndex(where: { $0.guest === guest && $0.array == array }) else {
            return false
        }
        bindings[key]?.remove(at: index)
        if bindings[key]?.isEmpty == true { bindings[key] = nil }
        counts[guest.id, default: 1] -= 1
        return true
    }

    /// Forgets all of a Guest's.
    mutating func removeAll(of guest: LguestGuest) {
        guard counts.removeValue(forKey: guest.id) != nil else { return }
        bindings = bindings.compactMapValues { list in
            let rest = list.filter { $0.guest !== guest }
            return rest.isEmpty ? nil : rest
        }
    }

    /// Who gets what `sender` sends to the key: the first who bound it, and is somebody else.
    func receiver(of key: DMAKey, from sender: LguestGuest) -> DMABinding? {
        bindings[key]?.first { $0.guest !== sender }
    }

    /// A Guest's own array: what its Launcher fills.
    func own(_ key: DMAKey, of guest: LguestGuest) -> DMABinding? { bindings[key]?.first { $0.guest === guest } }

    /// How many a Guest has bound.
    func count(of guest: LguestGuest) -> Int { counts[guest.id, default: 0] }
}
//:
