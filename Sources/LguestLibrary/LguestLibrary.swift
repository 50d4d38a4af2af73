internal import GuestMemory
internal import HostInterface
internal import Interpreter
internal import Lguest
internal import Synchronization
internal import Translator
internal import VirtualCPU

//H:370 /dev/lguest, for any program
//
// Four functions, as a file has them, in a library that any language can call
// (`make library`: liblguest.so, and lguest.h, which the compiler writes from
// what is below). A Launcher in C is a page of code: Tests/LguestTests has one.
//
// A kernel can tell a bad pointer from a good one without falling over. So
// can we, by asking the kernel to copy: what the caller hands over is read by
// process_vm_readv(2), which says EFAULT where we would say SIGSEGV.

/// All Guests of this process that were opened here.
private let host = LguestHost { memory, requests, interrupts in
    guard TranslatorVCPU.unavailability() != nil else {
        return try TranslatorVCPU(memory: memory, requests: requests, interruptController: interrupts)
    }
    return InterpreterVCPU(memory: memory, requests: requests, interruptController: interrupts)
}

/// The Guests by their handles. A signal's handler looks in here, too, and so
/// there is no lock: a slot is a reference that is kept, or 0.
private enum Handles {
    static let count: Int32 = 4096
    // SAFETY: allocated once, for good; what is there is atomic.
    private nonisolated(unsafe) static let slots: UnsafeMutablePointer<Atomic<UInt>> = {
        let slots = UnsafeMutablePointer<Atomic<UInt>>.allocate(capacity: Int(count))
        for index in 0..<Int(count) { unsafe (slots + index).initialize(to: Atomic(0)) }
        return unsafe slots
    }()

    /// Nil if all are taken.
    static func add(_ guest: LguestGuest) -> Int32? {
        let reference = unsafe Unmanaged.passRetained(guest)
        let value = unsafe UInt(bitPattern: reference.toOpaque())
        for handle in 0..<count {
            let slot = unsafe slots + Int(handle)
            if unsafe slot.pointee.compareExchange(
                expected: 0, desired: value, ordering: .acquiringAndReleasing
            ).exchanged {
                return handle
            }
        }
        unsafe reference.release()
        return nil
    }

    /// Not while another thread closes it.
    static func find(_ handle: Int32) -> LguestGuest? {
        guard (0..<count).contains(handle) else { return nil }
        return unsafe guest((slots + Int(handle)).pointee.load(ordering: .acquiring))?.takeUnretainedValue()
    }

    static func remove(_ handle: Int32) -> LguestGuest? {
        guard (0..<count).contains(handle) else { return nil }
        return unsafe guest((slots + Int(handle)).pointee.exchange(0, ordering: .acquiringAndReleasing))?
            .takeRetainedValue()
    }

    private static func guest(_ value: UInt) -> Unmanaged<LguestGuest>? {
        unsafe UnsafeRawPointer(bitPattern: value).map { unsafe Unmanaged.fromOpaque($0) }
    }
}

private func withGuest(_ handle: Int32, _ body: (LguestGuest) throws(Errno) -> Int) -> Int {
    do throws(Errno) {
        guard let guest = Handles.find(handle) else { throw .badDescriptor }
        return try body(guest)
    } catch {
        error.set()
        return -1
    }
}

/// A new Guest, that is nothing yet.
///
/// Returns a handle (no file descriptor), or -1 with errno: ENOSPC, EMFILE, ENOMEM. All functions are for any thread, but no handle is
/// to be used while or after it is closed.
@c(lguest_open)
public func openGuest() -> Int32 {
    do throws(Errno) {
        guard let handle = Handles.add(try host.open()) else { throw .noSpace }
        return handle
    } catch {
        error.set()
        return -1
    }
}

/// One request of 64-bit words to CPU `cpu`, of which there is 0.
///
/// Returns what the request says, or -1 with errno: EBADF, EFAULT, EINVAL, ENOENT, EPERM, EBUSY, ENOMEM, EINTR. See
/// docs/lguest-abi.md.
@c(lguest_write)
public func writeGuest(_ handle: Int32, _ words: UnsafeRawPointer?, _ byteCount: Int, _ cpu: UInt64) -> Int {
    withGuest(handle) { guest throws(Errno) in
        // No request has more than five words.
        let count = min(max(byteCount, 0) / 8, 5)
        return try guest.write(unsafe OwnMemory.read(words, words: count), cpu: cpu)
    }
}

/// Runs the Guest, or tells why it is dead.
///
/// Returns how many bytes it has put into `buffer`, or -1 with errno: EBADF, EFAULT, EINVAL, EPERM, ENOENT, EAGAIN,
/// EINTR, ERESTART.
@c(lguest_read)
public func readGuest(_ handle: Int32, _ buffer: UnsafeMutableRawPointer?, _ byteCount: Int, _ cpu: UInt64) -> Int {
    withGuest(handle) { guest throws(Errno) in
        let bytes = try guest.read(atMost: max(byteCount, 0), cpu: cpu)
        unsafe try OwnMemory.write(bytes, to: buffer)
        return bytes.count
    }
}

/// Makes the `lguest_read` that is under way, or the next one, fail with EINTR. For a signal's handler: a kernel
/// would have noticed the signal by itself, a library cannot. Any thread.
@c(lguest_interrupt)
public func interruptGuest(_ handle: Int32) {
    Handles.find(handle)?.interrupt()
}

/// Ends the Guest, from any state; afterwards nobody touches its memory. Returns 0, or -1 with EBADF.
@c(lguest_close)
public func closeGuest(_ handle: Int32) -> Int32 {
    guard let guest = Handles.remove(handle) else {
        Errno.badDescriptor.set()
        return -1
    }
    guest.close()
    return 0
}
//:
