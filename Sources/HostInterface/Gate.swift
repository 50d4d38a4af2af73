internal import CHost
internal import Synchronization

/// A gate that threads wait at while it is closed (futex(2)). Any thread.
@safe package final class Gate: @unchecked Sendable {
    /// 1: closed.
    private let word: UnsafeMutablePointer<Atomic<UInt32>>

    package init() {
        unsafe word = .allocate(capacity: 1)
        unsafe word.initialize(to: Atomic(0))
    }

    deinit { unsafe word.deallocate() }

    package var isClosed: Bool { unsafe word.pointee.load(ordering: .sequentiallyConsistent) != 0 }

    package func close() { unsafe word.pointee.store(1, ordering: .sequentiallyConsistent) }

    /// Lets everybody through.
    package func open() {
        unsafe word.pointee.store(0, ordering: .sequentiallyConsistent)
        unsafe _ = chost_futex_wake(UnsafeRawPointer(word).assumingMemoryBound(to: UInt32.self), .max)
    }

    /// - Throws: `.interrupted` if a signal's handler has run meanwhile.
    package func wait() throws(Errno) {
        while isClosed {
            let result = unsafe chost_futex_wait(
                UnsafeRawPointer(word).assumingMemoryBound(to: UInt32.self), 1, nil)
            if result != 0, Errno.current == .interrupted { throw .interrupted }
        }
    }
}
