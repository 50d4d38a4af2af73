/* The part of the oracle that lives in signal handlers: a child process that
 * runs short pieces of code on the real CPU and says what became of them. */
#ifndef ROOST_CORACLE_H
#define ROOST_CORACLE_H

#include <stdint.h>
#include <sys/types.h>

/* The addresses a case may use, the same natively and in a Guest. Below
 * 2 GiB, so that 32-bit addresses and plain disp32 reach them; what lies
 * between is unmapped. */
#define ORACLE_CODE 0x10000000u /* read, execute; filled with INT3 */
#define ORACLE_CODE_PAGES 4
#define ORACLE_DATA 0x10010000u  /* read, write */
#define ORACLE_STACK 0x10020000u /* read, write */
#define ORACLE_ROM 0x10030000u   /* read */
#define ORACLE_RW_PAGES 2        /* of DATA and of STACK each */
#define ORACLE_ROM_PAGES 1
#define ORACLE_IMAGE_PAGES 5     /* all of DATA, STACK, ROM, in this order */
#define ORACLE_IMAGE_WORDS (ORACLE_IMAGE_PAGES * 512)

#define ORACLE_CODE_WORDS 32 /* of one case: room for a sequence, in pieces */
#define ORACLE_PATCHES 4
#define ORACLE_CHANGES 96
#define ORACLE_BATCH 256

/* Not vectors: the child had to be ended, or ended itself. */
#define ORACLE_TIMED_OUT 254
#define ORACLE_DIED 255

struct oracle_patch {
    uint64_t address;
    uint64_t count; /* of bytes, at most 64 */
    uint64_t bytes[8];
};

struct oracle_case {
    uint64_t gpr[16]; /* in the order of their numbers: rax, rcx, rdx, rbx, rsp … */
    uint64_t rip;
    uint64_t rflags;
    uint64_t ymm[16][4];
    uint64_t fxsave[20]; /* bytes 0…159 of FXSAVE64; MXCSR at 24 */
    uint64_t code[ORACLE_CODE_WORDS];
    uint64_t code_count;
    uint64_t patch_count;
    struct oracle_patch patches[ORACLE_PATCHES];
};

struct oracle_change {
    uint64_t address;
    uint64_t value;
};

struct oracle_outcome {
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags;
    uint64_t ymm[16][4];
    uint64_t fxsave[20];
    uint64_t vector;
    uint64_t error_code;
    uint64_t cr2;
    uint64_t change_count; /* all of them, even those past the array's end */
    uint64_t change_digest;
    struct oracle_change changes[ORACLE_CHANGES];
};

struct oracle_shared {
    uint32_t request; /* futex: a batch's serial number, from the parent */
    uint32_t reply;   /* futex: the same number, when done */
    uint32_t count;
    uint32_t position; /* the case being run; the parent may set it before a request */
    uint32_t failure;  /* errno of setting up, then the step in the upper half */
    uint32_t spare;
    uint64_t image[ORACLE_IMAGE_WORDS]; /* what data pages hold before each case */
    struct oracle_case cases[ORACLE_BATCH];
    struct oracle_outcome outcomes[ORACLE_BATCH];
};

/* Where in the image the byte of an address is; -1 if it is nowhere. */
static inline int64_t oracle_image_offset(uint64_t address) {
    if (address - ORACLE_DATA < ORACLE_RW_PAGES * 4096u) return (int64_t)(address - ORACLE_DATA);
    if (address - ORACLE_STACK < ORACLE_RW_PAGES * 4096u)
        return (int64_t)(address - ORACLE_STACK + ORACLE_RW_PAGES * 4096u);
    if (address - ORACLE_ROM < ORACLE_ROM_PAGES * 4096u)
        return (int64_t)(address - ORACLE_ROM + 2 * ORACLE_RW_PAGES * 4096u);
    return -1;
}

/* Notes the words in which `after` is not `before`, as changes from `address` on. */
void oracle_collect(struct oracle_outcome *outcome, const uint64_t *before, const uint64_t *after,
                    uint64_t words, uint64_t address);

/* Shared memory, zeroed; null with errno. */
struct oracle_shared *oracle_share(void);
void oracle_unshare(struct oracle_shared *shared);

static inline void *oracle_image(struct oracle_shared *shared) { return shared->image; }
static inline void *oracle_cases(struct oracle_shared *shared) { return shared->cases; }
static inline void *oracle_outcomes(struct oracle_shared *shared) { return shared->outcomes; }

/* Starts a child on the shared memory; -1 with errno. */
pid_t oracle_spawn(struct oracle_shared *shared);
void oracle_kill(pid_t child);

/* Hands over `count` cases, the first `position` of them done already, and waits. 0: all done. 1: no
 * progress for `patience` ms. 2: the child has ended. */
int oracle_submit(struct oracle_shared *shared, pid_t child, uint32_t position, uint32_t count, int patience);

#endif
