/// A file that a Guest is given, as a user names it: `FILE[:PLACE]`.
package struct FileOption: Equatable, Sendable {
    /// The host's.
    package var path: String
    /// The Guest's, without its first slash.
    package var place: String

    /// - Throws: one sentence, to be shown behind the option's name.
    package init(parsing text: String) throws(ConfigurationError) {
        // The last colon: a file of the host's may have some in its name.
        let parts = text.lastIndex(of: ":").map { (text[..<$0], text[text.index(after: $0)...]) } ?? (text[...], "")
        path = String(parts.0)
        guard !path.isEmpty else { throw ConfigurationError("'\(text)' names no file") }
        guard parts.1.isEmpty || parts.1.hasPrefix("/") else {
            throw ConfigurationError("'\(parts.1)' is no place in the guest; it begins with a slash")
        }
        let name = path.split(separator: "/").last.map(String.init) ?? ""
        let wanted = parts.1.isEmpty || parts.1.hasSuffix("/") ? (parts.1.isEmpty ? "/bin/" : parts.1) + name : parts.1
        let words = wanted.split(separator: "/")
        guard let last = words.last, !words.contains(".."), !words.contains("."), last.utf8.count < 256 else {
            throw ConfigurationError("'\(wanted)' is no place for a file")
        }
        place = words.joined(separator: "/")
    }
}
