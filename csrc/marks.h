/* Marks: the places that may differ on the peer. Pure memory, without I/O, locks or clock, so the simulator runs this very code.
 *
 * A place is a range of 4 MiB of a file (a chunk), a file's tail from a chunk on, an inode's attributes, or a directory's entries; its key
 * is the fid, so a mark stays with its object through renames. Of a chunk, one bit for each 64 KiB (a grain) tells where it was touched.
 *
 * The life of a mark. It becomes *hot* once it is durable in the intent log, before the first op touches the place; further ops there only set
 * bits. It is *to do* from the start of a session until the target has been made equal there (or when an op was done without the target), and
 * hot again afterwards: what the target has may be in its memory only. A checkpoint, and nothing else, drops it.
 *
 * What is new needs no mark of its own: a file whose fid is not below `born` was made since, so it lies in a directory that is marked, and is
 * compared whole when that directory is listed. Fids grow for ever, on both nodes (they begin with the term), so one number tells.
 * (A fid that was given to a file found without one says nothing about its age: it has FID_FOUND set and is never new.)
 *
 * Doubt widens: when memory or the log runs short, `everything` is marked. */
#ifndef LOCKSTEP_MARKS_H
#define LOCKSTEP_MARKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cffi: begin */
enum {
    MARK_CHUNK_BYTES = 4 << 20,
    MARK_GRAIN_BYTES = 1 << 16, /* of a chunk: one of 64 bits */
    MARK_HANDLE_BYTES = 28,
    MARK_PATH_BYTES = 400,
    MOST_PEER_MARKS = 2 << 20, /* that one node tells the other: about 1 GiB of memory there; beyond that everything is marked */
};

enum mark_kind {
    MARK_NONE = 0, /* nothing is left: see marks_take() */
    MARK_ENTRIES = 1,
    MARK_ATTRIBUTES = 2,
    MARK_TAIL = 4, /* the content from chunk `index` on */
    MARK_CHUNK = 8,
};

typedef struct {
    uint64_t fid, index; /* index: of the chunk; 0 for entries and attributes */
    uint64_t grains;     /* of a chunk: a bit for each; else 0 */
    int32_t kind;
} rfs_mark;

/* Where an object is found again after a restart: here by its file handle, on the peer by the path that it had when it was marked, with the ids of the
 * directories on it. Whatever moved one of them since has marked the directories, and is known by its id when those are listed; so what cannot
 * be found then is gone. Only a hint; its own id is looked at. */
typedef struct {
    uint64_t fid;
    int32_t handle_type;
    uint16_t directory;
    uint16_t depth; /* of the directories on the path, the replicated one itself apart */
    uint8_t handle_bytes;
    uint8_t handle[MARK_HANDLE_BYTES];
    char path[MARK_PATH_BYTES]; /* below the replicated directory, NUL, and the fids on the way; empty: not known */
} rfs_where;

typedef struct marks rfs_marks;

rfs_marks *marks_new(void);
void marks_free(rfs_marks *marks);

/* An op comes to this place. False: it is cold; make the mark durable, then marks_add(). */
bool marks_touch(rfs_marks *marks, const rfs_mark *mark);
/* The same question without the answer "it was touched". */
bool marks_is_hot(const rfs_marks *marks, const rfs_mark *mark);
/* It is durable: hot from now on. Out of memory, everything is (and -ENOMEM tells that the log must say so). */
int marks_add(rfs_marks *marks, const rfs_mark *mark);
void marks_add_everything(rfs_marks *marks);
bool marks_everything(const rfs_marks *marks);
bool marks_is_new(const rfs_marks *marks, uint64_t fid);     /* for a resync: compare it whole */
bool marks_covers_new(const rfs_marks *marks, uint64_t fid); /* for an op: it needs no mark of its own */
uint64_t marks_born(const rfs_marks *marks);
/* A log is read, or a primary begins: its files from this fid on are new, as is what was new. Only they need no mark: a file that the peer has made lies
 * in a directory that is marked there, and not any more when the peer has had a checkpoint of which we did not hear. */
void marks_set_born(rfs_marks *marks, uint64_t born);
void marks_widen_born(rfs_marks *marks, uint64_t born); /* for a resync, the peer's word: the lower of what was and this */
void marks_forget(rfs_marks *marks);                  /* drop all: after a checkpoint that the peer tells of */

void marks_set_where(rfs_marks *marks, const rfs_where *where); /* kept only for what is marked */
bool marks_where(const rfs_marks *marks, uint64_t fid, rfs_where *where);
bool marks_knows(const rfs_marks *marks, uint64_t fid);

/* A checkpoint: `next_fid` is the first that is not given yet. Returns its number; ops that come from now on are not part of it. When all ops
 * of before are answered and both disks are synced, marks_checkpoint_end() drops what was not touched since. One at a time. */
uint64_t marks_checkpoint_begin(rfs_marks *marks, uint64_t next_fid);
void marks_checkpoint_end(rfs_marks *marks, uint64_t number);

/* A session begins: all that is hot is to do. */
void marks_all_to_do(rfs_marks *marks);
/* A session that compared everything, marked or not, is at its end. */
void marks_nothing_to_do(rfs_marks *marks);
/* An op was done without the target. */
void marks_set_to_do(rfs_marks *marks, const rfs_mark *mark);
bool marks_is_to_do(const rfs_marks *marks, uint64_t fid, int32_t kinds); /* any of these kinds */
/* The next of this object that is to do, which it is no more: kind MARK_NONE when there is none. `kinds`: those wanted. */
rfs_mark marks_take(rfs_marks *marks, uint64_t fid, int32_t kinds);
/* All marks, one after the other: the cursor begins with {0}. False: that was all. */
typedef struct {
    size_t bucket, inode, part;
} rfs_marks_cursor;
bool marks_each(const rfs_marks *marks, rfs_marks_cursor *cursor, rfs_mark *mark);

typedef struct {
    uint64_t places, inodes, bytes; /* hot; bytes by grains */
    uint64_t to_do_places, to_do_bytes;
} rfs_marks_count;
rfs_marks_count marks_count(const rfs_marks *marks); /* looks at each */
size_t marks_inodes(const rfs_marks *marks);
/* cffi: end */

/* What is used of `path`. */
size_t where_bytes(const rfs_where *where);

#define FID_FOUND (UINT64_C(1) << 39)
#endif
