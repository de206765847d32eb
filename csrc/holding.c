/* Three places at the top of each replicated directory that applications do not see.
 *
 * HOLDING_NAME: during a resync the target destroys no inode (PROTOCOL 4.8). What has no place goes there, may be found again by its handle under
 * another name later in the walk, and is purged after the end. It is also where a file is made that is yet to get its name (border.c): a purge
 * within a session leaves those alone.
 * KEPT_NAME: local files (scope.h) whose directory is purged or was removed by the primary. Nothing of them is ever deleted.
 *
 * What is held carries in its name the one that it had, for people should it be set aside (brake.c); and the scope, so that the purge knows what is
 * local below it; and a mark of the patterns, because after a restart with other patterns a scope means nothing, and then it is kept as a whole. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "brake.h"
#include "op.h"
#include "tree.h"

enum { TAKEN_OVER = 8, PURGED_AGAIN = 3 };

/* Who may write in the root itself of a tree may have put something there before it was mirrored, or from behind. What is not root's alone is not ours. */
int reserved_look(int root, const char *name) {
    struct stat stat;
    int fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return errno == ENOTDIR || errno == ELOOP ? -ENOENT : -errno;
    if (fstat(fd, &stat) == 0 && stat.st_uid == geteuid() && !(stat.st_mode & 077)) return fd;
    close(fd);
    return -ENOENT;
}

/* A directory becomes ours, with what is in it; anything else had no right to the name. */
static int take_over(int root, const char *name) {
    int fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), result = 0;
    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP)) return unlinkat(root, name, 0) < 0 && errno != ENOENT && errno != EISDIR ? -errno : 0;
    if (fd < 0) return errno == ENOENT ? 0 : -errno;
    if (fchown(fd, geteuid(), getegid()) < 0 || fchmod(fd, 0700) < 0) result = -errno;
    close(fd);
    return result;
}

/* They come and go without a trace in the root's mtime, which is the application's: no op that changes the root's entries may be applied meanwhile. */
int reserved_open(rfs_engine *engine, uint16_t directory, const char *name) {
    struct stat before;
    int root = engine->directory[directory].root_fd, result = -ENOENT;
    if (fstat(root, &before) < 0) return -errno;
    for (int tries = 0; result == -ENOENT && tries < TAKEN_OVER; tries++) {
        int taken = mkdirat(root, name, 0700) == 0 ? set_mtime(root, stat_mtime_ns(&before)) : errno != EEXIST ? -errno : 0;
        result = taken < 0 ? taken : reserved_look(root, name);
        if (result == -ENOENT) taken = take_over(root, name);
        if (taken < 0) return taken;
    }
    return result;
}

/* No op that changes the root's entries may be applied meanwhile: it would lose its mtime of the root. */
static int remove_holding(int root) {
    struct stat before;
    if (fstat(root, &before) < 0) return -errno;
    if (unlinkat(root, HOLDING_NAME, AT_REMOVEDIR) == 0) return set_mtime(root, stat_mtime_ns(&before));
    return errno == ENOENT || errno == ENOTEMPTY || errno == ENOTDIR ? 0 : -errno; /* not empty: something has come in since; no directory: not ours */
}

static uint64_t next_number(rfs_engine *engine) { return atomic_fetch_add(&engine->held, 1); }

static int hold_in(rfs_engine *engine, uint16_t directory, int place, uint64_t fid, scope_t scope, int directory_fd, const char *name) {
    char held[256];
    int result;
    do {
        snprintf(held, sizeof held, "%016llx.%016llx.%08x.%llu.%.160s", (unsigned long long)fid, (unsigned long long)scope, engine->directory[directory].scopes.mark,
                 (unsigned long long)next_number(engine), name);
        result = renameat2(directory_fd, name, place, held, RENAME_NOREPLACE) < 0 ? -errno : 0;
    } while (result == -EEXIST); /* held since an earlier process */
    return result;
}

int hold(rfs_engine *engine, uint16_t directory, uint64_t fid, scope_t scope, int directory_fd, const char *name) {
    int place = reserved_open(engine, directory, HOLDING_NAME);
    if (place < 0) return place;
    int result = hold_in(engine, directory, place, fid, scope, directory_fd, name);
    close(place);
    return result;
}

int keep(rfs_engine *engine, uint16_t directory, int directory_fd, const char *name) {
    char kept[256];
    int fd = reserved_open(engine, directory, KEPT_NAME), result;
    if (fd < 0) return fd;
    do {
        snprintf(kept, sizeof kept, "%llu.%.220s", (unsigned long long)next_number(engine), name);
        result = renameat2(directory_fd, name, fd, kept, RENAME_NOREPLACE) < 0 ? -errno : 0;
    } while (result == -EEXIST);
    close(fd);
    return result;
}

int held_open(rfs_engine *engine, uint16_t directory, uint64_t fid, char name[48]) {
    snprintf(name, 48, "%s%016llx", ARRIVING_PREFIX, (unsigned long long)fid);
    return reserved_open(engine, directory, HOLDING_NAME);
}

void held_close(rfs_engine *engine, uint16_t directory, int fd) {
    close(fd);
    remove_holding(engine->directory[directory].root_fd); /* should it be the last; else the purge does it */
}

/* ---- purging ---------------------------------------------------------------------------------------------------------------- */

/* Beside ops: see reserved_open(). */
static int keep_alone(rfs_engine *engine, uint16_t directory, int directory_fd, const char *name) {
    pthread_rwlock_wrlock(&engine->state);
    int result = keep(engine, directory, directory_fd, name);
    pthread_rwlock_unlock(&engine->state);
    return result;
}

static int remove_file(int directory_fd, const char *name) { return unlinkat(directory_fd, name, 0) < 0 ? -errno : 0; }

/* Directories go up beside the one that they lie in, where they are met by the next round: so no tree is deeper than a stack, or than there are
 * descriptors. */
static int purge_below(rfs_engine *engine, uint16_t directory, scope_t scope, int place, int fd) { /* which it closes */
    const struct scopes *scopes = &engine->directory[directory].scopes;
    DIR *stream;
    int result = tree_stream(fd, &stream);
    if (result < 0) return result;
    for (struct dirent *entry; result == 0 && (entry = tree_next(stream, false, &result));) {
        struct stat stat;
        if (fstatat(dirfd(stream), entry->d_name, &stat, AT_SYMLINK_NOFOLLOW) < 0) continue;
        scope_t below = scope_below(scopes, scope, entry->d_name, S_ISDIR(stat.st_mode));
        result = below & SCOPE_LOCAL ? keep_alone(engine, directory, dirfd(stream), entry->d_name)
                 : S_ISDIR(stat.st_mode) ? hold_in(engine, directory, place, 0, below, dirfd(stream), entry->d_name)
                                         : remove_file(dirfd(stream), entry->d_name);
        if (result == -ENOENT) result = 0;
    }
    closedir(stream);
    return result;
}

/* Something gone meanwhile is done: what is held may be given a place again. */
static int purge_entry(rfs_engine *engine, uint16_t directory, scope_t scope, int place, const char *name) {
    int fd = -1;
    for (int tries = 0; fd < 0; tries++) { /* who has it as his working directory may make it another thing in between */
        if (unlinkat(place, name, 0) == 0 || errno == ENOENT) return 0;
        if (errno != EISDIR && errno != EPERM) return -errno;
        fd = openat(place, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 && ((errno != ENOTDIR && errno != ELOOP) || tries == PURGED_AGAIN)) return errno == ENOENT ? 0 : -errno;
    }
    int result = purge_below(engine, directory, scope, place, fd);
    if (result == 0 && unlinkat(place, name, AT_REMOVEDIR) < 0) result = -errno;
    return result == -ENOENT ? 0 : result;
}

/* As often as somebody who is still in it makes something there; not for ever. */
static int purge_whole(rfs_engine *engine, uint16_t directory, scope_t scope, int holding, const char *name) {
    int result = -ENOTEMPTY;
    for (int tries = 0; result == -ENOTEMPTY && tries <= PURGED_AGAIN; tries++) result = purge_entry(engine, directory, scope, holding, name);
    return result;
}

static int purge_held(rfs_engine *engine, uint16_t directory, int holding, const char *name, int what) {
    unsigned long long fid, scope;
    unsigned mark;
    if (!strncmp(name, ARRIVING_PREFIX, sizeof ARRIVING_PREFIX - 1)) return what & RFS_ARRIVING ? purge_whole(engine, directory, 0, holding, name) : 0;
    if (!(what & RFS_HELD)) return 0;
    if (sscanf(name, "%16llx.%16llx.%8x.", &fid, &scope, &mark) == 3 && mark == engine->directory[directory].scopes.mark) return purge_whole(engine, directory, scope, holding, name);
    return keep_alone(engine, directory, holding, name);
}

/* Once through all that is held. */
static int purge_round(rfs_engine *engine, uint16_t directory, int place, int what) {
    DIR *stream;
    int result = tree_open(place, ".", &stream);
    if (result < 0) return result;
    for (struct dirent *entry; result == 0 && (entry = tree_next(stream, false, &result));)
        result = purge_held(engine, directory, place, entry->d_name, what);
    closedir(stream);
    return result;
}

int purge_all(rfs_engine *engine, uint16_t directory, int place, int what) {
    int result = place < 0 ? place : 0;
    for (uint64_t before = 0, now = 1; result == 0 && before != now;) { /* until nothing came up */
        before = atomic_load(&engine->held);
        result = purge_round(engine, directory, place, what);
        now = atomic_load(&engine->held);
    }
    if (place >= 0) close(place);
    return result;
}

static int purge(rfs_engine *engine, uint16_t directory, int what) {
    int result = purge_all(engine, directory, reserved_look(engine->directory[directory].root_fd, HOLDING_NAME), what);
    if (result < 0) return result == -ENOENT ? 0 : result;
    pthread_rwlock_wrlock(&engine->state);
    result = remove_holding(engine->directory[directory].root_fd);
    pthread_rwlock_unlock(&engine->state);
    return result;
}

/* Slow where much is held: no lock is held by the caller. */
int rfs_purge_holding(rfs_engine *engine, int what) {
    int result = 0;
    for (uint32_t i = 0; i < engine->directories; i++) {
        int braked = what & RFS_HELD && !(what & RFS_CONFIRMED) ? brake(engine, (uint16_t)i) : 0;
        int purged = braked < 0 ? braked : purge(engine, (uint16_t)i, what);
        if (purged < 0 && result >= 0) result = purged;
        if (result >= 0) result += braked > 0;
    }
    return result;
}
