/* What a message of the kernel must hold, by its opcode: a fixed part, strings that end within the message, and what is counted in the
 * fixed part. The rest of the engine trusts this and looks no further. What a message has beyond that is ignored: a newer kernel may add it.
 *
 * `fh` fields cannot be judged: they are pointers of ours, which only the kernel gives back. */
#include "request.h"

#include <linux/fuse.h>
#include <string.h>

#include "engine.h"

enum tail { NOTHING, FORGOTTEN, WRITTEN, VALUE, ASKED_FOR };

struct shape {
    uint8_t fixed_bytes;
    uint8_t entries, texts; /* strings: names of directory entries first, then what may hold any byte */
    uint8_t tail;           /* what is counted in the fixed part */
};

/* Opcodes that are not here are answered without a look into their body. */
static const struct shape shapes[] = {
    [FUSE_LOOKUP] = {.entries = 1},
    [FUSE_FORGET] = {.fixed_bytes = sizeof(struct fuse_forget_in)},
    [FUSE_GETATTR] = {.fixed_bytes = sizeof(struct fuse_getattr_in)},
    [FUSE_SETATTR] = {.fixed_bytes = sizeof(struct fuse_setattr_in)},
    [FUSE_SYMLINK] = {.entries = 1, .texts = 1},
    [FUSE_MKNOD] = {.fixed_bytes = sizeof(struct fuse_mknod_in), .entries = 1},
    [FUSE_MKDIR] = {.fixed_bytes = sizeof(struct fuse_mkdir_in), .entries = 1},
    [FUSE_UNLINK] = {.entries = 1},
    [FUSE_RMDIR] = {.entries = 1},
    [FUSE_RENAME] = {.fixed_bytes = sizeof(struct fuse_rename_in), .entries = 2},
    [FUSE_LINK] = {.fixed_bytes = sizeof(struct fuse_link_in), .entries = 1},
    [FUSE_OPEN] = {.fixed_bytes = sizeof(struct fuse_open_in)},
    [FUSE_READ] = {.fixed_bytes = sizeof(struct fuse_read_in), .tail = ASKED_FOR},
    [FUSE_WRITE] = {.fixed_bytes = sizeof(struct fuse_write_in), .tail = WRITTEN},
    [FUSE_RELEASE] = {.fixed_bytes = sizeof(struct fuse_release_in)},
    [FUSE_FSYNC] = {.fixed_bytes = sizeof(struct fuse_fsync_in)},
    [FUSE_SETXATTR] = {.fixed_bytes = sizeof(struct fuse_setxattr_in), .texts = 1, .tail = VALUE},
    [FUSE_GETXATTR] = {.fixed_bytes = sizeof(struct fuse_getxattr_in), .texts = 1},
    [FUSE_LISTXATTR] = {.fixed_bytes = sizeof(struct fuse_getxattr_in)},
    [FUSE_REMOVEXATTR] = {.texts = 1},
    [FUSE_INIT] = {.fixed_bytes = offsetof(struct fuse_init_in, flags) + sizeof(uint32_t)}, /* what is older than minor 36 ends there */
    [FUSE_READDIR] = {.fixed_bytes = sizeof(struct fuse_read_in), .tail = ASKED_FOR},
    [FUSE_FSYNCDIR] = {.fixed_bytes = sizeof(struct fuse_fsync_in)},
    [FUSE_CREATE] = {.fixed_bytes = sizeof(struct fuse_create_in), .entries = 1},
    [FUSE_BATCH_FORGET] = {.fixed_bytes = sizeof(struct fuse_batch_forget_in), .tail = FORGOTTEN},
    [FUSE_FALLOCATE] = {.fixed_bytes = sizeof(struct fuse_fallocate_in)},
    [FUSE_READDIRPLUS] = {.fixed_bytes = sizeof(struct fuse_read_in), .tail = ASKED_FOR},
    [FUSE_RENAME2] = {.fixed_bytes = sizeof(struct fuse_rename2_in), .entries = 2},
    [FUSE_LSEEK] = {.fixed_bytes = sizeof(struct fuse_lseek_in)},
    [FUSE_COPY_FILE_RANGE] = {.fixed_bytes = sizeof(struct fuse_copy_file_range_in)},
};

static struct shape shape_of(uint32_t opcode, bool extended_setxattr) {
    struct shape shape = opcode < sizeof shapes / sizeof shapes[0] ? shapes[opcode] : (struct shape){0};
    if (opcode == FUSE_SETXATTR && !extended_setxattr) shape.fixed_bytes = FUSE_COMPAT_SETXATTR_IN_SIZE;
    return shape;
}

/* Longer names than 255 bytes come too, and are told so (ENAMETOOLONG). */
static bool is_entry_name(const char *name, bool dots) {
    if (!*name || strchr(name, '/')) return false;
    return dots || (strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
}

/* The strings, which begin at *at, and end within the message; *at becomes the end of the last. */
static bool strings_fit(const struct shape *shape, bool dots, const uint8_t *body, size_t bytes, size_t *at) {
    for (int i = 0; i < shape->entries + shape->texts; i++) {
        const char *text = (const char *)body + *at;
        const uint8_t *end = *at < bytes ? memchr(text, 0, bytes - *at) : NULL;
        if (!end) return false;
        if (i < shape->entries ? !is_entry_name(text, dots) : !*text) return false;
        *at = (size_t)(end - body) + 1;
    }
    return true;
}

/* `left` bytes are there for what is counted. */
static bool tail_fits(const struct shape *shape, const uint8_t *body, size_t left) {
    switch (shape->tail) {
    case FORGOTTEN: return ((const struct fuse_batch_forget_in *)(const void *)body)->count <= left / sizeof(struct fuse_forget_one);
    case WRITTEN: {
        uint32_t size = ((const struct fuse_write_in *)(const void *)body)->size;
        return size <= MAX_WRITE_BYTES && size <= left;
    }
    case VALUE: return ((const struct fuse_setxattr_in *)(const void *)body)->size <= left;
    case ASKED_FOR: return ((const struct fuse_read_in *)(const void *)body)->size <= MAX_WRITE_BYTES; /* the pages that INIT agreed on */
    default: return true;
    }
}

bool request_is_whole(uint32_t opcode, bool extended_setxattr, const uint8_t *body, size_t bytes) {
    struct shape shape = shape_of(opcode, extended_setxattr);
    size_t at = shape.fixed_bytes;
    if (bytes < at || !strings_fit(&shape, opcode == FUSE_LOOKUP, body, bytes, &at)) return false;
    return tail_fits(&shape, body, bytes - at);
}

bool request_has_answer(uint32_t opcode) { return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET; }
