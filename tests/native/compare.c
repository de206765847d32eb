/* Two trees are equal when names, types, ids, owners, modes, mtimes, xattrs, hard-link groups and every byte are. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "native.h"

struct twins { /* inode numbers that must belong together */
    uint64_t (*pairs)[2];
    size_t count, room;
};

_Noreturn static void differ(const char *path, const char *what) {
    char message[700];
    snprintf(message, sizeof message, "%s differs in %s", path, what);
    fail_at("compare", 0, message);
}

static void match(struct twins *twins, uint64_t a, uint64_t b, const char *path) {
    for (size_t i = 0; i < twins->count; i++) {
        if (twins->pairs[i][0] == a && twins->pairs[i][1] == b) return;
        if (twins->pairs[i][0] == a || twins->pairs[i][1] == b) differ(path, "its hard links");
    }
    if (twins->count == twins->room) {
        twins->room = twins->room * 2 + 64;
        twins->pairs = realloc(twins->pairs, twins->room * sizeof *twins->pairs);
        CHECK(twins->pairs);
    }
    twins->pairs[twins->count][0] = a;
    twins->pairs[twins->count++][1] = b;
}

static bool are_same_bytes(const char *a, const char *b) {
    static uint8_t left[65536], right[65536];
    int one = open(a, O_RDONLY | O_CLOEXEC), two = open(b, O_RDONLY | O_CLOEXEC);
    CHECK(one >= 0 && two >= 0);
    bool same = true;
    for (ssize_t got; same && (got = read(one, left, sizeof left)) != 0;) {
        CHECK(got > 0);
        same = read(two, right, sizeof right) == got && !memcmp(left, right, (size_t)got);
    }
    close(one);
    close(two);
    return same;
}

/* Our id among them: it is the same on both. */
static void id_of(const char *path, char out[17]) {
    ssize_t bytes = lgetxattr(path, FID_ATTRIBUTE, out, 16);
    out[bytes > 0 ? bytes : 0] = 0;
}

_Noreturn static void differ_in_mtime(const char *a, const char *b, const struct stat *left, const struct stat *right) {
    char what[300], one[17], two[17];
    id_of(a, one);
    id_of(b, two);
    snprintf(what, sizeof what, "its mtime: %lld and %lld ns (mode %o, %lld bytes%s, %u links, ids %s and %s)", (long long)stat_mtime_ns(left), (long long)stat_mtime_ns(right),
        (unsigned)left->st_mode, (long long)left->st_size, S_ISREG(left->st_mode) && !are_same_bytes(a, b) ? " that differ" : "", (unsigned)left->st_nlink, one, two);
    differ(a, what);
}

static void same_xattrs(const char *a, const char *b) {
    char names[4096], more[4096], left[4096], right[4096];
    ssize_t count = llistxattr(a, names, sizeof names), other = llistxattr(b, more, sizeof more);
    CHECK(count >= 0 && other >= 0);
    if (count != other) differ(a, "its extended attributes");
    for (ssize_t at = 0; at < count; at += (ssize_t)strlen(names + at) + 1) {
        ssize_t bytes = lgetxattr(a, names + at, left, sizeof left);
        if (bytes < 0 || lgetxattr(b, names + at, right, sizeof right) != bytes || memcmp(left, right, (size_t)bytes)) differ(a, names + at);
    }
}

/* Not to be compared: what each side keeps for itself, and names that are local. */
static bool is_left_out(const char *name, bool root) {
    if (!strcmp(name, ".") || !strcmp(name, "..") || (root && (!strcmp(name, HOLDING_NAME) || !strcmp(name, KEPT_NAME) || !strcmp(name, BEFORE_NAME)))) return true;
    return some_are_local && fnmatch(LOCAL_NAMES, name, 0) == 0;
}

static void same_directory(const char *a, const char *b, struct twins *twins, bool root);

static void same_object(const char *a, const char *b, struct twins *twins) {
    struct stat left, right;
    char one[4097], two[4097];
    CHECK_EQUAL(lstat(a, &left), 0);
    if (lstat(b, &right) < 0) differ(a, "its existence");
    if (left.st_mode != right.st_mode) differ(a, "its mode");
    if (left.st_uid != right.st_uid || left.st_gid != right.st_gid) differ(a, "its owner");
    if (!S_ISDIR(left.st_mode) && left.st_nlink != right.st_nlink) differ(a, "the number of its links");
    if (!S_ISDIR(left.st_mode) && left.st_size != right.st_size) differ(a, "its size");
    if (!(some_are_local && S_ISDIR(left.st_mode)) && stat_mtime_ns(&left) != stat_mtime_ns(&right)) differ_in_mtime(a, b, &left, &right);
    if (left.st_rdev != right.st_rdev) differ(a, "its device number");
    match(twins, left.st_ino, right.st_ino, a);
    same_xattrs(a, b);
    if (S_ISREG(left.st_mode) && !are_same_bytes(a, b)) differ(a, "its bytes");
    if (S_ISDIR(left.st_mode)) same_directory(a, b, twins, false);
    if (!S_ISLNK(left.st_mode)) return;
    ssize_t bytes = readlink(a, one, sizeof one);
    if (bytes < 0 || readlink(b, two, sizeof two) != bytes || memcmp(one, two, (size_t)bytes)) differ(a, "its target");
}

static size_t entries(const char *path, bool root) {
    size_t count = 0;
    DIR *stream = opendir(path);
    CHECK(stream);
    for (struct dirent *entry; (entry = readdir(stream));) count += !is_left_out(entry->d_name, root);
    closedir(stream);
    return count;
}

static void same_directory(const char *a, const char *b, struct twins *twins, bool root) {
    DIR *stream = opendir(a);
    CHECK(stream);
    for (struct dirent *entry; (entry = readdir(stream));) {
        char left[700], right[700];
        if (is_left_out(entry->d_name, root)) continue;
        snprintf(left, sizeof left, "%s/%s", a, entry->d_name);
        snprintf(right, sizeof right, "%s/%s", b, entry->d_name);
        same_object(left, right, twins);
    }
    closedir(stream);
    if (entries(a, root) != entries(b, root)) differ(b, "names that should not be there");
}

void compare_trees(const char *a, const char *b) {
    struct twins twins = {0};
    struct stat left, right;
    CHECK(stat(a, &left) == 0 && stat(b, &right) == 0);
    if (left.st_mode != right.st_mode || (!some_are_local && stat_mtime_ns(&left) != stat_mtime_ns(&right))) differ(a, "the root's mode or mtime");
    same_directory(a, b, &twins, true);
    free(twins.pairs);
}
