/* The workloads, in C so that an interpreter's own time is not what is measured. One workload, one directory, one line of
 * numbers. A latency is the p50 in µs of at most COUNT operations, or of as many as fit into MAX_S: slow subjects get fewer.
 *
 *   workload write | write_fsync | read  DIR BLOCK COUNT    p50
 *   workload writers DIR BLOCK WRITERS                      writes per second of so many processes, each with its own file
 *   workload stream DIR BLOCK BYTES                         seconds
 *   workload create_unlink DIR COUNT                        p50, and how many per second
 *   workload make | stat DIR COUNT PER_DIRECTORY            seconds for empty files; seconds for a second (warm) stat of each
 *   workload readdir DIR COUNT                              seconds for a second (warm) listing of one directory
 *   workload untar DIR ARCHIVE                              seconds
 *   workload small DIR COUNT PER_DIRECTORY                  seconds for files of SMALL_BYTES
 *   workload scatter DIR BYTES COUNT                        4 KiB writes at random over one file: p50, p99, and how many per second
 *   workload touches DIR BYTES                              one write into each 4 MiB of it, in no order: p50, p99, how many
 *   workload churn DIR COUNT PER_DIRECTORY                  changes the files that `small` has made, until it is killed */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FILE_BYTES = 64 << 20, MAX_BLOCK = 1 << 20, WARM = 16, WRITERS_MAX = 16, SMALL_BYTES = 1024, PAGE = 4096, CHUNK_BYTES = 4 << 20 };
static const double MAX_S = 3, WRITERS_S = 1.5;
static char block[MAX_BLOCK];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int compare(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static double median_us(double *times_s, long count) {
    qsort(times_s, (size_t)count, sizeof *times_s, compare);
    return times_s[count / 2] * 1e6;
}

/* A file that exists in full already, so that nothing but the write is measured. */
static int open_warm(const char *name) {
    struct stat status;
    int fd = open(name, O_RDWR | O_CREAT, 0644);
    if (fd < 0 || fstat(fd, &status) < 0) die(name);
    if (status.st_size == FILE_BYTES) return fd;
    for (off_t at = 0; at < FILE_BYTES; at += MAX_BLOCK)
        if (pwrite(fd, block, MAX_BLOCK, at) != MAX_BLOCK) die(name);
    if (fsync(fd) < 0) die(name);
    return fd;
}

static void write_at(int fd, size_t bytes, long index) {
    if (pwrite(fd, block, bytes, (off_t)((size_t)index * bytes % FILE_BYTES)) != (ssize_t)bytes) die("pwrite");
}

static void latency(const char *kind, size_t bytes, long count) {
    int fd = open_warm("bench.dat"), syncs = !strcmp(kind, "write_fsync"), reads = !strcmp(kind, "read");
    double *times_s = calloc((size_t)count, sizeof *times_s), began = now_s();
    for (off_t at = 0; reads && at < FILE_BYTES; at += MAX_BLOCK)
        if (pread(fd, block, MAX_BLOCK, at) != MAX_BLOCK) die("pread");
    for (long i = 0; !reads && i < WARM; i++) write_at(fd, bytes, i);
    long done = 0;
    for (; done < count && (done < WARM || now_s() - began < MAX_S); done++) {
        double start = now_s();
        if (reads) {
            if (pread(fd, block, bytes, (off_t)((size_t)done * 7919 * bytes % FILE_BYTES)) != (ssize_t)bytes) die("pread");
        } else {
            write_at(fd, bytes, done);
        }
        if (syncs && fdatasync(fd) < 0) die("fdatasync");
        times_s[done] = now_s() - start;
    }
    printf("%.3f\n", median_us(times_s, done));
}

struct board { /* shared by the writers */
    double start_s;
    long writes[WRITERS_MAX];
    int ready;
};

static void one_writer(struct board *board, int which, size_t bytes) {
    char name[32];
    snprintf(name, sizeof name, "bench.%d.dat", which);
    int fd = open_warm(name);
    __atomic_add_fetch(&board->ready, 1, __ATOMIC_SEQ_CST);
    double start_s;
    do {
        usleep(1000);
        __atomic_load(&board->start_s, &start_s, __ATOMIC_SEQ_CST);
    } while (start_s == 0 || now_s() < start_s);
    long done = 0;
    for (; now_s() < start_s + WRITERS_S; done++) write_at(fd, bytes, done);
    board->writes[which] = done;
}

static void writers(size_t bytes, int count) {
    struct board *board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    long writes = 0;
    if (board == MAP_FAILED || count > WRITERS_MAX) die("writers");
    for (int i = 0; i < count; i++) {
        pid_t child = fork();
        if (child < 0) die("fork");
        if (child > 0) continue;
        one_writer(board, i, bytes);
        _exit(0);
    }
    while (__atomic_load_n(&board->ready, __ATOMIC_SEQ_CST) < count) {
        int status;
        if (waitpid(-1, &status, WNOHANG) > 0) die("a writer");
        usleep(1000);
    }
    double start_s = now_s() + 0.05;
    __atomic_store(&board->start_s, &start_s, __ATOMIC_SEQ_CST);
    for (int i = 0, status; i < count; i++)
        if (wait(&status) < 0 || status != 0) die("a writer");
    for (int i = 0; i < count; i++) writes += board->writes[i];
    printf("%.3f\n", (double)writes / WRITERS_S);
}

static void stream(size_t bytes, long total) {
    int fd = open_warm("bench.dat");
    double began = now_s();
    for (long i = 0; i < total / (long)bytes; i++) write_at(fd, bytes, i);
    printf("%.6f\n", now_s() - began);
}

static void create_unlink(long count) {
    double *times_s = calloc((size_t)count, sizeof *times_s), began = now_s();
    long done = 0;
    for (; done < count && now_s() - began < MAX_S; done++) {
        double start = now_s();
        int fd = open("bench.tmp", O_CREAT | O_EXCL | O_WRONLY, 0644);
        if (fd < 0 || close(fd) < 0 || unlink("bench.tmp") < 0) die("bench.tmp");
        times_s[done] = now_s() - start;
    }
    double rate = (double)done / (now_s() - began);
    printf("%.3f %.3f\n", median_us(times_s, done), rate);
}

static const char *entry(long index, long per_directory) {
    static char name[64];
    snprintf(name, sizeof name, "d%05ld/e%08ld", index / per_directory, index);
    return name;
}

static void make(long count, long per_directory) {
    double began = now_s();
    for (long i = 0; i < count; i++) {
        if (i % per_directory == 0) {
            char directory[32];
            snprintf(directory, sizeof directory, "d%05ld", i / per_directory);
            if (mkdir(directory, 0755) < 0 && errno != EEXIST) die(directory);
        }
        int fd = open(entry(i, per_directory), O_CREAT | O_WRONLY, 0644);
        if (fd < 0 || close(fd) < 0) die(entry(i, per_directory));
    }
    printf("%.6f\n", now_s() - began);
}

static void small(long count, long per_directory) {
    double began = now_s();
    for (long i = 0; i < count; i++) {
        char directory[32];
        snprintf(directory, sizeof directory, "d%05ld", i / per_directory);
        if (i % per_directory == 0 && mkdir(directory, 0755) < 0 && errno != EEXIST) die(directory);
        int fd = open(entry(i, per_directory), O_CREAT | O_WRONLY, 0644);
        if (fd < 0 || pwrite(fd, block + i % PAGE, SMALL_BYTES, 0) != SMALL_BYTES || close(fd) < 0) die(entry(i, per_directory));
    }
    printf("%.6f\n", now_s() - began);
}

static void churn(long count, long per_directory) {
    for (long i = 0;; i++) {
        long which = random() % count;
        if (i % 4 == 3) { /* another file of the same name */
            char fresh[80];
            snprintf(fresh, sizeof fresh, "%s.new", entry(which, per_directory));
            int fd = open(fresh, O_CREAT | O_WRONLY, 0644);
            if (fd < 0 || pwrite(fd, block + i % PAGE, SMALL_BYTES, 0) != SMALL_BYTES || close(fd) < 0 || rename(fresh, entry(which, per_directory)) < 0) die(fresh);
        } else {
            int fd = open(entry(which, per_directory), O_WRONLY);
            if (fd < 0 || pwrite(fd, block + i % PAGE, SMALL_BYTES / 2, 0) != SMALL_BYTES / 2 || close(fd) < 0) die(entry(which, per_directory));
        }
    }
}

static void say_latencies(double *times_s, long count, double last) {
    double middle = median_us(times_s, count);
    printf("%.3f %.3f %.3f\n", middle, times_s[count * 99 / 100] * 1e6, last);
}

static int open_scattered(long bytes) {
    int fd = open("scatter.dat", O_RDWR);
    if (fd < 0 || lseek(fd, 0, SEEK_END) < bytes) die("scatter.dat");
    return fd;
}

static void scatter(long bytes, long count) {
    int fd = open_scattered(bytes);
    double *times_s = calloc((size_t)count, sizeof *times_s), began = now_s();
    for (long i = 0; i < count; i++) {
        double start = now_s();
        if (pwrite(fd, block + i % PAGE, PAGE, random() % (bytes / PAGE) * PAGE) != PAGE) die("pwrite");
        times_s[i] = now_s() - start;
    }
    say_latencies(times_s, count, (double)count / (now_s() - began));
}

static void touches(long bytes) {
    int fd = open_scattered(bytes);
    long count = bytes / CHUNK_BYTES, *order = calloc((size_t)count, sizeof *order);
    double *times_s = calloc((size_t)count, sizeof *times_s);
    for (long i = 0; i < count; i++) {
        long at = random() % (i + 1);
        order[i] = order[at];
        order[at] = i;
    }
    for (long i = 0; i < count; i++) {
        double start = now_s();
        if (pwrite(fd, block, PAGE, order[i] * CHUNK_BYTES) != PAGE) die("pwrite");
        times_s[i] = now_s() - start;
    }
    say_latencies(times_s, count, (double)count);
}

static void stat_all(long count, long per_directory) {
    struct stat status;
    double began = 0;
    for (int pass = 0; pass < 2; pass++) {
        began = now_s();
        for (long i = 0; i < count; i++)
            if (lstat(entry(i, per_directory), &status) < 0) die(entry(i, per_directory));
    }
    printf("%.6f\n", now_s() - began);
}

static void list(long count) {
    double began = 0;
    for (int pass = 0; pass < 2; pass++) {
        began = now_s();
        DIR *directory = opendir("d00000");
        long seen = 0;
        if (!directory) die("d00000");
        while (readdir(directory)) seen++;
        closedir(directory);
        if (seen != count + 2) die("readdir does not show all");
    }
    printf("%.6f\n", now_s() - began);
}

static void untar(const char *archive) {
    int status;
    double began = now_s();
    pid_t child = fork();
    if (child == 0) {
        execlp("tar", "tar", "-xf", archive, (char *)NULL);
        die("tar");
    }
    if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0) die("tar");
    printf("%.6f\n", now_s() - began);
}

int main(int count, char **words) {
    static const struct {
        const char *name;
        int words;
    } known[] = {{"write", 5},         {"write_fsync", 5}, {"read", 5}, {"writers", 5}, {"stream", 5},
                 {"create_unlink", 4}, {"make", 5},        {"stat", 5}, {"readdir", 4}, {"untar", 4},
                 {"small", 5},         {"scatter", 5},     {"touches", 4}, {"churn", 5}};
    size_t which = 0, all = sizeof known / sizeof *known;
    while (which < all && (count < 2 || strcmp(words[1], known[which].name) != 0)) which++;
    if (which == all || count != known[which].words) {
        fprintf(stderr, "usage: workload NAME DIR ...: see the head of workload.c\n");
        return 2;
    }
    long first = atol(words[3]), second = count == 5 ? atol(words[4]) : 0;
    for (size_t i = 0; i < sizeof block; i++) block[i] = (char)(i * 2654435761u >> 13);
    srandom((unsigned)(now_s() * 1e6)); /* other places each time */
    if (chdir(words[2]) < 0) die(words[2]);
    if (!strcmp(words[1], "writers")) writers((size_t)first, (int)second);
    else if (!strcmp(words[1], "stream")) stream((size_t)first, second);
    else if (!strcmp(words[1], "create_unlink")) create_unlink(first);
    else if (!strcmp(words[1], "make")) make(first, second);
    else if (!strcmp(words[1], "stat")) stat_all(first, second);
    else if (!strcmp(words[1], "readdir")) list(first);
    else if (!strcmp(words[1], "untar")) untar(words[3]);
    else if (!strcmp(words[1], "small")) small(first, second);
    else if (!strcmp(words[1], "scatter")) scatter(first, second);
    else if (!strcmp(words[1], "touches")) touches(first);
    else if (!strcmp(words[1], "churn")) churn(first, second);
    else latency(words[1], (size_t)first, second);
    return 0;
}
