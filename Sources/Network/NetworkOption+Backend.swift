package import HostInterface

extension NetworkOption {
    /// What the option asks for; nil for no network.
    ///
    /// - Parameter findSwitch: the house's switch of a name.
    package func makeBackend(
        findSwitch: (String) throws(HostError) -> Switch = NetworkOption.noSwitch
    ) throws(HostError) -> (any NetworkBackend)? {
        switch kind {
        case .none: nil
        case .user(let forwards): try UserNetwork(forwards: forwards)
        case .tap(let name): try TAPNetwork(name: name)
        case .switch(let name): try findSwitch(name).makePort(card: macAddress)
        }
    }

    /// Outside of houses there is none.
    package static func noSwitch(_ name: String) throws(HostError) -> Switch {
        throw HostError("cannot connect a guest to \(name)", advice: "a switch needs a house: roost up")
    }
}
