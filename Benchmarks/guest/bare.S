// The bare-metal image's start. The Host has set up long mode, a stack, and
// RDI: the number of rounds. RAX has the sum when the CPU halts.
    .section .text.start, "ax"
    .globl _start
_start:
    call integer_mix
1:  hlt
    jmp 1b
    .section .note.GNU-stack, "", @progbits
