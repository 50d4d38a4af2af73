// What both examples send: bytes that are cheap to make and to know again, and
// different everywhere, so that none can be lost or come twice unseen. And how
// they tell what came of it.
#ifndef STREAM_H
#define STREAM_H
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// The eight bytes at eight times `place`.
static inline uint64_t stream_word(uint64_t place) {
    uint64_t word = (place + 1) * 0x9E3779B97F4A7C15u;
    return word ^ word >> 32;
}

static inline unsigned char stream_byte(uint64_t place) {
    return (unsigned char)(stream_word(place / 8) >> place % 8 * 8);
}

// Puts bytes `start` and on of the stream. Returns what they add to the checksum, the sum of all words.
static inline uint64_t stream_make(unsigned char *to, uint64_t start, size_t count) {
    uint64_t sum = 0, place = start, end = start + count;
    for (; place < end && place % 8; place++) sum += (uint64_t)(*to++ = stream_byte(place)) << place % 8 * 8;
    for (; end - place >= 8; place += 8, to += 8) {
        uint64_t word = stream_word(place / 8);
        memcpy(to, &word, 8);
        sum += word;
    }
    for (; place < end; place++) sum += (uint64_t)(*to++ = stream_byte(place)) << place % 8 * 8;
    return sum;
}

// Compares bytes `start` and on, and adds them to the checksum. Returns how many come before the first that is wrong.
static inline size_t stream_check(const unsigned char *from, uint64_t start, size_t count, uint64_t *checksum) {
    uint64_t sum = 0, place = start, end = start + count;
    while (place < end) {
        for (uint64_t word; place % 8 == 0 && end - place >= 8; place += 8, sum += word) {
            memcpy(&word, from + (place - start), 8);
            if (word != stream_word(place / 8)) break;
        }
        // The ends, and what is right in a word that is not.
        if (place == end) break;
        unsigned char byte = from[place - start];
        if (byte != stream_byte(place)) break;
        sum += (uint64_t)byte << place++ % 8 * 8;
    }
    *checksum += sum;
    return place - start;
}

// 5, 64K, 10M, 2G; powers of two. Returns 0 if it is nothing of the kind.
static inline uint64_t stream_size(const char *text) {
    char *end;
    if (*text < '0' || *text > '9') return 0;
    uint64_t size = strtoull(text, &end, 10);
    int shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
    if (end[shift > 0] || size > UINT64_MAX >> (shift + 1)) return 0;
    return size << shift;
}

static inline double stream_clock(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

// Without the end of the line: there may be more to tell.
static inline void stream_report(const char *what, uint64_t bytes, double seconds, uint64_t checksum) {
    printf("%s %" PRIu64 " bytes in %.3f s, %.1f MB/s, checksum %016" PRIx64, what, bytes, seconds,
           seconds > 0 ? (double)bytes / seconds / 1e6 : 0, checksum);
}
#endif
