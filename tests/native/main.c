/* Every native test, one line each. A failure ends the program with status 1. An argument runs the tests of that name. */
#include <string.h>
#include <unistd.h>

#include "native.h"

struct test {
    const char *name;
    void (*run)(void);
    bool needs_nodes;
};

static const struct test tests[] = {
    {"crc32c", test_crc32c, false},
    {"header", test_header, false},
    {"body", test_body, false},
    {"garbage", test_garbage, false},
    {"table", test_table, true},
    {"duplicate ids", test_duplicate_ids, true},
    {"parallel tagging", test_parallel_tagging, true},
    {"orphans", test_orphans, true},
    {"descriptors", test_descriptors, true},
    {"local operations", test_local_operations, true},
    {"roles", test_roles, true},
    {"mirrored", test_mirrored, true},
    {"first copy", test_first_copy, true},
    {"deadlines", test_deadlines, true},
    {"waiting fsyncs", test_waiting_fsyncs, true},
    {"fence", test_fence, true},
    {"full socket", test_full_socket, true},
    {"apply failure", test_apply_failure, true},
    {"resume of fsyncs", test_resume_of_fsyncs, true},
    {"turn", test_turn, true},
    {"demote", test_demote, true},
    {"removals in a resync", test_removals_in_resync, true},
    {"xattrs in a resync", test_xattrs_in_resync, true},
    {"malformed peer", test_malformed_peer, true},
    {"storm paired", test_storm_paired, true},
    {"storm resyncing", test_storm_resyncing, true},
    {"storm resume", test_storm_resume, true},
    {"storm grant", test_storm_grant, true},
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
    bool possible = nodes_are_possible();
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        if (count > 1 && strcmp(arguments[1], tests[i].name)) continue;
        if (tests[i].needs_nodes && !possible) {
            printf("skipped  %s (needs root and a file system with handles and trusted.* attributes)\n", tests[i].name);
            continue;
        }
        uint64_t began = now_ns();
        tests[i].run();
        printf("ok %6llu ms  %s\n", (unsigned long long)(now_ns() - began) / 1000000, tests[i].name);
        fflush(stdout);
    }
    return 0;
}
