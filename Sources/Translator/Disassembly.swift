internal import CZydis

/// 64-bit code as an Intel manual would print it.
enum Disassembly {
    struct Line {
        /// From the first byte.
        var offset: Int
        var bytes: ArraySlice<UInt8>
        var text: String
    }

    static func lines(_ code: [UInt8], at address: UInt64) -> [Line] {
        var decoder = ZydisDecoder()
        var formatter = ZydisFormatter()
        unsafe ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)
        unsafe ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL)
        var instruction = unsafe ZydisDecodedInstruction()
        let operands = UnsafeMutablePointer<ZydisDecodedOperand>.allocate(capacity: Int(ZYDIS_MAX_OPERAND_COUNT))
        defer { unsafe operands.deallocate() }
        var text = [CChar](repeating: 0, count: 256)
        var lines: [Line] = []
        var offset = 0
        while offset < code.count {
            let status = unsafe code.withUnsafeBytes { bytes in
                unsafe ZydisDecoderDecodeFull(
                    &decoder, bytes.baseAddress.unsafelyUnwrapped + offset, bytes.count - offset, &instruction, operands
                )
            }
            guard status & 0x8000_0000 == 0 else {
                lines.append(Line(offset: offset, bytes: code[offset...offset], text: "(undefined)"))
                offset += 1
                continue
            }
            let length = unsafe Int(instruction.length)
            unsafe ZydisFormatterFormatInstruction(
                &formatter, &instruction, operands, instruction.operand_count_visible, &text, 256,
                address &+ UInt64(offset), nil)
            lines.append(
                Line(
                    offset: offset, bytes: code[offset..<offset + length],
                    text: String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)))
            offset += length
        }
        return lines
    }
}
