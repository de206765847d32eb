/* The source's walk through its tree during a session's resync, and what it has taught the target so far. */
#ifndef LOCKSTEP_WALK_H
#define LOCKSTEP_WALK_H

#include "op.h"

/* Per inode and session. At the source:
 * BOUND          the target knows the fid
 * ENTRIES_CLEAN  a directory's entries were made equal (that others are clean without it: walk_is_clean())
 * CONTENT_DONE   a file's content and attributes are equal (up to live ops, which are shipped for every bound inode)
 * QUEUED, WALKED  it is in the walk's queue; its content is on its way
 * FRESH, UNLISTED  the target had to make it: there is nothing to compare, and a directory is to be listed
 * At the target: ENTRIES_CLEAN as above, and MARKED_THERE: the directory will be listed (again). */
enum { BOUND = 1, ENTRIES_CLEAN = 2, CONTENT_DONE = 4, QUEUED = 8, MARKED_THERE = 16, FRESH = 32, UNLISTED = 64, WALKED = 128 };

static inline uint32_t resync_flags(const rfs_engine *engine, struct inode *inode) {
    uint64_t value = atomic_load(&inode->resync);
    return value >> 8 == engine->epoch ? (uint32_t)(value & 0xff) : 0;
}

static inline void resync_change(const rfs_engine *engine, struct inode *inode, uint32_t set, uint32_t clear) {
    uint64_t old = atomic_load(&inode->resync), fresh;
    do {
        uint64_t flags = old >> 8 == engine->epoch ? old & 0xff : 0;
        fresh = (uint64_t)engine->epoch << 8 | ((flags | set) & ~(uint64_t)clear);
    } while (!atomic_compare_exchange_weak(&inode->resync, &old, fresh));
}

int walk_start(rfs_engine *engine);
bool walk_is_drained(rfs_engine *engine); /* state is held: nothing is marked */
int walk_end(rfs_engine *engine); /* state is held exclusively; -EAGAIN: not drained any more, and it will be told again */
void walk_stop(rfs_engine *engine); /* joins; the caller holds no lock */
/* Are the entries of this directory equal on the target? */
bool walk_is_clean(rfs_engine *engine, struct inode *directory);
/* Before an op that names it is done (state shared; walk_bind: no other lock; _names: `names`): the target learns where it is. 1: it cannot be told yet,
 * so the op may leave something to do, and the walk does not end before walk_left() says that it has (of so many). */
uint32_t walk_bind(rfs_engine *engine, struct inode *inode);
void walk_left(rfs_engine *engine, uint32_t count);
void walk_bind_names(rfs_engine *engine, const struct op *op);
/* A namespace op that is shipped to a whole copy has taught it what it made. */
void walk_learnt(rfs_engine *engine, const struct op *op);
/* Is this namespace op, done locally just now under `names`, to be shipped? If not, its directories are marked again. */
bool walk_ships(rfs_engine *engine, struct op *op);
/* An op on content that the target cannot be told of: it is to do. Returns false. */
bool walk_keeps(rfs_engine *engine, const struct op *op);
/* resync_target.c: `moving` cannot go to `place` because it lies above it here: take a directory between them that will be listed
 * again out of the way. 0: try again. */
int make_way(rfs_engine *engine, struct inode *moving, struct inode *place);
/* What a frame tells of an inode: owner, mode, times, size, xattrs. */
int put_attributes(rfs_engine *engine, struct inode *inode, struct op *op);
int put_attributes_of(int fd, struct op *op);
void put_stat(const struct stat *stat, struct op *op); /* the same without the xattrs */
/* On the link's thread: the target's answers. */
int walk_answer(rfs_engine *engine, uint64_t seq, uint64_t different);
int walk_hear_mark(rfs_engine *engine, const struct wire_header *header, const uint8_t *payload);
int walk_hear_fresh(rfs_engine *engine, uint64_t fid);

struct block_hash {
    uint64_t low, high;
};
struct block_hash hash_block(const uint8_t *data, size_t bytes, uint64_t seed);
bool is_zero(const uint8_t *data, size_t bytes);
#endif
