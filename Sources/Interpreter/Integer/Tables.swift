// swift-format-ignore-file: rows of a table.
internal import X86

// The tables that name every form at every width, so that the compiler makes
// a function of each. Rows are: 8, 16, 32, 64 bits.

/// Handlers of one form, by operand width.
@safe struct Widths {
    let handlers: InlineArray<4, Handler>
    init(_ h8: @escaping Handler, _ h16: @escaping Handler, _ h32: @escaping Handler, _ h64: @escaping Handler) {
        unsafe handlers = [h8, h16, h32, h64]
    }
    /// `bytes`: 1, 2, 4 or 8.
    subscript(bytes: Int) -> Handler { unsafe handlers[bytes.trailingZeroBitCount] }
}

/// Handlers of a two-operand instruction, by form: register and register,
/// register and memory, memory and register, and those with a constant.
@safe struct BinaryForms {
    let rr, rm, mr, ri, mi: Widths
}

extension BinaryForms {
    static let add = unsafe BinaryForms(
        rr: Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Add.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Add.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Add.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Add.self, UInt64.self, i) } }),
        rm: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Add.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Add.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Add.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Add.self, UInt64.self, i) } }),
        mr: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Add.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Add.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Add.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Add.self, UInt64.self, i) } }),
        ri: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Add.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Add.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Add.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Add.self, UInt64.self, i) } }),
        mi: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Add.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Add.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Add.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Add.self, UInt64.self, i) } }))

    static let adc = unsafe BinaryForms(
        rr: Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(AddWithCarry.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(AddWithCarry.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(AddWithCarry.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(AddWithCarry.self, UInt64.self, i) } }),
        rm: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(AddWithCarry.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(AddWithCarry.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(AddWithCarry.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(AddWithCarry.self, UInt64.self, i) } }),
        mr: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(AddWithCarry.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(AddWithCarry.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(AddWithCarry.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(AddWithCarry.self, UInt64.self, i) } }),
        ri: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(AddWithCarry.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(AddWithCarry.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(AddWithCarry.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(AddWithCarry.self, UInt64.self, i) } }),
        mi: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(AddWithCarry.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(AddWithCarry.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(AddWithCarry.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(AddWithCarry.self, UInt64.self, i) } }))

    static let sub = unsafe BinaryForms(
        rr: Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Subtract.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Subtract.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Subtract.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Subtract.self, UInt64.self, i) } }),
        rm: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Subtract.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Subtract.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Subtract.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Subtract.self, UInt64.self, i) } }),
        mr: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Subtract.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Subtract.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Subtract.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Subtract.self, UInt64.self, i) } }),
        ri: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Subtract.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Subtract.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Subtract.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Subtract.self, UInt64.self, i) } }),
        mi: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Subtract.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Subtract.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Subtract.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Subtract.self, UInt64.self, i) } }))

    static let sbb = unsafe BinaryForms(
        rr: Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(SubtractWithBorrow.self, UInt8.self, i) } },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(SubtractWithBorrow.self, UInt16.self, i) }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(SubtractWithBorrow.self, UInt32.self, i) }
            },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(SubtractWithBorrow.self, UInt64.self, i) } }
        ),
        rm: unsafe Widths(
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.rm(SubtractWithBorrow.self, UInt8.self, i)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.rm(SubtractWithBorrow.self, UInt16.self, i)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.rm(SubtractWithBorrow.self, UInt32.self, i)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.rm(SubtractWithBorrow.self, UInt64.self, i)
                }
            }),
        mr: unsafe Widths(
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.mr(SubtractWithBorrow.self, UInt8.self, i)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.mr(SubtractWithBorrow.self, UInt16.self, i)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.mr(SubtractWithBorrow.self, UInt32.self, i)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.mr(SubtractWithBorrow.self, UInt64.self, i)
                }
            }),
        ri: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(SubtractWithBorrow.self, UInt8.self, i) } },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(SubtractWithBorrow.self, UInt16.self, i) }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(SubtractWithBorrow.self, UInt32.self, i) }
            },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(SubtractWithBorrow.self, UInt64.self, i) } }
        ),
        mi: unsafe Widths(
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.mi(SubtractWithBorrow.self, UInt8.self, i)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.mi(SubtractWithBorrow.self, UInt16.self, i)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.mi(SubtractWithBorrow.self, UInt32.self, i)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.mi(SubtractWithBorrow.self, UInt64.self, i)
                }
            }))

    static let cmp = unsafe BinaryForms(
        rr: Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Compare.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Compare.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Compare.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Compare.self, UInt64.self, i) } }),
        rm: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Compare.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Compare.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Compare.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Compare.self, UInt64.self, i) } }),
        mr: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Compare.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Compare.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Compare.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Compare.self, UInt64.self, i) } }),
        ri: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Compare.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Compare.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Compare.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Compare.self, UInt64.self, i) } }),
        mi: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Compare.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Compare.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Compare.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Compare.self, UInt64.self, i) } }))

    static let and = unsafe BinaryForms(
        rr: Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(And.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(And.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(And.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(And.self, UInt64.self, i) } }),
        rm: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(And.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(And.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(And.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(And.self, UInt64.self, i) } }),
        mr: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(And.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(And.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(And.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(And.self, UInt64.self, i) } }),
        ri: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(And.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(And.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(And.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(And.self, UInt64.self, i) } }),
        mi: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(And.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(And.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(And.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(And.self, UInt64.self, i) } }))

    static let test = unsafe BinaryForms(
        rr: Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Test.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Test.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Test.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Test.self, UInt64.self, i) } }),
        rm: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Test.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Test.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Test.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Test.self, UInt64.self, i) } }),
        mr: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Test.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Test.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Test.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Test.self, UInt64.self, i) } }),
        ri: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Test.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Test.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Test.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Test.self, UInt64.self, i) } }),
        mi: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Test.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Test.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Test.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Test.self, UInt64.self, i) } }))

    static let or = unsafe BinaryForms(
        rr: Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Or.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Or.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Or.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(Or.self, UInt64.self, i) } }),
        rm: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Or.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Or.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Or.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(Or.self, UInt64.self, i) } }),
        mr: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Or.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Or.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Or.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(Or.self, UInt64.self, i) } }),
        ri: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Or.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Or.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Or.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(Or.self, UInt64.self, i) } }),
        mi: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Or.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Or.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Or.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(Or.self, UInt64.self, i) } }))

    static let xor = unsafe BinaryForms(
        rr: Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(ExclusiveOr.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(ExclusiveOr.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(ExclusiveOr.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.rr(ExclusiveOr.self, UInt64.self, i) } }),
        rm: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(ExclusiveOr.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(ExclusiveOr.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(ExclusiveOr.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.rm(ExclusiveOr.self, UInt64.self, i) } }),
        mr: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(ExclusiveOr.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(ExclusiveOr.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(ExclusiveOr.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mr(ExclusiveOr.self, UInt64.self, i) } }),
        ri: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(ExclusiveOr.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(ExclusiveOr.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(ExclusiveOr.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.ri(ExclusiveOr.self, UInt64.self, i) } }),
        mi: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(ExclusiveOr.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(ExclusiveOr.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(ExclusiveOr.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.mi(ExclusiveOr.self, UInt64.self, i) } }))

}

/// Handlers of a one-operand instruction.
@safe struct UnaryForms {
    let r, m: Widths

    static let inc = unsafe UnaryForms(
        r: Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.unaryR(Increment.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.unaryR(Increment.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.unaryR(Increment.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.unaryR(Increment.self, UInt64.self, i) } }),
        m: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.unaryM(Increment.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.unaryM(Increment.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.unaryM(Increment.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.unaryM(Increment.self, UInt64.self, i) } })
    )

    static let dec = unsafe UnaryForms(
        r: Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.unaryR(Decrement.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.unaryR(Decrement.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.unaryR(Decrement.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.unaryR(Decrement.self, UInt64.self, i) } }),
        m: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.unaryM(Decrement.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.unaryM(Decrement.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.unaryM(Decrement.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.unaryM(Decrement.self, UInt64.self, i) } })
    )

    static let neg = unsafe UnaryForms(
        r: Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.unaryR(Negate.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.unaryR(Negate.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.unaryR(Negate.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.unaryR(Negate.self, UInt64.self, i) } }),
        m: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.unaryM(Negate.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.unaryM(Negate.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.unaryM(Negate.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.unaryM(Negate.self, UInt64.self, i) } }))

    static let not = unsafe UnaryForms(
        r: Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.unaryR(Not.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.unaryR(Not.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.unaryR(Not.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe cpu.unaryR(Not.self, UInt64.self, i) } }),
        m: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.unaryM(Not.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.unaryM(Not.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.unaryM(Not.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.unaryM(Not.self, UInt64.self, i) } }))

}

/// Handlers of a shift or rotate: of a register by a constant, by CL; of memory.
@safe struct ShiftForms {
    let ri, rc, m: Widths

    static let shl = unsafe ShiftForms(
        ri: Widths(
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftLeft.self, UInt8.self, i, byCL: false)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftLeft.self, UInt16.self, i, byCL: false)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftLeft.self, UInt32.self, i, byCL: false)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftLeft.self, UInt64.self, i, byCL: false)
                }
            }),
        rc: unsafe Widths(
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftLeft.self, UInt8.self, i, byCL: true)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftLeft.self, UInt16.self, i, byCL: true)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftLeft.self, UInt32.self, i, byCL: true)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftLeft.self, UInt64.self, i, byCL: true)
                }
            }),
        m: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.shiftM(ShiftLeft.self, UInt8.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.shiftM(ShiftLeft.self, UInt16.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.shiftM(ShiftLeft.self, UInt32.self, i) } },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.shiftM(ShiftLeft.self, UInt64.self, i) } })
    )

    static let shr = unsafe ShiftForms(
        ri: Widths(
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftRight.self, UInt8.self, i, byCL: false)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftRight.self, UInt16.self, i, byCL: false)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftRight.self, UInt32.self, i, byCL: false)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftRight.self, UInt64.self, i, byCL: false)
                }
            }),
        rc: unsafe Widths(
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftRight.self, UInt8.self, i, byCL: true)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftRight.self, UInt16.self, i, byCL: true)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftRight.self, UInt32.self, i, byCL: true)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftRight.self, UInt64.self, i, byCL: true)
                }
            }),
        m: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.shiftM(ShiftRight.self, UInt8.self, i) } },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.shiftM(ShiftRight.self, UInt16.self, i) }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.shiftM(ShiftRight.self, UInt32.self, i) }
            },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.shiftM(ShiftRight.self, UInt64.self, i) } }
        ))

    static let sar = unsafe ShiftForms(
        ri: Widths(
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftArithmetic.self, UInt8.self, i, byCL: false)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftArithmetic.self, UInt16.self, i, byCL: false)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftArithmetic.self, UInt32.self, i, byCL: false)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftArithmetic.self, UInt64.self, i, byCL: false)
                }
            }),
        rc: unsafe Widths(
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftArithmetic.self, UInt8.self, i, byCL: true)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftArithmetic.self, UInt16.self, i, byCL: true)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftArithmetic.self, UInt32.self, i, byCL: true)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(ShiftArithmetic.self, UInt64.self, i, byCL: true)
                }
            }),
        m: unsafe Widths(
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.shiftM(ShiftArithmetic.self, UInt8.self, i)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.shiftM(ShiftArithmetic.self, UInt16.self, i)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.shiftM(ShiftArithmetic.self, UInt32.self, i)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe try cpu.shiftM(ShiftArithmetic.self, UInt64.self, i)
                }
            }))

    static let rol = unsafe ShiftForms(
        ri: Widths(
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(RotateLeft.self, UInt8.self, i, byCL: false)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(RotateLeft.self, UInt16.self, i, byCL: false)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(RotateLeft.self, UInt32.self, i, byCL: false)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(RotateLeft.self, UInt64.self, i, byCL: false)
                }
            }),
        rc: unsafe Widths(
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(RotateLeft.self, UInt8.self, i, byCL: true)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(RotateLeft.self, UInt16.self, i, byCL: true)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(RotateLeft.self, UInt32.self, i, byCL: true)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(RotateLeft.self, UInt64.self, i, byCL: true)
                }
            }),
        m: unsafe Widths(
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.shiftM(RotateLeft.self, UInt8.self, i) } },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.shiftM(RotateLeft.self, UInt16.self, i) }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.shiftM(RotateLeft.self, UInt32.self, i) }
            },
            { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.shiftM(RotateLeft.self, UInt64.self, i) } }
        ))

    static let ror = unsafe ShiftForms(
        ri: Widths(
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(RotateRight.self, UInt8.self, i, byCL: false)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(RotateRight.self, UInt16.self, i, byCL: false)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(RotateRight.self, UInt32.self, i, byCL: false)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(RotateRight.self, UInt64.self, i, byCL: false)
                }
            }),
        rc: unsafe Widths(
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(RotateRight.self, UInt8.self, i, byCL: true)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(RotateRight.self, UInt16.self, i, byCL: true)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(RotateRight.self, UInt32.self, i, byCL: true)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in
                    unsafe cpu.shiftR(RotateRight.self, UInt64.self, i, byCL: true)
                }
            }),
        m: unsafe Widths(
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.shiftM(RotateRight.self, UInt8.self, i) }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.shiftM(RotateRight.self, UInt16.self, i)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.shiftM(RotateRight.self, UInt32.self, i)
                }
            },
            {
                unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.shiftM(RotateRight.self, UInt64.self, i)
                }
            }))

}

enum MoveForms {
    static let load = unsafe Widths(
        { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.loadRegister(UInt8.self, i) } },
        { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.loadRegister(UInt16.self, i) } },
        { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.loadRegister(UInt32.self, i) } },
        { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.loadRegister(UInt64.self, i) } })
    static let store = unsafe Widths(
        { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.storeRegister(UInt8.self, i) } },
        { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.storeRegister(UInt16.self, i) } },
        { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.storeRegister(UInt32.self, i) } },
        { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.storeRegister(UInt64.self, i) } })
    static let storeImmediate = unsafe Widths(
        { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.storeImmediate(UInt8.self, i) } },
        { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.storeImmediate(UInt16.self, i) } },
        { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.storeImmediate(UInt32.self, i) } },
        { unsafe perform($0, $1) { cpu, i throws(Stop) in unsafe try cpu.storeImmediate(UInt64.self, i) } })

    static let register = unsafe Widths(
        {
            unsafe perform($0, $1) { cpu, i throws(Stop) in
                unsafe cpu.setRegister(i.pointee.r1, cpu.register(i.pointee.r2, UInt8.self))
            }
        },
        {
            unsafe perform($0, $1) { cpu, i throws(Stop) in
                unsafe cpu.setRegister(i.pointee.r1, cpu.register(i.pointee.r2, UInt16.self))
            }
        },
        {
            unsafe perform($0, $1) { cpu, i throws(Stop) in
                unsafe cpu.setRegister(i.pointee.r1, cpu.register(i.pointee.r2, UInt32.self))
            }
        },
        {
            unsafe perform($0, $1) { cpu, i throws(Stop) in
                unsafe cpu.setRegister(i.pointee.r1, cpu.register(i.pointee.r2, UInt64.self))
            }
        })
    static let immediate = unsafe Widths(
        {
            unsafe perform($0, $1) { cpu, i throws(Stop) in
                unsafe cpu.setRegister(i.pointee.r1, UInt8(truncatingIfNeeded: i.pointee.immediate))
            }
        },
        {
            unsafe perform($0, $1) { cpu, i throws(Stop) in
                unsafe cpu.setRegister(i.pointee.r1, UInt16(truncatingIfNeeded: i.pointee.immediate))
            }
        },
        {
            unsafe perform($0, $1) { cpu, i throws(Stop) in
                unsafe cpu.setRegister(i.pointee.r1, UInt32(truncatingIfNeeded: i.pointee.immediate))
            }
        },
        {
            unsafe perform($0, $1) { cpu, i throws(Stop) in
                unsafe cpu.setRegister(i.pointee.r1, UInt64(truncatingIfNeeded: i.pointee.immediate))
            }
        })
}
