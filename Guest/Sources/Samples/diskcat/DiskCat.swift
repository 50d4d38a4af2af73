import GuestKit

/// Writes the disk's contents to the console: up to the first NUL, or as many
/// bytes as `bytes=N` says.
@main struct DiskCat {
    static func main() {
        var disk = LguestBus.require(Disk.self, "disk")
        var console = LguestBus.require(Console.self, "console")
        let page = Pages.take()
        let perPage = UInt64(page.count / Disk.sectorBytes)
        let wanted = Boot.number("bytes")
        var left = min(wanted ?? .max, disk.sectors * UInt64(Disk.sectorBytes))

        var sector: UInt64 = 0
        while left > 0 {
            let part = page.prefix(Int(min(perPage, disk.sectors - sector)) * Disk.sectorBytes)
            guard disk.read(sector, into: part) else { panic("cannot read sector \(sector)") }
            var length = Int(min(left, UInt64(part.count)))
            if wanted == nil, let end = firstNUL(part.prefix(length)) {
                length = end
                left = UInt64(length)
            }
            console.write(part.prefix(length))
            left -= UInt64(length)
            sector += perPage
        }
    }

    static func firstNUL(_ region: Region) -> Int? {
        for offset in 0..<region.count where region[offset] == 0 { return offset }
        return nil
    }
}
