package import GuestMemory
internal import HostInterface
internal import Synchronization

/// A Guest as its neighbours see it: a number, memory, grants, ports. All that
/// changes is for whoever holds the house's lock.
package final class Domain: @unchecked Sendable {
    /// Pages of the Host's that the Guest sees, by their place in one file.
    enum SpecialPage {
        static let sharedInfo = 0, store = 1, firstGrantFrame = 2
        static let count = firstGrantFrame + GrantTable.mostFrames
    }

    package let id: UInt16
    package let name: String
    package let memory: GuestMemory

    private let file: MemoryFile
    private let range: AddressRange
    var sharedInfo: SharedInfo
    var grants: GrantTable
    var channels = ChannelTable()
    var mappings = ForeignMappingTable()
    /// Where in the Guest's memory the special pages are, by page.
    private var places: [Int: UInt64] = [:]
    var storePort: Int?
    /// It is about to end: nobody begins anything with it any more.
    var isLeaving = false
    /// Interrupts the Guest, once it has said how.
    var upcall: (@Sendable () -> Void)?

    init(id: UInt16, name: String, memory: GuestMemory) throws(HostError) {
        self.id = id
        self.name = name
        self.memory = memory
        file = try MemoryFile(name: "roost-domain", byteCount: SpecialPage.count * GuestMemory.pageSize)
        range = try AddressRange(reserving: file.byteCount)
        try range.map(file, fileOffset: 0, at: 0, count: file.byteCount)
        // SAFETY: `range` lives as long as we do, and both are only used through us.
        unsafe sharedInfo = SharedInfo(range.base)
        unsafe grants = GrantTable(range.base + SpecialPage.firstGrantFrame * GuestMemory.pageSize)
    }

    /// The page that the Guest shares with the store.
    var storeRing: UnsafeMutableRawPointer { unsafe range.base + SpecialPage.store * GuestMemory.pageSize }

    /// The Host's own view of the frames of the grant table, for a domain without a CPU.
    var grantFrames: UnsafeMutableRawPointer {
        unsafe range.base + SpecialPage.firstGrantFrame * GuestMemory.pageSize
    }

    // MARK: Events

    /// Sets a port's bit, and interrupts the Guest if it has to be.
    func setPending(_ port: Int) { if sharedInfo.setPending(port) { upcall?() } }

    func unmask(_ port: Int) { if sharedInfo.unmask(port) { upcall?() } }

    /// Puts the vcpu_info where the Guest wants it.
    ///
    /// - Throws: EINVAL for what is not 64 bytes of its RAM, at a multiple of 8 and in one page; or the second time.
    func moveVCPUInfo(to address: UInt64) throws(Errno) {
        let bytes = XenABI.VCPUInfo.byteCount
        guard sharedInfo.hasOwnVCPUInfo, address % 8 == 0, Int(address % 4096) + bytes <= 4096,
            memory.source(ofPage: address >> 12) != nil,
            let place = unsafe memory.hostPointer(GuestPhysicalAddress(address), bytes)
        else { throw .invalid }
        unsafe sharedInfo.moveVCPUInfo(to: place)
        upcall?()
    }

    // MARK: Special pages

    /// Shows the Guest one of the special pages at `page`; it has been somewhere else, perhaps.
    ///
    /// - Throws: EINVAL if there can be no such page.
    func place(_ special: Int, at page: UInt64) throws(Errno) {
        if places[special] == page { return }
        guard !places.values.contains(page) else { throw .invalid }
        if let old = places.removeValue(forKey: special) { try memory.restore(page: old) }
        guard try memory.replace(page: page, by: file.page(special)) else { throw .invalid }
        places[special] = page
    }

    func place(of special: Int) -> UInt64? { places[special] }

    /// - Throws: EINVAL if nothing of ours is there.
    func unplace(at page: UInt64) throws(Errno) {
        guard let special = places.first(where: { $0.value == page })?.key else { throw .invalid }
        places[special] = nil
        try memory.restore(page: page)
    }

    /// As it was when it began. Everything that others have of it is undone already.
    func clear() {
        for page in places.values { try? memory.restore(page: page) }
        places = [:]
        upcall = nil
        storePort = nil
        channels = ChannelTable()
        mappings = ForeignMappingTable()
        unsafe range.base.initializeMemory(as: UInt8.self, repeating: 0, count: range.byteCount)
        unsafe sharedInfo = SharedInfo(range.base)
        unsafe grants = GrantTable(range.base + SpecialPage.firstGrantFrame * GuestMemory.pageSize)
    }
}
