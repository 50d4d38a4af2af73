//G:010 The first instruction
//
// A PC's kernel begins in the year 1978 and has to walk from there, through
// three modes, to where it can live. We begin at the end of that walk: the
// Launcher has put this file where its headers say, turned on 64-bit mode and
// paging, and jumped to e_entry. What it has not given us is a stack (RSP is
// 0), nor an interrupt table; and RFLAGS says that interrupts are welcome,
// which until we say LGUEST_INIT is a promise that costs nothing. So: take it
// back, point RSP somewhere, and never write assembly again.
//
// There is no .bss to clear. Memory that nobody has written reads as zeros,
// here as on any Host that gets its pages from a kernel.
//
// How does the Launcher know that this is no Linux? By the note, which says
// `Lguest`, type 1, version 1.

    .section .note.lguest, "a", @note
    .balign 4
    .long 7, 4, 1
    .asciz "Lguest"
    .balign 4
    .long 1

    .section .text.entry, "ax"
    .globl guest_entry
guest_entry:
    cli
    lea guest_stack_end(%rip), %rsp
    xor %ebp, %ebp
    call guest_start
    xor %edi, %edi
    xor %esi, %esi
    call main
    call guest_finish
    ud2

// A stack grows down and does not look where. What it grows into here is a
// page that GuestKit takes off the map, so that it ends in a page fault and
// not in somebody's variables. The exceptions have another, or the page fault
// of a stack that is full would have nowhere to go.

    .bss
    .balign 4096
    .globl guest_stack_guard
guest_stack_guard:
    .skip 4096
    .skip 64 * 1024
guest_stack_end:
    .skip 16 * 1024
    .globl guest_exception_stack_end
guest_exception_stack_end:
//:
    .section .note.GNU-stack, "", @progbits
