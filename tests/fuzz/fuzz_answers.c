/* What a target tells its source: marks of its own, what it had to make, which blocks differ, what a verify found. A source in the middle of a
 * resync and of a verify hears it; nothing it is told makes it touch anything but its own notes, and those are bounded by what was said.
 *
 * The first byte: RAW leaves the stream as it is; else sums and lengths fit. WHOLE: everything is compared anyway. */
#include "../../csrc/verify.c" /* read_names() is its own */

#include "frames.h"
#include "scratch.h"
#include "walk_state.h"

enum { RAW = 1, WHOLE = 2, FILES = 4, FIRST_FID = FIRST_DIRECTORY_FID + RFS_MAX_DIRECTORIES };

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes);

static struct scratch scratch;
static struct walk walk;
static struct verify verify;
static struct walked_file file;
static struct window windows[3];

static void begin(uint8_t options) {
    rfs_engine *engine = scratch.engine;
    CHECK(mkdirat(scratch.root_fd, "d", 0755) == 0);
    scratch_file(&scratch, "f", 100);
    for (int i = 0; i < 2; i++) {
        struct inode *inode;
        struct stat stat;
        int fd = openat(scratch.root_fd, i ? "f" : "d", O_PATH | O_NOFOLLOW | O_CLOEXEC);
        CHECK(fd >= 0 && fstat(fd, &stat) == 0 && inode_adopt(engine, 0, fd, &stat, FIRST_FID + (uint64_t)i, 0, &inode) == 0);
        inode_put(engine, inode);
        close(fd);
    }
    engine->mode = RFS_RESYNCING;
    engine->whole = options & WHOLE;
    list_init(&walk.windows);
    for (size_t i = 0; i < 3; i++) {
        windows[i] = (struct window){.file = &file, .seq = i + 1, .bytes = 1};
        list_append(&walk.windows, &windows[i].item);
    }
    engine->walk = &walk;
    verify.engine = engine;
    verify.running = true;
    atomic_store(&engine->verify, &verify);
}

static void end(void) {
    rfs_engine *engine = scratch.engine;
    engine->walk = NULL;
    atomic_store(&engine->verify, NULL);
    free(walk.peer_marks);
    free(walk.stack);
    walk.peer_marks = NULL;
    walk.stack = NULL;
    walk.peer_count = walk.peer_room = walk.depth = walk.room = 0;
    walk.peer_told = walk.peer_everything = false;
    while (verify.reported) free(verify.reports[--verify.reported].names);
    while (verify.listed) free(verify.found[--verify.listed]);
    verify.differences = 0;
    engine->whole = false;
    engine->mode = RFS_IDLE;
}

/* The directory that a report of names is about has two children. */
static void read_report(uint64_t seq) {
    char one[] = "a", two[] = "b";
    struct child items[] = {{.fid = 1, .name = one}, {.fid = 2, .name = two}};
    struct children children = {.items = items, .count = 2};
    struct place place = {.fid = FIRST_FID, .path = one};
    struct question question = {.what = (enum what)(seq % 3), .fid = FIRST_FID + 1, .length = 1 << 20, .path = two};
    struct report report;
    while (take_report(&verify, seq, &report)) {
        read_names(&verify, &place, &children, &report);
        record_answer(&verify, &question, report.different);
        free(report.names);
    }
}

static int hear(const struct wire_header *header, const uint8_t *payload) {
    rfs_engine *engine = scratch.engine;
    switch (header->type) {
    case FRAME_PEER_MARK:
    case FRAME_PEER_MARKS: return walk_hear_mark(engine, header, payload);
    case FRAME_FRESH: return walk_hear_fresh(engine, header->fid);
    case FRAME_DIFFERENT: return walk_answer(engine, header->seq, header->offset);
    case FRAME_VERIFIED: {
        int result = verify_answer(engine, header, payload);
        read_report(header->seq);
        return result;
    }
    default: return 0;
    }
}

/* One of the five, about something that is there. */
static void fit(uint8_t *at) {
    static const uint8_t answers[] = {FRAME_PEER_MARK, FRAME_PEER_MARKS, FRAME_FRESH, FRAME_DIFFERENT, FRAME_VERIFIED};
    put_at(at + HEADER_TYPE_AT, 2, answers[get_at(at + HEADER_TYPE_AT, 2) % 5]);
    put_at(at + HEADER_SEQ_AT, 8, get_at(at + HEADER_SEQ_AT, 1) & 3);
    put_at(at + HEADER_FID_AT, 8, FIRST_DIRECTORY_FID + (get_at(at + HEADER_FID_AT, 1) & 1 ? RFS_MAX_DIRECTORIES : 0) + (get_at(at + HEADER_FID_AT, 1) >> 1 & 1));
}

int LLVMFuzzerInitialize(int *count, char ***arguments) {
    (void)count;
    (void)arguments;
    scratch_open(&scratch);
    pthread_mutex_init(&walk.lock, NULL);
    pthread_cond_init(&walk.answered, NULL);
    pthread_mutex_init(&verify.lock, NULL);
    verify.found = calloc(RFS_MAX_DIFFERENCES, sizeof *verify.found);
    CHECK(verify.found);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes) {
    if (bytes < 1 + WIRE_HEADER_BYTES) return 0;
    uint8_t *stream = malloc(bytes - 1);
    CHECK(stream);
    memcpy(stream, input + 1, bytes - 1);
    scratch_begin(&scratch);
    begin(input[0]);
    size_t marks = 0;
    for (size_t at = 0, left; (left = bytes - 1 - at) >= WIRE_HEADER_BYTES;) {
        struct wire_header header;
        if (!(input[0] & RAW)) {
            fit(stream + at);
            sum_frame(stream + at, fit_frame(stream + at, left));
        }
        if (wire_decode_header(stream + at, &header) < 0 || header.payload_bytes > left - WIRE_HEADER_BYTES) break;
        uint8_t *payload = malloc(header.payload_bytes ? header.payload_bytes : 1); /* exact */
        CHECK(payload);
        memcpy(payload, stream + at + WIRE_HEADER_BYTES, header.payload_bytes);
        int result = hear(&header, payload);
        free(payload);
        CHECK(result <= 0);
        marks += header.type == FRAME_PEER_MARK;
        if (result < 0) break; /* the link would end */
        at += WIRE_HEADER_BYTES + header.payload_bytes;
    }
    CHECK(walk.peer_count <= marks && walk.depth <= 3 && verify.listed <= RFS_MAX_DIFFERENCES);
    for (size_t i = 0; i < walk.peer_count; i++) CHECK(memchr(walk.peer_marks[i].where.path, 0, MARK_PATH_BYTES));
    end();
    free(stream);
    scratch_reset(&scratch);
    return 0;
}
