/* A manifest is sorted, whole, without what is local; block hashes come from beneath the tree only. (tests/unit/test_manifest.py reads them.) */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "native.h"

enum { HEAD_BYTES = 86, PATH_AT = 82 };

static size_t count_entries(int fd, char paths[][32], size_t most) {
    static uint8_t all[1 << 20];
    ssize_t bytes = pread(fd, all, sizeof all, 0);
    size_t count = 0;
    CHECK(bytes > 0);
    for (size_t at = 0; at < (size_t)bytes; count++) {
        uint32_t length;
        uint16_t path_bytes;
        memcpy(&length, all + at, 4);
        memcpy(&path_bytes, all + at + PATH_AT, 2);
        length = le32toh(length);
        path_bytes = le16toh(path_bytes);
        CHECK(at + 4 + length <= (size_t)bytes && count < most && path_bytes < 32);
        memcpy(paths[count], all + at + HEAD_BYTES, path_bytes);
        paths[count][path_bytes] = 0;
        at += 4 + length;
    }
    return count;
}

void test_manifest(void) {
    struct node node;
    char path[256], paths[16][32];
    static const char *const wanted[] = {"", "a", "a/below", "a-b", "large", "link"};
    static uint8_t content[300000];
    node_open(&node, "a");
    path_in(&node, "a", path);
    CHECK_EQUAL(mkdir(path, 0700), 0);
    make_file(&node, "a/below", "x", 1);
    make_file(&node, "a-b", "", 0);
    make_file(&node, "local.tmp", "x", 1);
    memset(content + 140000, 1, 10);
    make_file(&node, "large", content, sizeof content);
    path_in(&node, "link", path);
    CHECK_EQUAL(symlink("/etc/passwd", path), 0);
    int tree = open(node.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), out = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    CHECK(tree >= 0 && out >= 0);
    rfs_manifest *manifest = rfs_manifest_new(tree, 0, 1);
    CHECK(manifest);
    CHECK_EQUAL(rfs_manifest_pattern(manifest, "*.tmp", 0), 0);
    CHECK_EQUAL(rfs_manifest_pattern(manifest, "a//b", 0), -EINVAL);
    CHECK_EQUAL(rfs_manifest_write(manifest, out), 0);
    CHECK_EQUAL(count_entries(out, paths, 16), 6);
    for (int i = 0; i < 6; i++) CHECK(!strcmp(paths[i], wanted[i]));
    uint64_t entries, bytes, size;
    rfs_manifest_progress(manifest, &entries, &bytes);
    CHECK_EQUAL(entries, 6);
    rfs_manifest_stop(manifest);
    CHECK_EQUAL(rfs_manifest_write(manifest, out), -ECANCELED);
    rfs_manifest_free(manifest);
    uint8_t hashes[16 * 8] = {0};
    static const uint8_t zero[16];
    CHECK_EQUAL(rfs_block_hashes(tree, "large", 0, 8, hashes, &size), 5);
    CHECK_EQUAL(size, sizeof content);
    for (int i = 0; i < 5; i++) CHECK_EQUAL(memcmp(hashes + i * 16, zero, 16) != 0, i == 2);
    CHECK_EQUAL(rfs_block_hashes(tree, "large", 3 * 65536, 8, hashes, &size), 2);
    CHECK_EQUAL(rfs_block_hashes(tree, "large", 1, 1, hashes, &size), -EINVAL);
    CHECK_EQUAL(rfs_block_hashes(tree, "large", 1 << 30, 1, hashes, &size), 0);
    CHECK_EQUAL(rfs_block_hashes(tree, "link", 0, 1, hashes, &size), -ELOOP);
    CHECK_EQUAL(rfs_block_hashes(tree, "../passwd", 0, 1, hashes, &size), -EXDEV);
    CHECK_EQUAL(rfs_block_hashes(tree, "a", 0, 1, hashes, &size), -EINVAL);
    CHECK_EQUAL(rfs_block_hashes(tree, "none", 0, 1, hashes, &size), -ENOENT);
    close(tree);
    close(out);
    node_close(&node, false);
}
