/* The engine's whole API as Python sees it. setup.py hands the region between the two markers to cffi as the cdef, so
 * this is the one declaration: no copy of it exists.
 *
 * Conventions. Functions return 0 or a positive result, and -errno on failure. Nothing here waits for the network or
 * for an application. Functions marked [worker] do local I/O or join threads and are called from a worker thread, never
 * from the event loop. What completes later is submitted for a ticket (> 0); its completion arrives as an
 * RFS_EVENT_TICKET. The event descriptor is an eventfd: readable means rfs_next_event() has something.
 *
 * Strings are NUL-terminated bytes; paths are absolute. Times are nanoseconds since 1970 unless named _us or _s. */
#ifndef RFS_ENGINE_H
#define RFS_ENGINE_H

#include <stddef.h>
#include <stdint.h>

/* cffi: begin */
typedef struct rfs_engine rfs_engine;

enum {
    RFS_MAX_DIRECTORIES = 32,
    RFS_REASON_BYTES = 256,
    RFS_NAME_BYTES = 256,
    RFS_TARGET_BYTES = 4096, /* a symbolic link's target, without NUL */
};

/* What the engine does with a mutation. Changed only by the calls below, at one seq, under the state lock. */
enum rfs_mode {
    RFS_IDLE = 0,     /* not primary: mutations fail with EROFS */
    RFS_FROZEN = 1,   /* primary without a peer and without a grant: mutations wait, nothing is acknowledged */
    RFS_UNUSED = 2,   /* ALONE, but used = 1 is not durable yet: the first mutation waits and raises RFS_EVENT_NEED_USED */
    RFS_ALONE = 3,    /* acknowledged here, verdict "marked" */
    RFS_RESYNCING = 4,/* source of a session whose target is not complete: per place mirrored or marked */
    RFS_PAIRED = 5,   /* source of a session without a mark left: every op is mirrored */
    RFS_FENCED = 6,   /* the peer owns the data: mutations fail with EIO, the kernel connection is aborted */
};

enum rfs_event_kind {
    RFS_EVENT_TICKET = 1,       /* ticket, result */
    RFS_EVENT_LINK_LOST = 2,    /* result = -errno; text says what was seen. The mode is RFS_FROZEN already if this was a source */
    RFS_EVENT_NEED_USED = 3,    /* make used = 1 durable, then call rfs_set_used() */
    RFS_EVENT_DRAINED = 4,      /* source: no place is marked any more. Make peer_may_fit = shared = 1 durable, then rfs_send_end() */
    RFS_EVENT_END_RECEIVED = 5, /* target: everything up to the end marker is applied. Sync, adopt, answer */
    RFS_EVENT_APPLY_FAILED = 6, /* target: an op could not be applied (result, text); nothing after it was. Leave the session */
    RFS_EVENT_LOCAL_FAILED = 7, /* this copy's disk failed a write-back or an fsync: FAILED, durably */
    RFS_EVENT_KERNEL_GONE = 8,  /* the kernel connection ended (unmounted or aborted) */
    RFS_EVENT_RELAY_LOST = 9,   /* the cold-op (pyfuse3) socket closed; rfs_relay_open() starts it again */
    RFS_EVENT_VERIFIED = 10,    /* source: the verify has ended; result = 0 or -errno of what cut it off */
    RFS_EVENT_BEFORE_LOST = 11, /* target: the snapshot of before was given up (result, text): no room, mostly */
    RFS_EVENT_TREE_CHANGED = 12, /* source: somebody changes the plain tree beside the mirror (result, text). All is marked, the session ends */
};

typedef struct {
    int32_t kind;
    int32_t result;
    uint64_t ticket;
    char text[RFS_REASON_BYTES];
} rfs_event;

typedef struct {
    uint64_t ino; /* the fid; the same on both nodes */
    uint64_t size, blocks, rdev;
    int64_t atime_ns, mtime_ns, ctime_ns;
    uint32_t mode, nlink, uid, gid, block_bytes;
} rfs_attributes;

typedef struct {
    int32_t mode;                  /* enum rfs_mode */
    int32_t link_up;
    uint64_t seq, acked_seq;       /* source: last given, last acknowledged by the peer; target: last received, last applied */
    uint64_t applied_seq;          /* target: last applied; kept after the session ends */
    uint64_t waiting_ops;          /* sent or parked, without an answer; not one that is being tried again at this moment */
    uint64_t oldest_wait_us;       /* how long the oldest of them has waited */
    uint64_t tree_bytes;           /* file bytes seen by the last walk; what "everything is marked" amounts to */
    uint64_t rtt_us;
    uint64_t last_heard_us;        /* since the peer's last frame; UINT64_MAX: never in this process */
    uint64_t resync_bytes_done, resync_total_bytes, resync_files_done, resync_total_files;
    uint64_t resync_sent_bytes;    /* what really travelled */
    uint64_t marked_places, marked_bytes; /* hot: what a session would begin with; bytes by 64 KiB */
    uint64_t marked_everything;
    uint64_t to_do_bytes;          /* of these, what the session that runs has yet to do */
    uint64_t failed;               /* 1: this copy's disk lied; RFS_EVENT_LOCAL_FAILED has told of it, or will */
    uint64_t reads, writes, fsyncs, namespace_ops, read_bytes, write_bytes; /* of the application */
    uint64_t frames_sent, frames_received, frame_bytes_sent, frame_bytes_received;
    uint64_t inodes, open_files, relayed;
} rfs_statistics;

/* ---- trees: plain directories, guards and mounts (mounts.c) --------------------------------------------------------- */

/* Clone the plain tree at path (whatever lies on top of the last non-FUSE layer) into a detached, writable mount.
 * Returns a descriptor of its root directory. The path must not be covered by a dead FUSE mount. */
int rfs_tree_open(const char *path);
/* Can this tree hold replicas? 0, or -EOPNOTSUPP with a sentence: no file handles, no trusted.* attributes. [worker] */
int rfs_tree_probe(int tree_fd, char reason[RFS_REASON_BYTES]);
/* Lay a read-only clone of the tree over path. [worker] */
int rfs_guard(int tree_fd, const char *path);
/* Take the topmost mount off path (lazily); with abort_connection a FUSE connection is aborted with it. [worker] */
int rfs_detach_mount(const char *path, int abort_connection);

/* ---- the process ------------------------------------------------------------------------------------------------------ */

/* Lock what memory it uses, and keep its allocations from waiting for itself: once, before threads start. 0, or -errno of what was refused. */
int rfs_hold_memory(void);
/* No core file, and nobody but root may look: its memory holds keys and what applications wrote. */
int rfs_keep_secrets(void);
/* The calling thread, and all that it starts, keep these capabilities (a bit each) and can get no other: once, before threads start. */
int rfs_keep_capabilities(uint64_t keep);
/* Refuse the system calls that rfsmount never makes, in all threads. -EOPNOTSUPP: not on this processor; -EINVAL: not with this kernel. */
int rfs_filter_calls(void);

/* ---- life ------------------------------------------------------------------------------------------------------------- */

/* directory_fds: one descriptor per replicated directory, by position, from rfs_tree_open(); the engine duplicates them.
 * Beneath each tree it makes directories of its own as they are needed, hidden from applications: see csrc/holding.c. */
rfs_engine *rfs_engine_new(const int *directory_fds, uint32_t directories, int *error);
/* Before anything else: what the pattern matches is local (or, if `only`, what none of these matches). csrc/scope.c tells of patterns.
 * -EINVAL: it is none; -E2BIG: too many names in all. */
int rfs_add_pattern(rfs_engine *engine, uint32_t index, const char *pattern, int only);
/* Before anything else, and the same on both nodes: what the module does not let in. Its mount is nodev or nosuid then, and who tries hears EPERM. */
enum { RFS_REFUSE_DEVICES = 1, RFS_REFUSE_SETUID = 2 /* setuid and setgid files, and file capabilities */ };
void rfs_set_policy(rfs_engine *engine, int refused);
/* One more, at the end, of a node that runs: without a session, idle or alone (else -EBUSY). Returns its index (-E2BIG: there are enough). Its patterns, its
 * mark and its mount follow before a session begins: nothing of it is the peer's yet. [worker] */
int rfs_add_directory(rfs_engine *engine, int directory_fd);
void rfs_engine_free(rfs_engine *engine); /* [worker] stops every thread; unmount first */

int rfs_event_fd(const rfs_engine *engine);
int rfs_next_event(rfs_engine *engine, rfs_event *event); /* 1: filled; 0: none left */
void rfs_get_statistics(rfs_engine *engine, rfs_statistics *statistics);

/* ---- marks: the places that may differ on the peer (marker.c) ------------------------------------------------------------------ */

