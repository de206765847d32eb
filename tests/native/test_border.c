/* What is local, by patterns, and what crosses the border between it and what is replicated. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "native.h"

/* ---- patterns ------------------------------------------------------------------------------------------------------------- */

struct verdict {
    const char *exclude[3], *only[3]; /* up to the first NULL */
    const char *path;                 /* one that ends in a slash is a directory */
    bool local;
};

static const struct verdict verdicts[] = {
    {{"*.tmp"}, {NULL}, "a.tmp", true},
    {{"*.tmp"}, {NULL}, "a/b/c.tmp", true},
    {{"*.tmp"}, {NULL}, "a.tmp/", true},
    {{"*.tmp"}, {NULL}, "a.tmp/below", true},
    {{"*.tmp"}, {NULL}, "a.tmpx", false},
    {{"./*.tmp"}, {NULL}, "a.tmp", true},
    {{"./*.tmp"}, {NULL}, "b/a.tmp", false},
    {{"cache/**"}, {NULL}, "cache/", false},
    {{"cache/**"}, {NULL}, "cache/x", true},
    {{"cache/**"}, {NULL}, "cache/x/y", true},
    {{"cache/**"}, {NULL}, "b/cache/x", false},
    {{"a/*/c"}, {NULL}, "a/b/c", true},
    {{"a/*/c"}, {NULL}, "a/c", false},
    {{"a/*/c"}, {NULL}, "a/b/b/c", false},
    {{"a/**/c"}, {NULL}, "a/c", true},
    {{"a/**/c"}, {NULL}, "a/b/b/c/d", true},
    {{"a/**/c"}, {NULL}, "a/b/cc", false},
    {{"**/x/**"}, {NULL}, "x/y", true},
    {{"**/x/**"}, {NULL}, "a/x/", false},
    {{"[ab]?", "z"}, {NULL}, "q/a1", true},
    {{"[ab]?", "z"}, {NULL}, "q/c1", false},
    {{"[ab]?", "z"}, {NULL}, "q/z/r", true},
    {{"?.tmp"}, {NULL}, "a.tmp", true},
    {{"?.tmp"}, {NULL}, "\xc3\xa9.tmp", false}, /* bytes: whatever the language is */
    {{"[!a].tmp"}, {NULL}, "b.tmp", true},
    {{"[!a].tmp"}, {NULL}, "a.tmp", false},
    {{"[a-c]x"}, {NULL}, "bx", true},
    {{"[a-c]x"}, {NULL}, "dx", false},
    {{"[]x]y"}, {NULL}, "]y", true},
    {{"[-a]y"}, {NULL}, "-y", true},
    {{"[ab"}, {NULL}, "[ab", true},
    {{"[ab"}, {NULL}, "a", false},
    {{"*a*b*"}, {NULL}, "xaxxbx", true},
    {{"*a*b*"}, {NULL}, "xbxxax", false},
    {{"*ab"}, {NULL}, "aab", true},
    {{"a*"}, {NULL}, "a", true},
    {{"*"}, {NULL}, ".hidden", true},
    {{NULL}, {"*.db"}, "a/", false}, /* something below it may be chosen */
    {{NULL}, {"*.db"}, "a/x.db", false},
    {{NULL}, {"*.db"}, "a/x.log", true},
    {{NULL}, {"*.db"}, "x.db/inside", false},
    {{NULL}, {"data/**"}, "data/", false},
    {{NULL}, {"data/**"}, "data/x/y", false},
    {{NULL}, {"data/**"}, "logs/", true},
    {{NULL}, {"data/**"}, "logs/x", true},
    {{NULL}, {"data/**"}, "data", true}, /* a file of that name */
    {{NULL}, {"a/b/c", "d"}, "a/b/", false},
    {{NULL}, {"a/b/c", "d"}, "a/b/x", true},
    {{NULL}, {"a/b/c", "d"}, "a/q/d/x", false},
    {{"*.tmp"}, {"data/**"}, "data/x.tmp", true},
    {{"*.tmp"}, {"data/**"}, "data/x", false},
};

static bool is_local(const struct verdict *verdict) {
    struct scopes scopes = {.any = false};
    char path[64], *at = path;
    for (int i = 0; i < 3 && verdict->exclude[i]; i++) CHECK_EQUAL(scopes_add(&scopes, verdict->exclude[i], false), 0);
    for (int i = 0; i < 3 && verdict->only[i]; i++) CHECK_EQUAL(scopes_add(&scopes, verdict->only[i], true), 0);
    strcpy(path, verdict->path);
    scope_t scope = scopes.root;
    for (char *name; (name = strsep(&at, "/")) && *name;) scope = scope_below(&scopes, scope, name, at != NULL);
    scopes_free(&scopes);
    return scope & SCOPE_LOCAL;
}

void test_scopes(void) {
    struct scopes scopes = {.any = false};
    for (size_t i = 0; i < sizeof verdicts / sizeof verdicts[0]; i++)
        if (is_local(&verdicts[i]) != verdicts[i].local) fail_at(verdicts[i].path, (int)i, "local");
    const char *const bad[] = {"", "/", "a//b", "a/", "../a", "a/../b", "./"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) CHECK_EQUAL(scopes_add(&scopes, bad[i], i % 2), -EINVAL);
    CHECK(!scopes.parts && !scopes.root && !scopes.only && !scopes.any);
    int result = 0;
    for (int i = 0; result == 0; i++) result = scopes_add(&scopes, "a/b", false);
    CHECK_EQUAL(result, -E2BIG);
    CHECK_EQUAL(scopes.parts, SCOPE_PARTS);
    scopes_free(&scopes);
}

/* ---- the border ------------------------------------------------------------------------------------------------------------- */

static void check_content(const struct node *node, const char *name, const void *wanted, size_t bytes) {
    char path[256];
    static uint8_t got[3 << 20];
    path_in(node, name, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQUAL(read(fd, got, sizeof got), bytes);
    CHECK(!memcmp(got, wanted, bytes));
    close(fd);
}

static void open_border(struct pair *pair, bool resync_first) {
    pair_open(pair);
    for (int i = 0; i < 2; i++) {
        rfs_engine *engine = i ? pair->b.engine : pair->a.engine;
        CHECK_EQUAL(rfs_add_pattern(engine, 0, "*.tmp", 0), 0);
        CHECK_EQUAL(rfs_add_pattern(engine, 0, "cache/**", 0), 0);
    }
    node_alone(&pair->a, 1, 0);
    if (!resync_first) pair_up(pair, &pair->a, &pair->b);
}

static int rename_file(struct node *node, const char *from, const char *to, uint32_t flags) { return finish(node, renaming(ROOT, from, ROOT, to, flags)); }

/* Save by rename: the peer has the old file or the new one, whole. */
static void cross_paired(struct pair *pair) {
    static uint8_t large[2500000];
    memset(large, 'L', sizeof large);
    struct node *a = &pair->a, *b = &pair->b;
    uint64_t fid = create_file(a, ROOT, "file.tmp");
    CHECK_EQUAL(finish(a, writing(fid, 0, "first", 5)), 0);
    CHECK_EQUAL(finish(a, xattring(FRAME_SET_XATTR, fid, "user.k", "v")), 0);
    CHECK_EQUAL(finish(a, syncing(fid)), 0);
    settle(a);
    CHECK(exists(a, "file.tmp") && !exists(b, "file.tmp"));
    CHECK_EQUAL(rename_file(a, "file.tmp", "file", 0), 0);
    check_content(b, "file", "first", 5);
    CHECK_EQUAL(finish(a, writing(fid, 5, " more", 5)), 0);
    check_content(b, "file", "first more", 10);
    fid = create_file(a, ROOT, "file.tmp");
    CHECK_EQUAL(finish(a, writing(fid, 0, large, MAX_WRITE_BYTES)), 0);
    CHECK_EQUAL(finish(a, writing(fid, 2 << 20, large, sizeof large - (2 << 20))), 0); /* with a hole */
    CHECK_EQUAL(rename_file(a, "file.tmp", "file", RENAME_NOREPLACE), -EEXIST);
    CHECK_EQUAL(rename_file(a, "file.tmp", "file", RENAME_EXCHANGE), -EXDEV);
    CHECK_EQUAL(rename_file(a, "file.tmp", "file", 0), 0);
    memset(large + MAX_WRITE_BYTES, 0, (2 << 20) - MAX_WRITE_BYTES);
    check_content(b, "file", large, sizeof large);
    CHECK_EQUAL(rename_file(a, "file", "back.tmp", 0), 0);
    CHECK(!exists(b, "file") && !exists(b, "back.tmp"));
    CHECK_EQUAL(finish(a, writing(fid, 0, "new", 3)), 0); /* by who has it open */
    CHECK_EQUAL(rename_file(a, "back.tmp", "file", 0), 0); /* the same inode again */
    memcpy(large, "new", 3);
    check_content(b, "file", large, sizeof large);
    struct op *link = named(FRAME_SYMLINK, ROOT, "link.tmp");
    link->body.mode = S_IFLNK | 0777;
    link->data = (uint8_t *)strdup("target");
    link->body.data_bytes = 6;
    CHECK(made(a, link));
    CHECK_EQUAL(rename_file(a, "link.tmp", "link", 0), 0);
    CHECK(exists(b, "link"));
}

static void refuse_crossings(struct pair *pair) {
    static uint8_t large[MAX_WRITE_BYTES];
    struct node *a = &pair->a;
    uint64_t fid = create_file(a, ROOT, "name");
    CHECK_EQUAL(finish(a, linking(fid, ROOT, "name.tmp")), -EXDEV);
    CHECK_EQUAL(finish(a, linking(fid, ROOT, "name2")), 0);
    CHECK_EQUAL(rename_file(a, "name", "name.tmp", 0), -EXDEV); /* it would have names on both sides */
    uint64_t directory = create_directory(a, ROOT, "d");
    CHECK(create_file(a, directory, "below"));
    CHECK_EQUAL(rename_file(a, "d", "d.tmp", 0), -EXDEV);
    CHECK_EQUAL(rename_file(a, "d", "cache2", 0), 0);
    uint64_t cache = create_directory(a, ROOT, "cache");
    CHECK_EQUAL(rename_file(a, "cache", "elsewhere", 0), -EXDEV); /* what is below it would change sides */
    CHECK(create_file(a, cache, "x"));
    fid = create_file(a, ROOT, "large.tmp");
    for (uint64_t at = 0; at < 17 << 20; at += sizeof large) {
        memset(large, (int)at | 1, sizeof large);
        CHECK_EQUAL(finish(a, writing(fid, at, large, sizeof large)), 0);
    }
    CHECK_EQUAL(rename_file(a, "large.tmp", "large", 0), -EXDEV);
    CHECK(exists(a, "large.tmp") && !exists(a, "large"));
}

/* What is local on the secondary outlives the directory that the primary removes. */
static void leave_leftovers(struct pair *pair) {
    struct node *a = &pair->a, *b = &pair->b;
    make_file(b, "cache/mine", "m", 1);
    CHECK_EQUAL(finish(a, named(FRAME_UNLINK, fid_of(a, ROOT, "cache"), "x")), 0);
    CHECK_EQUAL(finish(a, named(FRAME_RMDIR, ROOT, "cache")), 0);
    CHECK(!exists(b, "cache") && exists(b, KEPT_NAME));
    uint64_t under = create_directory(a, ROOT, "under");
    CHECK(under && create_directory(a, ROOT, "over"));
    make_file(b, "over/mine.tmp", "m", 1);
    CHECK_EQUAL(rename_file(a, "under", "over", 0), 0);
    CHECK(!exists(b, "over/mine.tmp") && !exists(b, "under"));
    settle(a);
    CHECK_EQUAL(events_seen(b, RFS_EVENT_APPLY_FAILED), 0);
}

void test_border(void) {
    struct pair pair;
    open_border(&pair, false);
    cross_paired(&pair);
    refuse_crossings(&pair);
    leave_leftovers(&pair);
    check_answered_once(&pair.a);
    pair_close(&pair);
}

/* A resync neither brings nor takes what is local, nor misses what crossed before it or meanwhile. */
void test_border_in_resync(void) {
    struct pair pair;
    open_border(&pair, true);
    struct node *a = &pair.a, *b = &pair.b;
    uint64_t cache = create_directory(a, ROOT, "cache"), fid = create_file(a, ROOT, "one.tmp");
    CHECK(create_file(a, cache, "here") && create_file(a, ROOT, "two"));
    CHECK_EQUAL(finish(a, writing(fid, 0, "one", 3)), 0);
    make_file(b, "theirs.tmp", "t", 1);
    char path[256];
    path_in(b, "gone", path);
    CHECK_EQUAL(mkdir(path, 0700), 0);
    make_file(b, "gone/mine.tmp", "m", 1);
    CHECK_EQUAL(rename_file(a, "one.tmp", "one", 0), 0);
    pair_connect(&pair, a, b);
    for (int i = 0; i < 50; i++) {
        CHECK_EQUAL(rename_file(a, "one", "one.tmp", 0), 0);
        CHECK_EQUAL(finish(a, writing(fid, (uint64_t)i, "x", 1)), 0);
        CHECK_EQUAL(rename_file(a, "one.tmp", "one", 0), 0);
        CHECK_EQUAL(finish(a, writing(fid, (uint64_t)i + 1, "y", 1)), 0);
    }
    pair_finish(a, b, 1);
    settle(a);
    char wanted[52];
    memset(wanted, 'x', 50);
    wanted[50] = 'y';
    check_content(b, "one", wanted, 51);
    CHECK(exists(b, "two") && exists(b, "cache") && !exists(b, "cache/here") && exists(b, "theirs.tmp") && !exists(b, "gone") && exists(b, KEPT_NAME));
    check_answered_once(a);
    pair_close(&pair);
}

/* What crosses after the walk has ended, and before END, is walked too. */
void test_crossing_before_the_end(void) {
    struct pair pair;
    open_border(&pair, true);
    struct node *a = &pair.a, *b = &pair.b;
    uint64_t fid = create_file(a, ROOT, "late.tmp");
    CHECK_EQUAL(finish(a, writing(fid, 0, "late", 4)), 0);
    pair_connect(&pair, a, b);
    wait_event(a, RFS_EVENT_DRAINED, 1);
    CHECK_EQUAL(rename_file(a, "late.tmp", "late", 0), 0);
    pair_finish(a, b, 1);
    check_content(b, "late", "late", 4);
    check_answered_once(a);
    pair_close(&pair);
}

/* ---- races and corners ---------------------------------------------------------------------------------------------------------- */

struct beside {
    struct node *node;
    atomic_bool stop;
    pthread_t thread;
};

static void begin_beside(struct beside *beside, struct node *node, void *(*run)(void *)) {
    beside->node = node;
    atomic_store(&beside->stop, false);
    CHECK_EQUAL(pthread_create(&beside->thread, NULL, run, beside), 0);
}

static void end_beside(struct beside *beside) {
    atomic_store(&beside->stop, true);
    pthread_join(beside->thread, NULL);
}

static void *purge_again(void *argument) {
    struct beside *beside = argument;
    while (!atomic_load(&beside->stop)) CHECK_EQUAL(rfs_purge_holding(beside->node->engine, RFS_HELD), 0);
    return NULL;
}

/* The purge after a resync may take long, and files go on arriving. */
void test_arrivals_beside_a_purge(void) {
    struct pair pair;
    struct beside purge;
    static uint8_t bytes[300000];
    open_border(&pair, false);
    begin_beside(&purge, &pair.b, purge_again);
    for (int i = 0; i < 100; i++) {
        uint64_t fid = create_file(&pair.a, ROOT, "x.tmp");
        memset(bytes, i + 1, sizeof bytes);
        CHECK_EQUAL(finish(&pair.a, writing(fid, 0, bytes, sizeof bytes)), 0);
        CHECK_EQUAL(rename_file(&pair.a, "x.tmp", "x", 0), 0);
        check_content(&pair.b, "x", bytes, sizeof bytes);
    }
    end_beside(&purge);
    pair_close(&pair);
}

/* A file with names on both sides, from before the patterns: once its replicated name is gone and a resync has passed, it is local. */
void test_names_on_both_sides(void) {
    struct pair pair;
    char one[256], two[256];
    open_border(&pair, true);
    struct node *a = &pair.a, *b = &pair.b;
    make_file(a, "both", "b", 1);
    path_in(a, "both", one);
    path_in(a, "both.tmp", two);
    CHECK_EQUAL(link(one, two), 0);
    pair_up(&pair, a, b);
    uint64_t fid = fid_of(a, ROOT, "both.tmp");
    CHECK_EQUAL(fid, fid_of(a, ROOT, "both"));
    CHECK_EQUAL(finish(a, writing(fid, 0, "c", 1)), 0);
    check_content(b, "both", "c", 1);
    CHECK_EQUAL(finish(a, named(FRAME_UNLINK, ROOT, "both")), 0);
    for (int round = 0; round < 2; round++) {
        CHECK_EQUAL(finish(a, writing(fid, 0, "d", 1)), 0);
        pair_cut(&pair);
        CHECK_EQUAL(rfs_grant(a->engine, ++pair.session.generation, 1), 0);
        pair_up(&pair, a, b);
    }
    CHECK_EQUAL(finish(a, writing(fid, 0, "e", 1)), 0);
    CHECK(!exists(b, "both") && !exists(b, "both.tmp"));
    pair_close(&pair);
}

static int copies;
static int count_mine(const char *path, const struct stat *stat, int type, struct FTW *where) {
    (void)stat;
    copies += type == FTW_F && strstr(path + where->base, "mine.tmp") != NULL;
    return 0;
}

/* What is local below a directory that the source has not, or has something else for, is kept; what is not goes, with its links. */
void test_local_entries_are_kept(void) {
    struct pair pair;
    char one[256], two[256];
    struct stat stat;
    open_border(&pair, true);
    struct node *a = &pair.a, *b = &pair.b;
    const char *const directories[] = {"build", "build/deep", "gone"};
    for (size_t i = 0; i < 3; i++) {
        char name[64];
        path_in(b, directories[i], one);
        CHECK_EQUAL(mkdir(one, 0700), 0);
        snprintf(name, sizeof name, "%s/mine.tmp", directories[i]);
        make_file(b, name, "m", 1);
    }
    make_file(b, "linked", "f", 1);
    path_in(b, "linked", one);
    path_in(b, "gone/link", two);
    CHECK_EQUAL(link(one, two), 0);
    CHECK(create_file(a, ROOT, "build") && create_file(a, ROOT, "linked"));
    pair_up(&pair, a, b);
    copies = 0;
    path_in(b, KEPT_NAME, two);
    CHECK_EQUAL(nftw(two, count_mine, 16, FTW_PHYS), 0);
    CHECK_EQUAL(copies, 3);
    CHECK_EQUAL(lstat(one, &stat), 0);
    CHECK_EQUAL(stat.st_nlink, 1);
    CHECK(!exists(b, "gone") && !exists(b, HOLDING_NAME));
    pair_close(&pair);
}

static void *look_up_again(void *argument) {
    struct beside *beside = argument;
    while (!atomic_load(&beside->stop)) fid_of(beside->node, ROOT, "x");
    return NULL;
}

/* A lookup of the old name beside the rename that takes the file out must not make it replicated again. */
void test_lookups_beside_crossings(void) {
    struct pair pair;
    struct beside lookups;
    open_border(&pair, false);
    struct node *a = &pair.a;
    uint64_t fid = create_file(a, ROOT, "x"), began = now_ns();
    begin_beside(&lookups, a, look_up_again);
    while (now_ns() - began < 2 * (uint64_t)NS_PER_S) {
        CHECK_EQUAL(rename_file(a, "x", "x.tmp", 0), 0);
        CHECK_EQUAL(finish(a, writing(fid, 0, "x", 1)), 0);
        CHECK_EQUAL(rename_file(a, "x.tmp", "x", 0), 0);
    }
    end_beside(&lookups);
    pair_close(&pair);
}
