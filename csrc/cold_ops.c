/* What pyfuse3 asks of the engine: local reads at once, mutations as ops with a ticket. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "op.h"

int rfs_lookup_attributes(rfs_engine *engine, uint64_t fid, rfs_attributes *attributes) {
    struct stat stat;
    struct inode *inode = inode_get(engine, fid);
    int result = inode ? inode_stat(engine, inode, &stat) : -ESTALE;
    if (result == 0) fill_attributes(inode, &stat, attributes);
    inode_put(engine, inode);
    return result;
}

static int open_path(rfs_engine *engine, uint64_t fid, struct inode **inode) {
    *inode = inode_get(engine, fid);
    return *inode ? inode_open(engine, *inode, O_PATH | O_NOFOLLOW) : -ESTALE;
}

int rfs_readlink(rfs_engine *engine, uint64_t fid, char target[RFS_TARGET_BYTES + 1]) {
    struct inode *inode;
    int fd = open_path(engine, fid, &inode), result = fd;
    if (fd >= 0) {
        ssize_t bytes = readlinkat(fd, "", target, RFS_TARGET_BYTES);
        result = bytes < 0 ? -errno : (int)bytes;
        target[bytes < 0 ? 0 : bytes] = 0;
        close(fd);
    }
    inode_put(engine, inode);
    return result;
}

static ssize_t without_hidden(char *names, ssize_t bytes) {
    ssize_t kept = 0;
    for (ssize_t at = 0; at < bytes;) {
        ssize_t length = (ssize_t)strlen(names + at) + 1;
        if (strncmp(names + at, HIDDEN_PREFIX, sizeof HIDDEN_PREFIX - 1)) {
            memmove(names + kept, names + at, (size_t)length);
            kept += length;
        }
        at += length;
    }
    return kept;
}

int rfs_list_xattrs(rfs_engine *engine, uint64_t fid, char *names, size_t size) {
    struct inode *inode;
    int fd = open_path(engine, fid, &inode), result = fd;
    if (fd >= 0) {
        ssize_t bytes = listxattr(proc_path(fd).text, names, size);
        result = bytes < 0 ? -errno : (int)without_hidden(names, bytes);
        close(fd);
    }
    inode_put(engine, inode);
    return result;
}

int rfs_statfs(rfs_engine *engine, uint64_t fid, uint64_t out[8]) {
    struct inode *inode = inode_get(engine, fid);
    uint16_t directory = inode ? inode->directory : 0;
    struct statvfs stat;
    inode_put(engine, inode);
    if (fstatvfs(engine->directory[directory].root_fd, &stat) < 0) return -errno;
    const uint64_t values[8] = {stat.f_bsize, stat.f_frsize, stat.f_blocks, stat.f_bfree, stat.f_bavail, stat.f_files, stat.f_ffree, stat.f_namemax};
    memcpy(out, values, sizeof values);
    return 0;
}

/* ---- mutations -------------------------------------------------------------------------------------------------------------- */

static struct op *new_op(rfs_engine *engine, enum frame_type type, uint64_t parent, const char *name) {
    struct op *op = op_new(type);
    size_t bytes = strlen(name);
    if (!op || bytes > 255) {
        free(op);
        return NULL;
    }
    op->ticket = atomic_fetch_add(&engine->next_ticket, 1);
    op->body.fid = parent;
    op->body.name_bytes = (uint16_t)bytes;
    memcpy(op->body.name, name, bytes + 1);
    atomic_fetch_add(&engine->count.namespace_ops, 1);
    return op;
}

static uint64_t submit(rfs_engine *engine, struct op *op) {
    uint64_t ticket = op->ticket;
    mirror_submit(engine, op);
    return ticket;
}

uint64_t rfs_submit_symlink(rfs_engine *engine, uint64_t parent, const char *name, const char *target, uint32_t uid, uint32_t gid) {
    size_t bytes = strlen(target);
    struct op *op = bytes && bytes <= RFS_TARGET_BYTES ? new_op(engine, FRAME_SYMLINK, parent, name) : NULL;
    if (!op) return 0;
    op->data = malloc(bytes);
    if (!op->data) {
        op_free(engine, op);
        return 0;
    }
    memcpy(op->data, target, bytes);
    op->body.data_bytes = (uint32_t)bytes;
    op->body.uid = uid;
    op->body.gid = gid;
    return submit(engine, op);
}

uint64_t rfs_submit_link(rfs_engine *engine, uint64_t fid, uint64_t parent, const char *name) {
    struct op *op = new_op(engine, FRAME_LINK, parent, name);
    if (!op) return 0;
    op->body.other = fid;
    return submit(engine, op);
}

uint64_t rfs_submit_mknod(rfs_engine *engine, uint64_t parent, const char *name, uint32_t mode, uint32_t umask, uint64_t rdev, uint32_t uid, uint32_t gid) {
    struct op *op = new_op(engine, FRAME_MKNOD, parent, name);
    if (!op) return 0;
    op->body.mode = mode;
    op->umask = umask & 0777;
    op->body.rdev = rdev;
    op->body.uid = uid;
    op->body.gid = gid;
    return submit(engine, op);
}
