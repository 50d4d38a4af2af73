internal import CHost
internal import Glibc

/// A child process, run to its end.
package enum Subprocess {
    /// What came of it. `errorText` is all of its standard error.
    package struct Result: Sendable {
        /// As a shell has it: 128 + n for death by signal n.
        package let status: Int32
        package let output: [UInt8]
        package let errorText: String

        /// The last line of standard error that says something: what a user wants to know.
        package var lastWords: String {
            let lines = errorText.split(separator: "\n").filter { !$0.allSatisfy(\.isWhitespace) }
            return lines.last.map(String.init) ?? "exit status \(status)"
        }
    }

    /// Runs `arguments[0]`, looked for in PATH, in `folder`, and waits.
    ///
    /// - Parameter input: the descriptor that becomes standard input; /dev/null if nil.
    /// - Parameter environment: additions to ours.
    /// - Parameter started: called with the child's process id once it runs.
    /// - Throws: if it cannot be started; not for an exit status.
    package static func run(
        _ arguments: [String], in folder: String? = nil, input: Int32? = nil, environment: [String: String] = [:],
        started: (Int32) -> Void = { _ in }
    ) throws(HostError) -> Result {
        let name = arguments[0]
        let output = try Pipe()
        let errors = try Pipe()

        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        if let input {
            unsafe posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO)
        } else {
            unsafe posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        }
        unsafe posix_spawn_file_actions_adddup2(&actions, output.writing, STDOUT_FILENO)
        unsafe posix_spawn_file_actions_adddup2(&actions, errors.writing, STDERR_FILENO)
        if let folder { unsafe chost_spawn_in_folder(&actions, folder) }

        // A thread may have signals blocked that its child must not: a child that
        // cannot be interrupted outlives everybody.
        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        var noSignals = sigset_t()
        unsafe sigemptyset(&noSignals)
        unsafe posix_spawnattr_setsigmask(&attributes, &noSignals)
        unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))

        var variables = environmentVariables().filter { variable in
            !environment.keys.contains { variable.hasPrefix($0 + "=") }
        }
        variables += environment.map { $0.key + "=" + $0.value }

        let pid = try unsafe CStrings.with(arguments) { arguments throws(HostError) in
            try unsafe CStrings.with(variables) { variables throws(HostError) in
                var pid: pid_t = 0
                let result = unsafe posix_spawnp(&pid, name, &actions, &attributes, arguments, variables)
                guard result == 0 else { throw HostError("cannot run \(name)", errno: Errno(rawValue: result)) }
                return pid
            }
        }
        output.closeWriting()
        errors.closeWriting()
        started(pid)

        // Both at once: a child that fills one pipe while we read the other would wait for ever.
        var outputBytes: [UInt8] = []
        var errorBytes: [UInt8] = []
        var open = [true, true]
        while open.contains(true) {
            let ready = waitReadable([open[0] ? output.reading : -1, open[1] ? errors.reading : -1])
            if ready[0] { open[0] = output.read(appendingTo: &outputBytes) }
            if ready[1] { open[1] = errors.read(appendingTo: &errorBytes) }
        }
        var status: Int32 = 0
        while unsafe waitpid(pid, &status, 0) < 0, Errno.current == .interrupted {}
        return Result(
            status: chost_exit_status(status), output: outputBytes,
            errorText: String(decoding: errorBytes, as: UTF8.self))
    }

    private static func environmentVariables() -> [String] {
        var variables: [String] = []
        guard var entry = unsafe chost_environment() else { return [] }
        while let variable = unsafe entry.pointee {
            unsafe variables.append(String(cString: variable))
            unsafe entry += 1
        }
        return variables
    }
}

/// A pipe(2) both of whose ends are ours at first.
private final class Pipe {
    let reading: Int32
    private(set) var writing: Int32

    init() throws(HostError) {
        var ends: [Int32] = [-1, -1]
        guard unsafe chost_pipe(&ends) == 0 else { throw HostError("cannot create a pipe", errno: .current) }
        reading = ends[0]
        writing = ends[1]
    }

    deinit {
        close(reading)
        closeWriting()
    }

    func closeWriting() {
        if writing >= 0 { close(writing) }
        writing = -1
    }

    /// False at the end.
    func read(appendingTo bytes: inout [UInt8]) -> Bool {
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        let count = unsafe Glibc.read(reading, &buffer, buffer.count)
        if count > 0 { bytes += buffer[..<count] }
        return count > 0 || (count < 0 && Errno.current == .interrupted)
    }
}

/// An array of C strings with a null at its end, as exec wants it.
private enum CStrings {
    static func with<Result>(
        _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) throws(HostError) -> Result
    ) throws(HostError) -> Result {
        var pointers: [UnsafeMutablePointer<CChar>?] = unsafe strings.map { unsafe strdup($0) }
        unsafe pointers.append(nil)
        defer { unsafe pointers.forEach { unsafe free($0) } }
        return try unsafe body(&pointers)
    }
}
