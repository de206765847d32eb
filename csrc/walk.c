/* Resync, the source's side: make the target's tree equal to ours while the application changes ours.
 *
 * At the start of a session every place is marked. The walk takes one place after the other from its stack:
 *   a directory: under `names` its entries are listed to the target (which makes its own equal), then it is clean;
 *   a file: its content window by window (block hashes first, then the blocks that differ), then its attributes.
 * A listed entry is *bound*: the target knows its fid. From then on every op on it is shipped, also while its content is
 * still to be compared: the target's copy gets both, in one order, so neither can undo the other. (A block is read and
 * shipped under the inode's stripe; hashes may be stale, which only makes equal blocks look different: a write between
 * our hashing and the target's comparison reaches the target first.)
 * A namespace op is shipped only if every directory it touches or removes is clean and its object bound; else its directories are
 * marked again and come back on the stack. So when the stack is empty under `names`, nothing is marked: DRAINED.
 * The marks are dropped with that and not before; a link lost on the way leaves everything marked (see mirror.c). */
#include "walk.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "link.h"

enum { WINDOW_BYTES_WALK = RESYNC_BLOCK_BYTES * RESYNC_WINDOW_BLOCKS };

struct walk {
    pthread_t thread;
    atomic_bool stop;
    uint8_t *buffer; /* one window */

    pthread_mutex_t lock; /* stack, answers */
    pthread_cond_t answered;
    uint64_t *stack;
    size_t depth, room;
    uint64_t waiting_seq, different;
    bool has_answer;

    uint64_t started_ns, paced_bytes;
};

struct block_hash hash_block(const uint8_t *data, size_t bytes, uint64_t seed) {
    XXH128_hash_t hash = XXH3_128bits_withSeed(data, bytes, seed); /* the session is the seed: no two agree by design */
    return (struct block_hash){hash.low64, hash.high64};
}

bool is_zero(const uint8_t *data, size_t bytes) { return !bytes || (!data[0] && !memcmp(data, data + 1, bytes - 1)); }

/* ---- the stack -------------------------------------------------------------------------------------------------------------- */

static void push(rfs_engine *engine, struct inode *inode) {
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

static struct op *new_frame(enum frame_type type, uint64_t fid) {
    struct op *op = op_new(type);
    if (!op) abort();
    op->body.fid = fid;
    return op;
}

static void mark_again(rfs_engine *engine, uint64_t fid) {
    struct inode *inode = inode_get(engine, fid);
    if (!inode) return;
    if (resync_flags(engine, inode) & ENTRIES_CLEAN) {
        resync_change(engine, inode, 0, ENTRIES_CLEAN);
        push(engine, inode);
        mirror_ship(engine, new_frame(FRAME_MARKED, fid)); /* the target must not believe in it any more: see make_way() */
    }
    inode_put(engine, inode);
}

static bool has(rfs_engine *engine, uint64_t fid, uint32_t flag) {
    struct inode *inode = inode_get(engine, fid);
    bool yes = inode && resync_flags(engine, inode) & flag;
    inode_put(engine, inode);
    return yes;
}

bool walk_ships(rfs_engine *engine, struct op *op) {
    const struct op_body *body = &op->body;
    if (op->crossing == ARRIVES) return op->type == FRAME_PLACE; /* else its directory is still to be listed, and it is found there */
    bool clean = has(engine, body->fid, ENTRIES_CLEAN) && !op->unlisted;
    if (op->type == FRAME_RENAME) {
        clean = clean && has(engine, body->other, ENTRIES_CLEAN) && has(engine, body->child, BOUND);
        if (!clean) mark_again(engine, body->other);
    } else if (op->type == FRAME_LINK) {
        clean = clean && has(engine, body->other, BOUND);
    } else if (clean && op->type <= FRAME_SYMLINK) { /* made in a clean directory: equal from its birth */
        resync_change(engine, op->inode, BOUND | ENTRIES_CLEAN | CONTENT_DONE, 0);
    }
    if (!clean) mark_again(engine, body->fid);
    return clean;
}

/* ---- shipping (state shared; mode checked) -------------------------------------------------------------------------------------- */

static bool enter_state(rfs_engine *engine) {
    pthread_rwlock_rdlock(&engine->state);
    if (engine->mode == RFS_RESYNCING && engine->link && !atomic_load(&engine->walk->stop)) return true;
    pthread_rwlock_unlock(&engine->state);
    return false;
}

static void leave_state(rfs_engine *engine) {
    link_flush(engine->link);
    pthread_rwlock_unlock(&engine->state);
}

int put_attributes(rfs_engine *engine, struct inode *inode, struct op *op) {
    size_t bytes;
    struct stat stat;
    int path_fd = inode_open(engine, inode, O_PATH | O_NOFOLLOW);
    if (path_fd < 0) return path_fd;
    int result = fstat(path_fd, &stat) < 0 ? -errno : xattrs_pack(path_fd, &op->data, &bytes);
    close(path_fd);
    if (result < 0) return result;
    op->body.data_bytes = (uint32_t)bytes;
    op->body.mode = stat.st_mode;
    op->body.uid = stat.st_uid;
    op->body.gid = stat.st_gid;
    op->body.length = S_ISREG(stat.st_mode) ? (uint64_t)stat.st_size : 0;
    op->body.mtime_ns = stat_mtime_ns(&stat);
    op->body.atime_ns = stat_atime_ns(&stat);
    return 0;
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
    if (bytes < 0) return -errno;
    op->data = malloc((size_t)bytes);
    if (!op->data) return -ENOMEM;
    memcpy(op->data, target, (size_t)bytes);
    body->data_bytes = (uint32_t)bytes;
    return 0;
}

static int ship_entry(rfs_engine *engine, struct inode *directory, int directory_fd, const char *name) {
    struct inode *child;
    struct stat stat;
    int result = inode_at(engine, directory, directory_fd, name, &child, &stat);
    if (result == -EXDEV || result == -ENOENT) return 0; /* a nested mount, or the kernel's view of a name just gone */
    if (result < 0) return result;
    if (scope_in(engine, directory, name, S_ISDIR(stat.st_mode)) & SCOPE_LOCAL) {
        inode_put(engine, child);
        return 0;
    }
    struct op *op = new_frame(FRAME_DIRECTORY_ENTRY, directory->fid);
    op->body.child = child->fid;
    result = describe_entry(directory_fd, name, &stat, op);
    if (result < 0) {
        op_free(engine, op);
    } else {
        pthread_mutex_t *stripe = inode_stripe(engine, child->fid);
        pthread_mutex_lock(stripe); /* a write sees "unbound" and is found by the content walk, or comes after this frame */
        mirror_ship(engine, op);
        resync_change(engine, child, BOUND, 0);
        pthread_mutex_unlock(stripe);
        uint32_t done = S_ISDIR(child->type) ? ENTRIES_CLEAN : CONTENT_DONE;
        if (!(resync_flags(engine, child) & done)) push(engine, child);
    }
    inode_put(engine, child);
    return result;
}

static int ship_entries(rfs_engine *engine, struct inode *directory) {
    int fd = inode_open(engine, directory, O_RDONLY | O_DIRECTORY), result = 0;
    if (fd < 0) return fd;
    DIR *stream = fdopendir(fd);
    if (!stream) {
        close(fd);
        return -ENOMEM;
    }
    errno = 0;
    for (struct dirent *entry; result == 0 && (entry = readdir(stream)); errno = 0) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || is_reserved(engine, directory->fid, entry->d_name)) continue;
        result = ship_entry(engine, directory, dirfd(stream), entry->d_name);
    }
    if (result == 0 && errno) result = -errno;
    closedir(stream);
    return result;
}

static int walk_directory(rfs_engine *engine, struct inode *directory) {
    if (!enter_state(engine)) return -ECANCELED;
    pthread_mutex_lock(&engine->names);
    int result = 0;
    if (!directory->orphan) {
        mirror_ship(engine, new_frame(FRAME_DIRECTORY_BEGIN, directory->fid));
        result = ship_entries(engine, directory);
        struct op *end = new_frame(FRAME_DIRECTORY_END, directory->fid);
        pthread_mutex_t *stripe = inode_stripe(engine, directory->fid);
        pthread_mutex_lock(stripe);
        if (result == 0) result = put_attributes(engine, directory, end);
        if (result == 0) mirror_ship(engine, end);
        else op_free(engine, end);
        pthread_mutex_unlock(stripe);
        if (result == 0) resync_change(engine, directory, ENTRIES_CLEAN | CONTENT_DONE, 0);
    }
    pthread_mutex_unlock(&engine->names);
    leave_state(engine);
    return result;
}

/* ---- a file ------------------------------------------------------------------------------------------------------------------- */

static void pace(rfs_engine *engine, uint64_t bytes) {
    struct walk *walk = engine->walk;
    uint64_t rate = engine->session.resync_bytes_per_s;
    if (!rate) return;
    walk->paced_bytes += bytes;
    uint64_t due_ns = walk->started_ns + walk->paced_bytes * (uint64_t)NS_PER_S / rate;
    while (!atomic_load(&walk->stop) && now_ns() < due_ns) {
        struct timespec nap = {.tv_nsec = 5000000};
        nanosleep(&nap, NULL);
    }
}

static int wait_answer(struct walk *walk, uint64_t *different) {
    pthread_mutex_lock(&walk->lock);
    while (!walk->has_answer && !atomic_load(&walk->stop)) pthread_cond_wait(&walk->answered, &walk->lock);
    int result = walk->has_answer ? 0 : -ECANCELED;
    *different = walk->different;
    walk->has_answer = false;
    walk->waiting_seq = 0;
    pthread_mutex_unlock(&walk->lock);
    return result;
}

int walk_answer(rfs_engine *engine, uint64_t seq, uint64_t different) {
    int result = -EPROTO;
    pthread_rwlock_rdlock(&engine->state);
    struct walk *walk = engine->walk;
    if (walk) {
        pthread_mutex_lock(&walk->lock);
        if (walk->waiting_seq == seq && seq) {
            walk->different = different;
            walk->has_answer = true;
            pthread_cond_signal(&walk->answered);
            result = 0;
        }
        pthread_mutex_unlock(&walk->lock);
    }
    pthread_rwlock_unlock(&engine->state);
    return result;
}

enum { GONE = -ENOLINK };

/* After its UNLINK the target knows nothing of it: it was removed, or has become local (and may come back, to be listed anew). Under its stripe. */
static bool is_gone(const rfs_engine *engine, struct inode *inode) { return inode->orphan || !(resync_flags(engine, inode) & BOUND); }

static int ask(rfs_engine *engine, struct inode *inode, uint64_t offset, size_t bytes, uint64_t *different) {
    struct walk *walk = engine->walk;
    size_t blocks = (bytes + RESYNC_BLOCK_BYTES - 1) / RESYNC_BLOCK_BYTES;
    struct op *op = new_frame(FRAME_HASHES, inode->fid);
    struct block_hash *hashes = malloc(blocks * sizeof *hashes);
    if (!hashes) abort();
    for (size_t i = 0; i < blocks; i++) {
        size_t at = i * RESYNC_BLOCK_BYTES, part = bytes - at < RESYNC_BLOCK_BYTES ? bytes - at : RESYNC_BLOCK_BYTES;
        hashes[i] = hash_block(walk->buffer + at, part, engine->session.session);
    }
    op->data = (uint8_t *)hashes;
    op->body.data_bytes = (uint32_t)(blocks * sizeof *hashes);
    op->body.offset = offset;
    op->body.length = bytes;
    if (!enter_state(engine)) {
        op_free(engine, op);
        return -ECANCELED;
    }
    pthread_mutex_t *stripe = inode_stripe(engine, inode->fid);
    pthread_mutex_lock(stripe);
    bool gone = is_gone(engine, inode);
    if (gone) {
        op_free(engine, op);
    } else {
        pthread_mutex_lock(&walk->lock); /* the answer cannot overtake the question's number */
        walk->waiting_seq = mirror_ship(engine, op);
        pthread_mutex_unlock(&walk->lock);
    }
    pthread_mutex_unlock(stripe);
    leave_state(engine);
    return gone ? GONE : wait_answer(walk, different);
}

static int ship_block(rfs_engine *engine, struct inode *inode, int fd, uint64_t offset, size_t bytes) {
    struct op *op = new_frame(FRAME_BLOCK, inode->fid);
    op->data = malloc(bytes);
    if (!op->data) abort();
    op->body.offset = offset;
    int result = 0;
    if (!enter_state(engine)) {
        op_free(engine, op);
        return -ECANCELED;
    }
    pthread_mutex_t *stripe = inode_stripe(engine, inode->fid);
    pthread_mutex_lock(stripe);
    bool gone = is_gone(engine, inode);
    ssize_t got = gone ? -1 : pread(fd, op->data, bytes, (off_t)offset);
    if (got <= 0) {
        result = gone ? GONE : got < 0 ? -errno : 0; /* the file has become shorter: its attributes will say so */
        op_free(engine, op);
    } else {
        op->body.length = (uint64_t)got;
        if (is_zero(op->data, (size_t)got)) op->frame.header.flags |= FLAG_ZERO;
        op->body.data_bytes = op->frame.header.flags & FLAG_ZERO ? 0 : (uint32_t)got;
        mirror_ship(engine, op);
    }
    pthread_mutex_unlock(stripe);
    leave_state(engine);
    return result;
}

/* A hole is told, not hashed. Returns its length from offset on, cut at `size`; 0: data begins here. */
static uint64_t hole_bytes(int fd, uint64_t offset, uint64_t size) {
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    if (data < 0) return errno == ENXIO ? size - offset : 0;
    uint64_t next = (uint64_t)data < size ? (uint64_t)data : size;
    next -= next < size ? next % RESYNC_BLOCK_BYTES : 0;
    return next > offset ? next - offset : 0;
}

static int ship_hole(rfs_engine *engine, struct inode *inode, int fd, uint64_t offset, uint64_t bytes) {
    if (!enter_state(engine)) return -ECANCELED;
    pthread_mutex_t *stripe = inode_stripe(engine, inode->fid);
    pthread_mutex_lock(stripe);
    struct stat stat;
    bool gone = is_gone(engine, inode), still = !gone && fstat(fd, &stat) == 0 && offset + bytes <= (uint64_t)stat.st_size && hole_bytes(fd, offset, offset + bytes) == bytes;
    if (still) {
        struct op *op = new_frame(FRAME_BLOCK, inode->fid);
        op->body.offset = offset;
        op->body.length = bytes;
        op->frame.header.flags |= FLAG_ZERO;
        mirror_ship(engine, op);
    }
    pthread_mutex_unlock(stripe);
    leave_state(engine);
    return gone ? GONE : still ? 0 : -EAGAIN;
}

static int walk_window(rfs_engine *engine, struct inode *inode, int fd, uint64_t offset, size_t bytes) {
    struct walk *walk = engine->walk;
    uint64_t different;
    ssize_t got = pread(fd, walk->buffer, bytes, (off_t)offset);
    if (got <= 0) return got < 0 ? -errno : 0;
    int result = ask(engine, inode, offset, (size_t)got, &different);
    for (size_t i = 0; result == 0 && i * RESYNC_BLOCK_BYTES < (size_t)got; i++) {
        size_t at = i * RESYNC_BLOCK_BYTES, part = (size_t)got - at < RESYNC_BLOCK_BYTES ? (size_t)got - at : RESYNC_BLOCK_BYTES;
        if (!(different >> i & 1)) continue;
        if (!mirror_wait_credit(engine, &walk->stop)) return -ECANCELED;
        result = ship_block(engine, inode, fd, offset + at, part);
        pace(engine, part);
    }
    return result;
}

static int walk_content(rfs_engine *engine, struct inode *inode, int fd) {
    uint64_t offset = 0;
    for (;;) {
        struct stat stat;
        if (fstat(fd, &stat) < 0) return -errno;
        uint64_t size = (uint64_t)stat.st_size;
        if (offset >= size) break;
        uint64_t left = size - offset, hole = hole_bytes(fd, offset, size), step = left < WINDOW_BYTES_WALK ? left : WINDOW_BYTES_WALK;
        int result = hole ? ship_hole(engine, inode, fd, offset, hole) : -EAGAIN;
        if (result == 0) step = hole;
        else if (result == -EAGAIN) result = walk_window(engine, inode, fd, offset, step);
        if (result < 0) return result;
        offset += step;
        atomic_fetch_add(&engine->count.resync_bytes_done, step);
    }
    return 0;
}

static int finish_file(rfs_engine *engine, struct inode *inode) {
    struct op *op = new_frame(FRAME_ATTRIBUTES, inode->fid);
    if (!enter_state(engine)) {
        op_free(engine, op);
        return -ECANCELED;
    }
    pthread_mutex_t *stripe = inode_stripe(engine, inode->fid);
    pthread_mutex_lock(stripe);
    int result = is_gone(engine, inode) ? 1 : put_attributes(engine, inode, op);
    if (result == 0) {
        mirror_ship(engine, op);
        resync_change(engine, inode, CONTENT_DONE, 0);
    } else {
        op_free(engine, op);
    }
    pthread_mutex_unlock(stripe);
    leave_state(engine);
    return result < 0 ? result : 0;
}

static int walk_file(rfs_engine *engine, struct inode *inode) {
    int result = 0;
    if (S_ISREG(inode->type) && !inode->orphan) {
        int fd = inode_open(engine, inode, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0) return is_gone(engine, inode) ? 0 : fd;
        result = walk_content(engine, inode, fd);
        close(fd);
    }
    if (result == 0) result = finish_file(engine, inode);
    atomic_fetch_add(&engine->count.resync_files_done, 1);
    return result;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------------ */

/* What lies ahead, for the progress and its ETA. No locks: an estimate. */
static void count_tree(rfs_engine *engine, const struct scopes *scopes, scope_t scope, int directory_fd) {
    int copy = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = copy < 0 ? NULL : fdopendir(copy);
    if (!stream) return;
    for (struct dirent *entry; (entry = readdir(stream)) && !atomic_load(&engine->walk->stop);) {
        struct stat stat;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || !strcmp(entry->d_name, HOLDING_NAME) || !strcmp(entry->d_name, KEPT_NAME)) continue;
        if (fstatat(dirfd(stream), entry->d_name, &stat, AT_SYMLINK_NOFOLLOW) < 0) continue;
        scope_t below_scope = scope_below(scopes, scope, entry->d_name, S_ISDIR(stat.st_mode));
        if (below_scope & SCOPE_LOCAL) continue;
        if (S_ISDIR(stat.st_mode)) {
            int below = openat(dirfd(stream), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (below >= 0) count_tree(engine, scopes, below_scope, below);
            if (below >= 0) close(below);
            continue;
        }
        atomic_fetch_add(&engine->count.resync_total_files, 1);
        if (S_ISREG(stat.st_mode)) atomic_fetch_add(&engine->count.resync_total_bytes, (uint64_t)stat.st_size);
    }
    closedir(stream);
}

bool walk_is_drained(rfs_engine *engine) {
    struct walk *walk = engine->walk;
    if (!walk) return false;
    pthread_mutex_lock(&walk->lock);
    bool empty = !walk->depth;
    pthread_mutex_unlock(&walk->lock);
    return empty;
}

static bool drained(rfs_engine *engine) {
    if (!enter_state(engine)) return false;
    pthread_mutex_lock(&engine->names); /* marks are made under it */
    bool empty = walk_is_drained(engine);
    pthread_mutex_unlock(&engine->names);
    bool answered = mirror_lone_ops_answered(engine);
    leave_state(engine);
    return empty && answered;
}

static void *run(void *argument) {
    rfs_engine *engine = argument;
    struct walk *walk = engine->walk;
    int result = 0;
    walk->started_ns = now_ns();
    for (uint32_t i = 0; i < engine->directories; i++) count_tree(engine, &engine->directory[i].scopes, engine->directory[i].scopes.root, engine->directory[i].root_fd);
    atomic_store(&engine->count.tree_bytes, atomic_load(&engine->count.resync_total_bytes));
    for (uint32_t i = engine->directories; i-- > 0;) {
        struct inode *root = inode_get(engine, FIRST_DIRECTORY_FID + i);
        resync_change(engine, root, BOUND, 0);
        push(engine, root);
        inode_put(engine, root);
    }
    while (result == 0 && !atomic_load(&walk->stop)) {
        struct inode *inode = pop(engine);
        if (!inode) {
            if (drained(engine)) break;
            struct timespec nap = {.tv_nsec = 1000000};
            nanosleep(&nap, NULL);
            continue;
        }
        if (!mirror_wait_credit(engine, &walk->stop)) result = -ECANCELED;
        else if (S_ISDIR(inode->type)) result = walk_directory(engine, inode);
        else result = walk_file(engine, inode);
        if (result == GONE) result = 0;
        inode_put(engine, inode);
    }
    if (result == 0 && !atomic_load(&walk->stop)) emit(engine, RFS_EVENT_DRAINED, 0, 0, "%s", "");
    else if (result < 0 && result != -ECANCELED) emit(engine, RFS_EVENT_LOCAL_FAILED, result, 0, "the resync cannot read this copy: %s", strerror(-result));
    return NULL;
}

/* State is held exclusively. */
int walk_start(rfs_engine *engine) {
    struct walk *walk = calloc(1, sizeof *walk);
    if (!walk) return -ENOMEM;
    walk->buffer = malloc(WINDOW_BYTES_WALK);
    if (!walk->buffer) {
        free(walk);
        return -ENOMEM;
    }
    pthread_mutex_init(&walk->lock, NULL);
    pthread_cond_init(&walk->answered, NULL);
    struct counters *count = &engine->count;
    atomic_store(&count->resync_bytes_done, 0);
    atomic_store(&count->resync_total_bytes, 0);
    atomic_store(&count->resync_files_done, 0);
    atomic_store(&count->resync_total_files, 0);
    atomic_store(&count->resync_sent_bytes, 0);
    assert(!engine->walk);
    engine->walk = walk;
    int result = -pthread_create(&walk->thread, NULL, run, engine);
    if (result == 0) return 0;
    engine->walk = NULL;
    free(walk->buffer);
    free(walk);
    return result;
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
    pthread_rwlock_wrlock(&engine->state);
    engine->walk = NULL;
    pthread_rwlock_unlock(&engine->state);
    free(walk->stack);
    free(walk->buffer);
    pthread_mutex_destroy(&walk->lock);
    pthread_cond_destroy(&walk->answered);
    free(walk);
}
