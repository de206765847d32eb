/* The inode table: every file this process has met, by fid (which is also the kernel's node id and st_ino) and by the
 * backing file system's inode number. A file is reached by its file handle, so an entry costs about 130 bytes and no
 * descriptor. The engine is the only writer of the trees, so an entry stays true until an op of ours removes it. */
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "op.h"
#include "tree.h"
#include "walk.h"

enum { FIRST_BUCKETS = 1024, MEETINGS = 8, INODE_BYTES = 256 /* with its name, its buckets and what malloc needs */ };

static size_t number_hash(const rfs_engine *engine, uint16_t directory, uint64_t number) {
    return hash_slot(number + ((uint64_t)directory << 56), engine->inodes.buckets);
}

struct proc_path proc_path(int fd) {
    struct proc_path path;
    snprintf(path.text, sizeof path.text, "/proc/self/fd/%d", fd);
    return path;
}

pthread_mutex_t *inode_stripe(rfs_engine *engine, uint64_t fid) { return &engine->stripes[hash_slot(fid, INODE_STRIPES)]; }

void lock_two(pthread_mutex_t *a, pthread_mutex_t *b) {
    if (a == b) b = NULL;
    if (a && b && a > b) {
        pthread_mutex_t *swap = a;
        a = b;
        b = swap;
    }
    if (a) pthread_mutex_lock(a);
    if (b) pthread_mutex_lock(b);
}

void unlock_two(pthread_mutex_t *a, pthread_mutex_t *b) {
    if (a) pthread_mutex_unlock(a);
    if (b && b != a) pthread_mutex_unlock(b);
}

uint64_t new_fid(rfs_engine *engine) { return atomic_fetch_add(&engine->next_fid, 1); }

/* For what was there before and has no id, or another's: it says nothing about its age (marks.h). */
static uint64_t found_fid(rfs_engine *engine) { return atomic_fetch_add(&engine->next_found_fid, 1); }

/* ---- the table (every function below this line and above the next one: inodes.lock is held) ------------------------------ */

static struct inode *find_fid(rfs_engine *engine, uint64_t fid) {
    struct inode *inode = engine->inodes.by_fid[hash_slot(fid, engine->inodes.buckets)];
    while (inode && inode->fid != fid) inode = inode->next_fid;
    return inode;
}

static struct inode *find_number(rfs_engine *engine, uint16_t directory, uint64_t number) {
    struct inode *inode = engine->inodes.by_number[number_hash(engine, directory, number)];
    while (inode && (inode->number != number || inode->directory != directory)) inode = inode->next_number;
    return inode;
}

static void chain(rfs_engine *engine, struct inode *inode) {
    struct inode **fid_slot = &engine->inodes.by_fid[hash_slot(inode->fid, engine->inodes.buckets)];
    struct inode **number_slot = &engine->inodes.by_number[number_hash(engine, inode->directory, inode->number)];
    inode->next_fid = *fid_slot;
    *fid_slot = inode;
    inode->next_number = *number_slot;
    *number_slot = inode;
}

static void unchain(rfs_engine *engine, struct inode *inode) {
    struct inode **at = &engine->inodes.by_fid[hash_slot(inode->fid, engine->inodes.buckets)];
    while (*at != inode) at = &(*at)->next_fid;
    *at = inode->next_fid;
    at = &engine->inodes.by_number[number_hash(engine, inode->directory, inode->number)];
    while (*at && *at != inode) at = &(*at)->next_number;
    if (*at) *at = inode->next_number; /* an orphan's number is given up early: it may be used again */
}

static void grow(rfs_engine *engine) {
    struct inode_table *table = &engine->inodes;
    size_t old = table->buckets;
    struct inode **fids = calloc(old * 2, sizeof *fids), **numbers = calloc(old * 2, sizeof *numbers), **old_fids = table->by_fid;
    if (!fids || !numbers) { /* longer chains are only slower */
        free(fids);
        free(numbers);
        return;
    }
    free(table->by_number);
    table->by_fid = fids;
    table->by_number = numbers;
    table->buckets = old * 2;
    for (size_t i = 0; i < old; i++)
        for (struct inode *inode = old_fids[i], *next; inode; inode = next) {
            next = inode->next_fid;
            bool orphan = inode->orphan;
            chain(engine, inode);
            if (orphan) { /* stays reachable by fid alone */
                struct inode **at = &table->by_number[number_hash(engine, inode->directory, inode->number)];
                *at = inode->next_number;
            }
        }
    free(old_fids);
}

static void destroy(rfs_engine *engine, struct inode *inode) {
    if (inode->pin_fd >= 0) close_orphan(engine, inode->pin_fd);
    free(inode->name);
    free(inode);
}

static void release_if_gone(rfs_engine *engine, struct inode *inode) {
    if (inode->nlookup || inode->refs || !inode->orphan) return;
    unchain(engine, inode);
    engine->inodes.count--;
    destroy(engine, inode);
}

static void set_name(struct inode *inode, uint64_t parent, const char *name) {
    char *copy = name ? strdup(name) : NULL;
    free(inode->name);
    inode->name = copy;
    inode->parent = copy ? parent : 0;
}

/* ---- entries ------------------------------------------------------------------------------------------------------------ */

static int read_handle(int path_fd, struct inode *inode) {
    union {
        struct file_handle head;
        uint8_t room[sizeof(struct file_handle) + MAX_HANDLE_BYTES];
    } handle = {.head = {.handle_bytes = MAX_HANDLE_BYTES}};
    int mount_id;
    if (name_to_handle_at(path_fd, "", &handle.head, &mount_id, AT_EMPTY_PATH) < 0) return -errno;
    inode->handle_type = handle.head.handle_type;
    inode->handle_bytes = (uint8_t)handle.head.handle_bytes;
    memcpy(inode->handle, handle.head.f_handle, handle.head.handle_bytes);
    return 0;
}

static int new_inode(uint16_t directory, int path_fd, const struct stat *stat, uint64_t fid, scope_t scope, struct inode **out) {
    struct inode *inode = calloc(1, sizeof *inode);
    if (!inode) return -ENOMEM;
    int result = read_handle(path_fd, inode);
    if (result < 0) {
        free(inode);
        return result;
    }
    inode->fid = fid;
    inode->number = stat->st_ino;
    inode->type = stat->st_mode & S_IFMT;
    inode->directory = directory;
    atomic_store(&inode->scope, scope);
    inode->pin_fd = -1;
    inode->in_table = true;
    *out = inode;
    return 0;
}

static int write_fid(int path_fd, uint64_t fid) {
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)fid);
    if (fsetxattr(path_fd, FID_ATTRIBUTE, text, 16, 0) == 0) return 0;
    if (errno != EBADF) return -errno;
    return setxattr(proc_path(path_fd).text, FID_ATTRIBUTE, text, 16, 0) < 0 ? -errno : 0;
}

int read_fid(int path_fd, uint64_t *fid) {
    char text[17] = "", *end;
    ssize_t bytes = fgetxattr(path_fd, FID_ATTRIBUTE, text, 16); /* an open object's: without a walk through /proc */
    if (bytes < 0 && errno == EBADF) bytes = getxattr(proc_path(path_fd).text, FID_ATTRIBUTE, text, 16);
    *fid = bytes == 16 ? strtoull(text, &end, 16) : 0;
    if (*fid && *end) *fid = 0;
    return bytes < 0 && errno != ENODATA && errno != ENOTSUP && errno != ERANGE ? -errno : 0;
}

/* By another of its names. A file with names on both sides of the border was there before the patterns: the replicated name decides. */
static void settle_scope(struct inode *inode, scope_t scope) {
    if (!(scope & SCOPE_LOCAL) || S_ISDIR(inode->type)) atomic_store(&inode->scope, scope);
}

scope_t scope_in(const rfs_engine *engine, const struct inode *parent, const char *name, bool is_directory) {
    return scope_below(&engine->directory[parent->directory].scopes, atomic_load(&parent->scope), name, is_directory);
}

