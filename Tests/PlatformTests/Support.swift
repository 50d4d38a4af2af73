import GuestMemory
import HostInterface
import Platform
import Synchronization
import VirtualCPU
import X86

/// A clock that stands still until it is moved. One TSC tick is half a nanosecond.
final class FakeClock: MachineClock, Sendable {
    private let now: Mutex<UInt64>
    let startSeconds: UInt64

    /// - Parameter startSeconds: the time of day at the start, since 1970.
    init(startSeconds: UInt64 = 1_700_000_000) {
        now = Mutex(5_000_000_000)
        self.startSeconds = startSeconds
    }

    var nanoseconds: UInt64 { now.withLock { $0 } }
    var realtimeNanoseconds: UInt64 { startSeconds * 1_000_000_000 + nanoseconds - 5_000_000_000 }
    var timeStampCounter: UInt64 { nanoseconds * 2 }
    var timeStampFrequency: UInt64 { 2_000_000_000 }
    func advance(_ step: UInt64) { now.withLock { $0 += step } }
}

/// A vCPU that does nothing: tests make its exits up, and look at the answers.
final class FakeVCPU: VCPU {
    static var engineName: String { "fake" }
    let requests: VCPURequests
    var state = VCPUState()
    /// What `run` is to return, one after the other; then `.stopped`.
    var script: [VCPUExit] = []
    var answer: UInt64?
    var refusals = 0

    init(requests: VCPURequests) { self.requests = requests }
    func run() -> VCPUExit { script.isEmpty ? .stopped : script.removeFirst() }
    func complete(_ value: UInt64) { answer = value }
    func refuse() { refusals += 1 }
    func readState<Result>(_ body: (borrowing VCPUState) -> Result) -> Result { body(state) }
    func withState<Result>(_ body: (inout VCPUState) -> Result) -> Result { body(&state) }
    func reset() { state = VCPUState() }
    func describe() -> String { "fake" }
}

final class Collected: Sendable {
    private let bytes = Mutex<[UInt8]>([])
    private let count = Mutex(0)
    func append(_ more: [UInt8]) {
        bytes.withLock { $0 += more }
        count.withLock { $0 += 1 }
    }
    var all: [UInt8] { bytes.withLock { $0 } }
    var text: String { String(decoding: all, as: UTF8.self) }
    var calls: Int { count.withLock { $0 } }
}

/// A whole PC with a clock that is moved by hand.
final class Machine {
    let clock: FakeClock
    let memory: GuestMemory
    let requests = VCPURequests()
    let vcpu: FakeVCPU
    let pc: PC
    let console = Collected()
    let debug = Collected()
    let notes = Collected()

    init(startSeconds: UInt64 = 1_700_000_000, memoryBytes: UInt64 = 4 << 20) throws {
        clock = FakeClock(startSeconds: startSeconds)
        memory = try GuestMemory(byteCount: memoryBytes)
        vcpu = FakeVCPU(requests: requests)
        var configuration = PC.Configuration(memory: memory, requests: requests)
        configuration.clock = clock
        configuration.runsAlarms = false
        configuration.serialOutputs[0] = { [console] in console.append($0) }
        configuration.debugOutput = { [debug] in debug.append([$0]) }
        configuration.note = { [notes] in notes.append(Array($0.utf8)) }
        pc = try PC(configuration)
    }

    var apic: LocalAPIC { pc.localAPIC }

    func pass(_ nanoseconds: UInt64) {
        clock.advance(nanoseconds)
        pc.alarms.ring()
    }

    var interruptIsRequested: Bool { requests.pending.contains(.interrupt) }

    @discardableResult
    func out(_ port: UInt16, _ value: UInt32, bytes: Int = 1) -> RunOutcome? {
        pc.handle(.portWrite(port: port, bytes: bytes, value: value), vcpu: vcpu)
    }

    func `in`(_ port: UInt16, bytes: Int = 1) -> UInt64 {
        vcpu.answer = nil
        _ = pc.handle(.portRead(port: port, bytes: bytes), vcpu: vcpu)
        return vcpu.answer ?? 0xdead_dead
    }

    /// Nil: refused.
    func readMSR(_ index: UInt32) -> UInt64? {
        vcpu.answer = nil
        _ = pc.handle(.readMSR(index), vcpu: vcpu)
        return vcpu.answer
    }

    /// Whether it was not refused.
    @discardableResult
    func writeMSR(_ index: UInt32, _ value: UInt64) -> Bool {
        vcpu.answer = nil
        _ = pc.handle(.writeMSR(index, value: value), vcpu: vcpu)
        return vcpu.answer != nil
    }

    func readMemory(_ address: UInt64, bytes: Int = 4) -> UInt64 {
        vcpu.answer = nil
        _ = pc.handle(.mmioRead(GuestPhysicalAddress(address), bytes: bytes), vcpu: vcpu)
        return vcpu.answer ?? 0xdead_dead
    }

    func writeMemory(_ address: UInt64, _ value: UInt64, bytes: Int = 4) {
        _ = pc.handle(.mmioWrite(GuestPhysicalAddress(address), bytes: bytes, value: value), vcpu: vcpu)
    }

    // MARK: Shorthand for controllers

    func readAPIC(_ offset: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: readMemory(0xfee0_0000 + offset)) }
    func writeAPIC(_ offset: UInt64, _ value: UInt32) { writeMemory(0xfee0_0000 + offset, UInt64(value)) }

    func enableX2APIC() { writeMSR(0x1b, 0xfee0_0d00) }

    func readIOAPIC(_ index: UInt8) -> UInt32 {
        writeMemory(0xfec0_0000, UInt64(index))
        return UInt32(truncatingIfNeeded: readMemory(0xfec0_0010))
    }

    func writeIOAPIC(_ index: UInt8, _ value: UInt32) {
        writeMemory(0xfec0_0000, UInt64(index))
        writeMemory(0xfec0_0010, UInt64(value))
    }

    func route(pin: Int, _ entry: UInt64) {
        writeIOAPIC(UInt8(0x11 + pin * 2), UInt32(entry >> 32))
        writeIOAPIC(UInt8(0x10 + pin * 2), UInt32(truncatingIfNeeded: entry))
    }

    /// The initialization every PC kernel does: vectors 0x20 and 0x28, all unmasked but what `mask` says.
    func initializePIC(mask: UInt16 = 0) {
        for (port, words) in [(UInt16(0x20), [0x20, 4, 1]), (0xa0, [0x28, 2, 1])] as [(UInt16, [UInt32])] {
            out(port, 0x11)
            for word in words { out(port + 1, word) }
        }
        out(0x21, UInt32(mask & 0xff))
        out(0xa1, UInt32(mask >> 8))
    }
}

/// SplitMix64: good enough noise, and the same for the same seed.
struct Noise: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
