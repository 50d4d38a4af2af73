import EngineTesting
import Lguest
import LguestTesting
import Testing
import VirtualCPU
import X86

/// How a Guest begins (docs/lguest-abi.md; A5, "Initial register state").
@Suite(.everyEngine) struct EntryTests {
    @Test func theFirstInstructionIsAtStartWithInterruptsOn() throws {
        let guest = try TestGuest { $0.initialize() }
        guest.readState { state in
            #expect(state.rip == Place.code)
            #expect(state.rflags == 0x202)
            #expect(state.cr3 == Place.pageTable)
        }
    }

    @Test func allRegistersAreZero() throws {
        let guest = try TestGuest { $0.initialize() }
        guest.readState { state in for register in 0..<16 { #expect(state.gpr[register] == 0) } }
    }

    @Test func segmentsAreFlatAt0x10And0x18() throws {
        let guest = try TestGuest { $0.initialize() }
        guest.readState { state in
            for name in 0..<6 {
                let segment = state.segments[name]
                #expect(segment.selector == (name == SegmentName.cs ? 0x10 : 0x18))
                #expect(segment.base == 0 && segment.limit == .max)
            }
            #expect(state.segments[SegmentName.ss].privilegeLevel == 0)
        }
    }

    @Test func theModeIsLongWithPagingWriteProtectionAndSSE() throws {
        let guest = try TestGuest { $0.initialize() }
        guest.readState { state in
            #expect(
                state.cr0 == CR0.protectedMode | CR0.monitorCoprocessor | CR0.extensionType | CR0.numericError
                    | CR0.writeProtect | CR0.paging)
            #expect(state.cr4 == CR4.physicalAddressExtension | CR4.osFXSR | CR4.osXMMExceptions)
            #expect(
                state.efer == EFER.systemCallEnable | EFER.longModeEnable | EFER.longModeActive | EFER.noExecuteEnable)
        }
    }

    /// There is no IDT yet.
    @Test func anExceptionEndsAGuestWithoutTables() throws {
        let guest = try TestGuest { $0.raw(0x0f, 0x0b) }  // ud2
        #expect(guest.death().contains("triple fault"))
    }

    @Test func nothingInterruptsBeforeLguestInit() throws {
        let guest = try TestGuest { program in
            program.nop()
            program.wait(for: Place.free, "loop")
            program.initialize()
            program.powerDown()
        }
        try guest.guest.raise(irq: 3)
        try guest.memory.put([1], Place.free)
        guest.finish()
    }

    @Test func memoryBeyondTheLastPageKills() throws {
        let read = try TestGuest { program in
            program.move(.rbx, 0x180000)
            program.load(.rax, Memory(.rbx))
        }
        #expect(read.death() == "bad read address 0x180000 len 8")
        let written = try TestGuest { program in
            program.move(.rbx, 0x180000)
            program.store(.rax, Memory(.rbx), size: 4)
        }
        #expect(written.death() == "bad write address 0x180000 len 4")
    }

    /// B7: IN gives all ones, OUT is ignored.
    @Test func nobodyAnswersAtPorts() throws {
        let guest = try TestGuest { program in
            program.initialize()
            program.move(.rax, 0)
            program.raw(0xe4, 0x60)  // in al, 0x60
            program.keepResult()
            program.raw(0xe5, 0x60)  // in eax, 0x60
            program.keepResult(1)
            program.raw(0xe6, 0x80)  // out 0x80, al
            program.powerDown()
        }
        guest.finish()
        #expect(try guest.result() == 0xff)
        #expect(try guest.result(1) == 0xffff_ffff)
    }
}
