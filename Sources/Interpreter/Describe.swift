internal import GuestMemory
internal import VirtualCPU
internal import X86

extension CPU {
    /// Registers, mode and the bytes at RIP, as a report of death shows them.
    func describe() -> String {
        func hex(_ value: UInt64, _ digits: Int = 16) -> String {
            let text = String(value, radix: 16)
            return String(repeating: "0", count: max(0, digits - text.count)) + text
        }
        let names = [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14",
            "r15",
        ]
        var lines: [String] = []
        lines.append(unsafe "rip \(hex(state.rip))  rflags \(hex(rflags, 8))  cpl \(core.privilege)  \(core.codeSize)")
        for row in 0..<4 {
            lines.append((0..<4).map { "\(names[row * 4 + $0]) \(hex(self[row * 4 + $0]))" }.joined(separator: "  "))
        }
        lines.append(
            "cr0 \(hex(state.cr0, 8))  cr2 \(hex(state.cr2))  cr3 \(hex(state.cr3))  cr4 \(hex(state.cr4, 8))  efer \(hex(state.efer, 4))"
        )
        let segments = ["es", "cs", "ss", "ds", "fs", "gs"]
        lines.append(
            segments.enumerated().map { number, name in
                "\(name) \(hex(UInt64(state.segments[number].selector), 4)):\(hex(state.segments[number].base))"
            }.joined(separator: "  "))
        lines.append("bytes at rip: \(bytesAtRIP())")
        return lines.joined(separator: "\n")
    }

    private func bytesAtRIP() -> String {
        let base = unsafe core.codeSize == .bits64 ? 0 : state.segments[SegmentName.cs].base
        var text: [String] = []
        let event = unsafe core.event, awaitsAnswer = owner.awaitsAnswer
        for offset in 0..<UInt64(16) {
            do throws(Stop) {
                let physical = try translate(wrap(base &+ state.rip &+ offset), [.implicit, .probe, .fetch]).physical
                // No device is asked: reading it could change it.
                guard let byte = try? owner.memory.load(at: GuestPhysicalAddress(physical), as: UInt8.self) else {
                    throw Stop()
                }
                text.append((byte < 16 ? "0" : "") + String(byte, radix: 16))
            } catch {
                text.append("??")
                break
            }
        }
        unsafe core.event = event
        owner.awaitsAnswer = awaitsAnswer
        return text.joined(separator: " ")
    }
}
