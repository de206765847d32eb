/* How fast a resync may go, by what an application feels of it: the governor alone, with times that are made up. */
#include "governor.h"
#include "native.h"

static const uint64_t MS = 1000000, LEAST = 4 << 20;

enum { BY_RATE = 0 };

/* Disks that are felt above 200 MB/s: what an operation then takes grows with the rate. */
static uint64_t took_at(uint64_t rate) { return 1 * MS + (rate > 200000000 ? (rate - 200000000) / 100 : 0); }

/* A second in which `each` operations and a tenth as many syncs are answered every 20 ms, after `given_ns` and ten times that. */
static uint64_t second(struct governor *governor, uint64_t *now_ns, uint64_t given_ns, int each) {
    uint64_t rate = governor->bytes_per_s;
    for (int i = 0; i < 50; i++, *now_ns += 20 * MS) {
        uint64_t took_ns = given_ns == BY_RATE ? took_at(rate) : given_ns;
        for (int k = 0; k < each; k++) governor_hear(governor, k % 10 ? GOVERNED_OP : GOVERNED_SYNC, k % 10 ? took_ns : 10 * took_ns);
        rate = governor_judge(governor, *now_ns);
    }
    return rate;
}

void test_governor(void) {
    struct governor governor;
    uint64_t now_ns = 1000 * MS, slow;
    governor_begin(&governor);
    uint64_t first = second(&governor, &now_ns, 1 * MS, 20), rate = first;
    for (int i = 0; i < 20; i++) rate = second(&governor, &now_ns, BY_RATE, 20);
    CHECK(rate > 4 * first);                          /* it found out what there is ... */
    CHECK(took_at(rate) < 2 * MS);                    /* ... and stays where the application does not feel it */
    for (int i = 0; i < 5; i++) slow = second(&governor, &now_ns, 10 * MS, 20);
    CHECK(slow < rate / 8);                           /* it is felt: it makes room within seconds */
    for (int i = 0; i < 40; i++) slow = second(&governor, &now_ns, 10 * MS, 20);
    CHECK(slow > LEAST);                              /* and did not help: the application has become slower by itself */
    for (int i = 0; i < 10; i++) slow = second(&governor, &now_ns, 1 * MS, 20);
    CHECK(slow > rate / 2);                           /* it is over */
    governor_begin(&governor);
    for (int i = 0; i < 60; i++) CHECK(second(&governor, &now_ns, (uint64_t)(1 + i % 2 * 30) * MS, 20) >= LEAST); /* it never stops */
    governor_begin(&governor);
    CHECK(second(&governor, &now_ns, 1 * MS, 0) > governor.bytes_per_s / 3); /* nobody waits for anything */
    CHECK(governor.bytes_per_s > 16 << 20);
}
