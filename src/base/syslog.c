#include "base/syslog.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <syslog.h>

static atomic_bool on;
static char name[64]; /* openlog() keeps the address */

void syslog_start(const char *ident, int facility)
{
    static const int facilities[] = {LOG_USER,   LOG_LOCAL0, LOG_LOCAL1, LOG_LOCAL2, LOG_LOCAL3,
                                     LOG_LOCAL4, LOG_LOCAL5, LOG_LOCAL6, LOG_LOCAL7};
    snprintf(name, sizeof name, "%s", ident);
    openlog(name, LOG_PID | LOG_NDELAY | LOG_NOWAIT, facilities[facility]);
    atomic_store(&on, true);
}

void syslog_put(int level, const char *text)
{
    static const int levels[] = {LOG_DEBUG, LOG_INFO, LOG_NOTICE, LOG_WARNING};
    if (atomic_load_explicit(&on, memory_order_relaxed)) syslog(levels[level], "%s", text);
}
