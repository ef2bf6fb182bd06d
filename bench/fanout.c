/* The bound of fan-out: a bare epoll loop that writes the same prebuilt bytes, and the client that drains it.
 *
 *   fanout serve CLIENTS MESSAGE_BYTES PER_WRITE   prints its port; then for each "SECONDS RATE" on stdin
 *                                                  (RATE messages a second, 0: flat out) "DELIVERIES CPU_SECONDS"
 *   fanout drain PORT CLIENTS                      sends what it has on stdin on every connection, then reads
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

/* One write; a peer that lags is waited for. */
static void put(int epoll, int fd, const char *data, size_t size) {
    while (size) {
        ssize_t done = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done >= 0) {
            data += done;
            size -= done;
        } else if (errno == EAGAIN) {
            struct epoll_event event = {.events = EPOLLOUT, .data.fd = fd};
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
            epoll_wait(epoll, &event, 1, -1);
            epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
        } else
            fail("send");
    }
}

static void serve(int count, size_t bytes, int per_write) {
    struct sockaddr_in address = loopback(0);
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0), *fds = calloc(count, sizeof *fds);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, count)) fail("listen");
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    char request[4096], *data = malloc(bytes * per_write);
    memset(data, 'x', bytes * per_write);
    for (int i = 0; i < count; i++) {
        fds[i] = accept(listener, NULL, NULL);
        int on = 1;
        setsockopt(fds[i], IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof on);
        if (read(fds[i], request, sizeof request) <= 0) fail("request");
    }
    double seconds, rate;
    while (scanf("%lf %lf", &seconds, &rate) == 2) {
        double start = now(), used = cpu();
        long sent = 0;
        while (now() - start < seconds) {
            double due = start + (rate > 0 ? sent * per_write / rate : 0), wait = due - now();
            if (wait > 0) {
                struct timespec pause = {0, wait * 1e9};
                nanosleep(&pause, NULL);
            }
            for (int i = 0; i < count; i++) put(epoll, fds[i], data, bytes * per_write);
            sent++;
        }
        printf("%ld %.6f\n", sent * per_write * count, cpu() - used);
        fflush(stdout);
    }
}

static void drain(int port, int count) {
    static char request[4096], buffer[1 << 18];
    size_t size = fread(request, 1, sizeof request, stdin);
    int epoll = epoll_create1(0), open = count;
    struct sockaddr_in address = loopback(port);
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = socket(AF_INET, SOCK_STREAM, 0)};
        if (connect(event.data.fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
        if (write(event.data.fd, request, size) != (ssize_t)size) fail("write");
        epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event);
    }
    unsigned long total = 0;
    while (open) {
        struct epoll_event events[256];
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            ssize_t got = read(events[i].data.fd, buffer, sizeof buffer);
            if (got > 0)
                total += got;
            else {
                close(events[i].data.fd);
                open--;
            }
        }
    }
    printf("%lu %.6f\n", total, cpu());
}

int main(int argc, char **argv) {
    if (argc == 5 && !strcmp(argv[1], "serve")) serve(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
    else if (argc == 4 && !strcmp(argv[1], "drain")) drain(atoi(argv[2]), atoi(argv[3]));
    else return 2;
    return 0;
}
