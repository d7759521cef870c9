/* crash_report.h: what a node adds to the report of a crash; inside src/server only. */
#ifndef COVEY_SERVER_CRASH_REPORT_H
#define COVEY_SERVER_CRASH_REPORT_H

#include "server/node.h"

/* Before there are other threads; the node stays for the life of the process. */
void crash_report_init(const struct node *n);

#endif
