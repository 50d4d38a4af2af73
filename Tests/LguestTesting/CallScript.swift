internal import GuestMemory
internal import HostInterface
internal import Lguest
internal import VirtioTesting

/// What two Guests of one Host ask of it, in hypercalls with any arguments, and
/// their Launchers in any words; and what they write into `lguest_data` and
/// their DMA lists meanwhile. After it the Host must serve the next two.
package struct CallScript {
    private static let page: UInt64 = 0x50000, list: UInt64 = 0x60000, data: UInt64 = 0x70000
    /// HALT would wait for an interrupt that no script sends.
    private static let calls = Array(0...LguestHypercall.sendInterrupts + 1).filter { $0 != LguestHypercall.halt }

    private var script: ScriptBytes
    private let host = ScriptedHost()
    private let region: SharedRegion
    private var guests: [ScriptedGuest] = []

    package init(_ bytes: [UInt8]) throws {
        script = ScriptBytes(bytes)
        region = try SharedRegion(name: "shared", byteCount: 4096)
        for _ in 0..<2 { guests.append(try open()) }
    }

    private func open() throws -> ScriptedGuest { try ScriptedGuest(in: host, regions: [(region, at: Self.page)]) }

    /// - Throws: if the Host does not work afterwards.
    package mutating func run() throws {
        while !script.isOver {
            let index = Int(script.byte() & 1)
            let (guest, other) = (guests[index], guests[1 - index])
            let wasAlive = other.guest.death == nil
            try act(guest)
            if wasAlive, case .killed(let reason) = other.guest.death {
                // Only for a list or an array of its own.
                guard reason.hasPrefix("bad DMA entry") || reason.hasPrefix("bad address in registered") else {
                    throw DriverError("the other guest has died: \(reason)")
                }
            }
            for index in guests.indices where guests[index].guest.death != nil {
                guests[index].guest.close()
                guests[index] = try open()
            }
        }
        for index in guests.indices {
            guests[index].guest.close()
            guests[index] = try open()
        }
        try expectMessage(from: guests[0], to: guests[1])
    }

    private mutating func address() -> UInt64 {
        let kind = script.byte()
        switch kind & 7 {
        case 0, 1: return Self.page + UInt64(kind >> 3) * 4
        case 2, 3: return Self.list + UInt64(kind >> 3) * UInt64(LguestDMA.byteCount)
        case 4: return Self.data + script.number(2)
        case 5: return (1 << 20) &- UInt64(script.byte()) &+ UInt64(kind >> 3)
        case 6: return script.number(3)
        default: return script.number(8)
        }
    }

    private mutating func act(_ guest: ScriptedGuest) throws {
        let memory = guest.memory
        switch script.byte() & 15 {
        case 0, 1: call(guest, script.pick(Self.calls), address(), address(), script.number(4))
        case 2, 3: call(guest, LguestHypercall.bindDMA, address(), address(), script.number(2))
        case 4, 5: call(guest, LguestHypercall.sendDMA, address(), address(), 0)
        case 6, 7, 8:
            let sections = (0..<Int(script.byte() & 15) + 1).map { _ in
                (address: address(), byteCount: Int(script.pick([1, 16, 300, 4096, script.number(2)])))
            }
            let used = UInt32(script.pick([0, 0, 0, 1, 77]))
            try memory.putList(
                sections, at: Self.list + UInt64(script.byte() & 7) * UInt64(LguestDMA.byteCount), usedLength: used)
        case 9, 10:
            let slot = Int(script.byte() & 63)
            try memory.fillSlot(slot, script.pick(Self.calls), address(), address(), script.number(4), script.number(8))
        case 11:
            let offset = script.number(2) % UInt64(LguestData.byteCount - 16)
            try memory.put(script.bytes(Int(script.byte() & 15)), Place.data + offset)
        case 12: try? guest.guest.raise(irq: Int(script.byte() & 63) - 8)
        case 13: _ = guest.takeInterrupts()
        case 14:
            let request = [UInt64(script.byte() & 7), address(), script.number(2), address(), address()]
            // BREAK would have `run` do nothing until it is released.
            if request[0] != LguestRequest.breakOut {
                _ = try? guest.guest.write(
                    Array(request.prefix(1 + Int(script.byte() & 7))), cpu: UInt64(script.byte() & 1))
            }
        default: call(guest, script.number(8), address(), address(), address(), privilege: Int(script.byte() & 3))
        }
    }

    private func call(
        _ guest: ScriptedGuest, _ number: UInt64, _ first: UInt64, _ second: UInt64, _ third: UInt64, privilege: Int = 0
    ) {
        guard number != LguestHypercall.halt else { return }
        for guest in guests { removeHalts(guest.memory) }
        var outcome = guest.call(number, first, second, third, privilege: privilege)
        // The Launcher takes note, and goes on; a ring has 64 of these at most.
        for _ in 0...LguestData.ringSize { if case .pending = outcome { outcome = guest.run() } }
    }

    private func removeHalts(_ memory: GuestMemory) {
        for slot in 0..<UInt64(LguestData.ringSize) {
            let place = LguestData.hypercalls + slot * LguestData.ringEntryBytes
            if (try? memory.data(place)) == LguestHypercall.halt { try? memory.setData(place, 0) }
        }
    }

    private func expectMessage(from sender: ScriptedGuest, to receiver: ScriptedGuest) throws {
        try receiver.memory.putList([(Self.data, 100)], at: Self.list)
        try sender.memory.put([1, 2, 3], Self.data)
        try sender.memory.putList([(Self.data, 3)], at: Self.list)
        guard receiver.bind(Self.page, Self.list) == .done(1), sender.send(Self.page, Self.list) == .done(0),
            try receiver.memory.bytes(Self.data, 4) == [1, 2, 3, 0], receiver.takeInterrupts() == [1]
        else { throw DriverError("the host does not send any more") }
    }
}
