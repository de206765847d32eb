/* A stream of frames out of whatever the fuzzer gives: lengths that fit, sums that are right. Else nothing would get past the first check. */
#ifndef LOCKSTEP_TESTS_FUZZ_FRAMES_H
#define LOCKSTEP_TESTS_FUZZ_FRAMES_H

#include <stdint.h>
#include <string.h>

#include "wire.h"

enum {
    HEADER_MAGIC_AT = 0, HEADER_VERSION_AT = 2, HEADER_TYPE_AT = 4, HEADER_PAYLOAD_BYTES_AT = 8, HEADER_PAYLOAD_CRC_AT = 12, HEADER_SEQ_AT = 16,
    HEADER_SESSION_AT = 24, HEADER_GENERATION_AT = 32, HEADER_FID_AT = 40, HEADER_CRC_AT = WIRE_HEADER_BYTES - 4,
    BODY_OTHER_AT = 0, BODY_CHILD_AT = 8, BODY_DATA_BYTES_AT = 64, BODY_NAME_BYTES_AT = 68, BODY_NAME2_BYTES_AT = 70,
};

static inline uint64_t get_at(const uint8_t *at, size_t bytes) {
    uint64_t value = 0;
    memcpy(&value, at, bytes);
    return value;
}
static inline void put_at(uint8_t *at, size_t bytes, uint64_t value) { memcpy(at, &value, bytes); }

/* The body's lengths: names as they are if there is room for them, and the data is the rest. */
static inline void fit_body(uint8_t *payload, size_t bytes) {
    if (bytes < BODY_FIXED_BYTES) return;
    size_t room = bytes - BODY_FIXED_BYTES, name = get_at(payload + BODY_NAME_BYTES_AT, 2) & 0xff, name2 = get_at(payload + BODY_NAME2_BYTES_AT, 2) & 0xff;
    if (name > room) name = room;
    if (name2 > room - name) name2 = room - name;
    put_at(payload + BODY_NAME_BYTES_AT, 2, name);
    put_at(payload + BODY_NAME2_BYTES_AT, 2, name2);
    put_at(payload + BODY_DATA_BYTES_AT, 4, room - name - name2);
}

/* The frame that begins at `at`; returns its bytes. */
static inline size_t fit_frame(uint8_t *at, size_t left) {
    size_t room = left - WIRE_HEADER_BYTES, payload = get_at(at + HEADER_PAYLOAD_BYTES_AT, 4);
    if (payload > room) payload = room;
    put_at(at + HEADER_MAGIC_AT, 2, 0x4c53);
    put_at(at + HEADER_VERSION_AT, 2, WIRE_VERSION);
    put_at(at + HEADER_PAYLOAD_BYTES_AT, 4, payload);
    uint64_t type = get_at(at + HEADER_TYPE_AT, 2);
    if (type != FRAME_WRITE && type != FRAME_BLOCK) fit_body(at + WIRE_HEADER_BYTES, payload);
    return WIRE_HEADER_BYTES + payload;
}

static inline void sum_frame(uint8_t *at, size_t bytes) {
    put_at(at + HEADER_PAYLOAD_CRC_AT, 4, crc32c(0, at + WIRE_HEADER_BYTES, bytes - WIRE_HEADER_BYTES));
    put_at(at + HEADER_CRC_AT, 4, crc32c(0, at, HEADER_CRC_AT));
}
#endif
