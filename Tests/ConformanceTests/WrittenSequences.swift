import EngineTesting

/// Sequences that chance would seldom bring together, and that an engine which
/// keeps registers and flags in places of its own is likely to get wrong. RSP
/// is in the middle of the stack pages, R8 of the data pages; the others are
/// anything. They end where they end, at the latest at the INT3 behind.
enum WrittenSequences {
    typealias Emit = @Sendable (inout Program) -> Void

    static let stack: [(name: String, emit: Emit)] = [
        ("push rsp; pop rax", { $0.raw(0x54, 0x58) }),
        ("push rax; pop rsp", { $0.raw(0x41, 0x50, 0x5c) }),
        ("push sp; pop ax", { $0.raw(0x66, 0x54, 0x66, 0x58) }),
        ("mov [rsp], rsp; pop rbx", { $0.raw(0x48, 0x89, 0x24, 0x24, 0x5b) }),
        ("mov [rsp+8], rax; mov rcx, [rsp+8]", { $0.raw(0x48, 0x89, 0x44, 0x24, 8, 0x48, 0x8b, 0x4c, 0x24, 8) }),
        ("xchg rsp, r8; push rax; xchg rsp, r8", { $0.raw(0x49, 0x87, 0xe0, 0x50, 0x49, 0x87, 0xe0) }),
        ("xchg [rsp], rsp", { $0.raw(0x48, 0x87, 0x24, 0x24) }),
        ("xchg rsp, rax; xchg rax, rsp", { $0.raw(0x48, 0x94, 0x48, 0x94) }),
        ("pop [rsp+8]; pop [rsp]", { $0.raw(0x8f, 0x44, 0x24, 8, 0x8f, 0x04, 0x24) }),
        ("push [rsp+8]; push [rsp]", { $0.raw(0xff, 0x74, 0x24, 8, 0xff, 0x34, 0x24) }),
        ("pop [rsp + rax·0]; add rsp, rsp is a fault", { $0.raw(0x8f, 0x04, 0x24, 0x48, 0x01, 0xe4, 0x50) }),
        ("mov rbp, rsp; enter 16, 0; leave", { $0.raw(0x48, 0x89, 0xe5, 0xc8, 16, 0, 0, 0x50, 0xc9) }),
        ("enter 8, 3; leave", { $0.raw(0x48, 0x89, 0xe5, 0xc8, 8, 0, 3, 0xc9) }),
        ("enter 0, 31", { $0.raw(0x48, 0x89, 0xe5, 0xc8, 0, 0, 31, 0xc9) }),
        ("lea rsp, [rsp+rsp] is a fault", { $0.raw(0x48, 0x8d, 0x64, 0x24, 0xf0, 0x54, 0x48, 0x8d, 0x24, 0xe4, 0x58) }),
        ("sub rsp, 24; mov [rsp+rax·0]…", { $0.raw(0x48, 0x83, 0xec, 24, 0x4c, 0x89, 0x04, 0x24, 0x5e, 0x5f, 0x5a) }),
        ("and rsp, −16; movaps [rsp], xmm2", { $0.raw(0x48, 0x83, 0xe4, 0xf0, 0x0f, 0x29, 0x14, 0x24, 0x58) }),
        ("inc rsp; push rax; dec rsp", { $0.raw(0x48, 0xff, 0xc4, 0x50, 0x48, 0xff, 0xcc) }),
        ("mov esp, esp; push rax", { $0.raw(0x89, 0xe4, 0x50, 0x58) }),
        ("pushfq; popfq with what it pushed", { $0.raw(0x9c, 0x58, 0x50, 0x9d, 0x9c) }),
        ("pushfq; xor of the arithmetic flags; popfq", { $0.raw(0x9c, 0x48, 0x81, 0x34, 0x24, 0xd5, 8, 0, 0, 0x9d) }),
        ("cmovz rsp, [r8]; push rax", { $0.raw(0x49, 0x0f, 0x44, 0x20, 0x50) }),
        ("bswap rsp twice", { $0.raw(0x48, 0x0f, 0xcc, 0x48, 0x0f, 0xcc, 0x50) }),
        ("xadd [rsp], rsp", { $0.raw(0x48, 0x0f, 0xc1, 0x24, 0x24) }),
        ("cmpxchg [rsp], rsp", { $0.raw(0x48, 0x8b, 0x04, 0x24, 0x48, 0x0f, 0xb1, 0x24, 0x24) }),
        ("mov spl, 0x80; push", { $0.raw(0x40, 0xb4, 0x80, 0x50) }),
    ]

