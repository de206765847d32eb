/* See intent_log.h. */
#include "intent_log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum record_type { MARK = 1, WHERE, EVERYTHING, COMPLETE, CLEAN, OPENED };
enum { VERSION = 1, MOST_SLOTS = 8 };
static const char MAGIC[8] = "LSTPLOG";

struct header { /* slot 0 */
    char magic[8];
    uint64_t number, born, nonce;
    uint32_t version, crc;
    uint8_t unused[LOG_SLOT_BYTES - 40];
};

struct record { /* the head of each */
    uint32_t crc, batch;
    uint16_t left; /* slots of this batch after this record */
    uint8_t type, slots;
    int32_t kind;
};

struct mark_record {
    struct record head;
    uint64_t fid, index, grains;
    uint8_t unused[24];
};

struct where_record { /* as many slots as its path needs */
    struct record head;
    uint64_t fid;
    int32_t handle_type;
    uint16_t directory, depth, path_bytes;
    uint8_t handle_bytes;
    uint8_t handle[MARK_HANDLE_BYTES];
    char path[MARK_PATH_BYTES];
};

_Static_assert(sizeof(struct header) == LOG_SLOT_BYTES && sizeof(struct mark_record) == LOG_SLOT_BYTES && sizeof(struct record) == 16, "slots");
_Static_assert(sizeof(struct where_record) <= MOST_SLOTS * LOG_SLOT_BYTES, "the longest path");

struct rfs_log {
    int file; /* the live one */
    uint64_t number, nonce, slot; /* slot: the first free one */
    uint32_t batch;
    uint8_t *notes;
    size_t used, room;
    size_t sealed;       /* of the notes: what is being written */
    uint64_t next_nonce; /* of the file that a compaction writes */
    uint64_t salt;       /* of this process: what a torn compaction of an earlier one has left must not complete ours */
    bool compacting;
};

rfs_log *log_new(uint64_t nonce) {
    rfs_log *log = calloc(1, sizeof *log);
    if (log) log->nonce = log->salt = nonce;
    return log;
}

void log_free(rfs_log *log) {
    if (!log) return;
    free(log->notes);
    free(log);
}

uint64_t log_end(const rfs_log *log) { return log->slot * LOG_SLOT_BYTES; }

static uint32_t record_crc(uint64_t nonce, uint64_t slot, const struct record *record) {
    uint64_t place[2] = {nonce, slot};
    uint32_t crc = crc32c(0, place, sizeof place);
    return crc32c(crc, (const uint8_t *)record + sizeof record->crc, record->slots * (size_t)LOG_SLOT_BYTES - sizeof record->crc);
}

static uint32_t header_crc(const struct header *header) { return crc32c(0, header, offsetof(struct header, crc)); }

/* ---- writing ----------------------------------------------------------------------------------------------------------------------- */

static void *reserve(rfs_log *log, size_t slots) {
    size_t need = log->used + slots * LOG_SLOT_BYTES;
    if (need > log->room) {
        size_t room = need * 2 + 4096;
        uint8_t *larger = realloc(log->notes, room);
        if (!larger) return NULL;
        log->notes = larger;
        log->room = room;
    }
    void *at = log->notes + log->used;
    memset(at, 0, slots * LOG_SLOT_BYTES);
    log->used = need;
    return at;
}

static int note_plain(rfs_log *log, enum record_type type) {
    struct record *record = reserve(log, 1);
    if (!record) return -ENOMEM;
    record->type = (uint8_t)type;
    record->slots = 1;
    return 0;
}

int log_note(rfs_log *log, const rfs_mark *mark) {
    struct mark_record *record = reserve(log, 1);
    if (!record) return -ENOMEM;
    record->head = (struct record){.type = MARK, .slots = 1, .kind = mark->kind};
    record->fid = mark->fid;
    record->index = mark->index;
    record->grains = mark->grains;
    return 0;
}

int log_note_where(rfs_log *log, const rfs_where *where) {
    size_t path_bytes = where_bytes(where), bytes = offsetof(struct where_record, path) + path_bytes;
    size_t slots = (bytes + LOG_SLOT_BYTES - 1) / LOG_SLOT_BYTES;
    struct where_record *record = reserve(log, slots);
    if (!record) return -ENOMEM;
    record->head = (struct record){.type = WHERE, .slots = (uint8_t)slots};
    record->fid = where->fid;
    record->depth = where->depth;
    record->handle_type = where->handle_type;
    record->directory = where->directory;
    record->handle_bytes = where->handle_bytes;
    record->path_bytes = (uint16_t)path_bytes;
    memcpy(record->handle, where->handle, sizeof record->handle);
    memcpy(record->path, where->path, path_bytes);
    return 0;
}

