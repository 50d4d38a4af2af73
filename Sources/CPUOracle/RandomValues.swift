/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, and any seed will do.
package struct SeededGenerator: RandomNumberGenerator, Sendable {
    package var state: UInt64
    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
        return z ^ z >> 31
    }

    /// 0 ..< bound, near enough to evenly.
    package mutating func below(_ bound: Int) -> Int { Int(next().multipliedFullWidth(by: UInt64(bound)).high) }
    package mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
    package mutating func pick<T>(_ values: [T]) -> T { values[below(values.count)] }
}

/// Values at which arithmetic goes wrong, in good measure.
extension SeededGenerator {
    private static let doubles: [UInt64] = [
        0, 1 << 63, 0x3ff0_0000_0000_0000, 0xbff0_0000_0000_0000,  // ±0, ±1
        0x7ff0_0000_0000_0000, 0xfff0_0000_0000_0000,  // ±infinity
        0x7ff8_0000_0000_0000, 0xfff8_0000_0000_0001, 0x7ff0_0000_0000_0001, 0xfff7_ffff_ffff_ffff,  // quiet, signalling
        1, 0x800f_ffff_ffff_ffff, 0x0010_0000_0000_0000, 0x7fef_ffff_ffff_ffff,  // denormal, least and greatest normal
        0x43e0_0000_0000_0000, 0xc3e0_0000_0000_0000, 0x41e0_0000_0000_0000, 0xc1e0_0000_0020_0000,  // 2^63, 2^31
        0x3fe0_0000_0000_0000, 0x3ff8_0000_0000_0000, 0x4004_0000_0000_0000,  // 0.5, 1.5, 2.5
    ]
    private static let singles: [UInt32] = [
        0, 1 << 31, 0x3f80_0000, 0xbf80_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0xffc0_0001, 0x7f80_0001,
        0xffbf_ffff, 1, 0x807f_ffff, 0x0080_0000, 0x7f7f_ffff, 0x4f00_0000, 0xcf00_0000, 0x5f00_0000, 0x3f00_0000,
        0x3fc0_0000, 0x4020_0000, 0x4780_0000,
    ]

    package mutating func integer() -> UInt64 {
        let value = next()
        switch below(8) {
        case 0:
            return pick([
                0, 1, 2, ~0, ~1, 1 << 63, (1 << 63) - 1, 0x8000_0000, 0x7fff_ffff, 0xffff_ffff, 0x8000, 0x7fff, 0x80,
                0x7f, 0xff,
            ])
        case 1: return 1 << (value & 63)
        case 2: return (1 << (value & 63)) &- 1
        case 3: return ~(1 << (value & 63))
        case 4: return value & 0xff
        case 5: return UInt64(bitPattern: Int64(Int8(truncatingIfNeeded: value)))
        default: return value
        }
    }

    package mutating func double() -> UInt64 {
        let value = next()
        switch below(4) {
        case 0: return pick(Self.doubles)
        case 1: return Double(Int32(truncatingIfNeeded: value)).bitPattern
        // Exponents near each other, so that sums are more than the larger summand.
        case 2: return value & 0x800f_ffff_ffff_ffff | (0x3f0 + value >> 52 & 0x1f) << 52
        default: return value
        }
    }

    package mutating func single() -> UInt32 {
        let value = UInt32(truncatingIfNeeded: next())
        switch below(4) {
        case 0: return pick(Self.singles)
        case 1: return Float(Int16(truncatingIfNeeded: value)).bitPattern
        case 2: return value & 0x807f_ffff | (0x78 + value >> 24 & 0xf) << 23
        default: return value
        }
    }

    /// Sign and exponent, then fraction, of an x87 register.
    package mutating func extended() -> (fraction: UInt64, exponent: UInt16) {
        let sign = UInt16(next() & 1) << 15
        switch below(12) {
        case 0: return (0, sign)
        case 1: return (1 << 63, 0x7fff | sign)  // infinity
        case 2: return (next() | 3 << 62, 0x7fff | sign)  // quiet NaN
        case 3: return (next() & ~(1 << 62) | 1 << 63 | 1, 0x7fff | sign)  // signalling NaN
        case 4: return (next() >> 1, sign)  // denormal
        case 5: return (next() | 1 << 63, sign)  // pseudo-denormal
        case 6: return (next() >> 1, UInt16(truncatingIfNeeded: next()) | sign)  // unnormal, mostly
        case 7: return (next() | 1 << 63, UInt16(truncatingIfNeeded: next()) & 0x7fff | sign)
        case 8: return (1 << 63, 0x3fff &+ UInt16(below(40)) | sign)  // a power of two
        default: return (next() | 1 << 63, 0x3ff0 &+ UInt16(below(80)) | sign)
        }
    }

    /// Eight bytes for a vector register or for memory.
    package mutating func vectorWord() -> UInt64 {
        switch below(6) {
        case 0, 1: return double()
        case 2, 3: return UInt64(single()) | UInt64(single()) << 32
        default: return integer()
        }
    }
}

/// What the data, stack and ROM pages hold before each case, made from a seed.
package struct MemoryImage: Sendable {
    package private(set) var words: [UInt64]

    package init(seed: UInt64) {
        var random = SeededGenerator(seed: seed ^ 0x6d65_6d6f_7279)
        words = (0..<Int(OracleLayout.imageBytes / 8)).map { _ in random.vectorWord() }
    }

    package func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        unsafe words.withUnsafeBytes(body)
    }
}
