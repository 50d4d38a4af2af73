// One TCP connection and its clock, for both ends: the guest runs one command,
// the host serves them all.
//
//     peer serve PORT                    for ever, or as long as its parent lives; prints the port
//     peer out|in|trip HOST PORT SECONDS prints the nanoseconds of a MiB, or of a round trip
//
// The client says in one line what it wants and for how long. It has the clock:
// "out" ends when the other side has had every byte and says so, "in" with the
// last byte that comes.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// As much as iperf3 hands over at a time.
static char buffer[128 << 10];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double send_until(int peer, double end) {
    double bytes = 0;
    while (now() < end) {
        ssize_t count = write(peer, buffer, sizeof buffer);
        if (count <= 0) die("write");
        bytes += (double)count;
    }
    return bytes;
}

static double receive_all(int peer) {
    double bytes = 0;
    ssize_t count;
    while ((count = read(peer, buffer, sizeof buffer)) > 0) bytes += (double)count;
    if (count < 0) die("read");
    return bytes;
}

static void push(int peer) {
    int yes = 1;
    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

static void answer(int peer) {
    char request[16] = "";
    for (size_t i = 0; i < sizeof request - 1 && (i == 0 || request[i - 1] != '\n'); i++)
        if (read(peer, request + i, 1) != 1) return;
    double seconds = atof(request + 1);
    push(peer);
    switch (request[0]) {
    case 'o':
        receive_all(peer);
        if (write(peer, "", 1) != 1) die("write");
        break;
    case 'i': send_until(peer, now() + seconds); break;
    case 't':
        while (read(peer, buffer, 1) == 1 && write(peer, buffer, 1) == 1) {}
    }
}

static int serve(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8)) die("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int peer = accept(listener, NULL, NULL);
        if (peer < 0) continue;
        if (fork() == 0) {
            answer(peer);
            _exit(0);
        }
        close(peer);
    }
}

static int ask(const char *what, const char *host, int port, double seconds) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int peer = socket(AF_INET, SOCK_STREAM, 0);
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) die(host);
    if (connect(peer, (struct sockaddr *)&address, sizeof address)) die("connect");
    push(peer);
    dprintf(peer, "%c%g\n", what[0], seconds);
    double begin = now(), work = 0;
    switch (what[0]) {
    case 'o':
        work = send_until(peer, begin + seconds) / (1 << 20);
        shutdown(peer, SHUT_WR);
        if (read(peer, buffer, 1) != 1) die("read");
        break;
    case 'i': work = receive_all(peer) / (1 << 20); break;
    case 't':
        for (; now() < begin + seconds; work++)
            if (write(peer, "", 1) != 1 || read(peer, buffer, 1) != 1) die("round trip");
        break;
    default: die(what);
    }
    printf("%.0f\n", (now() - begin) * 1e9 / work);
    return 0;
}

int main(int count, char **words) {
    signal(SIGPIPE, SIG_IGN);
    if (count == 3 && !strcmp(words[1], "serve")) return serve(atoi(words[2]));
    if (count == 5) return ask(words[1], words[2], atoi(words[3]), atof(words[4]));
    fputs("usage: peer serve PORT | peer out|in|trip HOST PORT SECONDS\n", stderr);
    return 64;
}
