/* What verify compares, as both sides see it: an inode's facts, a directory's entries. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "tree.h"
#include "verify.h"

static void add(struct block_hash *sum, struct block_hash one) {
    sum->low += one.low;
    sum->high += one.high;
}

/* Of xattrs_pack()'s row: each one's hash is added, because the file system lists them in any order. */
static struct block_hash xattrs_sum(const uint8_t *data, size_t bytes, uint64_t seed) {
    struct block_hash sum = {0, 0};
    for (size_t at = 0; at + 6 <= bytes;) {
        uint16_t name_bytes;
        uint32_t value_bytes;
        memcpy(&name_bytes, data + at, 2);
        memcpy(&value_bytes, data + at + 2, 4);
        size_t one = 6 + (size_t)le16toh(name_bytes) + le32toh(value_bytes);
        add(&sum, hash_block(data + at, one, seed));
        at += one;
    }
    return sum;
}

int facts_read(rfs_engine *engine, struct inode *inode, struct facts *out) {
    struct stat stat;
    uint8_t *packed = NULL;
    size_t bytes = 0;
    char target[RFS_TARGET_BYTES + 1];
    memset(out, 0, sizeof *out);
    int path_fd = inode_open(engine, inode, O_PATH | O_NOFOLLOW);
    if (path_fd < 0) return path_fd;
    int result = fstat(path_fd, &stat) < 0 ? -errno : xattrs_pack(path_fd, &packed, &bytes);
    if (result < 0) goto out;
    out->mode = stat.st_mode;
    out->uid = stat.st_uid;
    out->gid = stat.st_gid;
    out->rdev = S_ISCHR(stat.st_mode) || S_ISBLK(stat.st_mode) ? stat.st_rdev : 0;
    out->size = S_ISREG(stat.st_mode) ? (uint64_t)stat.st_size : 0;
    out->mtime_ns = stat_mtime_ns(&stat);
    out->xattrs = xattrs_sum(packed, bytes, engine->session.session);
    if (S_ISLNK(stat.st_mode)) {
        ssize_t length = readlinkat(path_fd, "", target, sizeof target);
        if (length < 0) result = -errno;
        else out->target = hash_block((const uint8_t *)target, (size_t)length, engine->session.session);
    }
out:
    free(packed);
    close(path_fd);
    return result;
}

/* ---- entries ------------------------------------------------------------------------------------------------------------------- */

uint64_t entry_bits(const char *name) { return XXH3_64bits(name, strlen(name)); }

void entry_add(struct entry_sums *sums, const struct entry *entry) {
    uint8_t row[12 + 256];
    size_t bytes = strlen(entry->name);
    uint64_t fid = htole64(entry->fid);
    uint32_t type = htole32(entry->type);
    memcpy(row, &fid, 8);
    memcpy(row + 8, &type, 4);
    memcpy(row + 12, entry->name, bytes);
    add(&sums->bucket[entry_bits(entry->name) % VERIFY_BUCKETS], hash_block(row, 12 + bytes, sums->seed));
}

uint64_t entry_fid(int directory_fd, const char *name) {
    uint64_t fid = 0;
    int path_fd = openat(directory_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (path_fd < 0) return 0;
    read_fid(path_fd, &fid);
    close(path_fd);
    return fid;
}

/* Nearly every object is known by its number, and then costs no look at it. A target does not know what no op of this session has named: it
 * looks what id is written on it, and leaves it at that. */
static int identify(rfs_engine *engine, struct inode *directory, int fd, const struct dirent *item, bool tag, struct entry *out) {
    struct stat stat;
    struct inode *inode = inode_numbered(engine, directory->directory, item->d_ino);
    int result = 0;
    *out = (struct entry){.name = item->d_name};
    if (!inode && tag) result = inode_at(engine, directory, fd, item->d_name, &inode, &stat);
    if (!inode && !tag && fstatat(fd, item->d_name, &stat, AT_SYMLINK_NOFOLLOW) < 0) result = -errno;
    if (result == 0) out->type = inode ? inode->type : stat.st_mode & S_IFMT;
    if (result == 0) out->fid = inode ? inode->fid : entry_fid(fd, item->d_name);
    inode_put(engine, inode);
    return result;
}

int entries_visit(rfs_engine *engine, struct inode *directory, bool tag, entry_visitor visit, void *context) {
    DIR *stream;
    int result = tree_stream(inode_open(engine, directory, O_RDONLY | O_DIRECTORY), &stream);
    if (result < 0) return result;
    for (struct dirent *item; result == 0 && (item = tree_next(stream, is_root(directory), &result));) {
        struct entry entry;
        result = identify(engine, directory, dirfd(stream), item, tag, &entry);
        if (result == -EXDEV || result == -ENOENT) result = 0; /* as in walk.c: a nested mount, or gone */
        else if (result == 0 && !(scope_in(engine, directory, entry.name, S_ISDIR(entry.type)) & SCOPE_LOCAL)) result = visit(context, &entry);
    }
    closedir(stream);
    return result;
}
