/// At which port of a switch which card was heard last.
///
/// Each port has room for so many addresses and no more. A Guest that speaks under
/// ever new ones forgets its own old ones, and nobody else's: other Guests' frames do
/// not begin to go to everybody, where it could read them.
package struct ForwardingTable {
    /// A Guest's card, and those of a bridge full of containers.
    package static let addressesPerPort = 256

    private struct Place {
        let port: Int
        let slot: Int
    }
    private struct Addresses {
        var slots: [UInt64] = []
        /// What is forgotten next, once all are in use.
        var oldest = 0
    }
    private var places: [UInt64: Place] = [:]
    private var ports: [Int: Addresses] = [:]

    package init() {}

    package var count: Int { places.count }

    package func port(of address: UInt64) -> Int? { places[address]?.port }

    /// `address` has been heard at `port`, and no longer is where it was.
    package mutating func learn(_ address: UInt64, at port: Int) {
        if let place = places[address] {
            if place.port == port { return }
            vacate(place)
        }
        var addresses = ports.removeValue(forKey: port) ?? Addresses()
        if addresses.slots.count < ForwardingTable.addressesPerPort {
            places[address] = Place(port: port, slot: addresses.slots.count)
            addresses.slots.append(address)
        } else {
            let slot = addresses.oldest
            places[addresses.slots[slot]] = nil
            places[address] = Place(port: port, slot: slot)
            addresses.slots[slot] = address
            addresses.oldest = (slot + 1) % ForwardingTable.addressesPerPort
        }
        ports[port] = addresses
    }

    /// The port is gone, and with it whom it led to.
    package mutating func forget(port: Int) {
        for address in ports.removeValue(forKey: port)?.slots ?? [] { places[address] = nil }
    }

    /// Closes the gap with the last of the port's addresses.
    private mutating func vacate(_ place: Place) {
        guard let last = ports[place.port]?.slots.popLast(), var addresses = ports[place.port] else { return }
        if place.slot < addresses.slots.count {
            addresses.slots[place.slot] = last
            places[last] = place
        }
        addresses.oldest = 0
        ports[place.port] = addresses
    }
}
