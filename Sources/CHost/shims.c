#define _GNU_SOURCE
#include "CHost.h"

#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>

/* The terminal as we found it and as we made it. A signal handler may do
 * little, but tcsetattr(3) is on the list of what it may do (signal-safety(7));
 * a handler in Swift could meet the runtime's locks. So this is C. */
static struct termios terminal_found, terminal_raw;
static volatile sig_atomic_t terminal_is_raw = 0;
static int terminal_descriptor = -1;
static struct sigaction found[65];

static const int fatal_signals[] = {SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGSEGV, SIGBUS,
                                    SIGILL,  SIGFPE, SIGABRT, SIGTRAP, SIGPIPE, SIGSYS};

void chost_terminal_restore(void) {
    if (!terminal_is_raw) return;
    terminal_is_raw = 0;
    int saved = errno;
    /* A write to the terminal from a process in the background is SIGTTOU's
     * business; blocked, it is simply done. */
    sigset_t block, old;
    sigemptyset(&block);
    sigaddset(&block, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &block, &old);
    tcsetattr(terminal_descriptor, TCSANOW, &terminal_found);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    errno = saved;
}

/* Gives the terminal back, then dies of the same signal in the way that was
 * arranged before us: it is pending until this handler returns. */
static void on_fatal(int number) {
    chost_terminal_restore();
    sigaction(number, &found[number], NULL);
    raise(number);
}

/* Stopped from outside: the shell gets its terminal, and when we go on, the
 * Guest gets it back. */
static void on_stop(int number) {
    int was_raw = terminal_is_raw;
    chost_terminal_restore();
    struct sigaction standard, ours;
    memset(&standard, 0, sizeof standard);
    standard.sa_handler = SIG_DFL;
    sigaction(number, &standard, &ours);
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, number);
    raise(number);
    pthread_sigmask(SIG_UNBLOCK, &set, &old); /* here we stop */
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    sigaction(number, &ours, NULL);
    if (was_raw && tcsetattr(terminal_descriptor, TCSANOW, &terminal_raw) == 0) terminal_is_raw = 1;
}

/* After SIGSTOP nobody could give the terminal back; what we can do is to set
 * it again, for the shell will have changed it. */
static void on_continue(int number) {
    (void)number;
    if (terminal_is_raw) tcsetattr(terminal_descriptor, TCSANOW, &terminal_raw);
}

int chost_terminal_make_raw(int descriptor) {
    if (terminal_is_raw) return 0;
    if (tcgetattr(descriptor, &terminal_found) != 0) return -1;
    terminal_raw = terminal_found;
    cfmakeraw(&terminal_raw);
    terminal_raw.c_cc[VMIN] = 1;
    terminal_raw.c_cc[VTIME] = 0;
    terminal_descriptor = descriptor;

    struct sigaction action;
    memset(&action, 0, sizeof action);
    sigfillset(&action.sa_mask);
    action.sa_flags = SA_ONSTACK;
    action.sa_handler = on_fatal;
    for (unsigned i = 0; i < sizeof fatal_signals / sizeof *fatal_signals; i++) {
        int number = fatal_signals[i];
        struct sigaction now;
        sigaction(number, NULL, &now);
        /* nohup(1) and the like stay in force; and our own handler is not its own successor. */
        if (now.sa_handler == SIG_IGN || now.sa_handler == on_fatal) continue;
        found[number] = now;
        sigaction(number, &action, NULL);
    }
    action.sa_flags |= SA_RESTART;
    action.sa_handler = on_stop;
    sigaction(SIGTSTP, &action, NULL);
    action.sa_handler = on_continue;
    sigaction(SIGCONT, &action, NULL);

    /* Raw last: from here to the end somebody is ready to undo it. */
    terminal_is_raw = 1;
    if (tcsetattr(descriptor, TCSANOW, &terminal_raw) != 0) {
        terminal_is_raw = 0;
        return -1;
    }
    return 0;
}

