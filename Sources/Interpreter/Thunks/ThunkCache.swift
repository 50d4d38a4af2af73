package import CZydis
package import HostInterface
package import X86
internal import VirtualCPU

extension ISAFeatures {
    /// What this host can run for the Guest.
    package static var host: ISAFeatures { CPUFeatures.forThisHost.sets }
}

/// Where in `VCPUState` generated code finds what.
enum StateLayout {
    static let (rflags, mxcsr, ymm, x87): (Int, Int, Int, Int) = {
        let state = UnsafeMutablePointer<VCPUState>.allocate(capacity: 1)
        unsafe state.initialize(to: VCPUState())
        defer {
            unsafe state.deinitialize(count: 1)
            unsafe state.deallocate()
        }
        func offset<Field>(_ field: inout Field) -> Int {
            unsafe withUnsafeMutablePointer(to: &field) { unsafe UnsafeRawPointer($0) - UnsafeRawPointer(state) }
        }
        precondition(unsafe offset(&state.pointee.gpr) == 0, "generated code finds registers at offset 0")
        let x87 = unsafe offset(&state.pointee.x87)
        precondition(x87 % 16 == 0 && MemoryLayout<VCPUState>.alignment % 16 == 0, "FXSAVE needs 16-byte alignment")
        return unsafe (
            offset(&state.pointee.rflags), offset(&state.pointee.mxcsr), offset(&state.pointee.ymm), x87
        )
    }()
}

/// Makes thunks, and keeps them: equal instructions share one. One thread at a time.
package final class ThunkCache {
    /// Thunks for other instructions are refused.
    package let features: ISAFeatures
    private let isIntel: Bool
    private var buffers: [CodeBuffer] = []
    private var thunks: [SIMD16<UInt8>: Thunk] = [:]
    private var assembler = Assembler()
    private let layout = (
        rflags: StateLayout.rflags, mxcsr: StateLayout.mxcsr, ymm: StateLayout.ymm, x87: StateLayout.x87
    )
    private static let bufferBytes = 8 << 20

    /// - Parameter isIntel: whose rules hold where the vendors differ.
    package init(
        features: ISAFeatures = .host, isIntel: Bool = CPUFeatures.forThisHost.isIntel
    ) throws(HostError) {
        self.features = features.intersection(.host)
        self.isIntel = isIntel
        buffers.append(try CodeBuffer(byteCount: Self.bufferBytes))
    }

    /// More code than one buffer holds. `thunk(for:)` goes on working; but at
    /// its next boundary between instructions the core should forget every
    /// `Thunk` that it holds, and then call `removeAll`.
    package var isCrowded: Bool { buffers.count > 1 || buffers[0].isFull }

    /// Ends the life of every thunk handed out so far.
    package func removeAll() {
        thunks.removeAll(keepingCapacity: true)
        buffers.removeSubrange(1...)
        buffers[0].removeAll()
    }

    /// How many different thunks there are.
    package var count: Int { thunks.count }

    /// The thunk for a decoded instruction; nil if there is no such
    /// instruction on the Guest's CPU, or if it must not run natively.
    ///
    /// - Parameters:
    ///   - operands: all of them, the hidden ones included.
    ///   - bytes: the instruction as it stands in the Guest.
    package func thunk(
        for instruction: UnsafePointer<ZydisDecodedInstruction>, operands: UnsafePointer<ZydisDecodedOperand>,
        bytes: UnsafePointer<UInt8>
    ) -> Thunk? {
        guard features.include(unsafe instruction.pointee.meta.isa_set), unsafe NativeInstructions.allow(instruction),
            let form = unsafe InstructionForm(instruction, operands)
        else { return nil }
        let registers = RegisterPlan(form)
        guard
            let code = unsafe Reencoding(
                instruction, operands, source: bytes, form: form, base: registers.memory,
                substitute: registers.substitute)
        else { return nil }

        // The bytes say all that the thunk depends on but what stands for RSP.
        var key = code.bytes
        key[15] = form.usesStackPointer ? UInt8(registers.substitute) + 1 : 0
        var thunk: Thunk
        if let known = thunks[key] {
            thunk = known
        } else {
            guard let entry = unsafe assemble(instruction, operands, form, registers, code) else { return nil }
            thunk = unsafe Thunk(instruction, operands, form, entry: entry, isIntel: isIntel)
            thunks[key] = thunk
        }
        // The x87's record of the opcode holds the Guest's own ModRM (SDM 1, 8.1.9).
        if thunk.fpu == .recorded {
            let modrm = unsafe instruction.pointee.raw.modrm
            let low = UInt16(modrm.mod) << 6 | UInt16(modrm.reg) << 3 | UInt16(modrm.rm)
            thunk.fpuOpcode = UInt16(unsafe instruction.pointee.opcode & 7) << 8 | low
        }
        return thunk
    }

    /// The instruction's bytes as they stand in its thunk: for tests, which
    /// ask Zydis whether it is still the same instruction.
    package func reencoded(
        _ instruction: UnsafePointer<ZydisDecodedInstruction>, operands: UnsafePointer<ZydisDecodedOperand>,
        bytes: UnsafePointer<UInt8>
    ) -> [UInt8]? {
        guard let form = unsafe InstructionForm(instruction, operands) else { return nil }
        let registers = RegisterPlan(form)
        guard
            let code = unsafe Reencoding(
                instruction, operands, source: bytes, form: form, base: registers.memory,
                substitute: registers.substitute)
        else { return nil }
        return (0..<code.count).map { code.bytes[$0] }
    }

    private func assemble(
        _ instruction: UnsafePointer<ZydisDecodedInstruction>, _ operands: UnsafePointer<ZydisDecodedOperand>,
        _ form: InstructionForm, _ registers: RegisterPlan, _ code: Reencoding
    ) -> UnsafeRawPointer? {
        if buffers[buffers.count - 1].isFull {
            // The Guest cannot go on if the host has no memory left for code: #UD is as good as anything.
            guard let more = try? CodeBuffer(byteCount: Self.bufferBytes) else { return nil }
            buffers.append(more)
        }
        assembler.removeAll()
        let isVEX = unsafe instruction.pointee.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX
        let isWait = unsafe instruction.pointee.mnemonic == ZYDIS_MNEMONIC_FWAIT
        if !isWait {
            let frame = unsafe ThunkFrame(
                form: form, registers: registers, isVEX: isVEX,
                usesX87: Thunk.usesFPU(instruction, form),
                usesMXCSR: NativeInstructions.raisesSIMDExceptions(instruction, form),
                bitMask: Thunk.bitRegister(instruction, operands, form) == nil
                    ? nil : Int32(operands[0].size) - 1,
                bitRegister: Thunk.bitRegister(instruction, operands, form))
            frame.enter(&assembler, layout)
            for index in 0..<code.count { assembler.byte(code.bytes[index]) }
            frame.leave(&assembler, layout)
        }
        assembler.byte(0xc3)  // ret
        return unsafe buffers[buffers.count - 1].append(assembler)
    }
}
