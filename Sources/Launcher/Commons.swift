internal import Grants
internal import GuestMemory
internal import HostInterface
internal import Lguest
internal import Network
internal import Synchronization

/// What the Guests of one process have in common. Any thread; each thing is
/// made when the first Guest wants it.
final class Commons: Sendable {
    /// Guests on lguest's bus reach each other through it.
    let host = LguestHost()
    /// Guests that see Xen share pages in it.
    let domains = DomainHouse()

    private struct State {
        var switches: [String: Switch] = [:]
        var regions: [String: SharedRegion] = [:]
    }

    private let state = Mutex(State())

    func findSwitch(_ name: String) throws(HostError) -> Switch {
        if let found = state.withLock({ $0.switches[name] }) { return found }
        let made = Switch()
        return state.withLock { state in
            let first = state.switches[name] ?? made
            state.switches[name] = first
            return first
        }
    }

    func findRegion(_ region: HouseFile.Region) throws(HostError) -> SharedRegion {
        if let found = state.withLock({ $0.regions[region.name] }) { return found }
        let made = try SharedRegion(name: region.name, byteCount: Int(region.byteCount))
        return state.withLock { state in
            let first = state.regions[region.name] ?? made
            state.regions[region.name] = first
            return first
        }
    }
}
