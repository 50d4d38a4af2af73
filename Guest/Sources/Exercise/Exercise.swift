import GuestKit

/// Tries the kit, for SampleTests: each line says what and whether it held.
/// `end=NAME` ends it in one of the ways there are.
@main struct Exercise {
    static func main() {
        say("text", "\(-5) \(UInt64.max) \(hex: 0xbeef)" as Text == "-5 18446744073709551615 0xbeef")
        say("words", Boot.word("nothing") == nil && Boot.number("number") == 0x1f && Boot.word("bare") != nil)
        clock()
        ring()
        bus()
        disk()
        memory()
        if Xen.isPresent { Sharing.check() }
        end(Boot.word("end") ?? "")
    }

    static func say(_ what: StaticString, _ holds: Bool) { print("\(what): \(holds ? "yes" : "NO")") }

    static func clock() {
        let start = Clock.nanoseconds
        Clock.sleep(milliseconds: 20)
        let slept = Clock.nanoseconds - start
        say("sleep", slept >= 20_000_000)
        say("wall clock", Clock.wallClock > 1_700_000_000)
        let isInTime = Interrupts.wait(until: true, before: 0)
        say("time is up", isInTime && !Interrupts.wait(until: false, before: Clock.nanoseconds + 1_000_000))

        // A clock event whose interrupt is blocked waits; unblocked, it comes.
        Interrupts.block(0)
        Interrupts.handle(0) { _ in Exercise.rings.value += 1 }
        Hypercall.later(9, 1_000_000)  // SET_CLOCKEVENT, by the ring.
        Hypercall.flushAsync()
        let deadline = Clock.nanoseconds + 10_000_000
        while Clock.nanoseconds < deadline {}
        let before = Exercise.rings.value
        Interrupts.unblock(0)
        Interrupts.wait(until: Exercise.rings.value > 0)
        say("blocked", before == 0)
        Interrupts.handle(0, nil)
    }

    /// Interrupts add to it; one CPU, so nothing meets.
    struct Count { var value = 0 }
    @safe nonisolated(unsafe) static var rings = Count()

    /// More calls than the ring has room for: the one that finds it full is done directly.
    static func ring() {
        for _ in 0..<200 { Hypercall.later(11) }  // GET_WALLCLOCK
        Hypercall.flushAsync()
        say("ring", true)
    }

    static func bus() {
        var count = 0
        var holds = true
        for device in LguestBus.devices {
            count += 1
            holds = holds && device.offered & LguestDevice.version1 != 0
            guard device.configurationBytes >= 2 else { continue }
            holds = holds && device.take(0, as: UInt16.self) != nil && device.take(1, as: UInt8.self) == nil
            device.reset()
            holds = holds && device.take(device.configurationBytes - 1, as: UInt16.self) == nil
            holds = holds && device.take(1, as: UInt8.self) != nil
        }
        say("bus", holds && count > 0)
        guard var entropy = LguestBus.first(Entropy.self) else { return }
        var seen: UInt8 = 0
        for _ in 0..<10_000 { seen |= 1 << entropy.number(below: 6) }
        say("entropy", seen == 0b11_1111)
    }

    /// Writes to the end of the disk and reads it back.
    static func disk() {
        guard var disk = LguestBus.first(Disk.self), !disk.isReadOnly else { return }
        let (out, back) = (Pages.take(), Pages.take())
        for index in 0..<out.count { out[index] = UInt8(truncatingIfNeeded: index &* 7) }
        let sector = disk.sectors - UInt64(out.count / Disk.sectorBytes)
        say("write and flush", disk.write(sector, from: out) && disk.flush())
        var isSame = disk.read(sector, into: back)
        for index in 0..<out.count { isSame = isSame && out[index] == back[index] }
        say("read", isSame)
        say("beyond the end", !disk.read(disk.sectors, into: back))
    }

    static func memory() {
        let two = Pages.take(2)
        for index in 0..<10 { two[index] = UInt8(index) }
        two.part(1, 9).copy(from: two.prefix(9))
        say("overlapping copy", two[1] == 0 && two[9] == 8)
        say("zeroed pages", two[8191] == 0)
        Paging.unmap(page: two.address + 4096)
        say("the page before one without a map", two[4095] == 0)
        Paging.map(0x40_0000_0000..<0x40_0000_1000)
    }

    static func end(_ how: Text) {
        if how == "panic" { panic("as was asked for") }
        if how == "nil" { print("\(Region(address: 8, count: 8)[0])") }
        if how == "bounds" { print("\(Pages.take()[4096])") }
        if how == "stack" { print("\(deeper(1))") }
        if how == "memory" { while true { _ = Pages.take(4096) } }
        if how == "restart" { Power.restart() }
    }

    @inline(never) static func deeper(_ number: UInt64) -> UInt64 {
        number == 0 ? 1 : deeper(number + Clock.nanoseconds % 2 + 1) + number
    }
}
