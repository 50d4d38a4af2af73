/// Prints the text and a new line on the early console, which needs no device.
public func print(_ text: Text) {
    var line = text
    line.append(UInt8(ascii: "\n"))
    write(line)
}

/// Prints the text as it is.
public func write(_ text: Text) { text.withRegion { Hypercall.notify($0.address) } }

/// Ends the Guest with a reason: `roost` tells it, and has an exit status that says failure.
public func panic(_ reason: Text) -> Never { Power.crash(reason) }