/* The intent log in `directory`, before any op. 1: the marks are what they were; 0: there was no log or it is damaged, so everything
 * is marked. Without this call everything is marked for ever. [worker] */
int rfs_open_marks(rfs_engine *engine, const char *directory);
/* A checkpoint begins; only while paired as source. The ticket (0: not now) completes when all ops of before are answered; then the caller makes both
 * nodes durable and `base`, and calls: */
uint64_t rfs_submit_checkpoint(rfs_engine *engine);
/* ... the end of it: what was not touched since is marked no more. -EAGAIN: the link was lost meanwhile, all stays. [worker] */
int rfs_end_checkpoint(rfs_engine *engine);
/* The peer's checkpoint covers what is marked here: nothing is marked any more. [worker] */
int rfs_forget_marks(rfs_engine *engine);
/* Doubt: the next session compares everything. [worker] */
int rfs_mark_everything(rfs_engine *engine);
/* The entries of directory `index` itself, durably: a session lists it, and copies what the target lacks, which is all if that is empty. [worker] */
int rfs_mark_directory(rfs_engine *engine, uint32_t index);

/* ---- the kernel side ---------------------------------------------------------------------------------------------------- */

/* New kernel connection: opens /dev/fuse, mounts it detached, starts the threads. Returns the mount's descriptor. [worker] */
int rfs_kernel_open(rfs_engine *engine);
/* Move the subtree of directory `index` over path. [worker] */
int rfs_kernel_attach(rfs_engine *engine, int mount_fd, uint32_t index, const char *path);
/* End the connection: abort, join the threads, forget kernel references. Take the mounts off first. [worker] */
int rfs_kernel_close(rfs_engine *engine);
/* Socket for pyfuse3 ("/dev/fd/N"); the engine keeps the other end and replays INIT. Returns N, owned by the caller. */
int rfs_relay_open(rfs_engine *engine);

/* ---- roles: see enum rfs_mode ------------------------------------------------------------------------------------------- */

/* A primary starts: new fids are (term << 41 | node_bit << 40 | counter). Mode becomes RFS_FROZEN. */
int rfs_become_primary(rfs_engine *engine, uint64_t term, uint32_t node_bit);
/* Stop being primary in order: new mutations fail with EROFS, those under way are finished. The ticket completes when
 * none is left (with -EAGAIN if the link was lost meanwhile: then the mode is RFS_FROZEN again). */
uint64_t rfs_submit_demote(rfs_engine *engine);
/* Go on without the peer under `generation`, which is durable: every waiting op becomes "marked" and is answered.
 * With used = 0 the mode is RFS_UNUSED; -EAGAIN if shipped ops wait for their answer, which is such an acknowledgement. */
int rfs_grant(rfs_engine *engine, uint64_t generation, int used);
int rfs_set_used(rfs_engine *engine);
/* The peer owns the data: waiting and new mutations fail with EIO, the kernel connection is aborted. */
int rfs_fence(rfs_engine *engine);
/* Make everything in all trees durable (syncfs). Completes with 0 or -errno. */
uint64_t rfs_submit_sync(rfs_engine *engine);

/* ---- channels: the bytes of a data link, plain or under TLS (channel.c) ------------------------------------------------- */

typedef struct rfs_channel rfs_channel;
enum { RFS_PIN_BYTES = 32 };
typedef struct {
    const char *path;    /* PEM: this node's private key and certificate */
    const char *peer;    /* the name that the peer's certificate must hold (SAN) */
    const uint8_t *pins; /* SHA-256 of the peer's public key (SPKI), pin_count times RFS_PIN_BYTES: any one of them */
    uint32_t pin_count;
} rfs_identity;

/* The descriptor is a connected stream socket, and the channel's from here on, also when NULL is returned. */
rfs_channel *rfs_channel_plain(int fd);
/* TLS 1.3, both ends proven by pinned keys; NULL with -errno and a sentence. `dialed`: this side made the
 * connection. The process ignores SIGPIPE, as Python does: OpenSSL writes to the socket in the handshake. [worker] */
rfs_channel *rfs_channel_secure(int fd, const rfs_identity *identity, int dialed, uint32_t timeout_ms, int *error, char reason[RFS_REASON_BYTES]);
int rfs_channel_kernel_tls(const rfs_channel *channel); /* 1: the kernel encrypts what is sent; 2: it decrypts what arrives; 3: both */
void rfs_channel_close(rfs_channel *channel);

/* ---- a session (its channel is the engine's from the call on) ------------------------------------------------------------ */

typedef struct {
    uint64_t session;       /* agreed in the handshake; frames of any other session are refused */
    uint64_t generation;
    uint64_t peer_applied_seq; /* resume: what the target has applied; ops above it are shipped again */
    uint64_t seq;           /* target: the last seq it has applied or, in a new session, the source's seq when it starts */
    uint64_t progress_timeout_us, fsync_timeout_us, keepalive_us;
    uint64_t resync_bytes_per_s; /* 0: no cap */
    uint64_t ack_disk;           /* 1: the target acknowledges what is on its disk, not what is in its memory */
    uint64_t everything;         /* 1: all is compared, not only what is marked; both sides say the same */
    uint64_t direct;             /* 1: nothing is marked anywhere, there is nothing to compare: paired from the start */
    uint64_t fresh;              /* bit i: directory i of the target is empty: nothing is compared */
} rfs_session;

/* Source, session with a resync: mode RFS_RESYNCING, the walk starts at once. Waiting ops of before become
 * "marked": the caller has met PROTOCOL 2.2 (peer_may_fit = 0, shared = 0, used = 1, all durable). */
int rfs_session_source(rfs_engine *engine, rfs_channel *channel, const rfs_session *session);
/* Source, short link loss: ship the waiting window again; mode RFS_PAIRED. */
int rfs_session_resume(rfs_engine *engine, rfs_channel *channel, const rfs_session *session);
/* Target. A session that compares everything forgets what it knew of fids: the walk teaches them. */
int rfs_session_target(rfs_engine *engine, rfs_channel *channel, const rfs_session *session, int resume);
/* Source: END into the op stream, after RFS_EVENT_DRAINED and the durable record. Mode RFS_PAIRED. -EAGAIN: an op has left something to do since;
 * RFS_EVENT_DRAINED comes once more. */
int rfs_send_end(rfs_engine *engine);
/* Target after END was answered, or after the peer's planned demotion: throw away what waited in the holding directory. [worker] */
enum {
    RFS_HELD = 1,
    RFS_ARRIVING = 2,  /* what was to get its name when the session ended: only between sessions */
    RFS_CONFIRMED = 4, /* a person has said that this copy is to be overwritten: however much it is (brake.c) */
};
/* Returns in how many directories what was held was more than what is left, and was set aside instead. */
int rfs_purge_holding(rfs_engine *engine, int what);
/* What was set aside is gone for good. [worker] */
int rfs_discard_set_aside(rfs_engine *engine);
/* Target: the snapshot of what a resync overwrites (before.c). Begin: before INCONSISTENT is durable; whole: the copy is (a new snapshot), else the one
 * of before goes on. Returns the state. End: after END was adopted, or a restored copy is. Restore: idle, without a session. [worker]
 * Begin and restore fail where it cannot be looked at; rfs_before_state then says that there is none to count on. */
enum { RFS_BEFORE_NONE, RFS_BEFORE_KEPT, RFS_BEFORE_RESTORING };
int rfs_before_begin(rfs_engine *engine, int whole);
int rfs_before_end(rfs_engine *engine);
int rfs_before_restore(rfs_engine *engine);
int rfs_before_state(rfs_engine *engine);
/* Both sides at a planned swap, within the session: the old source is idle, the old target ships from here on. */
int rfs_session_turn(rfs_engine *engine, int now_source);
/* End the session. A target first applies what it has already received; a source freezes (or stays ALONE when
 * resyncing is abandoned by rfs_grant afterwards). [worker] */
int rfs_session_close(rfs_engine *engine);

/* ---- verify: both copies compared while the application writes (verify.c) ------------------------------------------------ */

/* How a place differs: bits. Content has an offset and a length, the others none. */
enum {
    RFS_DIFFERS_CONTENT = 1,
    RFS_DIFFERS_SIZE = 2,
    RFS_DIFFERS_MODE = 4,
    RFS_DIFFERS_OWNER = 8,
    RFS_DIFFERS_MTIME = 16,
    RFS_DIFFERS_XATTRS = 32,
    RFS_DIFFERS_TARGET = 64,      /* a symbolic link's */
    RFS_DIFFERS_DEVICE = 128,     /* a device's number */
    RFS_DIFFERS_TYPE = 256,
    RFS_DIFFERS_MISSING = 512,    /* the name, or the object, is not on the peer */
    RFS_DIFFERS_EXTRA = 1024,     /* the name is on the peer alone */
    RFS_DIFFERS_OBJECT = 2048,    /* the name is another file there, perhaps with the same content: hard links are compared */
    RFS_DIFFERS_UNREADABLE = 4096, /* the peer cannot read it */
};
enum { RFS_MAX_DIFFERENCES = 1000, RFS_PATH_BYTES = 4096 };

typedef struct {
    uint32_t directory, kinds; /* RFS_DIFFERS_* */
    uint64_t fid;                  /* the object's; of a name (missing, extra, object) its directory's */
    uint64_t offset, length;
    char path[RFS_PATH_BYTES]; /* below the directory, as it was met; the directory itself: empty */
} rfs_difference;

typedef struct {
    int32_t running;
    int32_t result;       /* of the last one: 0, or -errno: it was cut off */
    uint64_t bytes_done, total_bytes, files_done, total_files; /* totals: an estimate, 0 until it is made */
    uint64_t differences; /* all of them, also what is not listed */
    uint64_t asked_again; /* places that differed at first sight; one that did not at the second is no difference */
    uint32_t listed;
} rfs_verification;

/* Source of a whole pair: begin. The end is RFS_EVENT_VERIFIED. -EBUSY: one is running; -ENOTCONN: not the source of a pair. [worker] */
int rfs_verify_start(rfs_engine *engine);
int rfs_verify_stop(rfs_engine *engine); /* [worker] */
void rfs_verify_progress(rfs_engine *engine, rfs_verification *out);
int rfs_verify_difference(rfs_engine *engine, uint32_t index, rfs_difference *out); /* 0; -ENOENT: there is none of this index */

/* ---- manifests: what a tree holds, for two copies that are no pair (manifest.c). They need no engine ------------------------ */

typedef struct rfs_manifest rfs_manifest;
/* tree_fd is the caller's, and stays open. with_content: the files' bytes are hashed too. NULL: no memory. */
rfs_manifest *rfs_manifest_new(int tree_fd, uint32_t directory, int with_content);
int rfs_manifest_pattern(rfs_manifest *manifest, const char *pattern, int only); /* as rfs_add_pattern() */
int rfs_manifest_write(rfs_manifest *manifest, int out_fd); /* all of it, from out_fd's place on; -ECANCELED: stopped. [worker] */
void rfs_manifest_stop(rfs_manifest *manifest);             /* from another thread */
void rfs_manifest_progress(rfs_manifest *manifest, uint64_t *entries, uint64_t *bytes); /* also while it is written */
void rfs_manifest_free(rfs_manifest *manifest);
/* Of a file beneath the tree: a 16-byte hash for each of at most `count` (4096) blocks of RFS_BLOCK_BYTES from offset on, 16 zeros for one of
 * zeros. Returns how many; size: the file's. [worker] */
enum { RFS_BLOCK_BYTES = 65536 };
int rfs_block_hashes(int tree_fd, const char *path, uint64_t offset, uint32_t count, uint8_t *out, uint64_t *size);

/* ---- cold operations, for pyfuse3. Reads answer at once; mutations go by ticket (result 0 or -errno) ---------------------- */

int rfs_lookup_attributes(rfs_engine *engine, uint64_t fid, rfs_attributes *attributes);
int rfs_readlink(rfs_engine *engine, uint64_t fid, char target[RFS_TARGET_BYTES + 1]);
int rfs_list_xattrs(rfs_engine *engine, uint64_t fid, char *names, size_t size);
int rfs_statfs(rfs_engine *engine, uint64_t fid, uint64_t out[8]); /* bsize frsize blocks bfree bavail files ffree namemax */
uint64_t rfs_submit_symlink(rfs_engine *engine, uint64_t parent, const char *name, const char *target, uint32_t uid, uint32_t gid);
uint64_t rfs_submit_link(rfs_engine *engine, uint64_t fid, uint64_t parent, const char *name);
uint64_t rfs_submit_mknod(rfs_engine *engine, uint64_t parent, const char *name, uint32_t mode, uint32_t umask, uint64_t rdev, uint32_t uid, uint32_t gid);
/* The entry a completed symlink, link or mknod made. Valid once, right after its RFS_EVENT_TICKET. */
int rfs_take_entry(rfs_engine *engine, uint64_t ticket, rfs_attributes *attributes);
/* cffi: end */

#endif
