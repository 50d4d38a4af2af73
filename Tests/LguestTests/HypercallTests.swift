import EngineTesting
import GuestMemory
import HostInterface
import Lguest
import LguestTesting
import Testing
import VirtualCPU

/// Hypercalls, call by call (A3, B2; docs/lguest-abi.md).
@Suite(.everyEngine) struct HypercallTests {
    private static let known = 0...LguestHypercall.sendInterrupts
    /// Those that a Host without shadows has nothing to do for.
    private static let nothings = [
        LguestHypercall.loadGDT, LguestHypercall.newPageTable, LguestHypercall.flushTLB, LguestHypercall.loadIDTEntry,
        LguestHypercall.setStack, LguestHypercall.ts, LguestHypercall.setPTE, LguestHypercall.setPMD,
        LguestHypercall.loadTLS, LguestHypercall.loadGDTEntry,
    ]

    /// What a Guest dies of that does this first.
    private func death(of number: UInt64, _ arguments: UInt64..., afterInit: Bool = true) throws -> String {
        let guest = try TestGuest { program in
            if afterInit { program.initialize() }
            let all = arguments + [0, 0, 0]
            program.hypercall(number, all[0], all[1], all[2])
            program.notify(0x5000)
        }
        return guest.death()
    }

    // MARK: LGUEST_INIT

    @Test func everyOtherCallBeforeItKills() throws {
        for number in Array(Self.known) + [20, .max] where number != LguestHypercall.initialize {
            #expect(try death(of: number, afterInit: false) == "hypercall \(number) before LGUEST_INIT")
        }
    }

    @Test func aSecondOneKills() throws {
        #expect(try death(of: LguestHypercall.initialize, Place.data) == "already have lguest_data")
    }

    @Test func lguestDataMustBeInsideMemory() throws {
        let end: UInt64 = 1 << 20
        let last = end - UInt64(LguestData.byteCount)
        for address in [last + 1, end, 1 << 40, UInt64.max, UInt64.max - UInt64(LguestData.byteCount) + 1] {
            let reason = try death(of: LguestHypercall.initialize, address, afterInit: false)
            #expect(reason == "bad guest page 0x" + String(address, radix: 16))
        }
        // The very last place is one; wherever it is, and however aligned.
        for address in [last, 0x8001] {
            let guest = try TestGuest { program in
                program.put(.max, at: address + LguestData.hypercallStatus)
                program.hypercall(LguestHypercall.initialize, address)
                program.powerDown()
            }
            guest.finish()
        }
    }

    @Test func itAnswersZeroAndTheHostFillsItsFields() throws {
        let before = HostClock.realtimeNanoseconds / 1_000_000_000
        let guest = try TestGuest { program in
            program.setData(LguestData.reservedMemory, .max)
            program.setData(LguestData.tscKHz, .max)
            program.setData(LguestData.time, .max)
            program.initialize()
            program.keepResult()
            program.powerDown()
        }
        guest.finish()
        #expect(try guest.result() == 0)
        #expect(try guest.memory.data(LguestData.reservedMemory) == 0)
        let words = try guest.memory.data(LguestData.tscKHz)
        #expect(words & 0xffff_ffff == HostClock.timeStampFrequency / 1000)
        #expect(UInt16(truncatingIfNeeded: words >> 32) == guest.guest.id)
        // Two bytes, and no more.
        #expect(words >> 48 == 0xffff)
        let seconds = try guest.memory.data(LguestData.time)
        #expect(seconds >= before && seconds <= HostClock.realtimeNanoseconds / 1_000_000_000)
        #expect(try guest.memory.data(LguestData.time + 8) < 1_000_000_000)
    }

