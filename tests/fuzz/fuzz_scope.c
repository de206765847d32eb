/* Patterns against names: any patterns that rfs/patterns.py lets through, and what it does not; any names that a user makes. What a
 * part of a pattern matches is what a second, much slower reading says.
 *
 * An input: a byte (how many patterns), then the patterns and the names of a path, each ended by a NUL; a pattern that begins with + is an `only`. */
#include "../../csrc/scope.c" /* matches() is its own */

#include "scratch.h"

enum { LONGEST_BYTES = 255, MOST_PATTERNS = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes);

/* One element of a pattern at `pattern`: its bytes, and whether it takes this byte. */
static size_t element(const char *pattern, unsigned char byte, bool *takes) {
    if (*pattern != '[') {
        *takes = *pattern == '?' || (unsigned char)*pattern == byte;
        return 1;
    }
    const char *at = pattern + 1;
    bool negated = *at == '!' || *at == '^', found = false, first = true;
    if (negated) at++;
    while (*at && (first || *at != ']')) {
        first = false;
        if (at[1] == '-' && at[2] && at[2] != ']') {
            found |= (unsigned char)at[0] <= byte && byte <= (unsigned char)at[2];
            at += 3;
        } else {
            found |= (unsigned char)*at++ == byte;
        }
    }
    *takes = *at ? found != negated : byte == '[';
    return *at ? (size_t)(at + 1 - pattern) : 1;
}

/* By a table of all pairs of places, from the ends. */
static bool slowly(const char *pattern, const char *name) {
    static bool table[LONGEST_BYTES + 2][LONGEST_BYTES + 2];
    size_t rows = strlen(pattern), columns = strlen(name);
    for (size_t i = rows + 1; i-- > 0;)
        for (size_t j = columns + 1; j-- > 0;) {
            bool takes = false;
            if (i == rows) table[i][j] = j == columns;
            else if (pattern[i] == '*') table[i][j] = table[i + 1][j] || (j < columns && table[i][j + 1]);
            else {
                size_t more = element(pattern + i, (unsigned char)name[j], &takes);
                table[i][j] = j < columns && takes && table[i + more][j + 1];
            }
        }
    return table[0][0];
}

static void check_parts(const struct scopes *scopes, const char *name) {
    for (uint32_t part = 0; part < scopes->parts; part++) {
        const char *text = scopes->part[part].text;
        if (text && strlen(text) <= LONGEST_BYTES) CHECK(matches(text, name) == slowly(text, name));
    }
}

static const char *next_text(const uint8_t **at, const uint8_t *end, char out[LONGEST_BYTES + 1]) {
    size_t used = 0;
    while (*at < end && **at) {
        if (used < LONGEST_BYTES) out[used++] = (char)**at;
        ++*at;
    }
    if (*at < end) ++*at;
    out[used] = 0;
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes) {
    if (!bytes) return 0;
    struct scopes scopes = {0};
    const uint8_t *at = input + 1, *end = input + bytes;
    char text[LONGEST_BYTES + 1];
    for (int i = 0; i < input[0] % MOST_PATTERNS; i++) {
        struct scopes before = scopes;
        const char *pattern = next_text(&at, end, text);
        bool only = *pattern == '+';
        int result = scopes_add(&scopes, pattern + only, only);
        CHECK(result == 0 || result == -EINVAL || result == -E2BIG);
        if (result < 0) CHECK(scopes.parts == before.parts && scopes.root == before.root && scopes.only == before.only && scopes.mark == before.mark);
        CHECK(scopes.parts <= SCOPE_PARTS && (scopes.parts == SCOPE_PARTS || !(scopes.root >> scopes.parts & ~(SCOPE_LOCAL | SCOPE_CHOSEN) >> scopes.parts)));
    }
    scope_t scope = scopes.root;
    while (at < end) {
        const char *name = next_text(&at, end, text);
        check_parts(&scopes, name);
        scope_t below = scope_below(&scopes, scope, name, true), file = scope_below(&scopes, scope, name, false);
        CHECK(!(scope & SCOPE_LOCAL) || (below == SCOPE_LOCAL && file == SCOPE_LOCAL));
        CHECK(!(scope & SCOPE_CHOSEN) || below & (SCOPE_CHOSEN | SCOPE_LOCAL));
        scope = below;
    }
    scopes_free(&scopes);
    return 0;
}
