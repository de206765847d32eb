/* What rfsmount may ask of the kernel: few of root's rights, and of the system calls all but those that a file server never needs.
 *
 * Two rings. The process (rfs_keep_capabilities, rfs_filter_calls) keeps what mounts, serves and scans need over its whole life. The
 * threads that read the peer's bytes and apply them (link.c, and the lanes of applier.c, which are started by one of them) go further
 * down by themselves when they start: they never mount, never open or connect a socket, signal nobody and look into no other process.
 * CAP_SYS_ADMIN stays with them, because `trusted.*` attributes need it; what else it would open is closed by the second filter.
 *
 * The filters name what is refused and let the rest pass. A list of what is allowed would be shorter, but the next release of the C
 * library may ask for a call that is not on it, and what is refused here in an apply is a failover. A refused call gets EPERM and stands
 * in the kernel's log (`audit: type=1326`); clone3 gets ENOSYS, quietly, because its flags cannot be seen, and the C library takes clone
 * instead. Whoever injects faults from outside (strace) makes call -1 of what it fails: that is nobody's, and passes.
 *
 * Landlock was tried for the second ring and left out (docs/decisions/0037): it refuses to link a file that was opened by its handle. */
#include "privileges.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "rfs_engine.h"

#define BIT(capability) (UINT64_C(1) << (capability))

/* Any object of the tree is made, changed and owned for somebody else; trusted.* and security.capability are set; a quota or a locked
 * memory is no reason to fail where the primary did not. */
static const uint64_t LINK_CAPABILITIES = BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_FOWNER) |
                                          BIT(CAP_FSETID) | BIT(CAP_SETFCAP) | BIT(CAP_MKNOD) | BIT(CAP_SYS_ADMIN) |
                                          BIT(CAP_SYS_RESOURCE) | BIT(CAP_IPC_LOCK);

/* ---- capabilities --------------------------------------------------------------------------------------------------------- */

/* Of the calling thread: permitted and effective are what it has of these, nothing is inheritable. */
static int set_capabilities(uint64_t keep) {
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &head, data) < 0) return -errno;
    for (int i = 0; i < 2; i++) {
        data[i].permitted &= (uint32_t)(keep >> (32 * i));
        data[i].effective = data[i].permitted;
        data[i].inheritable = 0;
    }
    return syscall(SYS_capset, &head, data) < 0 ? -errno : 0;
}

int rfs_keep_capabilities(uint64_t keep) {
    int result = 0;
    for (unsigned long number = 0; number < 64; number++) {
        int has = prctl(PR_CAPBSET_READ, number, 0, 0, 0);
        if (has < 0) break; /* the kernel knows no more of them */
        if (has && !(keep & BIT(number)) && prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0) result = -errno;
    }
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL) result = -errno;
    int set = set_capabilities(keep);
    return set < 0 ? set : result;
}

/* ---- system calls --------------------------------------------------------------------------------------------------------- */

#if defined __x86_64__
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifdef ARCHITECTURE

/* Of nobody here: programs, other processes, the kernel itself, its newer and wider doors. */
static const int NEVER[] = {
    SYS_execve, SYS_execveat, SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_pidfd_getfd, SYS_process_madvise,
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load, SYS_reboot, SYS_swapon, SYS_swapoff,
    SYS_syslog, SYS_acct, SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register,
    SYS_fanotify_init, SYS_keyctl, SYS_add_key, SYS_request_key, SYS_unshare, SYS_setns, SYS_chroot, SYS_pivot_root, SYS_mount,
    SYS_fspick, SYS_quotactl, SYS_personality, SYS_settimeofday, SYS_clock_settime, SYS_clock_adjtime, SYS_adjtimex, SYS_sethostname,
    SYS_setdomainname, SYS_vhangup,
#ifdef __x86_64__
    SYS_fork, SYS_vfork, SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_uselib, SYS_ustat,
#endif
};

/* Nor of the threads that read the peer's bytes. */
static const int NOT_BY_THE_LINK[] = {
    SYS_open_tree, SYS_move_mount, SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_mount_setattr, SYS_umount2,
    SYS_socket, SYS_socketpair, SYS_bind, SYS_connect, SYS_listen, SYS_accept, SYS_accept4,
    SYS_kill, SYS_tkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_pidfd_open, SYS_pidfd_send_signal,
    SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setgroups, SYS_setfsuid, SYS_setfsgid,
    SYS_chdir, SYS_fchdir, SYS_capset,
};

static const int FAMILIES[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK}; /* the last: the C library asks which addresses there are */

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define NEW_NAMESPACES (CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

enum { NUMBER = offsetof(struct seccomp_data, nr), ARCH = offsetof(struct seccomp_data, arch) };
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the lower half of an argument is taken for its first four bytes"
#endif
enum { FIRST_ARGUMENT = offsetof(struct seccomp_data, args) };

enum { STEPS_MAX = 256, STEPS_BESIDES = 48 /* what is no list */ };
struct program {
    struct sock_filter steps[STEPS_MAX];
    unsigned short count;
};
_Static_assert(2 * (COUNT(NEVER) + COUNT(NOT_BY_THE_LINK)) + STEPS_BESIDES <= STEPS_MAX, "a filter has room for its lists");

static void add(struct program *program, uint16_t code, uint32_t value, uint8_t yes, uint8_t no) {
    program->steps[program->count++] = (struct sock_filter){code, yes, no, value};
}

static void load(struct program *program, uint32_t offset) { add(program, BPF_LD | BPF_W | BPF_ABS, offset, 0, 0); }
static void answer(struct program *program, uint32_t value) { add(program, BPF_RET | BPF_K, value, 0, 0); }
static void refuse(struct program *program) { answer(program, SECCOMP_RET_ERRNO | EPERM); }

static void refuse_call(struct program *program, int call) {
    add(program, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 1);
    refuse(program);
}

/* Threads, no processes and no namespaces. */
static void judge_clone(struct program *program) {
    add(program, BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 6);
    load(program, FIRST_ARGUMENT);
    add(program, BPF_JMP | BPF_JSET | BPF_K, NEW_NAMESPACES, 0, 1);
    refuse(program);
    add(program, BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0);
    refuse(program);
    answer(program, SECCOMP_RET_ALLOW);
}

/* Only our own calls, by their own numbers: another architecture's, and x32's, mean something else. */
static void begin(struct program *program) {
    load(program, ARCH);
    add(program, BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
    refuse(program);
    load(program, NUMBER);
    add(program, BPF_JMP | BPF_JEQ | BPF_K, UINT32_MAX, 0, 1);
    answer(program, SECCOMP_RET_ALLOW);
#ifdef __x86_64__
    add(program, BPF_JMP | BPF_JGE | BPF_K, UINT32_C(0x40000000), 0, 1);
    refuse(program);
#endif
}

/* What both rings refuse. */
static void refuse_always(struct program *program) {
    for (size_t i = 0; i < COUNT(NEVER); i++) refuse_call(program, NEVER[i]);
    judge_clone(program);
}

static void judge_family(struct program *program, int call) {
    add(program, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, (uint8_t)(2 * COUNT(FAMILIES) + 2));
    load(program, FIRST_ARGUMENT);
    for (size_t i = 0; i < COUNT(FAMILIES); i++) {
        add(program, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)FAMILIES[i], 0, 1);
        answer(program, SECCOMP_RET_ALLOW);
    }
    refuse(program);
}

static int install(struct program *program, unsigned flags) {
    struct sock_fprog filter = {.len = program->count, .filter = program->steps};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -errno;
    /* Without SPEC_ALLOW an older kernel slows the whole thread down, against attacks by programs that are not ours to run. */
    long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags | SECCOMP_FILTER_FLAG_SPEC_ALLOW, &filter);
    return result < 0 ? -errno : result > 0 ? -EBUSY : 0; /* > 0: a thread that has another filter */
}

/* A filter of its own, which says nothing in the kernel's log: every new thread comes by here. */
static int hide_clone3(void) {
    struct program program = {.count = 0};
    begin(&program);
    add(&program, BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1);
    answer(&program, SECCOMP_RET_ERRNO | ENOSYS);
    answer(&program, SECCOMP_RET_ALLOW);
    return install(&program, SECCOMP_FILTER_FLAG_TSYNC);
}

int rfs_filter_calls(void) {
    struct program program = {.count = 0};
    int hidden = hide_clone3();
    if (hidden < 0) return hidden;
    begin(&program);
    refuse_always(&program);
    judge_family(&program, SYS_socket);
    judge_family(&program, SYS_socketpair);
    answer(&program, SECCOMP_RET_ALLOW);
    return install(&program, SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG);
}

static int filter_calls_of_the_link(void) {
    struct program program = {.count = 0};
    begin(&program);
    refuse_always(&program);
    for (size_t i = 0; i < COUNT(NOT_BY_THE_LINK); i++) refuse_call(&program, NOT_BY_THE_LINK[i]);
    answer(&program, SECCOMP_RET_ALLOW);
    return install(&program, SECCOMP_FILTER_FLAG_LOG);
}

#else

int rfs_filter_calls(void) { return -EOPNOTSUPP; }
static int filter_calls_of_the_link(void) { return -EOPNOTSUPP; }

#endif

/* ---- both ------------------------------------------------------------------------------------------------------------------- */

void privileges_of_the_link(void) {
    /* What the system refuses here it has refused to the process, where it was said. */
    (void)set_capabilities(LINK_CAPABILITIES);
    (void)filter_calls_of_the_link();
}

int rfs_keep_secrets(void) {
    const struct rlimit none = {0, 0};
    int result = setrlimit(RLIMIT_CORE, &none) < 0 ? -errno : 0;
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ? -errno : result; /* a program that takes cores through a pipe asks for no limit */
}
