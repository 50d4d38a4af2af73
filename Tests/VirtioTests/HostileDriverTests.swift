import Testing
import Virtio
import VirtioTesting

extension HostileCase {
    static let all = setUp + rings + requests

    /// Rules that no case is about, and why.
    static let without: [Int: String] = [
        13: "packed rings are not offered",
        18: "there is no vsock",
        19: "there is no balloon, and no memory to be plugged",
        21: "there are no grants",
    ]
}

/// What a device must enforce against a hostile driver: each rule, broken in
/// every way that we could think of, with each device.
@Suite struct HostileDriverTests {
    @Test(arguments: HostileCase.all, TestedDevice.all)
    func deviceAnswersAsTheRuleSays(_ breach: HostileCase, _ device: TestedDevice) throws {
        #expect(try breach.complaints(about: device) == [])
    }

    @Test(arguments: TestedDevice.all.flatMap { device in device.cases.map { (device, $0) } })
    func deviceAnswersAsItsOwnRuleSays(_ device: TestedDevice, _ breach: HostileCase) throws {
        #expect(try breach.complaints(about: device) == [])
    }

    @Test func everyRuleHasACaseOrAReason() {
        let rules = Set((HostileCase.all + TestedDevice.all.flatMap(\.cases)).map(\.rule))
        #expect(rules.union(HostileCase.without.keys) == Set(1...21))
    }
}
