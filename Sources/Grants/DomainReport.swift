/// What a domain shares, at one moment. Pages that follow each other and are alike are one entry.
package struct DomainReport: Equatable, Sendable {
    /// Pages that it grants, by consecutive references.
    package struct Grant: Equatable, Sendable {
        package var reference: UInt32
        package var count = 1
        package var mapper: UInt16
        package var isReadOnly: Bool
        /// How many mappings there are of them.
        package var mappings: Int
        /// How often they were mapped, or copied from or to.
        package var uses: UInt64

        package init(
            reference: UInt32, count: Int = 1, mapper: UInt16, isReadOnly: Bool, mappings: Int, uses: UInt64
        ) {
            (self.reference, self.count, self.mapper) = (reference, count, mapper)
            (self.isReadOnly, self.mappings, self.uses) = (isReadOnly, mappings, uses)
        }
    }

    /// Pages of another's that it has.
    package struct Mapping: Equatable, Sendable {
        package var granter: UInt16
        package var reference: UInt32
        package var count = 1
        package var isReadOnly: Bool
        /// Their granter is gone.
        package var isSevered: Bool

        package init(granter: UInt16, reference: UInt32, count: Int = 1, isReadOnly: Bool, isSevered: Bool) {
            (self.granter, self.reference, self.count) = (granter, reference, count)
            (self.isReadOnly, self.isSevered) = (isReadOnly, isSevered)
        }
    }

    package struct Port: Equatable, Sendable {
        package var number: Int
        /// As in "interdomain".
        package var kind: String
        /// Whom it is for, or who is at the other end.
        package var remote: UInt16?
        package var remotePort: Int?
        /// How often it was rung at, from either end.
        package var sent: UInt64

        package init(number: Int, kind: String, remote: UInt16? = nil, remotePort: Int? = nil, sent: UInt64) {
            (self.number, self.kind, self.remote) = (number, kind, remote)
            (self.remotePort, self.sent) = (remotePort, sent)
        }
    }

    package var id: UInt16
    package var name: String
    package var grants: [Grant] = []
    package var mappings: [Mapping] = []
    package var ports: [Port] = []
    /// Entries that are not listed: a Guest can make as many as it likes.
    package var omitted = 0

    /// What is listed of each kind, at most.
    package static let most = 1024

    package init(id: UInt16, name: String) { (self.id, self.name) = (id, name) }
}

extension DomainHouse {
    /// All that is shared now, by domain.
    package var report: [DomainReport] { withLock { state in state.all.map { DomainReport($0) } } }
}

extension DomainReport {
    /// Under the house's lock.
    init(_ domain: Domain) {
        self.init(id: domain.id, name: domain.name)
        for entry in domain.grants.entries {
            if let last = grants.last, last.reference + UInt32(last.count) == entry.reference,
                last.mapper == entry.mapper, last.isReadOnly == entry.isReadOnly,
                (last.mappings > 0) == (entry.mappings > 0)
            {
                grants[grants.count - 1].count += 1
                grants[grants.count - 1].mappings += entry.mappings
                grants[grants.count - 1].uses &+= entry.uses
            } else if grants.count < Self.most {
                grants.append(
                    Grant(
                        reference: entry.reference, mapper: entry.mapper, isReadOnly: entry.isReadOnly,
                        mappings: entry.mappings, uses: entry.uses))
            } else {
                omitted += 1
            }
        }
        for (_, mapping) in domain.mappings.all {
            if let last = mappings.last, last.granter == mapping.granter,
                last.reference + UInt32(last.count) == mapping.reference, last.isReadOnly == mapping.isReadOnly,
                last.isSevered == mapping.isSevered
            {
                mappings[mappings.count - 1].count += 1
            } else if mappings.count < Self.most {
                mappings.append(
                    Mapping(
                        granter: mapping.granter, reference: mapping.reference, isReadOnly: mapping.isReadOnly,
                        isSevered: mapping.isSevered))
            } else {
                omitted += 1
            }
        }
        let open = domain.channels.open
        ports = open.prefix(Self.most).map { number, channel in
            Port(
                number: number, kind: channel.state.name, remote: channel.state.remote?.domain,
                remotePort: channel.state.remote?.port, sent: channel.sent)
        }
        omitted += open.count - ports.count
    }
}

extension ChannelState {
    fileprivate var name: String {
        switch self {
        case .closed: "closed"
        case .unbound: "unbound"
        case .interdomain: "interdomain"
        case .virtualIRQ: "virq"
        case .interprocessor: "ipi"
        case .store: "store"
        }
    }

    fileprivate var remote: (domain: UInt16, port: Int?)? {
        switch self {
        case .unbound(let remote): (remote, nil)
        case .interdomain(let remote, let port): (remote, port)
        case .closed, .virtualIRQ, .interprocessor, .store: nil
        }
    }
}
