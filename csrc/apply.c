/* The secondary's side: an op of the primary's, done to the local tree. When and in which order: applier.c.
 *
 * Ids, owners, modes and times come with the frame and are enforced. An fsync is given to a worker, so that it holds up
 * nothing; its answer is a frame of its own. An op that fails here is never skipped: nothing that must come after it is applied,
 * the engine says so once, and the session ends (the application on the primary sees nothing of it). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "before.h"
#include "frame_rules.h"
#include "link.h"
#include "op.h"
#include "steps.h"
#include "verify.h"

struct peer_sync {
    struct job job;
    uint64_t session, seq;
    int fd;
    bool data_only;
};

/* No lock is held in this wait: a sync takes `state` to answer. A peer that asks for more than this disk does waits, as its bytes do. */
void wait_for_peer_syncs(rfs_engine *engine) {
    pthread_mutex_lock(&engine->peer_syncs.lock);
    while (engine->peer_syncs.count >= MOST_PEER_SYNCS) pthread_cond_wait(&engine->peer_syncs.done, &engine->peer_syncs.lock);
    pthread_mutex_unlock(&engine->peer_syncs.lock);
}

static void count_peer_sync(rfs_engine *engine, bool done) {
    pthread_mutex_lock(&engine->peer_syncs.lock);
    engine->peer_syncs.count += done ? UINT32_MAX : 1;
    if (done) pthread_cond_signal(&engine->peer_syncs.done);
    pthread_mutex_unlock(&engine->peer_syncs.lock);
}

static void sync_for_peer(rfs_engine *engine, struct job *job) {
    struct peer_sync *sync = ITEM(job, struct peer_sync, job);
    int result = (sync->data_only ? fdatasync(sync->fd) : fsync(sync->fd)) < 0 ? -errno : 0;
    close(sync->fd);
    STEP("target-sync-done");
    if (result < 0 && !atomic_exchange(&engine->failed, true)) emit(engine, RFS_EVENT_LOCAL_FAILED, result, 0, "fsync failed: %s", strerror(-result));
    pthread_rwlock_rdlock(&engine->state);
    struct link *link = engine->link;
    if (!atomic_load(&engine->failed) && link && engine->target && link_session(link) == sync->session) link_send_small(link, FRAME_SYNCED, sync->seq, 0);
    pthread_rwlock_unlock(&engine->state);
    free(sync);
    count_peer_sync(engine, true);
}

static int start_sync(rfs_engine *engine, struct link *link, const struct wire_header *header, bool again) {
    struct inode *inode = inode_get(engine, header->fid);
    if (!inode && again) { /* removed by a later op, which is applied: nothing is left to sync */
        link_send_small(link, FRAME_SYNCED, header->seq, 0);
        return 0;
    }
    /* Nothing else can be synced: a device would be opened by it, and a pipe's "cannot" looks like a disk that fails. */
    bool kept = inode && (S_ISREG(inode->type) || S_ISDIR(inode->type));
    struct peer_sync *sync = kept ? calloc(1, sizeof *sync) : NULL;
    int result = !kept ? -EUCLEAN : !sync ? -ENOMEM : inode_open(engine, inode, O_RDONLY | O_NONBLOCK);
    inode_put(engine, inode);
    if (result < 0) {
        free(sync);
        return result;
    }
    *sync = (struct peer_sync){.job.run = sync_for_peer, .session = link_session(link), .seq = header->seq, .fd = result, .data_only = header->flags & FLAG_DATA_ONLY};
    count_peer_sync(engine, false);
    submit_job(engine, &sync->job);
    return 0;
}

static int replay(rfs_engine *engine, struct op *op) {
    switch (op->type) {
    case FRAME_WRITE: return local_write(engine, op, true);
    case FRAME_FALLOCATE: return local_fallocate(engine, op, true);
    case FRAME_COPY: return local_copy(engine, op, true);
    case FRAME_SET_ATTRIBUTES: return local_set_attributes(engine, op, true);
    case FRAME_SET_XATTR:
    case FRAME_REMOVE_XATTR: return local_set_xattr(engine, op, true);
    case FRAME_LINK: return local_link(engine, op, true);
    case FRAME_UNLINK:
    case FRAME_RMDIR: return local_remove(engine, op, true);
    case FRAME_RENAME: return local_rename(engine, op, true);
    case FRAME_PLACE: return local_place(engine, op);
    case FRAME_FSYNC: return 0;
    default: return local_make(engine, op, true);
    }
}

static int apply_op(rfs_engine *engine, const struct wire_header *header, const struct op_body *body, const uint8_t *data) {
    struct op op = {.type = (enum frame_type)header->type, .sync_fd = -1, .made_fd = -1, .body = *body, .data = (uint8_t *)(uintptr_t)data};
    op.frame.header.flags = header->flags;
    int result = replay(engine, &op);
    inode_put(engine, op.inode);
    inode_put(engine, op.source);
    return result;
}

static bool is_sync(const struct wire_header *header) { return header->flags & FLAG_DURABLE; }

static int apply_kind(rfs_engine *engine, struct link *link, const struct wire_header *header, const struct op_body *body, const uint8_t *data) {
    return header->type > FRAME_LAST_OP ? apply_resync(engine, link, header, body, data) : apply_op(engine, header, body, data);
}

static bool is_content(uint16_t type) { return type == FRAME_WRITE || type == FRAME_BLOCK || type == FRAME_FALLOCATE; }

int apply_frame(rfs_engine *engine, struct link *link, const struct wire_header *header, const uint8_t *payload, const char **why) {
    struct op_body body;
    const uint8_t *data;
    if (wire_decode_body(header, payload, &body, &data) < 0) return -EPROTO;
    int result = frame_judge(engine->policy, header, &body, data, why);
    if (result == 0 && atomic_load(&engine->failed)) result = -EIO;
    if (result == 0 && wire_is_verify(header->type)) return apply_verify(engine, link, header, &body, data);
    if (result == 0) result = before_frame(engine, header, &body);
    if (result == 0) result = apply_kind(engine, link, header, &body, data);
    /* The snapshot holds on to what is overwritten. One inode's op can be done again; any other comes again in the next session, which has room. */
    if (before_full(engine, result) && is_content(header->type)) result = apply_kind(engine, link, header, &body, data);
    if (header->type > FRAME_LAST_OP) STEP("resync-applied");
    else STEP("target-op-applied");
    return result == 0 && is_sync(header) ? start_sync(engine, link, header, false) : result;
}

int apply_again(rfs_engine *engine, struct link *link, const struct wire_header *header) {
    if (atomic_load(&engine->failed)) return -EIO;
    return is_sync(header) ? start_sync(engine, link, header, true) : 0;
}
