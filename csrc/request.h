/* Is a message of the kernel what its opcode says? Asked once, before anybody looks into it. */
#ifndef LOCKSTEP_REQUEST_H
#define LOCKSTEP_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* `body`: what follows the header. `extended_setxattr`: FUSE_SETXATTR_EXT was agreed on, which makes that request's fixed part longer. */
bool request_is_whole(uint32_t opcode, bool extended_setxattr, const uint8_t *body, size_t bytes);
bool request_has_answer(uint32_t opcode); /* the kernel waits for none to a FORGET */
#endif
