/* How fast a resync may go while an application works: governor.c. Pure; times are given. */
#ifndef LOCKSTEP_GOVERNOR_H
#define LOCKSTEP_GOVERNOR_H

#include <stdint.h>

enum governed { GOVERNED_OP, GOVERNED_SYNC, GOVERNED_KINDS }; /* what an application waits for: the peer's memory, both disks */

struct governor {
    uint64_t bytes_per_s;
    uint64_t judged_ns; /* 0: nothing was asked of it yet in this session */
    struct {
        uint64_t sum_ns;
        uint32_t count;
        double best_ns; /* the shortest mean of an interval, lately; 0: none yet */
    } kinds[GOVERNED_KINDS];
};

void governor_begin(struct governor *governor);
/* An operation of the application was answered after took_ns. */
void governor_hear(struct governor *governor, enum governed kind, uint64_t took_ns);
/* The rate for now. */
uint64_t governor_judge(struct governor *governor, uint64_t now_ns);
#endif
