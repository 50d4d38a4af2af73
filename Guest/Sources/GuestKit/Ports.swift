//G:137 Three flags for a ring
//
// A bell that has rung is a bit in a page that we share with Xen. So that
// nobody has to search 4096 bits, Xen also sets a bit for the word that it is
// in, then a byte that says "look". It goes on to the next only if the one
// before was not set yet, and we are interrupted if none of the three was. The
// handler takes them down in the opposite order, and puts the ports' bits into
// a page of our own, where they wait for whoever asks. (The first version left
// them where they were. But then a bell that nobody has asked about does not
// call when it rings again, and who sleeps until a word of memory changes,
// rather than until a bell has rung, sleeps on.)
//
// The byte comes down before the word's bit. The other way round, Xen could
// raise the bit in between, find the byte up, and not call; then we lower the
// byte, and the bit stays up, for good, and nobody is called for that word again.

/// Ports by their number, and the page in which they ring.
enum Ports {
    /// Devices have one for each queue, from 1 up; this is the last.
    private static let irq = 31
    @safe nonisolated(unsafe) private static var sharedInfo: Region?
    /// Bits of ports that have rung, moved from Xen's page.
    @safe nonisolated(unsafe) private static var heard = Region(address: 0, count: 0)
    /// How many use the port, in a byte for each; the last one closes it.
    @safe nonisolated(unsafe) private static var users = Region(address: 0, count: 0)

    /// Before the first port is used. More than once does no harm.
    static func begin() {
        guard sharedInfo == nil else { return }
        sharedInfo = Xen.show(XenABI.XENMAPSPACE.sharedInfo, 0, at: XenWindow.sharedInfoPlace)
        heard = Pages.take().prefix(XenABI.SharedInfo.evtchnWords * 8)
        users = Pages.take()
        Interrupts.handle(irq) { _ in Ports.answerCall() }
        do throws(XenError) {
            try Xen.setParameter(
                XenABI.HVMPARAM.callbackIRQ,
                XenABI.HVMPARAM.callbackTypeGSI << XenABI.HVMPARAM.callbackTypeShift | UInt64(irq))
        } catch { panic("Xen does not call by interrupt \(irq): error \(error.errno)") }
    }

    private static func answerCall() {
        guard let sharedInfo else { return }
        // ORDERING: each is a full barrier, and their order is told above.
        sharedInfo.storeByteInOrder(0, at: XenABI.VCPUInfo.evtchnUpcallPending)
        var words = sharedInfo.clearBits(.max, at: XenABI.VCPUInfo.evtchnPendingSel)
        while words != 0 {
            let offset = words.trailingZeroBitCount * 8
            heard.setBits(sharedInfo.clearBits(.max, at: XenABI.SharedInfo.evtchnPending + offset), at: offset)
            words &= words - 1
        }
    }

    static func hasRung(_ port: UInt32) -> Bool {
        guard let sharedInfo else { return false }
        let (offset, bit) = place(port)
        // Xen's first: an interrupt may move it from there to ours in between.
        // ORDERING: pairs with Xen's setting it, which comes after what the other side wrote before it rang.
        return sharedInfo.loadAcquiringBits(XenABI.SharedInfo.evtchnPending + offset) & bit != 0
            || heard.loadAcquiringBits(offset) & bit != 0
    }

    static func takeRing(_ port: UInt32) -> Bool {
        guard hasRung(port), let sharedInfo else { return false }
        let (offset, bit) = place(port)
        // ORDERING: both are full barriers: what is looked at after this is as it was at that ring, or newer.
        let isNew = sharedInfo.clearBits(bit, at: XenABI.SharedInfo.evtchnPending + offset) & bit != 0
        return heard.clearBits(bit, at: offset) & bit != 0 || isNew
    }

    /// The word of 64 bits, and which of them.
    private static func place(_ port: UInt32) -> (offset: Int, bit: UInt64) {
        (Int(port / 64) * 8, 1 << UInt64(port % 64))
    }

    static func ring(_ port: UInt32) { call(XenABI.EVTCHNOP.send, port) }

    /// The struct is a port, and nothing else; on the stack, so that an interrupt's handler may ring, too.
    private static func call(_ operation: UInt32, _ port: UInt32) {
        unsafe withUnsafePointer(to: port) {
            _ = try? Xen.call(XenABI.Hypercall.eventChannelOp, operation, UInt64(UInt(bitPattern: $0)))
        }
    }

    /// One user more. False: it is nobody's, or it has as many as a byte can count.
    static func retain(_ port: UInt32, isNew: Bool = false) -> Bool {
        guard port < UInt32(users.count), isNew || users[Int(port)] > 0, users[Int(port)] < .max else { return false }
        users[Int(port)] += 1
        return true
    }

    static func release(_ port: UInt32) {
        users[Int(port)] -= 1
        guard users[Int(port)] == 0 else { return }
        call(XenABI.EVTCHNOP.close, port)
        // The next one with this number is another.
        _ = takeRing(port)
    }
}
//:
