//D:315 Whose it is, and who may
//
// A node's permissions are a list, and its first entry is odd: the domain in
// it is the owner, who may do everything, and the letter beside it is not the
// owner's but everybody else's. The entries behind it are the exceptions, one
// domain and its letter each:
//
//     n1 r2 b3     1 owns it, 2 may read, 3 may read and write, others: nothing
//
// Nothing is looked up on the way to a node: who may read /a/b may read it,
// whatever they may do with /a. Only where there is no node does the nearest
// one above it decide: about creating one, and about who may know that there
// is none.

struct StoreAccess: OptionSet, Sendable {
    let rawValue: UInt8
    static let read = StoreAccess(rawValue: 1)
    static let write = StoreAccess(rawValue: 2)

    private static let letters: [Character] = ["n", "r", "w", "b"]
    var letter: Character { Self.letters[Int(rawValue & 3)] }

    init(rawValue: UInt8) { self.rawValue = rawValue }

    init?(letter: UInt8) {
        guard let index = Self.letters.firstIndex(of: Character(UnicodeScalar(letter))) else { return nil }
        rawValue = UInt8(index)
    }
}

/// The host's own domain: it may do everything.
let storeHost: UInt16 = 0

struct StorePermissions: Sendable, Equatable {
    struct Entry: Sendable, Equatable {
        let domid: UInt16
        let access: StoreAccess
        var text: String { "\(access.letter)\(domid)" }
    }

    /// The owner, with what everybody may.
    private let first: Entry
    private let exceptions: [Entry]

    init(owner: UInt16, everybody: StoreAccess = [], _ exceptions: [UInt16: StoreAccess] = [:]) {
        first = Entry(domid: owner, access: everybody)
        self.exceptions = exceptions.map { Entry(domid: $0.key, access: $0.value) }
    }

    private init(_ first: Entry, _ exceptions: [Entry]) { (self.first, self.exceptions) = (first, exceptions) }

    /// From what SET_PERMS has: a letter and a number each.
    init(_ strings: some Collection<ArraySlice<UInt8>>) throws(StoreError) {
        var entries: [Entry] = []
        for string in strings {
            guard let letter = string.first, let access = StoreAccess(letter: letter) else { throw .invalid }
            let domid = try decimal(string.dropFirst(), as: UInt16.self)
            // From 0x7ff0 on the numbers are words: myself, nobody, the idle domain.
            guard domid < 0x7ff0 else { throw .invalid }
            entries.append(Entry(domid: domid, access: access))
        }
        guard let first = entries.first else { throw .invalid }
        self.init(first, Array(entries.dropFirst()))
    }

    var owner: UInt16 { first.domid }
    var count: Int { 1 + exceptions.count }
    var texts: [String] { [first.text] + exceptions.map(\.text) }

    func isOwner(_ domid: UInt16) -> Bool { domid == first.domid || domid == storeHost }

    func allows(_ access: StoreAccess, to domid: UInt16) -> Bool {
        if isOwner(domid) { return true }
        let granted = exceptions.first { $0.domid == domid } ?? first
        return granted.access.isSuperset(of: access)
    }

    /// What a node has that `domid` creates below one with these.
    func inherited(by domid: UInt16) -> StorePermissions {
        domid == storeHost ? self : StorePermissions(Entry(domid: domid, access: first.access), exceptions)
    }

    /// Without the exceptions made for a domain; nil if there are none. The next one with its number is somebody else.
    func forgetting(_ domid: UInt16) -> StorePermissions? {
        let rest = exceptions.filter { $0.domid != domid }
        return rest.count == exceptions.count ? nil : StorePermissions(first, rest)
    }
}
//:
