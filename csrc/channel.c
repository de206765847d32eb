/* A socket, plain or under TLS 1.3.
 *
 * Happy path: rfs_channel_secure() makes both ends prove the key that the other one has pinned (no authority, no name service, no clock:
 * an expired certificate whose key is pinned is still the peer's; telling people of it is Python's). Then records flow: what is sent is
 * gathered into whole records, encrypted into `out` and given to the socket in large pieces; what arrives is read in large pieces into
 * `in` and decrypted from there. So a small frame costs one system call and one record each way, as without TLS.
 *
 * One OpenSSL session is not usable by two threads: `lock` covers each call into it and nothing else. The socket is never read or
 * written under it. The sending side (`out`, staging) belongs to whoever calls channel_send, one at a time; `in` to the receiver.
 *
 * Where the kernel does TLS (kTLS), OpenSSL hands it the keys in the handshake and the socket is used as if it were plain; the two
 * directions are independent of each other.
 *
 * How it fails: any TLS error ends the channel, for good. Nothing ever falls back to plain text. A sending key is replaced long before
 * AES-GCM's limit of 2^24.5 records; the kernel's cannot be, so that channel ends instead, and the link is made again. */
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
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    RECORD_BYTES = 16384,                            /* TLS 1.3: the most that one record holds */
    SEND_BYTES = 4 * RECORD_BYTES,                   /* taken at a time: the peer decrypts the first while we encrypt the next */
    OUT_BYTES = SEND_BYTES + 8 * 512,                /* and what the records add to it */
    IN_BYTES = 256 << 10,
    SOCKET_BYTES = 4 << 20,
    REKEY_RECORDS = 1 << 22,
};

struct rfs_channel {
    int fd;
    SSL *ssl; /* NULL: plain */
    BIO_METHOD *method;
    bool kernel_sends, kernel_receives; /* the socket takes and gives plain bytes */

    pthread_mutex_t lock; /* ssl */
    bool receiving;       /* under lock: what a receiving call wants to say (an alert) is dropped, the channel ends anyway */

    uint64_t rekey_records, records; /* the sender's: since the key was new */
    atomic_uint_fast64_t key_updates;
    size_t out_filled, out_sent;
    size_t in_filled, in_used; /* the receiver's */
    uint8_t *out, *in, *staging;
};

/* ---- between OpenSSL and the buffers -------------------------------------------------------------------------------------- */

static int buffer_write(BIO *bio, const char *data, int bytes) {
    rfs_channel *channel = BIO_get_data(bio);
    if (channel->receiving) return bytes;
    if (bytes < 0 || (size_t)bytes > OUT_BYTES - channel->out_filled) return -1; /* cannot be: SEND_BYTES leaves room */
    memcpy(channel->out + channel->out_filled, data, (size_t)bytes);
    channel->out_filled += (size_t)bytes;
    return bytes;
}

static int buffer_read(BIO *bio, char *data, int bytes) {
    rfs_channel *channel = BIO_get_data(bio);
    size_t there = channel->in_filled - channel->in_used, part = there < (size_t)bytes ? there : (size_t)bytes;
    BIO_clear_retry_flags(bio);
    if (!part) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(data, channel->in + channel->in_used, part);
    channel->in_used += part;
    return (int)part;
}

static long buffer_control(BIO *bio, int command, long number, void *pointer) {
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO *buffer_new(rfs_channel *channel) {
    BIO *bio = BIO_new(channel->method);
    if (!bio) return NULL;
    BIO_set_data(bio, channel);
    BIO_set_init(bio, 1);
    return bio;
}

/* From the socket to the buffers, in the directions that the kernel does not do. */
static int take_over(rfs_channel *channel) {
    channel->kernel_sends = BIO_get_ktls_send(SSL_get_wbio(channel->ssl)) != 0;
    channel->kernel_receives = BIO_get_ktls_recv(SSL_get_rbio(channel->ssl)) != 0;
    channel->method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "lockstep");
    channel->out = malloc(OUT_BYTES);
    channel->in = malloc(IN_BYTES);
    channel->staging = malloc(RECORD_BYTES);
    if (!channel->method || !channel->out || !channel->in || !channel->staging) return -ENOMEM;
    if (!BIO_meth_set_write(channel->method, buffer_write) || !BIO_meth_set_read(channel->method, buffer_read) || !BIO_meth_set_ctrl(channel->method, buffer_control)) return -ENOMEM;
    BIO *write = channel->kernel_sends ? NULL : buffer_new(channel), *read = channel->kernel_receives ? NULL : buffer_new(channel);
    bool whole = (write || channel->kernel_sends) && (read || channel->kernel_receives);
    if (!whole) {
        BIO_free(write);
        BIO_free(read);
        return -ENOMEM;
    }
    if (write) SSL_set0_wbio(channel->ssl, write);
    if (read) SSL_set0_rbio(channel->ssl, read);
    return 0;
}

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

static int encrypt(rfs_channel *channel, const uint8_t *data, size_t bytes) {
    pthread_mutex_lock(&channel->lock);
    ERR_clear_error();
    bool rekeys = ++channel->records > channel->rekey_records;
    int result = rekeys ? SSL_key_update(channel->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) : 1;
    if (result == 1) result = SSL_write(channel->ssl, data, (int)bytes) == (int)bytes;
    pthread_mutex_unlock(&channel->lock);
    if (rekeys) {
        channel->records = 1;
        atomic_fetch_add(&channel->key_updates, 1);
    }
    return result == 1 ? 0 : -EPROTO;
}

/* The next record's bytes: from the caller's memory where they lie together, else gathered. Advances part and offset. */
static size_t next_record(rfs_channel *channel, const struct iovec *parts, int count, int *part, size_t *offset, const uint8_t **record) {
    size_t there = parts[*part].iov_len - *offset;
    if (there >= RECORD_BYTES) {
        *record = (const uint8_t *)parts[*part].iov_base + *offset;
        *offset += RECORD_BYTES;
        return RECORD_BYTES;
    }
    size_t filled = 0;
    while (*part < count && filled < RECORD_BYTES) {
        size_t left = parts[*part].iov_len - *offset, take = left < RECORD_BYTES - filled ? left : RECORD_BYTES - filled;
        memcpy(channel->staging + filled, (const uint8_t *)parts[*part].iov_base + *offset, take);
        filled += take;
        *offset += take;
        if (take < left) break;
        (*part)++;
        *offset = 0;
    }
    *record = channel->staging;
    return filled;
}

static ssize_t send_records(rfs_channel *channel, const struct iovec *parts, int count) {
    int part = 0, result = empty_out(channel);
    size_t offset = 0, taken = 0;
    while (result == 0 && part < count && taken + RECORD_BYTES <= SEND_BYTES) {
        const uint8_t *record;
        size_t bytes = next_record(channel, parts, count, &part, &offset, &record);
        if (part < count && offset == parts[part].iov_len) {
            part++;
            offset = 0;
        }
        if (bytes) result = encrypt(channel, record, bytes);
        if (result == 0) taken += bytes;
    }
    if (result == 0) result = empty_out(channel);
    if (result == -EAGAIN && taken) result = 0; /* the caller comes again, and learns of it then */
    return result < 0 ? result : (ssize_t)taken;
}

ssize_t channel_send(rfs_channel *channel, const struct iovec *parts, int count) {
    if (channel->ssl && !channel->kernel_sends) return send_records(channel, parts, count);
    if (channel->ssl && channel->records > channel->rekey_records) return -EKEYEXPIRED;
    ssize_t bytes = send_plain(channel, parts, count);
    if (bytes > 0) channel->records += (uint64_t)bytes / RECORD_BYTES + 1;
    return bytes;
}

/* ---- receiving ------------------------------------------------------------------------------------------------------------ */

/* What is decrypted at once; *end: the peer has said goodbye, or the records are wrong (then -EPROTO). */
static ssize_t decrypt(rfs_channel *channel, uint8_t *buffer, size_t room) {
    pthread_mutex_lock(&channel->lock);
    channel->receiving = true;
    ERR_clear_error();
    int wanted = room > INT32_MAX ? INT32_MAX : (int)room;
    int bytes = SSL_read(channel->ssl, buffer, wanted);
    int error = bytes > 0 ? SSL_ERROR_NONE : SSL_get_error(channel->ssl, bytes);
    channel->receiving = false;
    pthread_mutex_unlock(&channel->lock);
    if (bytes > 0) return bytes;
    if (error == SSL_ERROR_ZERO_RETURN) return 0;
    return error == SSL_ERROR_WANT_READ ? -EAGAIN : -EPROTO;
}

static ssize_t fill_in(rfs_channel *channel) {
    memmove(channel->in, channel->in + channel->in_used, channel->in_filled - channel->in_used);
    channel->in_filled -= channel->in_used;
    channel->in_used = 0;
    ssize_t bytes = recv(channel->fd, channel->in + channel->in_filled, IN_BYTES - channel->in_filled, MSG_DONTWAIT);
    if (bytes > 0) channel->in_filled += (size_t)bytes;
    return bytes >= 0 ? bytes : errno == EINTR ? -EAGAIN : -errno;
}

ssize_t channel_receive(rfs_channel *channel, uint8_t *buffer, size_t room) {
    if (!channel->ssl) {
        ssize_t bytes = recv(channel->fd, buffer, room, MSG_DONTWAIT);
        return bytes >= 0 ? bytes : errno == EINTR ? -EAGAIN : -errno;
    }
    size_t filled = 0;
    for (;;) {
        ssize_t bytes = decrypt(channel, buffer + filled, room - filled);
        if (bytes > 0) filled += (size_t)bytes;
        if (filled && (bytes <= 0 || filled == room)) return (ssize_t)filled; /* an end or an error comes again */
        if (bytes > 0) continue;
        if (bytes != -EAGAIN || channel->kernel_receives) return bytes;
        bytes = fill_in(channel);
        if (bytes <= 0) return bytes;
    }
}

bool channel_wait(const rfs_channel *channel, short events, int timeout_ms) {
    struct pollfd ready = {.fd = channel->fd, .events = events};
    return poll(&ready, 1, timeout_ms) > 0;
}

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

struct judge {
    const rfs_identity *identity;
    char *reason;
};

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
    struct judge *judge = argument;
    X509 *certificate = X509_STORE_CTX_get0_cert(store);
    const char *wrong = NULL;
    if (!certificate || !is_pinned(certificate, judge->identity)) wrong = "the peer's key is not the one that was paired";
    else if (X509_check_host(certificate, judge->identity->peer, 0, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_WILDCARDS, NULL) != 1) wrong = "the peer's certificate names another node";
    X509_STORE_CTX_set_error(store, wrong ? X509_V_ERR_CERT_REJECTED : X509_V_OK);
    if (wrong) snprintf(judge->reason, RFS_REASON_BYTES, "%s", wrong);
    return !wrong;
}

static SSL_CTX *make_context(struct judge *judge) {
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    if (!context) return NULL;
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_ENABLE_KTLS | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(context, judge_certificate, judge);
    bool made = SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 && SSL_CTX_set_num_tickets(context, 0) == 1 &&
                SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256") == 1;
    const char *path = judge->identity->path;
    bool loaded = made && SSL_CTX_use_certificate_file(context, path, SSL_FILETYPE_PEM) == 1 && SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM) == 1 && SSL_CTX_check_private_key(context) == 1;
    if (loaded) return context;
    snprintf(judge->reason, RFS_REASON_BYTES, "cannot use this node's own key");
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
    pthread_mutex_init(&channel->lock, NULL);
    return channel;
}

rfs_channel *rfs_channel_secure(int fd, const rfs_identity *identity, int dialed, uint32_t timeout_ms, int *error, char reason[RFS_REASON_BYTES]) {
    struct judge judge = {identity, reason};
    SSL_CTX *context = NULL;
    *reason = 0;
    *error = -ENOMEM;
    rfs_channel *channel = rfs_channel_plain(fd);
    if (!channel) return NULL;
    int flags = fcntl(fd, F_GETFL);
    *error = flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
    if (*error == 0 && !(context = make_context(&judge))) *error = -EKEYREJECTED;
    if (*error == 0 && (!(channel->ssl = SSL_new(context)) || !SSL_set_fd(channel->ssl, fd))) *error = -ENOMEM;
    if (*error == 0) *error = shake_hands(channel, dialed != 0, now_ms() + timeout_ms, reason);
    if (*error == 0) *error = take_over(channel);
    SSL_CTX_free(context); /* the session keeps what it needs of it; no certificate is judged after the handshake */
    if (*error == 0) return channel;
    rfs_channel_close(channel);
    return NULL;
}

int rfs_channel_kernel_tls(const rfs_channel *channel) { return channel->kernel_sends + 2 * channel->kernel_receives; }

void rfs_channel_close(rfs_channel *channel) {
    if (!channel) return;
    SSL_free(channel->ssl);
    BIO_meth_free(channel->method);
    close(channel->fd);
    if (channel->staging) OPENSSL_cleanse(channel->staging, RECORD_BYTES);
    free(channel->out);
    free(channel->in);
    free(channel->staging);
    pthread_mutex_destroy(&channel->lock);
    free(channel);
}
