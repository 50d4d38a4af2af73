internal import HostInterface

/// grant_table_op: an array of structs, each with a status of its own.
extension XenInterface {
    func grantTable(
        _ operation: UInt64, _ address: UInt64, _ count: UInt64, _ arguments: GuestArguments
    ) throws(XenError) -> Int64 {
        typealias Operation = GrantABI.GNTTABOP
        let operation = UInt32(truncatingIfNeeded: operation)
        guard count <= UInt64(Int32.max) else { throw .invalid }
        if operation == Operation.unmapGrantRef { return try unmap(address, count, arguments) }
        let size =
            switch operation {
            case Operation.mapGrantRef: GrantABI.MapGrantRef.byteCount
            case Operation.copy: GrantABI.Copy.byteCount
            case Operation.querySize: GrantABI.QuerySize.byteCount
            case Operation.setupTable: GrantABI.SetupTable.byteCount
            case Operation.setVersion: GrantABI.SetVersion.byteCount
            case Operation.getVersion: GrantABI.GetVersion.byteCount
            default: throw .unknown
            }
        // A page whose rights have become less must not be written to by way of an old translation.
        var isRestricted = false
        defer { if isRestricted { machine.flushTranslations() } }
        for index in 0..<count {
            if machine.isStopping { throw .errno(.interrupted) }
            let call = try get(arguments, address &+ index &* UInt64(size), size)
            let isThere =
                switch operation {
                case Operation.mapGrantRef: map(call, &isRestricted)
                case Operation.copy: copy(call)
                case Operation.querySize: querySize(call)
                case Operation.setupTable: setupTable(call, arguments)
                case Operation.setVersion: try setVersion(call)
                default: try getVersion(call)
                }
            guard isThere else { throw .fault }
        }
        return 0
    }

    private func attempt<Result: Sendable>(
        _ body: (DomainHouse.State) throws(GrantStatus) -> Result
    ) -> (status: GrantStatus, result: Result?) {
        do throws(GrantStatus) { return (.okay, try house.withLock(body)) } catch { return (error, nil) }
    }

    private func map(_ call: GuestStruct, _ isRestricted: inout Bool) -> Bool {
        typealias Fields = GrantABI.MapGrantRef
        let flags: UInt32 = call.get(Fields.flags)
        let address: UInt64 = call.get(Fields.hostAddr)
        let reference: UInt32 = call.get(Fields.ref)
        let granter: UInt16 = call.get(Fields.dom)
        let (status, handle) = attempt { state throws(GrantStatus) in
            try state.map(self.domain, reference: reference, of: granter, at: address, flags: flags)
        }
        if status == .okay, flags & GrantABI.GNTMAP.readonly != 0 { isRestricted = true }
        // Of a handle that was not heard of, the end of the Guest is the end.
        return call.answer(status.rawValue, at: Fields.status)
            && (handle.map { call.answer($0, at: Fields.handle) && call.answer(UInt64(0), at: Fields.devBusAddr) }
                ?? true)
    }

    /// Pages that follow each other are taken away together.
    private func unmap(_ address: UInt64, _ count: UInt64, _ arguments: GuestArguments) throws(XenError) -> Int64 {
        typealias Fields = GrantABI.UnmapGrantRef
        var next: UInt64 = 0
        while next < count {
            if machine.isStopping { throw .errno(.interrupted) }
            let first = next
            // Of those in the run the status is the run's; of the one behind it, its own.
            let calls = try house.withLock { state throws(XenError) in
                var run = ForeignRun(), calls: [GuestStruct] = [], statuses: [GrantStatus] = []
                while first + UInt64(calls.count) < count {
                    let place = address &+ (first + UInt64(calls.count)) &* UInt64(Fields.byteCount)
                    let call = try self.get(arguments, place, Fields.byteCount)
                    let page: UInt64 = call.get(Fields.hostAddr)
                    guard run.continues(at: page) else { break }
                    calls.append(call)
                    do throws(GrantStatus) {
                        let isAdded = try run.add(call.get(Fields.handle), at: page, of: self.domain)
                        statuses.append(.okay)
                        if !isAdded { break }
                    } catch {
                        statuses.append(error)
                        break
                    }
                }
                if !run.isEmpty {
                    do throws(GrantStatus) { try state.unmap(self.domain, run) } catch {
                        for index in run.mappings.indices { statuses[index] = error }
                    }
                }
                return zip(calls, statuses).map { ($0, $1) }
            }
            for (call, status) in calls {
                guard call.answer(status.rawValue, at: Fields.status) else { throw .fault }
            }
            next += UInt64(calls.count)
        }
        return 0
    }

