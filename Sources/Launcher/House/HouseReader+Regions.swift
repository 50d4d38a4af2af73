/// Memory by name: how large, and where each Guest sees it.
extension HouseReader {
    func regions(_ json: JSON) throws(JSONError) -> [HouseFile.Region] {
        guard case .object(let members) = json.content else {
            throw wrongType(json, "\"regions\"", "{\"shared0\": \"1M\"}")
        }
        var regions: [HouseFile.Region] = []
        for member in members {
            guard HouseFile.isName(member.key) else {
                throw JSONError(
                    position: member.keyPosition, message: "\(quoted(member.key)) is no name: \(HouseFile.nameRule)")
            }
            let text = try string(member.value, "a region", as: "\"1M\"")
            let size = try parsed(member.value, member.key) {
                try MemorySize(parsing: text, least: 4096, owner: "a region")
            }
            regions.append(HouseFile.Region(name: member.key, byteCount: size.bytes))
        }
        return regions
    }

    func places(_ json: JSON, _ known: [HouseFile.Region]) throws(JSONError) -> [HouseFile.RegionPlace] {
        guard case .object(let members) = json.content else {
            throw wrongType(json, "\"regions\"", "{\"shared0\": \"0x10000000\"}")
        }
        var places: [HouseFile.RegionPlace] = []
        for member in members {
            guard let region = known.first(where: { $0.name == member.key }) else {
                let names = known.isEmpty ? "none" : known.map(\.name).joined(separator: ", ")
                throw JSONError(
                    position: member.keyPosition,
                    message: "the house has no region \(quoted(member.key)); there is: \(names)")
            }
            let text = try string(member.value, "a region's address", as: "\"0x10000000\"")
            let digits = text.hasPrefix("0x") || text.hasPrefix("0X") ? (text.dropFirst(2), 16) : (text[...], 10)
            guard digits.0.first?.isHexDigit == true, let address = UInt64(digits.0, radix: digits.1) else {
                throw fault(member.value, "\(quoted(text)) is no address; write it as in \"0x10000000\"")
            }
            guard address % 4096 == 0 else {
                throw fault(member.value, "\(quoted(text)) is not the start of a 4K page")
            }
            guard address < HouseFile.addressLimit, region.byteCount <= HouseFile.addressLimit - address else {
                throw fault(member.value, "at \(quoted(text)) the region would end above the guest's addresses")
            }
            let place = HouseFile.RegionPlace(region: region, address: address)
            if let other = places.first(where: { $0.address < place.end && place.address < $0.end }) {
                throw fault(member.value, "there the guest sees the region \(quoted(other.region.name)) already")
            }
            places.append(place)
        }
        return places
    }
}
