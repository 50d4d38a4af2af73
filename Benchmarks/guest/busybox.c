// Work by a program that nobody compiled for this: Debian's busybox, which lies
// beside the workload as "busybox", in a guest as natively. A round is one
// process of it, from fork to wait, with input from memory.
#define _GNU_SOURCE
#include "workload.h"
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern const char *own_path;

enum { input_bytes = 1 << 20 };
static int input = -1, nowhere = -1;
static char busybox[4096];

static void prepare(void) {
    if (nowhere >= 0) return;
    char own[sizeof busybox];
    snprintf(own, sizeof own, "%s", own_path);
    snprintf(busybox, sizeof busybox, "%.4000s/busybox", dirname(own));
    nowhere = open("/dev/null", O_RDWR);
    if (nowhere < 0) die("/dev/null");

    // Prose, as far as gzip can tell: words of a vocabulary, the first ones being the most common.
    input = memfd_create("input", 0);
    char *text = malloc(input_bytes + 16);
    u32 seed = 2024;
    for (int at = 0; at < input_bytes;) {
        seed = seed * 1664525 + 1013904223;
        u32 word = (seed >> 16) % ((seed >> 4) % 4096 + 1), letters = word * 2654435761u;
        for (u32 length = 2 + letters % 7; length; length--, letters = letters >> 4 | letters << 28)
            text[at++] = "etaoinshrdlucmfw"[letters % 16];
        text[at++] = seed >> 28 ? ' ' : '\n';
    }
    if (write(input, text, input_bytes) != input_bytes) die("input");
    free(text);
}

static void run(const char *const *command) {
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child == 0) {
        lseek(input, 0, SEEK_SET);
        dup2(input, 0), dup2(nowhere, 1), dup2(nowhere, 2);
        execv(busybox, (char *const *)command);
        _exit(127);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) {
        fprintf(stderr, "%s %s: status %x\n", busybox, command[1], (unsigned)status);
        exit(1);
    }
}

#define COMMAND(name, ...)                                                       \
    static void name(u64 rounds) {                                               \
        static const char *const command[] = {"busybox", __VA_ARGS__, (char *)0}; \
        while (rounds--) run(command);                                           \
    }

COMMAND(awk, "awk", "BEGIN { for (i = 0; i < 20000; i++) s += i * 1.5 / (i + 1) - s * 0.25; print s }")
COMMAND(sha256sum, "sha256sum")
COMMAND(gzip, "gzip", "-c")
COMMAND(shell, "sh", "-c", "i=0; while [ $i -lt 5000 ]; do i=$((i + 1)); done")
COMMAND(dd, "dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=10000")

const struct test busybox_tests[] = {
    {"busybox-awk", awk, 20000, prepare},
    {"busybox-sha256sum", sha256sum, 1, prepare},
    {"busybox-gzip", gzip, 1, prepare},
    {"busybox-shell", shell, 5000, prepare},
    {"busybox-dd", dd, 10000, prepare},
    {0},
};
