import GuestMemory
import HostInterface
import Launcher
import Lguest
import X86

/// Code for a Guest on lguest's bus: a few instructions with constants.
struct LguestCode {
    static let rax: UInt8 = 0, rcx: UInt8 = 1, rdx: UInt8 = 2, rbx: UInt8 = 3, rbp: UInt8 = 5

    private(set) var bytes: [UInt8] = []

    mutating func load(_ register: UInt8, _ value: UInt64) {
        bytes += [0x48, 0xb8 | register] + (0..<8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }

    mutating func call(_ number: UInt64, _ first: UInt64? = nil, _ second: UInt64? = nil, _ third: UInt64? = nil) {
        load(Self.rax, number)
        for (register, value) in [(Self.rbx, first), (Self.rcx, second), (Self.rdx, third)] {
            if let value { load(register, value) }
        }
        bytes += [0x0f, 0x01, 0xc1]
    }

    mutating func initialize() { call(LguestHypercall.initialize, LguestBench.shared) }

    /// Out to the Launcher.
    mutating func notify() { call(LguestHypercall.notify, 0x1234) }

    /// The body as often as RBP says.
    mutating func loop(_ body: (inout LguestCode) -> Void) {
        let start = bytes.count
        body(&self)
        bytes += [0x48, 0xff, 0xcd, 0x0f, 0x85]  // dec rbp; jnz
        jump(to: start)
    }

    /// The body for ever.
    mutating func again(_ body: (inout LguestCode) -> Void) {
        let start = bytes.count
        body(&self)
        bytes += [0xe9]
        jump(to: start)
    }

    private mutating func jump(to start: Int) {
        let distance = Int32(start - bytes.count - 4)
        bytes += (0..<4).map { UInt8(truncatingIfNeeded: distance >> ($0 * 8)) }
    }

    /// Looks at a word until it is not 0, then makes it 0.
    mutating func awaitAndClear(_ address: UInt64) {
        load(Self.rcx, address)
        // pause; cmp dword [rcx], 0; je to the pause; mov dword [rcx], 0
        bytes += [0xf3, 0x90, 0x83, 0x39, 0x00, 0x74, 0xf9, 0xc7, 0x01, 0, 0, 0, 0]
    }
}

/// A Guest with 2 MiB:
///
///     0x1000    page tables, one large page that is all its memory
///     0x4000    shared data, 0x6000 the code, 0x8000 a region that others see
///     0x10000   buffers: one to send, then those to be filled
///     0x100000  data
struct LguestBench {
    static let shared: UInt64 = 0x4000, code: UInt64 = 0x6000, region: UInt64 = 0x8000
    static let outgoing: UInt64 = 0x1_0000, buffers: UInt64 = 0x1_1000, data: UInt64 = 0x10_0000

    let memory: GuestMemory
    let guest: LguestGuest

    init(_ engine: Engine, _ code: LguestCode, host: LguestHost? = nil, region: SharedRegion? = nil) throws {
        memory = try GuestMemory(byteCount: 2 << 20, hasHole: false)
        if let region { try memory.map(region, at: GuestPhysicalAddress(Self.region)) }
        let flags = PageEntry.present | PageEntry.writable
        try memory.store(0x2000 | flags, at: GuestPhysicalAddress(0x1000))
        try memory.store(0x3000 | flags, at: GuestPhysicalAddress(0x2000))
        try memory.store(flags | PageEntry.large, at: GuestPhysicalAddress(0x3000))
        try memory.write(code.bytes, at: GuestPhysicalAddress(Self.code))
        let free = repeatElement(LguestData.slotFree, count: LguestData.ringSize)
        try memory.write(free, at: GuestPhysicalAddress(Self.shared + LguestData.hypercallStatus))
        guest = try (host ?? LguestHost(makeCPU: engine.makeVCPU)).open()
        try guest.initialize(memory: memory, pgdir: 0x1000, start: Self.code)
    }

    /// A `struct lguest_dma`, free, with sections one after the other.
    func put(buffer: UInt64, _ sections: [Int], at start: UInt64) throws {
        var place = start
        try memory.store(UInt32(0), at: GuestPhysicalAddress(buffer))
        for (index, count) in sections.enumerated() {
            let index = UInt64(index)
            try memory.store(place, at: GuestPhysicalAddress(buffer + LguestDMA.addresses + 8 * index))
            try memory.store(UInt16(count), at: GuestPhysicalAddress(buffer + LguestDMA.lengths + 2 * index))
            place += UInt64(count)
        }
    }

    /// What has been sent is as many bytes each; and room for more.
    func emptyBuffers(_ count: Int, filledWith bytes: Int) throws {
        for index in 0..<count {
            let place = GuestPhysicalAddress(Self.buffers + UInt64(index * LguestDMA.byteCount))
            guard try memory.load(at: place, as: UInt32.self) == UInt32(bytes) else {
                throw HostError("a buffer was not filled")
            }
            try memory.store(UInt32(0), at: place)
        }
    }

    /// The same by one memcpy(3).
    func copy(from other: LguestBench, _ count: Int) throws {
        let place = GuestPhysicalAddress(Self.data)
        guard let source = unsafe other.memory.hostPointer(place, count),
            let target = unsafe memory.hostPointer(place, count)
        else { throw HostError("no memory") }
        unsafe target.copyMemory(from: source, byteCount: count)
    }
}
