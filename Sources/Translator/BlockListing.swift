internal import CZydis
internal import Interpreter
internal import VirtualCPU
internal import X86

/// What a block was made from and into, for one who watches.
@safe struct BlockListing {
    struct Line {
        /// From the first line's first byte.
        var offset: Int
        var length: Int
        var kind: Kind
        /// Flags that must be right before it and after it.
        var liveBefore: UInt64
        var liveAfter: UInt64
        /// Flags that it surely sets, and those that then are anybody's guess.
        var defines: UInt64
        var undefines: UInt64
        /// To run it twice from the same state is to run it once.
        var isRepeatable: Bool
    }

    var block: Int32
    var physical: UInt64
    var lines: [Line]
    /// The Guest's code.
    var bytes: [UInt8]
    /// The Host's, by its executable address and in the writable view.
    var host: Range<UInt>
    var writable: UnsafeMutableRawBufferPointer
    /// A conditional jump leads to the instruction behind it: taken or not cannot be told by RIP.
    var isAmbiguous: Bool
}

/// Who is shown each block, and asks for blocks to be run one by one.
protocol BlockWatcher: AnyObject {
    func translated(_ listing: BlockListing)
    /// False: `run` comes back with RIP at this block.
    func mayRun(_ block: Int32) -> Bool
}

extension BlockTranslator {
    /// Of the block that was translated last.
    func listing(of block: Int32) -> BlockListing {
        let first = unsafe Int(instruction(0).pointee.offset)
        var lines: [BlockListing.Line] = []
        var isAmbiguous = false
        for index in 0..<count {
            let d = unsafe instruction(index).pointee
            let undefined = undefinedFlags(index)
            lines.append(
                BlockListing.Line(
                    offset: Int(d.offset) - first, length: Int(d.length), kind: d.kind,
                    liveBefore: UInt64(d.liveBefore), liveAfter: UInt64(d.liveAfter),
                    defines: UInt64(d.writes) & ~undefined, undefines: undefined, isRepeatable: isRepeatable(index)))
            if d.kind == .jumpIf && d.target == Int64(d.offset) + Int64(d.length) { isAmbiguous = true }
        }
        let end = lines[lines.count - 1].offset + lines[lines.count - 1].length
        let entry = unsafe min(
            store.blocks[Int(block)].entry, store.blocks[Int(block)].linked, store.blocks[Int(block)].direct)
        let bytes = unsafe UnsafeBufferPointer(start: codeBytes(UInt16(first)), count: end)
        let writable = unsafe UnsafeMutableRawPointer(store.writable(entry).pointer)
        let size = unsafe UnsafeMutableRawPointer(e.at.pointer) - writable
        return unsafe BlockListing(
            block: block, physical: store.blocks[Int(block)].key.physical, lines: lines, bytes: Array(bytes),
            host: entry..<entry + UInt(size), writable: UnsafeMutableRawBufferPointer(start: writable, count: size),
            isAmbiguous: isAmbiguous)
    }

    /// What the manual leaves open of the flags, whatever the operands (SDM 2, under each instruction).
    private func undefinedFlags(_ index: Int) -> UInt64 {
        let z = unsafe zydisInstruction(index)
        guard let flags = unsafe z.pointee.cpu_flags else { return 0 }
        var undefined = unsafe UInt64(flags.pointee.undefined)
        let isByOne = unsafe z.pointee.opcode == 0xd0 || z.pointee.opcode == 0xd1
        switch unsafe z.pointee.meta.category {
        case ZYDIS_CATEGORY_SHIFT:
            undefined |= RFlags.auxiliary
            if !isByOne { undefined |= RFlags.overflow }
            // A byte may be shifted by more than there is.
            if unsafe z.pointee.operand_width < 32 || z.pointee.opcode & 0xfd == 0xd0 || z.pointee.opcode == 0xc0 {
                undefined |= RFlags.carry
            }
        case ZYDIS_CATEGORY_ROTATE: if !isByOne { undefined |= RFlags.overflow }
        default: break
        }
        return undefined & UInt64(Flags.all)
    }

    /// What the Translator does by itself is; of what it leaves to the
    /// Interpreter, that which reads and writes nothing but registers that
    /// programs have, and memory. RDTSC is not, nor is OUT.
    private func isRepeatable(_ index: Int) -> Bool {
        switch unsafe instruction(index).pointee.kind {
        case .interpretLast: return false
        case .interpret: break
        default: return true
        }
        let z = unsafe zydisInstruction(index), operands = unsafe zydisOperands(index)
        switch unsafe z.pointee.meta.category {
        case ZYDIS_CATEGORY_X87_ALU, ZYDIS_CATEGORY_MMX, ZYDIS_CATEGORY_STRINGOP, ZYDIS_CATEGORY_COND_BR,
            ZYDIS_CATEGORY_GATHER, ZYDIS_CATEGORY_AVX2GATHER:
            break
        default: if unsafe !Classifier.copies(z.pointee.meta.category) { return false }
        }
        for number in unsafe 0..<Int(z.pointee.operand_count)
        where unsafe operands[number].type == ZYDIS_OPERAND_TYPE_REGISTER {
            switch unsafe ZydisRegisterGetClass(operands[number].reg.value) {
            case ZYDIS_REGCLASS_SEGMENT, ZYDIS_REGCLASS_CONTROL, ZYDIS_REGCLASS_DEBUG, ZYDIS_REGCLASS_TEST: return false
            default: break
            }
        }
        return true
    }
}
