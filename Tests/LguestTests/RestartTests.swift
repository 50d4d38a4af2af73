import EngineTesting
import Glibc
import GuestMemory
import HostInterface
import Lguest
import LguestTesting
import Testing
import VirtualCPU

/// A Guest that begins again and again, in the same memory.
@Suite struct RestartTests {
    private static var openFiles: Int { Files.list("/proc/self/fd").count }

    /// In a process of its own, for the files that are counted are a process's.
    @Test func aLifeLeavesNothingBehind() async {
        await #expect(processExitsWith: .success) {
            for engine in TestedEngine.all {
                let memory = try GuestMemory(byteCount: 1 << 20, hasHole: false)
                let host = LguestHost { try engine.makeVCPU($0, $1, $2) }
                var before = 0
                for life in 0..<40 {
                    if life == 4 { before = Self.openFiles }
                    memory.clear()
                    try memory.prepareGuest()
                    try memory.put(
                        TestGuest.program { program in
                            program.initialize()
                            program.hypercall(LguestHypercall.setClockEvent, 1_000_000_000)
                            program.hypercall(LguestHypercall.shutdown, Place.free, LguestHypercall.restart)
                        })
                    let guest = try host.open()
                    try guest.initialize(memory: memory, pgdir: Place.pageTable, start: Place.code)
                    do throws(Errno) { _ = try guest.run() } catch {
                        if error != .restart { endProcess(status: 2) }
                    }
                    guest.close()
                }
                if Self.openFiles > before {
                    StandardStream.error.write("\(engine.name): \(before) files, then \(Self.openFiles)\n")
                    endProcess(status: 1)
                }
            }
        }
    }
}
