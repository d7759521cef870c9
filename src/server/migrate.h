/* migrate.h: the connections that MIGRATE keeps open for its next call; inside src/server only. */
#ifndef COVEY_SERVER_MIGRATE_H
#define COVEY_SERVER_MIGRATE_H

#include "server/node.h"

/* Closes those that were not used for ten seconds.  Any thread, now and then. */
void migrate_close_idle(struct node *n, int64_t now_mono_ms);

#endif
