import EngineTesting
import Glibc
import GuestMemory
import Testing
import VirtualCPU
import X86

/// Every kind of access at every kind of edge: the data of all pages it
/// touches, or the right fault with nothing changed; and never a byte
/// elsewhere.
@Suite(.everyEngine) struct HostileAddressTests {
    typealias Place = Machine.Place

    /// Distances of the first byte from the edge.
    static let distances: [Int64] = [-40, -32, -31, -17, -16, -15, -9, -8, -7, -4, -3, -2, -1, 0, 1]

    private struct Bench {
        let machine: Machine
        let space: HostileSpace
        /// What the frames hold before each try.
        let clean: [UInt8]

        init(zeroIsMapped: Bool) throws {
            machine = try Machine()
            space = HostileSpace(zeroIsMapped: zeroIsMapped)
            try space.install(in: machine)
            clean = (0..<HostileSpace.frames.count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8 &* 13 &+ 1) }
            try machine.put(clean, at: HostileSpace.frames.lowerBound)
        }

        /// What a mapped byte held at first.
        func original(_ address: UInt64) -> UInt8 {
            clean[Int(space.physical(address) - HostileSpace.frames.lowerBound)]
        }

        /// The byte that a mapped address has now; from now on it has its first one again.
        func takeBack(_ address: UInt64) throws -> UInt8 {
            let place = GuestPhysicalAddress(space.physical(address))
            defer { try? machine.memory.store(original(address), at: place) }
            return try machine.memory.load(at: place, as: UInt8.self)
        }

