/* Verify, the target's side. Each question is applied in its place of the order, so what it is compared with is this copy at the same seq.
 * An answer is sent only where something differs: the acknowledgement of the frame, which comes later, says "equal". Nothing that is found here ends
 * the session: the copy is no better without it. */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "link.h"
#include "verify.h"

static uint64_t unreadable(int error) { return error == -ENOENT || error == -ESTALE || error == -EUCLEAN ? VERIFY_MISSING : VERIFY_UNREADABLE; }

/* What the source means. It may not have been named to us in this session yet (walk.c: bound): then it is looked for where the source met it, and
 * must have the id that the source says. If it has been moved since, an op before this has done that, and we know it. */
static struct inode *find_asked(rfs_engine *engine, const struct op_body *body) {
    struct inode *inode = inode_get(engine, body->fid), *parent = inode || !body->name_bytes ? NULL : inode_get(engine, body->other);
    struct descriptor directory = {-1, -1};
    struct stat stat;
    if (parent && S_ISDIR(parent->type) && descriptor_get(engine, parent, &directory) == 0 && entry_fid(directory.fd, body->name) == body->fid &&
        inode_at(engine, parent, directory.fd, body->name, &inode, &stat) < 0)
        inode = NULL;
    descriptor_put(engine, &directory);
    inode_put(engine, parent);
    bool asked = inode && inode->fid == body->fid && !inode_is_local(inode);
    if (asked) return inode;
    inode_put(engine, inode);
    return NULL;
}

/* ---- content ------------------------------------------------------------------------------------------------------------------- */

static int read_whole(int fd, uint8_t *buffer, size_t bytes, uint64_t offset) {
    size_t filled = 0;
    while (filled < bytes) {
        ssize_t got = pread(fd, buffer + filled, bytes - filled, (off_t)(offset + filled));
        if (got < 0) return -errno;
        if (got == 0) break;
        filled += (size_t)got;
    }
    return (int)filled;
}

static uint64_t compare_blocks(rfs_engine *engine, int fd, const struct op_body *body, const uint8_t *data, uint8_t *buffer) {
    uint64_t different = 0;
    for (size_t i = 0; i * VERIFY_BLOCK_BYTES < body->length; i++) {
        struct block_hash theirs;
        size_t at = i * VERIFY_BLOCK_BYTES, part = body->length - at < VERIFY_BLOCK_BYTES ? (size_t)(body->length - at) : VERIFY_BLOCK_BYTES;
        int got = read_whole(fd, buffer, part, body->offset + at);
        if (got < 0) return unreadable(got);
        memcpy(&theirs, data + i * sizeof theirs, sizeof theirs);
        struct block_hash mine = hash_block(buffer, (size_t)got, engine->session.session);
        if ((size_t)got != part || mine.low != theirs.low || mine.high != theirs.high) different |= UINT64_C(1) << i;
    }
    return different;
}

/* A hole is equal to zeros that were written. Ours is skipped as well, so a large one costs nothing. */
static uint64_t compare_hole(int fd, const struct op_body *body, uint8_t *buffer) {
    uint64_t at = body->offset, end = body->offset + body->length;
    struct stat stat;
    if (fstat(fd, &stat) < 0) return VERIFY_UNREADABLE;
    if ((uint64_t)stat.st_size < end) return 1;
    while (at < end) {
        off_t next = lseek(fd, (off_t)at, SEEK_DATA);
        if (next < 0 && errno == ENXIO) return 0;
        if (next < 0) return VERIFY_UNREADABLE;
        at = (uint64_t)next;
        if (at >= end) return 0;
        size_t part = end - at < VERIFY_BLOCK_BYTES ? (size_t)(end - at) : VERIFY_BLOCK_BYTES;
        int got = read_whole(fd, buffer, part, at);
        if (got < 0) return unreadable(got);
        if (!is_zero(buffer, (size_t)got)) return 1;
        at += part;
    }
    return 0;
}

