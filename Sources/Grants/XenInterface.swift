internal import GuestMemory
package import HostInterface
package import X86

//D:290 Asking as Xen's Guests do
//
// There are two dozen hypercalls that a Linux makes during its boot on Xen, and
// most may be answered with "no such call". What remains is what lets pages and
// events cross from one Guest to another:
//
//     memory_op         put shared_info and the grant table's frames into my memory
//     event_channel_op  ports: make, bind, ring, close
//     grant_table_op    map, unmap, copy
//     hvm_op            how I want to be interrupted; where my store is
//     vcpu_op           where my vcpu_info is
//     xen_version       which of your promises hold
//     sched_op          the end
//
// Number in RAX, arguments in RDI, RSI, RDX, R10 and R8, most of which are
// addresses of the caller's: its page tables are walked for each. Calls are made
// by way of a page that the Host fills with code (`HypercallPage`), so that a
// kernel need not know whether it is to say VMCALL or VMMCALL. We know both.

/// The page with a stub for each hypercall.
enum HypercallPage {
    /// MOV EAX, number; VMCALL; RET. For iret, which no Guest of ours needs, UD2.
    static var bytes: [UInt8] {
        (0..<UInt8(4096 / XenABI.Hypercall.stubBytes)).flatMap { number -> [UInt8] in
            let code: [UInt8] =
                number == 23 ? [0x0f, 0x0b] : [0xb8, number, 0, 0, 0, 0x0f, 0x01, 0xc1, 0xc3]
            return code + [UInt8](repeating: 0xcc, count: XenABI.Hypercall.stubBytes - code.count)
        }
    }
}

/// What a domain asks of the Host. On its vCPU's thread, but for `unknownCalls`.
package final class XenInterface {
    package let house: DomainHouse
    package let domain: Domain
    unowned let machine: any XenMachine

    /// MSR that takes the hypercall page's address.
    package static let hypercallMSR: UInt32 = 0x4000_0000
    /// 4.17, the one of the tools that Debian 12 has.
    static let version: UInt32 = 4 << 16 | 17

    /// What was asked for in vain, by hypercall and operation.
    package private(set) var unknown: [UnknownCall: Int] = [:]
    private static let mostUnknown = 64

    package struct UnknownCall: Hashable, Comparable, Sendable {
        package let number: UInt64
        package let operation: UInt64

        package static func < (left: Self, right: Self) -> Bool {
            (left.number, left.operation) < (right.number, right.operation)
        }
    }

    /// In lines.
    package var remarks: [String] {
        unknown.sorted { $0.key < $1.key }.map { call, count in
            "xen: hypercall \(call.number), operation \(call.operation): not there, asked for \(count) times"
        }
    }

    package init(_ domain: Domain, of house: DomainHouse, on machine: any XenMachine) {
        (self.domain, self.house, self.machine) = (domain, house, machine)
    }

    /// For CPUID, behind KVM's: Linux takes whoever comes last of those that it knows.
    package var hypervisorLeaves: HypervisorLeaves {
        typealias CPUID = XenABI.CPUID
        let base = CPUID.first + CPUID.step
        let leaves = [
            CPUFeatures.Leaf(
                eax: base + CPUID.hvmLeaf, ebx: CPUID.signatureEBX,
                ecx: CPUID.signatureECX, edx: CPUID.signatureEDX),
            CPUFeatures.Leaf(eax: Self.version),
            CPUFeatures.Leaf(eax: 1, ebx: Self.hypercallMSR),
            CPUFeatures.Leaf(),
            CPUFeatures.Leaf(
                eax: CPUID.hvmHasVCPUID | CPUID.hvmHasDomid | CPUID.hvmHasUpcallVector, ecx: UInt32(domain.id)),
        ]
        return HypervisorLeaves(base: base, leaves: leaves)
    }

    /// Before the Guest's first instruction, and after each `end`.
    ///
    /// - Parameter address: where the Guest is to see the page that it shares with the store.
    /// - Throws: what the host lacks.
    package func begin(storeAt address: UInt64) throws(HostError) {
        do throws(Errno) {
            try house.withLock { _ throws(Errno) in try domain.place(Domain.SpecialPage.store, at: address >> 12) }
        } catch { throw HostError("cannot map the store's page", errno: error) }
        house.begin(domain)
    }

    /// Fills the hypercall page.
    ///
    /// - Parameter value: of the MSR: the page's address, and which page of one it is.
    package func writeHypercallMSR(_ value: UInt64) -> Bool {
        guard value & 0xfff == 0 else { return false }
        return (try? domain.memory.write(HypercallPage.bytes, at: GuestPhysicalAddress(value))) != nil
    }

    /// Does a hypercall.
    ///
    /// - Parameter cr3: of the caller.
    /// - Returns: what goes into RAX: at least 0, or minus an errno.
    package func call(_ number: UInt64, _ first: UInt64, _ second: UInt64, _ third: UInt64, cr3: UInt64) -> Int64 {
        let arguments = GuestArguments(memory: domain.memory, cr3: cr3)
        do throws(XenError) {
            typealias Call = XenABI.Hypercall
            return switch number {
            case Call.eventChannelOp: try eventChannel(first, second, arguments)
            case Call.grantTableOp: try grantTable(first, second, third, arguments)
            case Call.memoryOp: try memory(first, second, arguments)
            case Call.hvmOp: try hvm(first, second, arguments)
            case Call.vcpuOp: try vcpu(first, second, third, arguments)
            case Call.schedOp: try schedule(first, second, arguments)
            case Call.xenVersion: try version(first, second, arguments)
            default: throw .unknown
            }
        } catch {
            if error == .unknown { note(UnknownCall(number: number, operation: first)) }
            return -Int64(error.errno.rawValue)
        }
    }

    private func note(_ call: UnknownCall) {
        if unknown[call] != nil || unknown.count < Self.mostUnknown { unknown[call, default: 0] += 1 }
    }
}
//:

/// Why a hypercall fails.
enum XenError: Error, Equatable {
    case errno(Errno)
    /// There is no such call, or no such operation of it.
    case unknown

    static let fault = XenError.errno(.badAddress)
    static let invalid = XenError.errno(.invalid)
    static let notPermitted = XenError.errno(.notPermitted)

    var errno: Errno {
        switch self {
        case .errno(let errno): errno
        case .unknown: .noSystemCall
        }
    }
}

extension XenInterface {
    /// A copy of a struct of the caller's.
    func get(_ arguments: GuestArguments, _ address: UInt64, _ count: Int) throws(XenError) -> GuestStruct {
        guard let copy = GuestStruct(arguments, at: address, count: count) else { throw .fault }
        return copy
    }

    /// Whether the number means the caller.
    func isOwn(_ domid: UInt16) -> Bool { domid == XenABI.DOMID.selfID || domid == domain.id }

    func locked<Result: Sendable>(_ body: (DomainHouse.State) throws(Errno) -> Result) throws(XenError) -> Result {
        do throws(Errno) { return try house.withLock(body) } catch { throw .errno(error) }
    }
}
