internal import HostInterface

/// How a Guest ended.
package enum LguestDeath: Equatable, Sendable {
    /// It did SHUTDOWN with a text; "Power down" is that of a Guest that was done.
    case shutdown(text: String)
    /// It wants to be started again.
    case restart
    /// It did what no Guest may: why it was killed.
    case killed(reason: String)

    /// Whether it ended because it wanted to.
    package var isPowerOff: Bool { self == .shutdown(text: LguestHypercall.powerDownText.description) }

    /// What `read` says of it.
    package var reason: String {
        switch self {
        case .shutdown(let text): "CRASH: " + text
        case .restart: "restart"
        case .killed(let reason): reason
        }
    }
}
