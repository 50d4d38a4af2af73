import EngineTesting
import GuestMemory
import HostInterface
import Lguest
import LguestTesting
import Synchronization
import Testing
import VirtualCPU

/// A Host whose CPUs are of the engine whose turn it is.
final class TestHost: Sendable {
    private final class Made: Sendable {
        struct Content: @unchecked Sendable { var vcpu: (any VCPU)? }
        let last = Mutex(Content())
    }
    let host: LguestHost
    private let made: Made

    init() {
        let engine = TestedEngine.current
        let made = Made()
        self.made = made
        host = LguestHost { memory, requests, interrupts in
            let vcpu = try engine.makeVCPU(memory, requests, interrupts)
            made.last.withLock { $0.vcpu = vcpu }
            return vcpu
        }
    }

    /// The CPU that was made last.
    var vcpu: (any VCPU)? { made.last.withLock { $0.vcpu } }
}

/// A Guest that runs a program of a test's. Closed when it is gone.
final class TestGuest {
    let guest: LguestGuest
    let memory: GuestMemory
    private let vcpu: any VCPU
    private let watch: Watch

    init(
        in host: TestHost = TestHost(), regions: [(SharedRegion, at: UInt64)] = [],
        _ write: (inout Program) throws -> Void
    ) throws {
        memory = try GuestMemory(byteCount: 1 << 20, hasHole: false)
        for (region, address) in regions { try memory.map(region, at: GuestPhysicalAddress(address)) }
        try memory.prepareGuest()
        try memory.put(Self.program(write))
        try memory.putHandlers()
        guest = try host.host.open()
        try guest.initialize(memory: memory, pgdir: Place.pageTable, start: Place.code)
        vcpu = try #require(host.vcpu)
        watch = Watch(guest)
    }

    deinit {
        watch.end()
        guest.close()
    }

    static func program(_ write: (inout Program) throws -> Void) rethrows -> Program {
        var program = Program(at: Place.code)
        try write(&program)
        return program
    }

    func run() throws(Errno) -> LguestPending { try guest.run() }

    /// Runs it to its end: the reason, as `read` gives it.
    func death(_ location: SourceLocation = #_sourceLocation) -> String {
        let error = error(location)
        #expect(error == .notFound, sourceLocation: location)
        return guest.death?.reason ?? "alive"
    }

    /// Runs it to where `run` throws.
    func error(_ location: SourceLocation = #_sourceLocation) -> Errno? {
        do throws(Errno) {
            let pending = try guest.run()
            Issue.record("\(pending)", sourceLocation: location)
            return nil
        } catch { return error }
    }

    /// Runs it to "Power down".
    func finish(_ location: SourceLocation = #_sourceLocation) {
        #expect(death(location) == "CRASH: Power down", sourceLocation: location)
    }

    /// What a hypercall has answered: see `Program.keepResult`.
    func result(_ index: Int = 0) throws -> UInt64 { try memory.word(Place.results + UInt64(index) * 8) }

    /// The interrupts that its handlers have seen.
    var interrupts: [Int] {
        get throws {
            let count = Int(try memory.word(Place.log))
            return try memory.bytes(Place.log + 8, count).map(Int.init)
        }
    }

    /// Not while it runs.
    func readState<Result>(_ body: (borrowing VCPUState) -> Result) -> Result { vcpu.readState(body) }
}

extension GuestMemory {
    func put(_ program: Program) throws { try put(program.bytes, program.origin) }
    func word(_ address: UInt64) throws -> UInt64 { try load(at: GuestPhysicalAddress(address), as: UInt64.self) }

    /// Handlers that write down which interrupt has come.
    func putHandlers() throws {
        for irq in 0..<LguestIRQ.count {
            var handler = Program(at: Place.handler(irq))
            handler.raw(0x50, 0x53)  // push rax; push rbx
            handler.move(.rbx, Place.log)
            handler.load(.rax, Memory(.rbx))
            handler.op(0xc6, reg: 0, Memory(.rbx, index: .rax, 8), size: 1, immediate: [UInt8(irq)])
            handler.op(0xff, reg: 0, Memory(.rbx))
            handler.raw(0x5b, 0x58, 0x48, 0xcf)  // pop rbx; pop rax; iretq
            try put(handler)
        }
    }
}

extension Program {
    /// VMCALL.
    mutating func hypercall(_ number: UInt64, _ first: UInt64 = 0, _ second: UInt64 = 0, _ third: UInt64 = 0) {
        move(.rax, number)
        move(.rbx, first)
        move(.rcx, second)
        move(.rdx, third)
        raw(0x0f, 0x01, 0xc1)
    }

    mutating func initialize() { hypercall(LguestHypercall.initialize, Place.data) }
    mutating func notify(_ address: UInt64) { hypercall(LguestHypercall.notify, address) }
    mutating func powerDown() { hypercall(LguestHypercall.shutdown, Place.text, LguestHypercall.powerOff) }

    /// RAX is what `TestGuest.result` says.
    mutating func keepResult(_ index: Int = 0) {
        move(.r15, Place.results + UInt64(index) * 8)
        store(.rax, Memory(.r15))
    }
    mutating func put(_ value: UInt64, at address: UInt64, size: Int = 8) {
        move(.r15, address)
        move(.r14, value)
        store(.r14, Memory(.r15), size: size)
    }

    mutating func setData(_ offset: UInt64, _ value: UInt64) { put(value, at: Place.data + offset) }

    /// Everything that it takes to be interrupted but STI.
    mutating func takeInterrupts() {
        move(.rsp, Place.stack)
        op(0x0f, 0x01, reg: 2, Memory(nil, Int32(Place.gdtr)), size: 4)  // lgdt
        op(0x0f, 0x01, reg: 3, Memory(nil, Int32(Place.idtr)), size: 4)  // lidt
        setData(LguestData.irqEnabled, LguestData.interruptsEnabled)
        cli()
        initialize()
    }

    /// Sleeps until so many interrupts have been seen. IF is clear from the look to the HALT, which an interrupt
    /// ends all the same: else one in between would be slept through.
    mutating func sleep(untilInterrupts count: UInt16, _ label: String = "sleep") {
        self.label(label)
        sti()
        nop()
        cli()
        load(.r14, Memory(nil, Int32(Place.log)))
        op(0x81, reg: 7, .r14, immediate: [UInt8(count & 0xff), UInt8(count >> 8), 0, 0])  // cmp
        jump(.ae, label + " over")
        hypercall(LguestHypercall.halt)
        jump(label)
        self.label(label + " over")
    }

    /// HLT or HALT, from IF clear, and no interrupt can come before it.
    mutating func sleep(byInstruction: Bool) {
        if byInstruction {
            sti()
            halt()
        } else {
            hypercall(LguestHypercall.halt)
            sti()
            nop()
        }
    }

    mutating func cli() { raw(0xfa) }
    mutating func sti() { raw(0xfb) }
    mutating func nop() { raw(0x90) }

    /// Turns round until there is something in the word at `address`.
    mutating func wait(for address: UInt64, _ label: String) {
        move(.r15, address)
        self.label(label)
        load(.r14, Memory(.r15))
        op(0x85, reg: GPR.r14.rawValue, .r14)  // test
        jump(.e, label)
    }
}

/// Kills a Guest that does not end: a test that hangs is no result.
final class Watch: Sendable {
    private struct Entry {
        weak var guest: LguestGuest?
        let end: UInt64
    }

    private static let entries = Mutex<[UInt64: Entry]>([:])
    private static let nextKey = Atomic<UInt64>(0)
    private static let thread = try? HostThread(name: "watch") {
        while true {
            _ = waitReadable([], milliseconds: 500)
            let now = HostClock.monotonicNanoseconds
            let late = entries.withLock { $0.values.filter { $0.end < now }.compactMap(\.guest) }
            for guest in late { guest.kill("the test has waited too long for it") }
        }
    }

    private let key = nextKey.wrappingAdd(1, ordering: .relaxed).newValue

    init(_ guest: LguestGuest, seconds: UInt64 = 60) {
        _ = Self.thread
        let end = HostClock.monotonicNanoseconds + seconds * 1_000_000_000
        Self.entries.withLock { $0[key] = Entry(guest: guest, end: end) }
    }

    func end() { Self.entries.withLock { _ = $0.removeValue(forKey: key) } }
}

/// Where two threads wait for each other.
final class Ready: Sendable {
    private let count = Atomic(0)

    func waitForBoth() {
        count.wrappingAdd(1, ordering: .acquiringAndReleasing)
        while count.load(ordering: .acquiring) < 2 { HostThread.yield() }
    }
}
