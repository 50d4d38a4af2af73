import Platform
import Testing
import VirtualCPU

/// PC16550D datasheet.
@Suite struct Serial16550Tests {
    private static let base: UInt16 = 0x3f8

    private func prepared() throws -> Machine {
        let machine = try Machine()
        machine.initializePIC()
        machine.out(Self.base + 4, 0x0b)  // DTR, RTS, OUT2
        return machine
    }

    private func identification(_ machine: Machine) -> UInt64 { machine.in(Self.base + 2) & 0x0f }

    @Test("output goes out at a newline, at the next exit of another kind, or after 10 ms")
    func output() throws {
        let machine = try Machine()
        for byte in "hi\n".utf8 {
            #expect(machine.in(Self.base + 5) == 0x60)
            machine.out(Self.base, UInt32(byte))
        }
        #expect(machine.console.text == "hi\n")
        #expect(machine.console.calls == 1)
        for byte in "login: ".utf8 { machine.out(Self.base, UInt32(byte)) }
        #expect(machine.console.text == "hi\n")
        machine.requests.post(.nonMaskableInterrupt)
        _ = machine.pc.handle(.halt, vcpu: machine.vcpu)
        #expect(machine.console.text == "hi\nlogin: ")
        machine.out(Self.base, 0x21)
        machine.pass(10_000_000)
        #expect(machine.console.text == "hi\nlogin: !")
        for _ in 0..<1024 { machine.out(Self.base, 0x2e) }
        #expect(machine.console.all.count == 11 + 1024)
    }

    @Test("scratch, divisor latch, line control")
    func registers() throws {
        let machine = try Machine()
        machine.out(Self.base + 7, 0x5a)
        #expect(machine.in(Self.base + 7) == 0x5a)
        machine.out(Self.base + 1, 0xff)
        #expect(machine.in(Self.base + 1) == 0x0f)
        machine.out(Self.base + 3, 0x83)
        machine.out(Self.base, 0x34)
        machine.out(Self.base + 1, 0x12)
        #expect(machine.in(Self.base, bytes: 2) == 0x1234)
        machine.out(Self.base + 3, 0x03)
        #expect(machine.in(Self.base + 1) == 0x0f)
        #expect(machine.console.all.isEmpty)
        #expect(machine.in(Self.base + 6) == 0xb0)
        #expect(machine.in(0x2f8) == 0xff)  // No COM2 here.
    }

    @Test("received data: interrupt at the trigger level, time-out below, until read")
    func receiving() throws {
        let machine = try prepared()
        machine.out(Self.base + 1, 1)
        machine.out(Self.base + 2, 0x47)  // FIFO on, trigger at 4
        let port = try #require(machine.pc.serialPorts[0])
        #expect(machine.in(Self.base + 2) == 0xc1)
        #expect(port.receive(Array("abcd".utf8)) == 4)
        #expect(machine.interruptIsRequested)
        #expect(machine.apic.acknowledgeInterrupt() == 0x24)
        #expect(identification(machine) == 4)
        #expect(machine.in(Self.base) == 0x61)
        #expect(identification(machine) == 0x0c)
        #expect(machine.in(Self.base + 5) == 0x61)
        for byte in "bcd".utf8 { #expect(machine.in(Self.base) == UInt64(byte)) }
        #expect(identification(machine) == 1)
        #expect(machine.in(Self.base + 5) == 0x60)
        machine.out(0x20, 0x20)
        #expect(!machine.interruptIsRequested)
        _ = port.receive([0x65])
        #expect(machine.interruptIsRequested)
    }

    @Test("transmitter empty: asserted by enabling and by each write, ended by reading IIR")
    func transmitting() throws {
        let machine = try prepared()
        machine.out(Self.base + 1, 2)
        #expect(machine.apic.acknowledgeInterrupt() == 0x24)
        #expect(identification(machine) == 2)
        #expect(identification(machine) == 1)
        machine.out(0x20, 0x20)
        machine.out(Self.base, 0x41)
        #expect(machine.interruptIsRequested)
        #expect(identification(machine) == 2)
        // Linux's test for a broken transmitter interrupt: off and on again.
        machine.out(Self.base + 1, 0)
        machine.out(Self.base + 1, 2)
        #expect(identification(machine) == 2)
        // Received data is more urgent.
        machine.out(Self.base + 1, 0)
        machine.out(Self.base + 1, 3)
        _ = machine.pc.serialPorts[0]?.receive([1])
        #expect(identification(machine) == 4)
    }

    @Test("MCR's OUT2 is the gate to the interrupt line")
    func gate() throws {
        let machine = try prepared()
        machine.out(Self.base + 4, 0x03)
        machine.out(Self.base + 1, 1)
        _ = machine.pc.serialPorts[0]?.receive([1])
        #expect(!machine.interruptIsRequested)
        machine.out(Self.base + 4, 0x0b)
        #expect(machine.interruptIsRequested)
    }

    @Test("loopback: bytes come back, modem control shows as modem status")
    func loopback() throws {
        let machine = try Machine()
        machine.out(Self.base + 2, 1)
        machine.out(Self.base + 4, 0x1a)  // Loop, OUT2, RTS
        #expect(machine.in(Self.base + 6) & 0xf0 == 0x90)  // DCD, CTS
        machine.out(Self.base, 0x42)
        #expect(machine.in(Self.base + 5) == 0x61)
        #expect(machine.in(Self.base) == 0x42)
        for _ in 0..<17 { machine.out(Self.base, 0x43) }
        #expect(machine.in(Self.base + 5) & 2 != 0)  // Overrun
        #expect(machine.in(Self.base + 5) & 2 == 0)
        machine.out(Self.base + 2, 3)
        #expect(machine.in(Self.base + 5) & 1 == 0)
        #expect(machine.console.all.isEmpty)
    }

    @Test("input is bounded, and its sender hears when there is room")
    func backPressure() throws {
        let machine = try Machine()
        let port = try #require(machine.pc.serialPorts[0])
        let counter = Collected()
        port.onRoom { counter.append([]) }
        let much = [UInt8](repeating: 7, count: 5000)
        #expect(port.receive(much) == 4096)
        #expect(port.receive([1]) == 0)
        for _ in 0..<2047 { _ = machine.in(Self.base) }
        #expect(counter.calls == 0)
        _ = machine.in(Self.base)
        #expect(counter.calls == 1)
        #expect(port.receive(much) == 2048)
    }
}
