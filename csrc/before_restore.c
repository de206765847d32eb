/* The snapshot of before, put back: every name, content and attribute as it was before the first resync that was cut off.
 *
 * First all of it is looked for, and nothing is changed unless all of it is there. Then, in each tree: what is in a directory that has a record goes
 * to limbo; each of these directories gets the entries of its record, found by their handles wherever they lie now (what is gone is made from its
 * record); then contents and attributes. While that goes on no record is touched, and nothing of before loses its last name: whoever is killed
 * in it begins again, from the same records.
 *
 * No directory can be moved below itself: those with a record are empty when they are filled, and all others have the entries of before, so at every
 * moment the entries are a part of one tree, the one of before. */
#include "before.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "marker.h"
#include "op.h"
#include "tree.h"

struct keys {
    struct before_key *at;
    size_t count, room;
};

struct restoring {
    int root, before, objects, limbo, made; /* descriptors */
    uint64_t device;
    struct before_key root_key;
    struct keys directories; /* all of before, each after the one above it */
    struct keys filled;      /* those that have a record */
    struct keys others;      /* objects that are no directories and have a record */
};

typedef int visitor(struct restoring *restoring, const struct before_key *directory, const char *key, const char *name, void *context);

static int add(struct keys *keys, const struct before_key *key) {
    if (keys->count == keys->room) {
        size_t room = keys->room * 2 + 64;
        struct before_key *larger = realloc(keys->at, room * sizeof *larger);
        if (!larger) return -ENOMEM;
        keys->at = larger;
        keys->room = room;
    }
    keys->at[keys->count++] = *key;
    return 0;
}

static int set_key(struct before_key *key, const char *text) {
    if (strlen(text) >= sizeof key->text) return -EBADMSG;
    strcpy(key->text, text);
    return 0;
}

static bool is_root_key(const struct restoring *restoring, const struct before_key *key) { return !strcmp(key->text, restoring->root_key.text); }

/* The object of this key as it is now: the one of before, or what was made in its place. */
static int obtain(const struct restoring *restoring, const struct before_key *key, int flags) {
    int fd = before_open(restoring->root, key, flags);
    if (fd != -ESTALE) return fd;
    fd = openat(restoring->made, key->text, flags | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? errno == ENOENT ? -ESTALE : -errno : fd;
}

/* The entries that this directory had before. */
static int each_entry(struct restoring *restoring, const struct before_key *directory, visitor *visit, void *context) {
    struct before_record record;
    uint8_t *listed = NULL, *entries;
    size_t bytes = 0;
    int result = before_read(restoring->objects, directory, &record, NULL);
    if (result == -ENOENT) { /* it was not changed */
        int fd = before_open(restoring->root, directory, O_RDONLY | O_DIRECTORY);
        result = fd < 0 ? fd : before_entries(fd, is_root_key(restoring, directory), &listed, &bytes);
        if (fd >= 0) close(fd);
        entries = listed;
    } else {
        entries = record.more;
        bytes = record.facts.more_bytes;
    }
    for (size_t at = 0; result == 0 && at < bytes;) {
        const char *key = (const char *)entries + at, *name = memchr(key, 0, bytes - at);
        const char *end = name ? memchr(name + 1, 0, bytes - at - (size_t)(name + 1 - key)) : NULL;
        if (!end) result = -EBADMSG;
        else result = visit(restoring, directory, key, name + 1, context);
        if (end) at += (size_t)(end + 1 - key);
    }
    before_record_free(&record);
    free(listed);
    return result;
}

/* ---- looking for it ------------------------------------------------------------------------------------------------------------ */

static int look_for(struct restoring *restoring, const struct before_key *directory, const char *text, const char *name, void *context) {
    struct before_key key;
    struct before_record record;
    struct stat stat;
    (void)directory, (void)name, (void)context;
    int result = set_key(&key, text);
    if (result < 0) return result;
    int found = before_read(restoring->objects, &key, &record, NULL);
    bool kept = found == 0;
    uint32_t mode = record.facts.mode;
    before_record_free(&record);
    if (!kept && found != -ENOENT) return found;
    int fd = before_open(restoring->root, &key, O_PATH | O_NOFOLLOW);
    if (fd >= 0 && fstat(fd, &stat) < 0) result = -errno;
    if (fd >= 0) close(fd);
    if (fd < 0 && (fd != -ESTALE || !kept)) return fd;
    if (fd >= 0 && result == 0 && stat.st_dev != restoring->device) result = -EXDEV;
    if (result < 0) return result;
    bool is_directory = S_ISDIR(kept ? mode : stat.st_mode);
    if (is_directory) result = add(&restoring->directories, &key);
    if (result == 0 && kept) result = add(is_directory ? &restoring->filled : &restoring->others, &key);
    return result;
}

static int look_for_all(struct restoring *restoring) {
    struct before_record record;
    int result = before_read(restoring->objects, &restoring->root_key, &record, NULL);
    if (result < 0) return result;
    before_record_free(&record);
    result = add(&restoring->directories, &restoring->root_key);
    if (result == 0) result = add(&restoring->filled, &restoring->root_key);
    for (size_t i = 0; result == 0 && i < restoring->directories.count; i++) {
        struct before_key key = restoring->directories.at[i]; /* the row may be moved while it grows */
        result = each_entry(restoring, &key, look_for, NULL);
    }
    return result;
}

/* ---- names ---------------------------------------------------------------------------------------------------------------------- */

static int to_limbo(const struct restoring *restoring, int fd, const char *name) {
    struct before_key key;
    int result = before_key_of(fd, name, &key);
    if (result < 0) return result;
    if (renameat2(fd, name, restoring->limbo, key.text, RENAME_NOREPLACE) == 0) return 0;
    return errno != EEXIST ? -errno : unlinkat(fd, name, 0) < 0 ? -errno : 0; /* another of its names is there already */
}

static int empty(const struct restoring *restoring, const struct before_key *key) {
    int fd = obtain(restoring, key, O_RDONLY | O_DIRECTORY), result = 0;
    if (fd == -ESTALE) {
        if (mkdirat(restoring->made, key->text, 0700) < 0) return -errno;
        return 0;
    }
    uint8_t *entries = NULL;
    size_t bytes = 0;
    if (fd < 0) return fd;
    result = before_entries(fd, is_root_key(restoring, key), &entries, &bytes);
    for (size_t at = 0; result == 0 && at < bytes;) {
        at += strlen((char *)entries + at) + 1;
        result = to_limbo(restoring, fd, (char *)entries + at);
        at += strlen((char *)entries + at) + 1;
    }
    free(entries);
    close(fd);
    return result;
}

static int make(const struct restoring *restoring, const struct before_key *key) {
    struct before_record record;
    int result = before_read(restoring->objects, key, &record, NULL), fd;
    if (result < 0) return result;
    switch (record.facts.mode & S_IFMT) {
    case S_IFREG:
        fd = openat(restoring->made, key->text, O_CREAT | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0) result = -errno;
        else close(fd);
        break;
    case S_IFLNK: result = symlinkat((char *)record.more, restoring->made, key->text) < 0 ? -errno : 0; break;
    default: result = mknodat(restoring->made, key->text, (record.facts.mode & S_IFMT) | 0600, record.facts.rdev) < 0 ? -errno : 0;
    }
    before_record_free(&record);
    return result;
}

/* A directory that is neither in limbo nor new lies in one that was made since, or in the holding directory. */
static int move_from_anywhere(int child, int directory_fd, const char *name) {
    struct stat mine, stat;
    DIR *stream;
    if (fstat(child, &mine) < 0) return -errno;
    int result = tree_open(child, "..", &stream);
    if (result < 0) return result;
    bool moved = false;
    for (struct dirent *entry; result == 0 && !moved && (entry = tree_next(stream, false, &result));) {
        if (entry->d_ino != mine.st_ino || fstatat(dirfd(stream), entry->d_name, &stat, AT_SYMLINK_NOFOLLOW) < 0 || stat.st_ino != mine.st_ino) continue;
        result = renameat2(dirfd(stream), entry->d_name, directory_fd, name, RENAME_NOREPLACE) < 0 ? -errno : 0;
        moved = true;
    }
    closedir(stream);
    return result < 0 || moved ? result : -EUCLEAN;
}

static int place_directory(struct restoring *restoring, int child, bool is_made, const struct before_key *key, int directory_fd, const char *name) {
    if (renameat2(is_made ? restoring->made : restoring->limbo, key->text, directory_fd, name, RENAME_NOREPLACE) == 0) return 0;
    return errno != ENOENT || is_made ? -errno : move_from_anywhere(child, directory_fd, name);
}

static int place(struct restoring *restoring, const struct before_key *directory, const char *text, const char *name, void *context) {
    int directory_fd = *(int *)context, result;
    struct before_key key;
    struct stat stat;
    (void)directory;
    result = set_key(&key, text);
    if (result < 0) return result;
    int child = before_open(restoring->root, &key, O_PATH | O_NOFOLLOW);
    bool is_made = child == -ESTALE;
    if (is_made) {
        child = obtain(restoring, &key, O_PATH | O_NOFOLLOW);
        if (child == -ESTALE) {
            result = make(restoring, &key);
            child = result < 0 ? result : obtain(restoring, &key, O_PATH | O_NOFOLLOW);
        }
    }
    if (child < 0) return child;
    if (fstat(child, &stat) < 0) result = -errno;
    else if (!S_ISDIR(stat.st_mode)) result = linkat(child, "", directory_fd, name, AT_EMPTY_PATH) < 0 ? -errno : 0;
    else {
        int open_child = is_made ? -1 : before_open(restoring->root, &key, O_RDONLY | O_DIRECTORY);
        result = !is_made && open_child < 0 ? open_child : place_directory(restoring, open_child, is_made, &key, directory_fd, name);
        if (open_child >= 0) close(open_child);
    }
    close(child);
    return result;
}

/* A directory that was made is in its place once the one above it was filled, and no longer where obtain() looks: so it is filled before that, which
 * is why the row is gone through from its end. */
static int fill_all(struct restoring *restoring) {
    int result = 0;
    for (size_t i = restoring->filled.count; result == 0 && i-- > 0;) {
        int fd = obtain(restoring, &restoring->filled.at[i], O_RDONLY | O_DIRECTORY);
        result = fd < 0 ? fd : each_entry(restoring, &restoring->filled.at[i], place, &fd);
        if (fd >= 0) close(fd);
    }
    return result;
}

/* ---- contents and attributes ------------------------------------------------------------------------------------------------------ */

static int dress(int path_fd, const struct before_record *record) {
    const struct before_facts *facts = &record->facts;
    struct proc_path path = proc_path(path_fd);
    struct timespec times[2] = {to_timespec(facts->atime_ns), to_timespec(facts->mtime_ns)};
    if (fchownat(path_fd, "", facts->uid, facts->gid, AT_EMPTY_PATH) < 0) return -errno;
    if (!S_ISLNK(facts->mode) && chmod(path.text, facts->mode & 07777) < 0) return -errno;
    int result = xattrs_unpack(path_fd, record->xattrs, record->facts.xattr_bytes);
    if (result < 0) return result;
    if (!S_ISLNK(facts->mode) && chmod(path.text, facts->mode & 07777) < 0) return -errno; /* an ACL has its say in the mode */
    return utimensat(AT_FDCWD, path.text, times, 0) < 0 ? -errno : 0;
}

static int refill(const struct restoring *restoring, const struct before_key *key, int clone, uint64_t size) {
    int fd = obtain(restoring, key, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return fd;
    int result = before_clone(clone, fd, size);
    close(fd);
    return result;
}

static int put_back(const struct restoring *restoring, const struct before_key *key) {
    struct before_record record;
    int clone = -1, result = before_read(restoring->objects, key, &record, &clone);
    if (result == 0 && S_ISREG(record.facts.mode)) result = refill(restoring, key, clone, record.facts.size);
    int path_fd = result < 0 ? -1 : obtain(restoring, key, O_PATH | O_NOFOLLOW);
    if (path_fd >= 0) result = dress(path_fd, &record);
    else if (result == 0) result = path_fd;
    if (path_fd >= 0) close(path_fd);
    if (clone >= 0) close(clone);
    before_record_free(&record);
    return result;
}

/* ---- ids ------------------------------------------------------------------------------------------------------------------------ */

static int forget_id(int path_fd) { return removexattr(proc_path(path_fd).text, FID_ATTRIBUTE) < 0 && errno != ENODATA ? -errno : 0; }

/* The resync has given the source's ids to some of these objects, and two may have the same by now. Whatever has none is given one when it is met. */
static int forget_ids(int directory_fd, bool root) {
    DIR *stream;
    int result = tree_open(directory_fd, ".", &stream);
    if (result < 0) return result;
    for (struct dirent *entry; result == 0 && (entry = tree_next(stream, root, &result));) {
        int path_fd = openat(dirfd(stream), entry->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        result = path_fd < 0 ? -errno : forget_id(path_fd);
        if (path_fd >= 0) close(path_fd);
    }
    closedir(stream);
    return result;
}

/* ---- all of it -------------------------------------------------------------------------------------------------------------------- */

/* From the root on, because what was made is found by its name only: its handle is not the one of before. So each directory is noted under both: the
 * key of its record, and where it is now. In a row, not in a tree: it may be deeper than a stack. */
struct dressing {
    struct keys were, are;
    int fd; /* of the one that is looked into */
};

static int dress_below(struct restoring *restoring, const struct before_key *directory, const char *text, const char *name, void *context) {
    struct dressing *dressing = context;
    struct before_key was, is;
    struct stat stat;
    (void)restoring, (void)directory;
    int result = set_key(&was, text);
    if (result < 0) return result;
    if (fstatat(dressing->fd, name, &stat, AT_SYMLINK_NOFOLLOW) < 0) return -errno;
    if (!S_ISDIR(stat.st_mode)) return 0;
    result = before_key_of(dressing->fd, name, &is);
    if (result == 0) result = add(&dressing->were, &was);
    return result < 0 ? result : add(&dressing->are, &is);
}

/* Attributes last: what is below it has changed its times. */
static int dress_one(struct restoring *restoring, const struct before_key *was, const struct before_key *is) {
    struct before_record record;
    int kept = before_read(restoring->objects, was, &record, NULL);
    if (kept < 0) return kept == -ENOENT ? 0 : kept;
    int fd = before_open(restoring->root, is, O_RDONLY | O_DIRECTORY), result = fd < 0 ? fd : dress(fd, &record);
    if (fd >= 0) close(fd);
    before_record_free(&record);
    return result;
}

static int look_below(struct restoring *restoring, struct dressing *dressing, size_t at) {
    struct before_key was = dressing->were.at[at], is = dressing->are.at[at]; /* the rows may be moved while they grow */
    dressing->fd = before_open(restoring->root, &is, O_RDONLY | O_DIRECTORY);
    if (dressing->fd < 0) return dressing->fd;
    int result = each_entry(restoring, &was, dress_below, dressing);
    if (result == 0) result = forget_ids(dressing->fd, is_root_key(restoring, &was));
    close(dressing->fd);
    return result;
}

static int dress_tree(struct restoring *restoring) {
    struct dressing dressing = {.fd = -1};
    int result = add(&dressing.were, &restoring->root_key);
    if (result == 0) result = add(&dressing.are, &restoring->root_key);
    for (size_t i = 0; result == 0 && i < dressing.are.count; i++) result = look_below(restoring, &dressing, i);
    for (size_t i = dressing.are.count; result == 0 && i-- > 0;) result = dress_one(restoring, &dressing.were.at[i], &dressing.are.at[i]);
    free(dressing.were.at);
    free(dressing.are.at);
    return result;
}

static int open_one(rfs_engine *engine, uint16_t directory, struct restoring *out) {
    struct restoring restoring = {.root = engine->directory[directory].root_fd, .device = engine->directory[directory].device, .objects = -1, .limbo = -1, .made = -1};
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int result = restoring.before = before_directory(engine, directory);
    if (result >= 0) {
        mkdirat(restoring.before, BEFORE_LIMBO, 0700); /* should it have been cut off in clear() */
        mkdirat(restoring.before, BEFORE_MADE, 0700);
        restoring.objects = openat(restoring.before, BEFORE_OBJECTS, flags);
        restoring.limbo = openat(restoring.before, BEFORE_LIMBO, flags);
        restoring.made = openat(restoring.before, BEFORE_MADE, flags);
        result = restoring.objects < 0 || restoring.limbo < 0 || restoring.made < 0 ? -errno : before_key_of(restoring.root, "", &restoring.root_key);
    }
    *out = restoring;
    return result;
}

static void close_one(struct restoring *restoring) {
    const int all[] = {restoring->before, restoring->objects, restoring->limbo, restoring->made};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] >= 0) close(all[i]);
    free(restoring->directories.at);
    free(restoring->filled.at);
    free(restoring->others.at);
}

/* Durably, before the first change: from here on only the end of this makes the tree a copy of anything. */
static int announce(const struct restoring *restoring) {
    int fd = openat(restoring->before, BEFORE_RESTORING, O_CREAT | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return -errno;
    close(fd);
    return fsync(restoring->before) < 0 ? -errno : 0;
}

static int restore_one(struct restoring *restoring) {
    int result = 0;
    for (size_t i = 0; result == 0 && i < restoring->filled.count; i++) result = empty(restoring, &restoring->filled.at[i]);
    if (result == 0) result = fill_all(restoring);
    for (size_t i = 0; result == 0 && i < restoring->others.count; i++) result = put_back(restoring, &restoring->others.at[i]);
    if (result == 0) result = dress_tree(restoring);
    return result == 0 && syncfs(restoring->root) < 0 ? -errno : result;
}

/* Everything of before has its names in the tree again: what else there is, is of the resync. */
static int clear(const struct restoring *restoring) {
    static const char *const parts[] = {BEFORE_LIMBO, BEFORE_MADE};
    int result = 0;
    for (size_t i = 0; result == 0 && i < sizeof parts / sizeof *parts; i++) {
        result = remove_tree(restoring->before, parts[i]);
        if (result == 0 && mkdirat(restoring->before, parts[i], 0700) < 0) result = -errno;
    }
    return result;
}

static int restore_all(struct restoring *all, uint32_t count) {
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < count; i++) result = look_for_all(&all[i]);
    for (uint32_t i = 0; result == 0 && i < count; i++) result = announce(&all[i]);
    for (uint32_t i = 0; result == 0 && i < count; i++) result = restore_one(&all[i]);
    for (uint32_t i = 0; result == 0 && i < count; i++) result = clear(&all[i]);
    return result;
}

static bool is_at_rest(rfs_engine *engine) {
    pthread_rwlock_rdlock(&engine->state);
    bool rests = engine->mode == RFS_IDLE && !engine->link && !engine->target;
    pthread_rwlock_unlock(&engine->state);
    return rests;
}

int rfs_before_restore(rfs_engine *engine) {
    struct restoring all[RFS_MAX_DIRECTORIES] = {0};
    uint32_t opened = 0;
    int state = before_state(engine);
    if (state < 0) return state;
    if (state == RFS_BEFORE_NONE) return -ENOENT;
    if (!is_at_rest(engine)) return -EBUSY;
    atomic_store(&engine->before, 0);
    int result = rfs_mark_everything(engine); /* what is marked has ids that will be nobody's */
    for (; result == 0 && opened < engine->directories; opened++) result = open_one(engine, (uint16_t)opened, &all[opened]);
    if (result == 0) result = restore_all(all, opened);
    for (uint32_t i = 0; i < opened; i++) close_one(&all[i]);
    pthread_rwlock_wrlock(&engine->state);
    inodes_forget_all(engine);
    pthread_rwlock_unlock(&engine->state);
    return result < 0 ? result : rfs_purge_holding(engine, RFS_HELD | RFS_ARRIVING | RFS_CONFIRMED);
}