    /// Vectors at one base register, where what one of them says of its alignment is not true for all.
    static let vectors: [(name: String, emit: Emit)] = [
        (
            "pcmpistri xmm1, [r8+1]; packsswb xmm0, [r8+17]",
            { $0.raw(0x66, 0x41, 0x0f, 0x3a, 0x63, 0x48, 1, 0, 0x66, 0x41, 0x0f, 0x63, 0x40, 17) }
        ),
        // AMD's CPUs let these two read from anywhere, whatever the manual says of 16 bytes.
        (
            "phsubsw xmm1, [r8+1]; packsswb xmm0, [r8+17]",
            { $0.raw(0x66, 0x41, 0x0f, 0x38, 0x07, 0x48, 1, 0x66, 0x41, 0x0f, 0x63, 0x40, 17) }
        ),
        (
            "sha1nexte xmm1, [r8+1]; packsswb xmm0, [r8+17]",
            { $0.raw(0x41, 0x0f, 0x38, 0xc8, 0x48, 1, 0x66, 0x41, 0x0f, 0x63, 0x40, 17) }
        ),
        (
            "pcmpestrm xmm1, [r8]; movaps xmm0, [r8+32]",
            { $0.raw(0x66, 0x41, 0x0f, 0x3a, 0x60, 0x08, 0, 0x41, 0x0f, 0x28, 0x40, 32) }
        ),
        (
            "and r8, −16; movaps [r8], xmm1; paddd xmm2, [r8+16]; paddd xmm3, [r8+8]",
            {
                $0.raw(0x49, 0x83, 0xe0, 0xf0, 0x41, 0x0f, 0x29, 0x08)
                $0.raw(0x66, 0x41, 0x0f, 0xfe, 0x50, 16, 0x66, 0x41, 0x0f, 0xfe, 0x58, 8)
            }
        ),
    ]

    /// r13, r14, r15 and their low parts, where a translator is likely to have moved them.
    static let registers: [(name: String, emit: Emit)] = [
        ("mul by r15", { $0.raw(0x4c, 0x89, 0xf8, 0x49, 0xf7, 0xe7, 0x49, 0xf7, 0xe5) }),
        ("div by r14", { $0.raw(0x31, 0xd2, 0x49, 0x83, 0xce, 1, 0x49, 0xf7, 0xf6) }),
        ("shift by cl of r13, r14, r15", { $0.raw(0x49, 0xd3, 0xe5, 0x49, 0xd3, 0xfe, 0x49, 0xd3, 0xcf) }),
        ("cmpxchg16b", { $0.raw(0x49, 0x83, 0xe0, 0xf0, 0x49, 0x0f, 0xc7, 0x08) }),
        ("xlat, then ah", { $0.raw(0x4c, 0x89, 0xc3, 0xd7, 0x00, 0xc4, 0x86, 0xe0) }),
        (
            "movzx and movsx of r13b…r15w",
            {
                $0.raw(0x4d, 0x0f, 0xb6, 0xed, 0x4d, 0x0f, 0xbe, 0xf6, 0x4d, 0x0f, 0xbf, 0xff, 0x4d, 0x63, 0xed)
            }
        ),
        ("setcc r13b…r15b", { $0.raw(0x41, 0x0f, 0x94, 0xc5, 0x41, 0x0f, 0x92, 0xc6, 0x41, 0x0f, 0x9f, 0xc7) }),
        ("32-bit results clear upper halves", { $0.raw(0x45, 0x01, 0xed, 0x45, 0x89, 0xf6, 0x44, 0x0f, 0x44, 0xfe) }),
        (
            "16-bit results keep upper parts",
            { $0.raw(0x66, 0x45, 0x01, 0xed, 0x66, 0x41, 0xff, 0xc6, 0x66, 0x44, 0x01, 0xfc) }
        ),
        (
            "xchg among r13, r14, r15, rsp",
            { $0.raw(0x4d, 0x87, 0xee, 0x4d, 0x87, 0xfe, 0x4c, 0x87, 0xfc, 0x4c, 0x87, 0xfc) }
        ),
        ("mulx r13, r14, r15", { $0.raw(0xc4, 0x42, 0x93, 0xf6, 0xf7) }),
        (
            "bextr, pext, shlx",
            {
                $0.raw(0xc4, 0x42, 0x80, 0xf7, 0xee, 0xc4, 0x42, 0x8a, 0xf5, 0xfd, 0xc4, 0x42, 0x81, 0xf7, 0xf5)
            }
        ),
        (
            "movq and pextrq with r14, r15",
            {
                $0.raw(
                    0x66, 0x49, 0x0f, 0x6e, 0xce, 0x66, 0x49, 0x0f, 0x7e, 0xd7, 0x66, 0x4d, 0x0f, 0x3a, 0x16, 0xd5, 1)
            }
        ),
        ("crc32 r13, r14", { $0.raw(0xf2, 0x4d, 0x0f, 0x38, 0xf1, 0xee) }),
        ("loop with ecx", { $0.raw(0xb9, 9, 0, 0, 0, 0x49, 0x01, 0xcd, 0xe2, 0xfb, 0x67, 0xe3, 0) }),
    ]

    /// Flags that must outlive what lies between their maker and their reader.
    static let flags: [(name: String, emit: Emit)] = [
        (
            "adc chain over memory",
            { p in
                p.raw(0x48, 0x01, 0xc8)
                for n in Int32(0)..<8 { p.op(0x11, reg: UInt8(n), Memory(.r8, n * 8)) }
                p.raw(0x0f, 0x92, 0xc0)
            }
        ),
        (
            "sbb chain from memory",
            { p in
                p.raw(0x48, 0x29, 0xc8)
                for n in Int32(0)..<6 { p.op(0x1b, reg: UInt8(n + 9), Memory(.r8, n * 8)) }
                p.raw(0x0f, 0x93, 0xc0)
            }
        ),
        (
            "loads between cmp and jcc",
            { p in
                p.raw(0x48, 0x39, 0xc8)
                for n in Int32(0)..<10 { p.load(.r9, Memory(.r8, n * 8 - 32)) }
                p.jump(.l, "less")
                p.raw(0xb0, 1, 0xcc)
                p.label("less")
                p.raw(0xb0, 2, 0x0f, 0x97, 0xc1)
            }
        ),
        (
            "stores, pushes and pops between cmp and setcc",
            { p in
                p.raw(0x48, 0x39, 0xc8)
                for n in Int32(0)..<4 { p.store(.r9, Memory(.r8, n * 8)) }
                p.raw(0x50, 0x51, 0x5b, 0x5e, 0x0f, 0x9c, 0xc0, 0x0f, 0x90, 0xc2, 0x0f, 0x9a, 0xc1)
            }
        ),
        (
            "carry into and out of a call",
            { p in
                p.raw(0x48, 0x01, 0xc8)
                p.call("function")
                p.raw(0x11, 0xd2, 0x0f, 0x90, 0xc0, 0xcc)
                p.label("function")
                p.raw(0x4d, 0x11, 0xc9, 0xc3)
            }
        ),
        (
            "flags across an indirect jump",
            { p in
                p.move(.r9, addressOf: "there")
                p.raw(0x48, 0x29, 0xc8)
                p.jump(.r9)
                p.raw(0xcc, 0xcc)
                p.label("there")
                p.raw(0x0f, 0x9f, 0xc0, 0x0f, 0x92, 0xc1, 0x48, 0x83, 0xd2, 0)
            }
        ),
        (
            "inc and dec keep carry",
            { $0.raw(0x48, 0x01, 0xc8, 0xff, 0xc2, 0x49, 0xff, 0x00, 0xff, 0xcb, 0x48, 0x83, 0xd6, 0) }
        ),
        ("lahf, sahf", { $0.raw(0x48, 0x01, 0xc8, 0x9f, 0x48, 0x85, 0xc9, 0x9e, 0x0f, 0x92, 0xc1, 0x0f, 0x98, 0xc2) }),
        (
            "stc, cmc, clc with adc",
            { $0.raw(0xf9, 0x48, 0x11, 0xc8, 0xf5, 0x48, 0x19, 0xd1, 0xf8, 0x49, 0x11, 0x00, 0xf5, 0x9c, 0x58) }
        ),
        (
            "rcl and rcr by one through memory",
            { $0.raw(0x48, 0x01, 0xc8, 0x49, 0xd1, 0x10, 0x49, 0xd1, 0x58, 8, 0x48, 0xd1, 0xd2) }
        ),
        (
            "shift by a count that may be 0 keeps flags",
            { p in
                p.raw(0x83, 0xe1, 1, 0x48, 0x39, 0xd0, 0xd3, 0xe3, 0x0f, 0x9c, 0xc0, 0x0f, 0x94, 0xc2)
            }
        ),
        (
            "adcx and adox side by side",
            {
                $0.raw(
                    0x48, 0x01, 0xc8, 0x66, 0x48, 0x0f, 0x38, 0xf6, 0xd3, 0xf3, 0x48, 0x0f, 0x38, 0xf6, 0xf7, 0x11, 0xc0
                )
            }
        ),
        (
            "jcc chain",
            { p in
                p.raw(0x48, 0x39, 0xc8)
                for condition in Condition.allCases {
                    p.jump(condition, "c\(condition)")
                    p.raw(0x83, 0xf2, condition.rawValue + 1)
                    p.raw(0x48, 0x39, 0xc8)
                    p.label("c\(condition)")
                }
                p.raw(0x0f, 0x94, 0xc1)
            }
        ),
        (
            "cmovcc with a memory operand, either way",
            { p in
                p.raw(0x48, 0x39, 0xc8)
                for condition in Condition.allCases { p.op(0x0f, 0x40 | condition.rawValue, reg: 9, Memory(.r8, 8)) }
                p.raw(0x0f, 0x92, 0xc1)
            }
        ),
        ("comisd and jp", { $0.raw(0x66, 0x0f, 0x2f, 0xca, 0x7a, 2, 0xb0, 1, 0x0f, 0x97, 0xc1) }),
        (
            "repe cmpsb, its flags read far behind",
            { p in
                p.raw(0x4c, 0x89, 0xc6, 0x4c, 0x89, 0xc7, 0xb9, 8, 0, 0, 0, 0xfc, 0xf3, 0xa6)
                p.load(.rax, Memory(.r8))
                p.raw(0x0f, 0x97, 0xc3)
            }
        ),
        (
            "carry over a page's end",
            { p in
                p.raw(0x48, 0x01, 0xc8)
                p.jump("far")
                p.pad(to: p.here + 60)
                p.label("far")
                p.raw(0x11, 0xc9, 0x11, 0xd2)
            }
        ),
    ]

