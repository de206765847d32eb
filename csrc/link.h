/* One data link. Frames go out in the order they were appended; what comes in is given
 * to applier.c (ops) or mirror.c and walk.c (answers) by the link's own thread. */
#ifndef LOCKSTEP_LINK_H
#define LOCKSTEP_LINK_H

#include "channel.h"
#include "engine.h"
#include "wire.h"

/* The channel is the link's from here on, also when NULL is returned. */
struct link *link_new(rfs_engine *engine, rfs_channel *channel, const rfs_session *session);
int link_start(struct link *link);
bool link_is_up(const struct link *link);
bool link_is_sealed(const struct link *link); /* what arrives is what was sent, or the link ends: payloads carry no checksum */
/* Append to the outgoing order; the caller holds the lock that makes the order. */
void link_append(struct link *link, struct frame *frame);
/* Send what can be sent without waiting; a thread of the link sends the rest. */
void link_flush(struct link *link);
/* A frame without a payload and a seq of its own: acknowledgements, answers, keepalives. */
void link_send_small(struct link *link, enum frame_type type, uint64_t seq, uint64_t offset);
/* ... and one with a payload, which is copied. */
void link_send_answer(struct link *link, enum frame_type type, uint64_t seq, uint64_t offset, const uint8_t *payload, size_t bytes);
/* The same with a body. */
int link_send_body(struct link *link, enum frame_type type, const struct op_body *body, const uint8_t *data);
/* No frame of this seq can have been acknowledged unless it has been sent. */
bool link_has_sent(struct link *link, uint64_t seq);
/* Nothing more is sent and no op's frame is referred to any more: the ops may be freed. The link is still to be closed. */
void link_abandon(struct link *link);
/* Apply what has arrived (drain) or drop it; join the thread; free. */
void link_close(struct link *link, bool drain);
uint64_t link_session(const struct link *link);

/* The end of it, for both directions: the receiving thread sees it and tells. */
void link_end(struct link *link);
/* What is applied now is acknowledged: in memory or on the disk, as the session says. */
void link_acknowledge(struct link *link);
/* This op is applied, and some before it are not: whoever waits for it needs not wait for them. */
void link_acknowledge_alone(struct link *link, uint64_t seq);
/* For tests: ops are applied in parallel from here on. */
void link_apply_in_parallel(struct link *link);

/* apply.c: one frame of the peer's, with state held shared. Its payload is checked here. -EPROTO: no honest peer sends it, `why` says more. */
int apply_frame(rfs_engine *engine, struct link *link, const struct wire_header *header, const uint8_t *payload, const char **why);
/* ... that came again and is applied already. */
int apply_again(rfs_engine *engine, struct link *link, const struct wire_header *header);
void wait_for_peer_syncs(rfs_engine *engine); /* until there are not too many; no lock is held */
/* resync_target.c */
int apply_resync(rfs_engine *engine, struct link *link, const struct wire_header *header, const struct op_body *body, const uint8_t *data);
void listing_free(rfs_engine *engine);
#endif
