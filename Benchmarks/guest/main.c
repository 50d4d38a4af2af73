//M:210 The same bytes everywhere
//
// A machine is as fast as the program that one wants to run on it, so `make
// bench` runs programs: a table's worth of small ones of our own, and Debian's
// busybox, which nobody compiled to look good here. Three machines run the very
// same bytes, natively as a process, on Roost and on QEMU's TCG as a guest's
// first process, taking turns. What is promised is a ratio to TCG, row by row,
// because that is what one would use instead, and ratios outlive machines.
//
// The workload is one static program, and /init of its guests.
//
//     workload [MILLISECONDS [NAME…]]
//
// A kernel hands the words after "--" on its command line to /init, so both
// are told in the same way. Each test is given more rounds until it takes at
// least MILLISECONDS (200 unless told otherwise), and then prints a line
//
//     result NAME NANOSECONDS
//
// for one unit of its work: how fast a machine is decides how much it does,
// and the figures can be compared all the same. Without a NAME all tests run but
// "new-code". NAME "idle" does nothing for ever.
//:
#define _GNU_SOURCE
#include "workload.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

volatile u64 sink;
const char *own_path;

void die(const char *what) {
    perror(what);
    exit(1);
}

static u64 nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
}

static void measure(const struct test *test, u64 least) {
    if (test->prepare) test->prepare();
    test->run(1);
    for (u64 rounds = 1;;) {
        u64 begin = nanoseconds();
        test->run(rounds);
        u64 elapsed = nanoseconds() - begin;
        if (elapsed >= least) {
            printf("result %s %.3f\n", test->name, (double)elapsed / (double)rounds / (double)test->units);
            return;
        }
        // Straight to the aim once there is an idea of the speed, a bit past it.
        u64 wanted = elapsed > least / 50 ? rounds * least / elapsed * 11 / 10 + 1 : rounds * 8;
        rounds = wanted > rounds ? wanted : rounds + 1;
    }
}

static int chosen(const char *name, int count, char **names) {
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) return 1;
    return count == 0;
}

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "exit") == 0) return 0;
    int first_process = getpid() == 1;
    if (first_process) {
        // An initramfs packed without root has no device nodes; the kernel makes them.
        mkdir("/dev", 0755);
        mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
        int console = open("/dev/console", O_RDWR);
        if (console >= 0) dup2(console, 0), dup2(console, 1), dup2(console, 2);
    }
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("workload begin");
    own_path = arguments[0];
    u64 least = count > 1 ? strtoul(arguments[1], 0, 10) * 1000000 : 200000000;
    if (count > 2 && strcmp(arguments[2], "idle") == 0)
        for (;;) pause();
    // Forks first: later there is more to copy. The last group is run by name only.
    const struct test *all[] = {kernel_tests, busybox_tests, compute_tests, memory_tests, code_tests};
    for (int i = 0; i < (count > 2 ? 5 : 4); i++)
        for (const struct test *test = all[i]; test->name; test++)
            if (chosen(test->name, count - 2, arguments + 2)) measure(test, least);
    puts("workload end");
    if (first_process) {
        sleep(0);
        reboot(RB_POWER_OFF);
        for (;;) pause();
    }
    return 0;
}
