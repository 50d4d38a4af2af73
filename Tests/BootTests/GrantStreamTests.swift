import HostInterface
import Testing

extension GrantBootTests {
    /// Streams of bytes, as the examples send them.
    @Suite(.oneHouse("anna", "bert")) struct Streams {
        private let anna: ProbeGuest
        private let bert: ProbeGuest

        init() throws {
            let guests = try #require(OneGrantHouse.current).shells()
            (anna, bert) = (guests[0], guests[1])
        }

        private static let vchan: ConditionTrait =
            .enabled(if: GrantPrograms.hasVchan, "vchan cannot be made here: it takes libxen-dev")

        @Test func ringCarriesAStream() throws { try carry("ring") }
        @Test(vchan) func vchanCarriesAStream() throws { try carry("vchan") }
        @Test func ringNoticesADeath() throws { try notice("ring") }
        @Test(vchan) func vchanNoticesADeath() throws { try notice("vchan") }

        /// 64 MiB each way.
        private func carry(_ program: String) throws {
            for (sender, receiver, from, to) in [(anna, bert, 1, 2), (bert, anna, 2, 1)] {
                try receiver.say("\(program) receive \(from)")
                let sent = try sender.run("\(program) send \(to) 64M", seconds: 60)
                let received = try receiver.status(seconds: 60)
                #expect(sent.status == 0 && received.status == 0, "\(sent) \(received)")
                print("\(program): \(sent.output.last ?? ""); \(received.output.last ?? "")")
                let sums = [sent, received].map { $0.output.joined().firstMatch(of: /checksum ([0-9a-f]{16})/)?.1 }
                #expect(sums[0] != nil && sums[0] == sums[1])
            }
        }

        /// More than can be sent by then; whoever is left says what is wrong, and ends.
        private func notice(_ program: String) throws {
            try bert.say("\(program) receive 1")
            try anna.say("\(program) send 2 900G & sleep 0.7; kill -9 $!")
            let received = try bert.status()
            #expect(received.status == 1)
            #expect(received.output.contains { $0.contains("the sender is gone") }, "\(received.output)")
            _ = try anna.status()
            // What a sender that has no time to clean up leaves in the store would be found by the next receiver.
            _ = try anna.run("probe --script 'store rm /local/domain/1/data/\(program)/2'")

            try anna.say("\(program) send 2 900G")
            try bert.say("\(program) receive 1 & sleep 0.7; kill -9 $!")
            let sent = try anna.status()
            #expect(sent.status == 1)
            #expect(sent.output.contains { $0.contains("the receiver is gone") }, "\(sent.output)")
            _ = try bert.status()
        }
    }
}
