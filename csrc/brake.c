/* The brake: when a resync has taken away more than it left, a person says whether that is gone for good.
 *
 * A source that is wrong looks like one that is right: a file system that was not mounted, an `rm -rf` while the peer was away, a peer in the wrong hands.
 * What the target loses by it lies in the holding directory until the end (holding.c), so nothing but the purge is irrevocable, and nothing but the purge
 * waits: the session ends, the pair is whole, and what was held is set aside in KEPT_NAME, which nobody purges and no later session looks into. It takes one
 * rename, so it is either all there or still held, whenever the power goes.
 *
 * Files are counted, in each replicated directory for itself. What an application wrote anew in the place of the old (a restore, an upgrade) stands
 * against what it removed, so only a tree that shrank to less than half makes a difference. */
#include "brake.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "op.h"
#include "tree.h"

bool brake_holds(uint64_t held, uint64_t left) { return held >= BRAKE_FILES && held > left; }

static uint64_t count_files(const struct scopes *scopes, int fd) {
    atomic_bool stop = false;
    atomic_uint_fast64_t files = 0, bytes = 0;
    const struct tree_tally tally = {&stop, &files, &bytes};
    tree_count(scopes, fd, &tally);
    return atomic_load(&files);
}

/* What is on its way to a name goes on from where it was. */
static int put_arriving_back(rfs_engine *engine, uint16_t directory, int kept, const char *place) {
    DIR *stream;
    int result = tree_open(kept, place, &stream), holding = -1;
    if (result < 0) return result;
    for (struct dirent *entry; result >= 0 && (entry = tree_next(stream, false, &result));) {
        if (strncmp(entry->d_name, ARRIVING_PREFIX, sizeof ARRIVING_PREFIX - 1) != 0) continue;
        if (holding < 0) result = holding = reserved_open(engine, directory, HOLDING_NAME);
        if (result >= 0) result = renameat2(dirfd(stream), entry->d_name, holding, entry->d_name, RENAME_NOREPLACE) < 0 ? -errno : 0;
    }
    closedir(stream);
    if (holding >= 0) close(holding);
    return result < 0 ? result : 0;
}

/* State is held exclusively: no op comes between, of those that change the root or are on their way. */
static int set_aside(rfs_engine *engine, uint16_t directory, uint64_t held, uint64_t left) {
    char place[96];
    struct stat before;
    int root = engine->directory[directory].root_fd, kept = reserved_open(engine, directory, KEPT_NAME), result = kept;
    if (kept < 0) return kept;
    if (fstat(root, &before) < 0) result = -errno;
    for (unsigned number = 1; result >= 0; number++) {
        snprintf(place, sizeof place, BRAKE_PREFIX "%u.%llu-of-%llu", number, (unsigned long long)held, (unsigned long long)(held + left));
        if (renameat2(root, HOLDING_NAME, kept, place, RENAME_NOREPLACE) == 0) break;
        if (errno != EEXIST) result = -errno;
    }
    if (result >= 0) result = set_mtime(root, stat_mtime_ns(&before));
    if (result == 0) result = put_arriving_back(engine, directory, kept, place);
    if (result == 0 && fsync(kept) < 0) result = -errno;
    close(kept);
    return result < 0 ? result : 1;
}

int brake(rfs_engine *engine, uint16_t directory) {
    const struct scopes all = {0};
    int root = engine->directory[directory].root_fd, holding = reserved_look(root, HOLDING_NAME);
    if (holding < 0) return holding == -ENOENT ? 0 : holding;
    uint64_t held = count_files(&all, holding);
    close(holding);
    if (held < BRAKE_FILES) return 0; /* the tree itself is counted only if it may matter */
    uint64_t left = count_files(&engine->directory[directory].scopes, root);
    if (!brake_holds(held, left)) return 0;
    pthread_rwlock_wrlock(&engine->state);
    int result = set_aside(engine, directory, held, left);
    if (result > 0 && !engine->target) inodes_forget_all(engine); /* else the next session would find there what it looks for */
    pthread_rwlock_unlock(&engine->state);
    return result;
}

static int discard_one(rfs_engine *engine, uint16_t directory, int kept, const char *place) {
    int fd = openat(kept, place, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int result = fd < 0 ? -errno : purge_all(engine, directory, fd, RFS_HELD);
    return result == 0 && unlinkat(kept, place, AT_REMOVEDIR) < 0 ? -errno : result;
}

static int discard(rfs_engine *engine, uint16_t directory, int kept) {
    DIR *stream;
    int result = tree_open(kept, ".", &stream);
    if (result < 0) return result;
    for (struct dirent *entry; result == 0 && (entry = tree_next(stream, false, &result));)
        if (!strncmp(entry->d_name, BRAKE_PREFIX, sizeof BRAKE_PREFIX - 1)) result = discard_one(engine, directory, dirfd(stream), entry->d_name);
    closedir(stream);
    return result;
}

int rfs_discard_set_aside(rfs_engine *engine) {
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < engine->directories; i++) {
        int kept = reserved_look(engine->directory[i].root_fd, KEPT_NAME);
        if (kept >= 0) {
            result = discard(engine, (uint16_t)i, kept);
            close(kept);
        } else if (kept != -ENOENT) {
            result = kept;
        }
    }
    return result;
}
