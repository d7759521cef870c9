/* propagation.h: a command of the primary's stream or of an AOF that answers an error here; inside src/server only.
 * It did not where it came from: the datasets differ, unless a key was over by then. */
#ifndef COVEY_SERVER_PROPAGATION_H
#define COVEY_SERVER_PROPAGATION_H

#include "server/node.h"

enum propagation_source { FROM_PRIMARY, FROM_AOF };

/* Logs and counts the error; ends the process where propagation-error-behavior says so.  error: the reply without its
 * line's end, or more. */
void propagation_failed(struct node *n, enum propagation_source source, struct bytes command, struct bytes error);

#endif
