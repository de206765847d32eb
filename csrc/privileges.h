/* What a thread may ask of the kernel. */
#ifndef LOCKSTEP_PRIVILEGES_H
#define LOCKSTEP_PRIVILEGES_H

/* For the calling thread, and those that it starts: it reads what the peer sent. Never refuses to go on. */
void privileges_of_the_link(void);

#endif
