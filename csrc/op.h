/* One mutation of a replicated directory, from its arrival to its answer; the same shape on both nodes. */
#ifndef LOCKSTEP_OP_H
#define LOCKSTEP_OP_H

#include "engine.h"
#include "wire.h"

enum crossing { STAYS, ARRIVES, LEAVES }; /* of the border between what is local and what is replicated */
enum { HAS_MODE = 1, HAS_UID = 2, HAS_GID = 4, HAS_SIZE = 8, HAS_ATIME = 16, HAS_MTIME = 32, ATIME_NOW = 64, MTIME_NOW = 128 };
enum { CLEARS_MODE = 256 }; /* the bits in `mode` are taken away, whatever the others are by then; never shipped */

struct op {
    struct list item;    /* parked, pending or syncing (mirror.lock) */
    struct frame frame;  /* as it is shipped */
    enum frame_type type;
    struct op_body body; /* what it does; see wire.h */
    uint8_t *data;       /* bytes to write, link target, xattr value */
    uint8_t *message;    /* a large write keeps the kernel's message, and data points into it; else data is owned */
    size_t data_skip;    /* of these bytes, how many are another op's: see apply_in_pieces() */
    bool borrows;        /* data is another op's, which is answered after this one */

    /* its answer */
    int result;
    uint64_t unique;     /* the kernel's request; 0: none */
    uint32_t opcode;     /* of that request */
    uint64_t ticket;     /* Python's; 0: none */
    struct inode *inode; /* entry made or changed: its attributes are in stat */
    struct stat stat;
    struct file *file;   /* open file it belongs to or, for a create, made */
    struct inode *source; /* of a copy */
    uint32_t open_flags; /* of a create */
    int made_fd;         /* of a create: the open file; -1: none, owned */
    uint32_t umask;      /* of the process that makes an object: see local_make() */
    uint32_t reply_bytes;

    /* its verdict (mirror.lock) */
    bool local;          /* a namespace op of which the peer hears nothing */
    enum crossing crossing;
    bool unlisted;       /* it removes a directory whose entries are not equal on the target: see walk_ships() */
    bool shipped, durable, synced_here, synced_there;
    int sync_result;
    int sync_fd;         /* for fsync and O_SYNC writes: the descriptor to sync; -1: none, owned */
    bool data_only;
    uint64_t sent_ns;
    struct job job;

    /* its mark (marker.c) */
    uint64_t marks_whole; /* a file that comes to be replicated: marked as a whole */
    uint32_t page;
    bool counted;
    uint8_t ahead; /* bit i: chunks ahead of its place i are in the batch */
};

struct op *op_new(enum frame_type type);
void op_free(rfs_engine *engine, struct op *op);
bool is_namespace_op(enum frame_type type);
/* An application's, or a kernel's read; else a frame of a walk. */
static inline bool is_asked_for(const struct op *op) { return op->type <= FRAME_LAST_OP || op->type == FRAME_READ; }
/* Fill in the frame of an op that has been applied here. */
int op_encode(rfs_engine *engine, struct op *op);
uint64_t op_weight(const struct op *op); /* bytes that it holds while it waits for the peer */
/* Message buffers, as large as any request of the kernel; a few are kept. */
int messages_prepare(rfs_engine *engine); /* those few, before they are needed */
uint8_t *message_get(rfs_engine *engine);
void message_put(rfs_engine *engine, uint8_t *message);

/* mirror.c: the one choke point. Takes ownership; the answer is given when there is a verdict. */
void mirror_submit(rfs_engine *engine, struct op *op);
bool mirror_may_read(rfs_engine *engine); /* the lease covers reads that reach us */
void mirror_park(rfs_engine *engine, struct op *op);
void mirror_go_on(rfs_engine *engine, struct op *op); /* its marks are durable */
void mirror_link_lost(rfs_engine *engine, struct link *link, int error, const char *text);
int mirror_acknowledged(rfs_engine *engine, uint64_t seq);
int mirror_acknowledged_alone(rfs_engine *engine, uint64_t seq);
int mirror_check_deadlines(rfs_engine *engine, const rfs_session *session, char reason[RFS_REASON_BYTES]);
int mirror_synced(rfs_engine *engine, uint64_t seq);
int mirror_start(rfs_engine *engine);
void mirror_stop(rfs_engine *engine);
/* The walk's frames join the same order, under the locks the caller holds. Returns the seq. */
uint64_t mirror_ship(rfs_engine *engine, struct op *op);
bool mirror_has_credit(rfs_engine *engine); /* no application works, and in flight is at most a quarter more than what is waited for */
/* Wait until little is in flight; false: the walk is to stop. */
bool mirror_wait_credit(rfs_engine *engine, const atomic_bool *stop);
uint64_t mirror_walk_rate(rfs_engine *engine); /* bytes/s; 0: as fast as it can, for no application works */
/* Until the peer has acknowledged all up to seq. False: the walker is to stop, or the pair is none any more. */
bool mirror_wait_acknowledged(rfs_engine *engine, uint64_t seq, const atomic_bool *stop);
bool mirror_lone_ops_answered(rfs_engine *engine);
bool mirror_is_waiting(rfs_engine *engine); /* an op is shipped or syncing, and not answered */
void mirror_wake(rfs_engine *engine);
/* transitions.c; state is held exclusively (or mirror.lock where it says so) */
void mirror_mark_waiting(rfs_engine *engine);            /* the waiting ops become "marked" */
void mirror_fail_waiting(rfs_engine *engine, int error); /* ... or fail */
void mirror_complete_demotion(rfs_engine *engine);       /* mirror.lock */
void mirror_leave_flight(struct mirror *mirror, struct op *op); /* mirror.lock */
void mirror_unlock_and_answer(rfs_engine *engine, struct list *done); /* mirror.lock, which it releases */
void mirror_quiesce(rfs_engine *engine);

/* fuse_reply.c: gives the answer to whoever asked and frees the op. */
void op_answer(rfs_engine *engine, struct op *op);

/* namespace.c, attributes.c, files.c: what an op does to the local tree. With `replay` the op came from the peer: ids,
 * owners, modes and times are given and enforced; otherwise they are found out and put into the op. */
int local_make(rfs_engine *engine, struct op *op, bool replay);   /* CREATE MKDIR MKNOD SYMLINK */
int local_link(rfs_engine *engine, struct op *op, bool replay);
int local_remove(rfs_engine *engine, struct op *op, bool replay); /* UNLINK RMDIR */
int local_rename(rfs_engine *engine, struct op *op, bool replay);
int local_place(rfs_engine *engine, struct op *op); /* of the peer's alone */
int local_set_attributes(rfs_engine *engine, struct op *op, bool replay);
int local_set_xattr(rfs_engine *engine, struct op *op, bool replay);
/* As much as goes, also when it fails. */
int write_all(int fd, const uint8_t *data, size_t bytes, uint64_t offset, size_t *written);
int local_write(rfs_engine *engine, struct op *op, bool replay);
int local_fallocate(rfs_engine *engine, struct op *op, bool replay);
int local_copy(rfs_engine *engine, struct op *op, bool replay);
int set_mtime(int fd, int64_t mtime_ns);
int put_mtime_back(int fd, const struct stat *before); /* an op failed that may have changed it: the peer will not hear of that */
int xattrs_pack(int fd, uint8_t **out, size_t *bytes);
int xattrs_unpack(int fd, const uint8_t *data, size_t bytes);
#define ARRIVING_PREFIX "arriving." /* in the holding directory: what is yet to get its name */
/* holding.c: into the holding directory, or among what is kept; the place and name there of what is made without a name. */
int reserved_look(int root, const char *name); /* the directory's descriptor; -ENOENT: none, or none of ours */
int reserved_open(rfs_engine *engine, uint16_t directory, const char *name); /* ... made, or made ours */
int opened_made(int directory_fd, const char *name, mode_t type); /* what was just made there, as a path; -ESTALE: the name is another object's by now */
int hold(rfs_engine *engine, uint16_t directory, uint64_t fid, scope_t scope, int directory_fd, const char *name);
int purge_all(rfs_engine *engine, uint16_t directory, int fd, int what); /* what lies in such a directory, which it closes; what is local is kept */
int keep(rfs_engine *engine, uint16_t directory, int directory_fd, const char *name);
int held_open(rfs_engine *engine, uint16_t directory, uint64_t fid, char name[48]);
void held_close(rfs_engine *engine, uint16_t directory, int fd);

/* namespace.c, for border.c */
int get_directory(rfs_engine *engine, uint64_t fid, struct inode **inode, struct descriptor *descriptor);
void put_directory(rfs_engine *engine, struct inode *inode, struct descriptor *descriptor);
int parent_time(int fd, int64_t *mtime_ns, bool replay);
int open_pin(rfs_engine *engine, struct inode *inode, const struct stat *stat, bool last, bool replay);
bool last_name(const struct inode *inode, const struct stat *stat);

/* border.c: see there. `frames` is a list of ops. */
int arrival_prepare(rfs_engine *engine, struct inode *inode, struct list *frames);
void arrival_ship(rfs_engine *engine, struct list *frames);
void arrival_drop(rfs_engine *engine, struct list *frames);
int set_leftovers_aside(rfs_engine *engine, struct inode *directory, int parent_fd, const char *name);
#endif
