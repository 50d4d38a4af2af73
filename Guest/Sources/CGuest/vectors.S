//G:052 Between two instructions
//
// An interrupt comes between any two instructions of a program that knows
// nothing of it, so whoever handles it must leave no trace. The CPU saves five
// words, perhaps an error code as well; we make it always one, and push the
// vector, so that all 64 stubs look alike and are 16 bytes each: the table of
// interrupts is then a multiplication.
//
// Swift uses SSE registers even to copy a struct, so these are saved too, in
// one instruction, at the price of half a kilobyte. And it runs on the stack
// of what was interrupted: the compiler must keep nothing below RSP, where
// the System V ABI would let it (that is the red zone; toolset.json turns it
// off, in C and in Swift).

    .text
    .balign 16
    .globl guest_vectors
guest_vectors:
    .set vector, 0
    .rept 64
    .balign 16
    // The exceptions with an error code: #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP.
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
    push $0
    .endif
    push $vector
    jmp guest_interrupted
    .set vector, vector + 1
    .endr

    .balign 16
guest_interrupted:
    push %rax
    push %rbx
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %rbp
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    mov %rsp, %rbp
    sub $512, %rsp
    and $-16, %rsp
    fxsave64 (%rsp)
    call guest_interrupt
    fxrstor64 (%rsp)
    mov %rbp, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rbp
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rbx
    pop %rax
    add $16, %rsp
    iretq
//:
    .section .note.GNU-stack, "", @progbits
