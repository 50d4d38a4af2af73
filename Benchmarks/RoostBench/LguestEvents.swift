import GuestMemory
import HostInterface
import Launcher
import Lguest
import Platform
import Synchronization
import VirtualCPU
import X86

/// What a Guest pays for talking to its Host, its Launcher and other Guests.
enum LguestEvents {
    /// - Parameter hello: a Guest that says something and powers off.
    static func measure(hello: String) throws {
        let engine = try EngineTable.engine(named: EngineTable.automatic)
        print("lguest hypercall \(try hypercall(engine))")
        print("lguest notify \(try notify(engine))")
        print("lguest hello \(try firstLine(engine, hello))")
        let large = Array(repeating: 4096, count: 16), small = [64]
        let (copy, send) = try bulk(engine, large)
        print("lguest dma-64k \(send)")
        print("lguest memcpy-64k \(copy)")
        print("lguest dma-64 \(try pingPong(engine, small))")
    }

    /// The best of several runs: nanoseconds for one of `rounds`.
    private static func best(_ rounds: Int, _ body: () throws -> Void) rethrows -> Double {
        var best = UInt64.max
        for _ in 0..<10 {
            let begin = HostClock.monotonicNanoseconds
            try body()
            best = min(best, HostClock.monotonicNanoseconds - begin)
        }
        return Double(best) / Double(rounds)
    }

    /// A Guest's file, read and run until it notifies a text; the first time in this process does not count.
    private static func firstLine(_ engine: Engine, _ path: String) throws -> Double {
        try best(1) {
            let image = try LguestImage(BootSource(kernel: try readFile(path), kernelName: path))
            let ram: UInt64 = 64 << 20
            let memory = try GuestMemory(byteCount: ram + 4096, hasHole: false)
            let (pgdir, start) = try image.load(into: memory, ramBytes: ram)
            let guest = try LguestHost(makeCPU: engine.makeVCPU).open()
            try guest.initialize(memory: memory, pgdir: pgdir, start: start)
            guard case .notify = try guest.run() else { throw HostError("\(path) says nothing") }
            guest.close()
        }
    }

    /// FLUSH_ASYNC, from the Guest and back to it.
    private static func hypercall(_ engine: Engine) throws -> Double {
        let rounds = 500_000
        var code = LguestCode()
        code.initialize()
        code.again { code in
            code.load(LguestCode.rbp, UInt64(rounds))
            code.loop { code in
                code.call(LguestHypercall.flushAsync)
            }
            code.notify()
        }
        let bench = try LguestBench(engine, code)
        _ = try bench.guest.run()
        return try best(rounds) { _ = try bench.guest.run() }
    }

    /// NOTIFY, out of the Launcher's `run` and in again.
    private static func notify(_ engine: Engine) throws -> Double {
        let rounds = 100_000
        var code = LguestCode()
        code.initialize()
        code.again { $0.notify() }
        let bench = try LguestBench(engine, code)
        return try best(rounds) { for _ in 0..<rounds { _ = try bench.guest.run() } }
    }

    /// A Guest sends to one that never runs: its buffers are emptied by hand. And the same copy by memcpy(3).
    private static func bulk(_ engine: Engine, _ sections: [Int]) throws -> (copy: Double, send: Double) {
        let rounds = 1000
        let host = LguestHost(makeCPU: engine.makeVCPU)
        let region = try SharedRegion(name: "bench", byteCount: 4096)
        var receiving = LguestCode()
        receiving.initialize()
        receiving.call(
            LguestHypercall.bindDMA, LguestBench.region, LguestBench.buffers, UInt64(rounds) << 8 | 1)
        receiving.again { $0.notify() }
        let receiver = try LguestBench(engine, receiving, host: host, region: region)
        _ = try receiver.guest.run()
        var sending = LguestCode()
        sending.initialize()
        sending.again { code in
            code.load(LguestCode.rbp, UInt64(rounds))
            code.loop { code in
                code.call(LguestHypercall.sendDMA, LguestBench.region, LguestBench.outgoing)
            }
            code.notify()
        }
        let sender = try LguestBench(engine, sending, host: host, region: region)
        try sender.put(buffer: LguestBench.outgoing, sections, at: LguestBench.data)
        for index in 0..<rounds {
            try receiver.put(
                buffer: LguestBench.buffers + UInt64(index * LguestDMA.byteCount), sections, at: LguestBench.data)
        }
        let copy = try best(rounds) { for _ in 0..<rounds { try receiver.copy(from: sender, sections.reduce(0, +)) } }
        var send = Double.infinity
        for _ in 0..<10 {
            let begin = HostClock.monotonicNanoseconds
            _ = try sender.guest.run()
            send = min(send, Double(HostClock.monotonicNanoseconds - begin) / Double(rounds))
            try receiver.emptyBuffers(rounds, filledWith: sections.reduce(0, +))
        }
        return (copy, send)
    }

    /// Two Guests on two threads, each of which looks at its buffer until it is full, empties it and sends: one way.
    private static func pingPong(_ engine: Engine, _ sections: [Int]) throws -> Double {
        let rounds = 20_000
        let host = LguestHost(makeCPU: engine.makeVCPU)
        let region = try SharedRegion(name: "bench", byteCount: 4096)
        @Sendable func player(mine: UInt64, other: UInt64, isFirst: Bool) throws -> LguestBench {
            var code = LguestCode()
            code.initialize()
            code.call(LguestHypercall.bindDMA, mine, LguestBench.buffers, 1 << 8 | 1)
            code.notify()
            code.again { code in
                code.load(LguestCode.rbp, UInt64(rounds))
                code.loop { code in
                    if isFirst { code.call(LguestHypercall.sendDMA, other, LguestBench.outgoing) }
                    code.awaitAndClear(LguestBench.buffers)
                    if !isFirst { code.call(LguestHypercall.sendDMA, other, LguestBench.outgoing) }
                }
                code.notify()
            }
            let bench = try LguestBench(engine, code, host: host, region: region)
            try bench.put(buffer: LguestBench.outgoing, sections, at: LguestBench.data)
            try bench.put(buffer: LguestBench.buffers, sections, at: LguestBench.data + 0x10000)
            return bench
        }
        let words = (LguestBench.region, LguestBench.region + 4)
        let first = try player(mine: words.0, other: words.1, isFirst: true)
        let ready = Gate()
        ready.close()
        let other = Mutex<LguestGuest?>(nil)
        // A Guest belongs to the thread that has begun it.
        let thread = try HostThread(name: "second") {
            do {
                let second = try player(mine: words.1, other: words.0, isFirst: false)
                _ = try second.guest.run()
                other.withLock { $0 = second.guest }
                ready.open()
                while true { _ = try second.guest.run() }
            } catch {
                // It was killed, once there was nothing to measure any more.
                ready.open()
            }
        }
        _ = try first.guest.run()
        try ready.wait()
        defer { thread.join() }
        defer { other.withLock { $0 }?.kill("the benchmark is over") }
        return try best(rounds * 2) { _ = try first.guest.run() }
    }
}
