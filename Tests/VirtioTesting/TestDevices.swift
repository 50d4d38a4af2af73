package import HostInterface
internal import Synchronization
package import Virtio

/// Gives back what it reads: the simplest device that does both. Its
/// configuration is eight bytes, which the driver can write.
package final class EchoDevice: VirtioDevice {
    /// The most bytes that it echoes at once.
    package static let mostBytes = 4096

    private let thread = Mutex<QueueThread?>(nil)
    private let bytes = Mutex<[UInt8]>([1, 2, 3, 4, 5, 6, 7, 8])
    private let activation = Mutex<DeviceActivation?>(nil)

    package init() {}

    package var type: VirtioDeviceType { .console }
    package var queueSizes: [UInt16] { [256, 1] }
    package var features: UInt64 { 1 | 1 << 5 | 1 << 50 }
    package var configuration: [UInt8] { bytes.withLock { $0 } }

    package func writeConfiguration(offset: Int, _ content: [UInt8]) {
        bytes.withLock { $0.replaceSubrange(offset..<offset + content.count, with: content) }
    }

    /// The host's wish that the configuration be another.
    package func change(configuration: [UInt8]) {
        bytes.withLock { $0 = configuration }
        activation.withLock { $0 }?.configurationChanged()
    }

    package func start(_ activation: DeviceActivation) throws(HostError) {
        self.activation.withLock { $0 = activation }
        guard let queue = activation.queues[0] else { return }
        let started = try QueueThread(queue, of: activation, name: "echo") { queue throws(DriverBreach) in
            var buffer = [UInt8](repeating: 0, count: Self.mostBytes)
            try queue.serve { chain in
                let count = unsafe buffer.withUnsafeMutableBytes { unsafe chain.readable.read(into: $0) }
                return unsafe buffer.withUnsafeBytes {
                    unsafe chain.writable.write(UnsafeRawBufferPointer(rebasing: $0[..<count]))
                }
            }
        }
        thread.withLock { $0 = started }
    }

    package func stop() {
        thread.withLock { thread in
            thread?.stop()
            thread = nil
        }
    }
}

/// Takes requests and keeps them, as a disk does, until it is told that they
/// are done: `release` from any thread.
package final class HoldingDevice: VirtioDevice {
    private let thread = Mutex<QueueThread?>(nil)
    private let doorbell = Mutex<Doorbell?>(nil)
    private let wanted = Atomic(0)
    private let held = Atomic(0)

    package init() {}

    package var type: VirtioDeviceType { .block }
    package var queueSizes: [UInt16] { [64] }
    package var features: UInt64 { 0 }

    /// Requests in flight.
    package var heldCount: Int { held.load(ordering: .acquiring) }

    /// So many requests are done now, the latest first: their writable bytes become 0xee.
    package func release(_ count: Int) {
        wanted.wrappingAdd(count, ordering: .acquiringAndReleasing)
        doorbell.withLock { $0 }?.ring()
    }

    package func start(_ activation: DeviceActivation) throws(HostError) {
        guard let queue = activation.queues[0] else { return }
        wanted.store(0, ordering: .releasing)
        held.store(0, ordering: .releasing)
        doorbell.withLock { $0 = queue.doorbell }
        let started = try QueueThread(queue, of: activation, name: "holding") { [self] queue throws(DriverBreach) in
            var chains: [DescriptorChain] = []
            while queue.doorbell.wait() {
                while let chain = try queue.next() { chains.append(chain) }
                _ = queue.wantNotifications()
                held.store(chains.count, ordering: .releasing)
                while !chains.isEmpty, wanted.load(ordering: .acquiring) > 0, !queue.doorbell.isStopped {
                    wanted.wrappingSubtract(1, ordering: .acquiringAndReleasing)
                    let chain = chains.removeLast()
                    let ones = [UInt8](repeating: 0xee, count: chain.writable.byteCount)
                    queue.complete(chain, written: unsafe ones.withUnsafeBytes { unsafe chain.writable.write($0) })
                    held.store(chains.count, ordering: .releasing)
                }
                queue.interruptIfWanted()
            }
        }
        thread.withLock { $0 = started }
    }

    package func stop() {
        thread.withLock { thread in
            thread?.stop()
            thread = nil
        }
    }
}
