import GuestMemory
import HostInterface
import Launcher
import Lguest
import Platform
import Synchronization
import Testing
import Virtio
import VirtioDevices

/// A sample with a machine of its own, in this process.
final class SampleGuest: @unchecked Sendable {
    static let folder = ".build/guests/"
    static let areBuilt = Files.exists(folder + "hello.elf")
    static let ramBytes: UInt64 = 16 << 20

    private let source: BootSource
    private let host: LguestHost
    private let memory: GuestMemory
    private let devices: [any VirtioDevice]
    private let console = Console()
    private let output = Mutex<[UInt8]>([])
    private let notes = Mutex<[String]>([])
    private let ending = Atomic(false)
    private let current = Mutex<LguestGuest?>(nil)
    private var thread: HostThread?
    private let death = Mutex<LguestDeath?>(nil)

    /// - Parameter region: memory of several Guests, and where this one has it.
    init(
        _ name: String, _ engine: Engine, host: LguestHost? = nil, commandLine: String = "",
        devices: [any VirtioDevice] = [], region: (SharedRegion, UInt64)? = nil
    ) throws {
        let path = Self.folder + name + ".elf"
        source = BootSource(kernel: try readFile(path), kernelName: path, commandLine: commandLine)
        self.host = host ?? LguestHost(makeCPU: engine.makeVCPU)
        self.devices = [console] + devices
        memory = try GuestMemory(
            byteCount: Self.ramBytes + LguestBus.pageCount(for: self.devices) * 4096, hasHole: false)
        if let (region, address) = region { try memory.map(region, at: GuestPhysicalAddress(address)) }
        console.onPrint { [weak self] bytes in self?.output.withLock { $0 += bytes } }
    }

    /// What it has printed so far, early console and console.
    var printed: String { output.withLock { String(decoding: $0, as: UTF8.self) } }
    var lines: [Substring] { printed.split(separator: "\n", omittingEmptySubsequences: false).dropLast() }
    /// What its drivers did wrong.
    var remarks: [String] { notes.withLock { $0 } }

    func type(_ text: String) { #expect(console.receive(Array(text.utf8)) == text.utf8.count) }

    func start() throws {
        thread = try HostThread(name: "sample") { [self] in
            do {
                try live()
            } catch {
                Issue.record("\(error)")
            }
        }
    }

    /// Runs it to its end, on this thread.
    func run() throws -> LguestDeath? {
        try live()
        return end
    }

    /// How it ended, after `start`.
    func join() -> LguestDeath? {
        thread?.join()
        return end
    }

    private var end: LguestDeath? { death.withLock { $0 } }

    /// Waits until it has printed `text`. False: it has ended without, or half a minute is over.
    func hasPrinted(_ text: String) -> Bool {
        let deadline = HostClock.monotonicNanoseconds + 30_000_000_000
        while HostClock.monotonicNanoseconds < deadline {
            let isOver = end != nil
            if printed.contains(text) { return true }
            if isOver { return false }
            HostThread.yield()
        }
        return false
    }

    /// Ends one that would not end by itself.
    func stop() {
        ending.store(true, ordering: .sequentiallyConsistent)
        current.withLock { $0 }?.interrupt()
    }

    private func live() throws {
        let image = try LguestImage(source)
        let (pgdir, start) = try image.load(into: memory, ramBytes: Self.ramBytes)
        let guest = try host.open()
        defer { guest.close() }
        let bus = try LguestBus(
            devices, of: guest, memory: memory, ramBytes: Self.ramBytes,
            print: { [weak self] bytes in self?.output.withLock { $0 += bytes } },
            note: { [weak self] text in self?.notes.withLock { $0.append(text) } })
        defer { bus.stop() }
        try guest.initialize(memory: memory, pgdir: pgdir, start: start)
        current.withLock { $0 = guest }
        defer { current.withLock { $0 = nil } }
        while !ending.load(ordering: .sequentiallyConsistent) {
            do throws(Errno) {
                if case .notify(let address) = try guest.run() { bus.notify(address) }
            } catch {
                if let found = guest.death { return death.withLock { $0 = found } }
                guard error == .interrupted || error == .again else { throw error }
            }
        }
    }
}
