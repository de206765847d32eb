/* Resync, the target's side: a directory is made to hold exactly the entries that are listed, a file the blocks that
 * differ, an inode the attributes that are told.
 *
 * In a session that compares everything names are matched first, and the source's fid replaces whatever id lies here; it begins with an empty inode
 * table, so that what is in it was given its fid in this session. Otherwise the ids are true, and an object is the one that has the id: it is found
 * in the table, by the name that the source tells, or in the directories that will be listed (the source has announced them before all else), from
 * which it was moved. What is nowhere is made, and the source is told that it is FRESH.
 *
 * Nothing is destroyed: what has no place goes to the holding directory, because the same inode may turn up under another
 * name later in the walk (with blocks that were already found equal), and is purged after the end (PROTOCOL 4.8). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "before.h"
#include "link.h"
#include "marker.h"
#include "tree.h"
#include "walk.h"

enum { FIRST_NAMES = 64, MOST_NAMES = 1 << 27, MOST_ANNOUNCED = 8 << 20, EARLY_WRITE_BYTES = 8 << 20, SYNCED_FILES = 8192 };

/* The names listed so far of the directory whose frames are arriving: an open-addressed set. */
struct listing {
    uint64_t fid;
    char **names;
    size_t count, room; /* room is a power of two */
    uint64_t seed;      /* the peer chooses the names, and must not choose where they go */
};

static char **find(const struct listing *listing, const char *name) {
    size_t at = (size_t)XXH3_64bits_withSeed(name, strlen(name), listing->seed) & (listing->room - 1);
    while (listing->names[at] && strcmp(listing->names[at], name)) at = (at + 1) & (listing->room - 1);
    return &listing->names[at];
}

void listing_free(rfs_engine *engine) {
    struct listing *listing = engine->listing;
    if (!listing) return;
    for (size_t i = 0; i < listing->room; i++) free(listing->names[i]);
    free(listing->names);
    free(listing);
    engine->listing = NULL;
}

static int begin(rfs_engine *engine, uint64_t fid) {
    listing_free(engine);
    struct listing *listing = calloc(1, sizeof *listing);
    if (!listing) return -ENOMEM;
    listing->fid = fid;
    if (getrandom(&listing->seed, sizeof listing->seed, GRND_NONBLOCK) < 0) listing->seed = now_ns(); /* before there is any chance in the machine */
    listing->room = FIRST_NAMES;
    listing->names = calloc(listing->room, sizeof *listing->names);
    engine->listing = listing;
    return listing->names ? 0 : -ENOMEM;
}

static int remember(struct listing *listing, const char *name) {
    if (listing->count >= MOST_NAMES) return -EPROTO;
    if (listing->count * 2 >= listing->room) {
        struct listing larger = {.seed = listing->seed, .room = listing->room * 2, .names = calloc(listing->room * 2, sizeof *larger.names)};
        if (!larger.names) return -ENOMEM;
        for (size_t i = 0; i < listing->room; i++)
            if (listing->names[i]) *find(&larger, listing->names[i]) = listing->names[i];
        free(listing->names);
        listing->names = larger.names;
        listing->room = larger.room;
    }
    char **slot = find(listing, name);
    if (*slot) return -EPROTO; /* the same name twice */
    *slot = strdup(name);
    listing->count++;
    return *slot ? 0 : -ENOMEM;
}

/* ---- entries -------------------------------------------------------------------------------------------------------------------- */

struct place {
    struct inode *directory;
    struct descriptor descriptor;
};

static int open_place(rfs_engine *engine, uint64_t fid, struct place *place) {
    *place = (struct place){.descriptor = {-1, -1}};
    place->directory = inode_get(engine, fid);
    if (!place->directory || !S_ISDIR(place->directory->type)) return -EUCLEAN;
    return descriptor_get(engine, place->directory, &place->descriptor);
}

static void close_place(rfs_engine *engine, struct place *place) {
    descriptor_put(engine, &place->descriptor);
    inode_put(engine, place->directory);
}

static bool same_object(int directory_fd, const struct op_body *body, const uint8_t *data, const struct stat *stat) {
    char target[RFS_TARGET_BYTES + 1];
    if ((stat->st_mode & S_IFMT) != (body->mode & S_IFMT)) return false;
    if (S_ISCHR(stat->st_mode) || S_ISBLK(stat->st_mode)) return stat->st_rdev == body->rdev;
    if (!S_ISLNK(stat->st_mode)) return true;
    ssize_t bytes = readlinkat(directory_fd, body->name, target, sizeof target);
    return bytes == (ssize_t)body->data_bytes && !memcmp(target, data, (size_t)bytes);
}

/* A descriptor of what was made. Its permissions are those that it will have, but for what only its owner gives. */
static int create(int directory_fd, const struct op_body *body, const uint8_t *data) {
    char target[RFS_TARGET_BYTES + 1];
    int result = 0;
    switch (body->mode & S_IFMT) {
    case S_IFREG: result = openat(directory_fd, body->name, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC, body->mode & 0777); return result < 0 ? -errno : result;
    case S_IFDIR: result = mkdirat(directory_fd, body->name, 0700); break;
    case S_IFLNK:
        memcpy(target, data, body->data_bytes);
        target[body->data_bytes] = 0;
        result = symlinkat(target, directory_fd, body->name);
        break;
    default: result = mknodat(directory_fd, body->name, (body->mode & S_IFMT) | 0600, body->rdev);
    }
    return result < 0 ? -errno : opened_made(directory_fd, body->name, body->mode & S_IFMT);
}

/* Another object may have come in its place since it was made or looked at, a hard link say to what is not in the tree: that is not given away. */
static bool is_listed(const struct stat *stat, const struct op_body *body, bool made) {
    return (stat->st_mode & S_IFMT) == (body->mode & S_IFMT) && (!made || S_ISDIR(stat->st_mode) || stat->st_nlink == 1);
}

/* Consumes the descriptor, or opens it where there is none. kept_fd (may be NULL): what was made is the caller's again. */
static int adopt(rfs_engine *engine, const struct place *place, const struct op_body *body, int made_fd, int *kept_fd) {
    struct inode *inode = NULL;
    struct stat stat;
    int path_fd = made_fd >= 0 ? made_fd : openat(place->descriptor.fd, body->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (path_fd < 0) return -errno;
    int result = fstat(path_fd, &stat) < 0 ? -errno : is_listed(&stat, body, made_fd >= 0) ? 0 : -ESTALE;
    if (result == 0) result = inode_adopt(engine, place->directory->directory, path_fd, &stat, body->child, scope_in(engine, place->directory, body->name, S_ISDIR(body->mode)), &inode);
    if (result == 0) inode_named(engine, inode, body->fid, body->name);
    if (result == 0 && made_fd >= 0) before_is_new(engine, inode);
    if (result == 0 && S_ISDIR(body->mode)) resync_change(engine, inode, MARKED_THERE, 0);
    inode_put(engine, inode);
    if (kept_fd && made_fd >= 0 && result == 0) *kept_fd = made_fd;
    else close(path_fd);
    return result;
}

/* ---- finding what is named by its id (a session of marks) --------------------------------------------------------------------------- */

static bool is_clean_here(const rfs_engine *engine, struct inode *directory) {
    uint32_t flags = resync_flags(engine, directory);
    return engine->whole ? flags & ENTRIES_CLEAN : !(flags & MARKED_THERE);
}

struct fids {
    uint64_t *at;
    size_t count, room;
};

static int add_fid(struct fids *fids, uint64_t fid) {
    if (fids->count == fids->room) {
        uint64_t *larger = realloc(fids->at, (fids->room * 2 + 64) * sizeof *larger);
        if (!larger) return -ENOMEM;
        fids->at = larger;
        fids->room = fids->room * 2 + 64;
    }
    fids->at[fids->count++] = fid;
    return 0;
}

/* All that lies in this open directory is in the table from here on. below (may be NULL): its directories. */
static int index_directory(rfs_engine *engine, struct inode *directory, int directory_fd, struct fids *below) {
    DIR *stream;
    int result = tree_open(directory_fd, ".", &stream);
    if (result < 0) return result;
    for (struct dirent *item; result == 0 && (item = tree_next(stream, is_root(directory), &result));) {
        struct inode *inode;
        struct stat stat;
        if (inode_at(engine, directory, directory_fd, item->d_name, &inode, &stat) < 0) continue;
        if (below && S_ISDIR(inode->type)) result = add_fid(below, inode->fid);
        inode_put(engine, inode);
    }
    closedir(stream);
    return result;
}

struct announced {
    uint64_t fid;
    bool indexed;
};

static bool index_one(rfs_engine *engine, struct announced *announced) {
    struct inode *directory = announced->indexed ? NULL : inode_get(engine, announced->fid);
    struct descriptor descriptor = {-1, -1};
    if (!directory) return false;
    announced->indexed = true;
    if (S_ISDIR(directory->type) && descriptor_get(engine, directory, &descriptor) == 0) index_directory(engine, directory, descriptor.fd, NULL);
    descriptor_put(engine, &descriptor);
    inode_put(engine, directory);
    return true;
}

/* What a session that did not come to its end has put away is found again. */
static void index_holding(rfs_engine *engine) {
    for (uint32_t i = 0; i < engine->directories; i++) {
        struct inode *root = inode_get(engine, FIRST_DIRECTORY_FID + i);
        int fd = engine->directory[i].scopes.any ? -1 : reserved_look(engine->directory[i].root_fd, HOLDING_NAME);
        if (fd >= 0) index_directory(engine, root, fd, NULL);
        if (fd >= 0) close(fd);
        inode_put(engine, root);
    }
}

/* Everything, in a loop: a tree may be deeper than a stack. */
static void index_trees(rfs_engine *engine) {
    struct fids below = {0};
    for (uint32_t i = 0; i < engine->directories || below.count;) {
        struct inode *directory = inode_get(engine, below.count ? below.at[--below.count] : FIRST_DIRECTORY_FID + i++);
        struct descriptor descriptor = {-1, -1};
        if (directory && descriptor_get(engine, directory, &descriptor) == 0) index_directory(engine, directory, descriptor.fd, &below);
        descriptor_put(engine, &descriptor);
        inode_put(engine, directory);
    }
    free(below.at);
}

/* Announced directories that were not looked into yet; what they hold may be others of them. False: there was none. */
static bool index_announced(rfs_engine *engine) {
    bool any = false;
    if (!engine->holding_indexed) index_holding(engine);
    engine->holding_indexed = true;
    for (bool more = engine->announced_known; more;) {
        more = false;
        for (size_t i = 0; i < engine->announced_count; i++) more |= index_one(engine, &engine->announced[i]);
        any |= more;
    }
    engine->announced_known = false;
    return any;
}

static struct inode *find_named(rfs_engine *engine, uint64_t parent_fid, const char *name, uint64_t fid) {
    struct inode *inode = inode_get(engine, fid), *parent = inode || !parent_fid ? NULL : inode_get(engine, parent_fid);
    struct descriptor directory = {-1, -1};
    struct stat stat;
    if (parent && S_ISDIR(parent->type) && descriptor_get(engine, parent, &directory) == 0 && inode_at(engine, parent, directory.fd, name, &inode, &stat) < 0) inode = NULL;
    descriptor_put(engine, &directory);
    inode_put(engine, parent);
    if (inode && inode->fid == fid) return inode;
    inode_put(engine, inode);
    index_announced(engine);
    return inode_get(engine, fid);
}

static int bind(rfs_engine *engine, const struct op_body *body) {
    struct inode *inode = find_named(engine, body->fid, body->name, body->child);
    if (!inode && !body->fid) { /* none of its names is known there: rare. Once in a session, if it is in vain: that ends it */
        index_trees(engine);
        inode = inode_get(engine, body->child);
    }
    if (!inode) return -EUCLEAN;
    if (body->fid) inode_named(engine, inode, body->fid, body->name);
    if (S_ISDIR(inode->type)) engine->announced_known = true;
    inode_put(engine, inode);
    return 0;
}

static int announce(rfs_engine *engine, const struct op_body *body) {
    struct inode *directory = inode_get(engine, body->fid);
    if (directory) resync_change(engine, directory, MARKED_THERE, ENTRIES_CLEAN);
    inode_put(engine, directory);
    if (engine->announced_count >= MOST_ANNOUNCED) return -EPROTO;
    if (engine->announced_count == engine->announced_room) {
        struct announced *larger = realloc(engine->announced, (engine->announced_room * 2 + 64) * sizeof *larger);
        if (!larger) return -ENOMEM;
        engine->announced = larger;
        engine->announced_room = engine->announced_room * 2 + 64;
    }
    engine->announced[engine->announced_count++] = (struct announced){.fid = body->fid};
    engine->announced_known = true;
    return 0;
}

/* ---- entries, again ------------------------------------------------------------------------------------------------------------------- */

/* A directory has one place: the open directory in which it lies now, and its name there. (From what somebody has moved out of the tree ".." leads
 * nowhere: the kernel sees to that, -ENOENT.) */
static int find_place(rfs_engine *engine, struct inode *inode, DIR **out, char name[256]) {
    struct stat stat;
    int fd = inode_open(engine, inode, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return fd;
    DIR *stream;
    int result = tree_open(fd, "..", &stream);
    close(fd);
    if (result < 0) return result;
    for (struct dirent *entry; (entry = tree_next(stream, false, &result));) {
        if (entry->d_ino != inode->number || fstatat(dirfd(stream), entry->d_name, &stat, AT_SYMLINK_NOFOLLOW) < 0 || stat.st_ino != inode->number) continue;
        strcpy(name, entry->d_name);
        *out = stream;
        return 0;
    }
    closedir(stream);
    return result < 0 ? result : -EUCLEAN;
}

static int move_directory(rfs_engine *engine, struct inode *inode, const struct place *place, const char *name) {
    DIR *stream;
    char here[256];
    int result = find_place(engine, inode, &stream, here);
    if (result < 0) return result;
    result = before_touch_directory(engine, inode->directory, dirfd(stream));
    if (result == 0) result = renameat2(dirfd(stream), here, place->descriptor.fd, name, RENAME_NOREPLACE) < 0 ? -errno : 0;
    closedir(stream);
    return result;
}

/* At the source `place` is not below `moving`, so a directory between them holds here what it does not hold there, and is
 * marked: it will be listed (again), and gets from the holding directory what is taken out now, or somebody else does. A directory
 * that is clean keeps what it has: nobody would bring it back. */
int make_way(rfs_engine *engine, struct inode *moving, struct inode *place) {
    struct inode *at = inode_get(engine, place->fid), *parent = NULL;
    int result = -EUCLEAN;
    for (bool done = false; !done;) {
        DIR *stream;
        struct stat stat;
        char name[256];
        if (find_place(engine, at, &stream, name) < 0) break;
        parent = fstat(dirfd(stream), &stat) < 0 ? NULL : inode_numbered(engine, at->directory, stat.st_ino);
        bool marked = parent && !is_clean_here(engine, parent);
        if (marked) result = before_touch(engine, parent);
        if (marked && result == 0) result = hold(engine, at->directory, at->fid, atomic_load(&at->scope), dirfd(stream), name);
        closedir(stream);
        done = !parent || marked || parent == moving;
        inode_put(engine, at);
        at = parent;
    }
    inode_put(engine, at);
    return result;
}

static int bring(rfs_engine *engine, struct inode *known, const struct place *place, const char *name) {
    if (known->directory != place->directory->directory) return -EUCLEAN;
    int touched = before_touch(engine, place->directory);
    if (touched < 0) return touched;
    if (S_ISDIR(known->type)) {
        int moved = move_directory(engine, known, place, name);
        if (moved == -EINVAL && make_way(engine, known, place->directory) == 0) moved = move_directory(engine, known, place, name);
        return moved;
    }
    int path_fd = inode_open(engine, known, O_PATH | O_NOFOLLOW);
    if (path_fd < 0) return path_fd;
    int result = linkat(path_fd, "", place->descriptor.fd, name, AT_EMPTY_PATH) < 0 ? -errno : 0;
    close(path_fd);
    return result;
}

/* Out of the way of what is listed: to where it may be found again, or kept if it is local itself (a file in the place of a directory). */
static int put_away(rfs_engine *engine, const struct place *place, const char *name, const struct stat *stat) {
    scope_t scope = scope_in(engine, place->directory, name, S_ISDIR(stat->st_mode));
    uint16_t directory = place->directory->directory;
    int touched = before_touch(engine, place->directory);
    if (touched < 0) return touched;
    return scope & SCOPE_LOCAL ? keep(engine, directory, place->descriptor.fd, name) : hold(engine, directory, 0, scope, place->descriptor.fd, name);
}

static void tell_fresh(rfs_engine *engine, struct link *link, const struct place *place, const struct op_body *body) {
    struct op_body answer = {.fid = body->child};
    bool matters = !engine->whole || S_ISREG(body->mode) || S_ISDIR(body->mode); /* of marks: its owner, mode and times are told to nobody yet */
    if (matters && !(engine->session.fresh >> place->directory->directory & 1)) link_send_body(link, FRAME_FRESH, &answer, NULL);
}

static bool is_there(const struct place *place, const char *name, struct stat *stat) { return fstatat(place->descriptor.fd, name, stat, AT_SYMLINK_NOFOLLOW) == 0; }

/* kept_fd (may be NULL): a file's that was made; else as it was. */
static int entry(rfs_engine *engine, struct link *link, const struct op_body *body, const uint8_t *data, int *kept_fd) {
    struct stat stat;
    struct place place;
    struct inode *known = engine->whole ? inode_get(engine, body->child) : find_named(engine, body->fid, body->name, body->child);
    int result = engine->listing && engine->listing->fid == body->fid ? open_place(engine, body->fid, &place) : -EPROTO;
    if (result == -EPROTO) goto out;
    if (result == 0) result = remember(engine->listing, body->name);
    if (result == 0 && scope_in(engine, place.directory, body->name, S_ISDIR(body->mode)) & SCOPE_LOCAL) result = -EPROTO;
    if (result == 0 && known && known->type != (body->mode & S_IFMT)) result = -EUCLEAN; /* one id, two objects */
    if (result < 0) goto close;
    int made_fd = -1;
    bool expected = engine->session.fresh >> place.directory->directory & 1 && !known; /* not to be there: that costs no look */
    if (expected) result = before_touch(engine, place.directory);
    if (result == 0 && expected && (made_fd = create(place.descriptor.fd, body, data)) < 0 && made_fd != -EEXIST) result = made_fd;
    if (result < 0) goto close;
    bool exists = made_fd < 0 && is_there(&place, body->name, &stat);
    engine->announced_known |= S_ISDIR(body->mode);
    if (exists && known && known->number == stat.st_ino) goto close;
    if (exists && (known || !engine->whole || inode_known(engine, place.directory->directory, stat.st_ino) || !same_object(place.descriptor.fd, body, data, &stat))) {
        result = put_away(engine, &place, body->name, &stat);
        exists = false;
    }
    if (result < 0) goto close;
    if (known) {
        result = bring(engine, known, &place, body->name);
        if (result == 0) inode_named(engine, known, body->fid, body->name);
        if (result == -ESTALE || result == -ENOENT) { /* purged after an earlier session (it had left, and has come back), or removed beside us */
            inode_drop(engine, known, -1);
            inode_put(engine, known);
            known = NULL;
        }
    }
    if (!known) {
        result = exists ? 0 : before_touch(engine, place.directory);
        if (result == 0 && !exists && made_fd < 0) result = made_fd = create(place.descriptor.fd, body, data);
        if (result >= 0) result = adopt(engine, &place, body, made_fd, kept_fd);
        if (result == 0 && !exists) tell_fresh(engine, link, &place, body);
    }
close:
    close_place(engine, &place);
out:
    inode_put(engine, known);
    return result;
}

static int remove_unlisted(rfs_engine *engine, const struct place *place) {
    DIR *stream;
    int result = tree_open(place->descriptor.fd, ".", &stream);
    if (result < 0) return result;
    for (struct dirent *item; result == 0 && (item = tree_next(stream, is_root(place->directory), &result));) {
        if (*find(engine->listing, item->d_name)) continue;
        struct stat stat;
        if (fstatat(place->descriptor.fd, item->d_name, &stat, AT_SYMLINK_NOFOLLOW) < 0) result = -errno;
        else if (!(scope_in(engine, place->directory, item->d_name, S_ISDIR(stat.st_mode)) & SCOPE_LOCAL)) result = put_away(engine, place, item->d_name, &stat);
    }
    closedir(stream);
    return result;
}

/* ---- attributes and content ------------------------------------------------------------------------------------------------------ */

static int set_mode(int fd, const char *path, bool open, mode_t mode) { return open ? fchmod(fd, mode) : chmod(path, mode); }

/* `open`: it is no O_PATH descriptor. The mode at last: owner, ACL and capabilities change it. */
static int dress(int fd, bool open, const struct op_body *body, const uint8_t *xattrs, size_t bytes) {
    struct proc_path path = proc_path(fd);
    struct stat stat;
    struct timespec times[2] = {to_timespec(body->atime_ns), to_timespec(body->mtime_ns)};
    if (fstat(fd, &stat) < 0) return -errno;
    if ((stat.st_mode & S_IFMT) != (body->mode & S_IFMT)) return -EUCLEAN;
    if (S_ISREG(stat.st_mode) && (uint64_t)stat.st_size != body->length && (open ? ftruncate(fd, (off_t)body->length) : truncate(path.text, (off_t)body->length)) < 0) return -errno;
    if ((stat.st_uid != body->uid || stat.st_gid != body->gid) && fchownat(fd, "", body->uid, body->gid, AT_EMPTY_PATH) < 0) return -errno;
    int result = xattrs_unpack(fd, xattrs, bytes);
    if (result < 0) return result;
    if (!S_ISLNK(stat.st_mode) && (fstat(fd, &stat) < 0 || ((stat.st_mode ^ body->mode) & 07777)) && set_mode(fd, path.text, open, body->mode & 07777) < 0) return -errno;
    return (open ? futimens(fd, times) : utimensat(AT_FDCWD, path.text, times, 0)) < 0 ? -errno : 0;
}

/* Is it so already? Most of what a full compare tells is. (The atime is each node's own.) */
static bool is_dressed(int path_fd, const struct op_body *body, const uint8_t *data) {
    struct stat stat;
    uint8_t *xattrs = NULL;
    size_t bytes;
    if (fstat(path_fd, &stat) < 0 || stat.st_mode != body->mode || stat.st_uid != body->uid || stat.st_gid != body->gid) return false;
    if (stat_mtime_ns(&stat) != body->mtime_ns || (S_ISREG(stat.st_mode) && (uint64_t)stat.st_size != body->length)) return false;
    if (xattrs_pack(path_fd, &xattrs, &bytes) < 0) return false;
    bool same = bytes == body->data_bytes && (!bytes || !memcmp(xattrs, data, bytes)); /* in another order they are just not taken for the same */
    free(xattrs);
    return same;
}

/* A file's descriptor is at hand, if its content has just been written. */
static int attributes(rfs_engine *engine, const struct op_body *body, const uint8_t *data) {
    struct inode *inode = inode_of_peer(engine, body->fid);
    struct descriptor file = {-1, -1};
    if (!inode) return -EUCLEAN;
    bool open = S_ISREG(inode->type) && descriptor_get(engine, inode, &file) == 0;
    int fd = open ? file.fd : inode_open(engine, inode, O_PATH | O_NOFOLLOW), result = fd < 0 ? fd : 0;
    if (result == 0 && atomic_load(&engine->before) && !is_dressed(fd, body, data)) result = before_touch(engine, inode);
    if (result == 0) result = dress(fd, open, body, data, body->data_bytes);
    if (!open && fd >= 0) close(fd);
    descriptor_put(engine, &file);
    inode_put(engine, inode);
    return result;
}

/* An entry with all that there is of it. */
static int small_file(rfs_engine *engine, struct link *link, const struct op_body *body, const uint8_t *data) {
    int fd = -1, result = entry(engine, link, body, NULL, &fd);
    if (result == 0 && fd < 0) { /* it was there: what it holds beyond this is cut off below */
        struct inode *inode = inode_get(engine, body->child);
        result = inode && S_ISREG(inode->type) ? before_touch(engine, inode) : -EUCLEAN; /* nothing else is opened to be written */
        if (result == 0) result = fd = inode_open(engine, inode, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
        inode_put(engine, inode);
    }
    if (result < 0) return result;
    size_t written;
    result = write_all(fd, data, body->data_bytes, 0, &written);
    if (result == 0) result = dress(fd, true, body, NULL, 0);
    close(fd);
    if (++engine->small_files % SYNCED_FILES == 0) begin_sync(engine);
    return result;
}

static int end_directory(rfs_engine *engine, const struct op_body *body, const uint8_t *data) {
    struct place place;
    if (!engine->listing || engine->listing->fid != body->fid) return -EPROTO;
    int result = open_place(engine, body->fid, &place);
    if (result == 0) result = remove_unlisted(engine, &place);
    if (result == 0) resync_change(engine, place.directory, ENTRIES_CLEAN, MARKED_THERE);
    close_place(engine, &place);
    listing_free(engine);
    return result < 0 ? result : attributes(engine, body, data);
}

static int punch(int fd, uint64_t offset, uint64_t bytes) {
    struct stat stat;
    if (fstat(fd, &stat) < 0) return -errno;
    if (offset >= (uint64_t)stat.st_size) return 0; /* the attributes will extend it */
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes) == 0) return 0;
    if (errno != EOPNOTSUPP) return -errno;
    static const uint8_t zeros[RESYNC_BLOCK_BYTES];
    uint64_t end = offset + bytes < (uint64_t)stat.st_size ? offset + bytes : (uint64_t)stat.st_size;
    while (offset < end) {
        ssize_t some = pwrite(fd, zeros, end - offset < sizeof zeros ? end - offset : sizeof zeros, (off_t)offset);
        if (some <= 0) return some < 0 ? -errno : -EIO;
        offset += (uint64_t)some;
    }
    return 0;
}

/* The end of the session makes all of it durable: the disk begins while the rest is still on its way. */
static void begin_writing(int fd, uint64_t offset, uint64_t bytes) {
    uint64_t end = (offset + bytes) / EARLY_WRITE_BYTES * EARLY_WRITE_BYTES;
    if (end > offset && end >= EARLY_WRITE_BYTES) sync_file_range(fd, (off_t)(end - EARLY_WRITE_BYTES), EARLY_WRITE_BYTES, SYNC_FILE_RANGE_WRITE);
}

static int block(rfs_engine *engine, const struct wire_header *header, const struct op_body *body, const uint8_t *data) {
    struct inode *inode = inode_of_peer(engine, body->fid);
    struct descriptor file = {-1, -1};
    int result = inode && S_ISREG(inode->type) ? descriptor_get(engine, inode, &file) : -EUCLEAN;
    if (result == 0 && header->flags & FLAG_ZERO) {
        result = punch(file.fd, body->offset, body->length);
    } else if (result == 0) {
        ssize_t written = pwrite(file.fd, data, body->data_bytes, (off_t)body->offset);
        if (written != (ssize_t)body->data_bytes) result = written < 0 ? -errno : -ENOSPC;
        else begin_writing(file.fd, body->offset, body->data_bytes);
    }
    descriptor_put(engine, &file);
    inode_put(engine, inode);
    return result;
}

static int set_size(rfs_engine *engine, const struct op_body *body) {
    struct inode *inode = inode_of_peer(engine, body->fid);
    struct descriptor file = {-1, -1};
    int result = inode && S_ISREG(inode->type) ? descriptor_get(engine, inode, &file) : -EUCLEAN;
    struct stat stat;
    if (result == 0 && fstat(file.fd, &stat) < 0) result = -errno;
    if (result == 0 && (uint64_t)stat.st_size != body->length) { /* else it would cost the mtime */
        result = before_touch(engine, inode);
        if (result == 0 && ftruncate(file.fd, (off_t)body->length) < 0) result = -errno;
    }
    descriptor_put(engine, &file);
    inode_put(engine, inode);
    return result;
}

static int hashes(rfs_engine *engine, struct link *link, const struct wire_header *header, const struct op_body *body, const uint8_t *data) {
    size_t blocks = (body->length + RESYNC_BLOCK_BYTES - 1) / RESYNC_BLOCK_BYTES;
    struct inode *inode = inode_of_peer(engine, body->fid);
    struct descriptor file = {-1, -1};
    uint8_t *buffer = malloc(RESYNC_WINDOW_BYTES);
    uint64_t different = 0;
    int result = !buffer ? -ENOMEM : inode && S_ISREG(inode->type) ? descriptor_get(engine, inode, &file) : -EUCLEAN;
    size_t filled = 0;
    for (ssize_t got = 1; result == 0 && got > 0 && filled < body->length; filled += got > 0 ? (size_t)got : 0) {
        got = pread(file.fd, buffer + filled, body->length - filled, (off_t)(body->offset + filled));
        if (got < 0) result = -errno;
    }
    for (size_t i = 0; result == 0 && i < blocks; i++) {
        struct block_hash theirs;
        size_t at = i * RESYNC_BLOCK_BYTES, part = body->length - at < RESYNC_BLOCK_BYTES ? (size_t)(body->length - at) : RESYNC_BLOCK_BYTES;
        memcpy(&theirs, data + i * sizeof theirs, sizeof theirs);
        bool there = at + part <= filled;
        struct block_hash mine = there ? hash_block(buffer + at, part, engine->session.session) : theirs;
        if (!there || mine.low != theirs.low || mine.high != theirs.high) different |= UINT64_C(1) << i;
    }
    if (result == 0) link_send_small(link, FRAME_DIFFERENT, header->seq, different);
    descriptor_put(engine, &file);
    inode_put(engine, inode);
    free(buffer);
    return result;
}

int apply_resync(rfs_engine *engine, struct link *link, const struct wire_header *header, const struct op_body *body, const uint8_t *data) {
    switch (header->type) {
    case FRAME_DIRECTORY_BEGIN: return begin(engine, body->fid);
    case FRAME_DIRECTORY_ENTRY: return entry(engine, link, body, data, NULL);
    case FRAME_SMALL_FILE: return small_file(engine, link, body, data);
    case FRAME_DIRECTORY_END: return end_directory(engine, body, data);
    case FRAME_HASHES: return hashes(engine, link, header, body, data);
    case FRAME_BLOCK: return block(engine, header, body, data);
    case FRAME_ATTRIBUTES: return attributes(engine, body, data);
    case FRAME_END: return 0;
    case FRAME_MARKED: return announce(engine, body);
    case FRAME_BIND: return bind(engine, body);
    case FRAME_SIZE: return set_size(engine, body);
    default: return -EPROTO;
    }
}
