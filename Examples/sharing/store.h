// The xenstore, through /dev/xen/xenbus: a tree of names and values that all
// guests see, each as far as it may. A request is written, its reply read; what
// a watch has to say comes in between, on the same file, and is kept.
// Functions return -1 with errno for failure; `reply` stays until the next request.
#ifndef STORE_H
#define STORE_H
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
enum {
    STORE_DIRECTORY = 1, STORE_READ = 2, STORE_GET_PERMS = 3, STORE_WATCH = 4, STORE_UNWATCH = 5,
    STORE_BEGIN = 6, STORE_END = 7, STORE_WRITE = 11, STORE_MKDIR = 12, STORE_RM = 13,
    STORE_SET_PERMS = 14, STORE_EVENT = 15, STORE_ERROR = 16, STORE_MOST = 4096, STORE_KEPT = 8,
};
struct store_header { uint32_t type, request, transaction, length; };
struct store {
    int file;
    uint32_t request, transaction;  // the number of the last one; what to do all under, or 0
    char reply[STORE_MOST + 1];     // ends with a NUL that is not part of it
    uint32_t length;
    char events[STORE_KEPT][256];   // paths that watches told of, the oldest first
    unsigned kept;
};

static inline int store_open(struct store *store) {
    memset(store, 0, sizeof *store);
    store->file = open("/dev/xen/xenbus", O_RDWR | O_CLOEXEC);
    return store->file < 0 ? -1 : 0;
}

static inline int store_get(struct store *store, void *to, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t count = read(store->file, (char *)to + done, size - done);
        if (count <= 0) return errno = count ? errno : EPIPE, -1;
        done += (size_t)count;
    }
    return 0;
}

// One message. Returns its type.
static inline int store_receive(struct store *store) {
    struct store_header header;
    if (store_get(store, &header, sizeof header)) return -1;
    if (header.length > STORE_MOST) return errno = EPROTO, -1;
    if (store_get(store, store->reply, header.length)) return -1;
    store->reply[store->length = header.length] = 0;
    if (header.type == STORE_EVENT && store->kept < STORE_KEPT) {
        char *event = store->events[store->kept++];
        size_t length = strnlen(store->reply, sizeof store->events[0] - 1);
        memcpy(event, store->reply, length);
        event[length] = 0;
    }
    return (int)header.type;
}

static inline int store_errno(const char *name) {
    static const struct { const char *name; int number; } all[] = {
        {"EACCES", EACCES}, {"EAGAIN", EAGAIN}, {"EBUSY", EBUSY}, {"EEXIST", EEXIST}, {"EIO", EIO}, {"E2BIG", E2BIG},
        {"EISCONN", EISCONN}, {"EISDIR", EISDIR}, {"ENOENT", ENOENT}, {"ENOMEM", ENOMEM}, {"ENOSPC", ENOSPC},
        {"ENOSYS", ENOSYS}, {"ENOTEMPTY", ENOTEMPTY}, {"EPERM", EPERM}, {"EROFS", EROFS},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i].name, name)) return all[i].number;
    return EINVAL;
}

static inline int store_request(struct store *store, uint32_t type, const void *body, size_t length) {
    struct { struct store_header header; char body[STORE_MOST]; } message;
    if (length > STORE_MOST) return errno = E2BIG, -1;
    int watch = type == STORE_WATCH || type == STORE_UNWATCH;
    message.header = (struct store_header){type, ++store->request, watch ? 0 : store->transaction, (uint32_t)length};
    memcpy(message.body, body, length);
    ssize_t size = (ssize_t)(sizeof message.header + length), count = write(store->file, &message, (size_t)size);
    if (count != size) return errno = count < 0 ? errno : EIO, -1;
    // Only one request is ever on its way, so its number is not looked at: the kernel answers watches itself, with 0.
    int answer;
    while ((answer = store_receive(store)) == STORE_EVENT) {}
    if (answer == STORE_ERROR) errno = store_errno(store->reply);
    else if (answer >= 0 && answer != (int)type) errno = EPROTO;
    return answer == (int)type ? 0 : -1;
}

// A path, NUL and all, and what may follow it.
static inline int store_ask(struct store *store, uint32_t type, const char *path, const void *more, size_t length) {
    char body[STORE_MOST];
    size_t head = strlen(path) + 1;
    if (head + length > sizeof body) return errno = E2BIG, -1;
    memcpy(body, path, head);
    if (length) memcpy(body + head, more, length);
    return store_request(store, type, body, head + length);
}

static inline char *store_read(struct store *store, const char *path) {
    return store_ask(store, STORE_READ, path, NULL, 0) ? NULL : store->reply;
}

static inline int store_write(struct store *store, const char *path, const char *value) {
    return store_ask(store, STORE_WRITE, path, value, strlen(value));
}

// The next event of any watch, its path in `reply`. Returns 0 if none came in time; below 0 there is time for ever.
static inline int store_event(struct store *store, int milliseconds) {
    if (!store->kept) {
        struct pollfd file = {.fd = store->file, .events = POLLIN};
        int ready = poll(&file, 1, milliseconds);
        if (ready <= 0) return ready;
        if (store_receive(store) < 0) return -1;
        if (!store->kept) return errno = EPROTO, -1;
    }
    strcpy(store->reply, store->events[0]);
    store->length = (uint32_t)strlen(store->reply);
    memmove(store->events[0], store->events[1], --store->kept * sizeof store->events[0]);
    return 1;
}

static inline int64_t store_clock(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

// Until the path has a value that is not empty. Returns 1 with the value in `reply`, or 0 if the time is over.
static inline int store_wait(struct store *store, const char *path, int milliseconds) {
    static const char token[] = "wait";
    char value[STORE_MOST + 1];
    int64_t end = store_clock() + milliseconds;
    // A new watch fires at once, so that nothing gets lost between it and the first look.
    if (store_ask(store, STORE_WATCH, path, token, sizeof token)) return -1;
    int result = 1;
    while (result > 0) {
        int there = store_read(store, path) != NULL;
        if (there && store->length) break;
        int64_t left = end - store_clock();
        if (!there && errno != ENOENT && errno != EACCES) result = -1;
        else result = store_event(store, milliseconds < 0 ? -1 : left > 0 ? (int)left : 0);
    }
    int trouble = errno;
    uint32_t length = store->length;
    memcpy(value, store->reply, sizeof value);
    store_ask(store, STORE_UNWATCH, path, token, sizeof token);
    memcpy(store->reply, value, sizeof value);
    store->length = length;
    errno = trouble;
    return result;
}
#endif
