import GuestKit
import GuestNet

/// A web server with one page, at 10.0.2.15 or where `address=A.B.C.D` says.
@main struct HTTPD {
    static let page: StaticString = """
        <!doctype html>
        <title>A Guest in Swift</title>
        <p>This page comes from a program without a system below it.</p>

        """
    static let missing: StaticString = "There is one page here, and it is called /.\n"

    static func main() {
        let network = LguestBus.require(Network.self, "network card")
        let host = IPv4Host(network, address: .told(or: IPv4Address(10, 0, 2, 15)))
        var server = TCPServer(host, port: 80)
        print("ready")
        server.serve { request in
            guard isWhole(request) else { return nil }
            guard begins(request, "GET ") else { return answer("405 Method Not Allowed", "text/plain", "Only GET.\n") }
            guard begins(request, "GET / ") else { return answer("404 Not Found", "text/plain", missing) }
            return answer("200 OK", "text/html; charset=utf-8", page)
        }
    }

    static func answer(_ status: StaticString, _ type: StaticString, _ body: StaticString) -> TCPServer.Answer {
        let body = Region(body)
        return TCPServer.Answer(
            "HTTP/1.0 \(status)\r\nContent-Type: \(type)\r\nContent-Length: \(body.count)\r\n\r\n", body)
    }

    /// Whether the empty line at the end of a request has come.
    static func isWhole(_ request: Region) -> Bool {
        let end: StaticString = "\r\n\r\n"
        var offset = 0
        while offset + 4 <= request.count {
            if begins(request.part(offset, request.count - offset), end) { return true }
            offset += 1
        }
        return false
    }

    static func begins(_ text: Region, _ prefix: StaticString) -> Bool {
        let prefix = Region(prefix)
        guard text.count >= prefix.count else { return false }
        for offset in 0..<prefix.count where text[offset] != prefix[offset] { return false }
        return true
    }
}
