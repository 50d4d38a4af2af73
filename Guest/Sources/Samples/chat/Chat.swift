import GuestKit

/// Talks to another Guest that runs the same program, by DMA: `region=0x…` is
/// a page of memory that both share, `me=0` one of them and `me=1` the other. Each binds
/// a word of the page and sends to the other's. ^D or `bye` ends both.
@main struct Chat {
    static let irq = 30

    static func main() {
        guard let region = Boot.number("region"), let me = Boot.number("me"), me < 2 else {
            panic("chat needs region=ADDRESS and me=0 or me=1")
        }
        Pages.stop(before: region)
        var console = LguestBus.require(Console.self, "console")
        guard var inbox = Inbox(key: region + 4 * me, irq: irq) else { panic("no room to bind a key") }
        let other = region + 4 * (1 - me)
        console.write("ready\n")

        while true {
            Interrupts.wait(until: console.hasInput || inbox.message != nil)
            while let message = inbox.message {
                let text = Text(message)
                inbox.pop()
                if text == "bye" { return }
                console.write("<\(me == 0 ? 1 : 0)> \(text)\n")
            }
            guard console.hasInput else { continue }
            let line = console.readLine() ?? "bye"
            if line.isEmpty { continue }
            if !send(line, to: other) { console.write("(nobody listens)\n") }
            if line == "bye" { return }
        }
    }

    /// The other may not be there yet, or be behind with reading: patience for two seconds.
    static func send(_ line: Text, to key: UInt64) -> Bool {
        for _ in 0..<200 {
            if DMA.send(line, to: key) > 0 { return true }
            Clock.sleep(milliseconds: 10)
        }
        return false
    }
}
