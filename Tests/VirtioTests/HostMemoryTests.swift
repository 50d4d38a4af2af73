import Glibc
import HostInterface
import Testing
import Virtio
import VirtioTesting

/// A driver's numbers are not sizes of the host's buffers (rule 14).
@Suite struct HostMemoryTests {
    /// In a process of its own, for what is measured is a process.
    @Test func hugeRequestsTakeLittleOfTheHost() async {
        await #expect(processExitsWith: .success) {
            for device in TestedDevice.all {
                for isWritable in [true, false] {
                    let driver = try GuestDriver(device)
                    try driver.bringUp(queueSize: 256)
                    let queue = driver.queues[device.queue]
                    let before = mostResidentBytes()
                    try HostileCase.huge(driver, device, isWritable: isWritable)
                    guard device.answersAll else { continue }
                    _ = try driver.wait {
                        try driver.ram.loadShared(at: queue.usedIndex) != 0 || driver.status.contains(.needsReset)
                    }
                    let growth = mostResidentBytes() - before
                    if growth > 16 << 20 {
                        StandardStream.error.write("\(device): \(growth >> 20) MiB more\n")
                        exit(EXIT_FAILURE)
                    }
                }
            }
        }
    }
}

/// The most that this process has ever had in memory.
private func mostResidentBytes() -> Int {
    var usage = rusage()
    unsafe getrusage(Int32(RUSAGE_SELF.rawValue), &usage)
    return usage.ru_maxrss * 1024
}
