/* Changes of role and of session. Each takes the state lock exclusively, so it happens between two ops: at one seq.
 * Which change is allowed when is decided by the caller (rfs/rules.py); here only what would corrupt is refused. */
#include <assert.h>
#include <errno.h>
#include <unistd.h>

#include "link.h"
#include "marker.h"
#include "op.h"
#include "walk.h"

/* ---- transitions: roles ------------------------------------------------------------------------------------------------------- */

int rfs_become_primary(rfs_engine *engine, uint64_t term, uint32_t node_bit) {
    if (!term || term >= (uint64_t)1 << 22 || node_bit > 1) return -EINVAL;
    uint64_t first_fid = (term << 41 | (uint64_t)node_bit << 40) + FIRST_DIRECTORY_FID + RFS_MAX_DIRECTORIES;
    int born = marker_set_born(engine, first_fid);
    if (born < 0) return born;
    pthread_rwlock_wrlock(&engine->state);
    int result = engine->mode == RFS_IDLE || engine->mode == RFS_FROZEN ? 0 : -EBUSY;
    if (result == 0 && first_fid <= atomic_load(&engine->next_fid)) result = -EINVAL; /* fids would be given twice */
    if (result == 0) {
        atomic_store(&engine->next_fid, first_fid);
        atomic_store(&engine->next_found_fid, first_fid | FID_FOUND);
        engine->mode = RFS_FROZEN;
        engine->target = engine->demoting = engine->resumable = false;
        pthread_mutex_lock(&engine->mirror.lock);
        if (engine->mirror.seq < atomic_load(&engine->applied_seq)) engine->mirror.seq = atomic_load(&engine->applied_seq);
        engine->mirror.acked_seq = engine->mirror.seq;
        engine->mirror.alone_seq = 0;
        pthread_mutex_unlock(&engine->mirror.lock);
    }
    pthread_rwlock_unlock(&engine->state);
    return result;
}

static int go_alone(rfs_engine *engine, uint64_t generation, int used) {
    if (engine->mode != RFS_FROZEN && engine->mode != RFS_RESYNCING) return -EINVAL;
    if (engine->link && link_is_up(engine->link) && engine->mode != RFS_FROZEN) return -EBUSY;
    pthread_mutex_lock(&engine->mirror.lock);
    bool answers = !list_empty(&engine->mirror.pending) || !list_empty(&engine->mirror.syncing);
    pthread_mutex_unlock(&engine->mirror.lock);
    if (!used && answers) return -EAGAIN; /* they would be lone acknowledgements; parked ops ask for used first */
    engine->session.generation = generation;
    if (engine->link) link_abandon(engine->link);
    mirror_mark_waiting(engine);
    pthread_mutex_lock(&engine->mirror.lock);
    engine->mirror.need_used_raised = false;
    pthread_mutex_unlock(&engine->mirror.lock);
    engine->mode = used ? RFS_ALONE : RFS_UNUSED;
    engine->end_sent = engine->resumable = false;
    return 0;
}

int rfs_grant(rfs_engine *engine, uint64_t generation, int used) {
    pthread_rwlock_wrlock(&engine->state);
    int result = go_alone(engine, generation, used);
    pthread_rwlock_unlock(&engine->state);
    mirror_wake(engine);
    return result;
}

int rfs_set_used(rfs_engine *engine) {
    pthread_rwlock_wrlock(&engine->state);
    if (engine->mode == RFS_UNUSED) engine->mode = RFS_ALONE;
    pthread_rwlock_unlock(&engine->state);
    mirror_wake(engine);
    return 0;
}

/* State is held exclusively. */
static void fail_demotion(rfs_engine *engine, int error, const char *text) {
    engine->demoting = false;
    pthread_mutex_lock(&engine->mirror.lock);
    if (engine->mirror.demote_ticket) emit(engine, RFS_EVENT_TICKET, error, engine->mirror.demote_ticket, "%s", text);
    engine->mirror.demote_ticket = 0;
    pthread_mutex_unlock(&engine->mirror.lock);
}

int rfs_fence(rfs_engine *engine) {
    pthread_rwlock_wrlock(&engine->state);
    engine->mode = RFS_FENCED;
    marker_stop_checkpoint(engine, -EIO);
    mirror_fail_waiting(engine, -EIO);
    fail_demotion(engine, -EIO, "fenced");
    pthread_rwlock_unlock(&engine->state);
    mirror_wake(engine);
    return 0;
}

