/* Modification times that a node could come to have alone. The linker brings the engine's calls here. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>

#include "native.h"

/* ---- two objects change places while an op on one of them comes in between ------------------------------------------------------- */

static _Thread_local struct op *(*beside)(struct node *node); /* makes the op, for the rename of this thread */
static _Thread_local struct node *beside_in;
static _Thread_local uint64_t beside_fid;
static _Thread_local uint32_t kept_out;

struct other {
    struct node *node;
    struct op *op;
};

static void *other_thread(void *argument) {
    struct other *other = argument;
    CHECK_EQUAL(finish(other->node, other->op), 0);
    return NULL;
}

/* An op that is kept out (its stripe is held) would only wait for us. */
static void do_beside(void) {
    pthread_mutex_t *stripe = inode_stripe(beside_in->engine, beside_fid);
    if (pthread_mutex_trylock(stripe) != 0) {
        kept_out++;
        return;
    }
    pthread_mutex_unlock(stripe);
    struct other other = {beside_in, beside(beside_in)};
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, other_thread, &other), 0);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
}

int __real_renameat2(int from, const char *name, int to, const char *name2, unsigned flags);
int __wrap_renameat2(int from, const char *name, int to, const char *name2, unsigned flags);

int __wrap_renameat2(int from, const char *name, int to, const char *name2, unsigned flags) {
    if (!beside) return __real_renameat2(from, name, to, name2, flags);
    do_beside();
    int result = __real_renameat2(from, name, to, name2, flags);
    do_beside();
    return result;
}

static struct op *dating(uint64_t fid, int64_t mtime_ns) {
    struct op *op = attributing(fid, HAS_MTIME);
    op->body.child_mtime_ns = mtime_ns;
    return op;
}

static struct op *a_write(struct node *node) {
    (void)node;
    return writing(beside_fid, 0, "beside", 6);
}

/* Another one each time. */
static struct op *a_date(struct node *node) { return dating(beside_fid, 1000000000000000000 + (int64_t)node_statistics(node).seq); }

static uint32_t swap_beside(struct pair *pair, struct op *(*make)(struct node *), uint64_t fid, uint64_t from, const char *name, uint64_t to, const char *name2) {
    beside = make;
    beside_in = &pair->a;
    beside_fid = fid;
    kept_out = 0;
    CHECK_EQUAL(finish(&pair->a, renaming(from, name, to, name2, RENAME_EXCHANGE)), 0);
    beside = NULL;
    settle(&pair->a);
    compare_nodes(pair);
    return kept_out;
}

void test_swaps(void) {
    struct pair pair;
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    pair_up(&pair, &pair.a, &pair.b);
    uint64_t one = create_directory(&pair.a, ROOT, "one"), two = create_directory(&pair.a, ROOT, "two");
    uint64_t file = create_file(&pair.a, one, "x"), directory = create_directory(&pair.a, two, "x"), other = create_directory(&pair.a, two, "y");
    const uint64_t all[] = {file, directory, other};
    for (size_t i = 0; i < 3; i++) CHECK_EQUAL(finish(&pair.a, dating(all[i], 1000000000)), 0);
    CHECK_EQUAL(swap_beside(&pair, a_write, file, one, "x", two, "x"), 0); /* a write goes on */
    CHECK_EQUAL(swap_beside(&pair, a_write, file, one, "x", two, "x"), 0); /* also where the file is the victim */
    CHECK_EQUAL(swap_beside(&pair, a_date, directory, one, "x", two, "x"), 2);
    CHECK_EQUAL(swap_beside(&pair, a_date, other, one, "x", two, "y"), 2);
    CHECK_EQUAL(events_seen(&pair.b, RFS_EVENT_APPLY_FAILED), 0);
    check_answered_once(&pair.a);
    pair_close(&pair);
}

/* ---- ops that fail when a part is done already --------------------------------------------------------------------------------------- */

static _Thread_local bool disk_is_full; /* for what this thread does */

int __real_fsetxattr(int fd, const char *name, const void *value, size_t bytes, int flags);
int __wrap_fsetxattr(int fd, const char *name, const void *value, size_t bytes, int flags);

int __wrap_fsetxattr(int fd, const char *name, const void *value, size_t bytes, int flags) {
    if (!disk_is_full) return __real_fsetxattr(fd, name, value, bytes, flags);
    errno = ENOSPC;
    return -1;
}

int __real_fallocate(int fd, int mode, off_t offset, off_t bytes);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t bytes);

/* As on ext4: the new time comes first. */
int __wrap_fallocate(int fd, int mode, off_t offset, off_t bytes) {
    if (!disk_is_full) return __real_fallocate(fd, mode, offset, bytes);
    CHECK_EQUAL(futimens(fd, NULL), 0);
    errno = ENOSPC;
    return -1;
}

void test_half_done(void) {
    struct pair pair;
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    pair_up(&pair, &pair.a, &pair.b);
    uint64_t directory = create_directory(&pair.a, ROOT, "directory"), file = create_file(&pair.a, ROOT, "file");
    const uint64_t all[] = {directory, file};
    for (size_t i = 0; i < 2; i++) CHECK_EQUAL(finish(&pair.a, dating(all[i], 1000000000)), 0);
    struct op *allocating = op_new(FRAME_FALLOCATE);
    CHECK(allocating);
    allocating->body = (struct op_body){.fid = file, .length = 100000, .flags = FALLOC_FL_KEEP_SIZE};
    disk_is_full = true;
    CHECK_EQUAL(finish(&pair.a, named(FRAME_CREATE, directory, "x")), -ENOSPC); /* made, and then its id found no room */
    CHECK_EQUAL(finish(&pair.a, allocating), -ENOSPC);
    disk_is_full = false;
    settle(&pair.a);
    compare_nodes(&pair);
    CHECK_EQUAL(finish(&pair.a, named(FRAME_CREATE, directory, "x")), 0);
    settle(&pair.a);
    compare_nodes(&pair);
    pair_close(&pair);
}
