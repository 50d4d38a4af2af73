internal import CZydis
internal import VirtualCPU
internal import X86

// Where the interpreter meets the thunks: which records call one, how the
// operand is found, and what is done when it lies in two pages or in none.

extension Instruction.Options {
    /// The thunk reads or writes arithmetic flags.
    static let touchesFlags = Instruction.Options(rawValue: 2048)
}

/// `Thunk` and `VectorAccess` values at lasting addresses, for `Instruction.link`.
@safe final class NativePool {
    private struct Key: Hashable {
        let entry: UInt
        let opcode: UInt16
        let alignment: UInt8
    }
    let cache: ThunkCache
    private var thunks: [Key: UnsafeMutablePointer<Thunk>] = unsafe [:]
    private var accesses: [UnsafeMutablePointer<VectorAccess>] = unsafe []

    init(isIntel: Bool) {
        do { cache = try ThunkCache(isIntel: isIntel) } catch {
            preconditionFailure("no executable memory for thunks: \(error)")
        }
    }

    deinit { release() }

    func keep(_ thunk: Thunk) -> UnsafeMutablePointer<Thunk> {
        let key = unsafe Key(entry: UInt(bitPattern: thunk.entry), opcode: thunk.fpuOpcode, alignment: thunk.alignment)
        if let known = unsafe thunks[key] { return unsafe known }
        let pointer = UnsafeMutablePointer<Thunk>.allocate(capacity: 1)
        unsafe pointer.initialize(to: thunk)
        unsafe thunks[key] = pointer
        return unsafe pointer
    }

    func keep(_ access: VectorAccess) -> UnsafeMutablePointer<VectorAccess> {
        let pointer = UnsafeMutablePointer<VectorAccess>.allocate(capacity: 1)
        unsafe pointer.initialize(to: access)
        unsafe accesses.append(pointer)
        return unsafe pointer
    }

    /// So much that it is better to begin anew; no record may be in use.
    var isCrowded: Bool { unsafe cache.isCrowded || accesses.count > 10_000 }

    func removeAll() {
        release()
        unsafe thunks = [:]
        unsafe accesses = []
        cache.removeAll()
    }

    private func release() {
        unsafe thunks.values.forEach { unsafe $0.deallocate() }
        unsafe accesses.forEach { unsafe $0.deallocate() }
    }
}

extension LoweringTable {
    mutating func addExtendedState() {
        let saves: [(ZydisMnemonic, ExtendedKind)] = [
            (ZYDIS_MNEMONIC_FXSAVE, .fxsave), (ZYDIS_MNEMONIC_FXSAVE64, .fxsave),
            (ZYDIS_MNEMONIC_FXRSTOR, .fxrstor), (ZYDIS_MNEMONIC_FXRSTOR64, .fxrstor),
            (ZYDIS_MNEMONIC_XSAVE, .xsave), (ZYDIS_MNEMONIC_XSAVE64, .xsave),
            (ZYDIS_MNEMONIC_XSAVEOPT, .xsaveopt), (ZYDIS_MNEMONIC_XSAVEOPT64, .xsaveopt),
            (ZYDIS_MNEMONIC_XRSTOR, .xrstor), (ZYDIS_MNEMONIC_XRSTOR64, .xrstor),
        ]
        let wide: Set<UInt32> = [
            ZYDIS_MNEMONIC_FXSAVE64.rawValue, ZYDIS_MNEMONIC_FXRSTOR64.rawValue, ZYDIS_MNEMONIC_XSAVE64.rawValue,
            ZYDIS_MNEMONIC_XSAVEOPT64.rawValue, ZYDIS_MNEMONIC_XRSTOR64.rawValue,
        ]
        for (mnemonic, kind) in saves {
            unsafe self[mnemonic] = { lowering in
                guard lowering.isMemory(0) else { return nil }
                lowering.setMemory(0)
                unsafe lowering.record.small = kind.rawValue
                unsafe lowering.record.r1 = wide.contains(mnemonic.rawValue) ? 1 : 0
                return unsafe Handlers.extendedState
            }
        }
        unsafe set([ZYDIS_MNEMONIC_LDMXCSR, ZYDIS_MNEMONIC_VLDMXCSR, ZYDIS_MNEMONIC_STMXCSR, ZYDIS_MNEMONIC_VSTMXCSR]) {
            lowering in
            lowering.setMemory(0)
            let isVEX = lowering.mnemonic == ZYDIS_MNEMONIC_VLDMXCSR || lowering.mnemonic == ZYDIS_MNEMONIC_VSTMXCSR
            let loads = lowering.mnemonic == ZYDIS_MNEMONIC_LDMXCSR || lowering.mnemonic == ZYDIS_MNEMONIC_VLDMXCSR
            unsafe lowering.record.small = isVEX ? 1 : 0
            return unsafe loads ? Handlers.ldmxcsr : Handlers.stmxcsr
        }
        unsafe set([ZYDIS_MNEMONIC_VZEROALL, ZYDIS_MNEMONIC_VZEROUPPER]) { lowering in
            unsafe lowering.record.small = lowering.mnemonic == ZYDIS_MNEMONIC_VZEROALL ? 1 : 0
            return unsafe Handlers.vzero
        }
    }
}

