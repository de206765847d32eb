/* The kernel side: the FUSE connection, its threads, and the relay of cold requests to pyfuse3. */
#ifndef LOCKSTEP_FILTER_H
#define LOCKSTEP_FILTER_H

#include <linux/fuse.h>

#include "op.h"

/* One open file of the kernel. */
struct file {
    struct list item; /* connection->lock */
    struct inode *inode;
    int fd;
    bool direct; /* FOPEN_DIRECT_IO: the kernel sends no FSYNC after an O_SYNC write */
};

static inline int file_fd(const struct file *file) { return file->fd; }

struct connection {
    rfs_engine *engine;
    int fd;           /* /dev/fuse */
    int mount_fd;     /* the detached mount; the directories' mounts keep the superblock */
    uint32_t minor;
    bool extended_setxattr;
    pthread_t threads[4];
    uint32_t running;
    atomic_uint alive;
    atomic_bool closing;
    pthread_mutex_t lock; /* files, open_files */
    struct list files;
    uint64_t open_files;
};

struct request {
    const struct fuse_in_header *header;
    const uint8_t *body;
    size_t body_bytes;
    uint8_t *buffer;      /* the whole message */
    bool taken;           /* an op keeps it: the thread takes another one */
    size_t message_bytes;
};

uint64_t kernel_open_files(rfs_engine *engine);
/* [any thread] answer a request; a failing write means that the kernel gave up on it. */
void reply(struct connection *connection, uint64_t unique, int error, const void *data, size_t bytes);
void reply_entry(struct connection *connection, uint64_t unique, struct inode *inode, const struct stat *stat);
void fill_entry(const struct inode *inode, const struct stat *stat, struct fuse_entry_out *out);
void fill_attr(uint64_t fid, const struct stat *stat, struct fuse_attr *out);
struct file *file_new(struct connection *connection, struct inode *inode, int fd, bool direct);
void file_close(struct connection *connection, struct file *file);

/* read_side.c: requests that change nothing */
void serve_lookup(struct connection *connection, const struct request *request);
void serve_getattr(struct connection *connection, const struct request *request);
uint32_t open_policy(uint32_t flags); /* FOPEN_* of open flags */
void serve_open(struct connection *connection, const struct request *request);
void serve_read(struct connection *connection, const struct request *request);
void serve_readdir(struct connection *connection, const struct request *request, bool plus);
void serve_getxattr(struct connection *connection, const struct request *request);
void serve_lseek(struct connection *connection, const struct request *request);
/* filter.c: a read that waited for the lease; frees the op. */
void serve_parked_read(rfs_engine *engine, struct op *op);

/* change_side.c: a request that changes something, as an op. NULL: it was answered already. */
struct op *op_from_request(struct connection *connection, struct request *request, int *error);

/* relay.c */
void relay_request(struct connection *connection, const struct request *request);
void relay_close(rfs_engine *engine);
#endif
