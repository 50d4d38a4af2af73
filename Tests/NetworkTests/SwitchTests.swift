import HostInterface
import Network
import Testing

/// A Guest on a switch, with the card that the switch gave it.
final class Neighbour {
    let port: SwitchPort
    let guest: TestGuest
    var card: [UInt8] { port.card.bytes }

    init(_ lan: Switch, offloads: NetworkOffloads? = nil, largestPacket: Int = FrameHeader.largestPacket) throws {
        port = try lan.makePort()
        guest = try TestGuest(port, offloads: offloads, largestPacket: largestPacket)
    }

    /// What it has been sent, and has not fetched yet.
    func fetch() -> [[UInt8]] {
        var frames: [[UInt8]] = []
        while let frame = guest.receive(milliseconds: 0) { frames.append(frame) }
        return frames
    }

    @discardableResult
    func send(to: [UInt8], _ words: [UInt8], from: [UInt8]? = nil) -> Bool {
        guest.send(to + (from ?? card) + [0x88, 0xb5] + words)
    }
}

struct SwitchTests {
    private let lan = Switch()
    /// Not one that the switch gives.
    private let container: [UInt8] = [2, 0, 0, 0, 0, 7]
    private let group: [UInt8] = [1, 0, 0x5e, 0, 0, 1]

    @Test func carriesAFrameToWhomItIsForAndToNobodyElse() throws {
        let (anna, bert, cleo) = try (Neighbour(lan), Neighbour(lan), Neighbour(lan))
        #expect(anna.send(to: bert.card, [1, 2, 3]))
        #expect(bert.fetch() == [bert.card + anna.card + [0x88, 0xb5, 1, 2, 3]])
        #expect(anna.fetch().isEmpty && cleo.fetch().isEmpty)
        #expect(anna.port.statistics.sentFrames == 1 && anna.port.statistics.sentBytes == 17)
        #expect(bert.port.statistics.receivedFrames == 1 && bert.port.statistics.receivedBytes == 17)
    }

    @Test func sendsToAllButTheSenderWhatIsForAllOrForNobodyKnown() throws {
        let (anna, bert, cleo) = try (Neighbour(lan), Neighbour(lan), Neighbour(lan))
        for target in [Packets.broadcast, group, container] {
            anna.send(to: target, [9])
            #expect(anna.fetch().isEmpty)
            #expect(bert.fetch() == [target + anna.card + [0x88, 0xb5, 9]])
            #expect(cleo.fetch().count == 1)
        }
    }

    @Test func learnsWhereASenderIsAndFollowsItWhenItMoves() throws {
        let (anna, bert, cleo) = try (Neighbour(lan), Neighbour(lan), Neighbour(lan))
        bert.send(to: anna.card, [1], from: container)
        cleo.send(to: container, [2])
        #expect(anna.fetch().count == 1 && bert.fetch().count == 1)
        anna.send(to: bert.card, [3], from: container)
        #expect(bert.fetch().count == 1)
        cleo.send(to: container, [4])
        #expect(anna.fetch().count == 1 && bert.fetch().isEmpty)
        // Two behind one port need no switch.
        anna.send(to: container, [5])
        #expect(anna.fetch().isEmpty && bert.fetch().isEmpty && cleo.fetch().isEmpty)
    }

