/* Ops that change a file's bytes, done to the local tree. The caller holds the inode's stripe. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "filter.h"
#include "op.h"

/* The open file's own descriptor if the op came through one; else one of the cache. */
static int get_file(rfs_engine *engine, struct op *op, struct descriptor *descriptor, bool replay) {
    *descriptor = (struct descriptor){-1, -1};
    if (op->file && file_fd(op->file) >= 0) return file_fd(op->file);
    if (!op->inode) op->inode = replay ? inode_of_peer(engine, op->body.fid) : inode_get(engine, op->body.fid);
    if (!op->inode) return -ESTALE;
    if (!S_ISREG(op->inode->type)) return -EINVAL;
    int result = descriptor_get(engine, op->inode, descriptor);
    return result < 0 ? result : descriptor->fd;
}

int write_all(int fd, const uint8_t *data, size_t bytes, uint64_t offset, size_t *written) {
    *written = 0;
    while (*written < bytes) {
        ssize_t some = pwrite(fd, data + *written, bytes - *written, (off_t)(offset + *written));
        if (some < 0 && errno == EINTR) continue;
        if (some < 0) return -errno;
        if (some == 0) return -EIO;
        *written += (size_t)some;
    }
    return 0;
}

/* The kernel sets a file's times before it finds no room: nothing was written and the file has changed all the same. So an empty op goes
 * to the peer, and the application hears the error. */
static bool is_change_all_the_same(struct op *op, bool replay, int error) {
    if (replay || (error != -ENOSPC && error != -EDQUOT)) return false;
    op->result = error;
    return true;
}

/* A full disk may take a part: that part is the op, here and on the peer. */
int local_write(rfs_engine *engine, struct op *op, bool replay) {
    struct op_body *body = &op->body;
    struct descriptor descriptor;
    size_t written;
    int fd = get_file(engine, op, &descriptor, replay), result = fd;
    if (fd < 0) return fd;
    result = write_all(fd, op->data + op->data_skip, body->data_bytes, body->offset, &written);
    if (result < 0 && (replay || !written) && !is_change_all_the_same(op, replay, result)) goto out;
    result = 0;
    body->data_bytes = (uint32_t)written;
    body->length = written;
    op->reply_bytes = (uint32_t)written;
    if (replay) {
        result = set_mtime(fd, body->mtime_ns);
    } else if (fstat(fd, &op->stat) < 0) {
        result = -EIO; /* it is done, and the peer can never be told */
    } else {
        body->mtime_ns = stat_mtime_ns(&op->stat);
    }
out:
    descriptor_put(engine, &descriptor);
    return result;
}

int local_fallocate(rfs_engine *engine, struct op *op, bool replay) {
    struct op_body *body = &op->body;
    struct descriptor descriptor;
    struct stat before;
    int fd = get_file(engine, op, &descriptor, replay), result = 0;
    if (fd < 0) return fd;
    if (fstat(fd, &before) < 0) {
        result = -errno;
    } else if (body->flags & ~(uint32_t)(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) { /* what moves bytes would confuse a resync */
        result = -EOPNOTSUPP;
    } else if (fallocate(fd, (int)body->flags, (off_t)body->offset, (off_t)body->length) < 0) {
        result = -errno;
        /* A full disk may have made it longer before it gave up; the peer is told nothing of it. */
        if ((fstat(fd, &op->stat) < 0 || (op->stat.st_size != before.st_size && ftruncate(fd, before.st_size) < 0)) || put_mtime_back(fd, &before) < 0) result = -EIO;
    } else if (replay) {
        result = set_mtime(fd, body->mtime_ns);
    } else if (fstat(fd, &op->stat) < 0) {
        result = -EIO; /* it is done, and the peer can never be told */
    } else {
        body->mtime_ns = stat_mtime_ns(&op->stat);
    }
    descriptor_put(engine, &descriptor);
    return result;
}

enum { COPY_PIECE_BYTES = 256 << 10 };

/* Within a file system the kernel copies (or shares the blocks); across two, or where it cannot, we do. */
static int copy_bytes(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t bytes, uint64_t *copied) {
    off_t source = (off_t)from_offset, target = (off_t)to_offset;
    uint8_t *piece = NULL;
    int result = 0;
    for (*copied = 0; result == 0 && *copied < bytes;) {
        ssize_t some = piece ? -1 : copy_file_range(from, &source, to, &target, bytes - *copied, 0);
        if (!piece && some < 0 && (errno == EXDEV || errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL)) {
            piece = malloc(COPY_PIECE_BYTES);
            if (!piece) return -ENOMEM;
        }
        if (piece) {
            size_t wanted = bytes - *copied < COPY_PIECE_BYTES ? (size_t)(bytes - *copied) : (size_t)COPY_PIECE_BYTES, written;
            some = pread(from, piece, wanted, source);
            if (some > 0 && (result = write_all(to, piece, (size_t)some, (uint64_t)target, &written)) < 0) break;
            source += some > 0 ? some : 0;
            target += some > 0 ? some : 0;
        }
        if (some < 0 && errno == EINTR) continue;
        if (some < 0) result = -errno;
        if (some == 0) break; /* the end of the source */
        if (some > 0) *copied += (uint64_t)some;
    }
    free(piece);
    return result;
}

/* As copy_file_range(2) has it: piece by piece, such a copy would read what it has just written. */
static bool overlaps(const struct op_body *body) {
    return body->fid == body->other && body->rdev < body->offset + body->length && body->offset < body->rdev + body->length;
}

/* The caller holds the stripes of both. What was copied is the op, here and on the peer. */
int local_copy(rfs_engine *engine, struct op *op, bool replay) {
    struct op_body *body = &op->body;
    struct descriptor target, source = {-1, -1};
    uint64_t copied = 0;
    if (!op->source) op->source = replay ? inode_of_peer(engine, body->other) : inode_get(engine, body->other);
    if (!op->source) return -ESTALE;
    if (!S_ISREG(op->source->type) || overlaps(body)) return -EINVAL;
    int fd = get_file(engine, op, &target, replay), result = fd;
    if (fd < 0) return fd;
    result = descriptor_get(engine, op->source, &source);
    if (result < 0) goto out;
    result = copy_bytes(source.fd, body->rdev, fd, body->offset, body->length < MAX_COPY_BYTES ? body->length : MAX_COPY_BYTES, &copied);
    if (replay && result == 0 && copied != body->length) result = -EUCLEAN; /* the copies are not what both believed */
    if (result < 0 && (replay || !copied) && !is_change_all_the_same(op, replay, result)) goto out;
    body->length = copied;
    op->reply_bytes = (uint32_t)copied;
    if (replay) result = set_mtime(fd, body->mtime_ns);
    else if ((result = fstat(fd, &op->stat) < 0 ? -EIO : 0) == 0) body->mtime_ns = stat_mtime_ns(&op->stat);
out:
    descriptor_put(engine, &source);
    descriptor_put(engine, &target);
    return result;
}
