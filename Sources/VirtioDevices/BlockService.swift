internal import HostInterface
internal import Storage
internal import Virtio

//D:112 Many requests at once
//
// The disk's thread keeps three kinds of things: requests, which are the
// driver's; transfers, which are what requests come down to, one for each
// extent; and one queue of transfers in the kernel. A request ends when the
// last of its transfers has, in whatever order that is.
//
// A flush of a plain image is a transfer like any other. An image that keeps
// tables in memory must write these in peace: then the flush waits until
// nothing is under way, and what comes after it waits for the flush.

/// What the status byte says (virtio 1.2, 5.2.6).
enum BlockStatus: UInt8 {
    case ok = 0, ioError, unsupported
}

/// The work of a block device's queue. On the queue's thread only.
final class BlockService {
    private enum RequestType: UInt32 {
        case read = 0, write = 1, flush = 4, identify = 8, discard = 11, writeZeroes = 13
    }

    /// What a chain asks for.
    private final class Request {
        var chain: DescriptorChain?
        var type: UInt32 = 0
        var sector: UInt64 = 0
        /// Transfers that have not ended.
        var pending = 0
        var status = BlockStatus.ok
    }

    /// A piece of a request that is in one file, end to end.
    private final class Transfer {
        var request: Request?
        var operation = FileOperation.read
        var descriptor: Int32 = -1
        var offset: UInt64 = 0
        var remaining = 0
        var pieces = IOVectorList()
    }

    private let queue: Virtqueue
    private let image: any DiskImage
    private let serial: [UInt8]
    private let files = makeFileTransfers()
    private var transfers: [Transfer] = []
    private var idle: [Int] = []
    private var spare: [Request] = []
    private var extents: [Extent] = []
    private(set) var errors: UInt64 = 0
    /// A request that waits until nothing is under way, and what came after it.
    private var held: [Request] = []
    private var underWay = 0
    /// A flush has failed.
    private var hasLostData = false
    /// The queue is not ours any more.
    private var isDraining = false

    init(_ queue: Virtqueue, _ image: any DiskImage, serial: [UInt8]) {
        self.queue = queue
        self.image = image
        self.serial = serial
    }

    func run() throws(DriverBreach) {
        while queue.doorbell.wait(or: underWay > 0 ? files.descriptor : -1) {
            repeat {
                queue.suppressNotifications()
                while !queue.doorbell.isStopped, let chain = try queue.next() { begin(chain) }
                files.submit()
                reap()
            } while queue.lingers(or: { files.hasNext })
        }
    }

    /// Waits for the transfers that the kernel has; the driver hears no more of them.
    func drain() {
        isDraining = true
        files.submit()
        while underWay > 0 {
            files.wait()
            reap()
        }
    }

    // MARK: Beginning

    private func begin(_ chain: DescriptorChain) {
        let request = spare.popLast() ?? Request()
        request.chain = chain
        request.pending = 1  // Ourselves, until all transfers have begun.
        request.status = .ok
        guard let type = chain.readable.load(as: UInt32.self), chain.readable.load(as: UInt32.self) != nil,
            let sector = chain.readable.load(as: UInt64.self), chain.writable.byteCount > 0
        else {
            request.status = .ioError
            return ended(request)
        }
        request.type = type
        request.sector = sector
        if held.isEmpty, underWay == 0 || !needsPeace(request) { proceed(request) } else { held.append(request) }
    }

    /// Whether the image will write its tables for it.
    private func needsPeace(_ request: Request) -> Bool {
        switch RequestType(rawValue: request.type) {
        // A plain image has none.
        case .flush: image.format != .raw
        case .write, .writeZeroes: image.needsWriteBack
        default: false
        }
    }

    /// Nothing is under way: on with those that waited for that.
    private func release() {
        var count = 0
        while count < held.count, underWay == 0 || !needsPeace(held[count]) {
            proceed(held[count])
            count += 1
        }
        held.removeFirst(count)
        files.submit()
    }

    private struct Refusal: Error {
        let status: BlockStatus
    }

    private func proceed(_ request: Request) {
        guard let chain = request.chain else { return }
        do throws(Refusal) { try proceed(request, chain) } catch { request.status = error.status }
        ended(request)
    }

    private func proceed(_ request: Request, _ chain: DescriptorChain) throws(Refusal) {
        switch RequestType(rawValue: request.type) {
        case .read:
            let count = chain.writable.byteCount - 1
            let offset = try place(request.sector, count)
            try attempt { () throws(Errno) in try image.locate(offset, count: count, into: &extents) }
            move(.read, request, chain.writable)
        case .write:
            let count = chain.readable.remaining
            let offset = try place(request.sector, count)
            try attempt { () throws(Errno) in
                if image.needsWriteBack { try image.writeBack() }
                try image.allocate(offset, count: count, into: &extents)
            }
            move(.write, request, chain.readable)
        case .flush:
            // The host tells of data that it lost once. What came after that is no better for its silence.
            guard !hasLostData else { throw Refusal(status: .ioError) }
            try attempt { () throws(Errno) in try image.writeBack() }
            let transfer = makeTransfer(.synchronize, request)
            transfers[transfer].descriptor = image.descriptor
            start(transfer)
        case .identify:
            let room = min(chain.writable.byteCount - 1, serial.count)
            _ = unsafe serial.withUnsafeBytes {
                unsafe chain.writable.write(UnsafeRawBufferPointer(rebasing: $0[..<room]))
            }
        case .discard: try clear(chain, isDiscard: true)
        case .writeZeroes: try clear(chain, isDiscard: false)
        case nil: throw Refusal(status: .unsupported)
        }
    }

