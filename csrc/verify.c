/* Verify: are both copies equal? Asked by the source of a whole pair, while the application writes, and without a false alarm.
 *
 * The idea: a question joins the one order of ops under the lock that orders its place (a file's stripe for its content and attributes, `names`
 * for a directory's entries), with hashes of what was read under that lock. The target applies it in that order. So both are read at the
 * same seq, whatever is written before and after, and what differs is different.
 *
 * Equal is the quiet case: the target sends nothing, and the acknowledgement of the question, which can only come after an answer to it, says
 * so. A few questions are on their way at once. What was answered is asked a second time, anew read, and counted then: a disk may err once.
 *
 * A directory is asked for as sums over its entries, one for each of 64 buckets of names; for the buckets that differ the names themselves go
 * over. What is missing there is told once and not descended into.
 *
 * How it ends early: the pair is none any more (the link is lost, a demotion), for answers may be lost with the link. What was found stands. */
#include "verify.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "link.h"
#include "tree.h"

enum { IN_FLIGHT = 16, RECHECK_AT = 256, MAX_SUSPECTS = 100000, NAMES_PER_QUESTION = 1000 };

enum what { RANGE, HOLE, ATTRIBUTES };

struct question {
    enum what what;
    bool again; /* it was answered once before */
    uint64_t seq, fid, offset, length;
    uint64_t parent; /* in which it was met, under the last name of its path: the target may not know its fid yet */
    uint16_t directory;
    char *path; /* owned */
};

struct report {
    uint64_t seq, different;
    uint8_t *names;
    size_t bytes;
};

struct place { /* a directory that is to be asked for */
    uint64_t fid, parent;
    uint16_t directory;
    char *path;
};

struct child {
    uint64_t fid;
    uint32_t type;
    bool missing;
    char *name;
};

struct children {
    struct child *items;
    size_t count, room;
    struct entry_sums sums;
};

struct verify {
    rfs_engine *engine;
    pthread_t thread;
    bool joinable; /* one_at_a_time */
    atomic_bool stop;
    atomic_uint_fast64_t bytes_done, total_bytes, files_done, total_files, asked_again;

    pthread_mutex_t lock; /* down to the next gap */
    bool running;
    int result;
    struct report reports[IN_FLIGHT + 1];
    size_t reported;
    rfs_difference **found;
    uint32_t listed;
    uint64_t differences;

    /* The thread's own. */
    uint64_t links, started_ns, paced_bytes, bytes_per_s;
    uint8_t *buffer;
    uint64_t open_fid;
    int open_fd;
    struct question ring[IN_FLIGHT]; /* on their way, by seq */
    size_t first, asked;
    struct question *suspects;
    size_t suspected, suspect_room;
    struct place *stack;
    size_t depth, room;
};

static void *need(void *memory) {
    if (!memory) abort(); /* as elsewhere in the engine: small things */
    return memory;
}

static void *grown(void *items, size_t *room, size_t one) {
    *room = *room * 2 + 64;
    return need(realloc(items, *room * one));
}

static char *join(const char *path, const char *name) {
    size_t bytes = strlen(path) + strlen(name) + 2;
    char *joined = need(malloc(bytes));
    snprintf(joined, bytes, "%s%s%s", path, *path ? "/" : "", name);
    return joined;
}

/* ---- what was found ------------------------------------------------------------------------------------------------------------ */

/* Neighbouring ranges of a file are one difference. */
static bool extends(const struct verify *verify, uint64_t fid, uint32_t kinds, uint64_t offset) { /* lock */
    const rfs_difference *last = verify->listed ? verify->found[verify->listed - 1] : NULL;
    return last && last->fid == fid && last->kinds == kinds && kinds == RFS_DIFFERS_CONTENT && last->offset + last->length == offset;
}

static void record(struct verify *verify, uint64_t fid, uint16_t directory, uint32_t kinds, const char *path, uint64_t offset, uint64_t length) {
    pthread_mutex_lock(&verify->lock);
    if (extends(verify, fid, kinds, offset)) {
        verify->found[verify->listed - 1]->length += length;
    } else {
        verify->differences++;
        if (verify->listed < RFS_MAX_DIFFERENCES) {
            rfs_difference *one = need(calloc(1, sizeof *one));
            *one = (rfs_difference){.directory = directory, .kinds = kinds, .fid = fid, .offset = offset, .length = length};
            snprintf(one->path, sizeof one->path, "%s", path);
            verify->found[verify->listed++] = one;
        }
    }
    pthread_mutex_unlock(&verify->lock);
}

static uint32_t other_kinds(uint64_t different) { /* what is no range */
    if (different & VERIFY_MISSING) return RFS_DIFFERS_MISSING;
    return different & VERIFY_UNREADABLE ? RFS_DIFFERS_UNREADABLE : (uint32_t)different;
}

static void record_answer(struct verify *verify, const struct question *question, uint64_t different) {
    if (question->what == ATTRIBUTES || different & (VERIFY_MISSING | VERIFY_UNREADABLE)) {
        record(verify, question->fid, question->directory, other_kinds(different), question->path, 0, 0);
        return;
    }
    for (uint64_t i = 0; i * VERIFY_BLOCK_BYTES < question->length; i++) {
        uint64_t at = i * VERIFY_BLOCK_BYTES, part = question->length - at < VERIFY_BLOCK_BYTES ? question->length - at : VERIFY_BLOCK_BYTES;
        if (different >> i & 1) record(verify, question->fid, question->directory, RFS_DIFFERS_CONTENT, question->path, question->offset + at, part);
    }
}

/* ---- answers ------------------------------------------------------------------------------------------------------------------- */

/* On the link's thread. Of a verify that has ended, or of one before a short loss of the link: nobody's any more. */
int verify_answer(rfs_engine *engine, const struct wire_header *header, const uint8_t *payload) {
    struct verify *verify = atomic_load(&engine->verify);
    if (!verify || header->payload_bytes > VERIFY_ANSWER_BYTES) return -EPROTO;
    pthread_mutex_lock(&verify->lock);
    if (verify->running && verify->reported < sizeof verify->reports / sizeof verify->reports[0]) {
        struct report *report = &verify->reports[verify->reported++];
        *report = (struct report){.seq = header->seq, .different = header->offset, .bytes = header->payload_bytes};
        if (report->bytes) {
            report->names = need(malloc(report->bytes));
            memcpy(report->names, payload, report->bytes);
        }
    }
    pthread_mutex_unlock(&verify->lock);
    return 0;
}

/* The answer to this question, if there is one. */
static bool take_report(struct verify *verify, uint64_t seq, struct report *out) {
    bool found = false;
    pthread_mutex_lock(&verify->lock);
    for (size_t i = 0; i < verify->reported && !found; i++) {
        found = verify->reports[i].seq == seq;
        if (!found) continue;
        *out = verify->reports[i];
        verify->reports[i] = verify->reports[--verify->reported];
    }
    pthread_mutex_unlock(&verify->lock);
    return found;
}

static int wait_for(struct verify *verify, uint64_t seq) {
    bool acknowledged = mirror_wait_acknowledged(verify->engine, seq, &verify->stop);
    if (atomic_load(&verify->stop)) return -ECANCELED;
    return acknowledged && atomic_load(&verify->engine->links) == verify->links ? 0 : -ENOTCONN;
}

static int suspect(struct verify *verify, const struct question *question) { /* takes its path */
    if (verify->suspected == MAX_SUSPECTS) return -E2BIG;
    if (verify->suspected == verify->suspect_room) verify->suspects = grown(verify->suspects, &verify->suspect_room, sizeof *verify->suspects);
    verify->suspects[verify->suspected++] = *question;
    atomic_fetch_add(&verify->asked_again, 1);
    return 0;
}

static int settle_oldest(struct verify *verify) {
    struct question *question = &verify->ring[verify->first];
    struct report report;
    int result = wait_for(verify, question->seq);
    if (result < 0) return result;
    if (take_report(verify, question->seq, &report)) {
        free(report.names);
        if (question->again) {
            record_answer(verify, question, report.different);
        } else {
            result = suspect(verify, question);
            if (result == 0) question->path = NULL;
        }
    }
    free(question->path);
    verify->first = (verify->first + 1) % IN_FLIGHT;
    verify->asked--;
    return result;
}

/* ---- asking -------------------------------------------------------------------------------------------------------------------- */

