import Launcher
import Testing

@Suite struct MemorySizeTests {
    @Test(arguments: [("512M", 512 << 20), ("2G", 2 << 30), ("64", 64 << 20), ("65536k", 64 << 20), ("1g", 1 << 30)])
    func parses(_ text: String, _ bytes: UInt64) throws {
        #expect(try MemorySize(parsing: text).bytes == bytes)
    }

    @Test(arguments: [
        "", "M", "-1M", "1.5G", "512MB", "0", "1M", "16385k", "300G", "99999999999999999999G", "18446744073709551615G",
        "½G",
    ])
    func refuses(_ text: String) {
        #expect(throws: ConfigurationError.self) { try MemorySize(parsing: text) }
    }

    @Test func namesWhatWasWritten() {
        let error = #expect(throws: ConfigurationError.self) { try MemorySize(parsing: "12Q") }
        #expect(error?.description.contains("'12Q'") == true)
    }
}

@Suite struct ConfigurationTests {
    @Test func findsEngines() throws {
        #expect(try EngineTable.engine(named: "interpreter").name == "interpreter")
    }

    @Test func listsEnginesWhenThereIsNoSuch() {
        let error = #expect(throws: ConfigurationError.self) { try EngineTable.engine(named: "warp") }
        #expect(error?.description.contains("interpreter") == true)
    }

    @Test func tellsFilesFromPackages() {
        var configuration = GuestConfiguration()
        configuration.setKernel("debian:linux-image-amd64")
        #expect(configuration.kernel == .debian(package: "linux-image-amd64"))
        configuration.setKernel("/boot/vmlinuz")
        #expect(configuration.kernel == .file("/boot/vmlinuz"))
    }

    @Test func refusesNamesThatAreNoPackages() throws {
        let store = PackageStore(folder: "/nonexistent", progress: try Progress(enabled: false))
        for name in ["", "../x", "a b", "-o", "Linux"] {
            #expect(throws: (any Error).self) { try store.folder(of: name) }
        }
    }

    @Test func refusesACommandWithAForeignInitrd() {
        var configuration = GuestConfiguration()
        configuration.initialRAMDisk = "/nonexistent"
        configuration.command = [Array("true".utf8)]
        #expect(throws: ConfigurationError.self) { try Launcher(configuration).run() }
    }
}
