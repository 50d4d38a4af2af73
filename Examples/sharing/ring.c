// A stream of bytes from one guest to another through memory they share.
//
//     ring send [--pages N] [--patience SECONDS] DOMID BYTES
//     ring receive [--patience SECONDS] DOMID
//
// DOMID is the other side's; BYTES may end in K, M or G. The sender grants a
// page for the control structure below and N (256) for the ring, and leaves the
// control page's reference and the port of its doorbell in the xenstore. The
// receiver waits for them there, maps the control page, which has the references
// of the others, and checks every byte that comes. Both tell the same checksum.
//
// Exit status: 0 if all bytes came and were right, 64 for wrong usage, else 1.
//
// Neither side trusts the other. Each keeps its own index where the other cannot
// write, and believes the other's only if it makes sense. If a side dies, Linux
// clears its byte in the control page and rings. --patience is for a side that
// lives and does nothing: it is for ever until the two have met, then a minute.
#define _GNU_SOURCE
#include <signal.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "grants.h"
#include "store.h"
#include "stream.h"

enum { MOST_PAGES = 900, MAGIC = 0x31474E52, GONE = 0, HERE = 1, EXPECTED = 2, RIGHT = 1, WRONG = 2 };

// The indexes count all bytes there ever were; where in the ring is the remainder. What one side writes is in a cache
// line of its own, but for the two requests, which the other side takes back.
struct control {
    _Atomic uint32_t magic, pages;
    _Atomic uint64_t total, written;
    _Atomic uint8_t sender_here, wake_sender;
    alignas(64) _Atomic uint64_t read;
    _Atomic uint64_t checksum;
    _Atomic uint8_t receiver_here, wake_receiver, verdict;
    alignas(256) uint32_t references[MOST_PAGES];
};
_Static_assert(sizeof(struct control) <= PAGE, "the control structure is one page");

static struct store store;
static struct control *control;
static char path[64];       // of the key, as long as it is there and ours
static int bells, port;
static double patience = -1;
static uint64_t rung, heard;
static volatile sig_atomic_t stopped;

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("ring: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

__attribute__((noreturn)) static void fail(const char *what) { die("%s: %s", what, strerror(errno)); }

static void stop(int number) { stopped = number; }

static void remove_key(void) {
    if (*path) store_ask(&store, STORE_RM, path, NULL, 0);
    *path = 0;
}

static void *map(int file, uint64_t index, size_t pages, int access) {
    void *memory = mmap(NULL, pages * PAGE, access, MAP_SHARED, file, (off_t)index);
    if (memory == MAP_FAILED) fail("cannot map the pages");
    return memory;
}

static void ring(void) {
    if (bell_ring(bells, (unsigned)port)) fail("cannot ring");
    rung++;
}

// If the other side has asked for it. Its request and our news must not pass each other unseen, hence the fences here
// and in ask().
static void ring_if_asked(_Atomic uint8_t *request) {
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_exchange(request, 0)) ring();
}

static void ask(_Atomic uint8_t *request) {
    atomic_store(request, 1);
    atomic_thread_fence(memory_order_seq_cst);
}

// Until any ring; it may have been meant for something else. Who only rings and does nothing has no more patience from
// us than who is silent, so we need to know how far things are.
static void doze(uint64_t progress) {
    static uint64_t before = UINT64_MAX;
    static double since;
    uint32_t ports[4];
    int milliseconds = -1;
    if (progress != before) {
        before = progress;
        since = stream_clock();
    }
    if (patience >= 0) {
        double left = since + patience - stream_clock();
        milliseconds = left > 0 ? (int)(left * 1000) : 0;
    }
    int count = stopped ? 0 : bell_wait(bells, milliseconds, ports, 4);
    if (stopped) die("stopped");
    if (count < 0) fail("cannot wait");
    if (count == 0) die("the other side has done nothing for %g s", patience);
    if (bell_again(bells, ports, (size_t)count)) fail("cannot wait again");
    heard += (uint64_t)count;
}

// --copy: bytes go from a buffer of the sender's to one of the receiver's, which is what a program does that has
// some, and nobody looks at them. For measurements: TCP is measured so, too.
static bool copying;
static unsigned char own[MOST_PAGES * PAGE / 4];

