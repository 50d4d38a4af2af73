internal import VirtualCPU
internal import X86

//S:260 Tasks, as 1985 had them
//
// The 80286 could switch tasks by itself: a far jump to a task-state segment
// stores every register in the old one and loads every register from the new.
// Nobody runs processes that way any more, but 32-bit kernels have their
// double fault handled so, on a stack that is known to be good. The order is
// that of SDM 3A, 7.3: up to a point the old task takes the blame for what is
// wrong, after it the new one, with the error code naming the culprit.

/// Why a task is switched to.
enum TaskSwitchCause { case jump, call, interrupt, interruptReturn }

/// Where things are in a task-state segment (SDM 3A, figures 7-2 and 7-10).
private struct TaskLayout {
    let is32: Bool
    var word: Int { is32 ? 4 : 2 }
    var ip: Int { is32 ? 0x20 : 0x0e }
    var flags: Int { ip + word }
    func register(_ number: Int) -> Int { ip + (2 + number) * word }
    /// ES, CS, SS, DS, and in 32 bits FS, GS.
    func segment(_ number: Int) -> Int { ip + (10 + number) * word }
    var segments: Int { is32 ? 6 : 4 }
    var ldt: Int { is32 ? 0x60 : 0x2a }
    var minimumLimit: UInt32 { is32 ? 0x67 : 0x2b }
    static let cr3 = 0x1c, trap = 0x64
}

/// What a task-state segment held.
private struct TaskImage {
    var ip: UInt64 = 0
    var flags: UInt64 = 0
    var registers = InlineArray<8, UInt64>(repeating: 0)
    var selectors = InlineArray<6, UInt16>(repeating: 0)
    var ldt: UInt16 = 0
    var cr3: UInt64 = 0
    var traps = false
}

extension CPU {
    /// Goes to another task. Throws while the old one is still the present one;
    /// a fault of the new one is left pending in `core.event`, at its RIP.
    func switchTask(
        _ selector: UInt16, _ cause: TaskSwitchCause, returnTo rip: UInt64, rflags: UInt64, external: UInt32
    ) throws(Stop) {
        let isReturn = cause == .interruptReturn
        let vector = isReturn ? Vector.invalidTSS : Vector.generalProtection
        let code = selector.selectorIndex | external
        if selector & 4 != 0 || selector.isNullSelector { throw fault(vector, code: code) }
        let descriptor = try descriptor(selector, vector, external: external)
        let available = isReturn ? 3 : 1
        if !descriptor.isSystem || descriptor.type & 7 != available { throw fault(vector, code: code) }
        if !descriptor.isPresent { throw fault(Vector.segmentNotPresent, code: code) }
        let layout = TaskLayout(is32: descriptor.type & 8 != 0)
        if descriptor.limit < layout.minimumLimit { throw fault(Vector.invalidTSS, code: code) }
        let image = try readTask(descriptor.base, layout)

        // The old task is put away.
        var flags = rflags
        if isReturn { flags &= ~RFlags.nestedTask }
        try saveTask(rip, flags)
        if cause == .jump || isReturn { try setBusy(state.tr.selector, false) }
        if !isReturn { try setBusy(selector, true) }
        let isNested = cause == .call || cause == .interrupt
        if isNested { try systemWrite(descriptor.base, UInt64(state.tr.selector), 2) }

        // From here on the new one is to blame.
        var segment = descriptor.segment(selector)
        segment.attributes |= 2
        state.tr = segment
        state.cr0 |= CR0.taskSwitched
        state.dr[7] &= ~DR7.localEnables
        if layout.is32 && state.cr0 & CR0.paging != 0 {
            state.cr3 = image.cr3
            loadPageDirectoryPointersUnchecked()
            flushTLB()
        }
        if image.traps { unsafe core.pendingDebug |= DR6.taskSwitch }
        do throws(Stop) {
            try enterTask(image, layout, nested: isNested)
        } catch {
            refuseQuestion(Vector.invalidTSS)
            modeChanged()
        }
    }

    /// Where a new task's tables or stack are a device, we cannot ask it: the
    /// instruction that would be begun again belongs to the old task. Instead of
    /// the rubbish that is there, the fault that it would be.
    func refuseQuestion(_ vector: UInt8) {
        if unsafe core.event != .exit { return }
        owner.awaitsAnswer = false
        _ = fault(vector, code: 0)
    }

    /// IRET with NT set: back to the task that the link names.
    func returnFromTask(_ rip: UInt64) throws(Stop) {
        if state.tr.isUnusable { throw fault(Vector.invalidTSS, code: 0) }
        let link = UInt16(truncatingIfNeeded: try systemRead(state.tr.base, 2))
        try switchTask(link, .interruptReturn, returnTo: rip, rflags: rflags, external: 0)
    }

    private func setBusy(_ selector: UInt16, _ busy: Bool) throws(Stop) {
        let address = try descriptorAddress(selector, Vector.invalidTSS) &+ 5
        let type = try systemRead(address, 1)
        try systemWrite(address, busy ? type | 2 : type & ~2, 1)
    }

