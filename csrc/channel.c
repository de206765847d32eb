/* A socket, plain or under TLS 1.3.
 *
 * Happy path: rfs_channel_secure() lets OpenSSL make the handshake, in which both ends prove the key that the other one has pinned (no
 * authority, no name service, no clock: an expired certificate whose key is pinned is still the peer's; telling people of it is Python's).
 * Then records flow. Where the kernel does TLS (kTLS) it is given the keys and the socket is used as if it were plain. Elsewhere we do what
 * it would do (tls_records.c): the handshake's traffic secrets are taken from OpenSSL, and frames are encrypted from where they lie into
 * `out`, what arrives is decrypted from `in` to where it is parsed. So no byte is copied for it, a small frame costs one system call and one
 * record each way as without TLS, and the two directions share nothing: no lock, while an SSL object is not usable by two threads at once.
 * On the wire it is TLS 1.3, key updates included; the native tests hold each direction against OpenSSL's own.
 *
 * The sending side (`out`, `sends`) belongs to whoever calls channel_send, one at a time; `in` and `receives` to the receiver.
 *
 * How it fails: a record that is wrong, or any other message than data and key updates, ends the channel for good. Nothing ever falls back
 * to plain text. A sending key is replaced long before AES-GCM's limit of 2^24.5 records; the kernel's cannot be, so that channel ends
 * instead, and the link is made again. */
#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tls_records.h"

enum {
    SEND_RECORDS = 8, /* taken at a time: the peer decrypts the first while we encrypt the next */
    OUT_BYTES = (SEND_RECORDS + 1) * (RECORD_DATA_BYTES + RECORD_ADDED_BYTES),
    IN_BYTES = 256 << 10,
    SOCKET_BYTES = 4 << 20,
    REKEY_RECORDS = 1 << 22,
    PARTS_MAX = 16, /* of one record */
};

struct rfs_channel {
    int fd;
    SSL *ssl; /* NULL: plain. After the handshake only the kernel's TLS still needs it */
    bool kernel_sends, kernel_receives; /* the socket takes and gives plain bytes */

    /* The sender's. */
    struct record_keys sends;
    uint64_t rekey_records, kernel_records;
    atomic_uint_fast64_t key_updates;
    uint8_t *out;
    size_t out_filled, out_sent;

    /* The receiver's. */
    struct record_keys receives;
    uint8_t *in;
    size_t in_filled, in_used;
    int in_error; /* what ended it, told when all before it was handed out */
    atomic_bool update_wanted; /* set by the receiver: the peer asks for a new key of ours */
};

/* ---- sending -------------------------------------------------------------------------------------------------------------- */

static ssize_t send_plain(const rfs_channel *channel, const struct iovec *parts, int count) {
    if (!count) return 0;
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = (size_t)count};
    ssize_t bytes = sendmsg(channel->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    return bytes >= 0 ? bytes : errno == EINTR ? -EAGAIN : -errno;
}

static int empty_out(rfs_channel *channel) {
    while (channel->out_sent < channel->out_filled) {
        ssize_t bytes = send(channel->fd, channel->out + channel->out_sent, channel->out_filled - channel->out_sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (bytes < 0 && errno == EINTR) continue;
        if (bytes < 0) return -errno;
        channel->out_sent += (size_t)bytes;
    }
    channel->out_sent = channel->out_filled = 0;
    return 0;
}

static int seal(rfs_channel *channel, uint8_t type, const struct iovec *parts, int count) {
    ssize_t bytes = record_seal(&channel->sends, type, parts, count, channel->out + channel->out_filled);
    if (bytes < 0) return (int)bytes;
    channel->out_filled += (size_t)bytes;
    return 0;
}

/* KeyUpdate (RFC 8446 §4.6.3), the last record under the old key. */
static int replace_key(rfs_channel *channel) {
    static const uint8_t update_not_requested[] = {24, 0, 0, 1, 0};
    struct iovec message = {(void *)(uintptr_t)update_not_requested, sizeof update_not_requested};
    atomic_store(&channel->update_wanted, false);
    int result = seal(channel, RECORD_HANDSHAKE, &message, 1);
    if (result == 0) result = record_keys_update(&channel->sends);
    atomic_fetch_add(&channel->key_updates, 1);
    return result;
}

/* The parts of the next record, cut out of `parts` from *part and *offset on, which move. */
static int next_record(const struct iovec *parts, int count, int *part, size_t *offset, struct iovec record[PARTS_MAX], size_t *bytes) {
    int pieces = 0;
    *bytes = 0;
    while (*part < count && pieces < PARTS_MAX && *bytes < RECORD_DATA_BYTES) {
        size_t left = parts[*part].iov_len - *offset, room = RECORD_DATA_BYTES - *bytes, take = left < room ? left : room;
        if (take) record[pieces++] = (struct iovec){(uint8_t *)parts[*part].iov_base + *offset, take};
        *bytes += take;
        *offset += take;
        if (take < left) break;
        (*part)++;
        *offset = 0;
    }
    return pieces;
}

static ssize_t send_records(rfs_channel *channel, const struct iovec *parts, int count) {
    int part = 0, result = empty_out(channel);
    size_t offset = 0, taken = 0;
    if (result == 0 && count && (channel->sends.sequence >= channel->rekey_records || atomic_load(&channel->update_wanted))) result = replace_key(channel);
    for (int records = 0; result == 0 && part < count && records < SEND_RECORDS; records++) {
        struct iovec record[PARTS_MAX];
        size_t bytes;
        int pieces = next_record(parts, count, &part, &offset, record, &bytes);
        if (pieces) result = seal(channel, RECORD_DATA, record, pieces);
        if (result == 0) taken += bytes;
    }
    if (result == 0) result = empty_out(channel);
    if (result == -EAGAIN && taken) result = 0; /* the caller comes again, and learns of it then */
    return result < 0 ? result : (ssize_t)taken;
}

ssize_t channel_send(rfs_channel *channel, const struct iovec *parts, int count) {
    if (channel->ssl && !channel->kernel_sends) return send_records(channel, parts, count);
    if (channel->ssl && channel->kernel_records > channel->rekey_records) return -EKEYEXPIRED;
    ssize_t bytes = send_plain(channel, parts, count);
    if (bytes > 0) channel->kernel_records += (uint64_t)bytes / RECORD_DATA_BYTES + 1;
    return bytes;
}

/* ---- receiving ------------------------------------------------------------------------------------------------------------ */

static ssize_t receive_plain(const rfs_channel *channel, uint8_t *buffer, size_t room) {
    ssize_t bytes = recv(channel->fd, buffer, room, MSG_DONTWAIT);
    return bytes >= 0 ? bytes : errno == EINTR ? -EAGAIN : -errno;
}

static ssize_t fill_in(rfs_channel *channel) {
    memmove(channel->in, channel->in + channel->in_used, channel->in_filled - channel->in_used);
    channel->in_filled -= channel->in_used;
    channel->in_used = 0;
    ssize_t bytes = receive_plain(channel, channel->in + channel->in_filled, IN_BYTES - channel->in_filled);
    if (bytes > 0) channel->in_filled += (size_t)bytes;
    return bytes;
}

/* The peer's next key. Anything else than that and data has no place in a data link. */
static int key_update(rfs_channel *channel, const uint8_t *message, size_t bytes) {
    if (bytes != 5 || memcmp(message, (const uint8_t[]){24, 0, 0, 1}, 4) != 0 || message[4] > 1) return -EPROTO;
    if (message[4]) atomic_store(&channel->update_wanted, true);
    return record_keys_update(&channel->receives);
}

/* One whole record of `length` bytes into the buffer. */
static ssize_t open_record(rfs_channel *channel, size_t length, uint8_t *buffer) {
    uint8_t type;
    ssize_t bytes = record_open(&channel->receives, channel->in + channel->in_used, length, buffer, &type);
    channel->in_used += length;
    if (bytes < 0 || type == RECORD_DATA) return bytes;
    if (type == RECORD_HANDSHAKE) return key_update(channel, buffer, (size_t)bytes);
    return bytes == 2 && buffer[1] == 0 ? -ECONNRESET : -EKEYREJECTED; /* an alert: goodbye, or it does not take our key */
}

static ssize_t receive_records(rfs_channel *channel, uint8_t *buffer, size_t room) {
    size_t filled = 0;
    while (channel->in_error == 0 && room - filled > RECORD_DATA_BYTES) {
        ssize_t length = record_length(channel->in + channel->in_used, channel->in_filled - channel->in_used), bytes;
        if (length == 0 && filled) break;
        if (length == 0) { /* not a whole one yet */
            if ((bytes = fill_in(channel)) <= 0) return bytes;
            continue;
        }
        bytes = length > 0 ? open_record(channel, (size_t)length, buffer + filled) : length;
        if (bytes < 0) channel->in_error = (int)bytes; /* after what was good */
        else filled += (size_t)bytes;
    }
    return filled ? (ssize_t)filled : channel->in_error;
}

/* The kernel decrypts; OpenSSL takes its messages apart, for it may hand out others than data. */
static ssize_t receive_from_kernel(rfs_channel *channel, uint8_t *buffer, size_t room) {
    int bytes = SSL_read(channel->ssl, buffer, room > INT32_MAX ? INT32_MAX : (int)room);
    if (bytes > 0) return bytes;
    int error = SSL_get_error(channel->ssl, bytes);
    ERR_clear_error();
    return error == SSL_ERROR_ZERO_RETURN ? 0 : error == SSL_ERROR_WANT_READ ? -EAGAIN : -EPROTO;
}

ssize_t channel_receive(rfs_channel *channel, uint8_t *buffer, size_t room) {
    if (!channel->ssl) return receive_plain(channel, buffer, room);
    return channel->kernel_receives ? receive_from_kernel(channel, buffer, room) : receive_records(channel, buffer, room);
}

bool channel_wait(const rfs_channel *channel, short events, int timeout_ms) {
    struct pollfd ready = {.fd = channel->fd, .events = events};
    return poll(&ready, 1, timeout_ms) > 0;
}

bool channel_is_sealed(const rfs_channel *channel) { return channel->ssl != NULL; }

void channel_shutdown(rfs_channel *channel, int how) { shutdown(channel->fd, how); }

void channel_tune(rfs_channel *channel) {
    int one = 1, room = SOCKET_BYTES;
    setsockopt(channel->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(channel->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    /* A model of the path's bandwidth (BBR) goes wrong on a link that is idle between synchronous writes, and throttles it. */
    if (setsockopt(channel->fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5) < 0) setsockopt(channel->fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

void channel_set_rekey_records(rfs_channel *channel, uint64_t records) { channel->rekey_records = records; }
uint64_t channel_key_updates(const rfs_channel *channel) { return atomic_load(&channel->key_updates); }

/* ---- the handshake -------------------------------------------------------------------------------------------------------- */

struct handshake {
    const rfs_identity *identity;
    char *reason;
    uint8_t secrets[2][SECRET_BYTES_MAX]; /* of the client's traffic, of the server's */
    size_t secret_bytes[2];
};

/* "CLIENT_TRAFFIC_SECRET_0 <client random> <secret>", in hexadecimal digits: how OpenSSL gives out what the kernel is given as well. */
static void take_secret(const SSL *ssl, const char *line) {
    static const char *const labels[2] = {"CLIENT_TRAFFIC_SECRET_0 ", "SERVER_TRAFFIC_SECRET_0 "};
    struct handshake *handshake = SSL_get_app_data(ssl);
    const char *digits = strrchr(line, ' ');
    for (int i = 0; digits && i < 2; i++) {
        long bytes = 0;
        if (strncmp(line, labels[i], strlen(labels[i])) != 0) continue;
        uint8_t *secret = OPENSSL_hexstr2buf(digits + 1, &bytes);
        if (secret && bytes > 0 && bytes <= SECRET_BYTES_MAX) {
            memcpy(handshake->secrets[i], secret, (size_t)bytes);
            handshake->secret_bytes[i] = (size_t)bytes;
        }
        OPENSSL_clear_free(secret, (size_t)bytes);
    }
}

/* From the handshake to records, in the directions that the kernel does not do. */
static int take_over(rfs_channel *channel, const struct handshake *handshake, bool dialed) {
    const SSL_CIPHER *suite = SSL_get_current_cipher(channel->ssl);
    int mine = dialed ? 0 : 1;
    channel->kernel_sends = BIO_get_ktls_send(SSL_get_wbio(channel->ssl)) != 0;
    channel->kernel_receives = BIO_get_ktls_recv(SSL_get_rbio(channel->ssl)) != 0;
    channel->out = malloc(OUT_BYTES);
    channel->in = malloc(IN_BYTES);
    if (!channel->out || !channel->in) return -ENOMEM;
    int result = record_keys_open(&channel->sends, suite, handshake->secrets[mine], handshake->secret_bytes[mine], 1);
    return result < 0 ? result : record_keys_open(&channel->receives, suite, handshake->secrets[1 - mine], handshake->secret_bytes[1 - mine], 0);
}

static bool is_pinned(X509 *certificate, const rfs_identity *identity) {
    unsigned char *key = NULL, digest[RFS_PIN_BYTES];
    int bytes = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &key);
    bool hashed = bytes > 0 && EVP_Digest(key, (size_t)bytes, digest, NULL, EVP_sha256(), NULL) == 1, found = false;
    OPENSSL_free(key);
    for (uint32_t i = 0; hashed && i < identity->pin_count; i++) found |= CRYPTO_memcmp(digest, identity->pins + (size_t)i * RFS_PIN_BYTES, RFS_PIN_BYTES) == 0;
    return found;
}

/* In place of a chain and a clock: the key is the one that was pinned, and the certificate names the peer. */
static int judge_certificate(X509_STORE_CTX *store, void *argument) {
    struct handshake *handshake = argument;
    X509 *certificate = X509_STORE_CTX_get0_cert(store);
    const char *wrong = NULL;
    if (!certificate || !is_pinned(certificate, handshake->identity)) wrong = "the peer's key is not the one that was paired";
    else if (X509_check_host(certificate, handshake->identity->peer, 0, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_WILDCARDS, NULL) != 1) wrong = "the peer's certificate names another node";
    X509_STORE_CTX_set_error(store, wrong ? X509_V_ERR_CERT_REJECTED : X509_V_OK);
    if (wrong) snprintf(handshake->reason, RFS_REASON_BYTES, "%s", wrong);
    return !wrong;
}

static SSL_CTX *make_context(struct handshake *handshake) {
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    if (!context) return NULL;
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_ENABLE_KTLS | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(context, judge_certificate, handshake);
    SSL_CTX_set_keylog_callback(context, take_secret);
    bool made = SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 && SSL_CTX_set_num_tickets(context, 0) == 1 &&
                SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256") == 1;
    const char *path = handshake->identity->path;
    bool loaded = made && SSL_CTX_use_certificate_file(context, path, SSL_FILETYPE_PEM) == 1 && SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM) == 1 && SSL_CTX_check_private_key(context) == 1;
    if (loaded) return context;
    snprintf(handshake->reason, RFS_REASON_BYTES, "cannot use this node's own key");
    SSL_CTX_free(context);
    return NULL;
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static int shake_hands(rfs_channel *channel, bool dialed, int64_t deadline_ms, char *reason) {
    for (;;) {
        ERR_clear_error();
        int result = dialed ? SSL_connect(channel->ssl) : SSL_accept(channel->ssl);
        if (result == 1) return 0;
        int error = SSL_get_error(channel->ssl, result);
        int64_t left_ms = deadline_ms - now_ms();
        if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
            const char *text = ERR_reason_error_string(ERR_peek_last_error());
            if (!*reason) snprintf(reason, RFS_REASON_BYTES, "TLS: %s", text ? text : "the peer hung up in the handshake");
            return error == SSL_ERROR_SYSCALL ? -ECONNRESET : -EPROTO;
        }
        if (left_ms <= 0 || !channel_wait(channel, error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, (int)left_ms)) {
            snprintf(reason, RFS_REASON_BYTES, "TLS: no end of the handshake in time");
            return -ETIMEDOUT;
        }
    }
}

rfs_channel *rfs_channel_plain(int fd) {
    rfs_channel *channel = calloc(1, sizeof *channel);
    if (!channel) {
        close(fd);
        return NULL;
    }
    channel->fd = fd;
    channel->rekey_records = REKEY_RECORDS;
    return channel;
}

rfs_channel *rfs_channel_secure(int fd, const rfs_identity *identity, int dialed, uint32_t timeout_ms, int *error, char reason[RFS_REASON_BYTES]) {
    struct handshake handshake = {.identity = identity, .reason = reason};
    SSL_CTX *context = NULL;
    *reason = 0;
    *error = -ENOMEM;
    rfs_channel *channel = rfs_channel_plain(fd);
    if (!channel) return NULL;
    int flags = fcntl(fd, F_GETFL);
    *error = flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
    if (*error == 0 && !(context = make_context(&handshake))) *error = -EKEYREJECTED;
    if (*error == 0 && (!(channel->ssl = SSL_new(context)) || !SSL_set_fd(channel->ssl, fd) || !SSL_set_app_data(channel->ssl, &handshake))) *error = -ENOMEM;
    if (*error == 0) *error = shake_hands(channel, dialed != 0, now_ms() + timeout_ms, reason);
    if (*error == 0) *error = take_over(channel, &handshake, dialed != 0);
    if (channel->ssl) SSL_set_app_data(channel->ssl, NULL);
    OPENSSL_cleanse(&handshake, sizeof handshake);
    SSL_CTX_free(context); /* the session keeps what it needs of it; no certificate is judged after the handshake */
    if (*error == 0) return channel;
    rfs_channel_close(channel);
    return NULL;
}

int rfs_channel_kernel_tls(const rfs_channel *channel) { return channel->kernel_sends + 2 * channel->kernel_receives; }

void rfs_channel_close(rfs_channel *channel) {
    if (!channel) return;
    record_keys_close(&channel->sends);
    record_keys_close(&channel->receives);
    SSL_free(channel->ssl);
    close(channel->fd);
    free(channel->out);
    free(channel->in);
    free(channel);
}
