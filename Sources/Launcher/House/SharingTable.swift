package import Grants

/// What the Guests of a house share, as tables for a person.
package struct SharingTable {
    private let domains: [DomainReport]

    package init(_ domains: [DomainReport]) { self.domains = domains }

    /// As in "anna (1)"; a number alone for one who is not here.
    private func name(_ id: UInt16) -> String {
        if id == 0 { return "the store" }
        return domains.first { $0.id == id }.map { "\($0.name) (\(id))" } ?? "(\(id))"
    }

    private static func span(_ first: UInt32, _ count: Int) -> String {
        count == 1 ? "\(first)" : "\(first)-\(first + UInt32(count) - 1)"
    }

    package var text: String {
        var grants = TextTable(["GRANTER", "REFERENCES", "TO", "PAGES", "RIGHTS", "MAPPED", "USES"])
        var ports = TextTable(["GUEST", "PORT", "KIND", "WITH", "PORT", "RUNG"])
        var rest: [String] = []
        for domain in domains {
            for grant in domain.grants {
                grants.append([
                    name(domain.id), Self.span(grant.reference, grant.count), name(grant.mapper), "\(grant.count)",
                    grant.isReadOnly ? "read" : "write", grant.mappings == 0 ? "no" : "\(grant.mappings)",
                    "\(grant.uses)",
                ])
            }
            for port in domain.ports {
                ports.append([
                    name(domain.id), "\(port.number)", port.kind, port.remote.map(name) ?? "",
                    port.remotePort.map(String.init) ?? "", "\(port.sent)",
                ])
            }
            let lost = domain.mappings.filter(\.isSevered).reduce(0) { $0 + $1.count }
            if lost > 0 { rest.append("\(name(domain.id)) has \(lost) pages whose granter is gone.\n") }
            if domain.omitted > 0 { rest.append("\(name(domain.id)) has \(domain.omitted) entries more.\n") }
        }
        guard !domains.isEmpty else { return "No guest has Xen's interface (--xen).\n" }
        let parts = [
            grants.isEmpty ? "Nothing is granted.\n" : grants.text, ports.isEmpty ? "" : ports.text, rest.joined(),
        ]
        return parts.filter { !$0.isEmpty }.joined(separator: "\n")
    }
}
