import GuestKit

/// Reads lines from the console and writes them back, until `exit` or ^D.
@main struct Echo {
    static func main() {
        var console = LguestBus.require(Console.self, "console")
        while let line = console.readLine() {
            console.write("\(line)\n")
            if line == "exit" { break }
        }
    }
}
