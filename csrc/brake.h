/* When a resync has taken away more than it left (brake.c). */
#ifndef LOCKSTEP_BRAKE_H
#define LOCKSTEP_BRAKE_H

#include "engine.h"

#define BRAKE_PREFIX "removed." /* in KEPT_NAME: removed.NUMBER.FILES-of-FILES */

enum { BRAKE_FILES = 1000 }; /* fewer are purged without a word */

/* Pure: are so many files to be kept, where so many were left? */
bool brake_holds(uint64_t held, uint64_t left);
/* Before what is held in this directory is purged. 1: it was set aside instead, and nothing of it is there to purge. Takes state. */
int brake(rfs_engine *engine, uint16_t directory);
#endif
