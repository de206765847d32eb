/* The intent log's two files, in whatever state a disk gives them back: they are a log, or none, or damaged, and then everything is marked. What was
 * read, noted and compacted is read again as the same marks.
 *
 * The first byte: RAW leaves the bytes as they are; else headers and records get the sums that they should have, for as long as they hold
 * together. SECOND_NEWER, ONE_ALONE: which files there are. The second byte says where the first file ends, in slots. */
#include "../../csrc/intent_log.c" /* the layouts are its own */

#include "scratch.h"

enum { RAW = 1, SECOND_NEWER = 2, ONE_ALONE = 4, CLEAN_STOP = 8, MOST_MARKS = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes);

/* ---- sums that fit */

static void fit_file(uint8_t *file, size_t bytes, uint64_t number) {
    if (bytes < LOG_SLOT_BYTES) return;
    struct header *header = (struct header *)(void *)file;
    memcpy(header->magic, MAGIC, sizeof MAGIC);
    header->version = VERSION;
    header->number = number;
    header->crc = header_crc(header);
    uint32_t batch = 0;
    for (uint64_t slot = 1, slots = bytes / LOG_SLOT_BYTES; slot < slots;) {
        struct record *record = (struct record *)(void *)(file + slot * LOG_SLOT_BYTES);
        if (record->left == 0xffff) return; /* here it ends, or is torn */
        record->type = record->type % 8;
        if (!record->slots || record->slots > MOST_SLOTS) record->slots = (uint8_t)(1 + record->slots % MOST_SLOTS);
        if (record->slots > slots - slot) record->slots = (uint8_t)(slots - slot);
        if (record->batch - batch > 2) record->batch = batch + (record->batch & 1);
        batch = record->batch;
        record->crc = record_crc(header->nonce, slot, record);
        slot += record->slots;
    }
}

/* ---- the same marks */

static size_t all_marks(const rfs_marks *marks, rfs_mark *out) {
    rfs_marks_cursor cursor = {0};
    size_t count = 0;
    while (count < MOST_MARKS && marks_each(marks, &cursor, &out[count])) count++;
    return count;
}

static int by_place(const void *left, const void *right) {
    const rfs_mark *a = left, *b = right;
    if (a->fid != b->fid) return a->fid < b->fid ? -1 : 1;
    if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

static void check_equal(const rfs_marks *one, const rfs_marks *other) {
    static rfs_mark first[MOST_MARKS], second[MOST_MARKS];
    size_t count = all_marks(one, first);
    CHECK(count == all_marks(other, second) && marks_everything(one) == marks_everything(other) && marks_inodes(one) == marks_inodes(other));
    qsort(first, count, sizeof *first, by_place);
    qsort(second, count, sizeof *second, by_place);
    for (size_t i = 0; i < count; i++) {
        CHECK(by_place(&first[i], &second[i]) == 0 && first[i].grains == second[i].grains);
        rfs_where here = {0}, there = {0};
        if (!first[i].fid) continue; /* nobody's: where that is, nobody asks */
        CHECK(marks_where(one, first[i].fid, &here) == marks_where(other, first[i].fid, &there));
        CHECK(here.depth == there.depth && here.handle_bytes == there.handle_bytes && !memcmp(here.path, there.path, where_bytes(&here)));
    }
}

/* Compacted into an image of its own, and read from there. */
static void check_round(rfs_log *log, rfs_marks *marks) {
    rfs_log_write write;
    CHECK(log_compact(log, marks, true, &write) == 0 && write.offset == 0 && write.bytes % LOG_SLOT_BYTES == 0);
    uint8_t *image = malloc(write.bytes);
    size_t bytes = write.bytes;
    CHECK(image);
    memcpy(image, write.data, bytes);
    log_written(log);
    CHECK(log_end(log) == bytes);
    rfs_log *again = log_new(7);
    rfs_marks *read = marks_new();
    CHECK(again && read);
    CHECK(log_load(again, write.file ? NULL : image, write.file ? 0 : bytes, write.file ? image : NULL, write.file ? bytes : 0, read) == 0);
    check_equal(marks, read);
    CHECK(marks_born(read) == marks_born(marks));
    log_free(again);
    marks_free(read);
    free(image);
}

static void check_note(rfs_log *log) {
    rfs_log_write write;
    rfs_mark mark = {.fid = 5, .kind = MARK_ENTRIES};
    uint64_t end = log_end(log);
    CHECK(log_note(log, &mark) == 0 && log_batch(log, &write) == 1);
    CHECK(write.offset == end && write.bytes == LOG_SLOT_BYTES);
    log_written(log);
    CHECK(log_end(log) == end + LOG_SLOT_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes) {
    if (bytes < 2) return 0;
    uint8_t options = input[0];
    size_t first_bytes = (size_t)input[1] * LOG_SLOT_BYTES, left = bytes - 2;
    if (first_bytes > left || options & ONE_ALONE) first_bytes = left;
    size_t second_bytes = left - first_bytes;
    uint8_t *first = malloc(first_bytes ? first_bytes : 1), *second = malloc(second_bytes ? second_bytes : 1); /* exact */
    CHECK(first && second);
    memcpy(first, input + 2, first_bytes);
    memcpy(second, input + 2 + first_bytes, second_bytes);
    if (!(options & RAW)) {
        fit_file(first, first_bytes, 5);
        fit_file(second, second_bytes, options & SECOND_NEWER ? 6 : 4);
    }
    rfs_log *log = log_new(3);
    rfs_marks *marks = marks_new();
    CHECK(log && marks);
    int result = log_load(log, first, first_bytes, second, second_bytes, marks);
    CHECK(result == 0 || result == -ENOENT || result == -EBADMSG);
    CHECK(result != -EBADMSG || marks_everything(marks));
    if (result == 0) check_note(log);
    check_round(log, marks);
    marks_count(marks);
    marks_free(marks);
    log_free(log);
    free(first);
    free(second);
    return 0;
}
