//G:160 The notice board
//
// To lend a page, one must tell the other its number, and for that there must
// be something that both can read already. Xen has the store: a tree of small
// texts, in the Host, each with an owner who says who may read it. One number
// there is enough. It is the reference of a page, and the page has the rest.
//
// A message goes into one ring and its answer comes out of another; both are in
// one page, which the window begins with. The store's bell rings when something
// has come. Between a request and its answer there may be events, that
// something we watch has changed. We watch one thing at a time and look at it
// again whenever there is an event, so all that is kept of it is that it came.
//
//      message:  type 32 | request 32 | transaction 32 | length 32 | text…
//
//      page:  requests 1024 | responses 1024 | indexes, 32 bits each:
//             requests taken | requests put | responses taken | responses put

/// Xen's store: texts that Guests leave for each other. Paths that do not begin with `/` are below
/// `/local/domain/` and one's own number. Of values, the first 254 bytes are to be had.
public enum Store {
    private enum Kind {
        static let read: UInt32 = 2
        static let watch: UInt32 = 4
        static let unwatch: UInt32 = 5
        static let write: UInt32 = 11
        static let remove: UInt32 = 13
        static let setPermissions: UInt32 = 14
        static let watchEvent: UInt32 = 15
        static let error: UInt32 = 16
    }

    @safe nonisolated(unsafe) private static var eventsSeen: UInt32 = 0

    /// What is there.
    ///
    /// - Throws: `notFound`; `noAccess`, if it, or whether it is there, is not for us to know.
    public static func read(_ path: Text) throws(XenError) -> Text { try ask(Kind.read, path.terminated) }

    /// Puts a value there. What is new belongs to this Guest, and who may read it is as above it; at home, nobody.
    public static func write(_ path: Text, _ value: Text) throws(XenError) {
        _ = try ask(Kind.write, path.terminated, value)
    }

    /// Removes it, and what is below it.
    public static func remove(_ path: Text) throws(XenError) { _ = try ask(Kind.remove, path.terminated) }

    /// Who may do what: the first names the owner and says what all may whom no other names.
    ///
    ///     try Store.setPermissions("data/page", [.none(Xen.domid), .read(peer)])
    public static func setPermissions<let count: Int>(
        _ path: Text, _ list: InlineArray<count, Permission>
    ) throws(XenError) {
        var texts = Text()
        for index in 0..<count {
            texts.append(list[index].letter)
            texts.append(UInt64(list[index].domid), radix: 10)
            texts.append(0)
        }
        _ = try ask(Kind.setPermissions, path.terminated, texts)
    }

    /// What a Guest may do with a node.
    public struct Permission {
        let letter: UInt8
        let domid: UInt16
        /// Nothing.
        public static func none(_ domid: UInt16) -> Permission { Permission(letter: UInt8(ascii: "n"), domid: domid) }
        /// Read it.
        public static func read(_ domid: UInt16) -> Permission { Permission(letter: UInt8(ascii: "r"), domid: domid) }
        /// Write it.
        public static func write(_ domid: UInt16) -> Permission { Permission(letter: UInt8(ascii: "w"), domid: domid) }
        /// Read and write it.
        public static func both(_ domid: UInt16) -> Permission { Permission(letter: UInt8(ascii: "b"), domid: domid) }
    }

    /// Sleeps until somebody has written it, and we may read it; returns what.
    ///
    /// - Returns: nil if that has not come before `deadline`, in `Clock.nanoseconds`.
    public static func wait(for path: Text, before deadline: UInt64 = .max) throws(XenError) -> Text? {
        let token: Text = "w"
        _ = try ask(Kind.watch, path.terminated, token.terminated)
        defer { _ = try? ask(Kind.unwatch, path.terminated, token.terminated) }
        while true {
            let seen = eventsSeen
            do throws(XenError) { return try read(path) } catch {
                guard error == .notFound || error == .noAccess else { throw error }
            }
            // It may have come with the answer.
            while eventsSeen == seen {
                guard StoreRing.waitForResponse(before: deadline) else { return nil }
                _ = receive()
            }
        }
    }

    // MARK: Messages

    /// - Throws: what the store answers, if that is an error.
    private static func ask(_ kind: UInt32, _ first: Text, _ second: Text = Text()) throws(XenError) -> Text {
        // Too long a path has no room for its NUL.
        guard first[first.count - 1] == 0 else { throw .invalid }
        StoreRing.put(word: kind)
        for _ in 0..<2 { StoreRing.put(word: 0) }
        StoreRing.put(word: UInt32(first.count + second.count))
        StoreRing.put(text: first)
        StoreRing.put(text: second)
        StoreRing.ring()
        while true {
            _ = StoreRing.waitForResponse(before: .max)
            let (answer, text) = receive()
            if answer == Kind.watchEvent { continue }
            guard answer == kind else { throw error(text) }
            return text
        }
    }

    /// The next message, of which a part must be there. An event is counted.
    private static func receive() -> (kind: UInt32, text: Text) {
        let kind = StoreRing.takeWord()
        for _ in 0..<2 { _ = StoreRing.takeWord() }
        let count = StoreRing.takeWord()
        var text = Text()
        for _ in 0..<count { text.append(StoreRing.take()) }
        StoreRing.ring()
        if kind == Kind.watchEvent { eventsSeen &+= 1 }
        return (kind, text)
    }

    /// Errors come by name.
    private static func error(_ name: Text) -> XenError {
        if name == "ENOENT\0" { return .notFound }
        if name == "EACCES\0" { return .noAccess }
        if name == "EPERM\0" { return XenError(errno: XenABI.Errno.eperm) }
        if name == "EEXIST\0" { return XenError(errno: XenABI.Errno.eexist) }
        if name == "ENOSPC\0" { return XenError(errno: XenABI.Errno.enospc) }
        if name == "E2BIG\0" { return XenError(errno: XenABI.Errno.e2big) }
        if name == "EAGAIN\0" { return XenError(errno: XenABI.Errno.eagain) }
        return .invalid
    }
}
//:

extension Text {
    /// With a NUL behind it.
    fileprivate var terminated: Text {
        var text = self
        text.append(0)
        return text
    }
}
