/* An engine's life: events towards Python, the workers for slow jobs, statistics. */
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "filter.h"
#include "link.h"
#include "marker.h"
#include "op.h"
#include "verify.h"
#include "walk.h"

struct event_item {
    struct list item;
    rfs_event event;
};

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * (uint64_t)NS_PER_S + (uint64_t)now.tv_nsec;
}

struct timespec to_timespec(int64_t ns) {
    struct timespec out = {.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
    if (out.tv_nsec < 0) {
        out.tv_sec--;
        out.tv_nsec += NS_PER_S;
    }
    return out;
}

/* ---- events --------------------------------------------------------------------------------------------------------- */

void emit(rfs_engine *engine, int32_t kind, int32_t result, uint64_t ticket, const char *format, ...) {
    struct event_item *item = calloc(1, sizeof *item);
    if (!item) abort(); /* an answer that cannot be given: better dead than silent */
    item->event.kind = kind;
    item->event.result = result;
    item->event.ticket = ticket;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(item->event.text, sizeof item->event.text, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&engine->events.lock);
    list_append(&engine->events.events, &item->item);
    pthread_mutex_unlock(&engine->events.lock);
    uint64_t one = 1;
    if (write(engine->events.fd, &one, sizeof one) < 0) return; /* the counter is full: it is readable already */
}

int rfs_event_fd(const rfs_engine *engine) { return engine->events.fd; }

int rfs_next_event(rfs_engine *engine, rfs_event *event) {
    int found = 0;
    pthread_mutex_lock(&engine->events.lock);
    if (!list_empty(&engine->events.events)) {
        struct event_item *item = ITEM(engine->events.events.next, struct event_item, item);
        list_remove(&item->item);
        *event = item->event;
        free(item);
        found = 1;
    } else {
        uint64_t drained;
        if (read(engine->events.fd, &drained, sizeof drained) < 0) drained = 0; /* nothing there: fine */
    }
    pthread_mutex_unlock(&engine->events.lock);
    return found;
}

/* ---- workers ---------------------------------------------------------------------------------------------------------- */

void submit_job(rfs_engine *engine, struct job *job) {
    pthread_mutex_lock(&engine->workers.lock);
    list_append(&engine->workers.jobs, &job->item);
    pthread_cond_signal(&engine->workers.wake);
    pthread_mutex_unlock(&engine->workers.lock);
}

struct closing {
    struct job job;
    int fd;
};

static void close_now(rfs_engine *engine, struct job *job) {
    struct closing *closing = ITEM(job, struct closing, job);
    (void)engine;
    close(closing->fd);
    free(closing);
}

void close_orphan(rfs_engine *engine, int fd) {
    struct stat stat;
    bool slow = fstat(fd, &stat) == 0 && stat.st_blocks > LARGE_FILE_BLOCKS && engine->workers.threads;
    struct closing *closing = slow ? malloc(sizeof *closing) : NULL;
    if (!closing) {
        close(fd);
        return;
    }
    *closing = (struct closing){.job.run = close_now, .fd = fd};
    submit_job(engine, &closing->job);
}

static void *work(void *argument) {
    rfs_engine *engine = argument;
    struct workers *workers = &engine->workers;
    pthread_mutex_lock(&workers->lock);
    for (;;) {
        while (list_empty(&workers->jobs) && !workers->stopping) pthread_cond_wait(&workers->wake, &workers->lock);
        if (list_empty(&workers->jobs)) break; /* stopping, and everything is done */
        struct job *job = ITEM(workers->jobs.next, struct job, item);
        list_remove(&job->item);
        pthread_mutex_unlock(&workers->lock);
        job->run(engine, job);
        pthread_mutex_lock(&workers->lock);
    }
    pthread_mutex_unlock(&workers->lock);
    return NULL;
}

void workers_stop(rfs_engine *engine) {
    struct workers *workers = &engine->workers;
    pthread_mutex_lock(&workers->lock);
    workers->stopping = true;
    pthread_cond_broadcast(&workers->wake);
    pthread_mutex_unlock(&workers->lock);
    while (workers->threads) pthread_join(workers->ids[--workers->threads], NULL);
}

struct sync_job {
    struct job job;
    uint64_t ticket;
};

/* Everything in all trees on the disk; an error once seen is never forgotten. */
static int sync_trees(rfs_engine *engine) {
    int result = atomic_load(&engine->failed) ? -EIO : 0;
    for (uint32_t i = 0; i < engine->directories; i++) {
        bool seen = false;
        for (uint32_t k = 0; k < i; k++) seen |= engine->directory[k].device == engine->directory[i].device;
        if (seen || syncfs(engine->directory[i].root_fd) == 0) continue;
        result = -errno;
        if (!atomic_exchange(&engine->failed, true)) emit(engine, RFS_EVENT_LOCAL_FAILED, result, 0, "syncfs failed: %s", strerror(-result));
    }
    return result;
}

static void sync_ahead(rfs_engine *engine, struct job *job) {
    (void)job;
    sync_trees(engine);
    atomic_store(&engine->syncing_ahead, false);
}

void begin_sync(rfs_engine *engine) {
    if (atomic_exchange(&engine->syncing_ahead, true)) return;
    engine->sync_ahead.run = sync_ahead;
    submit_job(engine, &engine->sync_ahead);
}

static void sync_for_ticket(rfs_engine *engine, struct job *job) {
    struct sync_job *sync = ITEM(job, struct sync_job, job);
    emit(engine, RFS_EVENT_TICKET, sync_trees(engine), sync->ticket, "%s", "");
    free(sync);
}

static uint64_t session_of(rfs_engine *engine, struct link **link) { /* state */
    *link = engine->target ? engine->link : NULL;
    return *link ? link_session(*link) : 0;
}

/* `ack disk`: what was applied while a sync ran is covered by the next one, so a slow disk makes larger batches, not a longer queue. */
static void acknowledge_durable(rfs_engine *engine, struct job *job) {
    (void)job;
    uint64_t seq;
    do {
        struct link *link;
        pthread_rwlock_rdlock(&engine->state);
        uint64_t session = session_of(engine, &link);
        seq = atomic_load(&engine->applied_seq);
        pthread_rwlock_unlock(&engine->state);
        int result = sync_trees(engine);
        pthread_rwlock_rdlock(&engine->state);
        if (result == 0 && session && session_of(engine, &link) == session) link_send_small(link, FRAME_ACK, seq, 0);
        pthread_rwlock_unlock(&engine->state);
        atomic_store(&engine->acknowledging, false);
    } while (atomic_load(&engine->applied_seq) != seq && !atomic_exchange(&engine->acknowledging, true));
}

void acknowledge_from_disk(rfs_engine *engine) {
    if (atomic_exchange(&engine->acknowledging, true)) return;
    engine->acknowledge.run = acknowledge_durable;
    submit_job(engine, &engine->acknowledge);
}

uint64_t rfs_submit_sync(rfs_engine *engine) {
    struct sync_job *sync = calloc(1, sizeof *sync);
    if (!sync) return 0;
    uint64_t ticket = sync->ticket = atomic_fetch_add(&engine->next_ticket, 1);
    sync->job.run = sync_for_ticket;
    submit_job(engine, &sync->job);
    return ticket;
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

static void init_locks(rfs_engine *engine) {
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP); /* a transition must not starve */
    pthread_rwlock_init(&engine->state, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    pthread_mutex_init(&engine->names, NULL);
    pthread_mutex_init(&engine->tagging, NULL);
    pthread_mutex_init(&engine->before_lock, NULL);
    for (int i = 0; i < INODE_STRIPES; i++) pthread_mutex_init(&engine->stripes[i], NULL);
    pthread_mutex_init(&engine->connection_lock, NULL);
    pthread_mutex_init(&engine->message_lock, NULL);
    pthread_mutex_init(&engine->events.lock, NULL);
    pthread_mutex_init(&engine->workers.lock, NULL);
    pthread_cond_init(&engine->workers.wake, NULL);
    pthread_mutex_init(&engine->peer_syncs.lock, NULL);
    pthread_cond_init(&engine->peer_syncs.done, NULL);
    list_init(&engine->events.events);
    list_init(&engine->workers.jobs);
    list_init(&engine->entries);
}

static int open_directory(struct directory *directory, int fd) {
    struct stat stat;
    directory->root_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (directory->root_fd < 0 || fstat(directory->root_fd, &stat) < 0) return -errno;
    directory->device = stat.st_dev;
    return 0;
}

static int start(rfs_engine *engine, const int *directory_fds) {
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < engine->directories; i++) result = open_directory(&engine->directory[i], directory_fds[i]);
    if (result == 0) result = inodes_init(engine);
    if (result < 0) return result;
    engine->events.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (engine->events.fd < 0) return -errno;
    const uint32_t threads = sizeof engine->workers.ids / sizeof engine->workers.ids[0];
    while (engine->workers.threads < threads) {
        result = -pthread_create(&engine->workers.ids[engine->workers.threads], NULL, work, engine);
        if (result < 0) return result;
        engine->workers.threads++;
    }
    return mirror_start(engine);
}

rfs_engine *rfs_engine_new(const int *directory_fds, uint32_t directories, int *error) {
    rfs_engine *engine = NULL;
    *error = -EINVAL;
    if (!directories || directories > RFS_MAX_DIRECTORIES) return NULL;
    engine = calloc(1, sizeof *engine);
    *error = -ENOMEM;
    if (!engine) return NULL;
    engine->directories = directories;
    engine->events.fd = -1;
    for (uint32_t i = 0; i < RFS_MAX_DIRECTORIES; i++) engine->directory[i].root_fd = -1;
    atomic_store(&engine->next_ticket, 1);
    atomic_store(&engine->next_fid, (uint64_t)1 << 40);
    atomic_store(&engine->next_found_fid, (uint64_t)1 << 40 | FID_FOUND);
    init_locks(engine);
    *error = start(engine, directory_fds);
    if (*error == 0) return engine;
    rfs_engine_free(engine);
    return NULL;
}

void rfs_engine_free(rfs_engine *engine) {
    rfs_event event;
    rfs_verify_stop(engine);
    rfs_session_close(engine);
    verify_free(engine);
    rfs_kernel_close(engine);
    mirror_stop(engine);
    marker_close(engine);
    workers_stop(engine);
    while (!list_empty(&engine->entries)) { /* nobody took them */
        struct op *op = ITEM(engine->entries.next, struct op, item);
        list_remove(&op->item);
        op_free(engine, op);
    }
    free(engine->announced);
    inodes_free(engine);
    for (uint32_t i = 0; i < engine->directories; i++) scopes_free(&engine->directory[i].scopes);
    while (engine->spare_message_count) free(engine->spare_messages[--engine->spare_message_count]);
    for (uint32_t i = 0; i < engine->directories; i++)
        if (engine->directory[i].root_fd >= 0) close(engine->directory[i].root_fd);
    while (engine->events.fd >= 0 && rfs_next_event(engine, &event)) continue;
    if (engine->events.fd >= 0) close(engine->events.fd);
    free(engine);
}

void rfs_set_policy(rfs_engine *engine, int refused) { engine->policy = refused; }

int rfs_add_pattern(rfs_engine *engine, uint32_t index, const char *pattern, int only) {
    if (index >= engine->directories) return -EINVAL;
    struct inode *root = inode_get(engine, FIRST_DIRECTORY_FID + index);
    int result = scopes_add(&engine->directory[index].scopes, pattern, only != 0);
    atomic_store(&root->scope, engine->directory[index].scopes.root);
    inode_put(engine, root);
    return result;
}

/* No session, so nobody counts on how many there are; no walk, no link's thread. Workers and reads see the old number or the new one. */
int rfs_add_directory(rfs_engine *engine, int directory_fd) {
    pthread_rwlock_wrlock(&engine->state);
    uint32_t index = engine->directories;
    bool now = !engine->link && !engine->walk && (engine->mode == RFS_IDLE || engine->mode == RFS_ALONE || engine->mode == RFS_UNUSED);
    int result = !now ? -EBUSY : index == RFS_MAX_DIRECTORIES ? -E2BIG : open_directory(&engine->directory[index], directory_fd);
    if (result == 0) result = inodes_enter_root(engine, index);
    if (result == 0) {
        engine->directories = index + 1;
    } else if (index < RFS_MAX_DIRECTORIES && engine->directory[index].root_fd >= 0) {
        close(engine->directory[index].root_fd);
        engine->directory[index].root_fd = -1;
    }
    pthread_rwlock_unlock(&engine->state);
    return result < 0 ? result : (int)index;
}

/* ---- statistics --------------------------------------------------------------------------------------------------------- */

static void mirror_statistics(rfs_engine *engine, rfs_statistics *out) {
    struct mirror *mirror = &engine->mirror;
    uint64_t oldest = 0;
    pthread_mutex_lock(&mirror->lock);
    struct list *const lists[] = {&mirror->parked, &mirror->syncing, &mirror->pending};
    uint64_t left = mirror->in_flight_ops - mirror->in_flight_frames; /* a resync's are many, and this is asked under the lock of every op */
    for (int i = 0; i < 3; i++) {
        for (struct list *at = lists[i]->next; at != lists[i] && (left || i < 2); at = at->next) {
            const struct op *op = ITEM(at, struct op, item);
            if (!is_asked_for(op)) continue;
            left -= op->shipped;
            out->waiting_ops++;
            if (!oldest || op->sent_ns < oldest) oldest = op->sent_ns;
        }
    }
    out->seq = mirror->seq;
    out->acked_seq = mirror->acked_seq;
    out->rtt_us = mirror->rtt_us;
    pthread_mutex_unlock(&mirror->lock);
    if (oldest) out->oldest_wait_us = (now_ns() - oldest) / 1000;
}

void rfs_get_statistics(rfs_engine *engine, rfs_statistics *out) {
    memset(out, 0, sizeof *out);
    pthread_rwlock_rdlock(&engine->state);
    out->mode = (int32_t)engine->mode;
    out->link_up = engine->link && link_is_up(engine->link);
    bool target = engine->target;
    pthread_rwlock_unlock(&engine->state);
    mirror_statistics(engine, out);
    out->applied_seq = atomic_load(&engine->applied_seq);
    if (target) {
        out->seq = atomic_load(&engine->received_seq);
        out->acked_seq = out->applied_seq;
    }
    uint64_t heard = atomic_load(&engine->last_heard_ns), now = now_ns();
    out->last_heard_us = heard ? (now > heard ? now - heard : 0) / 1000 : UINT64_MAX;
    struct counters *count = &engine->count;
    out->tree_bytes = atomic_load(&count->tree_bytes);
    out->resync_bytes_done = atomic_load(&count->resync_bytes_done);
    out->resync_total_bytes = atomic_load(&count->resync_total_bytes);
    out->resync_files_done = atomic_load(&count->resync_files_done);
    out->resync_total_files = atomic_load(&count->resync_total_files);
    out->resync_sent_bytes = atomic_load(&count->resync_sent_bytes);
    out->reads = atomic_load(&count->reads);
    out->writes = atomic_load(&count->writes);
    out->fsyncs = atomic_load(&count->fsyncs);
    out->namespace_ops = atomic_load(&count->namespace_ops);
    out->read_bytes = atomic_load(&count->read_bytes);
    out->write_bytes = atomic_load(&count->write_bytes);
    out->frames_sent = atomic_load(&count->frames_sent);
    out->frames_received = atomic_load(&count->frames_received);
    out->frame_bytes_sent = atomic_load(&count->frame_bytes_sent);
    out->frame_bytes_received = atomic_load(&count->frame_bytes_received);
    out->relayed = atomic_load(&count->relayed);
    rfs_marks_count marked = marker_count_roughly(engine);
    out->marked_places = marked.places;
    out->marked_bytes = marked.bytes;
    out->marked_everything = marker_everything(engine);
    out->to_do_bytes = marked.to_do_bytes;
    out->failed = atomic_load(&engine->failed);
    out->waiting_ops += marker_waiting_ops(engine);
    pthread_mutex_lock(&engine->inodes.lock);
    out->inodes = engine->inodes.count;
    pthread_mutex_unlock(&engine->inodes.lock);
    out->open_files = kernel_open_files(engine);
}
