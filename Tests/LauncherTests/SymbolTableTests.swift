import HostInterface
import Launcher
import Testing
import VirtualCPU

@Suite struct SymbolTableTests {
    static let map = """
        0000000000000000 D __per_cpu_start
        ffffffff81000000 T _text
        ffffffff81000040 t first
        ffffffff81000040 W first_again
        ffffffff81000100 D not_code
        ffffffff81c00080 T entry_SYSCALL_64
        ffffffffc0001000 t in_a_module\t[module]
        nonsense
        """

    private func table(_ text: String = map) throws -> SymbolTable { try SymbolTable(Array(text.utf8), path: "map") }

    @Test func readsMaps() throws {
        let table = try table()
        #expect(table.symbols.map(\.name) == ["_text", "first", "entry_SYSCALL_64", "in_a_module"])
        #expect(table.find(0xffff_ffff_8100_0041)! == ("first", 1))
        #expect(table.find(0xffff_ffff_8100_003f)! == ("_text", 0x3f))
        #expect(table.find(0xffff_ffff_80ff_ffff) == nil)
        #expect(table.find(0xffff_ffff_ffff_ffff) == nil, "too far from any name")
    }

    /// Three sections (none, code, symbols and names in one), three symbols: a function, a variable, a bare label.
    static func elf() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 64)
        func put<T: FixedWidthInteger>(_ value: T, at offset: Int, in bytes: inout [UInt8]) {
            for index in 0..<MemoryLayout<T>.size {
                bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (index * 8))
            }
        }
        func symbol(_ name: UInt32, _ info: UInt8, _ section: UInt16, _ value: UInt64, _ size: UInt64) -> [UInt8] {
            var entry = [UInt8](repeating: 0, count: 24)
            put(name, at: 0, in: &entry)
            entry[4] = info
            put(section, at: 6, in: &entry)
            put(value, at: 8, in: &entry)
            put(size, at: 16, in: &entry)
            return entry
        }
        func section(_ type: UInt32, _ flags: UInt64, _ offset: Int, _ count: Int, link: UInt32 = 0) -> [UInt8] {
            var entry = [UInt8](repeating: 0, count: 64)
            put(type, at: 4, in: &entry)
            put(flags, at: 8, in: &entry)
            put(UInt64(offset), at: 24, in: &entry)
            put(UInt64(count), at: 32, in: &entry)
            put(link, at: 40, in: &entry)
            return entry
        }
        let names = Array("\0main\0label\0variable\0".utf8)
        let symbols =
            symbol(1, 0x12, 1, 0x40_1000, 0x20) + symbol(6, 0x10, 1, 0x40_2000, 0) + symbol(12, 0x11, 2, 0x40_3000, 8)
        bytes.replaceSubrange(0..<6, with: [0x7f, 0x45, 0x4c, 0x46, 2, 1])
        put(UInt64(64), at: 40, in: &bytes)
        put(UInt16(64), at: 58, in: &bytes)
        put(UInt16(5), at: 60, in: &bytes)
        let data = 64 + 5 * 64
        bytes += section(0, 0, 0, 0) + section(1, 6, 0, 0) + section(1, 3, 0, 0)
        bytes += section(2, 0, data, symbols.count, link: 4) + section(3, 0, data + symbols.count, names.count)
        return bytes + symbols + names
    }

    @Test func readsELF() throws {
        let table = try SymbolTable(Self.elf(), path: "elf")
        #expect(table.symbols.map(\.name) == ["main", "label"])
        #expect(table.find(0x40_101f)! == ("main", 0x1f))
        #expect(table.find(0x40_1020) == nil, "past its size")
        #expect(table.find(0x40_2004)! == ("label", 4))
    }

    /// However a file is cut, it is an error or a table, and never a crash.
    @Test func survivesAnyDamage() throws {
        let whole = Self.elf()
        for count in 0..<whole.count { _ = try? SymbolTable(Array(whole[..<count]), path: "elf") }
        for index in 6..<whole.count {
            for value in [0, 0x7f, 0xff] as [UInt8] {
                var damaged = whole
                damaged[index] = value
                _ = try? SymbolTable(damaged, path: "elf")
            }
        }
    }

    @Test(arguments: ["", "ffffffffffffffff B The real System.map is elsewhere\n"])
    func refusesFilesWithoutNames(_ text: String) {
        let error = #expect(throws: HostError.self) { try table(text) }
        #expect(error?.description.contains("map") == true && error?.description.contains("kallsyms") == true)
    }

    // MARK: Where the kernel is

    private static let kernelPlace = CodePlace(0xffff_ffff_8100_0048)

    @Test func aKernelThatDidNotMove() throws {
        let names = GuestSymbols([try table()], systemCallEntry: 0xffff_ffff_81c0_0080)
        #expect(names.slide == 0)
        #expect(names.find(Self.kernelPlace)! == ("first", 8))
    }

    @Test func aKernelThatMoved() throws {
        let names = GuestSymbols([try table()], systemCallEntry: 0xffff_ffff_9dc0_0080)
        #expect(names.slide == 0x1c00_0000)
        #expect(names.remark.contains("0x1c000000"))
        #expect(names.find(CodePlace(0xffff_ffff_9d00_0048))! == ("first", 8))
    }

    @Test func anotherKernel() throws {
        let names = GuestSymbols([try table()], systemCallEntry: 0xffff_ffff_81c0_0090)
        #expect(names.slide == 0)
        #expect(names.remark.contains("another kernel"))
    }

    @Test func aKernelThatDidNotSay() throws {
        #expect(GuestSymbols([try table()], systemCallEntry: 0).remark.contains("not known"))
        #expect(GuestSymbols([], systemCallEntry: 0).remark == "no symbols of the kernel")
    }

    @Test func aProgramsNamesAreItsOwn() throws {
        let names = GuestSymbols([try table(), try SymbolTable(Self.elf(), path: "elf")], systemCallEntry: 0)
        #expect(names.find(CodePlace(0x40_1001, program: 0x1000))! == ("main", 1))
        #expect(names.find(CodePlace(0x40_1001)) == nil, "the kernel, early and low")
    }
}
