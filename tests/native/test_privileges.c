/* A thread that reads the peer's bytes: what it may do, and what the kernel refuses it. The others of the process keep what they have. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "native.h"
#include "privileges.h"

#define REFUSED(call) \
    do { \
        errno = 0; \
        CHECK_EQUAL(call, -1); \
        CHECK_EQUAL(errno, EPERM); \
    } while (0)

static bool has_capability(int number) {
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    CHECK_EQUAL(syscall(SYS_capget, &head, data), 0);
    return data[number / 32].effective >> (number % 32) & 1;
}

static void *one_more(void *argument) {
    REFUSED(socket(AF_INET, SOCK_STREAM, 0)); /* as the lanes, which the receiver starts */
    return argument;
}

static void *link_thread(void *argument) {
    char *path = argument;
    privileges_of_the_link();
    if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 2) return NULL; /* a kernel without filters: nothing to see, nothing fails */
    CHECK(has_capability(CAP_SYS_ADMIN) && has_capability(CAP_CHOWN));
    CHECK(!has_capability(CAP_SYS_PTRACE) && !has_capability(CAP_NET_ADMIN) && !has_capability(CAP_SYS_MODULE) && !has_capability(CAP_KILL));
    REFUSED(socket(AF_UNIX, SOCK_STREAM, 0));
    REFUSED(kill(getppid(), 0));
    REFUSED(syscall(SYS_pidfd_open, getpid(), 0));
    REFUSED(syscall(SYS_fsopen, "tmpfs", 0));
    REFUSED(syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */));
    REFUSED(umount2(path, MNT_DETACH));
    REFUSED(mount("none", path, "tmpfs", 0, ""));
    REFUSED(chroot(path));
    REFUSED(unshare(CLONE_NEWNS));
    REFUSED(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    REFUSED(execl("/bin/true", "true", NULL));
    REFUSED(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
#ifdef __x86_64__
    REFUSED(syscall(0x40000000 | SYS_getpid)); /* x32 */
#endif

    pthread_t thread; /* in spite of all that */
    CHECK_EQUAL(pthread_create(&thread, NULL, one_more, NULL), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(fd >= 0 && mkdirat(fd, "made", 0700) == 0 && unlinkat(fd, "made", AT_REMOVEDIR) == 0);
    close(fd);
    return NULL;
}

void test_privileges(void) {
    char path[] = "/tmp/lockstep-privileges-XXXXXX";
    CHECK(mkdtemp(path));
    bool before = has_capability(CAP_SYS_PTRACE);
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, link_thread, path), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK_EQUAL(has_capability(CAP_SYS_PTRACE), before);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    close(fd);
    CHECK_EQUAL(rmdir(path), 0);
}
