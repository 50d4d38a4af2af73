package import HostInterface
internal import Synchronization
package import Virtio

//D:120 A terminal without a UART
//
// A serial port takes a byte at a time, and each is an exit to the Host. This
// device (virtio 1.2, 5.3) takes a buffer at a time, and it knows how large
// the user's window is:
//
//      queue 0   driver: empty buffers      device: what was typed
//      queue 1   driver: what is printed    device: nothing
//      configuration   columns 16, rows 16; a change interrupts the driver
//
// There could be many ports with names, which we do not offer: a person has
// one terminal. To Linux it is /dev/hvc0, and may be its console.

/// The console device, with one port.
package final class Console: VirtioDevice, @unchecked Sendable {
    private enum QueueIndex {
        static let receive = 0
        static let transmit = 1
    }

    private enum Feature {
        static let size: UInt64 = 1 << 0
    }

    /// Bytes typed that the driver has not fetched; there is no room for more.
    package static let mostPending = 4096
    /// The most that is handed on at once, whatever the driver calls a buffer.
    private static let mostAtOnce = 65536

    private struct State {
        var pending: [UInt8] = []
        var size: WindowSize?
        var typed: Doorbell?
        var sizeChanged: (@Sendable () -> Void)?
        var roomMade: (@Sendable () -> Void)?
        var print: (@Sendable ([UInt8]) -> Void)?
    }

    private let state = Mutex(State())
    private let threads = QueueThreads()

    package init() {}

    package var type: VirtioDeviceType { .console }
    package var queueSizes: [UInt16] { [64, 64] }
    package var features: UInt64 { Feature.size }

    package var configuration: [UInt8] {
        let size = state.withLock { $0.size }
        var space = ConfigurationSpace(byteCount: 4)
        space.put(size?.columns ?? 0, at: 0)
        space.put(size?.rows ?? 0, at: 2)
        return space.bytes
    }

    // MARK: The user's side, any thread

    /// What was typed.
    ///
    /// - Returns: how many bytes there was room for; when there is more, `onRoom` says so.
    package func receive(_ bytes: [UInt8]) -> Int {
        state.withLock { state in
            let count = min(bytes.count, Self.mostPending - state.pending.count)
            state.pending += bytes[..<count]
            if count > 0 { state.typed?.ring() }
            return count
        }
    }

    /// `body` is called, on a thread of ours, when the driver has fetched something.
    package func onRoom(_ body: @escaping @Sendable () -> Void) { state.withLock { $0.roomMade = body } }

    /// `body` takes what the Guest prints, on a thread of ours; while it waits, the Guest does. Before the Guest starts.
    package func onPrint(_ body: @escaping @Sendable ([UInt8]) -> Void) { state.withLock { $0.print = body } }

    /// The user's window has another size now.
    package func resize(_ size: WindowSize) {
        let tell = state.withLock { state in
            if state.size == size { return nil as (@Sendable () -> Void)? }
            state.size = size
            return state.sizeChanged
        }
        tell?()
    }

    // MARK: The driver's side

    package func start(_ activation: DeviceActivation) throws(HostError) {
        let print = state.withLock { $0.print }
        try threads.start(queue: QueueIndex.transmit, of: activation, name: "console out") {
            queue throws(DriverBreach) in
            try queue.serve { chain in
                while chain.readable.remaining > 0 {
                    // Taken first: a call of nobody takes no argument.
                    let bytes = chain.readable.read(atMost: Self.mostAtOnce)
                    print?(bytes)
                }
                return 0
            }
        }
        try threads.start(queue: QueueIndex.receive, of: activation, name: "console in") {
            [self] queue throws(DriverBreach) in
            try deliver(queue)
        }
        state.withLock { state in
            state.typed = activation.queues[QueueIndex.receive]?.doorbell
            state.sizeChanged = activation.configurationChanged
            // What was typed before there was a doorbell rang none.
            state.typed?.ring()
        }
    }

    /// Here the driver's buffers wait for us, and not we for them.
    private func deliver(_ queue: Virtqueue) throws(DriverBreach) {
        while queue.doorbell.wait() {
            repeat {
                queue.suppressNotifications()
                while !queue.doorbell.isStopped, hasPending, let chain = try queue.next() {
                    queue.complete(chain, written: fill(chain))
                }
            } while hasPending && !queue.doorbell.isStopped && queue.wantNotifications()
            queue.interruptIfWanted()
        }
    }

    private var hasPending: Bool { state.withLock { !$0.pending.isEmpty } }

    private func fill(_ chain: DescriptorChain) -> Int {
        let (bytes, roomMade) = state.withLock { state in
            let count = min(chain.writable.byteCount, state.pending.count)
            let bytes = Array(state.pending[..<count])
            state.pending.removeFirst(count)
            return (bytes, state.roomMade)
        }
        roomMade?()
        return unsafe bytes.withUnsafeBytes { unsafe chain.writable.write($0) }
    }

    package func stop() {
        threads.stop()
        state.withLock { ($0.typed, $0.sizeChanged, $0.pending) = (nil, nil, []) }
    }
}
//:
