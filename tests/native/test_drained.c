/* A write finds that its file cannot be named to the target yet, and is slow: the walk must not end before it has left its place to do. The linker brings
 * the engine's call here. */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "native.h"

enum { LONG_NS = 200000000 }; /* for a walk that has three places to look at */

static const char SLOW[] = "slow";
static atomic_bool armed, has_come; /* the next write of SLOW is; it has come so far (on whatever thread: it waits for its mark first) */
static struct node *source;
static uint32_t drained;

ssize_t __real_pwrite(int fd, const void *data, size_t bytes, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t offset);

/* The walk has time to end, which it must not. */
ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t offset) {
    if (bytes == strlen(SLOW) && !memcmp(data, SLOW, bytes) && atomic_exchange(&armed, false)) {
        struct timespec nap = {.tv_nsec = 1000000};
        atomic_store(&has_come, true);
        for (uint64_t began = now_ns(); now_ns() - began < LONG_NS && events_seen(source, RFS_EVENT_DRAINED) < drained;) nanosleep(&nap, NULL);
    }
    return __real_pwrite(fd, data, bytes, offset);
}

void test_drained_beside_a_slow_write(void) {
    struct pair pair;
    pair_open(&pair);
    node_alone(&pair.a, 1, 0);
    uint64_t above = create_directory(&pair.a, ROOT, "above"), below = create_directory(&pair.a, above, "below"), file = create_file(&pair.a, below, "file");
    pair_up(&pair, &pair.a, &pair.b);
    pair_checkpoint(&pair.a, &pair.b);
    pair_cut(&pair);
    CHECK_EQUAL(rfs_grant(pair.a.engine, ++pair.session.generation, 1), 0);
    CHECK(create_file(&pair.a, above, "marks it")); /* so that what lies below it cannot be named before it is listed; `below` is clean */
    source = &pair.a;
    drained = events_seen(&pair.a, RFS_EVENT_DRAINED) + 1;
    uint32_t ends = events_seen(&pair.b, RFS_EVENT_END_RECEIVED) + 1;

    /* The source's side alone: its walk waits for the target's marks, and the write comes first. */
    int fds[2];
    rfs_channel *channels[2];
    CHECK_EQUAL(rfs_session_close(pair.a.engine), 0);
    CHECK_EQUAL(rfs_session_close(pair.b.engine), 0);
    connect_ends(fds);
    for (int i = 0; i < 2; i++) CHECK((channels[i] = rfs_channel_plain(fds[i])) != NULL);
    pair.session.session++;
    pair.session.seq = node_statistics(&pair.a).seq;
    pair.session.everything = 0;
    CHECK_EQUAL(rfs_session_source(pair.a.engine, channels[0], &pair.session), 0);
    atomic_store(&armed, true);
    uint64_t ticket = start(&pair.a, writing(file, 0, SLOW, strlen(SLOW)));
    struct timespec nap = {.tv_nsec = 100000};
    for (uint64_t began = now_ns(); !atomic_load(&has_come); nanosleep(&nap, NULL)) CHECK(now_ns() - began < PATIENCE_S * (uint64_t)NS_PER_S);
    CHECK_EQUAL(rfs_session_target(pair.b.engine, channels[1], &pair.session, 0), 0);
    CHECK_EQUAL(answer_of(&pair.a, ticket), 0);
    wait_event(&pair.a, RFS_EVENT_DRAINED, drained);
    CHECK_EQUAL(rfs_send_end(pair.a.engine), 0);
    wait_event(&pair.b, RFS_EVENT_END_RECEIVED, ends);
    settle(&pair.a);
    compare_nodes(&pair);
    pair_close(&pair);
}
