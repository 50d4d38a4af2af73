import EngineTesting
import Testing
import VirtualCPU
import X86

/// CPUID's promises: what is shown runs, what is not shown is #UD or, where the
/// encoding was a NOP before it became an instruction, does nothing.
@Suite(.everyEngine) struct FeatureTests {
    typealias Place = Machine.Place

    struct Feature: Sendable {
        let name: String
        let leaf: UInt32
        var subleaf: UInt32 = 0
        /// 0…3: EAX, EBX, ECX, EDX.
        let register: Int
        let bit: Int
        /// RBX points at 64 free bytes, aligned; RCX is 0.
        let code: [UInt8]
    }

    static let features: [Feature] = [
        Feature(name: "x87", leaf: 1, register: 3, bit: 0, code: [0xd9, 0xe8]),
        Feature(name: "TSC", leaf: 1, register: 3, bit: 4, code: [0x0f, 0x31]),
        Feature(name: "CX8", leaf: 1, register: 3, bit: 8, code: [0x0f, 0xc7, 0x0b]),
        Feature(name: "CMOV", leaf: 1, register: 3, bit: 15, code: [0x0f, 0x44, 0xc0]),
        Feature(name: "CLFSH", leaf: 1, register: 3, bit: 19, code: [0x0f, 0xae, 0x3b]),
        Feature(name: "MMX", leaf: 1, register: 3, bit: 23, code: [0x0f, 0xef, 0xc0, 0x0f, 0x77]),
        Feature(name: "FXSR", leaf: 1, register: 3, bit: 24, code: [0x0f, 0xae, 0x03]),
        Feature(name: "SSE", leaf: 1, register: 3, bit: 25, code: [0x0f, 0x58, 0xc0]),
        Feature(name: "SSE2", leaf: 1, register: 3, bit: 26, code: [0x66, 0x0f, 0x58, 0xc0]),
        Feature(name: "SSE3", leaf: 1, register: 2, bit: 0, code: [0xf2, 0x0f, 0x7c, 0xc0]),
        Feature(name: "PCLMULQDQ", leaf: 1, register: 2, bit: 1, code: [0x66, 0x0f, 0x3a, 0x44, 0xc0, 0x00]),
        Feature(name: "MONITOR", leaf: 1, register: 2, bit: 3, code: [0x0f, 0x01, 0xc8]),
        Feature(name: "VMX", leaf: 1, register: 2, bit: 5, code: [0x0f, 0x01, 0xc4]),
        Feature(name: "SSSE3", leaf: 1, register: 2, bit: 9, code: [0x66, 0x0f, 0x38, 0x00, 0xc0]),
        Feature(name: "FMA", leaf: 1, register: 2, bit: 12, code: [0xc4, 0xe2, 0x79, 0x98, 0xc0]),
        Feature(name: "CX16", leaf: 1, register: 2, bit: 13, code: [0x48, 0x0f, 0xc7, 0x0b]),
        Feature(name: "SSE4.1", leaf: 1, register: 2, bit: 19, code: [0x66, 0x0f, 0x38, 0x17, 0xc0]),
        Feature(name: "SSE4.2", leaf: 1, register: 2, bit: 20, code: [0xf2, 0x0f, 0x38, 0xf1, 0xc0]),
        Feature(name: "MOVBE", leaf: 1, register: 2, bit: 22, code: [0x0f, 0x38, 0xf0, 0x03]),
        Feature(name: "POPCNT", leaf: 1, register: 2, bit: 23, code: [0xf3, 0x0f, 0xb8, 0xc0]),
        Feature(name: "AES", leaf: 1, register: 2, bit: 25, code: [0x66, 0x0f, 0x38, 0xdc, 0xc0]),
        Feature(name: "XSAVE", leaf: 1, register: 2, bit: 26, code: [0x0f, 0xae, 0x23]),
        Feature(name: "OSXSAVE", leaf: 1, register: 2, bit: 27, code: [0x0f, 0x01, 0xd0]),
        Feature(name: "AVX", leaf: 1, register: 2, bit: 28, code: [0xc5, 0xfc, 0x58, 0xc0]),
        Feature(name: "F16C", leaf: 1, register: 2, bit: 29, code: [0xc4, 0xe2, 0x7d, 0x13, 0xc0]),
        Feature(name: "RDRAND", leaf: 1, register: 2, bit: 30, code: [0x0f, 0xc7, 0xf0]),
        Feature(name: "FSGSBASE", leaf: 7, register: 1, bit: 0, code: [0xf3, 0x48, 0x0f, 0xae, 0xc0]),
        Feature(name: "BMI1", leaf: 7, register: 1, bit: 3, code: [0xc4, 0xe2, 0x78, 0xf2, 0xc0]),
        Feature(name: "AVX2", leaf: 7, register: 1, bit: 5, code: [0xc5, 0xfd, 0xfe, 0xc0]),
        Feature(name: "BMI2", leaf: 7, register: 1, bit: 8, code: [0xc4, 0xe2, 0x78, 0xf5, 0xc0]),
        Feature(name: "INVPCID", leaf: 7, register: 1, bit: 10, code: [0x66, 0x0f, 0x38, 0x82, 0x0b]),
        Feature(name: "RTM", leaf: 7, register: 1, bit: 11, code: [0x0f, 0x01, 0xd6]),
        Feature(name: "AVX-512 F", leaf: 7, register: 1, bit: 16, code: [0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0]),
        Feature(name: "RDSEED", leaf: 7, register: 1, bit: 18, code: [0x0f, 0xc7, 0xf8]),
        Feature(name: "ADX", leaf: 7, register: 1, bit: 19, code: [0x66, 0x0f, 0x38, 0xf6, 0xc0]),
        Feature(name: "SMAP", leaf: 7, register: 1, bit: 20, code: [0x0f, 0x01, 0xcb]),
        Feature(name: "CLFLUSHOPT", leaf: 7, register: 1, bit: 23, code: [0x66, 0x0f, 0xae, 0x3b]),
        Feature(name: "CLWB", leaf: 7, register: 1, bit: 24, code: [0x66, 0x0f, 0xae, 0x33]),
        Feature(name: "SHA", leaf: 7, register: 1, bit: 29, code: [0x0f, 0x38, 0xc8, 0xc0]),
        Feature(name: "PKU", leaf: 7, register: 2, bit: 3, code: [0x0f, 0x01, 0xee]),
        Feature(name: "WAITPKG", leaf: 7, register: 2, bit: 5, code: [0xf2, 0x0f, 0xae, 0xf0]),
        Feature(name: "GFNI", leaf: 7, register: 2, bit: 8, code: [0x66, 0x0f, 0x38, 0xcf, 0xc0]),
        Feature(name: "VAES", leaf: 7, register: 2, bit: 9, code: [0xc4, 0xe2, 0x7d, 0xdc, 0xc0]),
        Feature(name: "RDPID", leaf: 7, register: 2, bit: 22, code: [0xf3, 0x0f, 0xc7, 0xf8]),
        Feature(name: "MOVDIRI", leaf: 7, register: 2, bit: 27, code: [0x0f, 0x38, 0xf9, 0x03]),
        Feature(name: "MOVDIR64B", leaf: 7, register: 2, bit: 28, code: [0x66, 0x0f, 0x38, 0xf8, 0x1b]),
        Feature(name: "SERIALIZE", leaf: 7, register: 3, bit: 14, code: [0x0f, 0x01, 0xe8]),
        Feature(name: "AMX-TILE", leaf: 7, register: 3, bit: 24, code: [0xc4, 0xe2, 0x78, 0x49, 0xc0]),
        Feature(name: "AVX-VNNI", leaf: 7, subleaf: 1, register: 0, bit: 4, code: [0xc4, 0xe2, 0x79, 0x50, 0xc0]),
        Feature(name: "XSAVEOPT", leaf: 0xd, subleaf: 1, register: 0, bit: 0, code: [0x0f, 0xae, 0x33]),
        Feature(name: "XSAVEC", leaf: 0xd, subleaf: 1, register: 0, bit: 1, code: [0x0f, 0xc7, 0x23]),
        Feature(name: "XSAVES", leaf: 0xd, subleaf: 1, register: 0, bit: 3, code: [0x0f, 0xc7, 0x2b]),
        Feature(name: "LAHF", leaf: 0x8000_0001, register: 2, bit: 0, code: [0x9f]),
        Feature(name: "SVM", leaf: 0x8000_0001, register: 2, bit: 2, code: [0x0f, 0x01, 0xd8]),
        Feature(name: "LZCNT", leaf: 0x8000_0001, register: 2, bit: 5, code: []),
        Feature(name: "SSE4A", leaf: 0x8000_0001, register: 2, bit: 6, code: [0xf2, 0x0f, 0x79, 0xc0]),
        Feature(name: "3DNow prefetch", leaf: 0x8000_0001, register: 2, bit: 8, code: [0x0f, 0x0d, 0x0b]),
        Feature(name: "XOP", leaf: 0x8000_0001, register: 2, bit: 11, code: [0x8f, 0xe8, 0x78, 0xc2, 0xc0, 0x00]),
        Feature(name: "FMA4", leaf: 0x8000_0001, register: 2, bit: 16, code: [0xc4, 0xe3, 0x79, 0x69, 0xc0, 0x00]),
        Feature(name: "TBM", leaf: 0x8000_0001, register: 2, bit: 21, code: [0x8f, 0xe9, 0x78, 0x01, 0xc8]),
        Feature(name: "MONITORX", leaf: 0x8000_0001, register: 2, bit: 29, code: [0x0f, 0x01, 0xfa]),
        Feature(name: "SYSCALL", leaf: 0x8000_0001, register: 3, bit: 11, code: [0x0f, 0x05]),
        Feature(name: "RDTSCP", leaf: 0x8000_0001, register: 3, bit: 27, code: [0x0f, 0x01, 0xf9]),
        Feature(name: "3DNow", leaf: 0x8000_0001, register: 3, bit: 31, code: [0x0f, 0x0f, 0xc0, 0x9e]),
    ]

