package import Storage

/// A disk as a user names it: `FILE[,ro][,format=raw|qcow2][,serial=TEXT]`.
package struct DiskOption: Equatable, Sendable {
    package var path: String
    package var isReadOnly = false
    /// nil: what the file's first bytes say.
    package var format: DiskFormat?
    package var serial: String?

    /// - Throws: one sentence, to be shown behind the option's name.
    package init(parsing text: String) throws(ConfigurationError) {
        var words = text.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        path = words.removeFirst()
        guard !path.isEmpty else { throw ConfigurationError("'\(text)' names no file") }
        for word in words {
            let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            switch (parts[0], parts.count == 2 ? parts[1] : nil) {
            case ("ro", nil): isReadOnly = true
            case ("format", let name?):
                guard let known = DiskFormat(rawValue: name) else {
                    let names = DiskFormat.allCases.map(\.rawValue).joined(separator: " or ")
                    throw ConfigurationError("'\(name)' is no format of a disk; there is \(names)")
                }
                format = known
            case ("serial", let name?):
                guard name.utf8.count <= 20, name.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else {
                    throw ConfigurationError("'\(name)' is no serial number; it has up to 20 plain characters")
                }
                serial = name
            default:
                throw ConfigurationError("'\(word)' says nothing of a disk; there is ro, format=… and serial=…")
            }
        }
    }
}
