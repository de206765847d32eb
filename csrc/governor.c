/* How fast a resync may go while an application works.
 *
 * What slows the application down is seldom the link: its fsyncs wait behind what the resync has written on the target's disk, and behind it on
 * both processors. So its waiting is what is measured. A fifth of a second at a time the mean of what was answered is compared with the best mean so far:
 * is it much longer, the resync goes at two thirds of its rate; is it about the same, a fifth faster. It begins slowly, so that the best is
 * known before the resync is felt, and never stops: redundancy is wanted too. Where that does not help, the application has become slower by itself:
 * then what counts as its best is let go, little by little. */
#include "governor.h"

#include <stdbool.h>
#include <stddef.h>

static const uint64_t INTERVAL_NS = 200000000, FIRST_BYTES_PER_S = 16 << 20, LEAST_BYTES_PER_S = 4 << 20, MOST_BYTES_PER_S = UINT64_C(8) << 30;
enum { ENOUGH = 8 }; /* answers, to say something of an interval */
static const double FELT = 1.6, UNFELT = 1.35 /* the best of many means is a lucky one */, FADES = 1.02;

void governor_begin(struct governor *governor) { *governor = (struct governor){.bytes_per_s = FIRST_BYTES_PER_S}; }

void governor_hear(struct governor *governor, enum governed kind, uint64_t took_ns) {
    governor->kinds[kind].sum_ns += took_ns;
    governor->kinds[kind].count++;
}

/* By how much the worse of the two kinds takes longer than at its best; 1: nobody waited. 0: too little was heard. */
static double strain(struct governor *governor, bool fades) {
    double worst = 0;
    bool silent = true;
    for (size_t i = 0; i < GOVERNED_KINDS; i++) {
        silent &= !governor->kinds[i].count;
        if (governor->kinds[i].count < ENOUGH) continue;
        double mean = (double)governor->kinds[i].sum_ns / governor->kinds[i].count, best = governor->kinds[i].best_ns;
        if (best <= 0 || mean < best) best = mean;
        if (mean > worst * best) worst = mean / best;
        governor->kinds[i].best_ns = fades && mean > UNFELT * best ? best * FADES : best;
        governor->kinds[i].sum_ns = governor->kinds[i].count = 0;
    }
    return silent ? 1 : worst;
}

uint64_t governor_judge(struct governor *governor, uint64_t now_ns) {
    if (!governor->judged_ns) governor->judged_ns = now_ns;
    if (now_ns - governor->judged_ns < INTERVAL_NS) return governor->bytes_per_s;
    governor->judged_ns = now_ns;
    uint64_t rate = governor->bytes_per_s;
    double felt = strain(governor, rate == LEAST_BYTES_PER_S);
    if (felt > FELT) rate = rate / 3 * 2;
    else if (felt > 0 && felt < UNFELT) rate += rate / 5;
    if (rate < LEAST_BYTES_PER_S) rate = LEAST_BYTES_PER_S;
    if (rate > MOST_BYTES_PER_S) rate = MOST_BYTES_PER_S;
    return governor->bytes_per_s = rate;
}
