/* An engine over a file system of its own in memory, without threads, that can be made as it was at first in no time. */
#ifndef LOCKSTEP_TESTS_FUZZ_SCRATCH_H
#define LOCKSTEP_TESTS_FUZZ_SCRATCH_H

#include <stdio.h>
#include <stdlib.h>

#include "engine.h"

#define CHECK(condition) \
    do { \
        if (!(condition)) fail_at(__FILE__, __LINE__, #condition); \
    } while (0)

_Noreturn void fail_at(const char *file, int line, const char *what); /* aborts: the fuzzer keeps the input */

/* The tree lies beside a directory that nothing may touch, and that every name which leads out of the tree can reach: WAY_OUT. */
enum { OUTSIDE_FD = 100 };
#define WAY_OUT "/proc/self/fd/100/file"

struct scratch {
    rfs_engine *engine;
    int base_fd, outside_fd, root_fd; /* root_fd: of the tree, whose parent cannot be reached */
    int first_free_fd;                /* when the input began */
    struct stat untouched[3];
    struct scopes border;             /* *.tmp is local */
};

/* Ends the process with SCRATCH_IMPOSSIBLE where there is no root or no tmpfs that holds replicas. */
enum { SCRATCH_IMPOSSIBLE = 3 };
void scratch_open(struct scratch *scratch);
void scratch_begin(struct scratch *scratch); /* an input; scratch_reset ends it */
/* Everything is given back, nothing outside was touched, no disk failed; then the tree is emptied. */
void scratch_reset(struct scratch *scratch);
/* What the worker threads would do now. */
void scratch_run_jobs(struct scratch *scratch);
/* From here on until the reset the tree has a border. */
void scratch_draw_border(struct scratch *scratch);
void scratch_file(struct scratch *scratch, const char *name, size_t bytes);
#endif
