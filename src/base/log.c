#include "base/log.h"

#include "base/clock.h"
#include "base/syslog.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static _Atomic int log_fd = STDOUT_FILENO;
static _Atomic int log_threshold = LOG_NOTICE;
static _Atomic char log_role = 'X';

enum status log_open(const char *path)
{
    int fd = STDOUT_FILENO;
    if (*path) {
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (fd < 0) return E_IO;
    }
    /* The old descriptor is left open: another thread may be inside its write(). */
    atomic_store(&log_fd, fd);
    return OK;
}

void log_set_level(enum log_level level)
{
    atomic_store(&log_threshold, level);
}

void log_set_role(char role)
{
    atomic_store(&log_role, role);
}

int log_descriptor(void)
{
    return atomic_load(&log_fd);
}

bool log_enabled(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&log_threshold, memory_order_relaxed);
}

void log_write(enum log_level level, const char *fmt, ...)
{
    if (!log_enabled(level)) return;
    char line[1200];
    int64_t now = clock_wall_ms();
    time_t seconds = now / 1000;
    struct tm tm;
    localtime_r(&seconds, &tm);
    char date[40];
    strftime(date, sizeof date, "%d %b %Y %H:%M:%S", &tm);
    int head = snprintf(line, sizeof line, "%d:%c %s.%03d %c ", (int)getpid(), atomic_load(&log_role), date,
                        (int)(now % 1000), ".-*#"[level]);
    va_list ap;
    va_start(ap, fmt);
    int room = (int)sizeof line - head - 1;
    int body = vsnprintf(line + head, (size_t)room, fmt, ap);
    va_end(ap);
    if (body < 0) return;
    int n = head + (body < room ? body : room - 1);
    syslog_put((int)level, line + head);
    line[n++] = '\n';
    ssize_t written = write(atomic_load(&log_fd), line, (size_t)n);
    (void)written; /* nowhere left to complain */
}