int log_note_opened(rfs_log *log) { return note_plain(log, OPENED); }

void log_note_everything(rfs_log *log) {
    log->used = log->sealed = 0;
    if (note_plain(log, EVERYTHING) < 0) abort(); /* a mark that cannot be kept */
}

/* Number and checksum each record of the notes, from `slot` on. */
static void seal(rfs_log *log, size_t from, uint64_t nonce, uint64_t slot, uint32_t batch) {
    for (size_t at = from; at < log->used;) {
        struct record *record = (struct record *)(void *)(log->notes + at);
        size_t bytes = record->slots * (size_t)LOG_SLOT_BYTES, left = (log->used - at - bytes) / LOG_SLOT_BYTES;
        record->batch = batch;
        record->left = (uint16_t)(left < UINT16_MAX ? left : UINT16_MAX);
        record->crc = record_crc(nonce, slot, record);
        slot += record->slots;
        at += bytes;
    }
}

int log_batch(rfs_log *log, rfs_log_write *write) {
    if (!log->used || log->compacting) return 0;
    seal(log, 0, log->nonce, log->slot, log->batch + 1);
    log->sealed = log->used;
    *write = (rfs_log_write){.data = log->notes, .bytes = log->used, .offset = log_end(log), .file = log->file};
    return 1;
}

static void keep_unsealed(rfs_log *log) { /* noted while the others were written */
    log->used -= log->sealed;
    memmove(log->notes, log->notes + log->sealed, log->used);
    log->sealed = 0;
}

void log_written(rfs_log *log) {
    if (!log->sealed) return;
    if (log->compacting) {
        log->file ^= 1;
        log->number++;
        log->nonce = log->next_nonce;
        log->slot = 0;
        log->compacting = false;
    }
    log->slot += log->sealed / LOG_SLOT_BYTES;
    log->batch++;
    keep_unsealed(log);
}

void log_not_written(rfs_log *log) {
    if (log->compacting) keep_unsealed(log);
    log->compacting = false;
    log->sealed = 0;
}

static int note_all(rfs_log *log, const rfs_marks *marks) {
    rfs_marks_cursor cursor = {0};
    rfs_mark mark;
    rfs_where where;
    uint64_t last = 0;
    int result = marks_everything(marks) ? note_plain(log, EVERYTHING) : 0;
    while (result == 0 && marks_each(marks, &cursor, &mark)) {
        result = log_note(log, &mark);
        if (result == 0 && mark.fid != last && marks_where(marks, mark.fid, &where)) result = log_note_where(log, &where);
        last = mark.fid;
    }
    return result;
}

int log_compact(rfs_log *log, const rfs_marks *marks, bool clean, rfs_log_write *write) {
    log->used = log->sealed = 0; /* what is not durable yet is noted again by whoever waits for it */
    struct header *header = reserve(log, 1);
    int result = header ? note_all(log, marks) : -ENOMEM;
    if (result == 0) result = note_plain(log, COMPLETE);
    if (result == 0 && clean) result = note_plain(log, CLEAN);
    if (result < 0) {
        log->used = 0;
        return result;
    }
    uint64_t nonce = (log->nonce ^ log->salt++) * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* another one each time: no secret */
    header = (struct header *)(void *)log->notes;
    memcpy(header->magic, MAGIC, sizeof MAGIC);
    header->number = log->number + 1;
    header->born = marks_born(marks);
    header->nonce = nonce;
    header->version = VERSION;
    header->crc = header_crc(header);
    seal(log, LOG_SLOT_BYTES, nonce, 1, log->batch + 1);
    log->next_nonce = nonce;
    log->sealed = log->used;
    log->compacting = true;
    *write = (rfs_log_write){.data = log->notes, .bytes = log->used, .offset = 0, .file = log->file ^ 1};
    return 0;
}

/* ---- reading ----------------------------------------------------------------------------------------------------------------------- */

struct image {
    const uint8_t *data;
    uint64_t slots;
    struct header header;
};

static bool record_at(const struct image *image, uint64_t slot, struct record *head) {
    if (slot >= image->slots) return false;
    const struct record *record = (const struct record *)(const void *)(image->data + slot * LOG_SLOT_BYTES);
    memcpy(head, record, sizeof *head);
    if (!head->slots || head->slots > MOST_SLOTS || head->slots > image->slots - slot) return false;
    return record_crc(image->header.nonce, slot, record) == head->crc;
}

struct reading {
    uint64_t end; /* the first slot that is free */
    uint32_t batch, left;
    bool complete, clean, everything;
};

