import GuestKit

/// Says one line, and is done: what is printed goes to the early console, and
/// who leaves `main` powers off.
@main struct Hello {
    static func main() {
        print("Hello from a Guest in Swift, with \(Boot.memoryBytes >> 20) MiB to itself.")
    }
}
