#define _GNU_SOURCE
#include "COracle.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/*
 * There is no entry code and no exit code. A case starts by the return from a
 * signal handler, with every register as the handler wrote it into the saved
 * context, and ends by the next signal: at the latest that of the INT3 behind
 * the instruction. So one handler is the whole loop: note what became of the
 * last case, put the next one in its place, return. About 2 us a turn.
 */

static struct oracle_shared *shared;
static uint64_t *before; /* what the data pages held when the case began */
static uint8_t *code;    /* the code pages, writable */
static int running;
static pid_t parent;
static uint8_t alternate_stack[64 << 10] __attribute__((aligned(64)));

static const struct {
    uint64_t address;
    uint32_t words, image;
} regions[] = {
    {ORACLE_DATA, ORACLE_RW_PAGES * 512, 0},
    {ORACLE_STACK, ORACLE_RW_PAGES * 512, ORACLE_RW_PAGES * 512},
};

void oracle_collect(struct oracle_outcome *outcome, const uint64_t *before, const uint64_t *after,
                    uint64_t words, uint64_t address) {
    for (uint64_t block = 0; block < words; block += 16) {
        uint64_t differing = 0;
        for (int i = 0; i < 16; i++) differing |= before[block + i] ^ after[block + i];
        if (!differing) continue;
        for (uint64_t i = block; i < block + 16; i++) {
            if (before[i] == after[i]) continue;
            if (outcome->change_count < ORACLE_CHANGES)
                outcome->changes[outcome->change_count] = (struct oracle_change){address + i * 8, after[i]};
            outcome->change_count++;
            outcome->change_digest =
                (outcome->change_digest ^ after[i] ^ (address + i * 8) << 20) * 0x9e3779b97f4a7c15u;
        }
    }
}

static const int context_order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                      REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/* Where XSAVE's standard format has its header, and the upper halves of YMM (SDM 1, 13.4). */
enum { header = 512, upper_halves = 576 };

static void note(struct oracle_outcome *out, ucontext_t *context) {
    const greg_t *registers = context->uc_mcontext.gregs;
    for (int i = 0; i < 16; i++) out->gpr[i] = (uint64_t)registers[context_order[i]];
    out->rip = (uint64_t)registers[REG_RIP];
    out->rflags = (uint64_t)registers[REG_EFL];
    out->vector = (uint64_t)registers[REG_TRAPNO];
    out->error_code = (uint64_t)registers[REG_ERR];
    out->cr2 = (uint64_t)registers[REG_CR2];
    const uint8_t *area = (const uint8_t *)context->uc_mcontext.fpregs;
    memcpy(out->fxsave, area, sizeof out->fxsave);
    uint64_t present;
    memcpy(&present, area + header, 8);
    for (int i = 0; i < 16; i++) {
        memcpy(&out->ymm[i][0], area + 160 + 16 * i, 16);
        if (present & 4) memcpy(&out->ymm[i][2], area + upper_halves + 16 * i, 16);
        else out->ymm[i][2] = out->ymm[i][3] = 0;
    }

    out->change_count = 0;
    out->change_digest = 0;
    for (unsigned r = 0; r < 2; r++) {
        uint64_t *live = (uint64_t *)regions[r].address;
        uint64_t count = out->change_count;
        oracle_collect(out, before + regions[r].image, live, regions[r].words, regions[r].address);
        if (out->change_count != count) memcpy(live, shared->image + regions[r].image, regions[r].words * 8);
    }
}

/* An instruction may hang over the end of the code pages. */
static uint64_t code_room(const struct oracle_case *test) {
    uint64_t room = ORACLE_CODE + ORACLE_CODE_PAGES * 4096 - test->rip;
    return test->code_count < room ? test->code_count : room;
}

static void put_back(const struct oracle_case *test) {
    memset(code + (test->rip - ORACLE_CODE), 0xcc, code_room(test));
    for (uint64_t i = 0; i < test->patch_count; i++) {
        int64_t offset = oracle_image_offset(test->patches[i].address);
        const uint8_t *original = (const uint8_t *)shared->image + offset;
        memcpy((uint8_t *)before + offset, original, test->patches[i].count);
        memcpy((void *)test->patches[i].address, original, test->patches[i].count);
    }
}

static void load(const struct oracle_case *test, ucontext_t *context) {
    memcpy(code + (test->rip - ORACLE_CODE), test->code, code_room(test));
    for (uint64_t i = 0; i < test->patch_count; i++) {
        const struct oracle_patch *patch = &test->patches[i];
        memcpy((uint8_t *)before + oracle_image_offset(patch->address), patch->bytes, patch->count);
        memcpy((void *)patch->address, patch->bytes, patch->count);
    }
    greg_t *registers = context->uc_mcontext.gregs;
    for (int i = 0; i < 16; i++) registers[context_order[i]] = (greg_t)test->gpr[i];
    registers[REG_RIP] = (greg_t)test->rip;
    registers[REG_EFL] = (greg_t)test->rflags;
    registers[REG_CR2] = 0;
    uint8_t *area = (uint8_t *)context->uc_mcontext.fpregs;
    uint8_t mask[4];
    memcpy(mask, area + 28, 4);
    memcpy(area, test->fxsave, sizeof test->fxsave);
    memcpy(area + 28, mask, 4);
    for (int i = 0; i < 16; i++) {
        memcpy(area + 160 + 16 * i, &test->ymm[i][0], 16);
        memcpy(area + upper_halves + 16 * i, &test->ymm[i][2], 16);
    }
    /* x87, SSE, AVX are what we have written; all else starts anew. */
    uint64_t present = 7;
    memcpy(area + header, &present, 8);
}

