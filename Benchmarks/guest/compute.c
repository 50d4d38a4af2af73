// Work that never calls the kernel: what it costs is what the engine costs.
#include "workload.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void integers(u64 rounds) { sink += integer_mix(rounds); }

// Calls and returns, and nothing to do in between.
__attribute__((noinline, noclone, optimize("no-optimize-sibling-calls", "no-inline"))) static u32 fibonacci(u32 n) {
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static void calls(u64 rounds) {
    while (rounds--) sink += fibonacci(20);
}

enum { sorted = 20000 };
static u32 values[sorted];

static int compare(const void *a, const void *b) {
    u32 x = *(const u32 *)a, y = *(const u32 *)b;
    return (x > y) - (x < y);
}

static void sort(u64 rounds) {
    while (rounds--) {
        u32 seed = 12345;
        for (int i = 0; i < sorted; i++) {
            seed = seed * 1664525 + 1013904223;
            values[i] = seed >> 8;
        }
        qsort(values, sorted, sizeof *values, compare);
        sink += values[sorted / 2];
    }
}

enum { sieve_limit = 1 << 17 };
static u8 composite[sieve_limit];

static void sieve(u64 rounds) {
    while (rounds--) {
        u32 primes = 0;
        for (u32 i = 2; i < sieve_limit; i++) composite[i] = 0;
        for (u32 i = 2; i < sieve_limit; i++) {
            if (composite[i]) continue;
            primes++;
            for (u64 j = (u64)i * i; j < sieve_limit; j += i) composite[j] = 1;
        }
        sink += primes;
    }
}

// Each load's address is the last one's value; 4 MiB, a line each.
enum { links = 1 << 16, hops = 1 << 14 };
static struct link { struct link *next; u64 rest[7]; } chain[links];
static struct link *place;

static void make_chain(void) {
    static u32 order[links];
    u32 seed = 99;
    for (u32 i = 0; i < links; i++) order[i] = i;
    for (u32 i = links - 1; i > 0; i--) {
        seed = seed * 1664525 + 1013904223;
        u32 j = (u32)((u64)seed * (i + 1) >> 32), kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
    for (u32 i = 0; i < links; i++) chain[order[i]].next = &chain[order[(i + 1) % links]];
    place = chain;
}

static void chase(u64 rounds) {
    struct link *p = place;
    for (u64 i = rounds * hops; i; i--) p = p->next;
    place = p;
    sink += (u64)p;
}

// Five bodies under gravity: scalar doubles, with a square root and a division for each pair.
enum { bodies = 5, steps = 200 };
static struct body { double x, y, z, vx, vy, vz, mass; } system_of[bodies];

static void make_bodies(void) {
    for (int i = 0; i < bodies; i++) {
        struct body b = {cos(i) * (i * 5 + 1), sin(i) * (i * 5 + 1), 0.1 * i, -sin(i), cos(i), 0.01 * i, i ? 0.01 : 39.5};
        system_of[i] = b;
    }
}

__attribute__((optimize("no-tree-vectorize"))) static void n_body(u64 rounds) {
    for (u64 step = rounds * steps; step; step--) {
        for (int i = 0; i < bodies; i++) {
            struct body *a = &system_of[i];
            for (int j = i + 1; j < bodies; j++) {
                struct body *b = &system_of[j];
                double dx = a->x - b->x, dy = a->y - b->y, dz = a->z - b->z;
                double square = dx * dx + dy * dy + dz * dz + 0.001;
                double pull = 0.0001 / (square * sqrt(square));
                a->vx -= dx * b->mass * pull, a->vy -= dy * b->mass * pull, a->vz -= dz * b->mass * pull;
                b->vx += dx * a->mass * pull, b->vy += dy * a->mass * pull, b->vz += dz * a->mass * pull;
            }
        }
        for (int i = 0; i < bodies; i++) {
            struct body *a = &system_of[i];
            a->x += 0.0001 * a->vx, a->y += 0.0001 * a->vy, a->z += 0.0001 * a->vz;
        }
    }
    sink += (u64)(system_of[0].x * 1e6);
}

// Vectorised by the compiler for any x86-64: four floats at once.
enum { rank = 64 };
static float a[rank][rank], b[rank][rank], c[rank][rank];

static void make_matrices(void) {
    for (int i = 0; i < rank; i++)
        for (int j = 0; j < rank; j++) {
            a[i][j] = (float)(i - j) / rank;
            b[i][j] = (float)(i + j) / rank;
        }
}

__attribute__((optimize("tree-vectorize", "O3"))) static void multiply(u64 rounds) {
    while (rounds--) {
        memset(c, 0, sizeof c);
        for (int i = 0; i < rank; i++)
            for (int k = 0; k < rank; k++)
                for (int j = 0; j < rank; j++) c[i][j] += a[i][k] * b[k][j];
        sink += (u64)c[rank / 2][rank / 3];
    }
}

const struct test compute_tests[] = {
    {"integer-mix", integers, 1, 0},
    {"recursive-calls", calls, 21891, 0},
    {"sort", sort, sorted, 0},
    {"sieve", sieve, sieve_limit, 0},
    {"pointer-chase", chase, hops, make_chain},
    {"n-body", n_body, steps, make_bodies},
    {"float-matmul", multiply, 1, make_matrices},
    {0},
};
