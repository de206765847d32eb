/* The one choke point: every mutation passes through mirror_submit() and gets exactly one verdict, "mirrored" (the peer
 * acknowledged it) or "marked" (the peer lacks it and that is known).
 *
 * Happy path: under the lock that orders it (names, or the inode's stripe) an op is applied locally, gets the next seq and
 * joins the outgoing frames; the thread returns to the kernel for the next request. The acknowledgement, on the link's
 * thread, gives the answer. Nobody sleeps for the network, so reads always find a thread.
 *
 * When the link is lost the mode becomes FROZEN under the state lock: ops that were shipped keep waiting in `pending`, new
 * ones in `parked`. Exactly one of rfs_grant (they become "marked"), rfs_fence (they fail), rfs_session_resume (they are
 * shipped again) or rfs_session_source (a session with a resync: "marked", the walk will carry them) follows.
 *
 * The mark of an op is durable before it is done in any case (marker.c), so "marked" needs no I/O when it comes to that. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "filter.h"
#include "link.h"
#include "marker.h"
#include "op.h"
#include "steps.h"
#include "walk.h"

static const uint64_t LEASE_NS = 3 * (uint64_t)NS_PER_S;
static const uint64_t USED_NS = 20000000; /* an application that was silent for so long does not wait for us */
enum {
    PARKED_RETRY_MS = 100,
    APPLY_TIMEOUT_US = 5000000, /* an op that is not applied for so long means a hanging disk */
};

/* ---- shipping ---------------------------------------------------------------------------------------------------------------- */

/* Under state (shared) and the op's ordering lock. After this a non-durable op may be answered and freed at any time. */
static uint64_t enqueue(rfs_engine *engine, struct op *op) {
    struct mirror *mirror = &engine->mirror;
    pthread_mutex_lock(&mirror->lock);
    uint64_t seq = op->frame.header.seq = ++mirror->seq;
    op->shipped = true;
    op->sent_ns = now_ns();
    list_append(op->durable ? &mirror->syncing : &mirror->pending, &op->item);
    mirror->in_flight_ops++;
    mirror->in_flight_frames += !is_asked_for(op);
    mirror->in_flight_bytes += op_weight(op);
    link_append(engine->link, &op->frame);
    pthread_mutex_unlock(&mirror->lock);
    return seq;
}

uint64_t mirror_ship(rfs_engine *engine, struct op *op) {
    if (op_encode(engine, op) < 0) abort(); /* the peer could never be told */
    if (engine->mode == RFS_RESYNCING) atomic_fetch_add(&engine->count.resync_sent_bytes, WIRE_HEADER_BYTES + (uint64_t)op->frame.header.payload_bytes);
    uint64_t seq = enqueue(engine, op);
    STEP("resync-shipped");
    return seq;
}

/* ---- answers ------------------------------------------------------------------------------------------------------------------ */

void mirror_leave_flight(struct mirror *mirror, struct op *op) {
    list_remove(&op->item);
    if (!op->shipped) return;
    mirror->in_flight_ops--;
    mirror->in_flight_frames -= !is_asked_for(op);
    mirror->in_flight_bytes -= op_weight(op);
}

void mirror_complete_demotion(rfs_engine *engine) {
    struct mirror *mirror = &engine->mirror;
    if (!mirror->demote_ticket || !list_empty(&mirror->pending) || !list_empty(&mirror->syncing)) return;
    emit(engine, RFS_EVENT_TICKET, 0, mirror->demote_ticket, "%s", "");
    mirror->demote_ticket = 0;
}

static void tell_watchers(struct mirror *mirror) { /* mirror.lock */
    if (mirror->watchers) pthread_cond_broadcast(&mirror->changed);
}

/* Answers are given outside the lock; `answering` lets the kernel connection outlive them. */
void mirror_unlock_and_answer(rfs_engine *engine, struct list *done) {
    struct mirror *mirror = &engine->mirror;
    mirror->answering++;
    tell_watchers(mirror);
    pthread_mutex_unlock(&mirror->lock);
    while (!list_empty(done)) {
        struct op *op = ITEM(done->next, struct op, item);
        list_remove(&op->item);
        op_answer(engine, op);
    }
    pthread_mutex_lock(&mirror->lock);
    mirror->answering--;
    tell_watchers(mirror);
    pthread_mutex_unlock(&mirror->lock);
}

/* Until nothing refers to the kernel connection any more. The waiting ops have been failed before. */
void mirror_quiesce(rfs_engine *engine) {
    struct mirror *mirror = &engine->mirror;
    pthread_mutex_lock(&mirror->lock);
    mirror->watchers++;
    while (!list_empty(&mirror->pending) || !list_empty(&mirror->syncing) || !list_empty(&mirror->parked) || mirror->resuming || mirror->answering || marker_waiting_ops(engine))
        pthread_cond_wait(&mirror->changed, &mirror->lock);
    mirror->watchers--;
    pthread_mutex_unlock(&mirror->lock);
}

/* ---- durability: both disks at once ------------------------------------------------------------------------------------------- */

static void poison(rfs_engine *engine, int error, const char *what) {
    if (!atomic_exchange(&engine->failed, true)) emit(engine, RFS_EVENT_LOCAL_FAILED, error, 0, "%s: %s", what, strerror(-error));
}

/* The application has waited for it. mirror.lock */
static void hear_of(rfs_engine *engine, const struct op *op, enum governed kind, uint64_t now) {
    if (engine->mode == RFS_RESYNCING && op->shipped && op->type <= FRAME_LAST_OP) governor_hear(&engine->mirror.governor, kind, now - op->sent_ns);
}

static void finish_durable(rfs_engine *engine, struct op *op) { /* mirror.lock; releases it */
    struct list done;
    list_init(&done);
    if (op->synced_here && (op->synced_there || !op->shipped)) {
        hear_of(engine, op, GOVERNED_SYNC, now_ns());
        mirror_leave_flight(&engine->mirror, op);
        list_append(&done, &op->item);
        if (op->sync_result < 0) op->result = op->sync_result;
    }
    mirror_complete_demotion(engine);
    mirror_unlock_and_answer(engine, &done);
}

static void sync_here(rfs_engine *engine, struct job *job) {
    struct op *op = ITEM(job, struct op, job);
    int result = (op->data_only ? fdatasync(op->sync_fd) : fsync(op->sync_fd)) < 0 ? -errno : 0;
    if (result < 0 && result != -EROFS && result != -EINVAL) poison(engine, result, "fsync failed");
    if (atomic_load(&engine->failed)) result = -EIO; /* an error once seen never becomes a success */
    STEP("sync-done-here");
    pthread_mutex_lock(&engine->mirror.lock);
    op->synced_here = true;
    op->sync_result = result;
    finish_durable(engine, op);
}

/* ---- execution ------------------------------------------------------------------------------------------------------------------ */

static int apply_locally(rfs_engine *engine, struct op *op) {
    switch (op->type) {
    case FRAME_WRITE: return local_write(engine, op, false);
    case FRAME_FALLOCATE: return local_fallocate(engine, op, false);
    case FRAME_COPY: return local_copy(engine, op, false);
    case FRAME_SET_ATTRIBUTES: return local_set_attributes(engine, op, false);
    case FRAME_SET_XATTR:
    case FRAME_REMOVE_XATTR: return local_set_xattr(engine, op, false);
    case FRAME_LINK: return local_link(engine, op, false);
    case FRAME_UNLINK:
    case FRAME_RMDIR: return local_remove(engine, op, false);
    case FRAME_RENAME: return local_rename(engine, op, false);
    case FRAME_FSYNC: return 0;
    default: return local_make(engine, op, false);
    }
}

static bool is_shipped(rfs_engine *engine, struct op *op) {
    if (is_namespace_op(op->type) ? op->local : inode_is_local(op->inode)) return false;
    switch (atomic_load(&engine->mode)) {
    case RFS_ALONE: return false;
    case RFS_PAIRED:
        if (is_namespace_op(op->type)) walk_learnt(engine, op);
        return is_namespace_op(op->type) || !op->inode->orphan;
    case RFS_RESYNCING:
        if (is_namespace_op(op->type)) return walk_ships(engine, op);
        return !op->inode->orphan && (resync_flags(engine, op->inode) & BOUND || walk_keeps(engine, op));
    default: assert(!"an op is executed in a mode that serves"); return false;
    }
}

/* ---- a large write goes in pieces: the peer opens and applies one while the next is written here ---------------------------------- */

static bool goes_in_pieces(const rfs_engine *engine, const struct op *op) {
    return op->type == FRAME_WRITE && op->body.data_bytes > PIECE_BYTES && !op->durable && engine->mode == RFS_PAIRED && !op->inode->orphan && !inode_is_local(op->inode);
}

/* The next PIECE_BYTES of the op, applied here. It borrows the op's bytes: the op is the last piece, and acknowledged after all others. */
static int write_piece(rfs_engine *engine, const struct op *op, struct op **out) {
    struct op *piece = op_new(FRAME_WRITE);
    if (!piece) return -ENOMEM;
    piece->body = (struct op_body){.fid = op->body.fid, .offset = op->body.offset, .length = PIECE_BYTES, .data_bytes = PIECE_BYTES};
    piece->data = op->data;
    piece->data_skip = op->data_skip;
    piece->borrows = true;
    piece->file = op->file;
    piece->frame.header.flags = FLAG_MORE;
    int result = local_write(engine, piece, false);
    if (result == 0 && piece->result < 0) result = piece->result; /* nothing of it was written; the op itself will say what that changed */
    if (result == 0) *out = piece;
    else op_free(engine, piece);
    return result;
}

static void advance(struct op *op, uint32_t bytes) {
    op->body.offset += bytes;
    op->body.length -= bytes;
    op->body.data_bytes -= bytes;
    op->data_skip += bytes;
}

/* What cannot be written any more makes the answer shorter, as on a plain file; the op's own frame is an empty write then. */
static int apply_in_pieces(rfs_engine *engine, struct op *op) {
    uint32_t before = 0;
    int result = 0;
    for (bool whole = true; whole && op->body.data_bytes > PIECE_BYTES;) {
        struct op *piece = NULL;
        result = write_piece(engine, op, &piece);
        if (result < 0) break;
        whole = piece->body.data_bytes == PIECE_BYTES;
        before += piece->body.data_bytes;
        op->body.mtime_ns = piece->body.mtime_ns;
        advance(op, piece->body.data_bytes);
        if (!whole) result = -ENOSPC;
        if (op_encode(engine, piece) < 0) abort(); /* as in execute() */
        enqueue(engine, piece);
        link_flush(engine->link);
    }
    if (result == 0 || result == -ENOSPC || result == -EDQUOT) result = local_write(engine, op, false);
    if (before) op->result = 0;
    if (result < 0 && before) {
        op->body.length = op->body.data_bytes = op->reply_bytes = 0;
        result = 0;
    }
    op->reply_bytes += before;
    return result;
}

/* ---- execution, again ------------------------------------------------------------------------------------------------------------- */

static int prepare_sync(rfs_engine *engine, struct op *op) {
    if (!op->durable || op->sync_fd >= 0) return 0;
    int fd = op->file ? fcntl(file_fd(op->file), F_DUPFD_CLOEXEC, 3) : inode_open(engine, op->inode, O_RDONLY | O_NONBLOCK);
    if (fd < 0) return op->file ? -errno : fd;
    op->sync_fd = fd;
    return 0;
}

