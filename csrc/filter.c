/* The FUSE connection: who answers which request (DESIGN: "the filter").
 *
 * A few threads read one description of /dev/fuse. What only reads is answered at once; what changes something becomes an
 * op and is answered by whoever brings its verdict; what is rare goes to pyfuse3 over the relay. No thread ever waits for
 * the network. The virtual root (one entry per replicated directory, never seen by applications, because each subtree is
 * moved over its directory) is answered here: walking it must not need Python, which may be the one who is walking. */
#include "filter.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "request.h"

#define WAKE_SIGNAL (SIGRTMIN + 5) /* interrupts the read of a thread that is to end */

enum { THREADS = 4, MAX_BACKGROUND = 256, CONGESTION = 192 };

/* ---- constant replies ----------------------------------------------------------------------------------------------------------- */

static void serve_init(struct connection *connection, const struct request *request) {
    const struct fuse_init_in *in = (const void *)request->body;
    struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION};
    if (in->major != FUSE_KERNEL_VERSION || in->minor < 31) {
        reply(connection, request->header->unique, -EPROTO, NULL, 0);
        return;
    }
    /* Never WRITEBACK_CACHE: it acknowledges before we see the write. Never locks: the kernel keeps them local. */
    const uint32_t wanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |
                            FUSE_HANDLE_KILLPRIV_V2 | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_EXPLICIT_INVAL_DATA | FUSE_ABORT_ERROR |
                            FUSE_POSIX_ACL | FUSE_DONT_MASK | FUSE_SETXATTR_EXT; /* ACLs: the kernel enforces, the umask is ours to apply */
    connection->minor = in->minor;
    out.flags = in->flags & wanted;
    connection->extended_setxattr = out.flags & FUSE_SETXATTR_EXT;
    out.max_readahead = in->max_readahead;
    out.max_background = MAX_BACKGROUND;
    out.congestion_threshold = CONGESTION;
    out.max_write = MAX_WRITE_BYTES;
    out.max_pages = MAX_WRITE_BYTES / 4096;
    out.time_gran = 1;
    reply(connection, request->header->unique, 0, &out, sizeof out);
}

static void serve_forget(struct connection *connection, const struct request *request) {
    const struct fuse_forget_in *one = (const void *)request->body;
    if (request->header->opcode == FUSE_FORGET) {
        inode_forget(connection->engine, request->header->nodeid, one->nlookup);
        return;
    }
    const struct fuse_batch_forget_in *batch = (const void *)request->body;
    const struct fuse_forget_one *items = (const void *)(batch + 1);
    for (uint32_t i = 0; i < batch->count; i++) inode_forget(connection->engine, items[i].nodeid, items[i].nlookup);
}

static void serve_release(struct connection *connection, const struct request *request) {
    const struct fuse_release_in *in = (const void *)request->body;
    file_close(connection, (struct file *)(uintptr_t)in->fh);
    reply(connection, request->header->unique, 0, NULL, 0);
}

/* ---- dispatch ------------------------------------------------------------------------------------------------------------------- */

static void serve_change(struct connection *connection, struct request *request) {
    int error = -EIO;
    struct op *op = op_from_request(connection, request, &error);
    if (op) mirror_submit(connection->engine, op);
    else if (error) reply(connection, request->header->unique, error, NULL, 0);
}

/* Requests whose answer is data: the lease covers them. False: it is none of them. */
static bool serve_data(struct connection *connection, const struct request *request) {
    switch (request->header->opcode) {
    case FUSE_LOOKUP: serve_lookup(connection, request); return true;
    case FUSE_GETATTR: serve_getattr(connection, request); return true;
    case FUSE_READ: serve_read(connection, request); return true;
    case FUSE_READDIR: serve_readdir(connection, request, false); return true;
    case FUSE_READDIRPLUS: serve_readdir(connection, request, true); return true;
    case FUSE_GETXATTR: serve_getxattr(connection, request); return true;
    case FUSE_LSEEK: serve_lseek(connection, request); return true;
    default: return false;
    }
}

static bool is_data(uint32_t opcode) {
    return opcode == FUSE_LOOKUP || opcode == FUSE_GETATTR || opcode == FUSE_READ || opcode == FUSE_READDIR || opcode == FUSE_READDIRPLUS ||
           opcode == FUSE_GETXATTR || opcode == FUSE_LSEEK;
}

/* A primary that has not heard from its peer for a while may have been replaced: until that is known its reads wait too. */
static void park_read(struct connection *connection, const struct request *request) {
    struct op *op = op_new(FRAME_READ);
    if (op) op->data = malloc(request->message_bytes);
    if (!op || !op->data) {
        free(op);
        reply(connection, request->header->unique, -ENOMEM, NULL, 0);
        return;
    }
    memcpy(op->data, request->buffer, request->message_bytes);
    op->body.data_bytes = (uint32_t)request->message_bytes;
    op->unique = request->header->unique;
    op->opcode = request->header->opcode;
    mirror_park(connection->engine, op);
}

static struct request request_in(uint8_t *message, size_t bytes) {
    return (struct request){.header = (const void *)message, .body = message + sizeof(struct fuse_in_header),
                            .body_bytes = bytes - sizeof(struct fuse_in_header), .buffer = message, .message_bytes = bytes};
}

void serve_parked_read(rfs_engine *engine, struct op *op) {
    struct request request = request_in(op->data, op->body.data_bytes);
    serve_data(engine->connection, &request);
    op_free(engine, op);
}

static void serve(struct connection *connection, struct request *request) {
    uint64_t unique = request->header->unique;
    if (!request_is_whole(request->header->opcode, connection->extended_setxattr, request->body, request->body_bytes)) {
        if (request_has_answer(request->header->opcode)) reply(connection, unique, -EIO, NULL, 0);
        return;
    }
    bool own = request->header->nodeid == ROOT_NODE; /* the virtual root holds no data, and our own mounting walks it */
    if (!own && is_data(request->header->opcode) && !mirror_may_read(connection->engine)) {
        park_read(connection, request);
        return;
    }
    if (serve_data(connection, request)) return;
    switch (request->header->opcode) {
    case FUSE_INIT: serve_init(connection, request); break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET: serve_forget(connection, request); break;
    case FUSE_OPEN: serve_open(connection, request); break;
    case FUSE_RELEASE: serve_release(connection, request); break;
    case FUSE_WRITE:
    case FUSE_CREATE:
    case FUSE_MKDIR:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_SETATTR:
    case FUSE_SETXATTR:
    case FUSE_REMOVEXATTR:
    case FUSE_FALLOCATE:
    case FUSE_COPY_FILE_RANGE:
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR: serve_change(connection, request); break;
    case FUSE_SYMLINK:
    case FUSE_READLINK:
    case FUSE_LINK:
    case FUSE_MKNOD:
    case FUSE_LISTXATTR:
    case FUSE_STATFS: relay_request(connection, request); break;
    case FUSE_IOCTL: reply(connection, unique, -ENOTTY, NULL, 0); break;
    case FUSE_DESTROY: reply(connection, unique, 0, NULL, 0); break;
    case FUSE_INTERRUPT: reply(connection, unique, -ENOSYS, NULL, 0); break; /* waits become killable only, as on a disk */
    default: reply(connection, unique, -ENOSYS, NULL, 0); /* FLUSH, OPENDIR, COPY_FILE_RANGE, POLL, STATX, TMPFILE: the kernel does without */
    }
}

static void *run(void *argument) {
    struct connection *connection = argument;
    uint8_t *buffer = message_get(connection->engine);
    sigset_t all;
    sigfillset(&all);
    sigdelset(&all, WAKE_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    while (buffer && !atomic_load(&connection->closing)) {
        ssize_t bytes = read(connection->fd, buffer, MESSAGE_BYTES);
        if (bytes < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT)) continue;
        if (bytes < (ssize_t)sizeof(struct fuse_in_header)) break; /* ENODEV: unmounted; ECONNABORTED: aborted */
        struct request request = request_in(buffer, (size_t)bytes);
        if (request.header->len != (uint32_t)bytes) break;
        serve(connection, &request);
        if (request.taken) buffer = message_get(connection->engine);
    }
    free(buffer);
    if (atomic_fetch_sub(&connection->alive, 1) == 1 && !atomic_load(&connection->closing))
        emit(connection->engine, RFS_EVENT_KERNEL_GONE, 0, 0, "the kernel connection ended");
    return NULL;
}

/* ---- open files --------------------------------------------------------------------------------------------------------------- */

struct file *file_new(struct connection *connection, struct inode *inode, int fd, bool direct) {
    struct file *file = calloc(1, sizeof *file);
    if (!file) {
        close(fd);
        return NULL;
    }
    file->inode = inode_get(connection->engine, inode->fid);
    file->fd = fd;
    file->direct = direct;
    pthread_mutex_lock(&connection->lock);
    list_append(&connection->files, &file->item);
    connection->open_files++;
    pthread_mutex_unlock(&connection->lock);
    return file;
}

void file_close(struct connection *connection, struct file *file) {
    pthread_mutex_lock(&connection->lock);
    list_remove(&file->item);
    connection->open_files--;
    pthread_mutex_unlock(&connection->lock);
    if (file->inode->orphan) close_orphan(connection->engine, file->fd);
    else close(file->fd);
    inode_put(connection->engine, file->inode);
    free(file);
}

uint64_t kernel_open_files(rfs_engine *engine) {
    uint64_t count = 0;
    pthread_mutex_lock(&engine->connection_lock);
    if (engine->connection) {
        pthread_mutex_lock(&engine->connection->lock);
        count = engine->connection->open_files;
        pthread_mutex_unlock(&engine->connection->lock);
    }
    pthread_mutex_unlock(&engine->connection_lock);
    return count;
}

/* ---- life ------------------------------------------------------------------------------------------------------------------------ */

static int fuse_mount(int fuse_fd, int policy) {
    const unsigned attributes = (policy & RFS_REFUSE_DEVICES ? MOUNT_ATTR_NODEV : 0U) | (policy & RFS_REFUSE_SETUID ? MOUNT_ATTR_NOSUID : 0U);
    char option[16];
    snprintf(option, sizeof option, "%d", fuse_fd);
    int context = (int)syscall(SYS_fsopen, "fuse", FSOPEN_CLOEXEC), mount_fd = -1;
    if (context < 0) return -errno;
    const char *const values[][2] = {{"source", "lockstep"}, {"subtype", "lockstep"}, {"fd", option}, {"rootmode", "40000"}, {"user_id", "0"}, {"group_id", "0"}};
    int result = 0;
    for (size_t i = 0; result == 0 && i < sizeof values / sizeof values[0]; i++)
        if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, values[i][0], values[i][1], 0) < 0) result = -errno;
    const char *const flags[] = {"allow_other", "default_permissions"};
    for (size_t i = 0; result == 0 && i < sizeof flags / sizeof flags[0]; i++)
        if (syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, flags[i], NULL, 0) < 0) result = -errno;
    if (result == 0 && syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) result = -errno;
    if (result == 0) mount_fd = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes);
    if (result == 0 && mount_fd < 0) result = -errno;
    close(context);
    return result < 0 ? result : mount_fd;
}

static int start_threads(struct connection *connection) {
    while (connection->running < THREADS) {
        atomic_fetch_add(&connection->alive, 1);
        int result = -pthread_create(&connection->threads[connection->running], NULL, run, connection);
        if (result < 0) return result;
        connection->running++;
    }
    return 0;
}

int rfs_kernel_open(rfs_engine *engine) {
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection) return -ENOMEM;
    connection->engine = engine;
    connection->mount_fd = -1;
    pthread_mutex_init(&connection->lock, NULL);
    list_init(&connection->files);
    connection->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    int result = connection->fd < 0 ? -errno : messages_prepare(engine);
    if (result == 0) result = fuse_mount(connection->fd, engine->policy);
    pthread_mutex_lock(&engine->connection_lock);
    if (result >= 0 && engine->connection) result = -EBUSY;
    if (result >= 0) engine->connection = connection;
    pthread_mutex_unlock(&engine->connection_lock);
    if (result >= 0) {
        connection->mount_fd = result;
        int started = start_threads(connection);
        if (started == 0) return fcntl(connection->mount_fd, F_DUPFD_CLOEXEC, 3);
        rfs_kernel_close(engine);
        return started;
    }
    if (connection->fd >= 0) close(connection->fd);
    free(connection);
    return result;
}

int rfs_kernel_attach(rfs_engine *engine, int mount_fd, uint32_t index, const char *path) {
    char name[16];
    if (index >= engine->directories) return -EINVAL;
    snprintf(name, sizeof name, "%u", index);
    int tree = (int)syscall(SYS_open_tree, mount_fd, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0) return -errno;
    int result = syscall(SYS_move_mount, tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS) < 0 ? -errno : 0;
    close(tree);
    return result;
}

static void wake(int signal) { (void)signal; }

static void join_threads(struct connection *connection) {
    struct sigaction action = {.sa_handler = wake};
    sigaction(WAKE_SIGNAL, &action, NULL);
    while (connection->running) {
        pthread_t thread = connection->threads[connection->running - 1];
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until = to_timespec(until.tv_sec * NS_PER_S + until.tv_nsec + NS_PER_S / 100);
        pthread_kill(thread, WAKE_SIGNAL); /* again and again: it may be between its check and its read */
        if (pthread_timedjoin_np(thread, NULL, &until) == 0) connection->running--;
    }
}

/* Closing the last descriptor of the device aborts what is left of the connection: open files of applications answer
 * ENOTCONN from then on. */
int rfs_kernel_close(rfs_engine *engine) {
    pthread_mutex_lock(&engine->connection_lock);
    struct connection *connection = engine->connection;
    pthread_mutex_unlock(&engine->connection_lock);
    if (!connection) return 0;
    pthread_rwlock_wrlock(&engine->state);
    engine->mode = RFS_FENCED;
    mirror_fail_waiting(engine, -EIO);
    pthread_rwlock_unlock(&engine->state);
    atomic_store(&connection->closing, true);
    close(connection->mount_fd);
    join_threads(connection);
    mirror_quiesce(engine);
    relay_close(engine);
    pthread_mutex_lock(&engine->connection_lock);
    engine->connection = NULL;
    pthread_mutex_unlock(&engine->connection_lock);
    while (!list_empty(&connection->files)) file_close(connection, ITEM(connection->files.next, struct file, item));
    close(connection->fd);
    inodes_forget_kernel(engine);
    pthread_mutex_destroy(&connection->lock);
    free(connection);
    pthread_rwlock_wrlock(&engine->state);
    engine->mode = RFS_IDLE;
    engine->demoting = false;
    pthread_rwlock_unlock(&engine->state);
    return 0;
}
