#include "tree.h"

#include <errno.h>
#include <fcntl.h>
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

static void count_below(const struct scopes *scopes, scope_t scope, DIR *stream, bool is_root, const struct tree_tally *tally) {
    int result = 0;
    for (struct dirent *entry; !atomic_load(tally->stop) && (entry = tree_next(stream, is_root, &result));) {
        struct stat stat;
        if (fstatat(dirfd(stream), entry->d_name, &stat, AT_SYMLINK_NOFOLLOW) < 0) continue;
        scope_t below = scope_below(scopes, scope, entry->d_name, S_ISDIR(stat.st_mode));
        if (below & SCOPE_LOCAL) continue;
        if (S_ISDIR(stat.st_mode)) {
            DIR *inner;
            if (tree_open(dirfd(stream), entry->d_name, &inner) < 0) continue;
            count_below(scopes, below, inner, false, tally);
            closedir(inner);
            continue;
        }
        atomic_fetch_add(tally->files, 1);
        if (S_ISREG(stat.st_mode)) atomic_fetch_add(tally->bytes, (uint64_t)stat.st_size);
    }
}

void tree_count(const struct scopes *scopes, int root_fd, const struct tree_tally *tally) {
    DIR *stream;
    if (tree_open(root_fd, ".", &stream) < 0) return;
    count_below(scopes, scopes->root, stream, true, tally);
    closedir(stream);
}
