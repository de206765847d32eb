/* TLS records from a peer that holds the keys and keeps to nothing: what a channel hands out is exactly the data before the first thing that
 * has no place there, and after that it hands out nothing.
 *
 * An input: a byte (the suite), then pieces of (kind, two bytes of length, content). A piece becomes a sealed record of the kind's type; or it
 * is sealed and damaged; or its bytes travel as they are. */
#include "../../csrc/channel.c" /* a channel without a handshake */

#include "scratch.h"

enum { PLAIN = 1, DAMAGED = 2, TYPED = 4, LONGEST_BYTES = 2048, STREAM_BYTES = 1 << 16, KEY_UPDATE_BYTES = 5 };

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes);

static SSL_CTX *context;

struct peer {
    struct record_keys keys;
    uint8_t stream[STREAM_BYTES], wanted[STREAM_BYTES]; /* what is sent; the data in it that is good */
    size_t stream_bytes, wanted_bytes;
    bool over, must_fail; /* nothing after this is handed out; it is an error, and not a wait for more */
};

/* ---- what a peer says ---------------------------------------------------------------------------------------------------------------- */

static bool is_key_update(const uint8_t *content, size_t bytes) {
    return bytes == KEY_UPDATE_BYTES && !memcmp(content, (const uint8_t[]){24, 0, 0, 1}, 4) && content[4] <= 1;
}

/* Type 0 is padding: the type is then the last byte that is not. */
static void unpad(const uint8_t *content, size_t *bytes, uint8_t *type) {
    while (!*type && *bytes) *type = content[--*bytes];
}

static void expect(struct peer *peer, uint8_t type, const uint8_t *content, size_t bytes) {
    unpad(content, &bytes, &type);
    if (peer->over) return;
    if (type == RECORD_DATA) {
        memcpy(peer->wanted + peer->wanted_bytes, content, bytes);
        peer->wanted_bytes += bytes;
    } else if (type == RECORD_HANDSHAKE && is_key_update(content, bytes)) {
        CHECK(record_keys_update(&peer->keys) == 0);
    } else {
        peer->over = peer->must_fail = true;
    }
}

static void say(struct peer *peer, uint8_t kind, const uint8_t *content, size_t bytes) {
    uint8_t type = kind & TYPED ? kind >> 3 : RECORD_DATA, *at = peer->stream + peer->stream_bytes;
    struct iovec part = {(void *)(uintptr_t)content, bytes};
    if (kind & PLAIN) {
        memcpy(at, content, bytes);
        peer->stream_bytes += bytes;
        peer->over |= bytes > 0;
        return;
    }
    ssize_t sealed = record_seal(&peer->keys, type, &part, 1, at);
    CHECK(sealed == (ssize_t)bytes + RECORD_ADDED_BYTES);
    peer->stream_bytes += (size_t)sealed;
    if (kind & DAMAGED) {
        at[bytes % (size_t)sealed] ^= 1;
        peer->over = true; /* its length may be what was damaged: perhaps it waits for the rest */
    } else {
        expect(peer, type, content, bytes);
    }
}

static void speak(struct peer *peer, const uint8_t *input, size_t bytes) {
    while (bytes >= 3 && peer->stream_bytes + LONGEST_BYTES + RECORD_ADDED_BYTES < STREAM_BYTES) {
        size_t length = ((size_t)input[1] | (size_t)input[2] << 8) % LONGEST_BYTES;
        if (length > bytes - 3) length = bytes - 3;
        say(peer, input[0], input + 3, length);
        input += 3 + length;
        bytes -= 3 + length;
    }
}

/* ---- what the channel makes of it ------------------------------------------------------------------------------------------------------ */

static void open_keys(struct record_keys *keys, uint8_t suite, int encrypts) {
    static const uint8_t secret[SECRET_BYTES_MAX] = {1, 2, 3};
    static const uint8_t suites[3][2] = {{0x13, 1}, {0x13, 2}, {0x13, 3}};
    SSL *ssl = SSL_new(context);
    const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, suites[suite % 3]);
    CHECK(cipher && record_keys_open(keys, cipher, secret, suite % 3 == 1 ? 48 : 32, encrypts) == 0);
    SSL_free(ssl);
}

static rfs_channel *open_channel(uint8_t suite, int *sender) {
    int ends[2], room = 2 * STREAM_BYTES;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    rfs_channel *channel = rfs_channel_plain(ends[1]);
    CHECK(channel && (channel->ssl = SSL_new(context)) && (channel->in = malloc(IN_BYTES)));
    open_keys(&channel->receives, suite, 0);
    *sender = ends[0];
    return channel;
}

/* Until it fails (its error) or has nothing more (-EAGAIN). */
static ssize_t receive_all(rfs_channel *channel, const struct peer *peer, size_t *got) {
    static uint8_t buffer[2 * RECORD_DATA_BYTES]; /* pages that are new each time cost more than the rest */
    ssize_t bytes;
    while ((bytes = channel_receive(channel, buffer, sizeof buffer)) > 0) {
        CHECK(*got + (size_t)bytes <= peer->wanted_bytes && !memcmp(peer->wanted + *got, buffer, (size_t)bytes));
        *got += (size_t)bytes;
    }
    if (bytes != -EAGAIN) CHECK(channel_receive(channel, buffer, sizeof buffer) == bytes); /* for good */
    return bytes;
}

static void check(const struct peer *peer, uint8_t options) {
    int sender;
    size_t got = 0, half = options & 0x80 ? peer->stream_bytes / 2 : 0;
    rfs_channel *channel = open_channel(options & 0x7f, &sender);
    CHECK(send(sender, peer->stream, half, 0) == (ssize_t)half);
    ssize_t result = receive_all(channel, peer, &got);
    CHECK(send(sender, peer->stream + half, peer->stream_bytes - half, 0) == (ssize_t)(peer->stream_bytes - half));
    result = receive_all(channel, peer, &got);
    CHECK(result < 0 && got == peer->wanted_bytes);
    CHECK(!peer->must_fail || result != -EAGAIN);
    CHECK(peer->over || result == -EAGAIN);
    close(sender);
    rfs_channel_close(channel);
}

int LLVMFuzzerInitialize(int *count, char ***arguments) {
    (void)count;
    (void)arguments;
    context = SSL_CTX_new(TLS_method());
    CHECK(context);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes) {
    if (!bytes) return 0;
    static struct peer only, *const peer = &only;
    peer->stream_bytes = peer->wanted_bytes = 0;
    peer->over = peer->must_fail = false;
    open_keys(&peer->keys, input[0] & 0x7f, 1);
    speak(peer, input + 1, bytes - 1);
    check(peer, input[0]);
    record_keys_close(&peer->keys);
    return 0;
}