static void await(void) {
    uint32_t done = __atomic_load_n(&shared->reply, __ATOMIC_ACQUIRE);
    uint32_t request;
    while ((request = __atomic_load_n(&shared->request, __ATOMIC_ACQUIRE)) == done) {
        struct timespec second = {.tv_sec = 1};
        syscall(SYS_futex, &shared->request, FUTEX_WAIT, request, &second, NULL, 0);
        /* PR_SET_PDEATHSIG would watch the thread that forked, not its process. */
        if (getppid() != parent) _exit(0);
    }
}

static void turn(int signal, siginfo_t *information, void *argument) {
    /* The case's AC, NT and ID came along: to run C with. */
    __builtin_ia32_writeeflags_u64(0x202);
    (void)signal;
    (void)information;
    ucontext_t *context = argument;
    if (running) {
        uint32_t position = shared->position;
        note(&shared->outcomes[position], context);
        put_back(&shared->cases[position]);
        __atomic_store_n(&shared->position, position + 1, __ATOMIC_RELEASE);
    }
    while (shared->position >= shared->count || !running) {
        if (running) {
            __atomic_store_n(&shared->reply, shared->request, __ATOMIC_RELEASE);
            syscall(SYS_futex, &shared->reply, FUTEX_WAKE, 1, NULL, NULL, 0);
        }
        running = 1;
        await();
    }
    load(&shared->cases[shared->position], context);
}

static void fail(uint32_t step) {
    shared->failure = step << 16 | (uint32_t)errno;
    _exit(1);
}

static void *place(uint64_t address, uint64_t bytes, int protection, int flags, int file) {
    void *memory = mmap((void *)address, bytes, protection, flags | (address ? MAP_FIXED_NOREPLACE : 0), file, 0);
    if (memory == MAP_FAILED || (address && memory != (void *)address)) fail(1);
    return memory;
}

/* The instructions are chosen never to make a system call. Should one jump
 * astray into something that does, it dies there. */
static void confine(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 6),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) fail(4);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) fail(5);
}

static void child(struct oracle_shared *memory) {
    shared = memory;

    int file = (int)syscall(SYS_memfd_create, "oracle-code", 0u);
    if (file < 0 || ftruncate(file, ORACLE_CODE_PAGES * 4096)) fail(2);
    place(ORACLE_CODE, ORACLE_CODE_PAGES * 4096, PROT_READ | PROT_EXEC, MAP_SHARED, file);
    code = place(0, ORACLE_CODE_PAGES * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file);
    memset(code, 0xcc, ORACLE_CODE_PAGES * 4096);
    syscall(SYS_close_range, 0u, ~0u, 0u);

    const int anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
    before = place(0, sizeof shared->image, PROT_READ | PROT_WRITE, anonymous, -1);
    memcpy(before, shared->image, sizeof shared->image);
    for (unsigned r = 0; r < 2; r++) {
        void *live = place(regions[r].address, regions[r].words * 8, PROT_READ | PROT_WRITE, anonymous, -1);
        memcpy(live, shared->image + regions[r].image, regions[r].words * 8);
    }
    void *rom = place(ORACLE_ROM, ORACLE_ROM_PAGES * 4096, PROT_READ | PROT_WRITE, anonymous, -1);
    memcpy(rom, shared->image + 2 * ORACLE_RW_PAGES * 512, ORACLE_ROM_PAGES * 4096);
    mprotect(rom, ORACLE_ROM_PAGES * 4096, PROT_READ);

    stack_t stack = {.ss_sp = alternate_stack, .ss_size = sizeof alternate_stack};
    if (sigaltstack(&stack, NULL)) fail(3);
    struct sigaction action = {.sa_sigaction = turn, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    const int signals[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    for (unsigned i = 0; i < 5; i++) sigaddset(&action.sa_mask, signals[i]);
    for (unsigned i = 0; i < 5; i++)
        if (sigaction(signals[i], &action, NULL)) fail(3);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    confine();
    __asm__ volatile("int3");
    _exit(2);
}

struct oracle_shared *oracle_share(void) {
    void *memory = mmap(NULL, sizeof(struct oracle_shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void oracle_unshare(struct oracle_shared *memory) { munmap(memory, sizeof(struct oracle_shared)); }

pid_t oracle_spawn(struct oracle_shared *memory) {
    memory->failure = 0;
    memory->reply = memory->request;
    parent = getpid();
    pid_t pid = fork();
    if (pid == 0) child(memory);
    return pid;
}

void oracle_kill(pid_t pid) {
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

int oracle_submit(struct oracle_shared *memory, pid_t pid, uint32_t position, uint32_t count, int patience) {
    memory->position = position;
    memory->count = count;
    uint32_t request = memory->request + 1;
    __atomic_store_n(&memory->request, request, __ATOMIC_RELEASE);
    syscall(SYS_futex, &memory->request, FUTEX_WAKE, 1, NULL, NULL, 0);
    int quiet = 0;
    uint32_t last = position;
    for (;;) {
        uint32_t reply = __atomic_load_n(&memory->reply, __ATOMIC_ACQUIRE);
        if (reply == request) return 0;
        struct timespec slice = {.tv_nsec = 20 * 1000 * 1000};
        syscall(SYS_futex, &memory->reply, FUTEX_WAIT, reply, &slice, NULL, 0);
        if (__atomic_load_n(&memory->reply, __ATOMIC_ACQUIRE) == request) return 0;
        siginfo_t ended = {0};
        if (waitid(P_PID, (id_t)pid, &ended, WEXITED | WNOHANG | WNOWAIT) || ended.si_pid) return 2;
        uint32_t now = __atomic_load_n(&memory->position, __ATOMIC_ACQUIRE);
        quiet = now == last ? quiet + 20 : 0;
        last = now;
        if (quiet >= patience) return 1;
    }
}
