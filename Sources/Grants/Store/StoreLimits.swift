/// What one Guest may have of the store. A Guest cannot take from another: all
/// of these are counted for each. The host itself has no quotas.
package struct StoreLimits: Sendable {
    /// Nodes that it owns, wherever they are; as xenstored's.
    package var nodes = 1000
    /// Names and values of the nodes that it owns. Each open transaction may be all that still holds what has been
    /// overwritten since it began, so this is multiplied by `transactions` and by the number of Guests.
    package var bytes = 256 << 10
    /// Of one node's value, as xenstored's.
    package var valueBytes = 2048
    package var watches = 128
    /// Open at one time; as xenstored's.
    package var transactions = 10
    /// In one transaction: changes, and nodes looked at. What it holds on to must end somewhere.
    package var transactionSteps = 1024
    /// Of one node: its owner, and four others.
    package var permissions = 5
    /// How many names a new node's path may have. xenstored has no such limit, but a chain of nodes is let go of
    /// by one function that calls itself, and a thread's stack is finite.
    package var depth = 128
    /// Watch events that wait for room in its ring.
    package var pendingEventBytes = 64 << 10
    /// Taken in one call, so that a Guest with two CPUs cannot keep one of them here by feeding it from the other.
    /// A ring full of the shortest requests is no more than this.
    package var requestsPerCall = 64

    package init() {}
}

/// Why the store does not listen to a Guest any more.
package enum StoreLoss: String, Error, Sendable, CaseIterable {
    case requestIndexes = "the request ring's indexes are more than a ring apart"
    case responseIndexes = "the response ring's indexes are more than a ring apart"
    case requestTooLong = "a request has more than 4096 bytes"
}

package struct StoreStatistics: Sendable, Equatable {
    package internal(set) var requests: UInt64 = 0
    /// Of the requests, those that were answered with an error.
    package internal(set) var errors: UInt64 = 0
    package internal(set) var commits: UInt64 = 0
    package internal(set) var conflicts: UInt64 = 0
    package internal(set) var events: UInt64 = 0
    /// Said nothing that was not already waiting to be said.
    package internal(set) var eventsMerged: UInt64 = 0
    /// Had no room, in the queue or in a message.
    package internal(set) var eventsDropped: UInt64 = 0
    /// Connections lost since the store began.
    package internal(set) var losses: [StoreLoss: Int] = [:]
}
