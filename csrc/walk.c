/* Resync, the source's side: make the target's tree equal to ours where it may differ, while the application changes ours.
 *
 * The walk takes one place after the other from its stack: a directory, whose entries are listed under `names` to the target (which makes its own
 * equal), and a file, whose content and attributes follow (content.c). In a *whole* session it begins with the roots, and everything
 * that is listed follows. Otherwise it begins with what is marked here or there, and what is listed follows if it is marked itself, new, or was not there.
 *
 * The target knows an object by its fid only if it was *bound* in this session: by the listing of its directory, by the op that made it, or by a BIND that
 * says where it is. That is possible where all directories above it are clean. From then on every op on it is shipped, also while its
 * content is still to be compared: the target's copy gets both, in one order, so neither can undo the other.
 * A namespace op is shipped only if every directory it touches is clean and bound; else its directories are to do again and come back on the
 * stack, as does a file that was changed before it was bound. So when the stack is empty under `names`, and no op is under way that found its file
 * unbound, nothing is to do: DRAINED. END follows when that was promised durably; what comes to do until then is walked like all before, and DRAINED
 * is told again.
 *
 * Directories come before what lies below them. What a mark names and nobody has met when all directories are listed is gone: whatever moved
 * or removed it has marked the directories.
 *
 * What is done stays a hot mark; the next session would begin with it again (marks.h). */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "link.h"
#include "tree.h"
#include "walk_state.h"

enum { UNSENT_BYTES = 32 << 10 };

/* ---- the stack -------------------------------------------------------------------------------------------------------------- */

void walk_push(rfs_engine *engine, struct inode *inode) {
    struct walk *walk = engine->walk;
    pthread_mutex_lock(&walk->lock);
    if (!(resync_flags(engine, inode) & QUEUED)) {
        if (walk->depth == walk->room) {
            uint64_t *larger = realloc(walk->stack, (walk->room * 2 + 64) * sizeof *larger);
            if (!larger) abort(); /* a mark that cannot be kept */
            walk->stack = larger;
            walk->room = walk->room * 2 + 64;
        }
        walk->stack[walk->depth++] = inode->fid;
        resync_change(engine, inode, QUEUED, 0);
    }
    pthread_mutex_unlock(&walk->lock);
}

static struct inode *pop(rfs_engine *engine) {
    struct walk *walk = engine->walk;
    struct inode *inode = NULL;
    pthread_mutex_lock(&walk->lock);
    while (!inode && walk->depth) inode = inode_get(engine, walk->stack[--walk->depth]); /* gone meanwhile: nothing to do */
    if (inode) resync_change(engine, inode, 0, QUEUED);
    pthread_mutex_unlock(&walk->lock);
    return inode;
}

struct op *walk_frame(enum frame_type type, uint64_t fid) {
    struct op *op = op_new(type);
    if (!op) abort();
    op->body.fid = fid;
    return op;
}

/* ---- what the target knows ------------------------------------------------------------------------------------------------------ */

bool walk_is_clean(rfs_engine *engine, struct inode *directory) {
    uint32_t flags = resync_flags(engine, directory);
    if (flags & ENTRIES_CLEAN || engine->mode == RFS_PAIRED) return true;
    return !engine->whole && !(flags & UNLISTED) && !marker_is_to_do(engine, directory->fid, MARK_ENTRIES) && !marker_is_new(engine, directory->fid);
}

/* The directory in which it has a name now, and the name. NULL: none is known. Under `names`. */
static struct inode *place_of(rfs_engine *engine, struct inode *inode, char name[256]) {
    uint64_t fid = inode_name(engine, inode, name);
    struct inode *parent = fid ? inode_get(engine, fid) : NULL;
    struct descriptor directory = {-1, -1};
    struct stat stat;
    bool there = parent && descriptor_get(engine, parent, &directory) == 0 && fstatat(directory.fd, name, &stat, AT_SYMLINK_NOFOLLOW) == 0 && stat.st_ino == inode->number;
    descriptor_put(engine, &directory);
    if (there) return parent;
    inode_put(engine, parent);
    return S_ISDIR(inode->type) ? inode_parent(engine, inode, name) : NULL;
}

/* State shared, `names` held. A file none of whose names is known (one of several was removed) is searched for by the target. */
bool walk_bind_one(rfs_engine *engine, struct inode *inode) {
    struct list way; /* BINDs of it and of what is above it, the topmost first: in a loop, for a tree may be deeper than a stack */
    struct inode *at = inode_get(engine, inode->fid);
    bool can = false, found = false;
    list_init(&way);
    while (at && !found) {
        found = can = is_root(at) || resync_flags(engine, at) & BOUND;
        if (found || at->orphan || inode_is_local(at)) break;
        struct op *op = walk_frame(FRAME_BIND, 0);
        struct inode *parent = place_of(engine, at, op->body.name);
        op->body.fid = parent ? parent->fid : 0;
        op->body.name_bytes = parent ? (uint16_t)strlen(op->body.name) : 0;
        op->body.child = at->fid;
        list_append(way.next, &op->item);
        if (!parent) can = !engine->whole && !marker_is_new(engine, at->fid);
        found = !parent || !walk_is_clean(engine, parent);
        inode_put(engine, at);
        at = parent;
    }
    inode_put(engine, at);
    while (!list_empty(&way)) {
        struct op *op = ITEM(way.next, struct op, item);
        struct inode *bound = can ? inode_get(engine, op->body.child) : NULL;
        list_remove(&op->item);
        if (can) mirror_ship(engine, op);
        else op_free(engine, op);
        if (bound) resync_change(engine, bound, BOUND, 0);
        inode_put(engine, bound);
    }
    return can;
}

static bool needs_binding(const rfs_engine *engine, struct inode *inode) {
    enum rfs_mode mode = engine->mode;
    return inode && (mode == RFS_PAIRED || mode == RFS_RESYNCING) && !(resync_flags(engine, inode) & BOUND) && !is_root(inode) && !inode->orphan && !inode_is_local(inode);
}

uint32_t walk_bind(rfs_engine *engine, struct inode *inode) {
    if (!needs_binding(engine, inode)) return 0;
    pthread_mutex_lock(&engine->names);
    bool untold = !walk_bind_one(engine, inode) && engine->walk;
    if (untold) atomic_fetch_add(&engine->walk->untold, 1);
    pthread_mutex_unlock(&engine->names);
    return untold;
}

void walk_left(rfs_engine *engine, uint32_t count) {
    if (count) atomic_fetch_sub(&engine->walk->untold, count);
}

void walk_bind_names(rfs_engine *engine, const struct op *op) {
    const uint64_t fids[] = {op->body.fid, op->type == FRAME_RENAME || op->type == FRAME_LINK ? op->body.other : 0};
    for (size_t i = 0; i < 2 && fids[i]; i++) {
        struct inode *inode = inode_get(engine, fids[i]);
        if (needs_binding(engine, inode)) walk_bind_one(engine, inode);
        inode_put(engine, inode);
    }
}

static bool is_making(const struct op *op) { return op->type >= FRAME_CREATE && op->type <= FRAME_SYMLINK; }

void walk_learnt(rfs_engine *engine, const struct op *op) {
    if (is_making(op)) resync_change(engine, op->inode, BOUND | ENTRIES_CLEAN | CONTENT_DONE, 0);
}

static bool has(rfs_engine *engine, uint64_t fid, uint32_t flag) {
    struct inode *inode = inode_get(engine, fid);
    bool yes = inode && (resync_flags(engine, inode) & flag || (flag == BOUND && is_root(inode)));
    inode_put(engine, inode);
    return yes;
}

/* Its entries are equal there, and it can be named. */
static bool is_ready(rfs_engine *engine, uint64_t fid) {
    struct inode *inode = inode_get(engine, fid);
    bool ready = inode && (is_root(inode) || resync_flags(engine, inode) & BOUND) && walk_is_clean(engine, inode);
    inode_put(engine, inode);
    return ready;
}

static void mark_again(rfs_engine *engine, uint64_t fid) {
    struct inode *inode = inode_get(engine, fid);
    if (!inode) return;
    bool was_clean = walk_is_clean(engine, inode);
    marker_set_entries_to_do(engine, fid);
    if (was_clean) {
        resync_change(engine, inode, UNLISTED, ENTRIES_CLEAN);
        mirror_ship(engine, walk_frame(FRAME_MARKED, fid)); /* the target must not believe in it any more: see make_way() */
    }
    if (was_clean || !engine->whole) walk_push(engine, inode);
    inode_put(engine, inode);
}

bool walk_ships(rfs_engine *engine, struct op *op) {
    const struct op_body *body = &op->body;
    if (op->crossing == ARRIVES) {
        if (op->type == FRAME_PLACE) return true;
        marker_set_whole_to_do(engine, body->child);
        mark_again(engine, body->other); /* its directory is still to be listed, or to be listed after all, and it is found there */
        return false;
    }
    bool clean = is_ready(engine, body->fid) && !op->unlisted;
    if (op->type == FRAME_RENAME) {
        clean = clean && is_ready(engine, body->other) && (!engine->whole || has(engine, body->child, BOUND));
        if (!clean) mark_again(engine, body->other);
    } else if (op->type == FRAME_LINK) {
        clean = clean && has(engine, body->other, BOUND);
    } else if (clean) { /* made in a clean directory: equal from its birth */
        walk_learnt(engine, op);
    }
    if (!clean) mark_again(engine, body->fid);
    return clean;
}

bool walk_keeps(rfs_engine *engine, const struct op *op) {
    if (engine->whole || inode_is_local(op->inode) || op->inode->orphan) return false; /* found when its directory is listed; of no concern */
    marker_set_to_do(engine, op);
    walk_push(engine, op->inode);
    return false;
}

/* ---- shipping ------------------------------------------------------------------------------------------------------------------- */

bool walk_enter(rfs_engine *engine) {
    pthread_rwlock_rdlock(&engine->state);
    if (engine->mode == RFS_RESYNCING && engine->link && !atomic_load(&engine->walk->stop)) return true;
    pthread_rwlock_unlock(&engine->state);
    return false;
}

void walk_leave(rfs_engine *engine) {
    link_flush(engine->link);
    engine->walk->unsent_bytes = 0;
    pthread_rwlock_unlock(&engine->state);
}

void walk_leave_unsent(rfs_engine *engine, uint64_t bytes) {
    engine->walk->unsent_bytes += WIRE_HEADER_BYTES + bytes;
    if (engine->walk->unsent_bytes < UNSENT_BYTES) pthread_rwlock_unlock(&engine->state);
    else walk_leave(engine);
}

void walk_send(rfs_engine *engine) {
    if (!engine->walk->unsent_bytes) return;
    pthread_rwlock_rdlock(&engine->state); /* whatever the mode is by now: who changes it may wait for the answers */
    if (engine->link) link_flush(engine->link);
    engine->walk->unsent_bytes = 0;
    pthread_rwlock_unlock(&engine->state);
}

int put_attributes(rfs_engine *engine, struct inode *inode, struct op *op) {
    int path_fd = inode_open(engine, inode, O_PATH | O_NOFOLLOW);
    if (path_fd < 0) return path_fd;
    int result = put_attributes_of(path_fd, op);
    close(path_fd);
    return result;
}

int put_attributes_of(int fd, struct op *op) {
    size_t bytes;
    struct stat stat;
    int result = fstat(fd, &stat) < 0 ? -errno : xattrs_pack(fd, &op->data, &bytes);
    if (result < 0) return result;
    op->body.data_bytes = (uint32_t)bytes;
    put_stat(&stat, op);
    return 0;
}

void put_stat(const struct stat *stat, struct op *op) {
    op->body.mode = stat->st_mode;
    op->body.uid = stat->st_uid;
    op->body.gid = stat->st_gid;
    op->body.length = S_ISREG(stat->st_mode) ? (uint64_t)stat->st_size : 0;
    op->body.mtime_ns = stat_mtime_ns(stat);
    op->body.atime_ns = stat_atime_ns(stat);
}

int walk_end_session(rfs_engine *engine) {
    if (walk_enter(engine)) {
        link_end(engine->link);
        walk_leave(engine);
    }
    return -ECANCELED;
}

/* ---- a directory -------------------------------------------------------------------------------------------------------------- */

static int describe_entry(int directory_fd, const char *name, const struct stat *stat, struct op *op) {
    struct op_body *body = &op->body;
    body->name_bytes = (uint16_t)strlen(name);
    memcpy(body->name, name, body->name_bytes);
    body->mode = stat->st_mode;
    body->rdev = stat->st_rdev;
    if (!S_ISLNK(stat->st_mode)) return 0;
    char target[RFS_TARGET_BYTES + 1];
    ssize_t bytes = readlinkat(directory_fd, name, target, sizeof target);
    if (bytes < 0) return errno == EINVAL ? -ENOENT : -errno; /* it is no link any more: somebody changes the tree beside us */
    op->data = malloc((size_t)bytes);
    if (!op->data) return -ENOMEM;
    memcpy(op->data, target, (size_t)bytes);
    body->data_bytes = (uint32_t)bytes;
    return 0;
}

/* What follows from its being listed. */
static bool wants_walk(rfs_engine *engine, struct inode *child) {
    uint32_t flags = resync_flags(engine, child);
    if (flags & (S_ISDIR(child->type) ? ENTRIES_CLEAN : CONTENT_DONE)) return marker_is_to_do(engine, child->fid, ALL_KINDS) && !engine->whole;
    return engine->whole || flags & (FRESH | UNLISTED) || marker_is_new(engine, child->fid) || marker_is_to_do(engine, child->fid, ALL_KINDS);
}

static int ship_one(rfs_engine *engine, struct inode *directory, int directory_fd, const char *name, struct inode *child, const struct stat *stat) {
    struct op *op = walk_frame(FRAME_DIRECTORY_ENTRY, directory->fid);
    op->body.child = child->fid;
    int result = describe_entry(directory_fd, name, stat, op);
    if (result < 0) {
        op_free(engine, op);
    } else {
        pthread_mutex_t *stripe = inode_stripe(engine, child->fid);
        pthread_mutex_lock(stripe); /* a write sees "unbound" and is found by the content walk, or comes after this frame */
        mirror_ship(engine, op);
        resync_change(engine, child, BOUND, 0);
        pthread_mutex_unlock(stripe);
        if (wants_walk(engine, child)) walk_push(engine, child);
    }
    return result;
}

static int ship_entry(rfs_engine *engine, struct inode *directory, int directory_fd, const char *name) {
    struct inode *child;
    struct stat stat;
    int fd, result = inode_met(engine, directory, directory_fd, name, &child, &stat, &fd);
    if (result == -EXDEV || result == -ENOENT) return 0; /* a nested mount, or the kernel's view of a name just gone */
    if (result < 0) return result;
    bool local = scope_in(engine, directory, name, S_ISDIR(stat.st_mode)) & SCOPE_LOCAL;
    if (!local && S_ISREG(stat.st_mode)) result = content_with_entry(engine, directory, directory_fd, name, child, &stat, fd);
    if (!local && result == 0) result = ship_one(engine, directory, directory_fd, name, child, &stat);
    if (fd >= 0) close(fd);
    inode_put(engine, child);
    return result < 0 ? result : 0;
}
static int ship_entries(rfs_engine *engine, struct inode *directory) {
    DIR *stream;
    int result = tree_stream(inode_open(engine, directory, O_RDONLY | O_DIRECTORY | O_NOATIME), &stream);
    if (result < 0) return result;
    for (struct dirent *entry; result == 0 && (entry = tree_next(stream, is_root(directory), &result));) result = ship_entry(engine, directory, dirfd(stream), entry->d_name);
    closedir(stream);
    return result;
}

/* `names` held, the directory bound. */
static int list_directory(rfs_engine *engine, struct inode *directory) {
    mirror_ship(engine, walk_frame(FRAME_DIRECTORY_BEGIN, directory->fid));
    int result = ship_entries(engine, directory);
    struct op *end = walk_frame(FRAME_DIRECTORY_END, directory->fid);
    pthread_mutex_t *stripe = inode_stripe(engine, directory->fid);
    pthread_mutex_lock(stripe);
    if (result == 0) result = put_attributes(engine, directory, end);
    if (result == 0) engine->walk->entry_seq = mirror_ship(engine, end);
    else op_free(engine, end);
    if (result == 0) {
        while (marker_take(engine, directory->fid, ALL_KINDS).kind) continue;
        resync_change(engine, directory, ENTRIES_CLEAN | CONTENT_DONE, UNLISTED | FRESH);
    }
    pthread_mutex_unlock(stripe);
    return result;
}

static int ship_directory_attributes(rfs_engine *engine, struct inode *directory) {
    struct op *op = walk_frame(FRAME_ATTRIBUTES, directory->fid);
    pthread_mutex_t *stripe = inode_stripe(engine, directory->fid);
    pthread_mutex_lock(stripe);
    int result = put_attributes(engine, directory, op);
    if (result == 0) mirror_ship(engine, op);
    else op_free(engine, op);
    if (result == 0) while (marker_take(engine, directory->fid, MARK_ATTRIBUTES).kind) continue;
    pthread_mutex_unlock(stripe);
    return result;
}

/* The topmost directory above it that is not clean. `names` held. */
static struct inode *blocker_of(rfs_engine *engine, struct inode *inode) {
    struct inode *found = NULL, *at = inode_get(engine, inode->fid);
    char name[256];
    while (at && !is_root(at)) {
        struct inode *parent = place_of(engine, at, name);
        inode_put(engine, at);
        at = parent;
        if (!at || walk_is_clean(engine, at)) continue;
        inode_put(engine, found);
        found = inode_get(engine, at->fid);
    }
    inode_put(engine, at);
    return found;
}

/* Listed, if it is not clean, or brought up to its attributes. What lies above it comes first. `names` held. */
static int walk_names(rfs_engine *engine, struct inode *inode, bool *bound) {
    *bound = false;
    for (struct inode *blocker; !walk_bind_one(engine, inode);) {
        if (inode->orphan || inode_is_local(inode) || !(blocker = blocker_of(engine, inode))) return 0;
        bool can = walk_bind_one(engine, blocker);
        int result = can ? list_directory(engine, blocker) : 0;
        inode_put(engine, blocker);
        if (!can || result < 0) return result;
    }
    *bound = true;
    return 0;
}

static int walk_directory(rfs_engine *engine, struct inode *directory) {
    bool bound;
    if (!walk_enter(engine)) return -ECANCELED;
    pthread_mutex_lock(&engine->names);
    int result = walk_names(engine, directory, &bound);
    if (result == 0 && bound && !directory->orphan) result = walk_is_clean(engine, directory) && !engine->whole ? ship_directory_attributes(engine, directory) : list_directory(engine, directory);
    if (!bound || directory->orphan) while (marker_take(engine, directory->fid, ALL_KINDS).kind) continue;
    pthread_mutex_unlock(&engine->names);
    walk_leave(engine);
    return result;
}

static int walk_file(rfs_engine *engine, struct inode *inode) {
    bool bound;
    if (!walk_enter(engine)) return -ECANCELED;
    pthread_mutex_lock(&engine->names);
    int result = walk_names(engine, inode, &bound);
    pthread_mutex_unlock(&engine->names);
    walk_leave_unsent(engine, 0);
    if (result == 0 && !bound) while (marker_take(engine, inode->fid, ALL_KINDS).kind) continue;
    return result == 0 && bound ? content_walk(engine, inode) : result;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------------ */

/* What lies ahead, for the progress and its ETA; beside the walk. */
static void *count_ahead(void *argument) {
    rfs_engine *engine = argument;
    const struct tree_tally tally = {&engine->walk->stop, &engine->count.resync_total_files, &engine->count.resync_total_bytes};
    for (uint32_t i = 0; i < engine->directories; i++) tree_count(&engine->directory[i].scopes, engine->directory[i].root_fd, &tally);
    atomic_store(&engine->count.tree_bytes, atomic_load(&engine->count.resync_total_bytes));
    return NULL;
}

/* All became marked while the session compares some: what an op was to note for it is nowhere (marks_set_to_do()). */
static bool is_too_narrow(rfs_engine *engine) { return !engine->whole && marker_everything(engine); }

int walk_end(rfs_engine *engine) {
    struct walk *walk = engine->walk;
    if (!walk) return -EINVAL;
    bool drained = walk_is_drained(engine);
    atomic_store(drained ? &walk->over : &walk->told, drained);
    return drained ? 0 : -EAGAIN;
}

bool walk_is_drained(rfs_engine *engine) {
    struct walk *walk = engine->walk;
    if (!walk || is_too_narrow(engine)) return false;
    pthread_mutex_lock(&walk->lock);
    bool empty = !walk->depth && list_empty(&walk->windows) && !atomic_load(&walk->untold);
    pthread_mutex_unlock(&walk->lock);
    return empty;
}

static bool drained(rfs_engine *engine) {
    if (!walk_enter(engine)) return false;
    pthread_mutex_lock(&engine->names); /* what is to do again comes onto the stack under it, or is announced under it */
    bool empty = walk_is_drained(engine);
    pthread_mutex_lock(&engine->mirror.lock);
    empty = empty && engine->mirror.acked_seq >= engine->walk->entry_seq; /* each FRESH has arrived before that */
    pthread_mutex_unlock(&engine->mirror.lock);
    pthread_mutex_unlock(&engine->names);
    bool answered = mirror_lone_ops_answered(engine);
    walk_leave(engine);
    return empty && answered;
}

static void rest(void) {
    struct timespec nap = {.tv_nsec = 500000};
    nanosleep(&nap, NULL);
}

/* Nothing is to do. END is on its way (RFS_EVENT_DRAINED), and may come too late: an op that leaves something to do meanwhile is walked like any other,
 * and it is told again. */
static void tell_drained(rfs_engine *engine) {
    walk_send(engine);
    if (!atomic_exchange(&engine->walk->told, true)) emit(engine, RFS_EVENT_DRAINED, 0, 0, "%s", "");
    rest();
}

/* One step. 1: drained. */
static int step(rfs_engine *engine) {
    struct walk *walk = engine->walk;
    struct inode *inode = pop(engine);
    if (!inode) walk_send(engine);
    int result = is_too_narrow(engine) ? walk_end_session(engine) : content_pull(engine, !inode && walk->windows_out);
    if (!inode && result == 0 && drained(engine)) {
        if (engine->whole || walk->settled) return 1;
        result = walk_push_left(engine);
    } else if (!inode && result == 0) {
        rest();
    }
    if (result < 0 || !inode) goto out;
    if (!mirror_wait_credit(engine, &walk->stop)) result = -ECANCELED;
    else if (S_ISDIR(inode->type)) result = walk_directory(engine, inode);
    else result = walk_file(engine, inode);
out:
    inode_put(engine, inode);
    return result < 0 ? result : 0;
}

/* What was there and is not now: no disk does that, somebody does who reaches the plain tree. The copy is as good as it was, and nothing that is
 * known of it is: the next session compares all of it. */
static bool is_changed_beside_us(int result) { return result == -ENOENT || result == -ESTALE || result == -ENOTDIR || result == -ELOOP || result == -EXDEV; }

static void *run(void *argument) {
    rfs_engine *engine = argument;
    struct walk *walk = engine->walk;
    int result = walk_begin(engine);
    while (result >= 0 && !atomic_load(&walk->stop) && !atomic_load(&walk->over)) {
        result = step(engine);
        if (result == 1) tell_drained(engine);
    }
    walk_send(engine);
    if (is_changed_beside_us(result)) {
        emit(engine, RFS_EVENT_TREE_CHANGED, result, 0, "somebody changes the tree beside the mirror: %s", strerror(-result));
        rfs_mark_everything(engine);
        inodes_drop_removed(engine);
        walk_end_session(engine);
    } else if (result < 0 && result != -ECANCELED) emit(engine, RFS_EVENT_LOCAL_FAILED, result, 0, "the resync cannot read this copy: %s", strerror(-result));
    return NULL;
}

static void free_walk(rfs_engine *engine, struct walk *walk) {
    content_free(engine, walk);
    free(walk->peer_marks);
    free(walk->stack);
    free(walk->buffer);
    pthread_mutex_destroy(&walk->lock);
    pthread_cond_destroy(&walk->answered);
    free(walk);
}

static void reset_progress(struct counters *count) {
    atomic_store(&count->resync_bytes_done, 0);
    atomic_store(&count->resync_total_bytes, 0);
    atomic_store(&count->resync_files_done, 0);
    atomic_store(&count->resync_total_files, 0);
    atomic_store(&count->resync_sent_bytes, 0);
}

/* State is held exclusively. */
int walk_start(rfs_engine *engine) {
    struct walk *walk = calloc(1, sizeof *walk);
    if (!walk) return -ENOMEM;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&walk->lock, NULL);
    pthread_cond_init(&walk->answered, &attributes);
    pthread_condattr_destroy(&attributes);
    list_init(&walk->windows);
    walk->buffer = malloc(RESYNC_WINDOW_BYTES);
    assert(!engine->walk);
    engine->walk = walk;
    engine->whole = engine->session.everything || marker_everything(engine);
    marker_all_to_do(engine);
    reset_progress(&engine->count);
    pthread_mutex_lock(&engine->mirror.lock);
    governor_begin(&engine->mirror.governor);
    pthread_mutex_unlock(&engine->mirror.lock);
    int result = walk->buffer ? -pthread_create(&walk->thread, NULL, run, engine) : -ENOMEM;
    if (result < 0) {
        engine->walk = NULL;
        free_walk(engine, walk);
        return result;
    }
    walk->counting = engine->whole && pthread_create(&walk->counter, NULL, count_ahead, engine) == 0;
    return 0;
}

void walk_stop(rfs_engine *engine) {
    pthread_rwlock_wrlock(&engine->state);
    struct walk *walk = engine->walk;
    pthread_rwlock_unlock(&engine->state);
    if (!walk) return;
    pthread_mutex_lock(&walk->lock);
    atomic_store(&walk->stop, true);
    pthread_cond_broadcast(&walk->answered);
    pthread_mutex_unlock(&walk->lock);
    mirror_wake(engine);
    pthread_join(walk->thread, NULL);
    if (walk->counting) pthread_join(walk->counter, NULL);
    pthread_rwlock_wrlock(&engine->state);
    engine->walk = NULL;
    pthread_rwlock_unlock(&engine->state);
    free_walk(engine, walk);
}
