package import GuestMemory
package import HostInterface
internal import Synchronization
package import VirtualCPU

//H:300 The Host, and what it is asked
//
// lguest's Host was a kernel module with one door, the file /dev/lguest. Its
// Launcher, an ordinary program, opened it, wrote down where the Guest's memory
// was and where to start, and then did nothing but read: a read ran the Guest,
// for as long as there was nothing for the Launcher to do.
//
//      Launcher                               Host
//        open                      -------->    a Guest that is nothing yet
//        write INITIALIZE …        -------->    it has memory, a CPU, a first instruction
//        read                      -------->    runs
//          <-- address                          it did NOTIFY, and the address is yours to know
//        write IRQ 3               -------->    … your answer
//        read                      -------->    runs
//          <-- ENOENT                           it has died
//        read  <-- "Bad hypercall 99"           and this is why
//        close                     -------->    as if it had never been
//
// We are no module. The Host is an object, the door is a class, and the same
// words that were written to the file can be handed to it. Whoever speaks Swift
// has methods instead (LguestGuest), and a C program has a library with the
// four calls (Sources/LguestLibrary).

/// All Guests that can reach each other. Any thread.
package final class LguestHost: Sendable {
    /// Makes a CPU for a Guest that is initialized.
    package typealias CPUMaker =
        @Sendable (GuestMemory, VCPURequests, any InterruptController) throws -> any VCPU

    private let makeCPU: CPUMaker?
    /// The Big Lguest Lock: no DMA, binding or closing but under it.
    private let state = Mutex(State())

    private struct State: @unchecked Sendable {
        var registry = DMARegistry()
        var nextID: UInt16 = 1
        var identifiers: Set<UInt16> = []
    }

    /// - Parameter makeCPU: for Guests that are opened without one of their own.
    package init(makeCPU: CPUMaker? = nil) { self.makeCPU = makeCPU }

    /// A handle for one Guest, to be closed.
    ///
    /// - Throws: ENOSPC after 65,535 of them at once, EMFILE when the process has too many files, ENOMEM.
    package func open(makeCPU: CPUMaker? = nil) throws(Errno) -> LguestGuest {
        guard let makeCPU = makeCPU ?? self.makeCPU else { preconditionFailure("a Guest without a CPU") }
        let requests: VCPURequests
        do throws(HostError) { requests = try VCPURequests(orThrow: ()) } catch { throw error.errno ?? .noMemory }
        let id = state.withLock { state -> UInt16? in
            guard state.identifiers.count < Int(UInt16.max) else { return nil }
            while state.nextID == 0 || state.identifiers.contains(state.nextID) { state.nextID &+= 1 }
            defer { state.nextID &+= 1 }
            state.identifiers.insert(state.nextID)
            return state.nextID
        }
        guard let id else { throw .noSpace }
        return LguestGuest(host: self, id: id, requests: requests, makeCPU: makeCPU)
    }

    func withRegistry<Result>(_ body: (inout DMARegistry) -> Result) -> Result {
        state.withLock { body(&$0.registry) }
    }

    /// Forgets a Guest that is closed.
    func remove(_ guest: LguestGuest) {
        state.withLock { state in
            state.registry.removeAll(of: guest)
            state.identifiers.remove(guest.id)
        }
    }
}
//:
