internal import HostInterface
internal import Platform
internal import VirtualCPU

//H:010 The Host, from above
//
// A Guest is memory, a CPU, and something around the CPU that makes a machine
// of it. The CPU is the Switcher's chapter. The Host is the rest, and this is
// how its pieces meet:
//
//      the Guest's thread                         others
//
//      Launcher                                   a thread for each virtqueue,
//         | run                                   woken by an eventfd
//      Machine ------ PC: buses, APICs, clocks          |
//         |  ^        lguest: hypercalls, DMA           | reads and writes
//     run |  | exit                                     |
//         v  |                                          v
//       VCPU ---- loads and stores ----------> GuestMemory
//         ^                                             ^
//         | VCPURequests: interrupt, stop               | the same pages,
//         +--- alarm clock, devices, users              | in another Guest
//
// One thread runs a Guest. It is in the engine nearly all the time, comes out
// when the Guest wants what an engine has not, does that, and goes in again.
// Whoever else wants something of the Guest may do two things: touch its
// memory, which is made for that, and set a bit in one word, which the engine
// looks at between two blocks of code.
//
// There are two machines, because there are two kinds of Guest. One believes
// that it is on a PC, and has to be shown one, down to the chip that has told
// the time since 1984 (H:100 to H:240). The other knows better and says so in
// its file; it asks for things in so many words, and all that a PC is for
// comes down to a page of descriptors, thirty-two bits and twenty hypercalls
// (H:300 to H:370). Virtio's devices do not know which of the two they hang on.

/// What a Guest is run by: a PC, or lguest's machine. Everything but `stopper`
/// is for the one thread that runs it.
protocol Machine: AnyObject {
    /// Runs the Guest until it ends, or is stopped.
    func run() throws -> RunOutcome

    /// Everything back to power-on, and the Guest's file loaded again.
    func restart(_ source: BootSource) throws

    /// Ends what the devices' threads do with the Guest's memory. Before it goes away.
    func stopDevices()

    /// Makes `run` return `.stopped`. For any thread.
    var stopper: @Sendable () -> Void { get }

    /// COM1…COM4, as far as they are there.
    var serialPorts: [Serial16550?] { get }

    /// Nil before it runs for the first time.
    var vcpu: (any VCPU)? { get }

    /// What the devices have done.
    var deviceReport: VirtioReport { get }

    /// What else there is to say at the end, in lines.
    var remarks: [String] { get }

    /// Runs `body` while somebody asks the vCPU, again and again, where it is.
    func sampled<Result>(_ body: () throws -> Result) throws -> Result
}

extension Machine {
    var remarks: [String] { [] }
    /// What the engine has done.
    var report: EngineReport { vcpu?.report ?? EngineReport() }
    /// Registers and code, for a report of death.
    func describe() -> String { vcpu?.describe() ?? "" }
}
//:
