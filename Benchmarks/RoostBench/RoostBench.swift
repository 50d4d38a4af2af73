import HostInterface
import Interpreter
import Launcher
import VirtualCPU
import X86

//M:200 How fast is it, in numbers that mean something
//
// Instructions per second is a poor figure to choose a machine by and a good
// one to watch an interpreter with: it is one over what a handler costs. To
// be honest about it, nothing is estimated. The integer mix, a bare-metal
// image of its own here, is run one instruction at a time and counted; then
// the same rounds again at full speed, by the clock.

/// RoostBench IMAGE: lines "mips VALUE" and "event NAME NANOSECONDS".
/// RoostBench initramfs KERNEL-PACKAGE BUSYBOX: what `roost run` makes for a disk and a network, for others to boot with too.
/// RoostBench lguest HELLO: lines "lguest NAME NANOSECONDS".
/// RoostBench tsc: the time stamp counter's kHz, here and in guests.
@main struct RoostBench {
    static func main() {
        do {
            let arguments = CommandLine.arguments
            if arguments.count == 4, arguments[1] == "initramfs" {
                return try writeInitramfs(package: arguments[2], busybox: arguments[3])
            }
            if arguments.count == 3, arguments[1] == "lguest" { return try LguestEvents.measure(hello: arguments[2]) }
            guard arguments.count == 2 else {
                throw HostError(
                    "usage: RoostBench IMAGE | RoostBench initramfs KERNEL-PACKAGE BUSYBOX | RoostBench lguest HELLO | RoostBench tsc"
                )
            }
            if arguments[1] == "tsc" { return print(HostClock.timeStampFrequency / 1000) }
            let image = try readFile(arguments[1])
            print("mips \(try millionsPerSecond(image))")
            try Events.measure()
        } catch {
            StandardStream.error.write("RoostBench: \(error)\n")
            endProcess(status: 1)
        }
    }

    private static func writeInitramfs(package: String, busybox: String) throws {
        let modules = try KernelModules(root: package).resolve(["virtio_mmio", "virtio_blk", "virtio_net"])
        StandardStream.output.write(
            InitialRAMDisk.build(session: Session(kind: .piped), busybox: try readFile(busybox), modules: modules))
    }

    private static func millionsPerSecond(_ image: [UInt8]) throws -> Double {
        let guest = try BareGuest(image)
        // Tables that are only made once, and the decoding.
        guest.start(rounds: 1)
        try guest.runToHalt()
        let rounds: UInt64 = 40
        guest.start(rounds: rounds)
        let (exit, instructions) = guest.vcpu.run(atMost: 1 << 30)
        guard case .halt = exit else {
            throw HostError("the integer mix did not come to its end\n\(guest.vcpu.describe())")
        }
        print("instructions \(instructions) in \(rounds) rounds")
        // The best of ten, of some tenths of a second each: the others were disturbed.
        var best = UInt64.max
        for _ in 0..<10 {
            var elapsed: UInt64 = 0
            for _ in 0..<20 {
                guest.start(rounds: rounds)
                elapsed += try guest.runToHalt()
            }
            best = min(best, elapsed)
        }
        return Double(instructions) * 20 * 1000 / Double(best)
    }
}
//:
