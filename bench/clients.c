/* Many clients in one process: they measure how old what they get is, and some of them hardly read.
 *
 *   clients PORT COUNT SLOW T0 [fed]
 *
 * With "fed" they also send a pong every 15 s. stdin: the number of requests, then each as its length and its bytes; connection i sends request i modulo
 * that number. Connections come from several addresses 127.0.0.x. The first SLOW of them have small buffers and read a
 * byte a second. "ready" is printed once each of the others has been sent something (fed: a frame with an age). Then, for each line
 * "SECONDS" on stdin, a line: frames p50 p99 p999 max (ms) of what the fast ones got meanwhile, their bytes, how many
 * slow ones and how many fast ones are closed by now, CPU seconds.
 *
 * A frame tells its age by its last "close":"V": V, in units of 100 us (with "fed": of 10 ms, and it has up to two
 * decimals), is the time since T0 (ns of CLOCK_MONOTONIC) at which it was made. Only frames that lie whole in what one read returned are counted, and
 * with "fed" only updates: a minute's durable close is told seconds after its last trade, and is no provisional value.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define UNIT 100000L      /* ns */
#define BUCKETS 1200000L  /* two minutes of them */
#define PER_ADDRESS 5000

static const char MARK[] = "\"close\":\"", FRAME[] = "{\"type\":\"", UPDATE[] = "{\"type\":\"update\"";
static unsigned ages[BUCKETS];
static long frames, bytes, t0;
static int updates_only;

static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
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

/* Where the first `what` of `data` up to `end` is; NULL if there is none. */
static const char *find(const char *data, const char *end, const char *what) {
    return memmem(data, end - data, what, strlen(what));
}

static void age(const char *data, size_t size, long at) {
    const char *end = data + size, *next, *close;
    for (data = find(data, end, FRAME); data; data = next) {
        next = find(data + 1, end, FRAME);
        const char *stop = next ? next : end, *last = NULL;
        if (updates_only && strncmp(data, UPDATE, sizeof UPDATE - 1)) continue;
        for (close = data; (close = find(close, stop, MARK)); close = last) last = close += sizeof MARK - 1;
        if (!last) continue;
        long value = 0;
        int decimals = updates_only ? 2 : 0, behind = 0;  /* zeros at its end are not printed */
        for (; last < stop && *last != '"'; last++)
            if (*last == '.') behind = 1;
            else value = value * 10 + *last - '0', decimals -= behind;
        if (last == stop) continue;
        while (decimals-- > 0) value *= 10;
        long old = (at - t0) / UNIT - value;
        ages[old < 0 ? 0 : old >= BUCKETS ? BUCKETS - 1 : old]++;
        frames++;
    }
}

static double quantile(double q) {
    long want = frames * q, seen = 0;
    for (long i = 0; i < BUCKETS; i++)
        if ((seen += ages[i]) > want) return i * (UNIT / 1e6);
    return 0;
}

/* A connection from one of several addresses: one has too few ports for them all. */
static int connected(int port, int number, int slow) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), small = 4096, on = 1;
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK + number / PER_ADDRESS)}};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (fd < 0) fail("socket");
    if (slow) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    setsockopt(fd, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&from, sizeof from)) fail("bind");
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) fail("connect");
    return fd;
}

static char **requests(int *count, size_t **sizes) {
    if (scanf("%d", count) != 1) fail("number of requests");
    char **found = calloc(*count, sizeof *found);
    *sizes = calloc(*count, sizeof **sizes);
    for (int i = 0; i < *count; i++) {
        if (scanf("%zu", *sizes + i) != 1) fail("length of a request");
        getchar();
        found[i] = malloc((*sizes)[i]);
        if (fread(found[i], 1, (*sizes)[i], stdin) != (*sizes)[i]) fail("request");
    }
    return found;
}

struct clients {
    int epoll, count, slow, *fds, gone_slow, gone_fast, begun, fed;
    char *seen;
    long sipped, ponged;
};

static void lost(struct clients *all, int i) {
    close(all->fds[i]);
    all->fds[i] = -1;
    i < all->slow ? all->gone_slow++ : all->gone_fast++;
}

/* Read what is there for at most `wait` ms, and a byte of each slow one if a second has passed. */
static void turn(struct clients *all, int wait) {
    static char buffer[1 << 18];
    struct epoll_event events[256];
    int ready = epoll_wait(all->epoll, events, 256, wait);
    for (int k = 0; k < ready; k++) {
        int i = events[k].data.u32;
        ssize_t got = read(all->fds[i], buffer, sizeof buffer);
        if (got <= 0) {
            if (got < 0 && errno == EAGAIN) continue;
            lost(all, i);
            continue;
        }
        bytes += got;
        long before = frames;
        age(buffer, got, now());
        if (!all->seen[i] && (!all->fed || frames > before)) {
            all->seen[i] = 1;
            all->begun++;
        }
    }
    if (all->fed && now() - all->ponged > 15000000000L) {  /* in time for the server's pings, unasked */
        all->ponged = now();
        for (int i = 0; i < all->count; i++)
            if (all->fds[i] >= 0) send(all->fds[i], "\x8a\x80\0\0\0", 6, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    if (now() - all->sipped < 1000000000L) return;
    all->sipped = now();
    for (int i = 0; i < all->slow; i++)
        if (all->fds[i] >= 0 && recv(all->fds[i], buffer, 1, MSG_DONTWAIT) == 0) lost(all, i);
}

int main(int argc, char **argv) {
    if (argc != 5 && argc != 6) return 2;
    int port = atoi(argv[1]), kinds;
    struct clients all = {.epoll = epoll_create1(0), .count = atoi(argv[2]), .slow = atoi(argv[3])};
    t0 = atol(argv[4]);
    all.fed = updates_only = argc == 6;
    all.fds = calloc(all.count, sizeof *all.fds);
    all.seen = calloc(all.count, 1);
    size_t *sizes;
    char **request = requests(&kinds, &sizes);
    for (int i = 0; i < all.count; i++) {
        int fd = all.fds[i] = connected(port, i, i < all.slow);
        if (write(fd, request[i % kinds], sizes[i % kinds]) != (ssize_t)sizes[i % kinds]) fail("write");
        fcntl(fd, F_SETFL, O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        if (i >= all.slow) epoll_ctl(all.epoll, EPOLL_CTL_ADD, fd, &event);
        if (i % 100 == 99) turn(&all, 0);
    }
    while (all.begun < all.count - all.slow) turn(&all, 100);
    printf("ready\n");
    fflush(stdout);
    double seconds;
    for (;;) {
        fd_set input;
        struct timeval none = {0, 0};
        FD_ZERO(&input);
        FD_SET(0, &input);
        if (select(1, &input, NULL, NULL, &none) <= 0) {
            turn(&all, 10);
            continue;
        }
        if (scanf("%lf", &seconds) != 1) return 0;
        memset(ages, 0, sizeof ages);
        frames = bytes = 0;
        double used = cpu();
        for (long end = now() + seconds * 1e9; now() < end;) turn(&all, 10);
        printf("%ld %.1f %.1f %.1f %.1f %ld %d %d %.3f\n", frames, quantile(.5), quantile(.99), quantile(.999),
               quantile(1 - 1e-9), bytes, all.gone_slow, all.gone_fast, cpu() - used);
        fflush(stdout);
    }
}