    /// What is the Guest's stays the Guest's.
    @Test func itLeavesTheGuestsFieldsAlone() throws {
        let guestFields = [
            LguestData.irqEnabled, LguestData.blockedInterrupts, LguestData.cr2, LguestData.noInterruptStart,
            LguestData.noInterruptEnd, LguestData.kernelAddress, LguestData.syscallVector,
        ]
        let guest = try TestGuest { program in
            for field in guestFields { program.setData(field, 0x1234_5678_9abc_def0 &+ field) }
            program.initialize()
            program.powerDown()
        }
        guest.finish()
        for field in guestFields { #expect(try guest.memory.data(field) == 0x1234_5678_9abc_def0 &+ field) }
    }

    /// B3, in words of 64 bits: fields that follow each other.
    @Test func theFieldsOfLguestDataDoNotOverlap() {
        let fields: [(UInt64, UInt64)] = [
            (LguestData.irqEnabled, 8), (LguestData.blockedInterrupts, 8), (LguestData.cr2, 8), (LguestData.time, 16),
            (LguestData.irqPending, 8), (LguestData.hypercallStatus, 64),
            (LguestData.hypercalls, UInt64(LguestData.ringSize) * LguestData.ringEntryBytes),
            (LguestData.reservedMemory, 8), (LguestData.tscKHz, 4), (LguestData.guestID, 4),
            (LguestData.noInterruptStart, 8), (LguestData.noInterruptEnd, 8), (LguestData.kernelAddress, 8),
            (LguestData.syscallVector, 8),
        ]
        var end: UInt64 = 0
        for (offset, count) in fields {
            #expect(offset == end)
            end = offset + count
        }
        #expect(end == UInt64(LguestData.byteCount))
    }

    // MARK: How one is made

    @Test func anUnknownNumberKills() throws {
        for number in [20, 21, 99, 1 << 32, UInt64.max] { #expect(try death(of: number) == "Bad hypercall \(number)") }
    }

    @Test func vmmcallIsAsGood() throws {
        let guest = try TestGuest { program in
            program.initialize()
            program.move(.rax, LguestHypercall.notify)
            program.move(.rbx, 0x5000)
            program.raw(0x0f, 0x01, 0xd9)
            program.powerDown()
        }
        #expect(try guest.run() == .notify(0x5000))
        guest.finish()
    }

    /// From CPL 3 nothing is done, not even what the ring has.
    @Test func usersMayNot() throws {
        let guest = try TestGuest { program in
            program.takeInterrupts()
            program.raw(0x6a, UInt8(Place.userDataSelector))  // push
            program.raw(0x68, 0x00, 0xf0, 0x02, 0x00)  // push 0x2f000
            program.raw(0x68, 0x02, 0x00, 0x00, 0x00)
            program.raw(0x6a, UInt8(Place.userCodeSelector))
            program.move(.rax, addressOf: "user")
            program.raw(0x50, 0x48, 0xcf)  // push rax; iretq
            program.label("user")
            program.notify(0x5000)
            program.keepResult()
            program.hypercall(99)
            program.keepResult(1)
            program.move(.rbx, 0x180000)
            program.load(.rax, Memory(.rbx))
        }
        try guest.memory.fillSlot(0, LguestHypercall.notify, 0x6000)
        #expect(guest.death() == "bad read address 0x180000 len 8")
        #expect(try guest.result() == .max)
        #expect(try guest.result(1) == .max)
        #expect(try !guest.memory.isFree(slot: 0))
    }

    /// The result in RAX, and nothing else changes.
    @Test func otherRegistersStayAsTheyAre() throws {
        let guest = try TestGuest { program in
            program.initialize()
            for (index, register) in GPR.allCases.enumerated() where register != .rax {
                program.move(register, 0x1111_1111_1111_1111 &* UInt64(index + 1))
            }
            program.move(.rax, LguestHypercall.flushTLB)
            program.raw(0xf9)  // stc
            program.raw(0x0f, 0x01, 0xc1)
            program.move(.rax, LguestHypercall.notify)
            program.raw(0x0f, 0x01, 0xc1)
        }
        #expect(try guest.run() == .notify(0x1111_1111_1111_1111 &* 4))
        guest.readState { state in
            #expect(state.gpr[0] == 0)
            for index in 1..<16 { #expect(state.gpr[index] == 0x1111_1111_1111_1111 &* UInt64(index + 1)) }
            #expect(state.rflags & 1 == 1)
        }
    }

    // MARK: The others

    /// They do not look at their arguments.
    @Test func thereIsNothingToDoForPageTablesAndDescriptors() throws {
        let arguments: [UInt64] = [0, 1, 0xffff_ffff_ffff_ffff, 1 << 40]
        let guest = try TestGuest { program in
            program.initialize()
            for (index, number) in Self.nothings.enumerated() {
                let argument = arguments[index % arguments.count]
                program.hypercall(number, argument, ~argument, argument)
                program.keepResult(index)
            }
            program.powerDown()
        }
        for index in Self.nothings.indices { try guest.memory.put([1], Place.results + UInt64(index) * 8) }
        guest.finish()
        for index in Self.nothings.indices { #expect(try guest.result(index) == 0) }
    }

    @Test func theOthersAnswerZeroToo() throws {
        let guest = try TestGuest { program in
            program.initialize()
            program.hypercall(LguestHypercall.flushAsync)
            program.keepResult()
            program.hypercall(LguestHypercall.sendInterrupts)
            program.keepResult(1)
            program.hypercall(LguestHypercall.setClockEvent)
            program.keepResult(2)
            program.notify(0x5000)
            program.keepResult(3)
            program.powerDown()
        }
        for index in 0..<4 { try guest.memory.put([1], Place.results + UInt64(index) * 8) }
        #expect(try guest.run() == .notify(0x5000))
        guest.finish()
        for index in 0..<4 { #expect(try guest.result(index) == 0) }
    }

    @Test func theWallClockHasSecondsSince1970() throws {
        let guest = try TestGuest { program in
            program.initialize()
            program.hypercall(LguestHypercall.getWallClock)
            program.keepResult()
            program.powerDown()
        }
        let before = HostClock.realtimeNanoseconds / 1_000_000_000
        guest.finish()
        let after = HostClock.realtimeNanoseconds / 1_000_000_000
        #expect(try (before...after).contains(guest.result()))
    }

    // MARK: SHUTDOWN

    private func shutdown(_ text: [UInt8], at address: UInt64 = Place.free, how: UInt64) throws -> TestGuest {
        let guest = try TestGuest { program in
            program.initialize()
            program.hypercall(LguestHypercall.shutdown, address, how)
            program.notify(0x5000)
        }
        try guest.memory.put(text, address)
        return guest
    }

    @Test func theReasonIsCRASHAndTheText() throws {
        // B2: 1 powers off, and so does what is neither 1 nor 2.
        for how in [0, 1, 3, UInt64.max] {
            let guest = try shutdown(Array("out of cheese".utf8) + [0], how: how)
            #expect(guest.death() == "CRASH: out of cheese")
            #expect(guest.guest.death == .shutdown(text: "out of cheese"))
            #expect(guest.guest.death?.isPowerOff == false)
        }
    }

    @Test func powerDownIsTheTextOfAGuestThatIsDone() throws {
        let guest = try shutdown(Array("Power down".utf8) + [0], how: 1)
        #expect(guest.death() == "CRASH: Power down")
        #expect(guest.guest.death?.isPowerOff == true)
        #expect(try shutdown(Array("Power down!".utf8) + [0], how: 1).death() == "CRASH: Power down!")
    }

    /// A3: 128 with the NUL.
    @Test func atMost127BytesOfTextAreRead() throws {
        let guest = try shutdown([UInt8](repeating: 0x61, count: 300), how: 1)
        #expect(guest.death() == "CRASH: " + String(repeating: "a", count: 127))
        let exact = try shutdown([UInt8](repeating: 0x62, count: 127) + [0], how: 1)
        #expect(exact.death() == "CRASH: " + String(repeating: "b", count: 127))
        #expect(try shutdown([0], how: 1).death() == "CRASH: ")
    }

    @Test func aTextMayEndWhereMemoryDoes() throws {
        #expect(try shutdown(Array("abc".utf8), at: (1 << 20) - 3, how: 1).death() == "CRASH: abc")
    }

    @Test func aTextOutsideMemoryIsTheReason() throws {
        for address in [1 << 20, UInt64.max] {
            let reason = try death(of: LguestHypercall.shutdown, address, 1)
            #expect(reason == "bad address 0x\(String(address, radix: 16)) of a text")
        }
    }

    @Test func whatIsNoTextIsNoTrap() throws {
        let guest = try shutdown([0xff, 0xfe, 0x80, 0xc0, 0], how: 1)
        #expect(guest.death().hasPrefix("CRASH: "))
    }

    /// B2, F5.
    @Test func aRestartHasNoText() throws {
        let guest = try TestGuest { program in
            program.initialize()
            program.hypercall(LguestHypercall.shutdown, .max, LguestHypercall.restart)
        }
        #expect(guest.error() == .restart)
        #expect(guest.error() == .restart)
        #expect(guest.guest.death == .restart)
    }
}
