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
 * stack, as does a file that was changed before it was bound. So when the stack is empty under `names`, nothing is to do: DRAINED.
 *
 * Directories come before what lies below them. What a mark names and nobody has met when all directories are listed is gone: whatever moved
 * or removed it has marked the directories.
 *
 * What is done stays a hot mark; the next session would begin with it again (marks.h). */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "link.h"
#include "walk_state.h"

enum { ALL_KINDS = MARK_ENTRIES | MARK_ATTRIBUTES | MARK_TAIL | MARK_CHUNK, PEER_MARKS_TIMEOUT_S = 30, MOST_PEER_MARKS = 16 << 20, UNSENT_BYTES = 32 << 10 };

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

struct op *walk_frame(enum frame_type type, uint64_t fid) {
    struct op *op = op_new(type);
    if (!op) abort();
    op->body.fid = fid;
    return op;
}

/* ---- what the target knows ------------------------------------------------------------------------------------------------------ */

static bool is_root(const struct inode *inode) { return inode->fid < FIRST_DIRECTORY_FID + RFS_MAX_DIRECTORIES; }

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
static bool bind(rfs_engine *engine, struct inode *inode) {
    if (is_root(inode) || resync_flags(engine, inode) & BOUND) return true;
    if (inode->orphan || inode_is_local(inode)) return false;
    struct op *op = walk_frame(FRAME_BIND, 0);
    struct inode *parent = place_of(engine, inode, op->body.name);
    bool can = parent ? walk_is_clean(engine, parent) && bind(engine, parent) : !engine->whole && !marker_is_new(engine, inode->fid);
    if (can) {
        op->body.fid = parent ? parent->fid : 0;
        op->body.name_bytes = parent ? (uint16_t)strlen(op->body.name) : 0;
        op->body.child = inode->fid;
        mirror_ship(engine, op);
        resync_change(engine, inode, BOUND, 0);
    } else {
        op_free(engine, op);
    }
    inode_put(engine, parent);
    return can;
}

static bool needs_binding(const rfs_engine *engine, struct inode *inode) {
    enum rfs_mode mode = engine->mode;
    return inode && (mode == RFS_PAIRED || mode == RFS_RESYNCING) && !(resync_flags(engine, inode) & BOUND) && !is_root(inode) && !inode->orphan && !inode_is_local(inode);
}

void walk_bind(rfs_engine *engine, struct inode *inode) {
    if (!needs_binding(engine, inode)) return;
    pthread_mutex_lock(&engine->names);
    bind(engine, inode);
    pthread_mutex_unlock(&engine->names);
}

void walk_bind_names(rfs_engine *engine, const struct op *op) {
    const uint64_t fids[] = {op->body.fid, op->type == FRAME_RENAME || op->type == FRAME_LINK ? op->body.other : 0};
    for (size_t i = 0; i < 2 && fids[i]; i++) {
        struct inode *inode = inode_get(engine, fids[i]);
        if (needs_binding(engine, inode)) bind(engine, inode);
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
    if (was_clean || !engine->whole) push(engine, inode);
    inode_put(engine, inode);
}

bool walk_ships(rfs_engine *engine, struct op *op) {
    const struct op_body *body = &op->body;
    if (op->crossing == ARRIVES) {
        if (op->type == FRAME_PLACE) return true;
        marker_set_whole_to_do(engine, body->child);
        return false; /* its directory is still to be listed, and it is found there */
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
    push(engine, op->inode);
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

/* What follows from its being listed. */
static bool wants_walk(rfs_engine *engine, struct inode *child) {
    uint32_t flags = resync_flags(engine, child);
    if (flags & (S_ISDIR(child->type) ? ENTRIES_CLEAN : CONTENT_DONE)) return marker_is_to_do(engine, child->fid, ALL_KINDS) && !engine->whole;
    return engine->whole || flags & (FRESH | UNLISTED) || marker_is_new(engine, child->fid) || marker_is_to_do(engine, child->fid, ALL_KINDS);
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
    struct op *op = walk_frame(FRAME_DIRECTORY_ENTRY, directory->fid);
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
        if (wants_walk(engine, child)) push(engine, child);
    }
    inode_put(engine, child);
    return result;
}

static int ship_entries(rfs_engine *engine, struct inode *directory) {
    int fd = inode_open(engine, directory, O_RDONLY | O_DIRECTORY | O_NOATIME), result = 0;
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
    for (struct inode *blocker; !bind(engine, inode);) {
        if (inode->orphan || inode_is_local(inode) || !(blocker = blocker_of(engine, inode))) return 0;
        bool can = bind(engine, blocker);
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

/* ---- what is marked -------------------------------------------------------------------------------------------------------------- */

/* Names below the replicated directory, all the way down. */
static bool is_path(const char *path) {
    for (const char *end; *path; path = *end ? end + 1 : end) {
        end = strchrnul(path, '/');
        size_t bytes = (size_t)(end - path);
        if (!bytes || bytes > 255 || (bytes == 1 && path[0] == '.') || (bytes == 2 && path[0] == '.' && path[1] == '.') || (*end && !end[1])) return false;
    }
    return true;
}

int walk_hear_mark(rfs_engine *engine, const struct wire_header *header, const uint8_t *payload) {
    struct op_body body;
    const uint8_t *data;
    int result = wire_decode_body(header, payload, &body, &data);
    if (result < 0) return result;
    pthread_rwlock_rdlock(&engine->state);
    struct walk *walk = engine->walk;
    result = walk && engine->mode == RFS_RESYNCING ? 0 : -EPROTO;
    if (result < 0) goto out;
    pthread_mutex_lock(&walk->lock);
    if (walk->peer_told || walk->peer_count >= MOST_PEER_MARKS) {
        result = -EPROTO;
    } else if (header->type == FRAME_PEER_MARKS) {
        walk->peer_everything = body.offset != 0;
        walk->peer_born = body.length;
        walk->peer_told = true;
        pthread_cond_signal(&walk->answered);
    } else {
        if (walk->peer_count == walk->peer_room) {
            struct peer_mark *larger = realloc(walk->peer_marks, (walk->peer_room * 2 + 64) * sizeof *larger);
            if (!larger) abort(); /* marks that cannot be kept */
            walk->peer_marks = larger;
            walk->peer_room = walk->peer_room * 2 + 64;
        }
        struct peer_mark *mark = &walk->peer_marks[walk->peer_count++];
        *mark = (struct peer_mark){.mark = {.fid = body.fid, .index = body.offset, .grains = body.length, .kind = (int32_t)body.flags}};
        mark->where = (rfs_where){.fid = body.fid, .depth = (uint16_t)body.other, .directory = (uint16_t)body.rdev};
        memcpy(mark->where.path, data, body.data_bytes);
        bool whole = body.other <= MARK_PATH_BYTES / sizeof(uint64_t) && memchr(mark->where.path, 0, sizeof mark->where.path) && where_bytes(&mark->where) == body.data_bytes && is_path(mark->where.path);
        bool good = whole && (body.flags == MARK_ENTRIES || body.flags == MARK_ATTRIBUTES || body.flags == MARK_TAIL || body.flags == MARK_CHUNK);
        if (!good || body.rdev >= engine->directories || body.offset > INT64_MAX / MARK_CHUNK_BYTES) result = -EBADMSG;
    }
    pthread_mutex_unlock(&walk->lock);
out:
    pthread_rwlock_unlock(&engine->state);
    return result;
}

int walk_hear_fresh(rfs_engine *engine, uint64_t fid) {
    pthread_rwlock_rdlock(&engine->state);
    struct inode *inode = engine->walk && engine->mode == RFS_RESYNCING ? inode_get(engine, fid) : NULL;
    if (inode) {
        uint32_t flags = resync_flags(engine, inode);
        bool is_directory = S_ISDIR(inode->type), whole = is_directory || engine->whole || marker_is_new(engine, fid);
        bool done = whole && flags & (is_directory ? ENTRIES_CLEAN : CONTENT_DONE); /* what was walked for its marks alone comes again, as a whole */
        if (!done) resync_change(engine, inode, is_directory ? FRESH | UNLISTED : FRESH, is_directory ? 0 : CONTENT_DONE);
        if (!done && !(whole && flags & WALKED)) push(engine, inode);
    }
    inode_put(engine, inode);
    pthread_rwlock_unlock(&engine->state);
    return 0; /* removed meanwhile, or an answer that comes after the end: nothing depends on it any more */
}

int walk_end_session(rfs_engine *engine) {
    if (walk_enter(engine)) {
        link_end(engine->link);
        walk_leave(engine);
    }
    return -ECANCELED;
}

/* The target's marks become ours. */
static int hear_peer_marks(rfs_engine *engine) {
    struct walk *walk = engine->walk;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += PEER_MARKS_TIMEOUT_S;
    int waited = 0;
    pthread_mutex_lock(&walk->lock);
    while (!walk->peer_told && !atomic_load(&walk->stop) && waited == 0) waited = pthread_cond_timedwait(&walk->answered, &walk->lock, &until);
    bool told = walk->peer_told;
    pthread_mutex_unlock(&walk->lock);
    if (!told || walk->peer_everything) { /* the handshake has said that not everything is: a session later we shall agree */
        return walk_end_session(engine);
    }
    int result = marker_add_peers(engine, walk->peer_marks, walk->peer_count, walk->peer_born);
    pthread_mutex_lock(&walk->lock);
    free(walk->peer_marks); /* half a kilobyte for each; nobody adds to them any more */
    walk->peer_marks = NULL;
    walk->peer_count = walk->peer_room = 0;
    pthread_mutex_unlock(&walk->lock);
    return result;
}

/* It was marked here, so we have its handle; or there, and we have the name that it had. */
static struct inode *find_marked(rfs_engine *engine, uint64_t fid) {
    rfs_where where;
    struct inode *inode = inode_get(engine, fid);
    if (!inode && marker_where(engine, fid, &where)) inode = inode_found(engine, &where);
    return inode;
}

/* Whatever of `kinds` is to do comes onto the stack if it is found. */
static int push_marked(rfs_engine *engine, int32_t kinds, bool announce) {
    size_t count = 0;
    uint64_t *fids = marker_to_do(engine, kinds, &count);
    if (!fids && count) return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        struct inode *inode = find_marked(engine, fids[i]);
        if (inode) push(engine, inode);
        if (announce && walk_enter(engine)) { /* said where it is, if that can be said already */
            pthread_mutex_lock(&engine->names);
            if (inode) bind(engine, inode);
            mirror_ship(engine, walk_frame(FRAME_MARKED, fids[i]));
            pthread_mutex_unlock(&engine->names);
            walk_leave_unsent(engine, 0);
        }
        inode_put(engine, inode);
    }
    free(fids);
    return 0;
}

/* Every object of the trees is in the table from here on. What is moved meanwhile is, by its op. */
static int index_trees(rfs_engine *engine) {
    size_t depth = 0, room = 0;
    uint64_t *fids = NULL;
    int result = 0;
    for (uint32_t i = 0; i < engine->directories || depth;) {
        struct inode *directory = inode_get(engine, depth ? fids[--depth] : FIRST_DIRECTORY_FID + i++);
        int fd = directory && !directory->orphan ? inode_open(engine, directory, O_RDONLY | O_DIRECTORY) : -1;
        DIR *stream = fd < 0 ? NULL : fdopendir(fd);
        if (!stream && fd >= 0) close(fd);
        for (struct dirent *entry; stream && result == 0 && (entry = readdir(stream));) {
            struct inode *inode;
            struct stat stat;
            if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || is_reserved(engine, directory->fid, entry->d_name)) continue;
            if (inode_at(engine, directory, dirfd(stream), entry->d_name, &inode, &stat) < 0) continue; /* gone meanwhile, or a nested mount */
            if (S_ISDIR(inode->type) && depth == room) {
                uint64_t *larger = realloc(fids, (room * 2 + 64) * sizeof *larger);
                if (larger) {
                    fids = larger;
                    room = room * 2 + 64;
                } else {
                    result = -ENOMEM;
                }
            }
            if (S_ISDIR(inode->type) && result == 0) fids[depth++] = inode->fid;
            inode_put(engine, inode);
        }
        if (stream) closedir(stream);
        else if (fd < 0 && fd != -1 && fd != -ENOENT && fd != -ESTALE) result = fd; /* it is there, and cannot be looked into */
        inode_put(engine, directory);
        if (result < 0 || atomic_load(&engine->walk->stop)) break;
    }
    free(fids);
    return result;
}

enum absence { IS_GONE, MAY_BE_ANYWHERE, OUT_OF_REACH };

/* It was not found. The peer cannot tell the way where that is too long, or the last name it knew is gone. */
static enum absence judge(rfs_engine *engine, uint64_t fid) {
    rfs_where where;
    if (!marker_where(engine, fid, &where) || (!where.path[0] && !where.handle_bytes)) return engine->walk->indexed ? IS_GONE : MAY_BE_ANYWHERE;
    return inode_is_gone(engine, &where) ? IS_GONE : OUT_OF_REACH;
}

/* All directories are listed. What was not found before may be now; the rest is gone. */
static int push_left(rfs_engine *engine) {
    size_t count = 0, left = 0;
    bool searches = false;
    uint64_t *fids = marker_to_do(engine, ALL_KINDS, &count);
    int result = !fids && count ? -ENOMEM : 0;
    for (size_t i = 0; result == 0 && i < count; i++) {
        struct inode *inode = find_marked(engine, fids[i]);
        enum absence absence = inode ? IS_GONE : judge(engine, fids[i]);
        if (inode) push(engine, inode);
        else if (absence == IS_GONE) while (marker_take(engine, fids[i], ALL_KINDS).kind) continue;
        left += inode || absence != IS_GONE;
        searches |= absence == MAY_BE_ANYWHERE;
        if (absence == OUT_OF_REACH) result = -EUCLEAN;
        inode_put(engine, inode);
    }
    free(fids);
    engine->walk->settled = !left;
    if (result == 0 && searches) result = index_trees(engine);
    engine->walk->indexed |= searches;
    if (result == 0 || result == -ENOMEM) return result;
    rfs_mark_everything(engine); /* the next session compares all */
    return walk_end_session(engine);
}

static int start_stack(rfs_engine *engine) {
    if (!engine->whole) {
        int result = hear_peer_marks(engine);
        rfs_marks_count marked = marker_count(engine);
        atomic_store(&engine->count.resync_total_bytes, marked.to_do_bytes);
        atomic_store(&engine->count.resync_total_files, marked.inodes);
        if (result == 0) result = push_marked(engine, MARK_ATTRIBUTES | MARK_TAIL | MARK_CHUNK, false);
        return result < 0 ? result : push_marked(engine, MARK_ENTRIES, true);
    }
    for (uint32_t i = engine->directories; i-- > 0;) {
        struct inode *root = inode_get(engine, FIRST_DIRECTORY_FID + i);
        resync_change(engine, root, BOUND, 0);
        push(engine, root);
        inode_put(engine, root);
    }
    return 0;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------------ */

static void count_below(rfs_engine *engine, const struct scopes *scopes, scope_t scope, int directory_fd) {
    int copy = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = copy < 0 ? NULL : fdopendir(copy);
    if (!stream) return;
    for (struct dirent *entry; (entry = readdir(stream)) && !atomic_load(&engine->walk->stop);) {
        struct stat stat;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || is_reserved_name(entry->d_name)) continue;
        if (fstatat(dirfd(stream), entry->d_name, &stat, AT_SYMLINK_NOFOLLOW) < 0) continue;
        scope_t below_scope = scope_below(scopes, scope, entry->d_name, S_ISDIR(stat.st_mode));
        if (below_scope & SCOPE_LOCAL) continue;
        if (S_ISDIR(stat.st_mode)) {
            int below = openat(dirfd(stream), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (below >= 0) count_below(engine, scopes, below_scope, below);
            if (below >= 0) close(below);
            continue;
        }
        atomic_fetch_add(&engine->count.resync_total_files, 1);
        if (S_ISREG(stat.st_mode)) atomic_fetch_add(&engine->count.resync_total_bytes, (uint64_t)stat.st_size);
    }
    closedir(stream);
}

/* What lies ahead, for the progress and its ETA; beside the walk. No locks: an estimate. */
static void *count_tree(void *argument) {
    rfs_engine *engine = argument;
    for (uint32_t i = 0; i < engine->directories; i++) count_below(engine, &engine->directory[i].scopes, engine->directory[i].scopes.root, engine->directory[i].root_fd);
    atomic_store(&engine->count.tree_bytes, atomic_load(&engine->count.resync_total_bytes));
    return NULL;
}

/* All became marked while the session compares some: what an op was to note for it is nowhere (marks_set_to_do()). */
static bool is_too_narrow(rfs_engine *engine) { return !engine->whole && marker_everything(engine); }

bool walk_is_drained(rfs_engine *engine) {
    struct walk *walk = engine->walk;
    if (!walk || is_too_narrow(engine)) return false;
    pthread_mutex_lock(&walk->lock);
    bool empty = !walk->depth && list_empty(&walk->windows);
    pthread_mutex_unlock(&walk->lock);
    return empty;
}

static bool drained(rfs_engine *engine) {
    if (!walk_enter(engine)) return false;
    pthread_mutex_lock(&engine->names); /* what is to do again comes onto the stack under it */
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

/* One step. 1: drained. */
static int step(rfs_engine *engine) {
    struct walk *walk = engine->walk;
    struct inode *inode = pop(engine);
    if (!inode) walk_send(engine);
    int result = is_too_narrow(engine) ? walk_end_session(engine) : content_pull(engine, !inode && walk->windows_out);
    if (!inode && result == 0 && drained(engine)) {
        if (engine->whole || walk->settled) return 1;
        result = push_left(engine);
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

static void *run(void *argument) {
    rfs_engine *engine = argument;
    struct walk *walk = engine->walk;
    walk->started_ns = now_ns();
    int result = start_stack(engine);
    while (result == 0 && !atomic_load(&walk->stop)) result = step(engine);
    walk_send(engine);
    if (result == 1) emit(engine, RFS_EVENT_DRAINED, 0, 0, "%s", "");
    else if (result < 0 && result != -ECANCELED) emit(engine, RFS_EVENT_LOCAL_FAILED, result, 0, "the resync cannot read this copy: %s", strerror(-result));
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
    int result = walk->buffer ? -pthread_create(&walk->thread, NULL, run, engine) : -ENOMEM;
    if (result < 0) {
        engine->walk = NULL;
        free_walk(engine, walk);
        return result;
    }
    walk->counting = engine->whole && pthread_create(&walk->counter, NULL, count_tree, engine) == 0;
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
