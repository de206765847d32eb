/* What the native tests share: checks, nodes (an engine over a temporary directory), pairs of them, and ops by ticket. */
#ifndef LOCKSTEP_TESTS_NATIVE_H
#define LOCKSTEP_TESTS_NATIVE_H

#include <stdio.h>
#include <stdlib.h>

#include "filter.h"
#include "link.h"
#include "op.h"
#include "walk.h"

#define CHECK(condition) \
    do { \
        if (!(condition)) fail_at(__FILE__, __LINE__, #condition); \
    } while (0)
#define CHECK_EQUAL(got, wanted) \
    do { \
        long long got_ = (long long)(got), wanted_ = (long long)(wanted); \
        if (got_ != wanted_) fail_numbers(__FILE__, __LINE__, #got, got_, wanted_); \
    } while (0)

_Noreturn void fail_at(const char *file, int line, const char *what);
_Noreturn void fail_numbers(const char *file, int line, const char *what, long long got, long long wanted);

/* ---- deterministic chance */
struct chance {
    uint64_t state;
};
uint64_t chance_next(struct chance *chance);
uint32_t chance_below(struct chance *chance, uint32_t limit);

/* ---- one node: its events are collected by a thread of its own */
enum { TICKETS = 1 << 18, EVENT_KINDS = 16, ROOT = FIRST_DIRECTORY_FID, PATIENCE_S = 20 };

struct node {
    rfs_engine *engine;
    char path[64];
    char state[80]; /* where its intent log is */
    int cut_fd; /* a second descriptor of its end of the data link: shutting it down loses the link */
    pthread_t pump;
    atomic_bool stopping;
    pthread_mutex_t lock; /* all below */
    pthread_cond_t changed;
    uint32_t events[EVENT_KINDS];
    char text[EVENT_KINDS][RFS_REASON_BYTES];
    uint8_t *answers; /* how often a ticket was answered */
    int32_t *results;
    uint64_t *fids; /* of the entry the ticket's op made or changed */
};

bool nodes_are_possible(void); /* needs root, file handles and trusted.* attributes */
extern const char *nodes_at; /* their trees are here */
void node_open(struct node *node, const char *name);
void node_close(struct node *node, bool keep);
/* A new engine in the place of the old, as after an orderly stop or (crash) a kill: then the log is as it was before the last word. Returns what
 * rfs_open_marks() says. */
int node_restart(struct node *node, bool crash);
void node_learn(struct node *node); /* look everything up, as applications do */
void node_alone(struct node *node, uint64_t term, uint32_t bit); /* a primary without a peer */
rfs_statistics node_statistics(struct node *node);
void wait_event(struct node *node, int kind, uint32_t count); /* until `count` of them were seen */
uint32_t events_seen(struct node *node, int kind);
void wait_mode(struct node *node, enum rfs_mode mode);
void path_in(const struct node *node, const char *name, char out[256]);
bool exists(const struct node *node, const char *name);
void make_file(const struct node *node, const char *name, const void *data, size_t bytes);
uint64_t fid_of(struct node *node, uint64_t parent, const char *name); /* as a lookup: 0 when there is none */
size_t open_descriptors(void);

/* ---- ops; `start` does not wait, the others do and return the result */
struct op *named(enum frame_type type, uint64_t parent, const char *name);
struct op *writing(uint64_t fid, uint64_t offset, const void *data, size_t bytes);
uint64_t start(struct node *node, struct op *op);
int answer_of(struct node *node, uint64_t ticket);
bool is_answered(struct node *node, uint64_t ticket);
int finish(struct node *node, struct op *op);
uint64_t made(struct node *node, struct op *op); /* the new entry's fid */
uint64_t create_file(struct node *node, uint64_t parent, const char *name);
uint64_t create_directory(struct node *node, uint64_t parent, const char *name);
struct op *linking(uint64_t fid, uint64_t parent, const char *name);
struct op *renaming(uint64_t parent, const char *name, uint64_t to, const char *name2, uint32_t flags);
struct op *syncing(uint64_t fid);
struct op *attributing(uint64_t fid, uint32_t flags);
struct op *xattring(enum frame_type type, uint64_t fid, const char *name, const char *value);
void check_answered_once(struct node *node);

/* ---- a pair */
struct pair {
    struct node a, b;
    rfs_session session;
};
void pair_open(struct pair *pair);
void pair_close(struct pair *pair);
extern bool links_are_secure;     /* the links of pairs are under TLS */
extern bool some_are_local;      /* ... and files named LOCAL_NAMES in their trees are local */
#define LOCAL_NAMES "n[37]"
extern bool nodes_have_marks;    /* ... and they keep an intent log: a session compares what is marked */
extern bool applies_in_parallel; /* ... and their targets apply ops in several threads */
void connect_ends(int ends[2]);
void connect_channels(rfs_channel *channels[2], int ends[2]); /* under TLS */
void pair_connect(struct pair *pair, struct node *source, struct node *target); /* starts a full session */
void pair_finish(struct node *source, struct node *target, uint32_t round);       /* waits until it is paired */
void pair_up(struct pair *pair, struct node *source, struct node *target);      /* both */
void pair_up_while(struct pair *pair, struct node *source, struct node *target, void (*meanwhile)(struct node *source, void *context), void *context);
void pair_checkpoint(struct node *source, struct node *target);
void pair_cut(struct pair *pair);
void pair_resume(struct pair *pair, struct node *source, struct node *target);
void settle(struct node *source); /* everything sent is acknowledged */
void compare_nodes(struct pair *pair);
void compare_trees(const char *a, const char *b);

/* ---- storms: threads that change a node's tree at random */
struct storm {
    struct node *node;
    uint64_t seed;
    atomic_bool stop, fenced;
    pthread_t threads[4];
    uint64_t directories[6];
    atomic_uint_fast64_t files[64];
    atomic_uint_fast64_t rounds, failures;
};
void storm_prepare(struct storm *storm, struct node *node, uint64_t seed);
void storm_start(struct storm *storm);
void storm_wait_rounds(struct storm *storm, uint64_t more);
void storm_stop(struct storm *storm);
void storm_stop_anyhow(struct storm *storm); /* its node was fenced: what waits fails */

/* ---- a disk that fails */
extern atomic_uint_fast64_t failing_directory; /* its number: none of its names can be read */
extern atomic_bool ids_are_failing;
uint64_t number_of(const struct node *node, const char *name);

void test_what_cannot_be_read_is_not_gone(void);
void test_what_cannot_be_read_is_not_equal(void);
void test_ids_that_cannot_be_read(void);
void test_marked_places(void);
void test_marks_of_a_target(void);
void test_moved_trees(void);
void test_marks_after_a_crash(void);
void test_hard_links_without_a_known_name(void);
void test_storm_of_restarts(void);
void test_doubt(void);
void test_everything_under_load(void);
void test_removed_there(void);
void test_chunks_ahead(void);
void test_files_of_the_peer(void);
void test_everything_in_a_session(void);
void test_marks_of_what_is_gone(void);

/* ---- the tests */
extern atomic_bool names_are_failing; /* no name can be looked at: test_unreadable.c */
void test_before_is_put_back(void);
void test_before_needs_clones(void);
void test_before_gives_way(void);
void test_crc32c(void);
void test_header(void);
void test_body(void);
void test_garbage(void);
void test_requests(void);
void test_privileges(void);
void test_table(void);
void test_duplicate_ids(void);
void test_parallel_tagging(void);
void test_orphans(void);
void test_descriptors(void);
void test_local_operations(void);
void test_roles(void);
void test_mirrored(void);
void test_swaps(void);
void test_half_done(void);
void test_drained_beside_a_slow_write(void);
void test_added_directory(void);
void test_added_and_taken_back(void);
void test_first_copy(void);
void test_deadlines(void);
void test_waiting_fsyncs(void);
void test_fence(void);
void test_full_socket(void);
void test_pieces(void);
void test_apply_failure(void);
void test_resume_of_fsyncs(void);
void test_turn(void);
void test_scopes(void);
void test_border(void);
void test_border_in_resync(void);
void test_crossing_before_the_end(void);
void test_arrivals_beside_a_purge(void);
void test_brake_holds(void);
void test_brake(void);
void test_planted_names(void);
void test_names_on_both_sides(void);
void test_local_entries_are_kept(void);
void test_lookups_beside_crossings(void);
void test_synced_beyond_a_gap(void);
void test_acknowledged_alone(void);
void test_demote(void);
void test_removals_in_resync(void);
void test_xattrs_in_resync(void);
void test_malformed_peer(void);
void test_acknowledged_from_disk(void);
void test_aead(void);
void test_tls_streams(void);
void test_tls_refusals(void);
void test_tls_with_openssl(void);
void test_tls_meddling(void);
void test_tls_pins(void);
void test_kernel_tls(void);
void test_verify_under_a_storm(void);
void test_verify_ends_with_the_link(void);
void test_verify_finds(void);
void test_verify_of_what_was_not_named(void);
void test_manifest(void);
void test_storm_paired(void);
void test_storm_resyncing(void);
void test_governor(void);
void test_storm_first_copy(void);
void test_storm_resume(void);
void test_storm_grant(void);
#endif
