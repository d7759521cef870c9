/* slowlog.h: commands that took long: SLOWLOG; inside src/server only. */
#ifndef COVEY_SERVER_SLOWLOG_H
#define COVEY_SERVER_SLOWLOG_H

#include "observe/slowlog.h"
#include "server/conn.h"

/* Sets n->slowlog; before the workers start. */
void slowlog_init(struct node *n);
/* A call is over and took so many microseconds.  Any worker; a relaxed load for one that was not slow. */
void slowlog_note(struct node *n, const struct conn *c, const struct call *call, uint64_t us);

#endif
