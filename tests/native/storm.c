/* Random ops from several threads on one tree. Names collide on purpose; the errors an application would see are fine. A
 * change of a shared directory's attributes is left out: the kernel orders it against that directory's entries, not we. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "native.h"

enum { THREADS = 4, DIRECTORIES = 6, FILES = 64, BATCH = 6, SMALL_FILES = 600 };

struct storming {
    struct storm *storm;
    struct chance chance;
    uint32_t number;
};

void storm_prepare(struct storm *storm, struct node *node, uint64_t seed) {
    memset(storm, 0, sizeof *storm);
    storm->node = node;
    const char *shift = getenv("LOCKSTEP_SEED"); /* other storms than the usual ones */
    storm->seed = seed + (shift ? strtoull(shift, NULL, 10) * 1000 : 0);
    storm->directories[0] = ROOT;
    for (int i = 1; i < DIRECTORIES; i++) {
        char name[32];
        snprintf(name, sizeof name, "storm%d", i);
        storm->directories[i] = create_directory(node, storm->directories[i / 2], name);
    }
    for (int i = 0; i < FILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "first%d", i);
        atomic_store(&storm->files[i], create_file(node, storm->directories[i % DIRECTORIES], name));
    }
}

static struct op *copying(struct chance *chance, uint64_t fid, uint64_t source) {
    struct op *op = op_new(FRAME_COPY);
    CHECK(op);
    op->body.fid = fid;
    op->body.other = source;
    op->body.offset = chance_below(chance, 250000);
    op->body.rdev = chance_below(chance, 250000);
    op->body.length = chance_below(chance, 100000);
    return op;
}

static struct op *data_op(struct chance *chance, uint64_t fid) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    static uint8_t pattern[70000 + 26];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; !pattern[sizeof pattern - 1] && i < sizeof pattern; i++) pattern[i] = (uint8_t)letters[i % 26];
    pthread_mutex_unlock(&lock);
    struct op *op;
    switch (chance_below(chance, 12)) {
    case 0: return syncing(fid);
    case 1:
        op = attributing(fid, HAS_SIZE);
        op->body.length = chance_below(chance, 300000);
        return op;
    case 2:
        op = attributing(fid, HAS_MODE | HAS_UID);
        op->body.mode = chance_below(chance, 07777);
        op->body.uid = chance_below(chance, 5);
        return op;
    case 3:
        op = attributing(fid, HAS_MTIME);
        op->body.child_mtime_ns = (int64_t)chance_below(chance, 1 << 30) * 1000000007;
        return op;
    case 4: return xattring(FRAME_SET_XATTR, fid, chance_below(chance, 2) ? "user.a" : "user.b", chance_below(chance, 2) ? "one" : "another");
    case 5: return xattring(FRAME_REMOVE_XATTR, fid, "user.a", "");
    case 6:
        op = op_new(FRAME_FALLOCATE);
        CHECK(op);
        op->body.fid = fid;
        op->body.offset = chance_below(chance, 200000);
        op->body.length = 1 + chance_below(chance, 100000);
        op->body.flags = chance_below(chance, 2) ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : 0;
        return op;
    default:
        op = writing(fid, chance_below(chance, 250000), pattern + chance_below(chance, 26), chance_below(chance, 4) ? chance_below(chance, 5000) : chance_below(chance, 70000));
        op->durable = !chance_below(chance, 20);
        return op;
    }
}

static struct op *name_op(struct storm *storm, struct chance *chance) {
    char name[32], name2[32];
    uint64_t parent = storm->directories[chance_below(chance, DIRECTORIES)], other = storm->directories[chance_below(chance, DIRECTORIES)];
    struct op *op;
    snprintf(name, sizeof name, "n%u", chance_below(chance, 12));
    snprintf(name2, sizeof name2, "n%u", chance_below(chance, 12));
    switch (chance_below(chance, 12)) {
    case 0: return named(FRAME_MKDIR, parent, name);
    case 1: return named(FRAME_RMDIR, parent, name);
    case 2:
    case 3: return named(FRAME_UNLINK, parent, name);
    case 4: return linking(atomic_load(&storm->files[chance_below(chance, FILES)]), parent, name);
    case 5:
        op = named(FRAME_SYMLINK, parent, name);
        op->data = (uint8_t *)strdup(name2);
        op->body.data_bytes = (uint32_t)strlen(name2);
        return op;
    case 6:
    case 7: return renaming(parent, name, other, name2, 0);
    case 8: return renaming(parent, name, other, name2, chance_below(chance, 2) ? RENAME_EXCHANGE : RENAME_NOREPLACE);
    case 9:
        snprintf(name, sizeof name, "storm%u", 1 + chance_below(chance, DIRECTORIES - 1)); /* whole trees move */
        return renaming(parent, name, other, name, 0);
    case 10: return named(FRAME_MKNOD, parent, name); /* a file, made but not opened */
    default: return named(FRAME_CREATE, parent, name);
    }
}

static void *storm_thread(void *argument) {
    struct storming *self = argument;
    struct storm *storm = self->storm;
    struct chance *chance = &self->chance;
    while (!atomic_load(&storm->stop)) {
        uint64_t tickets[BATCH];
        bool creates[BATCH];
        for (int i = 0; i < BATCH; i++) {
            uint64_t fid = atomic_load(&storm->files[chance_below(chance, FILES)]), source = atomic_load(&storm->files[chance_below(chance, FILES)]);
            uint32_t kind = chance_below(chance, 30);
            struct op *op = kind < 10 ? name_op(storm, chance) : kind < 12 ? copying(chance, fid, source) : data_op(chance, fid);
            creates[i] = op->type == FRAME_CREATE;
            tickets[i] = start(storm->node, op);
        }
        for (int i = 0; i < BATCH; i++) {
            int result = answer_of(storm->node, tickets[i]);
            CHECK((result != -EIO || storm->fenced) && result != -EROFS && result != -EBUSY && result != -EUCLEAN);
            if (result < 0) atomic_fetch_add(&storm->failures, 1);
            if (creates[i] && result == 0) atomic_store(&storm->files[chance_below(chance, FILES)], storm->node->fids[tickets[i]]);
        }
        atomic_fetch_add(&storm->rounds, 1);
    }
    free(self);
    return NULL;
}

void storm_stop_anyhow(struct storm *storm) {
    storm->fenced = true;
    atomic_store(&storm->stop, true);
    for (int i = 0; i < THREADS; i++) pthread_join(storm->threads[i], NULL);
    storm->fenced = false;
}

void storm_start(struct storm *storm) {
    atomic_store(&storm->stop, false);
    for (uint32_t i = 0; i < THREADS; i++) {
        struct storming *self = malloc(sizeof *self);
        CHECK(self);
        *self = (struct storming){storm, {storm->seed * 100 + i}, i};
        CHECK_EQUAL(pthread_create(&storm->threads[i], NULL, storm_thread, self), 0);
    }
}

void storm_wait_rounds(struct storm *storm, uint64_t more) {
    uint64_t until = atomic_load(&storm->rounds) + more, began = now_ns();
    while (atomic_load(&storm->rounds) < until) {
        struct timespec nap = {.tv_nsec = 2000000};
        nanosleep(&nap, NULL);
        CHECK(now_ns() - began < PATIENCE_S * (uint64_t)NS_PER_S);
    }
}

void storm_stop(struct storm *storm) {
    atomic_store(&storm->stop, true);
    for (int i = 0; i < THREADS; i++) pthread_join(storm->threads[i], NULL);
    check_answered_once(storm->node);
}

/* ---- the tests -------------------------------------------------------------------------------------------------------------- */

static void finish_storm(struct pair *pair, struct storm *storm) {
    storm_stop(storm);
    settle(&pair->a);
    CHECK_EQUAL(events_seen(&pair->b, RFS_EVENT_APPLY_FAILED), 0);
    CHECK_EQUAL(rfs_purge_holding(pair->b.engine, RFS_HELD), 0);
    compare_nodes(pair);
}

static void plant(const struct node *node, const char *name, const char *text) {
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", node->path, name);
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    CHECK_EQUAL(close(fd), 0);
}

void test_storm_paired(void) {
    struct pair pair;
    struct storm storm;
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    pair_up(&pair, &pair.a, &pair.b);
    storm_prepare(&storm, &pair.a, 1);
    storm_start(&storm);
    storm_wait_rounds(&storm, 3000);
    finish_storm(&pair, &storm);
    pair_close(&pair);
}

/* A copy that was made, grew stale while the source was alone, and is resynced under load; again and again. */
void test_storm_resyncing(void) {
    struct pair pair;
    struct storm storm;
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    storm_prepare(&storm, &pair.a, 2);
    pair.session.resync_bytes_per_s = 20 << 20; /* so that the walk and the storm really meet */
    for (int round = 0; round < 4; round++) {
        storm.seed++;
        storm_start(&storm);
        storm_wait_rounds(&storm, 300);
        pair.session.generation++;
        pair_up(&pair, &pair.a, &pair.b);
        storm_wait_rounds(&storm, 75);
        if (nodes_have_marks && round % 2 == 0) pair_checkpoint(&pair.a, &pair.b);
        storm_wait_rounds(&storm, 75);
        finish_storm(&pair, &storm);
        pair_cut(&pair);
        CHECK_EQUAL(rfs_grant(pair.a.engine, ++pair.session.generation, 1), 0);
    }
    pair_close(&pair);
}

struct small_files {
    struct storm *storm;
    rfs_engine *target;
    uint64_t fids[SMALL_FILES];
    uint32_t drained; /* that is the end of it */
    struct chance chance;
};

/* An application that begins to work in the middle of it; many writes at once, so that at times the walk is just at one of the files. (While it
 * works they go the usual way.) */
static void write_small_files(struct node *source, void *context) {
    struct small_files *small = context;
    struct timespec nap = {.tv_nsec = 100000};
    for (uint64_t began = now_ns(); atomic_load(&small->target->small_files) < SMALL_FILES / 6; nanosleep(&nap, NULL)) CHECK(now_ns() - began < PATIENCE_S * (uint64_t)NS_PER_S);
    storm_start(small->storm);
    while (events_seen(source, RFS_EVENT_DRAINED) < small->drained) {
        uint64_t tickets[100];
        for (int i = 0; i < 100; i++) tickets[i] = start(source, writing(small->fids[chance_below(&small->chance, SMALL_FILES)], chance_below(&small->chance, 20), "later", 5));
        for (int i = 0; i < 100; i++) CHECK_EQUAL(answer_of(source, tickets[i]), 0);
    }
}

/* The first copy of a tree with many small files, which go in one frame each, while it is changed. Round 1: the target is not as empty as was said. */
void test_storm_first_copy(void) {
    for (uint64_t round = 0; round < 3; round++) {
        struct pair pair;
        struct storm storm;
        char name[32];
        pair_open(&pair);
        node_alone(&pair.a, 1, 0);
        storm_prepare(&storm, &pair.a, 20 + round);
        struct small_files small = {.storm = &storm, .target = pair.b.engine, .drained = 1, .chance = {round}};
        for (uint32_t i = 0; i < SMALL_FILES; i++) {
            snprintf(name, sizeof name, "small%u", i);
            uint64_t file = small.fids[i] = create_file(&pair.a, storm.directories[i % DIRECTORIES], name);
            CHECK_EQUAL(finish(&pair.a, writing(file, i % 3 ? 0 : 1, name, strlen(name))), 0);
            if (i % 100 == 7) CHECK_EQUAL(finish(&pair.a, xattring(FRAME_SET_XATTR, file, "user.a", "small")), 0);
            if (round == 1 && i % 50 == 0 && i % DIRECTORIES == 0) plant(&pair.b, name, "longer than what is copied here");
        }
        pair.session.fresh = 1;
        struct timespec nap = {.tv_nsec = 30000000}; /* no application works any more */
        nanosleep(&nap, NULL);
        pair_up_while(&pair, &pair.a, &pair.b, write_small_files, &small);
        storm_wait_rounds(&storm, 30);
        finish_storm(&pair, &storm);
        pair_close(&pair);
    }
}

/* The link is lost for a moment, many times: the window goes out again and nothing is applied twice. */
void test_storm_resume(void) {
    struct pair pair;
    struct storm storm;
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    pair_up(&pair, &pair.a, &pair.b);
    storm_prepare(&storm, &pair.a, 7);
    storm_start(&storm);
    for (int round = 0; round < 15; round++) {
        storm_wait_rounds(&storm, 80);
        pair_cut(&pair);
        CHECK_EQUAL(node_statistics(&pair.a).mode, RFS_FROZEN);
        pair_resume(&pair, &pair.a, &pair.b);
    }
    CHECK_EQUAL(events_seen(&pair.a, RFS_EVENT_LINK_LOST), 15);
    finish_storm(&pair, &storm);
    pair_close(&pair);
}

/* Frozen in the middle, also of a resync; granted; alone; resynced. */
void test_storm_grant(void) {
    struct pair pair;
    struct storm storm;
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    storm_prepare(&storm, &pair.a, 9);
    storm_start(&storm);
    pair.session.resync_bytes_per_s = 20 << 20;
    for (int round = 0; round < 5; round++) {
        if (round % 2) {
            pair_connect(&pair, &pair.a, &pair.b); /* and not to its end */
            storm_wait_rounds(&storm, 25);
        } else {
            pair_up(&pair, &pair.a, &pair.b);
            storm_wait_rounds(&storm, 80);
        }
        pair_cut(&pair);
        CHECK_EQUAL(rfs_grant(pair.a.engine, ++pair.session.generation, 1), 0);
        storm_wait_rounds(&storm, 80);
    }
    pair_up(&pair, &pair.a, &pair.b);
    finish_storm(&pair, &storm);
    pair_close(&pair);
}
