/* The floor: what any synchronous mirror must pay. Bare TCP: send a header and a block, the receiver writes it to a warm,
 * preallocated file and acknowledges. Nothing else: no FUSE, no local write, no checks.
 *
 *   floor serve PORT FILE CPU            until killed
 *   floor send HOST PORT BLOCK COUNT CPU prints the p50 in µs
 *   floor copy HOST PORT FILE            a file into FILE.copy there, without waiting for answers, and onto the disk; prints the seconds */
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

static const uint64_t BEGIN_COPY = UINT64_MAX, END_COPY = UINT64_MAX - 1; /* instead of an offset */

/* Where the blocks that follow go. */
static int turn(uint64_t what, int file, int warm, const char *path) {
    char copy[4096];
    snprintf(copy, sizeof copy, "%s.copy", path);
    if (what == BEGIN_COPY) {
        unlink(copy);
        file = open(copy, O_RDWR | O_CREAT | O_EXCL, 0600);
        if (file < 0) die(copy);
        return file;
    }
    if (fsync(file) < 0) die("fsync");
    close(file);
    unlink(copy);
    return warm;
}

static void serve(int port, const char *path) {
    int one = 1, warm = open(path, O_RDWR | O_CREAT, 0600), file = warm, listener = socket(AF_INET, SOCK_STREAM, 0);
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
            if (header.offset >= END_COPY) file = turn(header.offset, file, warm, path);
            read_all(peer, block, header.bytes);
            if (header.bytes && pwrite(file, block, header.bytes, (off_t)header.offset) < 0) die("pwrite");
            if (write(peer, &header.offset, 8) != 8) break;
        }
        close(peer);
    }
}

static int call(const char *host, int port) {
    int one = 1, peer = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, host, &address.sin_addr);
    if (connect(peer, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return peer;
}

static void send_block(int peer, uint64_t offset, char *block, size_t bytes) {
    struct header header = {.offset = offset, .bytes = bytes};
    struct iovec parts[2] = {{&header, sizeof header}, {block, bytes}};
    for (size_t at = 0, whole = sizeof header + bytes; at < whole;) {
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
}

static void copy_file(const char *host, int port, const char *path) {
    int file = open(path, O_RDONLY), peer = call(host, port);
    if (file < 0) die(path);
    char *block = malloc(MAX_BLOCK), answer[8];
    double start = now_us();
    uint64_t at = 0, sent = 2;
    send_block(peer, BEGIN_COPY, block, 0);
    for (ssize_t some; (some = read(file, block, MAX_BLOCK)) != 0; at += (uint64_t)some, sent++) {
        if (some < 0) die(path);
        send_block(peer, at, block, (size_t)some);
    }
    send_block(peer, END_COPY, block, 0);
    for (; sent; sent--) read_all(peer, answer, sizeof answer); /* they are few: until now they have waited in the socket */
    printf("%.3f\n", (now_us() - start) / 1e6);
}

static void send_blocks(const char *host, int port, size_t bytes, int count) {
    int peer = call(host, port);
    char *block = calloc(1, MAX_BLOCK);
    double *times = calloc((size_t)count, sizeof *times);
    for (int i = 0; i < count; i++) {
        uint64_t answer;
        double start = now_us();
        send_block(peer, (uint64_t)i * bytes % FILE_BYTES, block, bytes);
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
    if (count == 5 && !strcmp(words[1], "copy")) {
        copy_file(words[2], atoi(words[3]), words[4]);
        return 0;
    }
    if (count != 7 || strcmp(words[1], "send")) {
        fprintf(stderr, "usage: floor serve PORT FILE CPU | floor send HOST PORT BLOCK COUNT CPU | floor copy HOST PORT FILE\n");
        return 2;
    }
    pin(atoi(words[6]));
    send_blocks(words[2], atoi(words[3]), (size_t)atol(words[4]), atoi(words[5]));
    return 0;
}
