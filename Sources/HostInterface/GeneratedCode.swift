extension ExecutableMemory {
    /// Why this host does not let us run code that we have made; nil if it does.
    /// Found out by doing it: a function that returns 42 is written, and called.
    package static func failure() -> String? {
        do throws(HostError) {
            let memory = try ExecutableMemory(byteCount: 4096)
            let code: [UInt8] = [0xb8, 42, 0, 0, 0, 0xc3]  // mov eax, 42; ret
            unsafe memory.writable.copyMemory(from: code, byteCount: code.count)
            // SAFETY: six bytes of code that obey the C calling convention.
            let function = unsafe unsafeBitCast(memory.executable, to: (@convention(c) () -> Int32).self)
            return function() == 42 ? nil : "generated code does not do what it should"
        } catch {
            return "\(error)"
        }
    }
}
