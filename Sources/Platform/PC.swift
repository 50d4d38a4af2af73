package import GuestMemory
package import HostInterface
internal import Synchronization
package import VirtualCPU
internal import X86

//H:240 The PC
//
// All of the above, wired up. A vCPU's thread spends its life in `run`: the
// engine runs the Guest until it wants something, `handle` asks the device,
// gives the answer, and on it goes. Other threads come in by three doors: a
// line that is raised, input for a serial port, and the alarm clock.

/// The machine around the vCPU: buses, interrupt controllers, old devices.
package final class PC: @unchecked Sendable {
    package struct Configuration {
        package var memory: GuestMemory
        package var requests: VCPURequests
        package var clock: any MachineClock = HostMachineClock()
        /// COM1…COM4 by index 0…3: who takes what the Guest writes there. No
        /// taker, no port. See `Serial16550.init` for how it is called.
        package var serialOutputs: [Int: @Sendable ([UInt8]) -> Void] = [:]
        /// Takes what is written to port 0xe9.
        package var debugOutput: @Sendable (UInt8) -> Void = { _ in }
        /// Takes remarks on what the Guest did that a curious user may want to read.
        package var note: @Sendable (String) -> Void = { _ in }
        /// Whether timers ring by themselves. A test with its own clock calls `alarms.ring()`.
        package var runsAlarms = true

        package init(memory: GuestMemory, requests: VCPURequests) {
            self.memory = memory
            self.requests = requests
        }
    }

    /// For more devices: to be filled before the first `run`.
    package let ports = Bus()
    package let mmio = Bus()
    package let localAPIC: LocalAPIC
    package let ioAPIC: IOAPIC
    package let pic: PIC8259
    package let pit: PIT8254
    package let rtc: RTC
    package let keyboardController: I8042
    /// What answers hypercalls, if the PC is to have more of them than KVM's. To be set before the first `run`.
    package var hypercalls: (any HypercallInterface)?
    /// COM1…COM4, as far as they are there.
    package let serialPorts: [Serial16550?]
    package let kvmClock: KVMClock
    package let alarms: AlarmClock

    private let lines: InterruptLines
    private let apicBus = APICBus()
    private let power: PowerManagement
    private let machineRegisters = MachineRegisters()
    private let outcome = OutcomeBox()
    private let requests: VCPURequests
    private let note: @Sendable (String) -> Void
    /// Unknown MSRs are remarked upon once each, and not for ever.
    private var notedMSRs: Set<UInt32> = []

    package init(_ configuration: Configuration) throws(HostError) {
        let clock = configuration.clock
        let memory = configuration.memory
        requests = configuration.requests
        note = configuration.note
        alarms = try AlarmClock(clock)

        pic = PIC8259 { [weak apicBus] isHigh in apicBus?.setExternalLine(isHigh) }
        localAPIC = LocalAPIC(
            identifier: 0, requests: requests, bus: apicBus, clock: clock, alarms: alarms,
            acknowledgeExternal: { [pic] in pic.acknowledge() })
        ioAPIC = IOAPIC(bus: apicBus)
        apicBus.attach(ioAPIC)
        lines = InterruptLines(ioAPIC: ioAPIC, pic: pic)

        let outcome = outcome
        pit = PIT8254(clock: clock, alarms: alarms, line: lines.line(irq: 0))
        rtc = RTC(
            clock: clock, alarms: alarms, line: lines.line(irq: MemoryMap.rtcIRQ),
            lowMemory: memory.lowEnd,
            highMemory: memory.highEnd > memory.lowEnd ? memory.highEnd - GuestMemory.holeEnd : 0)
        keyboardController = I8042(line: lines.line(irq: MemoryMap.keyboardIRQ)) { outcome.request(.reset) }
        power = PowerManagement(clock: clock, outcome: outcome)
        kvmClock = KVMClock(memory: memory, clock: clock)
        var serialPorts: [Serial16550?] = []
        for (index, (_, irq)) in MemoryMap.serialPorts.enumerated() {
            guard let send = configuration.serialOutputs[index] else {
                serialPorts.append(nil)
                continue
            }
            serialPorts.append(Serial16550(line: lines.line(irq: irq), clock: clock, alarms: alarms, send: send))
        }
        self.serialPorts = serialPorts
        registerDevices(configuration)
        if configuration.runsAlarms { try alarms.start() }
    }

    deinit { alarms.stop() }

    private func registerDevices(_ configuration: Configuration) {
        func put(_ device: any BusDevice, _ port: UInt16, _ count: UInt64) {
            ports.register(device, at: UInt64(port), count: count)
        }
        put(pic, MemoryMap.picMaster, 2)
        put(ByteWindow(pic, first: 2), MemoryMap.picSlave, 2)
        put(ByteWindow(pic, first: 4), MemoryMap.picEdgeLevel, 2)
        put(pit, MemoryMap.pit, 4)
        put(SystemControlB(pit), MemoryMap.systemControlB, 1)
        put(keyboardController, MemoryMap.keyboardData, 1)
        put(ByteWindow(keyboardController, first: 4), MemoryMap.keyboardCommand, 1)
        put(rtc, MemoryMap.rtc, 2)
        put(DeafPort(), MemoryMap.postCode, 1)
        let outcome = outcome
        put(SystemControlA { outcome.request(.reset) }, MemoryMap.systemControlA, 1)
        put(DebugPort(send: configuration.debugOutput), MemoryMap.debugOutput, 1)
        put(ExitPort(outcome: outcome), MemoryMap.exit, 4)
        put(power, MemoryMap.pm1aEvent, PowerManagement.portCount)
        put(ResetControl(outcome: outcome), MemoryMap.pciConfiguration, 8)
        for (index, (port, _)) in MemoryMap.serialPorts.enumerated() {
            if let serial = serialPorts[index] { put(serial, port, 8) }
        }
        mmio.register(ioAPIC, at: MemoryMap.ioAPIC.rawValue, count: MemoryMap.apicWindowBytes)
    }

    /// A device's end of interrupt wire `gsi`. To be kept: a new one is another line.
    package func interruptLine(gsi: Int) -> InterruptLine { lines.line(gsi: gsi) }

    /// To the state after power-on. Not while the vCPU runs; the caller
    /// resets that, and devices of its own, and loads the kernel again.
    package func reset() {
        for serial in serialPorts { serial?.reset() }
        pit.reset()
        rtc.reset()
        keyboardController.reset()
        power.reset()
        ioAPIC.reset()
        pic.reset()
        localAPIC.reset()
        kvmClock.reset()
        machineRegisters.reset()
        _ = outcome.take()
    }

    // MARK: The vCPU's thread

    /// Runs the vCPU until the Guest ends, one way or another.
    package func run(_ vcpu: any VCPU) -> RunOutcome {
        while true {
            if let outcome = handle(vcpu.run(), vcpu: vcpu) {
                flushOutput()
                return outcome
            }
        }
    }

    /// Does what the vCPU asked for, and answers. Not nil: that was the last.
    package func handle(_ exit: VCPUExit, vcpu: any VCPU) -> RunOutcome? {
        switch exit {
        case .portRead(let port, let bytes):
            vcpu.complete(ports.read(UInt64(port), bytes: bytes))
            return nil
        case .portWrite(let port, let bytes, let value):
            ports.write(UInt64(port), bytes: bytes, value: UInt64(value))
            vcpu.complete(0)
            return outcome.take()
        case .mmioRead(let address, let bytes):
            flushOutput()
            vcpu.complete(readMemory(address, bytes))
        case .mmioWrite(let address, let bytes, let value):
            flushOutput()
            writeMemory(address, bytes, value)
            vcpu.complete(0)
            return outcome.take()
        case .readMSR(let index):
            if let value = readMSR(index) { vcpu.complete(value) } else { refuse(index, "RDMSR", vcpu) }
        case .writeMSR(let index, let value):
            flushOutput()
            if writeMSR(index, value, vcpu) { vcpu.complete(0) } else { refuse(index, "WRMSR", vcpu) }
        case .hypercall:
            flushOutput()
            if let outcome = hypercall(vcpu) { return outcome }
        case .halt:
            flushOutput()
            halt(vcpu)
        case .shutdown(let reason):
            return .shutdown(reason: reason)
        case .stopped:
            return .stopped
        }
        return nil
    }

    private func flushOutput() { for serial in serialPorts { serial?.flush() } }

    private func readMemory(_ address: GuestPhysicalAddress, _ bytes: Int) -> UInt64 {
        let offset = address.rawValue &- MemoryMap.localAPIC.rawValue
        if offset < MemoryMap.apicWindowBytes { return localAPIC.readPage(offset: offset, bytes: bytes) }
        return mmio.read(address.rawValue, bytes: bytes)
    }

    private func writeMemory(_ address: GuestPhysicalAddress, _ bytes: Int, _ value: UInt64) {
        let offset = address.rawValue &- MemoryMap.localAPIC.rawValue
        if offset < MemoryMap.apicWindowBytes {
            localAPIC.writePage(offset: offset, bytes: bytes, value: value)
        } else {
            mmio.write(address.rawValue, bytes: bytes, value: value)
        }
    }

    /// Sleeps until there is something to do. A CPU that halts with
    /// interrupts off wakes only for what cannot be masked.
    private func halt(_ vcpu: any VCPU) {
        let (takesInterrupts, offset) = vcpu.readState { ($0.rflags & RFlags.interrupt != 0, $0.tscOffset) }
        timeStampOffsetMayHaveChanged(offset)
        requests.wait(
            for: takesInterrupts ? [.interrupt, .nonMaskableInterrupt, .stop] : [.nonMaskableInterrupt, .stop])
    }

    /// KVM's hypercalls (Linux, Documentation/virt/kvm/x86/hypercalls.rst): we
    /// offer none, and say so the way KVM does.
    private func hypercall(_ vcpu: any VCPU) -> RunOutcome? {
        if let hypercalls { return hypercalls.perform(on: vcpu) }
        let answer: Int64 = vcpu.hypercall.privilege == 0 ? -1000 /* KVM_ENOSYS */ : -1 /* KVM_EPERM */
        vcpu.answerHypercall(UInt64(bitPattern: answer))
        return nil
    }

    // MARK: MSRs

    private func readMSR(_ index: UInt32) -> UInt64? {
        switch index {
        case MSR.apicBase: localAPIC.baseMSR
        case MSR.tscDeadline: localAPIC.timeStampDeadline
        case MSR.x2apicFirst...MSR.x2apicLast: localAPIC.readX2APIC(Int(index - MSR.x2apicFirst))
        default: hypercalls?.readMSR(index) ?? kvmClock.read(index) ?? machineRegisters.read(index)
        }
    }

    private func writeMSR(_ index: UInt32, _ value: UInt64, _ vcpu: any VCPU) -> Bool {
        switch index {
        case MSR.apicBase: return localAPIC.writeBase(value)
        case MSR.x2apicFirst...MSR.x2apicLast: return localAPIC.writeX2APIC(Int(index - MSR.x2apicFirst), value)
        case MSR.tscDeadline:
            let offset = vcpu.readState { $0.tscOffset }
            localAPIC.setTimeStampDeadline(value, offset: offset)
            kvmClock.timeStampOffsetChanged(to: offset)
            return true
        default:
            if let isValid = hypercalls?.writeMSR(index, value) { return isValid }
            if kvmClock.read(index) != nil {
                return kvmClock.write(index, value, offset: vcpu.readState { $0.tscOffset })
            }
            return machineRegisters.write(index, value)
        }
    }

    /// The engine owns the TSC and says nothing when it is set. We look now
    /// and then: whoever sets it soon halts or sets a timer.
    private func timeStampOffsetMayHaveChanged(_ offset: UInt64) {
        localAPIC.timeStampOffsetChanged(to: offset)
        kvmClock.timeStampOffsetChanged(to: offset)
    }

    private func refuse(_ index: UInt32, _ instruction: String, _ vcpu: any VCPU) {
        if notedMSRs.count < 64 && notedMSRs.insert(index).inserted {
            note("#GP for \(instruction) of 0x" + String(index, radix: 16))
        }
        vcpu.refuse()
    }
}
//:
