/* wire.c has found that it is a frame; this says whether an honest peer could have sent it. Pure: nothing here looks at a tree.
 *
 * The peer has a valid key and may be in the wrong hands. It may change what is replicated, that is its job; it may do nothing else. So a frame is
 * refused that asks for what no primary of ours ever ships: ids of the roots, owners that are none (which a chown takes for "leave it", so the file
 * would be root's), flags of system calls that mean more than an op, sizes that become negative, names that are ours. A frame that is refused drops the
 * link and changes nothing. The table has a row for each type; what it cannot say is said by the functions below it. */
#include "frame_rules.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "policy.h"
#include "walk.h"

enum {
    CHILD = 1,   /* `child` is an object's id, and no root's */
    OTHER = 2,   /* so is `other` */
    OWNER = 4,   /* uid and gid are those of somebody */
    SIZE = 8,    /* length is a file's size */
    RANGE = 16,  /* offset and length are a range within a file */
    MODE = 32,   /* mode is what an object has: a type, and permissions that the policy allows */
    EMPTY = 64,  /* there is no data */
};

enum { SYNC = FLAG_DURABLE | FLAG_DATA_ONLY, MOST_XATTR_BYTES = 65536, MOST_XATTR_NAME_BYTES = 65536 /* of all of an object's: more cannot be listed */ };

struct rule {
    uint16_t flags; /* those that it may have */
    uint16_t needs;
};

static const struct rule rules[FRAME_LAST_VERIFY + 1] = {
    [FRAME_WRITE] = {SYNC | FLAG_MORE, RANGE},
    [FRAME_FSYNC] = {SYNC, EMPTY},
    [FRAME_CREATE] = {SYNC | FLAG_HELD, CHILD | OWNER | EMPTY},
    [FRAME_MKDIR] = {SYNC, CHILD | OWNER | EMPTY},
    [FRAME_MKNOD] = {SYNC | FLAG_HELD, CHILD | OWNER | MODE | EMPTY},
    [FRAME_SYMLINK] = {SYNC | FLAG_HELD, CHILD | OWNER},
    [FRAME_LINK] = {SYNC, OTHER | EMPTY},
    [FRAME_UNLINK] = {SYNC | FLAG_LAST_NAME, CHILD | EMPTY},
    [FRAME_RMDIR] = {SYNC | FLAG_LAST_NAME, CHILD | EMPTY},
    [FRAME_RENAME] = {SYNC | FLAG_LAST_NAME, CHILD | EMPTY},
    [FRAME_SET_ATTRIBUTES] = {SYNC, EMPTY},
    [FRAME_SET_XATTR] = {SYNC, 0},
    [FRAME_REMOVE_XATTR] = {SYNC, EMPTY},
    [FRAME_FALLOCATE] = {SYNC, RANGE | EMPTY},
    [FRAME_COPY] = {SYNC, RANGE | EMPTY},
    [FRAME_PLACE] = {SYNC | FLAG_LAST_NAME, CHILD | EMPTY},
    [FRAME_DIRECTORY_BEGIN] = {0, EMPTY},
    [FRAME_DIRECTORY_ENTRY] = {0, CHILD | MODE},
    [FRAME_DIRECTORY_END] = {0, OWNER | MODE},
    [FRAME_HASHES] = {0, RANGE},
    [FRAME_BLOCK] = {FLAG_ZERO, RANGE},
    [FRAME_ATTRIBUTES] = {0, OWNER | SIZE | MODE},
    [FRAME_END] = {0, EMPTY},
    [FRAME_MARKED] = {0, EMPTY},
    [FRAME_BIND] = {0, CHILD | EMPTY},
    [FRAME_SIZE] = {0, SIZE | EMPTY},
    [FRAME_SMALL_FILE] = {0, CHILD | OWNER | SIZE | MODE},
    [FRAME_VERIFY_RANGE] = {FLAG_ZERO, RANGE},
    [FRAME_VERIFY_ATTRIBUTES] = {0, 0},
    [FRAME_VERIFY_ENTRIES] = {0, 0},
    [FRAME_VERIFY_NAMES] = {0, 0},
};

static bool is_object(uint64_t fid) { return fid >= FIRST_DIRECTORY_FID + RFS_MAX_DIRECTORIES; }
static bool is_somebody(uint32_t id) { return id != UINT32_MAX; }
static bool is_range(uint64_t offset, uint64_t length) { return offset <= INT64_MAX && length <= INT64_MAX - offset; }
static bool is_device(uint32_t mode) { return S_ISCHR(mode) || S_ISBLK(mode); }
static bool has_type(uint32_t mode) { return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISFIFO(mode) || S_ISSOCK(mode) || is_device(mode); }
static bool is_hidden(const char *name) { return !strncmp(name, HIDDEN_PREFIX, sizeof HIDDEN_PREFIX - 1); }

static const char *judge_mode(int policy, uint32_t mode) {
    if (!has_type(mode)) return "an object of no type";
    if (!policy_forbids(policy, mode)) return NULL;
    return is_device(mode) ? "a device node, which this module refuses" : "a setuid or setgid file, which this module refuses";
}

/* All of the row before any of it is used. Its names are few enough to be looked through for each that is there. */
static const char *judge_xattrs(int policy, const uint8_t *data, size_t bytes) {
    size_t names_bytes = 0;
    for (size_t at = 0; at < bytes;) {
        char name[256];
        uint16_t name_bytes;
        uint32_t value_bytes;
        if (bytes - at < 6) return "extended attributes that are cut off";
        memcpy(&name_bytes, data + at, 2);
        memcpy(&value_bytes, data + at + 2, 4);
        name_bytes = le16toh(name_bytes);
        value_bytes = le32toh(value_bytes);
        at += 6;
        if (!name_bytes || name_bytes > 255 || value_bytes > MOST_XATTR_BYTES || (size_t)name_bytes + value_bytes > bytes - at) return "an extended attribute of an impossible size";
        memcpy(name, data + at, name_bytes);
        name[name_bytes] = 0;
        if (strlen(name) != name_bytes || is_hidden(name)) return "an extended attribute that is not the peer's to set";
        if (policy_forbids_xattr(policy, name)) return "file capabilities, which this module refuses";
        names_bytes += name_bytes + 1U;
        if (names_bytes > MOST_XATTR_NAME_BYTES) return "more extended attributes than an object can have";
        at += (size_t)name_bytes + value_bytes;
    }
    return NULL;
}

/* What chown, chmod, truncate and utimens are given; "now" is the primary's to find out. */
static const char *judge_attributes(int policy, const struct op_body *body) {
    const uint32_t known = HAS_MODE | HAS_UID | HAS_GID | HAS_SIZE | HAS_ATIME | HAS_MTIME;
    if (body->flags & ~known) return "attributes that are none";
    if ((body->flags & HAS_UID && !is_somebody(body->uid)) || (body->flags & HAS_GID && !is_somebody(body->gid))) return "an owner that is nobody";
    if (body->flags & HAS_SIZE && body->length > INT64_MAX) return "a size beyond that of any file";
    return body->flags & HAS_MODE ? judge_mode(policy, body->mode) : NULL;
}

static const char *judge_xattr(int policy, const struct op_body *body) {
    if (is_hidden(body->name)) return "an extended attribute that is not the peer's to set";
    if (policy_forbids_xattr(policy, body->name)) return "file capabilities, which this module refuses";
    return body->data_bytes > MOST_XATTR_BYTES ? "an extended attribute of an impossible size" : NULL;
}

/* No whiteouts: those are device nodes. */
static const char *judge_rename(const struct op_body *body) {
    bool plain = !(body->flags & ~(uint32_t)(RENAME_EXCHANGE | RENAME_NOREPLACE)) && body->flags != (RENAME_EXCHANGE | RENAME_NOREPLACE);
    if (!plain) return "a rename with flags that no application has";
    if (body->other == body->child) return "a directory within itself";
    return is_reserved(body->other, body->name2) ? "a name that is not the peer's" : NULL;
}

static const char *judge_hashes(const struct op_body *body) {
    size_t blocks = (body->length + RESYNC_BLOCK_BYTES - 1) / RESYNC_BLOCK_BYTES;
    return blocks && blocks <= RESYNC_WINDOW_BLOCKS && body->data_bytes == blocks * sizeof(struct block_hash) ? NULL : "hashes of no window";
}

static const char *judge_type(int policy, const struct wire_header *header, const struct op_body *body, const uint8_t *data) {
    switch (header->type) {
    case FRAME_WRITE: return body->data_bytes == body->length && body->data_bytes <= MAX_WRITE_BYTES ? NULL : "a write of an impossible size";
    case FRAME_CREATE: return policy_forbids(policy, S_IFREG | (body->mode & 07777)) ? "a setuid or setgid file, which this module refuses" : NULL;
    case FRAME_MKNOD: return S_ISDIR(body->mode) || S_ISLNK(body->mode) ? "a node that is made otherwise" : NULL;
    case FRAME_RENAME: return judge_rename(body);
    case FRAME_SET_ATTRIBUTES: return judge_attributes(policy, body);
    case FRAME_SET_XATTR: return judge_xattr(policy, body);
    case FRAME_REMOVE_XATTR: return is_hidden(body->name) ? "an extended attribute that is not the peer's to remove" : NULL;
    case FRAME_FALLOCATE: return body->length && !(body->flags & ~(uint32_t)(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) ? NULL : "an allocation that is none";
    case FRAME_COPY: return body->length <= MAX_COPY_BYTES && is_range(body->rdev, body->length) ? NULL : "a copy of an impossible range";
    case FRAME_DIRECTORY_ENTRY: return body->fid == body->child ? "a directory within itself" : S_ISLNK(body->mode) || !body->data_bytes ? NULL : "an entry with a target that is no link";
    case FRAME_DIRECTORY_END: return S_ISDIR(body->mode) ? judge_xattrs(policy, data, body->data_bytes) : "the end of what is no directory";
    case FRAME_HASHES: return judge_hashes(body);
    case FRAME_BLOCK: return header->flags & FLAG_ZERO ? body->data_bytes ? "a hole with bytes" : NULL : body->data_bytes == body->length ? NULL : "a block of another size";
    case FRAME_ATTRIBUTES: return judge_xattrs(policy, data, body->data_bytes);
    default: return NULL;
    }
}

static const char *judge(int policy, const struct wire_header *header, const struct op_body *body, const uint8_t *data) {
    if (!wire_is_sequenced(header->type)) return "a frame that is no op";
    const struct rule *rule = &rules[header->type];
    if (header->flags & ~rule->flags) return "flags that such a frame does not have";
    if (body->name_bytes && is_reserved(body->fid, body->name)) return "a name that is not the peer's";
    if (rule->needs & CHILD && !is_object(body->child)) return "the id of no object";
    if (rule->needs & OTHER && !is_object(body->other)) return "the id of no object";
    if (rule->needs & OWNER && (!is_somebody(body->uid) || !is_somebody(body->gid))) return "an owner that is nobody";
    if (rule->needs & SIZE && body->length > INT64_MAX) return "a size beyond that of any file";
    if (rule->needs & RANGE && !is_range(body->offset, body->length)) return "a range beyond the end of any file";
    if (rule->needs & EMPTY && body->data_bytes) return "data where there is none";
    const char *why = rule->needs & MODE ? judge_mode(policy, body->mode) : NULL;
    return why ? why : judge_type(policy, header, body, data);
}

int frame_judge(int policy, const struct wire_header *header, const struct op_body *body, const uint8_t *data, const char **why) {
    const char *found = judge(policy, header, body, data);
    if (found) *why = found;
    return found ? -EPROTO : 0;
}
