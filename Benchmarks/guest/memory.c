// Memory by the megabyte, through the C library's own routines: some hundreds of
// them in all, in buffers that the caches hold, or it is the RAM that is measured.
#include "workload.h"
#include <stdlib.h>
#include <string.h>

enum { bytes = 4 << 20 };
static u8 *from, *to;

static void make_buffers(void) {
    if (from) return;
    from = malloc(bytes);
    to = malloc(bytes);
    memset(from, 1, bytes);
    memset(to, 2, bytes);
}

static void copy(u64 rounds) {
    while (rounds--) {
        memcpy(to, from, bytes);
        __asm__ volatile("" : : "r"(to) : "memory");
    }
    sink += to[12345];
}

static void fill(u64 rounds) {
    while (rounds--) {
        memset(to, (int)rounds, bytes);
        __asm__ volatile("" : : "r"(to) : "memory");
    }
    sink += to[12345];
}

const struct test memory_tests[] = {
    {"memcpy", copy, bytes >> 20, make_buffers},
    {"memset", fill, bytes >> 20, make_buffers},
    {0},
};
