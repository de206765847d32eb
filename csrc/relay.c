/* Cold requests go to unmodified pyfuse3 over a SOCK_SEQPACKET pair: libfuse takes "/dev/fd/N" as its device, and one
 * message is one request. It is given an INIT of minor 13 (no splice) once; forgets and interrupts never reach it, and the
 * kernel's references of entries it answers are counted here. Its death is not the mount's: requests it held fail with
 * EIO, and a new socket starts a new session. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "filter.h"

enum { SOCKET_ROOM = 2 << 20, REPLY_BYTES = 1 << 20 };

struct outstanding {
    struct list item;
    uint64_t unique;
    uint32_t opcode;
};

struct relay {
    rfs_engine *engine;
    int fd;
    pthread_t reader;
    pthread_mutex_t lock; /* outstanding */
    struct list outstanding;
    bool dead;
};

static struct outstanding *take(struct relay *relay, uint64_t unique) {
    struct outstanding *found = NULL;
    pthread_mutex_lock(&relay->lock);
    for (struct list *at = relay->outstanding.next; at != &relay->outstanding && !found; at = at->next)
        if (ITEM(at, struct outstanding, item)->unique == unique) found = ITEM(at, struct outstanding, item);
    if (found) list_remove(&found->item);
    pthread_mutex_unlock(&relay->lock);
    return found;
}

static bool makes_entry(uint32_t opcode) { return opcode == FUSE_SYMLINK || opcode == FUSE_LINK || opcode == FUSE_MKNOD || opcode == FUSE_LOOKUP; }

static void forward_reply(struct relay *relay, uint8_t *message, size_t bytes) {
    struct fuse_out_header *header = (void *)message;
    struct outstanding *request = header->unique ? take(relay, header->unique) : NULL;
    struct connection *connection = relay->engine->connection;
    if (!request || !connection) { /* the synthetic INIT's answer, or of a connection that has ended */
        free(request);
        return;
    }
    if (header->error == -ENOSYS) header->error = -EOPNOTSUPP; /* ENOSYS would switch the opcode off for the whole mount */
    if (!header->error && makes_entry(request->opcode) && bytes >= sizeof *header + sizeof(struct fuse_entry_out)) {
        const struct fuse_entry_out *entry = (const void *)(message + sizeof *header);
        struct inode *inode = inode_get(relay->engine, entry->nodeid);
        if (inode) inode_looked_up(relay->engine, inode);
        inode_put(relay->engine, inode);
    }
    reply(connection, header->unique, header->error, message + sizeof *header, bytes - sizeof *header);
    free(request);
}

static void fail_outstanding(struct relay *relay) {
    for (;;) {
        pthread_mutex_lock(&relay->lock);
        struct outstanding *request = list_empty(&relay->outstanding) ? NULL : ITEM(relay->outstanding.next, struct outstanding, item);
        if (request) list_remove(&request->item);
        pthread_mutex_unlock(&relay->lock);
        if (!request) return;
        if (relay->engine->connection) reply(relay->engine->connection, request->unique, -EIO, NULL, 0);
        free(request);
    }
}

static void *run(void *argument) {
    struct relay *relay = argument;
    uint8_t *buffer = malloc(REPLY_BYTES);
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    for (;;) {
        ssize_t bytes = buffer ? recv(relay->fd, buffer, REPLY_BYTES, 0) : -1;
        if (bytes < 0 && errno == EINTR) continue;
        if (bytes < (ssize_t)sizeof(struct fuse_out_header)) break;
        pthread_mutex_lock(&relay->engine->connection_lock); /* the connection may not end under a reply */
        forward_reply(relay, buffer, (size_t)bytes);
        pthread_mutex_unlock(&relay->engine->connection_lock);
    }
    free(buffer);
    pthread_mutex_lock(&relay->lock);
    bool lost = !relay->dead;
    relay->dead = true;
    pthread_mutex_unlock(&relay->lock);
    shutdown(relay->fd, SHUT_RDWR); /* also when it was not pyfuse3 that went: a session that nobody listens to must end, to be started again */
    fail_outstanding(relay);
    if (lost) emit(relay->engine, RFS_EVENT_RELAY_LOST, 0, 0, "pyfuse3 closed its side of the relay");
    return NULL;
}

void relay_request(struct connection *connection, const struct request *request) {
    rfs_engine *engine = connection->engine;
    struct outstanding *outstanding = malloc(sizeof *outstanding);
    int result = outstanding ? -EIO : -ENOMEM;
    atomic_fetch_add(&engine->count.relayed, 1);
    pthread_mutex_lock(&engine->connection_lock);
    struct relay *relay = engine->relay;
    if (outstanding && relay) {
        *outstanding = (struct outstanding){.unique = request->header->unique, .opcode = request->header->opcode};
        pthread_mutex_lock(&relay->lock);
        bool dead = relay->dead;
        if (!dead) list_append(&relay->outstanding, &outstanding->item);
        pthread_mutex_unlock(&relay->lock);
        if (!dead) {
            result = send(relay->fd, request->buffer, request->message_bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
            if (result == -EAGAIN) result = -EIO;
            if (result < 0 && !take(relay, request->header->unique)) outstanding = NULL;
            if (result == 0) outstanding = NULL;
        }
    }
    pthread_mutex_unlock(&engine->connection_lock);
    free(outstanding);
    if (result < 0) reply(connection, request->header->unique, result, NULL, 0);
}

static int send_init(int fd) {
    struct {
        struct fuse_in_header header;
        struct fuse_init_in init;
    } message = {.header = {.len = sizeof message.header + 16, .opcode = FUSE_INIT, .unique = 1},
                 .init = {.major = 7, .minor = 13, .max_readahead = 131072, .flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS}};
    return send(fd, &message, message.header.len, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

void relay_close(rfs_engine *engine) {
    pthread_mutex_lock(&engine->connection_lock);
    struct relay *relay = engine->relay;
    engine->relay = NULL;
    pthread_mutex_unlock(&engine->connection_lock);
    if (!relay) return;
    pthread_mutex_lock(&relay->lock);
    relay->dead = true;
    pthread_mutex_unlock(&relay->lock);
    shutdown(relay->fd, SHUT_RDWR);
    pthread_join(relay->reader, NULL);
    close(relay->fd);
    pthread_mutex_destroy(&relay->lock);
    free(relay);
}

int rfs_relay_open(rfs_engine *engine) {
    int ends[2], room = SOCKET_ROOM, result = 0;
    relay_close(engine);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) return -errno;
    for (int i = 0; i < 2; i++) setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    struct relay *relay = calloc(1, sizeof *relay);
    result = relay ? send_init(ends[0]) : -ENOMEM;
    if (result == 0) {
        relay->engine = engine;
        relay->fd = ends[0];
        list_init(&relay->outstanding);
        pthread_mutex_init(&relay->lock, NULL);
        pthread_mutex_lock(&engine->connection_lock);
        engine->relay = relay;
        pthread_mutex_unlock(&engine->connection_lock);
        result = -pthread_create(&relay->reader, NULL, run, relay);
    }
    if (result == 0) return ends[1];
    engine->relay = NULL;
    free(relay);
    close(ends[0]);
    close(ends[1]);
    return result;
}