static int enter(struct verify *verify) {
    rfs_engine *engine = verify->engine;
    pthread_rwlock_rdlock(&engine->state);
    if (atomic_load(&verify->stop)) {
        pthread_rwlock_unlock(&engine->state);
        return -ECANCELED;
    }
    if (engine->mode == RFS_PAIRED && engine->link && !engine->demoting && atomic_load(&engine->links) == verify->links) return 0;
    pthread_rwlock_unlock(&engine->state);
    return -ENOTCONN;
}

static void leave(struct verify *verify) {
    link_flush(verify->engine->link);
    pthread_rwlock_unlock(&verify->engine->state);
}

static struct op *new_frame(enum frame_type type, uint64_t fid) {
    struct op *op = need(op_new(type));
    op->body.fid = fid;
    return op;
}

static void put_name_of(struct op *op, uint64_t parent, const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    op->body.other = parent;
    op->body.name_bytes = (uint16_t)strlen(name);
    memcpy(op->body.name, name, op->body.name_bytes);
}

static bool is_compared(const struct inode *inode) { return !inode->orphan && !inode_is_local(inode); }

static int open_file(struct verify *verify, struct inode *inode) {
    if (verify->open_fid == inode->fid) return verify->open_fd;
    if (verify->open_fd >= 0) close(verify->open_fd);
    verify->open_fid = 0;
    verify->open_fd = inode_open(verify->engine, inode, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (verify->open_fd >= 0) verify->open_fid = inode->fid;
    return verify->open_fd;
}

/* How far it is from offset to the next data, at most `limit`, if that is worth a question of its own; 0: data begins here. */
static uint64_t hole_bytes(int fd, uint64_t offset, uint64_t limit) {
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    if (data < 0) return errno == ENXIO ? limit : 0;
    uint64_t hole = (uint64_t)data - offset;
    if (hole >= limit) return limit;
    hole -= hole % VERIFY_BLOCK_BYTES;
    return hole >= VERIFY_BYTES ? hole : 0;
}

static int put_hashes(struct verify *verify, int fd, struct question *question, struct op *op) {
    ssize_t got = pread(fd, verify->buffer, question->length, (off_t)question->offset);
    if (got <= 0) return got < 0 ? -errno : 1;
    size_t blocks = ((size_t)got + VERIFY_BLOCK_BYTES - 1) / VERIFY_BLOCK_BYTES;
    struct block_hash *hashes = need(malloc(blocks * sizeof *hashes));
    for (size_t i = 0; i < blocks; i++) {
        size_t at = i * VERIFY_BLOCK_BYTES, part = (size_t)got - at < VERIFY_BLOCK_BYTES ? (size_t)got - at : VERIFY_BLOCK_BYTES;
        hashes[i] = hash_block(verify->buffer + at, part, verify->engine->session.session);
    }
    op->data = (uint8_t *)hashes;
    op->body.data_bytes = (uint32_t)(blocks * sizeof *hashes);
    op->body.length = question->length = (uint64_t)got;
    return 0;
}

/* Under state and the stripe. 0: it is ready; 1: there is nothing to ask (any more). */
static int put_range(struct verify *verify, struct inode *inode, struct question *question, struct op *op) {
    struct stat stat;
    if (!is_compared(inode)) return 1;
    int fd = open_file(verify, inode);
    if (fd < 0) return fd;
    op->body.offset = question->offset;
    op->body.length = question->length;
    if (question->what == RANGE) return put_hashes(verify, fd, question, op);
    if (fstat(fd, &stat) < 0) return -errno;
    if (question->offset + question->length > (uint64_t)stat.st_size || hole_bytes(fd, question->offset, question->length) != question->length) return -EAGAIN;
    op->frame.header.flags |= FLAG_ZERO;
    return 0;
}

static int put_facts(struct verify *verify, struct inode *inode, struct op *op) {
    rfs_engine *engine = verify->engine;
    struct facts facts;
    if (!is_compared(inode)) return 1;
    int result = facts_read(engine, inode, &facts);
    if (result < 0) return result;
    const struct block_hash hashes[2] = {facts.xattrs, facts.target};
    op->body.mode = facts.mode;
    op->body.uid = facts.uid;
    op->body.gid = facts.gid;
    op->body.rdev = facts.rdev;
    op->body.length = facts.size;
    op->body.mtime_ns = facts.mtime_ns;
    op->body.flags = S_ISDIR(inode->type) && engine->directory[inode->directory].scopes.any ? 0 : VERIFY_MTIME;
    op->data = need(malloc(sizeof hashes));
    memcpy(op->data, hashes, sizeof hashes);
    op->body.data_bytes = sizeof hashes;
    return 0;
}

static int ship(struct verify *verify, struct inode *inode, struct question *question) {
    struct op *op = new_frame(question->what == ATTRIBUTES ? FRAME_VERIFY_ATTRIBUTES : FRAME_VERIFY_RANGE, inode->fid);
    pthread_mutex_t *stripe = inode_stripe(verify->engine, inode->fid);
    put_name_of(op, question->parent, question->path);
    pthread_mutex_lock(stripe);
    int result = question->what == ATTRIBUTES ? put_facts(verify, inode, op) : put_range(verify, inode, question, op);
    if (result == 0) question->seq = mirror_ship(verify->engine, op);
    else op_free(verify->engine, op);
    pthread_mutex_unlock(stripe);
    return result;
}

static void keep_asked(struct verify *verify, const struct question *question) {
    verify->ring[(verify->first + verify->asked++) % IN_FLIGHT] = *question;
}

/* From the disk before the lock, so that nobody waits for the disk under it. */
static void warm(struct verify *verify, struct inode *inode, const struct question *question) {
    int fd = question->what == RANGE ? open_file(verify, inode) : -1;
    if (fd >= 0 && pread(fd, verify->buffer, question->length, (off_t)question->offset) < 0) return; /* the second read says why */
}

/* 0: asked, and the question's path is taken; 1: nothing to ask; -EAGAIN: a hole that is none any more. */
static int ask(struct verify *verify, struct question *question) {
    int result = 0;
    while (result == 0 && verify->asked == IN_FLIGHT) result = settle_oldest(verify);
    if (result < 0) return result;
    struct inode *inode = inode_get(verify->engine, question->fid);
    if (!inode) return 1;
    warm(verify, inode, question);
    result = enter(verify);
    if (result == 0) {
        bool is_directory = S_ISDIR(inode->type); /* its mtime goes with its entries */
        if (is_directory) pthread_mutex_lock(&verify->engine->names);
        result = ship(verify, inode, question);
        if (is_directory) pthread_mutex_unlock(&verify->engine->names);
        leave(verify);
    }
    if (result == -ESTALE) result = 1; /* gone */
    inode_put(verify->engine, inode);
    if (result == 0) keep_asked(verify, question);
    return result;
}

/* `like` says of what. */
static int ask_of(struct verify *verify, enum what what, const struct question *like, uint64_t offset, uint64_t length, bool again) {
    struct question question = {.what = what, .again = again, .fid = like->fid, .parent = like->parent, .offset = offset, .length = length, .directory = like->directory, .path = need(strdup(like->path))};
    int result = ask(verify, &question);
    if (result != 0) free(question.path);
    return result;
}

/* ---- what was answered is asked again ------------------------------------------------------------------------------------------- */

static int ask_again(struct verify *verify, const struct question *question) {
    if (question->what != HOLE) {
        int result = ask_of(verify, question->what, question, question->offset, question->length, true);
        return result == 1 ? 0 : result;
    }
    int result = 0; /* it said only that there is something: where? */
    for (uint64_t at = 0; result == 0 && at < question->length; at += VERIFY_BYTES) {
        uint64_t part = question->length - at < VERIFY_BYTES ? question->length - at : VERIFY_BYTES;
        result = ask_of(verify, RANGE, question, question->offset + at, part, true);
    }
    return result == 1 ? 0 : result;
}

static int recheck(struct verify *verify) {
    int result = 0;
    while (result == 0 && (verify->asked || verify->suspected)) {
        if (!verify->suspected) {
            result = settle_oldest(verify);
            continue;
        }
        struct question question = verify->suspects[--verify->suspected];
        result = ask_again(verify, &question);
        free(question.path);
    }
    return result;
}

/* ---- a file -------------------------------------------------------------------------------------------------------------------- */

static void pace(struct verify *verify, uint64_t bytes) {
    if (!verify->bytes_per_s) return;
    verify->paced_bytes += bytes;
    uint64_t due_ns = verify->started_ns + (uint64_t)((double)verify->paced_bytes * (double)NS_PER_S / (double)verify->bytes_per_s);
    while (!atomic_load(&verify->stop) && now_ns() < due_ns) {
        struct timespec nap = {.tv_nsec = 5000000};
        nanosleep(&nap, NULL);
    }
}

static int check_content(struct verify *verify, const struct question *like) {
    struct inode *inode = inode_get(verify->engine, like->fid);
    if (!inode) return 0;
    int fd = open_file(verify, inode), result = fd < 0 && fd != -ESTALE ? fd : 0;
    for (uint64_t offset = 0; result == 0 && fd >= 0;) {
        struct stat stat;
        fd = open_file(verify, inode); /* a second look at another file may have closed it */
        if (fd < 0) result = fd == -ESTALE ? 0 : fd;
        else if (fstat(fd, &stat) < 0) result = -errno;
        if (fd < 0 || result < 0 || offset >= (uint64_t)stat.st_size) break;
        uint64_t left = (uint64_t)stat.st_size - offset, step = left < VERIFY_BYTES ? left : VERIFY_BYTES;
        uint64_t hole = hole_bytes(fd, offset, left < VERIFY_HOLE_BYTES ? left : VERIFY_HOLE_BYTES);
        result = hole ? ask_of(verify, HOLE, like, offset, hole, false) : -EAGAIN;
        if (result == 0) step = hole;
        else if (result == -EAGAIN) result = ask_of(verify, RANGE, like, offset, step, false);
        if (result == 0) pace(verify, hole ? 0 : step);
        if (result == 0 && verify->suspected >= RECHECK_AT) result = recheck(verify);
        offset += step;
        atomic_fetch_add(&verify->bytes_done, step);
    }
    inode_put(verify->engine, inode);
    return result == 1 ? 0 : result;
}

static int check_file(struct verify *verify, const struct place *place, const struct child *child) {
    struct question like = {.fid = child->fid, .parent = place->fid, .directory = place->directory, .path = join(place->path, child->name)};
    int result = ask_of(verify, ATTRIBUTES, &like, 0, 0, false);
    if (result == 0 && S_ISREG(child->type)) result = check_content(verify, &like);
    if (result >= 0 && verify->suspected) result = recheck(verify);
    atomic_fetch_add(&verify->files_done, 1);
    free(like.path);
    return result == 1 ? 0 : result;
}

/* ---- a directory --------------------------------------------------------------------------------------------------------------- */

static int collect(void *context, const struct entry *entry) {
    struct children *children = context;
    entry_add(&children->sums, entry);
    if (children->count == children->room) children->items = grown(children->items, &children->room, sizeof *children->items);
    children->items[children->count++] = (struct child){.fid = entry->fid, .type = entry->type, .name = need(strdup(entry->name))};
    return 0;
}

/* Both under `names`: a directory's mtime goes with its entries. 1: it is gone. */
static int ask_directory(struct verify *verify, struct inode *directory, const struct place *place, struct children *children, uint64_t *seq) {
    rfs_engine *engine = verify->engine;
    struct question facts = {.what = ATTRIBUTES, .fid = directory->fid, .parent = place->parent, .directory = place->directory, .path = place->path};
    int result = 0;
    while (result == 0 && verify->asked == IN_FLIGHT) result = settle_oldest(verify); /* room for the facts */
    if (result == 0) result = enter(verify);
    if (result < 0) return result;
    pthread_mutex_lock(&engine->names);
    children->sums.seed = engine->session.session;
    result = is_compared(directory) ? entries_visit(engine, directory, true, collect, children) : 1;
    if (result == 0) {
        struct op *op = new_frame(FRAME_VERIFY_ENTRIES, directory->fid);
        put_name_of(op, place->parent, place->path);
        op->data = need(malloc(sizeof children->sums.bucket));
        memcpy(op->data, children->sums.bucket, sizeof children->sums.bucket);
        op->body.data_bytes = sizeof children->sums.bucket;
        *seq = mirror_ship(engine, op);
        result = ship(verify, directory, &facts);
    }
    pthread_mutex_unlock(&engine->names);
    leave(verify);
    if (result != 0) return result;
    facts.path = need(strdup(place->path));
    keep_asked(verify, &facts);
    return 0;
}

struct naming {
    uint64_t mask, value;
    uint8_t *row;
    size_t bytes;
};

static int put_name(void *context, const struct entry *entry) {
    struct naming *naming = context;
    size_t name_bytes = strlen(entry->name);
    uint64_t fid = htole64(entry->fid);
    uint32_t type = htole32(entry->type);
    uint16_t short_bytes = htole16((uint16_t)name_bytes);
    if ((entry_bits(entry->name) & naming->mask) != naming->value) return 0;
    if (naming->bytes + 14 + name_bytes > VERIFY_LIST_BYTES) return -EFBIG;
    uint8_t *at = naming->row + naming->bytes;
    memcpy(at, &fid, 8);
    memcpy(at + 8, &type, 4);
    memcpy(at + 12, &short_bytes, 2);
    memcpy(at + 14, entry->name, name_bytes);
    naming->bytes += 14 + name_bytes;
    return 0;
}

static int ask_names(struct verify *verify, struct inode *directory, uint64_t bits, uint64_t value, uint64_t *seq) {
    rfs_engine *engine = verify->engine;
    struct naming naming = {.mask = (UINT64_C(1) << bits) - 1, .value = value, .row = need(malloc(VERIFY_LIST_BYTES))};
    int result = enter(verify);
    if (result == 0) {
        pthread_mutex_lock(&engine->names);
        result = is_compared(directory) ? entries_visit(engine, directory, true, put_name, &naming) : 1;
        if (result == 0) {
            struct op *op = new_frame(FRAME_VERIFY_NAMES, directory->fid);
            op->body.offset = value;
            op->body.length = bits;
            op->data = naming.row;
            op->body.data_bytes = (uint32_t)naming.bytes;
            naming.row = NULL;
            *seq = mirror_ship(engine, op);
        }
        pthread_mutex_unlock(&engine->names);
        leave(verify);
    }
    free(naming.row);
    return result;
}

static int by_name(const void *left, const void *right) { return strcmp(((const struct child *)left)->name, ((const struct child *)right)->name); }

static void name_differs(struct verify *verify, const struct place *place, struct children *children, uint8_t what, const char *name) {
    static const uint32_t kinds[] = {RFS_DIFFERS_MISSING, RFS_DIFFERS_EXTRA, RFS_DIFFERS_OBJECT};
    char *path = join(place->path, name);
    record(verify, place->fid, place->directory, kinds[what], path, 0, 0);
    free(path);
    struct child key = {.name = (char *)(uintptr_t)name}, *child = children->count ? bsearch(&key, children->items, children->count, sizeof key, by_name) : NULL;
    if (child) child->missing = true; /* what is another there is not compared further */
}

/* Each: what, name. The peer's bytes: they are only shown. */
static void read_names(struct verify *verify, const struct place *place, struct children *children, const struct report *report) {
    for (size_t at = 0; at + 3 <= report->bytes;) {
        char name[256];
        uint16_t bytes;
        memcpy(&bytes, report->names + at + 1, 2);
        bytes = le16toh(bytes);
        uint8_t what = report->names[at];
        if (bytes > 255 || bytes > report->bytes - at - 3 || what > VERIFY_NAME_ANOTHER) break;
        memcpy(name, report->names + at + 3, bytes);
        name[bytes] = 0;
        name_differs(verify, place, children, what, name);
        at += 3 + (size_t)bytes;
    }
}

/* This is the second look at these entries: each piece is read anew. */
static int check_bucket(struct verify *verify, struct inode *directory, const struct place *place, struct children *children, uint64_t bucket) {
    uint64_t bits = 6;
    int result = 0;
    while (children->count >> bits > NAMES_PER_QUESTION && bits < VERIFY_NAME_BITS) bits++;
    for (uint64_t part = 0; result == 0 && part < UINT64_C(1) << (bits - 6); part++) {
        struct report report;
        uint64_t seq = 0;
        result = ask_names(verify, directory, bits, part << 6 | bucket, &seq);
        if (result == 0) result = wait_for(verify, seq);
        if (result == 0 && take_report(verify, seq, &report)) {
            read_names(verify, place, children, &report);
            free(report.names);
        }
    }
    return result;
}

static int check_entries(struct verify *verify, struct inode *directory, const struct place *place, struct children *children) {
    struct report report = {0};
    uint64_t seq = 0;
    int result = ask_directory(verify, directory, place, children, &seq);
    if (result == 0) result = wait_for(verify, seq);
    if (result != 0 || !take_report(verify, seq, &report)) return result;
    free(report.names);
    atomic_fetch_add(&verify->asked_again, 1);
    if (children->count) qsort(children->items, children->count, sizeof *children->items, by_name);
    for (uint64_t bucket = 0; result == 0 && bucket < VERIFY_BUCKETS; bucket++)
        if (report.different >> bucket & 1) result = check_bucket(verify, directory, place, children, bucket);
    return result;
}

static void push(struct verify *verify, uint64_t fid, uint64_t parent, uint16_t directory, char *path) {
    if (verify->depth == verify->room) verify->stack = grown(verify->stack, &verify->room, sizeof *verify->stack);
    verify->stack[verify->depth++] = (struct place){.fid = fid, .parent = parent, .directory = directory, .path = path};
}

static int check_directory(struct verify *verify, const struct place *place) {
    struct children children = {0};
    struct inode *directory = inode_get(verify->engine, place->fid);
    int result = directory ? check_entries(verify, directory, place, &children) : 1;
    for (size_t i = 0; i < children.count; i++) {
        const struct child *child = &children.items[i];
        if (result == 0 && !child->missing) {
            if (S_ISDIR(child->type)) push(verify, child->fid, place->fid, place->directory, join(place->path, child->name));
            else result = check_file(verify, place, child);
        }
        free(children.items[i].name);
    }
    if (result == 0 && verify->suspected) result = recheck(verify);
    free(children.items);
    inode_put(verify->engine, directory);
    return result == 1 ? 0 : result;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------------- */

static void clean_up(struct verify *verify) {
    while (verify->asked) {
        free(verify->ring[verify->first].path);
        verify->first = (verify->first + 1) % IN_FLIGHT;
        verify->asked--;
    }
    while (verify->suspected) free(verify->suspects[--verify->suspected].path);
    while (verify->depth) free(verify->stack[--verify->depth].path);
    if (verify->open_fd >= 0) close(verify->open_fd);
    verify->open_fd = -1;
    verify->open_fid = 0;
    pthread_mutex_lock(&verify->lock);
    while (verify->reported) free(verify->reports[--verify->reported].names);
    pthread_mutex_unlock(&verify->lock);
}

static void *run(void *argument) {
    struct verify *verify = argument;
    rfs_engine *engine = verify->engine;
    int result = enter(verify);
    if (result == 0) leave(verify);
    for (uint32_t i = 0; result == 0 && i < engine->directories; i++)
        tree_count(&engine->directory[i].scopes, engine->directory[i].root_fd, &(struct tree_tally){&verify->stop, &verify->total_files, &verify->total_bytes});
    verify->started_ns = now_ns();
    for (uint32_t i = engine->directories; result == 0 && i-- > 0;) push(verify, FIRST_DIRECTORY_FID + i, 0, (uint16_t)i, need(strdup("")));
    while (result == 0 && verify->depth) {
        struct place place = verify->stack[--verify->depth];
        result = check_directory(verify, &place);
        free(place.path);
    }
    if (result == 0) result = recheck(verify);
    clean_up(verify);
    pthread_mutex_lock(&verify->lock);
    verify->running = false;
    verify->result = result;
    pthread_mutex_unlock(&verify->lock);
    emit(engine, RFS_EVENT_VERIFIED, result, 0, "%s", result < 0 ? strerror(-result) : "");
    return NULL;
}

static struct verify *get(rfs_engine *engine) {
    struct verify *verify = atomic_load(&engine->verify);
    if (verify) return verify;
    verify = calloc(1, sizeof *verify);
    if (!verify) return NULL;
    verify->engine = engine;
    verify->open_fd = -1;
    verify->buffer = malloc(VERIFY_BYTES);
    verify->found = calloc(RFS_MAX_DIFFERENCES, sizeof *verify->found);
    pthread_mutex_init(&verify->lock, NULL);
    if (verify->buffer && verify->found) {
        atomic_store(&engine->verify, verify);
        return verify;
    }
    free(verify->buffer);
    free(verify->found);
    free(verify);
    return NULL;
}

static void forget_found(struct verify *verify) {
    pthread_mutex_lock(&verify->lock);
    while (verify->listed) free(verify->found[--verify->listed]);
    verify->differences = 0;
    verify->result = 0;
    verify->running = true;
    pthread_mutex_unlock(&verify->lock);
    atomic_store(&verify->bytes_done, 0);
    atomic_store(&verify->total_bytes, 0);
    atomic_store(&verify->files_done, 0);
    atomic_store(&verify->total_files, 0);
    atomic_store(&verify->asked_again, 0);
    verify->paced_bytes = 0;
}

static bool is_running(struct verify *verify) {
    pthread_mutex_lock(&verify->lock);
    bool running = verify->running;
    pthread_mutex_unlock(&verify->lock);
    return running;
}

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER; /* those who start and stop verifies, of any engine */

static int start(rfs_engine *engine) {
    struct verify *verify = get(engine);
    if (!verify) return -ENOMEM;
    if (is_running(verify)) return -EBUSY;
    if (verify->joinable) pthread_join(verify->thread, NULL);
    verify->joinable = false;
    pthread_rwlock_rdlock(&engine->state);
    bool is_source = engine->mode == RFS_PAIRED && engine->link && !engine->demoting;
    verify->links = atomic_load(&engine->links);
    verify->bytes_per_s = engine->session.resync_bytes_per_s; /* the cap on what is read for redundancy's sake */
    pthread_rwlock_unlock(&engine->state);
    if (!is_source) return -ENOTCONN;
    atomic_store(&verify->stop, false);
    forget_found(verify);
    int result = -pthread_create(&verify->thread, NULL, run, verify);
    verify->joinable = result == 0;
    pthread_mutex_lock(&verify->lock);
    if (result < 0) verify->running = false;
    pthread_mutex_unlock(&verify->lock);
    return result;
}

int rfs_verify_start(rfs_engine *engine) {
    pthread_mutex_lock(&one_at_a_time);
    int result = start(engine);
    pthread_mutex_unlock(&one_at_a_time);
    return result;
}

int rfs_verify_stop(rfs_engine *engine) {
    pthread_mutex_lock(&one_at_a_time);
    struct verify *verify = atomic_load(&engine->verify);
    if (verify) {
        atomic_store(&verify->stop, true);
        mirror_wake(engine);
        if (verify->joinable) pthread_join(verify->thread, NULL);
        verify->joinable = false;
    }
    pthread_mutex_unlock(&one_at_a_time);
    return 0;
}

void verify_free(rfs_engine *engine) {
    struct verify *verify = atomic_load(&engine->verify);
    if (!verify) return;
    rfs_verify_stop(engine);
    while (verify->listed) free(verify->found[--verify->listed]);
    free(verify->found);
    free(verify->suspects);
    free(verify->stack);
    free(verify->buffer);
    pthread_mutex_destroy(&verify->lock);
    free(verify);
    atomic_store(&engine->verify, NULL); /* the link may still be there: its thread finds none */
}

void rfs_verify_progress(rfs_engine *engine, rfs_verification *out) {
    struct verify *verify = atomic_load(&engine->verify);
    *out = (rfs_verification){0};
    if (!verify) return;
    out->bytes_done = atomic_load(&verify->bytes_done);
    out->total_bytes = atomic_load(&verify->total_bytes);
    out->files_done = atomic_load(&verify->files_done);
    out->total_files = atomic_load(&verify->total_files);
    out->asked_again = atomic_load(&verify->asked_again);
    pthread_mutex_lock(&verify->lock);
    out->running = verify->running;
    out->result = verify->result;
    out->differences = verify->differences;
    out->listed = verify->listed;
    pthread_mutex_unlock(&verify->lock);
}

int rfs_verify_difference(rfs_engine *engine, uint32_t index, rfs_difference *out) {
    struct verify *verify = atomic_load(&engine->verify);
    if (!verify) return -ENOENT;
    pthread_mutex_lock(&verify->lock);
    int result = index < verify->listed ? 0 : -ENOENT;
    if (result == 0) *out = *verify->found[index];
    pthread_mutex_unlock(&verify->lock);
    return result;
}
