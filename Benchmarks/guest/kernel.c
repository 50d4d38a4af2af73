// Work for the kernel: system calls, switches of processes and page tables.
#define _GNU_SOURCE
#include "workload.h"
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern const char *own_path;

static void null_call(u64 rounds) {
    while (rounds--) syscall(SYS_getppid);
}

static int zeroes = -1;

static void open_zeroes(void) {
    zeroes = open("/dev/zero", O_RDONLY);
    if (zeroes < 0) die("/dev/zero");
}

static void read_byte(u64 rounds) {
    char byte;
    while (rounds--)
        if (read(zeroes, &byte, 1) != 1) die("read");
}

// Two processes and two pipes, on one CPU everywhere: a guest has no second one.
static void ping_pong(u64 rounds) {
    cpu_set_t before, one;
    sched_getaffinity(0, sizeof before, &before);
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one);
    int there[2], back[2];
    if (pipe(there) || pipe(back)) die("pipe");
    pid_t child = fork();
    if (child < 0) die("fork");
    char byte = 0;
    if (child == 0) {
        for (u64 i = 0; i < rounds; i++)
            if (read(there[0], &byte, 1) != 1 || write(back[1], &byte, 1) != 1) _exit(1);
        _exit(0);
    }
    for (u64 i = 0; i < rounds; i++)
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) die("pipe");
    int status;
    waitpid(child, &status, 0);
    close(there[0]), close(there[1]), close(back[0]), close(back[1]);
    sched_setaffinity(0, sizeof before, &before);
}

// The program started is this one; it ends at once when told "exit".
static void fork_exec_wait(u64 rounds) {
    while (rounds--) {
        pid_t child = fork();
        if (child < 0) die("fork");
        if (child == 0) {
            execl(own_path, own_path, "exit", (char *)0);
            _exit(1);
        }
        int status;
        if (waitpid(child, &status, 0) != child || status != 0) die("exec");
    }
}

enum { fault_pages = 256 };

static void page_fault(u64 rounds) {
    size_t length = fault_pages * 4096;
    u8 *area = mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) die("mmap");
    madvise(area, length, MADV_NOHUGEPAGE);
    while (rounds--) {
        for (size_t i = 0; i < length; i += 4096) *(volatile u8 *)(area + i) = 1;
        if (madvise(area, length, MADV_DONTNEED)) die("madvise");
    }
    munmap(area, length);
}

static void map_touch_unmap(u64 rounds) {
    while (rounds--) {
        u8 *area = mmap(0, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (area == MAP_FAILED) die("mmap");
        for (int i = 0; i < 16384; i += 4096) *(volatile u8 *)(area + i) = 1;
        munmap(area, 16384);
    }
}

const struct test kernel_tests[] = {
    {"null-syscall", null_call, 1, 0},
    {"read-1-byte", read_byte, 1, open_zeroes},
    {"pipe-ping-pong", ping_pong, 1, 0},
    {"fork-exec-wait", fork_exec_wait, 1, 0},
    {"page-fault", page_fault, fault_pages, 0},
    {"mmap-touch-munmap", map_touch_unmap, 1, 0},
    {0},
};
