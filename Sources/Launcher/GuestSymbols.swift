package import VirtualCPU

/// The names of a Guest's code, where it runs.
///
/// A kernel that unpacks itself may have put itself elsewhere than its file
/// says (KASLR). One of its addresses we know from the CPU: that of the entry
/// for SYSCALL, in LSTAR. How far that is from where the file has it is how
/// far all of the kernel is.
package struct GuestSymbols {
    private let tables: [SymbolTable]
    /// Added to the file's addresses of kernel code.
    package let slide: UInt64
    /// What is to be said of the kernel's place.
    package let remark: String

    /// What Linux has in LSTAR.
    private static let entryName = "entry_SYSCALL_64"
    /// It moves by multiples of this (CONFIG_PHYSICAL_ALIGN's least value).
    private static let slideUnit: UInt64 = 2 << 20

    /// - Parameter systemCallEntry: LSTAR; 0 if no kernel has set it.
    package init(_ tables: [SymbolTable], systemCallEntry: UInt64) {
        self.tables = tables
        let known = tables.lazy.compactMap { $0.address(of: Self.entryName) }.first { Self.isKernel($0) }
        var slide: UInt64 = 0
        if !tables.contains(where: { $0.symbols.contains { Self.isKernel($0.address) } }) {
            remark = "no symbols of the kernel"
        } else if let known, systemCallEntry != 0 {
            let distance = systemCallEntry &- known
            if distance == 0 {
                remark = "the kernel is where its symbols say"
            } else if distance % Self.slideUnit == 0 {
                slide = distance
                remark = "the kernel is 0x\(String(distance, radix: 16)) past where its symbols say"
            } else {
                remark = "the symbols are another kernel's: \(Self.entryName) is not where this one's is"
            }
        } else {
            remark =
                "whether the kernel is where its symbols say is not known: "
                + (known == nil ? "they do not name \(Self.entryName)" : "it has set up no entry for system calls")
        }
        self.slide = slide
    }

    private static func isKernel(_ address: UInt64) -> Bool { address >> 63 != 0 }

    /// The function that this is in, and how far in it.
    package func find(_ place: CodePlace) -> (name: String, offset: UInt64)? {
        let isKernel = Self.isKernel(place.address)
        // A program's symbols are not the kernel's, even where that runs at low addresses.
        if !isKernel && place.program == nil { return nil }
        for table in tables {
            if let found = table.find(isKernel ? place.address &- slide : place.address) { return found }
        }
        return nil
    }
}
