internal import Virtio

/// What a device's queues have seen, in lines.
struct VirtioReport {
    let lines: [String]

    init(_ transports: [VirtioTransport]) {
        lines = transports.enumerated().flatMap { slot, transport in
            let name = "\(transport.device.type.name) \(slot)"
            let queues = transport.counters.enumerated().map { index, counters in
                let seen = counters.snapshot
                let depth = (seen.meanDepth * 10).rounded() / 10
                return
                    "\(name): queue \(index): \(seen.requests) requests, \(seen.readableBytes) bytes from the guest, "
                    + "\(seen.writtenBytes) bytes to it, \(seen.interrupts) interrupts sent, \(seen.suppressed) suppressed, "
                    + "depth \(depth) on average, \(seen.mostDepth) at most"
            }
            return queues + transport.device.remarks.map { "\(name): \($0)" }
        }
    }

    var text: String { lines.map { $0 + "\n" }.joined() }
}
