internal import CHost
internal import Glibc

/// A thread of the host, joined when somebody asks for it.
package final class HostThread: Sendable {
    private let handle: pthread_t

    private final class Start {
        let name: String
        let body: @Sendable () -> Void
        init(name: String, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }

    /// - Parameter name: as `top -H` shows it; its first 15 bytes count.
    package init(name: String, _ body: @escaping @Sendable () -> Void) throws(HostError) {
        var handle = pthread_t()
        let start = unsafe Unmanaged.passRetained(Start(name: name, body: body))
        let result = unsafe pthread_create(
            &handle, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let start = unsafe Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                unsafe chost_name_thread(start.name)
                start.body()
                return nil
            }, start.toOpaque())
        guard result == 0 else {
            unsafe start.release()
            throw HostError("cannot start a thread", errno: Errno(rawValue: result))
        }
        self.handle = handle
    }

    /// Waits for its end. At most once.
    package func join() { _ = pthread_join(handle, nil) }

    /// Tells the calling thread from all others that there have been or will be.
    package static var currentIdentity: UInt { UInt(chost_thread_identity()) }

    /// Lets others have the CPU, if they want it.
    package static func yield() { sched_yield() }

    /// Nanoseconds of CPU that it has had. Only while it runs.
    package var cpuNanoseconds: UInt64 { chost_thread_cpu_time(handle) }

    /// Nanoseconds of CPU that the calling thread has had.
    package static var ownCPUNanoseconds: UInt64 { chost_thread_cpu_time(pthread_self()) }

    /// From now on, writing to a socket whose other end is gone is an error to the
    /// calling thread, and not the end of the process (SIGPIPE).
    package static func surviveBrokenPipes() {
        var signals = sigset_t()
        unsafe sigemptyset(&signals)
        unsafe sigaddset(&signals, SIGPIPE)
        unsafe pthread_sigmask(SIG_BLOCK, &signals, nil)
    }
}
