/* An op's memory and its frame. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "link.h"
#include "op.h"

struct op *op_new(enum frame_type type) {
    struct op *op = calloc(1, sizeof *op);
    if (!op) return NULL;
    list_init(&op->item);
    op->type = type;
    op->sync_fd = op->made_fd = -1;
    op->sent_ns = now_ns();
    return op;
}

void op_free(rfs_engine *engine, struct op *op) {
    if (op->sync_fd >= 0) close(op->sync_fd);
    if (op->made_fd >= 0) close(op->made_fd);
    inode_put(engine, op->inode);
    inode_put(engine, op->source);
    if (op->message) message_put(engine, op->message);
    else if (!op->borrows) free(op->data);
    free(op);
}

int messages_prepare(rfs_engine *engine) {
    int result = 0;
    pthread_mutex_lock(&engine->message_lock);
    while (result == 0 && engine->spare_message_count < SPARE_MESSAGES) {
        uint8_t *message = aligned_alloc(4096, MESSAGE_BYTES);
        if (message) engine->spare_messages[engine->spare_message_count++] = message;
        else result = -ENOMEM;
    }
    pthread_mutex_unlock(&engine->message_lock);
    return result;
}

uint8_t *message_get(rfs_engine *engine) {
    pthread_mutex_lock(&engine->message_lock);
    uint8_t *message = engine->spare_message_count ? engine->spare_messages[--engine->spare_message_count] : NULL;
    pthread_mutex_unlock(&engine->message_lock);
    return message ? message : aligned_alloc(4096, MESSAGE_BYTES);
}

void message_put(rfs_engine *engine, uint8_t *message) {
    pthread_mutex_lock(&engine->message_lock);
    if (engine->spare_message_count < SPARE_MESSAGES) {
        engine->spare_messages[engine->spare_message_count++] = message;
        message = NULL;
    }
    pthread_mutex_unlock(&engine->message_lock);
    free(message);
}

bool is_namespace_op(enum frame_type type) { return (type >= FRAME_CREATE && type <= FRAME_RENAME) || type == FRAME_PLACE; }
static bool carries_bytes(enum frame_type type) { return type == FRAME_WRITE || type == FRAME_BLOCK; }

/* Under TLS each record has a tag of 128 bits over the same bytes, from this memory to the peer's: a checksum adds nothing but its time. */
static uint32_t checksum(const rfs_engine *engine, const void *data, size_t bytes) { return engine->link && link_is_sealed(engine->link) ? 0 : crc32c(0, data, bytes); }

/* The payload of a write is its data; of everything else the encoded body, which then replaces the data. */
int op_encode(rfs_engine *engine, struct op *op) {
    struct wire_header *header = &op->frame.header;
    struct op_body *body = &op->body;
    if (!carries_bytes(op->type)) {
        size_t bytes = wire_body_bytes(body);
        uint8_t *encoded = malloc(bytes);
        if (!encoded) return -ENOMEM;
        wire_encode_body(body, op->data, encoded);
        free(op->data);
        op->data = encoded;
        header->payload_bytes = (uint32_t)bytes;
        header->payload_crc = checksum(engine, encoded, bytes);
    } else {
        header->payload_bytes = body->data_bytes;
        header->payload_crc = checksum(engine, op->data + op->data_skip, body->data_bytes);
    }
    op->frame.payload = op->data + op->data_skip;
    header->type = (uint16_t)op->type;
    header->fid = body->fid;
    header->offset = body->offset;
    header->length = body->length;
    header->mtime_ns = body->mtime_ns;
    header->generation = engine->session.generation;
    if (op->durable) header->flags |= FLAG_DURABLE;
    if (op->data_only) header->flags |= FLAG_DATA_ONLY;
    return 0;
}

uint64_t op_weight(const struct op *op) { return sizeof *op + op->frame.header.payload_bytes; }
