internal import Glibc
internal import HostInterface
internal import Virtio
internal import VirtioTesting

// libFuzzer's target for what a virtio driver can do. Its bytes are a driver's
// script (`DriverScript`), played to the device that the environment names:
// DEVICE=queue for a bare queue, in one thread and so the same each time, or
// one of `TestedDevice.all`. After the script the device must work for the
// next driver.

private enum Target {
    static let name = environmentVariable("DEVICE") ?? "queue"
    static let device = TestedDevice.all.first { $0.description == name }
    /// For the process's life: what a driver does, a reset must undo.
    nonisolated(unsafe) static let driver: GuestDriver? = {
        guard let device else { return nil }
        do { return try GuestDriver(device) } catch { fatalError("\(error)") }
    }()
}

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOne(_ start: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
    var script = DriverScript(unsafe [UInt8](UnsafeBufferPointer(start: start, count: count)))
    do {
        if let device = Target.device, let driver = unsafe Target.driver {
            try script.run(on: driver, device)
            try driver.bringUp()
            try driver.perform(device.request, on: driver.queues[device.queue])
            try driver.reset()
        } else {
            precondition(Target.name == "queue", "there is no device of that name")
            _ = try script.run(on: try BareQueue(size: 16))
        }
    } catch { fatalError("\(error)") }
    return 0
}
