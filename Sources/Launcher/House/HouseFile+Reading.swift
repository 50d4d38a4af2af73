internal import HostInterface
internal import Network

/// Something in a house file that cannot be, in one line.
package struct HouseFileError: Error, CustomStringConvertible, Sendable {
    package let path: String
    package let position: JSON.Position
    package let message: String

    package var description: String { "\(path):\(position.line):\(position.column): \(message)" }
}

extension HouseFile {
    /// - Throws: `HouseFileError`, or `HostError` if the file cannot be read.
    package init(path: String) throws {
        try self.init(parsing: try readFile(path, limit: JSON.mostBytes), path: path)
    }

    /// - Parameter path: where the bytes are from: for messages, the house's name, and paths that are relative to it.
    package init(parsing bytes: [UInt8], path: String) throws(HouseFileError) {
        do {
            self = try HouseReader(path: path).house(try JSON(parsing: bytes))
        } catch {
            throw HouseFileError(path: path, position: error.position, message: error.message)
        }
    }

    /// The keys of the file's three kinds of object with keys of our own choice, for docs/house.schema.json to agree with.
    package static let houseKeys = HouseReader.houseKeys
    package static let guestKeys = HouseReader.guestKeys
}

/// From JSON to a house. An error is the value's at fault.
struct HouseReader {
    let path: String

    static let houseKeys = ["$schema", "name", "guests", "regions"]
    static let guestKeys = [
        "name", "kernel", "initrd", "append", "memory", "disks", "net", "console", "rng", "engine", "command",
        "regions", "reboot", "xen", "files",
    ]

    func house(_ json: JSON) throws(JSONError) -> HouseFile {
        let house = try object(json, "a house", Self.houseKeys)
        if let schema = house["$schema"] { _ = try string(schema, "\"$schema\"") }
        let regions = try house["regions"].map { json throws(JSONError) in try self.regions(json) } ?? []
        guard let list = house["guests"] else { throw fault(json, "a house needs \"guests\", a list") }
        let name = if let value = house["name"] { try self.name(value) } else { try baseName(json) }
        let elements = try array(list, "\"guests\"")
        guard !elements.isEmpty else { throw fault(list, "\"guests\" is empty; a house has one at the least") }
        guard elements.count <= HouseFile.mostGuests else {
            throw fault(elements[HouseFile.mostGuests], "more than \(HouseFile.mostGuests) guests")
        }
        var guests: [HouseFile.Guest] = []
        var lines: [String: Int] = [:]
        for element in elements {
            let members = try object(element, "a guest", Self.guestKeys)
            guard let nameValue = members["name"] else { throw fault(element, "a guest needs a \"name\"") }
            let name = try self.name(nameValue)
            if let first = lines.updateValue(nameValue.position.line, forKey: name) {
                throw fault(nameValue, "there are two guests called \(quoted(name)); the first is in line \(first)")
            }
            guests.append(try guest(name, members, element, regions))
        }
        introduceNeighbours(&guests)
        return HouseFile(name: name, guests: guests, regions: regions)
    }

    /// Tells each Guest on a switch who else is there.
    private func introduceNeighbours(_ guests: inout [HouseFile.Guest]) {
        var places: [String: [(guest: Int, neighbour: Neighbour)]] = [:]
        for (index, guest) in guests.enumerated() {
            guard case .switch(let name) = guest.configuration.network.kind else { continue }
            let neighbour = Neighbour(name: guest.name, index: places[name]?.count ?? 0)
            places[name, default: []].append((index, neighbour))
        }
        for all in places.values {
            for place in all {
                let others = all.filter { $0.guest != place.guest }.map(\.neighbour)
                guests[place.guest].configuration.neighbours = [place.neighbour] + others
            }
        }
    }

