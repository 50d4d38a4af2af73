internal import CGuest

/// The CPU's complaints. A program here has nobody to repair anything, so each
/// is the end, and the only question is how much the user is told.
enum Exceptions {
    static func die(of frame: guest_frame) -> Never {
        print("rax \(hex: frame.rax) rbx \(hex: frame.rbx) rcx \(hex: frame.rcx) rdx \(hex: frame.rdx)")
        print("rsi \(hex: frame.rsi) rdi \(hex: frame.rdi) rbp \(hex: frame.rbp) rsp \(hex: frame.rsp)")
        if frame.vector == 14 {
            panic("\(name(frame.vector)) at \(hex: frame.rip): address \(hex: guest_cr2()), error \(frame.error)")
        }
        panic("\(name(frame.vector)) at \(hex: frame.rip), error \(hex: frame.error)")
    }

    private static func name(_ vector: UInt64) -> Text {
        switch vector {
        case 0: "divide error"
        case 3: "breakpoint"
        // Swift's own traps (overflow, bounds, preconditions) are a UD2.
        case 6: "trap"
        case 8: "double fault"
        case 12: "stack fault"
        case 13: "general protection"
        case 14: "page fault"
        default: "exception \(vector)"
        }
    }
}
