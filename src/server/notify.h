/* notify.h: keyspace notifications; inside src/server only. */
#ifndef COVEY_SERVER_NOTIFY_H
#define COVEY_SERVER_NOTIFY_H

#include "server/conn.h"

/* What happened to a key is published on __keyspace@<db>__:<key> and __keyevent@<db>__:<event>, as far as
 * notify-keyspace-events wants it.  Under the key's slot lock, so that the events of a key are in order for everybody;
 * costs one look at the options when notifications are off.  Any thread inside the gate. */
void notify_keyspace(struct node *n, int db, const struct key *k, enum notify_class cls, const char *event);

#endif
