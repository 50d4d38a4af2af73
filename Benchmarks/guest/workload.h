// What the parts of the workload share. See main.c for what it is.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

/// One row of the table: does its work `rounds` times.
struct test {
    const char *name;
    void (*run)(u64 rounds);
    /// How many of what the row is named for are done in a round.
    u64 units;
    /// Called once before the first round, for what is not to be measured.
    void (*prepare)(void);
};

/// The results go here, so that no compiler can leave the work away.
extern volatile u64 sink;

/// integer.c: also the bare-metal program whose instructions are counted.
u64 integer_mix(u64 rounds);

/// Ends the program, with what errno says about `what`.
void die(const char *what);

extern const struct test kernel_tests[], busybox_tests[], compute_tests[], memory_tests[], code_tests[];
