/* A user without root who means ill: he changes what lies under names, as fast as he can, while rfsmount works on them.
 *
 *     racer UID SECONDS SEED CANARY DIRECTORY...    (DIRECTORY may be - : taken over before, see below)
 *
 * Started as root, to become UID. It opens the directories, and with "-h" in front hides the descriptors in flight in a socket, where no scan of
 * /proc finds them, says "ready" and takes them out again when it reads a line: so it holds a plain tree that was mirrored since.
 * RACER_RESERVED: also the names that are Lockstep's own; RACER_LINKS: directories and links to a directory of the canary's, and nothing else.
 * Every name of NAMES becomes, again and again, a directory, a link to a canary outside, a pipe, a socket, a file, a hard link, a deep tree; they are exchanged,
 * renamed over each other, removed. What an application does (writes, modes, attributes) follows links: he may do nothing to the canaries, so who
 * changes one is not he. Ends after SECONDS, or at the end of its standard input; prints how many calls succeeded, by kind. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 3, NAMES = 24, DIRECTORIES = 8, DEEP = 40, FILE_BYTES = 40000 };
#define EXCHANGE 2U

static const char *const reserved[] = {".lockstep-holding", ".lockstep-kept", ".lockstep-before"};
static const char *const kinds[] = {"link", "exchange", "rename", "remove", "mkdir", "hard", "node", "deep", "write", "mode", "xattr", "walk", "reserved"};
enum { KINDS = sizeof kinds / sizeof *kinds };

static atomic_ulong done[KINDS];
static atomic_bool stop;
static const char *canary;
static int directory[DIRECTORIES], directories;
static bool plants_reserved, links_only;

struct chance {
    uint64_t state;
};

static uint32_t draw(struct chance *chance, uint32_t below) {
    chance->state = chance->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(chance->state >> 33) % below;
}

static void name(struct chance *chance, char out[300]) {
    uint32_t first = draw(chance, NAMES);
    if (draw(chance, 3)) snprintf(out, 300, "n%u", first);
    else snprintf(out, 300, "n%u/n%u", first, draw(chance, NAMES)); /* through whatever the first one is just now */
}

static void link_target(struct chance *chance, char out[600]) {
    switch (links_only ? 1 : draw(chance, 9)) {
    case 0: snprintf(out, 600, "%s", canary); break;
    case 1: snprintf(out, 600, "%s/open", canary); break;
    case 2: snprintf(out, 600, "%s/open/file", canary); break;
    case 3: snprintf(out, 600, "%s/closed/secret", canary); break;
    case 4: snprintf(out, 600, "../../../canary/open"); break;
    case 5: snprintf(out, 600, "../../../../canary/open/file"); break;
    case 6: snprintf(out, 600, ".."); break;
    case 7: snprintf(out, 600, "/proc/self/root%s/open", canary); break;
    default: snprintf(out, 600, "n%u", draw(chance, NAMES));
    }
}

static int make_deep(int at, const char *top) {
    int fd = mkdirat(at, top, 0777) < 0 ? -1 : openat(at, top, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    for (int i = 0; fd >= 0 && i < DEEP; i++) {
        int next = mkdirat(fd, "d", 0777) < 0 ? -1 : openat(fd, "d", O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        close(fd);
        fd = next;
    }
    if (fd < 0) return -1;
    close(fd);
    return 0;
}

static int remove_any(int at, const char *path, int depth) {
    if (unlinkat(at, path, 0) == 0) return 0;
    if (unlinkat(at, path, AT_REMOVEDIR) == 0) return 0;
    if (depth > 2 * DEEP) return -1;
    int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (fd < 0) return -1;
    remove_any(fd, "d", depth + 1);
    for (int i = 0; i < NAMES; i++) {
        char below[16];
        snprintf(below, sizeof below, "n%d", i);
        unlinkat(fd, below, 0);
        unlinkat(fd, below, AT_REMOVEDIR);
    }
    close(fd);
    return unlinkat(at, path, AT_REMOVEDIR);
}

static int write_file(int at, const char *path, struct chance *chance) {
    static const char text[FILE_BYTES] = "what a user writes";
    int fd = openat(at, path, O_WRONLY | O_CREAT | O_NONBLOCK | (draw(chance, 4) ? 0 : O_TRUNC), 0666), result;
    if (fd < 0) return -1;
    result = pwrite(fd, text, 1 + draw(chance, FILE_BYTES), draw(chance, FILE_BYTES)) < 0 ? -1 : 0;
    if (draw(chance, 40) == 0) fsync(fd);
    close(fd);
    return result;
}

static int hard_link(int at, const char *path, struct chance *chance) {
    char from[600], other[300];
    if (draw(chance, 2)) {
        snprintf(from, sizeof from, "%s/open/file", canary); /* fs.protected_hardlinks says no; across a mount nobody can */
        return linkat(AT_FDCWD, from, at, path, 0);
    }
    name(chance, other);
    return linkat(at, other, at, path, 0);
}

static int walk(int at, const char *path) {
    struct stat stat;
    char text[256];
    int fd = openat(at, path, O_RDONLY | O_NONBLOCK);
    if (fd < 0) return -1;
    ssize_t got = fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) ? read(fd, text, sizeof text) : 0;
    close(fd);
    return got < 0 ? -1 : 0;
}

static int plant(int at, struct chance *chance) {
    const char *path = reserved[draw(chance, 3)];
    char target[600];
    link_target(chance, target);
    switch (draw(chance, 4)) {
    case 0: return symlinkat(target, at, path);
    case 1: return mkdirat(at, path, 0777);
    case 2: return mknodat(at, path, S_IFIFO | 0666, 0);
    default: return unlinkat(at, path, draw(chance, 2) ? AT_REMOVEDIR : 0);
    }
}

static int step(struct chance *chance, uint32_t kind) {
    int at = directory[draw(chance, (uint32_t)directories)];
    char one[300], other[300], target[600];
    name(chance, one);
    name(chance, other);
    switch (kind) {
    case 0: link_target(chance, target); return symlinkat(target, at, one);
    case 1: return (int)syscall(SYS_renameat2, at, one, at, other, EXCHANGE);
    case 2: return renameat(at, one, at, other);
    case 3: return remove_any(at, one, 0);
    case 4: return mkdirat(at, one, 0777);
    case 5: return hard_link(at, one, chance);
    case 6: return mknodat(at, one, (draw(chance, 2) ? S_IFIFO : S_IFSOCK) | 0666, 0);
    case 7: return draw(chance, 8) ? -1 : make_deep(at, one);
    case 8: return write_file(at, one, chance);
    case 9: return draw(chance, 2) ? fchmodat(at, one, (mode_t)draw(chance, 010000), 0) : fchownat(at, one, (uid_t)-1, getgid(), draw(chance, 2) ? 0 : AT_SYMLINK_NOFOLLOW);
    case 10: {
        int fd = openat(at, one, O_RDONLY | O_NONBLOCK);
        int result = fd < 0 ? -1 : fsetxattr(fd, "user.hostile", one, strlen(one), 0);
        if (fd >= 0) close(fd);
        return result;
    }
    case 11: return walk(at, one);
    default: return plants_reserved ? plant(at, chance) : -1;
    }
}

static void *run(void *argument) {
    struct chance chance = {(uint64_t)(uintptr_t)argument};
    while (!atomic_load(&stop)) {
        /* Exchanges most of all: each is a moment in which a name is another thing. */
        static const uint32_t linking[] = {0, 1, 3, 4};
        uint32_t kind = links_only ? linking[draw(&chance, 4)] : draw(&chance, 3) ? draw(&chance, KINDS) : 1;
        if (step(&chance, kind) == 0) atomic_fetch_add(&done[kind], 1);
    }
    return NULL;
}

/* ---- descriptors in flight ----------------------------------------------------------------------------------------------------------- */

static int carry(int socket_fd, int *fd, bool send) {
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    char byte = 'x';
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    if (!send) {
        if (recvmsg(socket_fd, &message, 0) != 1 || !CMSG_FIRSTHDR(&message)) return -1;
        memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof *fd);
        return 0;
    }
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(head), fd, sizeof *fd);
    return sendmsg(socket_fd, &message, 0) == 1 ? 0 : -1;
}

static void die(const char *what) {
    perror(what);
    exit(2);
}

static void hide_until_told(void) {
    int pair[2];
    char line[16];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0) die("socketpair");
    for (int i = 0; i < directories; i++) {
        if (carry(pair[0], &directory[i], true) < 0) die("sendmsg");
        close(directory[i]);
    }
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) exit(0);
    for (int i = 0; i < directories; i++)
        if (carry(pair[1], &directory[i], false) < 0) die("recvmsg");
}

int main(int count, char **words) {
    bool hides = count > 1 && !strcmp(words[1], "-h");
    words += hides;
    count -= hides;
    if (count < 6) {
        fputs("usage: racer [-h] UID SECONDS SEED CANARY DIRECTORY...\n", stderr);
        return 2;
    }
    uid_t uid = (uid_t)atoi(words[1]);
    double seconds = atof(words[2]);
    uint64_t seed = strtoull(words[3], NULL, 10);
    canary = words[4];
    umask(0);
    errno = 0;
    if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0 || !uid) die("racer: cannot become that user");
    if (nice(10) < 0 && errno) die("nice");
    for (int i = 5; i < count && directories < DIRECTORIES; i++)
        if ((directory[directories++] = open(words[i], O_RDONLY | O_DIRECTORY)) < 0) die(words[i]);
    plants_reserved = getenv("RACER_RESERVED") != NULL;
    links_only = getenv("RACER_LINKS") != NULL;
    if (hides) hide_until_told();
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run, (void *)(uintptr_t)(seed * 1000 + i * 7919 + 1))) die("pthread_create");
    struct pollfd input = {.fd = 0, .events = POLLIN};
    poll(&input, 1, (int)(seconds * 1000));
    atomic_store(&stop, true);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < KINDS; i++) printf("%s=%lu ", kinds[i], atomic_load(&done[i]));
    puts("");
    return 0;
}
