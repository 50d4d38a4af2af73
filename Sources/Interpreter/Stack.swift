internal import VirtualCPU
internal import X86

// The stack in all three widths. The stack pointer moves only when the access
// has succeeded, so that a fault leaves it as it was.

extension CPU {
    /// RSP, ESP or SP: what SS.B and long mode say (SDM 1, 6.2.3).
    @inline(__always) var stackMask: UInt64 {
        if unsafe core.codeSize == .bits64 { return .max }
        return state.segments[SegmentName.ss].isDefaultBig ? 0xffff_ffff : 0xffff
    }

    func setStackPointer(_ value: UInt64) {
        let mask = stackMask
        if mask == 0xffff {
            rsp = rsp & ~0xffff | value & 0xffff
        } else {
            rsp = value & mask
        }
    }

    func stackAddress(_ offset: UInt64, _ bytes: Int, write: Bool) throws(Stop) -> UInt64 {
        unsafe try linear(
            segment: SegmentName.ss, offset & stackMask, bytes, write: write, long: core.codeSize == .bits64)
    }

    @inline(__always) func push64(_ value: UInt64) throws(Stop) {
        let top = rsp &- 8
        try storeToStack(top, value)
        rsp = top
    }

    @inline(__always) func pop64() throws(Stop) -> UInt64 {
        let top = rsp
        let value = try loadFromStack(top)
        rsp = top &+ 8
        return value
    }

    /// A non-canonical stack address is #SS, not #GP (SDM 3A, 6.15).
    @inline(__always) private func storeToStack(_ address: UInt64, _ value: UInt64) throws(Stop) {
        do throws(Stop) { try store(address, value) } catch { throw onStack(error) }
    }
    @inline(__always) private func loadFromStack(_ address: UInt64) throws(Stop) -> UInt64 {
        do throws(Stop) { return try load(address, UInt64.self) } catch { throw onStack(error) }
    }
    @inline(never) func onStack(_ stop: Stop) -> Stop {
        if unsafe core.event == .fault && core.faultIsAddress { unsafe core.faultVector = Vector.stackFault }
        return stop
    }

    /// Pushes 2, 4 or 8 bytes in any mode.
    func push(_ value: UInt64, _ bytes: Int) throws(Stop) {
        let top = (rsp &- UInt64(bytes)) & stackMask
        let address = try stackAddress(top, bytes, write: true)
        do throws(Stop) {
            switch bytes {
            case 2: try store(address, UInt16(truncatingIfNeeded: value))
            case 4: try store(address, UInt32(truncatingIfNeeded: value))
            default: try store(address, value)
            }
        } catch { throw onStack(error) }
        setStackPointer(top)
    }

    /// Reads what `pop` would, `depth` bytes below the top, leaving the pointer.
    func peek(_ bytes: Int, depth: Int = 0) throws(Stop) -> UInt64 {
        try loadFromStack(rsp &+ UInt64(depth), bytes)
    }

    func loadFromStack(_ offset: UInt64, _ bytes: Int) throws(Stop) -> UInt64 {
        let address = try stackAddress(offset, bytes, write: false)
        do throws(Stop) {
            switch bytes {
            case 2: return UInt64(try load(address, UInt16.self))
            case 4: return UInt64(try load(address, UInt32.self))
            default: return try load(address, UInt64.self)
            }
        } catch { throw onStack(error) }
    }

    func pop(_ bytes: Int) throws(Stop) -> UInt64 {
        let value = try peek(bytes)
        setStackPointer(rsp &+ UInt64(bytes))
        return value
    }
}
