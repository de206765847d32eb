/* Resync, the source's side: the content of files.
 *
 * A file goes to the target window by window (256 KiB): the hashes of its blocks first, then the blocks that differ. The answers are not waited for one by
 * one: up to WINDOWS_OUT windows are on their way, of as many files, so a tree of small files costs no round trip for each. What is known
 * to be missing there is sent without a question. Holes are told, not hashed.
 *
 * A block is read and shipped under the inode's stripe, so it has its place in the order of the ops. Hashes may be stale; that only makes equal blocks look
 * different: a write between our hashing and the target's comparison reaches the target first. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "link.h"
#include "walk_state.h"

enum { WINDOWS_OUT = 64, ANSWER_TIMEOUT_S = 30, LONG_HOLE_BYTES = 1 << 16, SMALL_FILE_BYTES = 1 << 16, LONGEST_NAP_NS = 5000000, PACED_AHEAD_NS = 10000000 };

struct block_hash hash_block(const uint8_t *data, size_t bytes, uint64_t seed) {
    XXH128_hash_t hash = XXH3_128bits_withSeed(data, bytes, seed); /* the session is the seed: no two agree by design */
    return (struct block_hash){hash.low64, hash.high64};
}

bool is_zero(const uint8_t *data, size_t bytes) { return !bytes || (!data[0] && !memcmp(data, data + 1, bytes - 1)); }

/* After its UNLINK the target knows nothing of it: it was removed, or has become local (and may come back, to be listed anew). Under its stripe. */
static bool is_gone(const rfs_engine *engine, struct inode *inode) { return inode->orphan || !(resync_flags(engine, inode) & BOUND); }

static void pace(rfs_engine *engine, uint64_t bytes) {
    struct walk *walk = engine->walk;
    uint64_t cap = engine->session.resync_bytes_per_s, felt = mirror_walk_rate(engine), rate = cap && (!felt || cap < felt) ? cap : felt, now = now_ns();
    if (!rate) return;
    walk_send(engine);
    if (walk->due_ns + PACED_AHEAD_NS < now) walk->due_ns = now - PACED_AHEAD_NS; /* what was not used is not saved up */
    walk->due_ns += bytes * (uint64_t)NS_PER_S / rate;
    for (; !atomic_load(&walk->stop) && now < walk->due_ns; now = now_ns()) {
        uint64_t left_ns = walk->due_ns - now;
        struct timespec nap = {.tv_nsec = left_ns < LONGEST_NAP_NS ? (long)left_ns : LONGEST_NAP_NS};
        nanosleep(&nap, NULL);
    }
}

static void progress(rfs_engine *engine, uint64_t bytes) { atomic_fetch_add(&engine->count.resync_bytes_done, bytes); }

/* ---- shipping --------------------------------------------------------------------------------------------------------------------------- */

static int ship_piece(rfs_engine *engine, struct inode *inode, int fd, uint64_t offset, size_t bytes) {
    struct op *op = walk_frame(FRAME_BLOCK, inode->fid);
    op->data = malloc(bytes);
    if (!op->data) abort();
    op->body.offset = offset;
    int result = 0;
    if (!mirror_wait_credit(engine, &engine->walk->stop) || !walk_enter(engine)) {
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
    walk_leave_unsent(engine, bytes);
    pace(engine, bytes);
    return result;
}

/* A hole's length from offset on, cut at `end`; 0: data begins here. */
static uint64_t hole_bytes(int fd, uint64_t offset, uint64_t end) {
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    if (data < 0) return errno == ENXIO ? end - offset : 0;
    uint64_t next = (uint64_t)data < end ? (uint64_t)data : end;
    next -= next < end ? next % RESYNC_BLOCK_BYTES : 0;
    return next > offset ? next - offset : 0;
}

/* Where data lies at `offset`: how much of `bytes` there is before a long hole; a short one is cheaper read than told. */
static uint64_t data_bytes(int fd, uint64_t offset, uint64_t bytes) {
    uint64_t end = offset + bytes, at = offset;
    while (at < end) {
        off_t hole = lseek(fd, (off_t)at, SEEK_HOLE);
        if (hole < 0 || (uint64_t)hole >= end) return bytes;
        uint64_t cut = ((uint64_t)hole + RESYNC_BLOCK_BYTES - 1) / RESYNC_BLOCK_BYTES * RESYNC_BLOCK_BYTES;
        off_t data = lseek(fd, hole, SEEK_DATA);
        if (cut >= end) return bytes;
        if (data < 0 || (uint64_t)data >= end || (uint64_t)data >= cut + LONG_HOLE_BYTES) return cut - offset;
        at = (uint64_t)data;
    }
    return bytes;
}

static int ship_hole(rfs_engine *engine, struct inode *inode, int fd, uint64_t offset, uint64_t bytes) {
    if (!walk_enter(engine)) return -ECANCELED;
    pthread_mutex_t *stripe = inode_stripe(engine, inode->fid);
    pthread_mutex_lock(stripe);
    struct stat stat;
    bool gone = is_gone(engine, inode), still = !gone && fstat(fd, &stat) == 0 && offset + bytes <= (uint64_t)stat.st_size && hole_bytes(fd, offset, offset + bytes) == bytes;
    if (still) {
        struct op *op = walk_frame(FRAME_BLOCK, inode->fid);
        op->body.offset = offset;
        op->body.length = bytes;
        op->frame.header.flags |= FLAG_ZERO;
        mirror_ship(engine, op);
    }
    pthread_mutex_unlock(stripe);
    walk_leave_unsent(engine, 0);
    return gone ? GONE : still ? 0 : -EAGAIN;
}

static int finish_file(rfs_engine *engine, struct inode *inode, int fd) {
    struct op *op = walk_frame(FRAME_ATTRIBUTES, inode->fid);
    if (!walk_enter(engine)) {
        op_free(engine, op);
        return -ECANCELED;
    }
    pthread_mutex_t *stripe = inode_stripe(engine, inode->fid);
    pthread_mutex_lock(stripe);
    int result = is_gone(engine, inode) ? 1 : fd >= 0 ? put_attributes_of(fd, op) : put_attributes(engine, inode, op);
    if (result == 0) {
        mirror_ship(engine, op);
        resync_change(engine, inode, CONTENT_DONE, WALKED);
    } else {
        op_free(engine, op);
    }
    pthread_mutex_unlock(stripe);
    walk_leave_unsent(engine, 0);
    atomic_fetch_add(&engine->count.resync_files_done, 1);
    return result < 0 ? result : 0;
}

/* ---- windows ---------------------------------------------------------------------------------------------------------------------------- */

int walk_answer(rfs_engine *engine, uint64_t seq, uint64_t different) {
    int result = -EPROTO;
    pthread_rwlock_rdlock(&engine->state);
    struct walk *walk = engine->walk;
    if (walk) {
        pthread_mutex_lock(&walk->lock);
        for (struct list *at = walk->windows.next; result < 0 && at != &walk->windows; at = at->next) {
            struct window *window = ITEM(at, struct window, item);
            if (window->seq != seq || window->answered) continue;
            window->different = different;
            window->answered = true;
            pthread_cond_signal(&walk->answered);
            result = 0;
        }
        pthread_mutex_unlock(&walk->lock);
    }
    pthread_rwlock_unlock(&engine->state);
    return result;
}

static struct op *question(rfs_engine *engine, const struct inode *inode, uint64_t offset, size_t bytes) {
    size_t blocks = (bytes + RESYNC_BLOCK_BYTES - 1) / RESYNC_BLOCK_BYTES;
    struct op *op = walk_frame(FRAME_HASHES, inode->fid);
    struct block_hash *hashes = malloc(blocks * sizeof *hashes);
    if (!hashes) abort();
    for (size_t i = 0; i < blocks; i++) {
        size_t at = i * RESYNC_BLOCK_BYTES, part = bytes - at < RESYNC_BLOCK_BYTES ? bytes - at : RESYNC_BLOCK_BYTES;
        hashes[i] = hash_block(engine->walk->buffer + at, part, engine->session.session);
    }
    op->data = (uint8_t *)hashes;
    op->body.data_bytes = (uint32_t)(blocks * sizeof *hashes);
    op->body.offset = offset;
    op->body.length = bytes;
    return op;
}

static int ask(rfs_engine *engine, struct walked_file *file, uint64_t offset, size_t bytes) {
    struct walk *walk = engine->walk;
    int result = 0;
    while (walk->windows_out >= WINDOWS_OUT && result >= 0) result = content_pull(engine, true);
    if (result < 0) return result;
    struct window *window = calloc(1, sizeof *window);
    if (!window) abort();
    struct op *op = question(engine, file->inode, offset, bytes);
    *window = (struct window){.file = file, .offset = offset, .bytes = bytes};
    if (!walk_enter(engine)) {
        op_free(engine, op);
        free(window);
        return -ECANCELED;
    }
    pthread_mutex_t *stripe = inode_stripe(engine, file->inode->fid);
    pthread_mutex_lock(stripe);
    if (is_gone(engine, file->inode)) {
        result = GONE;
        op_free(engine, op);
        free(window);
    } else {
        pthread_mutex_lock(&walk->lock); /* the answer cannot overtake the question's number */
        window->seq = mirror_ship(engine, op);
        list_append(&walk->windows, &window->item);
        pthread_mutex_unlock(&walk->lock);
        walk->windows_out++;
        file->waiting++;
        result = 0;
    }
    pthread_mutex_unlock(stripe);
    walk_leave_unsent(engine, bytes / RESYNC_BLOCK_BYTES * sizeof(struct block_hash));
    return result;
}

/* Blocks that differ and lie beside each other go as one. */
static int ship_different(rfs_engine *engine, const struct window *window) {
    size_t blocks = (window->bytes + RESYNC_BLOCK_BYTES - 1) / RESYNC_BLOCK_BYTES;
    int result = 0;
    for (size_t i = 0, next; result == 0 && i < blocks; i = next) {
        next = i + 1;
        if (!(window->different >> i & 1)) continue;
        while (next < blocks && window->different >> next & 1) next++;
        size_t at = i * RESYNC_BLOCK_BYTES, end = next * RESYNC_BLOCK_BYTES < window->bytes ? next * RESYNC_BLOCK_BYTES : window->bytes;
        result = ship_piece(engine, window->file->inode, window->file->fd, window->offset + at, end - at);
    }
    return result;
}

static int release_file(rfs_engine *engine, struct walked_file *file) {
    if (!file->asked || file->waiting) return 0;
    int result = file->gone ? 0 : finish_file(engine, file->inode, file->fd);
    if (file->fd >= 0) close(file->fd);
    inode_put(engine, file->inode);
    free(file);
    return result;
}

static struct window *take_answered(struct walk *walk, bool wait) {
    struct window *found = NULL;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ANSWER_TIMEOUT_S;
    pthread_mutex_lock(&walk->lock);
    for (;;) {
        for (struct list *at = walk->windows.next; !found && at != &walk->windows; at = at->next)
            if (ITEM(at, struct window, item)->answered) found = ITEM(at, struct window, item);
        if (found || !wait || list_empty(&walk->windows) || atomic_load(&walk->stop)) break;
        if (pthread_cond_timedwait(&walk->answered, &walk->lock, &until) != 0) break;
    }
    if (found) list_remove(&found->item);
    pthread_mutex_unlock(&walk->lock);
    return found;
}

int content_pull(rfs_engine *engine, bool wait) {
    struct walk *walk = engine->walk;
    if (wait) walk_send(engine);
    struct window *window = take_answered(walk, wait);
    if (!window && wait && walk->windows_out) return walk_end_session(engine); /* it lives, acknowledges, and does not answer */
    if (!window) return atomic_load(&walk->stop) ? -ECANCELED : 0;
    struct walked_file *file = window->file;
    walk->windows_out--;
    file->waiting--;
    int result = file->gone ? 0 : ship_different(engine, window);
    if (result == GONE) {
        file->gone = true;
        result = 0;
    }
    free(window);
    int finished = release_file(engine, file);
    return result < 0 ? result : finished < 0 ? finished : 1;
}

/* ---- a file ----------------------------------------------------------------------------------------------------------------------------- */

static bool is_missing_there(const rfs_engine *engine, struct inode *inode) {
    return resync_flags(engine, inode) & FRESH || engine->session.fresh >> inode->directory & 1;
}

static int walk_data(rfs_engine *engine, struct walked_file *file, uint64_t offset, size_t bytes, bool missing) {
    if (missing) return ship_piece(engine, file->inode, file->fd, offset, bytes);
    ssize_t got = pread(file->fd, engine->walk->buffer, bytes, (off_t)offset);
    if (got <= 0) return got < 0 ? -errno : 0;
    return ask(engine, file, offset, (size_t)got);
}

static int walk_range(rfs_engine *engine, struct walked_file *file, uint64_t offset, uint64_t end) {
    int result = 0;
    while (result == 0) {
        struct stat stat;
        if (fstat(file->fd, &stat) < 0) return -errno;
        uint64_t stop = end < (uint64_t)stat.st_size ? end : (uint64_t)stat.st_size;
        if (offset >= stop) break;
        bool missing = is_missing_there(engine, file->inode);
        uint64_t hole = hole_bytes(file->fd, offset, stop), step = stop - offset < RESYNC_WINDOW_BYTES ? stop - offset : RESYNC_WINDOW_BYTES;
        if (hole) {
            result = missing ? 0 : ship_hole(engine, file->inode, file->fd, offset, hole);
            if (result == 0) step = hole;
        }
        if (!hole) step = data_bytes(file->fd, offset, step);
        if (!hole || result == -EAGAIN) result = walk_data(engine, file, offset, (size_t)step, missing);
        offset += step;
        progress(engine, step);
    }
    return result;
}

static int walk_grains(rfs_engine *engine, struct walked_file *file, const rfs_mark *mark) {
    uint64_t start = mark->index * MARK_CHUNK_BYTES;
    int result = 0;
    for (uint32_t i = 0, next; result == 0 && i < 64; i = next) {
        next = i + 1;
        if (!(mark->grains >> i & 1)) continue;
        while (next < 64 && mark->grains >> next & 1) next++;
        result = walk_range(engine, file, start + (uint64_t)i * MARK_GRAIN_BYTES, start + (uint64_t)next * MARK_GRAIN_BYTES);
    }
    return result;
}

static int walk_marked(rfs_engine *engine, struct walked_file *file, bool whole) {
    const int32_t kinds = MARK_CHUNK | MARK_TAIL | MARK_ATTRIBUTES;
    int result = 0;
    for (rfs_mark mark = marker_take(engine, file->inode->fid, kinds); mark.kind && result == 0; mark = marker_take(engine, file->inode->fid, kinds)) {
        if (whole || file->fd < 0) continue; /* all of it comes below */
        if (mark.kind == MARK_CHUNK) result = walk_grains(engine, file, &mark);
        else if (mark.kind == MARK_TAIL) result = walk_range(engine, file, mark.index * MARK_CHUNK_BYTES, UINT64_MAX);
    }
    return result == 0 && whole && file->fd >= 0 ? walk_range(engine, file, 0, UINT64_MAX) : result;
}

/* ---- a small file --------------------------------------------------------------------------------------------------------------------- */

/* Nothing of it is there: the target's tree was empty when the session began, and it has no other name under which it could have gone. */
static bool may_go_with_entry(rfs_engine *engine, struct inode *file, const struct stat *stat) {
    if (!(engine->session.fresh >> file->directory & 1) || engine->session.resync_bytes_per_s || resync_flags(engine, file)) return false;
    return stat->st_nlink == 1 && stat->st_size <= SMALL_FILE_BYTES && stat->st_blocks * 512 >= stat->st_size && mirror_has_credit(engine);
}

/* As it is now: its stripe is held. -EAGAIN: not all of it is in memory. -E2BIG: it is none that goes in one frame. */
static int read_small_file(rfs_engine *engine, struct inode *file, int fd, struct op *op) {
    struct stat stat;
    uint8_t *xattrs;
    size_t bytes;
    if (fstat(fd, &stat) < 0) return -errno;
    if (!S_ISREG(stat.st_mode) || stat.st_ino != file->number) return -ESTALE; /* the name is another object's by now */
    if (!may_go_with_entry(engine, file, &stat)) return -E2BIG;
    int result = xattrs_pack(fd, &xattrs, &bytes);
    free(xattrs);
    if (result < 0 || bytes) return result < 0 ? result : -E2BIG;
    struct iovec whole = {.iov_base = op->data = malloc((size_t)stat.st_size + 1), .iov_len = (size_t)stat.st_size};
    if (!op->data) abort();
    ssize_t got = stat.st_size ? preadv2(fd, &whole, 1, 0, RWF_NOWAIT) : 0;
    if (got != stat.st_size) return got < 0 ? -errno : -EAGAIN;
    op->body.data_bytes = (uint32_t)got;
    put_stat(&stat, op);
    return 0;
}

int content_with_entry(rfs_engine *engine, struct inode *directory, int directory_fd, const char *name, struct inode *file, const struct stat *stat, int fd) {
    if (!may_go_with_entry(engine, file, stat)) return 0; /* asked again under its stripe */
    int opened = fd < 0 ? openat(directory_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOATIME | O_CLOEXEC) : -1;
    struct op *op = walk_frame(FRAME_SMALL_FILE, directory->fid);
    op->body.child = file->fid;
    op->body.name_bytes = (uint16_t)strlen(name);
    memcpy(op->body.name, name, op->body.name_bytes);
    pthread_mutex_t *stripe = inode_stripe(engine, file->fid);
    pthread_mutex_lock(stripe); /* an op on it was before, and is in what is read, or finds it bound and comes after this frame */
    bool goes = fd >= 0 || opened >= 0;
    goes = goes && read_small_file(engine, file, fd >= 0 ? fd : opened, op) == 0; /* else it is listed, and what is wrong with it is found by who walks to it */
    uint64_t bytes = op->body.length;
    if (goes) {
        mirror_ship(engine, op);
        resync_change(engine, file, BOUND | CONTENT_DONE, 0);
        while (marker_take(engine, file->fid, MARK_CHUNK | MARK_TAIL | MARK_ATTRIBUTES).kind) continue;
    }
    pthread_mutex_unlock(stripe);
    if (opened >= 0) close(opened);
    if (!goes) {
        op_free(engine, op);
        return 0;
    }
    progress(engine, bytes);
    atomic_fetch_add(&engine->count.resync_files_done, 1);
    return 1;
}

/* ---- what is to do of a file ---------------------------------------------------------------------------------------------------------- */

/* First of all. An op that is shipped while the walk is at the file may make it longer; what it leaves empty must not be the target's old bytes, which
 * lie beyond what is compared. */
static int ship_size(rfs_engine *engine, struct inode *inode, int fd) {
    struct op *op = walk_frame(FRAME_SIZE, inode->fid);
    struct stat stat;
    if (!walk_enter(engine)) {
        op_free(engine, op);
        return -ECANCELED;
    }
    pthread_mutex_t *stripe = inode_stripe(engine, inode->fid);
    pthread_mutex_lock(stripe);
    int result = is_gone(engine, inode) ? GONE : fstat(fd, &stat) < 0 ? -errno : 0;
    if (result == 0) {
        op->body.length = (uint64_t)stat.st_size;
        mirror_ship(engine, op);
    } else {
        op_free(engine, op);
    }
    pthread_mutex_unlock(stripe);
    walk_leave_unsent(engine, 0);
    return result;
}

int content_walk(rfs_engine *engine, struct inode *inode) {
    bool whole = engine->whole || marker_is_new(engine, inode->fid) || resync_flags(engine, inode) & FRESH;
    struct walked_file *file = calloc(1, sizeof *file);
    if (!file) abort();
    *file = (struct walked_file){.inode = inode_get(engine, inode->fid), .fd = -1};
    if (!file->inode) { /* removed meanwhile */
        free(file);
        return 0;
    }
    resync_change(engine, inode, WALKED, 0);
    int result = 0;
    if (S_ISREG(inode->type) && !inode->orphan) result = file->fd = inode_open(engine, inode, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOATIME);
    if (result < 0 && is_gone(engine, inode)) result = GONE;
    if (result >= 0 && file->fd >= 0 && !is_missing_there(engine, inode)) result = ship_size(engine, inode, file->fd);
    if (result >= 0) result = walk_marked(engine, file, whole);
    file->gone = result < 0;
    file->asked = true;
    int finished = release_file(engine, file);
    return result < 0 && result != GONE ? result : finished;
}

void content_free(rfs_engine *engine, struct walk *walk) {
    while (!list_empty(&walk->windows)) {
        struct window *window = ITEM(walk->windows.next, struct window, item);
        struct walked_file *file = window->file;
        list_remove(&window->item);
        free(window);
        if (--file->waiting) continue;
        if (file->fd >= 0) close(file->fd);
        inode_put(engine, file->inode);
        free(file);
    }
}
