/// Up to 254 bytes of text, in place: what a program without a heap prints and
/// reads. What does not fit is left out.
///
///     print("sector \(sector) of \(disk.sectors), at \(hex: address)")
public struct Text: ExpressibleByStringInterpolation {
    /// Literals are not copied before they are used.
    public typealias StringLiteralType = StaticString
    /// What does not fit is left out.
    public static let capacity = 254

    var bytes = InlineArray<256, UInt8>(repeating: 0)
    /// Of bytes.
    public private(set) var count = 0

    /// Nothing yet.
    public init() {}

    /// As in `let text: Text = "…"`.
    public init(stringLiteral literal: StaticString) { append(literal) }

    /// As in `"\(a) of \(b)"`.
    public init(stringInterpolation: Interpolation) { self = stringInterpolation.text }

    /// As much of the region as there is room for.
    public init(_ region: Region) {
        for offset in 0..<min(region.count, Text.capacity) { append(region[offset]) }
    }

    /// What may stand between \( and ).
    public struct Interpolation: StringInterpolationProtocol {
        /// As above.
        public typealias StringLiteralType = StaticString
        var text = Text()

        /// It has its room already.
        public init(literalCapacity: Int, interpolationCount: Int) {}
        /// What stands between the parentheses.
        public mutating func appendLiteral(_ literal: StaticString) { text.append(literal) }
        /// A literal.
        public mutating func appendInterpolation(_ literal: StaticString) { text.append(literal) }
        /// Another text.
        @_disfavoredOverload
        public mutating func appendInterpolation(_ other: Text) { text.append(other) }

        /// A number, in decimal.
        public mutating func appendInterpolation(_ number: some BinaryInteger) {
            if number < 0 { text.append(UInt8(ascii: "-")) }
            text.append(UInt64(number.magnitude), radix: 10)
        }

        /// A number, in hexadecimal after `0x`.
        public mutating func appendInterpolation(hex number: UInt64) {
            text.append("0x")
            text.append(number, radix: 16)
        }
    }

    /// The byte at `index`.
    public subscript(index: Int) -> UInt8 {
        precondition(index >= 0 && index < count)
        return bytes[index]
    }

    /// Whether there is nothing in it.
    public var isEmpty: Bool { count == 0 }

    /// Adds one byte, if there is room.
    public mutating func append(_ byte: UInt8) {
        guard count < Text.capacity else { return }
        bytes[count] = byte
        count += 1
    }

    /// Takes the last byte away, of which there must be one.
    mutating func removeLast() {
        precondition(count > 0)
        count -= 1
    }

    /// Adds as much of it as there is room for.
    public mutating func append(_ literal: StaticString) {
        let region = Region(literal)
        for offset in 0..<region.count { append(region[offset]) }
    }

    /// Adds as much of it as there is room for.
    @_disfavoredOverload
    public mutating func append(_ other: Text) {
        for index in 0..<other.count { append(other.bytes[index]) }
    }

    /// In digits of base 10 or 16.
    mutating func append(_ number: UInt64, radix: UInt64) {
        var divisor: UInt64 = 1
        while number / divisor >= radix { divisor *= radix }
        while divisor > 0 {
            let digit = UInt8(truncatingIfNeeded: number / divisor % radix)
            let zero = digit < 10 ? UInt8(ascii: "0") : UInt8(ascii: "a") - 10
            append(zero + digit)
            divisor /= radix
        }
    }

    /// Whether it is that, byte for byte.
    public static func == (text: Text, literal: StaticString) -> Bool {
        let region = Region(literal)
        guard region.count == text.count else { return false }
        for index in 0..<text.count where text.bytes[index] != region[index] { return false }
        return true
    }

    /// Decimal, or hexadecimal after `0x`; nil if there is anything else in it.
    public var number: UInt64? {
        let isHexadecimal = count > 2 && bytes[0] == UInt8(ascii: "0") && bytes[1] == UInt8(ascii: "x")
        let radix: UInt64 = isHexadecimal ? 16 : 10
        var value: UInt64 = 0
        guard count > 0 else { return nil }
        for index in (isHexadecimal ? 2 : 0)..<count {
            let digit: UInt8
            switch bytes[index] {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = bytes[index] - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = bytes[index] - UInt8(ascii: "a") + 10
            default: return nil
            }
            let (product, overflow) = value.multipliedReportingOverflow(by: radix)
            guard digit < radix, !overflow else { return nil }
            value = product &+ UInt64(digit)
        }
        return value
    }

    /// If the text is `name=value`, the value; if it is `name`, nothing in it.
    func value(of name: StaticString) -> Text? {
        let region = Region(name)
        guard count >= region.count else { return nil }
        for index in 0..<region.count where bytes[index] != region[index] { return nil }
        var value = Text()
        guard count > region.count else { return value }
        guard bytes[region.count] == UInt8(ascii: "=") else { return nil }
        for index in region.count + 1..<count { value.append(bytes[index]) }
        return value
    }

    /// The bytes, with a NUL after them, where the Host can read them.
    func withRegion<Result>(_ body: (Region) -> Result) -> Result {
        unsafe withUnsafePointer(to: bytes) {
            body(Region(address: UInt64(UInt(bitPattern: $0)), count: count))
        }
    }
}