static void now_they_met(void) {
    if (patience < 0) patience = 60;
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

// How much of the ring is in use, if the other side's index can be true. All that a guest has granted becomes
// zeros when the guest dies, its index too, and the sign that it is here.
static uint64_t used(uint64_t written, uint64_t read, uint64_t size, const char *peer, _Atomic uint8_t *peer_here) {
    if (written - read > size) {
        if (atomic_load(peer_here) != HERE) die("the %s is gone, and its guest with it", peer);
        die("the %s's index is a lie: %" PRIu64 " written, %" PRIu64 " read", peer, written, read);
    }
    return written - read;
}

static void send_all(unsigned char *data, uint64_t size, uint64_t total) {
    uint64_t written = 0, checksum = 0, quarter = size / 4;
    while (atomic_load(&control->receiver_here) == EXPECTED) doze(UINT64_MAX - 1);
    remove_key();  // nobody else is to find it, and nobody to find it when we are gone
    now_they_met();
    double begin = stream_clock();
    for (bool asked = false;;) {
        if (stopped) die("stopped");
        // In the order against that in which the receiver says them, so that none can be older than the one before.
        bool here = atomic_load(&control->receiver_here) == HERE;
        int verdict = atomic_load_explicit(&control->verdict, memory_order_acquire);
        uint64_t room = size - used(written, atomic_load_explicit(&control->read, memory_order_acquire), size,
                                    "receiver", &control->receiver_here);
        uint64_t next = least(quarter, total - written);
        if (verdict) {
            if (verdict != RIGHT || room < size || written < total) die("the receiver has not got what was sent");
            break;
        }
        if (next && room >= next) {
            // A quarter is a multiple of a word and divides the ring: it is in one piece.
            if (copying) memcpy(data + written % size, own, next);
            else checksum += stream_make(data + written % size, written, next);
            written += next;
            atomic_store_explicit(&control->written, written, memory_order_release);
            ring_if_asked(&control->wake_receiver);
        } else if (!here) {
            die("the receiver is gone after %" PRIu64 " of %" PRIu64 " bytes", written - (size - room), total);
        } else {
            // Between the asking and the sleep is another look.
            if (asked) doze(written);
            else ask(&control->wake_sender);
            asked = !asked;
        }
    }
    if (atomic_load(&control->checksum) != checksum) die("the receiver has another checksum");
    stream_report("sent", total, stream_clock() - begin, checksum);
    printf(", doorbells: %" PRIu64 " rung, %" PRIu64 " heard\n", rung, heard);
}

static void receive_all(const unsigned char *data, uint64_t size, uint64_t total) {
    uint64_t read = 0, checksum = 0, quarter = size / 4;
    double begin = stream_clock();
    bool right = true, asked = false;
    while (read < total) {
        // First whether it lives: what the dead have written is still read.
        bool here = atomic_load(&control->sender_here) == HERE;
        uint64_t ready = used(atomic_load_explicit(&control->written, memory_order_acquire), read, size, "sender",
                              &control->sender_here);
        if (ready) {
            uint64_t next = least(least(ready, quarter), size - read % size);
            if (next > total - read) die("the sender has written more than it said");
            size_t fine = next;
            if (copying) memcpy(own, data + read % size, next);
            else fine = stream_check(data + read % size, read, next, &checksum);
            if (fine < next) {
                if (atomic_load(&control->sender_here) != HERE) die("the sender is gone, and its guest with it");
                fprintf(stderr, "ring: byte %" PRIu64 " is wrong\n", read + fine);
                right = false;
                break;
            }
            read += next;
            atomic_store_explicit(&control->read, read, memory_order_release);
            ring_if_asked(&control->wake_sender);
        } else if (!here) {
            die("the sender is gone after %" PRIu64 " of %" PRIu64 " bytes", read, total);
        } else {
            if (asked) doze(read);
            else ask(&control->wake_receiver);
            asked = !asked;
        }
    }
    double seconds = stream_clock() - begin;
    atomic_store(&control->checksum, checksum);
    atomic_store_explicit(&control->verdict, right ? RIGHT : WRONG, memory_order_release);
    ring_if_asked(&control->wake_sender);
    if (!right) exit(1);
    stream_report("received", total, seconds, checksum);
    printf(", doorbells: %" PRIu64 " rung, %" PRIu64 " heard\n", rung, heard);
}

static unsigned own_domid(void) {
    char *domid = store_read(&store, "domid");
    if (!domid) fail("cannot read our domid");
    return (unsigned)strtoul(domid, NULL, 10);
}

static void send_to(unsigned guest, uint64_t total, uint32_t pages) {
    static uint32_t references[1 + MOST_PAGES];
    uint64_t index;
    unsigned own = own_domid();
    int grants = xen_open("gntalloc");
    if (grants < 0) fail("/dev/xen/gntalloc");
    if (grant_pages(grants, guest, GNTALLOC_FLAG_WRITABLE, 1 + pages, &index, references)) fail("cannot grant pages");
    control = map(grants, index, 1, PROT_READ | PROT_WRITE);
    unsigned char *data = map(grants, index + PAGE, pages, PROT_READ | PROT_WRITE);
    if ((port = bell_offer(bells, guest)) < 0) fail("cannot make a doorbell");
    if (when_unmapped(grants, index + offsetof(struct control, sender_here),
                      UNMAP_NOTIFY_CLEAR_BYTE | UNMAP_NOTIFY_SEND_EVENT, (uint32_t)port))
        fail("cannot leave a last will");
    control->pages = pages;
    control->total = total;
    memcpy(control->references, references + 1, pages * sizeof *references);
    control->sender_here = HERE;
    control->receiver_here = EXPECTED;
    control->magic = MAGIC;

    struct sigaction action = {.sa_handler = stop};  // without SA_RESTART: it is to end a wait
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    snprintf(path, sizeof path, "/local/domain/%u/data/ring/%u", own, guest);
    atexit(remove_key);
    // Empty at first: the receiver hears of its value, not of the permission to read it.
    char permissions[64], value[64];
    int length = snprintf(permissions, sizeof permissions, "n%u%cr%u", own, 0, guest) + 1;
    if (store_write(&store, path, "") || store_ask(&store, STORE_SET_PERMS, path, permissions, (size_t)length))
        fail(path);
    snprintf(value, sizeof value, "%u %d", references[0], port);
    if (store_write(&store, path, value)) fail(path);
    send_all(data, (uint64_t)pages * PAGE, total);
}

static void receive_from(unsigned guest) {
    static uint32_t references[MOST_PAGES];
    uint32_t reference;
    uint64_t index;
    unsigned offered;
    char key[64];
    snprintf(key, sizeof key, "/local/domain/%u/data/ring/%u", guest, own_domid());
    int came = store_wait(&store, key, patience < 0 ? -1 : (int)(patience * 1000));
    if (came < 0) fail(key);
    if (came == 0) die("no sender for %g s", patience);
    if (sscanf(store.reply, "%u %u", &reference, &offered) != 2) die("%s is not understood", key);

    int grants = xen_open("gntdev");
    if (grants < 0) fail("/dev/xen/gntdev");
    if (map_grants(grants, guest, &reference, 1, &index)) fail("cannot map the control page");
    control = map(grants, index, 1, PROT_READ | PROT_WRITE);
    if (control->magic != MAGIC) die("no control page of ours");
    if ((port = bell_connect(bells, guest, offered)) < 0) fail("cannot connect the doorbell");
    if (when_unmapped(grants, index + offsetof(struct control, receiver_here),
                      UNMAP_NOTIFY_CLEAR_BYTE | UNMAP_NOTIFY_SEND_EVENT, (uint32_t)port))
        fail("cannot leave a last will");
    // Everything once, to a place where it can no longer change.
    uint64_t total = control->total;
    uint32_t pages = control->pages;
    if (pages == 0 || pages > MOST_PAGES) die("the sender says its ring has %u pages", pages);
    memcpy(references, control->references, pages * sizeof *references);
    if (map_grants(grants, guest, references, pages, &index)) fail("cannot map the ring");
    const unsigned char *data = map(grants, index, pages, PROT_READ);
    control->receiver_here = HERE;
    ring();
    now_they_met();
    receive_all(data, (uint64_t)pages * PAGE, total);
}

// A domid below those with a meaning of their own, or -1.
static long domid_of(const char *text) {
    char *end;
    long number = strtol(text, &end, 10);
    return *text < '0' || *text > '9' || *end || number >= 0x7FF0 ? -1 : number;
}

int main(int count, char **words) {
    const char *arguments[3] = {NULL};
    unsigned long pages = 256;
    int given = 0;
    bool fine = true;
    for (int i = 1; i < count; i++) {
        if (!strcmp(words[i], "--pages") && i + 1 < count) pages = strtoul(words[++i], NULL, 10);
        else if (!strcmp(words[i], "--copy")) copying = true;
        else if (!strcmp(words[i], "--patience") && i + 1 < count) patience = atof(words[++i]);
        else if (words[i][0] != '-' && given < 3) arguments[given++] = words[i];
        else fine = false;
    }
    bool sender = given == 3 && !strcmp(arguments[0], "send");
    bool receiver = given == 2 && !strcmp(arguments[0], "receive");
    long guest = sender || receiver ? domid_of(arguments[1]) : -1;
    uint64_t total = sender ? stream_size(arguments[2]) : 0;
    if (!fine || guest < 0 || (sender && !total) || pages < 1 || pages > MOST_PAGES || patience > 1e6) {
        fprintf(stderr, "usage: ring send [--copy] [--pages 1..%d] [--patience SECONDS] DOMID BYTES[K|M|G]\n"
                        "       ring receive [--copy] [--patience SECONDS] DOMID\n", MOST_PAGES);
        return 64;
    }
    if (store_open(&store)) fail("/dev/xen/xenbus");
    if ((bells = xen_open("evtchn")) < 0) fail("/dev/xen/evtchn");
    if (sender) send_to((unsigned)guest, total, (uint32_t)pages);
    else receive_from((unsigned)guest);
    return 0;
}
