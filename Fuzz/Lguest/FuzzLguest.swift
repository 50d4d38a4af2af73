internal import HostInterface
internal import LguestTesting

// libFuzzer's target for what a Guest on lguest's bus can do. MODE=bus: its
// descriptor page, its rings, NOTIFY (`BusScript`). MODE=calls: two Guests'
// hypercalls, lguest_data and DMA lists, and their Launchers' words
// (`CallScript`). After each script the Host must serve the next Guest.

private let mode = environmentVariable("MODE") ?? "calls"

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOne(_ start: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
    let bytes = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
    do {
        switch mode {
        case "bus":
            var script = BusScript(bytes)
            try script.run()
        case "calls":
            var script = try CallScript(bytes)
            try script.run()
        default: preconditionFailure("MODE is bus or calls")
        }
    } catch { fatalError("\(error)") }
    return 0
}
