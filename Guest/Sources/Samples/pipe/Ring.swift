import GuestKit

/// Blocks in pages that the sender lends to the receiver, and a page that says how far each of the two is. A
/// bell is rung only for one who has said that it sleeps, and who has looked once more after that.
struct Ring: ~Copyable {
    /// Offsets in the control page, of 32 bits each. What one side writes is in a line of the cache of its own.
    enum Field {
        static let here = 0, port = 4, pages = 8, blockBytes = 12, total = 16
        static let written = 64, read = 128, senderSleeps = 192, receiverSleeps = 256, wrong = 320
        static let references = 2048
    }
    static let mostPages = 512

    enum Owned: ~Copyable {
        case lent(GrantedPages, GrantedPages)
        case borrowed(ForeignPages, ForeignPages)
    }

    let blocks: Region
    let blockBytes: Int
    let total: Int
    /// How often this side has slept.
    var sleeps = 0
    let control: Region
    let bell: EventChannel
    let owned: Owned

    /// The sender's end. The receiver finds it by one number in the store.
    static func lend(_ count: Int, blockBytes: Int, total: Int, to peer: UInt16) -> Ring? {
        guard let first = try? GrantedPages(1, for: peer, isWritable: true),
            let others = try? GrantedPages(count, for: peer, isWritable: false),
            let bell = try? EventChannel.allocate(for: peer)
        else { return nil }
        let control = first.region
        for page in 0..<count { control.store(others.reference(page), at: Field.references + 4 * page) }
        control.store(bell.port, at: Field.port)
        control.store(UInt32(count), at: Field.pages)
        control.store(UInt32(blockBytes), at: Field.blockBytes)
        control.store(UInt32(total), at: Field.total)
        control.storeReleasingWord(1, at: Field.here)
        first.tellEnd(byteAt: Field.here, ringing: bell)
        let key: Text = "data/pipe/\(peer)"
        guard (try? Store.write(key, "\(first.reference())")) != nil,
            (try? Store.setPermissions(key, [.none(Xen.domid), .read(peer)])) != nil
        else { return nil }
        return Ring(
            blocks: others.region, blockBytes: blockBytes, total: total, control: control, bell: bell,
            owned: .lent(first, others))
    }

    /// The receiver's end. What the sender says of the ring's form is looked at once, and checked.
    static func borrow(from peer: UInt16) -> Ring? {
        guard let reference = (try? Store.wait(for: "/local/domain/\(peer)/data/pipe/\(Xen.domid)"))?.number,
            let first = try? ForeignPages(of: peer, reference: UInt32(truncatingIfNeeded: reference), isWritable: true)
        else { return nil }
        let control = first.region
        let count = Int(control.load(Field.pages, as: UInt32.self))
        let blockBytes = Int(control.load(Field.blockBytes, as: UInt32.self))
        let total = Int(control.load(Field.total, as: UInt32.self))
        guard count > 0, count <= Ring.mostPages, blockBytes > 0, blockBytes % 4096 == 0,
            count * 4096 % blockBytes == 0,
            let others = try? ForeignPages(
                of: peer, references: control.part(Field.references, 4 * count), isWritable: false),
            let bell = try? EventChannel(bindingTo: peer, port: control.load(Field.port))
        else { return nil }
        bell.ring()
        return Ring(
            blocks: others.region, blockBytes: blockBytes, total: total, control: control, bell: bell,
            owned: .borrowed(first, others))
    }
}
