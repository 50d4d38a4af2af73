import Glibc
import HostInterface
import Network
import Testing

struct FrameRingTests {
    @Test func keepsOrderAndBytesBetweenTwoThreads() throws {
        let ring = try FrameRing(capacity: 1 << 16)
        let total = 20_000
        let writer = try HostThread(name: "writer") {
            var noise = Noise(seed: 3)
            for number in 0..<total {
                let count = 1 + Int(noise.next() % 9000)
                let byte = UInt8(truncatingIfNeeded: number)
                while unsafe !ring.append(count, { unsafe $0.initializeMemory(as: UInt8.self, repeating: byte) }) {
                    sched_yield()
                }
            }
        }
        var noise = Noise(seed: 3)
        var buffer = [UInt8](repeating: 0, count: 9000)
        for number in 0..<total {
            let count = 1 + Int(noise.next() % 9000)
            var taken: Int?
            while taken == nil {
                taken = unsafe buffer.withUnsafeMutableBytes { unsafe ring.take(into: $0) }
                if taken == nil { sched_yield() }
            }
            guard taken == count, buffer[0] == UInt8(truncatingIfNeeded: number), buffer[count - 1] == buffer[0] else {
                Issue.record("frame \(number) has \(taken ?? 0) bytes of \(count)")
                break
            }
        }
        writer.join()
        #expect(ring.used == 0)
    }

    @Test func isFullWhenItIsFull() throws {
        let ring = try FrameRing(capacity: 4096)
        var count = 0
        while unsafe ring.append(1000, { _ in }) { count += 1 }
        #expect(count == 4)
        ring.removeAll()
        // A frame lies in one piece, at the ring's start if its end is too short.
        unsafe #expect(ring.append(4024, { _ in }) && !ring.append(1, { _ in }))
    }
}
