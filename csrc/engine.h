/* The engine's insides, shared by its files. csrc/README.md tells the threads, the lock order and the life of a write.
 */
#ifndef LOCKSTEP_ENGINE_H
#define LOCKSTEP_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "governor.h"
#include "marks.h"
#include "rfs_engine.h"
#include "scope.h"

enum {
    ROOT_NODE = 1,          /* the virtual root of the kernel connection */
    FIRST_DIRECTORY_FID = 2, /* directory i has the fid FIRST_DIRECTORY_FID + i on every node and for ever */
    INODE_STRIPES = 256,
    MAX_WRITE_BYTES = 1 << 20,
    PIECE_BYTES = 256 << 10, /* larger writes travel in such pieces */
    MAX_PAYLOAD_BYTES = MAX_WRITE_BYTES + 65536 + 4096,
    RESYNC_BLOCK_BYTES = 1 << 12, /* what a hash stands for */
    RESYNC_WINDOW_BLOCKS = 64,    /* one bit of the answer per block */
    RESYNC_WINDOW_BYTES = RESYNC_BLOCK_BYTES * RESYNC_WINDOW_BLOCKS,
    MESSAGE_BYTES = MAX_WRITE_BYTES + 8192,
    SPARE_MESSAGES = 8,
    MOST_PEER_SYNCS = 4096, /* of the peer's, not done yet: each has a descriptor */
    LARGE_FILE_BLOCKS = 32768, /* of 512 bytes: what takes long to free */
    WINDOW_OPS = 4096,
    WINDOW_BYTES = 64 << 20,
    WALK_BYTES_IN_FLIGHT = 16 << 20,
    WALK_BYTES_BESIDE_OPS = 1 << 20, /* while the application works: what it sends waits behind that */
};

#define FID_ATTRIBUTE "trusted.lockstep.id"
#define HIDDEN_PREFIX "trusted.lockstep."
#define HOLDING_NAME ".lockstep-holding" /* what has no place in a resync, until its end */
#define KEPT_NAME ".lockstep-kept"       /* local files whose directory the peer has removed: for people to look at */
#define BEFORE_NAME ".lockstep-before"   /* the snapshot of what a resync overwrites: before.h */
#define NS_PER_S INT64_C(1000000000)

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *list) { list->next = list->prev = list; }
static inline bool list_empty(const struct list *list) { return list->next == list; }
static inline void list_append(struct list *list, struct list *item) {
    item->prev = list->prev;
    item->next = list;
    list->prev->next = item;
    list->prev = item;
}
static inline void list_remove(struct list *item) {
    item->prev->next = item->next;
    item->next->prev = item->prev;
    item->next = item->prev = item;
}
#define ITEM(pointer, type, member) ((type *)(void *)((char *)(pointer) - offsetof(type, member)))

struct inode;
struct op;
struct file;
struct connection;
struct relay;
struct link;
struct walk;
struct marker;
struct listing;
struct verify;
struct announced;

/* A job for the worker threads: what may be slow and must not stand in the ordered path (fsync, last close, syncfs). */
struct job {
    struct list item;
    void (*run)(rfs_engine *engine, struct job *job);
};

struct inode_table {
    pthread_mutex_t lock; /* every field below, and nlookup, refs and the chains of each inode */
    struct inode **by_fid, **by_number;
    size_t buckets, count, most; /* most: so many take half of the machine's memory */
};

struct descriptor_slot {
    uint64_t fid;
    int fd;
    uint32_t users;
};

enum { DESCRIPTOR_SLOTS = 512 };

struct descriptor_cache {
    pthread_mutex_t lock; /* the slots */
    struct descriptor_slot slots[DESCRIPTOR_SLOTS];
};

struct mirror {
    pthread_mutex_t lock; /* "queue": all fields of this struct */
    pthread_cond_t changed; /* something was answered or thawed; `watchers` wait for it */
    pthread_cond_t arrived; /* `parked` has an op: for the thread that starts them again */
    uint32_t watchers;      /* nobody: an answer need not tell of itself, and wakes no thread but the application's */
    uint64_t seq, acked_seq;
    uint64_t alone_seq;   /* the last that was acknowledged before one of before it: the peer must not begin before this again */
    struct list pending;  /* ops shipped and not acknowledged, by seq */
    struct list syncing;  /* fsyncs: until both disks have answered */
    struct list parked;   /* ops that may not start yet, in order of arrival */
    uint64_t in_flight_bytes, in_flight_ops;
    uint64_t in_flight_frames; /* of them: those of a walk, for whose answer no application waits */
    uint64_t rtt_us;
    struct governor governor; /* of the walk, while the application works */
    uint64_t demote_ticket; /* 0: none */
    uint32_t answering;     /* threads that are giving answers right now */
    bool need_used_raised, resuming;
};

