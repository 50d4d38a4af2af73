// Shared with the Guest: it imports nothing.

/// Why a request for granted pages was refused. The number is the errno that a program is told.
public enum GrantError: Int32, Error {
    /// ENOENT: no such pages.
    case notFound = 2
    /// EBADF: no such file, or it is closed.
    case badFile = 9
    /// ENOMEM: no page, or no file, is left.
    case noMemory = 12
    /// EINVAL: what is asked for makes no sense.
    case invalid = 22
    /// ENOSPC: more than the limit, or the grant table is full.
    case noSpace = 28

    /// As a positive number.
    @inlinable public var errno: Int32 { rawValue }
}

/// One user of granted pages: what is one open file of /dev/xen/gntalloc in Linux.
public struct GrantFile: Hashable, Sendable {
    let slot: UInt32
    /// Each file that was ever open has its own, so a closed one is not taken for a later one.
    let serial: UInt64
}

/// A run of pages that a user has mapped. There is no copy: `unmap` takes it,
/// `duplicate` makes another. One that is let go without `unmap` keeps its pages for good.
public struct GrantMapping: ~Copyable, Sendable {
    let serial: UInt64
    let firstPage: UInt64
    /// Of pages.
    public let count: UInt32
}

/// Where pages, grants and event channels come from. Pages go by their frame's number.
public protocol GrantBackend: ~Copyable {
    /// A page full of zeros, whatever was in it before: the other side is going to read it.
    mutating func takePage() -> UInt64?
    mutating func returnPage(_ frame: UInt64)
    /// Lets the domain map the page. `GrantError.noSpace` if there is no reference left.
    mutating func grant(_ frame: UInt64, to domid: UInt16, readOnly: Bool) throws(GrantError) -> UInt32
    /// Takes the grant back, and its reference.
    ///
    /// - Returns: false if the other side has the page mapped; then nothing has changed.
    mutating func endGrant(_ reference: UInt32) -> Bool
    /// Writes 0 there, so that the other side sees it before anything that comes later.
    mutating func clearByte(_ frame: UInt64, at offset: Int)
    /// Keeps an event channel from being closed.
    ///
    /// - Returns: false if this user has none of this port.
    mutating func retainPort(_ port: UInt32) -> Bool
    mutating func releasePort(_ port: UInt32)
    mutating func ring(_ port: UInt32)
}
