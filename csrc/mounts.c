/* The layers over a replicated directory: the plain tree, a read-only guard, the FUSE mount. The engine works on a
 * detached clone of the plain tree, which nothing that is laid on top can hide. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "engine.h"

static int set_attributes(int mount_fd, uint64_t set, uint64_t clear) {
    struct mount_attr attributes = {.attr_set = set, .attr_clr = clear, .propagation = MS_PRIVATE};
    return syscall(SYS_mount_setattr, mount_fd, "", AT_EMPTY_PATH, &attributes, sizeof attributes) < 0 ? -errno : 0;
}

/* The engine opens no device and follows no link, whatever has been planted in the tree: here the kernel does not let it. */
static int set_for_engine(int mount_fd) {
    const uint64_t never = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID;
    int result = set_attributes(mount_fd, never | MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY);
    return result == -EINVAL ? set_attributes(mount_fd, never, MOUNT_ATTR_RDONLY) : result; /* Linux before 5.14 */
}

/* People look through it; but nobody becomes another, or reaches a device, by what the peer has put there. */
static int set_for_guard(int mount_fd) { return set_attributes(mount_fd, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0); }

static int clone_tree(int at, const char *path, unsigned flags) {
    int fd = (int)syscall(SYS_open_tree, at, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags);
    return fd < 0 ? -errno : fd;
}

int rfs_tree_open(const char *path) {
    int tree = clone_tree(AT_FDCWD, path, 0);
    if (tree < 0) return tree;
    int result = set_for_engine(tree), root = -1;
    if (result == 0) {
        root = openat(tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* file handles need a real descriptor, not O_PATH */
        if (root < 0) result = -errno;
    }
    close(tree); /* the open directory keeps the clone alive */
    return result < 0 ? result : root;
}

int rfs_tree_probe(int tree_fd, char reason[RFS_REASON_BYTES]) {
    static const char name[] = "trusted.lockstep.probe";
    union {
        struct file_handle head;
        uint8_t room[sizeof(struct file_handle) + MAX_HANDLE_BYTES];
    } handle = {.head = {.handle_bytes = MAX_HANDLE_BYTES}};
    int mount_id, result = 0;
    reason[0] = 0;
    if (name_to_handle_at(tree_fd, "", &handle.head, &mount_id, AT_EMPTY_PATH) < 0) {
        snprintf(reason, RFS_REASON_BYTES, "its file system gives no file handles (%s)", strerror(errno));
        return -EOPNOTSUPP;
    }
    int fd = open_by_handle_at(tree_fd, &handle.head, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        snprintf(reason, RFS_REASON_BYTES, "its file system does not open file handles (%s)", strerror(errno));
        return -EOPNOTSUPP;
    }
    if (fsetxattr(fd, name, "1", 1, 0) < 0 || fremovexattr(fd, name) < 0) {
        snprintf(reason, RFS_REASON_BYTES, "its file system keeps no trusted.* attributes (%s)", strerror(errno));
        result = -EOPNOTSUPP;
    }
    close(fd);
    return result;
}

int rfs_guard(int tree_fd, const char *path) {
    int tree = clone_tree(tree_fd, "", AT_EMPTY_PATH);
    if (tree < 0) return tree;
    int result = set_for_guard(tree);
    if (result == 0 && syscall(SYS_move_mount, tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0) result = -errno;
    close(tree);
    return result;
}

int rfs_detach_mount(const char *path, int abort_connection) {
    if (abort_connection && umount2(path, MNT_FORCE | MNT_DETACH) == 0) return 0;
    return umount2(path, MNT_DETACH) < 0 ? -errno : 0;
}
