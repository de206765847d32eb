/* Ops that change an inode's attributes, done to the local tree. The caller holds the inode's stripe. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "op.h"
#include "policy.h"

enum { MAX_LIST_BYTES = 65536, MAX_VALUE_BYTES = 65536 };

int set_mtime(int fd, int64_t mtime_ns) {
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, to_timespec(mtime_ns)};
    return futimens(fd, times) < 0 ? -errno : 0;
}

int put_mtime_back(int fd, const struct stat *before) {
    struct stat now;
    if (fstat(fd, &now) < 0) return -errno;
    return stat_mtime_ns(&now) == stat_mtime_ns(before) ? 0 : set_mtime(fd, stat_mtime_ns(before));
}

static int get_object(rfs_engine *engine, struct op *op, struct descriptor *descriptor, bool replay) {
    *descriptor = (struct descriptor){-1, -1};
    if (!op->inode) op->inode = replay ? inode_of_peer(engine, op->body.fid) : inode_get(engine, op->body.fid);
    return op->inode ? descriptor_get(engine, op->inode, descriptor) : -ESTALE;
}

static int change_times(const char *path, const struct op_body *body) {
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
    if (body->flags & HAS_ATIME) times[0] = to_timespec(body->atime_ns);
    if (body->flags & ATIME_NOW) times[0] = (struct timespec){.tv_nsec = UTIME_NOW};
    if (body->flags & HAS_MTIME) times[1] = to_timespec(body->child_mtime_ns);
    if (body->flags & MTIME_NOW) times[1] = (struct timespec){.tv_nsec = UTIME_NOW};
    return utimensat(AT_FDCWD, path, times, 0) < 0 ? -errno : 0;
}

/* Nothing is to be changed: a chown to what it is, which costs the ctime. What it costs of the mode is an op of its own: see
 * change_side.c. */
static int touch_ctime(int fd, const char *path) {
    struct stat stat;
    if (fstat(fd, &stat) < 0) return -errno;
    return (S_ISLNK(stat.st_mode) ? chown(path, (uid_t)-1, (gid_t)-1) : chmod(path, stat.st_mode & 07777)) < 0 ? -errno : 0;
}

static int change_attributes(int fd, const struct op_body *body, bool *changed) {
    struct proc_path path = proc_path(fd);
    int result = 0;
    if (!body->flags) return touch_ctime(fd, path.text);
    if (body->flags & HAS_SIZE) {
        if (ftruncate(fd, (off_t)body->length) < 0) return -errno;
        *changed = true;
    }
    if (body->flags & (HAS_UID | HAS_GID)) {
        uid_t uid = body->flags & HAS_UID ? body->uid : (uid_t)-1;
        gid_t gid = body->flags & HAS_GID ? body->gid : (gid_t)-1;
        if (chown(path.text, uid, gid) < 0) return -errno;
        *changed = true;
    }
    if (body->flags & HAS_MODE) {
        if (chmod(path.text, body->mode & 07777) < 0) return -errno;
        *changed = true;
    }
    if (body->flags & (HAS_ATIME | HAS_MTIME | ATIME_NOW | MTIME_NOW)) result = change_times(path.text, body);
    return result;
}

static int take_bits_away(int fd, struct op_body *body) {
    struct stat stat;
    if (fstat(fd, &stat) < 0) return -errno;
    body->mode = stat.st_mode & ~body->mode & 07777;
    body->flags = HAS_MODE;
    return 0;
}

int local_set_attributes(rfs_engine *engine, struct op *op, bool replay) {
    struct op_body *body = &op->body;
    struct descriptor object;
    int result = get_object(engine, op, &object, replay);
    if (result < 0) return result;
    result = -EPROTO; /* an object of another type than it is told to be may be one that the policy forbids */
    if (replay && body->flags & HAS_MODE && (body->mode & S_IFMT) != op->inode->type) goto out;
    result = -EPERM;
    if (!replay && body->flags & HAS_MODE && policy_forbids(engine->policy, op->inode->type | (body->mode & 07777)) && !(body->flags & CLEARS_MODE)) goto out;
    result = -EINVAL;
    if (body->flags & HAS_SIZE && (!S_ISREG(op->inode->type) || body->length > INT64_MAX)) goto out;
    result = -EOPNOTSUPP;
    if (body->flags & HAS_MODE && S_ISLNK(op->inode->type)) goto out;
    bool changed = false;
    result = body->flags & CLEARS_MODE && !replay ? take_bits_away(object.fd, body) : 0;
    if (result == 0) result = change_attributes(object.fd, body, &changed);
    if (result < 0 && (replay || !changed)) goto out;
    op->result = result; /* changed in part: the application hears the error, the peer becomes as this copy is */
    result = fstat(object.fd, &op->stat) < 0 ? -EIO : 0;
    if (result < 0 || replay) goto out;
    /* What the peer must have afterwards, whatever was asked for: chown clears suid, truncate changes mtime. */
    body->flags = (body->flags & HAS_SIZE) | HAS_UID | HAS_GID | HAS_MTIME | (S_ISLNK(op->inode->type) ? 0U : (uint32_t)HAS_MODE) |
                  (body->flags & (HAS_ATIME | ATIME_NOW) ? (uint32_t)HAS_ATIME : 0U);
    body->mode = op->stat.st_mode;
    body->uid = op->stat.st_uid;
    body->gid = op->stat.st_gid;
    body->atime_ns = stat_atime_ns(&op->stat);
    body->child_mtime_ns = body->mtime_ns = stat_mtime_ns(&op->stat);
out:
    descriptor_put(engine, &object);
    return result;
}

static bool is_hidden(const char *name) { return !strncmp(name, HIDDEN_PREFIX, sizeof HIDDEN_PREFIX - 1); }

int local_set_xattr(rfs_engine *engine, struct op *op, bool replay) {
    struct descriptor object;
    int result = get_object(engine, op, &object, replay);
    if (result < 0) return result;
    /* During a resync the copy may still have, or lack, what the source has changed: what counts is how it is afterwards. */
    int flags = replay ? 0 : (int)op->body.flags;
    struct proc_path path = proc_path(object.fd);
    if (is_hidden(op->body.name) || (op->type == FRAME_SET_XATTR && policy_forbids_xattr(engine->policy, op->body.name))) {
        result = -EPERM;
    } else if (op->type == FRAME_REMOVE_XATTR) {
        if (removexattr(path.text, op->body.name) < 0 && !(replay && errno == ENODATA)) result = -errno;
    } else if (setxattr(path.text, op->body.name, op->data, op->body.data_bytes, flags) < 0) {
        result = -errno;
    }
    if (result == 0 && fstat(object.fd, &op->stat) < 0) result = -errno;
    descriptor_put(engine, &object);
    return result;
}

enum { FEW_NAMES_BYTES = 1024 };

/* ---- all extended attributes of an object in one buffer: (u16 name bytes, u32 value bytes, name, value)* -------------------- */

/* An open object's directly; one behind an O_PATH descriptor (EBADF) by the way through /proc. */
static ssize_t list_names(int fd, const struct proc_path *path, char *names, size_t room) {
    ssize_t bytes = flistxattr(fd, names, room);
    return bytes < 0 && errno == EBADF ? listxattr(path->text, names, room) : bytes;
}

/* Into `few`, or into memory of its own if there are many; *names is freed by the caller unless it is `few`. */
static ssize_t all_names(int fd, const struct proc_path *path, char few[FEW_NAMES_BYTES], char **names) {
    *names = few;
    ssize_t bytes = list_names(fd, path, few, FEW_NAMES_BYTES);
    if (bytes >= 0 || errno != ERANGE) return bytes < 0 ? -errno : bytes;
    *names = malloc(MAX_LIST_BYTES);
    if (!*names) return -ENOMEM;
    bytes = list_names(fd, path, *names, MAX_LIST_BYTES);
    return bytes < 0 ? -errno : bytes;
}

static int pack_one(const char *path, const char *name, uint8_t *out, size_t room) {
    size_t name_bytes = strlen(name);
    if (room < 6 + name_bytes) return -E2BIG;
    ssize_t value_bytes = getxattr(path, name, out + 6 + name_bytes, room - 6 - name_bytes);
    if (value_bytes < 0) return errno == ENODATA ? 0 : errno == ERANGE ? -E2BIG : -errno;
    uint16_t short_bytes = htole16((uint16_t)name_bytes);
    uint32_t long_bytes = htole32((uint32_t)value_bytes);
    memcpy(out, &short_bytes, 2);
    memcpy(out + 2, &long_bytes, 4);
    memcpy(out + 6, name, name_bytes);
    return (int)(6 + name_bytes + (size_t)value_bytes);
}

int xattrs_pack(int fd, uint8_t **out, size_t *bytes) {
    const size_t room = MAX_PAYLOAD_BYTES - 65536;
    struct proc_path path = proc_path(fd);
    char few[FEW_NAMES_BYTES], *names;
    ssize_t total = all_names(fd, &path, few, &names);
    int result = total < 0 ? (int)total : 0;
    *out = NULL;
    *bytes = 0;
    for (ssize_t at = 0; result == 0 && at < total; at += (ssize_t)strlen(names + at) + 1) {
        if (is_hidden(names + at)) continue;
        if (!*out && !(*out = malloc(room))) result = -ENOMEM;
        int one = result < 0 ? result : pack_one(path.text, names + at, *out + *bytes, room - *bytes);
        if (one < 0) result = one;
        else *bytes += (size_t)one;
    }
    if (names != few) free(names);
    if (result < 0 || !*bytes) {
        free(*out);
        *out = NULL;
    }
    return result;
}

static bool wanted(const uint8_t *data, size_t bytes, const char *name) {
    size_t at = 0, length = strlen(name);
    while (at + 6 <= bytes) {
        uint16_t name_bytes;
        uint32_t value_bytes;
        memcpy(&name_bytes, data + at, 2);
        memcpy(&value_bytes, data + at + 2, 4);
        name_bytes = le16toh(name_bytes);
        value_bytes = le32toh(value_bytes);
        if (name_bytes == length && at + 6 + name_bytes <= bytes && !memcmp(data + at + 6, name, length)) return true;
        at += 6 + (size_t)name_bytes + value_bytes;
    }
    return false;
}

static int set_one(const char *path, const uint8_t *data, size_t bytes, size_t *at) {
    char name[256];
    uint16_t name_bytes;
    uint32_t value_bytes;
    if (*at + 6 > bytes) return -EPROTO;
    memcpy(&name_bytes, data + *at, 2);
    memcpy(&value_bytes, data + *at + 2, 4);
    name_bytes = le16toh(name_bytes);
    value_bytes = le32toh(value_bytes);
    if (name_bytes > 255 || value_bytes > MAX_VALUE_BYTES || *at + 6 + name_bytes + value_bytes > bytes) return -EPROTO;
    memcpy(name, data + *at + 6, name_bytes);
    name[name_bytes] = 0;
    if (is_hidden(name)) return -EPROTO;
    if (setxattr(path, name, data + *at + 6 + name_bytes, value_bytes, 0) < 0) return -errno;
    *at += 6 + (size_t)name_bytes + value_bytes;
    return 0;
}

int xattrs_unpack(int fd, const uint8_t *data, size_t bytes) {
    struct proc_path path = proc_path(fd);
    char few[FEW_NAMES_BYTES], *names;
    ssize_t total = all_names(fd, &path, few, &names);
    int result = total < 0 ? (int)total : 0;
    for (ssize_t at = 0; result == 0 && at < total; at += (ssize_t)strlen(names + at) + 1)
        if (!is_hidden(names + at) && !wanted(data, bytes, names + at) && removexattr(path.text, names + at) < 0 && errno != EOPNOTSUPP && errno != ENODATA)
            result = -errno;
    for (size_t at = 0; result == 0 && at < bytes;) result = set_one(path.text, data, bytes, &at);
    if (names != few) free(names);
    return result;
}
