//D:310 Names
//
// A path has letters, digits and four more characters; a name in it is not
// empty. That is all, and it is what makes the rest simple: a path that has
// been checked is plain ASCII, and there is exactly one way to write it. One
// that does not begin with / is meant from the Guest's own home on, so that a
// Guest need not know its number to find its devices.

/// Where a node is, or would be: checked, and from the root on.
struct StorePath: Hashable, Sendable {
    let text: String

    static let mostAbsolute = 3072
    static let mostRelative = 2048
    static let root = StorePath(checked: "/")

    /// For what is known to be a path.
    init(checked text: String) { self.text = text }

    /// - Throws: EINVAL for what is no path.
    init(_ bytes: some BidirectionalCollection<UInt8>, of domid: UInt16) throws(StoreError) {
        guard let first = bytes.first, first != UInt8(ascii: "@") else { throw .invalid }
        let isAbsolute = first == UInt8(ascii: "/")
        guard bytes.count <= (isAbsolute ? Self.mostAbsolute : Self.mostRelative) else { throw .invalid }
        var before: UInt8 = isAbsolute ? 0 : UInt8(ascii: "/")
        for byte in bytes {
            guard Self.isAllowed(byte), byte != UInt8(ascii: "/") || before != byte else { throw .invalid }
            before = byte
        }
        guard before != UInt8(ascii: "/") || (isAbsolute && bytes.count == 1) else { throw .invalid }
        let text = String(decoding: bytes, as: UTF8.self)
        self.text = isAbsolute ? text : Self.home(of: domid).text + "/" + text
    }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "/"), UInt8(ascii: "_"),
            UInt8(ascii: "@"):
            true
        default: false
        }
    }

    static func home(of domid: UInt16) -> StorePath { StorePath(checked: "/local/domain/\(domid)") }

    /// From the root's child on; of the root itself, none.
    var names: [Substring] { text.split(separator: "/") }

    /// Nil for the root.
    var parent: StorePath? {
        guard self != .root, let slash = text.utf8.lastIndex(of: UInt8(ascii: "/")) else { return nil }
        return slash == text.startIndex ? .root : StorePath(checked: String(text[..<slash]))
    }

    func appending(_ name: some StringProtocol) -> StorePath {
        StorePath(checked: self == .root ? "/" + name : text + "/" + name)
    }

    /// The first so many names of it.
    func prefix(_ count: Int) -> StorePath {
        StorePath(checked: "/" + names.prefix(count).joined(separator: "/"))
    }
}
//:
