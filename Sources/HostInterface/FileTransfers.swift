internal import CHost
internal import Glibc
internal import Synchronization

//H:050 Reading and writing without waiting
//
// A disk is quick only if it is asked for many things at once, and a thread
// that waits in preadv(2) asks for one. io_uring(7) is Linux's answer: two
// rings in memory shared with the kernel, one for what we want and one for
// what came of it. It looks like a virtqueue, and for the same reasons.
//
//      ours     tail of submissions, head of completions
//      kernel's head of submissions, tail of completions
//
// What the page cache has, the kernel copies while we submit, and the
// completion is there when the call returns: then it is one system call for
// as many requests as there were. Some hosts do not have io_uring, or forbid
// it (containers do). There each transfer is done when it is submitted, by
// preadv and pwritev, and is found complete like the others.

/// What is to be done with a file.
package enum FileOperation: Sendable {
    case read, write
    /// fdatasync(2)
    case synchronize
}

/// Transfers between files and memory, several at a time. One thread uses it.
/// The memory of a transfer, and its list of pieces, must stay until it is complete.
package protocol FileTransfers: AnyObject {
    /// Adds one to the next batch. `token` comes back with its result.
    func add(
        _ operation: FileOperation, _ descriptor: Int32, _ pieces: UnsafePointer<IOVector>?, count: Int, offset: UInt64,
        token: UInt64)
    /// Starts all that was added.
    func submit()
    /// The next that is complete: bytes moved, or the negative errno.
    func next() -> (token: UInt64, result: Int)?
    /// Whether there is something for `next`.
    var hasNext: Bool { get }
    /// Can be polled: readable when there is something for `next`. Negative where there never is any after `submit`.
    var descriptor: Int32 { get }
    /// Sleeps until there is something for `next`. Only while something is under way.
    func wait()
}

/// The best that this host has.
package func makeFileTransfers() -> any FileTransfers {
    if environmentVariable("ROOST_NO_IO_URING") == nil, let ring = IORing(entries: 256) { return ring }
    return DirectTransfers()
}

