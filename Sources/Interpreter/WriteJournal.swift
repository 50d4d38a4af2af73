internal import Glibc
package import GuestMemory
package import VirtualCPU
internal import X86

//S:520 A stretch that can be taken back
//
// Two engines can only be compared if both begin at the same state. There is
// one memory, and so the first of them must leave no trace: what its
// instructions overwrite is noted, byte for byte, and put back before the
// second one's turn; what they wrote is kept, to be looked for after it. With
// a journal, no TLB entry vouches for writes, and each comes by here. Only the
// bytes that were written are put back, never a page: next to them a device
// may be writing.

/// What an Interpreter's instructions did to memory, so that it can be undone.
@safe package final class WriteJournal {
    private struct Entry {
        var physical: UInt64
        var count: Int
        /// Where the bytes are in `old` and in `new`.
        var start: Int
    }

    private let ram: RAMView
    private var entries: [Entry] = []
    private var old: [UInt8] = []
    private var new: [UInt8] = []
    private var isOpen = false

    package init(memory: GuestMemory) { ram = memory.view }

    private func append(_ entry: Entry, to bytes: inout [UInt8]) {
        guard let pointer = unsafe ram.hostPointer(GuestPhysicalAddress(entry.physical), entry.count) else { return }
        unsafe bytes.append(contentsOf: UnsafeRawBufferPointer(start: pointer, count: entry.count))
    }

    /// To be called before `count` bytes of RAM at a physical address are changed.
    func note(_ physical: UInt64, _ count: Int) {
        if !isOpen { return }
        let entry = Entry(physical: physical, count: count, start: old.count)
        entries.append(entry)
        append(entry, to: &old)
    }

    /// Begins anew.
    package func open() {
        entries.removeAll(keepingCapacity: true)
        old.removeAll(keepingCapacity: true)
        isOpen = true
    }

    /// The writes to be undone are all there; memory is as they left it.
    package func close() {
        isOpen = false
        new.removeAll(keepingCapacity: true)
        for entry in entries { append(entry, to: &new) }
    }

    /// Memory is as it was at `open`.
    package func undo() {
        for entry in entries.reversed() {
            guard let pointer = unsafe ram.hostPointer(GuestPhysicalAddress(entry.physical), entry.count) else {
                continue
            }
            unsafe old.withUnsafeBytes {
                unsafe pointer.copyMemory(from: $0.baseAddress.unsafelyUnwrapped + entry.start, byteCount: entry.count)
            }
        }
    }

    /// Whether memory is again as it was at `close`, where it was written at all.
    package var isRepeated: Bool { entries.allSatisfy { !isDifferent($0) } }

    private func isDifferent(_ entry: Entry) -> Bool {
        guard let pointer = unsafe ram.hostPointer(GuestPhysicalAddress(entry.physical), entry.count) else {
            return false
        }
        return unsafe new.withUnsafeBytes { bytes in
            unsafe memcmp(pointer, bytes.baseAddress.unsafelyUnwrapped + entry.start, entry.count) != 0
        }
    }

    /// One write whose bytes are not what they were at `close`.
    package struct Difference {
        package var physical: UInt64
        /// At `open`, at `close`, and now.
        package var before: [UInt8]
        package var expected: [UInt8]
        package var found: [UInt8]
    }

    package var differences: [Difference] {
        entries.filter(isDifferent).map { entry in
            let range = entry.start..<entry.start + entry.count
            var found: [UInt8] = []
            append(entry, to: &found)
            return Difference(
                physical: entry.physical, before: Array(old[range]), expected: Array(new[range]), found: found)
        }
    }
}

/// What instructions change in a core, those for the system aside, and what they ended with.
@safe package final class CoreSnapshot {
    fileprivate let storage: UnsafeMutablePointer<VCPUState>
    fileprivate var shadow = false
    fileprivate var debugShadow = false
    /// The fault or the exit that is pending, in words; empty if there is none.
    package fileprivate(set) var stop = ""

    package init() {
        unsafe storage = .allocate(capacity: 1)
        unsafe storage.initialize(to: VCPUState())
    }

    deinit { unsafe storage.deallocate() }

    /// With all of RFLAGS.
    package var state: VCPUState {
        // SAFETY: initialized above, and nobody writes while it is looked at.
        unsafeAddress { unsafe UnsafePointer(storage) }
    }

    /// Whether two engines came to the same, but for arithmetic flags outside `flags`.
    package func agrees(with other: CoreSnapshot, flags: UInt64) -> Bool {
        let (a, b) = unsafe (storage, other.storage)
        for number in 0..<24 where number != AddressSlot.codePage {
            if unsafe a.pointee.gpr[number] != b.pointee.gpr[number] { return false }
        }
        for number in [SegmentName.fs, SegmentName.gs] {
            if unsafe a.pointee.segments[number].base != b.pointee.segments[number].base { return false }
        }
        for number in 0..<64 where unsafe a.pointee.ymm[number] != b.pointee.ymm[number] { return false }
        for number in Self.x87Words where unsafe a.pointee.x87[number] != b.pointee.x87[number] { return false }
        return unsafe a.pointee.rip == b.pointee.rip && a.pointee.mxcsr == b.pointee.mxcsr
            && a.pointee.kernelGSBase == b.pointee.kernelGSBase && stop == other.stop
            && (a.pointee.rflags ^ b.pointee.rflags) & (flags | ~RFlags.arithmetic) == 0
    }

    /// Quadwords of the FXSAVE image that are the Guest's; the fourth is a thunk's MXCSR.
    package static let x87Words = [0, 1, 2] + Array(4..<20)
}

extension InterpreterVCPU {
    package func save(_ snapshot: CoreSnapshot) {
        let cpu = self.cpu
        cpu.state.rflags = cpu.rflags
        // SAFETY: a state has no references; its bytes are all there is of it.
        unsafe UnsafeMutableRawPointer(snapshot.storage)
            .copyMemory(from: cpu.raw, byteCount: MemoryLayout<VCPUState>.size)
        snapshot.shadow = unsafe cpu.core.shadow
        snapshot.debugShadow = unsafe cpu.core.debugShadow
        snapshot.stop = pendingStop
    }

    /// Nothing is pending after it.
    package func restore(_ snapshot: CoreSnapshot) {
        let cpu = self.cpu
        let systemFlags = (cpu.state.rflags ^ snapshot.state.rflags) & ~RFlags.arithmetic
        unsafe cpu.raw.copyMemory(from: snapshot.storage, byteCount: MemoryLayout<VCPUState>.size)
        cpu.setArithmeticFlags(cpu.state.rflags)
        unsafe cpu.core.shadow = snapshot.shadow
        unsafe cpu.core.debugShadow = snapshot.debugShadow
        unsafe cpu.core.event = .lookup
        awaitsAnswer = false
        if systemFlags != 0 { cpu.modeChanged() }
    }

    private var pendingStop: String {
        let cpu = self.cpu
        switch unsafe cpu.core.event {
        case .lookup: return ""
        case .exit: return "exit: \(exit)"
        case .fault:
            var text = unsafe "exception \(cpu.core.faultVector)"
            if unsafe cpu.core.faultHasCode { text += unsafe ", code \(cpu.core.faultCode)" }
            if unsafe cpu.core.faultVector == Vector.pageFault {
                text += unsafe ", address 0x\(String(cpu.core.faultAddress, radix: 16))"
            }
            return text
        }
    }

    /// `run` returns with this, as soon as the accelerator does.
    package func leave(_ exit: VCPUExit) {
        awaitsAnswer = false
        _ = cpu.leave(exit)
    }
}
//:
