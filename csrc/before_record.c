/* A record of the snapshot of before: one object as it was, in one file.
 *
 * The file is a clone of the object's data, then (from the next block on) the facts, then a trailer that says where they are and carries their
 * checksum. One fsync makes all of it durable. Without a trailer that fits, the process ended while it was written, and so before the object was
 * changed: such a record is none. */
#include "before.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "op.h"
#include "tree.h"

enum { CLONE_ALIGN = 65536, MAX_BODY_BYTES = 1 << 30 }; /* a multiple of every block size */

static const uint64_t MAGIC = UINT64_C(0x31656250526b634c);

struct trailer {
    uint64_t magic, offset;
    uint32_t bytes, crc;
};

typedef union {
    struct file_handle head;
    uint8_t room[sizeof(struct file_handle) + MAX_HANDLE_BYTES];
} handle_room;

int before_key_of(int directory_fd, const char *name, struct before_key *key) {
    handle_room handle = {.head = {.handle_bytes = MAX_HANDLE_BYTES}};
    int mount_id;
    if (name_to_handle_at(directory_fd, name, &handle.head, &mount_id, *name ? 0 : AT_EMPTY_PATH) < 0) return -errno;
    int at = snprintf(key->text, sizeof key->text, "%x.", (unsigned)handle.head.handle_type);
    for (unsigned i = 0; i < handle.head.handle_bytes; i++) at += snprintf(key->text + at, sizeof key->text - (size_t)at, "%02x", handle.head.f_handle[i]);
    return 0;
}

int before_open(int root_fd, const struct before_key *key, int flags) {
    handle_room handle;
    struct stat stat;
    unsigned type, byte;
    int at = 0;
    if (sscanf(key->text, "%x.%n", &type, &at) != 1 || !at) return -EBADMSG;
    handle.head.handle_type = (int)type;
    handle.head.handle_bytes = 0;
    for (const char *text = key->text + at; *text; text += 2) {
        if (handle.head.handle_bytes == MAX_HANDLE_BYTES || sscanf(text, "%2x", &byte) != 1 || !text[1]) return -EBADMSG;
        handle.head.f_handle[handle.head.handle_bytes++] = (uint8_t)byte;
    }
    int fd = open_by_handle_at(root_fd, &handle.head, flags | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT ? -ESTALE : -errno;
    if (fstat(fd, &stat) == 0 && stat.st_nlink) return fd;
    close(fd);
    return -ESTALE;
}

int before_clone(int from, int to, uint64_t size) {
    struct file_clone_range range = {.src_fd = from, .src_length = (size + CLONE_ALIGN - 1) & ~(uint64_t)(CLONE_ALIGN - 1)};
    if (ftruncate(to, 0) < 0) return -errno;
    if (size && ioctl(to, FICLONERANGE, &range) < 0) return -errno;
    return ftruncate(to, (off_t)size) < 0 ? -errno : 0;
}

/* ---- writing ---------------------------------------------------------------------------------------------------------------- */

struct buffer {
    uint8_t *bytes;
    size_t used, room;
};

static int add(struct buffer *buffer, const void *bytes, size_t count) {
    if (buffer->used + count > buffer->room) {
        size_t room = (buffer->used + count) * 2 + 256;
        uint8_t *larger = realloc(buffer->bytes, room);
        if (!larger) return -ENOMEM;
        buffer->bytes = larger;
        buffer->room = room;
    }
    if (count) memcpy(buffer->bytes + buffer->used, bytes, count);
    buffer->used += count;
    return 0;
}

static int list_into(struct buffer *buffer, int directory_fd, bool is_root) {
    DIR *stream;
    int result = tree_open(directory_fd, ".", &stream);
    if (result < 0) return result;
    for (struct dirent *entry; result == 0 && (entry = tree_next(stream, is_root, &result));) {
        struct before_key key;
        result = before_key_of(dirfd(stream), entry->d_name, &key);
        if (result == 0) result = add(buffer, key.text, strlen(key.text) + 1);
        if (result == 0) result = add(buffer, entry->d_name, strlen(entry->d_name) + 1);
    }
    closedir(stream);
    return result;
}

int before_entries(int directory_fd, bool is_root, uint8_t **out, size_t *bytes) {
    struct buffer buffer = {0};
    int result = list_into(&buffer, directory_fd, is_root);
    if (result < 0) free(buffer.bytes);
    else *out = buffer.bytes, *bytes = buffer.used;
    return result;
}

static int add_more(struct buffer *buffer, int fd, const struct stat *stat, bool is_root) {
    char target[RFS_TARGET_BYTES + 1];
    if (S_ISDIR(stat->st_mode)) return list_into(buffer, fd, is_root);
    if (!S_ISLNK(stat->st_mode)) return 0;
    ssize_t bytes = readlinkat(fd, "", target, sizeof target);
    return bytes < 0 ? -errno : bytes > RFS_TARGET_BYTES ? -ENAMETOOLONG : add(buffer, target, (size_t)bytes);
}

static int describe(struct buffer *buffer, int fd, const struct stat *stat, bool is_root) {
    uint8_t *xattrs = NULL;
    size_t bytes;
    int result = xattrs_pack(fd, &xattrs, &bytes);
    if (result < 0) return result;
    struct before_facts facts = {.size = (uint64_t)stat->st_size, .rdev = stat->st_rdev, .atime_ns = stat_atime_ns(stat), .mtime_ns = stat_mtime_ns(stat),
                                 .mode = stat->st_mode, .uid = stat->st_uid, .gid = stat->st_gid, .xattr_bytes = (uint32_t)bytes};
    result = add(buffer, &facts, sizeof facts);
    if (result == 0) result = add(buffer, xattrs, bytes);
    free(xattrs);
    size_t before = buffer->used;
    if (result == 0) result = add_more(buffer, fd, stat, is_root);
    if (result < 0) return result;
    if (buffer->used > MAX_BODY_BYTES) return -E2BIG;
    facts.more_bytes = (uint32_t)(buffer->used - before);
    memcpy(buffer->bytes, &facts, sizeof facts);
    return 0;
}

static int fill(int record, int fd, const struct stat *stat, struct buffer *body) {
    uint64_t size = S_ISREG(stat->st_mode) ? (uint64_t)stat->st_size : 0;
    if (size && ioctl(record, FICLONE, fd) < 0) return -errno;
    struct trailer trailer = {.magic = MAGIC, .offset = (size + CLONE_ALIGN - 1) & ~(uint64_t)(CLONE_ALIGN - 1), .bytes = (uint32_t)body->used,
                              .crc = crc32c(0, body->bytes, body->used)};
    int result = add(body, &trailer, sizeof trailer);
    size_t written;
    if (result == 0) result = write_all(record, body->bytes, body->used, trailer.offset, &written);
    return result < 0 ? result : fsync(record) < 0 ? -errno : 0;
}

int before_write(int objects_fd, const struct before_key *key, int fd, bool is_root) {
    struct buffer body = {0};
    struct stat stat;
    int result = fstat(fd, &stat) < 0 ? -errno : describe(&body, fd, &stat, is_root);
    int record = result < 0 ? -1 : openat(objects_fd, key->text, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (result == 0) result = record < 0 ? -errno : fill(record, fd, &stat, &body);
    if (record >= 0) close(record);
    free(body.bytes);
    return result < 0 ? result : fsync(objects_fd) < 0 ? -errno : 0;
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------- */

/* What is not there was never written. What cannot be read was, perhaps: that is an error, and never the lack of a record. */
static int read_at(int fd, void *to, size_t count, off_t offset) {
    ssize_t some = pread(fd, to, count, offset);
    return some < 0 ? -errno : (size_t)some == count ? 0 : -ENOENT;
}

static int read_body(int fd, struct before_record *record) {
    struct trailer trailer;
    struct stat stat;
    if (fstat(fd, &stat) < 0) return -errno;
    if (stat.st_size < (off_t)sizeof trailer) return -ENOENT;
    int result = read_at(fd, &trailer, sizeof trailer, stat.st_size - (off_t)sizeof trailer);
    if (result < 0) return result;
    if (trailer.magic != MAGIC || trailer.bytes < sizeof record->facts || trailer.bytes > MAX_BODY_BYTES) return -ENOENT;
    if (trailer.offset != (uint64_t)stat.st_size - sizeof trailer - trailer.bytes) return -ENOENT;
    record->body = malloc(trailer.bytes + 1);
    if (!record->body) return -ENOMEM;
    result = read_at(fd, record->body, trailer.bytes, (off_t)trailer.offset);
    if (result == 0 && crc32c(0, record->body, trailer.bytes) != trailer.crc) result = -ENOENT;
    if (result < 0) return result;
    memcpy(&record->facts, record->body, sizeof record->facts);
    if (sizeof record->facts + (uint64_t)record->facts.xattr_bytes + record->facts.more_bytes != trailer.bytes) return -ENOENT;
    record->xattrs = record->body + sizeof record->facts;
    record->more = record->xattrs + record->facts.xattr_bytes;
    record->more[record->facts.more_bytes] = 0;
    return 0;
}

int before_read(int objects_fd, const struct before_key *key, struct before_record *record, int *fd_out) {
    *record = (struct before_record){0};
    int fd = openat(objects_fd, key->text, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return -errno;
    int result = read_body(fd, record);
    if (result < 0) before_record_free(record);
    if (result == 0 && fd_out) *fd_out = fd;
    else close(fd);
    return result;
}

void before_record_free(struct before_record *record) {
    free(record->body);
    *record = (struct before_record){0};
}
