/* Ops that change a directory's entries, done to the local tree.
 *
 * The caller holds `names`, so no two of them run at once. The stripe of an inode that may lose its last name is taken
 * around the removal: a write that is shipped before it is applied before it on the peer too, and none is shipped after.
 *
 * Replayed ops verify what they find against the ids in the frame. A mismatch means that the copies are not what both
 * believed: the op is refused with EUCLEAN and the secondary leaves, rather than guess. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "before.h"
#include "marker.h"
#include "op.h"
#include "policy.h"
#include "walk.h"

int get_directory(rfs_engine *engine, uint64_t fid, struct inode **inode, struct descriptor *descriptor) {
    *descriptor = (struct descriptor){-1, -1};
    *inode = inode_get(engine, fid);
    if (!*inode) return -ESTALE;
    if (!S_ISDIR((*inode)->type)) return -ENOTDIR;
    if ((*inode)->orphan) return -ENOENT;
    return descriptor_get(engine, *inode, descriptor);
}

void put_directory(rfs_engine *engine, struct inode *inode, struct descriptor *descriptor) {
    descriptor_put(engine, descriptor);
    inode_put(engine, inode);
}

int parent_time(int fd, int64_t *mtime_ns, bool replay) {
    struct stat stat;
    if (replay) return set_mtime(fd, *mtime_ns);
    if (fstat(fd, &stat) < 0) return -EIO; /* it is done, and the peer can never be told: see change_failed() */
    *mtime_ns = stat_mtime_ns(&stat);
    return 0;
}

/* ---- making ----------------------------------------------------------------------------------------------------------- */

/* It gets an owner, a mode and an id next: never what somebody who reaches the plain tree has put in its place. What was just made is root's, has no
 * other name and no id, and nobody but root can make anything that is like it. */
int opened_made(int directory_fd, const char *name, mode_t type) {
    struct stat stat;
    uint64_t fid = 0;
    int fd = openat(directory_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return -errno;
    int result = fstat(fd, &stat) < 0 ? -errno : read_fid(fd, &fid);
    bool ours = result == 0 && (stat.st_mode & S_IFMT) == type && stat.st_uid == geteuid() && (S_ISDIR(type) || stat.st_nlink == 1) && !fid;
    if (ours) return fd;
    close(fd);
    return result < 0 ? result : -ESTALE;
}

static uint32_t made_type(const struct op *op) {
    if (op->type == FRAME_MKDIR) return S_IFDIR;
    if (op->type == FRAME_SYMLINK) return S_IFLNK;
    return op->type == FRAME_MKNOD && op->body.mode & S_IFMT ? op->body.mode & S_IFMT : S_IFREG;
}

/* A descriptor of what was made: by CREATE an open file's, else its path's. Nothing is setuid yet: see dress(). */
static int make_object(int directory_fd, const char *name, const struct op *op) {
    const struct op_body *body = &op->body;
    char target[RFS_TARGET_BYTES + 1];
    int fd = -1;
    switch (op->type) {
    case FRAME_MKDIR:
        if (mkdirat(directory_fd, name, body->mode & 0777) < 0) return -errno;
        break;
    case FRAME_MKNOD:
        if (mknodat(directory_fd, name, body->mode & (S_IFMT | 0777), body->rdev) < 0) return -errno;
        break;
    case FRAME_SYMLINK:
        memcpy(target, op->data, body->data_bytes);
        target[body->data_bytes] = 0;
        if (symlinkat(target, directory_fd, name) < 0) return -errno;
        break;
    default:
        fd = openat(directory_fd, name, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC, body->mode & 0777);
        return fd < 0 ? -errno : fd;
    }
    fd = opened_made(directory_fd, name, made_type(op));
    if (fd < 0 && fd != -ESTALE) unlinkat(directory_fd, name, op->type == FRAME_MKDIR ? AT_REMOVEDIR : 0); /* no descriptor is left, say */
    return fd;
}

/* Where the directory has a default ACL it takes the umask's place, here as in the kernel. */
static bool has_default_acl(int directory_fd) { return fgetxattr(directory_fd, "system.posix_acl_default", NULL, 0) >= 0; }

/* What was made is opened by its name, unless it is a file: another object in its place, a hard link say to what is not in the tree, is not given away. */
static bool is_ours(const struct op *op, const struct stat *stat) {
    uint32_t type = made_type(op);
    return (stat->st_mode & S_IFMT) == type && (op->type == FRAME_CREATE || type == S_IFDIR || stat->st_nlink == 1);
}

/* The owner first: chown takes suid and sgid away. A new object in a setgid directory keeps the directory's group. */
static int dress(const struct stat *parent, int fd, struct op *op, struct stat *stat, bool replay, bool inherits) {
    struct op_body *body = &op->body;
    uint32_t gid = body->gid, wanted = body->mode & 07777;
    if (fstat(fd, stat) < 0) return -errno;
    if (!is_ours(op, stat)) return -ESTALE;
    if (!replay && parent->st_mode & S_ISGID) {
        gid = parent->st_gid;
        if (S_ISDIR(stat->st_mode)) wanted |= S_ISGID;
    }
    if ((stat->st_uid != body->uid || stat->st_gid != gid) && (fchownat(fd, "", body->uid, gid, AT_EMPTY_PATH) < 0 || fstat(fd, stat) < 0)) return -errno;
    uint32_t enforced = inherits ? 07000 : 07777; /* a default ACL may have narrowed the rest: that stands; our own umask may not */
    if (!S_ISLNK(stat->st_mode) && ((stat->st_mode ^ wanted) & enforced) &&
        chmod(proc_path(fd).text, (stat->st_mode & 07777 & ~enforced) | (wanted & enforced)) < 0)
        return -errno;
    if (!replay) return 0;
    if (op->type == FRAME_CREATE) return set_mtime(fd, body->child_mtime_ns); /* any other is but a path's descriptor: see make_object() */
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, to_timespec(body->child_mtime_ns)};
    return utimensat(AT_FDCWD, proc_path(fd).text, times, 0) < 0 ? -errno : 0;
}

/* Made without a place: see border.c. What an earlier arrival of the same file has left there is nothing. If it left a directory that is still
 * to be listed, the object of before is still here; the listing will see to that, but it is this file no more. */
static int make_held(rfs_engine *engine, const struct op *op, uint16_t directory, int *directory_fd) {
    char name[48];
    int fd = held_open(engine, directory, op->body.child, name);
    if (fd < 0) return fd;
    *directory_fd = fd;
    struct inode *before = inode_get(engine, op->body.child);
    if (before) inode_drop(engine, before, -1);
    inode_put(engine, before);
    if (unlinkat(fd, name, 0) < 0 && errno != ENOENT) return -errno;
    return make_object(fd, name, op);
}

/* What was made lies elsewhere by now: somebody who reaches the plain tree has done that, and no disk has failed. */
static bool is_replaced(int error) { return error == ENOENT || error == ENOTDIR || error == EISDIR || error == ENOTEMPTY; }

/* What the policy is asked about: a directory or a link is never forbidden. */
static uint32_t made_mode(const struct op *op) { return op->type == FRAME_CREATE || op->type == FRAME_MKNOD ? made_type(op) | (op->body.mode & 07777) : made_type(op); }

int local_make(rfs_engine *engine, struct op *op, bool replay) {
    struct op_body *body = &op->body;
    struct inode *parent;
    struct descriptor directory;
    struct stat before; /* the directory */
    bool held = replay && op->frame.header.flags & FLAG_HELD;
    int fd = -1, holding = -1, result = get_directory(engine, body->fid, &parent, &directory);
    if (result < 0) goto out;
    result = -EPERM;
    if (is_reserved(body->fid, body->name)) goto out;
    scope_t scope = held ? 0 : scope_in(engine, parent, body->name, op->type == FRAME_MKDIR);
    op->local = scope & SCOPE_LOCAL;
    result = replay && op->local ? -EPROTO : !replay && policy_forbids(engine->policy, made_mode(op)) ? -EPERM : 0;
    if (result < 0) goto out;
    bool inherits = !replay && has_default_acl(directory.fd);
    if (!replay && !inherits) body->mode &= ~op->umask;
    if (!replay && fstat(directory.fd, &before) < 0) {
        result = -errno;
        goto out;
    }
    result = fd = held ? make_held(engine, op, parent->directory, &holding) : make_object(directory.fd, body->name, op);
    if (result < 0) goto undone;
    result = dress(&before, fd, op, &op->stat, replay, inherits);
    if (result < 0) goto undo;
    if (!body->child) body->child = new_fid(engine); /* else given when it was marked: see marker_admit() */
    result = inode_adopt(engine, parent->directory, fd, &op->stat, body->child, scope, &op->inode);
    if (result == 0 && fstat(fd, &op->stat) < 0) result = -errno; /* its ctime has moved */
    if (result < 0) goto undo;
    if (!held) inode_named(engine, op->inode, body->fid, body->name);
    if (replay) before_is_new(engine, op->inode);
    if (replay && op->type == FRAME_MKDIR) resync_change(engine, op->inode, ENTRIES_CLEAN, MARKED_THERE);
    if (!replay) {
        body->mode = op->stat.st_mode;
        body->uid = op->stat.st_uid;
        body->gid = op->stat.st_gid;
        body->child_mtime_ns = stat_mtime_ns(&op->stat);
    }
    result = held ? 0 : parent_time(directory.fd, &body->mtime_ns, replay);
    goto out;
undo:
    if (!held && unlinkat(directory.fd, body->name, op->type == FRAME_MKDIR ? AT_REMOVEDIR : 0) < 0 && !is_replaced(errno)) result = -EIO;
undone:
    if (!replay && put_mtime_back(directory.fd, &before) < 0) result = -EIO;
out:
    if (result == 0 && op->type == FRAME_CREATE && !replay) op->made_fd = fd; /* who creates a file opens it */
    else if (fd >= 0) close(fd);
    if (holding >= 0) close(holding);
    put_directory(engine, parent, &directory);
    return result;
}

int local_link(rfs_engine *engine, struct op *op, bool replay) {
    struct op_body *body = &op->body;
    struct inode *parent = NULL, *inode = replay ? inode_of_peer(engine, body->other) : inode_get(engine, body->other);
    struct descriptor directory = {-1, -1};
    int path_fd = -1, result = -ESTALE;
    if (!inode) goto out;
    result = get_directory(engine, body->fid, &parent, &directory);
    if (result < 0) goto out;
    result = is_reserved(body->fid, body->name) ? -EPERM : inode->orphan ? -ENOENT : inode->directory != parent->directory ? -EXDEV : 0;
    if (result < 0) goto out;
    op->local = scope_in(engine, parent, body->name, S_ISDIR(inode->type)) & SCOPE_LOCAL;
    result = replay && op->local ? -EPROTO : !replay && op->local != inode_is_local(inode) ? -EXDEV : 0; /* its names are all on one side: see border.c */
    if (result < 0) goto out;
    result = path_fd = inode_open(engine, inode, O_PATH | O_NOFOLLOW);
    if (result < 0) goto out;
    if (linkat(path_fd, "", directory.fd, body->name, AT_EMPTY_PATH) < 0 || fstat(path_fd, &op->stat) < 0) {
        result = -errno;
        goto out;
    }
    op->inode = inode;
    inode = NULL;
    inode_named(engine, op->inode, body->fid, body->name); /* the name of before is often removed next, and then none would be known */
    result = parent_time(directory.fd, &body->mtime_ns, replay);
out:
    if (path_fd >= 0) close(path_fd);
    put_directory(engine, parent, &directory);
    inode_put(engine, inode);
    return result;
}

/* ---- removing --------------------------------------------------------------------------------------------------------- */

static int expect(const struct inode *inode, uint64_t fid, bool replay) { return replay && inode->fid != fid ? -EUCLEAN : 0; }

/* The pin that an object with this last name will need: before the name goes, because afterwards no handle finds it. */
int open_pin(rfs_engine *engine, struct inode *inode, const struct stat *stat, bool last, bool replay) {
    bool large = stat->st_blocks > LARGE_FILE_BLOCKS; /* its blocks are freed when the pin is closed, by a worker, and not while everything waits */
    int pin = last && (!replay || large) ? inode_open(engine, inode, O_PATH | O_NOFOLLOW) : -1;
    return pin < 0 ? -1 : pin;
}

static bool is_unlisted(rfs_engine *engine, struct inode *inode) { return S_ISDIR(inode->type) && !walk_is_clean(engine, inode); }

bool last_name(const struct inode *inode, const struct stat *stat) { return S_ISDIR(inode->type) || stat->st_nlink <= 1; }

int local_remove(rfs_engine *engine, struct op *op, bool replay) {
    struct op_body *body = &op->body;
    struct inode *parent, *victim = NULL;
    struct descriptor directory;
    pthread_mutex_t *stripe = NULL;
    struct stat stat;
    int result = get_directory(engine, body->fid, &parent, &directory);
    if (result < 0) goto out;
    result = is_reserved(body->fid, body->name) ? -ENOENT : inode_at(engine, parent, directory.fd, body->name, &victim, &stat);
    if (result < 0) goto out;
    result = expect(victim, body->child, replay);
    if (result < 0) goto out;
    op->local = scope_in(engine, parent, body->name, S_ISDIR(stat.st_mode)) & SCOPE_LOCAL;
    result = replay && op->local ? -EPROTO : 0;
    if (result < 0) goto out;
    stripe = inode_stripe(engine, victim->fid);
    pthread_mutex_lock(stripe);
    bool last = last_name(victim, &stat);
    if (replay && last && !(op->frame.header.flags & FLAG_LAST_NAME)) { /* it has another name there that is not here yet */
        result = hold(engine, victim->directory, victim->fid, atomic_load(&victim->scope), directory.fd, body->name);
    } else {
        int pin = open_pin(engine, victim, &stat, last, replay);
        result = unlinkat(directory.fd, body->name, op->type == FRAME_RMDIR ? AT_REMOVEDIR : 0) < 0 ? -errno : 0;
        if (replay && result == -ENOTEMPTY) result = set_leftovers_aside(engine, victim, directory.fd, body->name);
        if (result == 0 && last) inode_drop(engine, victim, pin);
        else if (pin >= 0) close(pin);
    }
    if (result < 0) goto out;
    inode_unnamed(engine, victim, body->fid, body->name);
    body->child = victim->fid;
    op->unlisted = is_unlisted(engine, victim);
    if (last) op->frame.header.flags |= FLAG_LAST_NAME;
    result = parent_time(directory.fd, &body->mtime_ns, replay);
out:
    if (stripe) pthread_mutex_unlock(stripe);
    inode_put(engine, victim);
    put_directory(engine, parent, &directory);
    return result;
}

/* ---- renaming --------------------------------------------------------------------------------------------------------- */

struct rename {
    struct inode *from, *to, *moved, *victim;
    struct descriptor from_directory, to_directory;
    struct stat moved_stat, victim_stat;
    int pin;
    enum crossing crossing;
    bool told; /* the peer is told of what arrives; else its directory is still to be listed */
    struct list arrival;
    pthread_mutex_t *stripe, *moved_stripe; /* the victim's, and that of what is moved */
};

static int find_both(rfs_engine *engine, struct rename *rename, const struct op_body *body, bool replay) {
    int result = get_directory(engine, body->fid, &rename->from, &rename->from_directory);
    if (result < 0) return result;
    result = get_directory(engine, body->other, &rename->to, &rename->to_directory);
    if (result < 0) return result;
    if (is_reserved(body->fid, body->name) || is_reserved(body->other, body->name2)) return -EPERM;
    if (rename->from->directory != rename->to->directory) return -EXDEV;
    result = inode_at(engine, rename->from, rename->from_directory.fd, body->name, &rename->moved, &rename->moved_stat);
    if (result < 0) return result;
    result = expect(rename->moved, body->child, replay);
    if (result < 0) return result;
    result = inode_at(engine, rename->to, rename->to_directory.fd, body->name2, &rename->victim, &rename->victim_stat);
    return result == -ENOENT ? 0 : result;
}

/* What everything below a directory is must not change by its rename; a file may cross the border: see border.c. */
static int judge_crossing(rfs_engine *engine, struct rename *rename, struct op *op) {
    const struct op_body *body = &op->body;
    bool is_directory = S_ISDIR(rename->moved_stat.st_mode);
    scope_t from = scope_in(engine, rename->from, body->name, is_directory), to = scope_in(engine, rename->to, body->name2, is_directory);
    op->local = from & to & SCOPE_LOCAL;
    if (body->flags & RENAME_EXCHANGE && rename->victim) {
        bool also = S_ISDIR(rename->victim_stat.st_mode);
        if (from != to || scope_in(engine, rename->to, body->name2, also) != scope_in(engine, rename->from, body->name, also)) return -EXDEV;
    }
    if (from == to) return 0;
    if (is_directory || rename->moved_stat.st_nlink > 1) return -EXDEV;
    rename->crossing = to & SCOPE_LOCAL ? LEAVES : ARRIVES;
    if (rename->crossing == ARRIVES && !marker_is_whole(engine, rename->moved->fid)) { /* nothing of it has been marked until now */
        op->marks_whole = rename->moved->fid;
        return -ERESTART;
    }
    rename->told = rename->crossing == ARRIVES && (engine->mode == RFS_PAIRED || (engine->mode == RFS_RESYNCING && resync_flags(engine, rename->to) & BOUND && walk_is_clean(engine, rename->to)));
    return 0;
}

/* From the peer: no local name is any of its business. */
static int stays_replicated(rfs_engine *engine, const struct rename *rename, const struct op_body *body) {
    bool is_directory = S_ISDIR(rename->moved_stat.st_mode);
    scope_t scopes = scope_in(engine, rename->from, body->name, is_directory) | scope_in(engine, rename->to, body->name2, is_directory);
    if (rename->victim) scopes |= scope_in(engine, rename->to, body->name2, S_ISDIR(rename->victim_stat.st_mode));
    return scopes & SCOPE_LOCAL ? -EPROTO : 0;
}

static bool swaps(const struct rename *rename, const struct op_body *body) { return body->flags & RENAME_EXCHANGE && rename->victim; }

/* XFS gives a directory that goes to another one by an exchange a new mtime, of which the peer would never hear: it keeps the one that it had, and its
 * stripe is held meanwhile. (A file gets none, and is left alone: a write beside us may just be giving it one.) */
static int keep_time(int directory_fd, const char *name, const struct stat *before) {
    if (!S_ISDIR(before->st_mode)) return 0;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, before->st_mtim};
    return utimensat(directory_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT ? -EIO : 0; /* it is done: see change_failed() */
}

static int swapped(const struct rename *rename, const struct op_body *body) {
    if (!swaps(rename, body)) return 0;
    int result = keep_time(rename->to_directory.fd, body->name2, &rename->moved_stat);
    return result < 0 ? result : keep_time(rename->from_directory.fd, body->name, &rename->victim_stat);
}

/* During a resync a directory may lie here below the one that is moved into it: see make_way(). */
static int move(rfs_engine *engine, const struct rename *rename, const struct op_body *body, bool replay) {
    for (int tries = 0;; tries++) {
        if (renameat2(rename->from_directory.fd, body->name, rename->to_directory.fd, body->name2, body->flags) == 0) return swapped(rename, body);
        int result = -errno;
        if (!replay || tries == 2) return result;
        if ((result == -ENOTEMPTY || result == -EEXIST) && rename->victim && S_ISDIR(rename->victim->type)) {
            result = set_leftovers_aside(engine, rename->victim, rename->to_directory.fd, body->name2);
            if (result < 0) return result;
            continue;
        }
        if (result != -EINVAL) return result;
        if (make_way(engine, rename->moved, rename->to) < 0 && (!swaps(rename, body) || make_way(engine, rename->victim, rename->from) < 0)) return -EINVAL;
    }
}

/* The rename is done here: what the peer is told instead. */
static void cross(rfs_engine *engine, struct rename *rename, struct op *op) {
    struct op_body *body = &op->body;
    op->crossing = rename->crossing;
    inode_set_scope(engine, rename->moved, rename->crossing == LEAVES ? SCOPE_LOCAL : 0);
    if (rename->crossing == LEAVES) {
        resync_change(engine, rename->moved, 0, BOUND | CONTENT_DONE); /* should it come back */
        op->type = FRAME_UNLINK;
        op->frame.header.flags |= FLAG_LAST_NAME;
    } else if (rename->told) {
        arrival_ship(engine, &rename->arrival);
        resync_change(engine, rename->moved, BOUND | CONTENT_DONE, 0);
        op->type = FRAME_PLACE;
        body->fid = body->other;
        body->mtime_ns = body->other_mtime_ns;
        memcpy(body->name, body->name2, sizeof body->name);
        body->name_bytes = body->name2_bytes;
    }
    if (op->type != FRAME_RENAME) body->name2_bytes = 0;
}

/* And the attributes of directories that are swapped once more: those of before may be old by now. */
static int lock_stripes(rfs_engine *engine, struct rename *rename, const struct op_body *body, bool overwrites) {
    bool both = swaps(rename, body), moves = both && S_ISDIR(rename->moved_stat.st_mode), comes = both && S_ISDIR(rename->victim_stat.st_mode);
    if (overwrites || comes) rename->stripe = inode_stripe(engine, rename->victim->fid);
    if (rename->crossing != STAYS || moves) rename->moved_stripe = inode_stripe(engine, rename->moved->fid);
    lock_two(rename->stripe, rename->moved_stripe);
    if (moves && fstatat(rename->from_directory.fd, body->name, &rename->moved_stat, AT_SYMLINK_NOFOLLOW) < 0) return -errno;
    return comes && fstatat(rename->to_directory.fd, body->name2, &rename->victim_stat, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static void name_anew(rfs_engine *engine, const struct rename *rename, const struct op_body *body) {
    if (rename->moved == rename->victim) return; /* two names of one object: nothing has happened */
    inode_named(engine, rename->moved, body->other, body->name2);
    if (!rename->victim) return;
    if (swaps(rename, body)) inode_named(engine, rename->victim, body->fid, body->name);
    else inode_unnamed(engine, rename->victim, body->other, body->name2);
}

int local_rename(rfs_engine *engine, struct op *op, bool replay) {
    struct op_body *body = &op->body;
    struct rename rename = {.from_directory = {-1, -1}, .to_directory = {-1, -1}, .pin = -1};
    list_init(&rename.arrival);
    int result = find_both(engine, &rename, body, replay);
    if (result == 0) result = replay ? stays_replicated(engine, &rename, body) : judge_crossing(engine, &rename, op);
    if (result < 0) goto out;
    bool overwrites = rename.victim && rename.victim != rename.moved && !(body->flags & (RENAME_EXCHANGE | RENAME_NOREPLACE));
    bool last = overwrites && last_name(rename.victim, &rename.victim_stat);
    result = lock_stripes(engine, &rename, body, overwrites);
    if (result < 0) goto out;
    if (overwrites) {
        rename.pin = open_pin(engine, rename.victim, &rename.victim_stat, last, replay);
        if (last && replay && !(op->frame.header.flags & FLAG_LAST_NAME)) {
            result = hold(engine, rename.to->directory, rename.victim->fid, atomic_load(&rename.victim->scope), rename.to_directory.fd, body->name2);
            if (result < 0) goto out;
            last = false;
        }
    }
    if (rename.told) result = arrival_prepare(engine, rename.moved, &rename.arrival);
    if (result == 0) result = move(engine, &rename, body, replay);
    if (result < 0) goto out;
    if (last) {
        inode_drop(engine, rename.victim, rename.pin);
        rename.pin = -1;
        op->frame.header.flags |= FLAG_LAST_NAME;
    }
    name_anew(engine, &rename, body);
    body->child = rename.moved->fid;
    op->unlisted = overwrites && is_unlisted(engine, rename.victim);
    result = parent_time(rename.from_directory.fd, &body->mtime_ns, replay);
    if (result == 0) result = parent_time(rename.to_directory.fd, &body->other_mtime_ns, replay);
    if (rename.crossing != STAYS) cross(engine, &rename, op);
out:
    unlock_two(rename.stripe, rename.moved_stripe);
    arrival_drop(engine, &rename.arrival);
    if (rename.pin >= 0) close(rename.pin);
    inode_put(engine, rename.moved);
    inode_put(engine, rename.victim);
    put_directory(engine, rename.from, &rename.from_directory);
    put_directory(engine, rename.to, &rename.to_directory);
    return result;
}
