import HostInterface
import Testing

/// The book in the code: every passage ends, no number is used twice, every
/// chapter that we claim to have can be printed, and JOURNEY.md lists them all.
@Suite struct JourneyTests {
    struct Passage: Hashable {
        var key: String
        var title: String
        var file: String
    }

    static func passages() throws -> [Passage] {
        var found: [Passage] = []
        let folders = ["Sources", "Tests", "tools", "Guest", "Benchmarks", "Fuzz"]
        let files =
            ["Package.swift", "Makefile"] + folders.flatMap { folder in Files.tree(folder).map { folder + "/" + $0 } }
        for file in files
        // A link is a file of the Host's that Guests have, too.
        where !file.contains("/.build/") && Files.link(at: file) == nil
            && (file.hasPrefix("tools/") || file.hasSuffix("Makefile")
                || ["swift", "c", "h", "S"].contains(where: { file.hasSuffix("." + $0) }))
        {
            var open: Passage?
            for line in String(decoding: try readFile(file), as: UTF8.self).split(
                separator: "\n", omittingEmptySubsequences: false)
            {
                let text = line.drop { $0 == " " || $0 == "\t" }
                guard text.hasPrefix("//") || text.hasPrefix("#") else { continue }
                if let match = text.wholeMatch(of: /(?:\/\/|#)([A-Z]:\d\d\d) (.+)/) {
                    #expect(open == nil, "\(file): \(match.1) begins within another")
                    open = Passage(key: String(match.1), title: String(match.2), file: file)
                } else if text == "//:" || text == "#:" {
                    if let open { found.append(open) } else { Issue.record("\(file): an end without a beginning") }
                    open = nil
                }
            }
            if let open { Issue.record("\(file): \(open.key) does not end") }
        }
        return found
    }

    @Test func numbersAreUsedOnce() throws {
        let passages = try Self.passages()
        #expect(passages.count > 20)
        for (key, same) in Dictionary(grouping: passages, by: \.key) where same.count > 1 {
            Issue.record("\(key) is in \(same.map(\.file))")
        }
    }

    @Test(arguments: ["Preparation", "Guest", "Launcher", "Host", "Switcher"])
    func chaptersCanBePrinted(_ chapter: String) throws {
        let result = try Subprocess.run(["tools/extract", chapter])
        #expect(result.status == 0, "\(result.errorText)")
        let letter = chapter.prefix(1)
        let text = String(decoding: result.output, as: UTF8.self)
        for passage in try Self.passages() where passage.key.hasPrefix(letter) {
            #expect(text.contains("[\(passage.key)  \(passage.title)]"))
        }
    }

    @Test func aChapterThatIsEmptyIsAnError() throws {
        #expect(try Subprocess.run(["tools/extract", "Nowhere"]).status == 64)
    }

    @Test func theToolAgrees() throws {
        let result = try Subprocess.run(["tools/extract", "--list"])
        let listed = String(decoding: result.output, as: UTF8.self).split(separator: "\n").map {
            String($0.split(separator: "\t")[0])
        }
        #expect(listed == (try Self.passages().map(\.key).sorted()))
    }

    @Test func theContentsPageIsComplete() throws {
        let page = String(decoding: try readFile("JOURNEY.md"), as: UTF8.self)
        let result = try Subprocess.run(["tools/extract", "--contents"])
        #expect(page.contains(String(decoding: result.output, as: UTF8.self)), "refresh it: make contents")
    }
}
