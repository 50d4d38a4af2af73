package import HostInterface

extension NetworkOption {
    /// What the option asks for; nil for no network.
    package func makeBackend() throws(HostError) -> (any NetworkBackend)? {
        switch kind {
        case .none: nil
        case .user(let forwards): try UserNetwork(forwards: forwards)
        case .tap(let name): try TAPNetwork(name: name)
        }
    }
}
