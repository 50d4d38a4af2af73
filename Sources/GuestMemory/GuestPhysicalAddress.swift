/// An address on the Guest's memory bus (gpa).
@frozen package struct GuestPhysicalAddress: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    package var rawValue: UInt64

    @inlinable package init(rawValue: UInt64) { self.rawValue = rawValue }
    @inlinable package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    @inlinable package static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
    @inlinable package static func + (left: Self, right: UInt64) -> Self { Self(left.rawValue &+ right) }

    /// The number of the 4 KiB page that holds it.
    @inlinable package var page: UInt64 { rawValue >> 12 }

    package var description: String { "0x" + String(rawValue, radix: 16) }
}
