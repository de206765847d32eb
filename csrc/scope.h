/* What of a tree is replicated, by name patterns. The rest is local: it is there for applications, and the peer never hears of it. */
#ifndef LOCKSTEP_SCOPE_H
#define LOCKSTEP_SCOPE_H

#include <stdbool.h>
#include <stdint.h>

/* What the patterns have seen of an object's path, and so what they may still say of what is below it. Equal scopes mean the same for
 * everything below. A local object's is SCOPE_LOCAL, and so is everything's below it. */
typedef uint64_t scope_t;
#define SCOPE_LOCAL (UINT64_C(1) << 63)
#define SCOPE_CHOSEN (UINT64_C(1) << 62) /* an `only` pattern has matched it or a directory above it */

enum { SCOPE_PARTS = 62 };

struct scopes {
    struct {
        char *text;   /* of one name; NULL: "**" */
        bool last, only;
    } part[SCOPE_PARTS];
    uint32_t parts;
    scope_t root;     /* the directory's own */
    scope_t only;     /* the parts of `only` patterns */
    uint32_t mark;    /* of all patterns: scopes of other patterns mean something else */
    bool any;
};

/* 0, -EINVAL (not a pattern), -E2BIG (too many parts in all) or -ENOMEM. `only`: only what one of these matches is replicated. */
int scopes_add(struct scopes *scopes, const char *pattern, bool only);
void scopes_free(struct scopes *scopes);
scope_t scope_below(const struct scopes *scopes, scope_t parent, const char *name, bool is_directory);
#endif
