import HostInterface
import Network
import Synchronization

/// A network that loses one IPv4 packet of the Guest's in `rarity`, and delivers as many twice, both ways.
/// What it loses on the way to the Guest libslirp would send again, but after 6 s, 12 s and so on.
final class LossyNetwork: NetworkBackend {
    private let network: any NetworkBackend
    private let rarity: Int
    private let dice: Mutex<SeededGenerator>
    /// To be delivered once more.
    private let again = Mutex<[UInt8]?>(nil)
    private let lost = Atomic(0)

    init(_ network: any NetworkBackend, rarity: Int, seed: UInt64) {
        self.network = network
        self.rarity = rarity
        dice = Mutex(SeededGenerator(state: seed))
    }

    var lostFrames: Int { lost.load(ordering: .relaxed) }

    private enum Fate { case arrives, isLost, arrivesTwice }

    private func fate() -> Fate {
        switch dice.withLock({ Int.random(in: 0..<rarity, using: &$0) }) {
        case 0: return .isLost
        case 1: return .arrivesTwice
        default: return .arrives
        }
    }

    /// No checksums and segments are left to us: what is sent twice must be whole.
    let offloads: NetworkOffloads = []
    var mtu: Int { 1500 }
    func configure(_ accepted: NetworkOffloads, largestPacket: Int) throws(HostError) {
        try network.configure(accepted, largestPacket: largestPacket)
    }
    func start() throws(HostError) { try network.start() }
    func stop() { network.stop() }
    var readable: Int32 { network.readable }
    var statistics: NetworkStatistics { network.statistics }

    func send(_ frame: UnsafeMutableRawBufferPointer) -> Bool {
        let isIPv4 = unsafe frame.count > 26 && frame[24] == 8 && frame[25] == 0
        switch isIPv4 ? fate() : .arrives {
        case .isLost:
            lost.add(1, ordering: .relaxed)
            return true
        case .arrives: return unsafe network.send(frame)
        case .arrivesTwice:
            var copy = unsafe [UInt8](frame)
            return unsafe copy.withUnsafeMutableBytes { unsafe network.send($0) } && network.send(frame)
        }
    }

    func receive(into buffer: UnsafeMutableRawBufferPointer) -> Int? {
        if let bytes = again.withLock({ $0.take() }) {
            unsafe buffer.copyBytes(from: bytes)
            return bytes.count
        }
        guard let count = unsafe network.receive(into: buffer) else { return nil }
        if fate() == .arrivesTwice {
            let bytes = unsafe [UInt8](buffer.prefix(count))
            again.withLock { $0 = bytes }
        }
        return count
    }
}

/// Numbers that a seed decides (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }
}
