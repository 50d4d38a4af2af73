internal import Glibc
internal import HostInterface
internal import VirtualCPU

/// `--profile`: what is watched, the file that it goes to, and the names that are known.
final class Profiler {
    let profile = GuestProfile()
    private let path: String
    private let file: FileDescriptor
    private let names: [SymbolTable]
    private var systemCallEntry: UInt64 = 0

    /// - Throws: naming the file that cannot be written, or has no symbols.
    init(path: String, symbols: [String]) throws(HostError) {
        self.path = path
        var names: [SymbolTable] = []
        for path in symbols { names.append(try SymbolTable(contentsOf: path)) }
        self.names = names
        do { file = try FileDescriptor.open(path, O_WRONLY | O_CREAT | O_TRUNC) } catch {
            throw HostError("cannot write the profile to \(path)", errno: error.errno)
        }
    }

    /// Before a reset makes it forget: where the kernel is entered tells where it lies.
    func look(at vcpu: any VCPU) {
        let entry = vcpu.readState { $0.lstar }
        if entry != 0 { systemCallEntry = entry }
    }

    func write(engine: String, _ report: EngineReport) throws(HostError) {
        let names = GuestSymbols(names, systemCallEntry: systemCallEntry)
        let text = ProfileText(engine: engine, report: report, profile: profile, names: names).description
        do { try file.write(Array(text.utf8)) } catch {
            throw HostError("cannot write the profile to \(path)", errno: error)
        }
    }
}
