import EngineTesting
import HostInterface
import Lguest
import LguestTesting
import Testing

/// The requests of `write` and their errors, in the order in which they are looked for (A5, B1, F1…F5).
@Suite(.everyEngine) struct RequestTests {
    /// All requests but INITIALIZE, and one that there is not.
    private static let requests: [[UInt64]] = [
        [LguestRequest.getDMA, 0], [LguestRequest.irq, 1], [LguestRequest.breakOut, 0],
        [LguestRequest.eventFD, 0x5000, 0], [99],
    ]

    // MARK: write, in general

    /// B1: EFAULT before all else.
    @Test func aRequestThatCannotBeReadIsABadAddress() throws {
        let guest = try WordGuest(isInitialized: false)
        #expect(throws: Errno.badAddress) { try guest.write() }
        _ = try guest.initialize()
        #expect(throws: Errno.badAddress) { try guest.write() }
        guest.guest.kill("done for")
        #expect(throws: Errno.badAddress) { try guest.write() }
    }

    /// F1.
    @Test func everyOtherRequestWantsAnInitializedGuest() throws {
        let guest = try WordGuest(isInitialized: false)
        for request in Self.requests { #expect(throws: Errno.invalid) { try guest.guest.write(request) } }
    }

    /// B1: the CPU's number is the file's offset.
    @Test func thereIsOnlyCPUZero() throws {
        let guest = try WordGuest()
        guest.guest.kill("done for")
        // Before it is asked whether the Guest is alive.
        for request in Self.requests { #expect(throws: Errno.invalid) { try guest.guest.write(request, cpu: 1) } }
        #expect(throws: Errno.invalid) { try guest.guest.read(atMost: 100, cpu: 1) }
        #expect(throws: Errno.invalid) {
            try onAnotherThread { [guest = guest.guest] () throws(Errno) in try guest.read(atMost: 100, cpu: 1) }
        }
    }

    /// F3.
    @Test func aDeadGuestTakesNoRequest() throws {
        let guest = try WordGuest()
        guest.guest.kill("done for")
        for request in Self.requests { #expect(throws: Errno.notFound) { try guest.guest.write(request) } }
        // B1: before it is asked whose Guest it is.
        for request in Self.requests {
            #expect(throws: Errno.notFound) {
                try onAnotherThread { [guest = guest.guest] () throws(Errno) in try guest.write(request) }
            }
        }
    }

    /// A5: EPERM; IRQ and BREAK are for all.
    @Test func onlyItsOwnerMayDoMoreThanIRQAndBREAK() throws {
        let guest = try WordGuest()
        let others = Self.requests.filter { ![LguestRequest.irq, LguestRequest.breakOut].contains($0[0]) }
        for request in others {
            #expect(throws: Errno.notPermitted) {
                try onAnotherThread { [guest = guest.guest] () throws(Errno) in try guest.write(request) }
            }
        }
        let raised = try onAnotherThread { [guest = guest.guest] () throws(Errno) in
            try guest.write([LguestRequest.irq, 3])
        }
        #expect(raised == 0)
        let released = try onAnotherThread { [guest = guest.guest] () throws(Errno) in
            try guest.write([LguestRequest.breakOut, 0])
        }
        #expect(released == 0)
    }

    @Test func anUnknownRequestIsInvalid() throws {
        let guest = try WordGuest()
        for number in [5, 6, 7, 99, UInt64.max] { #expect(throws: Errno.invalid) { try guest.write(number, 0, 0) } }
    }

    @Test func whatBelongsToARequestMustBeThere() throws {
        let guest = try WordGuest()
        for request in [LguestRequest.irq, LguestRequest.breakOut, LguestRequest.getDMA, LguestRequest.eventFD] {
            #expect(throws: Errno.badAddress) { try guest.write(request) }
        }
        #expect(throws: Errno.badAddress) { try guest.write(LguestRequest.eventFD, 0x5000) }
    }

    // MARK: INITIALIZE

    @Test func initializeReturnsTheBytesOfItsPayload() throws {
        let guest = try WordGuest(isInitialized: false)
        #expect(try guest.initialize() == 32)
    }

    /// F1, B1: also when it is dead, and before anything of the request is read.
    @Test func theSecondInitializeIsBusy() throws {
        let guest = try WordGuest()
        #expect(throws: Errno.busy) { try guest.initialize() }
        #expect(throws: Errno.busy) { try guest.write(LguestRequest.initialize) }
        guest.guest.kill("done for")
        #expect(throws: Errno.busy) { try guest.initialize() }
        #expect(throws: Errno.busy) {
            try onAnotherThread { [guest = guest.guest] () throws(Errno) in try guest.write([LguestRequest.initialize])
            }
        }
    }

    @Test func initializeWantsItsFourWords() throws {
        let guest = try WordGuest(isInitialized: false)
        for count in 1..<5 {
            #expect(throws: Errno.badAddress) { try guest.guest.write(Array(guest.request.prefix(count))) }
        }
        // Nothing has come of it.
        #expect(try guest.initialize() == 32)
    }

    /// Memory that is not mapped, not all of it, or not to be written.
    @Test func initializeWantsMemoryThatIsThere() throws {
        let guest = try WordGuest(isInitialized: false)
        func initialize(_ base: UInt64, _ pages: UInt64) throws(Errno) -> Int {
            try guest.write(LguestRequest.initialize, base, pages, Place.pageTable, Place.code)
        }
        let base = guest.request[1]
        let hole = try AddressRange(reserving: 4096 * 16)
        let place = UInt64(UInt(bitPattern: unsafe hole.base))
        #expect(throws: Errno.badAddress) { try initialize(place, 16) }
        #expect(throws: Errno.badAddress) { try initialize(0, 16) }
        #expect(throws: Errno.badAddress) { try initialize(0x1000, 1) }
        #expect(throws: Errno.badAddress) { try initialize(base, 1 << 40) }
        #expect(throws: Errno.badAddress) { try initialize(.max - 4095, 2) }
        #expect(throws: Errno.invalid) { try initialize(base, 0) }
        #expect(throws: Errno.invalid) { try initialize(base, .max) }
        #expect(throws: Errno.invalid) { try initialize(base + 8, 16) }
        #expect(try guest.initialize() == 32)
    }

