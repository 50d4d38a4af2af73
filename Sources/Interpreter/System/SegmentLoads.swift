internal import CZydis
internal import VirtualCPU
internal import X86

// MOV, POP and LDS… to a segment register (SDM 2B, "MOV"; 3A, 5.4 and 5.7).

extension CPU {
    /// Loads ES, SS, DS, FS or GS with every check that the mode asks for.
    func loadSegment(_ number: Int, _ selector: UInt16, _ vector: UInt8 = Vector.generalProtection) throws(Stop) {
        if !usesDescriptors {
            setSegment(number, legacySegment(number, selector))
            return
        }
        if number == SegmentName.ss {
            unsafe setSegment(
                number, try stackSegment(selector, privilege: Int(core.privilege), allowNull: core.codeSize == .bits64))
            return
        }
        if selector.isNullSelector {
            setSegment(number, Segment(selector: selector, attributes: Segment.unusableBit))
            return
        }
        let descriptor = try descriptor(selector, vector)
        // Data, or code that can be read.
        if descriptor.isSystem || descriptor.low >> 41 & 5 == 4 { throw fault(vector, code: selector.selectorIndex) }
        let isConformingCode = descriptor.isCode && descriptor.isConforming
        if unsafe !isConformingCode
            && (selector.requestedPrivilege > descriptor.privilegeLevel
                || Int(core.privilege) > descriptor.privilegeLevel)
        {
            throw fault(vector, code: selector.selectorIndex)
        }
        if !descriptor.isPresent { throw fault(Vector.segmentNotPresent, code: selector.selectorIndex) }
        setSegment(number, try accessed(descriptor, selector))
    }

    /// What real mode and virtual-8086 mode make of a selector. Real mode
    /// leaves limit and attributes as they were ("unreal" mode lives on that).
    func legacySegment(_ number: Int, _ selector: UInt16) -> Segment {
        if isVirtual8086 { return .realMode(selector: selector, type: 0xf3) }
        var segment = state.segments[number]
        segment.selector = selector
        segment.base = UInt64(selector) << 4
        segment.attributes &= ~Segment.unusableBit
        return segment
    }

    /// Checks a selector for SS at this CPL. `vector` is #GP for a load, #TS
    /// where the selector comes from a task-state segment.
    func stackSegment(
        _ selector: UInt16, privilege: Int, allowNull: Bool, _ vector: UInt8 = Vector.generalProtection,
        external: UInt32 = 0
    ) throws(Stop) -> Segment {
        if selector.isNullSelector {
            // 64-bit code below CPL 3 may do without (SDM 3A, 5.4.1.1).
            if allowNull && privilege != 3 && selector.requestedPrivilege == privilege { return nullStack(privilege) }
            throw fault(vector, code: external)
        }
        let descriptor = try descriptor(selector, vector, external: external)
        if selector.requestedPrivilege != privilege || descriptor.privilegeLevel != privilege
            || descriptor.low >> 41 & 0xd != 9
        {
            throw fault(vector, code: selector.selectorIndex | external)
        }
        if !descriptor.isPresent { throw fault(Vector.stackFault, code: selector.selectorIndex | external) }
        return try accessed(descriptor, selector)
    }

    /// No interrupt, and no debug trap, before the instruction after this one.
    func shadowStackLoad() {
        unsafe core.shadow = true
        unsafe core.debugShadow = true
    }
}

extension LoweringTable {
    mutating func addSegments() {
        let loads: [(ZydisMnemonic, Int)] = [
            (ZYDIS_MNEMONIC_LDS, SegmentName.ds), (ZYDIS_MNEMONIC_LES, SegmentName.es),
            (ZYDIS_MNEMONIC_LFS, SegmentName.fs),
            (ZYDIS_MNEMONIC_LGS, SegmentName.gs), (ZYDIS_MNEMONIC_LSS, SegmentName.ss),
        ]
        for (mnemonic, number) in loads {
            unsafe self[mnemonic] = { lowering in
                guard let register = lowering.gpr(0), lowering.isMemory(1) else { return nil }
                lowering.setMemory(1)
                unsafe lowering.record.r1 = register
                unsafe lowering.record.operandBytes = UInt8(lowering.operandBytes(0))
                unsafe lowering.record.small = UInt8(number)
                return unsafe Handlers.loadFarPointer
            }
        }
    }
}

