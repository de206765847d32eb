/* The floor: what any synchronous mirror must pay. Bare TCP: send a header and a block, the receiver writes it to a warm,
 * preallocated file and acknowledges. Nothing else: no FUSE, no local write, no checks.
 *
 *   floor serve PORT FILE CPU            until killed
 *   floor send HOST PORT BLOCK COUNT CPU prints the p50 in µs */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { FILE_BYTES = 64 << 20, MAX_BLOCK = 1 << 20 };

struct header {
    uint64_t offset, bytes;
};

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) die("sched_setaffinity");
}

static void read_all(int fd, void *data, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
        ssize_t some = read(fd, (char *)data + at, bytes - at);
        if (some <= 0) exit(some < 0);
        at += (size_t)some;
    }
}

static int compare(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static double now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void serve(int port, const char *path) {
    int one = 1, file = open(path, O_RDWR | O_CREAT, 0600), listener = socket(AF_INET, SOCK_STREAM, 0);
    char *block = calloc(1, MAX_BLOCK);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    for (off_t at = 0; at < FILE_BYTES; at += MAX_BLOCK)
        if (pwrite(file, block, MAX_BLOCK, at) != MAX_BLOCK) die(path);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4) < 0) die("listen");
    for (;;) {
        int peer = accept(listener, NULL, NULL);
        setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        for (;;) {
            struct header header;
            size_t at = 0;
            ssize_t some = 1;
            while (at < sizeof header && (some = read(peer, (char *)&header + at, sizeof header - at)) > 0) at += (size_t)some;
            if (some <= 0) break;
            read_all(peer, block, header.bytes);
            if (pwrite(file, block, header.bytes, (off_t)header.offset) < 0) die("pwrite");
            if (write(peer, &header.offset, 8) != 8) break;
        }
        close(peer);
    }
}

static void send_blocks(const char *host, int port, size_t bytes, int count) {
    int one = 1, peer = socket(AF_INET, SOCK_STREAM, 0);
    char *block = calloc(1, MAX_BLOCK);
    double *times = calloc((size_t)count, sizeof *times);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, host, &address.sin_addr);
    if (connect(peer, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    for (int i = 0; i < count; i++) {
        struct header header = {.offset = (uint64_t)i * bytes % FILE_BYTES, .bytes = bytes};
        struct iovec parts[2] = {{&header, sizeof header}, {block, bytes}};
        uint64_t answer;
        double start = now_us();
        size_t at = 0, whole = sizeof header + bytes;
        while (at < whole) {
            ssize_t some = writev(peer, parts, 2);
            if (some < 0) die("writev");
            at += (size_t)some;
            for (int k = 0; k < 2; k++) {
                size_t part = (size_t)some < parts[k].iov_len ? (size_t)some : parts[k].iov_len;
                parts[k].iov_base = (char *)parts[k].iov_base + part;
                parts[k].iov_len -= part;
                some -= (ssize_t)part;
            }
        }
        read_all(peer, &answer, 8);
        times[i] = now_us() - start;
    }
    qsort(times, (size_t)count, sizeof *times, compare);
    printf("%.2f\n", times[count / 2]);
}

int main(int count, char **words) {
    if (count == 5 && !strcmp(words[1], "serve")) {
        pin(atoi(words[4]));
        serve(atoi(words[2]), words[3]);
    }
    if (count != 7 || strcmp(words[1], "send")) {
        fprintf(stderr, "usage: floor serve PORT FILE CPU | floor send HOST PORT BLOCK COUNT CPU\n");
        return 2;
    }
    pin(atoi(words[6]));
    send_blocks(words[2], atoi(words[3]), (size_t)atol(words[4]), atoi(words[5]));
    return 0;
}
