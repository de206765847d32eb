/* Messages of the kernel: each opcode's shortest good one, one byte less, strings without an end, counts that do not fit. */
#include <string.h>

#include "native.h"
#include "request.h"

struct message {
    uint8_t body[512];
    size_t bytes;
};

/* A fixed part of zeros, then the strings one after the other. */
static struct message message_of(size_t fixed_bytes, int strings, const char *const texts[]) {
    struct message message = {.bytes = fixed_bytes};
    for (int i = 0; i < strings; i++) {
        memcpy(message.body + message.bytes, texts[i], strlen(texts[i]) + 1);
        message.bytes += strlen(texts[i]) + 1;
    }
    return message;
}

static bool is_whole(uint32_t opcode, const struct message *message, size_t bytes) {
    uint8_t *exact = malloc(bytes ? bytes : 1); /* the sanitizer sees who reads beyond it */
    CHECK(exact);
    memcpy(exact, message->body, bytes);
    bool whole = request_is_whole(opcode, true, exact, bytes);
    free(exact);
    return whole;
}

/* As the kernel's own headers say it, once more and by hand. */
static const struct {
    uint32_t opcode;
    size_t fixed_bytes;
    int entries, texts;
} wanted[] = {
    {FUSE_LOOKUP, 0, 1, 0},       {FUSE_FORGET, 8, 0, 0},    {FUSE_GETATTR, 16, 0, 0},   {FUSE_SETATTR, 88, 0, 0},      {FUSE_READLINK, 0, 0, 0},
    {FUSE_SYMLINK, 0, 1, 1},      {FUSE_MKNOD, 16, 1, 0},    {FUSE_MKDIR, 8, 1, 0},      {FUSE_UNLINK, 0, 1, 0},        {FUSE_RMDIR, 0, 1, 0},
    {FUSE_RENAME, 8, 2, 0},       {FUSE_LINK, 8, 1, 0},      {FUSE_OPEN, 8, 0, 0},       {FUSE_READ, 40, 0, 0},         {FUSE_WRITE, 40, 0, 0},
    {FUSE_STATFS, 0, 0, 0},       {FUSE_RELEASE, 24, 0, 0},  {FUSE_FSYNC, 16, 0, 0},     {FUSE_SETXATTR, 16, 0, 1},     {FUSE_GETXATTR, 8, 0, 1},
    {FUSE_LISTXATTR, 8, 0, 0},    {FUSE_REMOVEXATTR, 0, 0, 1}, {FUSE_FLUSH, 0, 0, 0},    {FUSE_INIT, 16, 0, 0},         {FUSE_OPENDIR, 0, 0, 0},
    {FUSE_READDIR, 40, 0, 0},     {FUSE_RELEASEDIR, 0, 0, 0}, {FUSE_FSYNCDIR, 16, 0, 0}, {FUSE_GETLK, 0, 0, 0},         {FUSE_SETLK, 0, 0, 0},
    {FUSE_SETLKW, 0, 0, 0},       {FUSE_ACCESS, 0, 0, 0},    {FUSE_CREATE, 16, 1, 0},    {FUSE_INTERRUPT, 0, 0, 0},     {FUSE_BMAP, 0, 0, 0},
    {FUSE_DESTROY, 0, 0, 0},      {FUSE_IOCTL, 0, 0, 0},     {FUSE_POLL, 0, 0, 0},       {FUSE_NOTIFY_REPLY, 0, 0, 0},  {FUSE_BATCH_FORGET, 8, 0, 0},
    {FUSE_FALLOCATE, 32, 0, 0},   {FUSE_READDIRPLUS, 40, 0, 0}, {FUSE_RENAME2, 16, 2, 0}, {FUSE_LSEEK, 24, 0, 0},       {FUSE_COPY_FILE_RANGE, 56, 0, 0},
    {FUSE_SETUPMAPPING, 0, 0, 0}, {FUSE_REMOVEMAPPING, 0, 0, 0}, {FUSE_SYNCFS, 0, 0, 0}, {FUSE_TMPFILE, 0, 0, 0},       {FUSE_TMPFILE + 1, 0, 0, 0},
    {4096, 0, 0, 0},              {UINT32_MAX, 0, 0, 0},
};

/* Every length below the shortest good one is refused: also each string without its end. */
static void check_shortest(void) {
    static const char *const names[] = {"a", "b"};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        struct message good = message_of(wanted[i].fixed_bytes, wanted[i].entries + wanted[i].texts, names);
        CHECK(is_whole(wanted[i].opcode, &good, good.bytes));
        for (size_t bytes = 0; bytes < good.bytes; bytes++) CHECK(!is_whole(wanted[i].opcode, &good, bytes));
        CHECK(is_whole(wanted[i].opcode, &good, good.bytes + 8)); /* what a newer kernel may add */
    }
}

static void check_strings(void) {
    static const char *const bad[] = {"", ".", "..", "a/b", "/"}, *const good[] = {"...", "a\nb\xff", ".lockstep-holding"};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        bool dots = wanted[i].opcode == FUSE_LOOKUP;
        int strings = wanted[i].entries + wanted[i].texts;
        for (int at = 0; at < strings; at++) {
            const char *names[] = {"a", "b"};
            for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
                names[at] = bad[k];
                struct message message = message_of(wanted[i].fixed_bytes, strings, names);
                bool allowed = at >= wanted[i].entries ? k > 0 : dots && (k == 1 || k == 2); /* no text is empty; else it may be anything */
                CHECK(is_whole(wanted[i].opcode, &message, message.bytes) == allowed);
            }
            for (size_t k = 0; k < sizeof good / sizeof good[0]; k++) {
                names[at] = good[k];
                struct message message = message_of(wanted[i].fixed_bytes, strings, names);
                CHECK(is_whole(wanted[i].opcode, &message, message.bytes));
            }
        }
    }
}

static struct message counting(size_t fixed_bytes, size_t at, uint32_t count) {
    struct message message = message_of(fixed_bytes, 0, NULL);
    memcpy(message.body + at, &count, sizeof count);
    return message;
}

static void check_counts(void) {
    struct message forgets = counting(8, 0, 2), write = counting(40, 16, 5), read = counting(40, 16, MAX_WRITE_BYTES);
    CHECK(is_whole(FUSE_BATCH_FORGET, &forgets, 8 + 2 * 16));
    CHECK(!is_whole(FUSE_BATCH_FORGET, &forgets, 8 + 2 * 16 - 1));
    forgets = counting(8, 0, UINT32_MAX);
    CHECK(!is_whole(FUSE_BATCH_FORGET, &forgets, 500)); /* times 16 it is little again */
    CHECK(is_whole(FUSE_WRITE, &write, 45));
    CHECK(!is_whole(FUSE_WRITE, &write, 44));
    write = counting(40, 16, UINT32_MAX);
    CHECK(!is_whole(FUSE_WRITE, &write, 500));
    CHECK(is_whole(FUSE_READ, &read, 40) && is_whole(FUSE_READDIR, &read, 40) && is_whole(FUSE_READDIRPLUS, &read, 40));
    read = counting(40, 16, MAX_WRITE_BYTES + 1);
    CHECK(!is_whole(FUSE_READ, &read, 40) && !is_whole(FUSE_READDIR, &read, 40) && !is_whole(FUSE_READDIRPLUS, &read, 40));
    struct message value = counting(16, 0, 3);
    memcpy(value.body + 16, "user.x", 7);
    CHECK(is_whole(FUSE_SETXATTR, &value, 16 + 7 + 3));
    CHECK(!is_whole(FUSE_SETXATTR, &value, 16 + 7 + 2));
    memcpy(value.body + 8, "user.x", 7);
    CHECK(request_is_whole(FUSE_SETXATTR, false, value.body, 8 + 7 + 3)); /* as before FUSE_SETXATTR_EXT */
    CHECK(!request_is_whole(FUSE_SETXATTR, false, value.body, 8 + 7 + 2));
}

/* What utimensat() may ask for and nanoseconds cannot hold. */
static void check_times(void) {
    CHECK(to_ns(5, 7) == INT64_C(5000000007) && to_ns(-5, 7) == -INT64_C(4999999993));
    CHECK(to_ns(INT64_C(10000000000), 0) == INT64_MAX && to_ns(-INT64_C(10000000000), 0) == INT64_MIN && to_ns(INT64_MIN, 0) == INT64_MIN);
    CHECK(to_ns(INT64_MAX / NS_PER_S, 999999999) == INT64_MAX);
}

void test_requests(void) {
    check_times();
    check_shortest();
    check_strings();
    check_counts();
    CHECK(!request_has_answer(FUSE_FORGET) && !request_has_answer(FUSE_BATCH_FORGET) && request_has_answer(FUSE_LOOKUP));
}
