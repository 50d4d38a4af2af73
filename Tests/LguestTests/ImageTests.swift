import EngineTesting
import GuestMemory
import HostInterface
import Lguest
import LguestTesting
import Platform
import Testing

/// A Guest's file, and what it finds when it begins (B6; docs/lguest-abi.md, "How a Guest begins").
@Suite struct ImageTests {
    private static let ram: UInt64 = 4 << 20

    /// An ELF file, as much of one as a loader looks at.
    struct File {
        struct Segment {
            var address: UInt64 = 0x10000
            var bytes: [UInt8] = [0xf4]
            var memoryBytes: UInt64?
        }

        var segments = [Segment()]
        var entry: UInt64 = 0x10000
        var machine: UInt16 = 62
        var noteName = Array("Lguest\0\0".utf8)
        var noteType: UInt32 = 1
        var version: [UInt32] = [1]

        private func wire<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
            (0..<T.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> T($0 * 8)) }
        }

        var bytes: [UInt8] {
            let note =
                wire(UInt32(7)) + wire(UInt32(version.count * 4)) + wire(noteType) + noteName + version.flatMap(wire)
            var parts: [(type: UInt32, address: UInt64, bytes: [UInt8], memory: UInt64)] = segments.map {
                (1, $0.address, $0.bytes, $0.memoryBytes ?? UInt64($0.bytes.count))
            }
            parts.append((4, 0, note, UInt64(note.count)))
            var header: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1] + [UInt8](repeating: 0, count: 9)
            header += wire(UInt16(2)) + wire(machine) + wire(UInt32(1)) + wire(entry) + wire(UInt64(64))
            header += wire(UInt64(0)) + wire(UInt32(0)) + wire(UInt16(64)) + wire(UInt16(56))
            header += wire(UInt16(parts.count)) + [UInt8](repeating: 0, count: 6)
            var data: [UInt8] = []
            for part in parts {
                header += wire(part.type) + wire(UInt32(7)) + wire(UInt64(64 + 56 * parts.count + data.count))
                header += wire(part.address) + wire(part.address) + wire(UInt64(part.bytes.count)) + wire(part.memory)
                header += wire(UInt64(4))
                data += part.bytes
            }
            return header + data
        }
    }

    private func load(
        _ file: File, initrd: [UInt8]? = nil, commandLine: String = "", ramBytes: UInt64 = ram, devicePages: UInt64 = 3
    ) throws -> (memory: GuestMemory, pgdir: UInt64, start: UInt64) {
        let memory = try GuestMemory(byteCount: ramBytes + devicePages * 4096, hasHole: false)
        let image = try LguestImage(
            BootSource(kernel: file.bytes, kernelName: "guest.elf", initrd: initrd, commandLine: commandLine))
        let (pgdir, start) = try image.load(into: memory, ramBytes: ramBytes)
        return (memory, pgdir, start)
    }

    private func refusal(_ file: File, initrd: [UInt8]? = nil, commandLine: String = "") -> String {
        do {
            _ = try load(file, initrd: initrd, commandLine: commandLine)
            return "none"
        } catch { return "\(error)" }
    }

    @Test func segmentsGoToTheirPhysicalAddresses() throws {
        let file = File(
            segments: [
                .init(address: 0x4000, bytes: [1, 2, 3], memoryBytes: 0x2000),
                .init(address: 0x123456, bytes: Array(repeating: 7, count: 5000)),
            ], entry: 0x4002)
        let (memory, _, start) = try load(file)
        #expect(start == 0x4002)
        #expect(try memory.bytes(0x4000, 4) == [1, 2, 3, 0])
        #expect(try memory.bytes(0x123456, 5001) == Array(repeating: 7, count: 5000) + [0])
    }

    @Test func pageZeroHasWhatIsLeftOfBootParams() throws {
        let (memory, _, _) = try load(File(), commandLine: "verbose name=abc")
        var page = [UInt8](repeating: 0, count: 4096)
        page[0x1e8] = 1
        page[0x2d0 + 8 + 2] = 0x40
        page[0x2d0 + 16] = 1
        page[0x206...0x207] = [7, 2]
        page[0x210] = 0xff
        page[0x228 + 1] = 0x10
        page[0x23c] = 1
        #expect(try memory.bytes(0, 4096) == page)
        #expect(try memory.bytes(4096, 17) == Array("verbose name=abc".utf8) + [0])
    }

    @Test func theInitrdIsAtTheTop() throws {
        let initrd = (0..<5000).map { UInt8(truncatingIfNeeded: $0 &* 3) }
        let (memory, pgdir, _) = try load(File(), initrd: initrd)
        let address = try memory.load(at: GuestPhysicalAddress(0x218), as: UInt32.self)
        #expect(UInt64(address) == Self.ram - 8192)
        #expect(try memory.load(at: GuestPhysicalAddress(0x21c), as: UInt32.self) == 5000)
        #expect(try memory.bytes(UInt64(address), 5000) == initrd)
        #expect(pgdir < UInt64(address))
    }

    /// Writable, all of it, and what is above RAM too.
    @Test func theTableMapsEverythingToItself() throws {
        for ramBytes in [1 << 20, 4 << 20, (64 << 20) + 4096] as [UInt64] {
            let (memory, pgdir, _) = try load(File(), ramBytes: ramBytes, devicePages: 5)
            #expect(pgdir % 4096 == 0 && pgdir < ramBytes)
            for address in stride(from: 0, to: memory.highEnd, by: 4096) {
                var entry = pgdir
                for (level, shift) in [(4, 39), (3, 30), (2, 21)] as [(Int, UInt64)] {
                    entry = try memory.word(entry & ~0xfff + (address >> shift & 511) * 8)
                    try #require(entry & 3 == 3, "level \(level) of 0x\(String(address, radix: 16))")
                }
                try #require(entry & 0x80 != 0)
                try #require(entry & 0x000f_ffff_ffe0_0000 | address & 0x1f_ffff == address)
            }
        }
    }

    @Test func aFileThatIsNoSuchGuestIsRefused() {
        #expect(refusal(File()) == "none")
        #expect(refusal(File(noteName: Array("Lguess\0\0".utf8))).contains("it has no Lguest note"))
        #expect(refusal(File(noteType: 2)).contains("it has no Lguest note"))
        #expect(refusal(File(machine: 3)).contains("it is not for x86-64"))
        #expect(refusal(File(version: [2])).contains("it wants version 2"))
        #expect(refusal(File(version: [])).contains("version"))
        #expect(refusal(File(version: [1, 1])).contains("version"))
        #expect(refusal(File(entry: 0x10001)).contains("its entry point is in none of its segments"))
        #expect(throws: HostError.self) {
            try LguestImage(BootSource(kernel: Array("#!/bin/sh".utf8), kernelName: "guest.elf"))
        }
    }

    @Test func whatDoesNotFitIsRefused() {
        func file(_ address: UInt64, _ memoryBytes: UInt64) -> File {
            File(segments: [.init(), .init(address: address, memoryBytes: memoryBytes)])
        }
        let top = Self.ram - 3 * 4096
        #expect(refusal(file(0x4000, 1)) == "none")
        #expect(refusal(file(top - 16, 16)) == "none")
        for (address, count) in [
            (0x3fff, 1), (0, 1), (top - 16, 17), (top + 1, 1), (Self.ram, 1), (.max, 1), (.max - 1, 8), (0x4000, .max),
        ] as [(UInt64, UInt64)] {
            #expect(refusal(file(address, count)).contains("which are not free"), "\(address), \(count)")
        }
        // Fewer bytes of memory than of file.
        #expect(refusal(file(0x8000, 0)) == "none")
        let short = File(segments: [.init(bytes: [1, 2, 3], memoryBytes: 2)])
        #expect(refusal(short).contains("cut short"))
        #expect(refusal(File(), initrd: [UInt8](repeating: 0, count: Int(Self.ram))).contains("initrd does not fit"))
        #expect(refusal(File(), initrd: [UInt8](repeating: 0, count: Int(Self.ram) - 4096)).contains("does not fit"))
        #expect(refusal(File(), commandLine: String(repeating: "a", count: 2047)) == "none")
        #expect(refusal(File(), commandLine: String(repeating: "a", count: 2048)).contains("2048 bytes long"))
        #expect(refusal(File(), commandLine: "a\0b").contains("NUL"))
    }

    /// Any prefix of a file, and any byte of its headers changed: a line, or a Guest, and no trap.
    @Test func aBrokenFileIsNoTrap() {
        let whole = File().bytes
        func tryLoading(_ bytes: [UInt8]) throws {
            let image = try LguestImage(BootSource(kernel: bytes, kernelName: "guest.elf"))
            _ = try image.load(into: try GuestMemory(byteCount: 1 << 20, hasHole: false), ramBytes: 1 << 20)
        }
        for count in whole.indices { #expect(throws: HostError.self) { try tryLoading(Array(whole[..<count])) } }
        for index in 0..<64 + 2 * 56 {
            for value in [0, 1, 0x7f, 0x80, 0xff] as [UInt8] {
                var bytes = whole
                bytes[index] = value
                try? tryLoading(bytes)
            }
        }
    }

    /// From the file to "Power down": RSI is 0, and there it finds its boot parameters.
    @Test(.everyEngine) func itRuns() throws {
        let program = TestGuest.program { program in
            program.load(.rax, Memory(.rsi, Int32(LguestBoot.e820Table) + 8))
            program.keepResult()
            program.move(.rbx, 0x300000)
            program.store(.rax, Memory(.rbx))
            program.move(.rbx, Self.ram + 0x2000)
            program.store(.rax, Memory(.rbx))
            program.initialize()
            program.powerDown()
        }
        let text = Array("Power down\0".utf8)
        let (memory, pgdir, start) = try load(
            File(
                segments: [
                    .init(address: program.origin, bytes: program.bytes), .init(address: Place.text, bytes: text),
                    .init(
                        address: Place.data, bytes: [UInt8](repeating: 0xff, count: LguestData.byteCount)),
                ], entry: program.origin))
        let guest = try TestHost().host.open()
        defer { guest.close() }
        try guest.initialize(memory: memory, pgdir: pgdir, start: start)
        #expect(throws: Errno.notFound) { _ = try guest.run() }
        #expect(guest.death?.reason == "CRASH: Power down")
        #expect(try memory.word(Place.results) == Self.ram)
        #expect(try memory.word(0x300000) == Self.ram)
        #expect(try memory.word(Self.ram + 0x2000) == Self.ram)
    }
}
