/* The few things that Swift cannot say to Linux: variadic calls, inline
 * instructions, macros. Thin shims, no policy. */
#ifndef ROOST_CHOST_H
#define ROOST_CHOST_H

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/if_tun.h>
#include <spawn.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

static inline uint64_t chost_rdtsc(void) { return __builtin_ia32_rdtsc(); }

/* How many CPUs this process may run on. */
int chost_cpu_count(void);

static inline void chost_pause(void) { __builtin_ia32_pause(); }

static inline void chost_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]) {
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                     : "a"(leaf), "c"(subleaf));
}

static inline uint64_t chost_xgetbv(uint32_t index) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(index));
    return (uint64_t)high << 32 | low;
}

static inline uint32_t chost_mxcsr(void) { return __builtin_ia32_stmxcsr(); }
static inline void chost_set_mxcsr(uint32_t value) { __builtin_ia32_ldmxcsr(value); }

static inline int chost_errno(void) { return errno; }

/* open(2) with its optional mode. */
static inline int chost_open(const char *path, int flags, unsigned mode) {
    return open(path, flags, mode);
}

static inline int chost_memfd_create(const char *name, unsigned flags) {
    return (int)syscall(SYS_memfd_create, name, flags);
}

static inline int chost_ioctl(int fd, unsigned long request, void *argument) {
    return ioctl(fd, request, argument);
}

/* getrandom(2) with no flags: from the pool that is never short. */
static inline long chost_getrandom(void *buffer, size_t count) { return getrandom(buffer, count, 0); }

/* The calling thread's name, of which the first 15 bytes count (PR_SET_NAME). */
static inline void chost_name_thread(const char *name) { syscall(SYS_prctl, 15, name, 0, 0, 0); }

/* futex(2) on a word private to this process; a null timeout waits for ever. */
static inline int chost_futex_wait(const uint32_t *word, uint32_t expected, const struct timespec *timeout) {
    return (int)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout, (void *)0, 0);
}

static inline int chost_futex_wake(const uint32_t *word, int count) {
    return (int)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, (void *)0, (void *)0, 0);
}

/* A number that no other thread of this process has had or will have. */
uint64_t chost_thread_identity(void);

/* process_vm_readv(2) and process_vm_writev(2) of this process itself; glibc hides them behind _GNU_SOURCE. */
static inline long chost_copy_own(void *local, void *remote, size_t count, int writes) {
    struct iovec here = {local, count}, there = {remote, count};
    return syscall(writes ? SYS_process_vm_writev : SYS_process_vm_readv, getpid(), &here, 1UL, &there, 1UL, 0UL);
}

/* io_uring(7), which glibc does not know. */
static inline int chost_io_uring_setup(unsigned entries, struct io_uring_params *params) {
    return (int)syscall(SYS_io_uring_setup, entries, params);
}

static inline int chost_io_uring_enter(int ring, unsigned submit, unsigned wait, unsigned flags) {
    return (int)syscall(SYS_io_uring_enter, ring, submit, wait, flags, (void *)0, 0);
}

/* A submission's fields are unions in unions, which Swift cannot name. */
static inline void chost_io_uring_prepare(struct io_uring_sqe *entry, uint8_t operation, int descriptor,
                                          const void *address, uint32_t length, uint64_t offset,
                                          uint32_t flags, uint64_t token) {
    memset(entry, 0, sizeof *entry);
    entry->opcode = operation;
    entry->fd = descriptor;
    entry->addr = (uint64_t)(uintptr_t)address;
    entry->len = length;
    entry->off = offset;
    entry->rw_flags = (int)flags; /* and fsync_flags, poll32_events… */
    entry->user_data = token;
}

/* Makes the terminal raw, and sees to it that every signal that could end us
 * restores it first. 0, or -1 with errno. */
int chost_terminal_make_raw(int descriptor);

/* The terminal as it was found. Any thread, any time, signal handlers too. */
void chost_terminal_restore(void);

/* From now on SIGWINCH adds 1 to the eventfd. */
void chost_terminal_report_resize(int eventfd);

static inline int chost_window_size(int fd, unsigned short *rows, unsigned short *columns) {
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) != 0) return -1;
    *rows = size.ws_row;
    *columns = size.ws_col;
    return 0;
}

static inline int chost_set_window_size(int fd, unsigned short rows, unsigned short columns) {
    struct winsize size = {rows, columns, 0, 0};
    return ioctl(fd, TIOCSWINSZ, &size);
}

/* From now on the first SIGINT, SIGTERM or SIGHUP adds 1 to the eventfd, and the
 * second ends the process at once, with the status of a death by it. One that
 * is ignored stays so. */
void chost_report_end_signals(int eventfd);

/* bind(2) and connect(2) of a Unix socket; the path has fewer than 108 bytes. 0, or -1 with errno. */
int chost_unix_bind(int fd, const char *path);
int chost_unix_connect(int fd, const char *path);

/* accept4(2): a connection that is non-blocking and closed on exec; -1 with errno. */
int chost_accept(int fd);

/* The user who connected (SO_PEERCRED); 0, or -1 with errno. */
int chost_peer_user(int fd, unsigned *user);

/* The CPU time of a thread that has not ended, in nanoseconds; 0 if it cannot be told. */
uint64_t chost_thread_cpu_time(unsigned long thread);

/* posix_spawn_file_actions_addchdir_np(3), which glibc hides from Swift. */
int chost_spawn_in_folder(posix_spawn_file_actions_t *actions, const char *folder);

/* pipe2(2) with O_CLOEXEC. */
int chost_pipe(int ends[2]);

char **chost_environment(void);

/* fallocate(2): what the file has from `offset` on becomes zeros, `count`
 * bytes of it. With `unmap` their place on the disk is given back. 0, or -1 with errno. */
int chost_zero_range(int descriptor, off_t offset, off_t count, int unmap);

/* A lock that belongs to the open file (fcntl(2), F_OFD_SETLK), not waited
 * for. 0, or -1 with errno: EAGAIN if another has it. */
int chost_lock_range(int descriptor, int exclusive, off_t offset, off_t count);

/* Whether an exclusive lock could be had: 1, 0 if another has one, -1 with errno. */
int chost_range_is_free(int descriptor, off_t offset, off_t count);

/* The size of a file or of a block device; -1 with errno. */
static inline int64_t chost_file_size(int descriptor) { return lseek(descriptor, 0, SEEK_END); }

/* A file that would grow past RLIMIT_FSIZE is an error like a full disk, and no reason to die. */
void chost_ignore_file_size_signal(void);

/* Both ends of a new pseudo-terminal, for tests. 0, or -1 with errno. */
int chost_open_terminal(int *controller, int *terminal);

/* Binds an open /dev/net/tun to the interface; 0, or -1 with errno. */
int chost_tap_attach(int fd, const char *name, int flags);

/* An interface's MTU, asked of any socket; or -1 with errno. */
int chost_interface_mtu(int socket, const char *name);

static inline int chost_tap_set_header_size(int fd, int size) { return ioctl(fd, TUNSETVNETHDRSZ, &size); }
static inline int chost_tap_set_offloads(int fd, unsigned offloads) {
    return ioctl(fd, TUNSETOFFLOAD, (unsigned long)offloads);
}

/* The status of wait(2) as a shell reports it: 128 + the signal for a death. */
static inline int chost_exit_status(int status) {
    return (status & 0x7f) == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f);
}

#endif
