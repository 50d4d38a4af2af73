internal import Launcher

// libFuzzer's target for house files: whatever the bytes are, there is a house
// that keeps its promises, or one line that says what is wrong and where.

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOne(_ start: UnsafePointer<UInt8>, _ count: Int) -> Int32 {
    let bytes = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
    do {
        let house = try HouseFile(parsing: bytes, path: "house.json")
        precondition(HouseFile.isName(house.name) && !house.guests.isEmpty)
        precondition(Set(house.guests.map(\.name)).count == house.guests.count)
        for guest in house.guests {
            precondition(HouseFile.isName(guest.name))
            for place in guest.regions {
                precondition(place.address % 4096 == 0 && place.end <= HouseFile.addressLimit)
                precondition(house.regions.contains(place.region))
            }
        }
    } catch {
        let lines = bytes.count { $0 == 0x0a } + 1
        precondition((1...lines).contains(error.position.line) && error.position.column >= 1)
        precondition(!error.description.utf8.contains { $0 < 0x20 || $0 == 0x7f })
    }
    return 0
}