enum ExtendedKind: UInt8 { case fxsave, fxrstor, xsave, xsaveopt, xrstor }

extension Lowering {
    /// What the tables do not know: to the real CPU, if it is one of those
    /// that may run there; else an invalid opcode.
    mutating func lowerToThunk(_ pool: NativePool, bytes: UnsafePointer<UInt8>) {
        if let thunk = unsafe pool.cache.thunk(for: d, operands: operands, bytes: bytes) {
            setNativeMemory()
            if thunk.touchesFlags { unsafe record.options.insert(.touchesFlags) }
            if thunk.bitRegister >= 0 { unsafe record.options.insert([.complexAddress, .bitString]) }
            unsafe record.link = UnsafeMutableRawPointer(pool.keep(thunk))
            if thunk.memoryBytes == 0 {
                unsafe record.handler = Handlers.thunkRegister
            } else if thunk.fpu == .recorded && thunk.memoryAccess == .write {
                unsafe record.handler = Handlers.thunkStore87
            } else if unsafe isIntel && d.pointee.meta.exception_class == ZYDIS_EXCEPTION_CLASS_AVX11 {
                unsafe record.handler = Handlers.thunkMemoryUnaligned
            } else {
                unsafe record.handler = Handlers.thunkMemory
            }
        } else if let access = unsafe VectorAccess(d, operands: operands, features: pool.cache.features) {
            if access.isUndefined { return }
            setNativeMemory()
            unsafe record.options.insert(.complexAddress)
            unsafe record.link = UnsafeMutableRawPointer(pool.keep(access))
            unsafe record.handler = Handlers.vectorAccess
        }
    }

    private mutating func setNativeMemory() {
        for n in unsafe 0..<Int(d.pointee.operand_count) where isMemory(n) {
            let isVector = unsafe operands[n].mem.type == ZYDIS_MEMOP_TYPE_VSIB
            setMemory(n)
            // Only base and displacement count; the elements bring the rest.
            if isVector { unsafe record.index = unsafe UInt8(Instruction.noRegister) }
            return
        }
    }
}

extension CPU {
    /// Calls the thunk with the flags where it expects them.
    @inline(__always) private func call(
        _ thunk: UnsafePointer<Thunk>, _ i: InstructionPointer, _ memory: UnsafeMutableRawPointer
    ) throws(Stop) {
        let touchesFlags = unsafe i.pointee.options.contains(.touchesFlags)
        if touchesFlags { state.rflags = rflags }
        let address = unsafe thunk.pointee.fpu == .untouched ? 0 : offset(i)
        // SAFETY: the state is at `raw`; `memory` covers the thunk's operand.
        let ok = unsafe thunk.pointee.run(
            raw.assumingMemoryBound(to: VCPUState.self), memory: memory, rip: rip(i), address: address)
        if !ok { throw state.cr4 & CR4.osXMMExceptions != 0 ? fault(Vector.simdFloatingPoint) : undefined() }
        if touchesFlags { setArithmeticFlags(state.rflags) }
    }

