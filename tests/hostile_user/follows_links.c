/* Preloaded into rfsmount, to see that the race finds out: whatever looks at a name below a directory, or opens it, follows links. It is the mistake
 * that tools of this kind have made again and again. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>

typedef int opener(int, const char *, int, ...);
typedef int looker(int, const char *, struct stat *, int);

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