extension Lowering {
    /// MOV to or from a segment register; nil if this MOV is neither.
    mutating func moveSegment() -> Handler? {
        if isRegister(0), let number = Lowering.segment(register(0)) {
            if number == SegmentName.cs { return unsafe Handlers.undefined }
            unsafe record.small = UInt8(number)
            if let source = gpr(1) {
                unsafe record.r2 = source
            } else if isMemory(1) {
                setMemory(1)
            } else {
                return nil
            }
            if number == SegmentName.ss {
                endsBlock = true
                return unsafe Handlers.moveToStackSegment
            }
            return unsafe Handlers.moveToSegment
        }
        guard isRegister(1), let number = Lowering.segment(register(1)) else { return nil }
        unsafe record.small = UInt8(number)
        if let destination = gpr(0) {
            // Zero-extended to a register of 32 or 64 bits; 16 bits with a prefix.
            unsafe record.r1 = destination
            unsafe record.operandBytes = UInt8(operandBytes(0))
            return unsafe Handlers.moveFromSegment
        }
        guard isMemory(0) else { return nil }
        setMemory(0)
        return unsafe Handlers.storeSegment
    }

    mutating func popSegment() -> Handler? {
        guard isRegister(0), let number = Lowering.segment(register(0)), number != SegmentName.cs else { return nil }
        unsafe record.small = UInt8(number)
        if number == SegmentName.ss {
            endsBlock = true
            return unsafe Handlers.popStackSegment
        }
        return unsafe Handlers.popSegment
    }
}

extension CPU {
    private func selectorOperand(_ i: InstructionPointer) throws(Stop) -> UInt16 {
        if unsafe i.pointee.options.contains(.memory) {
            return unsafe try load(address(i, 2, write: false), UInt16.self)
        }
        return unsafe register(i.pointee.r2, UInt16.self)
    }

    func moveToSegment(_ i: InstructionPointer) throws(Stop) {
        unsafe try loadSegment(Int(i.pointee.small), try selectorOperand(i))
    }

    func popSegment(_ i: InstructionPointer) throws(Stop) {
        let bytes = unsafe Int(i.pointee.operandBytes)
        // The width of the stack is that of the SS before the load.
        let mask = stackMask
        let top = rsp &+ UInt64(bytes)
        let selector = UInt16(truncatingIfNeeded: try peek(2))
        unsafe try loadSegment(Int(i.pointee.small), selector)
        rsp = mask == 0xffff ? rsp & ~0xffff | top & 0xffff : top & mask
    }

    func loadFarPointer(_ i: InstructionPointer) throws(Stop) {
        let bytes = unsafe Int(i.pointee.operandBytes)
        let address = unsafe try address(i, bytes + 2, write: false)
        let selector = try load(wrap(address &+ UInt64(bytes)), UInt16.self)
        let offset: UInt64
        switch bytes {
        case 2: offset = UInt64(try load(address, UInt16.self))
        case 4: offset = UInt64(try load(address, UInt32.self))
        default: offset = try load(address, UInt64.self)
        }
        unsafe try loadSegment(Int(i.pointee.small), selector)
        unsafe setRegister(number: Int(i.pointee.r1 >> 3), bytes: bytes, offset)
    }
}

extension Handlers {
    static let moveToSegment: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.moveToSegment(i) }
    }
    static let moveToStackSegment: Handler = {
        unsafe performLast($0, $1) { cpu, i throws(Stop) in
            unsafe try cpu.moveToSegment(i)
            cpu.shadowStackLoad()
        }
    }
    static let popSegment: Handler = { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.popSegment(i) } }
    static let popStackSegment: Handler = {
        unsafe performLast($0, $1) { cpu, i throws(Stop) in
            unsafe try cpu.popSegment(i)
            cpu.shadowStackLoad()
        }
    }
    static let loadFarPointer: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.loadFarPointer(i) }
    }
    static let moveFromSegment: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe cpu.setRegister(
                number: Int(i.pointee.r1 >> 3), bytes: Int(i.pointee.operandBytes),
                UInt64(cpu.state.segments[Int(i.pointee.small)].selector))
        }
    }
    static let storeSegment: Handler = {
        unsafe perform($0, $1) { cpu, i throws(Stop) in
            unsafe try cpu.store(cpu.address(i, 2, write: true), cpu.state.segments[Int(i.pointee.small)].selector)
        }
    }
}
