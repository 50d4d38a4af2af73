/// What an ELF file says about itself (System V gABI, chapters 4 and 5), of
/// either class, little-endian. Sections do not interest a loader.
package struct ELFImage {
    package enum Failure: Error, Equatable {
        case notELF
        case truncated
        case malformed(String)
    }

    package struct Segment {
        package var type: UInt32
        package var offset: UInt64
        package var virtualAddress: UInt64
        package var physicalAddress: UInt64
        package var fileBytes: UInt64
        package var memoryBytes: UInt64
        package var alignment: UInt64

        static let load: UInt32 = 1, note: UInt32 = 4
    }

    static let magic: [UInt8] = [0x7f, 0x45, 0x4c, 0x46]
    static let machine386: UInt16 = 3
    package static let machineX86_64: UInt16 = 62

    package let image: ImageBytes
    package let is64Bit: Bool
    package let machine: UInt16
    package let entry: UInt64
    let segments: [Segment]

    package var loadable: [Segment] { segments.filter { $0.type == Segment.load && $0.memoryBytes > 0 } }

    package init(_ image: ImageBytes) throws(Failure) {
        guard image.has(Self.magic, at: 0) else { throw .notELF }
        guard let fileClass = image.load(4, as: UInt8.self), let order = image.load(5, as: UInt8.self),
            let machine = image.load(18, as: UInt16.self)
        else { throw .truncated }
        guard fileClass == 1 || fileClass == 2 else { throw .malformed("its ELF class is \(fileClass)") }
        guard order == 1 else { throw .malformed("it is for a big-endian machine") }
        self.image = image
        self.machine = machine
        is64Bit = fileClass == 2

        let wide = is64Bit
        func word(_ offset32: Int, _ offset64: Int, from base: Int = 0) -> UInt64? {
            wide
                ? image.load(base + offset64, as: UInt64.self)
                : image.load(base + offset32, as: UInt32.self).map(UInt64.init)
        }
        guard let entry = word(24, 24), let table = word(28, 32),
            let entryBytes = image.load(wide ? 54 : 42, as: UInt16.self),
            let count = image.load(wide ? 56 : 44, as: UInt16.self)
        else { throw .truncated }
        self.entry = entry
        guard count > 0 else {
            throw .malformed("it has no program headers: an object file or a library, not a kernel")
        }
        guard Int(entryBytes) >= (wide ? 56 : 32) else {
            throw .malformed("its program headers are \(entryBytes) bytes long")
        }
        guard let tableRange = image.range(table, UInt64(count) * UInt64(entryBytes)) else { throw .truncated }

        var segments: [Segment] = []
        for base in stride(from: tableRange.lowerBound, to: tableRange.upperBound, by: Int(entryBytes)) {
            guard let type = image.load(base, as: UInt32.self), let offset = word(4, 8, from: base),
                let virtualAddress = word(8, 16, from: base), let physicalAddress = word(12, 24, from: base),
                let fileBytes = word(16, 32, from: base), let memoryBytes = word(20, 40, from: base),
                let alignment = word(28, 48, from: base)
            else { throw .truncated }
            segments.append(
                Segment(
                    type: type, offset: offset, virtualAddress: virtualAddress, physicalAddress: physicalAddress,
                    fileBytes: fileBytes, memoryBytes: memoryBytes, alignment: alignment))
        }
        self.segments = segments
    }

    /// The descriptor of the first note of `owner` and `type` (gABI chapter 5, "Note Section").
    package func note(owner: String, type: UInt32) -> Range<Int>? {
        let name = Array(owner.utf8) + [0]
        for segment in segments where segment.type == Segment.note {
            guard let range = image.range(segment.offset, segment.fileBytes) else { continue }
            // 4, but for segments that GNU ld aligns to 8.
            let alignment = segment.alignment == 8 ? 8 : 4
            var position = range.lowerBound
            while position <= range.upperBound - 12 {
                guard let nameBytes = image.load(position, as: UInt32.self),
                    let descriptorBytes = image.load(position + 4, as: UInt32.self),
                    let noteType = image.load(position + 8, as: UInt32.self)
                else { break }
                func alignedUp(_ offset: Int) -> Int {
                    range.lowerBound + (offset - range.lowerBound + alignment - 1) / alignment * alignment
                }
                let descriptor = alignedUp(position + 12 + Int(nameBytes))
                let end = descriptor + Int(descriptorBytes)
                guard end <= range.upperBound else { break }
                if noteType == type, Int(nameBytes) == name.count, image.has(name, at: position + 12) {
                    return descriptor..<end
                }
                position = alignedUp(end)
            }
        }
        return nil
    }

    /// Whether `address` is in a loadable segment, by its physical address.
    package func isLoaded(physical address: UInt64) -> Bool {
        loadable.contains { address >= $0.physicalAddress && address - $0.physicalAddress < $0.memoryBytes }
    }
}
