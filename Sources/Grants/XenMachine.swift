/// What the machine around a domain does for it.
package protocol XenMachine: AnyObject {
    /// Makes interrupting the Guest by `vector` past its interrupt controller. Nil: there is no such way.
    func upcall(directly vector: UInt8) -> (@Sendable () -> Void)?

    /// Makes interrupting the Guest by `vector` as its interrupt controller does. Nil: there is no such way.
    func upcall(byMessage vector: UInt8) -> (@Sendable () -> Void)?

    /// Makes interrupting the Guest by an interrupt line. Nil: there is no such line.
    func upcall(byLine number: Int) -> (@Sendable () -> Void)?

    /// The Guest wants its run to end: SHUTDOWN_*. False: not for that reason.
    func shutDown(_ reason: UInt32) -> Bool

    /// Somebody wants the Guest to stop: what may take long is to be left.
    var isStopping: Bool { get }

    /// The rights of a page have become less. On the vCPU's thread.
    func flushTranslations()
}
