/* Frames: the checksum, headers and bodies there and back, and bytes that are neither. */
#include <errno.h>
#include <string.h>

#include "native.h"

/* The file once more under another name, so that both of its ways can be called. */
#define crc32c crc32c_again
#include "crc32c.c"
#undef crc32c
uint32_t crc32c(uint32_t crc, const void *data, size_t bytes);

uint64_t chance_next(struct chance *chance) { /* splitmix64 */
    uint64_t value = chance->state += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

uint32_t chance_below(struct chance *chance, uint32_t limit) { return (uint32_t)(chance_next(chance) % limit); }

static void fill(struct chance *chance, uint8_t *data, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) data[i] = (uint8_t)chance_next(chance);
}

static uint32_t by_bits(const uint8_t *data, size_t bytes) {
    uint32_t crc = ~0U;
    while (bytes--) {
        crc ^= *data++;
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0x82F63B78U : crc >> 1;
    }
    return ~crc;
}

void test_crc32c(void) {
    static uint8_t data[20000];
    uint8_t rising[32];
    for (uint8_t i = 0; i < 32; i++) rising[i] = i;
    CHECK_EQUAL(crc32c(0, "123456789", 9), 0xE3069283U);
    CHECK_EQUAL(crc32c(0, data, 32), 0x8A9136AAU); /* RFC 3720, B.4 */
    CHECK_EQUAL(crc32c(0, rising, 32), 0x46DD794EU);
    memset(data, 0xff, 32);
    CHECK_EQUAL(crc32c(0, data, 32), 0x62A8AB43U);
    struct chance chance = {1};
    fill(&chance, data, sizeof data);
    pthread_once(&once, build);
    for (int i = 0; i < 300; i++) {
        size_t from = chance_below(&chance, 64), bytes = i < 64 ? (size_t)i : chance_below(&chance, sizeof data - 64), cut = bytes ? chance_below(&chance, (uint32_t)bytes) : 0;
        uint32_t wanted = by_bits(data + from, bytes);
        CHECK_EQUAL(crc32c(0, data + from, bytes), wanted);
        CHECK_EQUAL(~portable(~0U, data + from, bytes), wanted);
        CHECK_EQUAL(crc32c(crc32c(0, data + from, cut), data + from + cut, bytes - cut), wanted);
    }
}

static const uint16_t types[] = {FRAME_WRITE, FRAME_FSYNC, FRAME_CREATE, FRAME_MKDIR, FRAME_MKNOD, FRAME_SYMLINK, FRAME_LINK, FRAME_UNLINK, FRAME_RMDIR,
                                 FRAME_RENAME, FRAME_SET_ATTRIBUTES, FRAME_SET_XATTR, FRAME_REMOVE_XATTR, FRAME_FALLOCATE, FRAME_COPY, FRAME_PLACE, FRAME_DIRECTORY_BEGIN,
                                 FRAME_DIRECTORY_ENTRY, FRAME_DIRECTORY_END, FRAME_HASHES, FRAME_BLOCK, FRAME_ATTRIBUTES, FRAME_END, FRAME_MARKED, FRAME_ACK, FRAME_SYNCED,
                                 FRAME_DIFFERENT, FRAME_KEEPALIVE, FRAME_ACK_ALONE, FRAME_BIND, FRAME_SIZE, FRAME_SMALL_FILE, FRAME_PEER_MARK, FRAME_PEER_MARKS, FRAME_FRESH, FRAME_VERIFIED,
                                 FRAME_VERIFY_RANGE, FRAME_VERIFY_ATTRIBUTES, FRAME_VERIFY_ENTRIES, FRAME_VERIFY_NAMES};
enum { TYPES = sizeof types / sizeof types[0] };

static struct wire_header any_header(struct chance *chance, uint16_t type) {
    return (struct wire_header){.type = type, .flags = (uint16_t)chance_next(chance), .payload_bytes = chance_below(chance, MAX_PAYLOAD_BYTES),
                                .seq = chance_next(chance), .session = chance_next(chance), .generation = chance_next(chance), .fid = chance_next(chance),
                                .offset = chance_next(chance), .length = chance_next(chance), .mtime_ns = (int64_t)chance_next(chance),
                                .payload_crc = (uint32_t)chance_next(chance)};
}

static bool same_header(const struct wire_header *a, const struct wire_header *b) {
    return a->type == b->type && a->flags == b->flags && a->payload_bytes == b->payload_bytes && a->seq == b->seq && a->session == b->session &&
           a->generation == b->generation && a->fid == b->fid && a->offset == b->offset && a->length == b->length && a->mtime_ns == b->mtime_ns &&
           a->payload_crc == b->payload_crc;
}

void test_header(void) {
    struct chance chance = {2};
    for (size_t i = 0; i < TYPES; i++) {
        struct wire_header header = any_header(&chance, types[i]), back;
        uint8_t bytes[WIRE_HEADER_BYTES];
        if (wire_is_bare(types[i])) {
            wire_encode_header(&header, bytes);
            CHECK_EQUAL(wire_decode_header(bytes, &back), -EBADMSG);
            header.payload_bytes = 0;
        }
        wire_encode_header(&header, bytes);
        CHECK_EQUAL(wire_decode_header(bytes, &back), 0);
        CHECK(same_header(&header, &back));
        for (size_t bit = 0; bit < sizeof bytes * 8; bit++) { /* no single bit may go unnoticed */
            bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
            CHECK_EQUAL(wire_decode_header(bytes, &back), -EBADMSG);
            bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
        }
    }
    for (uint32_t type = 0; type < 65536; type++) { /* with a good checksum, but no type of ours */
        struct wire_header header = {.type = (uint16_t)type}, back;
        uint8_t bytes[WIRE_HEADER_BYTES];
        bool known = false;
        for (size_t i = 0; i < TYPES; i++) known |= types[i] == type;
        wire_encode_header(&header, bytes);
        CHECK_EQUAL(wire_decode_header(bytes, &back), known ? 0 : -EBADMSG);
    }
    struct wire_header large = {.type = FRAME_WRITE, .payload_bytes = MAX_PAYLOAD_BYTES + 1}, back;
    uint8_t bytes[WIRE_HEADER_BYTES];
    wire_encode_header(&large, bytes);
    CHECK_EQUAL(wire_decode_header(bytes, &back), -EBADMSG);
}

static int decode_named(uint16_t type, const char *name, size_t name_bytes, const char *name2) {
    struct op_body body = {.child = 1000, .name_bytes = (uint16_t)name_bytes, .name2_bytes = (uint16_t)strlen(name2)}, back;
    const uint8_t *data;
    uint8_t payload[1024];
    memcpy(body.name, name, name_bytes < 255 ? name_bytes : 255);
    strcpy(body.name2, name2);
    wire_encode_body(&body, NULL, payload);
    struct wire_header header = {.type = type, .payload_bytes = (uint32_t)wire_body_bytes(&body)};
    return wire_decode_body(&header, payload, &back, &data);
}

static void check_names(void) {
    char longest[256];
    memset(longest, 'x', sizeof longest);
    CHECK_EQUAL(decode_named(FRAME_CREATE, "a", 1, ""), 0);
    CHECK_EQUAL(decode_named(FRAME_CREATE, "a\nb \xff", 5, ""), 0);
    CHECK_EQUAL(decode_named(FRAME_CREATE, "...", 3, ""), 0);
    CHECK_EQUAL(decode_named(FRAME_CREATE, longest, 255, ""), 0);
    CHECK_EQUAL(decode_named(FRAME_CREATE, "", 0, ""), -EBADMSG);
    CHECK_EQUAL(decode_named(FRAME_CREATE, ".", 1, ""), -EBADMSG);
    CHECK_EQUAL(decode_named(FRAME_UNLINK, "..", 2, ""), -EBADMSG);
    CHECK_EQUAL(decode_named(FRAME_MKDIR, "a/b", 3, ""), -EBADMSG);
    CHECK_EQUAL(decode_named(FRAME_MKDIR, "a\0b", 3, ""), -EBADMSG);
    CHECK_EQUAL(decode_named(FRAME_DIRECTORY_ENTRY, "/", 1, ""), -EBADMSG);
    CHECK_EQUAL(decode_named(FRAME_RENAME, "a", 1, ""), -EBADMSG);
    CHECK_EQUAL(decode_named(FRAME_RENAME, "a", 1, ".."), -EBADMSG);
    CHECK_EQUAL(decode_named(FRAME_RENAME, "a", 1, "b/"), -EBADMSG);
    CHECK_EQUAL(decode_named(FRAME_RENAME, "a", 1, "b"), 0);
    CHECK_EQUAL(decode_named(FRAME_SET_XATTR, "user.a/b", 8, ""), 0);
    struct op_body root = {.child = FIRST_DIRECTORY_FID, .name = "a", .name_bytes = 1}, back;
    const uint8_t *data;
    uint8_t payload[256];
    struct wire_header header = {.type = FRAME_MKDIR, .payload_bytes = (uint32_t)wire_body_bytes(&root)};
    wire_encode_body(&root, NULL, payload);
    CHECK_EQUAL(wire_decode_body(&header, payload, &back, &data), -EBADMSG); /* a root's id is not given away */
    CHECK_EQUAL(decode_named(FRAME_SYMLINK, "a", 1, ""), -EBADMSG); /* no target */
}

void test_body(void) {
    struct chance chance = {3};
    check_names();
    for (int i = 0; i < 300; i++) {
        struct op_body body = {.other = chance_next(&chance), .child = chance_next(&chance), .rdev = chance_next(&chance),
                               .child_mtime_ns = (int64_t)chance_next(&chance), .atime_ns = (int64_t)chance_next(&chance),
                               .other_mtime_ns = (int64_t)chance_next(&chance), .flags = (uint32_t)chance_next(&chance),
                               .mode = (uint32_t)chance_next(&chance), .uid = (uint32_t)chance_next(&chance), .gid = (uint32_t)chance_next(&chance),
                               .data_bytes = chance_below(&chance, 500), .name_bytes = (uint16_t)(1 + chance_below(&chance, 255)),
                               .name2_bytes = (uint16_t)(1 + chance_below(&chance, 255))}, back;
        uint8_t data[500], payload[2048];
        const uint8_t *got;
        memset(body.name, 'n', body.name_bytes);
        memset(body.name2, 'm', body.name2_bytes);
        fill(&chance, data, sizeof data);
        struct wire_header header = {.type = FRAME_RENAME, .fid = chance_next(&chance), .payload_bytes = (uint32_t)wire_body_bytes(&body)};
        CHECK(header.payload_bytes <= sizeof payload);
        wire_encode_body(&body, data, payload);
        CHECK_EQUAL(wire_decode_body(&header, payload, &back, &got), 0);
        CHECK(back.fid == header.fid && back.other == body.other && back.child == body.child && back.rdev == body.rdev);
        CHECK(back.child_mtime_ns == body.child_mtime_ns && back.atime_ns == body.atime_ns && back.other_mtime_ns == body.other_mtime_ns);
        CHECK(back.flags == body.flags && back.mode == body.mode && back.uid == body.uid && back.gid == body.gid);
        CHECK(!strcmp(back.name, body.name) && !strcmp(back.name2, body.name2));
        CHECK(back.data_bytes == body.data_bytes && !memcmp(got, data, body.data_bytes));
        header.payload_bytes--;
        CHECK_EQUAL(wire_decode_body(&header, payload, &back, &got), -EBADMSG);
    }
}

/* Any bytes, and nearly good ones: decoded or refused, never read beyond their end (the sanitizer looks on). */
void test_garbage(void) {
    struct chance chance = {4};
    uint64_t until = now_ns() + 1500000000;
    for (uint64_t i = 0; i % 64 || now_ns() < until; i++) {
        uint32_t bytes = chance_below(&chance, 700);
        uint8_t *payload = malloc(bytes ? bytes : 1), head[WIRE_HEADER_BYTES];
        struct wire_header header;
        struct op_body body;
        const uint8_t *data;
        fill(&chance, payload, bytes);
        fill(&chance, head, sizeof head);
        CHECK_EQUAL(wire_decode_header(head, &header), -EBADMSG);
        header = any_header(&chance, types[chance_below(&chance, TYPES)]);
        header.payload_bytes = bytes;
        if (i & 1 && bytes >= BODY_FIXED_BYTES) { /* make the lengths fit now and then */
            uint16_t name = (uint16_t)chance_below(&chance, 300), name2 = (uint16_t)chance_below(&chance, 20);
            uint32_t rest = bytes - BODY_FIXED_BYTES - name - name2;
            memcpy(payload + BODY_FIXED_BYTES - 8, &rest, 4);
            memcpy(payload + BODY_FIXED_BYTES - 4, &name, 2);
            memcpy(payload + BODY_FIXED_BYTES - 2, &name2, 2);
        }
        int result = wire_decode_body(&header, payload, &body, &data);
        CHECK(result == 0 || result == -EBADMSG);
        if (result == 0) CHECK(data >= payload && data + (header.type == FRAME_WRITE || header.type == FRAME_BLOCK ? header.payload_bytes : body.data_bytes) <= payload + bytes);
        free(payload);
    }
}