    private func run(_ code: [UInt8]) throws -> UInt64 {
        let machine = try Machine()
        try machine.enterLongMode()
        try machine.put(code + [0xf4], at: Place.code)
        machine.vcpu.withState { state in
            state.cr4 |= CR4.osFXSR | CR4.osXSave | CR4.osXMMExceptions | CR4.fsGSBase
            state.xcr0 = CPUFeatures.forThisHost.xcr0Mask
            state.gpr[Register.rbx] = Place.data
            state.gpr[Register.rcx] = 0
            // SYSCALL comes out behind itself.
            state.lstar = Place.code + UInt64(code.count)
            state.star = 0x08 << 32
        }
        return machine.runToHalt()
    }

    @Test func promisesAreKept() throws {
        for feature in Self.features where !feature.code.isEmpty {
            let leaf = CPUFeatures.forThisHost.leaf(
                feature.leaf, feature.subleaf, cr4: CR4.osXSave, xcr0: 7, tscFrequency: 1_000_000_000)
            let words = [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
            let isShown = words[feature.register] >> UInt32(feature.bit) & 1 != 0
            // A baseline that no leaf of this vendor repeats, or a NOP either way.
            let rip = try run(feature.code)
            let end = Place.code + UInt64(feature.code.count) + 1
            let want = isShown ? end : Place.handler(Vector.invalidOpcode) + 1
            #expect(rip == want, "\(feature.name), shown: \(isShown)")
        }
    }

    // CET, MPX, CLDEMOTE and PREFETCHIT came into encodings that were NOPs: they stay so.
    @Test func reservedNOPs() throws {
        let nops: [(String, [UInt8])] = [
            ("endbr64", [0xf3, 0x0f, 0x1e, 0xfa]), ("endbr32", [0xf3, 0x0f, 0x1e, 0xfb]),
            ("rdsspq rax", [0xf3, 0x48, 0x0f, 0x1e, 0xc8]),
            ("bndmov bnd0, bnd0", [0x66, 0x0f, 0x1a, 0xc0]), ("bndcl bnd0, rax", [0xf3, 0x0f, 0x1a, 0xc0]),
            ("bndldx bnd0, [rbx]", [0x0f, 0x1a, 0x03]), ("bndstx [rbx], bnd0", [0x0f, 0x1b, 0x03]),
            ("cldemote [rbx]", [0x0f, 0x1c, 0x03]), ("nop ecx", [0x0f, 0x19, 0xc1]), ("nop [rbx]", [0x0f, 0x1f, 0x03]),
            ("prefetchit0 [rip]", [0x0f, 0x18, 0x3d, 0, 0, 0, 0]), ("prefetch, reserved", [0x0f, 0x18, 0x23]),
        ]
        for (name, code) in nops { #expect(try run(code) == Place.code + UInt64(code.count) + 1, "\(name)") }
    }

    // F3 0F BD is LZCNT where it is shown and BSR where it is not (SDM 2A, "LZCNT"); TZCNT likewise.
    @Test func leadingZeros() throws {
        let machine = try Machine()
        try machine.enterLongMode()
        try machine.put([0xf3, 0x0f, 0xbd, 0xc1, 0xf3, 0x0f, 0xbc, 0xd1, 0xf4], at: Place.code)  // lzcnt eax, ecx; tzcnt edx, ecx
        machine.vcpu.withState { $0.gpr[Register.rcx] = 0x10 }
        _ = machine.runToHalt()
        let features = CPUFeatures.forThisHost
        #expect(machine.vcpu.withState { $0.gpr[Register.rax] } == (features.sets.contains(.lzcnt) ? 27 : 4))
        #expect(machine.vcpu.withState { $0.gpr[Register.rdx] } == 4)
    }
}