uint64_t rfs_submit_demote(rfs_engine *engine) {
    uint64_t ticket = 0;
    pthread_rwlock_wrlock(&engine->state);
    pthread_mutex_lock(&engine->mirror.lock);
    if (engine->mode != RFS_IDLE && !engine->mirror.demote_ticket) {
        ticket = engine->mirror.demote_ticket = atomic_fetch_add(&engine->next_ticket, 1);
        engine->demoting = true;
        if (engine->mode == RFS_FROZEN) { /* nobody to wait for */
            emit(engine, RFS_EVENT_TICKET, -EAGAIN, ticket, "the link is lost");
            engine->mirror.demote_ticket = 0;
            engine->demoting = false;
        }
        mirror_complete_demotion(engine);
    }
    pthread_mutex_unlock(&engine->mirror.lock);
    pthread_rwlock_unlock(&engine->state);
    mirror_wake(engine);
    return ticket;
}

/* ---- transitions: sessions ------------------------------------------------------------------------------------------------------ */

/* State is held exclusively. */
static int open_link(rfs_engine *engine, rfs_channel *channel, const rfs_session *session) {
    assert(!engine->link);
    struct link *link = link_new(engine, channel, session);
    if (!link) return -ENOMEM;
    engine->session = *session;
    engine->end_sent = false;
    atomic_fetch_add(&engine->links, 1);
    engine->link = link;
    atomic_store(&engine->last_heard_ns, now_ns());
    return 0;
}

static int refuse(rfs_channel *channel) { /* it is ours to close */
    rfs_channel_close(channel);
    return -EINVAL;
}

static void drop_link(rfs_engine *engine) {
    link_close(engine->link, false);
    engine->link = NULL;
    engine->target = false;
    if (engine->mode == RFS_RESYNCING || engine->mode == RFS_PAIRED) engine->mode = RFS_FROZEN;
}

static int finish_open(rfs_engine *engine, int result) {
    if (result == 0) {
        result = link_start(engine->link);
        if (result < 0) drop_link(engine);
    }
    struct link *link = engine->link;
    pthread_rwlock_unlock(&engine->state);
    if (result == 0) link_flush(link);
    mirror_wake(engine);
    return result;
}

int rfs_session_source(rfs_engine *engine, rfs_channel *channel, const rfs_session *session) {
    rfs_session whole = *session;
    whole.peer_applied_seq = 0; /* nothing of before is waited for */
    rfs_session_close(engine);
    pthread_rwlock_wrlock(&engine->state);
    int result = engine->mode == RFS_IDLE || engine->mode == RFS_FENCED ? refuse(channel) : open_link(engine, channel, &whole);
    if (result == 0) {
        mirror_mark_waiting(engine);
        engine->epoch++;
        engine->target = engine->demoting = false;
        engine->mode = session->direct ? RFS_PAIRED : RFS_RESYNCING;
        engine->resumable = session->direct;
        engine->whole = false;
        result = session->direct ? 0 : walk_start(engine);
        if (result < 0) drop_link(engine);
    }
    return finish_open(engine, result);
}

static bool ship_again(rfs_engine *engine, struct list *list, uint64_t applied_seq, struct list *done) { /* mirror.lock */
    bool any = false;
    for (struct list *at = list->next, *next; at != list; at = next) {
        struct op *op = ITEM(at, struct op, item);
        next = at->next;
        if (!op->durable && op->frame.header.seq <= applied_seq) {
            mirror_leave_flight(&engine->mirror, op);
            list_append(done, &op->item);
        }
        any = true;
    }
    return any;
}

/* Both lists are sorted by seq; what the target has not applied goes out again in that order. Syncs always go again. */
static void append_merged(rfs_engine *engine) { /* mirror.lock */
    struct mirror *mirror = &engine->mirror;
    struct list *a = mirror->pending.next, *b = mirror->syncing.next;
    while (a != &mirror->pending || b != &mirror->syncing) {
        struct op *first = a != &mirror->pending ? ITEM(a, struct op, item) : NULL;
        struct op *second = b != &mirror->syncing ? ITEM(b, struct op, item) : NULL;
        struct op *op = !second || (first && first->frame.header.seq < second->frame.header.seq) ? first : second;
        if (op == first) a = a->next;
        else b = b->next;
        if (!op->shipped || op->synced_there) continue;
        op->sent_ns = now_ns();
        link_append(engine->link, &op->frame);
    }
}

int rfs_session_resume(rfs_engine *engine, rfs_channel *channel, const rfs_session *session) {
    struct list done;
    list_init(&done);
    rfs_session_close(engine);
    pthread_rwlock_wrlock(&engine->state);
    int result = engine->mode == RFS_FROZEN && engine->resumable && session->peer_applied_seq <= engine->mirror.seq && session->peer_applied_seq >= engine->mirror.alone_seq ? open_link(engine, channel, session) : refuse(channel);
    if (result == 0) {
        pthread_mutex_lock(&engine->mirror.lock);
        ship_again(engine, &engine->mirror.pending, session->peer_applied_seq, &done);
        append_merged(engine);
        if (session->peer_applied_seq > engine->mirror.acked_seq) engine->mirror.acked_seq = session->peer_applied_seq;
        pthread_mutex_unlock(&engine->mirror.lock);
        engine->mode = RFS_PAIRED;
        engine->target = engine->demoting = false;
    }
    result = finish_open(engine, result);
    pthread_mutex_lock(&engine->mirror.lock);
    mirror_unlock_and_answer(engine, &done);
    return result;
}

int rfs_session_target(rfs_engine *engine, rfs_channel *channel, const rfs_session *session, int resume) {
    rfs_session_close(engine);
    /* Of a session that did not come to its end. What lost its place in it may be found by the next one, or belongs to the snapshot of before. */
    if (session->direct) atomic_store(&engine->before, 0);
    int result = resume ? 0 : rfs_purge_holding(engine, session->everything && !atomic_load(&engine->before) ? RFS_HELD | RFS_ARRIVING : RFS_ARRIVING);
    if (result < 0) {
        rfs_channel_close(channel);
        return result;
    }
    pthread_rwlock_wrlock(&engine->state);
    result = engine->mode == RFS_IDLE ? open_link(engine, channel, session) : refuse(channel);
    if (result == 0) {
        if (!resume) {
            engine->whole = session->everything;
            engine->announced_count = 0;
            engine->holding_indexed = false;
            if (engine->whole) inodes_forget_all(engine);
            atomic_store(&engine->applied_seq, session->seq);
        }
        atomic_store(&engine->received_seq, atomic_load(&engine->applied_seq));
        engine->target = true;
        engine->epoch++;
    }
    if (result == 0 && !resume && !session->everything && !session->direct) result = marker_tell(engine, engine->link);
    if (result < 0 && engine->link) drop_link(engine);
    return finish_open(engine, result);
}

int rfs_send_end(rfs_engine *engine) {
    struct op *end = op_new(FRAME_END);
    if (!end) return -ENOMEM;
    pthread_rwlock_wrlock(&engine->state);
    int result = engine->mode == RFS_RESYNCING && engine->link ? walk_end(engine) : -EINVAL;
    if (result == 0) {
        if (engine->whole) inodes_settle_unmet(engine, BOUND);
        if (engine->whole) marker_nothing_to_do(engine); /* what it has not met is gone */
        mirror_ship(engine, end);
        engine->end_sent = true;
        engine->mode = RFS_PAIRED;
        engine->resumable = true;
        link_flush(engine->link);
    }
    pthread_rwlock_unlock(&engine->state);
    if (result < 0) op_free(engine, end);
    return result;
}

int rfs_session_turn(rfs_engine *engine, int now_source) {
    pthread_rwlock_wrlock(&engine->state);
    int result = engine->link && link_is_up(engine->link) ? 0 : -ENOTCONN;
    if (result == 0 && !now_source && mirror_is_waiting(engine)) result = -EBUSY;
    if (result == 0 && now_source) {
        engine->target = false;
        engine->mode = RFS_PAIRED;
        engine->resumable = true;
    } else if (result == 0) {
        marker_stop_checkpoint(engine, -EAGAIN);
        pthread_mutex_lock(&engine->mirror.lock);
        atomic_store(&engine->applied_seq, engine->mirror.seq);
        atomic_store(&engine->received_seq, engine->mirror.seq);
        pthread_mutex_unlock(&engine->mirror.lock);
        engine->mode = RFS_IDLE;
        engine->demoting = false;
        engine->target = true;
    }
    pthread_rwlock_unlock(&engine->state);
    mirror_wake(engine);
    return result;
}

/* On the link's own thread. */
void mirror_link_lost(rfs_engine *engine, struct link *link, int error, const char *text) {
    pthread_rwlock_wrlock(&engine->state);
    bool mine = engine->link == link;
    if (mine && (engine->mode == RFS_RESYNCING || engine->mode == RFS_PAIRED)) engine->mode = RFS_FROZEN;
    if (mine) {
        fail_demotion(engine, -EAGAIN, text);
        marker_stop_checkpoint(engine, -EAGAIN);
    }
    pthread_rwlock_unlock(&engine->state);
    mirror_wake(engine);
    if (mine) emit(engine, RFS_EVENT_LINK_LOST, error, 0, "%s", text);
}

int rfs_session_close(rfs_engine *engine) {
    pthread_rwlock_wrlock(&engine->state);
    struct link *link = engine->link;
    bool drain = engine->target;
    if (engine->mode == RFS_RESYNCING || engine->mode == RFS_PAIRED) {
        engine->mode = RFS_FROZEN;
        fail_demotion(engine, -EAGAIN, "the session was closed");
        marker_stop_checkpoint(engine, -EAGAIN);
    }
    engine->link = NULL; /* nobody ships from here on; frames that have arrived are still applied */
    pthread_rwlock_unlock(&engine->state);
    walk_stop(engine);
    if (!link) return 0;
    link_close(link, drain);
    pthread_rwlock_wrlock(&engine->state);
    engine->target = false;
    pthread_rwlock_unlock(&engine->state);
    listing_free(engine);
    return 0;
}
