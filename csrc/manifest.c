/* A manifest: what a replicated tree holds, in one file, so that two nodes whose copies have nothing more in common than their names can be
 * compared: after a split brain there is no order of ops in which both could be asked.
 *
 * It is read from the plain tree, without a lock and without the engine: if an application writes meanwhile, it is of no one moment. The
 * entries are sorted (a directory's names by their bytes, what is below a directory right behind it), so that two manifests are compared in one
 * pass over both.
 *
 * An entry, little-endian: u32 bytes of all that follows; u16 directory; u32 mode, uid, gid; u64 size, rdev; i64 mtime; 16 bytes hash of the
 * content, 16 of the xattrs; u64 number (of a file with several names, else 0); u16 path bytes, u16 target bytes; path, target. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "op.h"
#include "tree.h"
#include "walk.h"

enum { READ_BYTES = 1 << 20, PATH_BYTES = RFS_PATH_BYTES, MAX_BLOCKS = 4096 };

struct rfs_manifest {
    int tree_fd;
    uint16_t directory;
    bool with_content;
    dev_t device;
    struct scopes scopes;
    atomic_bool stop;
    atomic_uint_fast64_t entries, bytes;
    FILE *out;
    uint8_t *buffer;
    char path[PATH_BYTES];
};

/* ---- content --------------------------------------------------------------------------------------------------------------------- */

/* One block's; {0, 0}: zeros, which are the same as a hole. */
static struct block_hash hash_part(const uint8_t *data, size_t bytes) {
    if (is_zero(data, bytes)) return (struct block_hash){0, 0};
    return hash_block(data, bytes, 0);
}

static int next_data(int fd, uint64_t *offset) { /* 1: there is none */
    off_t data = lseek(fd, (off_t)*offset, SEEK_DATA);
    if (data < 0) return errno == ENXIO ? 1 : -errno;
    *offset = (uint64_t)data - (uint64_t)data % RFS_BLOCK_BYTES;
    return 0;
}

/* Of the blocks that are no zeros, each with its place, one after the other. */
static int hash_content(rfs_manifest *manifest, int fd, struct block_hash *out) {
    struct block_hash whole = {0, 0};
    int result = 0;
    for (uint64_t offset = 0; result == 0 && !atomic_load(&manifest->stop);) {
        result = next_data(fd, &offset);
        ssize_t got = result == 0 ? pread(fd, manifest->buffer, READ_BYTES, (off_t)offset) : 0;
        if (got < 0) result = -errno;
        if (result != 0 || got == 0) break;
        for (size_t at = 0; at < (size_t)got; at += RFS_BLOCK_BYTES) {
            size_t part = (size_t)got - at < RFS_BLOCK_BYTES ? (size_t)got - at : RFS_BLOCK_BYTES;
            struct block_hash hash = hash_part(manifest->buffer + at, part);
            const uint64_t row[5] = {whole.low, whole.high, htole64(offset + at), hash.low, hash.high};
            if (hash.low || hash.high) whole = hash_block((const uint8_t *)row, sizeof row, 0);
        }
        offset += (uint64_t)got;
        atomic_fetch_add(&manifest->bytes, (uint64_t)got);
    }
    *out = whole;
    return result < 0 ? result : 0;
}

/* ---- an entry -------------------------------------------------------------------------------------------------------------------- */

static int hash_xattrs(int path_fd, struct block_hash *out) {
    uint8_t *packed = NULL;
    size_t bytes = 0;
    int result = xattrs_pack(path_fd, &packed, &bytes);
    *out = (struct block_hash){0, 0};
    for (size_t at = 0; result == 0 && at + 6 <= bytes;) { /* listed in any order: so their hashes are added */
        uint16_t name_bytes;
        uint32_t value_bytes;
        memcpy(&name_bytes, packed + at, 2);
        memcpy(&value_bytes, packed + at + 2, 4);
        size_t one = 6 + (size_t)le16toh(name_bytes) + le32toh(value_bytes);
        struct block_hash hash = hash_block(packed + at, one, 0);
        out->low += hash.low;
        out->high += hash.high;
        at += one;
    }
    free(packed);
    return result;
}

static void put(uint8_t **at, uint64_t value, size_t bytes) {
    value = htole64(value);
    memcpy(*at, &value, bytes);
    *at += bytes;
}

static int write_entry(rfs_manifest *manifest, const struct stat *stat, const struct block_hash hashes[2], const char *target, size_t target_bytes) {
    uint8_t head[128], *at = head + 4;
    size_t path_bytes = strlen(manifest->path);
    bool several = !S_ISDIR(stat->st_mode) && stat->st_nlink > 1, device = S_ISCHR(stat->st_mode) || S_ISBLK(stat->st_mode);
    put(&at, manifest->directory, 2);
    put(&at, stat->st_mode, 4);
    put(&at, stat->st_uid, 4);
    put(&at, stat->st_gid, 4);
    put(&at, S_ISREG(stat->st_mode) ? (uint64_t)stat->st_size : 0, 8);
    put(&at, device ? stat->st_rdev : 0, 8);
    put(&at, (uint64_t)stat_mtime_ns(stat), 8);
    for (int i = 0; i < 2; i++) {
        put(&at, hashes[i].low, 8);
        put(&at, hashes[i].high, 8);
    }
    put(&at, several ? stat->st_ino : 0, 8);
    put(&at, path_bytes, 2);
    put(&at, target_bytes, 2);
    size_t head_bytes = (size_t)(at - head);
    at = head;
    put(&at, head_bytes - 4 + path_bytes + target_bytes, 4);
    fwrite(head, 1, head_bytes, manifest->out);
    fwrite(manifest->path, 1, path_bytes, manifest->out);
    fwrite(target, 1, target_bytes, manifest->out);
    atomic_fetch_add(&manifest->entries, 1);
    return ferror(manifest->out) ? -EIO : 0;
}

/* Of what path_fd names, which is open only as a path. */
static int describe(rfs_manifest *manifest, int path_fd, const struct stat *stat) {
    char target[RFS_TARGET_BYTES + 1];
    struct block_hash hashes[2] = {{0, 0}, {0, 0}};
    ssize_t target_bytes = 0;
    int result = hash_xattrs(path_fd, &hashes[1]);
    if (result == 0 && S_ISLNK(stat->st_mode) && (target_bytes = readlinkat(path_fd, "", target, sizeof target)) < 0) result = -errno;
    if (result == 0 && S_ISREG(stat->st_mode) && manifest->with_content && stat->st_size) {
        int fd = open(proc_path(path_fd).text, O_RDONLY | O_CLOEXEC);
        result = fd < 0 ? -errno : hash_content(manifest, fd, &hashes[0]);
        if (fd >= 0) close(fd);
    }
    return result < 0 ? result : write_entry(manifest, stat, hashes, target, (size_t)target_bytes);
}

/* ---- a directory ------------------------------------------------------------------------------------------------------------------- */

struct names {
    char **items;
    size_t count, room;
};

static int by_bytes(const void *left, const void *right) { return strcmp(*(char *const *)left, *(char *const *)right); }

static void free_names(struct names *names) {
    while (names->count) free(names->items[--names->count]);
    free(names->items);
}

static int list_names(int fd, bool is_root, struct names *names) { /* fd is closed */
    DIR *stream;
    int result = tree_stream(fd, &stream);
    if (result < 0) return result;
    for (struct dirent *item; result == 0 && (item = tree_next(stream, is_root, &result));) {
        if (names->count == names->room) {
            char **larger = realloc(names->items, (names->room * 2 + 64) * sizeof *larger);
            if (larger) {
                names->items = larger;
                names->room = names->room * 2 + 64;
            } else {
                result = -ENOMEM;
            }
        }
        char *copy = result == 0 ? strdup(item->d_name) : NULL;
        if (copy) names->items[names->count++] = copy;
        else result = -ENOMEM;
    }
    closedir(stream);
    if (names->count) qsort(names->items, names->count, sizeof *names->items, by_bytes);
    return result;
}

static int walk_below(rfs_manifest *manifest, int directory_fd, scope_t scope, size_t path_bytes);

static int walk_entry(rfs_manifest *manifest, int directory_fd, scope_t scope, const char *name, size_t path_bytes) {
    struct stat stat;
    size_t name_bytes = strlen(name), slash = path_bytes ? 1 : 0;
    int path_fd = openat(directory_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (path_fd < 0) return errno == ENOENT ? 0 : -errno; /* gone since it was listed */
    int result = fstat(path_fd, &stat) < 0 ? -errno : 0;
    scope_t below = result == 0 ? scope_below(&manifest->scopes, scope, name, S_ISDIR(stat.st_mode)) : SCOPE_LOCAL;
    if (result < 0 || below & SCOPE_LOCAL || stat.st_dev != manifest->device) goto out;
    result = path_bytes + slash + name_bytes < PATH_BYTES ? 0 : -ENAMETOOLONG;
    if (result < 0) goto out;
    if (slash) manifest->path[path_bytes] = '/';
    memcpy(manifest->path + path_bytes + slash, name, name_bytes + 1);
    result = describe(manifest, path_fd, &stat);
    if (result == 0 && S_ISDIR(stat.st_mode)) {
        int fd = openat(directory_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        result = fd >= 0 ? walk_below(manifest, fd, below, path_bytes + slash + name_bytes) : errno == ENOENT ? 0 : -errno;
        if (fd >= 0) close(fd);
    }
out:
    close(path_fd);
    manifest->path[path_bytes] = 0;
    return result;
}

static int walk_below(rfs_manifest *manifest, int directory_fd, scope_t scope, size_t path_bytes) {
    struct names names = {0};
    int copy = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = copy < 0 ? -errno : list_names(copy, !path_bytes, &names);
    for (size_t i = 0; result == 0 && i < names.count; i++)
        result = atomic_load(&manifest->stop) ? -ECANCELED : walk_entry(manifest, directory_fd, scope, names.items[i], path_bytes);
    free_names(&names);
    return result;
}

/* ---- the calls -------------------------------------------------------------------------------------------------------------------- */

rfs_manifest *rfs_manifest_new(int tree_fd, uint32_t directory, int with_content) {
    rfs_manifest *manifest = calloc(1, sizeof *manifest);
    if (!manifest) return NULL;
    manifest->tree_fd = tree_fd;
    manifest->directory = (uint16_t)directory;
    manifest->with_content = with_content != 0;
    return manifest;
}

int rfs_manifest_pattern(rfs_manifest *manifest, const char *pattern, int only) { return scopes_add(&manifest->scopes, pattern, only != 0); }

int rfs_manifest_write(rfs_manifest *manifest, int out_fd) {
    struct stat stat;
    int copy = fcntl(out_fd, F_DUPFD_CLOEXEC, 3), path_fd = -1, result = -ENOMEM;
    manifest->out = copy < 0 ? NULL : fdopen(copy, "w");
    manifest->buffer = malloc(READ_BYTES);
    if (!manifest->out && copy >= 0) close(copy);
    if (!manifest->out || !manifest->buffer) goto out;
    result = path_fd = openat(manifest->tree_fd, ".", O_PATH | O_CLOEXEC);
    if (result < 0) result = -errno;
    else result = fstat(path_fd, &stat) < 0 ? -errno : 0;
    if (result < 0) goto out;
    manifest->device = stat.st_dev;
    result = describe(manifest, path_fd, &stat);
    if (result == 0) result = walk_below(manifest, manifest->tree_fd, manifest->scopes.root, 0);
out:
    if (path_fd >= 0) close(path_fd);
    if (manifest->out && fclose(manifest->out) != 0 && result == 0) result = -errno;
    manifest->out = NULL;
    free(manifest->buffer);
    manifest->buffer = NULL;
    return result;
}

void rfs_manifest_stop(rfs_manifest *manifest) { atomic_store(&manifest->stop, true); }

void rfs_manifest_progress(rfs_manifest *manifest, uint64_t *entries, uint64_t *bytes) {
    *entries = atomic_load(&manifest->entries);
    *bytes = atomic_load(&manifest->bytes);
}

void rfs_manifest_free(rfs_manifest *manifest) {
    scopes_free(&manifest->scopes);
    free(manifest);
}

/* The same without openat2(): name by name. */
static int open_by_names(int tree_fd, const char *path) {
    char name[256];
    struct stat tree, stat;
    int at = openat(tree_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), result = at < 0 || fstat(at, &tree) < 0 ? -errno : 0;
    while (result == 0) {
        const char *end = strchrnul(path, '/');
        size_t bytes = (size_t)(end - path);
        if (!bytes || bytes > 255 || !memcmp(path, "..", bytes < 3 ? bytes : 3)) result = -EXDEV; /* as RESOLVE_BENEATH has it, or stricter */
        if (result < 0) break;
        memcpy(name, path, bytes);
        name[bytes] = 0;
        int next = openat(at, name, O_NOFOLLOW | O_CLOEXEC | (*end ? O_PATH | O_DIRECTORY : O_RDONLY | O_NONBLOCK));
        if (next < 0 || fstat(next, &stat) < 0) result = -errno;
        else if (stat.st_dev != tree.st_dev) result = -EXDEV;
        close(at);
        at = next;
        if (!*end) break;
        path = end + 1;
    }
    if (result < 0 && at >= 0) close(at);
    return result < 0 ? result : at;
}

/* The path comes from the peer: it never leads out of the tree, nor through a link. */
static int open_beneath(int tree_fd, const char *path) {
    struct open_how how = {.flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV};
    long fd = syscall(SYS_openat2, tree_fd, path, &how, sizeof how);
    if (fd < 0 && (errno == ENOSYS || errno == EPERM)) return open_by_names(tree_fd, path); /* a seccomp filter that does not know it, mostly */
    return fd < 0 ? -errno : (int)fd;
}

static int hash_blocks(int fd, uint64_t offset, uint32_t count, uint64_t size, uint8_t *out) {
    uint8_t *buffer = malloc(RFS_BLOCK_BYTES);
    uint32_t done = 0;
    int result = buffer ? 0 : -ENOMEM;
    for (uint64_t at = offset; result == 0 && done < count && at < size; at += RFS_BLOCK_BYTES, done++) {
        struct block_hash hash = {0, 0};
        uint64_t data = at;
        int none = next_data(fd, &data);
        ssize_t got = none == 0 && data <= at ? pread(fd, buffer, RFS_BLOCK_BYTES, (off_t)at) : 0;
        if (none < 0 || got < 0) result = none < 0 ? none : -errno;
        else if (got) hash = hash_part(buffer, (size_t)got);
        uint64_t row[2] = {htole64(hash.low), htole64(hash.high)};
        memcpy(out + (size_t)done * sizeof row, row, sizeof row);
    }
    free(buffer);
    return result < 0 ? result : (int)done;
}

int rfs_block_hashes(int tree_fd, const char *path, uint64_t offset, uint32_t count, uint8_t *out, uint64_t *size) {
    struct stat stat;
    if (count > MAX_BLOCKS || offset % RFS_BLOCK_BYTES || offset > INT64_MAX) return -EINVAL;
    int fd = open_beneath(tree_fd, path);
    if (fd < 0) return fd;
    int result = fstat(fd, &stat) < 0 ? -errno : S_ISREG(stat.st_mode) ? 0 : -EINVAL;
    if (result == 0) {
        *size = (uint64_t)stat.st_size;
        result = hash_blocks(fd, offset, count, *size, out);
    }
    close(fd);
    return result;
}