    @inline(__always) private func passGate(_ thunk: UnsafePointer<Thunk>) throws(Stop) {
        let gate = unsafe thunk.pointee.gate
        if unsafe gate.rawValue & core.closedGates != 0 || gate.contains(.waitsForFPU) { unsafe try passSlowly(thunk) }
    }

    @inline(never) private func passSlowly(_ thunk: UnsafePointer<Thunk>) throws(Stop) {
        if let vector = unsafe thunk.pointee.gateFault(state) { throw fault(vector) }
    }

    @inline(__always) func thunkRegister(_ i: InstructionPointer) throws(Stop) {
        let thunk = unsafe UnsafePointer(i.pointee.link.unsafelyUnwrapped.assumingMemoryBound(to: Thunk.self))
        unsafe try passGate(thunk)
        unsafe try call(thunk, i, core.bounce)
    }

    @inline(__always) func thunkMemory(_ i: InstructionPointer) throws(Stop) {
        let thunk = unsafe UnsafePointer(i.pointee.link.unsafelyUnwrapped.assumingMemoryBound(to: Thunk.self))
        unsafe try passGate(thunk)
        let bytes = unsafe thunk.pointee.memoryBytes
        let access = unsafe thunk.pointee.memoryAccess
        let writes = access != .read
        let address: UInt64
        if unsafe i.pointee.options.contains(.bitString) {
            let offset = unsafe offset(i) &+ thunk.pointee.bitStringOffset(state)
            address = unsafe try linear(
                segment: Int(i.pointee.segment), cut(offset, i), bytes, write: writes,
                long: i.pointee.options.contains(.long))
        } else {
            address = unsafe try self.address(i, bytes, write: writes)
        }
        if unsafe address & UInt64(thunk.pointee.alignment &- 1) != 0 { throw generalProtection() }
        if let memory = unsafe try hostOperand(address, bytes, write: writes) {
            unsafe try call(thunk, i, memory)
        } else {
            unsafe try callWithBounce(thunk, i, address, bytes, access)
        }
    }

    /// VCVTPH2PS and VCVTPS2PH, which on Intel's CPUs know no #AC (SDM 2A, 2.4.11).
    func thunkMemoryUnaligned(_ i: InstructionPointer) throws(Stop) {
        if !checksAlignment { return unsafe try thunkMemory(i) }
        let thunk = unsafe UnsafePointer(i.pointee.link.unsafelyUnwrapped.assumingMemoryBound(to: Thunk.self))
        unsafe try passGate(thunk)
        let (bytes, access) = unsafe (thunk.pointee.memoryBytes, thunk.pointee.memoryAccess)
        unsafe try callWithBounce(thunk, i, address(i, bytes, write: access != .read), bytes, access, aligned: false)
    }

    //M:020 A lock across two pages
    //
    // LOCK works on the Guest's RAM itself, so that it is the Host's atomic
    // operation, at any alignment. There is one exception: an operand in two
    // pages, which need not lie side by side in the Host. It goes by way of a
    // buffer, and another CPU could come between. With one vCPU there is no
    // other CPU; whoever adds the second must stop the others for this.

    /// The operand crosses pages or is a device: by way of a buffer.
    @inline(never) private func callWithBounce(
        _ thunk: UnsafePointer<Thunk>, _ i: InstructionPointer, _ address: UInt64, _ bytes: Int,
        _ access: Thunk.MemoryAccess, aligned: Bool = true
    ) throws(Stop) {
        if aligned { try checkOperand(address, bytes) }
        if access != .read { try checkWritable(address, bytes) }
        if access != .write { unsafe try copyIn(address, bytes, core.bounce) }
        let before = unsafe core.flags
        unsafe try call(thunk, i, core.bounce)
        if access == .read { return }
        do throws(Stop) {
            unsafe try copyOut(core.bounce, address, bytes)
        } catch {
            unsafe core.flags = before
            throw error
        }
    }
    //:

    /// FST and relatives. An exception of their own that is unmasked, save
    /// precision, comes before memory is so much as looked at on Intel's CPUs
    /// (SDM 1, 8.5). AMD's have found the place to store to by then.
    func thunkStore87(_ i: InstructionPointer) throws(Stop) {
        let thunk = unsafe UnsafePointer(i.pointee.link.unsafelyUnwrapped.assumingMemoryBound(to: Thunk.self))
        unsafe try passGate(thunk)
        if !owner.features.isIntel {
            let bytes = unsafe thunk.pointee.memoryBytes
            let address = unsafe try self.address(i, bytes, write: true)
            try checkOperand(address, bytes)
            try checkWritable(address, bytes)
        }
        let before = state.x87
        unsafe try call(thunk, i, core.bounce)
        let control = state.x87[0]
        if (control >> 16) & ~control & 0x1f != 0 { return }
        let bytes = unsafe thunk.pointee.memoryBytes
        do throws(Stop) {
            let address = unsafe try self.address(i, bytes, write: true)
            try checkOperand(address, bytes)
            unsafe try copyOut(core.bounce, address, bytes)
        } catch {
            state.x87 = before
            throw error
        }
    }

    /// An offset cut to the record's address size.
    func cut(_ offset: UInt64, _ i: InstructionPointer) -> UInt64 {
        if unsafe i.pointee.options.contains(.address32) { return offset & 0xffff_ffff }
        return unsafe i.pointee.options.contains(.address16) ? offset & 0xffff : offset
    }

    /// Linear memory to a buffer of ours. Faults before anything is read from a device.
    func copyIn(_ address: UInt64, _ count: Int, _ buffer: UnsafeMutableRawPointer) throws(Stop) {
        if !seesEveryAccess, let source = unsafe try hostOperand(address, count, write: false) {
            unsafe buffer.copyMemory(from: source, byteCount: count)
            return
        }
        try checkReadable(address, count)
        if unsafe core.watching { owner.noteWatched(address, count, write: false) }
        var done = 0
        while done < count {
            let from = wrap(address &+ UInt64(done))
            // What crosses into another page still is RAM in each, as a rule.
            let stretch = min(count &- done, 4096 &- Int(from & 0xfff))
            if !seesEveryAccess, let source = unsafe try hostOperand(from, stretch, write: false) {
                unsafe (buffer + done).copyMemory(from: source, byteCount: stretch)
                done &+= stretch
                continue
            }
            let piece = count &- done >= 8 ? 8 : count &- done >= 4 ? 4 : count &- done >= 2 ? 2 : 1
            let value = try read(from, piece, ownAccess)
            unsafe withUnsafeBytes(of: value) {
                unsafe (buffer + done).copyMemory(from: $0.baseAddress.unsafelyUnwrapped, byteCount: piece)
            }
            done &+= piece
        }
    }

    func copyOut(_ buffer: UnsafeMutableRawPointer, _ address: UInt64, _ count: Int) throws(Stop) {
        if !seesEveryAccess, let target = unsafe try hostOperand(address, count, write: true) {
            unsafe target.copyMemory(from: buffer, byteCount: count)
            return
        }
        try checkWritable(address, count)
        var done = 0
        while done < count {
            let to = wrap(address &+ UInt64(done))
            let stretch = min(count &- done, 4096 &- Int(to & 0xfff))
            if !seesEveryAccess, let target = unsafe try hostOperand(to, stretch, write: true) {
                unsafe target.copyMemory(from: buffer + done, byteCount: stretch)
                done &+= stretch
                continue
            }
            let piece = count &- done >= 8 ? 8 : count &- done >= 4 ? 4 : count &- done >= 2 ? 2 : 1
            var value: UInt64 = 0
            unsafe withUnsafeMutableBytes(of: &value) {
                unsafe $0.baseAddress.unsafelyUnwrapped.copyMemory(from: buffer + done, byteCount: piece)
            }
            try write(to, value, piece, ownAccess)
            done &+= piece
        }
        if unsafe core.watching { owner.noteWatched(address, count, write: true) }
    }