    /// Ranges that are to be forgotten, or to be zeros (virtio 1.2, 5.2.6.2).
    private func clear(_ chain: DescriptorChain, isDiscard: Bool) throws(Refusal) {
        let count = chain.readable.remaining
        guard count > 0, count % 16 == 0, count / 16 <= Block.mostRanges else { throw Refusal(status: .ioError) }
        while let sector = chain.readable.load(as: UInt64.self), let sectors = chain.readable.load(as: UInt32.self),
            let flags = chain.readable.load(as: UInt32.self)
        {
            // Bit 0 is "unmap", for zeros; all others are for later editions.
            guard flags & (isDiscard ? .max : ~1) == 0 else { throw Refusal(status: .unsupported) }
            guard sectors <= Block.mostRangeSectors else { throw Refusal(status: .ioError) }
            let bytes = Int(sectors) * Block.sectorBytes
            let (offset, overflow) = sector.multipliedReportingOverflow(by: UInt64(Block.sectorBytes))
            guard !overflow, offset <= image.byteCount, UInt64(bytes) <= image.byteCount - offset else {
                throw Refusal(status: .ioError)
            }
            try attempt { () throws(Errno) in
                if image.needsWriteBack, !isDiscard { try image.writeBack() }
                if isDiscard {
                    try image.discard(offset, count: UInt64(bytes))
                } else {
                    try image.writeZeroes(offset, count: UInt64(bytes), mayUnmap: flags & 1 != 0)
                }
            }
        }
    }

    /// Where a request is on the disk, if it is.
    private func place(_ sector: UInt64, _ count: Int) throws(Refusal) -> UInt64 {
        let (offset, overflow) = sector.multipliedReportingOverflow(by: UInt64(Block.sectorBytes))
        guard !overflow, count % Block.sectorBytes == 0, count <= Block.mostBytes, offset <= image.byteCount,
            UInt64(count) <= image.byteCount - offset
        else { throw Refusal(status: .ioError) }
        extents.removeAll(keepingCapacity: true)
        return offset
    }

    private func attempt(_ body: () throws(Errno) -> Void) throws(Refusal) {
        do throws(Errno) { try body() } catch { throw Refusal(status: .ioError) }
    }

    /// Starts what `extents` say.
    private func move(_ operation: FileOperation, _ request: Request, _ list: ScatterList) {
        for extent in extents {
            switch extent {
            case .file(let descriptor, let offset, let count):
                let transfer = makeTransfer(operation, request)
                transfers[transfer].descriptor = descriptor
                transfers[transfer].offset = offset
                transfers[transfer].remaining = list.take(count, into: &transfers[transfer].pieces)
                start(transfer)
            case .zeros(let count): _ = list.zero(count)
            case .bytes(let bytes): _ = unsafe bytes.withUnsafeBytes { unsafe list.write($0) }
            }
        }
    }

    // MARK: Transfers

    private func makeTransfer(_ operation: FileOperation, _ request: Request) -> Int {
        let index = idle.popLast() ?? transfers.count
        if index == transfers.count { transfers.append(Transfer()) }
        let transfer = transfers[index]
        transfer.request = request
        transfer.operation = operation
        transfer.remaining = 0
        transfer.pieces.removeAll()
        request.pending += 1
        underWay += 1
        return index
    }

    private func start(_ index: Int) {
        let transfer = transfers[index]
        let pieces = unsafe UnsafePointer(transfer.pieces.pointer)
        unsafe files.add(
            transfer.operation, transfer.descriptor, pieces, count: transfer.pieces.count, offset: transfer.offset,
            token: UInt64(index))
    }

    private func reap() {
        while let (token, result) = files.next() { ended(Int(token), result) }
    }

    private func ended(_ index: Int, _ result: Int) {
        let transfer = transfers[index]
        guard let request = transfer.request else { return }
        if result == -Int(Errno.again.rawValue) || result == -Int(Errno.interrupted.rawValue) { return restart(index) }
        if transfer.operation != .synchronize, result > 0, result < transfer.remaining {
            transfer.pieces.removeFirst(bytes: result)
            transfer.offset += UInt64(result)
            transfer.remaining -= result
            return restart(index)
        }
        // Nothing at all: the file is shorter than the disk was. And only zero is a flush's good result.
        if result != transfer.remaining {
            request.status = .ioError
            if transfer.operation == .synchronize { hasLostData = true }
        }
        transfer.request = nil
        idle.append(index)
        underWay -= 1
        ended(request)
        if underWay == 0, !held.isEmpty, !isDraining { release() }
    }

    private func restart(_ index: Int) {
        start(index)
        files.submit()
    }

    // MARK: Ending

    /// One of the things that a request waits for has come.
    private func ended(_ request: Request) {
        request.pending -= 1
        guard request.pending == 0, let chain = request.chain else { return }
        request.chain = nil
        spare.append(request)
        if isDraining { return queue.giveUp(chain) }
        if request.status != .ok { errors += 1 }
        queue.complete(chain, written: answer(chain, request.status))
    }

    /// Writes the status where the driver looks for it, at the chain's end.
    ///
    /// - Returns: how many bytes from the chain's first writable one on have been filled.
    private func answer(_ chain: DescriptorChain, _ status: BlockStatus) -> Int {
        let room = chain.writable
        guard room.byteCount > 0 else { return 0 }
        // What was to be read has not been, or not all of it.
        let filled = status == .ok ? room.byteCount - room.remaining : 0
        let gap = room.skip(room.remaining - 1)
        _ = room.store(status.rawValue)
        return filled + gap == room.byteCount - 1 && gap == 0 ? filled + 1 : filled
    }
}
//:
