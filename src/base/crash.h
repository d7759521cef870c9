/* crash.h: a report in the log when the process ends by a fault of its own: SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT,
 * and with it failed assertions, which are logged before.  The signal then does what it would have done: a core, where
 * the system writes one.  The report is written with async-signal-safe calls alone, but for backtrace_symbols_fd(),
 * which takes the loader's lock.  One a process. */
#ifndef COVEY_BASE_CRASH_H
#define COVEY_BASE_CRASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Catches these signals from now on, or no longer.  One thread at a time. */
void crash_reports(bool on);
/* Adds lines to the report: what the process was doing.  Runs in the signal handler, with other threads running; so it
 * reads only, and writes with crash_put().  Before there are other threads. */
void crash_describe(void (*describe)(const void *ctx), const void *ctx);
/* A stack for the handler, so that a thread whose own is used up gets a report too.  In the thread; kept for its life.
 */
void crash_thread_stack(void);

/* For describe(): texts and numbers into the report. */
void crash_put(const char *text);
void crash_put_number(uint64_t n, unsigned base);

/* Logs the reason and aborts: for states that nobody can go on from. */
_Noreturn void crash_panic(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
