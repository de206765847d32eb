/* Preloaded into rfsmount, to see that the race finds out: whatever looks at a name below a directory, or opens it, follows links. It is the mistake
 * that tools of this kind have made again and again. And the kernel, which would refuse that (mounts.c), is not asked to. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

typedef int opener(int, const char *, int, ...);
typedef int looker(int, const char *, struct stat *, int);
typedef long caller(long, long, long, long, long, long, long);

#define OPENS(name)                                                                                  \
    int name(int directory_fd, const char *path, int flags, ...) {                                   \
        va_list more;                                                                                \
        va_start(more, flags);                                                                       \
        mode_t mode = va_arg(more, mode_t);                                                          \
        va_end(more);                                                                                \
        int follows = directory_fd >= 0 && !(flags & O_CREAT) ? O_NOFOLLOW : 0;                      \
        return ((opener *)dlsym(RTLD_NEXT, #name))(directory_fd, path, flags & ~follows, mode);      \
    }
#define LOOKS(name)                                                                                              \
    int name(int directory_fd, const char *path, struct stat *stat, int flags) {                                 \
        return ((looker *)dlsym(RTLD_NEXT, #name))(directory_fd, path, stat, flags & ~AT_SYMLINK_NOFOLLOW);      \
    }

OPENS(openat)
LOOKS(fstatat)

long syscall(long number, ...) {
    long given[6];
    va_list more;
    va_start(more, number);
    for (int i = 0; i < 6; i++) given[i] = va_arg(more, long);
    va_end(more);
    if (number == SYS_mount_setattr) ((struct mount_attr *)given[3])->attr_set &= ~(uint64_t)MOUNT_ATTR_NOSYMFOLLOW;
    return ((caller *)dlsym(RTLD_NEXT, "syscall"))(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}
