/* What walk.c and content.c share: one resync of the source. */
#ifndef LOCKSTEP_WALK_STATE_H
#define LOCKSTEP_WALK_STATE_H

#include "marker.h"
#include "walk.h"

/* A file whose windows are out: it is finished by the answer to the last. */
struct walked_file {
    struct inode *inode; /* a reference */
    int fd;
    uint32_t waiting;
    bool asked; /* all of it */
    bool gone;
};

struct window {
    struct list item;
    struct walked_file *file;
    uint64_t seq, offset, different;
    size_t bytes;
    bool answered;
};

struct walk {
    pthread_t thread, counter;
    bool counting;
    atomic_bool stop, over; /* over: END is sent */
    atomic_bool told;       /* that nothing is to do; not heard any more if END came too late */
    uint8_t *buffer; /* one window; the walk's thread's own, like all without another word */
    uint32_t windows_out;
    uint64_t entry_seq; /* of the last listing: when it is acknowledged, the target has told what it had to make */
    uint64_t due_ns; /* when the next byte may go: see pace() */
    uint64_t unsent_bytes;
    atomic_uint untold; /* ops under way on what the target cannot be told of: what they change will be to do */
    bool settled;       /* nothing is left that could be found */
    bool indexed;       /* the whole trees were looked through for what nobody could tell the way to */

    pthread_mutex_t lock; /* all below */
    pthread_cond_t answered;
    uint64_t *stack;
    size_t depth, room;
    struct list windows; /* asked, in the order of their seqs */
    struct peer_mark *peer_marks;
    size_t peer_count, peer_room;
    uint64_t peer_born;
    bool peer_everything, peer_told;
};

enum { GONE = -ENOLINK, ALL_KINDS = MARK_ENTRIES | MARK_ATTRIBUTES | MARK_TAIL | MARK_CHUNK };

bool walk_enter(rfs_engine *engine); /* state shared, and the session is as it was; false: it is not, and nothing is held */
void walk_leave(rfs_engine *engine);
/* Small frames wait for each other: they are sent when there are many, and by walk_send() before the walk waits for anything. */
void walk_leave_unsent(rfs_engine *engine, uint64_t bytes);
void walk_send(rfs_engine *engine);
struct op *walk_frame(enum frame_type type, uint64_t fid);
int walk_end_session(rfs_engine *engine); /* -ECANCELED: another one may do better */

void walk_push(rfs_engine *engine, struct inode *inode);     /* onto the stack, unless it is there */
bool walk_bind_one(rfs_engine *engine, struct inode *inode); /* state shared, `names` held; false: not all above it is clean */

/* walk_marked.c */
int walk_begin(rfs_engine *engine);     /* the roots, or what is marked here or there, onto the stack */
int walk_push_left(rfs_engine *engine); /* all directories are listed: what is still to do, if it is found now; the rest is gone */

/* content.c */
int content_walk(rfs_engine *engine, struct inode *inode); /* a bound file's content and attributes: what is to do, or all */
/* A small file that the target cannot have goes together with its entry, if no disk is read for it (under `names`, which the caller holds). fd: the
 * file's, or -1. 1: it went and is done. */
int content_with_entry(rfs_engine *engine, struct inode *directory, int directory_fd, const char *name, struct inode *file, const struct stat *stat, int fd);
int content_pull(rfs_engine *engine, bool wait);           /* what has been answered; 1: there was something */
void content_free(rfs_engine *engine, struct walk *walk);
#endif
