/* Resync, the source's side: with what a walk begins, and what is left when its stack is empty.
 *
 * In a session of marks those of the target come over the link before all else and become ours. Each is a fid; where the object is, our own handle or the path
 * that the target knew tells. What neither finds is asked for again when every marked directory has been listed: then it has been met, or is gone. Only if
 * nobody could tell the way to it, because its path was too long, are the whole trees looked through. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "link.h"
#include "tree.h"
#include "walk_state.h"

enum { PEER_MARKS_TIMEOUT_S = 30 };

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
            if (!larger) result = -ENOMEM; /* the session ends */
            if (larger) walk->peer_marks = larger;
            if (larger) walk->peer_room = walk->peer_room * 2 + 64;
        }
        if (result < 0) goto unlock;
        struct peer_mark *mark = &walk->peer_marks[walk->peer_count++];
        *mark = (struct peer_mark){.mark = {.fid = body.fid, .index = body.offset, .grains = body.length, .kind = (int32_t)body.flags}};
        mark->where = (rfs_where){.fid = body.fid, .depth = (uint16_t)body.other, .directory = (uint16_t)body.rdev};
        memcpy(mark->where.path, data, body.data_bytes);
        bool whole = body.other <= MARK_PATH_BYTES / sizeof(uint64_t) && memchr(mark->where.path, 0, sizeof mark->where.path) && where_bytes(&mark->where) == body.data_bytes && is_path(mark->where.path);
        bool good = whole && (body.flags == MARK_ENTRIES || body.flags == MARK_ATTRIBUTES || body.flags == MARK_TAIL || body.flags == MARK_CHUNK);
        if (!good || body.rdev >= engine->directories || body.offset > INT64_MAX / MARK_CHUNK_BYTES) result = -EBADMSG;
    }
unlock:
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
        if (!done && !(whole && flags & WALKED)) walk_push(engine, inode);
    }
    inode_put(engine, inode);
    pthread_rwlock_unlock(&engine->state);
    return 0; /* removed meanwhile, or an answer that comes after the end: nothing depends on it any more */
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

/* It was marked here, so we have its handle; or there, and we have the name that it had, unless its path is too long or the last name
 * is gone. -ENOENT: it is gone; -EAGAIN: it may be anywhere; else it cannot be looked at. */
static int find_marked(rfs_engine *engine, uint64_t fid, struct inode **out) {
    rfs_where where;
    *out = inode_get(engine, fid);
    if (*out) return 0;
    if (!marker_where(engine, fid, &where) || (!where.path[0] && !where.handle_bytes)) return engine->walk->indexed ? -ENOENT : -EAGAIN;
    return inode_found(engine, &where, out);
}

/* Whatever of `kinds` is to do comes onto the stack if it is found. */
static int push_marked(rfs_engine *engine, int32_t kinds, bool announce) {
    size_t count = 0;
    uint64_t *fids = marker_to_do(engine, kinds, &count);
    if (!fids && count) return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        struct inode *inode;
        if (find_marked(engine, fids[i], &inode) == 0) walk_push(engine, inode); /* else push_left() will ask again */
        if (announce && walk_enter(engine)) { /* said where it is, if that can be said already */
            pthread_mutex_lock(&engine->names);
            if (inode) walk_bind_one(engine, inode);
            mirror_ship(engine, walk_frame(FRAME_MARKED, fids[i]));
            pthread_mutex_unlock(&engine->names);
            walk_leave_unsent(engine, 0);
        }
        inode_put(engine, inode);
    }
    free(fids);
    return 0;
}

struct directories {
    uint64_t *fids;
    size_t count, room;
};

static int add_directory(struct directories *directories, uint64_t fid) {
    if (directories->count == directories->room) {
        uint64_t *larger = realloc(directories->fids, (directories->room * 2 + 64) * sizeof *larger);
        if (!larger) return -ENOMEM;
        directories->fids = larger;
        directories->room = directories->room * 2 + 64;
    }
    directories->fids[directories->count++] = fid;
    return 0;
}

/* What cannot be looked at may be what is looked for: only what is gone meanwhile, or a nested mount, may be left out. */
static int index_directory(rfs_engine *engine, struct inode *directory, struct directories *below) {
    DIR *stream;
    int result = tree_stream(inode_open(engine, directory, O_RDONLY | O_DIRECTORY | O_NOATIME), &stream);
    if (result < 0) return result == -ENOENT || result == -ESTALE ? 0 : result;
    for (struct dirent *entry; result == 0 && (entry = tree_next(stream, is_root(directory), &result));) {
        struct inode *inode = NULL;
        struct stat stat;
        result = inode_at(engine, directory, dirfd(stream), entry->d_name, &inode, &stat);
        if (result == -EXDEV || result == -ENOENT) result = 0;
        else if (result == 0 && S_ISDIR(inode->type)) result = add_directory(below, inode->fid);
        inode_put(engine, inode);
    }
    closedir(stream);
    return result;
}

/* Every object of the trees is in the table from here on. What is moved meanwhile is, by its op. */
static int index_trees(rfs_engine *engine) {
    struct directories below = {0};
    int result = 0;
    for (uint32_t i = 0; i < engine->directories || below.count;) {
        struct inode *directory = inode_get(engine, below.count ? below.fids[--below.count] : FIRST_DIRECTORY_FID + i++);
        if (directory && !directory->orphan) result = index_directory(engine, directory, &below);
        inode_put(engine, directory);
        if (result < 0 || atomic_load(&engine->walk->stop)) break;
    }
    free(below.fids);
    return result;
}

/* All directories are listed. What was not found before may be now; the rest is gone. */
int walk_push_left(rfs_engine *engine) {
    size_t count = 0, left = 0;
    bool searches = false;
    uint64_t *fids = marker_to_do(engine, ALL_KINDS, &count);
    int result = !fids && count ? -ENOMEM : 0;
    for (size_t i = 0; result == 0 && i < count; i++) {
        struct inode *inode;
        int found = find_marked(engine, fids[i], &inode);
        if (found == 0) walk_push(engine, inode);
        while (found == -ENOENT && marker_take(engine, fids[i], ALL_KINDS).kind) continue;
        left += found != -ENOENT;
        searches |= found == -EAGAIN;
        if (found < 0 && found != -ENOENT && found != -EAGAIN) result = found;
        inode_put(engine, inode);
    }
    free(fids);
    engine->walk->settled = !left;
    if (result == 0 && searches) result = index_trees(engine);
    engine->walk->indexed |= searches;
    if (result == 0 || result == -ENOMEM) return result;
    rfs_mark_everything(engine); /* something is there and cannot be looked at: the next session compares all */
    return walk_end_session(engine);
}

int walk_begin(rfs_engine *engine) {
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
        walk_push(engine, root);
        inode_put(engine, root);
    }
    return 0;
}
