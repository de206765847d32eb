/* The order in which the primary's ops are applied here.
 *
 * The rule: ops of one inode in the order of their seqs; whatever touches names, or more than one inode, alone (everything before it is
 * finished, nothing after it has begun). What one op of the application saw finished before another began is so in that order too, because
 * a finished op has been acknowledged, and only finished ones are.
 *
 * Happy path: an op takes some microseconds, less than to wake another thread. So the receiver applies it itself. When ops have become slow
 * (a disk that must read before it writes, a journal that is full), they are handed to a few threads, one lane per inode, so that one slow
 * file does not hold up the others and the disk sees several requests at once; the receiver goes on receiving. `applied_seq` is the end of the
 * row without a gap: it is what is acknowledged, and from where a peer ships again after a short loss of the link. What was applied beyond a
 * gap is then applied again, which changes nothing: such ops are idempotent one by one, and come again in the same order.
 *
 * How it fails: the first op that cannot be applied stops its applier for good; what was not begun is dropped, and the link ends. */
#include "applier.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "link.h"

enum { LANES = 4, SLOW_NS = 200000, QUEUED_BYTES = 32 << 20 };

struct task {
    struct list lane, order;
    struct wire_header header;
    bool finished;
    uint8_t payload[];
};

struct applier {
    rfs_engine *engine;
    struct link *link;
    atomic_uint_fast64_t slow_ns, mean_ns; /* how long an op takes lately */

    pthread_mutex_t lock; /* all below */
    pthread_cond_t work, less; /* a task was queued; one was finished */
    struct list lanes[LANES];
    bool busy[LANES];       /* a thread is at the first task of the lane */
    struct list unfinished; /* all tasks, by seq; the first is not finished */
    size_t queued_bytes;
    bool stopping;
    int error;
    char reason[RFS_REASON_BYTES];
    uint32_t threads;
    pthread_t ids[LANES];
};

/* ---- one op --------------------------------------------------------------------------------------------------------------- */

static bool is_of_one_inode(uint16_t type) {
    switch (type) {
    case FRAME_WRITE:
    case FRAME_FSYNC:
    case FRAME_FALLOCATE:
    case FRAME_SET_ATTRIBUTES:
    case FRAME_SET_XATTR:
    case FRAME_REMOVE_XATTR:
    case FRAME_BLOCK:
    case FRAME_HASHES:
    case FRAME_SIZE:
    case FRAME_ATTRIBUTES:
    case FRAME_VERIFY_RANGE:
    case FRAME_VERIFY_ATTRIBUTES: return true;
    default: return false;
    }
}

/* Copying its bytes makes no op slow: a nanosecond for each is taken off. */
static void measure(struct applier *applier, uint64_t took_ns, uint32_t bytes) {
    uint64_t mean = atomic_load(&applier->mean_ns);
    took_ns -= took_ns < bytes ? took_ns : bytes;
    atomic_store(&applier->mean_ns, (7 * mean + took_ns) / 8); /* one lost among threads is no loss */
}

/* State is held shared: session, generation and role cannot change meanwhile. */
static int apply(struct applier *applier, const struct wire_header *header, const uint8_t *payload, char reason[RFS_REASON_BYTES]) {
    uint64_t began = now_ns();
    const char *why = "it makes no sense here";
    int result = apply_frame(applier->engine, applier->link, header, payload, &why);
    if (is_of_one_inode(header->type)) measure(applier, now_ns() - began, header->payload_bytes);
    if (result == -EUCLEAN) rfs_mark_everything(applier->engine); /* the copies are not what both believed: next time all is compared */
    if (result == -EPROTO) { /* the peer's fault, and nothing of this copy's: the link ends, and that is all */
        snprintf(reason, RFS_REASON_BYTES, "op %llu (type %u) of the peer's is refused: %s", (unsigned long long)header->seq, header->type, why);
    } else if (result < 0) {
        snprintf(reason, RFS_REASON_BYTES, "op %llu (type %u) cannot be applied here: %s", (unsigned long long)header->seq, header->type, strerror(-result));
        emit(applier->engine, RFS_EVENT_APPLY_FAILED, result, 0, "%s", reason);
    }
    return result;
}

/* ---- lanes ---------------------------------------------------------------------------------------------------------------- */

static size_t lane_of(uint64_t fid) { return (size_t)((fid * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % LANES; }
static size_t bytes_of(const struct task *task) { return sizeof *task + task->header.payload_bytes; }

/* Finished tasks at the head of the row leave it. True: the row has moved on, to a place that is acknowledged. */
static bool move_on(struct applier *applier) { /* lock */
    bool acknowledge = false;
    while (!list_empty(&applier->unfinished)) {
        struct task *task = ITEM(applier->unfinished.next, struct task, order);
        if (!task->finished) break;
        if (!applier->error) {
            atomic_store(&applier->engine->applied_seq, task->header.seq);
            acknowledge |= !(task->header.flags & FLAG_MORE);
        }
        list_remove(&task->order);
        applier->queued_bytes -= bytes_of(task);
        free(task);
    }
    pthread_cond_broadcast(&applier->less);
    return acknowledge;
}

static struct task *next_task(struct applier *applier, size_t *lane) { /* lock */
    for (*lane = 0; *lane < LANES; ++*lane)
        if (!applier->busy[*lane] && !list_empty(&applier->lanes[*lane])) return ITEM(applier->lanes[*lane].next, struct task, lane);
    return NULL;
}

enum { NOTHING, ACKNOWLEDGE, ACKNOWLEDGE_ALONE };

static int finish_task(struct applier *applier, struct task *task, size_t lane, int result, const char *reason) {
    pthread_mutex_lock(&applier->lock);
    list_remove(&task->lane);
    applier->busy[lane] = false;
    if (!list_empty(&applier->lanes[lane])) pthread_cond_signal(&applier->work);
    if (result < 0 && !applier->error) {
        applier->error = result;
        snprintf(applier->reason, sizeof applier->reason, "%s", reason);
        link_end(applier->link);
    }
    task->finished = true;
    bool alone = !applier->error && !(task->header.flags & FLAG_MORE);
    uint64_t seq = task->header.seq;
    int answer = move_on(applier) ? ACKNOWLEDGE : alone && seq > atomic_load(&applier->engine->applied_seq) ? ACKNOWLEDGE_ALONE : NOTHING;
    pthread_mutex_unlock(&applier->lock);
    return answer;
}

/* It is finished before state is released: no change of role comes between an op, whose sync may have been answered already, and its seq. */
static void run_task(struct applier *applier, struct task *task, size_t lane, bool wanted) {
    rfs_engine *engine = applier->engine;
    char reason[RFS_REASON_BYTES] = "this node is no target any more";
    uint64_t seq = task->header.seq;
    pthread_rwlock_rdlock(&engine->state);
    int result = !wanted ? 0 : engine->target ? apply(applier, &task->header, task->payload, reason) : -EPROTO;
    int answer = finish_task(applier, task, lane, result, reason);
    pthread_rwlock_unlock(&engine->state);
    if (answer == ACKNOWLEDGE) link_acknowledge(applier->link);
    if (answer == ACKNOWLEDGE_ALONE) link_acknowledge_alone(applier->link, seq);
}

static void *work(void *argument) {
    struct applier *applier = argument;
    size_t lane;
    pthread_mutex_lock(&applier->lock);
    for (;;) {
        struct task *task = next_task(applier, &lane);
        if (!task && applier->stopping) break;
        if (!task) {
            pthread_cond_wait(&applier->work, &applier->lock);
            continue;
        }
        applier->busy[lane] = true;
        bool wanted = !applier->error;
        pthread_mutex_unlock(&applier->lock);
        run_task(applier, task, lane, wanted);
        pthread_mutex_lock(&applier->lock);
    }
    pthread_mutex_unlock(&applier->lock);
    return NULL;
}

static int start_threads(struct applier *applier) { /* lock */
    while (applier->threads < LANES) {
        int result = -pthread_create(&applier->ids[applier->threads], NULL, work, applier);
        if (result < 0) return applier->threads ? 0 : result; /* fewer are only slower */
        applier->threads++;
    }
    return 0;
}

static int hand_over(struct applier *applier, const struct wire_header *header, const uint8_t *payload) {
    struct task *task = malloc(sizeof *task + header->payload_bytes);
    if (!task) return -ENOMEM;
    task->header = *header;
    task->finished = false;
    memcpy(task->payload, payload, header->payload_bytes);
    pthread_mutex_lock(&applier->lock);
    int result = start_threads(applier);
    if (result == 0) {
        list_append(&applier->lanes[lane_of(header->fid)], &task->lane);
        list_append(&applier->unfinished, &task->order);
        applier->queued_bytes += bytes_of(task);
        pthread_cond_signal(&applier->work);
    }
    pthread_mutex_unlock(&applier->lock);
    if (result < 0) free(task);
    return result;
}

/* Until no more than `bytes` are queued. */
static int wait_for_less(struct applier *applier, size_t bytes) {
    pthread_mutex_lock(&applier->lock);
    while (applier->queued_bytes > bytes) pthread_cond_wait(&applier->less, &applier->lock);
    int result = applier->error;
    pthread_mutex_unlock(&applier->lock);
    return result;
}

static bool is_idle(struct applier *applier) {
    pthread_mutex_lock(&applier->lock);
    bool idle = list_empty(&applier->unfinished);
    pthread_mutex_unlock(&applier->lock);
    return idle;
}

/* ---- the receiver's side ---------------------------------------------------------------------------------------------------- */

static int check(const rfs_engine *engine, const struct wire_header *header, char reason[RFS_REASON_BYTES]) { /* state */
    uint64_t received = atomic_load(&engine->received_seq);
    if (engine->target && header->generation == engine->session.generation && header->seq <= received + 1) return 0;
    snprintf(reason, RFS_REASON_BYTES, "op %llu of generation %llx does not follow op %llu here", (unsigned long long)header->seq,
             (unsigned long long)header->generation, (unsigned long long)received);
    return -EPROTO;
}

/* Shipped again after a short loss of the link: applied once, but a sync is answered again. */
static bool is_again(const rfs_engine *engine, const struct wire_header *header) { return header->seq <= atomic_load(&engine->received_seq); }

static int apply_here(struct applier *applier, const struct wire_header *header, const uint8_t *payload, char *reason) { /* state */
    rfs_engine *engine = applier->engine;
    int result = apply(applier, header, payload, reason);
    if (result < 0) return result;
    atomic_store(&engine->received_seq, header->seq);
    atomic_store(&engine->applied_seq, header->seq);
    if (header->type == FRAME_END) emit(engine, RFS_EVENT_END_RECEIVED, 0, 0, "%s", "");
    return 0;
}

int applier_take(struct applier *applier, const struct wire_header *header, const uint8_t *payload, char reason[RFS_REASON_BYTES]) {
    rfs_engine *engine = applier->engine;
    bool apart = is_of_one_inode(header->type) && (atomic_load(&applier->mean_ns) >= atomic_load(&applier->slow_ns) || !is_idle(applier));
    /* No lock is held in this wait: the lanes' threads need `state`, which prefers a transition that may be waiting for us. */
    int result = wait_for_less(applier, apart ? QUEUED_BYTES : 0);
    if (result < 0) return applier_error(applier, reason);
    if (header->flags & FLAG_DURABLE) wait_for_peer_syncs(engine);
    pthread_rwlock_rdlock(&engine->state);
    result = check(engine, header, reason);
    if (result == 0 && is_again(engine, header)) {
        result = apply_again(engine, applier->link, header);
    } else if (result == 0 && apart) {
        result = hand_over(applier, header, payload);
        if (result == 0) atomic_store(&engine->received_seq, header->seq);
        if (result < 0) snprintf(reason, RFS_REASON_BYTES, "op %llu cannot be kept here: %s", (unsigned long long)header->seq, strerror(-result));
        else result = 1;
    } else if (result == 0) {
        result = apply_here(applier, header, payload, reason);
    }
    pthread_rwlock_unlock(&engine->state);
    return result;
}

int applier_error(struct applier *applier, char reason[RFS_REASON_BYTES]) {
    pthread_mutex_lock(&applier->lock);
    int error = applier->error;
    if (error) memcpy(reason, applier->reason, RFS_REASON_BYTES);
    pthread_mutex_unlock(&applier->lock);
    return error;
}

void applier_set_slow_ns(struct applier *applier, uint64_t slow_ns) { atomic_store(&applier->slow_ns, slow_ns); }

/* ---- life ----------------------------------------------------------------------------------------------------------------- */

struct applier *applier_new(rfs_engine *engine, struct link *link) {
    struct applier *applier = calloc(1, sizeof *applier);
    if (!applier) return NULL;
    applier->engine = engine;
    applier->link = link;
    atomic_store(&applier->slow_ns, SLOW_NS);
    pthread_mutex_init(&applier->lock, NULL);
    pthread_cond_init(&applier->work, NULL);
    pthread_cond_init(&applier->less, NULL);
    for (int i = 0; i < LANES; i++) list_init(&applier->lanes[i]);
    list_init(&applier->unfinished);
    return applier;
}

void applier_free(struct applier *applier) {
    if (!applier) return;
    pthread_mutex_lock(&applier->lock);
    applier->stopping = true;
    pthread_cond_broadcast(&applier->work);
    pthread_mutex_unlock(&applier->lock);
    while (applier->threads) pthread_join(applier->ids[--applier->threads], NULL);
    pthread_mutex_destroy(&applier->lock);
    pthread_cond_destroy(&applier->work);
    pthread_cond_destroy(&applier->less);
    free(applier);
}
