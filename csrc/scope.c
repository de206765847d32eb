/* Patterns are matched name by name on the way down: a scope is the set of places in the patterns that have been reached, one bit each, so
 * a name costs one step from its directory's scope, whatever the depth, and no path is ever put together.
 *
 * A pattern is a row of names with *, ? and [...], separated by slashes; ** stands for any number of names, also none. One without a
 * slash matches at any depth; ./name only at the top. What it matches it matches with everything below. At the end ** means "what is below".
 * With `only` patterns a directory that none has matched is replicated as long as something below it still may be. */
#include "scope.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Whether [...] at *pattern (behind the bracket) holds the byte; *pattern moves behind it. Without an end it is a bracket like any other byte. */
static bool in_brackets(const char **pattern, unsigned char byte) {
    const char *at = *pattern;
    bool negated = *at == '!' || *at == '^', found = false;
    at += negated;
    for (const char *first = at; *at && (*at != ']' || at == first); at++) {
        unsigned char low = (unsigned char)*at, high = low;
        if (at[1] == '-' && at[2] && at[2] != ']') {
            high = (unsigned char)at[2];
            at += 2;
        }
        found |= low <= byte && byte <= high;
    }
    if (!*at) return byte == '[';
    *pattern = at + 1;
    return found != negated;
}

/* Bytes, not characters: two nodes with other languages must agree. */
static bool matches(const char *pattern, const char *name) {
    const char *star = NULL, *rest = NULL;
    for (;;) {
        const char *next = pattern + 1;
        if (*pattern == '*') { /* remembered: what follows is tried further on each time it fails */
            star = pattern = next;
            rest = name;
            continue;
        }
        if (!*pattern && !*name) return true;
        bool same = *pattern && *name && (*pattern == '?' || (*pattern == '[' ? in_brackets(&next, (unsigned char)*name) : *pattern == *name));
        if (same) {
            pattern = next;
            name++;
        } else {
            if (!star || !*rest) return false;
            pattern = star;
            name = ++rest;
        }
    }
}

static scope_t bit(uint32_t part) { return UINT64_C(1) << part; }

/* From `**` on the next part is reached as well: it may stand for nothing. It is never the last part. */
static scope_t reach(const struct scopes *scopes, uint32_t part) {
    scope_t reached = bit(part);
    while (!scopes->part[part].text) reached |= bit(++part);
    return reached;
}

static int add_part(struct scopes *scopes, const char *text, size_t bytes, bool last, bool only) {
    bool any_depth = bytes == 2 && !memcmp(text, "**", 2);
    if (!bytes || (bytes == 1 && *text == '.') || (bytes == 2 && !memcmp(text, "..", 2))) return -EINVAL;
    if (scopes->parts == SCOPE_PARTS) return -E2BIG;
    char *copy = any_depth && !last ? NULL : any_depth ? strdup("*") : strndup(text, bytes);
    if (!copy && (!any_depth || last)) return -ENOMEM;
    if (only) scopes->only |= bit(scopes->parts);
    scopes->part[scopes->parts].text = copy;
    scopes->part[scopes->parts].last = last;
    scopes->part[scopes->parts++].only = only;
    return 0;
}

static uint32_t mark_of(uint32_t mark, const char *text) {
    for (; *text; text++) mark = (mark ^ (uint8_t)*text) * UINT32_C(16777619);
    return mark * UINT32_C(16777619);
}

int scopes_add(struct scopes *scopes, const char *pattern, bool only) {
    uint32_t first = scopes->parts, mark = mark_of(mark_of(scopes->mark + UINT32_C(2166136261), only ? "+" : "-"), pattern);
    int result = 0;
    if (strncmp(pattern, "./", 2) == 0) pattern += 2;
    else if (!strchr(pattern, '/')) result = add_part(scopes, "**", 2, false, only);
    for (bool last = false; result == 0 && !last;) {
        const char *end = strchrnul(pattern, '/');
        last = !*end;
        result = add_part(scopes, pattern, (size_t)(end - pattern), last, only);
        pattern = end + 1;
    }
    if (result == 0) {
        scopes->any = true;
        scopes->mark = mark;
        scopes->root |= reach(scopes, first);
        return 0;
    }
    while (scopes->parts > first) free(scopes->part[--scopes->parts].text);
    for (uint32_t part = first; part < SCOPE_PARTS; part++) scopes->only &= ~bit(part);
    return result;
}

void scopes_free(struct scopes *scopes) {
    while (scopes->parts) free(scopes->part[--scopes->parts].text);
}

/* Local is local with all below, and what is chosen asks no `only` any more: so equal meanings are equal scopes. */
static scope_t judge(const struct scopes *scopes, scope_t scope, bool is_directory) {
    if (scope & SCOPE_LOCAL) return SCOPE_LOCAL;
    if (scope & SCOPE_CHOSEN) scope &= ~scopes->only;
    else if (scopes->only && !(is_directory && scope & scopes->only)) return SCOPE_LOCAL;
    return is_directory ? scope : 0;
}

scope_t scope_below(const struct scopes *scopes, scope_t parent, const char *name, bool is_directory) {
    scope_t scope = parent & (SCOPE_LOCAL | SCOPE_CHOSEN);
    if (!scopes->any || scope & SCOPE_LOCAL) return scope;
    for (uint32_t part = 0; part < scopes->parts; part++) {
        if (!(parent & bit(part))) continue;
        if (!scopes->part[part].text) scope |= reach(scopes, part);
        else if (!matches(scopes->part[part].text, name)) continue;
        else if (scopes->part[part].last) scope |= scopes->part[part].only ? SCOPE_CHOSEN : SCOPE_LOCAL;
        else scope |= reach(scopes, part + 1);
    }
    return judge(scopes, scope, is_directory);
}