    @Test func givesEachCardAnAddressOfItsOwn() throws {
        let anna = try lan.makePort()
        let bert = try lan.makePort()
        #expect(anna.card.description == "52:54:00:12:34:56" && bert.card.description == "52:54:00:12:34:57")
        let chosen = MACAddress(container)
        let cleo = try lan.makePort(card: chosen)
        #expect(cleo.card == chosen)
        let error = #expect(throws: HostError.self) { try lan.makePort(card: chosen) }
        #expect(
            error?.description
                == "two cards on one network have the address 02:00:00:00:00:07 (leave out mac= for one of them)")
    }

    @Test func takesBackTheAddressOfAPortThatIsGone() throws {
        var first: SwitchPort? = try lan.makePort()
        #expect(first?.card.bytes.last == 0x56)
        first = nil
        #expect(try lan.makePort().card.bytes.last == 0x56)
    }

    /// Drivers reset their card, once at least.
    @Test func forgetsWhatWasForAStoppedPortAndStartsAgain() throws {
        let (anna, bert) = try (Neighbour(lan), Neighbour(lan))
        bert.send(to: anna.card, [0], from: container)
        #expect(anna.fetch().count == 1)
        anna.send(to: bert.card, [1])
        bert.port.stop()
        anna.send(to: bert.card, [2])
        anna.send(to: Packets.broadcast, [3])
        #expect(!bert.send(to: anna.card, [4]))
        #expect(bert.fetch().isEmpty && anna.fetch().isEmpty)
        for round in 5..<10 as Range<UInt8> {
            bert.port.configure(bert.port.offloads, largestPacket: 1500)
            bert.port.start()
            anna.send(to: bert.card, [round])
            #expect(bert.fetch().map { $0[14...] } == [[round]])
            bert.port.stop()
        }
        // The container was behind it; nobody knows where it is now.
        let cleo = try Neighbour(lan)
        anna.send(to: container, [10])
        #expect(cleo.fetch().count == 1)
    }

    @Test func isReadableUntilAllIsFetched() throws {
        let (anna, bert) = try (Neighbour(lan), Neighbour(lan))
        #expect(bert.guest.receive(milliseconds: 0) == nil)
        for _ in 0..<3 {
            anna.send(to: bert.card, [1])
            #expect(waitReadable([bert.port.readable], milliseconds: 0) == [true])
            #expect(bert.fetch().count == 1)
            #expect(waitReadable([bert.port.readable], milliseconds: 0) == [false])
        }
    }

    @Test func dropsAndCountsWhatASlowGuestDoesNotFetchAndServesTheOthers() throws {
        let (anna, bert, cleo) = try (Neighbour(lan), Neighbour(lan), Neighbour(lan))
        let words = [UInt8](repeating: 5, count: 60_000)
        for _ in 0..<200 {
            #expect(anna.send(to: bert.card, words))
            #expect(anna.send(to: cleo.card, words))
            #expect(cleo.fetch().count == 1)
        }
        #expect(cleo.port.statistics.droppedFrames == 0)
        let dropped = Int(bert.port.statistics.droppedFrames)
        let kept = bert.fetch().count
        #expect(kept + dropped == 200)
        #expect(kept > 60 && kept * 60_000 <= 4 << 20)
        anna.send(to: bert.card, [1])
        #expect(bert.fetch().count == 1)
    }

    @Test func dropsAndCountsAPacketThatTheReceiverHasNoRoomFor() throws {
        let anna = try Neighbour(lan)
        let bert = try Neighbour(lan, offloads: [], largestPacket: 1500)
        anna.send(to: bert.card, [UInt8](repeating: 1, count: 1500))
        anna.send(to: bert.card, [UInt8](repeating: 1, count: 1501))
        // The tag of a virtual LAN is no part of the packet.
        anna.guest.send(
            bert.card + anna.card + [0x81, 0, 0, 5, 0x88, 0xb5] + [UInt8](repeating: 2, count: 1500))
        #expect(bert.fetch().map(\.count) == [1514, 1518])
        #expect(bert.port.statistics.droppedFrames == 1)
    }
}

struct HostileNeighbourTests {
    private let lan = Switch()
    private let container: [UInt8] = [2, 0, 0, 0, 0, 7]

    @Test func cannotTakeAnothersFramesByItsName() throws {
        let (anna, bert, cleo) = try (Neighbour(lan), Neighbour(lan), Neighbour(lan))
        #expect(!cleo.send(to: anna.card, [1], from: bert.card))
        #expect(cleo.port.statistics.refusedFrames == 1)
        anna.send(to: bert.card, [2])
        #expect(anna.fetch().isEmpty && bert.fetch().count == 1 && cleo.fetch().isEmpty)
        // Nor while the other one is away.
        bert.port.stop()
        #expect(!cleo.send(to: anna.card, [3], from: bert.card))
        anna.send(to: bert.card, [4])
        #expect(cleo.fetch().isEmpty)
    }

    @Test func isNotLearnedUnderAGroupsNameOrNone() throws {
        let (anna, bert) = try (Neighbour(lan), Neighbour(lan))
        for source in [[1, 0, 0x5e, 0, 0, 1], Packets.broadcast, [0, 0, 0, 0, 0, 0]] as [[UInt8]] {
            #expect(!bert.send(to: anna.card, [1], from: source))
        }
        #expect(anna.fetch().isEmpty && bert.port.statistics.refusedFrames == 3)
    }

