/* Reading directories for what looks through whole trees. A disk's error is never the end of a directory: what is taken for gone is taken away
 * on the other node. */
#pragma once
#include <dirent.h>
#include <stdatomic.h>

#include "engine.h"

/* The directory `name` in directory_fd. 0, or -errno. The stream is the caller's, for closedir(). */
int tree_open(int directory_fd, const char *name, DIR **out);
/* The same of an open one: takes fd, also when it fails. fd may be an -errno: then it is the result. */
int tree_stream(int fd, DIR **out);
/* The next name but "." and "..", and in a root those that applications do not see. NULL: that was all, or *result is the -errno. */
struct dirent *tree_next(DIR *stream, bool is_root, int *result);

struct tree_tally {
    const atomic_bool *stop;
    atomic_uint_fast64_t *files, *bytes;
};

/* All that is replicated below a root. An estimate: no locks; what cannot be read is left out. */
void tree_count(const struct scopes *scopes, int root_fd, const struct tree_tally *tally);
