/* The snapshot of before, as it is kept: on the target of a resync, where the file system can clone a file (XFS, Btrfs).
 *
 * The state of before is: what lies in the trees and has no record, and the records. So before an object is changed for the first time since its
 * copy was last whole, it gets one (before_record.c), durably: its content, its attributes, a directory's entries. What is moved keeps its file
 * handle and is found by it; what loses its last name has its record. A record is never written again, so a resync that is cut off and begun
 * anew adds to the snapshot, which stays the state before the first of them.
 *
 * Where a record cannot be written (no room, mostly) the snapshot is given up, durably, before the change is made: redundancy goes first. */
#include "before.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "op.h"
#include "tree.h"

int before_directory(rfs_engine *engine, uint16_t directory) {
    return reserved_look(engine->directory[directory].root_fd, BEFORE_NAME);
}

/* ---- whether there is one ------------------------------------------------------------------------------------------------------ */

/* 1, 0, or -errno: what cannot be looked at is not gone. */
static int has(rfs_engine *engine, uint16_t directory, const char *state) {
    int fd = before_directory(engine, directory), there = fd;
    if (fd >= 0) {
        there = faccessat(fd, state, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ? 1 : -errno;
        close(fd);
    }
    return there == -ENOENT ? 0 : there;
}

int before_state(rfs_engine *engine) {
    int state = RFS_BEFORE_KEPT;
    for (uint32_t i = 0; i < engine->directories; i++) {
        int kept = has(engine, (uint16_t)i, BEFORE_KEPT), restoring = kept > 0 ? has(engine, (uint16_t)i, BEFORE_RESTORING) : 0;
        if (kept <= 0) return kept < 0 ? kept : RFS_BEFORE_NONE;
        if (restoring < 0) return restoring;
        if (restoring) state = RFS_BEFORE_RESTORING;
    }
    return state;
}

int rfs_before_state(rfs_engine *engine) {
    int state = before_state(engine);
    return state < 0 ? RFS_BEFORE_NONE : state;
}

static bool is_directory_error(int error) { return error == EISDIR || error == EPERM; }

/* Files go; directories go up into `top`, under a number. */
static int empty_into(int top, const char *name, uint64_t *number) {
    DIR *stream;
    int result = tree_open(top, name, &stream);
    if (result < 0) return result;
    for (struct dirent *entry; result == 0 && (entry = tree_next(stream, false, &result));) {
        if (unlinkat(dirfd(stream), entry->d_name, 0) == 0) continue;
        if (!is_directory_error(errno)) result = -errno;
        char free_name[32];
        while (result == 0) {
            snprintf(free_name, sizeof free_name, "up.%llu", (unsigned long long)++*number);
            if (renameat2(dirfd(stream), entry->d_name, top, free_name, RENAME_NOREPLACE) == 0) break;
            if (errno != EEXIST) result = -errno;
        }
    }
    closedir(stream);
    return result == 0 && unlinkat(top, name, AT_REMOVEDIR) < 0 ? -errno : result;
}

/* Level by level, so no tree is deeper than a stack, or than there are descriptors. */
int remove_tree(int parent_fd, const char *name) {
    if (unlinkat(parent_fd, name, 0) == 0 || errno == ENOENT) return 0;
    if (!is_directory_error(errno)) return -errno;
    DIR *stream;
    uint64_t number = 0;
    int result = tree_open(parent_fd, name, &stream);
    if (result < 0) return result;
    for (bool any = true; result == 0 && any; rewinddir(stream)) {
        any = false;
        for (struct dirent *entry; result == 0 && (entry = tree_next(stream, false, &result));) {
            any = true;
            if (unlinkat(dirfd(stream), entry->d_name, 0) == 0 || errno == ENOENT) continue;
            result = is_directory_error(errno) ? empty_into(dirfd(stream), entry->d_name, &number) : -errno;
        }
    }
    closedir(stream);
    return result == 0 && unlinkat(parent_fd, name, AT_REMOVEDIR) < 0 ? -errno : result;
}

/* From this moment on there is none, also after a loss of power. `restoring` stays: nothing but its end undoes that. */
static int disown(rfs_engine *engine) {
    int result = 0;
    atomic_store(&engine->before, 0);
    for (uint32_t i = 0; result == 0 && i < engine->directories; i++) {
        int fd = before_directory(engine, (uint16_t)i);
        if (fd < 0) {
            if (fd != -ENOENT) result = fd;
            continue;
        }
        if ((unlinkat(fd, BEFORE_KEPT, 0) < 0 && errno != ENOENT) || fsync(fd) < 0) result = -errno;
        close(fd);
    }
    return result;
}

static int throw_away(rfs_engine *engine) {
    int result = disown(engine);
    for (uint32_t i = 0; result == 0 && i < engine->directories; i++) {
        int root = engine->directory[i].root_fd;
        struct stat before;
        if (faccessat(root, BEFORE_NAME, F_OK, AT_SYMLINK_NOFOLLOW) < 0) continue;
        int fd = before_directory(engine, (uint16_t)i);
        static const char *const parts[] = {BEFORE_OBJECTS, BEFORE_LIMBO, BEFORE_MADE, BEFORE_RESTORING};
        for (size_t part = 0; fd >= 0 && result == 0 && part < sizeof parts / sizeof *parts; part++) result = remove_tree(fd, parts[part]);
        if (fd >= 0) close(fd);
        if (fd < 0 && fd != -ENOENT) return fd;
        if (fd < 0) result = remove_tree(root, BEFORE_NAME); /* somebody else's: see reserved_look() */
        if (result < 0) return result;
        /* No op changes the root's mtime between the two: it is the application's. */
        pthread_rwlock_wrlock(&engine->state);
        if (fstat(root, &before) < 0 || (unlinkat(root, BEFORE_NAME, AT_REMOVEDIR) < 0 && errno != ENOENT)) result = -errno;
        if (result == 0) result = set_mtime(root, stat_mtime_ns(&before));
        pthread_rwlock_unlock(&engine->state);
    }
    return result;
}

int rfs_before_end(rfs_engine *engine) { return throw_away(engine); }

/* ---- beginning ---------------------------------------------------------------------------------------------------------------- */

/* Asked of the file system itself: a file that has a block, cloned. */
static bool can_clone(int fd) {
    int from = openat(fd, "from", O_CREAT | O_RDWR | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600), to = openat(fd, "to", O_CREAT | O_RDWR | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    char block[4096];
    memset(block, 'x', sizeof block);
    bool can = from >= 0 && to >= 0 && write(from, block, sizeof block) == (ssize_t)sizeof block && ioctl(to, FICLONE, from) == 0;
    if (from >= 0) close(from);
    if (to >= 0) close(to);
    unlinkat(fd, "from", 0);
    unlinkat(fd, "to", 0);
    return can;
}

static int make_in(int fd, int root) {
    struct before_key key;
    if (!can_clone(fd)) return -EOPNOTSUPP;
    if (mkdirat(fd, BEFORE_OBJECTS, 0700) < 0 || mkdirat(fd, BEFORE_LIMBO, 0700) < 0 || mkdirat(fd, BEFORE_MADE, 0700) < 0) return -errno;
    int objects = openat(fd, BEFORE_OBJECTS, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int result = objects < 0 ? -errno : before_key_of(root, "", &key);
    if (result == 0) result = before_write(objects, &key, root, true); /* always: what is reserved comes and goes in it */
    if (objects >= 0) close(objects);
    return result;
}

static int make(rfs_engine *engine, uint16_t directory) {
    int root = engine->directory[directory].root_fd;
    struct stat before;
    /* A local file is this node's own and newer than any snapshot; keeping the two apart is not worth it. */
    if (engine->directory[directory].scopes.any) return -EOPNOTSUPP;
    if (fstat(root, &before) < 0 || mkdirat(root, BEFORE_NAME, 0700) < 0) return -errno;
    int result = set_mtime(root, stat_mtime_ns(&before)), fd = before_directory(engine, directory);
    if (fd < 0) return fd;
    if (result == 0) result = make_in(fd, root);
    close(fd);
    return result;
}

/* The copy is whole, and no frame has come: what lies here is the state of before. */
static int begin(rfs_engine *engine) {
    int result = throw_away(engine);
    if (result < 0) return result;
    for (uint32_t i = 0; result == 0 && i < engine->directories; i++) result = make(engine, (uint16_t)i);
    for (uint32_t i = 0; result == 0 && i < engine->directories; i++) {
        int fd = before_directory(engine, (uint16_t)i), kept = fd < 0 ? -1 : openat(fd, BEFORE_KEPT, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        if (kept < 0 || syncfs(fd) < 0) result = -errno;
        if (kept >= 0) close(kept);
        if (fd >= 0) close(fd);
    }
    return result < 0 ? throw_away(engine) : 0; /* none is no failure */
}

int rfs_before_begin(rfs_engine *engine, int whole) {
    int state = before_state(engine), result = 0;
    if (state < 0) return state;
    if (!whole && state == RFS_BEFORE_RESTORING) { /* first it is what it was before, all of it; then that is what is kept */
        result = rfs_before_restore(engine);
        whole = result == 0;
    }
    if (result == 0 && whole) result = begin(engine);
    else if (result == 0 && state == RFS_BEFORE_NONE) result = throw_away(engine);
    if (result < 0) return result;
    state = before_state(engine);
    if (state < 0) return state;
    atomic_store(&engine->before, state == RFS_BEFORE_KEPT ? ++engine->before_counter : 0);
    return state;
}

/* ---- each first change ---------------------------------------------------------------------------------------------------------- */

static int give_up(rfs_engine *engine, int error) {
    int result = 0;
    pthread_mutex_lock(&engine->before_lock);
    if (atomic_load(&engine->before)) {
        result = disown(engine);
        if (result == 0) emit(engine, RFS_EVENT_BEFORE_LOST, error, 0, "the snapshot of before is given up: %s", strerror(-error));
    }
    pthread_mutex_unlock(&engine->before_lock);
    return result;
}

static int save_in(rfs_engine *engine, uint16_t directory, int fd) {
    struct before_key key;
    struct before_record record;
    struct stat root, stat;
    int before = before_directory(engine, directory), objects = before < 0 ? -1 : openat(before, BEFORE_OBJECTS, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int result = objects < 0 ? -errno : before_key_of(fd, "", &key);
    if (before >= 0) close(before);
    if (result == 0 && (fstat(engine->directory[directory].root_fd, &root) < 0 || fstat(fd, &stat) < 0)) result = -errno;
    if (result == 0 && root.st_dev != stat.st_dev) result = -EXDEV; /* a subvolume: what is in it cannot be moved back */
    if (result == 0) result = before_read(objects, &key, &record, NULL);
    if (result == 0) before_record_free(&record);
    if (result == -ENOENT) {
        result = unlinkat(objects, key.text, 0) < 0 && errno != ENOENT ? -errno : 0;
        if (result == 0) result = before_write(objects, &key, fd, stat.st_ino == root.st_ino);
    }
    if (objects >= 0) close(objects);
    return result;
}

int before_touch_directory(rfs_engine *engine, uint16_t directory, int fd) {
    if (!atomic_load(&engine->before)) return 0;
    int result = save_in(engine, directory, fd);
    return result < 0 ? give_up(engine, result) : 0;
}

int before_touch(rfs_engine *engine, struct inode *inode) {
    uint32_t now = atomic_load(&engine->before);
    if (!now || !inode || inode->orphan || atomic_load(&inode->before) == now) return 0;
    int flags = S_ISREG(inode->type) ? O_RDONLY | O_NOFOLLOW | O_NONBLOCK : S_ISDIR(inode->type) ? O_RDONLY | O_DIRECTORY : O_PATH | O_NOFOLLOW;
    int fd = inode_open(engine, inode, flags), result = fd;
    if (fd >= 0) {
        result = save_in(engine, inode->directory, fd);
        close(fd);
    }
    if (result < 0) return give_up(engine, result);
    atomic_store(&inode->before, now);
    return 0;
}

void before_is_new(rfs_engine *engine, struct inode *inode) {
    uint32_t now = atomic_load(&engine->before);
    if (now && inode) atomic_store(&inode->before, now);
}

static int touch_fid(rfs_engine *engine, uint64_t fid) {
    struct inode *inode = inode_get(engine, fid); /* NULL: its op will fail, and change nothing */
    int result = before_touch(engine, inode);
    inode_put(engine, inode);
    return result;
}

/* What may lose its last name. */
static int touch_named(rfs_engine *engine, uint64_t fid, const char *name) {
    struct inode *parent = inode_get(engine, fid), *inode = NULL;
    struct descriptor directory = {-1, -1};
    struct stat stat;
    int result = 0;
    if (parent && S_ISDIR(parent->type) && descriptor_get(engine, parent, &directory) == 0 && inode_at(engine, parent, directory.fd, name, &inode, &stat) == 0) {
        result = before_touch(engine, inode);
        inode_put(engine, inode);
    }
    descriptor_put(engine, &directory);
    inode_put(engine, parent);
    return result;
}

/* Frames of which it is certain that they change something, and what. The others (a listing, attributes, a size) look first: resync_target.c. */
int before_frame(rfs_engine *engine, const struct wire_header *header, const struct op_body *body) {
    if (!atomic_load(&engine->before)) return 0;
    int result = 0;
    switch (header->type) {
    case FRAME_WRITE:
    case FRAME_FALLOCATE:
    case FRAME_COPY:
    case FRAME_SET_ATTRIBUTES:
    case FRAME_SET_XATTR:
    case FRAME_REMOVE_XATTR:
    case FRAME_BLOCK:
    case FRAME_LINK: return touch_fid(engine, body->fid);
    case FRAME_CREATE:
    case FRAME_MKDIR:
    case FRAME_MKNOD:
    case FRAME_SYMLINK: return header->flags & FLAG_HELD ? 0 : touch_fid(engine, body->fid);
    case FRAME_UNLINK:
    case FRAME_RMDIR:
    case FRAME_PLACE:
        result = touch_fid(engine, body->fid);
        return result < 0 ? result : touch_named(engine, body->fid, body->name);
    case FRAME_RENAME:
        result = touch_fid(engine, body->fid);
        if (result == 0) result = touch_fid(engine, body->other);
        if (result == 0 && body->flags & RENAME_EXCHANGE) result = touch_named(engine, body->fid, body->name); /* XFS changes its mtime */
        return result < 0 ? result : touch_named(engine, body->other, body->name2);
    default: return 0;
    }
}

bool before_full(rfs_engine *engine, int error) {
    if ((error != -ENOSPC && error != -EDQUOT) || !atomic_load(&engine->before) || give_up(engine, error) < 0) return false;
    for (uint32_t i = 0; i < engine->directories; i++) {
        int fd = before_directory(engine, (uint16_t)i);
        if (fd >= 0) remove_tree(fd, BEFORE_OBJECTS);
        if (fd >= 0) close(fd);
    }
    return true;
}
