// swift-tools-version: 6.2
//G:005 The other side
//
// Everything else in this repository is the Host's. This package is for those
// who want to be the Guest: programs without a system below them, in Swift,
// that know that their machine is a program too. It is a package of its own
// because it is compiled for another machine: `make guests` says which
// (toolset.json has the compiler's options: Embedded Swift, no heap, and no
// red zone, for reasons that G:052 gives).
//
// CGuest is what Swift has no words for, GuestKit the kit, GuestNet as much of
// TCP as a page of text needs. Then a program for each sample.

import PackageDescription

let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .enableExperimentalFeature("Embedded"),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

func program(_ name: String, _ path: String, _ dependencies: [Target.Dependency] = ["GuestKit"]) -> Target {
    .executableTarget(
        name: name, dependencies: dependencies, path: "Sources/" + path,
        swiftSettings: settings + [.unsafeFlags(["-no-allocations"])])
}

let package = Package(
    name: "Guest",
    products: [
        .library(name: "GuestKit", targets: ["GuestKit"]),
        .library(name: "GuestNet", targets: ["GuestNet"]),
    ],
    targets: [
        // The linker's script goes along to whoever links with GuestKit.
        .target(
            name: "CGuest",
            linkerSettings: [.unsafeFlags(["-Xlinker", "-T", "-Xlinker", Context.packageDirectory + "/link.ld"])]),
        .target(name: "GuestKit", dependencies: ["CGuest"], swiftSettings: settings),
        .target(name: "GuestNet", dependencies: ["GuestKit"], swiftSettings: settings),

        program("hello", "Samples/hello"),
        program("echo", "Samples/echo"),
        program("diskcat", "Samples/diskcat"),
        program("dice", "Samples/dice"),
        program("chat", "Samples/chat"),
        program("lend", "Samples/lend"),
        program("ping", "Samples/ping"),
        program("pipe", "Samples/pipe"),
        program("httpd", "Samples/httpd", ["GuestKit", "GuestNet"]),
        // No sample: what SampleTests has GuestKit tried by.
        program("exercise", "Exercise"),
    ]
)
//:
