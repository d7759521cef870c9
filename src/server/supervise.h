/* supervise.h: what a supervisor (systemd, upstart) is told; inside src/server only.  The option `supervised` says
 * which one there is, or that the environment is to be asked. */
#ifndef COVEY_SERVER_SUPERVISE_H
#define COVEY_SERVER_SUPERVISE_H

#include "server/config.h"

/* The name of the one there is, which wants the process in the foreground; NULL: none. */
const char *supervisor(const struct config *cfg);
/* Says in the log when the one that was configured is not there; upstart gets its signal that the process has begun. */
void supervise_start(const struct config *cfg);
/* Clients are served from now on. */
void supervise_ready(const struct config *cfg);
/* The process is about to end. */
void supervise_stopping(const struct config *cfg);

#endif
