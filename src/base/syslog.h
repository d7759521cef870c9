/* syslog.h: the system's logger, through syslog(3); apart from log.h, because the names of their levels collide. */
#ifndef COVEY_BASE_SYSLOG_H
#define COVEY_BASE_SYSLOG_H

enum { SYSLOG_DEBUG, SYSLOG_VERBOSE, SYSLOG_NOTICE, SYSLOG_WARNING }; /* the numbers of enum log_level */

/* From now on messages go there as well, under this name (copied, at most 63 bytes) and the facility `user` (0) or
 * local0 to local7 (1 to 8).  Once, before there are other threads. */
void syslog_start(const char *ident, int facility);
/* One message without its time and process, which the logger adds.  Nothing happens before syslog_start().  Any thread;
 * waits while the logger's socket is full. */
void syslog_put(int level, const char *text);

#endif
