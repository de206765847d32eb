/* Every native test, one line each. A failure ends the program with status 1. An argument runs the tests of that name. */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "native.h"

struct test {
    const char *name;
    void (*run)(void);
    bool needs_nodes;
    bool secure; /* its links under TLS */
    bool parallel; /* ops are applied in several threads */
    bool border;   /* some files are local */
    bool marks;    /* there are intent logs */
};

static const struct test tests[] = {
    {"crc32c", test_crc32c, false, false, false, false, false},
    {"header", test_header, false, false, false, false, false},
    {"body", test_body, false, false, false, false, false},
    {"garbage", test_garbage, false, false, false, false, false},
    {"requests", test_requests, false, false, false, false, false},
    {"privileges", test_privileges, true, false, false, false, false},
    {"governor", test_governor, false, false, false, false, false},
    {"table", test_table, true, false, false, false, false},
    {"duplicate ids", test_duplicate_ids, true, false, false, false, false},
    {"parallel tagging", test_parallel_tagging, true, false, false, false, false},
    {"orphans", test_orphans, true, false, false, false, false},
    {"descriptors", test_descriptors, true, false, false, false, false},
    {"local operations", test_local_operations, true, false, false, false, false},
    {"roles", test_roles, true, false, false, false, false},
    {"mirrored", test_mirrored, true, false, false, false, false},
    {"swaps", test_swaps, true, false, false, false, false},
    {"half done", test_half_done, true, false, false, false, false},
    {"first copy", test_first_copy, true, false, false, false, false},
    {"deadlines", test_deadlines, true, false, false, false, false},
    {"waiting fsyncs", test_waiting_fsyncs, true, false, false, false, false},
    {"fence", test_fence, true, false, false, false, false},
    {"full socket", test_full_socket, true, false, false, false, false},
    {"pieces", test_pieces, true, false, false, false, false},
    {"apply failure", test_apply_failure, true, false, false, false, false},
    {"resume of fsyncs", test_resume_of_fsyncs, true, false, false, false, false},
    {"turn", test_turn, true, false, false, false, false},
    {"acknowledged alone", test_acknowledged_alone, true, false, false, false, false},
    {"scopes", test_scopes, false, false, false, false, false},
    {"border", test_border, true, false, false, false, false},
    {"border in a resync", test_border_in_resync, true, false, false, false, false},
    {"crossing before the end", test_crossing_before_the_end, true, false, false, false, false},
    {"arrivals beside a purge", test_arrivals_beside_a_purge, true, false, false, false, false},
    {"brake holds", test_brake_holds, false, false, false, false, false},
    {"brake", test_brake, true, false, false, false, false},
    {"planted names", test_planted_names, true, false, false, false, false},
    {"names on both sides", test_names_on_both_sides, true, false, false, false, false},
    {"local entries are kept", test_local_entries_are_kept, true, false, false, false, false},
    {"lookups beside crossings", test_lookups_beside_crossings, true, false, false, false, false},
    {"synced beyond a gap", test_synced_beyond_a_gap, true, false, false, false, false},
    {"demote", test_demote, true, false, false, false, false},
    {"removals in a resync", test_removals_in_resync, true, false, false, false, false},
    {"xattrs in a resync", test_xattrs_in_resync, true, false, false, false, false},
    {"malformed peer", test_malformed_peer, true, false, false, false, false},
    {"acknowledged from disk", test_acknowledged_from_disk, true, false, false, false, false},
    {"aead", test_aead, false, false, false, false, false},
    {"tls streams", test_tls_streams, false, false, false, false, false},
    {"tls refusals", test_tls_refusals, false, false, false, false, false},
    {"tls with OpenSSL", test_tls_with_openssl, false, false, false, false, false},
    {"tls meddling", test_tls_meddling, false, false, false, false, false},
    {"tls pins", test_tls_pins, false, false, false, false, false},
    {"kernel tls", test_kernel_tls, false, false, false, false, false},
    {"pieces under TLS", test_pieces, true, true, false, false, false},
    {"full socket under TLS", test_full_socket, true, true, false, false, false},
    {"storm paired under TLS", test_storm_paired, true, true, false, false, false},
    {"storm of a first copy under TLS", test_storm_first_copy, true, true, false, false, true},
    {"storm resuming under TLS", test_storm_resume, true, true, false, false, false},
    {"apply failure in parallel", test_apply_failure, true, false, true, false, false},
    {"resume of fsyncs in parallel", test_resume_of_fsyncs, true, false, true, false, false},
    {"pieces in parallel", test_pieces, true, false, true, false, false},
    {"acknowledged from disk in parallel", test_acknowledged_from_disk, true, false, true, false, false},
    {"storm paired in parallel", test_storm_paired, true, false, true, false, false},
    {"storm resyncing in parallel", test_storm_resyncing, true, false, true, false, false},
    {"storm resume in parallel", test_storm_resume, true, true, true, false, false},
    {"storm paired at the border", test_storm_paired, true, false, false, true, false},
    {"storm resyncing at the border", test_storm_resyncing, true, false, false, true, false},
    {"storm of a first copy at the border", test_storm_first_copy, true, false, true, true, false},
    {"storm resume at the border", test_storm_resume, true, false, true, true, false},
    {"storm grant at the border", test_storm_grant, true, false, false, true, false},
    {"marked places", test_marked_places, true, false, false, false, true},
    {"marks of a target", test_marks_of_a_target, true, false, false, false, true},
    {"moved trees", test_moved_trees, true, false, false, false, true},
    {"added directory", test_added_directory, true, false, false, false, true},
    {"added and taken back", test_added_and_taken_back, true, false, false, false, true},
    {"drained beside a slow write", test_drained_beside_a_slow_write, true, false, false, false, true},
    {"removed there", test_removed_there, true, false, false, false, true},
    {"chunks ahead", test_chunks_ahead, true, false, false, false, true},
    {"files of the peer", test_files_of_the_peer, true, false, false, false, true},
    {"everything in a session", test_everything_in_a_session, true, false, false, false, true},
    {"marks of what is gone", test_marks_of_what_is_gone, true, false, false, false, true},
    {"what cannot be read is not gone", test_what_cannot_be_read_is_not_gone, true, false, false, false, true},
    {"what cannot be read is not equal", test_what_cannot_be_read_is_not_equal, true, false, false, false, true},
    {"ids that cannot be read", test_ids_that_cannot_be_read, true, false, false, false, true},
    {"marks after a crash", test_marks_after_a_crash, true, false, false, false, true},
    {"hard links without a known name", test_hard_links_without_a_known_name, true, false, false, false, true},
    {"doubt", test_doubt, true, false, false, false, true},
    {"everything under load", test_everything_under_load, true, false, false, false, true},
    {"storm of restarts", test_storm_of_restarts, true, false, false, false, true},
    {"storm of restarts under TLS in parallel", test_storm_of_restarts, true, true, true, false, true},
    {"storm paired with marks", test_storm_paired, true, false, false, false, true},
    {"storm resyncing with marks", test_storm_resyncing, true, false, false, false, true},
    {"storm grant with marks", test_storm_grant, true, false, false, false, true},
    {"storm resyncing with marks at the border", test_storm_resyncing, true, false, true, true, true},
    {"what was before is put back", test_before_is_put_back, true, false, false, false, false},
    {"what was before is put back with marks", test_before_is_put_back, true, false, true, false, true},
    {"before needs clones", test_before_needs_clones, true, false, false, false, false},
    {"before gives way", test_before_gives_way, true, false, false, false, false},
    {"manifest", test_manifest, true, false, false, false, false},
    {"verify finds", test_verify_finds, true, false, false, false, false},
    {"verify finds in parallel", test_verify_finds, true, true, true, false, false},
    {"verify finds with marks", test_verify_finds, true, false, false, false, true},
    {"verify of what was not named", test_verify_of_what_was_not_named, true, false, false, false, true},
    {"verify under a storm with marks", test_verify_under_a_storm, true, false, true, false, true},
    {"verify ends with the link", test_verify_ends_with_the_link, true, false, false, false, false},
    {"verify under a storm", test_verify_under_a_storm, true, false, false, false, false},
    {"verify under a storm in parallel", test_verify_under_a_storm, true, true, true, false, false},
    {"verify under a storm at the border", test_verify_under_a_storm, true, false, false, true, false},
    {"storm paired", test_storm_paired, true, false, false, false, false},
    {"storm resyncing", test_storm_resyncing, true, false, false, false, false},
    {"storm of a first copy", test_storm_first_copy, true, false, false, false, false},
    {"storm resume", test_storm_resume, true, false, false, false, false},
    {"storm grant", test_storm_grant, true, false, false, false, false},
};

_Noreturn void fail_at(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: FAILED: %s\n", file, line, what);
    fflush(NULL);
    _exit(1);
}

_Noreturn void fail_numbers(const char *file, int line, const char *what, long long got, long long wanted) {
    fprintf(stderr, "%s:%d: FAILED: %s is %lld, not %lld\n", file, line, what, got, wanted);
    fflush(NULL);
    _exit(1);
}

int main(int count, char **arguments) {
    signal(SIGPIPE, SIG_IGN); /* as Python does */
    bool possible = nodes_are_possible();
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        if (count > 1 && strcmp(arguments[1], tests[i].name)) continue;
        if (tests[i].needs_nodes && !possible) {
            printf("skipped  %s (needs root and a file system with handles and trusted.* attributes)\n", tests[i].name);
            continue;
        }
        uint64_t began = now_ns();
        links_are_secure = tests[i].secure;
        applies_in_parallel = tests[i].parallel;
        some_are_local = tests[i].border;
        nodes_have_marks = tests[i].marks;
        tests[i].run();
        printf("ok %6llu ms  %s\n", (unsigned long long)(now_ns() - began) / 1000000, tests[i].name);
        fflush(stdout);
    }
    return 0;
}
