/* Frames to bytes and back. Everything that comes from the peer is checked here before anybody uses it. */
#include "wire.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "engine.h"

enum { MAGIC = 0x4c53 }; /* "SL" on the wire */

static uint8_t *put16(uint8_t *out, uint16_t value) {
    value = htole16(value);
    memcpy(out, &value, 2);
    return out + 2;
}
static uint8_t *put32(uint8_t *out, uint32_t value) {
    value = htole32(value);
    memcpy(out, &value, 4);
    return out + 4;
}
static uint8_t *put64(uint8_t *out, uint64_t value) {
    value = htole64(value);
    memcpy(out, &value, 8);
    return out + 8;
}
static uint16_t get16(const uint8_t **in) {
    uint16_t value;
    memcpy(&value, *in, 2);
    *in += 2;
    return le16toh(value);
}
static uint32_t get32(const uint8_t **in) {
    uint32_t value;
    memcpy(&value, *in, 4);
    *in += 4;
    return le32toh(value);
}
static uint64_t get64(const uint8_t **in) {
    uint64_t value;
    memcpy(&value, *in, 8);
    *in += 8;
    return le64toh(value);
}

bool wire_is_verify(uint16_t type) { return type >= FRAME_VERIFY_RANGE && type <= FRAME_LAST_VERIFY; }

bool wire_is_sequenced(uint16_t type) {
    return (type >= FRAME_WRITE && type <= FRAME_LAST_OP) || (type >= FRAME_DIRECTORY_BEGIN && type <= FRAME_LAST_RESYNC) || wire_is_verify(type);
}

bool wire_is_bare(uint16_t type) {
    return type == FRAME_ACK || type == FRAME_SYNCED || type == FRAME_DIFFERENT || type == FRAME_KEEPALIVE || type == FRAME_ACK_ALONE;
}

void wire_encode_header(const struct wire_header *header, uint8_t out[WIRE_HEADER_BYTES]) {
    uint8_t *at = out;
    at = put16(at, MAGIC);
    at = put16(at, WIRE_VERSION);
    at = put16(at, header->type);
    at = put16(at, header->flags);
    at = put32(at, header->payload_bytes);
    at = put32(at, header->payload_crc);
    at = put64(at, header->seq);
    at = put64(at, header->session);
    at = put64(at, header->generation);
    at = put64(at, header->fid);
    at = put64(at, header->offset);
    at = put64(at, header->length);
    at = put64(at, (uint64_t)header->mtime_ns);
    at = put32(at, 0);
    put32(at, crc32c(0, out, WIRE_HEADER_BYTES - 4));
}

int wire_decode_header(const uint8_t in[WIRE_HEADER_BYTES], struct wire_header *header) {
    const uint8_t *at = in;
    if (get16(&at) != MAGIC || get16(&at) != WIRE_VERSION) return -EBADMSG;
    header->type = get16(&at);
    header->flags = get16(&at);
    header->payload_bytes = get32(&at);
    header->payload_crc = get32(&at);
    header->seq = get64(&at);
    header->session = get64(&at);
    header->generation = get64(&at);
    header->fid = get64(&at);
    header->offset = get64(&at);
    header->length = get64(&at);
    header->mtime_ns = (int64_t)get64(&at);
    (void)get32(&at);
    if (get32(&at) != crc32c(0, in, WIRE_HEADER_BYTES - 4)) return -EBADMSG;
    if (!wire_is_sequenced(header->type) && !(header->type >= FRAME_ACK && header->type <= FRAME_LAST_UNSEQUENCED)) return -EBADMSG;
    if (header->payload_bytes > MAX_PAYLOAD_BYTES || (wire_is_bare(header->type) && header->payload_bytes)) return -EBADMSG;
    return 0;
}

size_t wire_body_bytes(const struct op_body *body) {
    return BODY_FIXED_BYTES + (size_t)body->name_bytes + body->name2_bytes + body->data_bytes;
}

void wire_encode_body(const struct op_body *body, const uint8_t *data, uint8_t *out) {
    out = put64(out, body->other);
    out = put64(out, body->child);
    out = put64(out, body->rdev);
    out = put64(out, (uint64_t)body->child_mtime_ns);
    out = put64(out, (uint64_t)body->atime_ns);
    out = put64(out, (uint64_t)body->other_mtime_ns);
    out = put32(out, body->flags);
    out = put32(out, body->mode);
    out = put32(out, body->uid);
    out = put32(out, body->gid);
    out = put32(out, body->data_bytes);
    out = put16(out, body->name_bytes);
    out = put16(out, body->name2_bytes);
    memcpy(out, body->name, body->name_bytes);
    out += body->name_bytes;
    memcpy(out, body->name2, body->name2_bytes);
    out += body->name2_bytes;
    if (body->data_bytes) memcpy(out, data, body->data_bytes);
}

static bool is_listed(uint16_t type) { return type == FRAME_DIRECTORY_ENTRY || type == FRAME_SMALL_FILE; }

static bool needs_name(uint16_t type) {
    return (type >= FRAME_CREATE && type <= FRAME_RENAME) || type == FRAME_SET_XATTR || type == FRAME_REMOVE_XATTR || type == FRAME_PLACE || is_listed(type);
}

static bool good_name(const char *name, size_t bytes, bool is_entry) {
    if (memchr(name, 0, bytes)) return false;
    if (!is_entry) return true;
    return !memchr(name, '/', bytes) && strcmp(name, ".") && strcmp(name, "..");
}

int wire_decode_body(const struct wire_header *header, const uint8_t *payload, struct op_body *body, const uint8_t **data) {
    memset(body, 0, offsetof(struct op_body, name));
    body->fid = header->fid;
    body->offset = header->offset;
    body->length = header->length;
    body->mtime_ns = header->mtime_ns;
    if (header->type == FRAME_WRITE || header->type == FRAME_BLOCK) { /* raw bytes */
        body->data_bytes = header->payload_bytes;
        *data = payload;
        if (header->offset > INT64_MAX || header->length > INT64_MAX || header->offset + header->length > INT64_MAX) return -EBADMSG;
        return header->flags & FLAG_ZERO || header->length == header->payload_bytes ? 0 : -EBADMSG;
    }
    if (header->payload_bytes < BODY_FIXED_BYTES) return -EBADMSG;
    const uint8_t *at = payload;
    body->other = get64(&at);
    body->child = get64(&at);
    body->rdev = get64(&at);
    body->child_mtime_ns = (int64_t)get64(&at);
    body->atime_ns = (int64_t)get64(&at);
    body->other_mtime_ns = (int64_t)get64(&at);
    body->flags = get32(&at);
    body->mode = get32(&at);
    body->uid = get32(&at);
    body->gid = get32(&at);
    body->data_bytes = get32(&at);
    body->name_bytes = get16(&at);
    body->name2_bytes = get16(&at);
    if (body->name_bytes > 255 || body->name2_bytes > 255) return -EBADMSG;
    if ((uint64_t)BODY_FIXED_BYTES + body->name_bytes + body->name2_bytes + body->data_bytes != header->payload_bytes) return -EBADMSG;
    memcpy(body->name, at, body->name_bytes);
    body->name[body->name_bytes] = 0;
    at += body->name_bytes;
    memcpy(body->name2, at, body->name2_bytes);
    body->name2[body->name2_bytes] = 0;
    *data = at + body->name2_bytes;
    bool is_entry = header->type != FRAME_SET_XATTR && header->type != FRAME_REMOVE_XATTR;
    if (header->type == FRAME_COPY && (header->length > MAX_COPY_BYTES || header->offset > INT64_MAX - MAX_COPY_BYTES || body->rdev > INT64_MAX - MAX_COPY_BYTES)) return -EBADMSG;
    if (needs_name(header->type) && !body->name_bytes) return -EBADMSG;
    if (header->type == FRAME_RENAME && !body->name2_bytes) return -EBADMSG;
    if (header->type == FRAME_BIND && body->fid && !body->name_bytes) return -EBADMSG;
    if (header->type == FRAME_PEER_MARK && body->data_bytes > MARK_PATH_BYTES) return -EBADMSG;
    bool makes = (header->type >= FRAME_CREATE && header->type <= FRAME_SYMLINK) || is_listed(header->type);
    if (makes && body->child < FIRST_DIRECTORY_FID + RFS_MAX_DIRECTORIES) return -EBADMSG; /* the roots' ids are given for ever */
    if (!good_name(body->name, body->name_bytes, is_entry) || !good_name(body->name2, body->name2_bytes, true)) return -EBADMSG;
    if ((header->type == FRAME_SYMLINK || (header->type == FRAME_DIRECTORY_ENTRY && S_ISLNK(body->mode))) &&
        (body->data_bytes == 0 || body->data_bytes > RFS_TARGET_BYTES || memchr(*data, 0, body->data_bytes)))
        return -EBADMSG;
    if (header->type == FRAME_SMALL_FILE && (!S_ISREG(body->mode) || header->length != body->data_bytes)) return -EBADMSG;
    return 0;
}
