/* The data link.
 *
 * Sending: whoever appended a frame tries to send it at once (no thread to wake on the happy path); if another thread is
 * sending, that one takes the new frame along. When the socket is full, `poller` waits for it to drain.
 * Receiving: one thread reads as much as there is, handles every complete frame, and acknowledges once for the whole
 * batch. It also keeps the time: the deadlines for progress. Keepalives are the poller's.
 * Failing: the first error closes the link for both directions and is reported once. */
#include "link.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "applier.h"
#include "op.h"
#include "privileges.h"
#include "steps.h"
#include "verify.h"
#include "walk.h"

enum { MOST_UNREAD_BYTES = 64 << 20 }; /* answers that the peer does not read: a hundred times what an honest one leaves */
enum { BATCH_FRAMES = 16, TICK_MS = 100, LOOK_AGAIN_NS = 400000, BUSY_GAP_NS = 400000, CROWDED_NS = 25000, MAX_GAP_NS = 10 * BUSY_GAP_NS, RECEIVE_BYTES = 2 * (MAX_PAYLOAD_BYTES + WIRE_HEADER_BYTES) };

struct link {
    rfs_engine *engine;
    rfs_channel *channel;
    struct applier *applier; /* the receiver's own; a source's has nothing to do */
    rfs_session session;
    atomic_bool up, closing, draining;
    pthread_t receiver, poller;
    bool started;

    pthread_mutex_t queue_lock; /* head, tail, want_poll */
    pthread_cond_t full;
    struct frame *head, *tail;
    bool want_poll;

    pthread_mutex_t flush_lock; /* the channel's sending side, and the sent part of the head frame */
    atomic_uint_fast64_t sent_seq, last_sent_ns, unread_bytes;

    /* The receiver's own: the mean time between arrivals; how much of the payload that is still arriving is in its checksum already. */
    uint64_t gap_ns;
    bool crowded; /* somebody else wanted the processor since the last arrival */
    size_t checked_bytes;
    uint32_t checked_crc;
};

uint64_t link_session(const struct link *link) { return link->session.session; }
bool link_is_sealed(const struct link *link) { return channel_is_sealed(link->channel); }
bool link_is_up(const struct link *link) { return atomic_load(&link->up); }
void link_apply_in_parallel(struct link *link) { applier_set_slow_ns(link->applier, 0); }

void link_end(struct link *link) {
    atomic_store(&link->up, false);
    channel_shutdown(link->channel, SHUT_RDWR);
}

/* ---- sending ------------------------------------------------------------------------------------------------------------ */

/* What was sent because the peer has asked or done something; its own marks a target tells unasked. */
static uint64_t answer_bytes(const struct frame *frame) {
    bool own = frame->header.type == FRAME_PEER_MARK || frame->header.type == FRAME_PEER_MARKS;
    return frame->standalone && !own ? sizeof *frame + frame->header.payload_bytes : 0;
}

void link_append(struct link *link, struct frame *frame) {
    atomic_fetch_add(&link->unread_bytes, answer_bytes(frame));
    frame->next = NULL;
    frame->sent_bytes = 0;
    frame->header.session = link->session.session;
    wire_encode_header(&frame->header, frame->encoded);
    pthread_mutex_lock(&link->queue_lock);
    if (link->tail) link->tail->next = frame;
    else link->head = frame;
    link->tail = frame;
    pthread_mutex_unlock(&link->queue_lock);
}

static int gather(struct link *link, struct iovec *parts) {
    int count = 0;
    pthread_mutex_lock(&link->queue_lock);
    struct frame *frame = link->head;
    for (int i = 0; frame && i < BATCH_FRAMES; i++, frame = frame->next) {
        size_t skip = frame->sent_bytes;
        if (skip < WIRE_HEADER_BYTES) parts[count++] = (struct iovec){frame->encoded + skip, WIRE_HEADER_BYTES - skip};
        skip = skip < WIRE_HEADER_BYTES ? 0 : skip - WIRE_HEADER_BYTES;
        if (frame->header.payload_bytes > skip)
            parts[count++] = (struct iovec){(void *)(uintptr_t)(frame->payload + skip), frame->header.payload_bytes - skip};
    }
    pthread_mutex_unlock(&link->queue_lock);
    return count;
}

/* Frames that are wholly sent leave the queue; an op's frame may be freed by its acknowledgement right after. */
static void advance(struct link *link, size_t bytes) {
    atomic_fetch_add(&link->engine->count.frame_bytes_sent, bytes);
    atomic_store(&link->last_sent_ns, now_ns());
    while (bytes) {
        pthread_mutex_lock(&link->queue_lock);
        struct frame *frame = link->head;
        size_t whole = WIRE_HEADER_BYTES + (size_t)frame->header.payload_bytes, left = whole - frame->sent_bytes;
        size_t part = bytes < left ? bytes : left;
        frame->sent_bytes += part;
        bytes -= part;
        bool done = part == left;
        if (done && !(link->head = frame->next)) link->tail = NULL;
        pthread_mutex_unlock(&link->queue_lock);
        if (!done) return;
        atomic_fetch_add(&link->engine->count.frames_sent, 1);
        bool standalone = frame->standalone;
        atomic_fetch_sub(&link->unread_bytes, answer_bytes(frame));
        if (wire_is_sequenced(frame->header.type)) STEP("op-sent");
        if (wire_is_sequenced(frame->header.type) && frame->header.seq > atomic_load(&link->sent_seq))
            atomic_store(&link->sent_seq, frame->header.seq); /* from here on not ours */
        if (standalone) free(frame);
    }
}

static bool send_some(struct link *link) {
    struct iovec parts[2 * BATCH_FRAMES];
    ssize_t bytes = channel_send(link->channel, parts, gather(link, parts));
    if (bytes > 0) advance(link, (size_t)bytes);
    if (bytes >= 0) return bytes > 0;
    if (bytes == -EAGAIN) {
        pthread_mutex_lock(&link->queue_lock);
        link->want_poll = true;
        pthread_cond_signal(&link->full);
        pthread_mutex_unlock(&link->queue_lock);
        return false;
    }
    link_end(link);
    return false;
}

void link_flush(struct link *link) {
    for (;;) {
        if (!atomic_load(&link->up) || pthread_mutex_trylock(&link->flush_lock) != 0) return; /* its holder looks again below */
        while (atomic_load(&link->up) && send_some(link)) continue;
        pthread_mutex_unlock(&link->flush_lock);
        pthread_mutex_lock(&link->queue_lock);
        bool more = link->head && !link->want_poll;
        pthread_mutex_unlock(&link->queue_lock);
        if (!more) return;
    }
}

/* Not the receiver's: it applies what arrives, and one slow op must not look like a dead peer. */
static void keep_alive(struct link *link) {
    uint64_t now = now_ns(), sent_ns = atomic_load(&link->last_sent_ns); /* others send too: it may be later than now */
    if (!atomic_load(&link->up) || now < sent_ns || now - sent_ns < link->session.keepalive_us * 1000) return;
    atomic_store(&link->last_sent_ns, now);
    link_send_small(link, FRAME_KEEPALIVE, 0, 0);
}

static void wait_until_full(struct link *link) { /* queue_lock; a tick at most */
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until = to_timespec(until.tv_sec * NS_PER_S + until.tv_nsec + TICK_MS * INT64_C(1000000));
    pthread_cond_timedwait(&link->full, &link->queue_lock, &until);
}

static void *poll_for_room(void *argument) {
    struct link *link = argument;
    privileges_of_the_link();
    pthread_mutex_lock(&link->queue_lock);
    while (!atomic_load(&link->closing)) {
        if (!link->want_poll) {
            wait_until_full(link);
            pthread_mutex_unlock(&link->queue_lock);
            keep_alive(link);
            pthread_mutex_lock(&link->queue_lock);
            continue;
        }
        pthread_mutex_unlock(&link->queue_lock);
        bool ready = channel_wait(link->channel, POLLOUT, TICK_MS);
        pthread_mutex_lock(&link->queue_lock);
        if (!ready) continue;
        link->want_poll = false;
        pthread_mutex_unlock(&link->queue_lock);
        link_flush(link);
        pthread_mutex_lock(&link->queue_lock);
    }
    pthread_mutex_unlock(&link->queue_lock);
    return NULL;
}

void link_send_answer(struct link *link, enum frame_type type, uint64_t seq, uint64_t offset, const uint8_t *payload, size_t bytes) {
    struct frame *frame = calloc(1, sizeof *frame + bytes);
    if (!frame) return; /* the peer's deadline ends the session */
    frame->standalone = true;
    frame->header = (struct wire_header){.type = (uint16_t)type, .seq = seq, .offset = offset, .generation = link->session.generation};
    if (bytes) {
        uint8_t *copy = (uint8_t *)(frame + 1);
        memcpy(copy, payload, bytes);
        frame->payload = copy;
        frame->header.payload_bytes = (uint32_t)bytes;
        frame->header.payload_crc = link_is_sealed(link) ? 0 : crc32c(0, copy, bytes);
    }
    link_append(link, frame);
    link_flush(link);
}

void link_send_small(struct link *link, enum frame_type type, uint64_t seq, uint64_t offset) { link_send_answer(link, type, seq, offset, NULL, 0); }
int link_send_body(struct link *link, enum frame_type type, const struct op_body *body, const uint8_t *data) {
    size_t bytes = wire_body_bytes(body);
    struct frame *frame = calloc(1, sizeof *frame + bytes);
    if (!frame) return -ENOMEM;
    uint8_t *payload = (uint8_t *)(frame + 1);
    wire_encode_body(body, data, payload);
    frame->standalone = true;
    frame->payload = payload;
    frame->header = (struct wire_header){.type = (uint16_t)type, .payload_bytes = (uint32_t)bytes, .generation = link->session.generation, .fid = body->fid, .offset = body->offset, .length = body->length};
    if (!link_is_sealed(link)) frame->header.payload_crc = crc32c(0, payload, bytes);
    link_append(link, frame);
    link_flush(link);
    return 0;
}

void link_acknowledge(struct link *link) {
    if (link->session.ack_disk) acknowledge_from_disk(link->engine);
    else link_send_small(link, FRAME_ACK, atomic_load(&link->engine->applied_seq), 0);
}

void link_acknowledge_alone(struct link *link, uint64_t seq) {
    if (!link->session.ack_disk) link_send_small(link, FRAME_ACK_ALONE, seq, 0);
}

bool link_has_sent(struct link *link, uint64_t seq) {
    if (atomic_load(&link->sent_seq) >= seq) return true;
    pthread_mutex_lock(&link->flush_lock); /* it may be in the hands of the sender right now */
    pthread_mutex_unlock(&link->flush_lock);
    return atomic_load(&link->sent_seq) >= seq;
}

/* ---- receiving ---------------------------------------------------------------------------------------------------------- */

/* A large payload is checked while the rest of it is on its way. */
static void check_arrived(struct link *link, const uint8_t *payload, size_t bytes) {
    if (link_is_sealed(link)) return;
    link->checked_crc = crc32c(link->checked_crc, payload + link->checked_bytes, bytes - link->checked_bytes);
    link->checked_bytes = bytes;
}

static int handle(struct link *link, const struct wire_header *header, const uint8_t *payload, char *reason) {
    rfs_engine *engine = link->engine;
    atomic_fetch_add(&engine->count.frames_received, 1);
    check_arrived(link, payload, header->payload_bytes);
    uint32_t crc = link->checked_crc;
    link->checked_crc = 0;
    link->checked_bytes = 0;
    if (header->payload_crc != crc && !link_is_sealed(link)) {
        snprintf(reason, RFS_REASON_BYTES, "a frame's payload fails its checksum");
        return -EBADMSG;
    }
    if (header->session != link->session.session) {
        snprintf(reason, RFS_REASON_BYTES, "a frame of another session");
        return -EPROTO;
    }
    if (atomic_load(&link->unread_bytes) > MOST_UNREAD_BYTES) {
        snprintf(reason, RFS_REASON_BYTES, "the peer goes on asking and reads no answer");
        return -EPROTO;
    }
    int result = 0;
    switch (header->type) {
    case FRAME_KEEPALIVE: return 0;
    /* After a resume the peer may acknowledge what it had before; a sync of that is sent again, and answered only then. */
    case FRAME_ACK: result = header->seq <= link->session.peer_applied_seq || link_has_sent(link, header->seq) ? mirror_acknowledged(engine, header->seq) : -EPROTO; break;
    case FRAME_ACK_ALONE: result = link_has_sent(link, header->seq) ? mirror_acknowledged_alone(engine, header->seq) : -EPROTO; break;
    case FRAME_SYNCED: result = link_has_sent(link, header->seq) ? mirror_synced(engine, header->seq) : -EPROTO; break;
    case FRAME_VERIFIED: result = verify_answer(engine, header, payload); break;
    case FRAME_DIFFERENT: result = walk_answer(engine, header->seq, header->offset); break;
    case FRAME_PEER_MARK:
    case FRAME_PEER_MARKS: result = walk_hear_mark(engine, header, payload); break;
    case FRAME_FRESH: result = walk_hear_fresh(engine, header->fid); break;
    default: return applier_take(link->applier, header, payload, reason);
    }
    if (result < 0) snprintf(reason, RFS_REASON_BYTES, "an answer nobody waits for");
    return result;
}

/* Handle every complete frame in the buffer; returns the bytes used or -errno. */
static ssize_t parse(struct link *link, const uint8_t *buffer, size_t bytes, char *reason) {
    size_t used = 0;
    bool acknowledge = false;
    int result = 0;
    while (result == 0 && bytes - used >= WIRE_HEADER_BYTES) {
        struct wire_header header;
        result = wire_decode_header(buffer + used, &header);
        if (result < 0) snprintf(reason, RFS_REASON_BYTES, "bytes that are no frame");
        if (result < 0) break;
        size_t arrived = bytes - used - WIRE_HEADER_BYTES;
        if (arrived < header.payload_bytes) {
            check_arrived(link, buffer + used + WIRE_HEADER_BYTES, arrived);
            break;
        }
        result = handle(link, &header, buffer + used + WIRE_HEADER_BYTES, reason);
        used += WIRE_HEADER_BYTES + (size_t)header.payload_bytes;
        if (result == 1) result = 0; /* taken, and acknowledged when it is applied */
        else acknowledge |= result == 0 && wire_is_sequenced(header.type) && !(header.flags & FLAG_MORE);
    }
    if (acknowledge) link_acknowledge(link);
    return result < 0 ? result : (ssize_t)used;
}

static int keep_time(struct link *link, uint64_t heard_ns, char *reason) {
    uint64_t now = now_ns();
    if (atomic_load(&link->draining)) return 0;
    if (now - heard_ns > link->session.progress_timeout_us * 1000) {
        snprintf(reason, RFS_REASON_BYTES, "nothing heard from the peer for %llu ms", (unsigned long long)(now - heard_ns) / 1000000);
        return -ETIMEDOUT;
    }
    return mirror_check_deadlines(link->engine, &link->session, reason);
}

/* To sleep and be woken costs more than a short operation. So in the middle of a frame, and while frames follow each other faster than
 * that, the receiver looks again instead (and lets others run); at lower rates it sleeps at once. */
static bool is_busy(const struct link *link, uint64_t silent_ns, size_t filled) {
    return !link->crowded && silent_ns < LOOK_AGAIN_NS && (filled || link->gap_ns < BUSY_GAP_NS);
}

/* Where others want the processor, to look again takes it from those who would send us something; and it is awake, so to be woken costs little. */
static void let_others_run(struct link *link) {
    uint64_t before = now_ns();
    sched_yield();
    link->crowded = now_ns() - before > CROWDED_NS;
}

static int receive(struct link *link, uint8_t *buffer, size_t *filled, uint64_t *heard_ns, char *reason) {
    ssize_t bytes = channel_receive(link->channel, buffer + *filled, RECEIVE_BYTES - *filled);
    if (bytes == 0) {
        snprintf(reason, RFS_REASON_BYTES, "the peer closed the data link");
        return -ECONNRESET;
    }
    if (bytes == -EAGAIN) {
        if (is_busy(link, now_ns() - *heard_ns, *filled)) let_others_run(link);
        else channel_wait(link->channel, POLLIN, TICK_MS);
        return 0;
    }
    if (bytes < 0) {
        snprintf(reason, RFS_REASON_BYTES, "data link: %s", strerror((int)-bytes));
        return (int)bytes;
    }
    uint64_t now = now_ns(), gap = now - *heard_ns;
    link->gap_ns = (3 * link->gap_ns + (gap < MAX_GAP_NS ? gap : MAX_GAP_NS)) / 4;
    *heard_ns = now;
    link->crowded = false;
    atomic_store(&link->engine->last_heard_ns, now);
    atomic_fetch_add(&link->engine->count.frame_bytes_received, (uint64_t)bytes);
    *filled += (size_t)bytes;
    ssize_t used = parse(link, buffer, *filled, reason);
    if (used < 0) return (int)used;
    *filled -= (size_t)used;
    if (used) memmove(buffer, buffer + used, *filled);
    return 0;
}

static void *run(void *argument) {
    struct link *link = argument;
    char reason[RFS_REASON_BYTES] = "no memory for the receive buffer";
    privileges_of_the_link();
    uint8_t *buffer = malloc(RECEIVE_BYTES);
    size_t filled = 0;
    uint64_t heard_ns = now_ns(), checked_ns = heard_ns;
    int result = buffer ? 0 : -ENOMEM;
    while (result == 0 && (!atomic_load(&link->closing) || atomic_load(&link->draining))) {
        result = receive(link, buffer, &filled, &heard_ns, reason);
        uint64_t now = now_ns();
        if (result == 0 && now - checked_ns > (uint64_t)TICK_MS * 1000000) {
            checked_ns = now;
            result = keep_time(link, heard_ns, reason);
        }
    }
    free(buffer);
    link_end(link);
    int error = applier_error(link->applier, reason); /* then it was our end */
    if (error) result = error;
    if (!atomic_load(&link->closing)) mirror_link_lost(link->engine, link, result, reason);
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

struct link *link_new(rfs_engine *engine, rfs_channel *channel, const rfs_session *session) {
    struct link *link = calloc(1, sizeof *link);
    if (!link) {
        rfs_channel_close(channel);
        return NULL;
    }
    link->applier = applier_new(engine, link);
    if (!link->applier) {
        free(link);
        rfs_channel_close(channel);
        return NULL;
    }
    channel_tune(channel);
    link->engine = engine;
    link->channel = channel;
    link->session = *session;
    atomic_store(&link->up, true);
    pthread_mutex_init(&link->queue_lock, NULL);
    pthread_mutex_init(&link->flush_lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&link->full, &attributes);
    pthread_condattr_destroy(&attributes);
    atomic_store(&link->last_sent_ns, now_ns());
    link->gap_ns = MAX_GAP_NS;
    return link;
}

int link_start(struct link *link) {
    int result = -pthread_create(&link->receiver, NULL, run, link);
    if (result < 0) return result;
    result = -pthread_create(&link->poller, NULL, poll_for_room, link);
    link->started = result == 0;
    if (result < 0) {
        atomic_store(&link->closing, true);
        channel_shutdown(link->channel, SHUT_RDWR);
        pthread_join(link->receiver, NULL);
    }
    return result;
}

static void drop_queue(struct link *link) {
    pthread_mutex_lock(&link->queue_lock);
    for (struct frame *frame = link->head, *next; frame; frame = next) {
        next = frame->next;
        if (frame->standalone) free(frame);
    }
    link->head = link->tail = NULL;
    pthread_mutex_unlock(&link->queue_lock);
}

void link_abandon(struct link *link) {
    link_end(link);
    pthread_mutex_lock(&link->flush_lock); /* whoever is sending has let go of its frames */
    drop_queue(link);
    pthread_mutex_unlock(&link->flush_lock);
}

void link_close(struct link *link, bool drain) {
    atomic_store(&link->draining, drain);
    atomic_store(&link->closing, true);
    channel_shutdown(link->channel, drain ? SHUT_RD : SHUT_RDWR); /* what has arrived can still be read */
    pthread_mutex_lock(&link->queue_lock);
    pthread_cond_signal(&link->full);
    pthread_mutex_unlock(&link->queue_lock);
    if (link->started) {
        pthread_join(link->receiver, NULL);
        pthread_join(link->poller, NULL);
    }
    applier_free(link->applier);
    rfs_channel_close(link->channel);
    drop_queue(link);
    pthread_mutex_destroy(&link->queue_lock);
    pthread_mutex_destroy(&link->flush_lock);
    pthread_cond_destroy(&link->full);
    free(link);
}