    private func guest(
        _ name: String, _ members: [String: JSON], _ json: JSON, _ known: [HouseFile.Region]
    ) throws(JSONError) -> HouseFile.Guest {
        var configuration = GuestConfiguration()
        func option(_ key: String, _ use: (JSON) throws(JSONError) -> Void) throws(JSONError) {
            if let value = members[key] { try use(value) }
        }
        try option("kernel") { value throws(JSONError) in
            configuration.setKernel(try nonempty(value, "kernel"))
            if case .file(let path) = configuration.kernel { configuration.kernel = .file(besides(path)) }
        }
        try option("initrd") { value throws(JSONError) in
            configuration.initialRAMDisk = besides(try nonempty(value, "initrd"))
        }
        try option("append") { value throws(JSONError) in
            configuration.commandLine = try string(value, "\"append\"")
        }
        try option("memory") { value throws(JSONError) in
            let text = try string(value, "\"memory\"", as: "\"512M\"")
            configuration.memory = try parsed(value, "memory") { try MemorySize(parsing: text) }
        }
        try option("disks") { value throws(JSONError) in
            for element in try array(value, "\"disks\"", as: "[\"disk.qcow2\"]") {
                let text = try string(element, "an element of \"disks\"")
                var disk = try parsed(element, "disks") { try DiskOption(parsing: text) }
                disk.path = besides(disk.path)
                configuration.disks.append(disk)
            }
        }
        try option("files") { value throws(JSONError) in
            for element in try array(value, "\"files\"", as: "[\"program:/bin/program\"]") {
                let text = try string(element, "an element of \"files\"")
                var file = try parsed(element, "files") { try FileOption(parsing: text) }
                file.path = besides(file.path)
                configuration.files.append(file)
            }
        }
        try option("net") { value throws(JSONError) in
            let text = try string(value, "\"net\"")
            configuration.network = try parsed(value, "net") { try NetworkOption(parsing: text, in: .house) }
        }
        try option("console") { value throws(JSONError) in
            let text = try string(value, "\"console\"")
            guard let kind = ConsoleKind(rawValue: text) else {
                let names = ConsoleKind.allCases.map(\.rawValue).joined(separator: " or ")
                throw fault(value, "\"console\": \(quoted(text)) is no terminal of a guest; there is \(names)")
            }
            configuration.console = kind
        }
        try option("rng") { value throws(JSONError) in configuration.hasEntropy = try boolean(value, "\"rng\"") }
        try option("engine") { value throws(JSONError) in
            let text = try string(value, "\"engine\"")
            guard text == EngineTable.automatic || EngineTable.all.contains(where: { $0.name == text }) else {
                throw fault(value, "\"engine\": there is no engine \(quoted(text)); there is: \(EngineTable.names)")
            }
            configuration.engine = text
        }
        try option("command") { value throws(JSONError) in
            for element in try array(value, "\"command\"", as: "[\"uname\", \"-a\"]") {
                let text = try string(element, "an element of \"command\"")
                configuration.command.append(Array(text.utf8))
            }
        }
        try option("reboot") { value throws(JSONError) in
            configuration.restartsOnReboot = try boolean(value, "\"reboot\"")
        }
        try option("xen") { value throws(JSONError) in configuration.isXen = try boolean(value, "\"xen\"") }
        configuration.name = name
        // What two keys cannot say together is said of the command.
        if let command = members["command"], !configuration.command.isEmpty {
            try checkCommand(command, members)
        }
        var guest = HouseFile.Guest(name: name, configuration: configuration)
        try option("regions") { value throws(JSONError) in guest.regions = try places(value, known) }
        return guest
    }

    private func checkCommand(_ command: JSON, _ members: [String: JSON]) throws(JSONError) {
        if members["initrd"] != nil {
            throw fault(
                command, "a command runs in the initramfs that roost builds: leave \"initrd\" out, or \"command\"")
        }
        if case .string(let append)? = members["append"]?.content,
            append.split(separator: " ").contains(where: { $0.hasPrefix("root=") })
        {
            throw fault(command, "with root= in \"append\" the disk's own programs run: leave it out, or \"command\"")
        }
    }

    // MARK: Names and paths

    func name(_ json: JSON) throws(JSONError) -> String {
        let text = try string(json, "\"name\"")
        guard HouseFile.isName(text) else { throw fault(json, "\(quoted(text)) is no name: \(HouseFile.nameRule)") }
        return text
    }

    /// The house that has no name is called as its file.
    func baseName(_ json: JSON) throws(JSONError) -> String {
        var name = path.split(separator: "/").last.map(String.init) ?? ""
        if name.hasSuffix(".json") { name.removeLast(".json".count) }
        guard HouseFile.isName(name) else {
            throw fault(json, "the file's name is none for a house (\(HouseFile.nameRule)): add \"name\"")
        }
        return name
    }

    /// Relative paths are relative to the file that they are written in.
    func besides(_ other: String) -> String {
        guard !other.hasPrefix("/"), let slash = path.lastIndex(of: "/") else { return other }
        return path[...slash] + other
    }
}
