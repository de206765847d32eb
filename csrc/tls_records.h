/* TLS 1.3 records (RFC 8446 §5) of one direction, under the keys of a handshake that OpenSSL made. See channel.c for why. */
#ifndef LOCKSTEP_TLS_RECORDS_H
#define LOCKSTEP_TLS_RECORDS_H

#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "aead.h"

enum {
    RECORD_DATA_BYTES = 16384, /* the most that one record holds */
    RECORD_HEADER_BYTES = 5,
    RECORD_ADDED_BYTES = RECORD_HEADER_BYTES + 1 + AEAD_TAG_BYTES, /* the one: what kind of content it is */
    RECORD_ALERT = 21,
    RECORD_HANDSHAKE = 22,
    RECORD_DATA = 23,
    SECRET_BYTES_MAX = 48,
};

struct record_keys {
    struct aead *cipher;
    const EVP_MD *hash;
    uint8_t secret[SECRET_BYTES_MAX], iv[AEAD_NONCE_BYTES];
    size_t secret_bytes;
    uint64_t sequence;
};

/* The keys that follow from a traffic secret, for the suite that was agreed. */
int record_keys_open(struct record_keys *keys, const SSL_CIPHER *suite, const uint8_t *secret, size_t bytes, int encrypts);
/* The next generation of keys, after a KeyUpdate (§7.2). */
int record_keys_update(struct record_keys *keys);
void record_keys_close(struct record_keys *keys);

/* One record of `count` parts, together at most RECORD_DATA_BYTES, into `out`; its length. */
ssize_t record_seal(struct record_keys *keys, uint8_t type, const struct iovec *parts, int count, uint8_t *out);
/* The bytes of the whole record that `data` begins with; 0: not all of it has arrived; -EPROTO: no record. */
ssize_t record_length(const uint8_t *data, size_t bytes);
/* Decrypts and checks a whole record into `out` (room for RECORD_DATA_BYTES + 1); the bytes of its content, or -EBADMSG. */
ssize_t record_open(struct record_keys *keys, const uint8_t *record, size_t bytes, uint8_t *out, uint8_t *type);
#endif