    private func copy(_ call: GuestStruct) -> Bool {
        typealias Fields = GrantABI.Copy
        let flags: UInt16 = call.get(Fields.flags)
        func side(_ offset: Int, _ flag: UInt16) -> GrantCopySide {
            GrantCopySide(
                reference: call.get(offset + GrantABI.CopySide.refOrGMFN), isGrant: flags & flag != 0,
                domain: call.get(offset + GrantABI.CopySide.domid),
                offset: Int(call.get(offset + GrantABI.CopySide.offset, as: UInt16.self)))
        }
        let source = side(Fields.source, GrantABI.GNTCOPY.sourceGref)
        let target = side(Fields.dest, GrantABI.GNTCOPY.destGref)
        let count = Int(call.get(Fields.len, as: UInt16.self))
        let (status, _) = attempt { state throws(GrantStatus) in
            try state.copy(self.domain, from: source, to: target, count: count)
        }
        return call.answer(status.rawValue, at: Fields.status)
    }

    private func querySize(_ call: GuestStruct) -> Bool {
        typealias Fields = GrantABI.QuerySize
        guard isOwn(call.get(Fields.dom)) else {
            return call.answer(GrantABI.GNTST.permissionDenied, at: Fields.status)
        }
        let count = house.withLock { _ in UInt32(domain.grants.frameCount) }
        return call.answer(count, at: Fields.nrFrames)
            && call.answer(UInt32(GrantTable.mostFrames), at: Fields.maxNrFrames)
            && call.answer(GrantABI.GNTST.okay, at: Fields.status)
    }

    /// Says where the frames are, as far as the Guest has put them somewhere.
    private func setupTable(_ call: GuestStruct, _ arguments: GuestArguments) -> Bool {
        typealias Fields = GrantABI.SetupTable
        let count = Int(call.get(Fields.nrFrames, as: UInt32.self))
        let status: Int16 =
            !isOwn(call.get(Fields.dom))
            ? GrantABI.GNTST.permissionDenied
            : count > GrantTable.mostFrames ? GrantABI.GNTST.generalError : GrantABI.GNTST.okay
        if status == GrantABI.GNTST.okay {
            let places = house.withLock { _ -> [UInt64] in
                domain.grants.frameCount = max(domain.grants.frameCount, count)
                return (0..<count).map { domain.place(of: Domain.SpecialPage.firstGrantFrame + $0) ?? .max }
            }
            let list: UInt64 = call.get(Fields.frameList)
            for (index, place) in places.enumerated() {
                guard arguments.store(place, at: list &+ UInt64(index) &* 8) else { return false }
            }
        }
        return call.answer(status, at: Fields.status)
    }

    /// There is version 1, and it is what a Guest gets.
    private func setVersion(_ call: GuestStruct) throws(XenError) -> Bool {
        let wanted: UInt32 = call.get(GrantABI.SetVersion.version)
        guard wanted == 1 else { throw wanted == 2 ? .unknown : .invalid }
        return call.answer(UInt32(1), at: GrantABI.SetVersion.version)
    }

    private func getVersion(_ call: GuestStruct) throws(XenError) -> Bool {
        guard isOwn(call.get(GrantABI.GetVersion.dom)) else { throw .notPermitted }
        return call.answer(UInt32(1), at: GrantABI.GetVersion.version)
    }
}
