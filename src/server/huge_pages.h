/* huge_pages.h: transparent huge pages, and disable-thp; inside src/server only. */
#ifndef COVEY_SERVER_HUGE_PAGES_H
#define COVEY_SERVER_HUGE_PAGES_H

#include "server/config.h"

/* Where the kernel gives every process huge pages ("always"), turns them off for this one, or says in the log what they
 * cost when disable-thp is no or the kernel does not let us.  Before there are other threads. */
void huge_pages_check(const struct config *cfg);

#endif
