/* One object per inode that has a mark, found by fid; its chunks in a sorted row. See marks.h. */
#include "marks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BUCKETS = 256 };

struct chunk {
    uint64_t index, grains, to_do, epoch;
};

struct marked {
    struct marked *next;
    uint64_t fid;
    uint64_t epoch;   /* the last in which one of `kinds` was touched */
    uint64_t tail, tail_to_do; /* first chunks */
    uint8_t kinds, to_do;      /* of ENTRIES, ATTRIBUTES, TAIL */
    uint32_t chunks, room, first_to_do; /* none before first_to_do is to do */
    struct chunk *chunk;
    rfs_where *where; /* cut after its path; NULL: not known */
};

struct marks {
    struct marked **buckets;
    size_t room, inodes, places;
    uint64_t epoch, born, born_cover, born_next;
    bool everything;
    uint64_t everything_epoch;
};

static struct marked **bucket(const rfs_marks *marks, uint64_t fid) { return &marks->buckets[(fid * UINT64_C(0x9e3779b97f4a7c15)) >> 32 & (marks->room - 1)]; }

static struct marked *find(const rfs_marks *marks, uint64_t fid) {
    struct marked *marked = *bucket(marks, fid);
    while (marked && marked->fid != fid) marked = marked->next;
    return marked;
}

static struct chunk *find_chunk(const struct marked *marked, uint64_t index, uint32_t *at) {
    uint32_t low = 0, high = marked->chunks;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (marked->chunk[middle].index < index) low = middle + 1;
        else high = middle;
    }
    if (at) *at = low;
    return low < marked->chunks && marked->chunk[low].index == index ? &marked->chunk[low] : NULL;
}

static void grow(rfs_marks *marks) {
    size_t room = marks->room * 2, old = marks->room;
    struct marked **larger = calloc(room, sizeof *larger), **buckets = marks->buckets;
    if (!larger) return; /* longer chains are only slower */
    marks->buckets = larger;
    marks->room = room;
    for (size_t i = 0; i < old; i++)
        for (struct marked *marked = buckets[i], *next; marked; marked = next) {
            next = marked->next;
            struct marked **slot = bucket(marks, marked->fid);
            marked->next = *slot;
            *slot = marked;
        }
    free(buckets);
}

static struct marked *get(rfs_marks *marks, uint64_t fid) {
    struct marked *marked = find(marks, fid);
    if (marked) return marked;
    marked = calloc(1, sizeof *marked);
    if (!marked) return NULL;
    if (marks->inodes >= marks->room) grow(marks);
    marked->fid = fid;
    struct marked **slot = bucket(marks, fid);
    marked->next = *slot;
    *slot = marked;
    marks->inodes++;
    return marked;
}

static void drop(struct marked *marked) {
    free(marked->chunk);
    free(marked->where);
    free(marked);
}

/* ---- life ----------------------------------------------------------------------------------------------------------------------- */

rfs_marks *marks_new(void) {
    rfs_marks *marks = calloc(1, sizeof *marks);
    if (!marks) return NULL;
    marks->room = FIRST_BUCKETS;
    marks->buckets = calloc(marks->room, sizeof *marks->buckets);
    if (!marks->buckets) {
        free(marks);
        return NULL;
    }
    marks->epoch = 1;
    marks->born = marks->born_cover = UINT64_MAX;
    return marks;
}

void marks_forget(rfs_marks *marks) {
    for (size_t i = 0; i < marks->room; i++)
        while (marks->buckets[i]) {
            struct marked *marked = marks->buckets[i];
            marks->buckets[i] = marked->next;
            drop(marked);
        }
    marks->inodes = marks->places = 0;
    marks->everything = false;
    marks->born = marks->born_cover = UINT64_MAX;
}

void marks_free(rfs_marks *marks) {
    if (!marks) return;
    marks_forget(marks);
    free(marks->buckets);
    free(marks);
}

/* ---- hot ------------------------------------------------------------------------------------------------------------------------- */

static bool is_in_tail(const struct marked *marked, uint64_t index) { return marked->kinds & MARK_TAIL && index >= marked->tail; }

static bool look(const rfs_marks *marks, const rfs_mark *mark, struct marked **marked, struct chunk **chunk) {
    *chunk = NULL;
    *marked = find(marks, mark->fid);
    if (!*marked) return false;
    if (mark->kind == MARK_CHUNK) return (*chunk = find_chunk(*marked, mark->index, NULL)) || is_in_tail(*marked, mark->index);
    if (mark->kind == MARK_TAIL) return is_in_tail(*marked, mark->index);
    return (*marked)->kinds & mark->kind;
}

/* Until a checkpoint begins, which shall drop it: ops that come from then on have marks of their own. */
static bool covers_all(const rfs_marks *marks) { return marks->everything && marks->everything_epoch == marks->epoch; }

bool marks_is_hot(const rfs_marks *marks, const rfs_mark *mark) {
    struct marked *marked;
    struct chunk *chunk;
    return covers_all(marks) || look(marks, mark, &marked, &chunk);
}

bool marks_touch(rfs_marks *marks, const rfs_mark *mark) {
    struct marked *marked;
    struct chunk *chunk;
    bool hot = look(marks, mark, &marked, &chunk);
    if (chunk) {
        chunk->grains |= mark->grains;
        chunk->epoch = marks->epoch;
    } else if (hot) {
        marked->epoch = marks->epoch;
    }
    return hot || covers_all(marks);
}

static int add_chunk(rfs_marks *marks, struct marked *marked, const rfs_mark *mark) {
    uint32_t at;
    struct chunk *chunk = find_chunk(marked, mark->index, &at);
    if (!chunk) {
        if (marked->chunks == marked->room) {
            uint32_t room = marked->room ? marked->room * 2 : 1;
            struct chunk *larger = realloc(marked->chunk, room * sizeof *larger);
            if (!larger) return -ENOMEM;
            marked->chunk = larger;
            marked->room = room;
        }
        memmove(marked->chunk + at + 1, marked->chunk + at, (marked->chunks - at) * sizeof *chunk);
        marked->chunks++;
        if (at < marked->first_to_do) marked->first_to_do++;
        chunk = &marked->chunk[at];
        *chunk = (struct chunk){.index = mark->index};
        marks->places++;
    }
    chunk->grains |= mark->grains;
    chunk->epoch = marks->epoch;
    return 0;
}

int marks_add(rfs_marks *marks, const rfs_mark *mark) {
    struct marked *marked = get(marks, mark->fid);
    int result = !marked ? -ENOMEM : mark->kind == MARK_CHUNK ? add_chunk(marks, marked, mark) : 0;
    if (result < 0) {
        marks_add_everything(marks);
        return result;
    }
    if (mark->kind == MARK_CHUNK) return 0;
    if (mark->kind == MARK_TAIL && (!(marked->kinds & MARK_TAIL) || mark->index < marked->tail)) marked->tail = mark->index;
    if (!(marked->kinds & mark->kind)) marks->places++;
    marked->kinds |= (uint8_t)mark->kind;
    marked->epoch = marks->epoch;
    return 0;
}

void marks_add_everything(rfs_marks *marks) {
    marks->everything = true;
    marks->everything_epoch = marks->epoch;
}

bool marks_everything(const rfs_marks *marks) { return marks->everything; }

/* ---- what is new ----------------------------------------------------------------------------------------------------------------- */

bool marks_is_new(const rfs_marks *marks, uint64_t fid) { return fid >= marks->born && !(fid & FID_FOUND); }
bool marks_covers_new(const rfs_marks *marks, uint64_t fid) { return fid >= marks->born_cover && !(fid & FID_FOUND); }
uint64_t marks_born(const rfs_marks *marks) { return marks->born; }

void marks_widen_born(rfs_marks *marks, uint64_t born) {
    if (born < marks->born) marks->born = born;
}

void marks_set_born(rfs_marks *marks, uint64_t born) {
    marks_widen_born(marks, born);
    marks->born_cover = born;
}

/* ---- where ----------------------------------------------------------------------------------------------------------------------- */

size_t where_bytes(const rfs_where *where) { return strlen(where->path) + 1 + where->depth * sizeof(uint64_t); }

void marks_set_where(rfs_marks *marks, const rfs_where *where) {
    struct marked *marked = find(marks, where->fid);
    if (!marked) return;
    size_t bytes = offsetof(rfs_where, path) + where_bytes(where);
    rfs_where *copy = malloc(bytes);
    if (!copy) return; /* a hint */
    memcpy(copy, where, bytes);
    free(marked->where);
    marked->where = copy;
}

bool marks_where(const rfs_marks *marks, uint64_t fid, rfs_where *where) {
    const struct marked *marked = find(marks, fid);
    if (!marked || !marked->where) return false;
    memset(where, 0, sizeof *where);
    memcpy(where, marked->where, offsetof(rfs_where, path) + where_bytes(marked->where));
    return true;
}

bool marks_knows(const rfs_marks *marks, uint64_t fid) { return find(marks, fid) != NULL; }

/* ---- checkpoints ----------------------------------------------------------------------------------------------------------------- */

uint64_t marks_checkpoint_begin(rfs_marks *marks, uint64_t next_fid) {
    marks->born_next = next_fid;
    if (marks->born_cover < next_fid) marks->born_cover = next_fid; /* what was made before is new no more when this ends */
    return marks->epoch++;
}

/* Keep what was touched since, and what is still to do. True: nothing is left of it. */
static bool sift(rfs_marks *marks, struct marked *marked, uint64_t number) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < marked->chunks; i++)
        if (marked->chunk[i].epoch > number || marked->chunk[i].to_do) marked->chunk[kept++] = marked->chunk[i];
    marks->places -= marked->chunks - kept;
    marked->chunks = kept;
    marked->first_to_do = 0;
    if (marked->epoch <= number) {
        marks->places -= (size_t)__builtin_popcount(marked->kinds & (unsigned)~marked->to_do);
        marked->kinds &= marked->to_do;
    }
    return !kept && !marked->kinds;
}

void marks_checkpoint_end(rfs_marks *marks, uint64_t number) {
    for (size_t i = 0; i < marks->room; i++)
        for (struct marked **at = &marks->buckets[i]; *at;) {
            struct marked *marked = *at;
            if (!sift(marks, marked, number)) {
                at = &marked->next;
                continue;
            }
            *at = marked->next;
            drop(marked);
            marks->inodes--;
        }
    if (marks->everything && marks->everything_epoch <= number) marks->everything = false;
    marks->born = marks->born_next;
}

/* ---- to do ----------------------------------------------------------------------------------------------------------------------- */

void marks_all_to_do(rfs_marks *marks) {
    for (size_t i = 0; i < marks->room; i++)
        for (struct marked *marked = marks->buckets[i]; marked; marked = marked->next) {
            marked->to_do = marked->kinds;
            marked->tail_to_do = marked->tail;
            marked->first_to_do = 0;
            for (uint32_t k = 0; k < marked->chunks; k++) marked->chunk[k].to_do = marked->chunk[k].grains;
        }
}

void marks_nothing_to_do(rfs_marks *marks) {
    for (size_t i = 0; i < marks->room; i++)
        for (struct marked *marked = marks->buckets[i]; marked; marked = marked->next) {
            marked->to_do = 0;
            marked->first_to_do = marked->chunks;
            for (uint32_t k = 0; k < marked->chunks; k++) marked->chunk[k].to_do = 0;
        }
}

void marks_set_to_do(rfs_marks *marks, const rfs_mark *mark) {
    struct marked *marked = find(marks, mark->fid);
    if (!marked) return; /* new, or everything is marked: then it is to do in any case */
    uint32_t at;
    struct chunk *chunk = mark->kind == MARK_CHUNK ? find_chunk(marked, mark->index, &at) : NULL;
    if (chunk) {
        chunk->to_do |= mark->grains;
        if (at < marked->first_to_do) marked->first_to_do = at;
        return;
    }
    int32_t kind = mark->kind == MARK_CHUNK ? MARK_TAIL : mark->kind;
    if (!(marked->kinds & kind)) return;
    if (kind == MARK_TAIL && (!(marked->to_do & MARK_TAIL) || mark->index < marked->tail_to_do)) marked->tail_to_do = mark->index;
    marked->to_do |= (uint8_t)kind;
}

