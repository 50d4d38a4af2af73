internal import Virtio

/// A rule of the specification, broken by a driver in one way, and what the
/// device must make of it.
package struct HostileCase: Sendable, CustomStringConvertible {
    package enum Verdict: Sendable {
        /// FEATURES_OK does not stand.
        case refused
        /// As though the driver had not said it; the device goes on.
        case ignored
        /// DEVICE_NEEDS_RESET, an interrupt if the driver was ready, and no hand on the queue any more.
        case needsReset
        /// The driver gets its chains back, and the device goes on.
        case used
        /// `used` or `needsReset`: the device may choose.
        case answered
    }

    /// How far the driver has come, by the book, when it does it.
    package enum Stage: Sendable {
        case reset
        case featuresOK
        case running
    }

    /// Its number in the list of rules.
    package let rule: Int
    package let name: String
    package let stage: Stage
    /// Features that are negotiated, as far as they are offered.
    package let features: UInt64
    package let verdict: Verdict
    package let act: @Sendable (_ driver: GuestDriver, _ device: TestedDevice) throws -> Void

    package var description: String { "\(rule): \(name)" }

    package init(
        _ rule: Int, _ name: String, at stage: Stage = .running, features: UInt64 = .max, _ verdict: Verdict,
        act: @escaping @Sendable (_ driver: GuestDriver, _ device: TestedDevice) throws -> Void
    ) {
        self.rule = rule
        self.name = name
        self.stage = stage
        self.features = features
        self.verdict = verdict
        self.act = act
    }

    // MARK: Judging

    /// Does it to a new device.
    ///
    /// - Returns: what the device did wrong.
    package func complaints(about device: TestedDevice) throws -> [String] {
        let driver = try GuestDriver(device)
        var complaints: [String] = []
        switch stage {
        case .reset: try driver.reset()
        case .featuresOK:
            try driver.reset()
            guard driver.negotiate(driver.offered & features) else { return ["its own features are refused"] }
        case .running: try driver.bringUp(features: features)
        }
        let rises = driver.interrupt.rises
        try act(driver, device)
        switch verdict {
        case .refused:
            if driver.status.contains(.featuresOK) { complaints.append("FEATURES_OK stands") }
        case .ignored:
            if driver.status.contains(.needsReset) { complaints.append("needs a reset: \(driver.notes.all)") }
            complaints += try goesOn(driver, device)
        case .used:
            if try !answered(driver, device) { complaints.append("needs a reset: \(driver.notes.all)") }
            complaints += try goesOn(driver, device)
        case .answered: if device.answersAll { _ = try answered(driver, device) }
        case .needsReset: complaints += try broke(driver, device, since: rises)
        }
        // A reset waits for the device's threads: what they have done is done.
        driver.write(.status, 0)
        complaints += try driver.ram.strayWrites().map { "it wrote to \($0)" }
        if driver.status.rawValue != 0 { complaints.append("status \(driver.status.rawValue) after a reset") }
        if driver.read(.interruptStatus) != 0 || driver.interrupt.isHigh {
            complaints.append("an interrupt after a reset")
        }
        return try complaints + worksAgain(driver, device)
    }

    /// Waits until all chains are back.
    ///
    /// - Returns: false if the device wants a reset instead.
    private func answered(_ driver: GuestDriver, _ device: TestedDevice) throws -> Bool {
        let queue = driver.queues[device.queue]
        let isOver = try driver.wait {
            while try queue.takeUsed() != nil {}
            return queue.chainsWithDevice == 0 || driver.status.contains(.needsReset)
        }
        guard isOver else { throw DriverError("\(queue.chainsWithDevice) chains do not come back") }
        return !driver.status.contains(.needsReset)
    }

    private func goesOn(_ driver: GuestDriver, _ device: TestedDevice) throws -> [String] {
        guard driver.queues.indices.contains(device.queue), driver.status.contains(.driverOK) else { return [] }
        do { try driver.perform(device.request, on: driver.queues[device.queue]) } catch let error as DriverError {
            return ["it does not go on: \(error)"]
        }
        return []
    }

    private func broke(_ driver: GuestDriver, _ device: TestedDevice, since rises: Int) throws -> [String] {
        var complaints: [String] = []
        guard driver.wait({ driver.status.contains(.needsReset) }) else { return ["DEVICE_NEEDS_RESET is not set"] }
        guard driver.status.contains(.driverOK) else {
            // The driver has not got so far, and gets no further.
            if driver.notes.all.count != 1 { complaints.append("said about it: \(driver.notes.all)") }
            if driver.interruptReason != [] { complaints.append("an interrupt before DRIVER_OK") }
            driver.add(.driverOK)
            driver.notify(device.queue)
            return complaints
        }
        if !driver.wait({ driver.interruptReason.contains(.configuration) && driver.interrupt.isHigh }) {
            complaints.append("no configuration interrupt")
        }
        if driver.notes.all.count != 1 { complaints.append("said about it: \(driver.notes.all)") }
        if driver.interrupt.rises == rises { complaints.append("the line did not rise") }
        guard driver.queues.indices.contains(device.queue) else { return complaints }
        // Whatever else is in the queue stays there.
        let queue = driver.queues[device.queue]
        let index = try driver.ram.loadShared(at: queue.usedIndex)
        driver.notify(device.queue)
        if try driver.ram.loadShared(at: queue.usedIndex) != index { complaints.append("it goes on using buffers") }
        return complaints
    }

    private func worksAgain(_ driver: GuestDriver, _ device: TestedDevice) throws -> [String] {
        do {
            try driver.bringUp()
            try driver.perform(device.request, on: driver.queues[device.queue])
        } catch let error as DriverError { return ["after a reset: \(error)"] }
        driver.write(.status, 0)
        return try driver.ram.strayWrites().map { "after a reset it wrote to \($0)" }
    }
}
