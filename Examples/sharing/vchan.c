// The stream of ring.c, sent by libxenvchan: all that ring.c does by hand is in
// the library here, and the same two guests run it.
//
//     vchan send [--ring BYTES] [--patience SECONDS] DOMID BYTES
//     vchan receive [--patience SECONDS] DOMID
//
// DOMID is the other side's; sizes may end in K, M or G. A ring has 1 MiB unless
// told otherwise, and that is the most there can be: 256 pages. The sender is
// the library's server. It first sends the number of bytes to come, then these;
// the receiver checks each and sends back a verdict and its checksum.
//
// Exit status: 0 if all bytes came and were right, 64 for wrong usage, else 1.
// --patience ends a program in which nothing has moved for so long. Without it
// that is for ever, until the two have met, and then a minute.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/time.h>
#include <unistd.h>

#include <libxenvchan.h>

#include "store.h"
#include "stream.h"

enum { MOST_RING = 1 << 20, RIGHT = 1, WRONG = 2 };

// Once per direction: what comes before the stream, and what comes back.
struct verdict { uint64_t verdict, checksum; };

static unsigned char buffer[MOST_RING / 4];
static struct store store;
static struct libxenvchan *channel;
static char path[64];
static int patience;
static volatile sig_atomic_t stopped;

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("vchan: ", stderr);
    if (stopped == SIGALRM) fputs("nothing has moved for too long; ", stderr);
    else if (stopped) fputs("stopped; ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    // The library's own end: it takes the path out of the store and tells the other side.
    if (channel) libxenvchan_close(channel);
    exit(1);
}

__attribute__((noreturn)) static void fail(const char *what) { die("%s: %s", what, strerror(errno)); }

static void stop(int number) { stopped = number; }

// The library's waits have no end, but a signal ends them, and this one comes again should it ever be a moment early.
static void moved(void) {
    struct itimerval timer = {{1, 0}, {patience, 0}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

// How much to send or to wait for at once: not so much that one side has to wait for all that the other does.
static size_t portion(const struct libxenvchan_ring *ring, uint64_t left) {
    size_t most = (size_t)1 << ring->order >> 2;
    return left < most ? (size_t)left : most;
}

static void now_they_met(void) {
    if (!patience) patience = 60;
    moved();
}

static unsigned own_domid(void) {
    if (store_open(&store)) fail("/dev/xen/xenbus");
    char *domid = store_read(&store, "domid");
    if (!domid) fail("cannot read our domid");
    return (unsigned)strtoul(domid, NULL, 10);
}

static int send_to(int guest, uint64_t total, size_t size) {
    snprintf(path, sizeof path, "/local/domain/%u/data/vchan/%d/1", own_domid(), guest);
    // What comes back is short, and its ring fits into the control page.
    if (!(channel = libxenvchan_server_init(NULL, guest, path, sizeof(struct verdict), size)))
        fail("cannot make the channel");
    channel->blocking = -1;  // a bit, and signed
    moved();
    while (libxenvchan_is_open(channel) == 2)
        if (libxenvchan_wait(channel)) fail("cannot wait");
    now_they_met();
    double begin = stream_clock();
    if (libxenvchan_send(channel, &total, sizeof total) != sizeof total) die("the receiver is gone");
    uint64_t sent = 0, checksum = 0;
    while (sent < total) {
        size_t next = portion(&channel->write, total - sent);
        checksum += stream_make(buffer, sent, next);
        if (libxenvchan_send(channel, buffer, next) != (int)next)
            die("the receiver is gone after %" PRIu64 " of %" PRIu64 " bytes, or a ring less", sent, total);
        sent += next;
        moved();
    }
    struct verdict back;
    if (libxenvchan_recv(channel, &back, sizeof back) != sizeof back) die("the receiver is gone without a verdict");
    if (back.verdict != RIGHT || back.checksum != checksum) die("the receiver has not got what was sent");
    stream_report("sent", total, stream_clock() - begin, checksum);
    return 0;
}

// The library's client does not wait for its server. But the server leaves two keys in the store, both at once. Xen's
// own client of the store, in a static library, loses its way if a watch fires before a reply, so this is ours.
static void wait_for_server(void) {
    char key[96];
    snprintf(key, sizeof key, "%s/event-channel", path);
    if (store_wait(&store, key, -1) < 0) fail(key);
}

static int receive_from(int guest) {
    snprintf(path, sizeof path, "/local/domain/%d/data/vchan/%u/1", guest, own_domid());
    moved();
    wait_for_server();
    if (!(channel = libxenvchan_client_init(NULL, guest, path))) fail("cannot connect");
    channel->blocking = -1;
    now_they_met();
    uint64_t total, got = 0, checksum = 0;
    if (libxenvchan_recv(channel, &total, sizeof total) != sizeof total) die("the sender is gone");
    double begin = stream_clock();
    struct verdict back = {.verdict = RIGHT};
    while (got < total && back.verdict == RIGHT) {
        size_t next = portion(&channel->read, total - got);
        if (libxenvchan_recv(channel, buffer, next) != (int)next)
            die("the sender is gone after %" PRIu64 " of %" PRIu64 " bytes", got, total);
        size_t fine = stream_check(buffer, got, next, &checksum);
        if (fine < next) {
            fprintf(stderr, "vchan: byte %" PRIu64 " is wrong\n", got + fine);
            back.verdict = WRONG;
        }
        got += fine;
        moved();
    }
    double seconds = stream_clock() - begin;
    back.checksum = checksum;
    if (libxenvchan_send(channel, &back, sizeof back) != sizeof back) die("the sender is gone before the verdict");
    if (back.verdict == RIGHT) stream_report("received", total, seconds, checksum);
    return back.verdict == RIGHT ? 0 : 1;
}

int main(int count, char **words) {
    const char *arguments[3] = {NULL};
    uint64_t size = MOST_RING;
    int given = 0;
    bool fine = true;
    for (int i = 1; i < count; i++) {
        if (!strcmp(words[i], "--ring") && i + 1 < count) size = stream_size(words[++i]);
        else if (!strcmp(words[i], "--patience") && i + 1 < count) fine = fine && (patience = atoi(words[++i])) > 0;
        else if (words[i][0] != '-' && given < 3) arguments[given++] = words[i];
        else fine = false;
    }
    bool sender = given == 3 && !strcmp(arguments[0], "send");
    bool receiver = given == 2 && !strcmp(arguments[0], "receive");
    char *end = "?";
    long guest = sender || receiver ? strtol(arguments[1], &end, 10) : -1;
    uint64_t total = sender ? stream_size(arguments[2]) : 0;
    if (!fine || *end || guest < 0 || guest >= 0x7FF0 || (sender && !total) || size < 1 || size > MOST_RING) {
        fputs("usage: vchan send [--ring BYTES, at most 1M] [--patience SECONDS] DOMID BYTES[K|M|G]\n"
              "       vchan receive [--patience SECONDS] DOMID\n", stderr);
        return 64;
    }
    // Without SA_RESTART: they are to end a wait.
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    int status = sender ? send_to((int)guest, total, size) : receive_from((int)guest);
    if (status == 0) putchar('\n');
    libxenvchan_close(channel);
    return status;
}