static struct chunk *next_chunk(const struct marked *marked, uint32_t *at) {
    for (*at = marked->first_to_do; *at < marked->chunks; ++*at)
        if (marked->chunk[*at].to_do) return &marked->chunk[*at];
    return NULL;
}

bool marks_is_to_do(const rfs_marks *marks, uint64_t fid, int32_t kinds) {
    const struct marked *marked = find(marks, fid);
    uint32_t at;
    return marked && (marked->to_do & kinds || (kinds & MARK_CHUNK && next_chunk(marked, &at)));
}

rfs_mark marks_take(rfs_marks *marks, uint64_t fid, int32_t kinds) {
    rfs_mark mark = {.fid = fid};
    struct marked *marked = find(marks, fid);
    uint32_t at;
    if (!marked) return mark;
    struct chunk *chunk = kinds & MARK_CHUNK ? next_chunk(marked, &at) : NULL;
    if (chunk) {
        mark = (rfs_mark){.fid = fid, .index = chunk->index, .grains = chunk->to_do, .kind = MARK_CHUNK};
        chunk->to_do = 0;
        marked->first_to_do = at + 1;
        return mark;
    }
    for (int32_t kind = MARK_TAIL; kind >= MARK_ENTRIES && !mark.kind; kind >>= 1)
        if (marked->to_do & kinds & kind) mark.kind = kind;
    marked->to_do &= (uint8_t)~mark.kind;
    if (mark.kind == MARK_TAIL) mark.index = marked->tail_to_do;
    return mark;
}

/* ---- all of them ------------------------------------------------------------------------------------------------------------------- */

static bool part_of(const struct marked *marked, size_t part, rfs_mark *mark) {
    static const int32_t kinds[] = {MARK_ENTRIES, MARK_ATTRIBUTES, MARK_TAIL};
    const size_t count = sizeof kinds / sizeof *kinds;
    *mark = (rfs_mark){.fid = marked->fid};
    if (part < count) {
        mark->kind = marked->kinds & kinds[part];
        if (mark->kind == MARK_TAIL) mark->index = marked->tail;
        return true;
    }
    part -= count;
    if (part >= marked->chunks) return false;
    *mark = (rfs_mark){.fid = marked->fid, .index = marked->chunk[part].index, .grains = marked->chunk[part].grains, .kind = MARK_CHUNK};
    return true;
}

bool marks_each(const rfs_marks *marks, rfs_marks_cursor *cursor, rfs_mark *mark) {
    for (; cursor->bucket < marks->room; cursor->bucket++, cursor->inode = 0) {
        const struct marked *marked = marks->buckets[cursor->bucket];
        for (size_t i = 0; marked && i < cursor->inode; i++) marked = marked->next;
        for (; marked; marked = marked->next, cursor->inode++, cursor->part = 0)
            while (part_of(marked, cursor->part, mark)) {
                cursor->part++;
                if (mark->kind) return true;
            }
    }
    return false;
}

size_t marks_inodes(const rfs_marks *marks) { return marks->inodes; }

static uint64_t bytes_of(uint64_t grains) { return (uint64_t)__builtin_popcountll(grains) * MARK_GRAIN_BYTES; }

rfs_marks_count marks_count(const rfs_marks *marks) {
    rfs_marks_count count = {.places = marks->places, .inodes = marks->inodes};
    for (size_t i = 0; i < marks->room; i++)
        for (struct marked *marked = marks->buckets[i]; marked; marked = marked->next) {
            count.bytes += marked->kinds & MARK_TAIL ? MARK_CHUNK_BYTES : 0;
            count.to_do_places += (uint64_t)__builtin_popcount(marked->to_do);
            for (uint32_t k = 0; k < marked->chunks; k++) {
                count.bytes += bytes_of(marked->chunk[k].grains);
                count.to_do_bytes += bytes_of(marked->chunk[k].to_do);
                count.to_do_places += marked->chunk[k].to_do != 0;
            }
        }
    return count;
}
