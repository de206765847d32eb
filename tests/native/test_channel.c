/* Channels: what two ends that know each other's keys send arrives; nobody else gets in. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel.h"
#include "native.h"
#include "tls_records.h"

enum { TIMEOUT_MS = 5000 };

/* ---- keys ------------------------------------------------------------------------------------------------------------------ */

struct key {
    char path[64];
    char name[16];
    uint8_t pin[RFS_PIN_BYTES];
};

static void key_make(struct key *key, const char *name, long valid_for_s) {
    EVP_PKEY *private = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    char san[32];
    snprintf(key->name, sizeof key->name, "%s", name);
    snprintf(key->path, sizeof key->path, "/tmp/lockstep-native-%d-%s-%ld.pem", (int)getpid(), name, valid_for_s);
    snprintf(san, sizeof san, "DNS:%s", name);
    X509_set_version(certificate, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -1000000);
    X509_gmtime_adj(X509_getm_notAfter(certificate), valid_for_s);
    X509_set_pubkey(certificate, private);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, san);
    CHECK(extension && X509_add_ext(certificate, extension, -1) && X509_sign(certificate, private, EVP_sha256()));
    X509_EXTENSION_free(extension);
    FILE *file = fopen(key->path, "w");
    CHECK(file && PEM_write_PrivateKey(file, private, NULL, NULL, 0, NULL, NULL) && PEM_write_X509(file, certificate));
    fclose(file);
    unsigned char *spki = NULL;
    int bytes = i2d_PUBKEY(private, &spki);
    CHECK(bytes > 0 && EVP_Digest(spki, (size_t)bytes, key->pin, NULL, EVP_sha256(), NULL));
    OPENSSL_free(spki);
    X509_free(certificate);
    EVP_PKEY_free(private);
}

/* ---- two ends -------------------------------------------------------------------------------------------------------------- */

struct end {
    int fd;
    bool dialed;
    rfs_identity identity;
    rfs_channel *channel;
    int error;
    char reason[RFS_REASON_BYTES];
};

static void *shake(void *argument) {
    struct end *end = argument;
    end->channel = rfs_channel_secure(end->fd, &end->identity, end->dialed, TIMEOUT_MS, &end->error, end->reason);
    return NULL;
}

static rfs_identity identity_of(const struct key *own, const struct key *peer) { return (rfs_identity){.path = own->path, .peer = peer->name, .pins = peer->pin, .pin_count = 1}; }

static void shake_both(struct end ends[2], const rfs_identity *first, const rfs_identity *second) {
    int fds[2];
    pthread_t other;
    connect_ends(fds);
    memset(ends, 0, 2 * sizeof *ends);
    ends[0] = (struct end){.fd = fds[0], .dialed = true, .identity = *first};
    ends[1] = (struct end){.fd = fds[1], .identity = *second};
    CHECK_EQUAL(pthread_create(&other, NULL, shake, &ends[1]), 0);
    shake(&ends[0]);
    pthread_join(other, NULL);
}

static void close_both(struct end ends[2]) {
    rfs_channel_close(ends[0].channel);
    rfs_channel_close(ends[1].channel);
}

static struct key one, two, stranger, expired;

static void drop_keys(void) {
    for (const struct key *each[] = {&one, &two, &stranger, &expired}, **key = each; key < each + 4; key++) unlink((*key)->path);
}

static void make_keys(void) {
    if (one.path[0]) return;
    atexit(drop_keys);
    key_make(&one, "one", 1000000);
    key_make(&two, "two", 1000000);
    key_make(&stranger, "stranger", 1000000);
    key_make(&expired, "two", -1000);
}

void connect_channels(rfs_channel *channels[2], int fds[2]) {
    struct end ends[2];
    pthread_t other;
    make_keys();
    ends[0] = (struct end){.fd = fds[0], .dialed = true, .identity = identity_of(&one, &two)};
    ends[1] = (struct end){.fd = fds[1], .identity = identity_of(&two, &one)};
    CHECK_EQUAL(pthread_create(&other, NULL, shake, &ends[1]), 0);
    shake(&ends[0]);
    pthread_join(other, NULL);
    CHECK(ends[0].channel && ends[1].channel);
    channels[0] = ends[0].channel;
    channels[1] = ends[1].channel;
    channel_set_rekey_records(channels[0], 50); /* so that every test of a pair changes keys under way */
    channel_set_rekey_records(channels[1], 50);
}

