/* What this process asks of the kernel for itself. It serves a file system: when memory is short the kernel writes pages back through it, so it
 * must never wait for memory that can only become free through it. */
#include <errno.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "rfs_engine.h"

int rfs_hold_memory(void) {
    int flusher = prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0 ? -errno : 0; /* its own allocations start no write-back; threads inherit it */
    int locked = mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0 ? -errno : 0; /* what it has touched is never swapped out */
    return flusher < 0 ? flusher : locked;
}
