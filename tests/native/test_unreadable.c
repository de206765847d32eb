/* A disk that fails: the linker brings the engine's calls here. */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "native.h"

atomic_uint_fast64_t failing_directory;
atomic_bool ids_are_failing;
atomic_bool names_are_failing;

struct dirent *__real_readdir(DIR *stream);
struct dirent *__wrap_readdir(DIR *stream);
ssize_t __real_getxattr(const char *path, const char *name, void *value, size_t bytes);
ssize_t __wrap_getxattr(const char *path, const char *name, void *value, size_t bytes);
ssize_t __real_fgetxattr(int fd, const char *name, void *value, size_t bytes);
ssize_t __wrap_fgetxattr(int fd, const char *name, void *value, size_t bytes);

struct dirent *__wrap_readdir(DIR *stream) {
    uint64_t failing = atomic_load(&failing_directory);
    struct stat stat;
    if (!failing || fstat(dirfd(stream), &stat) < 0 || stat.st_ino != failing) return __real_readdir(stream);
    errno = EIO;
    return NULL;
}

ssize_t __wrap_getxattr(const char *path, const char *name, void *value, size_t bytes) {
    if (!atomic_load(&ids_are_failing) || strcmp(name, FID_ATTRIBUTE)) return __real_getxattr(path, name, value, bytes);
    errno = EIO;
    return -1;
}

ssize_t __wrap_fgetxattr(int fd, const char *name, void *value, size_t bytes) {
    if (!atomic_load(&ids_are_failing) || strcmp(name, FID_ATTRIBUTE)) return __real_fgetxattr(fd, name, value, bytes);
    errno = EIO;
    return -1;
}

int __real_faccessat(int fd, const char *name, int mode, int flags);
int __wrap_faccessat(int fd, const char *name, int mode, int flags);

int __wrap_faccessat(int fd, const char *name, int mode, int flags) {
    if (!atomic_load(&names_are_failing)) return __real_faccessat(fd, name, mode, flags);
    errno = EIO;
    return -1;
}

uint64_t number_of(const struct node *node, const char *name) {
    char path[1200];
    struct stat stat;
    snprintf(path, sizeof path, "%s/%s", node->path, name);
    CHECK_EQUAL(lstat(path, &stat), 0);
    return stat.st_ino;
}

/* Three long names make a path that is too long for a mark to tell: the source looks through its whole tree. */
static uint64_t far_below(struct node *node, char path[1024]) {
    uint64_t directory = ROOT;
    char name[201];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    path[0] = 0;
    for (int i = 0; i < 3; i++) {
        directory = create_directory(node, directory, name);
        strcat(strcat(path, i ? "/" : ""), name);
    }
    return directory;
}

/* A marked file in a directory that cannot be read is not gone: the session ends, and the next one compares everything. */
void test_what_cannot_be_read_is_not_gone(void) {
    struct pair pair;
    char path[1024];
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    uint64_t directory = far_below(&pair.a, path), file = create_file(&pair.a, directory, "file");
    CHECK_EQUAL(finish(&pair.a, writing(file, 0, "both", 4)), 0);
    pair_up(&pair, &pair.a, &pair.b);
    settle(&pair.a);
    pair_checkpoint(&pair.a, &pair.b);
    pair_cut(&pair);
    CHECK_EQUAL(rfs_grant(pair.a.engine, ++pair.session.generation, 1), 0);
    CHECK_EQUAL(finish(&pair.a, writing(file, 0, "left", 4)), 0);
    CHECK_EQUAL(rfs_fence(pair.a.engine), 0);
    CHECK_EQUAL(node_restart(&pair.a, true), 1);
    CHECK_EQUAL(node_restart(&pair.b, true), 1); /* and knows no ids */
    node_alone(&pair.b, 2, 1);
    uint32_t lost = events_seen(&pair.b, RFS_EVENT_LINK_LOST), lost_there = events_seen(&pair.a, RFS_EVENT_LINK_LOST), drained = events_seen(&pair.b, RFS_EVENT_DRAINED);
    atomic_store(&failing_directory, number_of(&pair.b, path));
    pair_connect(&pair, &pair.b, &pair.a);
    CHECK_EQUAL(pair.session.everything, 0);
    wait_event(&pair.b, RFS_EVENT_LINK_LOST, lost + 1);
    CHECK_EQUAL(events_seen(&pair.b, RFS_EVENT_DRAINED), drained);
    CHECK_EQUAL(node_statistics(&pair.b).marked_everything, 1);
    atomic_store(&failing_directory, 0);
    wait_event(&pair.a, RFS_EVENT_LINK_LOST, lost_there + 1);
    CHECK_EQUAL(rfs_grant(pair.b.engine, ++pair.session.generation, 1), 0);
    pair_up(&pair, &pair.b, &pair.a);
    settle(&pair.b);
    CHECK_EQUAL(pair.session.everything, 1);
    compare_nodes(&pair);
    pair_close(&pair);
}

/* What the source does not list and the target cannot find stays there: the session does not come to its end. */
void test_what_cannot_be_read_is_not_equal(void) {
    struct pair pair;
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    uint64_t directory = create_directory(&pair.a, ROOT, "directory");
    create_file(&pair.a, directory, "file");
    pair_up(&pair, &pair.a, &pair.b);
    settle(&pair.a);
    pair_checkpoint(&pair.a, &pair.b);
    pair_cut(&pair);
    CHECK_EQUAL(rfs_grant(pair.a.engine, ++pair.session.generation, 1), 0);
    CHECK_EQUAL(finish(&pair.a, named(FRAME_UNLINK, directory, "file")), 0);
    uint32_t lost = events_seen(&pair.a, RFS_EVENT_LINK_LOST), lost_there = events_seen(&pair.b, RFS_EVENT_LINK_LOST), ends = events_seen(&pair.b, RFS_EVENT_END_RECEIVED);
    atomic_store(&failing_directory, number_of(&pair.b, "directory"));
    pair_connect(&pair, &pair.a, &pair.b);
    wait_event(&pair.a, RFS_EVENT_LINK_LOST, lost + 1);
    CHECK_EQUAL(events_seen(&pair.b, RFS_EVENT_END_RECEIVED), ends);
    CHECK(exists(&pair.b, "directory/file"));
    atomic_store(&failing_directory, 0);
    wait_event(&pair.b, RFS_EVENT_LINK_LOST, lost_there + 1);
    CHECK_EQUAL(rfs_grant(pair.a.engine, ++pair.session.generation, 1), 0);
    CHECK_EQUAL(node_restart(&pair.b, true), 1);
    pair_up(&pair, &pair.a, &pair.b);
    settle(&pair.a);
    compare_nodes(&pair);
    pair_close(&pair);
}

/* An id that cannot be read is not none: no new one takes its place. */
void test_ids_that_cannot_be_read(void) {
    struct node node;
    node_open(&node, "ids");
    node_alone(&node, 1, 0);
    uint64_t file = create_file(&node, ROOT, "file");
    CHECK_EQUAL(node_restart(&node, false), 0);
    atomic_store(&ids_are_failing, true);
    CHECK_EQUAL(fid_of(&node, ROOT, "file"), 0);
    atomic_store(&ids_are_failing, false);
    CHECK_EQUAL(fid_of(&node, ROOT, "file"), file);
    node_close(&node, false);
}
