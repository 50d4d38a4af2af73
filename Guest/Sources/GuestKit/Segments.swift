internal import CGuest

/// What 64-bit mode has left of segments: two flat ones, and a TSS, of which
/// only the stack for exceptions matters.
enum Segments {
    static let code: UInt16 = 0x10
    private static let task: UInt16 = 0x20
    /// Which of the TSS's seven stacks: IDT entries name it.
    static let exceptionStack: UInt8 = 1

    static func begin() {
        let page = Pages.take()
        let table = page.prefix(0x30)
        let state = page.part(0x800, 104)
        state.store(guest_address_of_exception_stack(), at: 0x24 + 8 * (Int(exceptionStack) - 1))
        state.store(UInt16(104), at: 0x66)  // No I/O bitmap.
        table.store(0x00af_9b00_0000_ffff as UInt64, at: Int(code))
        table.store(0x00cf_9300_0000_ffff as UInt64, at: 0x18)
        let base = state.address
        table.store(
            UInt64(state.count - 1) | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56, at: Int(task))
        table.store(base >> 32, at: Int(task) + 8)
        guest_load_descriptors(table.address, UInt16(table.count - 1), task)
    }
}