    private func readTask(_ base: UInt64, _ layout: TaskLayout) throws(Stop) -> TaskImage {
        func field(_ offset: Int, _ bytes: Int) throws(Stop) -> UInt64 { try systemRead(base &+ UInt64(offset), bytes) }
        var image = TaskImage()
        image.ip = try field(layout.ip, layout.word)
        image.flags = try field(layout.flags, layout.word)
        for number in 0..<8 {
            image.registers[number] = try field(layout.register(number), layout.word)
        }
        for number in 0..<layout.segments {
            image.selectors[number] = UInt16(truncatingIfNeeded: try field(layout.segment(number), 2))
        }
        image.ldt = UInt16(truncatingIfNeeded: try field(layout.ldt, 2))
        if layout.is32 {
            image.cr3 = try field(TaskLayout.cr3, 4)
            image.traps = try field(TaskLayout.trap, 2) & 1 != 0
        }
        return image
    }

    private func saveTask(_ rip: UInt64, _ flags: UInt64) throws(Stop) {
        let layout = TaskLayout(is32: state.tr.type & 8 != 0)
        if state.tr.limit < layout.minimumLimit {
            throw fault(Vector.invalidTSS, code: state.tr.selector.selectorIndex)
        }
        let base = state.tr.base
        func set(_ offset: Int, _ value: UInt64, _ bytes: Int) throws(Stop) {
            try systemWrite(base &+ UInt64(offset), value, bytes)
        }
        try set(layout.ip, rip, layout.word)
        try set(layout.flags, flags, layout.word)
        for number in 0..<8 { try set(layout.register(number), self[number], layout.word) }
        for number in 0..<layout.segments {
            try set(layout.segment(number), UInt64(state.segments[number].selector), 2)
        }
    }

    private func enterTask(_ image: TaskImage, _ layout: TaskLayout, nested: Bool) throws(Stop) {
        for number in 0..<8 {
            self[number] = layout.is32 ? image.registers[number] : self[number] & ~0xffff | image.registers[number]
        }
        state.rip = image.ip
        var flags = image.flags & (layout.is32 ? RFlags.writable : 0x7fd5)
        if nested { flags |= RFlags.nestedTask }
        state.rflags = flags | RFlags.alwaysOne
        setArithmeticFlags(flags)
        // All selectors first, so that a fault's handler finds them.
        let isVirtual8086 = flags & RFlags.virtual8086 != 0
        for number in 0..<6 {
            let selector = image.selectors[number]
            state.segments[number] =
                isVirtual8086
                ? .realMode(selector: selector, type: 0xf3)
                : Segment(selector: selector, attributes: Segment.unusableBit)
        }
        state.ldtr = Segment(selector: image.ldt, attributes: Segment.unusableBit)
        // CPL and SS.DPL are those of the new CS.
        let privilege = isVirtual8086 ? 3 : image.selectors[SegmentName.cs].requestedPrivilege
        state.segments[SegmentName.ss].attributes |= UInt32(privilege) &<< 5
        unsafe core.privilege = UInt8(privilege)
        unsafe core.codeSize = .bits32
        try loadTaskLDT(image.ldt)
        if isVirtual8086 {
            if image.ip > 0xffff { throw generalProtection() }
            return
        }
        let code = try taskCode(image.selectors[SegmentName.cs])
        state.segments[SegmentName.cs] = code
        setSegment(
            SegmentName.ss,
            try stackSegment(image.selectors[SegmentName.ss], privilege: privilege, allowNull: false, Vector.invalidTSS)
        )
        for number in [SegmentName.ds, SegmentName.es, SegmentName.fs, SegmentName.gs] {
            try loadSegment(number, image.selectors[number], Vector.invalidTSS)
        }
        if image.ip > UInt64(code.limit) { throw generalProtection() }
    }

    private func loadTaskLDT(_ selector: UInt16) throws(Stop) {
        if selector.isNullSelector { return }
        let code = selector.selectorIndex
        if selector & 4 != 0 { throw fault(Vector.invalidTSS, code: code) }
        let descriptor = try descriptor(selector, Vector.invalidTSS)
        if !descriptor.isSystem || descriptor.type != SystemSegmentType.ldt || !descriptor.isPresent {
            throw fault(Vector.invalidTSS, code: code)
        }
        state.ldtr = descriptor.segment(selector)
    }

    private func taskCode(_ selector: UInt16) throws(Stop) -> Segment {
        let index = selector.selectorIndex
        if selector.isNullSelector { throw fault(Vector.invalidTSS, code: 0) }
        let code = try descriptor(selector, Vector.invalidTSS)
        let privilege = selector.requestedPrivilege
        if !code.isCode || (code.isConforming ? code.privilegeLevel > privilege : code.privilegeLevel != privilege) {
            throw fault(Vector.invalidTSS, code: index)
        }
        if !code.isPresent { throw fault(Vector.segmentNotPresent, code: index) }
        return try accessed(code, selector)
    }
}
//:
