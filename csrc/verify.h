/* Verify: are both copies of a whole pair equal, at one seq for each place, while the application writes? verify.c tells how. */
#ifndef LOCKSTEP_VERIFY_H
#define LOCKSTEP_VERIFY_H

#include "walk.h"

struct link;

enum {
    VERIFY_BLOCK_BYTES = 1 << 16,   /* what a hash stands for, and a bit of the answer */
    VERIFY_BYTES = 256 << 10,       /* one question about content */
    VERIFY_HOLE_BYTES = 64 << 20,   /* ... where there is none */
    VERIFY_BUCKETS = 64,            /* a directory's entries by the hash of their names: one bit of the answer each */
    VERIFY_ANSWER_BYTES = 60 << 10, /* names in one answer */
    VERIFY_LIST_BYTES = 512 << 10,  /* names in one question */
    VERIFY_NAME_BITS = 20,          /* a question about names is about those whose hash has these bits, at most */
};

/* The bits of an answer to ATTRIBUTES, and what is told of a place that differs (RFS_DIFFERS_* in rfs_engine.h). RANGE is answered by a bit per
 * VERIFY_BLOCK_BYTES, ENTRIES by a bit per bucket; either by one of these two as well. */
#define VERIFY_MISSING (UINT64_C(1) << 63)
#define VERIFY_UNREADABLE (UINT64_C(1) << 62)

enum { VERIFY_NAME_MISSING, VERIFY_NAME_EXTRA, VERIFY_NAME_ANOTHER }; /* in an answer to NAMES, before each name: u8, u16 bytes, name */

enum { VERIFY_MTIME = 1 /* flag of ATTRIBUTES: it counts. Not of a directory in which local entries come and go */ };

/* What is compared of an inode beside its content; equal copies have equal facts. nlink is none of them: two directories with the same
 * entries have the same hard links, and a name that is local or held counts in nlink. */
struct facts {
    uint32_t mode, uid, gid;
    uint64_t rdev, size;
    int64_t mtime_ns;
    struct block_hash xattrs, target; /* in no order; of a symbolic link */
};
int facts_read(rfs_engine *engine, struct inode *inode, struct facts *out);

/* One replicated entry of a directory; `fid` is 0 where the object has no id (on a target alone). */
struct entry {
    const char *name;
    uint64_t fid;
    uint32_t type;
};
typedef int (*entry_visitor)(void *context, const struct entry *entry);
/* All of them, in the file system's order. `tag`: an object that has no id gets one, as on a primary (`names` is held). */
int entries_visit(rfs_engine *engine, struct inode *directory, bool tag, entry_visitor visit, void *context);
uint64_t entry_fid(int directory_fd, const char *name); /* as it is written on the object; 0: none */
uint64_t entry_bits(const char *name); /* of its name; the lowest choose its bucket */

struct entry_sums {
    uint64_t seed;
    struct block_hash bucket[VERIFY_BUCKETS];
};
void entry_add(struct entry_sums *sums, const struct entry *entry);

/* The source's side. */
int verify_answer(rfs_engine *engine, const struct wire_header *header, const uint8_t *payload);
void verify_free(rfs_engine *engine);
/* The target's side: what it finds is told by FRAME_VERIFIED, and never ends the session; -EPROTO does. */
int apply_verify(rfs_engine *engine, struct link *link, const struct wire_header *header, const struct op_body *body, const uint8_t *data);
#endif
