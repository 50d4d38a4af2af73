package import HostInterface

//H:034 Pages of others
//
// A grant is a page of one Guest's in the address space of another. On real
// hardware that takes a second level of page tables; here it takes one mmap(2).
// A Guest's RAM is a file, so its page n is a piece of that file, and any Guest
// can have it mapped at an address where it has no RAM of its own:
//
//     anna's memfd  |....|page|..........|
//                           \
//     bert's range  |----- RAM -----| . . |page| . . . |     base + gpa, as ever
//
// The rules are few, and each is there because the Guest is hostile and some of
// its devices' threads are about to read or write just there:
//
//   * What is taken away leaves zeros behind, as there were before, and no hole. A thread that had
//     looked before finds memory that is nobody's, and no signal ends the Host.
//   * A page that must not be written to is mapped privately. Engines refuse
//     the Guest's stores; and should a device be told to write there, the store
//     stays with the Guest that told it. The owner's page it cannot reach.
//   * A page that outlives its owner (who has died, or starts again) becomes
//     zeros at the same address. So nothing of the owner's next life is seen,
//     and whoever looks at a byte that says "I am alive" finds that it is not.
//
// In all of these the host address of a guest-physical address stays what it
// was, and so does what an engine keeps in its TLB.

/// Bits of a byte for each page, beside `codeTags`.
@usableFromInline enum ForeignPageState {
    /// Another's page, where there is no RAM.
    @inlinable static var present: UInt8 { 1 }
    /// …that is not to be written to.
    @inlinable static var readOnly: UInt8 { 2 }
    /// Something of the Host's in place of the Guest's own RAM.
    @inlinable static var replaced: UInt8 { 4 }
}

/// Where the bytes of a page are. Good for as long as who was asked for it lives.
package struct PageSource: Equatable, Sendable {
    package let descriptor: Int32
    package let offset: Int
}

extension MemoryFile {
    package func page(_ index: Int) -> PageSource {
        PageSource(descriptor: descriptor.rawValue, offset: index * GuestMemory.pageSize)
    }
}

/// Only one thread at a time may change a Guest's pages.
extension GuestMemory {
    private func state(_ page: UInt64) -> UInt8 {
        guard let pageStates = unsafe pageStates, page < addressEnd >> 12 else { return 0 }
        return unsafe pageStates[Int(page)]
    }

    private func setState(_ state: UInt8, of page: UInt64) { unsafe pageStates?[Int(page)] = state }

    private func isOwnRAM(_ page: UInt64) -> Bool {
        let end = highEnd >> 12
        return page < lowEnd >> 12 || page >= Self.holeEnd >> 12 && page < end
    }

    /// Whether this page is another's, and not to be written to.
    package func isReadOnly(page: UInt64) -> Bool { ramView.isReadOnly(page: page) }

    /// Whether this page of the Guest's is another's.
    package func isForeign(page: UInt64) -> Bool { state(page) & ForeignPageState.present != 0 }

    /// A page that the Guest may give to others: of its own RAM. Nil for what is not there or not its own.
    package func source(ofPage page: UInt64) -> PageSource? {
        guard isOwnRAM(page), state(page) & ForeignPageState.replaced == 0,
            let fileDescriptor
        else { return nil }
        if sharedRanges.contains(where: { $0.contains(page << 12) }) { return nil }
        return PageSource(descriptor: fileDescriptor, offset: fileOffset(page))
    }

    private func fileOffset(_ page: UInt64) -> Int {
        Int(page < lowEnd >> 12 ? page << 12 : (page << 12) - Self.holeEnd + lowEnd)
    }

    /// Whether there is room for a page of another's.
    package func canHoldForeign(page: UInt64) -> Bool {
        // GUEST: any 64 bits. Without the first look, the shift would drop what it overflows by.
        page < addressEnd >> 12 && foreignWindows.contains { $0.contains(page << 12) }
            && state(page) & ForeignPageState.present == 0
    }

    /// Puts another's page where `canHoldForeign` says that there is room.
    package func putForeign(_ source: PageSource, at page: UInt64, isReadOnly: Bool) throws(Errno) {
        precondition(canHoldForeign(page: page))
        try map(source, at: page, isReadOnly: isReadOnly)
        setState(ForeignPageState.present | (isReadOnly ? ForeignPageState.readOnly : 0), of: page)
        noteWrite(GuestPhysicalAddress(page << 12), Self.pageSize)
    }

    /// Takes other's pages away again; where there are none, nothing.
    package func removeForeign(pages: Range<UInt64>) throws(Errno) {
        precondition(pages.allSatisfy { isForeign(page: $0) })
        try range?.mapZeros(at: Int(pages.lowerBound << 12), count: pages.count << 12)
        for page in pages { setState(0, of: page) }
        noteWrite(GuestPhysicalAddress(pages.lowerBound << 12), pages.count << 12)
    }

    /// Its owner is gone: from now on the page is this Guest's, and zero.
    package func severForeign(page: UInt64) {
        precondition(isForeign(page: page))
        // One mapping in place of another. Whoever puts pages in sees to it that there are not too many.
        do throws(Errno) { try range?.mapZeros(at: Int(page << 12), count: Self.pageSize) } catch {
            preconditionFailure("cannot take away a page whose owner is gone: \(error)")
        }
        noteWrite(GuestPhysicalAddress(page << 12), Self.pageSize)
    }

    /// Puts a page of the Host's at any address of the Guest's, over RAM too. False: there cannot be one.
    package func replace(page: UInt64, by source: PageSource) throws(Errno) -> Bool {
        let isRAM = isOwnRAM(page)
        guard !foreignWindows.isEmpty, isRAM ? self.source(ofPage: page) != nil : canHoldForeign(page: page) else {
            return false
        }
        try map(source, at: page, isReadOnly: false)
        setState(isRAM ? ForeignPageState.replaced : ForeignPageState.present, of: page)
        noteWrite(GuestPhysicalAddress(page << 12), Self.pageSize)
        return true
    }

    /// Undoes `replace`.
    package func restore(page: UInt64) throws(Errno) {
        guard state(page) & ForeignPageState.replaced != 0 else { return try removeForeign(pages: page..<page + 1) }
        guard let fileDescriptor else { return }
        try map(PageSource(descriptor: fileDescriptor, offset: fileOffset(page)), at: page, isReadOnly: false)
        setState(0, of: page)
        noteWrite(GuestPhysicalAddress(page << 12), Self.pageSize)
    }

    private func map(_ source: PageSource, at page: UInt64, isReadOnly: Bool) throws(Errno) {
        let address = Int(page << 12)
        if isReadOnly {
            try range?.mapReadOnly(
                descriptor: source.descriptor, fileOffset: source.offset, at: address, count: Self.pageSize)
            return
        }
        do throws(HostError) {
            try range?.map(
                descriptor: source.descriptor, fileOffset: source.offset, at: address, count: Self.pageSize)
        } catch { throw error.errno ?? .noMemory }
    }
}
//:
