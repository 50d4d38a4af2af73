// What a test does with Xen's devices in a guest, step by step: commands come
// from stdin, one per line, and each is answered with one line. Two guests'
// probes can so be led in lock-step.
//
//     probe                          reads commands to the end of stdin
//     probe --script 'line; line'    does these; ends with the first that fails
//     probe --help                   the commands
//
// An answer is "ok" and what there is to tell; "error" and the errno's name;
// "timeout"; "signal" and its name; or "bad" and what was not understood. With
// --script the exit status is 0, 1, 2, 3 or 64 in this order.
#define _GNU_SOURCE
#include <ctype.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/reboot.h>
#include <sys/wait.h>

#include "grants.h"
#include "store.h"

_Static_assert(IOCTL_GNTALLOC_ALLOC_GREF == 0x184705 && IOCTL_GNTALLOC_DEALLOC_GREF == 0x104706 &&
                   IOCTL_GNTALLOC_SET_UNMAP_NOTIFY == 0x104707, "gntalloc's numbers");
_Static_assert(IOCTL_GNTDEV_MAP_GRANT_REF == 0x184700 && IOCTL_GNTDEV_UNMAP_GRANT_REF == 0x104701 &&
                   IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR == 0x184702 && IOCTL_GNTDEV_SET_UNMAP_NOTIFY == 0x104707 &&
                   IOCTL_GNTDEV_GRANT_COPY == 0x104708, "gntdev's numbers");
_Static_assert(IOCTL_EVTCHN_BIND_INTERDOMAIN == 0x84501 && IOCTL_EVTCHN_BIND_UNBOUND_PORT == 0x44502 &&
                   IOCTL_EVTCHN_UNBIND == 0x44503 && IOCTL_EVTCHN_NOTIFY == 0x44504, "evtchn's numbers");
_Static_assert(sizeof(struct gntdev_grant_copy_segment) == 24, "a segment to copy");

enum { HANDLES = 64, WORDS = 600, PORTS = 64, SOURCE_GRANT = 1, DEST_GRANT = 2 };

static const char help[] =
    "F and M are 0..63: a file and a mapping. REFS: 8  8,9,12  8-263; a run may go down.\n"
    "TEXT and VALUE go to the line's end and have \\xNN for any byte. MS below 0: for ever.\n"
    "open gntalloc|gntdev|evtchn|xenbus F            close F\n"
    "alloc F DOMID FLAGS COUNT -> INDEX REFS         dealloc F INDEX COUNT\n"
    "notify F INDEX ACTION PORT                      offset F M -> OFFSET COUNT\n"
    "mapref F DOMID REFS.. -> INDEX                  maprange F DOMID FIRSTREF COUNT -> INDEX\n"
    "unmapref F INDEX COUNT\n"
    "mmap F M INDEX COUNT r|rw shared|private        buffer M COUNT (of our own pages)\n"
    "munmap M [FIRSTPAGE COUNT]                      mprotect M none|r|rw\n"
    "peek M OFFSET COUNT -> TEXT                     poke M OFFSET TEXT\n"
    "fill M OFFSET COUNT BYTE                        sum M OFFSET COUNT -> SUM (of the bytes)\n"
    "copy F SEGMENT.. -> STATUS..   SEGMENT: in DOMID REF REFOFFSET M OFFSET LENGTH\n"
    "    out M OFFSET DOMID REF REFOFFSET LENGTH | between DOMID REF REFOFFSET DOMID REF REFOFFSET LENGTH\n"
    "    local M OFFSET M OFFSET LENGTH\n"
    "bindunbound F DOMID -> PORT                     bindinter F DOMID PORT -> PORT\n"
    "ring F PORT                                     unbind F PORT\n"
    "wait F MS -> PORT..                             waitkeep F MS -> PORT.. (which stay silent)\n"
    "enable F PORT..                                 pending F -> none|some|overflow\n"
    "store read PATH -> VALUE                        store write PATH VALUE\n"
    "store mkdir PATH                                store rm PATH\n"
    "store ls PATH -> NAME..                         store perms PATH [P..] -> P..\n"
    "store wait PATH MS -> VALUE (not empty)         store begin -> ID    store commit    store abort\n"
    "store watch PATH    store unwatch PATH          store event MS -> PATH\n"
    "store raw TYPE TEXT -> TEXT                     domid -> DOMID\n"
    "ioctl F NUMBER [HEXBYTES|null] -> RESULT HEXBYTES\n"
    "sleep MS      fork M      kill      exit N      crash      reboot      poweroff\n"
    "storm F PORT MS -> RINGS (as fast as it can)    listen F MS -> RINGS (hears them as fast as it can)\n"
    "compute MS -> STEPS (how far a sum has come in that time)\n"
    "bench map F DOMID REFS COUNT ROUNDS             bench alloc F DOMID COUNT ROUNDS\n"
    "bench pingpong a|b F PORT ROUNDS (b first; both with nothing pending)\n";

static int files[HANDLES];
static struct { unsigned char *memory; size_t pages; } maps[HANDLES];
static char *words[WORDS + 1];
static int count, outcome;
static struct store store;
static sigjmp_buf out_of_fault;
static volatile sig_atomic_t may_fault, fault;
// As long as the longest value with every byte as \xNN.
static char text[4 * STORE_MOST + 4096];
static uint32_t *references;  // MOST_GRANTS

// Answers. Each command ends with exactly one.

__attribute__((format(printf, 2, 3))) static void answer(int status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
    outcome = status;
}

static void ok(void) { answer(0, "ok"); }
static void failed(void) { answer(1, "error %s", strerrorname_np(errno) ? strerrorname_np(errno) : "unknown"); }
static void bad(const char *what) { answer(64, "bad %s", what); }
static void late(void) { answer(3, "timeout"); }
static void done(int result) { result < 0 ? failed() : ok(); }
static void done_with(int result) { result < 0 ? failed() : answer(0, "ok %d", result); }

// What was asked for. A word that cannot be is noted, and answered in place of the command.

static const char *trouble;

static uint64_t number(int word) {
    char *end;
    if (word >= count) return trouble = "too few words", 0;
    uint64_t value = strtoull(words[word], &end, 0);
    if (end == words[word] || *end) trouble = words[word];
    return value;
}

static int milliseconds(int word) { return (int)(int64_t)number(word); }

static int file(int word) {
    uint64_t handle = number(word);
    if (trouble) return -1;
    if (handle >= HANDLES || files[handle] < 0) return trouble = "file", -1;
    return files[handle];
}

static uint64_t mapping(int word) {
    uint64_t handle = number(word);
    if (!trouble && (handle >= HANDLES || !maps[handle].memory)) trouble = "mapping";
    return trouble ? 0 : handle;
}

static uint64_t free_mapping(int word) {
    uint64_t handle = number(word);
    if (!trouble && (handle >= HANDLES || maps[handle].memory)) trouble = "mapping";
    return trouble ? 0 : handle;
}

// Within the mapping: what a mistake here hit would be the probe itself.
static unsigned char *place(int map_word, int offset_word, uint64_t length) {
    uint64_t handle = mapping(map_word), offset = number(offset_word);
    if (trouble) return NULL;
    uint64_t size = maps[handle].pages * PAGE;
    if (offset > size || length > size - offset) return trouble = "range", NULL;
    return maps[handle].memory + offset;
}

static int access_of(int word) {
    const char *name = word < count ? words[word] : "too few words";
    if (!strcmp(name, "none")) return PROT_NONE;
    if (!strcmp(name, "r")) return PROT_READ;
    if (!strcmp(name, "rw")) return PROT_READ | PROT_WRITE;
    trouble = name;
    return 0;
}

// The references a word is for, behind those there already are.
static uint32_t add_references(int word, uint32_t have) {
    if (word >= count) trouble = "too few words";
    for (char *next = trouble ? NULL : words[word]; next;) {
        char *end;
        int64_t first = (int64_t)strtoul(next, &end, 0), last = first;
        if (end == next) return trouble = words[word], 0;
        if (*end == '-') last = (int64_t)strtoul(next = end + 1, &end, 0);
        if (end == next || (*end && *end != ',')) return trouble = words[word], 0;
        for (int64_t step = last < first ? -1 : 1;; first += step) {
            if (have == MOST_GRANTS) return trouble = "too many references", 0;
            references[have++] = (uint32_t)first;
            if (first == last) break;
        }
        next = *end ? end + 1 : NULL;
    }
    return have;
}

// \xNN to bytes, in place. Returns how many bytes it is.
static size_t unescape(char *from) {
    char *to = from, *begin = from;
    while (*from) {
        if (from[0] == '\\' && from[1] == 'x' && isxdigit((unsigned char)from[2]) && isxdigit((unsigned char)from[3])) {
            char digits[3] = {from[2], from[3], 0};
            *to++ = (char)strtoul(digits, NULL, 16);
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *to = 0;
    return (size_t)(to - begin);
}

static const char *escape(const char *from, size_t length) {
    char *to = text;
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)from[i];
        if (byte >= ' ' && byte < 127 && byte != '\\') *to++ = (char)byte;
        else to += sprintf(to, "\\x%02x", byte);
    }
    *to = 0;
    return text;
}

// A byte at a time, each a plain access that the compiler leaves as it is.
static void on_fault(int number) {
    if (!may_fault) {
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    fault = number;
    siglongjmp(out_of_fault, 1);
}

enum access { PEEK, POKE, FILL, SUM };

// Returns false, with the answer given, if it ended in a signal.
static bool touch(enum access how, unsigned char *at, char *bytes, size_t length, uint64_t *sum) {
    volatile unsigned char *memory = at;
    volatile uint64_t total = 0;
    if (sigsetjmp(out_of_fault, 1)) {
        may_fault = 0;
        answer(2, "signal %s", fault == SIGBUS ? "SIGBUS" : "SIGSEGV");
        return false;
    }
    may_fault = 1;
    for (size_t i = 0; i < length; i++) {
        switch (how) {
        case PEEK: bytes[i] = (char)memory[i]; break;
        case POKE: memory[i] = (unsigned char)bytes[i]; break;
        case FILL: memory[i] = (unsigned char)*bytes; break;
        case SUM: total += memory[i];
        }
    }
    may_fault = 0;
    if (sum) *sum = total;
    return true;
}

static int64_t nanoseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

// The commands.

static void open_device(void) {
    static const char *const names[] = {"gntalloc", "gntdev", "evtchn", "xenbus"};
    uint64_t handle = number(2);
    const char *name = NULL;
    for (int i = 0; i < 4; i++)
        if (count > 1 && !strcmp(words[1], names[i])) name = names[i];
    if (!trouble && (handle >= HANDLES || files[handle] >= 0)) trouble = "file";
    if (!name) trouble = "device";
    if (trouble) return bad(trouble);
    done(files[handle] = xen_open(name));
}

static void close_device(void) {
    int old = file(1);
    if (trouble) return bad(trouble);
    files[number(1)] = -1;
    done(close(old));
}

static void alloc(void) {
    int device = file(1);
    uint64_t guest = number(2), flags = number(3), pages = number(4), index = 0;
    if (trouble) return bad(trouble);
    if (grant_pages(device, (unsigned)guest, (unsigned)flags, (uint32_t)pages, &index, references)) return failed();
    printf("ok %llu", (unsigned long long)index);
    // Few one by one; many as runs, for the line to stay short.
    for (uint32_t i = 0, last; i < pages && i < MOST_GRANTS; i = last + 1) {
        uint32_t step = i + 1 < pages && references[i + 1] == references[i] - 1 ? UINT32_MAX : 1;
        for (last = i; pages > 16 && last + 1 < pages && references[last + 1] == references[last] + step;) last++;
        printf(last == i ? " %u" : " %u-%u", references[i], references[last]);
    }
    answer(0, "%s", "");
}

static void map_references(bool range) {
    int device = file(1);
    uint64_t guest = number(2), index = 0, pages = 0;
    if (range) {
        uint64_t first = number(3);
        pages = number(4);
        for (uint64_t i = 0; i < pages && i < MOST_GRANTS; i++) references[i] = (uint32_t)(first + i);
    } else {
        for (int i = 3; i < count && !trouble; i++) pages = add_references(i, (uint32_t)pages);
    }
    if (trouble) return bad(trouble);
    if (map_grants(device, (unsigned)guest, references, (uint32_t)pages, &index)) return failed();
    answer(0, "ok %llu", (unsigned long long)index);
}

static void map_memory(void) {
    int device = file(1), access = access_of(5), flags = MAP_SHARED;
    uint64_t handle = free_mapping(2), index = number(3), pages = number(4);
    if (count < 7) trouble = "too few words";
    else if (!strcmp(words[6], "private")) flags = MAP_PRIVATE;
    else if (strcmp(words[6], "shared")) trouble = words[6];
    if (trouble) return bad(trouble);
    void *memory = mmap(NULL, pages * PAGE, access, flags, device, (off_t)index);
    if (memory == MAP_FAILED) return failed();
    maps[handle].memory = memory;
    maps[handle].pages = pages;
    ok();
}

static void buffer(void) {
    uint64_t handle = free_mapping(1), pages = number(2);
    if (trouble) return bad(trouble);
    void *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return failed();
    maps[handle].memory = memory;
    maps[handle].pages = pages;
    ok();
}

static void unmap_memory(void) {
    uint64_t handle = mapping(1), first = count > 2 ? number(2) : 0;
    uint64_t pages = count > 2 ? number(3) : maps[handle].pages;
    if (!trouble && (first > maps[handle].pages || pages > maps[handle].pages - first)) trouble = "range";
    if (trouble) return bad(trouble);
    if (munmap(maps[handle].memory + first * PAGE, pages * PAGE)) return failed();
    if (count == 2) maps[handle].memory = NULL;
    ok();
}

static void protect(void) {
    uint64_t handle = mapping(1);
    int access = access_of(2);
    if (trouble) return bad(trouble);
    done(mprotect(maps[handle].memory, maps[handle].pages * PAGE, access));
}

static void offset_of(void) {
    int device = file(1);
    uint64_t handle = mapping(2);
    if (trouble) return bad(trouble);
    struct ioctl_gntdev_get_offset_for_vaddr request = {.vaddr = (uintptr_t)maps[handle].memory};
    if (ioctl(device, IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR, &request)) return failed();
    answer(0, "ok %llu %u", (unsigned long long)request.offset, request.count);
}

static void peek(void) {
    char bytes[STORE_MOST];
    uint64_t length = number(3);
    unsigned char *at = place(1, 2, length);
    if (!trouble && length > sizeof bytes) trouble = "range";
    if (trouble) return bad(trouble);
    if (touch(PEEK, at, bytes, length, NULL)) answer(0, "ok %s", escape(bytes, length));
}

static void poke(char *rest) {
    size_t length = unescape(rest);
    unsigned char *at = place(1, 2, length);
    if (trouble) return bad(trouble);
    if (touch(POKE, at, rest, length, NULL)) ok();
}

static void fill(void) {
    uint64_t length = number(3);
    unsigned char *at = place(1, 2, length);
    char byte = (char)number(4);
    if (trouble) return bad(trouble);
    if (touch(FILL, at, &byte, length, NULL)) ok();
}

static void sum(void) {
    uint64_t length = number(3), total;
    unsigned char *at = place(1, 2, length);
    if (trouble) return bad(trouble);
    if (touch(SUM, at, NULL, length, &total)) answer(0, "ok %llu", (unsigned long long)total);
}

static void copy(void) {
    struct gntdev_grant_copy_segment segments[64];
    int device = file(1), next = 2;
    unsigned many = 0;
    memset(segments, 0, sizeof segments);
    while (next < count && !trouble) {
        if (many == 64) return bad("too many segments");
        struct gntdev_grant_copy_segment *segment = &segments[many++];
        const char *form = words[next++];
        bool from_grant = !strcmp(form, "in") || !strcmp(form, "between");
        bool to_grant = !strcmp(form, "out") || !strcmp(form, "between");
        if (!from_grant && !to_grant && strcmp(form, "local")) return bad(form);
        int last = next + (from_grant ? 3 : 2) + (to_grant ? 3 : 2);
        uint64_t length = number(last);
        for (int side = 0; side < 2; side++) {
            if (side ? to_grant : from_grant) {
                uint64_t guest = number(next), reference = number(next + 1), offset = number(next + 2);
                next += 3;
                if (side) {
                    segment->dest.foreign.domid = (domid_t)guest;
                    segment->dest.foreign.ref = (grant_ref_t)reference;
                    segment->dest.foreign.offset = (uint16_t)offset;
                } else {
                    segment->source.foreign.domid = (domid_t)guest;
                    segment->source.foreign.ref = (grant_ref_t)reference;
                    segment->source.foreign.offset = (uint16_t)offset;
                }
            } else {
                void *at = place(next, next + 1, length);
                next += 2;
                if (side) segment->dest.virt = at;
                else segment->source.virt = at;
            }
        }
        segment->len = (uint16_t)length;
        segment->flags = (uint16_t)((from_grant ? SOURCE_GRANT : 0) | (to_grant ? DEST_GRANT : 0));
        segment->status = 99;  // no status there is: the driver's is to be seen
        next = last + 1;
    }
    if (trouble) return bad(trouble);
    struct ioctl_gntdev_grant_copy request = {many, segments};
    if (ioctl(device, IOCTL_GNTDEV_GRANT_COPY, &request)) return failed();
    printf("ok");
    for (unsigned i = 0; i < many; i++) printf(" %d", segments[i].status);
    answer(0, "%s", "");
}

static void await(bool again) {
    uint32_t ports[PORTS];
    int device = file(1), time = milliseconds(2);
    if (trouble) return bad(trouble);
    int rung = bell_wait(device, time, ports, PORTS);
    if (rung == 0) return late();
    if (rung < 0 || (again && bell_again(device, ports, (size_t)rung))) return failed();
    printf("ok");
    for (int i = 0; i < rung; i++) printf(" %u", ports[i]);
    answer(0, "%s", "");
}

static void enable(void) {
    uint32_t ports[PORTS];
    int device = file(1), many = 0;
    for (int i = 2; i < count && many < PORTS; i++) ports[many++] = (uint32_t)number(i);
    if (trouble) return bad(trouble);
    done(bell_again(device, ports, (size_t)many));
}

static void pending(void) {
    struct pollfd bells = {.fd = file(1), .events = POLLIN};
    if (trouble) return bad(trouble);
    if (poll(&bells, 1, 0) < 0) return failed();
    answer(0, "ok %s", bells.revents & POLLERR ? "overflow" : bells.revents & POLLIN ? "some" : "none");
}

static void any_ioctl(void) {
    static unsigned char bytes[65536];
    int device = file(1);
    uint64_t what = number(2);
    size_t length = 0;
    bool null = count > 3 && !strcmp(words[3], "null");
    if (trouble) return bad(trouble);
    memset(bytes, 0, sizeof bytes);
    for (const char *hex = count > 3 && !null ? words[3] : ""; *hex; hex += 2, length++) {
        char digits[3] = {hex[0], hex[1], 0}, *end;
        bytes[length] = (unsigned char)strtoul(digits, &end, 16);
        if (*end || !hex[1] || length + 1 == sizeof bytes) return bad(words[3]);
    }
    int result = ioctl(device, (unsigned long)what, null ? NULL : bytes);
    if (result < 0) return failed();
    printf("ok %d%s", result, length ? " " : "");
    for (size_t i = 0; i < length; i++) printf("%02x", bytes[i]);
    answer(0, "%s", "");
}

// Names, or permissions, each with its NUL, as words.
static void answer_list(void) {
    for (uint32_t i = 0; i + 1 < store.length; i++)
        if (!store.reply[i]) store.reply[i] = ' ';
    uint32_t length = store.length && !store.reply[store.length - 1] ? store.length - 1 : store.length;
    answer(0, length ? "ok %s" : "ok", escape(store.reply, length));
}

static void answer_reply(void) { answer(0, store.length ? "ok %s" : "ok", escape(store.reply, store.length)); }

static void use_store(char *rest) {
    const char *what = count > 1 ? words[1] : "", *path = count > 2 ? words[2] : "";
    if (store.file < 0 && store_open(&store)) return failed();
    if (!strcmp(what, "begin")) {
        if (store_request(&store, STORE_BEGIN, "", 1)) return failed();
        store.transaction = (uint32_t)strtoul(store.reply, NULL, 10);
        return answer(0, "ok %u", store.transaction);
    }
    if (!strcmp(what, "commit") || !strcmp(what, "abort")) {
        int result = store_request(&store, STORE_END, *what == 'c' ? "T" : "F", 2);
        store.transaction = 0;
        return done(result);
    }
    if (count < 3) return bad("too few words");
    if (!strcmp(what, "read")) {
        if (!store_read(&store, path)) return failed();
        answer_reply();
    } else if (!strcmp(what, "write")) {
        size_t length = unescape(rest);
        done(store_ask(&store, STORE_WRITE, path, rest, length));
    } else if (!strcmp(what, "mkdir")) {
        done(store_ask(&store, STORE_MKDIR, path, NULL, 0));
    } else if (!strcmp(what, "rm")) {
        done(store_ask(&store, STORE_RM, path, NULL, 0));
    } else if (!strcmp(what, "ls")) {
        if (store_ask(&store, STORE_DIRECTORY, path, NULL, 0)) return failed();
        answer_list();
    } else if (!strcmp(what, "perms") && count == 3) {
        if (store_ask(&store, STORE_GET_PERMS, path, NULL, 0)) return failed();
        answer_list();
    } else if (!strcmp(what, "perms")) {
        size_t length = 0;
        for (int i = 3; i < count && length + strlen(words[i]) < sizeof text; i++)
            length += (size_t)sprintf(text + length, "%s", words[i]) + 1;
        done(store_ask(&store, STORE_SET_PERMS, path, text, length));
    } else if (!strcmp(what, "wait")) {
        int time = milliseconds(3);
        if (trouble) return bad(trouble);
        int came = store_wait(&store, path, time);
        if (came < 0) return failed();
        if (came == 0) return late();
        answer_reply();
    } else if (!strcmp(what, "watch") || !strcmp(what, "unwatch")) {
        done(store_ask(&store, *what == 'w' ? STORE_WATCH : STORE_UNWATCH, path, "probe", 6));
    } else if (!strcmp(what, "event")) {
        int time = milliseconds(2);
        if (trouble) return bad(trouble);
        int came = store_event(&store, time);
        if (came < 0) return failed();
        if (came == 0) return late();
        answer_reply();
    } else if (!strcmp(what, "raw")) {
        uint64_t type = number(2);
        if (trouble) return bad(trouble);
        size_t length = unescape(rest);
        if (store_request(&store, (uint32_t)type, rest, length)) return failed();
        answer_reply();
    } else {
        bad(what);
    }
}

static void domid(void) {
    if (store.file < 0 && store_open(&store)) return failed();
    if (!store_read(&store, "domid")) return failed();
    answer_reply();
}

// The child has the mapping, too, if it is inherited at all, and ends at once.
static void fork_with(void) {
    uint64_t handle = mapping(1);
    if (trouble) return bad(trouble);
    pid_t child = fork();
    if (child < 0) return failed();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        (void)*(volatile unsigned char *)maps[handle].memory;
        _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) < 0) return failed();
    if (WIFSIGNALED(status)) return answer(2, "signal %s", WTERMSIG(status) == SIGBUS ? "SIGBUS" : "SIGSEGV");
    ok();
}

static void bench_map(void) {
    int device = file(2);
    uint64_t guest = number(3), pages = number(5), rounds = number(6), index;
    uint32_t have = add_references(4, 0);
    if (!trouble && (!pages || pages > MOST_GRANTS || !rounds || (have != 1 && have != pages))) trouble = "count";
    if (trouble) return bad(trouble);
    if (have == 1)
        for (uint32_t i = 1; i < pages; i++) references[i] = references[0] + i;
    int64_t begin = nanoseconds();
    for (uint64_t i = 0; i < rounds; i++) {
        if (map_grants(device, (unsigned)guest, references, (uint32_t)pages, &index)) return failed();
        void *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)index);
        int reason = errno;
        if (memory != MAP_FAILED) munmap(memory, pages * PAGE);
        if (unmap_grants(device, index, (uint32_t)pages)) return failed();
        errno = reason;
        if (memory == MAP_FAILED) return failed();
    }
    double each = (double)(nanoseconds() - begin) / (double)rounds;
    answer(0, "ok rounds %llu pages %llu ns-per-round %.0f ns-per-page %.0f", (unsigned long long)rounds,
           (unsigned long long)pages, each, each / (double)pages);
}

static void bench_alloc(void) {
    int device = file(2);
    uint64_t guest = number(3), pages = number(4), rounds = number(5), index;
    if (!trouble && (!pages || pages > MOST_GRANTS || !rounds)) trouble = "count";
    if (trouble) return bad(trouble);
    int64_t begin = nanoseconds();
    for (uint64_t i = 0; i < rounds; i++)
        if (grant_pages(device, (unsigned)guest, GNTALLOC_FLAG_WRITABLE, (uint32_t)pages, &index, references) ||
            grant_end(device, index, (uint32_t)pages))
            return failed();
    double each = (double)(nanoseconds() - begin) / (double)rounds;
    answer(0, "ok rounds %llu pages %llu ns-per-round %.0f ns-per-page %.0f", (unsigned long long)rounds,
           (unsigned long long)pages, each, each / (double)pages);
}

// Side a rings first. A ring from before would be taken for an answer, so there must be none.
static void bench_pingpong(void) {
    uint32_t ports[PORTS];
    bool first = count > 2 && !strcmp(words[2], "a");
    int device = file(3);
    uint64_t port = number(4), rounds = number(5);
    if (!first && (count < 3 || strcmp(words[2], "b"))) trouble = "side";
    if (!trouble && !rounds) trouble = "count";
    if (trouble) return bad(trouble);
    int64_t begin = nanoseconds();
    for (uint64_t i = 0; i < rounds; i++) {
        if (first && bell_ring(device, (unsigned)port)) return failed();
        int rung = bell_wait(device, 10000, ports, PORTS);
        if (rung == 0) return late();
        if (rung < 0 || bell_again(device, ports, (size_t)rung)) return failed();
        if (!first && bell_ring(device, (unsigned)port)) return failed();
    }
    answer(0, "ok rounds %llu ns-per-trip %.0f", (unsigned long long)rounds,
           (double)(nanoseconds() - begin) / (double)rounds);
}

static void storm(void) {
    int device = file(1);
    uint64_t port = number(2), rings = 0;
    int64_t end = nanoseconds() + (int64_t)milliseconds(3) * 1000000;
    if (trouble) return bad(trouble);
    for (; nanoseconds() < end; rings++)
        if (bell_ring(device, (unsigned)port)) return failed();
    answer(0, "ok %llu", (unsigned long long)rings);
}

static void listen(void) {
    uint32_t ports[PORTS];
    int device = file(1);
    uint64_t rings = 0;
    int64_t end = nanoseconds() + (int64_t)milliseconds(2) * 1000000;
    if (trouble) return bad(trouble);
    for (int64_t left; (left = end - nanoseconds()) > 0;) {
        int rung = bell_wait(device, (int)(left / 1000000) + 1, ports, PORTS);
        if (rung < 0 || (rung && bell_again(device, ports, (size_t)rung))) return failed();
        rings += (uint64_t)rung;
    }
    answer(0, "ok %llu", (unsigned long long)rings);
}

static void compute(void) {
    volatile uint64_t sum = 0;
    uint64_t steps = 0;
    int64_t end = nanoseconds() + (int64_t)milliseconds(1) * 1000000;
    if (trouble) return bad(trouble);
    do {
        for (int i = 0; i < 10000; i++) sum = (sum ^ sum >> 29) * 0x9E3779B97F4A7C15u + steps;
        steps += 10000;
    } while (nanoseconds() < end);
    answer(0, "ok %llu", (unsigned long long)steps);
}

// Where the word of this number begins, or the end of the line. One blank is between words, the rest is text.
static char *from_word(char *line, int word) {
    while (word-- > 0) {
        line += strspn(line, " \t");
        line += strcspn(line, " \t");
    }
    return *line ? line + 1 : line;
}

static void crash(void) {
    int trigger = open("/proc/sysrq-trigger", O_WRONLY);
    if (trigger < 0) return failed();
    ok();
    if (write(trigger, "c", 1) < 0) perror("probe: sysrq-trigger");
}

// At once, as if nobody were using anything.
static void end_guest(int how) {
    ok();
    sync();
    if (reboot(how)) perror("probe: reboot");
}

// One line, one answer; none to an empty line or a comment.
static void obey(char *line) {
    static char original[65536];
    line[strcspn(line, "\r\n")] = 0;
    snprintf(original, sizeof original, "%s", line);
    count = 0;
    trouble = NULL;
    outcome = 0;
    for (char *word = strtok(line, " \t"); word && count < WORDS; word = strtok(NULL, " \t")) words[count++] = word;
    if (count == 0 || *words[0] == '#') return;
    if (count == WORDS) return bad("too many words");
    const char *what = words[0];
    if (!strcmp(what, "open")) open_device();
    else if (!strcmp(what, "close")) close_device();
    else if (!strcmp(what, "alloc")) alloc();
    else if (!strcmp(what, "mapref")) map_references(false);
    else if (!strcmp(what, "maprange")) map_references(true);
    else if (!strcmp(what, "mmap")) map_memory();
    else if (!strcmp(what, "buffer")) buffer();
    else if (!strcmp(what, "munmap")) unmap_memory();
    else if (!strcmp(what, "mprotect")) protect();
    else if (!strcmp(what, "offset")) offset_of();
    else if (!strcmp(what, "peek")) peek();
    else if (!strcmp(what, "poke")) poke(from_word(original, 3));
    else if (!strcmp(what, "fill")) fill();
    else if (!strcmp(what, "sum")) sum();
    else if (!strcmp(what, "copy")) copy();
    else if (!strcmp(what, "wait")) await(true);
    else if (!strcmp(what, "waitkeep")) await(false);
    else if (!strcmp(what, "enable")) enable();
    else if (!strcmp(what, "pending")) pending();
    else if (!strcmp(what, "ioctl")) any_ioctl();
    else if (!strcmp(what, "store")) use_store(from_word(original, 3));
    else if (!strcmp(what, "domid")) domid();
    else if (!strcmp(what, "fork")) fork_with();
    else if (!strcmp(what, "storm")) storm();
    else if (!strcmp(what, "listen")) listen();
    else if (!strcmp(what, "compute")) compute();
    else if (!strcmp(what, "crash")) crash();
    else if (!strcmp(what, "reboot")) end_guest(RB_AUTOBOOT);
    else if (!strcmp(what, "poweroff")) end_guest(RB_POWER_OFF);
    else if (!strcmp(what, "bench") && count > 1 && !strcmp(words[1], "map")) bench_map();
    else if (!strcmp(what, "bench") && count > 1 && !strcmp(words[1], "alloc")) bench_alloc();
    else if (!strcmp(what, "bench") && count > 1 && !strcmp(words[1], "pingpong")) bench_pingpong();
    else if (!strcmp(what, "kill")) {
        ok();
        kill(getpid(), SIGKILL);
    } else if (!strcmp(what, "exit")) {
        uint64_t status = count > 1 ? number(1) : 0;
        if (trouble) return bad(trouble);
        ok();
        exit((int)status);
    } else if (!strcmp(what, "sleep")) {
        uint64_t time = number(1);
        if (trouble) return bad(trouble);
        poll(NULL, 0, (int)time);
        ok();
    } else {
        // What is an ioctl of numbers only.
        int device = file(1);
        uint64_t a = number(2), b = count > 3 ? number(3) : 0, c = count > 4 ? number(4) : 0;
        static const struct { const char *name; int words; } plain[] = {
            {"dealloc", 4}, {"unmapref", 4}, {"notify", 5}, {"bindunbound", 3}, {"bindinter", 4}, {"ring", 3},
            {"unbind", 3},
        };
        int which = 0;
        while (which < 7 && strcmp(plain[which].name, what)) which++;
        if (which == 7) return bad(what);
        if (count != plain[which].words) trouble = "number of words";
        if (trouble) return bad(trouble);
        switch (which) {
        case 0: return done(grant_end(device, a, (uint32_t)b));
        case 1: return done(unmap_grants(device, a, (uint32_t)b));
        case 2: return done(when_unmapped(device, a, (uint32_t)b, (uint32_t)c));
        case 3: return done_with(bell_offer(device, (unsigned)a));
        case 4: return done_with(bell_connect(device, (unsigned)a, (unsigned)b));
        case 5: return done(bell_ring(device, (unsigned)a));
        case 6: return done(bell_close(device, (unsigned)a));
        }
    }
}

int main(int argument_count, char **arguments) {
    struct sigaction action = {.sa_handler = on_fault};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    for (int i = 0; i < HANDLES; i++) files[i] = -1;
    store.file = -1;
    references = calloc(MOST_GRANTS, sizeof *references);
    if (!references) return 1;
    if (argument_count == 3 && !strcmp(arguments[1], "--script")) {
        // Not strtok(): obey() has it.
        for (char *line = arguments[2], *next; line; line = next) {
            if ((next = strchr(line, ';'))) *next++ = 0;
            obey(line);
            if (outcome) return outcome;
        }
        return 0;
    }
    if (argument_count == 2 && !strcmp(arguments[1], "--help")) return fputs(help, stdout) < 0;
    if (argument_count != 1) {
        fputs("usage: probe [--script 'line; line' | --help]\n", stderr);
        return 64;
    }
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) >= 0) obey(line);
    return 0;
}
