/* The order in which the primary's ops are applied on the secondary. One applier per data link, used by its receiving thread. */
#ifndef LOCKSTEP_APPLIER_H
#define LOCKSTEP_APPLIER_H

#include "engine.h"
#include "wire.h"

struct link;
struct applier;

struct applier *applier_new(rfs_engine *engine, struct link *link);
/* One frame of the peer's, in the order of their seqs. 0: it is applied, and to be acknowledged; 1: it will be, and is acknowledged then;
 * or -errno with a sentence: the link ends. */
int applier_take(struct applier *applier, const struct wire_header *header, const uint8_t *payload, char reason[RFS_REASON_BYTES]);
/* What made it stop, with a sentence; 0: nothing. */
int applier_error(struct applier *applier, char reason[RFS_REASON_BYTES]);
/* For tests: ops count as slow from here on. */
void applier_set_slow_ns(struct applier *applier, uint64_t slow_ns);
/* Applies what it has taken; then it is gone. */
void applier_free(struct applier *applier);
#endif
