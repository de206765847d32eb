/* The border between what is replicated and what is local (scope.h), and what crosses it.
 *
 * A file that is renamed into the replicated part (save-by-rename, from "x.tmp" to "x") is new to the peer, and must appear there at once and
 * whole, in the place of the old one. So it is made without a place (HELD, in the holding directory), filled, and then gets its name
 * (PLACE): a peer that takes over in between has the old file. It is read and shipped under its stripe, so that no write is missed or comes twice.
 * A file that leaves is unlinked there. What would have to be shipped in bulk while all names wait (directories, large files), and what
 * would have names on both sides, does not cross: EXDEV, as between file systems, and programs copy it.
 *
 * When the peer removes a directory that holds nothing but local entries here, it is kept with them under KEPT_NAME. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "op.h"
#include "tree.h"
#include "walk.h"

enum { ARRIVAL_BYTES = 16 << 20 };

/* ---- the primary's side ------------------------------------------------------------------------------------------------------ */

static struct op *add(struct list *frames, enum frame_type type, uint64_t fid) {
    struct op *op = op_new(type);
    if (!op) return NULL;
    op->body.fid = fid;
    list_append(frames, &op->item);
    return op;
}

static int describe_object(struct inode *inode, int path_fd, const struct stat *stat, struct list *frames) {
    enum frame_type type = S_ISREG(stat->st_mode) ? FRAME_CREATE : S_ISLNK(stat->st_mode) ? FRAME_SYMLINK : FRAME_MKNOD;
    struct op *op = add(frames, type, FIRST_DIRECTORY_FID + inode->directory);
    if (!op) return -ENOMEM;
    op->frame.header.flags = FLAG_HELD;
    op->body.child = inode->fid;
    op->body.mode = stat->st_mode;
    op->body.uid = stat->st_uid;
    op->body.gid = stat->st_gid;
    op->body.rdev = stat->st_rdev;
    op->body.child_mtime_ns = stat_mtime_ns(stat);
    op->body.name_bytes = 1; /* it has none yet */
    op->body.name[0] = '-';
    if (!S_ISLNK(stat->st_mode)) return 0;
    op->data = malloc(RFS_TARGET_BYTES + 1);
    ssize_t bytes = op->data ? readlinkat(path_fd, "", (char *)op->data, RFS_TARGET_BYTES + 1) : -1;
    if (bytes <= 0) return op->data ? -errno : -ENOMEM;
    op->body.data_bytes = (uint32_t)bytes;
    return 0;
}

static int read_block(int fd, off_t offset, size_t bytes, uint64_t fid, struct list *frames) {
    struct op *op = add(frames, FRAME_BLOCK, fid);
    if (!op || !(op->data = malloc(bytes))) return -ENOMEM;
    ssize_t got = pread(fd, op->data, bytes, offset);
    if (got != (ssize_t)bytes) return got < 0 ? -errno : -EIO; /* nobody writes it: its stripe is held */
    op->body.offset = (uint64_t)offset;
    op->body.length = op->body.data_bytes = (uint32_t)bytes;
    return 0;
}

/* Its data; holes need no words, for it is new there. */
static int read_content(rfs_engine *engine, struct inode *inode, off_t size, struct list *frames) {
    int fd = inode_open(engine, inode, O_RDONLY | O_NOFOLLOW | O_NONBLOCK), result = 0;
    if (fd < 0) return fd;
    off_t total = 0;
    for (off_t at = 0; result == 0 && at < size;) {
        at = lseek(fd, at, SEEK_DATA);
        off_t end = at < 0 ? -1 : lseek(fd, at, SEEK_HOLE);
        if (at < 0 && errno == ENXIO) break;
        if (at < 0 || end < 0) result = -errno;
        if (end > size) end = size;
        while (result == 0 && at < end) {
            size_t bytes = end - at < RESYNC_BLOCK_BYTES ? (size_t)(end - at) : RESYNC_BLOCK_BYTES;
            total += (off_t)bytes;
            result = total > ARRIVAL_BYTES ? -EXDEV : read_block(fd, at, bytes, inode->fid, frames);
            at += (off_t)bytes;
        }
    }
    close(fd);
    return result;
}

