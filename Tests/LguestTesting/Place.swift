package import GuestMemory
internal import Lguest

/// Where a Guest of the tests has what, in its first MiB.
package enum Place {
    package static let pageTable: UInt64 = 0x1000, gdt: UInt64 = 0x5000, idt: UInt64 = 0x6000
    /// What LGDT and LIDT want.
    package static let gdtr: UInt64 = 0x6800, idtr: UInt64 = 0x6810
    /// "Power down".
    package static let text: UInt64 = 0x7000
    /// struct lguest_data.
    package static let data: UInt64 = 0x8000
    package static let code: UInt64 = 0x10000
    /// One handler for each of the 32 interrupts.
    package static func handler(_ irq: Int) -> UInt64 { 0x12000 + UInt64(irq) * 64 }
    package static let stack: UInt64 = 0x2f000
    /// How many interrupts have come, and then which, a byte each.
    package static let log: UInt64 = 0x30000
    /// What hypercalls have answered, a word each.
    package static let results: UInt64 = 0x31000
    /// From here on a test may do as it likes.
    package static let free: UInt64 = 0x40000

    package static let codeSelector: UInt16 = 0x10, userDataSelector: UInt16 = 0x23, userCodeSelector: UInt16 = 0x2b
}

extension GuestMemory {
    /// Tables that map the first 4 MiB to themselves, for users too, by pages of 2 MiB; descriptors, gates for 32
    /// interrupts, and the text of a Guest that is done.
    package func prepareGuest() throws {
        func put(_ value: UInt64, _ address: UInt64) throws { try store(value, at: GuestPhysicalAddress(address)) }
        try put(Place.pageTable + 0x1000 | 7, Place.pageTable)
        try put(Place.pageTable + 0x2000 | 7, Place.pageTable + 0x1000)
        for page in 0..<2 as Range<UInt64> { try put(page << 21 | 0x87, Place.pageTable + 0x2000 + page * 8) }
        for (selector, descriptor) in [
            (0x10 as UInt64, 0x00af_9b00_0000_ffff as UInt64), (0x18, 0x00cf_9300_0000_ffff),
            (0x20, 0x00cf_f300_0000_ffff), (0x28, 0x00af_fb00_0000_ffff),
        ] { try put(descriptor, Place.gdt + selector) }
        for irq in 0..<LguestIRQ.count { try setGate(irq, isPresent: true) }
        try store(UInt16(0x2f), at: GuestPhysicalAddress(Place.gdtr))
        try put(Place.gdt, Place.gdtr + 2)
        try store(UInt16(64 * 16 - 1), at: GuestPhysicalAddress(Place.idtr))
        try put(Place.idt, Place.idtr + 2)
        try write(Array(LguestHypercall.powerDownText.description.utf8) + [0], at: GuestPhysicalAddress(Place.text))
        let free = [UInt8](repeating: LguestData.slotFree, count: LguestData.ringSize)
        try write(free, at: GuestPhysicalAddress(Place.data + LguestData.hypercallStatus))
    }

    /// An interrupt gate to the irq's handler.
    package func setGate(_ irq: Int, isPresent: Bool) throws {
        let place = GuestPhysicalAddress(Place.idt + UInt64(LguestIRQ.firstVector + irq) * 16)
        let handler = Place.handler(irq)
        let type: UInt64 = isPresent ? 0x8e : 0x0e
        try store(
            handler & 0xffff | UInt64(Place.codeSelector) << 16 | type << 40 | (handler & 0xffff_0000) << 32, at: place)
        try store(UInt64(0), at: place + 8)
    }

    /// A call into the ring, to be done.
    package func fillSlot(_ slot: Int, _ call: UInt64, _ arguments: UInt64..., of data: UInt64 = Place.data) throws {
        let entry = data + LguestData.hypercalls + UInt64(slot) * LguestData.ringEntryBytes
        for (index, word) in ([call] + arguments).enumerated() {
            try store(word, at: GuestPhysicalAddress(entry + UInt64(index) * 8))
        }
        try store(UInt8(0), at: GuestPhysicalAddress(data + LguestData.hypercallStatus + UInt64(slot)))
    }

    /// Whether the Host is done with a slot.
    package func isFree(slot: Int) throws -> Bool {
        let status = GuestPhysicalAddress(Place.data + LguestData.hypercallStatus + UInt64(slot))
        return try load(at: status, as: UInt8.self) == LguestData.slotFree
    }

    /// A word of struct lguest_data.
    package func data(_ offset: UInt64) throws -> UInt64 {
        try load(at: GuestPhysicalAddress(Place.data + offset), as: UInt64.self)
    }
    package func setData(_ offset: UInt64, _ value: UInt64) throws {
        try store(value, at: GuestPhysicalAddress(Place.data + offset))
    }
}
