/* Two engines in one process: sessions, what becomes of waiting ops, roles, and a peer that does not keep to the rules. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "native.h"
#include "walk.h"

void test_mirrored(void) {
    struct pair pair;
    struct op *op;
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    pair_up(&pair, &pair.a, &pair.b);
    uint64_t directory = create_directory(&pair.a, ROOT, "a directory\nwith a newline"), file = create_file(&pair.a, directory, "file");
    CHECK(exists(&pair.b, "a directory\nwith a newline/file")); /* the answer came: it is there */
    uint8_t *large = malloc(MAX_WRITE_BYTES);
    memset(large, 7, MAX_WRITE_BYTES);
    CHECK_EQUAL(finish(&pair.a, writing(file, 5000, large, MAX_WRITE_BYTES)), 0);
    free(large);
    CHECK_EQUAL(finish(&pair.a, writing(file, 0, "", 0)), 0);
    CHECK_EQUAL(finish(&pair.a, syncing(file)), 0);
    CHECK_EQUAL(finish(&pair.a, syncing(directory)), 0);
    op = writing(file, 1, "durable", 7);
    op->durable = true;
    CHECK_EQUAL(finish(&pair.a, op), 0);
    CHECK_EQUAL(finish(&pair.a, linking(file, ROOT, "link")), 0);
    CHECK_EQUAL(finish(&pair.a, xattring(FRAME_SET_XATTR, file, "user.x", "y")), 0);
    op = named(FRAME_SYMLINK, directory, "symlink");
    op->data = (uint8_t *)strdup("../nowhere");
    op->body.data_bytes = 10;
    CHECK_EQUAL(finish(&pair.a, op), 0);
    op = named(FRAME_MKNOD, ROOT, "fifo");
    op->body.mode = S_IFIFO | 0620;
    CHECK_EQUAL(finish(&pair.a, op), 0);
    op = attributing(file, HAS_UID | HAS_GID | HAS_MODE);
    op->body.uid = 12;
    op->body.gid = 34;
    op->body.mode = 04751;
    CHECK_EQUAL(finish(&pair.a, op), 0);
    CHECK_EQUAL(finish(&pair.a, renaming(ROOT, "link", directory, HOLDING_NAME, 0)), 0); /* below a root the name is free */
    uint64_t victim = create_directory(&pair.a, ROOT, "victim");
    CHECK_EQUAL(finish(&pair.a, renaming(ROOT, "a directory\nwith a newline", ROOT, "victim", 0)), 0);
    CHECK(victim);
    uint64_t sequence = node_statistics(&pair.a).seq;
    CHECK_EQUAL(finish(&pair.a, named(FRAME_RMDIR, ROOT, "victim")), -ENOTEMPTY); /* a local failure is not shipped */
    CHECK_EQUAL(node_statistics(&pair.a).seq, sequence);
    settle(&pair.a);
    compare_nodes(&pair);
    CHECK_EQUAL(node_statistics(&pair.b).applied_seq, sequence);
    check_answered_once(&pair.a);
    pair_close(&pair);
}

static void make_tree(struct pair *pair) {
    static uint8_t content[3 << 20];
    char path[256];
    struct chance chance = {11};
    for (size_t i = 0; i < sizeof content; i++) content[i] = (uint8_t)chance_next(&chance);
    make_file(&pair->a, "large", content, sizeof content);
    content[100000] ^= 1;
    make_file(&pair->b, "large", content, sizeof content); /* one block differs */
    make_file(&pair->a, "short", "abc", 3);
    make_file(&pair->b, "short", "abc and more", 12);
    make_file(&pair->a, "empty", "", 0);
    make_file(&pair->b, "leftover", "x", 1);
    path_in(&pair->a, "link to large", path);
    char large[256];
    path_in(&pair->a, "large", large);
    CHECK_EQUAL(link(large, path), 0);
    for (int i = 0; i < 2; i++) { /* a directory here, a file there */
        const struct node *node = i ? &pair->b : &pair->a;
        path_in(node, i ? "short2" : "large2", path);
        CHECK_EQUAL(mkdir(path, 0700), 0);
        make_file(node, i ? "large2" : "short2", "file", 4);
        make_file(node, i ? "short2/below" : "large2/below", "file", 4);
        path_in(node, "symlink", path);
        CHECK_EQUAL(symlink(i ? "one" : "two", path), 0);
    }
    path_in(&pair->a, "sparse", path);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && pwrite(fd, "x", 1, 5 << 20) == 1 && ftruncate(fd, 9 << 20) == 0);
    close(fd);
    CHECK_EQUAL(setxattr(path, "user.a", "b", 1, 0), 0);
    path_in(&pair->b, "sparse", path);
    make_file(&pair->b, "sparse", content, sizeof content);
    CHECK_EQUAL(setxattr(path, "user.other", "b", 1, 0), 0);
    path_in(&pair->b, "large", large); /* names that are one file on the target and two on the source */
    path_in(&pair->b, "short3", path);
    CHECK_EQUAL(link(large, path), 0);
    make_file(&pair->a, "short3", "own", 3);
}

/* A target that is anything becomes equal; only what differs travels. */
void test_first_copy(void) {
    struct pair pair;
    pair_open(&pair);
    make_tree(&pair);
    node_alone(&pair.a, 1, 0);
    pair_up(&pair, &pair.a, &pair.b);
    settle(&pair.a);
    compare_nodes(&pair);
    CHECK(!exists(&pair.b, HOLDING_NAME));
    CHECK(node_statistics(&pair.a).resync_sent_bytes < 4 << 20);
    pair_up(&pair, &pair.a, &pair.b); /* once more, nothing differs */
    settle(&pair.a);
    compare_nodes(&pair);
    CHECK(node_statistics(&pair.a).resync_sent_bytes < 100000);
    pair_close(&pair);
}

/* As after a session that was a whole pair, without having had one. */
static void become_resumable(struct node *node) {
    CHECK_EQUAL(rfs_become_primary(node->engine, 2, 0), 0);
    pthread_rwlock_wrlock(&node->engine->state);
    node->engine->resumable = true;
    pthread_rwlock_unlock(&node->engine->state);
}

/* A source whose peer is a silent socket: returns the peer's end. */
static int silent_peer(struct node *node, rfs_session *session) {
    int ends[2];
    *session = (rfs_session){.session = 3, .generation = 4, .everything = 1, .progress_timeout_us = 20000000, .fsync_timeout_us = 30000000, .keepalive_us = 500000};
    become_resumable(node);
    connect_ends(ends);
    CHECK_EQUAL(rfs_session_resume(node->engine, rfs_channel_plain(ends[0]), session), 0);
    return ends[1];
}

static uint64_t lone_file(struct node *node, const char *name) {
    make_file(node, name, "content", 7);
    uint64_t fid = fid_of(node, ROOT, name);
    CHECK(fid);
    struct inode *inode = inode_get(node->engine, fid);
    resync_change(node->engine, inode, BOUND, 0); /* as if the peer knew it */
    inode_put(node->engine, inode);
    return fid;
}

static void rest(long milliseconds) {
    struct timespec nap = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000};
    nanosleep(&nap, NULL);
}

/* An idle link lives on keepalives; a silent peer does not. */
void test_deadlines(void) {
    struct pair pair;
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    pair.session.progress_timeout_us = 900000;
    pair.session.keepalive_us = 200000;
    pair_up(&pair, &pair.a, &pair.b);
    rest(1800);
    CHECK_EQUAL(events_seen(&pair.a, RFS_EVENT_LINK_LOST) + events_seen(&pair.b, RFS_EVENT_LINK_LOST), 0);
    pair_close(&pair);

    struct node node;
    int ends[2];
    rfs_session session = {.session = 3, .generation = 4, .everything = 1, .progress_timeout_us = 300000, .fsync_timeout_us = 30000000, .keepalive_us = 100000};
    node_open(&node, "silent");
    become_resumable(&node);
    connect_ends(ends);
    CHECK_EQUAL(rfs_session_resume(node.engine, rfs_channel_plain(ends[0]), &session), 0);
    uint64_t ticket = start(&node, named(FRAME_CREATE, ROOT, "x"));
    wait_event(&node, RFS_EVENT_LINK_LOST, 1);
    wait_mode(&node, RFS_FROZEN);
    CHECK(!is_answered(&node, ticket));
    session.peer_applied_seq = 5; /* more than was ever sent */
    CHECK_EQUAL(rfs_session_resume(node.engine, rfs_channel_plain(ends[1]), &session), -EINVAL); /* which closes it */
    CHECK(fcntl(ends[1], F_GETFD) < 0);
    node_close(&node, false);
}

/* Jobs that keep every worker busy, so that no local sync comes to its end before it shall. */
struct blocker {
    struct job job;
    atomic_bool *until;
};

static void block(rfs_engine *engine, struct job *job) {
    (void)engine;
    struct blocker *blocker = ITEM(job, struct blocker, job);
    while (!atomic_load(blocker->until)) rest(1);
}

/* Several fsyncs wait for both disks when the grant comes: each is answered once, in no endless round. */
void test_waiting_fsyncs(void) {
    struct node node;
    rfs_session session;
    uint64_t tickets[12];
    atomic_bool free_workers = false;
    struct blocker blockers[4];
    node_open(&node, "fsyncs");
    int peer = silent_peer(&node, &session);
    for (int i = 0; i < 4; i++) {
        blockers[i] = (struct blocker){.job.run = block, .until = &free_workers};
        submit_job(node.engine, &blockers[i].job);
    }
    uint64_t fid = lone_file(&node, "file");
    for (int i = 0; i < 12; i++) tickets[i] = start(&node, i % 3 ? syncing(fid) : writing(fid, 0, "x", 1));
    CHECK(node_statistics(&node).waiting_ops == 12 && !is_answered(&node, tickets[0]));
    close(peer);
    wait_event(&node, RFS_EVENT_LINK_LOST, 1);
    wait_mode(&node, RFS_FROZEN);
    CHECK(!is_answered(&node, tickets[0]) && !is_answered(&node, tickets[11]));
    CHECK_EQUAL(rfs_grant(node.engine, 5, 1), 0);
    for (int i = 0; i < 12; i += 3) CHECK_EQUAL(answer_of(&node, tickets[i]), 0);
    CHECK_EQUAL(node_statistics(&node).waiting_ops, 8); /* granted, but not durable */
    CHECK(!is_answered(&node, tickets[1]));
    atomic_store(&free_workers, true);
    for (int i = 0; i < 12; i++) CHECK_EQUAL(answer_of(&node, tickets[i]), 0);
    CHECK_EQUAL(node_statistics(&node).waiting_ops, 0);
    node_close(&node, false);
}

/* Whatever waits, shipped or parked, fails with EIO; also while the link is up and its socket full. */
void test_fence(void) {
    struct node node;
    rfs_session session;
    enum { OPS = 40 };
    uint64_t tickets[OPS];
    uint8_t *bytes = calloc(1, MAX_WRITE_BYTES);
    for (int lost = 0; lost < 2; lost++) {
        node_open(&node, "fence");
        int peer = silent_peer(&node, &session);
        uint64_t fid = lone_file(&node, "file");
        for (int i = 0; i < OPS; i++) tickets[i] = start(&node, i % 8 ? writing(fid, 0, bytes, MAX_WRITE_BYTES) : syncing(fid));
        if (lost) {
            close(peer);
            wait_event(&node, RFS_EVENT_LINK_LOST, 1);
            tickets[0] = start(&node, writing(fid, 0, "y", 1));
        }
        CHECK_EQUAL(rfs_fence(node.engine), 0);
        for (int i = 0; i < OPS; i++) CHECK_EQUAL(answer_of(&node, tickets[i]), -EIO);
        check_answered_once(&node);
        if (!lost) close(peer);
        node_close(&node, false);
    }
    free(bytes);
}

/* The window: what does not fit waits, in order, and goes on as acknowledgements come; grants with a full socket. */
void test_full_socket(void) {
    struct node node;
    rfs_session session;
    enum { OPS = 100 };
    uint64_t tickets[OPS];
    uint8_t *bytes = calloc(1, MAX_WRITE_BYTES);
    node_open(&node, "full");
    int peer = silent_peer(&node, &session);
    uint64_t fid = lone_file(&node, "file");
    for (int i = 0; i < OPS; i++) {
        memset(bytes, i, 1000);
        tickets[i] = start(&node, writing(fid, 0, bytes, MAX_WRITE_BYTES));
    }
    CHECK(node_statistics(&node).seq < OPS * (MAX_WRITE_BYTES / PIECE_BYTES));
    shutdown(peer, SHUT_RDWR);
    wait_event(&node, RFS_EVENT_LINK_LOST, 1);
    CHECK_EQUAL(rfs_grant(node.engine, 5, 1), 0);
    for (int i = 0; i < OPS; i++) CHECK_EQUAL(answer_of(&node, tickets[i]), 0);
    char path[256];
    uint8_t last;
    path_in(&node, "file", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && read(fd, &last, 1) == 1);
    CHECK_EQUAL(last, OPS - 1); /* parked ones did not overtake each other */
    close(fd);
    close(peer);
    free(bytes);
    node_close(&node, false);
}

static off_t size_at(const struct node *node, const char *name) {
    char path[256];
    struct stat stat;
    path_in(node, name, path);
    return lstat(path, &stat) < 0 ? -1 : stat.st_size;
}

/* A large write travels in pieces, and is one write all the same: what does not fit any more makes it shorter, on both sides. */
void test_pieces(void) {
    struct pair pair;
    struct chance chance = {5};
    uint8_t *bytes = malloc(MAX_WRITE_BYTES);
    const rlim_t limits[] = {RLIM_INFINITY, 2 * PIECE_BYTES + 5000, PIECE_BYTES, 3000};
    CHECK(bytes);
    for (size_t i = 0; i < MAX_WRITE_BYTES; i++) bytes[i] = (uint8_t)chance_next(&chance);
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    pair_up(&pair, &pair.a, &pair.b);
    signal(SIGXFSZ, SIG_IGN);
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        char name[] = {'p', (char)('0' + i), 0};
        struct rlimit limit = {limits[i], RLIM_INFINITY};
        uint64_t fid = create_file(&pair.a, ROOT, name), before = node_statistics(&pair.a).seq;
        CHECK_EQUAL(setrlimit(RLIMIT_FSIZE, &limit), 0);
        CHECK_EQUAL(finish(&pair.a, writing(fid, 0, bytes, MAX_WRITE_BYTES)), 0);
        CHECK_EQUAL(setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}), 0);
        CHECK_EQUAL(size_at(&pair.a, name), i ? limits[i] : MAX_WRITE_BYTES);
        if (i == 0) CHECK_EQUAL(node_statistics(&pair.a).seq - before, MAX_WRITE_BYTES / PIECE_BYTES);
    }
    settle(&pair.a);
    compare_nodes(&pair);
    check_answered_once(&pair.a);
    pair_close(&pair);
    free(bytes);
}

/* The copy is not what both believed: it leaves, the source freezes, nobody is told a lie. */
void test_apply_failure(void) {
    struct pair pair;
    char path[256];
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    pair_up(&pair, &pair.a, &pair.b);
    create_file(&pair.a, ROOT, "file");
    uint64_t other = create_file(&pair.a, ROOT, "other");
    path_in(&pair.b, "file", path);
    CHECK_EQUAL(unlink(path), 0);
    uint64_t unlinked = start(&pair.a, named(FRAME_UNLINK, ROOT, "file"));
    uint64_t later = start(&pair.a, writing(other, 0, "z", 1));
    wait_event(&pair.b, RFS_EVENT_APPLY_FAILED, 1);
    wait_event(&pair.a, RFS_EVENT_LINK_LOST, 1);
    wait_mode(&pair.a, RFS_FROZEN);
    CHECK(!is_answered(&pair.a, unlinked) && !is_answered(&pair.a, later));
    CHECK_EQUAL(rfs_grant(pair.a.engine, 101, 1), 0);
    CHECK_EQUAL(answer_of(&pair.a, unlinked), 0);
    CHECK_EQUAL(answer_of(&pair.a, later), 0);
    pair.session.generation = 101;
    pair_up(&pair, &pair.a, &pair.b);
    settle(&pair.a);
    compare_nodes(&pair);
    check_answered_once(&pair.a);
    pair_close(&pair);
}

/* Only old fsyncs are shipped again, one of them of a file that a later op has removed. */
void test_resume_of_fsyncs(void) {
    struct pair pair;
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    pair_up(&pair, &pair.a, &pair.b);
    for (int round = 0; round < 20; round++) {
        uint64_t kept = create_file(&pair.a, ROOT, "kept"), removed = create_file(&pair.a, ROOT, "removed"), tickets[5];
        struct inode *inode = inode_get(pair.a.engine, removed);
        tickets[0] = start(&pair.a, writing(kept, 0, "kept", 4));
        tickets[1] = start(&pair.a, syncing(kept));
        tickets[2] = start(&pair.a, syncing(removed));
        tickets[3] = start(&pair.a, named(FRAME_UNLINK, ROOT, "removed"));
        tickets[4] = start(&pair.a, named(FRAME_UNLINK, ROOT, "kept"));
        pair_cut(&pair);
        pair_resume(&pair, &pair.a, &pair.b);
        for (int i = 0; i < 5; i++) CHECK_EQUAL(answer_of(&pair.a, tickets[i]), 0);
        inode_put(pair.a.engine, inode);
    }
    CHECK_EQUAL(events_seen(&pair.b, RFS_EVENT_APPLY_FAILED), 0);
    CHECK_EQUAL(events_seen(&pair.a, RFS_EVENT_LINK_LOST), 20);
    settle(&pair.a);
    compare_nodes(&pair);
    pair_close(&pair);
}

/* A planned swap within the session, and back. */
void test_turn(void) {
    struct pair pair;
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    pair_up(&pair, &pair.a, &pair.b);
    uint64_t file = create_file(&pair.a, ROOT, "file");
    CHECK_EQUAL(answer_of(&pair.a, rfs_submit_demote(pair.a.engine)), 0);
    CHECK_EQUAL(finish(&pair.a, writing(file, 0, "no", 2)), -EROFS);
    CHECK_EQUAL(rfs_session_turn(pair.a.engine, 0), 0);
    CHECK_EQUAL(rfs_become_primary(pair.b.engine, 2, 1), 0);
    CHECK_EQUAL(rfs_session_turn(pair.b.engine, 1), 0);
    CHECK_EQUAL(finish(&pair.b, writing(file, 0, "from b", 6)), 0);
    uint64_t other = create_file(&pair.b, ROOT, "other");
    CHECK_EQUAL(other >> 40, 2 << 1 | 1);
    CHECK_EQUAL(finish(&pair.b, syncing(other)), 0);
    CHECK(exists(&pair.a, "other"));
    CHECK_EQUAL(answer_of(&pair.b, rfs_submit_demote(pair.b.engine)), 0);
    CHECK_EQUAL(rfs_session_turn(pair.b.engine, 0), 0);
    CHECK_EQUAL(rfs_become_primary(pair.a.engine, 3, 0), 0);
    CHECK_EQUAL(rfs_session_turn(pair.a.engine, 1), 0);
    CHECK_EQUAL(finish(&pair.a, named(FRAME_UNLINK, ROOT, "other")), 0);
    settle(&pair.a);
    compare_nodes(&pair);
    CHECK_EQUAL(events_seen(&pair.a, RFS_EVENT_LINK_LOST) + events_seen(&pair.b, RFS_EVENT_LINK_LOST), 0);
    pair_close(&pair);
}

/* A demotion waits for what is under way, and is taken back when the link is lost or the session closed. */
void test_demote(void) {
    struct node node;
    rfs_session session;
    for (int how = 0; how < 3; how++) {
        node_open(&node, "demote");
        int peer = silent_peer(&node, &session);
        uint64_t fid = lone_file(&node, "file"), ticket = start(&node, writing(fid, 0, "x", 1)), demotion = rfs_submit_demote(node.engine);
        CHECK(!is_answered(&node, demotion));
        CHECK_EQUAL(rfs_session_turn(node.engine, 0), -EBUSY);
        if (how == 0) shutdown(peer, SHUT_RDWR);
        else if (how == 1) CHECK_EQUAL(rfs_session_close(node.engine), 0);
        else CHECK_EQUAL(rfs_fence(node.engine), 0);
        CHECK_EQUAL(answer_of(&node, demotion), how == 2 ? -EIO : -EAGAIN);
        if (how < 2) {
            CHECK_EQUAL(rfs_grant(node.engine, 5, 1), 0);
            CHECK_EQUAL(answer_of(&node, ticket), 0);
            CHECK_EQUAL(finish(&node, writing(fid, 0, "y", 1)), 0);
        } else {
            CHECK_EQUAL(answer_of(&node, ticket), -EIO);
        }
        close(peer);
        node_close(&node, false);
    }
}

/* Trees vanish while they are being resynced, onto a target that still has them, filled. */
void test_removals_in_resync(void) {
    struct pair pair;
    char name[64], path[256];
    static uint8_t content[200000];
    pair_open(&pair);
    for (int i = 0; i < 40; i++) {
        for (int k = 0; k < 2; k++) {
            const struct node *node = k ? &pair.b : &pair.a;
            snprintf(name, sizeof name, "d%d", i);
            path_in(node, name, path);
            CHECK_EQUAL(mkdir(path, 0755), 0);
            snprintf(name, sizeof name, "d%d/file", i);
            content[i] = (uint8_t)(i + k);
            make_file(node, name, content, sizeof content);
            snprintf(name, sizeof name, "d%d/only%d", i, k);
            make_file(node, name, content, sizeof content);
        }
    }
    node_alone(&pair.a, 1, 0);
    pair.session.resync_bytes_per_s = 30 << 20;
    pair_connect(&pair, &pair.a, &pair.b);
    for (int i = 0; i < 40; i++) {
        snprintf(name, sizeof name, "d%d", i);
        uint64_t directory = fid_of(&pair.a, ROOT, name);
        CHECK(directory);
        if (i % 4 == 3) continue;
        CHECK_EQUAL(finish(&pair.a, named(FRAME_UNLINK, directory, "file")), 0);
        CHECK_EQUAL(finish(&pair.a, named(FRAME_UNLINK, directory, "only0")), 0);
        if (i % 4 == 1) CHECK_EQUAL(finish(&pair.a, named(FRAME_RMDIR, ROOT, name)), 0);
        if (i % 4 != 2) continue;
        uint64_t fresh = create_directory(&pair.a, ROOT, "fresh"); /* a directory in the place of another */
        create_file(&pair.a, fresh, "in fresh");
        CHECK_EQUAL(finish(&pair.a, renaming(ROOT, "fresh", ROOT, name, 0)), 0);
    }
    pair_finish(&pair.a, &pair.b, 1);
    settle(&pair.a);
    CHECK_EQUAL(events_seen(&pair.b, RFS_EVENT_APPLY_FAILED), 0);
    compare_nodes(&pair);
    pair_close(&pair);
}

/* Attributes change on files that are bound but not yet compared. */
void test_xattrs_in_resync(void) {
    struct pair pair;
    char name[64], path[256];
    uint64_t fids[60];
    static uint8_t content[200000];
    pair_open(&pair);
    for (int i = 0; i < 60; i++)
        for (int k = 0; k < 2; k++) {
            const struct node *node = k ? &pair.b : &pair.a;
            snprintf(name, sizeof name, "f%d", i);
            content[i] = (uint8_t)(i + k);
            make_file(node, name, content, sizeof content);
            path_in(node, name, path);
            CHECK_EQUAL(setxattr(path, k ? "user.target" : "user.source", "v", 1, 0), 0);
        }
    node_alone(&pair.a, 1, 0);
    for (int i = 0; i < 60; i++) {
        snprintf(name, sizeof name, "f%d", i);
        fids[i] = fid_of(&pair.a, ROOT, name);
    }
    pair.session.resync_bytes_per_s = 30 << 20;
    pair_connect(&pair, &pair.a, &pair.b);
    for (int i = 0; i < 60; i++) {
        struct op *op = xattring(FRAME_SET_XATTR, fids[i], "user.target", "new");
        op->body.flags = XATTR_CREATE;
        CHECK_EQUAL(finish(&pair.a, op), 0);
        CHECK_EQUAL(finish(&pair.a, xattring(FRAME_REMOVE_XATTR, fids[i], "user.source", "")), 0);
        op = attributing(fids[i], HAS_SIZE);
        op->body.length = (uint64_t)i * 1000;
        CHECK_EQUAL(finish(&pair.a, op), 0);
    }
    pair_finish(&pair.a, &pair.b, 1);
    settle(&pair.a);
    CHECK_EQUAL(events_seen(&pair.b, RFS_EVENT_APPLY_FAILED), 0);
    compare_nodes(&pair);
    pair_close(&pair);
}

/* ---- a peer that does not keep to the rules: the link ends, never the process, and nothing outside the tree is touched */

static void send_frame(int fd, struct wire_header *header, struct op_body *body, const uint8_t *data, struct chance *chance) {
    uint8_t payload[4096], head[WIRE_HEADER_BYTES];
    if (header->type == FRAME_WRITE || header->type == FRAME_BLOCK) {
        header->payload_bytes = body->data_bytes;
        memcpy(payload, data, body->data_bytes);
    } else {
        header->payload_bytes = (uint32_t)wire_body_bytes(body);
        wire_encode_body(body, data, payload);
    }
    for (uint32_t i = chance_below(chance, 8) ? 0 : 1 + chance_below(chance, 4); i && header->payload_bytes; i--)
        payload[chance_below(chance, header->payload_bytes)] = (uint8_t)chance_next(chance);
    header->payload_crc = crc32c(0, payload, header->payload_bytes);
    wire_encode_header(header, head);
    if (send(fd, head, sizeof head, MSG_NOSIGNAL) > 0) (void)!send(fd, payload, header->payload_bytes, MSG_NOSIGNAL);
}

static void send_any(int fd, uint64_t seq, const rfs_session *session, struct chance *chance) {
    static const char *const names[] = {"a", "b", "c", "..", "/etc", ".", HOLDING_NAME, ""};
    static const uint8_t data[600];
    static const uint16_t types[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 32, 33, 34, 35, 36, 37, 38, 39, 64, 65, 66, 67};
    static const uint32_t modes[] = {S_IFREG | 0644, S_IFDIR | 0755, S_IFLNK | 0777, S_IFIFO | 0600, 0xffffffff};
    struct wire_header header = {.type = types[chance_below(chance, sizeof types / sizeof types[0])], .flags = (uint16_t)chance_below(chance, 16),
                                 .seq = seq, .session = session->session, .generation = session->generation, .fid = ROOT + chance_below(chance, 3) * 100};
    struct op_body body = {.other = ROOT + chance_below(chance, 4) * 100, .child = 1000 + chance_below(chance, 6), .mode = modes[chance_below(chance, 5)],
                           .flags = (uint32_t)chance_next(chance) & (uint32_t)chance_next(chance), .data_bytes = chance_below(chance, 600)};
    if (chance_below(chance, 3)) header.fid = ROOT;
    else if (chance_below(chance, 2)) header.fid = 1000 + chance_below(chance, 6);
    static const uint16_t with_data[] = {FRAME_WRITE, FRAME_SYMLINK, FRAME_SET_XATTR, FRAME_HASHES, FRAME_BLOCK};
    bool has_data = false; /* most frames make sense but for one thing */
    for (size_t i = 0; i < sizeof with_data / sizeof with_data[0]; i++) has_data |= with_data[i] == header.type;
    if (!has_data && chance_below(chance, 16)) body.data_bytes = 0;
    if (chance_below(chance, 4)) header.flags = 0;
    if (chance_below(chance, 4)) body.flags = header.type == FRAME_SET_ATTRIBUTES ? HAS_MTIME : 0;
    if (header.type == FRAME_HASHES) body.data_bytes = 16 * (1 + chance_below(chance, 30));
    header.offset = chance_below(chance, 4) ? chance_below(chance, 100000) : chance_next(chance);
    header.length = header.type == FRAME_WRITE || header.type == FRAME_BLOCK ? body.data_bytes : header.type == FRAME_HASHES ? body.data_bytes * 4096 : chance_below(chance, 100000);
    body.name_bytes = (uint16_t)strlen(strcpy(body.name, names[chance_below(chance, 100) < 90 ? chance_below(chance, 3) : chance_below(chance, 8)]));
    body.name2_bytes = (uint16_t)strlen(strcpy(body.name2, names[chance_below(chance, 3)]));
    send_frame(fd, &header, &body, data, chance);
}

void test_malformed_peer(void) {
    struct node node;
    struct chance chance = {21};
    rfs_session session = {.session = 1, .generation = 100, .everything = 1, .progress_timeout_us = 20000000, .fsync_timeout_us = 30000000, .keepalive_us = 500000};
    uint64_t until = now_ns() + 3000000000, applied = 0;
    node_open(&node, "malformed");
    for (int round = 0; round % 16 || now_ns() < until; round++) {
        int ends[2];
        connect_ends(ends);
        session.session++;
        CHECK_EQUAL(rfs_session_target(node.engine, rfs_channel_plain(ends[1]), &session, 0), 0);
        for (uint64_t seq = 1; seq < 40; seq++) {
            uint64_t got = node_statistics(&node).applied_seq;
            (void)got;
            send_any(ends[0], seq, &session, &chance);
        }
        shutdown(ends[0], SHUT_WR);
        CHECK_EQUAL(rfs_session_close(node.engine), 0);
        applied += node_statistics(&node).applied_seq;
        close(ends[0]);
    }
    CHECK(applied > 50); /* some made sense */
    node_close(&node, false);
}

static void acknowledge(int peer, const rfs_session *session, enum frame_type type, uint64_t seq) {
    uint8_t bytes[WIRE_HEADER_BYTES];
    wire_encode_header(&(struct wire_header){.type = (uint16_t)type, .seq = seq, .session = session->session, .generation = session->generation}, bytes);
    CHECK_EQUAL(write(peer, bytes, sizeof bytes), sizeof bytes);
}

/* An op that is applied needs not wait for one before it that is slow; but such a peer must not begin again before it. */
void test_acknowledged_alone(void) {
    struct node node;
    rfs_session session;
    uint8_t *bytes = calloc(1, MAX_WRITE_BYTES);
    CHECK(bytes);
    node_open(&node, "alone");
    int peer = silent_peer(&node, &session), ends[2];
    uint64_t slow_fid = lone_file(&node, "slow"), fid = lone_file(&node, "other"), before = node_statistics(&node).seq;
    uint64_t slow = start(&node, writing(slow_fid, 0, "x", 1));
    uint64_t large = start(&node, writing(fid, 0, bytes, MAX_WRITE_BYTES)), small = start(&node, writing(fid, 0, "y", 1));
    uint64_t last = before + 2 + MAX_WRITE_BYTES / PIECE_BYTES;
    CHECK_EQUAL(node_statistics(&node).seq, last);
    while (recv(peer, bytes, MAX_WRITE_BYTES, MSG_DONTWAIT) > 0 || !link_has_sent(node.engine->link, last)) continue;
    acknowledge(peer, &session, FRAME_ACK_ALONE, last - 1);
    CHECK_EQUAL(answer_of(&node, large), 0);
    CHECK(!is_answered(&node, slow) && !is_answered(&node, small));
    acknowledge(peer, &session, FRAME_ACK_ALONE, last - 1); /* and again: nobody waits for it any more */
    acknowledge(peer, &session, FRAME_ACK_ALONE, last);
    CHECK_EQUAL(answer_of(&node, small), 0);
    CHECK(!is_answered(&node, slow));
    close(peer);
    wait_event(&node, RFS_EVENT_LINK_LOST, 1);
    connect_ends(ends);
    session.peer_applied_seq = last - 1;
    CHECK_EQUAL(rfs_session_resume(node.engine, rfs_channel_plain(ends[0]), &session), -EINVAL);
    close(ends[1]);
    connect_ends(ends);
    session.peer_applied_seq = last;
    CHECK_EQUAL(rfs_session_resume(node.engine, rfs_channel_plain(ends[0]), &session), 0);
    CHECK_EQUAL(answer_of(&node, slow), 0);
    check_answered_once(&node);
    close(ends[1]);
    node_close(&node, false);
    free(bytes);
}

/* ... nor before a sync that was answered while an older op of another file was not. */
void test_synced_beyond_a_gap(void) {
    struct node node;
    rfs_session session;
    node_open(&node, "gap");
    int peer = silent_peer(&node, &session), ends[2];
    uint64_t one = lone_file(&node, "one"), two = lone_file(&node, "two");
    uint64_t slow = start(&node, writing(one, 0, "x", 1)), seq = node_statistics(&node).seq;
    uint64_t synced = start(&node, syncing(two));
    while (!link_has_sent(node.engine->link, seq + 1)) continue;
    acknowledge(peer, &session, FRAME_SYNCED, seq + 1);
    CHECK_EQUAL(answer_of(&node, synced), 0);
    CHECK(!is_answered(&node, slow));
    close(peer);
    wait_event(&node, RFS_EVENT_LINK_LOST, 1);
    connect_ends(ends);
    session.peer_applied_seq = seq - 1;
    CHECK_EQUAL(rfs_session_resume(node.engine, rfs_channel_plain(ends[0]), &session), -EINVAL);
    close(ends[1]);
    CHECK_EQUAL(rfs_fence(node.engine), 0);
    CHECK_EQUAL(answer_of(&node, slow), -EIO);
    node_close(&node, false);
}

/* With `ack disk` the answers wait for the target's disk; many share one sync, and a short loss of the link loses none. */
void test_acknowledged_from_disk(void) {
    struct pair pair;
    uint8_t data[5000] = {1};
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    pair.session.ack_disk = 1;
    pair_up(&pair, &pair.a, &pair.b);
    uint64_t tickets[200], fid = create_file(&pair.a, ROOT, "file");
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 200; i++) tickets[i] = start(&pair.a, writing(fid, (uint64_t)i * 1000, data, sizeof data));
        if (round == 1) { /* in the middle of it */
            pair_cut(&pair);
            pair_resume(&pair, &pair.a, &pair.b);
        }
        for (int i = 0; i < 200; i++) CHECK_EQUAL(answer_of(&pair.a, tickets[i]), 0);
    }
    settle(&pair.a);
    check_answered_once(&pair.a);
    compare_nodes(&pair);
    pair_close(&pair);
}
