/// What a value is to be, and what is said where it is something else.
extension HouseReader {
    func fault(_ json: JSON, _ message: String) -> JSONError { JSONError(position: json.position, message: message) }

    func wrongType(_ json: JSON, _ what: String, _ example: String) -> JSONError {
        fault(json, "\(what) is \(json.content.typeName); write it as in \(example)")
    }

    func object(_ json: JSON, _ what: String, _ keys: [String]) throws(JSONError) -> [String: JSON] {
        guard case .object(let members) = json.content else {
            throw fault(json, "\(what) is an object in braces, and this is \(json.content.typeName)")
        }
        for member in members where !keys.contains(member.key) {
            throw JSONError(
                position: member.keyPosition,
                message: "\(what) has no key \(quoted(member.key)); there is: \(keys.joined(separator: ", "))")
        }
        return Dictionary(members.map { ($0.key, $0.value) }) { first, _ in first }
    }

    func array(_ json: JSON, _ what: String, as example: String = "[…]") throws(JSONError) -> [JSON] {
        guard case .array(let elements) = json.content else { throw wrongType(json, what, example) }
        return elements
    }

    func string(_ json: JSON, _ what: String, as example: String = "\"…\"") throws(JSONError) -> String {
        guard case .string(let text) = json.content else { throw wrongType(json, what, example) }
        // Paths, command lines, names: nothing of what they become could hold it.
        guard !text.utf8.contains(0) else { throw fault(json, "\(what) has a zero in it") }
        return text
    }

    func nonempty(_ json: JSON, _ key: String) throws(JSONError) -> String {
        let text = try string(json, "\"\(key)\"")
        guard !text.isEmpty else { throw fault(json, "\"\(key)\" names no file") }
        return text
    }

    func boolean(_ json: JSON, _ what: String) throws(JSONError) -> Bool {
        guard case .boolean(let value) = json.content else { throw wrongType(json, what, "true or false") }
        return value
    }

    /// What an option's own parser makes of a value.
    func parsed<Value, Failure: Error>(
        _ json: JSON, _ key: String, _ parse: () throws(Failure) -> Value
    ) throws(JSONError) -> Value {
        do { return try parse() } catch { throw fault(json, "\"\(key)\": \(plain("\(error)", limit: 400))") }
    }
}

extension JSON.Content {
    /// With its article.
    fileprivate var typeName: String {
        switch self {
        case .null: "null"
        case .boolean: "true or false"
        case .number: "a number"
        case .string: "a string"
        case .array: "a list"
        case .object: "an object"
        }
    }
}
