/* The brake, on one node: what is judged to be much, where it goes, and that what is planted under Lockstep's own names is never believed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "brake.h"
#include "native.h"
#include "op.h"

void test_brake_holds(void) {
    CHECK(!brake_holds(0, 0));
    CHECK(!brake_holds(BRAKE_FILES - 1, 0));
    CHECK(brake_holds(BRAKE_FILES, BRAKE_FILES - 1));
    CHECK(!brake_holds(BRAKE_FILES, BRAKE_FILES)); /* as many were written anew */
    CHECK(brake_holds(1000000, 999999));
    CHECK(!brake_holds(1000000, 1000000));
}

static void touch(int directory_fd, const char *name) {
    int fd = openat(directory_fd, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    close(fd);
}

/* As a resync leaves it: one directory, with `count` files in it. */
static void hold_files(struct node *node, int root, unsigned count) {
    char name[32];
    CHECK_EQUAL(mkdirat(root, "lost", 0700), 0);
    int fd = openat(root, "lost", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "file%u", i);
        touch(fd, name);
    }
    close(fd);
    CHECK_EQUAL(hold(node->engine, 0, 0, 0, root, "lost"), 0);
}

static bool there(int root, const char *path) { return faccessat(root, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0; }

void test_brake(void) {
    struct node node;
    struct stat before, after;
    char arriving[48];
    node_open(&node, "a");
    int root = node.engine->directory[0].root_fd, held = held_open(node.engine, 0, 4711, arriving);
    touch(root, "left");
    hold_files(&node, root, BRAKE_FILES);
    touch(held, arriving);
    close(held);
    CHECK_EQUAL(fstat(root, &before), 0);
    CHECK_EQUAL(rfs_purge_holding(node.engine, RFS_HELD), 1);
    CHECK_EQUAL(fstat(root, &after), 0);
    CHECK_EQUAL(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
    CHECK_EQUAL(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
    CHECK(there(root, KEPT_NAME "/removed.1.1001-of-1002")); /* what is arriving was counted with it, and goes on */
    CHECK(there(root, HOLDING_NAME "/arriving.0000000000001267"));
    CHECK_EQUAL(rfs_purge_holding(node.engine, RFS_HELD), 0);

    hold_files(&node, root, BRAKE_FILES - 2);
    CHECK_EQUAL(rfs_purge_holding(node.engine, RFS_HELD), 0); /* few */
    hold_files(&node, root, BRAKE_FILES + 1);
    CHECK_EQUAL(rfs_purge_holding(node.engine, RFS_HELD | RFS_CONFIRMED), 0); /* asked for */
    CHECK(!there(root, KEPT_NAME "/removed.1.1002-of-1003"));
    hold_files(&node, root, BRAKE_FILES + 1);
    CHECK_EQUAL(rfs_purge_holding(node.engine, RFS_HELD | RFS_ARRIVING), 1);
    CHECK(there(root, KEPT_NAME "/removed.1.1002-of-1003") && there(root, KEPT_NAME "/removed.1.1001-of-1002"));
    CHECK(!there(root, HOLDING_NAME));

    hold_files(&node, root, BRAKE_FILES + 2); /* as many of as many once more: the number tells them apart */
    CHECK_EQUAL(rfs_purge_holding(node.engine, RFS_HELD), 1);
    CHECK(there(root, KEPT_NAME "/removed.1.1002-of-1003") && there(root, KEPT_NAME "/removed.2.1002-of-1003"));

    CHECK_EQUAL(rfs_discard_set_aside(node.engine), 0);
    CHECK(!there(root, KEPT_NAME "/removed.1.1002-of-1003") && !there(root, KEPT_NAME "/removed.1.1001-of-1002") && there(root, "left"));
    CHECK(!there(root, KEPT_NAME "/removed.2.1002-of-1003"));
    CHECK_EQUAL(rfs_discard_set_aside(node.engine), 0);
    node_close(&node, true);
}

/* Each kind of thing under each of the names, from somebody who may write in the root. */
static void plant(int root, const char *name, int kind) {
    switch (kind) {
    case 0: CHECK_EQUAL(symlinkat("/tmp", root, name), 0); break;
    case 1: CHECK_EQUAL(mknodat(root, name, S_IFIFO | 0666, 0), 0); break;
    case 2: touch(root, name); break;
    default: CHECK_EQUAL(mkdirat(root, name, 0777), 0); CHECK_EQUAL(fchownat(root, name, 4711, 4711, AT_SYMLINK_NOFOLLOW), 0);
    }
}

void test_planted_names(void) {
    static const char *const names[] = {HOLDING_NAME, KEPT_NAME, BEFORE_NAME};
    struct node node;
    struct stat stat;
    node_open(&node, "a");
    int root = node.engine->directory[0].root_fd;
    for (int kind = 0; kind < 4; kind++) {
        for (size_t i = 0; i < 3; i++) {
            plant(root, names[i], kind);
            CHECK_EQUAL(reserved_look(root, names[i]), -ENOENT);
        }
        CHECK_EQUAL(rfs_before_state(node.engine), RFS_BEFORE_NONE);
        CHECK_EQUAL(rfs_before_end(node.engine), 0); /* and it is no obstacle to a session */
        CHECK(!there(root, BEFORE_NAME));
        CHECK_EQUAL(rfs_purge_holding(node.engine, RFS_HELD | RFS_ARRIVING), 0);
        hold_files(&node, root, 1);
        CHECK_EQUAL(fstatat(root, HOLDING_NAME, &stat, AT_SYMLINK_NOFOLLOW), 0);
        CHECK(S_ISDIR(stat.st_mode) && (stat.st_mode & 07777) == 0700 && stat.st_uid == geteuid());
        touch(root, "local");
        CHECK_EQUAL(keep(node.engine, 0, root, "local"), 0);
        CHECK_EQUAL(rfs_purge_holding(node.engine, RFS_HELD), 0);
        CHECK(!there(root, HOLDING_NAME));
        int kept = reserved_look(root, KEPT_NAME);
        CHECK(kept >= 0);
        close(kept);
        char command[256];
        snprintf(command, sizeof command, "rm -rf %s/%s", node.path, KEPT_NAME);
        CHECK_EQUAL(system(command), 0);
    }
    node_close(&node, true);
}
