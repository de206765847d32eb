/* OpenSSL's ciphers; and, where the processor encrypts several blocks with one instruction (VAES) and the library for it was there when
 * this was built, that library's AES-GCM: OpenSSL before 3.1 knows nothing of these instructions and takes three times as long. */
#include "aead.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && __has_include(<intel-ipsec-mb.h>)
#include <intel-ipsec-mb.h>
#define HAS_WIDE 1
#else
#define HAS_WIDE 0
#endif

struct wide;

struct aead {
    EVP_CIPHER_CTX *context;
    struct wide *wide; /* NULL: OpenSSL's */
    bool encrypts;
};

#if HAS_WIDE

struct wide {
    struct gcm_key_data key;
    struct gcm_context_data record;
    IMB_MGR *library;
    bool long_key; /* AES-256 */
};

static void wide_free(struct wide *wide) {
    if (!wide) return;
    if (wide->library) free_mb_mgr(wide->library);
    OPENSSL_cleanse(wide, sizeof *wide);
    free(wide);
}

static struct wide *wide_new(const EVP_CIPHER *cipher) {
    const uint64_t needed = IMB_FEATURE_VAES | IMB_FEATURE_VPCLMULQDQ | IMB_FEATURE_AVX512_SKX;
    int kind = EVP_CIPHER_get_nid(cipher);
    if (kind != NID_aes_128_gcm && kind != NID_aes_256_gcm) return NULL;
    const size_t room = (sizeof(struct wide) + 63) / 64 * 64;
    struct wide *wide = aligned_alloc(64, room);
    if (!wide) return NULL;
    memset(wide, 0, sizeof *wide);
    wide->long_key = kind == NID_aes_256_gcm;
    wide->library = alloc_mb_mgr(0);
    IMB_ARCH found = IMB_ARCH_NONE;
    if (wide->library) init_mb_mgr_auto(wide->library, &found);
    if (found == IMB_ARCH_AVX512 && (wide->library->features & needed) == needed) return wide;
    wide_free(wide);
    return NULL;
}

static bool wide_set_key(struct wide *wide, const uint8_t *key) {
    if (wide->long_key) IMB_AES256_GCM_PRE(wide->library, key, &wide->key);
    else IMB_AES128_GCM_PRE(wide->library, key, &wide->key);
    return true;
}

static bool wide_begin(struct wide *wide, const uint8_t *nonce, const void *header, size_t bytes) {
    if (wide->long_key) IMB_AES256_GCM_INIT(wide->library, &wide->key, &wide->record, nonce, header, bytes);
    else IMB_AES128_GCM_INIT(wide->library, &wide->key, &wide->record, nonce, header, bytes);
    return true;
}

static bool wide_update(struct wide *wide, bool encrypts, const void *in, size_t bytes, uint8_t *out) {
    IMB_MGR *library = wide->library;
    if (wide->long_key && encrypts) IMB_AES256_GCM_ENC_UPDATE(library, &wide->key, &wide->record, out, in, bytes);
    else if (wide->long_key) IMB_AES256_GCM_DEC_UPDATE(library, &wide->key, &wide->record, out, in, bytes);
    else if (encrypts) IMB_AES128_GCM_ENC_UPDATE(library, &wide->key, &wide->record, out, in, bytes);
    else IMB_AES128_GCM_DEC_UPDATE(library, &wide->key, &wide->record, out, in, bytes);
    return true;
}

static bool wide_finish(struct wide *wide, bool encrypts, uint8_t *tag) {
    IMB_MGR *library = wide->library;
    if (wide->long_key && encrypts) IMB_AES256_GCM_ENC_FINALIZE(library, &wide->key, &wide->record, tag, AEAD_TAG_BYTES);
    else if (wide->long_key) IMB_AES256_GCM_DEC_FINALIZE(library, &wide->key, &wide->record, tag, AEAD_TAG_BYTES);
    else if (encrypts) IMB_AES128_GCM_ENC_FINALIZE(library, &wide->key, &wide->record, tag, AEAD_TAG_BYTES);
    else IMB_AES128_GCM_DEC_FINALIZE(library, &wide->key, &wide->record, tag, AEAD_TAG_BYTES);
    return true;
}