/* Everything that the peer must be told to have the file. Its stripe is held. */
int arrival_prepare(rfs_engine *engine, struct inode *inode, struct list *frames) {
    struct stat stat;
    int path_fd = inode_open(engine, inode, O_PATH | O_NOFOLLOW);
    if (path_fd < 0) return path_fd;
    int result = fstat(path_fd, &stat) < 0 ? -errno : describe_object(inode, path_fd, &stat, frames);
    close(path_fd);
    if (result == 0 && S_ISREG(stat.st_mode)) result = read_content(engine, inode, stat.st_size, frames);
    struct op *attributes = result == 0 ? add(frames, FRAME_ATTRIBUTES, inode->fid) : NULL;
    if (result == 0) result = attributes ? put_attributes(engine, inode, attributes) : -ENOMEM;
    return result;
}

void arrival_ship(rfs_engine *engine, struct list *frames) {
    while (!list_empty(frames)) {
        struct op *op = ITEM(frames->next, struct op, item);
        list_remove(&op->item);
        mirror_ship(engine, op);
    }
}

void arrival_drop(rfs_engine *engine, struct list *frames) {
    while (!list_empty(frames)) {
        struct op *op = ITEM(frames->next, struct op, item);
        list_remove(&op->item);
        op_free(engine, op);
    }
}

/* ---- the secondary's side ------------------------------------------------------------------------------------------------------ */

static int make_place(rfs_engine *engine, const struct op *op, struct inode *parent, int parent_fd) {
    struct inode *victim = NULL;
    struct stat stat;
    int result = inode_at(engine, parent, parent_fd, op->body.name, &victim, &stat);
    if (result < 0) return result == -ENOENT ? 0 : result;
    pthread_mutex_t *stripe = inode_stripe(engine, victim->fid);
    pthread_mutex_lock(stripe);
    bool last = last_name(victim, &stat);
    int pin = open_pin(engine, victim, &stat, last, true);
    if (last && !(op->frame.header.flags & FLAG_LAST_NAME)) result = hold(engine, parent->directory, victim->fid, atomic_load(&victim->scope), parent_fd, op->body.name);
    else if (last) inode_drop(engine, victim, pin);
    if (pin >= 0 && !victim->orphan) close(pin);
    pthread_mutex_unlock(stripe);
    inode_put(engine, victim);
    return result;
}

int local_place(rfs_engine *engine, struct op *op) {
    struct op_body *body = &op->body;
    struct inode *parent;
    struct descriptor directory;
    char held[48];
    int holding = -1, result = get_directory(engine, body->fid, &parent, &directory);
    if (result == 0 && is_reserved(body->fid, body->name)) result = -EPROTO;
    if (result == 0 && scope_in(engine, parent, body->name, false) & SCOPE_LOCAL) result = -EPROTO;
    if (result == 0) result = holding = held_open(engine, parent->directory, body->child, held);
    if (result >= 0) result = faccessat(holding, held, F_OK, AT_SYMLINK_NOFOLLOW) < 0 ? -EUCLEAN : make_place(engine, op, parent, directory.fd);
    if (result == 0 && renameat2(holding, held, directory.fd, body->name, 0) < 0) result = -errno;
    struct inode *placed = result == 0 ? inode_get(engine, body->child) : NULL;
    if (placed) inode_named(engine, placed, body->fid, body->name);
    inode_put(engine, placed);
    if (holding >= 0) held_close(engine, parent->directory, holding);
    if (result == 0) result = parent_time(directory.fd, &body->mtime_ns, true);
    put_directory(engine, parent, &directory);
    return result;
}

static bool is_local_entry(const struct scopes *scopes, scope_t scope, int directory_fd, const struct dirent *entry) {
    struct stat stat;
    bool is_directory = fstatat(directory_fd, entry->d_name, &stat, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(stat.st_mode);
    return scope_below(scopes, scope, entry->d_name, is_directory) & SCOPE_LOCAL;
}

/* A directory that the primary removed holds nothing there. What is local here goes with it to where it is kept; anything else is an error. */
int set_leftovers_aside(rfs_engine *engine, struct inode *directory, int parent_fd, const char *name) {
    const struct scopes *scopes = &engine->directory[directory->directory].scopes;
    if (!scopes->any) return -ENOTEMPTY;
    DIR *stream;
    int result = tree_open(parent_fd, name, &stream);
    if (result < 0) return result;
    for (struct dirent *entry; result == 0 && (entry = tree_next(stream, false, &result));) {
        if (!is_local_entry(scopes, atomic_load(&directory->scope), dirfd(stream), entry)) result = -ENOTEMPTY;
    }
    closedir(stream);
    return result < 0 ? result : keep(engine, directory->directory, parent_fd, name);
}