static bool open_image(struct image *image, const uint8_t *data, size_t bytes) {
    *image = (struct image){.data = data, .slots = bytes / LOG_SLOT_BYTES};
    if (!data || !image->slots) return false;
    memcpy(&image->header, data, sizeof image->header);
    if (memcmp(image->header.magic, MAGIC, sizeof MAGIC) || image->header.version != VERSION || header_crc(&image->header) != image->header.crc) return false;
    struct record head;
    for (uint64_t slot = 1; record_at(image, slot, &head); slot += head.slots)
        if (head.type == COMPLETE) return true;
    return false;
}

static int take_mark(rfs_marks *marks, const struct mark_record *record) {
    rfs_mark mark = {.fid = record->fid, .index = record->index, .grains = record->grains, .kind = record->head.kind};
    bool known = mark.kind == MARK_ENTRIES || mark.kind == MARK_ATTRIBUTES || mark.kind == MARK_TAIL || mark.kind == MARK_CHUNK;
    return known ? marks_add(marks, &mark) : -EBADMSG;
}

static int take_where(rfs_marks *marks, const struct where_record *record) {
    rfs_where where = {.fid = record->fid, .depth = record->depth, .handle_type = record->handle_type, .directory = record->directory, .handle_bytes = record->handle_bytes};
    if (record->handle_bytes > MARK_HANDLE_BYTES || record->path_bytes > MARK_PATH_BYTES || offsetof(struct where_record, path) + record->path_bytes > record->head.slots * (size_t)LOG_SLOT_BYTES) return -EBADMSG;
    memcpy(where.handle, record->handle, sizeof where.handle);
    memcpy(where.path, record->path, record->path_bytes);
    if (!memchr(where.path, 0, record->path_bytes) || where_bytes(&where) != record->path_bytes) return -EBADMSG;
    marks_set_where(marks, &where);
    return 0;
}

static int take(rfs_marks *marks, struct reading *reading, const struct record *record) {
    reading->clean = record->type == CLEAN;
    switch (record->type) {
    case MARK: return take_mark(marks, (const struct mark_record *)(const void *)record);
    case WHERE: return take_where(marks, (const struct where_record *)(const void *)record);
    case EVERYTHING: reading->everything = true; return 0;
    case COMPLETE: reading->complete = true; return 0;
    case CLEAN:
    case OPENED: return 0;
    default: return -EBADMSG;
    }
}

/* Beyond the first slot that is no record: what is left of a batch that was never durable, on which no op relied, or the proof that a durable one is
 * broken. What is left is not taken: a mark that the next process held for durable, and that its first batch hides, would be none. */
static int read_tail(const struct reading *reading, const struct image *image) {
    uint32_t torn = reading->left ? reading->batch : reading->batch + 1; /* the batch to which that slot belongs */
    struct record head;
    for (uint64_t slot = reading->end + 1; slot < image->slots; slot++)
        if (record_at(image, slot, &head) && head.batch > torn) return -EBADMSG;
    return 0;
}

static int read_image(rfs_marks *marks, struct reading *reading, const struct image *image) {
    struct record head;
    int result = 0;
    reading->end = 1;
    while (result == 0 && record_at(image, reading->end, &head) && head.batch >= reading->batch) {
        result = take(marks, reading, (const struct record *)(const void *)(image->data + reading->end * LOG_SLOT_BYTES));
        reading->end += head.slots;
        reading->batch = head.batch;
        reading->left = head.left;
    }
    return result < 0 ? result : read_tail(reading, image);
}

static void widen_chunks(rfs_marks *marks) {
    rfs_marks_cursor cursor = {0};
    rfs_mark mark;
    while (marks_each(marks, &cursor, &mark)) {
        if (mark.kind != MARK_CHUNK) continue;
        mark.grains = UINT64_MAX;
        marks_touch(marks, &mark);
    }
}

int log_load(rfs_log *log, const uint8_t *first, size_t first_bytes, const uint8_t *second, size_t second_bytes, rfs_marks *marks) {
    struct image image[LOG_FILES];
    bool whole[LOG_FILES] = {open_image(&image[0], first, first_bytes), open_image(&image[1], second, second_bytes)};
    struct reading reading = {0};
    if (!whole[0] && !whole[1]) return -ENOENT;
    log->file = whole[1] && (!whole[0] || image[1].header.number > image[0].header.number);
    const struct image *live = &image[log->file];
    log->number = live->header.number;
    log->nonce = live->header.nonce;
    int result = read_image(marks, &reading, live);
    marks_set_born(marks, live->header.born);
    if (!reading.clean) widen_chunks(marks);
    if (reading.everything || result < 0) marks_add_everything(marks);
    log->slot = reading.end;
    log->batch = reading.batch + 1; /* what was torn is overwritten by a later batch */
    return result;
}
