//D:305 Sixteen bytes, and some text
//
// Everything that is said, in either direction, has the same form, and all
// four words of the header are little-endian:
//
//     0        4            8               12       16
//     +--------+------------+---------------+--------+------------------+
//     | type   | request id | transaction id| length | length bytes     |
//     +--------+------------+---------------+--------+------------------+
//
// The payload has 4096 bytes at most, and is text as a C programmer of 2005
// understood it: strings with a NUL behind each. A reply has the type and both
// ids of its request, and the payload "OK" if there is nothing better to say.
// What went wrong is a reply of type 16 with the *name* of an errno, which is
// the one thing about errno that all Unixes agree on. A watch event is a reply
// that nobody asked for, and its request id is 0.

/// What a message is, by the number in its header.
package enum StoreMessageType: UInt32, Sendable, CaseIterable {
    case control = 0
    case directory = 1
    case read = 2
    case getPermissions = 3
    case watch = 4
    case unwatch = 5
    case transactionStart = 6
    case transactionEnd = 7
    case introduce = 8
    case release = 9
    case getDomainPath = 10
    case write = 11
    case makeDirectory = 12
    case remove = 13
    case setPermissions = 14
    case watchEvent = 15
    case error = 16
    case isDomainIntroduced = 17
    case resume = 18
    case setTarget = 19
    case resetWatches = 21
    case directoryPart = 22
}

/// The errors that we have a use for.
package enum StoreError: String, Error, Sendable {
    case invalid = "EINVAL"
    case noAccess = "EACCES"
    case notPermitted = "EPERM"
    case exists = "EEXIST"
    case notFound = "ENOENT"
    case noSpace = "ENOSPC"
    case tooBig = "E2BIG"
    case tryAgain = "EAGAIN"
    case busy = "EBUSY"
    case notSupported = "ENOSYS"
}

/// A request, a reply or an event.
package struct StoreMessage: Equatable, Sendable {
    /// As it came: of a request it need not be one that we know.
    package let type: UInt32
    package let requestID: UInt32
    package let transactionID: UInt32
    package let payload: [UInt8]

    package static let headerBytes = 16
    package static let mostPayload = 4096

    package init(_ type: StoreMessageType, requestID: UInt32 = 0, transactionID: UInt32 = 0, _ payload: [UInt8]) {
        self.init(type: type.rawValue, requestID: requestID, transactionID: transactionID, payload)
    }

    package init(type: UInt32, requestID: UInt32, transactionID: UInt32, _ payload: [UInt8]) {
        (self.type, self.requestID, self.transactionID, self.payload) = (type, requestID, transactionID, payload)
    }

    /// From a header and all of its payload.
    init(_ bytes: [UInt8]) {
        self.init(
            type: Self.word(0, of: bytes), requestID: Self.word(1, of: bytes), transactionID: Self.word(2, of: bytes),
            Array(bytes[Self.headerBytes...]))
    }

    /// A word of the header.
    private static func word(_ index: Int, of bytes: [UInt8]) -> UInt32 {
        (0..<4).reduce(0) { $0 | UInt32(bytes[4 * index + $1]) << UInt32(8 * $1) }
    }

    /// What a header promises.
    static func payloadLength(_ header: [UInt8]) -> UInt32 { word(3, of: header) }

    package var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.headerBytes + payload.count)
        for word in [type, requestID, transactionID, UInt32(payload.count)] {
            for shift in stride(from: UInt32(0), to: 32, by: 8) {
                bytes.append(UInt8(truncatingIfNeeded: word >> shift))
            }
        }
        return bytes + payload
    }

    func reply(_ payload: [UInt8]) -> StoreMessage {
        StoreMessage(type: type, requestID: requestID, transactionID: transactionID, payload)
    }

    func reply(_ error: StoreError) -> StoreMessage {
        StoreMessage(.error, requestID: requestID, transactionID: transactionID, error.rawValue.withNUL)
    }
}

extension StoreMessage {
    /// The payload's strings, each without its NUL.
    ///
    /// - Throws: EINVAL if the last has none, or there are fewer than `least` or more than `most`.
    func strings(_ least: Int, _ most: Int) throws(StoreError) -> [ArraySlice<UInt8>] {
        guard payload.last == 0 else { throw .invalid }
        let strings = payload.dropLast().split(separator: 0, omittingEmptySubsequences: false)
        guard strings.count >= least, strings.count <= most else { throw .invalid }
        return strings
    }

    /// The one string that the payload is.
    func string() throws(StoreError) -> ArraySlice<UInt8> { try strings(1, 1)[0] }

    /// The string that the payload begins with, and whatever is behind it.
    func stringAndBytes() throws(StoreError) -> (ArraySlice<UInt8>, [UInt8]) {
        guard let end = payload.firstIndex(of: 0) else { throw .invalid }
        return (payload[..<end], Array(payload[(end + 1)...]))
    }
}

extension String {
    var withNUL: [UInt8] { Array(utf8) + [0] }
}

/// A decimal number and nothing else; no sign, no blanks.
func decimal<T: FixedWidthInteger>(_ digits: some Collection<UInt8>, as type: T.Type) throws(StoreError) -> T {
    guard !digits.isEmpty, digits.allSatisfy({ (0x30...0x39).contains($0) }),
        let number = T(String(decoding: digits, as: UTF8.self))
    else { throw .invalid }
    return number
}
//:
