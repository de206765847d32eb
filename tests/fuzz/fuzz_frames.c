/* The frame decoder alone: any bytes as a stream of frames. What it takes encodes to the same bytes again; what it gives out is within its
 * bounds. The first byte: 1 leaves the stream as it is, so that the checks of length and sum are met too. */
#include <errno.h>

#include "frames.h"
#include "scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes);

static void check_name(const char *name, size_t bytes, bool is_entry) {
    CHECK(bytes <= 255 && strlen(name) == bytes);
    if (is_entry) CHECK(!strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
}

static void check_header(const struct wire_header *header, const uint8_t *encoded) {
    uint8_t again[WIRE_HEADER_BYTES];
    struct wire_header back = {0};
    CHECK(header->payload_bytes <= MAX_PAYLOAD_BYTES);
    wire_encode_header(header, again);
    CHECK(memcmp(again, encoded, WIRE_HEADER_BYTES - 8) == 0); /* after that: reserved, and the sum over it */
    CHECK(wire_decode_header(again, &back) == 0 && back.seq == header->seq && back.mtime_ns == header->mtime_ns);
}

static void check_body(const struct wire_header *header, const uint8_t *payload) {
    struct op_body body;
    const uint8_t *data;
    int result = wire_decode_body(header, payload, &body, &data);
    CHECK(result == 0 || result == -EBADMSG);
    if (result < 0) return;
    CHECK(data >= payload && data + body.data_bytes <= payload + header->payload_bytes);
    if (header->type == FRAME_WRITE || header->type == FRAME_BLOCK) {
        CHECK(body.offset + body.length <= INT64_MAX && body.data_bytes == header->payload_bytes);
        return;
    }
    check_name(body.name, body.name_bytes, header->type != FRAME_SET_XATTR && header->type != FRAME_REMOVE_XATTR);
    check_name(body.name2, body.name2_bytes, true);
    CHECK(wire_body_bytes(&body) == header->payload_bytes);
    uint8_t *again = malloc(header->payload_bytes);
    CHECK(again);
    wire_encode_body(&body, data, again);
    CHECK(memcmp(again, payload, header->payload_bytes) == 0);
    free(again);
}

static size_t check_frame(uint8_t *at, size_t left, bool raw) {
    struct wire_header header;
    if (!raw) sum_frame(at, fit_frame(at, left));
    if (wire_decode_header(at, &header) < 0) return left;
    check_header(&header, at);
    if (left - WIRE_HEADER_BYTES < header.payload_bytes) return left;
    uint8_t *payload = malloc(header.payload_bytes ? header.payload_bytes : 1); /* exact: the sanitizer sees who reads beyond it */
    CHECK(payload);
    memcpy(payload, at + WIRE_HEADER_BYTES, header.payload_bytes);
    check_body(&header, payload);
    free(payload);
    return WIRE_HEADER_BYTES + (size_t)header.payload_bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes) {
    if (bytes < 1 + WIRE_HEADER_BYTES) return 0;
    uint8_t *stream = malloc(bytes - 1);
    CHECK(stream);
    memcpy(stream, input + 1, bytes - 1);
    for (size_t used = 0; bytes - 1 - used >= WIRE_HEADER_BYTES;) used += check_frame(stream + used, bytes - 1 - used, input[0] & 1);
    free(stream);
    return 0;
}
