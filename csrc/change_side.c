/* From a kernel request to an op. Everything is copied out: the reading thread goes on with its buffer. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "filter.h"

enum { SMALL_WRITE_BYTES = 65536 };

static int put_name(const char *name, char *out, uint16_t *bytes) {
    size_t length = strlen(name);
    if (length > 255) return -ENAMETOOLONG;
    memcpy(out, name, length + 1);
    *bytes = (uint16_t)length;
    return 0;
}

static int put_data(struct op *op, const void *data, size_t bytes) {
    op->data = malloc(bytes ? bytes : 1);
    if (!op->data) return -ENOMEM;
    memcpy(op->data, data, bytes);
    op->body.data_bytes = (uint32_t)bytes;
    return 0;
}

/* Is the caller of this group? The request names one group alone; the others are asked for only where it matters. */
static bool is_in_group(const struct fuse_in_header *header, gid_t gid) {
    char path[32], *line = NULL;
    size_t room = 0;
    bool found = header->gid == gid;
    snprintf(path, sizeof path, "/proc/%u/status", header->pid);
    FILE *status = found ? NULL : fopen(path, "re");
    while (status && !found && getline(&line, &room, status) > 0) {
        if (strncmp(line, "Groups:", 7)) continue;
        for (char *at = line + 7, *end; !found; at = end) {
            unsigned long group = strtoul(at, &end, 10);
            if (end == at) break;
            found = group == gid;
        }
        break;
    }
    if (status) fclose(status);
    free(line);
    return found;
}

/* What a write without CAP_FSETID costs: suid; sgid where the group may execute, and where the caller is not of the group. */
static uint32_t lost_by_writing(const struct fuse_in_header *header, const struct stat *stat) {
    uint32_t lost = stat->st_mode & S_ISUID;
    if (S_ISDIR(stat->st_mode)) return 0;
    if (stat->st_mode & S_ISGID && (stat->st_mode & S_IXGRP || (header->uid && !is_in_group(header, stat->st_gid)))) lost |= S_ISGID;
    return lost;
}

/* What setting an ACL costs who is not of the file's group. */
static uint32_t lost_by_acl(const struct fuse_in_header *header, const struct stat *stat) {
    (void)header;
    return stat->st_mode & S_ISGID;
}

/* The kernel asks in the same words, to change nothing, before any fallocate or copy of somebody who costs the file its bits (those take
 * them away themselves) and for a chown to what it is, which costs them only where the caller may change the owner. */
static uint32_t lost_by_nothing(const struct fuse_in_header *header, const struct stat *stat) {
    return header->uid && header->uid != stat->st_uid ? 0 : lost_by_writing(header, stat);
}

/* An op of its own that takes bits of the mode away, before the one that costs them. */
static void drop_mode_bits(struct connection *connection, const struct fuse_in_header *header, uint64_t fid,
                           uint32_t (*lost_by)(const struct fuse_in_header *header, const struct stat *stat)) {
    struct stat stat;
    struct inode *inode = inode_get(connection->engine, fid);
    int result = inode ? inode_stat(connection->engine, inode, &stat) : -ESTALE;
    inode_put(connection->engine, inode);
    if (result < 0) return;
    uint32_t lost = lost_by(header, &stat);
    struct op *op = lost ? op_new(FRAME_SET_ATTRIBUTES) : NULL;
    if (!op) return;
    op->body.fid = fid;
    op->body.flags = CLEARS_MODE;
    op->body.mode = lost;
    mirror_submit(connection->engine, op);
}

static int from_write(struct connection *connection, struct request *request, struct op *op) {
    const struct fuse_write_in *in = (const void *)request->body;
    op->file = (struct file *)(uintptr_t)in->fh;
    op->body.fid = request->header->nodeid;
    op->body.offset = in->offset;
    op->body.length = in->size;
    op->durable = op->file->direct && in->flags & (O_DSYNC | O_SYNC);
    op->data_only = !(in->flags & (O_SYNC & ~O_DSYNC));
    atomic_fetch_add(&connection->engine->count.writes, 1);
    atomic_fetch_add(&connection->engine->count.write_bytes, in->size);
    if (in->write_flags & FUSE_WRITE_KILL_SUIDGID) drop_mode_bits(connection, request->header, op->body.fid, lost_by_writing);
    if (in->size <= SMALL_WRITE_BYTES) return put_data(op, in + 1, in->size);
    op->message = request->buffer; /* cheaper than a copy: the reading thread goes on with another buffer */
    op->data = (uint8_t *)(uintptr_t)(in + 1);
    op->body.data_bytes = in->size;
    request->taken = true;
    return 0;
}

static int from_create(const struct request *request, struct op *op) {
    const struct fuse_create_in *in = (const void *)request->body;
    op->body.mode = in->mode;
    op->umask = in->umask & 0777;
    op->open_flags = open_policy(in->flags);
    return put_name((const char *)(in + 1), op->body.name, &op->body.name_bytes);
}

static int from_mkdir(const struct request *request, struct op *op) {
    const struct fuse_mkdir_in *in = (const void *)request->body;
    op->body.mode = in->mode;
    op->umask = in->umask & 0777;
    return put_name((const char *)(in + 1), op->body.name, &op->body.name_bytes);
}

static int from_setattr(struct connection *connection, const struct request *request, struct op *op) {
    const struct fuse_setattr_in *in = (const void *)request->body;
    struct op_body *body = &op->body;
    const uint32_t map[][2] = {{FATTR_MODE, HAS_MODE}, {FATTR_UID, HAS_UID}, {FATTR_GID, HAS_GID}, {FATTR_SIZE, HAS_SIZE},
                               {FATTR_ATIME, HAS_ATIME}, {FATTR_MTIME, HAS_MTIME}, {FATTR_ATIME_NOW, ATIME_NOW}, {FATTR_MTIME_NOW, MTIME_NOW}};
    for (size_t i = 0; i < sizeof map / sizeof map[0]; i++)
        if (in->valid & map[i][0]) body->flags |= map[i][1];
    if (in->valid & FATTR_KILL_SUIDGID) drop_mode_bits(connection, request->header, body->fid, lost_by_writing);
    if (!body->flags) drop_mode_bits(connection, request->header, body->fid, lost_by_nothing);
    body->mode = in->mode;
    body->uid = in->uid;
    body->gid = in->gid;
    body->length = in->size;
    body->atime_ns = to_ns((int64_t)in->atime, in->atimensec);
    body->child_mtime_ns = to_ns((int64_t)in->mtime, in->mtimensec);
    return 0;
}

static int from_rename(const struct request *request, struct op *op, bool with_flags) {
    const struct fuse_rename_in *old = (const void *)request->body;
    const struct fuse_rename2_in *in = (const void *)request->body;
    const char *name = (const char *)request->body + (with_flags ? sizeof *in : sizeof *old);
    op->body.other = with_flags ? in->newdir : old->newdir;
    op->body.flags = with_flags ? in->flags : 0;
    if (op->body.flags & ~3U) return -EINVAL; /* NOREPLACE, EXCHANGE */
    int result = put_name(name, op->body.name, &op->body.name_bytes);
    return result < 0 ? result : put_name(name + strlen(name) + 1, op->body.name2, &op->body.name2_bytes);
}

static int from_setxattr(struct connection *connection, const struct request *request, struct op *op) {
    const struct fuse_setxattr_in *in = (const void *)request->body;
    const char *name = (const char *)request->body + (connection->extended_setxattr ? sizeof *in : (size_t)FUSE_COMPAT_SETXATTR_IN_SIZE);
    if (connection->extended_setxattr && in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID) drop_mode_bits(connection, request->header, op->body.fid, lost_by_acl);
    op->body.flags = in->flags;
    int result = put_name(name, op->body.name, &op->body.name_bytes);
    return result < 0 ? result : put_data(op, name + strlen(name) + 1, in->size);
}

static int from_fallocate(struct connection *connection, const struct request *request, struct op *op) {
    const struct fuse_fallocate_in *in = (const void *)request->body;
    if (request->header->uid) drop_mode_bits(connection, request->header, op->body.fid, lost_by_writing);
    op->file = (struct file *)(uintptr_t)in->fh;
    op->body.offset = in->offset;
    op->body.length = in->length;
    op->body.flags = in->mode;
    return 0;
}

static int from_copy(struct connection *connection, const struct request *request, struct op *op) {
    const struct fuse_copy_file_range_in *in = (const void *)request->body;
    if (request->header->uid) drop_mode_bits(connection, request->header, in->nodeid_out, lost_by_writing);
    op->file = (struct file *)(uintptr_t)in->fh_out;
    op->body.fid = in->nodeid_out;
    op->body.other = request->header->nodeid;
    op->body.offset = in->off_out;
    op->body.rdev = in->off_in;
    op->body.length = in->len < MAX_COPY_BYTES ? in->len : MAX_COPY_BYTES;
    return in->flags || in->off_in > INT64_MAX - MAX_COPY_BYTES || in->off_out > INT64_MAX - MAX_COPY_BYTES ? -EINVAL : 0;
}

static void from_fsync(struct connection *connection, const struct request *request, struct op *op) {
    const struct fuse_fsync_in *in = (const void *)request->body;
    if (request->header->opcode == FUSE_FSYNC) op->file = (struct file *)(uintptr_t)in->fh;
    op->durable = true;
    op->data_only = in->fsync_flags & FUSE_FSYNC_FDATASYNC;
    atomic_fetch_add(&connection->engine->count.fsyncs, 1);
}

static enum frame_type type_of(uint32_t opcode) {
    switch (opcode) {
    case FUSE_WRITE: return FRAME_WRITE;
    case FUSE_CREATE: return FRAME_CREATE;
    case FUSE_MKDIR: return FRAME_MKDIR;
    case FUSE_UNLINK: return FRAME_UNLINK;
    case FUSE_RMDIR: return FRAME_RMDIR;
    case FUSE_RENAME:
    case FUSE_RENAME2: return FRAME_RENAME;
    case FUSE_SETATTR: return FRAME_SET_ATTRIBUTES;
    case FUSE_SETXATTR: return FRAME_SET_XATTR;
    case FUSE_REMOVEXATTR: return FRAME_REMOVE_XATTR;
    case FUSE_FALLOCATE: return FRAME_FALLOCATE;
    case FUSE_COPY_FILE_RANGE: return FRAME_COPY;
    default: return FRAME_FSYNC;
    }
}

static int fill(struct connection *connection, struct request *request, struct op *op) {
    const char *text = (const char *)request->body;
    switch (request->header->opcode) {
    case FUSE_WRITE: return from_write(connection, request, op);
    case FUSE_CREATE: return from_create(request, op);
    case FUSE_MKDIR: return from_mkdir(request, op);
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_REMOVEXATTR: return put_name(text, op->body.name, &op->body.name_bytes);
    case FUSE_RENAME: return from_rename(request, op, false);
    case FUSE_RENAME2: return from_rename(request, op, true);
    case FUSE_SETATTR: return from_setattr(connection, request, op);
    case FUSE_SETXATTR: return from_setxattr(connection, request, op);
    case FUSE_FALLOCATE: return from_fallocate(connection, request, op);
    case FUSE_COPY_FILE_RANGE: return from_copy(connection, request, op);
    default: from_fsync(connection, request, op); return 0;
    }
}

struct op *op_from_request(struct connection *connection, struct request *request, int *error) {
    struct op *op = op_new(type_of(request->header->opcode));
    *error = -ENOMEM;
    if (!op) return NULL;
    op->body.fid = request->header->nodeid;
    op->body.uid = request->header->uid;
    op->body.gid = request->header->gid;
    if (op->type >= FRAME_CREATE && op->type <= FRAME_RENAME) atomic_fetch_add(&connection->engine->count.namespace_ops, 1);
    *error = request->header->nodeid == ROOT_NODE ? -EROFS : fill(connection, request, op);
    if (*error == 0) {
        op->unique = request->header->unique;
        op->opcode = request->header->opcode;
        return op;
    }
    op_free(connection->engine, op);
    return NULL;
}
