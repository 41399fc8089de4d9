// The yardstick: the same work over plain edge-triggered epoll, in C. Obeys the workers' protocol on standard input.
//
//   epoll pingpong tcp|unix [thread]    both ends of one connection on one thread; beside a thread that does nothing,
//                                       as every process with a runtime has: the kernel then counts the users of a file
//     "time BYTES MILLISECONDS" | "trips BYTES COUNT"
//        -> "TRIPS MEAN_NS P50_NS P99_NS P999_NS CPU_NS 0"   (no percentiles for "trips": no clock between the trips)
//   epoll serve                an echo server on a port that it prints
//     "mark" -> "CPU_NS 0"     CPU time used so far
//
// Ends with the end of standard input.
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX = 1 << 16, SAMPLES = 1 << 22, WINDOWS = 4096, STUCK_MS = 10000 };

static int64_t ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int watch(int ep, int fd) {
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = fd};
    return epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
}

static int listen_tcp(int *port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int l = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(l, (struct sockaddr *)&a, n) || listen(l, 512) || getsockname(l, (struct sockaddr *)&a, &n)) die("listen");
    *port = ntohs(a.sin_port);
    return l;
}

static void no_delay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void connect_pair(int s[2], int unix_domain) {
    if (unix_domain) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s)) die("socketpair");
        return;
    }
    int port, l = listen_tcp(&port);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    s[0] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (connect(s[0], (struct sockaddr *)&a, sizeof a) && errno != EINPROGRESS) die("connect");
    while ((s[1] = accept4(l, NULL, NULL, SOCK_NONBLOCK)) < 0) if (errno != EAGAIN) die("accept");
    close(l);
    no_delay(s[0]);
    no_delay(s[1]);
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void send_all(int fd, const char *b, size_t n) {
    while (n > 0) {
        ssize_t w = send(fd, b, n, MSG_NOSIGNAL);
        if (w < 0 && errno != EAGAIN) die("send");
        if (w > 0) { b += w; n -= (size_t)w; }
    }
}

// As in the workers: a message is a window into random bytes that moves on by one each trip, and no byte equals its
// neighbour, so every byte of a message differs from the trip before.
static void fill(unsigned char *t, size_t n) {
    uint32_t x = 2463534242u;
    for (size_t i = 0; i < n; i++) {
        if (i >= WINDOWS) { t[i] = t[i - WINDOWS]; continue; }
        do { x ^= x << 13; x ^= x >> 17; x ^= x << 5; t[i] = (unsigned char)(x >> 8); }
        while (i > 0 && (t[i] == t[i - 1] || (i == WINDOWS - 1 && t[i] == t[0])));
    }
}

static void pingpong(int unix_domain) {
    static unsigned char table[WINDOWS + MAX];
    static char in[MAX], echo[MAX];
    const char *message = (const char *)table;
    fill(table, sizeof table);
    static int64_t sample[SAMPLES];
    int s[2], ep = epoll_create1(EPOLL_CLOEXEC);
    connect_pair(s, unix_domain);
    if (watch(ep, s[0]) || watch(ep, s[1])) die("epoll_ctl");
    char mode[8];
    long size, amount;
    while (scanf("%7s %ld %ld", mode, &size, &amount) == 3 && size > 0 && size <= MAX) {
        int timed = mode[1] == 'i'; // time, not trips
        int64_t start = ns(CLOCK_MONOTONIC), cpu = ns(CLOCK_PROCESS_CPUTIME_ID), sent = start;
        int64_t end = start + amount * 1000000;
        long trips = 0, samples = 0, got = 0;
        send_all(s[0], message, (size_t)size);
        for (int going = 1; going;) {
            struct epoll_event ev[64];
            int n = epoll_wait(ep, ev, 64, STUCK_MS);
            if (n == 0) { printf("error: no event for %d ms\n", STUCK_MS); exit(1); } // the parent may be gone
            for (int i = 0; i < n && going; i++) {
                if (!(ev[i].events & EPOLLIN)) continue;
                int fd = ev[i].data.fd;
                char *to = fd == s[0] ? in : echo;
                size_t room = fd == s[0] ? (size_t)(MAX - got) : MAX;
                ssize_t r = recv(fd, fd == s[0] ? to + got : to, room, 0);
                if (r <= 0) continue;
                if (fd == s[1]) { send_all(fd, echo, (size_t)r); continue; }
                got += r;
                if (got < size) continue;
                got = 0;
                trips++;
                if (memcmp(in, message, (size_t)size)) { printf("error: the echo differs\n"); exit(1); }
                if (timed) {
                    int64_t now = ns(CLOCK_MONOTONIC);
                    if (samples < SAMPLES) sample[samples++] = now - sent;
                    sent = now;
                    going = now < end;
                } else going = trips < amount;
                if (going) { message = (const char *)table + trips % WINDOWS; send_all(s[0], message, (size_t)size); }
            }
        }
        double mean = (double)(ns(CLOCK_MONOTONIC) - start) / (double)trips;
        cpu = ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        if (samples) qsort(sample, (size_t)samples, sizeof *sample, by_value);
        printf("%ld %.1f %ld %ld %ld %ld 0\n", trips, mean, samples ? (long)sample[samples / 2] : 0L,
               samples ? (long)sample[samples * 99 / 100] : 0L, samples ? (long)sample[samples * 999 / 1000] : 0L, (long)cpu);
        fflush(stdout);
    }
}

static void serve(void) {
    static char b[MAX];
    int port, l = listen_tcp(&port), ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = 0}, ev[64];
    if (epoll_ctl(ep, EPOLL_CTL_ADD, 0, &e)) die("epoll_ctl");
    e.data.fd = l;
    if (epoll_ctl(ep, EPOLL_CTL_ADD, l, &e)) die("epoll_ctl");
    printf("%d\n", port);
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(ep, ev, 64, -1);
        for (int i = 0; i < n; i++) {
            int fd = ev[i].data.fd;
            if (fd == 0) {
                char line[64];
                if (!fgets(line, sizeof line, stdin)) return;
                printf("%ld 0\n", (long)ns(CLOCK_PROCESS_CPUTIME_ID));
                fflush(stdout);
            } else if (fd == l) {
                int c = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (c < 0) continue;
                no_delay(c);
                watch(ep, c);
            } else if (ev[i].events & EPOLLIN) {
                ssize_t r;
                do {
                    r = recv(fd, b, MAX, 0);
                    if (r > 0) send_all(fd, b, (size_t)r);
                } while (r == MAX);
                if (r == 0) close(fd);
            }
        }
    }
}

static void *sleep_for_ever(void *unused) {
    for (;;) pause();
    return unused;
}

int main(int argc, char **argv) {
    pthread_t idle;
    if (argc == 4 && !strcmp(argv[3], "thread") && pthread_create(&idle, NULL, sleep_for_ever, NULL)) die("pthread_create");
    if (argc >= 3 && !strcmp(argv[1], "pingpong")) pingpong(!strcmp(argv[2], "unix"));
    else if (argc == 2 && !strcmp(argv[1], "serve")) serve();
    else return 2;
    return 0;
}
