/* The intent log: the marks as bytes in two files of the state directory. Without I/O: it says what to write where, and the caller does so (and the
 * simulator tears it up). docs/disk-format.md is the table for people.
 *
 * A file is a row of slots of 64 bytes: a header, then records of one or more slots. What is noted together is written as one batch and made
 * durable as one; a mark counts once log_written() was told. A checkpoint writes what is left into the other file, which is the newer one from its last
 * byte on; so there is always a whole one.
 *
 * Reading. A record's checksum covers its place and its file's nonce, so nothing of an earlier use is taken for one. Where the row ends, the tail of a
 * batch that was never durable may be torn: what follows the gap does not count. If records of a *later* batch follow, a
 * durable one is broken: the log is damaged, and everything is marked. So is it when there is no log at all.
 *
 * The grains of chunks are exact only at an orderly stop, whose CLEAN record is the last; after a crash a marked chunk is marked whole. */
#ifndef LOCKSTEP_INTENT_LOG_H
#define LOCKSTEP_INTENT_LOG_H

#include "marks.h"

/* cffi: begin */
enum { LOG_SLOT_BYTES = 64, LOG_FILES = 2 };

typedef struct rfs_log rfs_log;
typedef struct {
    const uint8_t *data; /* valid until the next call */
    size_t bytes;
    uint64_t offset;
    int32_t file; /* 0 or 1 */
} rfs_log_write;

rfs_log *log_new(uint64_t nonce); /* any number: what an earlier log has left in the files must not look like ours */
void log_free(rfs_log *log);
/* Into empty marks. 0; -ENOENT: no log here; -EBADMSG: damaged (the marks hold what could be read, and everything); -ENOMEM. After the first two a
 * log_compact() must be written before anything else, after the last one as well. */
int log_load(rfs_log *log, const uint8_t *first, size_t first_bytes, const uint8_t *second, size_t second_bytes, rfs_marks *marks);
/* For the next batch. -ENOMEM: note everything instead. */
int log_note(rfs_log *log, const rfs_mark *mark);
int log_note_where(rfs_log *log, const rfs_where *where); /* after a mark of the same object */
int log_note_opened(rfs_log *log); /* the first of a process: what was exact is so no more */
void log_note_everything(rfs_log *log); /* throws the batch away for one record that always has room */
/* The batch, to be written and synced; 1: there is one. Then log_written(), or log_note_everything() and again if there is no space. */
int log_batch(rfs_log *log, rfs_log_write *write);
void log_written(rfs_log *log);
/* The write ended short (no space): a batch keeps its notes, a compaction is given up and the file of before goes on. Not after a sync that
 * failed: what was written then may be read as whole by the next process. */
void log_not_written(rfs_log *log);
/* All marks into the other file. `clean`: the last word of this process. The new file counts from log_written() on; until then log_batch() is not called. */
int log_compact(rfs_log *log, const rfs_marks *marks, bool clean, rfs_log_write *write);
uint64_t log_end(const rfs_log *log); /* bytes of the live file that are in use */
/* cffi: end */

uint32_t crc32c(uint32_t crc, const void *data, size_t bytes);
#endif
