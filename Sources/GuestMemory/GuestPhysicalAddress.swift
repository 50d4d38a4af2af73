/// An address on the Guest's memory bus (gpa).
@frozen public struct GuestPhysicalAddress: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    public var rawValue: UInt64

    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
    @inlinable public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    @inlinable public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
    @inlinable public static func + (left: Self, right: UInt64) -> Self { Self(left.rawValue &+ right) }

    /// The number of the 4 KiB page that holds it.
    @inlinable public var page: UInt64 { rawValue >> 12 }

    public var description: String { "0x" + String(rawValue, radix: 16) }
}
