package import HostInterface
internal import Synchronization

//D:050 A thread for each queue
//
// lguest gave every virtqueue a process of its own (clone(2), with everything
// shared), and its code is the better for it: a service function blocks where
// it wants to block, and does not return to a loop that must remember where it
// was. We do the same with threads:
//
//      sleep until the doorbell rings
//      while there are buffers: do what they ask
//      ask to be notified again; if there are buffers now after all, go on
//      interrupt the driver, if it wants that
//
// The last line is last on purpose. While we are busy the driver needs no
// interrupt, for it will find what we have done when it comes round, and each
// one costs it an exception, three exits to us and the state of its caches.

/// The service thread of one virtqueue.
package final class QueueThread: Sendable {
    private let thread: HostThread
    private let doorbell: Doorbell

    /// - Parameters:
    ///   - name: as `top -H` shows it.
    ///   - body: returns when the queue's doorbell says so. What it throws makes the device need a reset.
    package init(
        _ queue: Virtqueue, of activation: DeviceActivation, name: String,
        _ body: @escaping @Sendable (Virtqueue) throws(DriverBreach) -> Void
    ) throws(HostError) {
        doorbell = queue.doorbell
        // The driver may have filled the queue before it was ours.
        doorbell.ring()
        thread = try HostThread(name: name) {
            do throws(DriverBreach) { try body(queue) } catch { activation.breach(error) }
        }
    }

    /// Ends the thread and waits for that. At most once.
    package func stop() {
        doorbell.stop()
        thread.join()
    }
}

/// The service threads of one device, from its start to its stop.
package final class QueueThreads: Sendable {
    private let threads = Mutex<[QueueThread]>([])

    package init() {}

    /// Starts one, if the driver has set that queue up; for the parameters see `QueueThread`.
    package func start(
        queue index: Int, of activation: DeviceActivation, name: String,
        _ body: @escaping @Sendable (Virtqueue) throws(DriverBreach) -> Void
    ) throws(HostError) {
        guard let queue = activation.queues[index] else { return }
        let thread = try QueueThread(queue, of: activation, name: name, body)
        threads.withLock { $0.append(thread) }
    }

    /// Ends them all and waits for that.
    package func stop() {
        let running = threads.withLock { threads in
            defer { threads = [] }
            return threads
        }
        for thread in running { thread.stop() }
    }
}

extension Virtqueue {
    /// The usual service: each chain is done when `handle` returns.
    ///
    /// - Parameter handle: returns how many bytes it has written to the chain, from its first writable one on.
    package func serve(_ handle: (DescriptorChain) throws(DriverBreach) -> Int) throws(DriverBreach) {
        while doorbell.wait() {
            repeat {
                suppressNotifications()
                while !doorbell.isStopped, let chain = try next() {
                    complete(chain, written: try handle(chain))
                }
            } while lingers()
        }
    }
}
//:
