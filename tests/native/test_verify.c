/* Verify: nothing is found in copies that are equal, whatever the application does meanwhile; everything that was planted is. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "native.h"
#include "verify.h"

static rfs_verification verified(struct node *node) {
    rfs_verification now;
    uint32_t before = events_seen(node, RFS_EVENT_VERIFIED);
    CHECK_EQUAL(rfs_verify_start(node->engine), 0);
    wait_event(node, RFS_EVENT_VERIFIED, before + 1);
    rfs_verify_progress(node->engine, &now);
    CHECK(!now.running);
    return now;
}

static void tell_found(struct node *node) {
    rfs_difference one;
    for (uint32_t i = 0; rfs_verify_difference(node->engine, i, &one) == 0; i++)
        fprintf(stderr, "found: '%s' kinds %x %llu+%llu\n", one.path, one.kinds, (unsigned long long)one.offset, (unsigned long long)one.length);
}

/* With a storm over it, again and again. */
void test_verify_under_a_storm(void) {
    struct pair pair;
    struct storm storm;
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    pair_up(&pair, &pair.a, &pair.b);
    storm_prepare(&storm, &pair.a, 21);
    storm_start(&storm);
    storm_wait_rounds(&storm, 100);
    for (int round = 0; round < 25; round++) {
        rfs_verification now = verified(&pair.a);
        if (now.differences) tell_found(&pair.a);
        CHECK_EQUAL(now.result, 0);
        CHECK_EQUAL(now.differences, 0);
        CHECK_EQUAL(now.asked_again, 0); /* not even at first sight */
        CHECK(now.bytes_done && now.files_done);
    }
    storm_stop(&storm);
    settle(&pair.a);
    compare_nodes(&pair);
    pair_close(&pair);
}

/* Its answers may be lost with the link: it says so, and does not call the copies equal. */
void test_verify_ends_with_the_link(void) {
    struct pair pair;
    struct storm storm;
    rfs_verification now;
    pair_open(&pair);
    CHECK_EQUAL(rfs_verify_start(pair.a.engine), -ENOTCONN);
    pair.session.resync_bytes_per_s = 1 << 20; /* so that it is still at it */
    node_alone(&pair.a, 1, 0);
    pair_up(&pair, &pair.a, &pair.b);
    CHECK_EQUAL(rfs_verify_start(pair.b.engine), -ENOTCONN);
    storm_prepare(&storm, &pair.a, 22);
    storm_start(&storm);
    storm_wait_rounds(&storm, 100);
    for (uint32_t round = 0; round < 3; round++) {
        CHECK_EQUAL(rfs_verify_start(pair.a.engine), 0);
        CHECK_EQUAL(rfs_verify_start(pair.a.engine), -EBUSY);
        storm_wait_rounds(&storm, 20);
        pair_cut(&pair);
        pair_resume(&pair, &pair.a, &pair.b);
        wait_event(&pair.a, RFS_EVENT_VERIFIED, round + 1);
        rfs_verify_progress(pair.a.engine, &now);
        CHECK_EQUAL(now.result, -ENOTCONN);
    }
    CHECK_EQUAL(rfs_verify_start(pair.a.engine), 0);
    CHECK_EQUAL(rfs_verify_stop(pair.a.engine), 0);
    rfs_verify_progress(pair.a.engine, &now);
    CHECK_EQUAL(now.result, -ECANCELED);
    storm_stop(&storm);
    settle(&pair.a);
    compare_nodes(&pair);
    pair_close(&pair);
}

static const rfs_difference *differs(struct node *node, const char *path, uint32_t kinds) {
    static rfs_difference one;
    for (uint32_t i = 0; rfs_verify_difference(node->engine, i, &one) == 0; i++)
        if (!strcmp(one.path, path) && one.kinds == kinds) return &one;
    tell_found(node);
    fail_at(path, 0, "this difference was not found");
}

enum { PLACES = 12, LARGE = 1 << 20 };

static void make_places(struct pair *pair) {
    static uint8_t content[LARGE];
    for (int i = 0; i < PLACES; i++) {
        char name[32];
        snprintf(name, sizeof name, "file%d", i);
        uint64_t fid = create_file(&pair->a, ROOT, name);
        memset(content, i, sizeof content);
        CHECK_EQUAL(finish(&pair->a, writing(fid, 0, content, i ? 1000 : LARGE)), 0);
    }
    uint64_t sub = create_directory(&pair->a, ROOT, "sub"), sparse = create_file(&pair->a, sub, "sparse");
    struct op *op = attributing(sparse, HAS_SIZE);
    op->body.length = 300 << 20;
    CHECK_EQUAL(finish(&pair->a, op), 0);
    CHECK_EQUAL(finish(&pair->a, linking(fid_of(&pair->a, ROOT, "file9"), sub, "link9")), 0);
    op = named(FRAME_SYMLINK, sub, "symlink");
    op->data = (uint8_t *)strdup("somewhere");
    op->body.data_bytes = 9;
    CHECK_EQUAL(finish(&pair->a, op), 0);
    for (int i = 0; i < 3000; i++) { /* a directory whose names go over in several questions */
        char name[200];
        snprintf(name, sizeof name, "%0150d", i);
        if (i == 0) sub = create_directory(&pair->a, ROOT, "many");
        create_file(&pair->a, sub, name);
    }
    settle(&pair->a);
}

static void change_byte(const char *path, off_t at) {
    uint8_t byte = 77;
    struct timespec times[2];
    struct stat stat;
    CHECK_EQUAL(lstat(path, &stat), 0);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0 && pwrite(fd, &byte, 1, at) == 1);
    times[0] = stat.st_atim;
    times[1] = stat.st_mtim;
    CHECK_EQUAL(futimens(fd, times), 0);
    close(fd);
}

/* Beneath the secondary's guard, one difference of each kind. */
static void plant(const struct node *node) {
    char path[600], other[600];
    struct stat root;
    CHECK_EQUAL(stat(node->path, &root), 0);
#define AT(name) (snprintf(path, sizeof path, "%s/%s", node->path, name), path)
    change_byte(AT("file0"), 600000);
    CHECK_EQUAL(chmod(AT("file1"), 0711), 0);
    CHECK_EQUAL(setxattr(AT("file2"), "user.planted", "x", 1, 0), 0);
    CHECK_EQUAL(chown(AT("file3"), 7, 7), 0);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 5}};
    CHECK_EQUAL(utimensat(AT_FDCWD, AT("file4"), times, 0), 0);
    CHECK_EQUAL(unlink(AT("file5")), 0);
    CHECK_EQUAL(truncate(AT("file6"), 999), 0);
    make_file(node, "extra", "x", 1);
    make_file(node, "sub/new", "x", 1); /* made before the old one goes: else it may get its inode number, and is told as missing */
    CHECK_EQUAL(rename(AT("sub/new"), (snprintf(other, sizeof other, "%s/sub/link9", node->path), other)), 0);
    CHECK_EQUAL(symlink("elsewhere", AT("sub/new")), 0);
    CHECK_EQUAL(rename(path, (snprintf(other, sizeof other, "%s/sub/symlink", node->path), other)), 0);
    change_byte(AT("sub/sparse"), 200 << 20);
    snprintf(other, sizeof other, "%s/many/%0150d", node->path, 17);
    CHECK_EQUAL(unlink(other), 0);
    times[1] = root.st_mtim;
    CHECK_EQUAL(utimensat(AT_FDCWD, node->path, times, 0), 0);
#undef AT
}

void test_verify_finds(void) {
    struct pair pair;
    char name[200];
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    pair_up(&pair, &pair.a, &pair.b);
    make_places(&pair);
    CHECK_EQUAL(verified(&pair.a).differences, 0);
    plant(&pair.b);
    rfs_verification now = verified(&pair.a);
    CHECK_EQUAL(now.result, 0);
    const rfs_difference *one = differs(&pair.a, "file0", RFS_DIFFERS_CONTENT);
    CHECK(one->offset <= 600000 && one->offset + one->length > 600000 && one->length == VERIFY_BLOCK_BYTES);
    differs(&pair.a, "file1", RFS_DIFFERS_MODE);
    differs(&pair.a, "file2", RFS_DIFFERS_XATTRS);
    differs(&pair.a, "file3", RFS_DIFFERS_OWNER);
    differs(&pair.a, "file4", RFS_DIFFERS_MTIME);
    differs(&pair.a, "file5", RFS_DIFFERS_MISSING);
    differs(&pair.a, "file6", RFS_DIFFERS_SIZE | RFS_DIFFERS_MTIME);
    differs(&pair.a, "file6", RFS_DIFFERS_CONTENT);
    differs(&pair.a, "extra", RFS_DIFFERS_EXTRA);
    differs(&pair.a, "sub/link9", RFS_DIFFERS_OBJECT);
    differs(&pair.a, "sub/symlink", RFS_DIFFERS_OBJECT);
    one = differs(&pair.a, "sub/sparse", RFS_DIFFERS_CONTENT);
    CHECK(one->offset == 200 << 20 && one->length == VERIFY_BLOCK_BYTES);
    snprintf(name, sizeof name, "many/%0150d", 17);
    differs(&pair.a, name, RFS_DIFFERS_MISSING);
    differs(&pair.a, "sub", RFS_DIFFERS_MTIME);
    differs(&pair.a, "many", RFS_DIFFERS_MTIME);
    if (now.differences != 15) tell_found(&pair.a);
    CHECK_EQUAL(now.differences, 15);
    pair_up(&pair, &pair.a, &pair.b); /* a resync repairs it all */
    settle(&pair.a);
    compare_nodes(&pair);
    CHECK_EQUAL(verified(&pair.a).differences, 0);
    pair_close(&pair);
}

/* A session of marks: of most files the target has heard nothing in it, and finds them by their names and the ids that are written on them. */
void test_verify_of_what_was_not_named(void) {
    struct pair pair;
    struct storm storm;
    char path[256];
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    storm_prepare(&storm, &pair.a, 23);
    storm_start(&storm);
    storm_wait_rounds(&storm, 200);
    storm_stop(&storm);
    uint64_t quiet = create_directory(&pair.a, ROOT, "quiet"), file = create_file(&pair.a, quiet, "file");
    CHECK_EQUAL(finish(&pair.a, writing(file, 100000, "never touched again", 19)), 0);
    CHECK_EQUAL(finish(&pair.a, linking(file, ROOT, "its other name")), 0);
    uint64_t busy = create_directory(&pair.a, ROOT, "busy"), marked = create_file(&pair.a, busy, "marked"); /* no storm removes it */
    for (int round = 0; round < 3; round++) {
        pair_up(&pair, &pair.a, &pair.b);
        settle(&pair.a);
        pair_checkpoint(&pair.a, &pair.b);
        pair_cut(&pair);
        CHECK_EQUAL(rfs_grant(pair.a.engine, ++pair.session.generation, 1), 0);
        CHECK_EQUAL(finish(&pair.a, writing(marked, 0, "marked", 6)), 0);
        CHECK_EQUAL(node_restart(&pair.b, true), 1);
        pair_up(&pair, &pair.a, &pair.b);
        CHECK_EQUAL(pair.session.everything, 0);
        if (round == 1) storm_start(&storm);
        for (int i = 0; i < 5; i++) {
            rfs_verification now = verified(&pair.a);
            if (now.differences || now.asked_again) tell_found(&pair.a);
            CHECK_EQUAL(now.result, 0);
            CHECK_EQUAL(now.differences, 0);
            CHECK_EQUAL(now.asked_again, 0);
        }
        if (round == 1) storm_stop(&storm);
    }
    CHECK_EQUAL(node_statistics(&pair.b).applied_seq > 0, 1);
    path_in(&pair.b, "quiet/file", path);
    change_byte(path, 100005);
    path_in(&pair.b, "quiet/extra", path);
    make_file(&pair.b, "quiet/extra", "x", 1);
    CHECK_EQUAL(verified(&pair.a).result, 0);
    differs(&pair.a, "quiet/file", RFS_DIFFERS_CONTENT);
    differs(&pair.a, "quiet/extra", RFS_DIFFERS_EXTRA);
    CHECK_EQUAL(events_seen(&pair.b, RFS_EVENT_APPLY_FAILED), 0);
    pair_close(&pair);
}
