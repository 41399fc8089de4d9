// The yardstick of waking: two threads, each asleep in its own epoll_wait, wake each other in turn through eventfds.
// Obeys the workers' protocol on standard input.
//
//   "wakes COUNT CPU CPU"      COUNT there and as many back; a thread on each processor, -1: wherever
//        -> "WAKES MEAN_NS 0 0 0 CPU_NS 0"
//
// Ends with the end of standard input.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { STUCK_MS = 10000 };

struct side {
    int event, ep, cpu;
};

static struct side here, there;
static cpu_set_t allowed;
static long count;

static int64_t ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void fail(const char *what) {
    printf("error: %s\n", what);
    exit(1);
}

static void open_side(struct side *s) {
    struct epoll_event e = {.events = EPOLLIN | EPOLLET};
    s->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    s->ep = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ctl(s->ep, EPOLL_CTL_ADD, s->event, &e)) fail("epoll_ctl");
}

static void pin(int cpu) {
    cpu_set_t one;
    CPU_ZERO(&one);
    if (cpu >= 0) CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, cpu < 0 ? &allowed : &one)) fail("sched_setaffinity");
}

static void sleep_until_woken(const struct side *s) {
    struct epoll_event e;
    uint64_t times;
    if (epoll_wait(s->ep, &e, 1, STUCK_MS) != 1) fail("no wake"); // the parent may be gone
    if (read(s->event, &times, sizeof times) != sizeof times) fail("read");
}

static void wake(const struct side *s) {
    uint64_t once = 1;
    if (write(s->event, &once, sizeof once) != sizeof once) fail("write");
}

static void *answer(void *unused) {
    pin(there.cpu);
    for (long i = 0; i <= count; i++) { // one more than is counted
        sleep_until_woken(&there);
        wake(&here);
    }
    return unused;
}

int main(void) {
    if (sched_getaffinity(0, sizeof allowed, &allowed)) fail("sched_getaffinity");
    open_side(&here);
    open_side(&there);
    while (scanf("%*s %ld %d %d", &count, &here.cpu, &there.cpu) == 3) {
        pthread_t thread;
        pin(here.cpu);
        if (pthread_create(&thread, NULL, answer, NULL)) fail("pthread_create");
        wake(&there); // not counted: the thread has to start
        sleep_until_woken(&here);
        int64_t start = ns(CLOCK_MONOTONIC), cpu = ns(CLOCK_PROCESS_CPUTIME_ID);
        for (long i = 0; i < count; i++) {
            wake(&there);
            sleep_until_woken(&here);
        }
        int64_t time = ns(CLOCK_MONOTONIC) - start;
        cpu = ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        pthread_join(thread, NULL);
        printf("%ld %.1f 0 0 0 %ld 0\n", 2 * count, (double)time / (2.0 * (double)count), (long)cpu);
        fflush(stdout);
    }
    return 0;
}
