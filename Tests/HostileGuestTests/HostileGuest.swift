import CPUOracle
import EngineTesting
import Glibc
import GuestMemory
import HostInterface
import Platform
import Synchronization
import VirtualCPU
import X86

/// Guests made of noise, one after the other on one vCPU, each from a seed of
/// its own, on the engine whose turn it is. They may do what they like; `run` returns after a while.
final class HostileGuest {
    /// What the other thread needs, that stops the Guest and otherwise disturbs it.
    private final class Shared: Sendable {
        let beats = Atomic<UInt64>(0)
        let isOver = Atomic<Bool>(false)
        let isRunning = Atomic<Bool>(false)
    }

    /// Any interrupt at any time.
    private final class NoisyController: InterruptController {
        var random = SeededGenerator(seed: 0)
        var taskPriorityClass: UInt8 = 0
        let requests: VCPURequests
        init(_ requests: VCPURequests) { self.requests = requests }
        func acknowledgeInterrupt() -> UInt8? {
            requests.clear(.interrupt)
            return random.chance(80) ? UInt8(truncatingIfNeeded: random.next()) : nil
        }
    }

    private let memory: GuestMemory
    private let requests = VCPURequests()
    private let controller: NoisyController
    private let pc: PC?
    private let vcpu: any VCPU
    private let shared = Shared()
    private var tormentor: HostThread?

    /// - Parameters:
    ///   - withDevices: a whole PC answers, timers and all; else any number does.
    ///   - disturbed: another thread posts interrupts and writes to memory.
    init(withDevices: Bool, disturbed: Bool, seed: UInt64) throws {
        memory = try GuestMemory(byteCount: Layout.memoryBytes)
        controller = NoisyController(requests)
        if withDevices {
            var configuration = PC.Configuration(memory: memory, requests: requests)
            for port in 0..<4 { configuration.serialOutputs[port] = { _ in } }
            pc = try PC(configuration)
        } else {
            pc = nil
        }
        vcpu = try TestedEngine.current.makeVCPU(memory, requests, pc?.localAPIC ?? controller)
        let (shared, requests, memory) = (shared, requests, memory)
        let lines = pc.map { pc in (0..<24).map { pc.interruptLine(gsi: $0) } } ?? []
        tormentor = try HostThread(name: "tormentor") {
            HostileGuest.torment(shared, requests, memory, disturbed ? lines : nil, seed: seed)
        }
    }

    func end() {
        shared.isOver.store(true, ordering: .releasing)
        tormentor?.join()
        tormentor = nil
    }

    /// Stops the vCPU about every millisecond, and ends the process if it does not stop.
    ///
    /// - Parameter lines: of devices that disturb the Guest; nil: nothing shall.
    private static func torment(
        _ shared: Shared, _ requests: VCPURequests, _ memory: GuestMemory, _ lines: [InterruptLine]?, seed: UInt64
    ) {
        var random = SeededGenerator(seed: ~seed)
        var last: UInt64 = 0
        var since = HostClock.monotonicNanoseconds
        while !shared.isOver.load(ordering: .acquiring) {
            var pause = timespec(tv_sec: 0, tv_nsec: 100_000 + random.below(900_000))
            unsafe nanosleep(&pause, nil)
            if let lines {
                if !lines.isEmpty { random.pick(lines).pulse() }
                switch random.below(4) {
                case 0: requests.post(.interrupt)
                case 1: requests.post(.nonMaskableInterrupt)
                case 2:
                    let address = GuestPhysicalAddress(UInt64(random.below(Int(Layout.memoryBytes) - 64)))
                    try? memory.write(InstructionSoup.make(random.below(64), &random), at: address)
                default: break
                }
            }
            requests.post(.stop)
            let now = shared.beats.load(ordering: .acquiring)
            if now != last || !shared.isRunning.load(ordering: .acquiring) {
                last = now
                since = HostClock.monotonicNanoseconds
            } else if HostClock.monotonicNanoseconds &- since > 20_000_000_000 {
                StandardStream.error.write("the Guest was told to stop 20 s ago, and did not\n")
                abort()
            }
        }
    }

    /// One Guest, to its end or for some milliseconds.
    func run(seed: UInt64) throws {
        var state = HostileState(random: SeededGenerator(seed: seed))
        controller.random = SeededGenerator(seed: seed ^ 0x5555)
        let mode = state.random.pick(HostileMode.allCases)
        vcpu.reset()
        pc?.reset()
        try state.fill(memory)
        vcpu.withState { state.set(&$0, mode, features: .forThisHost) }
        var stops = 0
        var deaths = 0
        for _ in 0..<3000 {
            shared.isRunning.store(true, ordering: .releasing)
            let exit = vcpu.run()
            shared.isRunning.store(false, ordering: .releasing)
            shared.beats.wrappingAdd(1, ordering: .releasing)
            switch exit {
            case .stopped:
                stops += 1
                if stops > 3 { return }
                vcpu.withState { again(&$0, &state.random) }
            case .shutdown:
                _ = vcpu.describe()
                deaths += 1
                if deaths > 8 { return }
                // It would die of the same again: elsewhere, then, perhaps as somebody else.
                let mode = state.random.chance(50) ? mode : state.random.pick(HostileMode.allCases)
                vcpu.withState { state.set(&$0, mode, features: .forThisHost) }
            case .halt:
                requests.post(.interrupt)
                vcpu.withState { again(&$0, &state.random) }
            default:
                if let pc {
                    if pc.handle(exit, vcpu: vcpu) != nil { return }
                } else {
                    answer(exit, &state.random)
                }
            }
        }
    }

    private func again(_ state: inout VCPUState, _ random: inout SeededGenerator) {
        let isLong = state.efer & EFER.longModeActive != 0
        if random.chance(50) {
            state.rip = isLong ? Layout.code + UInt64(random.below(0xe0000)) : random.next() & 0xffff
        }
        if random.chance(50) { state.gpr[random.below(16)] = random.interesting() }
        if random.chance(30) { state.rflags |= RFlags.interrupt }
    }

    private func answer(_ exit: VCPUExit, _ random: inout SeededGenerator) {
        switch exit {
        case .portRead, .portWrite, .mmioRead, .mmioWrite: vcpu.complete(random.next())
        case .readMSR, .writeMSR: if random.chance(50) { vcpu.complete(random.next()) } else { vcpu.refuse() }
        default: break
        }
    }
}

/// The first line of a short file; nil if there is none.
func firstLine(_ path: String) -> String? {
    guard let file = unsafe fopen(path, "r") else { return nil }
    defer { unsafe fclose(file) }
    var line = [CChar](repeating: 0, count: 128)
    guard unsafe fgets(&line, 128, file) != nil else { return nil }
    return String(decoding: line.prefix { $0 > 32 || $0 == 32 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// Bytes of this process that are in memory.
func residentBytes() -> Int {
    let words = (firstLine("/proc/self/statm") ?? "").split(separator: " ")
    return (words.count > 1 ? Int(words[1]) ?? 0 : 0) * 4096
}
