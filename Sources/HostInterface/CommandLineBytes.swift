internal import Glibc

/// The process's arguments as they are: bytes.
package enum CommandLineBytes {
    package static var arguments: [[UInt8]] {
        (0..<Int(CommandLine.argc)).map { index in
            guard let argument = unsafe CommandLine.unsafeArgv[index] else { return [] }
            return unsafe Array(UnsafeRawBufferPointer(start: argument, count: strlen(argument)))
        }
    }
}

/// Ends the process.
package func endProcess(status: Int32) -> Never { Glibc.exit(status) }
