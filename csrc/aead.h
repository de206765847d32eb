/* The cipher of one direction of a channel: authenticated encryption of one record after the other (AES-GCM or ChaCha20-Poly1305). */
#ifndef LOCKSTEP_AEAD_H
#define LOCKSTEP_AEAD_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { AEAD_NONCE_BYTES = 12, AEAD_TAG_BYTES = 16 };

struct aead;

/* NULL: no memory, or not a cipher of that kind. It has no key yet. */
struct aead *aead_new(const EVP_CIPHER *cipher, bool encrypts);
void aead_free(struct aead *aead);
bool aead_is_wide(const struct aead *aead); /* by the processor's wide instructions, not by OpenSSL */
size_t aead_key_bytes(const struct aead *aead);
bool aead_set_key(struct aead *aead, const uint8_t *key);

/* A record: what is only authenticated, then the content in any number of pieces, then its tag. False: it must not be used. */
bool aead_begin(struct aead *aead, const uint8_t nonce[AEAD_NONCE_BYTES], const void *header, size_t bytes);
bool aead_update(struct aead *aead, const void *in, size_t bytes, uint8_t *out);
bool aead_seal(struct aead *aead, uint8_t tag[AEAD_TAG_BYTES]);
bool aead_verify(struct aead *aead, const uint8_t tag[AEAD_TAG_BYTES]);
#endif