    static let control: [(name: String, emit: Emit)] = [
        (
            "call [rsp+8], whose address is pushed",
            { p in
                p.move(.rax, addressOf: "function")
                p.raw(0x50, 0x50, 0xff, 0x54, 0x24, 8, 0x59, 0xcc)
                p.label("function")
                p.raw(0x48, 0xff, 0xc3, 0xc3)
            }
        ),
        ("call rsp is no code", { $0.raw(0xff, 0xd4) }),
        (
            "jmp [rsp]",
            { p in
                p.move(.rax, addressOf: "there")
                p.raw(0x50, 0xff, 0x24, 0x24, 0xcc, 0xcc)
                p.label("there")
                p.raw(0x58)
            }
        ),
        (
            "ret n, and ret to what was pushed",
            { p in
                p.move(.rax, addressOf: "there")
                p.raw(0x53, 0x50, 0xc2, 8, 0, 0xcc)
                p.label("there")
                p.raw(0x54, 0x5b)
            }
        ),
        (
            "a return to elsewhere than the call",
            { p in
                p.call("function")
                p.raw(0xb0, 1, 0xb1, 2, 0xcc)
                p.label("function")
                p.raw(0x48, 0x83, 0x04, 0x24, 2, 0xc3)  // add qword [rsp], 2
            }
        ),
        (
            "call, and the address is popped",
            { p in
                p.call("next")
                p.label("next")
                p.raw(0x58, 0x50, 0x5b)
            }
        ),
        (
            "calls in calls",
            { p in
                p.call("a")
                p.raw(0xcc)
                p.label("a")
                p.call("b")
                p.raw(0x48, 0x01, 0xd8, 0xc3)
                p.label("b")
                p.call("c")
                p.raw(0x48, 0x29, 0xc8, 0xc3)
                p.label("c")
                p.raw(0x48, 0x0f, 0xaf, 0xc2, 0xc3)
            }
        ),
        (
            "into the middle of an instruction",
            { p in
                // xor ecx, ecx; jmp to the FF of mov eax, 0x9090c1ff; inc ecx; cmp ecx, 3; jb to the mov
                p.raw(0x31, 0xc9, 0xeb, 1, 0xb8, 0xff, 0xc1, 0x90, 0x90, 0xff, 0xc1, 0x83, 0xf9, 3, 0x72, 0xf4)
            }
        ),
        ("one byte on: the same bytes read twice", { $0.raw(0xeb, 0xff, 0xc0, 0x90, 0xfe, 0xc0) }),
        (
            "rip-relative load, store, lea, cmp",
            { p in
                p.raw(
                    0x48, 0x8d, 0x1d, 5, 0, 0, 0, 0x8b, 0x05, 0xfa, 0xff, 0xff, 0xff, 0x3b, 0x05, 0, 0, 0, 0, 0x89,
                    0x05, 0, 0, 0, 0)
            }
        ),
        (
            "push imm and call through a table",
            { p in
                p.move(.r9, addressOf: "function")
                p.store(.r9, Memory(.r8, 16))
                p.raw(0xb9, 2, 0, 0, 0, 0x41, 0xff, 0x14, 0xc8, 0xcc)  // mov ecx, 2; call [r8 + rcx·8]
                p.label("function")
                p.raw(0x68, 0, 0, 0, 0x80, 0x6a, 0xff, 0x58, 0x5b, 0xc3)
            }
        ),
    ]

    static let strings: [(name: String, emit: Emit)] = {
        var list: [(name: String, emit: Emit)] = []
        for (name, opcode): (String, UInt8) in [
            ("movs", 0xa4), ("stos", 0xaa), ("lods", 0xac), ("scas", 0xae), ("cmps", 0xa6),
        ] {
            for size in [1, 2, 4, 8] {
                for prefix: UInt8? in [nil, 0xf3, 0xf2] where prefix != 0xf2 || opcode == 0xae || opcode == 0xa6 {
                    for isDown in [false, true] {
                        list.append(
                            (
                                "\(prefix.map { String($0, radix: 16) } ?? "") \(name) \(size), down \(isDown)",
                                { p in
                                    p.raw(0x4c, 0x89, 0xc6, 0x49, 0x8d, 0x78, 0x33)  // mov rsi, r8; lea rdi, [r8+0x33]
                                    p.raw(0x83, 0xe1, 0x1f, 0x48, 0x39, 0xd3)  // and ecx, 31; cmp rbx, rdx
                                    p.raw(isDown ? 0xfd : 0xfc)
                                    if let prefix { p.raw(prefix) }
                                    if size == 2 { p.raw(0x66) }
                                    if size == 8 { p.raw(0x48) }
                                    p.raw(opcode | (size == 1 ? 0 : 1))
                                    p.raw(0x0f, 0x9c, 0xc2, 0x0f, 0x92, 0xc3)  // setl dl; setc bl
                                }
                            ))
                    }
                }
            }
        }
        return list
    }()

    static let long: [(name: String, emit: Emit)] = [
        (
            "eighty instructions in a row",
            { p in
                for n in UInt8(0)..<80 { p.raw(0x49, 0x01, 0xc0 | (n % 3) << 3 | 1) }
            }
        ),
        ("memory all the way", { p in for n in Int32(0)..<50 { p.op(0x31, reg: UInt8(n % 4), Memory(.r8, n * 4)) } }),
    ]
}
