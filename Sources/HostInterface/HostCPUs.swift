internal import CHost

/// The CPUs that this process may run on.
package enum HostCPUs {
    package static let count = Int(chost_cpu_count())

    /// The PAUSE instruction: for a loop that waits for another CPU.
    package static func pause() { chost_pause() }
}
