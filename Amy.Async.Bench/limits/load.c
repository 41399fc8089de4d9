// A client in a closed loop for echo servers: each connection has one message on its way. Obeys lines on standard input:
//   "run PORT CONNECTIONS BYTES MILLISECONDS" -> "REQUESTS P50_NS P99_NS P999_NS ERRORS"
// With BYTES 0 the message is a GET of HTTP/1.1, and the answer a small page that comes in one piece, as long each time.
// A fifth of the time warms up and is not counted. Every byte that comes back is compared; of a page, its status and length.
// Ends with the end of standard input.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_BYTES = 65536, MAX_CONNECTIONS = 20000, FINE = 32, POWERS = 48 };

struct connection { int fd; uint32_t number; uint32_t trip; size_t got; int64_t start; };

static struct connection all[MAX_CONNECTIONS];
static unsigned char table[MAX_BYTES + 4096], in[MAX_BYTES];
static int64_t counts[POWERS * FINE];
static const char get[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
static size_t page; // its length, as the first answer had it

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// Logarithmic, each power of two in 32 parts.
static int part_of(int64_t ns) {
    if (ns < FINE) return (int)ns;
    int power = 63 - __builtin_clzll((unsigned long long)ns);
    return (power - 4) * FINE + (int)(ns >> (power - 5)) % FINE;
}

static int64_t value_of(int part) {
    if (part < FINE) return part;
    int power = part / FINE + 4;
    return (int64_t)(FINE + part % FINE) << (power - 5);
}

static int64_t percentile(int64_t total, double share) {
    int64_t before = 0, wanted = (int64_t)(share * (double)total);
    for (int i = 0; i < POWERS * FINE; i++) if ((before += counts[i]) > wanted) return value_of(i);
    return 0;
}

// Of each trip a window of its own into random bytes.
static const unsigned char *message_of(const struct connection *c) { return table + (c->number * 7919u + c->trip * 31u) % 4096; }

static int send_message(struct connection *c, size_t bytes) {
    const unsigned char *m = bytes ? message_of(c) : (const unsigned char *)get;
    if (!bytes) bytes = sizeof get - 1;
    c->got = 0;
    c->start = now();
    for (size_t sent = 0; sent < bytes;) {
        ssize_t n = send(c->fd, m + sent, bytes - sent, MSG_NOSIGNAL);
        if (n < 0) return -1; // closed loop: the kernel's buffer has room for one message
        sent += (size_t)n;
    }
    return 0;
}

// Whether what was received is what is to come next.
static int is_right(const struct connection *c, size_t bytes, ssize_t r) {
    if (r <= 0) return 0;
    if (bytes) return !memcmp(in, message_of(c) + c->got, (size_t)r);
    if (!page) page = (size_t)r;
    return (size_t)r == page && page > 12 && !memcmp(in, "HTTP/1.1 200", 12);
}

static void run(int port, int connections, size_t bytes, int64_t ms) {
    int ep = epoll_create1(EPOLL_CLOEXEC), errors = 0, open = 0;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0; i < connections; i++) {
        struct connection *c = &all[i];
        *c = (struct connection){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), .number = (uint32_t)i};
        int one = 1;
        if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof a)) { printf("error: connecting: %s\n", strerror(errno)); exit(1); }
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
        open++;
    }
    memset(counts, 0, sizeof counts);
    page = 0;
    int64_t done = 0, begin = now(), measured = begin + ms * 200000, end = begin + ms * 1000000;
    for (int i = 0; i < connections; i++) errors += send_message(&all[i], bytes) < 0;
    for (int64_t t = begin; t < end && open > 0; t = now()) {
        struct epoll_event events[512];
        int n = epoll_wait(ep, events, 512, 100);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            ssize_t r = recv(c->fd, in, bytes ? bytes - c->got : sizeof in, MSG_DONTWAIT);
            if (r < 0 && errno == EAGAIN) continue;
            if (!is_right(c, bytes, r)) {
                errors++;
                open--;
                epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, NULL);
                continue;
            }
            if ((c->got += (size_t)r) < bytes) continue;
            int64_t ns = now() - c->start;
            if (c->start >= measured) { done++; counts[part_of(ns)]++; }
            c->trip++;
            errors += send_message(c, bytes) < 0;
        }
    }
    for (int i = 0; i < connections; i++) close(all[i].fd);
    close(ep);
    printf("%lld %lld %lld %lld %d\n", (long long)done, (long long)percentile(done, 0.5), (long long)percentile(done, 0.99),
           (long long)percentile(done, 0.999), errors);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    uint32_t x = 2463534242u;
    for (size_t i = 0; i < sizeof table; i++) { x ^= x << 13; x ^= x >> 17; x ^= x << 5; table[i] = (unsigned char)(x >> 8); }
    int port, connections;
    long bytes, ms;
    while (scanf(" run %d %d %ld %ld", &port, &connections, &bytes, &ms) == 4) {
        if (connections < 1 || connections > MAX_CONNECTIONS || bytes < 0 || bytes > MAX_BYTES) { printf("error: out of range\n"); return 1; }
        run(port, connections, (size_t)bytes, ms);
    }
    return 0;
}