/* A copy travels without its bytes, so the peer must have the source, as it is here. Elsewhere the kernel reads and writes. */
static bool may_copy(const rfs_engine *engine, const struct op *op) {
    if (inode_is_local(op->source) && !inode_is_local(op->inode)) return false;
    return engine->mode == RFS_ALONE || (engine->mode == RFS_PAIRED && !op->source->orphan && !op->inode->orphan);
}

/* Part of it may be done here, and the peer knows of none. A whole copy over there goes on instead of this one; one that is being made is
 * compared anew; and if this is the only one, the application hears of the error as on any disk. */
static void change_failed(rfs_engine *engine, int error) {
    if (engine->mode == RFS_PAIRED) poison(engine, error, "a change failed");
    else if (engine->mode == RFS_RESYNCING && engine->link) link_end(engine->link);
}

/* State is held shared and the mode serves. */
static void execute(rfs_engine *engine, struct op *op) {
    bool of_names = is_namespace_op(op->type);
    pthread_mutex_t *order = of_names ? &engine->names : inode_stripe(engine, op->body.fid), *second = NULL;
    if (!of_names && !op->inode) op->inode = inode_get(engine, op->body.fid);
    int result = !of_names && !op->inode ? -ESTALE : prepare_sync(engine, op);
    bool durable = op->durable, answered_later = false;
    if (op->type == FRAME_COPY) {
        if (!op->source) op->source = inode_get(engine, op->body.other);
        if (result == 0 && !op->source) result = -ESTALE;
        second = inode_stripe(engine, op->body.other);
    }
    uint32_t untold = of_names ? 0 : walk_bind(engine, op->inode);
    if (op->source) untold += walk_bind(engine, op->source);
    lock_two(order, second);
    if (of_names) walk_bind_names(engine, op);
    else if (result == 0 && marker_must_admit(engine, op)) result = -ERESTART;
    if (result == 0 && op->type == FRAME_COPY && !may_copy(engine, op)) result = -EOPNOTSUPP;
    if (result == 0) result = goes_in_pieces(engine, op) ? apply_in_pieces(engine, op) : apply_locally(engine, op);
    if (result == -EIO || result == -EROFS) change_failed(engine, result);
    if (result == 0 && is_shipped(engine, op)) {
        STEP("op-applied");
        if (op_encode(engine, op) < 0) abort(); /* applied here, and the peer could never be told */
        enqueue(engine, op);
        STEP("op-enqueued");
        answered_later = true;
    } else if (result == 0 && durable) {
        pthread_mutex_lock(&engine->mirror.lock);
        list_append(&engine->mirror.syncing, &op->item);
        pthread_mutex_unlock(&engine->mirror.lock);
        answered_later = true;
    }
    unlock_two(order, second);
    walk_left(engine, untold);
    if (result == -ERESTART) { /* it has to mark more: see judge_crossing(), and marker_must_admit() */
        marker_admit_again(engine, op);
        return;
    }
    if (answered_later && durable) {
        op->job.run = sync_here;
        submit_job(engine, &op->job);
    }
    if (engine->link) link_flush(engine->link);
    if (answered_later) return;
    if (result < 0) op->result = result; /* else it stands: a change in part, whose error the application hears */
    op_answer(engine, op);
}

/* ---- admission -------------------------------------------------------------------------------------------------------------- */

enum admission { GO, WAIT, REFUSE };

static enum admission admit(rfs_engine *engine, int *error) {
    *error = -EIO;
    if (atomic_load(&engine->failed) || engine->mode == RFS_FENCED) return REFUSE;
    *error = -EROFS;
    if (engine->demoting) return REFUSE;
    switch (atomic_load(&engine->mode)) {
    case RFS_IDLE: return REFUSE;
    case RFS_FROZEN:
    case RFS_UNUSED: return WAIT;
    case RFS_ALONE: return GO;
    default: break;
    }
    const struct mirror *mirror = &engine->mirror;
    return mirror->in_flight_ops - mirror->in_flight_frames < WINDOW_OPS && mirror->in_flight_bytes < WINDOW_BYTES ? GO : WAIT;
}

void mirror_park(rfs_engine *engine, struct op *op) {
    struct mirror *mirror = &engine->mirror;
    pthread_mutex_lock(&mirror->lock);
    list_append(&mirror->parked, &op->item);
    pthread_cond_signal(&mirror->arrived);
    pthread_mutex_unlock(&mirror->lock);
}

static void ask_for_used(rfs_engine *engine) {
    pthread_mutex_lock(&engine->mirror.lock);
    bool first = !engine->mirror.need_used_raised;
    engine->mirror.need_used_raised = true;
    pthread_mutex_unlock(&engine->mirror.lock);
    if (first) emit(engine, RFS_EVENT_NEED_USED, 0, 0, "%s", "");
}

/* 1: taken (executed, answered, or waiting for its mark); 0: it must wait. State is held shared. */
static int attempt(rfs_engine *engine, struct op *op) {
    int error;
    if (op->type == FRAME_READ && engine->mode != RFS_FENCED) { /* the lease has been looked at; a role is nothing to a read */
        serve_parked_read(engine, op);
        return 1;
    }
    pthread_mutex_lock(&engine->mirror.lock);
    enum admission admission = admit(engine, &error);
    pthread_mutex_unlock(&engine->mirror.lock);
    if (engine->mode == RFS_UNUSED && admission == WAIT) ask_for_used(engine);
    if (admission == WAIT) return 0;
    if (admission == REFUSE) {
        op->result = error;
        op_answer(engine, op);
    } else if (marker_admit(engine, op)) {
        execute(engine, op);
    }
    return 1;
}

void mirror_go_on(rfs_engine *engine, struct op *op) {
    pthread_rwlock_rdlock(&engine->state);
    if (!attempt(engine, op)) mirror_park(engine, op);
    pthread_rwlock_unlock(&engine->state);
}

void mirror_submit(rfs_engine *engine, struct op *op) {
    if (op->type != FRAME_READ) atomic_store_explicit(&engine->last_op_ns, op->sent_ns, memory_order_relaxed);
    pthread_rwlock_rdlock(&engine->state);
    pthread_mutex_lock(&engine->mirror.lock);
    bool queue = !list_empty(&engine->mirror.parked) || engine->mirror.resuming; /* no overtaking */
    pthread_mutex_unlock(&engine->mirror.lock);
    if (queue || !attempt(engine, op)) mirror_park(engine, op);
    pthread_rwlock_unlock(&engine->state);
}

bool mirror_may_read(rfs_engine *engine) {
    enum rfs_mode mode = engine->mode; /* unlocked on purpose: a reader must not wait; the lease is the rule, this the shortcut */
    if (mode == RFS_ALONE || mode == RFS_UNUSED || mode == RFS_IDLE) return true;
    if (mode == RFS_FENCED) return false; /* it will be told EIO */
    uint64_t heard = atomic_load(&engine->last_heard_ns);
    return now_ns() - heard < LEASE_NS;
}

static bool wait_for_change(struct mirror *mirror, unsigned milliseconds) { /* mirror.lock */
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until = to_timespec(until.tv_sec * NS_PER_S + until.tv_nsec + (int64_t)milliseconds * 1000000);
    mirror->watchers++;
    bool told = pthread_cond_timedwait(&mirror->changed, &mirror->lock, &until) == 0;
    mirror->watchers--;
    return told;
}

static bool take_parked(rfs_engine *engine, struct op *op) {
    bool taken;
    pthread_rwlock_rdlock(&engine->state);
    taken = (op->type != FRAME_READ || mirror_may_read(engine) || engine->mode == RFS_FENCED) && attempt(engine, op);
    pthread_rwlock_unlock(&engine->state);
    return taken;
}

/* The thread that starts parked ops again, in their order, when the mode or the window lets them. */
static void *resume_parked(void *argument) {
    rfs_engine *engine = argument;
    struct mirror *mirror = &engine->mirror;
    pthread_mutex_lock(&mirror->lock);
    while (!engine->stopping) {
        if (list_empty(&mirror->parked)) {
            pthread_cond_wait(&mirror->arrived, &mirror->lock);
            continue;
        }
        struct op *op = ITEM(mirror->parked.next, struct op, item);
        list_remove(&op->item);
        mirror->resuming = true;
        pthread_mutex_unlock(&mirror->lock);
        bool taken = take_parked(engine, op);
        pthread_mutex_lock(&mirror->lock);
        mirror->resuming = false;
        tell_watchers(mirror);
        if (taken) continue;
        list_append(mirror->parked.next, &op->item); /* back to the head */
        wait_for_change(mirror, PARKED_RETRY_MS);
    }
    pthread_mutex_unlock(&mirror->lock);
    return NULL;
}

/* ---- verdicts ------------------------------------------------------------------------------------------------------------------ */

int mirror_acknowledged(rfs_engine *engine, uint64_t seq) {
    struct mirror *mirror = &engine->mirror;
    struct list done;
    list_init(&done);
    pthread_mutex_lock(&mirror->lock);
    uint64_t now = now_ns();
    int result = seq > mirror->seq ? -EPROTO : 0;
    while (result == 0 && !list_empty(&mirror->pending)) {
        struct op *op = ITEM(mirror->pending.next, struct op, item);
        if (op->frame.header.seq > seq) break;
        if (op->frame.header.seq == seq) {
            uint64_t rtt = (now - op->sent_ns) / 1000;
            mirror->rtt_us = mirror->rtt_us ? (mirror->rtt_us * 7 + rtt) / 8 : rtt;
        }
        hear_of(engine, op, GOVERNED_OP, now);
        mirror_leave_flight(mirror, op);
        list_append(&done, &op->item);
    }
    if (result == 0 && seq > mirror->acked_seq) mirror->acked_seq = seq;
    if (!list_empty(&done)) STEP("op-acknowledged");
    mirror_complete_demotion(engine);
    mirror_unlock_and_answer(engine, &done);
    return result;
}

static struct op *find_pending(const struct mirror *mirror, uint64_t seq) { /* mirror.lock */
    for (struct list *at = mirror->pending.next; at != &mirror->pending; at = at->next) {
        struct op *op = ITEM(at, struct op, item);
        if (op->frame.header.seq >= seq) return op->frame.header.seq == seq ? op : NULL;
    }
    return NULL;
}

/* The pieces of a write that borrow its bytes are applied when it is: they have its inode, whose ops keep their order. */
int mirror_acknowledged_alone(rfs_engine *engine, uint64_t seq) {
    struct mirror *mirror = &engine->mirror;
    struct list done;
    list_init(&done);
    pthread_mutex_lock(&mirror->lock);
    struct op *last = find_pending(mirror, seq);
    if (seq > mirror->alone_seq) mirror->alone_seq = seq;
    if (last) {
        for (struct list *at = mirror->pending.next, *next; at != &last->item; at = next) {
            struct op *op = ITEM(at, struct op, item);
            next = at->next;
            if (!op->borrows || op->data != last->data) continue;
            mirror_leave_flight(mirror, op);
            list_append(&done, &op->item);
        }
        mirror_leave_flight(mirror, last);
        list_append(&done, &last->item);
    }
    mirror_complete_demotion(engine);
    mirror_unlock_and_answer(engine, &done);
    return 0;
}

int mirror_synced(rfs_engine *engine, uint64_t seq) {
    struct mirror *mirror = &engine->mirror;
    pthread_mutex_lock(&mirror->lock);
    for (struct list *at = mirror->syncing.next; at != &mirror->syncing; at = at->next) {
        struct op *op = ITEM(at, struct op, item);
        if (!op->shipped || op->frame.header.seq != seq) continue;
        op->synced_there = true;
        if (!list_empty(&mirror->pending) && ITEM(mirror->pending.next, struct op, item)->frame.header.seq < seq && seq > mirror->alone_seq) mirror->alone_seq = seq;
        finish_durable(engine, op);
        return 0;
    }
    pthread_mutex_unlock(&mirror->lock);
    return -EPROTO;
}

int mirror_check_deadlines(rfs_engine *engine, const rfs_session *session, char reason[RFS_REASON_BYTES]) {
    struct mirror *mirror = &engine->mirror;
    uint64_t limit_ns = 0, sync_ns = session->fsync_timeout_us * 1000;
    uint64_t apply_ns = session->progress_timeout_us > APPLY_TIMEOUT_US ? session->progress_timeout_us * 1000 : (uint64_t)APPLY_TIMEOUT_US * 1000;
    if (session->ack_disk && apply_ns < sync_ns) apply_ns = sync_ns;
    pthread_mutex_lock(&mirror->lock);
    uint64_t now = now_ns(); /* under the lock: no op has been sent after it */
    if (!list_empty(&mirror->pending) && now - ITEM(mirror->pending.next, struct op, item)->sent_ns > apply_ns) limit_ns = apply_ns;
    if (!list_empty(&mirror->syncing)) {
        const struct op *op = ITEM(mirror->syncing.next, struct op, item);
        if (op->shipped && !op->synced_there && now - op->sent_ns > sync_ns) limit_ns = sync_ns;
    }
    pthread_mutex_unlock(&mirror->lock);
    if (!limit_ns) return 0;
    snprintf(reason, RFS_REASON_BYTES, "the peer has not acknowledged an op for %llu ms", (unsigned long long)limit_ns / 1000000);
    return -ETIMEDOUT;
}

/* The waiting ops become "marked": answered, a fsync once this disk has it. State is held exclusively. */
void mirror_mark_waiting(rfs_engine *engine) {
    struct mirror *mirror = &engine->mirror;
    struct list done;
    list_init(&done);
    pthread_mutex_lock(&mirror->lock);
    mirror->alone_seq = 0; /* nothing of before is shipped again */
    while (!list_empty(&mirror->pending)) {
        struct op *op = ITEM(mirror->pending.next, struct op, item);
        mirror_leave_flight(mirror, op);
        op->shipped = false;
        list_append(&done, &op->item);
    }
    for (struct list *at = mirror->syncing.next, *next; at != &mirror->syncing; at = next) {
        struct op *op = ITEM(at, struct op, item);
        next = at->next;
        mirror_leave_flight(mirror, op);
        op->shipped = false;
        list_append(op->synced_here ? &done : next, &op->item); /* the others stay where they were */
        if (op->synced_here && op->sync_result < 0) op->result = op->sync_result;
    }
    mirror_unlock_and_answer(engine, &done);
}

void mirror_fail_waiting(rfs_engine *engine, int error) {
    struct mirror *mirror = &engine->mirror;
    struct list done;
    list_init(&done);
    pthread_mutex_lock(&mirror->lock);
    if (engine->link && mirror->in_flight_ops) link_abandon(engine->link); /* its queue refers to them */
    struct list *const lists[] = {&mirror->pending, &mirror->parked};
    for (int i = 0; i < 2; i++)
        while (!list_empty(lists[i])) {
            struct op *op = ITEM(lists[i]->next, struct op, item);
            mirror_leave_flight(mirror, op);
            op->result = error;
            list_append(&done, &op->item);
        }
    for (struct list *at = mirror->syncing.next, *next; at != &mirror->syncing; at = next) {
        struct op *op = ITEM(at, struct op, item);
        next = at->next;
        mirror_leave_flight(mirror, op);
        op->shipped = false;
        op->result = error;
        op->sync_result = error;
        list_append(op->synced_here ? &done : next, &op->item); /* the others when their local sync returns */
    }
    mirror_unlock_and_answer(engine, &done);
}

void mirror_wake(rfs_engine *engine) {
    pthread_mutex_lock(&engine->mirror.lock);
    tell_watchers(&engine->mirror);
    pthread_mutex_unlock(&engine->mirror.lock);
}

static bool is_used(rfs_engine *engine) { return now_ns() - atomic_load_explicit(&engine->last_op_ns, memory_order_relaxed) < USED_NS; }

static uint64_t credit_bytes(rfs_engine *engine) { return is_used(engine) ? WALK_BYTES_BESIDE_OPS : WALK_BYTES_IN_FLIGHT; }

bool mirror_has_credit(rfs_engine *engine) {
    if (is_used(engine)) return false;
    pthread_mutex_lock(&engine->mirror.lock);
    bool has = engine->mirror.in_flight_bytes <= WALK_BYTES_IN_FLIGHT + WALK_BYTES_IN_FLIGHT / 4;
    pthread_mutex_unlock(&engine->mirror.lock);
    return has;
}

bool mirror_wait_credit(rfs_engine *engine, const atomic_bool *stop) {
    struct mirror *mirror = &engine->mirror;
    pthread_mutex_lock(&mirror->lock);
    while (mirror->in_flight_bytes > credit_bytes(engine) && !atomic_load(stop)) wait_for_change(mirror, PARKED_RETRY_MS);
    pthread_mutex_unlock(&mirror->lock);
    return !atomic_load(stop);
}

uint64_t mirror_walk_rate(rfs_engine *engine) {
    if (!is_used(engine)) return 0;
    pthread_mutex_lock(&engine->mirror.lock);
    uint64_t rate = governor_judge(&engine->mirror.governor, now_ns());
    pthread_mutex_unlock(&engine->mirror.lock);
    return rate;
}

bool mirror_wait_acknowledged(rfs_engine *engine, uint64_t seq, const atomic_bool *stop) {
    struct mirror *mirror = &engine->mirror;
    pthread_mutex_lock(&mirror->lock);
    while (mirror->acked_seq < seq && engine->mode == RFS_PAIRED && !atomic_load(stop)) wait_for_change(mirror, PARKED_RETRY_MS);
    bool acknowledged = mirror->acked_seq >= seq;
    pthread_mutex_unlock(&mirror->lock);
    return acknowledged && !atomic_load(stop);
}

bool mirror_is_waiting(rfs_engine *engine) {
    pthread_mutex_lock(&engine->mirror.lock);
    bool waiting = !list_empty(&engine->mirror.pending) || !list_empty(&engine->mirror.syncing);
    pthread_mutex_unlock(&engine->mirror.lock);
    return waiting;
}

bool mirror_lone_ops_answered(rfs_engine *engine) {
    bool answered = true;
    pthread_mutex_lock(&engine->mirror.lock);
    for (struct list *at = engine->mirror.syncing.next; at != &engine->mirror.syncing; at = at->next) answered &= ITEM(at, struct op, item)->shipped;
    pthread_mutex_unlock(&engine->mirror.lock);
    return answered;
}

/* ---- life ------------------------------------------------------------------------------------------------------------------------ */

int mirror_start(rfs_engine *engine) {
    struct mirror *mirror = &engine->mirror;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&mirror->lock, NULL);
    pthread_cond_init(&mirror->changed, &attributes);
    pthread_cond_init(&mirror->arrived, &attributes);
    pthread_condattr_destroy(&attributes);
    list_init(&mirror->pending);
    list_init(&mirror->syncing);
    list_init(&mirror->parked);
    int result = -pthread_create(&engine->parked_thread, NULL, resume_parked, engine);
    engine->mirror_started = result == 0;
    return result;
}

void mirror_stop(rfs_engine *engine) {
    if (!engine->mirror_started) return;
    rfs_fence(engine);
    pthread_mutex_lock(&engine->mirror.lock);
    engine->stopping = true;
    tell_watchers(&engine->mirror);
    pthread_cond_signal(&engine->mirror.arrived);
    pthread_mutex_unlock(&engine->mirror.lock);
    pthread_join(engine->parked_thread, NULL);
}