        /// Whether all frames are as they were at first.
        var isClean: Bool {
            let start = GuestPhysicalAddress(HostileSpace.frames.lowerBound)
            guard let frames = unsafe machine.memory.hostPointer(start, clean.count) else { return false }
            return unsafe memcmp(frames, clean, clean.count) == 0
        }
    }

    @Test(arguments: [false, true], [false, true])
    func everyEdge(user: Bool, zeroIsMapped: Bool) throws {
        let bench = try Bench(zeroIsMapped: zeroIsMapped)
        for access in HostileAccess.all {
            var program = Program(at: user ? Place.user : Place.code)
            access.emit(&program)
            let length = program.here - program.origin
            program.int(0x40)
            try bench.machine.put(program)
            for edge in HostileSpace.edges {
                for distance in Self.distances {
                    let address = edge &+ UInt64(bitPattern: distance)
                    try check(bench, access, at: address, user: user, length)
                }
            }
        }
    }

    private func check(
        _ bench: Bench, _ access: HostileAccess, at address: UInt64, user: Bool, _ length: UInt64
    ) throws {
        let machine = bench.machine, space = bench.space
        if user { machine.enterUser(long: true) } else { machine.enterKernel(long: true) }
        let start = user ? Place.user : Place.code
        let value: UInt64 = 0x8877_6655_4433_2211
        let (registers, fs, gs) = access.registers(for: address)
        machine.vcpu.withState { state in
            for index in 0..<16 where index != Register.rsp { state.gpr[index] = 0 }
            state.gpr[Register.rdx] = value
            state.gpr[Register.rax] = value
            state.gpr[Register.rsi] = Place.userStack  // A page of zeros.
            state.gpr[Register.rcx] = UInt64(HostileAccess.elements)
            for (register, value) in registers { state.gpr[register.number] = value }
            state.segments[SegmentName.fs].base = fs
            state.segments[SegmentName.gs].base = gs
            for word in 12..<16 { state.ymm[word] = value }
            state.rflags = RFlags.alwaysOne
            state.cr2 = 0
        }
        let context = "\(access.kind) of \(access.bytes), \(access.form), at \(String(address, radix: 16))"
        guard case .halt = machine.vcpu.run() else { Issue.record("no halt: \(context)"); return }
        let rip = machine.vcpu.withState { $0.rip }

        // What must have come of it: element by element, up to the first that is refused.
        let isString = access.kind == .moveString || access.kind == .storeString
        var expected: [(address: UInt64, byte: UInt8)] = []
        var verdict = HostileSpace.Verdict.allowed
        var done = 0
        let source =
            access.kind == .moveString
            ? [UInt8](repeating: 0, count: 8)
            : access.kind == .call
                ? (0..<8).map { UInt8(truncatingIfNeeded: (start + 5) >> ($0 * 8)) }
                : (0..<8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
        for element in 0..<(isString ? HostileAccess.elements : 1) {
            let place = address &+ UInt64(element * access.bytes)
            verdict = space.judge(place, access.bytes, write: access.writes, user: user)
            guard verdict == .allowed else { break }
            done += 1
            guard access.writes else { continue }
            for byte in 0..<access.bytes {
                let target = place &+ UInt64(byte)
                let old: UInt8 = access.kind == .modify ? bench.original(target) : 0
                expected.append((target, old ^ source[byte % 8]))
            }
        }

        let frame = machine[.rsp]
        func handler() -> UInt64 { (rip &- 1 &- Place.handler(0)) / 16 }
        switch verdict {
        case .allowed:
            guard rip == Place.handler(0x40) + 1 else {
                Issue.record("vector \(handler()), should be allowed: \(context)")
                break
            }
            if !access.writes { checkValue(bench, access, address, context) }
        case .notCanonical:
            let vector = access.isOfStack ? Vector.stackFault : Vector.generalProtection
            let isRight = try rip == Place.handler(vector) + 1 && machine.get64(frame) == 0
            if !isRight { Issue.record("vector \(handler()), should be \(vector): \(context)") }
        case .pageFault(let linear, let code):
            let isRight =
                try rip == Place.handler(Vector.pageFault) + 1 && machine.get64(frame) == code
                && machine.vcpu.withState { $0.cr2 } == linear
            if !isRight {
                let cr2 = machine.vcpu.withState { $0.cr2 }
                Issue.record(
                    "vector \(handler()), CR2 \(String(cr2, radix: 16)), code \(try machine.get64(frame)); should be #PF(\(code)) at \(String(linear, radix: 16)): \(context)"
                )
            }
        }
        if verdict != .allowed, rip != Place.handler(0x40) + 1 {
            let returnAddress = try machine.get64(frame + 8)
            if returnAddress != start { Issue.record("RIP \(String(returnAddress, radix: 16)): \(context)") }
            let stack = try machine.get64(frame + 32)
            let expectedStack = registers.first { $0.0 == .rsp }?.1 ?? (user ? Place.userStack : Place.stack)
            if stack != expectedStack { Issue.record("RSP \(String(stack, radix: 16)): \(context)") }
        }
        if isString {
            let left = UInt64(HostileAccess.elements - done)
            if machine[.rcx] != left { Issue.record("RCX \(machine[.rcx]), not \(left): \(context)") }
            if machine[.rdi] != address &+ UInt64(done * access.bytes) { Issue.record("RDI: \(context)") }
        }
        for (target, byte) in expected {
            let got = try bench.takeBack(target)
            if got != byte { Issue.record("\(got) at \(String(target, radix: 16)), not \(byte): \(context)") }
        }
        if !bench.isClean {
            Issue.record("memory has changed elsewhere: \(context)")
            try machine.put(bench.clean, at: HostileSpace.frames.lowerBound)
        }
    }

    /// The value that a load has put into its register.
    private func checkValue(
        _ bench: Bench, _ access: HostileAccess, _ address: UInt64, _ context: String
    ) {
        let loaded = (0..<access.bytes).map { bench.original(address &+ UInt64($0)) }
        let got: [UInt8] = bench.machine.vcpu.withState { state in
            if access.bytes <= 8 {
                let rdx = state.gpr[Register.rdx]
                return (0..<access.bytes).map { UInt8(truncatingIfNeeded: rdx >> ($0 * 8)) }
            }
            return (0..<access.bytes).map {
                UInt8(truncatingIfNeeded: state.ymm[12 + $0 / 8] >> UInt64($0 % 8 * 8))
            }
        }
        if got != loaded { Issue.record("\(got), not \(loaded): \(context)") }
    }
}
