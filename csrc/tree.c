#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int tree_stream(int fd, DIR **out) {
    if (fd < 0) return fd;
    *out = fdopendir(fd);
    if (*out) return 0;
    int result = -errno;
    close(fd);
    return result;
}

int tree_open(int directory_fd, const char *name, DIR **out) {
    int fd = openat(directory_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return tree_stream(fd < 0 ? -errno : fd, out);
}

static bool is_hidden(const char *name, bool is_root) {
    return !strcmp(name, ".") || !strcmp(name, "..") || (is_root && is_reserved_name(name));
}

struct dirent *tree_next(DIR *stream, bool is_root, int *result) {
    struct dirent *entry;
    errno = 0;
    do entry = readdir(stream);
    while (entry && is_hidden(entry->d_name, is_root));
    if (!entry && errno) *result = -errno;
    return entry;
}

/* ---- counting: one descriptor, however deep it is. What is above is a place in a directory, to come back to. */

struct level {
    ino_t number;
    long place;
    scope_t scope;
};

struct descent {
    DIR *stream;
    struct level *levels; /* those above */
    size_t depth, room;
    scope_t scope;
};

static bool go_down(struct descent *descent, const char *name, scope_t below) {
    struct stat stat;
    DIR *inner;
    if (descent->depth == descent->room) {
        struct level *larger = realloc(descent->levels, (descent->room * 2 + 16) * sizeof *larger);
        if (!larger) return false;
        descent->levels = larger;
        descent->room = descent->room * 2 + 16;
    }
    if (fstat(dirfd(descent->stream), &stat) < 0 || tree_open(dirfd(descent->stream), name, &inner) < 0) return false;
    descent->levels[descent->depth++] = (struct level){stat.st_ino, telldir(descent->stream), descent->scope};
    closedir(descent->stream);
    descent->stream = inner;
    descent->scope = below;
    return true;
}

/* False: that was the top, or it has been moved meanwhile. */
static bool go_up(struct descent *descent) {
    struct stat stat;
    DIR *outer;
    if (!descent->depth || tree_open(dirfd(descent->stream), "..", &outer) < 0) return false;
    const struct level *level = &descent->levels[--descent->depth];
    closedir(descent->stream);
    descent->stream = outer;
    descent->scope = level->scope;
    if (fstat(dirfd(outer), &stat) < 0 || stat.st_ino != level->number) return false;
    seekdir(outer, level->place);
    return true;
}

static void count_one(const struct stat *stat, const struct tree_tally *tally) {
    atomic_fetch_add(tally->files, 1);
    if (S_ISREG(stat->st_mode)) atomic_fetch_add(tally->bytes, (uint64_t)stat->st_size);
}

void tree_count(const struct scopes *scopes, int root_fd, const struct tree_tally *tally) {
    struct descent descent = {.scope = scopes->root};
    int result = tree_open(root_fd, ".", &descent.stream);
    while (result == 0 && !atomic_load(tally->stop)) {
        struct stat stat;
        int unread = 0;
        struct dirent *entry = tree_next(descent.stream, !descent.depth, &unread);
        if (!entry && !go_up(&descent)) break;
        if (!entry || fstatat(dirfd(descent.stream), entry->d_name, &stat, AT_SYMLINK_NOFOLLOW) < 0) continue;
        scope_t below = scope_below(scopes, descent.scope, entry->d_name, S_ISDIR(stat.st_mode));
        if (below & SCOPE_LOCAL) continue;
        if (S_ISDIR(stat.st_mode)) go_down(&descent, entry->d_name, below);
        else count_one(&stat, tally);
    }
    if (result == 0) closedir(descent.stream);
    free(descent.levels);
}