/* Adds 1 to an eventfd, from a signal's handler. */
static void ring(int eventfd) {
    int saved = errno;
    uint64_t one = 1;
    ssize_t ignored = write(eventfd, &one, sizeof one);
    (void)ignored;
    errno = saved;
}

static int resize_descriptor = -1;

static void on_resize(int number) {
    (void)number;
    ring(resize_descriptor);
}

void chost_terminal_report_resize(int eventfd) {
    resize_descriptor = eventfd;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    sigfillset(&action.sa_mask);
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    action.sa_handler = on_resize;
    sigaction(SIGWINCH, &action, NULL);
}

static int end_descriptor = -1;
static volatile sig_atomic_t ends = 0;

static void on_end(int number) {
    /* Nobody may be left who could answer: this works without them. */
    if (ends++) _exit(128 + number);
    ring(end_descriptor);
}

void chost_report_end_signals(int eventfd) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    end_descriptor = eventfd;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    sigfillset(&action.sa_mask);
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    action.sa_handler = on_end;
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction now;
        if (sigaction(numbers[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN) sigaction(numbers[i], &action, NULL);
    }
}

/* -1 and ENAMETOOLONG where it does not fit. */
static int unix_address(struct sockaddr_un *address, const char *path) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address->sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address->sun_path, path);
    return 0;
}

int chost_unix_bind(int fd, const char *path) {
    struct sockaddr_un address;
    if (unix_address(&address, path) != 0) return -1;
    return bind(fd, (struct sockaddr *)&address, sizeof address);
}

int chost_unix_connect(int fd, const char *path) {
    struct sockaddr_un address;
    if (unix_address(&address, path) != 0) return -1;
    return connect(fd, (struct sockaddr *)&address, sizeof address);
}

int chost_accept(int fd) { return accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK); }

int chost_peer_user(int fd, unsigned *user) {
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return -1;
    *user = credentials.uid;
    return 0;
}

uint64_t chost_thread_cpu_time(unsigned long thread) {
    clockid_t clock;
    struct timespec time;
    if (pthread_getcpuclockid((pthread_t)thread, &clock) != 0 || clock_gettime(clock, &time) != 0) return 0;
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

int chost_spawn_in_folder(posix_spawn_file_actions_t *actions, const char *folder) {
    return posix_spawn_file_actions_addchdir_np(actions, folder);
}

int chost_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC); }

int chost_cpu_count(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

char **chost_environment(void) { return environ; }

int chost_zero_range(int descriptor, off_t offset, off_t count, int unmap) {
    int mode = unmap ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    return fallocate(descriptor, mode, offset, count);
}

int chost_lock_range(int descriptor, int exclusive, off_t offset, off_t count) {
    struct flock lock = {.l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET, .l_start = offset, .l_len = count};
    return fcntl(descriptor, F_OFD_SETLK, &lock);
}

int chost_range_is_free(int descriptor, off_t offset, off_t count) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = offset, .l_len = count};
    if (fcntl(descriptor, F_OFD_GETLK, &lock) != 0) return -1;
    return lock.l_type == F_UNLCK;
}

void chost_ignore_file_size_signal(void) { signal(SIGXFSZ, SIG_IGN); }

int chost_open_terminal(int *controller, int *terminal) {
    *controller = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*controller < 0 || grantpt(*controller) != 0 || unlockpt(*controller) != 0) return -1;
    *terminal = open(ptsname(*controller), O_RDWR | O_NOCTTY | O_CLOEXEC);
    return *terminal < 0 ? -1 : 0;
}

int chost_tap_attach(int fd, const char *name, int flags) {
    struct ifreq request = {0};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    request.ifr_flags = (short)flags;
    return ioctl(fd, TUNSETIFF, &request);
}

int chost_interface_mtu(int socket, const char *name) {
    struct ifreq request = {0};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    return ioctl(socket, SIOCGIFMTU, &request) == 0 ? request.ifr_mtu : -1;
}

uint64_t chost_thread_identity(void) {
    static _Thread_local uint64_t own;
    static _Atomic uint64_t last;
    if (!own) own = ++last;
    return own;
}
