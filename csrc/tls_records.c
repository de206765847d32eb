/* TLS 1.3 records. Each direction has keys, and a sequence that makes the nonce of each record; nothing is shared between the two. */
#include "tls_records.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <stdbool.h>
#include <string.h>

/* HKDF-Expand-Label(secret, label, "", bytes) */
static int expand_label(const struct record_keys *keys, const char *label, uint8_t *out, size_t bytes) {
    uint8_t info[64] = {(uint8_t)(bytes >> 8), (uint8_t)bytes};
    size_t label_bytes = strlen(label) + 6;
    info[2] = (uint8_t)label_bytes;
    memcpy(info + 3, "tls13 ", 6);
    memcpy(info + 9, label, label_bytes - 6);
    size_t info_bytes = 3 + label_bytes + 1; /* the last one: no context */
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *context = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)(uintptr_t)EVP_MD_get0_name(keys->hash), 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)keys->secret, keys->secret_bytes),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, info_bytes),
        OSSL_PARAM_construct_end(),
    };
    int result = context && EVP_KDF_derive(context, out, bytes, parameters) == 1 ? 0 : -EPROTO;
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(kdf);
    return result;
}

static int set_keys(struct record_keys *keys) {
    uint8_t key[EVP_MAX_KEY_LENGTH];
    int result = expand_label(keys, "key", key, aead_key_bytes(keys->cipher));
    if (result == 0) result = expand_label(keys, "iv", keys->iv, sizeof keys->iv);
    if (result == 0 && !aead_set_key(keys->cipher, key)) result = -EPROTO;
    OPENSSL_cleanse(key, sizeof key);
    keys->sequence = 0;
    return result;
}

int record_keys_open(struct record_keys *keys, const SSL_CIPHER *suite, const uint8_t *secret, size_t bytes, int encrypts) {
    const EVP_CIPHER *cipher = EVP_get_cipherbynid(SSL_CIPHER_get_cipher_nid(suite));
    if (!cipher || !bytes || bytes > SECRET_BYTES_MAX) return -EPROTO;
    *keys = (struct record_keys){.cipher = aead_new(cipher, encrypts), .hash = SSL_CIPHER_get_handshake_digest(suite), .secret_bytes = bytes};
    memcpy(keys->secret, secret, bytes);
    return !keys->cipher ? -ENOMEM : !keys->hash ? -EPROTO : set_keys(keys);
}

int record_keys_update(struct record_keys *keys) {
    uint8_t next[SECRET_BYTES_MAX];
    int result = expand_label(keys, "traffic upd", next, keys->secret_bytes);
    if (result == 0) memcpy(keys->secret, next, keys->secret_bytes);
    OPENSSL_cleanse(next, sizeof next);
    return result == 0 ? set_keys(keys) : result;
}

void record_keys_close(struct record_keys *keys) {
    aead_free(keys->cipher);
    OPENSSL_cleanse(keys, sizeof *keys);
}

static bool begin(struct record_keys *keys, const uint8_t *header) {
    uint8_t nonce[AEAD_NONCE_BYTES];
    memcpy(nonce, keys->iv, sizeof nonce);
    for (int i = 0; i < 8; i++) nonce[AEAD_NONCE_BYTES - 1 - i] ^= (uint8_t)(keys->sequence >> (8 * i));
    keys->sequence++;
    return aead_begin(keys->cipher, nonce, header, RECORD_HEADER_BYTES);
}

ssize_t record_seal(struct record_keys *keys, uint8_t type, const struct iovec *parts, int count, uint8_t *out) {
    size_t content = 0;
    for (int i = 0; i < count; i++) content += parts[i].iov_len;
    size_t sealed = content + 1 + AEAD_TAG_BYTES;
    uint8_t *at = out + RECORD_HEADER_BYTES;
    memcpy(out, (const uint8_t[]){RECORD_DATA, 3, 3, (uint8_t)(sealed >> 8), (uint8_t)sealed}, RECORD_HEADER_BYTES);
    bool good = begin(keys, out);
    for (int i = 0; good && i < count; i++) {
        good = aead_update(keys->cipher, parts[i].iov_base, parts[i].iov_len, at);
        at += parts[i].iov_len;
    }
    good = good && aead_update(keys->cipher, &type, 1, at) && aead_seal(keys->cipher, at + 1); /* last comes the type of the content */
    return good ? (ssize_t)(sealed + RECORD_HEADER_BYTES) : -EPROTO;
}

ssize_t record_length(const uint8_t *data, size_t bytes) {
    if (bytes < RECORD_HEADER_BYTES) return 0;
    size_t sealed = (size_t)data[3] << 8 | data[4];
    if (data[0] != RECORD_DATA || data[1] != 3 || sealed < 1 + AEAD_TAG_BYTES || sealed > RECORD_DATA_BYTES + 1 + AEAD_TAG_BYTES) return -EPROTO;
    return bytes >= sealed + RECORD_HEADER_BYTES ? (ssize_t)(sealed + RECORD_HEADER_BYTES) : 0;
}

ssize_t record_open(struct record_keys *keys, const uint8_t *record, size_t bytes, uint8_t *out, uint8_t *type) {
    size_t content = bytes - RECORD_HEADER_BYTES - AEAD_TAG_BYTES;
    bool good = begin(keys, record) && aead_update(keys->cipher, record + RECORD_HEADER_BYTES, content, out) && aead_verify(keys->cipher, record + bytes - AEAD_TAG_BYTES);
    if (!good) return -EBADMSG;
    while (content && !out[content - 1]) content--; /* padding */
    if (!content) return -EBADMSG;
    *type = out[content - 1];
    return (ssize_t)content - 1;
}