/* ---- what is sent arrives --------------------------------------------------------------------------------------------------- */

enum { STREAM_BYTES = 24 << 20 };

struct stream {
    rfs_channel *channel;
    uint64_t seed;
};

static uint8_t byte_at(uint64_t seed, uint64_t at) { return (uint8_t)(seed * 31 + at * 7 + (at >> 13)); }

static void *send_stream(void *argument) {
    struct stream *stream = argument;
    struct chance chance = {stream->seed};
    uint8_t *data = malloc(STREAM_BYTES);
    CHECK(data);
    for (size_t i = 0; i < STREAM_BYTES; i++) data[i] = byte_at(stream->seed, i);
    for (size_t sent = 0; sent < STREAM_BYTES;) {
        struct iovec parts[6];
        int count = 1 + (int)chance_below(&chance, 6);
        size_t at = sent;
        for (int i = 0; i < count; i++) {
            static const uint32_t sizes[] = {1, 88, 4096, 16384, 16385, 300000};
            size_t bytes = chance_below(&chance, sizes[chance_below(&chance, 6)] + 1);
            if (bytes > STREAM_BYTES - at) bytes = STREAM_BYTES - at;
            parts[i] = (struct iovec){data + at, bytes};
            at += bytes;
        }
        ssize_t taken = at == sent ? 0 : channel_send(stream->channel, parts, count);
        CHECK(taken >= 0 || taken == -EAGAIN);
        if (taken == -EAGAIN) channel_wait(stream->channel, POLLOUT, 1000);
        else sent += (size_t)taken;
    }
    while (channel_send(stream->channel, NULL, 0) == -EAGAIN) channel_wait(stream->channel, POLLOUT, 1000);
    free(data);
    return NULL;
}

static void *receive_stream(void *argument) {
    struct stream *stream = argument;
    struct chance chance = {stream->seed + 99};
    uint8_t *buffer = malloc(1 << 20);
    CHECK(buffer);
    for (uint64_t got = 0; got < STREAM_BYTES;) {
        ssize_t bytes = channel_receive(stream->channel, buffer, 16385 + chance_below(&chance, (1 << 20) - 16385));
        CHECK(bytes > 0 || bytes == -EAGAIN);
        if (bytes == -EAGAIN) channel_wait(stream->channel, POLLIN, 1000);
        for (ssize_t i = 0; i < bytes; i++) CHECK(buffer[i] == byte_at(stream->seed, got + (uint64_t)i));
        if (bytes > 0) got += (uint64_t)bytes;
    }
    free(buffer);
    return NULL;
}

void test_tls_streams(void) {
    struct end ends[2];
    pthread_t threads[4];
    make_keys();
    rfs_identity a = identity_of(&one, &two), b = identity_of(&two, &one);
    shake_both(ends, &a, &b);
    CHECK(ends[0].channel && ends[1].channel);
    channel_set_rekey_records(ends[0].channel, 100);
    struct stream streams[4] = {{ends[0].channel, 1}, {ends[1].channel, 1}, {ends[1].channel, 2}, {ends[0].channel, 2}};
    for (int i = 0; i < 4; i++) CHECK_EQUAL(pthread_create(&threads[i], NULL, i % 2 ? receive_stream : send_stream, &streams[i]), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    if (!(rfs_channel_kernel_tls(ends[0].channel) & 1)) CHECK(channel_key_updates(ends[0].channel) > 5);
    CHECK_EQUAL(channel_key_updates(ends[1].channel), 0);
    rfs_channel_close(ends[0].channel);
    uint8_t byte;
    CHECK_EQUAL(channel_receive(ends[1].channel, &byte, 1), 0); /* the end */
    rfs_channel_close(ends[1].channel);
}

/* ---- what we speak is TLS 1.3: OpenSSL itself at the other end --------------------------------------------------------------- */

struct openssl_end {
    int fd;
    const char *suite;
};

/* Sends back what it hears, and replaces keys now and then; asks us to replace ours, too. */
static void *echo_by_openssl(void *argument) {
    struct openssl_end *end = argument;
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    CHECK(SSL_CTX_use_certificate_file(context, one.path, SSL_FILETYPE_PEM) == 1 && SSL_CTX_use_PrivateKey_file(context, one.path, SSL_FILETYPE_PEM) == 1);
    CHECK_EQUAL(SSL_CTX_set_ciphersuites(context, end->suite), 1);
    SSL *ssl = SSL_new(context);
    setsockopt(end->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    SSL_set_fd(ssl, end->fd);
    CHECK_EQUAL(SSL_connect(ssl), 1);
    static char buffer[1 << 16];
    for (int round = 0;; round++) {
        int bytes = SSL_read(ssl, buffer, sizeof buffer);
        if (bytes <= 0) break;
        if (round % 7 == 3) CHECK_EQUAL(SSL_key_update(ssl, round % 2 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        CHECK_EQUAL(SSL_write(ssl, buffer, bytes), bytes);
    }
    SSL_shutdown(ssl);
    SSL_free(ssl);
    SSL_CTX_free(context);
    return NULL;
}

static void speak_with_openssl(const char *suite) {
    int fds[2], error;
    char reason[RFS_REASON_BYTES];
    pthread_t other;
    rfs_identity own = identity_of(&two, &one);
    connect_ends(fds);
    struct openssl_end end = {fds[0], suite};
    CHECK_EQUAL(pthread_create(&other, NULL, echo_by_openssl, &end), 0);
    rfs_channel *channel = rfs_channel_secure(fds[1], &own, 0, TIMEOUT_MS, &error, reason);
    if (!channel) fail_at(suite, error, reason);
    static uint8_t sent[40000], got[80000];
    struct chance chance = {5};
    channel_tune(channel);
    channel_set_rekey_records(channel, 11);
    for (int round = 0; round < 200; round++) {
        size_t bytes = 1 + chance_below(&chance, sizeof sent), half = chance_below(&chance, (uint32_t)bytes), filled = 0;
        for (size_t i = 0; i < bytes; i++) sent[i] = (uint8_t)chance_next(&chance);
        struct iovec parts[2] = {{sent, half}, {sent + half, bytes - half}};
        CHECK_EQUAL(channel_send(channel, parts, 2), bytes);
        while (filled < bytes) {
            ssize_t more = channel_receive(channel, got + filled, sizeof got - filled);
            CHECK(more > 0 || more == -EAGAIN);
            if (more > 0) filled += (size_t)more;
            else channel_wait(channel, POLLIN, 1000);
        }
        CHECK(filled == bytes && memcmp(sent, got, bytes) == 0);
    }
    if (!rfs_channel_kernel_tls(channel)) CHECK(channel_key_updates(channel) > 20); /* its own, and those it was asked for */
    channel_shutdown(channel, SHUT_WR);
    while (channel_receive(channel, got, sizeof got) == -EAGAIN) channel_wait(channel, POLLIN, 100);
    CHECK(channel_receive(channel, got, sizeof got) <= 0);
    pthread_join(other, NULL);
    rfs_channel_close(channel);
    close(fds[0]);
}

void test_tls_with_openssl(void) {
    make_keys();
    speak_with_openssl("TLS_AES_128_GCM_SHA256");
    speak_with_openssl("TLS_AES_256_GCM_SHA384");
    speak_with_openssl("TLS_CHACHA20_POLY1305_SHA256");
}

/* What arrives after the first record was taken off the wire and sent on by somebody: `times` as it was, then with one byte changed. */
static void meddle(size_t changed_at, int times) {
    struct end ends[2];
    rfs_identity a = identity_of(&one, &two), b = identity_of(&two, &one);
    shake_both(ends, &a, &b);
    CHECK(ends[0].channel && ends[1].channel);
    enum { CONTENT = 38, WHOLE = CONTENT + RECORD_ADDED_BYTES };
    uint8_t record[WHOLE], content[CONTENT] = {7}, got[20000];
    struct iovec part = {content, CONTENT};
    ssize_t bytes = -EAGAIN, good = 0;
    CHECK_EQUAL(channel_send(ends[0].channel, &part, 1), CONTENT);
    CHECK(channel_wait(ends[1].channel, POLLIN, 1000));
    CHECK_EQUAL(recv(ends[1].fd, record, WHOLE, 0), WHOLE);
    for (int i = 0; i < times; i++) CHECK_EQUAL(send(ends[0].fd, record, WHOLE, 0), WHOLE);
    record[changed_at] ^= 0x10;
    CHECK_EQUAL(send(ends[0].fd, record, WHOLE, 0), WHOLE);
    channel_shutdown(ends[0].channel, SHUT_WR);
    while (bytes > 0 || bytes == -EAGAIN) {
        bytes = channel_receive(ends[1].channel, got, sizeof got);
        if (bytes > 0) good += bytes;
        else if (bytes == -EAGAIN) channel_wait(ends[1].channel, POLLIN, 1000);
    }
    CHECK_EQUAL(good, times ? CONTENT : 0); /* once at most, and nothing after what was wrong */
    CHECK(channel_receive(ends[1].channel, got, sizeof got) <= 0);
    close_both(ends);
}

void test_tls_meddling(void) {
    make_keys();
    for (size_t at = 0; at < 60; at++) meddle(at, 0);
    meddle(30, 1);
    meddle(30, 2); /* a record that comes twice is no record */
}

/* ---- nobody else ------------------------------------------------------------------------------------------------------------ */

static void refused(const rfs_identity *first, const rfs_identity *second, const char *word) {
    struct end ends[2];
    shake_both(ends, first, second);
    CHECK(!ends[1].channel && ends[1].error < 0 && ends[1].reason[0]); /* in TLS 1.3 the dialer may learn of it with its first read */
    if (!strstr(ends[1].reason, word) && !strstr(ends[0].reason, word)) fail_at(ends[1].reason, 0, word);
    uint8_t byte;
    if (ends[0].channel) {
        while (channel_receive(ends[0].channel, &byte, 1) == -EAGAIN) channel_wait(ends[0].channel, POLLIN, 100);
        CHECK(channel_receive(ends[0].channel, &byte, 1) <= 0);
    }
    close_both(ends);
}

static void *talk_otherwise(void *argument) { /* not TLS 1.3 */
    int fd = *(int *)argument;
    char noise[300] = "LOCKSTEP";
    CHECK(send(fd, noise, sizeof noise, MSG_NOSIGNAL) > 0);
    return NULL;
}

static void *talk_tls12(void *argument) {
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(context);
    SSL_set_max_proto_version(ssl, TLS1_2_VERSION);
    SSL_set_fd(ssl, *(int *)argument);
    CHECK(SSL_connect(ssl) <= 0);
    SSL_free(ssl);
    SSL_CTX_free(context);
    return NULL;
}

static void refuses_talk(void *(*talk)(void *), uint32_t timeout_ms, int error) {
    int fds[2], got;
    char reason[RFS_REASON_BYTES];
    pthread_t other;
    rfs_identity own = identity_of(&one, &two);
    connect_ends(fds);
    if (talk) CHECK_EQUAL(pthread_create(&other, NULL, talk, &fds[0]), 0);
    CHECK(!rfs_channel_secure(fds[1], &own, 0, timeout_ms, &got, reason));
    CHECK(reason[0]);
    CHECK_EQUAL(got, error);
    CHECK(fcntl(fds[1], F_GETFD) < 0);
    if (talk) pthread_join(other, NULL);
    close(fds[0]);
}

void test_tls_refusals(void) {
    make_keys();
    rfs_identity a = identity_of(&one, &two), b = identity_of(&two, &one);
    rfs_identity foreign = identity_of(&stranger, &two), misnamed = b;
    refused(&foreign, &b, "not the one that was paired");
    misnamed.pins = stranger.pin; /* its key is known, as that of node one */
    refused(&foreign, &misnamed, "names another node");
    rfs_identity nobody = b;
    nobody.pin_count = 0;
    refused(&a, &nobody, "not the one that was paired");
    refuses_talk(talk_otherwise, TIMEOUT_MS, -EPROTO);
    refuses_talk(talk_tls12, TIMEOUT_MS, -EPROTO);
    refuses_talk(NULL, 200, -ETIMEDOUT);
    rfs_identity lost = b;
    lost.path = "/nonexistent/identity.pem";
    refused(&a, &lost, "this node's own key");
}

/* The clock has no say: a key that is pinned stays the peer's. Two pins: either will do while a key is being replaced. */
void test_tls_pins(void) {
    struct end ends[2];
    uint8_t both[2 * RFS_PIN_BYTES];
    make_keys();
    memcpy(both, stranger.pin, RFS_PIN_BYTES);
    memcpy(both + RFS_PIN_BYTES, expired.pin, RFS_PIN_BYTES);
    rfs_identity a = identity_of(&one, &expired), b = identity_of(&expired, &one);
    a.pins = both;
    a.pin_count = 2;
    shake_both(ends, &a, &b);
    CHECK(ends[0].channel && ends[1].channel);
    close_both(ends);
}

void test_kernel_tls(void) {
    int fds[2];
    struct end ends[2];
    connect_ends(fds);
    bool offered = setsockopt(fds[0], IPPROTO_TCP, TCP_ULP, "tls", 3) == 0;
    close(fds[0]);
    close(fds[1]);
    if (!offered) {
        printf("skipped  kernel tls: this kernel offers none, user space does it\n");
        return;
    }
    make_keys();
    rfs_identity a = identity_of(&one, &two), b = identity_of(&two, &one);
    shake_both(ends, &a, &b);
    CHECK(rfs_channel_kernel_tls(ends[0].channel) & 1);
    close_both(ends);
}

/* Whoever encrypts, in whatever pieces: what comes out is what OpenSSL makes of it in one, and is opened again; a changed byte is noticed. */
static void compare_with_openssl(const EVP_CIPHER *cipher, struct chance *chance) {
    struct aead *seals = aead_new(cipher, true), *opens = aead_new(cipher, false);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    static uint8_t plain[RECORD_DATA_BYTES], sealed[RECORD_DATA_BYTES], wanted[RECORD_DATA_BYTES], opened[RECORD_DATA_BYTES];
    uint8_t key[EVP_MAX_KEY_LENGTH], nonce[AEAD_NONCE_BYTES], tag[AEAD_TAG_BYTES], tag_wanted[AEAD_TAG_BYTES];
    CHECK(seals && opens && context);
    for (int round = 0; round < 200; round++) {
        size_t bytes = 1 + chance_below(chance, RECORD_DATA_BYTES);
        int length;
        for (size_t i = 0; i < bytes; i++) plain[i] = (uint8_t)chance_next(chance);
        for (size_t i = 0; i < sizeof key; i++) key[i] = (uint8_t)chance_next(chance);
        for (size_t i = 0; i < sizeof nonce; i++) nonce[i] = (uint8_t)chance_next(chance);
        CHECK(aead_set_key(seals, key) && aead_set_key(opens, key) && aead_begin(seals, nonce, "head", 4) && aead_begin(opens, nonce, "head", 4));
        for (size_t at = 0, part; at < bytes; at += part) {
            part = 1 + chance_below(chance, 5000);
            if (part > bytes - at) part = bytes - at;
            CHECK(aead_update(seals, plain + at, part, sealed + at));
        }
        CHECK(aead_seal(seals, tag));
        CHECK(EVP_EncryptInit_ex(context, cipher, NULL, key, nonce) == 1 && EVP_EncryptUpdate(context, NULL, &length, (const uint8_t *)"head", 4) == 1);
        CHECK(EVP_EncryptUpdate(context, wanted, &length, plain, (int)bytes) == 1 && EVP_EncryptFinal_ex(context, wanted + length, &length) == 1);
        CHECK_EQUAL(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_BYTES, tag_wanted), 1);
        CHECK(!memcmp(sealed, wanted, bytes) && !memcmp(tag, tag_wanted, sizeof tag));
        bool spoilt = round % 4 == 0;
        if (spoilt) sealed[chance_below(chance, (uint32_t)bytes)] ^= 1;
        CHECK(aead_update(opens, sealed, bytes, opened));
        CHECK_EQUAL(aead_verify(opens, tag), !spoilt);
        if (!spoilt) CHECK(!memcmp(opened, plain, bytes));
    }
    EVP_CIPHER_CTX_free(context);
    aead_free(seals);
    aead_free(opens);
}

void test_aead(void) {
    struct chance chance = {31};
    const EVP_CIPHER *const ciphers[] = {EVP_aes_128_gcm(), EVP_aes_256_gcm(), EVP_chacha20_poly1305()};
    for (size_t i = 0; i < 3; i++) compare_with_openssl(ciphers[i], &chance);
    struct aead *aead = aead_new(EVP_aes_128_gcm(), true);
    CHECK(aead);
    if (!aead_is_wide(aead)) printf("skipped  wide ciphers: not in this build, or not in this processor\n");
    aead_free(aead);
}
