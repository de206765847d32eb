/* What a module does not let into its directories, whoever asks: device nodes, and what gives its owner's rights to who runs it. The primary
 * refuses it with EPERM before it is done, so that both copies stay equal; a peer that sends it all the same breaks the rules (frame_rules.c). */
#ifndef LOCKSTEP_POLICY_H
#define LOCKSTEP_POLICY_H

#include <string.h>

#include "engine.h"

#define CAPABILITY_ATTRIBUTE "security.capability"

/* mode: with its type. A directory's setgid bit gives nobody any rights. */
static inline bool policy_forbids(int policy, uint32_t mode) {
    if (policy & RFS_REFUSE_DEVICES && (S_ISCHR(mode) || S_ISBLK(mode))) return true;
    return policy & RFS_REFUSE_SETUID && !S_ISDIR(mode) && mode & (S_ISUID | S_ISGID);
}

static inline bool policy_forbids_xattr(int policy, const char *name) { return policy & RFS_REFUSE_SETUID && !strcmp(name, CAPABILITY_ATTRIBUTE); }
#endif
