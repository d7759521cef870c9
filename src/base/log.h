/* log.h: one line an event, in the form redis-server's log readers know: "pid:role date level message".
 * Any thread may log; a line is written with one write().  The target is process wide, because standard error is. */
#ifndef COVEY_BASE_LOG_H
#define COVEY_BASE_LOG_H

#include "base/status.h"

#include <stdbool.h>

enum log_level { LOG_DEBUG, LOG_VERBOSE, LOG_NOTICE, LOG_WARNING };

/* path "" means standard output.  E_IO when the file cannot be opened for appending (the old target stays). */
MUST_USE enum status log_open(const char *path);
void log_set_level(enum log_level level);
/* The letter behind the pid: 'M' primary, 'S' replica, 'X' anything else (the letters redis-server uses). */
void log_set_role(char role);
/* Where lines are written to, for reports that are written in a signal handler.  Any thread, any handler. */
int log_descriptor(void);
bool log_enabled(enum log_level level);

void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_verbose(...) log_write(LOG_VERBOSE, __VA_ARGS__)
#define log_notice(...) log_write(LOG_NOTICE, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)

#endif
