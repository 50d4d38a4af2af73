/// Inter-guest DMA as it should be (A4), in values alone: no memory, no addresses, no threads.
struct DMAModel {
    /// A buffer: how many bytes there is room for, or nil for a list that no Guest may have.
    struct Buffer: Equatable {
        var usedLength = 0
        var room: Int? = 0
        var content: [UInt8] = []

        /// Free, of so many bytes, all 0.
        static func free(_ room: Int?) -> Buffer {
            Buffer(room: room, content: [UInt8](repeating: 0, count: room ?? 0))
        }
    }

    struct Guest: Equatable {
        var isAlive = true
        var arrays: [[Buffer]]
        var interrupts: Set<Int> = []
    }

    struct Binding {
        let guest: Int
        let key: Int
        let array: Int
        let count: Int
        let irq: Int
        var next = 0
    }

    private(set) var guests: [Int: Guest] = [:]
    /// In the order in which they were made.
    private var bindings: [Binding] = []

    mutating func open(_ guest: Int, _ arrays: [[Buffer]]) { guests[guest] = Guest(arrays: arrays) }

    mutating func close(_ guest: Int) {
        guests[guest] = nil
        bindings.removeAll { $0.guest == guest }
    }

    mutating func restock(_ guest: Int, _ array: Int, _ index: Int, room: Int?) {
        guests[guest]?.arrays[array][index] = .free(room)
    }

    mutating func takeInterrupts(_ guest: Int) -> Set<Int> {
        defer { guests[guest]?.interrupts = [] }
        return guests[guest]?.interrupts ?? []
    }

    mutating func bind(_ guest: Int, key: Int, array: Int, count: Int, irq: Int) -> Bool {
        guard irq < 32 else { return false }
        if irq == 0 {
            let found = bindings.firstIndex { $0.guest == guest && $0.key == key && $0.array == array }
            if let found { bindings.remove(at: found) }
            return found != nil
        }
        guard bindings.count(where: { $0.guest == guest }) < 32 else { return false }
        bindings.append(Binding(guest: guest, key: key, array: array, count: count, irq: irq))
        return true
    }

    /// - Parameter bytes: nil for a list that no Guest may have.
    /// - Returns: the sender's used_len; nil: as it was.
    mutating func send(_ guest: Int, key: Int, _ bytes: [UInt8]?) -> Int? {
        for _ in 0..<2 {
            guard let number = bindings.firstIndex(where: { $0.key == key && $0.guest != guest }) else { return nil }
            let binding = bindings[number]
            guard let receiver = guests[binding.guest] else { return nil }
            let order = (0..<binding.count).map { (binding.next + $0) % binding.count }
            let buffers = receiver.arrays[binding.array]
            guard let index = order.first(where: { buffers[$0].usedLength == 0 }) else {
                interrupt(binding)
                continue
            }
            guard let room = buffers[index].room else {
                guests[binding.guest]?.isAlive = false
                return 0
            }
            guard let bytes else {
                guests[guest]?.isAlive = false
                return 0
            }
            let count = min(room, bytes.count)
            if count == 0, !bytes.isEmpty { return 0 }
            guests[binding.guest]?.arrays[binding.array][index].content.replaceSubrange(
                0..<count, with: bytes[..<count])
            guests[binding.guest]?.arrays[binding.array][index].usedLength = count
            bindings[number].next = (binding.next + 1) % binding.count
            interrupt(binding)
            return count
        }
        return nil
    }

    private mutating func interrupt(_ binding: Binding) {
        if guests[binding.guest]?.isAlive == true { guests[binding.guest]?.interrupts.insert(binding.irq) }
    }
}