    // MARK: FXSAVE, XSAVE and relatives

    func extendedState(_ i: InstructionPointer) throws(Stop) {
        guard let kind = unsafe ExtendedKind(rawValue: i.pointee.small) else { throw undefined() }
        let isX = kind != .fxsave && kind != .fxrstor
        if isX && state.cr4 & CR4.osXSave == 0 { throw undefined() }
        if state.cr0 & CR0.taskSwitched != 0 || !isX && state.cr0 & CR0.emulation != 0 {
            throw fault(Vector.deviceNotAvailable)
        }
        let count = isX ? ExtendedState.areaBytes(state.xcr0) : ExtendedState.legacyBytes
        let writes = kind != .fxrstor && kind != .xrstor
        let address = unsafe try address(i, count, write: writes)
        if address & (isX ? 63 : 15) != 0 { throw generalProtection() }
        let pointers64 = unsafe i.pointee.r1 != 0
        let wide = unsafe i.pointee.options.contains(.long)
        let mask = self[Register.rdx] &<< 32 | self[Register.rax] & 0xffff_ffff
        if writes { try checkWritable(address, count) }
        let direct = unsafe writes ? try hostOperand(address, count, write: true) : nil
        let area = unsafe direct ?? core.bounce
        if unsafe direct == nil { unsafe try copyIn(address, count, core.bounce) }
        switch kind {
        case .fxsave: unsafe ExtendedState.fxsave(statePointer, into: area, pointers64: pointers64, wide: wide)
        case .xsave, .xsaveopt:
            unsafe ExtendedState.xsave(
                statePointer, mask: mask, into: area, optimised: kind == .xsaveopt, pointers64: pointers64, wide: wide)
        case .fxrstor:
            if unsafe !ExtendedState.fxrstor(statePointer, from: area, pointers64: pointers64, wide: wide) {
                throw generalProtection()
            }
        case .xrstor:
            if unsafe !ExtendedState.xrstor(statePointer, mask: mask, from: area, pointers64: pointers64, wide: wide) {
                throw generalProtection()
            }
        }
        if writes, unsafe direct == nil { unsafe try copyOut(core.bounce, address, count) }
    }

    /// The gate of an SSE or AVX instruction that is not a thunk.
    private func vectorGate(vex: Bool) throws(Stop) {
        if vex {
            if state.cr4 & CR4.osXSave == 0 || state.xcr0 & 6 != 6 { throw undefined() }
        } else if state.cr0 & CR0.emulation != 0 || state.cr4 & CR4.osFXSR == 0 {
            throw undefined()
        }
        if state.cr0 & CR0.taskSwitched != 0 { throw fault(Vector.deviceNotAvailable) }
    }

    func loadControlStatus(_ i: InstructionPointer) throws(Stop) {
        unsafe try vectorGate(vex: i.pointee.small != 0)
        let value = unsafe try load(address(i, 4, write: false), UInt32.self)
        if unsafe !ExtendedState.loadMXCSR(value, statePointer) { throw generalProtection() }
    }

    func storeControlStatus(_ i: InstructionPointer) throws(Stop) {
        unsafe try vectorGate(vex: i.pointee.small != 0)
        unsafe try store(address(i, 4, write: true), state.mxcsr)
    }

    func zeroVectors(_ i: InstructionPointer) throws(Stop) {
        try vectorGate(vex: true)
        unsafe ExtendedState.zeroVectors(
            all: i.pointee.small != 0, wide: i.pointee.options.contains(.long), statePointer)
    }

