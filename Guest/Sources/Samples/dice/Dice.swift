import GuestKit

/// Rolls two dice ten times, or as often as `rolls=N` says.
@main struct Dice {
    static func main() {
        var entropy = LguestBus.require(Entropy.self, "source of entropy")
        for _ in 0..<(Boot.number("rolls") ?? 10) {
            let first = entropy.number(below: 6) + 1
            let second = entropy.number(below: 6) + 1
            print("\(first) and \(second): \(first + second)")
        }
    }
}
