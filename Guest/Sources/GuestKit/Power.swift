internal import CGuest

/// Ways to end.
public enum Power {
    /// Ends as one that is done.
    public static func off() -> Never {
        shutDown(Region(LguestHypercall.powerDownText).address, LguestHypercall.powerOff)
    }

    /// Ends, and wants to begin again.
    public static func restart() -> Never {
        shutDown(Region(LguestHypercall.powerDownText).address, LguestHypercall.restart)
    }

    /// Ends as one that could not go on, with a reason.
    public static func crash(_ reason: Text) -> Never {
        reason.withRegion { shutDown($0.address, LguestHypercall.powerOff) }
    }

    private static func shutDown(_ text: UInt64, _ how: UInt64) -> Never {
        guest_disable_interrupts()
        Hypercall.call(LguestHypercall.shutdown, text, how)
        while true {}  // SHUTDOWN does not return.
    }
}
