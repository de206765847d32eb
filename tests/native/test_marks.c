/* Resyncs of marked places: what travels, what is found again after restarts, and that nothing is missed. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "native.h"

/* A pair that is in sync, with nothing marked. */
static void open_synced(struct pair *pair) {
    pair_open(pair);
    node_alone(&pair->a, 1, 0);
}

static void sync_pair(struct pair *pair, struct node *source, struct node *target) {
    pair_up(pair, source, target);
    settle(source);
    pair_checkpoint(source, target);
    CHECK_EQUAL(node_statistics(source).marked_places, 0);
    CHECK_EQUAL(node_statistics(source).marked_everything, 0);
}

static void go_alone(struct pair *pair) {
    pair_cut(pair);
    CHECK_EQUAL(rfs_grant(pair->a.engine, ++pair->session.generation, 1), 0);
}

static void write_at(struct node *node, uint64_t fid, uint64_t offset, const char *text) { CHECK_EQUAL(finish(node, writing(fid, offset, text, strlen(text))), 0); }

static uint64_t large_file(struct node *node, const char *name, uint64_t bytes) {
    uint64_t fid = create_file(node, ROOT, name);
    struct op *op = attributing(fid, HAS_SIZE);
    op->body.length = bytes;
    CHECK_EQUAL(finish(node, op), 0);
    return fid;
}

static uint64_t sent_bytes(struct pair *pair) { return node_statistics(&pair->a).resync_sent_bytes; }

/* Only what was written is read and sent; names, attributes and links come along. */
void test_marked_places(void) {
    struct pair pair;
    open_synced(&pair);
    uint64_t large = large_file(&pair.a, "large", UINT64_C(1) << 30), directory = create_directory(&pair.a, ROOT, "directory");
    for (int i = 0; i < 200; i++) {
        char name[32];
        snprintf(name, sizeof name, "file%d", i);
        write_at(&pair.a, create_file(&pair.a, directory, name), 0, name);
    }
    uint64_t linked = create_file(&pair.a, ROOT, "linked");
    sync_pair(&pair, &pair.a, &pair.b);
    go_alone(&pair);
    for (uint64_t i = 0; i < 100; i++) write_at(&pair.a, large, i * 10485760 + 12345, "changed");
    CHECK_EQUAL(finish(&pair.a, linking(linked, directory, "another name")), 0);
    CHECK_EQUAL(finish(&pair.a, named(FRAME_UNLINK, directory, "file7")), 0);
    CHECK_EQUAL(finish(&pair.a, xattring(FRAME_SET_XATTR, large, "user.a", "b")), 0);
    rfs_statistics alone = node_statistics(&pair.a);
    CHECK(alone.marked_places >= 102 && alone.marked_places <= 110);
    CHECK_EQUAL(alone.marked_bytes, 100 * MARK_GRAIN_BYTES);
    sync_pair(&pair, &pair.a, &pair.b);
    compare_nodes(&pair);
    CHECK_EQUAL(node_statistics(&pair.a).resync_bytes_done, 100 * MARK_GRAIN_BYTES);
    CHECK(sent_bytes(&pair) < 2 * 100 * RESYNC_BLOCK_BYTES + 64 * 100 * MARK_GRAIN_BYTES / RESYNC_BLOCK_BYTES + 60000); /* the listing */
    pair_close(&pair);
}

/* What only the target has marked: it was primary, and its last ops never left. */
void test_marks_of_a_target(void) {
    struct pair pair;
    open_synced(&pair);
    uint64_t file = large_file(&pair.a, "file", 100 << 20), directory = create_directory(&pair.a, ROOT, "directory"), below = create_file(&pair.a, directory, "below");
    write_at(&pair.a, file, 50 << 20, "before");
    sync_pair(&pair, &pair.a, &pair.b);
    go_alone(&pair);
    write_at(&pair.a, file, 50 << 20, "after!");
    write_at(&pair.a, file, 80 << 20, "never heard of");
    CHECK_EQUAL(finish(&pair.a, renaming(directory, "below", ROOT, "above", 0)), 0);
    write_at(&pair.a, below, 0, "longer now");
    CHECK_EQUAL(finish(&pair.a, named(FRAME_CREATE, directory, "not there")), 0);
    CHECK_EQUAL(finish(&pair.a, named(FRAME_MKDIR, directory, "nor this")), 0);
    for (int crash = 0; crash < 2; crash++) {
        CHECK_EQUAL(node_restart(&pair.a, crash), 1);
        if (crash == 0) node_alone(&pair.a, 9, 0);
        if (crash == 0) write_at(&pair.a, fid_of(&pair.a, ROOT, "file"), 20 << 20, "and more");
    }
    CHECK_EQUAL(node_restart(&pair.b, true), 1); /* the new source has forgotten its ids as well */
    node_alone(&pair.b, 10, 1);
    sync_pair(&pair, &pair.b, &pair.a);
    compare_nodes(&pair);
    CHECK(node_statistics(&pair.b).resync_bytes_done < 20 << 20);
    CHECK(node_statistics(&pair.b).resync_sent_bytes < 100000);
    pair_close(&pair);
}

/* A tree that was renamed while the peer was away is renamed there: no content travels. */
void test_moved_trees(void) {
    struct pair pair;
    static uint8_t data[100000];
    char name[64];
    open_synced(&pair);
    uint64_t from = create_directory(&pair.a, ROOT, "from"), to = create_directory(&pair.a, ROOT, "to"), tree = create_directory(&pair.a, from, "tree");
    uint64_t inner = create_directory(&pair.a, tree, "inner");
    memset(data, 7, sizeof data);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "file%d", i);
        CHECK_EQUAL(finish(&pair.a, writing(create_file(&pair.a, inner, name), 0, data, sizeof data)), 0);
    }
    sync_pair(&pair, &pair.a, &pair.b);
    for (int forgets = 0; forgets < 2; forgets++) {
        go_alone(&pair);
        CHECK_EQUAL(finish(&pair.a, renaming(from, "tree", to, "moved", 0)), 0);
        CHECK_EQUAL(finish(&pair.a, renaming(inner, "file7", ROOT, "out of it", 0)), 0);
        CHECK_EQUAL(finish(&pair.a, renaming(tree, "inner", tree, "renamed", 0)), 0);
        write_at(&pair.a, fid_of(&pair.a, inner, "file8"), 5, "x");
        if (forgets) CHECK_EQUAL(node_restart(&pair.b, true), 1);
        sync_pair(&pair, &pair.a, &pair.b);
        compare_nodes(&pair);
        CHECK(sent_bytes(&pair) < 60000);
        CHECK_EQUAL(finish(&pair.a, renaming(to, "moved", from, "tree", 0)), 0);
        CHECK_EQUAL(finish(&pair.a, renaming(tree, "renamed", tree, "inner", 0)), 0);
        CHECK_EQUAL(finish(&pair.a, renaming(ROOT, "out of it", inner, "file7", 0)), 0);
        settle(&pair.a);
        compare_nodes(&pair);
    }
    pair_close(&pair);
}

/* After a crash a marked chunk is marked whole; after an orderly stop only what was touched. */
void test_marks_after_a_crash(void) {
    struct pair pair;
    open_synced(&pair);
    uint64_t file = large_file(&pair.a, "file", UINT64_C(1) << 30);
    sync_pair(&pair, &pair.a, &pair.b);
    go_alone(&pair);
    for (uint64_t i = 0; i < 10; i++) write_at(&pair.a, file, i * (100 << 20) + 1000, "changed");
    CHECK_EQUAL(node_restart(&pair.a, false), 1);
    CHECK_EQUAL(node_statistics(&pair.a).marked_bytes, 10 * MARK_GRAIN_BYTES);
    CHECK_EQUAL(node_restart(&pair.a, true), 1);
    CHECK_EQUAL(node_statistics(&pair.a).marked_bytes, 10 * (uint64_t)MARK_CHUNK_BYTES);
    node_alone(&pair.a, 2, 0);
    pair.session.generation++;
    sync_pair(&pair, &pair.a, &pair.b);
    compare_nodes(&pair);
    CHECK(node_statistics(&pair.a).resync_bytes_done <= 10 * (uint64_t)MARK_CHUNK_BYTES);
    pair_close(&pair);
}

/* The name under which it is known is gone, and no other one was ever looked up: the target searches. */
void test_hard_links_without_a_known_name(void) {
    struct pair pair;
    open_synced(&pair);
    uint64_t file = create_file(&pair.a, ROOT, "file"), directory = create_directory(&pair.a, ROOT, "directory");
    CHECK_EQUAL(finish(&pair.a, linking(file, directory, "second")), 0);
    sync_pair(&pair, &pair.a, &pair.b);
    go_alone(&pair);
    CHECK_EQUAL(node_restart(&pair.a, false), 1);
    node_alone(&pair.a, 2, 0);
    CHECK_EQUAL(fid_of(&pair.a, ROOT, "file"), file);
    CHECK_EQUAL(finish(&pair.a, named(FRAME_UNLINK, ROOT, "file")), 0);
    write_at(&pair.a, file, 0, "by its id alone");
    CHECK_EQUAL(node_restart(&pair.b, true), 1);
    pair.session.generation++;
    sync_pair(&pair, &pair.a, &pair.b);
    compare_nodes(&pair);
    write_at(&pair.a, file, 3, "again");
    settle(&pair.a);
    compare_nodes(&pair);
    pair_close(&pair);
}

/* While ops go on, a checkpoint leaves only the places that were touched since it began. */
void test_everything_under_load(void) {
    struct pair pair;
    struct storm storm;
    open_synced(&pair);
    storm_prepare(&storm, &pair.a, 51);
    pair_up(&pair, &pair.a, &pair.b);
    CHECK_EQUAL(node_statistics(&pair.a).marked_everything, 1);
    storm_start(&storm);
    storm_wait_rounds(&storm, 50);
    pair_checkpoint(&pair.a, &pair.b);
    CHECK_EQUAL(node_statistics(&pair.a).marked_everything, 0);
    storm_wait_rounds(&storm, 50);
    storm_stop(&storm);
    settle(&pair.a);
    compare_nodes(&pair);
    pair_close(&pair);
}

/* Doubt is durable, and the next session compares everything. */
void test_doubt(void) {
    struct pair pair;
    char name[64];
    open_synced(&pair);
    uint64_t directory = create_directory(&pair.a, ROOT, "directory");
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "%d", i);
        create_directory(&pair.a, directory, name);
    }
    sync_pair(&pair, &pair.a, &pair.b);
    go_alone(&pair);
    CHECK_EQUAL(rfs_mark_everything(pair.a.engine), 0);
    CHECK_EQUAL(node_restart(&pair.a, true), 0);
    CHECK_EQUAL(node_statistics(&pair.a).marked_everything, 1);
    node_alone(&pair.a, 2, 0);
    pair.session.generation++;
    sync_pair(&pair, &pair.a, &pair.b);
    compare_nodes(&pair);
    pair_close(&pair);
}

/* Writers in sequence whose ops wait for one batch: what memory holds for marked is in the log, to the last chunk. */
void test_chunks_ahead(void) {
    enum { ROUNDS = 60, WRITES = 12 };
    struct pair pair;
    uint64_t tickets[WRITES + 1];
    open_synced(&pair);
    uint64_t other = large_file(&pair.a, "other", UINT64_C(1) << 30), file = large_file(&pair.a, "file", UINT64_C(1) << 40);
    sync_pair(&pair, &pair.a, &pair.b);
    go_alone(&pair);
    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint64_t first = (1 + round * 100) * MARK_CHUNK_BYTES;
        write_at(&pair.a, file, first, "x");
        tickets[WRITES] = start(&pair.a, writing(other, round * MARK_CHUNK_BYTES * 2 + 4096, "x", 1)); /* keeps the marker busy */
        for (uint64_t i = 0; i < WRITES; i++) tickets[i] = start(&pair.a, writing(file, first + (i + 1) * MARK_CHUNK_BYTES, "x", 1));
        for (int i = 0; i <= WRITES; i++) CHECK_EQUAL(answer_of(&pair.a, tickets[i]), 0);
    }
    uint64_t places = node_statistics(&pair.a).marked_places;
    CHECK_EQUAL(node_restart(&pair.a, true), 1);
    CHECK_EQUAL(node_statistics(&pair.a).marked_places, places);
    pair_close(&pair);
}

/* What the peer has made as primary needs a mark, also when we were primary before and did not hear of its checkpoint. */
void test_files_of_the_peer(void) {
    struct pair pair;
    for (int telling = 0; telling < 2; telling++) {
        open_synced(&pair);
        uint64_t directory = create_directory(&pair.a, ROOT, "directory");
        sync_pair(&pair, &pair.a, &pair.b);
        create_file(&pair.a, ROOT, "first"); /* so something is marked at `a` */
        settle(&pair.a);
        pair_cut(&pair);
        CHECK_EQUAL(rfs_fence(pair.a.engine), 0);
        CHECK_EQUAL(node_restart(&pair.a, true), 1);
        node_alone(&pair.b, 2, 1);
        pair.session.generation++;
        pair_up(&pair, &pair.b, &pair.a);
        settle(&pair.b);
        uint64_t file = create_file(&pair.b, directory, "file");
        settle(&pair.b);
        CHECK_EQUAL(answer_of(&pair.b, rfs_submit_checkpoint(pair.b.engine)), 0); /* a checkpoint whose last word never arrives */
        CHECK_EQUAL(rfs_end_checkpoint(pair.b.engine), 0);
        pair_cut(&pair);
        struct node *source = telling ? &pair.b : &pair.a, *target = telling ? &pair.a : &pair.b;
        if (telling) { /* `a` comes back and tells its marks, of before that checkpoint */
            pair_up(&pair, &pair.b, &pair.a);
            settle(&pair.b);
            pair_cut(&pair);
            CHECK_EQUAL(rfs_grant(pair.b.engine, ++pair.session.generation, 1), 0);
        } else { /* or is the primary now */
            CHECK_EQUAL(rfs_fence(pair.b.engine), 0);
            CHECK_EQUAL(node_restart(&pair.b, true), 1);
            CHECK_EQUAL(node_restart(&pair.a, true), 1);
            node_alone(&pair.a, 3, 0);
            pair.session.generation++;
            CHECK_EQUAL(fid_of(&pair.a, ROOT, "directory"), directory);
            CHECK_EQUAL(fid_of(&pair.a, directory, "file"), file);
        }
        write_at(source, file, 0, "alone");
        CHECK_EQUAL(node_restart(target, true), 1);
        pair_up(&pair, source, target);
        settle(source);
        CHECK_EQUAL(pair.session.everything, 0);
        compare_nodes(&pair);
        pair_close(&pair);
    }
}

/* A session that compares what is marked does not come to its end when everything became marked within it. */
void test_everything_in_a_session(void) {
    struct pair pair;
    open_synced(&pair);
    uint64_t directory = create_directory(&pair.a, ROOT, "directory"), file = create_file(&pair.a, directory, "file");
    sync_pair(&pair, &pair.a, &pair.b);
    go_alone(&pair);
    create_directory(&pair.a, ROOT, "another");
    uint32_t drained = events_seen(&pair.a, RFS_EVENT_DRAINED), lost = events_seen(&pair.a, RFS_EVENT_LINK_LOST);
    pair_connect(&pair, &pair.a, &pair.b);
    CHECK_EQUAL(pair.session.everything, 0);
    wait_event(&pair.a, RFS_EVENT_DRAINED, drained + 1);
    CHECK_EQUAL(rfs_mark_everything(pair.a.engine), 0); /* as a log without room does */
    CHECK(rfs_send_end(pair.a.engine) < 0);
    pair_cut(&pair);
    CHECK_EQUAL(rfs_grant(pair.a.engine, ++pair.session.generation, 1), 0);
    lost = events_seen(&pair.a, RFS_EVENT_LINK_LOST);
    write_at(&pair.a, file, 0, "under everything");
    pair_connect(&pair, &pair.a, &pair.b);
    CHECK_EQUAL(pair.session.everything, 1);
    wait_event(&pair.a, RFS_EVENT_DRAINED, drained + 2);
    CHECK_EQUAL(rfs_send_end(pair.a.engine), 0);
    settle(&pair.a);
    CHECK_EQUAL(events_seen(&pair.a, RFS_EVENT_LINK_LOST), lost);
    compare_nodes(&pair);
    pair_close(&pair);
}

/* A session that compares everything leaves nothing to do, also of what it has not met: the next checkpoint drops it. */
void test_marks_of_what_is_gone(void) {
    struct pair pair;
    open_synced(&pair);
    uint64_t directory = create_directory(&pair.a, ROOT, "directory"), file = create_file(&pair.a, directory, "file");
    sync_pair(&pair, &pair.a, &pair.b);
    go_alone(&pair);
    write_at(&pair.a, file, 0, "soon gone");
    CHECK_EQUAL(finish(&pair.a, xattring(FRAME_SET_XATTR, directory, "user.a", "b")), 0);
    CHECK_EQUAL(finish(&pair.a, named(FRAME_UNLINK, directory, "file")), 0);
    CHECK_EQUAL(finish(&pair.a, named(FRAME_RMDIR, ROOT, "directory")), 0);
    CHECK_EQUAL(rfs_mark_everything(pair.a.engine), 0);
    sync_pair(&pair, &pair.a, &pair.b); /* which checks that nothing is left */
    compare_nodes(&pair);
    pair_close(&pair);
}

/* What the target has removed alone comes back whole: a file of which no more than the attributes is marked, and what has no content at all. */
void test_removed_there(void) {
    struct pair pair;
    static uint8_t data[100000];
    open_synced(&pair);
    memset(data, 7, sizeof data);
    uint64_t file = create_file(&pair.a, ROOT, "file");
    CHECK_EQUAL(finish(&pair.a, writing(file, 0, data, sizeof data)), 0);
    struct op *link = named(FRAME_SYMLINK, ROOT, "symlink");
    link->data = (uint8_t *)strdup("to");
    link->body.data_bytes = 2;
    link->body.uid = link->body.gid = 4711;
    CHECK_EQUAL(finish(&pair.a, link), 0);
    struct op *pipe = named(FRAME_MKNOD, ROOT, "pipe");
    pipe->body.mode = S_IFIFO | 0666;
    CHECK_EQUAL(finish(&pair.a, pipe), 0);
    sync_pair(&pair, &pair.a, &pair.b);
    go_alone(&pair);
    struct op *mode = attributing(file, HAS_MODE);
    mode->body.mode = 0640;
    CHECK_EQUAL(finish(&pair.a, mode), 0);
    CHECK_EQUAL(finish(&pair.a, named(FRAME_UNLINK, ROOT, "file")), 0);
    CHECK_EQUAL(finish(&pair.a, named(FRAME_UNLINK, ROOT, "symlink")), 0);
    CHECK_EQUAL(finish(&pair.a, named(FRAME_UNLINK, ROOT, "pipe")), 0);
    CHECK_EQUAL(node_restart(&pair.a, true), 1);
    CHECK_EQUAL(node_restart(&pair.b, true), 1);
    node_alone(&pair.b, 2, 1);
    sync_pair(&pair, &pair.b, &pair.a);
    CHECK(exists(&pair.a, "file"));
    compare_nodes(&pair);
    pair_close(&pair);
}

/* Nodes stop, crash and change their roles under load, with ops that only one of them ever heard of. */
void test_storm_of_restarts(void) {
    struct pair pair;
    struct storm storm;
    struct chance chance = {77};
    open_synced(&pair);
    struct node *source = &pair.a, *target = &pair.b;
    storm_prepare(&storm, source, 31);
    pair_up(&pair, source, target);
    settle(source);
    pair_checkpoint(source, target);
    uint64_t term = 1;
    for (int round = 0; round < 8; round++) {
        storm.node = source;
        storm.seed++;
        storm_start(&storm);
        storm_wait_rounds(&storm, 60);
        if (round % 3 == 0) pair_checkpoint(source, target);
        storm_wait_rounds(&storm, 20);
        pair_cut(&pair); /* ops wait for a peer that will not come back */
        storm.fenced = true;
        CHECK_EQUAL(rfs_fence(source->engine), 0);
        storm_stop_anyhow(&storm);
        if (chance_below(&chance, 3)) { /* the other one goes on */
            struct node *old = source;
            source = target;
            target = old;
        }
        CHECK_EQUAL(node_restart(&pair.a, chance_below(&chance, 2)), 1);
        CHECK_EQUAL(node_restart(&pair.b, chance_below(&chance, 2)), 1);
        node_alone(source, ++term, source == &pair.b);
        node_learn(source); /* as applications do: they come by names */
        pair.session.generation++;
        storm.node = source;
        storm.seed++;
        storm_start(&storm);
        storm_wait_rounds(&storm, 40);
        pair_up(&pair, source, target);
        CHECK_EQUAL(pair.session.everything, 0);
        storm_wait_rounds(&storm, 40);
        storm_stop(&storm);
        settle(source);
        CHECK_EQUAL(events_seen(target, RFS_EVENT_APPLY_FAILED), 0);
        compare_nodes(&pair);
    }
    pair_close(&pair);
}