    func vectorAccess(_ i: InstructionPointer) throws(Stop) {
        let access = unsafe i.pointee.link.unsafelyUnwrapped.assumingMemoryBound(to: VectorAccess.self).pointee
        if access.gate.contains(.mmx) {
            if state.cr0 & CR0.emulation != 0 { throw undefined() }
            if state.cr0 & CR0.taskSwitched != 0 { throw fault(Vector.deviceNotAvailable) }
            if state.x87[0] & 1 << 23 != 0 { throw fault(Vector.floatingPoint) }
        } else {
            try vectorGate(vex: access.gate.contains(.avx))
        }
        // Of a gather each element's address is cut to the address size, else that of the whole.
        let isGather = access.kind == .gather
        let offset = unsafe isGather ? effectiveAddress(i) : cut(effectiveAddress(i), i)
        if access.kind == .byteStore, checksAlignment {
            // Asked of the whole, as if it were stores of eight bytes, not of the bytes that are chosen.
            try checkOperand(
                linear(
                    segment: unsafe Int(i.pointee.segment), offset, 8, write: true,
                    long: unsafe i.pointee.options.contains(.long)), 8)
        }
        var memory = unsafe ElementMemory(cpu: self, i: i, cutsElements: isGather)
        if !access.run(&state, at: offset, &memory) { throw Stop() }
    }
}

/// The Guest's memory, element by element, for a gather or a masked move.
@safe private struct ElementMemory: VectorMemory {
    let cpu: CPU
    let i: InstructionPointer
    /// A gather, each of whose addresses is cut to the address size.
    let cutsElements: Bool

    private func linear(_ offset: UInt64, _ bytes: Int, write: Bool) throws(Stop) -> UInt64 {
        let place = unsafe cutsElements ? cpu.cut(offset, i) : offset
        return unsafe try cpu.linear(
            segment: Int(i.pointee.segment), place, bytes, write: write, long: i.pointee.options.contains(.long))
    }

    mutating func checkAddresses(_ offset: UInt64, bytes: Int) -> Bool {
        do throws(Stop) { try cpu.checkCanonical(linear(offset, bytes, write: false), bytes); return true } catch {
            return false
        }
    }
    mutating func load(_ offset: UInt64, bytes: Int) -> UInt64? {
        do throws(Stop) {
            let address = try linear(offset, bytes, write: false)
            try cpu.checkReadable(address, bytes)
            if unsafe cpu.core.watching { cpu.owner.noteWatched(address, bytes, write: false) }
            let value = try cpu.read(address, bytes, cpu.ownAccess)
            // Of a gather what was loaded counts at once: begun again, it asks for the next element.
            if cutsElements { cpu.forgetAnswers() }
            return value
        } catch { return nil }
    }
    mutating func probeStore(_ offset: UInt64, bytes: Int) -> Bool {
        do throws(Stop) { try cpu.checkWritable(linear(offset, bytes, write: true), bytes); return true } catch {
            return false
        }
    }
    mutating func store(_ offset: UInt64, _ value: UInt64, bytes: Int) -> Bool {
        do throws(Stop) {
            let address = try linear(offset, bytes, write: true)
            try cpu.write(address, value, bytes, cpu.ownAccess)
            if unsafe cpu.core.watching { cpu.owner.noteWatched(address, bytes, write: true) }
            return true
        } catch { return false }
    }
}

extension Handlers {
    static let thunkRegister: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.thunkRegister(i) }
    }
    static let thunkMemory: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.thunkMemory(i) }
    }
    static let thunkMemoryUnaligned: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe try cpu.thunkMemoryUnaligned(i)
        }
    }
    static let thunkStore87: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.thunkStore87(i) }
    }
    static let vectorAccess: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.vectorAccess(i) }
    }
    static let extendedState: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.extendedState(i) }
    }
    static let ldmxcsr: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.loadControlStatus(i) }
    }
    static let stmxcsr: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.storeControlStatus(i) }
    }
    static let vzero: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.zeroVectors(i) } }
}
