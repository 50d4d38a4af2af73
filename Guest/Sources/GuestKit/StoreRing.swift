/// The page between us and the store, byte by byte. Indexes run freely; a byte is at its index modulo 1024.
enum StoreRing {
    private static let size: UInt32 = 1024
    private static let requestsTaken = 2048
    private static let requestsPut = 2052
    private static let responsesTaken = 2056
    private static let responsesPut = 2060

    @safe nonisolated(unsafe) private static var known: Region?
    @safe nonisolated(unsafe) private static var port: UInt32 = 0

    private static var page: Region {
        if let known { return known }
        Ports.begin()
        port = UInt32(truncatingIfNeeded: Xen.parameter(XenABI.HVMPARAM.storeEvtchn))
        let page = XenWindow.page(XenWindow.storePlace)
        guard Xen.parameter(XenABI.HVMPARAM.storePFN) == page.address / UInt64(Pages.size), port != 0 else {
            panic("there is no store")
        }
        known = page
        return page
    }

    /// Tells the store to look.
    static func ring() { Ports.ring(port) }

    private static func count(_ put: Int, _ taken: Int) -> UInt32 {
        // ORDERING: the store releases either index after the bytes, and needs nothing of what we have taken.
        page.loadAcquiringWord(put) &- page.loadAcquiringWord(taken)
    }

    /// False: nothing has come before the deadline.
    static func waitForResponse(before deadline: UInt64) -> Bool {
        if count(responsesPut, responsesTaken) > 0 { return true }
        guard deadline < .max else {
            Interrupts.wait(until: count(responsesPut, responsesTaken) > 0)
            return true
        }
        return Interrupts.wait(until: count(responsesPut, responsesTaken) > 0, before: deadline)
    }

    static func put(_ byte: UInt8) {
        let page = page
        if count(requestsPut, requestsTaken) == size {
            ring()
            Interrupts.wait(until: count(requestsPut, requestsTaken) < size)
        }
        let index: UInt32 = page.load(requestsPut)
        page[Int(index % size)] = byte
        // ORDERING: the byte comes first; the store acquires the index.
        page.storeReleasingWord(index &+ 1, at: requestsPut)
    }

    static func put(word: UInt32) {
        for shift in 0..<4 { put(UInt8(truncatingIfNeeded: word >> UInt32(shift * 8))) }
    }

    static func put(text: Text) {
        for index in 0..<text.count { put(text[index]) }
    }

    /// The next byte, whenever it comes.
    static func take() -> UInt8 {
        let page = page
        if count(responsesPut, responsesTaken) == 0 {
            ring()
            _ = waitForResponse(before: .max)
        }
        let index: UInt32 = page.load(responsesTaken)
        let byte = page[Int(size) + Int(index % size)]
        // ORDERING: the byte has been read; the store acquires the index, and may write over it.
        page.storeReleasingWord(index &+ 1, at: responsesTaken)
        return byte
    }

    static func takeWord() -> UInt32 {
        var word: UInt32 = 0
        for shift in 0..<4 { word |= UInt32(take()) << UInt32(shift * 8) }
        return word
    }
}