    @Test func aHoleInTheMiddleIsABadAddress() throws {
        let guest = try WordGuest(isInitialized: false)
        let range = try AddressRange(reserving: 4096 * 48)
        let file = try MemoryFile(name: "holed", byteCount: 4096 * 48)
        try range.map(file, fileOffset: 0, at: 0, count: 4096 * 16)
        try range.map(file, fileOffset: 4096 * 32, at: 4096 * 32, count: 4096 * 16)
        let base = UInt64(UInt(bitPattern: unsafe range.base))
        #expect(throws: Errno.badAddress) {
            try guest.write(LguestRequest.initialize, base, 48, Place.pageTable, Place.code)
        }
        // Two mappings side by side are as good as one.
        try range.map(file, fileOffset: 0, at: 4096 * 16, count: 4096 * 16)
        #expect(try guest.write(LguestRequest.initialize, base, 48, Place.pageTable, Place.code) == 32)
    }

    // MARK: IRQ

    /// F2.
    @Test func thereAre32Interrupts() throws {
        let guest = try WordGuest()
        #expect(try guest.write(LguestRequest.irq, 31) == 0)
        #expect(try guest.write(LguestRequest.irq, 0) == 0)
        #expect(throws: Errno.invalid) { try guest.write(LguestRequest.irq, 32) }
        #expect(throws: Errno.invalid) { try guest.write(LguestRequest.irq, .max) }
    }

    // MARK: read

    /// F1.
    @Test func readWantsAnInitializedGuest() throws {
        let guest = try WordGuest(isInitialized: false)
        #expect(throws: Errno.invalid) { try guest.guest.read(atMost: 100) }
        #expect(throws: Errno.invalid) { try guest.guest.run() }
    }

    @Test func readIsTheOwners() throws {
        let guest = try WordGuest()
        let read: @Sendable () throws(Errno) -> [UInt8] = { [guest = guest.guest] () throws(Errno) in
            try guest.read(atMost: 100)
        }
        #expect(throws: Errno.notPermitted) { try onAnotherThread(read) }
        // A5: before it is asked whether the Guest is alive.
        guest.guest.kill("done for")
        #expect(throws: Errno.notPermitted) { try onAnotherThread(read) }
        #expect(throws: Errno.notPermitted) {
            _ = try onAnotherThread { [guest = guest.guest] () throws(Errno) in try guest.run() }
        }
    }

    /// B1.
    @Test func aNotificationIsOneWord() throws {
        let guest = try WordGuest { program in
            program.initialize()
            program.notify(0x1234_5678_9abc)
            program.powerDown()
        }
        #expect(try guest.readWords() == [0x1234_5678_9abc])
        #expect(throws: Errno.notFound) { try guest.readWords() }
    }

    /// A5: {buffer, key}.
    @Test func aSendToTheLauncherIsTwoWords() throws {
        let guest = try WordGuest { program in
            program.initialize()
            program.hypercall(LguestHypercall.sendDMA, 0x4008, Place.free)
            program.powerDown()
        }
        #expect(try guest.readWords() == [Place.free, 0x4008])
    }

    /// B1: EFAULT; the Guest does not notice.
    @Test func aBufferWithoutRoomIsABadAddress() throws {
        let guest = try WordGuest { program in
            program.initialize()
            program.notify(0x5000)
            program.hypercall(LguestHypercall.sendDMA, 0x4008, Place.free)
            program.notify(0x6000)
            program.powerDown()
        }
        #expect(throws: Errno.badAddress) { try guest.guest.read(atMost: 7) }
        #expect(throws: Errno.badAddress) { try guest.guest.read(atMost: 15) }
        #expect(try guest.readWords() == [0x6000])
    }

    /// A5, F3: ENOENT, and the next one says why, with a NUL.
    @Test func theReadAfterDeathHasTheReason() throws {
        let guest = try WordGuest { program in
            program.initialize()
            program.hypercall(77)
        }
        #expect(throws: Errno.notFound) { try guest.readWords() }
        let reason = Array("Bad hypercall 77".utf8) + [0]
        #expect(try guest.guest.read(atMost: 1024) == reason)
        // And any that follow.
        #expect(try guest.guest.read(atMost: 1024) == reason)
    }

    /// F4.
    @Test func theReasonIsCutToTheBuffer() throws {
        let guest = try WordGuest()
        guest.guest.kill("alas")
        for count in 0...6 {
            #expect(try guest.guest.read(atMost: count) == Array((Array("alas".utf8) + [0]).prefix(count)))
        }
    }

    /// B1: the first one counts.
    @Test func theFirstReasonCounts() throws {
        let guest = try WordGuest()
        guest.guest.kill("first")
        guest.guest.kill("second")
        #expect(text(try guest.guest.read(atMost: 100)) == "first")
    }

    /// B2, F5.
    @Test func aGuestThatRestartsSaysSoInsteadOfAReason() throws {
        let guest = try WordGuest { program in
            program.initialize()
            program.hypercall(LguestHypercall.shutdown, Place.text, LguestHypercall.restart)
        }
        #expect(throws: Errno.restart) { try guest.readWords() }
        #expect(throws: Errno.restart) { try guest.readWords() }
        #expect(guest.guest.death == .restart)
        #expect(throws: Errno.notFound) { try guest.write(LguestRequest.irq, 1) }
    }

    /// A5: a signal.
    @Test func anInterruptionComesOnce() throws {
        let guest = try WordGuest { program in
            program.initialize()
            program.notify(0x5000)
        }
        guest.guest.interrupt()
        #expect(throws: Errno.interrupted) { try guest.readWords() }
        #expect(try guest.readWords() == [0x5000])
    }

    /// A dead Guest does nothing any more, whatever it has asked for.
    @Test func theDeadDoNotNotify() throws {
        let guest = try TestGuest { program in
            program.initialize()
            program.notify(0x5000)
        }
        try guest.memory.fillSlot(0, 99)
        #expect(guest.death() == "Bad hypercall 99")
        #expect(guest.death() == "Bad hypercall 99")
        // The same, when it dies between two calls of its ring.
        let other = try TestGuest { program in
            program.initialize()
            program.notify(0x7000)
        }
        try other.memory.fillSlot(0, LguestHypercall.notify, 0x5000)
        try other.memory.fillSlot(1, LguestHypercall.notify, 0x6000)
        #expect(try other.run() == .notify(0x5000))
        other.guest.kill("alas")
        #expect(other.death() == "alas")
    }
}