/// io_uring(7).
@safe package final class IORing: FileTransfers {
    private let ring: FileDescriptor
    private let submissions: AddressRange
    private let entries: UnsafeMutablePointer<io_uring_sqe>
    private let entriesBytes: Int
    private let submissionHead: UnsafePointer<Atomic<UInt32>>
    private let submissionTail: UnsafePointer<Atomic<UInt32>>
    private let submissionMask: UInt32
    private let submissionCount: UInt32
    private let completionHead: UnsafePointer<Atomic<UInt32>>
    private let completionTail: UnsafePointer<Atomic<UInt32>>
    private let completionMask: UInt32
    private let completions: UnsafePointer<io_uring_cqe>
    private var tail: UInt32
    private var head: UInt32
    private var unsubmitted: UInt32 = 0

    /// Nil where the host has none for us.
    package init?(entries count: UInt32) {
        var parameters = io_uring_params()
        let number = unsafe chost_io_uring_setup(count, &parameters)
        guard number >= 0 else { return nil }
        let ring = FileDescriptor(owning: number)
        // One mapping for both rings, and no completion lost: Linux 5.5.
        let needed = UInt32(IORING_FEAT_SINGLE_MMAP) | UInt32(IORING_FEAT_NODROP)
        guard parameters.features & needed == needed else { return nil }

        let sq = parameters.sq_off, cq = parameters.cq_off
        let ringBytes = max(
            Int(sq.array) + Int(parameters.sq_entries) * 4,
            Int(cq.cqes) + Int(parameters.cq_entries) * MemoryLayout<io_uring_cqe>.stride)
        entriesBytes = Int(parameters.sq_entries) * MemoryLayout<io_uring_sqe>.stride
        do throws(HostError) {
            let range = try AddressRange(reserving: ringBytes + entriesBytes + 8192)
            try range.map(descriptor: number, fileOffset: Int(IORING_OFF_SQ_RING), at: 0, count: ringBytes)
            let second = (ringBytes + 4095) & ~4095
            try range.map(descriptor: number, fileOffset: Int(IORING_OFF_SQES), at: second, count: entriesBytes)
            let base = unsafe range.base
            func word(_ offset: UInt32) -> UnsafePointer<Atomic<UInt32>> {
                unsafe UnsafePointer((base + Int(offset)).assumingMemoryBound(to: Atomic<UInt32>.self))
            }
            unsafe entries = (base + second).assumingMemoryBound(to: io_uring_sqe.self)
            unsafe submissionHead = word(sq.head)
            unsafe submissionTail = word(sq.tail)
            submissionMask = unsafe (base + Int(sq.ring_mask)).load(as: UInt32.self)
            submissionCount = parameters.sq_entries
            unsafe completionHead = word(cq.head)
            unsafe completionTail = word(cq.tail)
            completionMask = unsafe (base + Int(cq.ring_mask)).load(as: UInt32.self)
            unsafe completions = UnsafePointer((base + Int(cq.cqes)).assumingMemoryBound(to: io_uring_cqe.self))
            // Slot n of the ring is entry n, for ever.
            let array = unsafe (base + Int(sq.array)).assumingMemoryBound(to: UInt32.self)
            for index in 0..<Int(parameters.sq_entries) { unsafe array[index] = UInt32(index) }
            submissions = range
        } catch { return nil }
        tail = unsafe submissionTail.pointee.load(ordering: .relaxed)
        head = unsafe completionHead.pointee.load(ordering: .relaxed)
        self.ring = ring
    }

    package var descriptor: Int32 { ring.rawValue }

    package func add(
        _ operation: FileOperation, _ descriptor: Int32, _ pieces: UnsafePointer<IOVector>?, count: Int, offset: UInt64,
        token: UInt64
    ) {
        if unsafe tail &- submissionHead.pointee.load(ordering: .acquiring) == submissionCount { submit() }
        let entry = unsafe entries + Int(tail & submissionMask)
        switch operation {
        case .read, .write:
            let code = operation == .read ? IORING_OP_READV : IORING_OP_WRITEV
            unsafe chost_io_uring_prepare(
                entry, UInt8(code.rawValue), descriptor, pieces, UInt32(count), offset, 0, token)
        case .synchronize:
            unsafe chost_io_uring_prepare(
                entry, UInt8(IORING_OP_FSYNC.rawValue), descriptor, nil, 0, 0, UInt32(IORING_FSYNC_DATASYNC), token)
        }
        tail &+= 1
        unsubmitted &+= 1
        // ORDERING: the entry, then the tail that shows it to the kernel.
        unsafe submissionTail.pointee.store(tail, ordering: .releasing)
    }

    package func submit() {
        while unsubmitted > 0 {
            let taken = chost_io_uring_enter(ring.rawValue, unsubmitted, 0, 0)
            if taken >= 0 {
                unsubmitted &-= UInt32(taken)
            } else if Errno.current == .again || Errno.current.rawValue == EBUSY {
                // The kernel is short of memory for requests: some must end first.
                wait()
            } else if Errno.current != .interrupted {
                preconditionFailure("io_uring_enter: \(Errno.current)")
            }
        }
    }

    package func next() -> (token: UInt64, result: Int)? {
        // ORDERING: pairs with the kernel's release of the tail: the entry is there.
        guard unsafe head != completionTail.pointee.load(ordering: .acquiring) else { return nil }
        let entry = unsafe completions[Int(head & completionMask)]
        head &+= 1
        unsafe completionHead.pointee.store(head, ordering: .releasing)
        return (entry.user_data, Int(entry.res))
    }

    package var hasNext: Bool { unsafe head != completionTail.pointee.load(ordering: .acquiring) }

    package func wait() {
        while unsafe head == completionTail.pointee.load(ordering: .acquiring) {
            let result = chost_io_uring_enter(ring.rawValue, 0, 1, UInt32(IORING_ENTER_GETEVENTS))
            if result < 0, Errno.current != .interrupted { return }
        }
    }
}

/// preadv(2) and pwritev(2), at once.
@safe package final class DirectTransfers: FileTransfers {
    private var complete: [(token: UInt64, result: Int)] = []
    private var taken = 0

    package init() {}

    package var descriptor: Int32 { -1 }

    package func add(
        _ operation: FileOperation, _ descriptor: Int32, _ pieces: UnsafePointer<IOVector>?, count: Int, offset: UInt64,
        token: UInt64
    ) {
        let list = unsafe pieces.map { unsafe UnsafeRawPointer($0).assumingMemoryBound(to: iovec.self) }
        var result = 0
        repeat {
            switch operation {
            case .read: result = unsafe preadv(descriptor, list, Int32(count), off_t(clamping: offset))
            case .write: result = unsafe pwritev(descriptor, list, Int32(count), off_t(clamping: offset))
            case .synchronize: result = Int(fdatasync(descriptor))
            }
        } while result < 0 && Errno.current == .interrupted
        complete.append((token, result < 0 ? -Int(Errno.current.rawValue) : result))
    }

    package func submit() {}

    package func next() -> (token: UInt64, result: Int)? {
        guard taken < complete.count else {
            complete.removeAll(keepingCapacity: true)
            taken = 0
            return nil
        }
        taken += 1
        return complete[taken - 1]
    }

    package var hasNext: Bool { taken < complete.count }
    package func wait() {}
}
//:
