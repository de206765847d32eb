/* Requests that change nothing. They take only leaf locks and never wait for the peer, but for the lease: a primary that
 * has not heard from its peer for 3 s may have been replaced, so a read that reaches us then waits like a write. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "filter.h"

struct linux_dirent64 {
    uint64_t d_ino;
    int64_t d_off;
    uint16_t d_reclen;
    uint8_t d_type;
    char d_name[];
};

enum { LIST_BYTES = 65536, VALUE_BYTES = 65536 };

static void virtual_root(struct stat *stat) {
    *stat = (struct stat){.st_mode = S_IFDIR | 0755, .st_nlink = 2, .st_blksize = 4096};
}

static struct inode *virtual_child(rfs_engine *engine, const char *name) {
    char *end;
    unsigned long index = strtoul(name, &end, 10);
    return *end || index >= engine->directories ? NULL : inode_get(engine, FIRST_DIRECTORY_FID + index);
}

void serve_lookup(struct connection *connection, const struct request *request) {
    rfs_engine *engine = connection->engine;
    const char *name = (const char *)request->body;
    uint64_t parent_fid = request->header->nodeid;
    struct inode *parent = NULL, *inode = NULL;
    struct descriptor directory = {-1, -1};
    struct stat stat;
    int result;
    if (parent_fid == ROOT_NODE) {
        inode = virtual_child(engine, name);
        result = inode ? inode_stat(engine, inode, &stat) : -ENOENT;
    } else {
        parent = inode_get(engine, parent_fid);
        result = !parent ? -ESTALE : is_reserved(parent_fid, name) ? -ENOENT : descriptor_get(engine, parent, &directory);
        if (result == 0) result = inode_at(engine, parent, directory.fd, name, &inode, &stat);
    }
    if (result == 0) {
        reply_entry(connection, request->header->unique, inode, &stat);
    } else if (result == -ENOENT) { /* remembered by the kernel until somebody creates it */
        struct fuse_entry_out out = {.entry_valid = 3600};
        reply(connection, request->header->unique, 0, &out, sizeof out);
    } else {
        reply(connection, request->header->unique, result, NULL, 0);
    }
    descriptor_put(engine, &directory);
    inode_put(engine, inode);
    inode_put(engine, parent);
}

void serve_getattr(struct connection *connection, const struct request *request) {
    struct fuse_attr_out out = {.attr_valid = 3600};
    struct stat stat;
    struct inode *inode = NULL;
    int result = 0;
    if (request->header->nodeid == ROOT_NODE) {
        virtual_root(&stat);
    } else {
        inode = inode_get(connection->engine, request->header->nodeid);
        result = inode ? inode_stat(connection->engine, inode, &stat) : -ESTALE;
    }
    if (result == 0) fill_attr(request->header->nodeid, &stat, &out.attr);
    reply(connection, request->header->unique, result, &out, sizeof out);
    inode_put(connection->engine, inode);
}

/* Through the page cache, and past it only for who asks: a page that a reader or a mapping has taken in while a write goes past it would stay
 * there with its old bytes, or be written back with them. */
uint32_t open_policy(uint32_t flags) {
    return flags & O_DIRECT ? FOPEN_DIRECT_IO | FOPEN_KEEP_CACHE | FOPEN_PARALLEL_DIRECT_WRITES : FOPEN_KEEP_CACHE;
}

void serve_open(struct connection *connection, const struct request *request) {
    const struct fuse_open_in *in = (const void *)request->body;
    rfs_engine *engine = connection->engine;
    struct inode *inode = inode_get(engine, request->header->nodeid);
    struct file *file = NULL;
    /* The kernel sends explicit offsets, and we sync and truncate by ops of our own. */
    int result = inode ? inode_open(engine, inode, (int)(in->flags & O_ACCMODE) | O_NOFOLLOW | O_NONBLOCK) : -ESTALE;
    struct fuse_open_out out = {.open_flags = open_policy(in->flags)};
    if (result >= 0) {
        file = file_new(connection, inode, result, out.open_flags & FOPEN_DIRECT_IO);
        result = file ? 0 : -ENOMEM;
    }
    out.fh = (uint64_t)(uintptr_t)file;
    reply(connection, request->header->unique, result, &out, sizeof out);
    inode_put(engine, inode);
}

/* ---- reading -------------------------------------------------------------------------------------------------------------------- */

static void read_now(struct connection *connection, uint64_t unique, const struct file *file, uint64_t offset, uint32_t bytes) {
    static _Thread_local uint8_t *buffer;
    if (!buffer) buffer = aligned_alloc(4096, MAX_WRITE_BYTES);
    if (!buffer || bytes > MAX_WRITE_BYTES) {
        reply(connection, unique, buffer ? -EINVAL : -ENOMEM, NULL, 0);
        return;
    }
    size_t got = 0;
    while (got < bytes) {
        ssize_t some = pread(file->fd, buffer + got, bytes - got, (off_t)(offset + got));
        if (some < 0 && errno == EINTR) continue;
        if (some < 0 && !got) {
            reply(connection, unique, -errno, NULL, 0);
            return;
        }
        if (some <= 0) break;
        got += (size_t)some;
    }
    atomic_fetch_add(&connection->engine->count.reads, 1);
    atomic_fetch_add(&connection->engine->count.read_bytes, got);
    reply(connection, unique, 0, buffer, got);
}

void serve_read(struct connection *connection, const struct request *request) {
    const struct fuse_read_in *in = (const void *)request->body;
    read_now(connection, request->header->unique, (const struct file *)(uintptr_t)in->fh, in->offset, in->size);
}

void serve_lseek(struct connection *connection, const struct request *request) {
    const struct fuse_lseek_in *in = (const void *)request->body;
    const struct file *file = (const struct file *)(uintptr_t)in->fh;
    off_t at = lseek(file->fd, (off_t)in->offset, (int)in->whence);
    struct fuse_lseek_out out = {.offset = (uint64_t)at};
    reply(connection, request->header->unique, at < 0 ? -errno : 0, &out, sizeof out);
}

void serve_getxattr(struct connection *connection, const struct request *request) {
    const struct fuse_getxattr_in *in = (const void *)request->body;
    const char *name = (const char *)(in + 1);
    rfs_engine *engine = connection->engine;
    struct inode *inode = inode_get(engine, request->header->nodeid);
    struct descriptor object = {-1, -1};
    uint8_t *value = malloc(VALUE_BYTES);
    ssize_t bytes = 0;
    int result = !value ? -ENOMEM : !inode ? (request->header->nodeid == ROOT_NODE ? -ENODATA : -ESTALE) : 0;
    if (result == 0 && !strncmp(name, HIDDEN_PREFIX, sizeof HIDDEN_PREFIX - 1)) result = -ENODATA;
    if (result == 0) result = descriptor_get(engine, inode, &object);
    if (result == 0) {
        bytes = getxattr(proc_path(object.fd).text, name, value, in->size < VALUE_BYTES ? in->size : VALUE_BYTES);
        if (bytes < 0) result = -errno;
    }
    struct fuse_getxattr_out out = {.size = (uint32_t)bytes};
    if (in->size) reply(connection, request->header->unique, result, value, (size_t)(bytes < 0 ? 0 : bytes));
    else reply(connection, request->header->unique, result, &out, sizeof out);
    free(value);
    descriptor_put(engine, &object);
    inode_put(engine, inode);
}

/* ---- directories: stateless, the backing file system's offsets are handed through --------------------------------------------------- */

struct page {
    uint8_t *bytes;
    size_t used, room;
};

static uint8_t *reserve(struct page *page, size_t bytes) {
    size_t padded = FUSE_DIRENT_ALIGN(bytes);
    if (page->room - page->used < padded) return NULL;
    uint8_t *at = page->bytes + page->used;
    memset(at, 0, padded);
    page->used += padded;
    return at;
}

static void put_dirent(struct fuse_dirent *out, uint64_t ino, const struct linux_dirent64 *entry, size_t name_bytes) {
    out->ino = ino;
    out->off = (uint64_t)entry->d_off;
    out->namelen = (uint32_t)name_bytes;
    out->type = entry->d_type;
    memcpy(out->name, entry->d_name, name_bytes);
}

/* 0: no room, stop; 1: taken or skipped. A name that cannot be looked at is not left out: who reads would take it for gone. */
static int put_entry(rfs_engine *engine, const struct inode *directory, int fd, const struct linux_dirent64 *entry, bool plus, struct page *page) {
    size_t name_bytes = strlen(entry->d_name);
    bool dots = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
    struct inode *inode = NULL;
    struct stat stat;
    if (is_reserved(directory->fid, entry->d_name)) return 1;
    int result = dots ? 0 : inode_at(engine, directory, fd, entry->d_name, &inode, &stat);
    if (result < 0) return result == -ENOENT || result == -EXDEV ? 1 : result; /* gone meanwhile, or a nested mount */
    uint64_t ino = inode ? inode->fid : directory->fid;
    uint8_t *at = reserve(page, (plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET) + name_bytes);
    if (at && plus) {
        struct fuse_direntplus *out = (void *)at;
        if (inode) {
            fill_entry(inode, &stat, &out->entry_out);
            inode_looked_up(engine, inode);
        }
        put_dirent(&out->dirent, ino, entry, name_bytes);
    } else if (at) {
        put_dirent((void *)at, ino, entry, name_bytes);
    }
    inode_put(engine, inode);
    return at != NULL;
}

void serve_readdir(struct connection *connection, const struct request *request, bool plus) {
    const struct fuse_read_in *in = (const void *)request->body;
    rfs_engine *engine = connection->engine;
    struct inode *directory = inode_get(engine, request->header->nodeid);
    uint8_t *list = malloc(LIST_BYTES);
    struct page page = {.bytes = malloc(in->size), .room = in->size};
    int fd = -1, result = !directory ? -ENOENT : !list || !page.bytes ? -ENOMEM : 0;
    if (result == 0 && directory->orphan) goto out; /* removed: empty */
    if (result == 0) result = fd = inode_open(engine, directory, O_RDONLY | O_DIRECTORY);
    if (fd < 0) goto out;
    result = 0;
    if (in->offset && lseek(fd, (off_t)in->offset, SEEK_SET) < 0) result = -errno;
    for (bool full = false; result == 0 && !full;) {
        long got = syscall(SYS_getdents64, fd, list, in->size < LIST_BYTES / 2 ? in->size : LIST_BYTES);
        if (got <= 0) {
            result = got < 0 ? -errno : 0;
            break;
        }
        for (long at = 0; at < got && !full;) {
            const struct linux_dirent64 *entry = (const void *)(list + at);
            int put = put_entry(engine, directory, fd, entry, plus, &page);
            full = put <= 0;
            if (put < 0 && !page.used) result = put; /* else the next call begins with it */
            at += entry->d_reclen;
        }
    }
out:
    reply(connection, request->header->unique, result, page.bytes, page.used);
    if (fd >= 0) close(fd);
    free(page.bytes);
    free(list);
    inode_put(engine, directory);
}
