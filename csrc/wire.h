/* The data link's frames: a fixed little-endian header, then the payload. Both carry a CRC32C: TCP's own checksum is too
 * weak for data that must survive, and TLS is optional on a bench. docs/wire-format.md is the table for people. */
#ifndef LOCKSTEP_WIRE_H
#define LOCKSTEP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WIRE_HEADER_BYTES = 80, WIRE_VERSION = 1, MAX_COPY_BYTES = 8 << 20 };

enum frame_type {
    FRAME_NONE = 0,
    /* ops, primary to secondary, each with a seq */
    FRAME_WRITE = 1, FRAME_FSYNC, FRAME_CREATE, FRAME_MKDIR, FRAME_MKNOD, FRAME_SYMLINK, FRAME_LINK, FRAME_UNLINK, FRAME_RMDIR, FRAME_RENAME,
    FRAME_SET_ATTRIBUTES, FRAME_SET_XATTR, FRAME_REMOVE_XATTR, FRAME_FALLOCATE, FRAME_COPY,
    FRAME_PLACE, /* what was made HELD gets its name, instead of whatever has it */
    FRAME_LAST_OP = FRAME_PLACE,
    /* resync, source to target, in the same order and with seqs of the same row */
    FRAME_DIRECTORY_BEGIN = 32, FRAME_DIRECTORY_ENTRY, FRAME_DIRECTORY_END, FRAME_HASHES, FRAME_BLOCK, FRAME_ATTRIBUTES, FRAME_END, FRAME_MARKED,
    FRAME_BIND, /* child has this name in this directory (0: somewhere): the ops that follow name it by its fid alone */
    FRAME_SIZE, /* of the file from here on: what the ops that follow leave between its end and their bytes is empty on both nodes */
    FRAME_SMALL_FILE, /* a DIRECTORY_ENTRY, all of its content (the data) and its ATTRIBUTES */
    FRAME_LAST_RESYNC = FRAME_SMALL_FILE,
    /* verify, source to target of a whole pair, in the same order: verify.h */
    FRAME_VERIFY_RANGE = 48, FRAME_VERIFY_ATTRIBUTES, FRAME_VERIFY_ENTRIES, FRAME_VERIFY_NAMES,
    FRAME_LAST_VERIFY = FRAME_VERIFY_NAMES,
    /* without a seq of their own */
    FRAME_ACK = 64,  /* seq: everything up to it is applied */
    FRAME_SYNCED,    /* seq: this fsync is on the disk */
    FRAME_DIFFERENT, /* seq: of the HASHES; offset: a bit per block that differs */
    FRAME_KEEPALIVE,
    FRAME_ACK_ALONE, /* seq: this op is applied, and some before it are not */
    FRAME_PEER_MARK, /* target to source, before all else: a mark of the target's, and where it is found */
    FRAME_PEER_MARKS, /* those were all. offset: 1 if everything is marked; length: the first fid that is new */
    FRAME_FRESH,     /* target to source: this listed object was not there and was made, empty */
    FRAME_VERIFIED,  /* seq: of a VERIFY frame that found a difference; it comes before the ACK of it */
    FRAME_LAST_UNSEQUENCED = FRAME_VERIFIED,
    FRAME_READ = 128, /* never sent: a kernel read that waits for the lease */
};

enum { FLAG_DURABLE = 1, FLAG_LAST_NAME = 2, FLAG_ZERO = 4, FLAG_DATA_ONLY = 8, FLAG_MORE = 16 /* of the same write: acknowledged with its last piece */, FLAG_HELD = 32 /* made without a place */ };

struct wire_header {
    uint16_t type, flags;
    uint32_t payload_bytes;
    uint64_t seq, session, generation, fid, offset, length;
    int64_t mtime_ns; /* resulting mtime of what it changed; of the parent for namespace ops */
    uint32_t payload_crc;
};

struct frame {
    struct frame *next;
    struct wire_header header;
    const uint8_t *payload; /* not owned */
    size_t sent_bytes;
    bool standalone;        /* the link frees it when it is sent */
    uint8_t encoded[WIRE_HEADER_BYTES];
};

/* The body of every op but a write (whose payload is the bytes themselves). */
struct op_body {
    uint64_t fid;        /* in the header: the file, or the parent of a namespace op */
    uint64_t offset, length;
    int64_t mtime_ns;
    uint64_t other;      /* second parent of a rename; the file of a link; the source of a copy */
    uint64_t child;      /* the entry made, removed or moved */
    uint64_t rdev;       /* of a copy: where in its source */
    int64_t child_mtime_ns, atime_ns, other_mtime_ns;
    uint32_t flags;      /* rename, xattr, fallocate and HAS_* flags */
    uint32_t mode, uid, gid;
    uint32_t data_bytes;
    uint16_t name_bytes, name2_bytes;
    char name[256], name2[256]; /* NUL-terminated */
};

enum { BODY_FIXED_BYTES = 8 * 6 + 4 * 5 + 4 };

uint32_t crc32c(uint32_t crc, const void *data, size_t bytes);
void wire_encode_header(const struct wire_header *header, uint8_t out[WIRE_HEADER_BYTES]);
/* -EBADMSG: not a frame of ours. */
int wire_decode_header(const uint8_t in[WIRE_HEADER_BYTES], struct wire_header *header);
size_t wire_body_bytes(const struct op_body *body);
void wire_encode_body(const struct op_body *body, const uint8_t *data, uint8_t *out);
/* data points into the payload. Names are checked: no NUL, no slash, not "." or "..". */
int wire_decode_body(const struct wire_header *header, const uint8_t *payload, struct op_body *body, const uint8_t **data);
bool wire_is_sequenced(uint16_t type);
bool wire_is_verify(uint16_t type);
bool wire_is_bare(uint16_t type); /* all header: a payload would be received for nothing */
#endif