    @Test func cannotMakeTheSwitchForgetWhereOthersAre() throws {
        let (anna, bert, cleo) = try (Neighbour(lan), Neighbour(lan), Neighbour(lan))
        bert.send(to: anna.card, [0], from: container)
        for number in 0..<100_000 {
            cleo.send(to: anna.card, [], from: [6, 0] + Packets.word(UInt32(number)))
            if number % 1000 == 0 { _ = anna.fetch() }
        }
        _ = anna.fetch()
        anna.send(to: container, [1])
        #expect(bert.fetch().count == 1 && cleo.fetch().isEmpty)
    }

    @Test(
        arguments: [
            (FrameHeader.byteCount, [], "nothing but a header"),
            (FrameHeader.byteCount + 13, [], "half an Ethernet header"),
            (FrameHeader.largestFrame + 1, [], "more than may be"),
            (5, [], "half a header"),
            (100, [1, 0, 0, 0, 0, 0, 200, 0, 16, 0], "a checksum behind the frame"),
            (100, [0, 0x7f], "an unknown kind of segment"),
            (100, [1, 1, 54, 0, 0, 0, 34, 0, 16, 0], "segments of nothing"),
            (100, [1, 1, 54, 0, 1, 0, 34, 0, 16, 0], "segments of what is no TCP"),
            (100, [1, 4, 74, 0, 1, 0, 54, 0, 16, 0], "segments of what is no TCP, in IPv6"),
        ] as [(Int, [UInt8], String)])
    func isRefused(_ count: Int, _ header: [UInt8], _ what: String) throws {
        let (anna, bert) = try (Neighbour(lan), Neighbour(lan))
        var frame = [UInt8](repeating: 0, count: count)
        frame.replaceSubrange(0..<min(header.count, count), with: header)
        if count >= 24 { frame.replaceSubrange(12..<24, with: bert.card + anna.card) }
        let isSent = unsafe frame.withUnsafeMutableBytes { unsafe anna.port.send($0) }
        #expect(!isSent && anna.port.statistics.refusedFrames == 1, "\(what)")
        #expect(bert.fetch().isEmpty)
    }

    @Test func cannotVouchForItsChecksums() throws {
        let (anna, bert) = try (Neighbour(lan), Neighbour(lan))
        var header = FrameHeader()
        header.flags = .dataValid
        header.headersLength = 1234
        anna.guest.send(bert.card + anna.card + [0x88, 0xb5, 1], header)
        #expect(bert.fetch().count == 1)
        #expect(bert.guest.lastHeader == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0])
    }
}

struct ForwardingTableTests {
    @Test func holdsSoManyOfEachPortAndTheLatest() {
        var table = ForwardingTable()
        let limit = ForwardingTable.addressesPerPort
        for address in 0..<UInt64(10 * limit) { table.learn(address, at: 1) }
        table.learn(1 << 40, at: 2)
        #expect(table.count == limit + 1)
        for address in UInt64(9 * limit)..<UInt64(10 * limit) { #expect(table.port(of: address) == 1) }
        #expect(table.port(of: 0) == nil && table.port(of: 1 << 40) == 2)
        table.forget(port: 1)
        #expect(table.count == 1 && table.port(of: UInt64(10 * limit - 1)) == nil)
    }

    @Test func losesNothingWhileAddressesMoveBetweenPorts() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var noise = Noise(seed: seed)
        var table = ForwardingTable()
        var model: [UInt64: Int] = [:]
        for _ in 0..<100_000 {
            let port = Int.random(in: 0..<4, using: &noise)
            if Int.random(in: 0..<500, using: &noise) == 0 {
                table.forget(port: port)
                model = model.filter { $0.value != port }
            } else {
                // As many as one port holds: none has to be forgotten.
                let address = UInt64.random(in: 0..<UInt64(ForwardingTable.addressesPerPort), using: &noise)
                table.learn(address, at: port)
                model[address] = port
            }
            let asked = UInt64.random(in: 0..<UInt64(ForwardingTable.addressesPerPort), using: &noise)
            guard table.port(of: asked) == model[asked], table.count == model.count else {
                Issue.record("\(asked) is at \(String(describing: model[asked])), not where the table says")
                return
            }
        }
    }
}
