/* The bytes of a data link: a connected socket, plain or under TLS 1.3. Only channel.c sees the socket, only it and tls_records.c OpenSSL. */
#ifndef LOCKSTEP_CHANNEL_H
#define LOCKSTEP_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "rfs_engine.h"

/* How many bytes of `parts` were taken (they need not be kept), or -EAGAIN: the socket is full, wait for POLLOUT and call again. With no
 * part it sends what was taken and did not fit; 0: nothing is left. One thread at a time. */
ssize_t channel_send(rfs_channel *channel, const struct iovec *parts, int count);
/* Bytes received, 0 at the end, -EAGAIN: nothing there now, wait for POLLIN. `room` is more than 16 KiB: records come whole. One thread at a
 * time. */
ssize_t channel_receive(rfs_channel *channel, uint8_t *buffer, size_t room);
/* Until the socket is ready for POLLIN or POLLOUT; false after timeout_ms. */
bool channel_wait(const rfs_channel *channel, short events, int timeout_ms);
/* `how` as for shutdown(2): both directions at once, or only the receiving one: what has arrived can still be read. */
void channel_shutdown(rfs_channel *channel, int how);
bool channel_is_sealed(const rfs_channel *channel); /* under TLS */
/* Larger socket buffers, no delays: for a link that is waited for. */
void channel_tune(rfs_channel *channel);
/* After so many sent records the sending key is replaced. Tests lower it. */
void channel_set_rekey_records(rfs_channel *channel, uint64_t records);
uint64_t channel_key_updates(const rfs_channel *channel);
#endif
