import Glibc
import HostInterface
import Storage
import Testing

/// One writer, or any number of readers.
@Suite struct LockTests {
    private func withDisk(_ body: (String) throws -> Void) throws {
        try withFolder { folder in
            var creation = DiskCreation(path: folder + "/disk")
            creation.byteCount = 1 << 20
            try creation.run()
            try body(folder + "/disk")
        }
    }

    @Test func aSecondWriterIsRefused() throws {
        try withDisk { path in
            let first = try DiskImages.open(path: path)
            for readOnly in [false, true] {
                let error = #expect(throws: HostError.self) { _ = try DiskImages.open(path: path, readOnly: readOnly) }
                #expect("\(try #require(error))".contains("\(path): it is in use by this very process"))
            }
            #expect(try DiskInfo(path: path).user == "this very process")
            withExtendedLifetime(first) {}
        }
    }

    @Test func readersShare() throws {
        try withDisk { path in
            let first = try DiskImages.open(path: path, readOnly: true)
            let second = try DiskImages.open(path: path, readOnly: true)
            #expect(throws: HostError.self) { _ = try DiskImages.open(path: path) }
            withExtendedLifetime((first, second)) {}
        }
    }

    @Test func backingFilesAreReadByMany() throws {
        try withDisk { path in
            var images: [any DiskImage] = []
            for name in ["a", "b"] {
                var creation = DiskCreation(path: path + name)
                creation.backing = path
                try creation.run()
                images.append(try DiskImages.open(path: path + name))
            }
            let error = #expect(throws: HostError.self) { _ = try DiskImages.open(path: path) }
            #expect("\(try #require(error))".contains("roost disk create --backing"))
            withExtendedLifetime(images) {}
        }
    }

    @Test func whatIsClosedIsFree() throws {
        try withDisk { path in
            do { _ = try DiskImages.open(path: path) }
            #expect(try DiskInfo(path: path).user == nil)
            _ = try DiskImages.open(path: path)
        }
    }

    /// qemu-io holds the disk while we look at it, and is refused where we hold it.
    @Test(.enabled(if: QEMU.isHere, QEMU.reason)) func qemuAndWeRespectEachOther() throws {
        try withDisk { path in
            do {
                let image = try DiskImages.open(path: path)
                let refused = try Subprocess.run(["timeout", "60", "qemu-io", "-f", "qcow2", "-c", "write 0 512", path])
                #expect(refused.status != 0 && refused.errorText.contains("lock"), "\(refused.errorText)")
                let reader = try Subprocess.run(["timeout", "60", "qemu-img", "check", "-f", "qcow2", path])
                #expect(reader.status != 0)
                withExtendedLifetime(image) {}
            }
            // One that waits for its standard input to end.
            let input = try pipe()
            let thread = try HostThread(name: "qemu-io") {
                _ = try? Subprocess.run(["timeout", "60", "qemu-io", "-f", "qcow2", path], input: input[0])
            }
            // On its way it takes locks, gives them back and takes others: it has settled when they stay.
            var settled = 0
            while settled < 20 {
                settled = try DiskInfo(path: path).user == nil ? 0 : settled + 1
                usleep(25_000)
            }
            for readOnly in [false, true] {
                let error = #expect(throws: HostError.self) { _ = try DiskImages.open(path: path, readOnly: readOnly) }
                #expect("\(try #require(error))".contains("in use by qemu-io (process "))
            }
            close(input[1])
            thread.join()
            close(input[0])
        }
    }

    private func pipe() throws -> [Int32] {
        var ends: [Int32] = [0, 0]
        try #require(unsafe Glibc.pipe(&ends) == 0)
        // Or the child would keep its own input from ending.
        #expect(fcntl(ends[1], F_SETFD, FD_CLOEXEC) == 0)
        return ends
    }
}
