/* The snapshot of what a resync overwrites: kept under a storm, through sessions that are cut off and processes that end, and put back exactly. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "native.h"

/* ---- a file system that clones ------------------------------------------------------------------------------------------------ */

static void run(const char *format, const char *a, const char *b) {
    char command[512];
    snprintf(command, sizeof command, format, a, b);
    CHECK_EQUAL(system(command), 0);
}

/* In a mount namespace of this program's own: it is gone with it, however it ends. */
static bool cloning_disk(char path[64]) {
    char image[80];
    snprintf(path, 64, "/tmp/lockstep-xfs-%d", (int)getpid());
    snprintf(image, sizeof image, "%s.image", path);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return false;
    if (mkdir(path, 0755) < 0 && errno != EEXIST) return false;
    char command[512];
    snprintf(command, sizeof command, "truncate -s 400M %s && mkfs.xfs -q -f -m reflink=1 %s && mount -o loop %s %s", image, image, image, path);
    bool done = system(command) == 0;
    unlink(image);
    if (!done) rmdir(path);
    return done;
}

static void open_target_on(struct pair *pair, const char *disk) {
    pair_open(pair);
    node_close(&pair->b, false);
    nodes_at = disk;
    node_open(&pair->b, "b");
}

static void remove_disk(const char *path) {
    CHECK_EQUAL(umount2(path, MNT_DETACH), 0);
    rmdir(path);
}

static int forget_id(const char *path, const struct stat *stat, int type, struct FTW *where) {
    (void)stat, (void)type, (void)where;
    lremovexattr(path, FID_ATTRIBUTE);
    return 0;
}

/* What must come back: all but the ids, which are given anew. */
static void remember(const struct node *node, const char *reference) {
    run("rm -rf %s%s", reference, "");
    run("cp -a %s %s", node->path, reference);
    run("rm -rf %s/" HOLDING_NAME " %s/" BEFORE_NAME, reference, reference);
    run("touch -r %s %s", node->path, reference);
    CHECK_EQUAL(nftw(reference, forget_id, 16, FTW_PHYS), 0);
}

static void cut_off(struct pair *pair) {
    pair_cut(pair);
    CHECK_EQUAL(rfs_session_close(pair->b.engine), 0);
    CHECK_EQUAL(rfs_grant(pair->a.engine, ++pair->session.generation, 1), 0);
}

static void nap(uint32_t us) {
    struct timespec time = {.tv_nsec = (long)us * 1000};
    nanosleep(&time, NULL);
}

/* Killed somewhere in it, by a process of its own. */
static void restore_and_die(struct node *node, uint32_t after_us) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int result = rfs_before_restore(node->engine);
        if (result < 0) fprintf(stderr, "restore: %s\n", strerror(-result));
        _exit(result == 0 ? 0 : 7);
    }
    nap(after_us);
    kill(child, SIGKILL);
    int status;
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
}

static void overwritten(struct pair *pair, struct storm *storm, struct chance *chance, bool whole) {
    CHECK_EQUAL(rfs_before_begin(pair->b.engine, whole), RFS_BEFORE_KEPT);
    if (chance_below(chance, 3)) {
        pair_connect(pair, &pair->a, &pair->b);
        nap(chance_below(chance, 2) ? chance_below(chance, 30000) : chance_below(chance, 900000));
        storm_wait_rounds(storm, 5);
    } else { /* to its end, but that is not adopted */
        uint32_t drained = events_seen(&pair->a, RFS_EVENT_DRAINED) + 1, ends = events_seen(&pair->b, RFS_EVENT_END_RECEIVED) + 1;
        pair_connect(pair, &pair->a, &pair->b);
        wait_event(&pair->a, RFS_EVENT_DRAINED, drained);
        CHECK_EQUAL(rfs_send_end(pair->a.engine), 0);
        wait_event(&pair->b, RFS_EVENT_END_RECEIVED, ends);
        storm_wait_rounds(storm, 20);
    }
    cut_off(pair);
    storm_wait_rounds(storm, 20);
}

void test_before_is_put_back(void) {
    struct pair pair;
    struct storm storm;
    struct chance chance = {nodes_have_marks ? 11 : 12};
    char disk[64], reference[80];
    if (!cloning_disk(disk)) {
        printf("skipped  what was before (needs root, a loop device and mkfs.xfs)\n");
        return;
    }
    snprintf(reference, sizeof reference, "%s/reference", disk);
    open_target_on(&pair, disk);
    node_alone(&pair.a, 1, 0);
    storm_prepare(&storm, &pair.a, 5);
    pair.session.resync_bytes_per_s = 20 << 20;
    for (int round = 0; round < 6; round++) {
        storm.seed++;
        storm_start(&storm);
        storm_wait_rounds(&storm, 150);
        pair_up(&pair, &pair.a, &pair.b);
        if (nodes_have_marks && round % 2) pair_checkpoint(&pair.a, &pair.b);
        storm_wait_rounds(&storm, 50);
        storm_stop(&storm);
        settle(&pair.a);
        compare_nodes(&pair);
        cut_off(&pair);
        remember(&pair.b, reference);
        storm_start(&storm);
        storm_wait_rounds(&storm, 100);
        uint32_t sessions = 1 + chance_below(&chance, 3);
        for (uint32_t i = 0; i < sessions; i++) {
            overwritten(&pair, &storm, &chance, i == 0);
            if (chance_below(&chance, 2)) node_restart(&pair.b, nodes_have_marks && chance_below(&chance, 2));
        }
        for (uint32_t i = chance_below(&chance, 4); i; i--) restore_and_die(&pair.b, chance_below(&chance, 40000));
        if (chance_below(&chance, 3) == 0) { /* the peer comes again, of all moments: first it is put back */
            overwritten(&pair, &storm, &chance, false);
        }
        CHECK_EQUAL(rfs_before_restore(pair.b.engine), 0);
        compare_trees(reference, pair.b.path);
        CHECK_EQUAL(rfs_before_restore(pair.b.engine), 0); /* once more changes nothing */
        compare_trees(reference, pair.b.path);
        CHECK_EQUAL(rfs_before_end(pair.b.engine), 0);
        CHECK(!exists(&pair.b, BEFORE_NAME) && !exists(&pair.b, HOLDING_NAME));
        compare_trees(reference, pair.b.path);
        storm_stop(&storm);
    }
    CHECK_EQUAL(events_seen(&pair.b, RFS_EVENT_APPLY_FAILED), 0);
    pair_up(&pair, &pair.a, &pair.b);
    settle(&pair.a);
    compare_nodes(&pair);
    pair_close(&pair);
    nodes_at = "/tmp";
    remove_disk(disk);
}

/* Nothing is kept where nothing can be cloned, and then nothing can be put back. */
void test_before_needs_clones(void) {
    struct pair pair;
    char disk[64];
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    make_file(&pair.b, "old", "old", 3);
    if (rfs_before_begin(pair.b.engine, 1) == RFS_BEFORE_KEPT) { /* /tmp is such a file system itself */
        CHECK_EQUAL(rfs_before_end(pair.b.engine), 0);
    } else {
        CHECK(!exists(&pair.b, BEFORE_NAME));
        CHECK_EQUAL(rfs_before_state(pair.b.engine), RFS_BEFORE_NONE);
        CHECK_EQUAL(rfs_before_restore(pair.b.engine), -ENOENT);
    }
    pair_close(&pair);
    if (!cloning_disk(disk)) return;
    nodes_at = disk;
    pair_open(&pair);
    CHECK_EQUAL(rfs_before_begin(pair.b.engine, 0), RFS_BEFORE_NONE); /* a copy that is not whole has nothing to keep */
    CHECK_EQUAL(rfs_before_begin(pair.b.engine, 1), RFS_BEFORE_KEPT);
    CHECK_EQUAL(rfs_before_begin(pair.b.engine, 0), RFS_BEFORE_KEPT);
    atomic_store(&names_are_failing, true); /* what a disk cannot read is not taken for gone, and not thrown away */
    CHECK_EQUAL(rfs_before_begin(pair.b.engine, 0), -EIO);
    CHECK_EQUAL(rfs_before_restore(pair.b.engine), -EIO);
    atomic_store(&names_are_failing, false);
    CHECK_EQUAL(rfs_before_state(pair.b.engine), RFS_BEFORE_KEPT);
    pair_close(&pair);
    nodes_at = "/tmp";
    remove_disk(disk);
}

/* What it holds on to is room that the resync needs: it is given up, and the resync goes on. */
void test_before_gives_way(void) {
    static uint8_t block[1 << 20];
    struct pair pair;
    char disk[64];
    if (!cloning_disk(disk)) return;
    open_target_on(&pair, disk);
    node_alone(&pair.a, 1, 0);
    uint64_t fid = create_file(&pair.a, ROOT, "large");
    memset(block, 'a', sizeof block);
    for (uint64_t at = 0; at < 200; at++) CHECK_EQUAL(finish(&pair.a, writing(fid, at << 20, block, sizeof block)), 0);
    pair_up(&pair, &pair.a, &pair.b);
    cut_off(&pair);
    memset(block, 'b', sizeof block);
    for (uint64_t at = 0; at < 200; at++) CHECK_EQUAL(finish(&pair.a, writing(fid, at << 20, block, sizeof block)), 0);
    CHECK_EQUAL(rfs_before_begin(pair.b.engine, 1), RFS_BEFORE_KEPT);
    pair_up(&pair, &pair.a, &pair.b);
    settle(&pair.a);
    CHECK(events_seen(&pair.b, RFS_EVENT_BEFORE_LOST) == 1 && events_seen(&pair.b, RFS_EVENT_APPLY_FAILED) == 0);
    CHECK_EQUAL(rfs_before_state(pair.b.engine), RFS_BEFORE_NONE);
    compare_nodes(&pair);
    CHECK_EQUAL(rfs_before_restore(pair.b.engine), -ENOENT);
    CHECK_EQUAL(rfs_before_end(pair.b.engine), 0);
    pair_close(&pair);
    nodes_at = "/tmp";
    remove_disk(disk);
}
