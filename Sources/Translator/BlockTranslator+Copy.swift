internal import CZydis
internal import Interpreter

//S:480 The same bytes, other registers
//
// An instruction that names only registers which live where the Guest has
// them, and no memory, is copied byte by byte. Any other is put together
// again from the parts that Zydis took it apart into (SDM 2A, 2.1 and 2.3):
// prefixes, REX or VEX, opcode, ModRM, SIB, displacement, constant. Only
// register numbers and the address change.

extension BlockTranslator {
    /// Writes instruction `index` with its named registers replaced by `hosts` and its operand by `place`.
    func emitEncoded(_ index: Int, hosts: InlineArray<4, Int>, place: HostPlace?) {
        let d = unsafe instruction(index).pointee
        let z = unsafe zydisInstruction(index)
        let source = unsafe codeBytes(d.offset)
        let raw = unsafe z.pointee.raw
        var reg = Int(raw.modrm.reg), rm = Int(raw.modrm.rm), vvvv = 0
        var opcode = unsafe z.pointee.opcode
        var opcodeRegister = 0
        let isVEX = unsafe z.pointee.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX

        var at = 0
        var rex: UInt8 = 0
        var hasREX = false
        var map: UInt8 = 0, wide = false, length256: UInt8 = 0, pp: UInt8 = 0
        if isVEX {
            at = Int(raw.vex.offset)
            let first = unsafe source[at + 1]
            reg |= first & 0x80 == 0 ? 8 : 0
            var last = first
            if unsafe source[at] == 0xc5 {
                map = 1
            } else {
                rm |= first & 0x20 == 0 ? 8 : 0
                map = first & 31
                last = unsafe source[at + 2]
                wide = last & 0x80 != 0
            }
            vvvv = Int(last >> 3 & 15 ^ 15)
            length256 = last & 4
            pp = last & 3
        } else {
            prefixes: while true {
                switch unsafe source[at] {
                case 0x66, 0xf2, 0xf3, 0xf0:
                    unsafe e.byte(source[at])
                    rex = 0
                case 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x67: rex = 0
                // Counts only right before the opcode (SDM 2A, 2.2.1).
                case 0x40...0x4f: rex = unsafe source[at]
                default: break prefixes
                }
                at += 1
            }
            hasREX = rex != 0
            reg |= rex & 4 != 0 ? 8 : 0
            rm |= rex & 1 != 0 ? 8 : 0
            opcodeRegister = Int(opcode & 7) | (rex & 1 != 0 ? 8 : 0)
        }
        var usesOpcode = false
        for n in 0..<Int(d.namedCount) {
            switch d.named[n].place {
            case .reg: reg = hosts[n]
            case .rm: rm = hosts[n]
            case .vvvv: vvvv = hosts[n]
            case .opcode:
                opcodeRegister = hosts[n]
                usesOpcode = true
            }
        }
        let hasModRM = unsafe z.pointee.attributes & ZYDIS_ATTRIB_HAS_MODRM != 0
        let low = place?.base ?? (usesOpcode ? opcodeRegister : rm)
        let x = (place?.index ?? -1) > 7, b = low > 7
        if isVEX {
            e.bytes(
                0xc4, (reg > 7 ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | map,
                (wide ? 0x80 : 0) | UInt8(vvvv ^ 15) << 3 | length256 | pp, opcode)
        } else {
            if usesOpcode { opcode = opcode & 0xf8 | UInt8(opcodeRegister & 7) }
            let bits = rex & 8 | (hasModRM && reg > 7 ? 4 : 0) | (x ? 2 : 0) | ((hasModRM || usesOpcode) && b ? 1 : 0)
            if hasREX || bits != 0 { e.byte(0x40 | bits) }
            switch unsafe z.pointee.opcode_map {
            case ZYDIS_OPCODE_MAP_0F: e.byte(0x0f)
            case ZYDIS_OPCODE_MAP_0F38: e.bytes(0x0f, 0x38)
            case ZYDIS_OPCODE_MAP_0F3A: e.bytes(0x0f, 0x3a)
            default: break
            }
            e.byte(opcode)
        }
        if let place {
            e.memory(reg, base: place.base, index: place.index, scale: place.scale, place.displacement)
        } else if hasModRM {
            e.byte(0xc0 | UInt8(reg & 7) << 3 | UInt8(rm & 7))
        }
        if raw.imm.0.size != 0 {
            let start = Int(raw.imm.0.offset)
            unsafe e.copy(source + start, Int(d.length) - start)
        }
    }

    /// Copies it as it is.
    func emitVerbatim(_ index: Int) {
        let d = unsafe instruction(index).pointee
        unsafe e.copy(codeBytes(d.offset), Int(d.length))
    }

    func emitPlain(_ index: Int) {
        let d = unsafe instruction(index).pointee
        var hosts = InlineArray<4, Int>(repeating: 0)
        var moved = false
        var first = -1, second = -1
        for n in 0..<Int(d.namedCount) {
            let number = Int(d.named[n].number)
            hosts[n] = host(number)
            if number == 4 { moved = true }
            guard number > 12 else { continue }
            moved = true
            if first < 0 || first == number {
                first = number
                hosts[n] = Host.r13
            } else if second < 0 || second == number {
                second = number
                hosts[n] = Host.r14
            } else {
                emitInterpreted(index)
                return
            }
        }
        if !moved {
            fetchFlags(index)
            emitVerbatim(index)
            noteFlags(index)
            return
        }
        if d.hasHighByte {
            emitInterpreted(index)
            return
        }
        loadNamed(d, hosts)
        fetchFlags(index)
        emitEncoded(index, hosts: hosts, place: nil)
        noteFlags(index)
        storeNamed(d, hosts)
    }

    func emitMemory(_ index: Int) {
        let d = unsafe instruction(index).pointee
        var hosts = InlineArray<4, Int>(repeating: 0)
        var usesState = false
        for n in 0..<Int(d.namedCount) {
            let number = Int(d.named[n].number)
            hosts[n] = host(number)
            if number > 12 {
                hosts[n] = Host.r14
                usesState = true
            }
        }
        let place = emitAccess(index, d.memory, writes: d.memory.writes, freeR14: usesState)
        loadNamed(d, hosts)
        fetchFlags(index)
        emitEncoded(index, hosts: hosts, place: place)
        noteFlags(index)
        storeNamed(d, hosts)
    }

    func emitLEA(_ index: Int) {
        let d = unsafe instruction(index).pointee
        let m = d.memory
        let number = Int(d.named[0].number)
        var hosts = InlineArray<4, Int>(repeating: 0)
        hosts[0] = host(number)
        let base = m.base < 0 ? -1 : host(m.base), index_ = m.index < 0 ? -1 : host(m.index)
        let isResident = !m.isRIPRelative && (m.base < 0 || base >= 0) && (m.index < 0 || index_ >= 0)
        if hosts[0] >= 0 && isResident {
            emitEncoded(
                index, hosts: hosts,
                place: HostPlace(
                    base: base, index: index_, scale: m.scale, displacement: Int32(truncatingIfNeeded: m.displacement)))
            return
        }
        if d.named[0].bytes < 4 {
            emitInterpreted(index)
            return
        }
        emitAddress(m)
        if hosts[0] < 0 {
            if d.named[0].bytes == 4 { e.move(Host.r14, Host.r14, wide: false) }
            e.store(Host.r14, Host.rsp, Int32(number * 8))
        } else {
            e.move(hosts[0], Host.r14, wide: d.named[0].bytes == 8)
        }
    }

    private func loadNamed(_ d: Decoded, _ hosts: InlineArray<4, Int>) {
        for n in 0..<Int(d.namedCount) where d.named[n].number > 12 && d.named[n].reads {
            e.load(hosts[n], Host.rsp, Int32(d.named[n].number) * 8)
        }
    }

    private func storeNamed(_ d: Decoded, _ hosts: InlineArray<4, Int>) {
        for n in 0..<Int(d.namedCount) where d.named[n].number > 12 && d.named[n].writes {
            e.store(hosts[n], Host.rsp, Int32(d.named[n].number) * 8)
        }
    }
}
//:
