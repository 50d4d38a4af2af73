import Glibc
import HostInterface
import Network
import Synchronization
import Testing

struct SwitchModelTests {
    /// A switch on one page: what each port is yet to fetch.
    private struct Model {
        var queues: [[[UInt8]]]
        var running: [Bool]
        var cards: [[UInt8]]
        var places: [[UInt8]: Int] = [:]

        mutating func send(_ frame: [UInt8], at port: Int) -> Bool {
            let (to, from) = (Array(frame[0..<6]), Array(frame[6..<12]))
            let owner = cards.firstIndex(of: from)
            guard running[port], from[0] & 1 == 0, owner == nil || owner == port else { return false }
            if owner == nil { places[from] = port }
            let place = to[0] & 1 == 1 ? nil : cards.firstIndex(of: to) ?? places[to]
            for other in queues.indices where other != port && running[other] && (place == nil || place == other) {
                queues[other].append(frame)
            }
            return true
        }

        mutating func stop(_ port: Int) {
            running[port] = false
            queues[port] = []
            places = places.filter { $0.value != port }
        }
    }

    @Test(arguments: 2...8) func doesAsTheModelDoes(_ count: Int) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var noise = Noise(seed: seed)
        let lan = Switch()
        let guests = try (0..<count).map { _ in try Neighbour(lan) }
        var model = Model(
            queues: guests.map { _ in [] }, running: guests.map { _ in true }, cards: guests.map(\.card))
        let names = model.cards + (0..<6).map { [2, 0, 0, 0, 0, $0] } + [Packets.broadcast, [1, 0, 0, 0, 0, 1]]
        for step in 0..<20_000 {
            let port = Int.random(in: 0..<count, using: &noise)
            switch Int.random(in: 0..<20, using: &noise) {
            case 0 where model.running[port]:
                model.stop(port)
                guests[port].port.stop()
            case 0,
                1 where !model.running[port]:
                model.running[port] = true
                guests[port].port.start()
            case 2..<6:
                let expected = model.queues[port]
                model.queues[port] = []
                guard guests[port].fetch() == expected else {
                    Issue.record("step \(step): port \(port) did not get what it should")
                    return
                }
            default:
                // Mostly under its own name.
                let from =
                    Int.random(in: 0..<2, using: &noise) == 0 ? names.randomElement(using: &noise)! : model.cards[port]
                let to = names.randomElement(using: &noise)!
                let frame = to + from + [0x88, 0xb5] + Packets.word(UInt32(step)) + noise.bytes(step % 64)
                guard guests[port].guest.send(frame) == model.send(frame, at: port) else {
                    Issue.record("step \(step): port \(port) was refused, or was not")
                    return
                }
            }
        }
        for (guest, expected) in zip(guests, model.queues) { #expect(guest.fetch() == expected) }
    }

    @Test func losesNothingOfManySendersWhileThereIsRoom() throws {
        let lan = Switch()
        let senders = try (0..<4).map { _ in try lan.makePort() }
        let receiver = try Neighbour(lan)
        // Never more than half of the ring: a sender waits for what has been fetched.
        let fetched = Atomic<Int>(0)
        let sent = Atomic<Int>(0)
        let each = 5000
        let target = receiver.card
        let threads = try senders.enumerated().map { index, port in
            port.configure(port.offloads, largestPacket: FrameHeader.largestPacket)
            port.start()
            return try HostThread(name: "sender \(index)") {
                var noise = Noise(seed: UInt64(index))
                for number in 0..<each {
                    var frame = [UInt8](repeating: 0, count: FrameHeader.byteCount) + target + port.card.bytes
                    frame += [0x88, 0xb5, UInt8(index)] + Packets.word(UInt32(number))
                    frame += [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: Int(noise.next() % 3000))
                    while sent.load(ordering: .relaxed) - fetched.load(ordering: .relaxed) > 600 { sched_yield() }
                    sent.wrappingAdd(1, ordering: .relaxed)
                    unsafe frame.withUnsafeMutableBytes { unsafe _ = port.send($0) }
                }
            }
        }
        var next = [Int](repeating: 0, count: senders.count)
        while fetched.load(ordering: .relaxed) < each * senders.count {
            guard let frame = receiver.guest.receive() else {
                Issue.record("after \(next) nothing came any more")
                break
            }
            fetched.wrappingAdd(1, ordering: .relaxed)
            let index = Int(frame[14])
            guard Packets.word(frame, 15) == next[index],
                frame[19...].allSatisfy({ $0 == UInt8(truncatingIfNeeded: next[index]) })
            else {
                Issue.record("sender \(index): a frame is lost, or out of order, or damaged")
                break
            }
            next[index] += 1
        }
        // Whoever still waits for us would do so for ever.
        fetched.store(Int.max / 2, ordering: .relaxed)
        for thread in threads { thread.join() }
        for port in senders { port.stop() }
        #expect(receiver.port.statistics.droppedFrames == 0)
    }

    @Test func survivesPortsThatComeAndGoUnderFire() throws {
        let lan = Switch()
        let sender = try lan.makePort()
        sender.start()
        let isOver = Atomic<Bool>(false)
        let thread = try HostThread(name: "sender") {
            var frame = [UInt8](repeating: 0, count: FrameHeader.byteCount) + Packets.broadcast + sender.card.bytes
            frame += [0x88, 0xb5] + [UInt8](repeating: 7, count: 1000)
            while !isOver.load(ordering: .relaxed) {
                unsafe frame.withUnsafeMutableBytes { unsafe _ = sender.send($0) }
            }
        }
        for _ in 0..<300 {
            let guest = try Neighbour(lan)
            for _ in 0..<3 {
                #expect(guest.guest.receive() != nil)
                guest.port.stop()
                #expect(guest.guest.receive(milliseconds: 0) == nil)
                guest.port.start()
            }
        }
        isOver.store(true, ordering: .relaxed)
        thread.join()
        sender.stop()
    }
}