static int compare_range(rfs_engine *engine, const struct wire_header *header, const struct op_body *body, const uint8_t *data, uint64_t *different) {
    bool hole = header->flags & FLAG_ZERO;
    uint64_t blocks = (body->length + VERIFY_BLOCK_BYTES - 1) / VERIFY_BLOCK_BYTES, limit = hole ? VERIFY_HOLE_BYTES : VERIFY_BYTES;
    if (!body->length || body->length > limit || body->offset > (uint64_t)INT64_MAX - limit) return -EPROTO;
    if (body->data_bytes != (hole ? 0 : blocks * sizeof(struct block_hash))) return -EPROTO;
    struct inode *inode = find_asked(engine, body);
    struct descriptor file = {-1, -1};
    uint8_t *buffer = malloc(VERIFY_BLOCK_BYTES);
    int result = !buffer ? -ENOMEM : inode && S_ISREG(inode->type) ? descriptor_get(engine, inode, &file) : -EUCLEAN;
    if (result < 0) *different = unreadable(result);
    else *different = hole ? compare_hole(file.fd, body, buffer) : compare_blocks(engine, file.fd, body, data, buffer);
    descriptor_put(engine, &file);
    inode_put(engine, inode);
    free(buffer);
    return 0;
}

/* ---- attributes ------------------------------------------------------------------------------------------------------------------ */

static int compare_attributes(rfs_engine *engine, const struct op_body *body, const uint8_t *data, uint64_t *different) {
    struct block_hash hashes[2]; /* xattrs, target */
    struct facts mine;
    if (body->data_bytes != sizeof hashes) return -EPROTO;
    memcpy(hashes, data, sizeof hashes);
    struct inode *inode = find_asked(engine, body);
    int result = inode ? facts_read(engine, inode, &mine) : -EUCLEAN;
    inode_put(engine, inode);
    *different = result < 0 ? unreadable(result) : 0;
    if (result < 0) return 0;
    if ((mine.mode ^ body->mode) & S_IFMT) *different |= RFS_DIFFERS_TYPE;
    if ((mine.mode ^ body->mode) & 07777 && !S_ISLNK(mine.mode)) *different |= RFS_DIFFERS_MODE;
    if (mine.uid != body->uid || mine.gid != body->gid) *different |= RFS_DIFFERS_OWNER;
    if (mine.size != body->length) *different |= RFS_DIFFERS_SIZE;
    if (body->flags & VERIFY_MTIME && mine.mtime_ns != body->mtime_ns) *different |= RFS_DIFFERS_MTIME;
    if (mine.rdev != body->rdev) *different |= RFS_DIFFERS_DEVICE;
    if (mine.xattrs.low != hashes[0].low || mine.xattrs.high != hashes[0].high) *different |= RFS_DIFFERS_XATTRS;
    if (mine.target.low != hashes[1].low || mine.target.high != hashes[1].high) *different |= RFS_DIFFERS_TARGET;
    return 0;
}

/* ---- entries ------------------------------------------------------------------------------------------------------------------- */

static int add_entry(void *context, const struct entry *entry) {
    entry_add(context, entry);
    return 0;
}

static int visit_directory(rfs_engine *engine, const struct op_body *body, entry_visitor visit, void *context) {
    struct inode *directory = find_asked(engine, body);
    int result = directory && S_ISDIR(directory->type) && !directory->orphan ? entries_visit(engine, directory, false, visit, context) : -EUCLEAN;
    inode_put(engine, directory);
    return result;
}

static int compare_entries(rfs_engine *engine, const struct op_body *body, const uint8_t *data, uint64_t *different) {
    struct block_hash theirs[VERIFY_BUCKETS];
    struct entry_sums mine = {.seed = engine->session.session};
    if (body->data_bytes != sizeof theirs) return -EPROTO;
    memcpy(theirs, data, sizeof theirs);
    int result = visit_directory(engine, body, add_entry, &mine);
    *different = result < 0 ? UINT64_MAX : 0; /* every name is asked for then, and found to be missing */
    for (int i = 0; result == 0 && i < VERIFY_BUCKETS; i++)
        if (theirs[i].low != mine.bucket[i].low || theirs[i].high != mine.bucket[i].high) *different |= UINT64_C(1) << i;
    return 0;
}

/* The names that are asked for, to be found by name; and the answer. */
struct asked {
    uint64_t fid;
    uint32_t type;
    const uint8_t *name;
    uint16_t name_bytes;
    bool found;
};
struct naming {
    struct asked *asked;
    size_t count;
    uint64_t mask, value;
    uint8_t *answer;
    size_t answer_bytes;
};

static int in_order(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes) {
    int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);
    return order ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static int by_name(const void *left, const void *right) {
    const struct asked *a = left, *b = right;
    return in_order(a->name, a->name_bytes, b->name, b->name_bytes);
}

static void tell(struct naming *naming, uint8_t what, const void *name, size_t bytes) {
    if (naming->answer_bytes + 3 + bytes > VERIFY_ANSWER_BYTES) return; /* there is enough to see that it is not equal */
    uint8_t *at = naming->answer + naming->answer_bytes;
    uint16_t short_bytes = htole16((uint16_t)bytes);
    at[0] = what;
    memcpy(at + 1, &short_bytes, 2);
    memcpy(at + 3, name, bytes);
    naming->answer_bytes += 3 + bytes;
}

static int compare_name(void *context, const struct entry *entry) {
    struct naming *naming = context;
    if ((entry_bits(entry->name) & naming->mask) != naming->value) return 0;
    struct asked key = {.name = (const uint8_t *)entry->name, .name_bytes = (uint16_t)strlen(entry->name)};
    struct asked *asked = bsearch(&key, naming->asked, naming->count, sizeof key, by_name);
    if (!asked) {
        tell(naming, VERIFY_NAME_EXTRA, key.name, key.name_bytes);
    } else {
        asked->found = true;
        if (asked->fid != entry->fid || asked->type != entry->type) tell(naming, VERIFY_NAME_ANOTHER, key.name, key.name_bytes);
    }
    return 0;
}

static int parse_names(const uint8_t *data, size_t bytes, struct naming *naming) {
    for (size_t at = 0; at < bytes; naming->count++) {
        struct asked *asked = &naming->asked[naming->count];
        if (bytes - at < 14) return -EPROTO;
        memcpy(&asked->fid, data + at, 8);
        memcpy(&asked->type, data + at + 8, 4);
        memcpy(&asked->name_bytes, data + at + 12, 2);
        asked->fid = le64toh(asked->fid);
        asked->type = le32toh(asked->type);
        asked->name_bytes = le16toh(asked->name_bytes);
        asked->name = data + at + 14;
        at += 14;
        if (!asked->name_bytes || asked->name_bytes > 255 || asked->name_bytes > bytes - at) return -EPROTO;
        at += asked->name_bytes;
    }
    return 0;
}

static int compare_names(rfs_engine *engine, struct link *link, const struct wire_header *header, const struct op_body *body, const uint8_t *data) {
    if (body->length > VERIFY_NAME_BITS) return -EPROTO;
    struct naming naming = {.mask = (UINT64_C(1) << body->length) - 1, .value = body->offset};
    naming.asked = calloc(body->data_bytes / 15 + 1, sizeof *naming.asked); /* one takes 15 bytes at least */
    naming.answer = malloc(VERIFY_ANSWER_BYTES);
    int result = naming.asked && naming.answer ? parse_names(data, body->data_bytes, &naming) : -ENOMEM;
    if (result < 0) goto out;
    qsort(naming.asked, naming.count, sizeof *naming.asked, by_name);
    visit_directory(engine, body, compare_name, &naming); /* what cannot be listed is missing */
    for (size_t i = 0; i < naming.count; i++)
        if (!naming.asked[i].found) tell(&naming, VERIFY_NAME_MISSING, naming.asked[i].name, naming.asked[i].name_bytes);
    if (naming.answer_bytes) link_send_answer(link, FRAME_VERIFIED, header->seq, 1, naming.answer, naming.answer_bytes);
out:
    free(naming.asked);
    free(naming.answer);
    return result == -ENOMEM ? 0 : result;
}

int apply_verify(rfs_engine *engine, struct link *link, const struct wire_header *header, const struct op_body *body, const uint8_t *data) {
    uint64_t different = 0;
    int result;
    switch (header->type) {
    case FRAME_VERIFY_RANGE: result = compare_range(engine, header, body, data, &different); break;
    case FRAME_VERIFY_ATTRIBUTES: result = compare_attributes(engine, body, data, &different); break;
    case FRAME_VERIFY_ENTRIES: result = compare_entries(engine, body, data, &different); break;
    default: return compare_names(engine, link, header, body, data);
    }
    if (result == 0 && different) link_send_answer(link, FRAME_VERIFIED, header->seq, different, NULL, 0);
    return result;
}
