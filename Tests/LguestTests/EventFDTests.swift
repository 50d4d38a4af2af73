import EngineTesting
import HostInterface
import Lguest
import LguestTesting
import Testing

/// EVENTFD (B1, F17).
@Suite(.everyEngine) struct EventFDTests {
    private func isSignalled(_ descriptor: Int32) -> Bool {
        waitReadable([descriptor], milliseconds: 0) == [true]
    }

    @Test func aNotificationThatAnEventFDClaimsDoesNotComeOut() throws {
        let guest = try WordGuest { program in
            program.initialize()
            program.notify(0x5000)
            program.notify(0x6000)
        }
        let event = try EventFD()
        #expect(try guest.write(LguestRequest.eventFD, 0x5000, UInt64(event.rawValue)) == 0)
        #expect(!isSignalled(event.rawValue))
        #expect(try guest.readWords() == [0x6000])
        #expect(isSignalled(event.rawValue))
    }

    /// The Host has a door of its own to it.
    @Test func theLauncherMayCloseItsDescriptor() throws {
        let guest = try WordGuest { program in
            program.initialize()
            program.notify(0x5000)
            program.notify(0x6000)
        }
        let kept = try EventFD()
        do {
            let event = try EventFD(duplicating: kept.rawValue)
            _ = try guest.write(LguestRequest.eventFD, 0x5000, UInt64(event.rawValue))
        }
        #expect(try guest.readWords() == [0x6000])
        #expect(isSignalled(kept.rawValue))
    }

    /// F17.
    @Test func ofTwoForOneAddressTheFirstWins() throws {
        let guest = try WordGuest { program in
            program.initialize()
            program.notify(0x5000)
            program.notify(0x6000)
        }
        let first = try EventFD()
        let second = try EventFD()
        _ = try guest.write(LguestRequest.eventFD, 0x5000, UInt64(first.rawValue))
        #expect(try guest.write(LguestRequest.eventFD, 0x5000, UInt64(second.rawValue)) == 0)
        #expect(try guest.readWords() == [0x6000])
        #expect(isSignalled(first.rawValue))
        #expect(!isSignalled(second.rawValue))
    }

    /// F17.
    @Test func addressZeroIsInvalid() throws {
        let guest = try WordGuest()
        let event = try EventFD()
        #expect(throws: Errno.invalid) { try guest.write(LguestRequest.eventFD, 0, UInt64(event.rawValue)) }
        // Before it is asked what the descriptor is.
        #expect(throws: Errno.invalid) { try guest.write(LguestRequest.eventFD, 0, .max) }
    }

    @Test func whatIsNoDescriptorIsABadOne() throws {
        let guest = try WordGuest()
        for number in [1_000_000, UInt64.max, 1 << 40] {
            #expect(throws: Errno.badDescriptor) { try guest.write(LguestRequest.eventFD, 0x5000, number) }
        }
    }

    @Test func whatIsNoEventFDIsInvalid() throws {
        let guest = try WordGuest()
        let file = try MemoryFile(name: "no eventfd", byteCount: 4096)
        let number = UInt64(file.descriptor.rawValue)
        #expect(throws: Errno.invalid) { try guest.write(LguestRequest.eventFD, 0x5000, number) }
    }

    @Test func detachedAddressesComeOutAgain() throws {
        let guest = try TestGuest { program in
            program.initialize()
            program.notify(0x5000)
        }
        let event = try EventFD()
        try guest.guest.attach(eventFD: event.rawValue, to: 0x5000)
        guest.guest.detach(address: 0x5000)
        #expect(try guest.run() == .notify(0x5000))
        #expect(!isSignalled(event.rawValue))
    }
}