bool is_reserved_name(const char *name) { return !strcmp(name, HOLDING_NAME) || !strcmp(name, KEPT_NAME) || !strcmp(name, BEFORE_NAME); }

bool is_reserved(uint64_t parent, const char *name) { return is_root_fid(parent) && is_reserved_name(name); }

/* Enter an object under `fid`; an entry of the same backing inode under another fid makes way (a new session renames ids). */
int inode_enter(rfs_engine *engine, uint16_t directory, int path_fd, const struct stat *stat, uint64_t fid, scope_t scope, struct inode **out) {
    struct inode *fresh;
    if (stat->st_dev != engine->directory[directory].device) return -EXDEV;
    int result = new_inode(directory, path_fd, stat, fid, scope, &fresh);
    if (result < 0) return result;
    pthread_mutex_lock(&engine->inodes.lock);
    struct inode *old = find_number(engine, directory, stat->st_ino);
    if (old && old->fid == fid) {
        settle_scope(old, scope);
        old->refs++;
        pthread_mutex_unlock(&engine->inodes.lock);
        free(fresh);
        *out = old;
        return 0;
    }
    if (find_fid(engine, fid)) { /* a duplicate id on another file: the caller decides */
        pthread_mutex_unlock(&engine->inodes.lock);
        free(fresh);
        return -EEXIST;
    }
    if (!old && engine->inodes.count >= engine->inodes.most) {
        pthread_mutex_unlock(&engine->inodes.lock);
        free(fresh);
        return -ENOMEM;
    }
    if (old && (old->refs || old->nlookup)) { /* in use under its old id: cannot be, see walk.c */
        pthread_mutex_unlock(&engine->inodes.lock);
        free(fresh);
        return -EBUSY;
    }
    if (old) {
        unchain(engine, old);
        engine->inodes.count--;
        destroy(engine, old);
    }
    if (engine->inodes.count > engine->inodes.buckets) grow(engine);
    fresh->refs = 1;
    chain(engine, fresh);
    engine->inodes.count++;
    pthread_mutex_unlock(&engine->inodes.lock);
    *out = fresh;
    return 0;
}

int inode_adopt(rfs_engine *engine, uint16_t directory, int path_fd, const struct stat *stat, uint64_t fid, scope_t scope, struct inode **out) {
    int result = write_fid(path_fd, fid);
    return result < 0 ? result : inode_enter(engine, directory, path_fd, stat, fid, scope, out);
}

static void name_if_unknown(rfs_engine *engine, struct inode *inode, uint64_t parent, const char *name) {
    pthread_mutex_lock(&engine->inodes.lock);
    if (!inode->parent) set_name(inode, parent, name);
    pthread_mutex_unlock(&engine->inodes.lock);
}

/* A file or a directory as it can be read, for that is the quick way to its id; anything else, or what cannot be read, as a path. */
static int open_met(int parent_fd, const char *name, const struct stat *stat) {
    int flags = S_ISREG(stat->st_mode) ? O_RDONLY | O_NONBLOCK | O_NOATIME : S_ISDIR(stat->st_mode) ? O_RDONLY | O_DIRECTORY | O_NOATIME : O_PATH;
    int fd = openat(parent_fd, name, flags | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT) fd = openat(parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* Between the look at a name and its opening somebody may have put another object there: what is entered is one object, in every respect. */
static int is_still(int fd, struct stat *stat) {
    struct stat now;
    if (fstat(fd, &now) < 0) return -errno;
    bool same = now.st_ino == stat->st_ino && now.st_dev == stat->st_dev && ((now.st_mode ^ stat->st_mode) & S_IFMT) == 0;
    *stat = now;
    return same ? 0 : -EAGAIN;
}

static int meet(rfs_engine *engine, const struct inode *parent, int parent_fd, const char *name, struct inode **out, struct stat *stat, int *fd) {
    int path_fd = -1, result = 0;
    *fd = -1;
    uint16_t directory = parent->directory;
    if (is_reserved(parent->fid, name)) return -ENOENT; /* whoever asks for it: it is nobody's but ours, and gets no id */
    if (fstatat(parent_fd, name, stat, AT_SYMLINK_NOFOLLOW) < 0) return -errno;
    if (stat->st_dev != engine->directory[directory].device) return -EXDEV; /* a nested mount: not ours */
    scope_t scope = scope_in(engine, parent, name, S_ISDIR(stat->st_mode));
    pthread_mutex_lock(&engine->inodes.lock);
    *out = find_number(engine, directory, stat->st_ino);
    if (*out) {
        struct stat again; /* a rename may have taken it to the other side since: see cross() */
        bool moved = atomic_load(&(*out)->scope) != scope && (fstatat(parent_fd, name, &again, AT_SYMLINK_NOFOLLOW) < 0 || again.st_ino != stat->st_ino);
        if (!moved) settle_scope(*out, scope);
        (*out)->refs++;
        if (!(*out)->parent) set_name(*out, parent->fid, name);
    }
    pthread_mutex_unlock(&engine->inodes.lock);
    if (*out) return 0;
    path_fd = open_met(parent_fd, name, stat);
    if (path_fd < 0) return path_fd;
    result = is_still(path_fd, stat);
    if (result < 0) {
        close(path_fd);
        return result;
    }
    pthread_mutex_lock(&engine->tagging); /* two who meet it at once must not give it two ids */
    uint64_t fid;
    result = read_fid(path_fd, &fid);
    if (result == 0) result = fid >= FIRST_DIRECTORY_FID + RFS_MAX_DIRECTORIES ? inode_enter(engine, directory, path_fd, stat, fid, scope, out) : -ENODATA;
    if (result == -ENODATA || result == -EEXIST) { /* untagged, or a copy that brought its original's id along */
        do result = inode_adopt(engine, directory, path_fd, stat, found_fid(engine), scope, out);
        while (result == -EEXIST); /* something here has it from a mirror that nobody remembers: see directory_checks.py */
        if (result == 0 && fstat(path_fd, stat) < 0) result = -errno; /* its ctime has moved */
    }
    pthread_mutex_unlock(&engine->tagging);
    if (result == 0) name_if_unknown(engine, *out, parent->fid, name);
    if (result == 0) *fd = path_fd;
    else close(path_fd);
    return result;
}

int inode_met(rfs_engine *engine, const struct inode *parent, int parent_fd, const char *name, struct inode **out, struct stat *stat, int *fd) {
    for (int tries = 0; tries < MEETINGS; tries++) {
        int result = meet(engine, parent, parent_fd, name, out, stat, fd);
        if (result != -EAGAIN) return result;
    }
    return -ENOENT; /* never the same twice: nothing has that name */
}

int inode_at(rfs_engine *engine, const struct inode *parent, int parent_fd, const char *name, struct inode **out, struct stat *stat) {
    int fd, result = inode_met(engine, parent, parent_fd, name, out, stat, &fd);
    if (fd >= 0) close(fd);
    return result;
}

void inode_named(rfs_engine *engine, struct inode *inode, uint64_t parent, const char *name) {
    pthread_mutex_lock(&engine->inodes.lock);
    set_name(inode, parent, name);
    pthread_mutex_unlock(&engine->inodes.lock);
}

void inode_unnamed(rfs_engine *engine, struct inode *inode, uint64_t parent, const char *name) {
    pthread_mutex_lock(&engine->inodes.lock);
    if (inode->parent == parent && !strcmp(inode->name, name)) set_name(inode, 0, NULL);
    pthread_mutex_unlock(&engine->inodes.lock);
}

uint64_t inode_name(rfs_engine *engine, struct inode *inode, char name[256]) {
    pthread_mutex_lock(&engine->inodes.lock);
    uint64_t parent = inode->parent;
    if (parent) snprintf(name, 256, "%s", inode->name);
    pthread_mutex_unlock(&engine->inodes.lock);
    return parent;
}

/* Empty when it is too long, or a directory on the way is not known. */
static void write_path(rfs_engine *engine, const struct inode *inode, rfs_where *where) { /* inodes.lock */
    enum { DEEPEST = MARK_PATH_BYTES / (int)sizeof(uint64_t) };
    const struct inode *way[DEEPEST];
    size_t steps = 0, bytes = 0;
    for (; inode && inode->parent && steps < DEEPEST; inode = find_fid(engine, inode->parent)) {
        bytes += strlen(inode->name) + 1 + (steps ? sizeof(uint64_t) : 0);
        way[steps++] = inode;
    }
    if (!steps || !inode || !is_root(inode) || bytes > MARK_PATH_BYTES) return;
    char *at = where->path;
    for (size_t i = steps; i-- > 0;) at = stpcpy(stpcpy(at, way[i]->name), i ? "/" : "");
    at++;
    for (size_t i = steps; i-- > 1; at += sizeof(uint64_t)) memcpy(at, &way[i]->fid, sizeof(uint64_t));
    where->depth = (uint16_t)(steps - 1);
}

void inode_where(rfs_engine *engine, struct inode *inode, rfs_where *where) {
    *where = (rfs_where){.fid = inode->fid, .directory = inode->directory, .handle_type = inode->handle_type, .handle_bytes = inode->handle_bytes};
    memcpy(where->handle, inode->handle, inode->handle_bytes);
    pthread_mutex_lock(&engine->inodes.lock);
    write_path(engine, inode, where);
    pthread_mutex_unlock(&engine->inodes.lock);
}

struct inode *inode_get(rfs_engine *engine, uint64_t fid) {
    pthread_mutex_lock(&engine->inodes.lock);
    struct inode *inode = find_fid(engine, fid);
    if (inode) inode->refs++;
    pthread_mutex_unlock(&engine->inodes.lock);
    return inode;
}

void inode_set_scope(rfs_engine *engine, struct inode *inode, scope_t scope) {
    pthread_mutex_lock(&engine->inodes.lock);
    atomic_store(&inode->scope, scope);
    pthread_mutex_unlock(&engine->inodes.lock);
}

void inodes_settle_unmet(rfs_engine *engine, uint32_t met) {
    struct inode_table *table = &engine->inodes;
    bool any = false;
    for (uint32_t i = 0; i < engine->directories; i++) any |= engine->directory[i].scopes.any;
    if (!any) return;
    pthread_mutex_lock(&table->lock);
    for (size_t i = 0; i < table->buckets; i++)
        for (struct inode *inode = table->by_fid[i]; inode; inode = inode->next_fid)
            if (!S_ISDIR(inode->type) && !inode->orphan && engine->directory[inode->directory].scopes.any && !(resync_flags(engine, inode) & met))
                atomic_store(&inode->scope, SCOPE_LOCAL);
    pthread_mutex_unlock(&table->lock);
}

struct inode *inode_of_peer(rfs_engine *engine, uint64_t fid) {
    struct inode *inode = inode_get(engine, fid);
    struct stat stat;
    if (!inode || !inode_is_local(inode)) return inode;
    bool other_names = !S_ISDIR(inode->type) && inode_stat(engine, inode, &stat) == 0 && stat.st_nlink > 1; /* one of which may be replicated */
    if (other_names) return inode;
    inode_put(engine, inode);
    return NULL;
}

struct inode *inode_numbered(rfs_engine *engine, uint16_t directory, uint64_t number) {
    pthread_mutex_lock(&engine->inodes.lock);
    struct inode *inode = find_number(engine, directory, number);
    if (inode) inode->refs++;
    pthread_mutex_unlock(&engine->inodes.lock);
    return inode;
}

bool inode_known(rfs_engine *engine, uint16_t directory, uint64_t number) {
    pthread_mutex_lock(&engine->inodes.lock);
    bool known = find_number(engine, directory, number) != NULL;
    pthread_mutex_unlock(&engine->inodes.lock);
    return known;
}

void inode_put(rfs_engine *engine, struct inode *inode) {
    if (!inode) return;
    pthread_mutex_lock(&engine->inodes.lock);
    inode->refs--;
    release_if_gone(engine, inode);
    pthread_mutex_unlock(&engine->inodes.lock);
}

void inode_looked_up(rfs_engine *engine, struct inode *inode) {
    pthread_mutex_lock(&engine->inodes.lock);
    inode->nlookup++;
    pthread_mutex_unlock(&engine->inodes.lock);
}

void inode_forget(rfs_engine *engine, uint64_t fid, uint64_t count) {
    pthread_mutex_lock(&engine->inodes.lock);
    struct inode *inode = find_fid(engine, fid);
    if (inode) {
        inode->nlookup -= inode->nlookup < count ? inode->nlookup : count;
        release_if_gone(engine, inode);
    }
    pthread_mutex_unlock(&engine->inodes.lock);
}

void inode_drop(rfs_engine *engine, struct inode *inode, int pin) {
    descriptor_drop(engine, inode->fid);
    pthread_mutex_lock(&engine->inodes.lock);
    if (!inode->orphan) {
        struct inode **at = &engine->inodes.by_number[number_hash(engine, inode->directory, inode->number)];
        while (*at && *at != inode) at = &(*at)->next_number;
        if (*at) *at = inode->next_number;
        inode->next_number = NULL;
        inode->pin_fd = pin;
        pin = -1;
        inode->orphan = true;
    }
    pthread_mutex_unlock(&engine->inodes.lock);
    if (pin >= 0) close(pin);
}

static void drop_removed(rfs_engine *engine, struct inode *inode) {
    pthread_mutex_lock(&engine->names);
    pthread_mutex_t *stripe = inode_stripe(engine, inode->fid);
    pthread_mutex_lock(stripe);
    int fd = inode->orphan ? -1 : inode_open(engine, inode, O_PATH | O_NOFOLLOW);
    if (fd == -ESTALE) inode_drop(engine, inode, -1);
    if (fd >= 0) close(fd);
    pthread_mutex_unlock(stripe);
    pthread_mutex_unlock(&engine->names);
}

/* What was removed beside the mirror is in the table still, and would be taken for whatever has its number now. */
void inodes_drop_removed(rfs_engine *engine) {
    struct inode_table *table = &engine->inodes;
    size_t count = 0;
    pthread_mutex_lock(&table->lock);
    uint64_t *fids = malloc((table->count + 1) * sizeof *fids);
    for (size_t i = 0; fids && i < table->buckets; i++)
        for (struct inode *inode = table->by_fid[i]; inode; inode = inode->next_fid)
            if (!is_root(inode)) fids[count++] = inode->fid;
    pthread_mutex_unlock(&table->lock);
    while (count) {
        struct inode *inode = inode_get(engine, fids[--count]);
        if (inode) drop_removed(engine, inode);
        inode_put(engine, inode);
    }
    free(fids);
}

int inode_open(rfs_engine *engine, struct inode *inode, int flags) {
    union {
        struct file_handle head;
        uint8_t room[sizeof(struct file_handle) + MAX_HANDLE_BYTES];
    } handle = {.head = {.handle_bytes = inode->handle_bytes, .handle_type = inode->handle_type}};
    int fd;
    if (inode->pin_fd >= 0) {
        fd = open(proc_path(inode->pin_fd).text, (flags & ~O_NOFOLLOW) | O_CLOEXEC);
    } else {
        memcpy(handle.head.f_handle, inode->handle, inode->handle_bytes);
        fd = open_by_handle_at(engine->directory[inode->directory].root_fd, &handle.head, flags | O_CLOEXEC);
    }
    return fd < 0 ? -errno : fd;
}

int inode_stat(rfs_engine *engine, struct inode *inode, struct stat *stat) {
    struct descriptor directory = {-1, -1};
    if (inode->pin_fd >= 0) return fstat(inode->pin_fd, stat) < 0 ? -errno : 0;
    if (S_ISDIR(inode->type)) { /* asked for after each change in it */
        int got = descriptor_get(engine, inode, &directory);
        if (got == 0 && fstat(directory.fd, stat) < 0) got = -errno;
        descriptor_put(engine, &directory);
        return got;
    }
    int fd = inode_open(engine, inode, O_PATH | O_NOFOLLOW);
    if (fd < 0) return fd;
    int result = fstat(fd, stat) < 0 ? -errno : 0;
    close(fd);
    return result;
}

void fill_attributes(const struct inode *inode, const struct stat *stat, rfs_attributes *out) {
    *out = (rfs_attributes){.ino = inode->fid, .size = (uint64_t)stat->st_size, .blocks = (uint64_t)stat->st_blocks, .rdev = stat->st_rdev,
                            .atime_ns = stat_atime_ns(stat), .mtime_ns = stat_mtime_ns(stat),
                            .ctime_ns = to_ns(stat->st_ctim.tv_sec, stat->st_ctim.tv_nsec), .mode = stat->st_mode,
                            .nlink = (uint32_t)stat->st_nlink, .uid = stat->st_uid, .gid = stat->st_gid, .block_bytes = (uint32_t)stat->st_blksize};
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

int inodes_enter_root(rfs_engine *engine, uint32_t index) {
    struct stat stat;
    struct inode *inode;
    if (fstat(engine->directory[index].root_fd, &stat) < 0) return -errno;
    int path_fd = openat(engine->directory[index].root_fd, ".", O_PATH | O_CLOEXEC);
    if (path_fd < 0) return -errno;
    int result = inode_enter(engine, (uint16_t)index, path_fd, &stat, FIRST_DIRECTORY_FID + index, 0, &inode); /* the reference is kept: roots stay */
    close(path_fd);
    return result;
}

static int enter_roots(rfs_engine *engine) {
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < engine->directories; i++) result = inodes_enter_root(engine, i);
    return result;
}

int inodes_init(rfs_engine *engine) {
    struct inode_table *table = &engine->inodes;
    pthread_mutex_init(&table->lock, NULL);
    pthread_mutex_init(&engine->descriptors.lock, NULL);
    for (int i = 0; i < DESCRIPTOR_SLOTS; i++) engine->descriptors.slots[i].fd = -1;
    table->buckets = FIRST_BUCKETS;
    table->most = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE) / 2 / INODE_BYTES;
    table->by_fid = calloc(table->buckets, sizeof *table->by_fid);
    table->by_number = calloc(table->buckets, sizeof *table->by_number);
    if (!table->by_fid || !table->by_number) return -ENOMEM;
    return enter_roots(engine);
}

void inodes_forget_all(rfs_engine *engine) {
    struct inode_table *table = &engine->inodes;
    for (int i = 0; i < DESCRIPTOR_SLOTS; i++) descriptor_drop(engine, engine->descriptors.slots[i].fid);
    pthread_mutex_lock(&table->lock);
    for (size_t i = 0; i < table->buckets; i++)
        for (struct inode *inode = table->by_fid[i], *next; inode; inode = next) {
            next = inode->next_fid;
            if (is_root(inode) || inode->refs || inode->nlookup) continue;
            unchain(engine, inode);
            table->count--;
            destroy(engine, inode);
        }
    pthread_mutex_unlock(&table->lock);
}

void inodes_forget_kernel(rfs_engine *engine) {
    struct inode_table *table = &engine->inodes;
    pthread_mutex_lock(&table->lock);
    for (size_t i = 0; i < table->buckets; i++)
        for (struct inode *inode = table->by_fid[i], *next; inode; inode = next) {
            next = inode->next_fid;
            inode->nlookup = 0;
            release_if_gone(engine, inode);
        }
    pthread_mutex_unlock(&table->lock);
}

void inodes_free(rfs_engine *engine) {
    struct inode_table *table = &engine->inodes;
    for (int i = 0; table->by_fid && i < DESCRIPTOR_SLOTS; i++)
        if (engine->descriptors.slots[i].fd >= 0) close(engine->descriptors.slots[i].fd);
    for (size_t i = 0; table->by_fid && i < table->buckets; i++)
        for (struct inode *inode = table->by_fid[i], *next; inode; inode = next) {
            next = inode->next_fid;
            destroy(engine, inode);
        }
    free(table->by_fid);
    free(table->by_number);
}
