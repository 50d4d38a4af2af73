// Code that was never there before: what an engine pays for translating, and
// for throwing away what it translated. A JIT compiler in a guest is like this.
#define _GNU_SOURCE
#include "workload.h"
#include <string.h>
#include <sys/mman.h>

// A round writes this many blocks, runs each once, and unmaps them.
enum { blocks = 50000, block_bytes = 24, block_instructions = 5, code_bytes = blocks * block_bytes + 1 };

static void new_code(u64 rounds) {
    // add eax, imm; xor eax, imm; cmp eax, imm; jb over the next one; lea eax, [rax + rdi * 2 + 1]
    static const u8 block[block_bytes] = {
        0x05, 0, 0, 0, 0, 0x35, 0, 0, 0, 0, 0x3d, 0, 0, 0, 0, 0x72, 7, 0x8d, 0x84, 0x78, 1, 0, 0, 0,
    };
    static u32 seed = 7;
    while (rounds--) {
        u8 *code = mmap(0, code_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (code == MAP_FAILED) die("mmap");
        for (int i = 0; i < blocks; i++) {
            u8 *at = code + i * block_bytes;
            memcpy(at, block, block_bytes);
            for (int operand = 1; operand <= 11; operand += 5) {
                seed = seed * 1664525 + 1013904223;
                memcpy(at + operand, &seed, 4);
            }
        }
        code[blocks * block_bytes] = 0xc3;  // ret
        if (mprotect(code, code_bytes, PROT_READ | PROT_EXEC)) die("mprotect");
        sink += ((u32(*)(u32))code)(seed);
        munmap(code, code_bytes);
    }
}

// Not a row of the table: run only when it is named.
const struct test code_tests[] = {{"new-code", new_code, (u64)blocks * block_instructions, 0}, {0}};