#else

static struct wide *wide_new(const EVP_CIPHER *cipher) { (void)cipher; return NULL; }
static void wide_free(struct wide *wide) { (void)wide; }
static bool wide_set_key(struct wide *wide, const uint8_t *key) { (void)wide; (void)key; return false; }
static bool wide_begin(struct wide *wide, const uint8_t *nonce, const void *header, size_t bytes) { (void)wide; (void)nonce; (void)header; (void)bytes; return false; }
static bool wide_update(struct wide *wide, bool encrypts, const void *in, size_t bytes, uint8_t *out) { (void)wide; (void)encrypts; (void)in; (void)bytes; (void)out; return false; }
static bool wide_finish(struct wide *wide, bool encrypts, uint8_t *tag) { (void)wide; (void)encrypts; (void)tag; return false; }

#endif

struct aead *aead_new(const EVP_CIPHER *cipher, bool encrypts) {
    struct aead *aead = cipher ? calloc(1, sizeof *aead) : NULL;
    if (!aead) return NULL;
    aead->encrypts = encrypts;
    aead->wide = wide_new(cipher);
    aead->context = EVP_CIPHER_CTX_new();
    if (aead->context && EVP_CipherInit_ex(aead->context, cipher, NULL, NULL, NULL, encrypts) == 1 &&
        EVP_CIPHER_CTX_ctrl(aead->context, EVP_CTRL_AEAD_SET_IVLEN, AEAD_NONCE_BYTES, NULL) == 1)
        return aead;
    aead_free(aead);
    return NULL;
}

void aead_free(struct aead *aead) {
    if (!aead) return;
    wide_free(aead->wide);
    EVP_CIPHER_CTX_free(aead->context);
    free(aead);
}

bool aead_is_wide(const struct aead *aead) { return aead->wide != NULL; }

size_t aead_key_bytes(const struct aead *aead) { return (size_t)EVP_CIPHER_CTX_get_key_length(aead->context); }

bool aead_set_key(struct aead *aead, const uint8_t *key) {
    if (aead->wide) return wide_set_key(aead->wide, key);
    return EVP_CipherInit_ex(aead->context, NULL, NULL, key, NULL, aead->encrypts) == 1;
}

bool aead_begin(struct aead *aead, const uint8_t nonce[AEAD_NONCE_BYTES], const void *header, size_t bytes) {
    int length;
    if (aead->wide) return wide_begin(aead->wide, nonce, header, bytes);
    return EVP_CipherInit_ex(aead->context, NULL, NULL, NULL, nonce, aead->encrypts) == 1 && EVP_CipherUpdate(aead->context, NULL, &length, header, (int)bytes) == 1;
}

bool aead_update(struct aead *aead, const void *in, size_t bytes, uint8_t *out) {
    int length;
    if (aead->wide) return wide_update(aead->wide, aead->encrypts, in, bytes, out);
    return EVP_CipherUpdate(aead->context, out, &length, in, (int)bytes) == 1 && (size_t)length == bytes;
}

bool aead_seal(struct aead *aead, uint8_t tag[AEAD_TAG_BYTES]) {
    int length;
    if (aead->wide) return wide_finish(aead->wide, true, tag);
    return EVP_CipherFinal_ex(aead->context, tag, &length) == 1 && length == 0 && EVP_CIPHER_CTX_ctrl(aead->context, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_BYTES, tag) == 1;
}

bool aead_verify(struct aead *aead, const uint8_t tag[AEAD_TAG_BYTES]) {
    uint8_t mine[AEAD_TAG_BYTES];
    int length;
    if (aead->wide) return wide_finish(aead->wide, false, mine) && CRYPTO_memcmp(mine, tag, AEAD_TAG_BYTES) == 0;
    memcpy(mine, tag, AEAD_TAG_BYTES);
    return EVP_CIPHER_CTX_ctrl(aead->context, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG_BYTES, mine) == 1 && EVP_CipherFinal_ex(aead->context, mine, &length) == 1;
}
