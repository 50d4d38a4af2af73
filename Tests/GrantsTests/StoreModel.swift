/// What the store should do, once more: a flat table of paths, with no regard to time or memory.
struct StoreModel {
    struct Node: Equatable {
        var value: String
        /// As SET_PERMS has them.
        var permissions: [String]
        var owner: Int { Int(permissions[0].dropFirst()) ?? -1 }

        func allows(_ letter: Character, _ domid: Int) -> Bool {
            if domid == 0 || owner == domid { return true }
            let entry = permissions.dropFirst().first { $0.dropFirst() == "\(domid)" } ?? permissions[0]
            return entry.first == letter || entry.first == "b"
        }
    }

    enum Action: Equatable {
        case read, list, permissions, make, remove
        case write(String)
        case permit([String])
    }

    /// Something happened, and who may hear of it.
    struct News {
        let path: String
        /// Only those hear of it who watch this very path.
        let isExact: Bool
        let readers: [Node]
        /// Created on the way, which nobody is told.
        var between: [String] = []
        var places: [String] { [path] + between }
    }

    static let nodes = 11, valueBytes = 8, exceptions = 3

    var table: [String: Node] = ["": Node(value: "", permissions: ["n0"])]

    static func parent(_ path: String) -> String {
        String(path.utf8.lastIndex(of: UInt8(ascii: "/")).map { path[..<$0] } ?? "")
    }
    static func isAtOrBelow(_ path: String, _ top: String) -> Bool { path == top || path.hasPrefix(top + "/") }

    private func nearest(_ path: String) -> String {
        var path = path
        while table[path] == nil { path = Self.parent(path) }
        return path
    }

    /// Of each node with children, their names.
    func allNames() -> [String: [String]] {
        Dictionary(grouping: table.keys.filter { $0 != "" }, by: Self.parent).mapValues { paths in
            paths.map { String($0[$0.index(after: $0.lastIndex(of: "/") ?? $0.startIndex)...]) }.sorted()
        }
    }

    func names(_ path: String) -> [String] {
        table.keys.filter { $0 != "" && Self.parent($0) == path }.map { String($0.dropFirst(path.count + 1)) }.sorted()
    }

    /// The reply, and what there is to be told.
    mutating func perform(_ action: Action, _ path: String, by domid: Int) -> (reply: String, news: [News]) {
        let place = nearest(path)
        guard let found = table[place] else { return ("no root", []) }
        func missing(_ letter: Character) -> String? {
            !found.allows(letter, domid) ? "EACCES|" : place == path ? nil : "ENOENT|"
        }
        switch action {
        case .read: return (missing("r") ?? found.value, [])
        case .list: return (missing("r") ?? names(path).map { $0 + "|" }.joined(), [])
        case .permissions: return (missing("r") ?? found.permissions.map { $0 + "|" }.joined(), [])
        case .write(let value):
            if missing("w") == "EACCES|" { return ("EACCES|", []) }
            if domid != 0, value.utf8.count > Self.valueBytes { return ("ENOSPC|", []) }
            if place == path {
                table[path]?.value = value
                return ("OK|", [News(path: path, isExact: false, readers: [found])])
            }
            return create(path, value, from: place, by: domid)
        case .make:
            if missing("w") == "EACCES|" { return ("EACCES|", []) }
            return place == path ? ("OK|", []) : create(path, "", from: place, by: domid)
        case .remove:
            if path == "" { return ("EINVAL|", []) }
            if missing("w") == "EACCES|" { return ("EACCES|", []) }
            if place != path { return (place == Self.parent(path) ? "OK|" : "ENOENT|", []) }
            return ("OK|", drop(path))
        case .permit(let permissions):
            if permissions.count > Self.exceptions { return ("ENOSPC|", []) }
            if let error = missing("w") { return (error, []) }
            if domid != 0, found.owner != domid { return ("EACCES|", []) }
            var changed = found
            changed.permissions = permissions
            if domid != 0, changed.owner != domid { return ("EPERM|", []) }
            table[path] = changed
            return ("OK|", [News(path: path, isExact: false, readers: [found, changed])])
        }
    }

    private mutating func create(
        _ path: String, _ value: String, from place: String, by domid: Int
    ) -> (reply: String, news: [News]) {
        var permissions = table[place]?.permissions ?? []
        if domid != 0 { permissions[0] = "\(permissions[0].prefix(1))\(domid)" }
        var new: [String] = []
        var missing = path
        while missing != place { (new, missing) = (new + [missing], Self.parent(missing)) }
        let owned = table.values.count { $0.owner == domid }
        if domid != 0, owned + new.count > Self.nodes { return ("ENOSPC|", []) }
        for each in new { table[each] = Node(value: each == path ? value : "", permissions: permissions) }
        let readers = [Node(value: "", permissions: permissions)]
        return ("OK|", [News(path: path, isExact: false, readers: readers, between: new)])
    }

    private mutating func drop(_ path: String) -> [News] {
        let doomed = table.filter { Self.isAtOrBelow($0.key, path) }
        for each in doomed.keys { table[each] = nil }
        return doomed.map { News(path: $0.key, isExact: $0.key != path, readers: [$0.value]) }
    }

    // MARK: Domains

    /// A home is new, whatever was there.
    mutating func come(_ domid: Int) -> [News] {
        let home = "/local/domain/\(domid)"
        let news = drop(home)
        for path in ["/local", "/local/domain"] where table[path] == nil {
            table[path] = Node(value: "", permissions: ["n0"])
        }
        for (path, value) in [
            "": "", "/name": "guest", "/domid": "\(domid)", "/control": "", "/backend": "", "/cpu": "", "/device": "",
            "/memory": "", "/control/platform-feature-xs_reset_watches": "1", "/cpu/0": "",
            "/cpu/0/availability": "online",
        ] { table[home + path] = Node(value: value, permissions: ["n0", "r\(domid)"]) }
        let control = ["shutdown", "feature-poweroff", "feature-reboot", "feature-suspend"].map { "/control/" + $0 }
        for path in control + ["/attr", "/data", "/drivers", "/error", "/feature"] {
            table[home + path] = Node(value: "", permissions: ["n\(domid)"])
        }
        return news
    }

    /// What is told, and all paths that are not as they were.
    mutating func go(_ domid: Int) -> (news: [News], changed: [String]) {
        var news: [News] = []
        for path in table.keys.sorted() where table[path] != nil {
            if path == "/local/domain/\(domid)" || table[path]?.owner == domid { news += drop(path) }
        }
        var changed = news.map(\.path)
        for (path, node) in table {
            let rest = node.permissions.prefix(1) + node.permissions.dropFirst().filter { $0.dropFirst() != "\(domid)" }
            if rest.count < node.permissions.count {
                table[path]?.permissions = Array(rest)
                changed.append(path)
            }
        }
        return (news, changed)
    }
}
