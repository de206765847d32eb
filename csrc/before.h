/* The snapshot of before: what a resync overwrites, kept until it is finished (before.c, before_record.c, before_restore.c). */
#ifndef LOCKSTEP_BEFORE_H
#define LOCKSTEP_BEFORE_H

#include "engine.h"
#include "wire.h"

#define BEFORE_KEPT "kept"           /* the snapshot is whole; the first thing that goes when it is given up */
#define BEFORE_RESTORING "restoring" /* it is being put back: the tree is neither of the two until that is done */
#define BEFORE_OBJECTS "objects"     /* a record for each object that was changed, under its key */
#define BEFORE_LIMBO "limbo"         /* while it is put back: what was in directories that are being filled again */
#define BEFORE_MADE "made"           /* while it is put back: what had lost its last name */

enum { BEFORE_KEY_BYTES = 2 * MAX_HANDLE_BYTES + 12 };

/* An object's name here: its file handle, which no other object of the file system ever has. */
struct before_key {
    char text[BEFORE_KEY_BYTES];
};

/* What a record says of an object. The content of a file is a clone at the record's beginning. */
struct before_facts {
    uint64_t size, rdev;
    int64_t atime_ns, mtime_ns;
    uint32_t mode, uid, gid, xattr_bytes, more_bytes, reserved;
};

struct before_record {
    struct before_facts facts;
    uint8_t *xattrs; /* as xattrs_pack() has them; points into `body` */
    uint8_t *more;   /* a link's target; a directory's entries: (key NUL name NUL)* */
    uint8_t *body;
};

/* ---- before_record.c */
int before_key_of(int directory_fd, const char *name, struct before_key *key); /* "": the descriptor's own object */
int before_open(int root_fd, const struct before_key *key, int flags); /* -ESTALE: it is gone, or has no name any more */
/* All of an object, durably. fd: readable for files and directories, else a path's. Roots have names that are no content. */
int before_write(int objects_fd, const struct before_key *key, int fd, bool is_root);
/* -ENOENT: none, or one that was not finished: then its object was not changed. fd (may be NULL): of its clone, the caller's. */
int before_read(int objects_fd, const struct before_key *key, struct before_record *record, int *fd);
void before_record_free(struct before_record *record);
int before_entries(int directory_fd, bool is_root, uint8_t **out, size_t *bytes);
int before_clone(int from, int to, uint64_t size); /* `to` has exactly these bytes afterwards */

/* ---- before.c: on the target, each before the change. 0: it is kept, or there is no snapshot (any more) */
int before_touch(rfs_engine *engine, struct inode *inode);
int before_touch_directory(rfs_engine *engine, uint16_t directory, int fd); /* one whose inode is not at hand */
int before_frame(rfs_engine *engine, const struct wire_header *header, const struct op_body *body);
void before_is_new(rfs_engine *engine, struct inode *inode); /* it was not there before: nothing of it is kept */
int before_state(rfs_engine *engine); /* RFS_BEFORE_*, or -errno: it cannot be looked at */
bool before_full(rfs_engine *engine, int error); /* room was made by giving the snapshot up: try again */
int before_directory(rfs_engine *engine, uint16_t directory); /* its descriptor, or -ENOENT */
int remove_tree(int parent_fd, const char *name); /* 0 if there is none */
#endif
