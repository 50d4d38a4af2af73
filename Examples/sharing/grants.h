// The ioctls of /dev/xen/gntalloc, gntdev and evtchn, each as a function that
// returns -1 with errno when it fails.
//
// gntalloc makes pages that another guest may map, and names each by a number,
// its grant reference. gntdev maps what others have granted. Both give an index,
// which is the offset to mmap() the pages at. evtchn has the doorbells.
#ifndef GRANTS_H
#define GRANTS_H
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

// Linux's headers take these two from elsewhere.
typedef uint32_t grant_ref_t;
typedef uint16_t domid_t;
#include <xen/evtchn.h>
#include <xen/gntalloc.h>
#include <xen/gntdev.h>

enum { PAGE = 4096, MOST_GRANTS = 65536 };

static inline int xen_open(const char *name) {
    char path[64];
    snprintf(path, sizeof path, "/dev/xen/%s", name);
    return open(path, O_RDWR | O_CLOEXEC);
}

// `references` has room for `count`, or for MOST_GRANTS if that is less: no more than those are ever given.
static inline int grant_pages(int file, unsigned guest, unsigned flags, uint32_t count, uint64_t *index,
                              uint32_t *references) {
    size_t room = count < MOST_GRANTS ? count : MOST_GRANTS;
    struct ioctl_gntalloc_alloc_gref *request = calloc(1, sizeof *request + room * sizeof *references);
    if (!request) return -1;
    request->domid = (uint16_t)guest;
    request->flags = (uint16_t)flags;
    request->count = count;
    int result = ioctl(file, IOCTL_GNTALLOC_ALLOC_GREF, request);
    if (result == 0) {
        *index = request->index;
        memcpy(references, request->gref_ids, room * sizeof *references);
    }
    free(request);
    return result;
}

static inline int grant_end(int file, uint64_t index, uint32_t count) {
    struct ioctl_gntalloc_dealloc_gref request = {.index = index, .count = count};
    return ioctl(file, IOCTL_GNTALLOC_DEALLOC_GREF, &request);
}

// As many of `references` are read as the driver may look at: no more than MOST_GRANTS.
static inline int map_grants(int file, unsigned guest, const uint32_t *references, uint32_t count, uint64_t *index) {
    size_t room = count < MOST_GRANTS ? count : MOST_GRANTS;
    struct ioctl_gntdev_map_grant_ref *request = calloc(1, sizeof *request + room * sizeof *request->refs);
    if (!request) return -1;
    request->count = count;
    struct ioctl_gntdev_grant_ref *grant = request->refs;
    for (size_t i = 0; i < room; i++) grant[i] = (struct ioctl_gntdev_grant_ref){guest, references[i]};
    int result = ioctl(file, IOCTL_GNTDEV_MAP_GRANT_REF, request);
    if (result == 0) *index = request->index;
    free(request);
    return result;
}

static inline int unmap_grants(int file, uint64_t index, uint32_t count) {
    struct ioctl_gntdev_unmap_grant_ref request = {.index = index, .count = count};
    return ioctl(file, IOCTL_GNTDEV_UNMAP_GRANT_REF, &request);
}

// What is to happen when the last use of a page ends, however it does. It is the same for both devices.
static inline int when_unmapped(int file, uint64_t index, uint32_t action, uint32_t port) {
    struct ioctl_gntalloc_unmap_notify request = {index, action, port};
    return ioctl(file, IOCTL_GNTALLOC_SET_UNMAP_NOTIFY, &request);
}

// A doorbell that one guest may come and connect to. Returns its port here.
static inline int bell_offer(int file, unsigned guest) {
    struct ioctl_evtchn_bind_unbound_port request = {guest};
    return ioctl(file, IOCTL_EVTCHN_BIND_UNBOUND_PORT, &request);
}

// The doorbell another guest has offered. Returns its port here.
static inline int bell_connect(int file, unsigned guest, unsigned port) {
    struct ioctl_evtchn_bind_interdomain request = {guest, port};
    return ioctl(file, IOCTL_EVTCHN_BIND_INTERDOMAIN, &request);
}

static inline int bell_ring(int file, unsigned port) {
    struct ioctl_evtchn_notify request = {port};
    return ioctl(file, IOCTL_EVTCHN_NOTIFY, &request);
}

static inline int bell_close(int file, unsigned port) {
    struct ioctl_evtchn_unbind request = {port};
    return ioctl(file, IOCTL_EVTCHN_UNBIND, &request);
}

// Sleeps until a doorbell rings, or the time is over; below 0 there is time for ever. Returns how many of `ports` have
// rung. They stay silent until bell_again().
static inline int bell_wait(int file, int milliseconds, uint32_t *ports, size_t most) {
    struct pollfd bells = {.fd = file, .events = POLLIN};
    int ready = poll(&bells, 1, milliseconds);
    if (ready <= 0) return ready;
    ssize_t count = read(file, ports, most * sizeof *ports);
    return count < 0 ? -1 : (int)((size_t)count / sizeof *ports);
}

static inline int bell_again(int file, const uint32_t *ports, size_t count) {
    return write(file, ports, count * sizeof *ports) < 0 ? -1 : 0;
}
#endif
