/* The marks of a running engine: which ops have to wait for a mark, the log's files, checkpoints. */
#ifndef LOCKSTEP_MARKER_H
#define LOCKSTEP_MARKER_H

#include "op.h"
#include "wire.h"

/* State is held shared. True: all its places are hot, and it may be executed. False: it is given to mirror_go_on() when they are. */
bool marker_admit(rfs_engine *engine, struct op *op);
/* ... and to mark more than it first seemed: an op that was admitted and not done. */
void marker_admit_again(rfs_engine *engine, struct op *op);
/* Under its stripe: what was local when it was admitted, without a mark, has come to be replicated meanwhile. */
bool marker_must_admit(rfs_engine *engine, const struct op *op);
/* It has its answer: a checkpoint need not wait for it. */
void marker_answered(rfs_engine *engine, struct op *op);
uint64_t marker_waiting_ops(rfs_engine *engine);
void marker_close(rfs_engine *engine); /* the last word: grains are exact again */

bool marker_is_whole(rfs_engine *engine, uint64_t fid); /* the whole content is marked */
/* A primary starts: what it will make is new. Durable. */
int marker_set_born(rfs_engine *engine, uint64_t first_fid);
void marker_stop_checkpoint(rfs_engine *engine, int error); /* the link is lost, or the role */

/* ---- a resync. Without an intent log everything is to do all the time. */
bool marker_everything(rfs_engine *engine);
void marker_all_to_do(rfs_engine *engine);
void marker_nothing_to_do(rfs_engine *engine);
void marker_set_to_do(rfs_engine *engine, const struct op *op); /* it was done here alone */
void marker_set_entries_to_do(rfs_engine *engine, uint64_t fid);
bool marker_is_to_do(rfs_engine *engine, uint64_t fid, int32_t kinds);
bool marker_is_new(rfs_engine *engine, uint64_t fid);
rfs_mark marker_take(rfs_engine *engine, uint64_t fid, int32_t kinds);
bool marker_where(rfs_engine *engine, uint64_t fid, rfs_where *where);
void marker_set_whole_to_do(rfs_engine *engine, uint64_t fid);
/* The objects of which something of these kinds is to do; freed by the caller. NULL with a count: no memory. */
uint64_t *marker_to_do(rfs_engine *engine, int32_t kinds, size_t *count);
rfs_marks_count marker_count(rfs_engine *engine);
rfs_marks_count marker_count_roughly(rfs_engine *engine); /* for people: of very many a few seconds old */

/* The peer's marks become ours, durably, and are to do. */
struct peer_mark {
    rfs_mark mark;
    rfs_where where;
};
int marker_add_peers(rfs_engine *engine, const struct peer_mark *marks, size_t count, uint64_t born);
/* All marks as frames to the source. */
int marker_tell(rfs_engine *engine, struct link *link);
#endif
