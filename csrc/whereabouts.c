/* Where an object is that the table does not hold: by what a mark tells of it (its handle here, its path there), and what lies above a directory. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "op.h"
#include "tree.h"

static int found_by_handle(rfs_engine *engine, const rfs_where *where, struct inode **out) {
    struct stat stat;
    uint64_t fid = 0;
    union {
        struct file_handle head;
        uint8_t room[sizeof(struct file_handle) + MAX_HANDLE_BYTES];
    } handle = {.head = {.handle_bytes = where->handle_bytes, .handle_type = where->handle_type}};
    memcpy(handle.head.f_handle, where->handle, where->handle_bytes);
    int path_fd = open_by_handle_at(engine->directory[where->directory].root_fd, &handle.head, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (path_fd < 0) return -errno;
    int result = fstat(path_fd, &stat) < 0 ? -errno : read_fid(path_fd, &fid);
    if (result == 0 && (fid != where->fid || !stat.st_nlink)) result = -ENOENT;
    if (result == 0) result = inode_enter(engine, where->directory, path_fd, &stat, fid, 0, out);
    close(path_fd);
    return result;
}

/* The entry `name`, if it has this id. */
static int below(rfs_engine *engine, struct inode *directory, const char *name, uint64_t fid, struct inode **out) {
    struct descriptor descriptor = {-1, -1};
    struct stat stat;
    int result = S_ISDIR(directory->type) ? descriptor_get(engine, directory, &descriptor) : -ENOENT;
    if (result == 0) result = inode_at(engine, directory, descriptor.fd, name, out, &stat);
    descriptor_put(engine, &descriptor);
    if (result < 0 || (*out)->fid == fid) return result;
    inode_put(engine, *out);
    *out = NULL;
    return -ENOENT;
}

/* From the nearest directory on its way whose id is known. */
static int found_by_path(rfs_engine *engine, const rfs_where *where, struct inode **out) {
    char path[MARK_PATH_BYTES], *rest = path, *name;
    uint64_t way[MARK_PATH_BYTES / sizeof(uint64_t)];
    size_t known = where->depth;
    strcpy(path, where->path);
    memcpy(way, where->path + strlen(where->path) + 1, where->depth * sizeof *way);
    struct inode *at = NULL;
    while (known && !(at = inode_get(engine, way[known - 1]))) known--;
    if (!at) at = inode_get(engine, FIRST_DIRECTORY_FID + where->directory);
    for (size_t i = 0; i < known; i++) strsep(&rest, "/");
    int result = at ? 0 : -ENOENT;
    for (; result == 0 && (name = strsep(&rest, "/")); known++) {
        struct inode *next = NULL;
        if (!*name) continue;
        result = below(engine, at, name, known < where->depth ? way[known] : where->fid, &next);
        inode_put(engine, at);
        at = next;
    }
    *out = at;
    return result;
}

static bool says_gone(int result) { return result == -ENOENT || result == -ESTALE || result == -ENOTDIR || result == -EXDEV; }

int inode_found(rfs_engine *engine, const rfs_where *where, struct inode **out) {
    int result = -ENOENT;
    *out = inode_get(engine, where->fid);
    if (*out) return 0;
    if (where->directory >= engine->directories) return -ENOENT;
    if (where->path[0]) result = found_by_path(engine, where, out); /* its names and scopes become known on the way */
    if (result < 0 && where->handle_bytes) {
        result = found_by_handle(engine, where, out);
        if (result == 0 && S_ISDIR((*out)->type) && !is_root(*out)) {
            char name[256];
            inode_put(engine, inode_parent(engine, *out, name)); /* its scope comes from what is above it */
        }
    }
    return says_gone(result) ? -ENOENT : result;
}

static int find_entry(int directory_fd, uint64_t number, char name[256]) {
    DIR *stream;
    int result = tree_open(directory_fd, ".", &stream);
    if (result < 0) return result;
    bool found = false;
    for (struct dirent *entry; !found && (entry = tree_next(stream, false, &result));) {
        struct stat stat;
        found = entry->d_ino == number && fstatat(directory_fd, entry->d_name, &stat, AT_SYMLINK_NOFOLLOW) == 0 && stat.st_ino == number;
        if (found) snprintf(name, 256, "%s", entry->d_name);
    }
    closedir(stream);
    return found ? 0 : result < 0 ? result : -ENOENT;
}

/* The directory above, and its name there. It may be new to the table: then nothing is known of what lies above it, nor its scope. */
static struct inode *step_up(rfs_engine *engine, struct inode *directory, char name[256], bool *is_fresh) {
    struct inode *parent = NULL;
    struct stat stat;
    *is_fresh = false;
    if (is_root(directory)) return NULL;
    int fd = inode_open(engine, directory, O_RDONLY | O_DIRECTORY), up = fd < 0 ? -1 : openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (up >= 0 && fstat(up, &stat) == 0 && find_entry(up, directory->number, name) == 0) {
        parent = inode_numbered(engine, directory->directory, stat.st_ino);
        uint64_t fid = 0;
        if (!parent && read_fid(up, &fid) == 0 && fid && inode_enter(engine, directory->directory, up, &stat, fid, 0, &parent) == 0) *is_fresh = true;
    }
    if (up >= 0) close(up);
    if (fd >= 0) close(fd);
    return parent;
}

/* Up to one that is known, then their scopes from there down; in a loop, for a tree may be deeper than a stack. */
struct inode *inode_parent(rfs_engine *engine, struct inode *directory, char name[256]) {
    char above[256];
    bool is_fresh;
    struct inode *parent = step_up(engine, directory, name, &is_fresh), **way = NULL;
    size_t steps = 0, room = 0;
    for (struct inode *at = parent, *next; at && is_fresh; at = next) {
        next = step_up(engine, at, above, &is_fresh);
        if (!next) break;
        if (steps == room) {
            struct inode **larger = realloc(way, (room * 2 + 16) * sizeof(struct inode *));
            if (!larger) abort(); /* a scope that cannot be told */
            way = larger;
            room = room * 2 + 16;
        }
        inode_named(engine, at, next->fid, above);
        way[steps++] = next; /* holds its reference */
    }
    for (size_t i = steps; i-- > 0;) { /* the topmost first */
        struct inode *at = i ? way[i - 1] : parent;
        if (inode_name(engine, at, above)) inode_set_scope(engine, at, scope_in(engine, way[i], above, true));
    }
    while (steps) inode_put(engine, way[--steps]);
    free(way);
    if (parent) {
        inode_named(engine, directory, parent->fid, name);
        inode_set_scope(engine, directory, scope_in(engine, parent, name, true));
    }
    return parent;
}
