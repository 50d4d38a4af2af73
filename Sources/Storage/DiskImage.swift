package import HostInterface

//L:310 What a disk is made of
//
// A Guest's disk is a row of sectors; a file on the Host is what there is to
// keep them in. How the one lies in the other is the image's format, and there
// are two that people have: raw, where byte n is byte n, and qcow2, where a
// table says for each cluster where it is.
//
// The device does not care. It asks where some bytes are, gets a list of
// extents, and moves the data itself, straight between the file and the
// Guest's memory, as many requests at a time as it likes. So the format's code
// never touches the data that passes by, and need not know about io_uring.
// What it must know is the one thing a list cannot say: in which order things
// reach the disk (that is told in L:330).
//
// A file may shrink under us, and we have not mapped it, so that comes as a
// short read and not as a signal.

/// A piece of a request, in order; the pieces' counts add up to the request's.
package enum Extent: Equatable, Sendable {
    /// The bytes are in a file, and are to be read or written there.
    case file(descriptor: Int32, offset: UInt64, count: Int)
    /// They are stored nowhere and read as zeros.
    case zeros(count: Int)
    /// They are here already: they were stored compressed.
    case bytes([UInt8])

    package var count: Int {
        switch self {
        case .file(_, _, let count), .zeros(let count): count
        case .bytes(let bytes): bytes.count
        }
    }
}

package enum DiskFormat: String, Sendable, CaseIterable {
    case raw, qcow2
}

/// An image of a disk, opened. Used by one thread at a time.
///
/// Whoever uses it calls `writeBack` and then fdatasync(2) on `descriptor`
/// when the Guest flushes and at the end. No read or write may be on its way
/// to an extent while `writeBack` runs: what an extent was made of may then
/// find another use.
package protocol DiskImage: AnyObject {
    var path: String { get }
    var format: DiskFormat { get }
    /// A multiple of 512; the same for as long as the image is open.
    var byteCount: UInt64 { get }
    var isReadOnly: Bool { get }

    /// Where bytes are to be read; appends to `extents`.
    func locate(_ offset: UInt64, count: Int, into extents: inout [Extent]) throws(Errno)

    /// Where bytes are to be written, in `.file` extents only. A format that
    /// copies on write makes room here, and fills in what the request leaves
    /// out of a cluster.
    func allocate(_ offset: UInt64, count: Int, into extents: inout [Extent]) throws(Errno)

    /// More is kept in memory than is good: before the next `allocate`, let
    /// all requests finish and call `writeBack`.
    var needsWriteBack: Bool { get }

    /// Writes what the format keeps in memory, in an order that no crash can
    /// hurt; the last fdatasync(2) is the caller's.
    func writeBack() throws(Errno)

    /// The file that `writeBack` writes to.
    var descriptor: Int32 { get }

    /// The Guest needs these bytes no more: a hint, of which nothing need come.
    func discard(_ offset: UInt64, count: UInt64) throws(Errno)

    /// - Parameter mayUnmap: the zeros need not be stored.
    func writeZeroes(_ offset: UInt64, count: UInt64, mayUnmap: Bool) throws(Errno)
}

extension DiskImage {
    /// Whether all of it is within the disk; the numbers may be the Guest's.
    func contains(_ offset: UInt64, _ count: UInt64) -> Bool { count <= byteCount && offset <= byteCount - count }
}

extension [Extent] {
    /// Adds an extent, or to the last one where the two are one piece.
    mutating func add(_ extent: Extent) {
        guard extent.count > 0 else { return }
        switch (last, extent) {
        case (.file(let file, let start, let before), .file(let next, let offset, let count))
        where file == next && start + UInt64(before) == offset:
            self[endIndex - 1] = .file(descriptor: file, offset: start, count: before + count)
        case (.zeros(let before), .zeros(let count)):
            self[endIndex - 1] = .zeros(count: before + count)
        default:
            append(extent)
        }
    }
}
//:

extension DiskImage {
    /// Bytes of the disk, copied: for whoever has no better place for them.
    package func read(_ offset: UInt64, count: Int) throws(Errno) -> [UInt8] {
        var extents: [Extent] = []
        try locate(offset, count: count, into: &extents)
        return try extents.contents()
    }
}

extension [Extent] {
    /// What is in the extents; a file that ends early goes on in zeros.
    func contents() throws(Errno) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(reduce(0) { $0 + $1.count })
        for extent in self {
            switch extent {
            case .bytes(let part): bytes += part
            case .zeros(let count): bytes += repeatElement(0, count: count)
            case .file(let descriptor, let offset, let count):
                let part = try DiskFile.read(descriptor, at: offset, upTo: count)
                bytes += part
                bytes += repeatElement(0, count: count - part.count)
            }
        }
        return bytes
    }
}
