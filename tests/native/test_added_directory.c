/* A directory is added to two nodes that run: what it holds on the primary is copied in a session of marks, and from then on mirrored. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "native.h"

enum { ADDED = FIRST_DIRECTORY_FID + 1, CONTENT_BYTES = 300000 };

static void added_path(const struct node *node, char out[80]) { snprintf(out, 80, "%s-added", node->path); }

static void make_added(const struct node *node) {
    char path[80];
    added_path(node, path);
    CHECK_EQUAL(mkdir(path, 0755), 0);
}

static void add(struct node *node) {
    char path[80];
    added_path(node, path);
    int tree = rfs_tree_open(path);
    CHECK(tree >= 0);
    CHECK_EQUAL(rfs_add_directory(node->engine, tree), 1);
    CHECK_EQUAL(rfs_mark_directory(node->engine, 1), 0);
    close(tree);
}

static void fill(const struct node *node) {
    static uint8_t content[CONTENT_BYTES];
    char path[80], below[200];
    struct chance chance = {5};
    for (size_t i = 0; i < sizeof content; i++) content[i] = (uint8_t)chance_next(&chance);
    added_path(node, path);
    for (int i = 0; i < 3; i++) {
        snprintf(below, sizeof below, "%s/directory%d", path, i);
        CHECK_EQUAL(mkdir(below, 0750), 0);
        snprintf(below, sizeof below, "%s/directory%d/file", path, i);
        int fd = open(below, O_CREAT | O_WRONLY | O_CLOEXEC, 0640);
        CHECK(fd >= 0 && write(fd, content, (size_t)(CONTENT_BYTES / (i + 1))) == CONTENT_BYTES / (i + 1));
        CHECK_EQUAL(close(fd), 0);
    }
    char link_path[200];
    snprintf(link_path, sizeof link_path, "%s/link", path);
    CHECK_EQUAL(link(below, link_path), 0);
    CHECK_EQUAL(symlink("nowhere", (snprintf(below, sizeof below, "%s/symlink", path), below)), 0);
}

static void compare_added(struct pair *pair) {
    char a[80], b[80];
    added_path(&pair->a, a);
    added_path(&pair->b, b);
    compare_trees(a, b);
}

/* With the directories that were added. */
static void close_all(struct pair *pair) {
    char paths[2][80], command[200];
    added_path(&pair->a, paths[0]);
    added_path(&pair->b, paths[1]);
    pair_close(pair);
    snprintf(command, sizeof command, "rm -rf %s %s", paths[0], paths[1]);
    CHECK_EQUAL(system(command), 0);
}

void test_added_directory(void) {
    struct pair pair;
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    uint64_t file = create_file(&pair.a, ROOT, "file");
    pair_up(&pair, &pair.a, &pair.b);
    pair_checkpoint(&pair.a, &pair.b);
    make_added(&pair.a);
    make_added(&pair.b);
    fill(&pair.a);
    CHECK_EQUAL(rfs_add_directory(pair.a.engine, 0), -EBUSY); /* in a session the peer has another number of them */
    CHECK_EQUAL(rfs_add_directory(pair.b.engine, 0), -EBUSY);
    pair_cut(&pair);
    CHECK_EQUAL(rfs_session_close(pair.b.engine), 0);
    CHECK_EQUAL(rfs_session_close(pair.a.engine), 0);
    CHECK_EQUAL(rfs_add_directory(pair.a.engine, 0), -EBUSY); /* frozen: whether this node is to go on is not known yet */
    CHECK_EQUAL(rfs_grant(pair.a.engine, ++pair.session.generation, 1), 0);
    add(&pair.b);
    add(&pair.a);
    CHECK(create_file(&pair.a, ADDED, "made alone"));
    CHECK_EQUAL(finish(&pair.a, writing(file, 0, "alone", 5)), 0);
    pair_up(&pair, &pair.a, &pair.b);
    CHECK_EQUAL(pair.session.everything, 0);
    settle(&pair.a);
    compare_nodes(&pair);
    compare_added(&pair);
    uint64_t later = create_file(&pair.a, ADDED, "later");
    CHECK_EQUAL(finish(&pair.a, writing(later, 0, "mirrored", 8)), 0);
    CHECK_EQUAL(finish(&pair.a, renaming(ADDED, "later", ROOT, "later", 0)), -EXDEV);
    settle(&pair.a);
    compare_added(&pair);
    CHECK_EQUAL(events_seen(&pair.b, RFS_EVENT_APPLY_FAILED), 0);
    check_answered_once(&pair.a);
    close_all(&pair);
}

/* Its mark is durable before anything relies on it; and a node that takes it back knows nothing of it any more, also as a target. */
void test_added_and_taken_back(void) {
    struct pair pair;
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    uint64_t file = create_file(&pair.a, ROOT, "file");
    pair_up(&pair, &pair.a, &pair.b);
    pair_checkpoint(&pair.a, &pair.b);
    pair_cut(&pair);
    CHECK_EQUAL(rfs_session_close(pair.b.engine), 0);
    make_added(&pair.b);
    uint64_t places = node_statistics(&pair.b).marked_places;
    add(&pair.b);
    CHECK_EQUAL(node_restart(&pair.b, true), 1);
    CHECK_EQUAL(node_statistics(&pair.b).marked_places, places + 1);
    CHECK_EQUAL(rfs_grant(pair.a.engine, ++pair.session.generation, 1), 0);
    CHECK_EQUAL(finish(&pair.a, writing(file, 0, "alone", 5)), 0);
    pair_up(&pair, &pair.a, &pair.b);
    CHECK_EQUAL(pair.session.everything, 0);
    settle(&pair.a);
    compare_nodes(&pair);
    close_all(&pair);
}
