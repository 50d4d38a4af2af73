// swift-tools-version: 6.2
//P:020 The map of the house
//
// This manifest is the architecture diagram. Each target is a room, listed
// from the cellar up; a room may depend on rooms above it in this list and
// never on one below. Nothing else enforces that as cheaply as the compiler:
// an import that this file does not allow does not build.

import PackageDescription

/// One table of settings for every Swift target: the Swift 6 language, with
/// each use of an unsafe construct written out as `unsafe`.
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

func room(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

func library(_ name: String, _ package: String) -> Target {
    .systemLibrary(name: name, providers: [.apt([package])])
}

func tests(_ subject: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: subject + "Tests", dependencies: dependencies, swiftSettings: settings)
}

let package = Package(
    name: "roost",
    products: [
        .executable(name: "roost", targets: ["roost"]),
        // Guests, and what they share, for programs in Swift.
        .library(name: "Roost", targets: ["Launcher", "Grants"]),
        .library(name: "lguest", type: .dynamic, targets: ["LguestLibrary"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.6.0"),
    ],
    targets: [
        // Libraries of the machine we are built on, from Debian's -dev packages.
        library("CZydis", "libzydis-dev"),
        library("CLZ4", "liblz4-dev"),
        library("CZstd", "libzstd-dev"),
        library("CLZMA", "liblzma-dev"),
        library("CZlib", "zlib1g-dev"),
        library("CSlirp", "libslirp-dev"),

        .target(name: "CHost"),
        room("HostInterface", ["CHost"]),
        room("GuestMemory", ["HostInterface"]),
        room("X86", ["CZydis", "CHost", "GuestMemory"]),
        room("VirtualCPU", ["X86", "GuestMemory", "HostInterface", "CHost"]),
        room("Interpreter", ["VirtualCPU", "X86", "GuestMemory", "HostInterface", "CHost", "CZydis"]),
        room("Translator", ["Interpreter", "VirtualCPU", "X86", "GuestMemory", "HostInterface", "CZydis"]),
        room("Platform", ["VirtualCPU", "X86", "GuestMemory", "HostInterface", "CLZ4", "CZstd", "CLZMA", "CZlib"]),
        room("Storage", ["HostInterface", "CZlib", "CZstd"]),
        room("Network", ["HostInterface", "CHost", "CSlirp"]),
        room("Virtio", ["Platform", "GuestMemory", "HostInterface"]),
        room("VirtioDevices", ["Virtio", "Network", "Storage", "GuestMemory", "HostInterface"]),
        room("Lguest", ["Virtio", "Platform", "VirtualCPU", "X86", "GuestMemory", "HostInterface"]),
        room("Grants", ["Platform", "VirtualCPU", "X86", "GuestMemory", "HostInterface"]),
        // lguest's Host for programs that are not ours: `make library`.
        room(
            "LguestLibrary",
            ["Lguest", "Translator", "Interpreter", "VirtualCPU", "GuestMemory", "HostInterface"]),
        room(
            "Launcher",
            [
                "Grants", "Lguest", "VirtioDevices", "Virtio", "Network", "Storage", "Platform", "Translator",
                "Interpreter", "VirtualCPU", "X86", "GuestMemory", "HostInterface",
                .product(name: "Logging", package: "swift-log"),
            ]),
        .executableTarget(
            name: "roost",
            dependencies: [
                "Launcher", "Grants", "Network", "Storage", "HostInterface",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: settings),

        // A program that is a peer of its Guests, as an example of the library.
        .executableTarget(
            name: "Postcards", dependencies: ["Launcher", "Grants"], path: "Examples/host",
            exclude: ["postcards.json"], swiftSettings: settings),
        // A Launcher in C, as an example and a test of the library.
        .executableTarget(
            name: "CLauncher", dependencies: ["LguestLibrary"], path: "Tests/CLauncher",
            cSettings: [.define("LGUEST_H", to: "\"LguestLibrary-Swift.h\"")]),
        tests(
            "Launcher", ["Launcher", "Grants", "Network", "Translator", "VirtualCPU", "GuestMemory", "HostInterface"]),
        tests("Storage", ["Storage", "HostInterface"]),
        tests("Command", ["HostInterface", "CHost", "roost"]),
        tests("Boot", ["Launcher", "HostInterface", "roost"]),
        tests("Journey", ["HostInterface"]),
        // Guests in Swift (make guests), on lguest's bus.
        tests(
            "Guest",
            [
                "Launcher", "Lguest", "VirtioDevices", "Virtio", "Network", "Storage", "Platform", "VirtualCPU",
                "GuestMemory", "HostInterface",
            ]),
        // What every engine must pass, and the machines that its tests share.
        .target(
            name: "EngineTesting",
            dependencies: ["Translator", "Interpreter", "VirtualCPU", "X86", "GuestMemory", "HostInterface"],
            path: "Tests/EngineTesting", swiftSettings: settings),
        tests("Engine", ["EngineTesting", "VirtualCPU", "X86", "GuestMemory", "HostInterface"]),
        tests(
            "Interpreter",
            ["EngineTesting", "Interpreter", "VirtualCPU", "X86", "GuestMemory", "HostInterface", "CHost", "CZydis"]),
        tests("Platform", ["Platform", "VirtualCPU", "X86", "GuestMemory", "HostInterface"]),
        tests(
            "PlatformBoot",
            ["Platform", "VirtualCPU", "X86", "GuestMemory", "HostInterface", "CLZ4", "CZstd", "CLZMA", "CZlib"]),
        // What the thread sanitizer must be told (make test-thorough).
        .target(name: "CSanitizer", path: "Tests/CSanitizer", exclude: ["suppressions"]),
        // The driver's side of virtio, and the devices that it is let loose on.
        .target(
            name: "VirtioTesting",
            dependencies: [
                "CSanitizer", "VirtioDevices", "Virtio", "Network", "Storage", "Platform", "GuestMemory",
                "HostInterface",
            ],
            path: "Tests/VirtioTesting", swiftSettings: settings),
        tests(
            "Virtio",
            ["VirtioTesting", "VirtioDevices", "Virtio", "Platform", "CPUOracle", "GuestMemory", "HostInterface"]),
        // Guests without code, for what the Host makes of their hypercalls.
        .target(
            name: "LguestTesting",
            dependencies: [
                "VirtioTesting", "Lguest", "Virtio", "VirtioDevices", "VirtualCPU", "X86", "GuestMemory",
                "HostInterface",
            ],
            path: "Tests/LguestTesting", swiftSettings: settings),
        tests(
            "Lguest",
            [
                "LguestTesting", "EngineTesting", "VirtioTesting", "CPUOracle", "Lguest", "VirtioDevices", "Virtio",
                "Platform", "VirtualCPU", "X86", "GuestMemory", "HostInterface",
            ]),
        tests(
            "Grants",
            [
                "CSanitizer", "EngineTesting", "CPUOracle", "Grants", "Lguest", "Platform", "VirtualCPU", "X86",
                "GuestMemory",
                "HostInterface",
            ]),
        tests(
            "HostileGuest",
            ["EngineTesting", "CPUOracle", "Platform", "VirtualCPU", "X86", "GuestMemory", "HostInterface"]),
        tests("Network", ["CSanitizer", "Network", "HostInterface", "CHost"]),
        // The host's CPU as a judge of engines; tests, fuzzers and benches only.
        .target(name: "COracle"),
        room("CPUOracle", ["COracle", "CZydis"]),

        // The part of `make bench` that looks inside the engine.
        .executableTarget(
            name: "RoostBench",
            dependencies: [
                "Lguest", "Interpreter", "Launcher", "Platform", "VirtualCPU", "X86", "GuestMemory", "HostInterface",
            ],
            path: "Benchmarks/RoostBench", swiftSettings: settings),

        tests("CPUOracle", ["CPUOracle"]),
        tests("Conformance", ["EngineTesting", "CPUOracle", "VirtualCPU", "X86", "GuestMemory"]),
    ]
)
//:

// A build for a sanitizer takes long, and is made for a few tests:
// ROOST_TESTS=Virtio,Network leaves the others out.
if let wanted = Context.environment["ROOST_TESTS"]?.split(separator: ",") {
    package.targets.removeAll { $0.type == .test && !wanted.contains($0.name.dropLast("Tests".count)) }
}

// Fuzz targets link with libFuzzer's own main and exist only where asked for:
// ROOST_FUZZ=1 swift build --sanitize fuzzer (see Fuzz/README.md).
if Context.environment["ROOST_FUZZ"] != nil {
    func fuzzer(_ subject: String, _ dependencies: [Target.Dependency]) -> Target {
        .executableTarget(
            name: "Fuzz" + subject, dependencies: dependencies, path: "Fuzz/" + subject,
            swiftSettings: settings + [.unsafeFlags(["-parse-as-library"])])
    }
    package.targets += [
        fuzzer("Grants", ["Grants", "X86", "GuestMemory", "HostInterface"]),
        fuzzer("Lguest", ["LguestTesting", "HostInterface"]),
        fuzzer("Boot", ["Platform", "VirtualCPU", "GuestMemory", "HostInterface"]),
        fuzzer("House", ["Launcher"]),
        fuzzer("Qcow2", ["Storage", "HostInterface"]),
        fuzzer("Virtio", ["VirtioTesting", "Virtio", "HostInterface"]),
    ]
}
