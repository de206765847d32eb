/* Answers: to the kernel, or to Python for ops that came by ticket. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "filter.h"
#include "marker.h"

static const uint64_t VALID_S = 3600; /* we are the only writer: what the kernel has cached stays true */

void reply(struct connection *connection, uint64_t unique, int error, const void *data, size_t bytes) {
    struct fuse_out_header header = {.unique = unique, .error = error < 0 ? error : 0};
    struct iovec parts[2] = {{&header, sizeof header}, {(void *)(uintptr_t)data, error < 0 ? 0 : bytes}};
    header.len = (uint32_t)(sizeof header + parts[1].iov_len);
    if (writev(connection->fd, parts, parts[1].iov_len ? 2 : 1) < 0) return; /* interrupted or aborted: nobody listens */
}

void fill_attr(uint64_t fid, const struct stat *stat, struct fuse_attr *out) {
    *out = (struct fuse_attr){.ino = fid, .size = (uint64_t)stat->st_size, .blocks = (uint64_t)stat->st_blocks,
                              .atime = (uint64_t)stat->st_atim.tv_sec, .mtime = (uint64_t)stat->st_mtim.tv_sec, .ctime = (uint64_t)stat->st_ctim.tv_sec,
                              .atimensec = (uint32_t)stat->st_atim.tv_nsec, .mtimensec = (uint32_t)stat->st_mtim.tv_nsec,
                              .ctimensec = (uint32_t)stat->st_ctim.tv_nsec, .mode = stat->st_mode, .nlink = (uint32_t)stat->st_nlink,
                              .uid = stat->st_uid, .gid = stat->st_gid, .blksize = (uint32_t)stat->st_blksize,
                              .rdev = (uint32_t)((minor(stat->st_rdev) & 0xff) | (major(stat->st_rdev) << 8) | ((minor(stat->st_rdev) & ~0xffU) << 12))};
}

void fill_entry(const struct inode *inode, const struct stat *stat, struct fuse_entry_out *out) {
    *out = (struct fuse_entry_out){.nodeid = inode->fid, .entry_valid = VALID_S, .attr_valid = VALID_S};
    fill_attr(inode->fid, stat, &out->attr);
}

/* The kernel's reference is counted before it can know of the entry. */
void reply_entry(struct connection *connection, uint64_t unique, struct inode *inode, const struct stat *stat) {
    struct fuse_entry_out out;
    fill_entry(inode, stat, &out);
    inode_looked_up(connection->engine, inode);
    reply(connection, unique, 0, &out, sizeof out);
}

static void reply_create(struct connection *connection, struct op *op) {
    struct {
        struct fuse_entry_out entry;
        struct fuse_open_out open;
    } out = {.open = {.open_flags = op->open_flags}};
    out.open.fh = (uint64_t)(uintptr_t)op->file;
    fill_entry(op->inode, &op->stat, &out.entry);
    inode_looked_up(connection->engine, op->inode);
    reply(connection, op->unique, 0, &out, sizeof out);
}

static void reply_attributes(struct connection *connection, struct op *op) {
    struct fuse_attr_out out = {.attr_valid = VALID_S};
    fill_attr(op->inode->fid, &op->stat, &out.attr);
    reply(connection, op->unique, 0, &out, sizeof out);
}

static void reply_to_kernel(struct connection *connection, struct op *op) {
    struct fuse_write_out written = {.size = op->reply_bytes};
    if (op->result < 0) {
        reply(connection, op->unique, op->result, NULL, 0);
        return;
    }
    switch (op->opcode) {
    case FUSE_WRITE:
    case FUSE_COPY_FILE_RANGE: reply(connection, op->unique, 0, &written, sizeof written); break;
    case FUSE_CREATE: reply_create(connection, op); break;
    case FUSE_MKDIR:
    case FUSE_MKNOD:
    case FUSE_SYMLINK:
    case FUSE_LINK: reply_entry(connection, op->unique, op->inode, &op->stat); break;
    case FUSE_SETATTR: reply_attributes(connection, op); break;
    default: reply(connection, op->unique, 0, NULL, 0);
    }
}

/* A create opens its file before it answers, so that an answer is the last that happens. */
static void open_created(struct connection *connection, struct op *op) {
    if (op->opcode != FUSE_CREATE || op->result < 0) return;
    op->file = file_new(connection, op->inode, op->made_fd, op->open_flags & FOPEN_DIRECT_IO);
    op->made_fd = -1;
    if (!op->file) op->result = -ENOMEM;
}

void op_answer(rfs_engine *engine, struct op *op) {
    marker_answered(engine, op);
    if (op->unique) {
        struct connection *connection = engine->connection;
        op->type == FRAME_READ ? (void)0 : open_created(connection, op);
        reply_to_kernel(connection, op);
    } else if (op->ticket) {
        uint64_t ticket = op->ticket;
        int result = op->result;
        if (result == 0 && op->inode) { /* kept until rfs_take_entry() */
            pthread_mutex_lock(&engine->connection_lock);
            list_append(&engine->entries, &op->item);
            pthread_mutex_unlock(&engine->connection_lock);
            op = NULL;
        }
        emit(engine, RFS_EVENT_TICKET, result, ticket, "%s", "");
    }
    if (op) op_free(engine, op);
}

int rfs_take_entry(rfs_engine *engine, uint64_t ticket, rfs_attributes *attributes) {
    struct op *found = NULL;
    pthread_mutex_lock(&engine->connection_lock);
    for (struct list *at = engine->entries.next; at != &engine->entries; at = at->next) {
        struct op *op = ITEM(at, struct op, item);
        if (op->ticket != ticket) continue;
        list_remove(&op->item);
        found = op;
        break;
    }
    pthread_mutex_unlock(&engine->connection_lock);
    if (!found) return -ENOENT;
    fill_attributes(found->inode, &found->stat, attributes);
    op_free(engine, found);
    return 0;
}
