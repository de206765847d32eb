/* Marks and ops meet here. An op whose places are all hot goes on at once: a look into a table. One that comes to a cold place waits in
 * `waiting` while the marker's thread notes all such places in one batch and makes it durable; then it is attempted again. No thread of the kernel's
 * waits for the log.
 *
 * A checkpoint has three parts. rfs_submit_checkpoint() turns the page: ops that come now belong to the next one; the ticket completes
 * when those of before are answered (they are applied on both nodes then). The caller syncs both nodes and makes `base` durable. rfs_end_checkpoint()
 * drops what was not touched since the page was turned and writes the rest into the log's other file.
 *
 * How it fails. No space for the log: one record that always has room marks everything. A log that cannot be written at all makes the copy
 * FAILED, as any disk that lies. */
#include "marker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "intent_log.h"
#include "link.h"
#include "op.h"
#include "steps.h"

enum {
    ROOM_STEP_BYTES = 1 << 20, /* written in advance, so that a batch needs no space and its sync no metadata */
    RESERVE_BYTES = 4096,      /* for the record that marks everything */
    AHEAD_CHUNKS = 8,          /* marked with the one that a writer in sequence comes to */
    MOST_PLACES = 6,
    COUNTED_FOR = 50,          /* times as long as it took: ops wait for the lock meanwhile */
    MOST_INODES = 4 << 20,     /* beyond that everything is marked: about 1 GiB of memory */
};

struct marker {
    rfs_engine *engine;
    pthread_t thread;

    pthread_mutex_t io; /* the log and its files */
    rfs_log *log;
    int fd[LOG_FILES];
    uint64_t room_bytes[LOG_FILES];

    pthread_mutex_t lock; /* the marks and all below; taken inside `io` */
    pthread_cond_t work;
    rfs_marks *marks;
    struct list waiting; /* ops that come to a cold place */
    uint64_t waiting_ops;
    uint32_t page;        /* 0 or 1: of the ops that come now */
    uint64_t in_flight[2];
    uint64_t checkpoint, ticket; /* its number, while one runs; the ticket while its ops are waited for */
    rfs_marks_count counted; /* good enough until then */
    uint64_t counted_until_ns;
    bool stopping;
};

/* ---- places ------------------------------------------------------------------------------------------------------------------------ */

static uint64_t grains_of(uint64_t index, uint64_t offset, uint64_t end) {
    uint64_t start = index * MARK_CHUNK_BYTES, first = offset > start ? offset - start : 0;
    uint64_t last = end - start < MARK_CHUNK_BYTES ? end - start - 1 : MARK_CHUNK_BYTES - 1;
    first /= MARK_GRAIN_BYTES;
    last /= MARK_GRAIN_BYTES;
    return (UINT64_MAX >> (63 - (last - first))) << first;
}

static int content(uint64_t fid, uint64_t offset, uint64_t bytes, rfs_mark *out) {
    if (!bytes) return 0;
    uint64_t end = offset + bytes < offset ? UINT64_MAX : offset + bytes, first = offset / MARK_CHUNK_BYTES, last = (end - 1) / MARK_CHUNK_BYTES;
    if (last - first >= MOST_PLACES - 2) {
        out[0] = (rfs_mark){.fid = fid, .index = first, .kind = MARK_TAIL};
        return 1;
    }
    for (uint64_t i = first; i <= last; i++) out[i - first] = (rfs_mark){.fid = fid, .index = i, .grains = grains_of(i, offset, end), .kind = MARK_CHUNK};
    return (int)(last - first + 1);
}

/* What the op will change. (A change of content changes times and perhaps the size too: a resync brings the attributes with the content.) */
static int places_of(const struct op *op, rfs_mark out[MOST_PLACES]) {
    const struct op_body *body = &op->body;
    int count = 0;
    switch (op->type) {
    case FRAME_WRITE:
    case FRAME_FALLOCATE: return content(body->fid, body->offset, op->type == FRAME_WRITE ? body->data_bytes : body->length, out);
    case FRAME_COPY: return content(body->fid, body->offset, body->length, out);
    case FRAME_SET_ATTRIBUTES:
        if (body->flags & HAS_SIZE) out[count++] = (rfs_mark){.fid = body->fid, .index = body->length / MARK_CHUNK_BYTES, .kind = MARK_TAIL};
        else out[count++] = (rfs_mark){.fid = body->fid, .kind = MARK_ATTRIBUTES};
        return count;
    case FRAME_SET_XATTR:
    case FRAME_REMOVE_XATTR: out[count++] = (rfs_mark){.fid = body->fid, .kind = MARK_ATTRIBUTES}; return count;
    case FRAME_FSYNC:
    case FRAME_READ: return 0;
    default: break;
    }
    out[count++] = (rfs_mark){.fid = body->fid, .kind = MARK_ENTRIES};
    if (op->type == FRAME_RENAME) out[count++] = (rfs_mark){.fid = body->other, .kind = MARK_ENTRIES};
    if (op->marks_whole) {
        out[count++] = (rfs_mark){.fid = op->marks_whole, .kind = MARK_TAIL};
        out[count++] = (rfs_mark){.fid = op->marks_whole, .kind = MARK_ATTRIBUTES};
    }
    return count;
}

static bool is_hot(struct marker *marker, const rfs_mark *mark) { /* lock */
    return marks_covers_new(marker->marks, mark->fid) || marks_touch(marker->marks, mark);
}

static bool all_hot(struct marker *marker, const struct op *op) { /* lock */
    rfs_mark places[MOST_PLACES];
    bool hot = true;
    for (int i = 0, count = places_of(op, places); i < count; i++) hot &= is_hot(marker, &places[i]);
    return hot;
}

/* ---- ops --------------------------------------------------------------------------------------------------------------------------- */

static bool is_known(rfs_engine *engine, uint64_t fid) {
    struct inode *inode = inode_get(engine, fid);
    inode_put(engine, inode);
    return inode != NULL;
}

bool marker_admit(rfs_engine *engine, struct op *op) {
    struct marker *marker = engine->marker;
    if (!marker) return true;
    if (!is_namespace_op(op->type)) { /* nothing is said to the peer of these */
        if (!op->inode) op->inode = inode_get(engine, op->body.fid);
        if (!op->inode || inode_is_local(op->inode) || op->inode->orphan) return true;
    } else if (!is_known(engine, op->body.fid) || (op->type == FRAME_RENAME && !is_known(engine, op->body.other))) {
        return true; /* it will be refused */
    }
    pthread_mutex_lock(&marker->lock);
    /* Before its directory is touched: a checkpoint that begins in between must not find the directory old and the file new. */
    if (op->type >= FRAME_CREATE && op->type <= FRAME_SYMLINK && !op->body.child) op->body.child = new_fid(engine);
    bool hot = all_hot(marker, op);
    if (hot) {
        op->page = marker->page;
        op->counted = true;
        marker->in_flight[op->page]++;
    } else {
        list_append(&marker->waiting, &op->item);
        marker->waiting_ops++;
        pthread_cond_signal(&marker->work);
    }
    pthread_mutex_unlock(&marker->lock);
    return hot;
}

bool marker_must_admit(rfs_engine *engine, const struct op *op) { return engine->marker && !op->counted && op->inode && !inode_is_local(op->inode) && !op->inode->orphan; }

static void finish_draining(struct marker *marker) { /* lock */
    if (!marker->ticket || marker->in_flight[marker->page ^ 1]) return;
    emit(marker->engine, RFS_EVENT_TICKET, 0, marker->ticket, "%s", "");
    marker->ticket = 0;
}

void marker_answered(rfs_engine *engine, struct op *op) {
    struct marker *marker = engine->marker;
    if (!op->counted) return;
    pthread_mutex_lock(&marker->lock);
    op->counted = false;
    marker->in_flight[op->page]--;
    finish_draining(marker);
    pthread_mutex_unlock(&marker->lock);
}

void marker_admit_again(rfs_engine *engine, struct op *op) {
    marker_answered(engine, op);
    if (!marker_admit(engine, op)) return;
    marker_answered(engine, op); /* somebody else has marked it meanwhile: it is admitted, and counted, when it is attempted again */
    mirror_park(engine, op);
}

uint64_t marker_waiting_ops(rfs_engine *engine) {
    struct marker *marker = engine->marker;
    if (!marker) return 0;
    pthread_mutex_lock(&marker->lock);
    uint64_t waiting = marker->waiting_ops;
    pthread_mutex_unlock(&marker->lock);
    return waiting;
}

/* ---- the log's files (io is held) ---------------------------------------------------------------------------------------------------- */

/* Nothing is wrong with the disk. */
static bool lacks_room(int result) { return result == -ENOSPC || result == -EDQUOT || result == -ENOMEM; }

static int make_room(struct marker *marker, int file, uint64_t end) {
    int result = 0;
    size_t written;
    if (marker->room_bytes[file] >= end) return 0;
    uint8_t *zeros = calloc(1, ROOM_STEP_BYTES);
    if (!zeros) return -ENOMEM;
    while (result == 0 && marker->room_bytes[file] < end) {
        result = write_all(marker->fd[file], zeros, ROOM_STEP_BYTES, marker->room_bytes[file], &written);
        if (result == 0) marker->room_bytes[file] += ROOM_STEP_BYTES;
    }
    if (result == 0 && fsync(marker->fd[file]) < 0) result = -errno;
    free(zeros);
    return result;
}

static int write_durably(struct marker *marker, const rfs_log_write *write) {
    size_t written;
    int result = make_room(marker, write->file, write->offset + write->bytes + RESERVE_BYTES);
    if ((result == -ENOSPC || result == -EDQUOT) && marker->room_bytes[write->file] >= write->offset + write->bytes) result = 0;
    if (result == 0) result = write_all(marker->fd[write->file], write->data, write->bytes, write->offset, &written);
    if (write->offset) STEP("mark-written");
    else STEP("compaction-written"); /* it alone begins a file */
    if (result == 0 && fdatasync(marker->fd[write->file]) < 0) result = -errno;
    return result;
}

static int fail(struct marker *marker, int error) {
    rfs_engine *engine = marker->engine;
    if (!atomic_exchange(&engine->failed, true)) emit(engine, RFS_EVENT_LOCAL_FAILED, error, 0, "the intent log cannot be written: %s", strerror(-error));
    return error;
}

/* The batch is durable, or everything is marked. */
static int write_batch(struct marker *marker, bool *everything) {
    rfs_log_write write;
    int result = 0;
    if (!log_batch(marker->log, &write)) return 0;
    result = write_durably(marker, &write);
    if (lacks_room(result)) {
        *everything = true;
        log_note_everything(marker->log);
        if (!log_batch(marker->log, &write)) abort();
        result = write_durably(marker, &write);
    }
    if (result == 0) log_written(marker->log);
    return result < 0 ? fail(marker, result) : 0;
}

/* The older file must not be taken for the newer one, should that rot. (Not synced: it is only needed once that has happened.) */
static void bury(struct marker *marker, int file) {
    static const uint8_t nothing[LOG_SLOT_BYTES];
    size_t written;
    if (marker->room_bytes[file] >= sizeof nothing) write_all(marker->fd[file], nothing, sizeof nothing, 0, &written);
}

/* Everything that is marked, anew. No space: what there is stays, and counts. Any other failure may have left what the next process takes for whole. */
static int compact(struct marker *marker, bool clean) {
    rfs_log_write write;
    pthread_mutex_lock(&marker->lock);
    int result = log_compact(marker->log, marker->marks, clean, &write);
    pthread_mutex_unlock(&marker->lock);
    if (result < 0) return result;
    result = write_durably(marker, &write);
    STEP("compaction-durable");
    if (result == 0) log_written(marker->log);
    else log_not_written(marker->log);
    if (result == 0) bury(marker, write.file ^ 1);
    return result < 0 && !lacks_room(result) ? fail(marker, result) : result;
}

/* Everything is marked, durably: for that there is always room. */
static int widen(struct marker *marker) {
    bool everything = true;
    log_note_everything(marker->log);
    int result = write_batch(marker, &everything);
    pthread_mutex_lock(&marker->lock);
    marks_add_everything(marker->marks);
    pthread_mutex_unlock(&marker->lock);
    return result;
}

/* What must be durable and may have no room in the log: then everything is marked instead. */
static int compact_or_widen(struct marker *marker) {
    int result = compact(marker, false);
    return lacks_room(result) ? widen(marker) : result;
}

/* ---- marking ------------------------------------------------------------------------------------------------------------------------- */

static int note_one(struct marker *marker, const rfs_mark *mark, const rfs_where *where) { /* io */
    pthread_mutex_lock(&marker->lock);
    bool hot = marks_is_hot(marker->marks, mark), known = marks_knows(marker->marks, mark->fid);
    pthread_mutex_unlock(&marker->lock);
    if (hot) return 0;
    int result = log_note(marker->log, mark);
    return result < 0 || known || !where ? result : log_note_where(marker->log, where); /* after its mark: what is not marked has no place */
}

static bool find_where(rfs_engine *engine, uint64_t fid, rfs_where *where) {
    struct inode *inode = inode_get(engine, fid);
    if (inode) inode_where(engine, inode, where);
    inode_put(engine, inode);
    return inode != NULL;
}

/* A writer in sequence crosses into a new chunk every 4 MiB; it need not wait each time. */
static int ahead_of(struct marker *marker, const rfs_mark *mark) {
    if (mark->kind != MARK_CHUNK || !mark->index || !(mark->grains & 1) || mark->index > INT64_MAX / MARK_CHUNK_BYTES - AHEAD_CHUNKS) return 0;
    rfs_mark before = {.fid = mark->fid, .index = mark->index - 1, .kind = MARK_CHUNK};
    pthread_mutex_lock(&marker->lock);
    bool hot = marks_is_hot(marker->marks, &before);
    pthread_mutex_unlock(&marker->lock);
    return hot ? AHEAD_CHUNKS : 0;
}

static void add_all(struct marker *marker, const struct list *ops, bool everything) { /* lock */
    rfs_mark places[MOST_PLACES];
    rfs_where where;
    for (const struct list *at = ops->next; at != ops; at = at->next) {
        const struct op *op = ITEM(at, const struct op, item);
        for (int i = 0, count = places_of(op, places); i < count; i++) {
            if (everything || is_hot(marker, &places[i])) continue;
            bool known = marks_knows(marker->marks, places[i].fid);
            if (marks_add(marker->marks, &places[i]) < 0) continue; /* everything, in memory: see mark_waiting() */
            if (!known && find_where(marker->engine, places[i].fid, &where)) marks_set_where(marker->marks, &where);
        }
    }
}

/* Those that a writer in sequence has not come to yet are marked without a grain. */
static void add_ahead(struct marker *marker, const rfs_mark *mark, int ahead) { /* lock */
    for (int i = 1; i <= ahead; i++) {
        rfs_mark next = {.fid = mark->fid, .index = mark->index + (uint64_t)i, .kind = MARK_CHUNK};
        if (!marks_is_hot(marker->marks, &next)) marks_add(marker->marks, &next);
    }
}

static int note_places(struct marker *marker, struct op *op) { /* io */
    rfs_mark places[MOST_PLACES];
    rfs_where where;
    int result = 0;
    op->ahead = 0;
    for (int i = 0, count = places_of(op, places); result == 0 && i < count; i++) {
        pthread_mutex_lock(&marker->lock);
        bool covered = marks_covers_new(marker->marks, places[i].fid);
        pthread_mutex_unlock(&marker->lock);
        if (covered) continue;
        bool found = find_where(marker->engine, places[i].fid, &where);
        result = note_one(marker, &places[i], found ? &where : NULL);
        rfs_mark next = places[i];
        int ahead = ahead_of(marker, &places[i]);
        if (ahead) op->ahead |= (uint8_t)(1 << i);
        for (int k = ahead; result == 0 && k > 0; k--) {
            next = (rfs_mark){.fid = next.fid, .index = next.index + 1, .kind = MARK_CHUNK};
            result = note_one(marker, &next, NULL);
        }
    }
    return result;
}

/* What note_places() has noted, and not one more: what is ahead of one op would make the next one's place look like a writer's in sequence. */
static void add_ahead_of(struct marker *marker, const struct list *ops) { /* lock */
    rfs_mark places[MOST_PLACES];
    for (const struct list *at = ops->next; at != ops; at = at->next) {
        const struct op *op = ITEM(at, const struct op, item);
        for (int i = 0, count = places_of(op, places); i < count; i++)
            if (op->ahead >> i & 1) add_ahead(marker, &places[i], AHEAD_CHUNKS);
    }
}

/* One batch for all that wait. */
static void mark_waiting(struct marker *marker, struct list *ops) {
    bool everything = false, before;
    int result = 0;
    pthread_mutex_lock(&marker->io);
    pthread_mutex_lock(&marker->lock);
    before = marks_everything(marker->marks);
    everything = marks_inodes(marker->marks) > MOST_INODES;
    pthread_mutex_unlock(&marker->lock);
    for (struct list *at = ops->next; result == 0 && !everything && at != ops; at = at->next) result = note_places(marker, ITEM(at, struct op, item));
    if (result == -ENOMEM || everything) {
        everything = true;
        log_note_everything(marker->log);
    }
    STEP("mark-noted");
    result = write_batch(marker, &everything);
    STEP("mark-durable");
    pthread_mutex_lock(&marker->lock);
    if (result == 0 && !everything) add_ahead_of(marker, ops);
    if (result == 0 && everything) marks_add_everything(marker->marks);
    if (result == 0) add_all(marker, ops, everything);
    bool unsaid = result == 0 && !before && !everything && marks_everything(marker->marks); /* no memory: the log must say so too, before an op goes on */
    pthread_mutex_unlock(&marker->lock);
    if (unsaid) {
        log_note_everything(marker->log);
        write_batch(marker, &everything);
    }
    pthread_mutex_unlock(&marker->io);
}

static void go_on(struct marker *marker, struct list *ops) {
    rfs_engine *engine = marker->engine;
    while (!list_empty(ops)) {
        struct op *op = ITEM(ops->next, struct op, item);
        list_remove(&op->item);
        mirror_go_on(engine, op); /* a log that cannot be written has failed the copy: it is refused */
        pthread_mutex_lock(&marker->lock);
        marker->waiting_ops--;
        pthread_mutex_unlock(&marker->lock);
    }
    mirror_wake(engine);
}

static void *run(void *argument) {
    struct marker *marker = argument;
    struct list ops;
    list_init(&ops);
    pthread_mutex_lock(&marker->lock);
    for (;;) {
        while (list_empty(&marker->waiting) && !marker->stopping) pthread_cond_wait(&marker->work, &marker->lock);
        if (list_empty(&marker->waiting)) break;
        while (!list_empty(&marker->waiting)) {
            struct list *item = marker->waiting.next;
            list_remove(item);
            list_append(&ops, item);
        }
        pthread_mutex_unlock(&marker->lock);
        mark_waiting(marker, &ops);
        go_on(marker, &ops);
        pthread_mutex_lock(&marker->lock);
    }
    pthread_mutex_unlock(&marker->lock);
    return NULL;
}

/* ---- checkpoints ---------------------------------------------------------------------------------------------------------------------- */

uint64_t rfs_submit_checkpoint(rfs_engine *engine) {
    struct marker *marker = engine->marker;
    uint64_t ticket = 0;
    pthread_rwlock_rdlock(&engine->state);
    if (marker && engine->mode == RFS_PAIRED && !engine->target) {
        pthread_mutex_lock(&marker->lock);
        if (!marker->ticket && !marker->in_flight[marker->page ^ 1]) {
            marker->checkpoint = marks_checkpoint_begin(marker->marks, atomic_load(&engine->next_fid));
            marker->page ^= 1;
            ticket = marker->ticket = atomic_fetch_add(&engine->next_ticket, 1);
            finish_draining(marker);
        }
        pthread_mutex_unlock(&marker->lock);
    }
    pthread_rwlock_unlock(&engine->state);
    return ticket;
}

void marker_stop_checkpoint(rfs_engine *engine, int error) {
    struct marker *marker = engine->marker;
    if (!marker) return;
    pthread_mutex_lock(&marker->lock);
    if (marker->ticket) emit(engine, RFS_EVENT_TICKET, error, marker->ticket, "%s", "");
    marker->ticket = marker->checkpoint = 0;
    pthread_mutex_unlock(&marker->lock);
}

int rfs_end_checkpoint(rfs_engine *engine) {
    struct marker *marker = engine->marker;
    if (!marker) return -EINVAL;
    pthread_mutex_lock(&marker->io);
    pthread_mutex_lock(&marker->lock);
    int result = marker->checkpoint && !marker->ticket ? 0 : -EAGAIN;
    if (result == 0) marks_checkpoint_end(marker->marks, marker->checkpoint);
    marker->checkpoint = 0;
    pthread_mutex_unlock(&marker->lock);
    if (result == 0) result = compact(marker, false);
    pthread_mutex_unlock(&marker->io);
    return result;
}

int rfs_forget_marks(rfs_engine *engine) {
    struct marker *marker = engine->marker;
    if (!marker) return 0;
    pthread_mutex_lock(&marker->io);
    pthread_mutex_lock(&marker->lock);
    marks_forget(marker->marks);
    pthread_mutex_unlock(&marker->lock);
    int result = compact(marker, false);
    pthread_mutex_unlock(&marker->io);
    return result;
}

int rfs_mark_everything(rfs_engine *engine) {
    struct marker *marker = engine->marker;
    if (!marker) return 0;
    pthread_mutex_lock(&marker->io);
    int result = widen(marker);
    pthread_mutex_unlock(&marker->io);
    return result;
}

int rfs_mark_directory(rfs_engine *engine, uint32_t index) {
    struct marker *marker = engine->marker;
    const rfs_mark mark = {.fid = FIRST_DIRECTORY_FID + index, .kind = MARK_ENTRIES};
    bool everything = false;
    rfs_where where;
    if (index >= engine->directories) return -EINVAL;
    if (!marker) return 0;
    bool found = find_where(engine, mark.fid, &where);
    pthread_mutex_lock(&marker->io);
    int result = note_one(marker, &mark, found ? &where : NULL);
    if (result == 0) result = write_batch(marker, &everything);
    pthread_mutex_lock(&marker->lock);
    if (result == 0 && everything) marks_add_everything(marker->marks);
    else if (result == 0) result = marks_add(marker->marks, &mark);
    if (result == 0 && found) marks_set_where(marker->marks, &where);
    pthread_mutex_unlock(&marker->lock);
    if (result == -ENOMEM) result = widen(marker); /* noted in part, or in memory not at all */
    pthread_mutex_unlock(&marker->io);
    return result;
}

int marker_set_born(rfs_engine *engine, uint64_t first_fid) {
    struct marker *marker = engine->marker;
    if (!marker) return 0;
    pthread_mutex_lock(&marker->io);
    pthread_mutex_lock(&marker->lock);
    bool lower = first_fid < marks_born(marker->marks);
    marks_set_born(marker->marks, first_fid);
    pthread_mutex_unlock(&marker->lock);
    int result = lower ? compact_or_widen(marker) : 0;
    pthread_mutex_unlock(&marker->io);
    return result;
}

/* ---- for the resync -------------------------------------------------------------------------------------------------------------------- */

#define WITH_MARKS(marker, expression)              \
    do {                                            \
        pthread_mutex_lock(&(marker)->lock);        \
        expression;                                 \
        pthread_mutex_unlock(&(marker)->lock);      \
    } while (0)

bool marker_everything(rfs_engine *engine) {
    bool everything = true;
    if (engine->marker) WITH_MARKS(engine->marker, everything = marks_everything(engine->marker->marks));
    return everything;
}

void marker_all_to_do(rfs_engine *engine) {
    if (engine->marker) WITH_MARKS(engine->marker, marks_all_to_do(engine->marker->marks));
}

void marker_nothing_to_do(rfs_engine *engine) {
    if (engine->marker) WITH_MARKS(engine->marker, marks_nothing_to_do(engine->marker->marks));
}

void marker_set_to_do(rfs_engine *engine, const struct op *op) {
    rfs_mark places[MOST_PLACES];
    int count = places_of(op, places);
    for (int i = 0; engine->marker && i < count; i++) WITH_MARKS(engine->marker, marks_set_to_do(engine->marker->marks, &places[i]));
}

void marker_set_entries_to_do(rfs_engine *engine, uint64_t fid) {
    rfs_mark mark = {.fid = fid, .kind = MARK_ENTRIES};
    if (engine->marker) WITH_MARKS(engine->marker, marks_set_to_do(engine->marker->marks, &mark));
}

bool marker_is_to_do(rfs_engine *engine, uint64_t fid, int32_t kinds) {
    bool to_do = true;
    if (engine->marker) WITH_MARKS(engine->marker, to_do = marks_is_to_do(engine->marker->marks, fid, kinds));
    return to_do;
}

bool marker_is_new(rfs_engine *engine, uint64_t fid) {
    bool is_new = true;
    if (engine->marker) WITH_MARKS(engine->marker, is_new = marks_is_new(engine->marker->marks, fid));
    return is_new;
}

rfs_mark marker_take(rfs_engine *engine, uint64_t fid, int32_t kinds) {
    rfs_mark mark = {.fid = fid};
    if (engine->marker) WITH_MARKS(engine->marker, mark = marks_take(engine->marker->marks, fid, kinds));
    return mark;
}

bool marker_where(rfs_engine *engine, uint64_t fid, rfs_where *where) {
    bool known = false;
    if (engine->marker) WITH_MARKS(engine->marker, known = marks_where(engine->marker->marks, fid, where));
    return known;
}

void marker_set_whole_to_do(rfs_engine *engine, uint64_t fid) {
    rfs_mark tail = {.fid = fid, .kind = MARK_TAIL}, attributes = {.fid = fid, .kind = MARK_ATTRIBUTES};
    if (engine->marker) WITH_MARKS(engine->marker, (marks_set_to_do(engine->marker->marks, &tail), marks_set_to_do(engine->marker->marks, &attributes)));
}

uint64_t *marker_to_do(rfs_engine *engine, int32_t kinds, size_t *count) {
    struct marker *marker = engine->marker;
    rfs_marks_cursor cursor = {0};
    rfs_mark mark;
    uint64_t *fids = NULL, last = 0;
    *count = 0;
    if (!marker) return NULL;
    pthread_mutex_lock(&marker->lock);
    fids = malloc((marks_inodes(marker->marks) + 1) * sizeof *fids);
    while (marks_each(marker->marks, &cursor, &mark)) {
        if (mark.fid == last || !marks_is_to_do(marker->marks, mark.fid, kinds)) continue; /* all of one object come one after the other */
        last = mark.fid;
        if (fids) fids[*count] = mark.fid;
        ++*count;
    }
    pthread_mutex_unlock(&marker->lock);
    return fids;
}

rfs_marks_count marker_count(rfs_engine *engine) {
    rfs_marks_count count = {0};
    if (engine->marker) WITH_MARKS(engine->marker, count = marks_count(engine->marker->marks));
    return count;
}

rfs_marks_count marker_count_roughly(rfs_engine *engine) {
    struct marker *marker = engine->marker;
    rfs_marks_count count = {0};
    if (!marker) return count;
    pthread_mutex_lock(&marker->lock);
    uint64_t now = now_ns();
    if (now >= marker->counted_until_ns) {
        marker->counted = marks_count(marker->marks);
        marker->counted_until_ns = now + COUNTED_FOR * (now_ns() - now);
    }
    count = marker->counted;
    pthread_mutex_unlock(&marker->lock);
    return count;
}

bool marker_is_whole(rfs_engine *engine, uint64_t fid) {
    rfs_mark tail = {.fid = fid, .kind = MARK_TAIL}, attributes = {.fid = fid, .kind = MARK_ATTRIBUTES};
    bool whole = true;
    if (engine->marker) WITH_MARKS(engine->marker, whole = marks_covers_new(engine->marker->marks, fid) || (marks_is_hot(engine->marker->marks, &tail) && marks_is_hot(engine->marker->marks, &attributes)));
    return whole;
}

int marker_add_peers(rfs_engine *engine, const struct peer_mark *marks, size_t count, uint64_t born) {
    struct marker *marker = engine->marker;
    if (!marker || (!count && born == UINT64_MAX)) return 0;
    pthread_mutex_lock(&marker->io);
    pthread_mutex_lock(&marker->lock);
    bool more = false;
    int added = 0;
    for (size_t i = 0; i < count && added == 0; i++) {
        bool known = marks_knows(marker->marks, marks[i].mark.fid), hot = marks_is_hot(marker->marks, &marks[i].mark);
        more |= !hot;
        added = marks_add(marker->marks, &marks[i].mark); /* no memory: everything is marked, which ends this session */
        marks_set_to_do(marker->marks, &marks[i].mark);
        if (!known) marks_set_where(marker->marks, &marks[i].where);
    }
    more |= born < marks_born(marker->marks);
    marks_widen_born(marker->marks, born);
    pthread_mutex_unlock(&marker->lock);
    int result = more || added < 0 ? compact_or_widen(marker) : 0;
    pthread_mutex_unlock(&marker->io);
    return result;
}

static int tell_one(struct marker *marker, struct link *link, const rfs_mark *mark) { /* lock */
    rfs_where where = {0};
    marks_where(marker->marks, mark->fid, &where);
    if (where.directory >= marker->engine->directories) return 0; /* it was being added, and was taken back */
    struct op_body body = {.fid = mark->fid, .offset = mark->index, .length = mark->grains, .flags = (uint32_t)mark->kind, .other = where.depth, .rdev = where.directory,
                           .data_bytes = (uint32_t)where_bytes(&where)};
    return link_send_body(link, FRAME_PEER_MARK, &body, (const uint8_t *)where.path);
}

int marker_tell(rfs_engine *engine, struct link *link) {
    struct marker *marker = engine->marker;
    struct op_body end = {.offset = 1, .length = UINT64_MAX};
    rfs_marks_cursor cursor = {0};
    rfs_mark mark;
    int result = 0;
    size_t told = 0;
    if (marker) {
        pthread_mutex_lock(&marker->lock);
        while (result == 0 && told <= MOST_PEER_MARKS && marks_each(marker->marks, &cursor, &mark)) result = told++ < MOST_PEER_MARKS ? tell_one(marker, link, &mark) : 0;
        end.offset = marks_everything(marker->marks) || told > MOST_PEER_MARKS;
        end.length = marks_born(marker->marks);
        pthread_mutex_unlock(&marker->lock);
    }
    if (told > MOST_PEER_MARKS) rfs_mark_everything(engine); /* this session ends, and the next one knows */
    return result < 0 ? result : link_send_body(link, FRAME_PEER_MARKS, &end, NULL);
}

/* ---- life ------------------------------------------------------------------------------------------------------------------------------- */

static int read_file(int fd, uint8_t **data, size_t *bytes) {
    struct stat stat;
    *data = NULL;
    *bytes = 0;
    if (fstat(fd, &stat) < 0) return -errno;
    if (!stat.st_size) return 0;
    *data = malloc((size_t)stat.st_size);
    if (!*data) return -ENOMEM;
    while (*bytes < (size_t)stat.st_size) {
        ssize_t got = pread(fd, *data + *bytes, (size_t)stat.st_size - *bytes, (off_t)*bytes);
        if (got < 0) return -errno;
        if (!got) break;
        *bytes += (size_t)got;
    }
    return 0;
}

static int open_files(struct marker *marker, int directory_fd, uint8_t *data[LOG_FILES], size_t bytes[LOG_FILES]) {
    for (int i = 0; i < LOG_FILES; i++) {
        char name[24];
        snprintf(name, sizeof name, "intent-log.%d", i);
        marker->fd[i] = openat(directory_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (marker->fd[i] < 0) return -errno;
        int result = read_file(marker->fd[i], &data[i], &bytes[i]);
        if (result < 0) return result;
        marker->room_bytes[i] = bytes[i];
        result = make_room(marker, i, RESERVE_BYTES); /* both, while there is space */
        if (result < 0) return result;
    }
    return fsync(directory_fd) < 0 ? -errno : 0;
}

/* 1: the marks are what they were; 0: everything is marked. */
static int load(struct marker *marker, int directory_fd) {
    uint8_t *data[LOG_FILES] = {NULL, NULL};
    size_t bytes[LOG_FILES] = {0, 0};
    rfs_log_write write;
    int result = open_files(marker, directory_fd, data, bytes), loaded = -ENOENT;
    if (result == 0) loaded = log_load(marker->log, data[0], bytes[0], data[1], bytes[1], marker->marks);
    for (int i = 0; i < LOG_FILES; i++) free(data[i]);
    if (result < 0 || loaded == -ENOMEM) return result < 0 ? result : loaded;
    if (loaded < 0) {
        marks_add_everything(marker->marks);
        result = compact(marker, false);
    } else {
        result = log_note_opened(marker->log);
        if (result == 0 && log_batch(marker->log, &write)) result = write_durably(marker, &write);
        if (result == 0) log_written(marker->log);
    }
    return result < 0 ? result : loaded == 0 && !marks_everything(marker->marks);
}

static void destroy(struct marker *marker) {
    for (int i = 0; i < LOG_FILES; i++)
        if (marker->fd[i] >= 0) close(marker->fd[i]);
    log_free(marker->log);
    marks_free(marker->marks);
    pthread_mutex_destroy(&marker->io);
    pthread_mutex_destroy(&marker->lock);
    pthread_cond_destroy(&marker->work);
    free(marker);
}

int rfs_open_marks(rfs_engine *engine, const char *directory) {
    uint64_t nonce = 0;
    if (engine->marker) return -EBUSY;
    if (getrandom(&nonce, sizeof nonce, 0) < 0) return -errno;
    int directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory_fd < 0) return -errno;
    struct marker *marker = calloc(1, sizeof *marker);
    int result = marker ? 0 : -ENOMEM;
    if (result < 0) goto out;
    marker->engine = engine;
    for (int i = 0; i < LOG_FILES; i++) marker->fd[i] = -1;
    pthread_mutex_init(&marker->io, NULL);
    pthread_mutex_init(&marker->lock, NULL);
    pthread_cond_init(&marker->work, NULL);
    list_init(&marker->waiting);
    marker->log = log_new(nonce);
    marker->marks = marks_new();
    result = marker->log && marker->marks ? load(marker, directory_fd) : -ENOMEM;
    int started = result < 0 ? result : -pthread_create(&marker->thread, NULL, run, marker);
    if (started == 0) {
        engine->marker = marker;
    } else {
        result = started;
        destroy(marker);
    }
out:
    close(directory_fd);
    return result;
}

void marker_close(rfs_engine *engine) {
    struct marker *marker = engine->marker;
    if (!marker) return;
    WITH_MARKS(marker, (marker->stopping = true, pthread_cond_signal(&marker->work)));
    pthread_join(marker->thread, NULL);
    pthread_mutex_lock(&marker->io);
    if (!atomic_load(&engine->failed)) compact(marker, true); /* without it they are only coarser */
    pthread_mutex_unlock(&marker->io);
    engine->marker = NULL;
    destroy(marker);
}
