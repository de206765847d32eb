/* What a peer with a valid key may ask for: each frame that changes something here is judged before it is used. */
#ifndef LOCKSTEP_FRAME_RULES_H
#define LOCKSTEP_FRAME_RULES_H

#include "engine.h"
#include "wire.h"

/* 0, or -EPROTO with a few words of ours: never a byte of the peer's. The body is decoded, so its lengths and names are what they say. */
int frame_judge(int policy, const struct wire_header *header, const struct op_body *body, const uint8_t *data, const char **why);
#endif
