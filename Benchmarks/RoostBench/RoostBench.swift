import HostInterface
import Interpreter
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
@main struct RoostBench {
    static func main() {
        do {
            let arguments = CommandLine.arguments
            guard arguments.count == 2 else { throw HostError("usage: RoostBench IMAGE") }
            let image = try readFile(arguments[1])
            print("mips \(try millionsPerSecond(image))")
            try Events.measure()
        } catch {
            StandardStream.error.write("RoostBench: \(error)\n")
            endProcess(status: 1)
        }
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
