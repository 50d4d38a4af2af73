/// struct lguest_data: the one page that the Host reads at every hypercall and
/// writes at every interrupt.
enum Shared {
    @safe nonisolated(unsafe) private(set) static var page = Region(address: 0, count: 0)

    static func begin() {
        page = Pages.take()
        // A slot of the ring is free when it says 0xff. Zeros would be 64 calls of number 0.
        page.part(Int(LguestData.hypercallStatus), LguestData.ringSize).fill(LguestData.slotFree)
        Hypercall.call(LguestHypercall.initialize, page.address)
    }

    static func load(_ offset: UInt64) -> UInt64 { page.load(Int(offset)) }
    static func store(_ value: UInt64, at offset: UInt64) { page.store(value, at: Int(offset)) }
}
