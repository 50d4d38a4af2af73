//G:020 What the Launcher left
//
// Linux is told what machine it is in by a page that every boot loader fills,
// `boot_params`. Ours is the same page with most of it empty: how much memory
// there is, where the command line is, and whether somebody put an initrd at
// the end of memory. Page 0 and page 1 hold all of it.
//
// We read it at once, as the first thing; later, page 0 goes off the map, so
// that a pointer to nothing points to nothing.

/// What the Launcher told the Guest at boot.
public enum Boot {
    @safe nonisolated(unsafe) private static var memoryEnd: UInt64 = 0
    @safe nonisolated(unsafe) private static var initrdRegion = Region(address: 0, count: 0)

    static func read() {
        let page = Region(address: 0, count: Pages.size)
        memoryEnd = page.load(Int(LguestBoot.e820Table) + 8)
        initrdRegion = Region(
            address: UInt64(page.load(Int(LguestBoot.initrdAddress), as: UInt32.self)),
            count: Int(page.load(Int(LguestBoot.initrdBytes), as: UInt32.self)))
    }

    /// Bytes of memory; it begins at 0. The page with the devices' descriptors is just above.
    public static var memoryBytes: UInt64 { memoryEnd }

    /// The file given as an initrd, if there is one.
    public static var initrd: Region? { initrdRegion.count > 0 ? initrdRegion : nil }

    /// Up to where memory is nobody's.
    static var freeEnd: UInt64 { initrdRegion.count > 0 ? initrdRegion.address : memoryEnd }

    /// Of `name=value` on the command line, the value. Of a bare `name`, an empty text.
    public static func word(_ name: StaticString) -> Text? {
        let line = Region(address: LguestBoot.commandLineAddress, count: LguestBoot.commandLineBytes)
        var word = Text()
        for offset in 0..<line.count {
            let byte = line[offset]
            guard byte == 0 || byte == UInt8(ascii: " ") else {
                word.append(byte)
                continue
            }
            if let value = word.value(of: name) { return value }
            if byte == 0 { break }
            word = Text()
        }
        return nil
    }

    /// The same as a number: decimal, or hexadecimal after `0x`.
    public static func number(_ name: StaticString) -> UInt64? { word(name)?.number }

    /// The same as a number of bytes, which may end in K, M or G.
    public static func bytes(_ name: StaticString) -> UInt64? {
        guard var word = word(name), !word.isEmpty else { return nil }
        let shift: UInt64
        switch word[word.count - 1] {
        case UInt8(ascii: "K"): shift = 10
        case UInt8(ascii: "M"): shift = 20
        case UInt8(ascii: "G"): shift = 30
        default: return word.number
        }
        word.removeLast()
        guard let number = word.number, number <= .max >> shift else { return nil }
        return number << shift
    }
}
//:
