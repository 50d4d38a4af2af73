import Dispatch
import Glibc
import Grants
import Launcher

// A program that runs a house of guests and is one of their peers: it lends each
// of the first so many domains a page with a greeting, and prints what they write
// back. The guests' side is Examples/sharing/postcard.c.
//
//     Postcards HOUSE.json DOMAINS

/// Lends a page to one domain, and waits for the answer.
func write(to guest: UInt16, from host: HostDomain) throws -> String {
    let port = try host.allocatePort(for: guest)
    let (file, frame, reference) = try host.withAllocator { pages in
        let file = try pages.open()
        let index = try pages.allocate(1, for: guest, writable: true, in: file)
        return (file, try pages.frame(at: index, in: file), try pages.reference(at: index, in: file))
    }
    // However this ends, the page goes back as soon as the guest has let go of it.
    defer { host.withAllocator { try? $0.close(file) } }
    guard let page = unsafe host.page(frame) else { return "no page" }
    unsafe page.copyBytes(from: "greetings to domain \(guest), from the host".utf8)
    guard host.publish("\(reference) \(port)", at: "data/postcard-\(guest)", for: guest) else { return "no key" }
    // It rings once when it is connected, and again when there is an answer, whose first byte is not 0 then.
    let answer = unsafe UnsafeRawBufferPointer(rebasing: page[2048...])
    while unsafe answer[0] == 0 {
        guard host.waitForBells(milliseconds: 60_000).contains(port) else { return "no answer" }
    }
    // A copy: the guest may go on writing.
    let copy = unsafe [UInt8](answer)
    return String(decoding: copy.prefix { $0 != 0 && $0 < 0x80 }, as: UTF8.self)
}

@main struct Postcards {
    static func main() throws {
        let words = CommandLine.arguments
        guard words.count == 3, let guests = UInt16(words[2]), guests > 0 else {
            print("usage: Postcards HOUSE.json DOMAINS")
            exit(64)
        }
        let house = try House(contentsOf: words[1])
        let host = try HostDomain("host", in: house.domains)
        DispatchQueue.global().async {
            for guest in 1...guests {
                do { print("domain \(guest): \(try write(to: guest, from: host))") } catch {
                    print("domain \(guest): \(error)")
                }
            }
        }
        exit(try house.run())
    }
}