struct event_queue {
    pthread_mutex_t lock; /* all fields */
    int fd;
    struct list events;
};

struct workers {
    pthread_mutex_t lock; /* all fields */
    pthread_cond_t wake;
    struct list jobs;
    bool stopping;
    uint32_t threads;
    pthread_t ids[4];
};

struct peer_syncs {
    pthread_mutex_t lock; /* count */
    pthread_cond_t done;
    uint32_t count;
};

struct directory {
    int root_fd; /* O_RDONLY directory in the detached clone of the tree */
    uint64_t device;
    struct scopes scopes;
};

struct counters {
    atomic_uint_fast64_t reads, writes, fsyncs, namespace_ops, read_bytes, write_bytes, relayed;
    atomic_uint_fast64_t frames_sent, frames_received, frame_bytes_sent, frame_bytes_received;
    atomic_uint_fast64_t resync_bytes_done, resync_total_bytes, resync_files_done, resync_total_files, resync_sent_bytes, tree_bytes;
};

struct rfs_engine {
    _Atomic uint32_t directories; /* grows, between two ops: see rfs_add_directory() */
    struct directory directory[RFS_MAX_DIRECTORIES];
    uint64_t boot_nonce;

    pthread_rwlock_t state; /* mode, epoch, session and link: mutations hold it shared, transitions exclusively */
    _Atomic(enum rfs_mode) mode;
    bool target;            /* frames of ops are applied */
    bool end_sent;          /* source: END is in the op stream */
    bool resumable;         /* source: the session was a whole pair, so its waiting window can be shipped again */
    bool demoting;          /* new mutations are refused, those under way are finished */
    int policy;             /* RFS_REFUSE_*: policy.h; fixed once ops may come */
    struct listing *listing; /* target: the directory whose entries are arriving (the receiving thread's own) */
    uint32_t epoch;         /* counts full sessions; resync flags of an inode with another epoch are void */
    rfs_session session;
    struct link *link;
    struct walk *walk;
    atomic_uint_fast64_t links; /* how many there have been: an answer of one before says nothing */
    _Atomic(struct verify *) verify; /* made by the first verify, kept to the end */
    struct marker *marker;  /* NULL: there is no intent log, and everything is marked for ever; fixed once ops may come */
    bool whole;             /* the session compares everything: nothing is taken for equal that was not listed in it */
    struct announced *announced; /* target: directories that will be listed (these four are the receiving thread's own) */
    size_t announced_count, announced_room;
    bool holding_indexed, announced_known; /* one of them may have become known since they were looked into */

    atomic_uint_fast64_t next_fid, next_found_fid;
    atomic_uint_fast64_t next_ticket;
    atomic_uint_fast64_t last_heard_ns; /* CLOCK_BOOTTIME of the peer's last frame; 0: never */
    atomic_uint_fast64_t applied_seq, received_seq;
    atomic_uint_fast64_t last_op_ns; /* the application's last mutation */
    atomic_uint_fast64_t held; /* names given in the holding directories */
    atomic_uint before; /* target: the snapshot of before is kept; a number of its own in each session. 0: none is */
    uint32_t before_counter;
    pthread_mutex_t before_lock; /* giving it up */
    atomic_bool failed; /* this copy's disk lied: no success any more */
    atomic_bool acknowledging; /* `acknowledge` is queued or runs */
    struct job acknowledge;
    atomic_bool syncing_ahead; /* `sync_ahead` is queued or runs */
    struct job sync_ahead;
    atomic_uint small_files; /* the receiver's own: made by the target */

    pthread_mutex_t names;                  /* the order of namespace ops */
    pthread_mutex_t tagging;                /* files that have no id yet get one; only inodes.lock is taken within */
    pthread_mutex_t stripes[INODE_STRIPES]; /* the order of data and attribute ops of an inode */
    struct inode_table inodes;
    struct descriptor_cache descriptors;
    struct mirror mirror;
    struct event_queue events;
    struct workers workers;
    struct peer_syncs peer_syncs;
    pthread_t parked_thread;
    bool stopping; /* under mirror.lock */
    bool mirror_started;

    pthread_mutex_t connection_lock; /* connection, relay and completed entries */
    struct connection *connection;
    struct relay *relay;
    struct list entries; /* ops: results of symlink, link and mknod until Python takes them */
    struct counters count;

    pthread_mutex_t message_lock; /* spare messages */
    uint8_t *spare_messages[SPARE_MESSAGES];
    uint32_t spare_message_count;
};

/* ---- engine.c */
uint64_t now_ns(void); /* CLOCK_BOOTTIME */
void emit(rfs_engine *engine, int32_t kind, int32_t result, uint64_t ticket, const char *format, ...) __attribute__((format(printf, 5, 6)));
void workers_stop(rfs_engine *engine); /* when every job is done */
void submit_job(rfs_engine *engine, struct job *job); /* workers.lock; any other may be held */
/* Perhaps the last descriptor of a file without a name, which frees its blocks: of a large one by a worker, because it can take seconds. */
void close_orphan(rfs_engine *engine, int fd);
void begin_sync(rfs_engine *engine); /* of what is written now, beside what comes: the sync at the end has less to do */
void acknowledge_from_disk(rfs_engine *engine); /* soon, what is applied now or later, once it is durable */

static inline size_t hash_slot(uint64_t value, size_t slots) { /* a power of two */
    value ^= value >> 33;
    value *= UINT64_C(0xff51afd7ed558ccd);
    value ^= value >> 33;
    return (size_t)value & (slots - 1);
}

/* ---- inodes.c */
enum { MAX_HANDLE_BYTES = 28 };

struct inode {
    struct inode *next_fid, *next_number;
    uint64_t fid, number; /* number: the backing file system's inode number */
    uint64_t nlookup;     /* the kernel's references */
    uint32_t refs;        /* ours: ops, open files, walk */
    uint32_t type;        /* S_IFMT bits */
    uint64_t parent;      /* a directory in which it has a name, and that name (inodes.lock; changed under `names`); 0: not known */
    char *name;
    atomic_uint_fast64_t resync; /* epoch << 8 | flags: see walk.h */
    atomic_uint before;          /* engine->before, once it is in the snapshot or known to be newer */
    uint8_t handle_bytes;
    uint16_t directory;
    atomic_bool orphan;   /* its last name is gone: served from here only (set under names and its stripe) */
    bool in_table;
    atomic_int pin_fd;    /* O_PATH, keeps an orphan reachable; -1: none */
    atomic_uint_fast64_t scope; /* see inode_is_local() */
    int handle_type;
    uint8_t handle[MAX_HANDLE_BYTES];
};

int inodes_init(rfs_engine *engine);
int inodes_enter_root(rfs_engine *engine, uint32_t index);
void inodes_free(rfs_engine *engine);
void inodes_forget_all(rfs_engine *engine); /* all but the directories' roots */
void inodes_drop_removed(rfs_engine *engine); /* those whose object is gone; takes `names` and stripes */
void inodes_forget_kernel(rfs_engine *engine);
struct inode *inode_get(rfs_engine *engine, uint64_t fid); /* NULL: unknown */
struct inode *inode_of_peer(rfs_engine *engine, uint64_t fid); /* NULL also: it is local, and so none of the peer's business */
struct inode *inode_numbered(rfs_engine *engine, uint16_t directory, uint64_t number); /* the same by backing number */
bool inode_known(rfs_engine *engine, uint16_t directory, uint64_t number);
void inode_put(rfs_engine *engine, struct inode *inode);
void inode_looked_up(rfs_engine *engine, struct inode *inode);
void inode_forget(rfs_engine *engine, uint64_t fid, uint64_t count);
/* The inode behind a name; a file without an id gets one. A reference is taken; stat is filled. */
int inode_at(rfs_engine *engine, const struct inode *parent, int parent_fd, const char *name, struct inode **out, struct stat *stat);
/* The same. fd: of what was not known before, for the caller to close; -1: it was. A file's can be read, if the file can be read at all. */
int inode_met(rfs_engine *engine, const struct inode *parent, int parent_fd, const char *name, struct inode **out, struct stat *stat, int *fd);
/* Enter what has the id `fid`. -EEXIST: another object has it; -EBUSY: this one is in use under another id. A reference is taken. */
int inode_enter(rfs_engine *engine, uint16_t directory, int path_fd, const struct stat *stat, uint64_t fid, scope_t scope, struct inode **out);
/* The same, and give it this id, whatever it had before. Its ctime moves. */
int inode_adopt(rfs_engine *engine, uint16_t directory, int path_fd, const struct stat *stat, uint64_t fid, scope_t scope, struct inode **out);
/* The scope of what has this name, or would have. */
scope_t scope_in(const rfs_engine *engine, const struct inode *parent, const char *name, bool is_directory);
/* Its ops are not shipped. A file that has a replicated name is replicated, whatever its other names are. */
static inline bool inode_is_local(const struct inode *inode) { return atomic_load(&inode->scope) & SCOPE_LOCAL; }
static inline bool is_root_fid(uint64_t fid) { return fid >= FIRST_DIRECTORY_FID && fid < FIRST_DIRECTORY_FID + RFS_MAX_DIRECTORIES; }
static inline bool is_root(const struct inode *inode) { return is_root_fid(inode->fid); }
/* Names in a replicated directory's root that applications do not see. */
bool is_reserved_name(const char *name);
bool is_reserved(uint64_t parent, const char *name);
/* Its last name is gone. pin: an O_PATH descriptor opened before, by which those who have it open still reach it; -1: none. */
void inode_drop(rfs_engine *engine, struct inode *inode, int pin);
void inode_set_scope(rfs_engine *engine, struct inode *inode, scope_t scope);
/* After a resync: what the walk has not met is not on the peer, and so local. `met` is the flag of what it has met. State is held exclusively. */
void inodes_settle_unmet(rfs_engine *engine, uint32_t met);
int inode_open(rfs_engine *engine, struct inode *inode, int flags);
int inode_stat(rfs_engine *engine, struct inode *inode, struct stat *stat);
pthread_mutex_t *inode_stripe(rfs_engine *engine, uint64_t fid);
void lock_two(pthread_mutex_t *a, pthread_mutex_t *b);
void unlock_two(pthread_mutex_t *a, pthread_mutex_t *b);
uint64_t new_fid(rfs_engine *engine);
/* It has this name now; or (NULL) has it no more. */
void inode_named(rfs_engine *engine, struct inode *inode, uint64_t parent, const char *name);
void inode_unnamed(rfs_engine *engine, struct inode *inode, uint64_t parent, const char *name);
/* Its parent's fid and its name there, as far as they are known; 0: not. */
uint64_t inode_name(rfs_engine *engine, struct inode *inode, char name[256]);
/* *fid is 0 where there is none. An id that cannot be read is not none: a new one in its place would lose what is marked under it. */
int read_fid(int path_fd, uint64_t *fid);
/* Where it is found again: see marks.h. */
void inode_where(rfs_engine *engine, struct inode *inode, rfs_where *where);
void fill_attributes(const struct inode *inode, const struct stat *stat, rfs_attributes *out);

/* ---- whereabouts.c */
/* The directory above a directory, and its name there; NULL: it is a root, or gone. */
struct inode *inode_parent(rfs_engine *engine, struct inode *directory, char name[256]);
/* The object behind a hint. -ENOENT: for sure there is none, or one with another id; else it could not be looked at. */
int inode_found(rfs_engine *engine, const rfs_where *where, struct inode **out);

/* ---- descriptors.c */
struct descriptor {
    int fd;
    int slot; /* -1: close it on release */
};
int descriptor_get(rfs_engine *engine, struct inode *inode, struct descriptor *out); /* readable; writable for files */
void descriptor_put(rfs_engine *engine, struct descriptor *descriptor);
void descriptor_drop(rfs_engine *engine, uint64_t fid);
struct proc_path {
    char text[40];
};
struct proc_path proc_path(int fd); /* /proc/self/fd/N: the way to an O_PATH descriptor's object */

/* Times from 1677 to 2262; what lies beyond becomes the first or the last of them, as a file system does with what it cannot hold. */
static inline int64_t to_ns(int64_t seconds, int64_t nanoseconds) {
    int64_t ns;
    if (__builtin_mul_overflow(seconds, NS_PER_S, &ns) || __builtin_add_overflow(ns, nanoseconds, &ns)) return seconds < 0 ? INT64_MIN : INT64_MAX;
    return ns;
}
static inline int64_t stat_mtime_ns(const struct stat *stat) { return to_ns(stat->st_mtim.tv_sec, stat->st_mtim.tv_nsec); }
static inline int64_t stat_atime_ns(const struct stat *stat) { return to_ns(stat->st_atim.tv_sec, stat->st_atim.tv_nsec); }
struct timespec to_timespec(int64_t ns);

/* ---- a last word on every C file of the engine: functions return 0 or -errno */
#endif
