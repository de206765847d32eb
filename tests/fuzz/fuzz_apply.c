/* The link's receiver under a hostile peer: a stream that arrives in pieces, into a target (applied to a tree in memory) or into a source
 * that waits for answers. Nothing outside the tree is touched, nothing is read beyond what has arrived, and all that was taken is given back.
 *
 * The first byte: RAW leaves the stream as it is; else seqs, sums and lengths are made to fit, so that frames are applied. WIDE leaves the
 * ids in the frames, which else become small ones, some of which exist. PARALLEL applies in lanes, each with a thread. The two highest bits say
 * how large the pieces are. */
#include <sanitizer/asan_interface.h>

#include "../../csrc/link.c" /* parse() is its own */

#include <fcntl.h>
#include <unistd.h>

#include "frames.h"
#include "scratch.h"

enum { RAW = 1, SOURCE = 2, WIDE = 4, ACK_DISK = 8, PARALLEL = 16, BORDER = 32 };
enum { FIRST_FID = FIRST_DIRECTORY_FID + RFS_MAX_DIRECTORIES, FIDS = 16 };

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes);

static struct scratch scratch;
static struct link *the_link;

/* ---- what is there when the stream begins */

static void adopt(const char *name, uint64_t fid) {
    struct inode *inode;
    struct stat stat;
    int fd = openat(scratch.root_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    CHECK(fd >= 0 && fstat(fd, &stat) == 0 && inode_adopt(scratch.engine, 0, fd, &stat, fid, 0, &inode) == 0);
    inode_put(scratch.engine, inode);
    close(fd);
}

static void make_tree(void) {
    int root = scratch.root_fd;
    CHECK(mkdirat(root, "d", 0755) == 0 && mkdirat(root, "d/e", 0755) == 0);
    CHECK(symlinkat(WAY_OUT, root, "s") == 0 && mknodat(root, "p", S_IFIFO | 0644, 0) == 0);
    scratch_file(&scratch, "f", 100000);
    scratch_file(&scratch, "d/g", 10);
    scratch_file(&scratch, "unlisted", 0);
    scratch_file(&scratch, "d/e/local.tmp", 10);
    CHECK(linkat(root, "f", root, "d/link", 0) == 0);
    static const char *const names[] = {"f", "d", "d/e", "d/g", "s", "p"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) adopt(names[i], FIRST_FID + i);
}

static void submit(enum frame_type type, uint64_t fid, bool durable) {
    struct op *op = op_new(type);
    CHECK(op);
    op->body.fid = fid;
    op->durable = durable;
    if (type == FRAME_MKDIR) strcpy(op->body.name, "made");
    op->body.name_bytes = (uint16_t)strlen(op->body.name);
    op->data = calloc(1, 1);
    op->body.mode = S_IFDIR | 0755;
    mirror_submit(scratch.engine, op);
}

/* As if all but the last op had been sent. */
static void wait_for_answers(void) {
    scratch.engine->mode = RFS_PAIRED;
    submit(FRAME_WRITE, FIRST_FID, false);
    submit(FRAME_FSYNC, FIRST_FID, true);
    submit(FRAME_MKDIR, FIRST_DIRECTORY_FID, false);
    submit(FRAME_WRITE, FIRST_FID + 3, true);
    submit(FRAME_SET_ATTRIBUTES, FIRST_FID + 1, false);
    drop_queue(the_link);
    atomic_store(&the_link->sent_seq, scratch.engine->mirror.seq - 1);
}

static void begin(uint8_t options) {
    rfs_engine *engine = scratch.engine;
    the_link->session = (rfs_session){.session = 7, .generation = 9, .ack_disk = options & ACK_DISK ? 1 : 0, .progress_timeout_us = 1000000, .fsync_timeout_us = 1000000};
    atomic_store(&the_link->sent_seq, 0);
    the_link->checked_bytes = the_link->checked_crc = 0;
    engine->session = the_link->session;
    engine->link = the_link;
    the_link->applier = applier_new(engine, the_link);
    CHECK(the_link->applier);
    applier_set_slow_ns(the_link->applier, options & PARALLEL ? 0 : UINT64_MAX); /* and not by the time it takes */
    if (options & BORDER) scratch_draw_border(&scratch);
    if (options & SOURCE) wait_for_answers();
    else engine->target = true;
}

static void end(void) {
    rfs_engine *engine = scratch.engine;
    applier_free(the_link->applier);
    scratch_run_jobs(&scratch);
    CHECK(rfs_fence(engine) == 0); /* whoever still waits is answered */
    scratch_run_jobs(&scratch);
    engine->link = NULL;
    engine->target = false;
    drop_queue(the_link);
    CHECK(rfs_purge_holding(engine, RFS_HELD | RFS_ARRIVING) == 0);
}

/* ---- the stream ------------------------------------------------------------------------------------------------------------------ */

static void make_small(uint8_t *at) {
    uint64_t fid = get_at(at, 8) % (2 + FIDS);
    put_at(at, 8, fid < 2 ? FIRST_DIRECTORY_FID + fid : FIRST_FID + fid - 2);
}

static void give_type(uint8_t *at) {
    static const uint8_t answers[] = {FRAME_ACK, FRAME_SYNCED, FRAME_DIFFERENT, FRAME_KEEPALIVE, FRAME_ACK_ALONE, FRAME_VERIFIED};
    uint16_t type = (uint16_t)get_at(at + HEADER_TYPE_AT, 2);
    if (wire_is_sequenced(type) || (type >= FRAME_ACK && type <= FRAME_LAST_UNSEQUENCED)) return;
    put_at(at + HEADER_TYPE_AT, 2, type % 32 < 16 ? 1U + type % FRAME_LAST_OP : type % 32 < 24 ? FRAME_DIRECTORY_BEGIN + type % 8U : type % 32 < 28 ? FRAME_VERIFY_RANGE + type % 4U : answers[type % (sizeof answers / sizeof answers[0])]);
}

/* The seq that is expected, unless the frame begs to differ. */
static void give_seq(uint8_t *at, uint64_t *seq) {
    uint16_t type = (uint16_t)get_at(at + HEADER_TYPE_AT, 2);
    put_at(at + HEADER_SESSION_AT, 8, the_link->session.session);
    put_at(at + HEADER_GENERATION_AT, 8, the_link->session.generation);
    if (at[HEADER_SEQ_AT + 7] == 0xff) return;
    if (wire_is_sequenced(type)) put_at(at + HEADER_SEQ_AT, 8, ++*seq);
    else put_at(at + HEADER_SEQ_AT, 8, get_at(at + HEADER_SEQ_AT, 1) & 7);
}

static void fit_stream(uint8_t *stream, size_t bytes, bool wide) {
    uint64_t seq = 0;
    for (size_t used = 0; bytes - used >= WIRE_HEADER_BYTES;) {
        uint8_t *at = stream + used;
        give_type(at);
        size_t frame = fit_frame(at, bytes - used);
        give_seq(at, &seq);
        if (!wide) make_small(at + HEADER_FID_AT);
        uint16_t type = (uint16_t)get_at(at + HEADER_TYPE_AT, 2);
        if (!wide && frame >= WIRE_HEADER_BYTES + BODY_FIXED_BYTES && type != FRAME_WRITE && type != FRAME_BLOCK) {
            make_small(at + WIRE_HEADER_BYTES + BODY_OTHER_AT);
            make_small(at + WIRE_HEADER_BYTES + BODY_CHILD_AT);
        }
        sum_frame(at, frame);
        used += frame;
    }
}

/* As receive() does, in pieces of our choice. */
static void feed(const uint8_t *stream, size_t bytes, size_t piece) {
    char reason[RFS_REASON_BYTES] = "";
    uint8_t *buffer = malloc(bytes);
    CHECK(buffer);
    ASAN_POISON_MEMORY_REGION(buffer, bytes);
    size_t filled = 0;
    for (size_t at = 0; at < bytes;) {
        size_t some = piece && piece < bytes - at ? piece : bytes - at;
        ASAN_UNPOISON_MEMORY_REGION(buffer + filled, some);
        memcpy(buffer + filled, stream + at, some);
        at += some;
        filled += some;
        ssize_t used = parse(the_link, buffer, filled, reason);
        CHECK(memchr(reason, 0, sizeof reason));
        if (used < 0) CHECK(*reason);
        if (used < 0 || applier_error(the_link->applier, reason) < 0) break;
        CHECK((size_t)used <= filled);
        filled -= (size_t)used;
        memmove(buffer, buffer + used, filled);
        ASAN_POISON_MEMORY_REGION(buffer + filled, bytes - filled);
        scratch_run_jobs(&scratch);
    }
    ASAN_UNPOISON_MEMORY_REGION(buffer, bytes);
    free(buffer);
}

int LLVMFuzzerInitialize(int *count, char ***arguments) {
    (void)count;
    (void)arguments;
    int ends[2];
    rfs_session none = {0};
    scratch_open(&scratch);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    the_link = link_new(scratch.engine, rfs_channel_plain(ends[0]), &none);
    CHECK(the_link);
    applier_free(the_link->applier); /* each input has its own */
    link_abandon(the_link); /* what it has to say waits in its queue */
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes) {
    static const size_t pieces[4] = {0, 1, 79, 200};
    if (bytes < 2) return 0;
    uint8_t *stream = malloc(bytes - 1);
    CHECK(stream);
    memcpy(stream, input + 1, bytes - 1);
    scratch_begin(&scratch);
    make_tree();
    begin(input[0]);
    if (!(input[0] & RAW)) fit_stream(stream, bytes - 1, input[0] & WIDE);
    feed(stream, bytes - 1, pieces[input[0] >> 6]);
    free(stream);
    end();
    scratch_reset(&scratch);
    return 0;
}
