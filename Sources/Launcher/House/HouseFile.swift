//L:400 A house of Guests
//
// lguest's Guests were alone: one Launcher, one Guest, and who wanted two
// started two. But its Host could lead a buffer from one Guest to another, and
// for that somebody must have both in hand. Here it is one process, as it is
// for one Guest, with a thread for each; and the description of them all is a
// file, because nobody types that twice:
//
//     {
//         "guests": [
//             { "name": "web", "memory": "256M", "net": "lan0" },
//             { "name": "db", "disks": ["db.qcow2"], "net": "lan0" }
//         ]
//     }
//
// A Guest's keys are the options of `roost run` under their own names, and
// their values are read by the same code. What is wrong in it is said with its
// line and column before anything is opened.

/// A house, in words: see docs/house.md. Nothing here has been opened or checked beyond its form.
package struct HouseFile: Sendable {
    /// Memory that several Guests can see.
    package struct Region: Equatable, Sendable {
        package var name: String
        package var byteCount: UInt64
    }

    /// Where a Guest sees a region.
    package struct RegionPlace: Equatable, Sendable {
        package var region: Region
        /// In the Guest's physical memory, at the start of a page.
        package var address: UInt64

        package var end: UInt64 { address + region.byteCount }
    }

    package struct Guest: Sendable {
        package var name: String
        package var configuration: GuestConfiguration
        package var regions: [RegionPlace] = []
    }

    package var name: String
    package var guests: [Guest]
    package var regions: [Region]

    /// More are a mistake in whatever wrote the file.
    package static let mostGuests = 64
    /// Regions lie below this: the guest-physical addresses that any of our engines has.
    package static let addressLimit: UInt64 = 1 << 39

    /// Names become file names, prefixes and words of a command line.
    package static func isName(_ text: String) -> Bool {
        (1...32).contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
                    true
                default: false
                }
            }
    }

    static let nameRule = "a name has up to 32 letters, digits, - and _"
}
//:
