import CPUOracle
import EngineTesting
import Glibc
import GuestMemory
import HostInterface
import Testing
import VirtualCPU
import X86

/// Random bytes as code in every mode, random tables, random answers: the
/// Guest may die, the Host may not. Each batch of Guests is a process of its
/// own, so that a crash tells who did it.
///
/// `ROOST_FUZZ_SECONDS` makes it longer (`make fuzz-guest`); `ROOST_FUZZ_SEED`
/// runs the one Guest that a failure named, and `ROOST_FUZZ_HERE` whole
/// batches, in this process, for a debugger.
@Suite(.everyEngine, .serialized) struct HostileGuestTests {
    @Test(arguments: [false, true], [false, true])
    func hostSurvives(withDevices: Bool, disturbed: Bool) async throws {
        if let text = environmentVariable("ROOST_FUZZ_SEED"), let seed = UInt64(text, radix: 16) {
            let guest = try HostileGuest(withDevices: withDevices, disturbed: disturbed, seed: seed)
            try guest.run(seed: seed)
            guest.end()
            return
        }
        let seconds = Double(environmentVariable("ROOST_FUZZ_SECONDS") ?? "") ?? 8
        let end = HostClock.monotonicNanoseconds &+ UInt64(seconds / 4 * 1e9)
        repeat {
            let batch = UInt64.random(in: 0...UInt64.max)
            // A batch that finds nothing ends after a second or two.
            if environmentVariable("ROOST_FUZZ_HERE") != nil {
                try Self.runBatch(
                    batch, withDevices: withDevices, disturbed: disturbed, nanoseconds: UInt64(seconds / 4 * 1e9))
                return
            }
            let nanoseconds = min(
                10_000_000_000, max(500_000_000, Int64(bitPattern: end &- HostClock.monotonicNanoseconds)))
            await #expect(processExitsWith: .success) {
                [
                    batch = batch as UInt64, withDevices = withDevices as Bool, disturbed = disturbed as Bool,
                    nanoseconds = nanoseconds as Int64, engine = TestedEngine.current.name as String
                ] in
                // A process of its own knows nothing of whose turn it is.
                try TestedEngine.$current.withValue(TestedEngine.named(engine)) {
                    try Self.runBatch(
                        batch, withDevices: withDevices, disturbed: disturbed, nanoseconds: UInt64(nanoseconds))
                }
            }
            let path = Self.tracePath(batch)
            // Only a process that ended well takes its trace away.
            if let trace = firstLine(path) {
                Issue.record("the Guest of ROOST_FUZZ_SEED=\(trace), devices \(withDevices), disturbed \(disturbed)")
                unsafe unlink(path)
                return
            }
        } while HostClock.monotonicNanoseconds < end
    }

    // A program that is never twice the same needs a thunk for every pass of its
    // loop; they must not pile up, single-stepped (`trap`) or not. In a process
    // of its own, whose memory nobody else uses.
    @Test(arguments: [false, true])
    func codeThatNeverRepeats(trap: Bool) async throws {
        await #expect(processExitsWith: .success) {
            [trap = trap as Bool, engine = TestedEngine.current.name as String] in
            try TestedEngine.$current.withValue(TestedEngine.named(engine)) { try Self.runNewCode(trap: trap) }
        }
    }

    static func runNewCode(trap: Bool) throws {
        let memory = try GuestMemory(byteCount: Layout.memoryBytes)
        let requests = VCPURequests()
        let vcpu = try TestedEngine.current.makeVCPU(memory, requests, nil)
        // L: lock add dword [ebx], imm32; inc dword [imm32]; jmp L
        try memory.write(
            [0xf0, 0x81, 0x03, 0, 0, 0, 0, 0xff, 0x05, 0x03, 0, 1, 0, 0xeb, 0xf1], at: GuestPhysicalAddress(Layout.code)
        )
        try memory.write([0xcf], at: GuestPhysicalAddress(0x2000))  // #DB: iretd
        try memory.store(0x00cf_9b00_0000_ffff as UInt64, at: GuestPhysicalAddress(Layout.gdt + 8))
        try memory.store(0x00cf_9300_0000_ffff as UInt64, at: GuestPhysicalAddress(Layout.gdt + 16))
        try memory.store(0x0000_8e00_0008_2000 as UInt64, at: GuestPhysicalAddress(Layout.idt + 8))
        vcpu.withState { state in
            state.cr0 = CR0.extensionType | CR0.protectedMode
            for number in 0..<6 {
                state.segments[number] = Segment(
                    selector: number == 1 ? 8 : 16, limit: .max, attributes: number == 1 ? 0xc09b : 0xc093)
            }
            state.gdtr = DescriptorTable(base: Layout.gdt, limit: 0x17)
            state.idtr = DescriptorTable(base: Layout.idt, limit: 0x7ff)
            state.gpr[Register.rbx] = 0x3000
            state.gpr[Register.rsp] = 0x5000
            state.rip = Layout.code
            state.rflags = RFlags.alwaysOne | (trap ? RFlags.trap : 0)
        }
        func run(milliseconds: UInt64) throws {
            let stopper = try HostThread(name: "stopper") {
                var pause = timespec(tv_sec: 0, tv_nsec: Int(milliseconds) * 1_000_000)
                unsafe nanosleep(&pause, nil)
                requests.post(.stop)
            }
            defer { stopper.join() }
            let exit = vcpu.run()
            guard case .stopped = exit else { Issue.record("not stopped: \(exit)"); return }
        }
        try run(milliseconds: 700)
        let before = residentBytes()
        try run(milliseconds: 700)
        #expect(residentBytes() < before + (24 << 20))
        // It did work: some hundred thousand passes.
        #expect(try memory.load(at: GuestPhysicalAddress(Layout.code + 3), as: UInt32.self) > 50_000)
    }

    static func tracePath(_ batch: UInt64) -> String { "/tmp/roost-hostile-" + String(batch, radix: 16) }

    static func runBatch(_ batch: UInt64, withDevices: Bool, disturbed: Bool, nanoseconds: UInt64) throws {
        let end = HostClock.monotonicNanoseconds &+ nanoseconds
        let trace = unsafe open(tracePath(batch), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0o600)
        var random = SeededGenerator(seed: batch)
        let guest = try HostileGuest(withDevices: withDevices, disturbed: disturbed, seed: batch)
        var count = 0
        var settled = 0
        while HostClock.monotonicNanoseconds < end {
            let seed = random.next()
            let text = String(seed, radix: 16)
            let line = Array((text + String(repeating: " ", count: 16 - text.count)).utf8)
            _ = unsafe pwrite(trace, line, line.count, 0)
            try guest.run(seed: seed)
            count += 1
            if count == 20 { settled = residentBytes() }
        }
        guest.end()
        // Decoded code and thunks have bounds: 24 and some 10 MiB; the Guest has 1.
        if count > 20 && residentBytes() > settled + (128 << 20) {
            StandardStream.error.write("\(count) Guests took \((residentBytes() - settled) >> 20) MiB\n")
            abort()
        }
        StandardStream.error.write("\(count) hostile Guests, batch \(String(batch, radix: 16))\n")
        unsafe unlink(tracePath(batch))
        close(trace)
    }
}
