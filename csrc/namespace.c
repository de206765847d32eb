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

#include "op.h"
#include "walk.h"

static int get_directory(rfs_engine *engine, uint64_t fid, struct inode **inode, struct descriptor *descriptor) {
    *descriptor = (struct descriptor){-1, -1};
    *inode = inode_get(engine, fid);
    if (!*inode) return -ESTALE;
    if (!S_ISDIR((*inode)->type)) return -ENOTDIR;
    if ((*inode)->orphan) return -ENOENT;
    return descriptor_get(engine, *inode, descriptor);
}

static void put_directory(rfs_engine *engine, struct inode *inode, struct descriptor *descriptor) {
    descriptor_put(engine, descriptor);
    inode_put(engine, inode);
}

static int parent_time(int fd, int64_t *mtime_ns, bool replay) {
    struct stat stat;
    if (replay) return set_mtime(fd, *mtime_ns);
    if (fstat(fd, &stat) < 0) return -errno;
    *mtime_ns = stat_mtime_ns(&stat);
    return 0;
}

static bool hidden(const rfs_engine *engine, uint64_t parent, const char *name) {
    return parent >= FIRST_DIRECTORY_FID && parent < FIRST_DIRECTORY_FID + engine->directories && !strcmp(name, HOLDING_NAME);
}

/* ---- making ----------------------------------------------------------------------------------------------------------- */

static int make_object(int directory_fd, const struct op *op) {
    const struct op_body *body = &op->body;
    char target[RFS_TARGET_BYTES + 1];
    int fd = -1;
    switch (op->type) {
    case FRAME_MKDIR:
        if (mkdirat(directory_fd, body->name, body->mode & 07777) < 0) return -errno;
        break;
    case FRAME_MKNOD:
        if (mknodat(directory_fd, body->name, body->mode, body->rdev) < 0) return -errno;
        break;
    case FRAME_SYMLINK:
        memcpy(target, op->data, body->data_bytes);
        target[body->data_bytes] = 0;
        if (symlinkat(target, directory_fd, body->name) < 0) return -errno;
        break;
    default:
        fd = openat(directory_fd, body->name, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC, body->mode & 07777);
        if (fd < 0) return -errno;
        close(fd);
    }
    fd = openat(directory_fd, body->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* Where the directory has a default ACL it takes the umask's place, here as in the kernel. */
static bool has_default_acl(int directory_fd) { return fgetxattr(directory_fd, "system.posix_acl_default", NULL, 0) >= 0; }

/* The owner first: chown takes suid and sgid away. A new object in a setgid directory keeps the directory's group. */
static int dress(int directory_fd, int path_fd, struct op *op, struct stat *stat, bool replay, bool inherits) {
    struct op_body *body = &op->body;
    struct stat parent;
    uint32_t gid = body->gid, wanted = body->mode & 07777;
    if (fstat(path_fd, stat) < 0 || fstat(directory_fd, &parent) < 0) return -errno;
    if (!replay && parent.st_mode & S_ISGID) {
        gid = parent.st_gid;
        if (S_ISDIR(stat->st_mode)) wanted |= S_ISGID;
    }
    if ((stat->st_uid != body->uid || stat->st_gid != gid) && fchownat(path_fd, "", body->uid, gid, AT_EMPTY_PATH) < 0) return -errno;
    if (fstat(path_fd, stat) < 0) return -errno;
    uint32_t enforced = inherits ? 07000 : 07777; /* a default ACL may have narrowed the rest: that stands; our own umask may not */
    if (!S_ISLNK(stat->st_mode) && ((stat->st_mode ^ wanted) & enforced) &&
        chmod(proc_path(path_fd).text, (stat->st_mode & 07777 & ~enforced) | (wanted & enforced)) < 0)
        return -errno;
    if (replay) {
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, to_timespec(body->child_mtime_ns)};
        if (utimensat(AT_FDCWD, proc_path(path_fd).text, times, 0) < 0) return -errno;
    }
    return 0;
}

int local_make(rfs_engine *engine, struct op *op, bool replay) {
    struct op_body *body = &op->body;
    struct inode *parent;
    struct descriptor directory;
    int path_fd = -1, result = get_directory(engine, body->fid, &parent, &directory);
    if (result < 0) goto out;
    result = -EPERM;
    if (hidden(engine, body->fid, body->name)) goto out;
    bool inherits = !replay && has_default_acl(directory.fd);
    if (!replay && !inherits) body->mode &= ~op->umask;
    result = path_fd = make_object(directory.fd, op);
    if (result < 0) goto out;
    result = dress(directory.fd, path_fd, op, &op->stat, replay, inherits);
    if (result < 0) goto undo;
    if (!replay) body->child = new_fid(engine);
    result = inode_adopt(engine, parent->directory, path_fd, &op->stat, body->child, &op->inode);
    if (result < 0) goto undo;
    if (replay && op->type == FRAME_MKDIR) resync_change(engine, op->inode, ENTRIES_CLEAN, 0);
    if (!replay) {
        body->mode = op->stat.st_mode;
        body->uid = op->stat.st_uid;
        body->gid = op->stat.st_gid;
        body->child_mtime_ns = stat_mtime_ns(&op->stat);
    }
    result = parent_time(directory.fd, &body->mtime_ns, replay);
    goto out;
undo:
    unlinkat(directory.fd, body->name, op->type == FRAME_MKDIR ? AT_REMOVEDIR : 0);
out:
    if (path_fd >= 0) close(path_fd);
    put_directory(engine, parent, &directory);
    return result;
}

int local_link(rfs_engine *engine, struct op *op, bool replay) {
    struct op_body *body = &op->body;
    struct inode *parent = NULL, *inode = inode_get(engine, body->other);
    struct descriptor directory = {-1, -1};
    int path_fd = -1, result = -ESTALE;
    if (!inode) goto out;
    result = get_directory(engine, body->fid, &parent, &directory);
    if (result < 0) goto out;
    result = hidden(engine, body->fid, body->name) ? -EPERM : inode->orphan ? -ENOENT : inode->directory != parent->directory ? -EXDEV : 0;
    if (result < 0) goto out;
    result = path_fd = inode_open(engine, inode, O_PATH | O_NOFOLLOW);
    if (result < 0) goto out;
    if (linkat(path_fd, "", directory.fd, body->name, AT_EMPTY_PATH) < 0 || fstat(path_fd, &op->stat) < 0) {
        result = -errno;
        goto out;
    }
    op->inode = inode;
    inode = NULL;
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
static int open_pin(rfs_engine *engine, struct inode *inode, bool last, bool replay) {
    int pin = last && !replay ? inode_open(engine, inode, O_PATH | O_NOFOLLOW) : -1;
    return pin < 0 ? -1 : pin;
}

static bool is_unlisted(const rfs_engine *engine, struct inode *inode) {
    return S_ISDIR(inode->type) && !(resync_flags(engine, inode) & ENTRIES_CLEAN);
}

static bool last_name(const struct inode *inode, const struct stat *stat) { return S_ISDIR(inode->type) || stat->st_nlink <= 1; }

int local_remove(rfs_engine *engine, struct op *op, bool replay) {
    struct op_body *body = &op->body;
    struct inode *parent, *victim = NULL;
    struct descriptor directory;
    pthread_mutex_t *stripe = NULL;
    struct stat stat;
    int result = get_directory(engine, body->fid, &parent, &directory);
    if (result < 0) goto out;
    result = hidden(engine, body->fid, body->name) ? -ENOENT : inode_at(engine, parent->directory, directory.fd, body->name, &victim, &stat);
    if (result < 0) goto out;
    result = expect(victim, body->child, replay);
    if (result < 0) goto out;
    stripe = inode_stripe(engine, victim->fid);
    pthread_mutex_lock(stripe);
    bool last = last_name(victim, &stat);
    if (replay && last && !(op->frame.header.flags & FLAG_LAST_NAME)) { /* it has another name there that is not here yet */
        result = hold(engine, victim->directory, victim->fid, directory.fd, body->name);
    } else {
        int pin = open_pin(engine, victim, last, replay);
        if (unlinkat(directory.fd, body->name, op->type == FRAME_RMDIR ? AT_REMOVEDIR : 0) < 0) {
            result = -errno;
            if (pin >= 0) close(pin);
        } else if (last) {
            inode_drop(engine, victim, pin);
        }
    }
    if (result < 0) goto out;
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
    pthread_mutex_t *stripe;
};

static int find_both(rfs_engine *engine, struct rename *rename, const struct op_body *body, bool replay) {
    int result = get_directory(engine, body->fid, &rename->from, &rename->from_directory);
    if (result < 0) return result;
    result = get_directory(engine, body->other, &rename->to, &rename->to_directory);
    if (result < 0) return result;
    if (hidden(engine, body->fid, body->name) || hidden(engine, body->other, body->name2)) return -EPERM;
    if (rename->from->directory != rename->to->directory) return -EXDEV;
    result = inode_at(engine, rename->from->directory, rename->from_directory.fd, body->name, &rename->moved, &rename->moved_stat);
    if (result < 0) return result;
    result = expect(rename->moved, body->child, replay);
    if (result < 0) return result;
    result = inode_at(engine, rename->to->directory, rename->to_directory.fd, body->name2, &rename->victim, &rename->victim_stat);
    return result == -ENOENT ? 0 : result;
}

/* During a resync a directory may lie here below the one that is moved into it: see make_way(). */
static int move(rfs_engine *engine, const struct rename *rename, const struct op_body *body, bool replay) {
    for (int tries = 0;; tries++) {
        if (renameat2(rename->from_directory.fd, body->name, rename->to_directory.fd, body->name2, body->flags) == 0) return 0;
        if (errno != EINVAL || !replay || tries == 2) return -errno;
        bool swaps = body->flags & RENAME_EXCHANGE && rename->victim;
        if (make_way(engine, rename->moved, rename->to) < 0 && (!swaps || make_way(engine, rename->victim, rename->from) < 0)) return -EINVAL;
    }
}

int local_rename(rfs_engine *engine, struct op *op, bool replay) {
    struct op_body *body = &op->body;
    struct rename rename = {.from_directory = {-1, -1}, .to_directory = {-1, -1}, .pin = -1};
    int result = find_both(engine, &rename, body, replay);
    if (result < 0) goto out;
    bool overwrites = rename.victim && rename.victim != rename.moved && !(body->flags & (RENAME_EXCHANGE | RENAME_NOREPLACE));
    bool last = overwrites && last_name(rename.victim, &rename.victim_stat);
    if (overwrites) {
        rename.stripe = inode_stripe(engine, rename.victim->fid);
        pthread_mutex_lock(rename.stripe);
        rename.pin = open_pin(engine, rename.victim, last, replay);
        if (last && replay && !(op->frame.header.flags & FLAG_LAST_NAME)) {
            result = hold(engine, rename.to->directory, rename.victim->fid, rename.to_directory.fd, body->name2);
            if (result < 0) goto out;
            last = false;
        }
    }
    result = move(engine, &rename, body, replay);
    if (result < 0) goto out;
    if (last) {
        inode_drop(engine, rename.victim, rename.pin);
        rename.pin = -1;
        op->frame.header.flags |= FLAG_LAST_NAME;
    }
    body->child = rename.moved->fid;
    op->unlisted = overwrites && is_unlisted(engine, rename.victim);
    result = parent_time(rename.from_directory.fd, &body->mtime_ns, replay);
    if (result == 0) result = parent_time(rename.to_directory.fd, &body->other_mtime_ns, replay);
out:
    if (rename.stripe) pthread_mutex_unlock(rename.stripe);
    if (rename.pin >= 0) close(rename.pin);
    inode_put(engine, rename.moved);
    inode_put(engine, rename.victim);
    put_directory(engine, rename.from, &rename.from_directory);
    put_directory(engine, rename.to, &rename.to_directory);
    return result;
}
