/* One node: the inode table, descriptors, and ops on the local tree. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "native.h"

enum { MANY = 100000, FIRST_TEST_FID = 1 << 20 };
#define FIRST_TEST_NUMBER (UINT64_C(1) << 40) /* no file system here has such inode numbers */

/* Many objects are one file here: the table believes the number it is told. */
void test_table(void) {
    struct node node;
    struct stat stat;
    node_open(&node, "table");
    rfs_engine *engine = node.engine;
    size_t before = engine->inodes.count;
    make_file(&node, "x", "x", 1);
    int fd = openat(engine->directory[0].root_fd, "x", O_PATH | O_CLOEXEC);
    CHECK(fd >= 0 && fstat(fd, &stat) == 0);
    for (uint64_t i = 0; i < MANY; i++) {
        struct inode *inode;
        stat.st_ino = FIRST_TEST_NUMBER + i;
        CHECK_EQUAL(inode_adopt(engine, 0, fd, &stat, FIRST_TEST_FID + i, 0, &inode), 0);
        if (i % 3 == 1) inode_looked_up(engine, inode);
        if (i % 3) inode_drop(engine, inode, -1); /* 1: kept by the kernel's reference, 2: gone with ours */
        inode_put(engine, inode);
    }
    CHECK_EQUAL(engine->inodes.count, before + MANY - MANY / 3);
    for (uint64_t i = 0; i < MANY; i++) {
        struct inode *inode = inode_get(engine, FIRST_TEST_FID + i);
        CHECK(!inode == (i % 3 == 2));
        CHECK(inode_known(engine, 0, FIRST_TEST_NUMBER + i) == (i % 3 == 0)); /* an orphan's number may be used again */
        if (inode) CHECK(inode->fid == FIRST_TEST_FID + i && inode->number == FIRST_TEST_NUMBER + i);
        inode_put(engine, inode);
    }
    for (uint64_t i = 1; i < MANY; i += 3) {
        inode_forget(engine, FIRST_TEST_FID + i, 5); /* more than it has: still only gone */
        CHECK(!inode_get(engine, FIRST_TEST_FID + i));
    }
    CHECK_EQUAL(engine->inodes.count, before + (MANY + 2) / 3);
    struct inode *renamed, *again;
    stat.st_ino = FIRST_TEST_NUMBER;
    CHECK_EQUAL(inode_adopt(engine, 0, fd, &stat, FIRST_TEST_FID + MANY, 0, &renamed), 0); /* the same object under a new id */
    CHECK(!inode_get(engine, FIRST_TEST_FID));
    stat.st_ino = FIRST_TEST_NUMBER; /* each time it is filled anew */
    CHECK_EQUAL(inode_adopt(engine, 0, fd, &stat, FIRST_TEST_FID + MANY, 0, &again), 0);
    CHECK(again == renamed);
    stat.st_ino = FIRST_TEST_NUMBER;
    CHECK_EQUAL(inode_adopt(engine, 0, fd, &stat, FIRST_TEST_FID + MANY + 1, 0, &again), -EBUSY); /* in use */
    stat.st_ino = FIRST_TEST_NUMBER - 1;
    CHECK_EQUAL(inode_adopt(engine, 0, fd, &stat, FIRST_TEST_FID + 3, 0, &again), -EEXIST);
    inode_put(engine, renamed);
    inode_put(engine, renamed);
    inodes_forget_all(engine);
    CHECK_EQUAL(engine->inodes.count, before);
    close(fd);
    node_close(&node, false);
}

/* A restore that brings the attributes along makes two files with one id: the second one met gets its own. */
void test_duplicate_ids(void) {
    struct node node;
    char path[128], id[16];
    node_open(&node, "duplicates");
    node_alone(&node, 1, 0);
    make_file(&node, "one", "1", 1);
    make_file(&node, "two", "2", 1);
    uint64_t one = fid_of(&node, ROOT, "one");
    CHECK(one);
    snprintf(path, sizeof path, "%s/one", node.path);
    CHECK_EQUAL(getxattr(path, FID_ATTRIBUTE, id, sizeof id), 16);
    snprintf(path, sizeof path, "%s/two", node.path);
    CHECK_EQUAL(setxattr(path, FID_ATTRIBUTE, id, sizeof id, 0), 0);
    uint64_t two = fid_of(&node, ROOT, "two");
    CHECK(two && two != one);
    CHECK_EQUAL(fid_of(&node, ROOT, "one"), one);
    CHECK_EQUAL(fid_of(&node, ROOT, "none"), 0);
    node_close(&node, false);
}

struct tagging {
    struct node *node;
    uint64_t fids[200];
};

static void *tag_all(void *argument) {
    struct tagging *tagging = argument;
    char name[32];
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "f%d", i);
        tagging->fids[i] = fid_of(tagging->node, ROOT, name);
    }
    return NULL;
}

void test_parallel_tagging(void) {
    struct node node;
    struct tagging found[4];
    pthread_t threads[4];
    char name[32];
    node_open(&node, "tagging");
    node_alone(&node, 1, 0);
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "f%d", i);
        make_file(&node, name, "", 0);
    }
    for (int i = 0; i < 4; i++) {
        found[i].node = &node;
        CHECK_EQUAL(pthread_create(&threads[i], NULL, tag_all, &found[i]), 0);
    }
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 200; i++)
        for (int k = 0; k < 4; k++) CHECK(found[k].fids[i] && found[k].fids[i] == found[0].fids[i]);
    node_close(&node, false);
}

/* A file without a name lives as long as somebody has it open, and no longer; its number is free at once. */
void test_orphans(void) {
    struct node node;
    char read_back[5] = "";
    node_open(&node, "orphans");
    node_alone(&node, 1, 0);
    uint64_t fid = create_file(&node, ROOT, "doomed");
    CHECK_EQUAL(finish(&node, writing(fid, 0, "hello", 5)), 0);
    struct inode *inode = inode_get(node.engine, fid);
    inode_looked_up(node.engine, inode);
    CHECK_EQUAL(finish(&node, named(FRAME_UNLINK, ROOT, "doomed")), 0);
    CHECK(inode->orphan && inode->pin_fd >= 0);
    CHECK(!inode_known(node.engine, 0, inode->number));
    CHECK_EQUAL(finish(&node, writing(fid, 0, "HELLO", 5)), 0);
    CHECK_EQUAL(finish(&node, syncing(fid)), 0);
    CHECK_EQUAL(finish(&node, linking(fid, ROOT, "revived")), -ENOENT);
    int fd = inode_open(node.engine, inode, O_RDONLY);
    CHECK(fd >= 0 && pread(fd, read_back, 5, 0) == 5 && !memcmp(read_back, "HELLO", 5));
    close(fd);
    inode_put(node.engine, inode);
    inode_forget(node.engine, fid, 1);
    CHECK(!inode_get(node.engine, fid));
    CHECK_EQUAL(finish(&node, writing(fid, 0, "x", 1)), -ESTALE);

    uint64_t directory = create_directory(&node, ROOT, "full");
    create_file(&node, directory, "inside");
    size_t before = open_descriptors();
    for (int i = 0; i < 50; i++) {
        char name[32];
        snprintf(name, sizeof name, "d%d", i);
        create_file(&node, create_directory(&node, ROOT, name), "inside");
        CHECK_EQUAL(finish(&node, named(FRAME_RMDIR, ROOT, name)), -ENOTEMPTY);
    }
    inodes_forget_all(node.engine); /* with the cached descriptors */
    CHECK(open_descriptors() <= before + 1);
    node_close(&node, false);
}

void test_descriptors(void) {
    struct node node;
    struct descriptor first, second, third;
    node_open(&node, "descriptors");
    node_alone(&node, 1, 0);
    rfs_engine *engine = node.engine;
    struct inode *inode = inode_get(engine, create_file(&node, ROOT, "x"));
    CHECK_EQUAL(descriptor_get(engine, inode, &first), 0);
    CHECK_EQUAL(descriptor_get(engine, inode, &second), 0);
    CHECK(first.fd == second.fd && first.slot == second.slot && first.slot >= 0);
    descriptor_drop(engine, inode->fid); /* in use: stays open, is not handed out again */
    CHECK(fcntl(first.fd, F_GETFD) >= 0);
    CHECK_EQUAL(descriptor_get(engine, inode, &third), 0);
    CHECK(third.fd != first.fd && third.slot == -1);
    int old = first.fd;
    descriptor_put(engine, &third);
    descriptor_put(engine, &first);
    CHECK(fcntl(old, F_GETFD) >= 0);
    descriptor_put(engine, &second);
    CHECK(fcntl(old, F_GETFD) < 0); /* the last user closed it */
    inode_put(engine, inode);
    size_t before = open_descriptors();
    for (int i = 0; i < 2000; i++) { /* more files than slots */
        char name[32];
        snprintf(name, sizeof name, "f%d", i);
        CHECK_EQUAL(finish(&node, writing(create_file(&node, ROOT, name), 0, "x", 1)), 0);
    }
    CHECK(open_descriptors() <= before + DESCRIPTOR_SLOTS);
    node_close(&node, false);
}

static struct stat stat_of(const struct node *node, const char *name) {
    char path[256];
    struct stat stat;
    snprintf(path, sizeof path, "%s/%s", node->path, name);
    CHECK_EQUAL(lstat(path, &stat), 0);
    return stat;
}

static void check_attributes(struct node *node, uint64_t fid) {
    struct op *op = attributing(fid, HAS_SIZE | HAS_MODE | HAS_MTIME | HAS_UID);
    op->body.length = 3;
    op->body.mode = 0604;
    op->body.uid = 7;
    op->body.child_mtime_ns = INT64_C(1000000000123456789);
    CHECK_EQUAL(finish(node, op), 0);
    struct stat stat = stat_of(node, "file");
    CHECK(stat.st_size == 3 && (stat.st_mode & 07777) == 0604 && stat.st_uid == 7 && stat_mtime_ns(&stat) == INT64_C(1000000000123456789));
    op = attributing(fid, HAS_MTIME);
    op->body.child_mtime_ns = -1500000000; /* before 1970 */
    CHECK_EQUAL(finish(node, op), 0);
    stat = stat_of(node, "file");
    CHECK_EQUAL(stat_mtime_ns(&stat), -1500000000);
    op = attributing(fid, HAS_SIZE);
    op->body.length = UINT64_MAX;
    CHECK_EQUAL(finish(node, op), -EINVAL);
}

static void check_xattrs(struct node *node, uint64_t fid) {
    char path[256], value[16];
    snprintf(path, sizeof path, "%s/file", node->path);
    CHECK_EQUAL(finish(node, xattring(FRAME_SET_XATTR, fid, "user.colour", "red")), 0);
    CHECK(getxattr(path, "user.colour", value, sizeof value) == 3 && !memcmp(value, "red", 3));
    CHECK_EQUAL(finish(node, xattring(FRAME_SET_XATTR, fid, FID_ATTRIBUTE, "0000000000000001")), -EPERM);
    CHECK_EQUAL(finish(node, xattring(FRAME_REMOVE_XATTR, fid, FID_ATTRIBUTE, "")), -EPERM);
    CHECK_EQUAL(finish(node, xattring(FRAME_REMOVE_XATTR, fid, "user.none", "")), -ENODATA);
    CHECK_EQUAL(finish(node, xattring(FRAME_REMOVE_XATTR, fid, "user.colour", "")), 0);
    CHECK(getxattr(path, "user.colour", value, sizeof value) < 0);
}

static void check_names(struct node *node, uint64_t fid) {
    uint64_t directory = create_directory(node, ROOT, "directory");
    CHECK_EQUAL(finish(node, named(FRAME_CREATE, ROOT, "file")), -EEXIST);
    CHECK_EQUAL(finish(node, named(FRAME_CREATE, ROOT, HOLDING_NAME)), -EPERM);
    CHECK_EQUAL(finish(node, named(FRAME_CREATE, fid, "x")), -ENOTDIR);
    CHECK_EQUAL(finish(node, named(FRAME_CREATE, 12345, "x")), -ESTALE);
    CHECK_EQUAL(finish(node, linking(fid, directory, "link")), 0);
    CHECK_EQUAL(stat_of(node, "directory/link").st_nlink, 2);
    CHECK_EQUAL(finish(node, renaming(ROOT, "file", directory, "link", 0)), 0); /* two names of one file: nothing happens */
    CHECK_EQUAL(stat_of(node, "file").st_nlink, 2);
    CHECK_EQUAL(finish(node, renaming(directory, "link", ROOT, "file", RENAME_NOREPLACE)), -EEXIST);
    CHECK_EQUAL(finish(node, renaming(ROOT, "directory", directory, "below", 0)), -EINVAL);
    CHECK_EQUAL(finish(node, named(FRAME_UNLINK, directory, "link")), 0);
    uint64_t other = create_file(node, directory, "other");
    CHECK_EQUAL(finish(node, renaming(ROOT, "file", directory, "other", RENAME_EXCHANGE)), 0);
    CHECK_EQUAL(fid_of(node, directory, "other"), fid);
    CHECK_EQUAL(fid_of(node, ROOT, "file"), other);
    CHECK_EQUAL(finish(node, renaming(directory, "other", ROOT, "file", 0)), 0); /* takes the place of the exchanged one */
    CHECK(!inode_get(node->engine, other));
    CHECK_EQUAL(finish(node, named(FRAME_RMDIR, ROOT, "directory")), 0);
    CHECK_EQUAL(finish(node, named(FRAME_RMDIR, ROOT, "file")), -ENOTDIR);
    CHECK_EQUAL(finish(node, named(FRAME_UNLINK, ROOT, "gone")), -ENOENT);
}

void test_local_operations(void) {
    struct node node;
    node_open(&node, "local");
    node_alone(&node, 5, 1);
    uint64_t fid = create_file(&node, ROOT, "file");
    CHECK_EQUAL(fid >> 40, 5 << 1 | 1); /* term and node in the high bits */
    CHECK_EQUAL(finish(&node, writing(fid, 10, "data", 4)), 0);
    CHECK_EQUAL(stat_of(&node, "file").st_size, 14);
    struct op *op = op_new(FRAME_FALLOCATE);
    op->body = (struct op_body){.fid = fid, .offset = 0, .length = 100000};
    CHECK_EQUAL(finish(&node, op), 0);
    CHECK_EQUAL(stat_of(&node, "file").st_size, 100000);
    op = op_new(FRAME_FALLOCATE);
    op->body = (struct op_body){.fid = fid, .offset = 0, .length = 4096, .flags = FALLOC_FL_COLLAPSE_RANGE};
    CHECK_EQUAL(finish(&node, op), -EOPNOTSUPP);
    op = op_new(FRAME_COPY);
    op->body = (struct op_body){.fid = fid, .other = fid, .offset = 14, .rdev = 0, .length = 15};
    CHECK_EQUAL(finish(&node, op), -EINVAL); /* onto itself */
    op = op_new(FRAME_COPY);
    op->body = (struct op_body){.fid = fid, .other = fid, .offset = 14, .rdev = 0, .length = 14};
    CHECK_EQUAL(finish(&node, op), 0);
    CHECK_EQUAL(finish(&node, syncing(fid)), 0);
    check_attributes(&node, fid);
    check_xattrs(&node, fid);
    check_names(&node, fid);
    check_answered_once(&node);
    node_close(&node, false);
}

/* What each mode does with a mutation, and that nothing is forgotten on the way. */
void test_roles(void) {
    struct node node;
    node_open(&node, "roles");
    CHECK_EQUAL(finish(&node, named(FRAME_CREATE, ROOT, "idle")), -EROFS);
    CHECK_EQUAL(rfs_become_primary(node.engine, 0, 0), -EINVAL);
    CHECK_EQUAL(rfs_become_primary(node.engine, 1, 0), 0);
    uint64_t waiting = start(&node, named(FRAME_CREATE, ROOT, "frozen")), second = start(&node, named(FRAME_CREATE, ROOT, "second"));
    uint64_t began = now_ns(); /* one that is just being tried again stands in no list, and is not counted for that moment */
    while (node_statistics(&node).waiting_ops != 2) CHECK(now_ns() - began < PATIENCE_S * UINT64_C(1000000000));
    CHECK(!is_answered(&node, waiting));
    CHECK_EQUAL(rfs_grant(node.engine, 9, 0), 0);
    wait_event(&node, RFS_EVENT_NEED_USED, 1);
    CHECK(!is_answered(&node, waiting));
    CHECK_EQUAL(rfs_set_used(node.engine), 0);
    CHECK_EQUAL(answer_of(&node, waiting), 0);
    CHECK_EQUAL(answer_of(&node, second), 0);
    CHECK_EQUAL(events_seen(&node, RFS_EVENT_NEED_USED), 1);
    CHECK_EQUAL(rfs_grant(node.engine, 10, 1), -EINVAL);
    uint64_t demoted = rfs_submit_demote(node.engine);
    CHECK_EQUAL(answer_of(&node, demoted), 0);
    CHECK_EQUAL(finish(&node, named(FRAME_CREATE, ROOT, "demoted")), -EROFS);
    CHECK_EQUAL(rfs_fence(node.engine), 0);
    CHECK_EQUAL(finish(&node, named(FRAME_CREATE, ROOT, "fenced")), -EIO);
    CHECK_EQUAL(answer_of(&node, rfs_submit_sync(node.engine)), 0);
    check_answered_once(&node);
    node_close(&node, false);
}
