#include "server/supervise.h"

#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BY_UPSTART, BY_SYSTEMD, BY_ANY, BY_NOBODY }; /* the values of the option */

static const char *systemd_socket(const struct config *cfg)
{
    int64_t by = config_num(cfg, CFG_SUPERVISED);
    const char *path = by == BY_SYSTEMD || by == BY_ANY ? getenv("NOTIFY_SOCKET") : NULL;
    return path && *path ? path : NULL;
}

static bool is_upstart_job(const struct config *cfg)
{
    int64_t by = config_num(cfg, CFG_SUPERVISED);
    return (by == BY_UPSTART || by == BY_ANY) && getenv("UPSTART_JOB");
}

const char *supervisor(const struct config *cfg)
{
    if (is_upstart_job(cfg)) return "upstart";
    return systemd_socket(cfg) ? "systemd" : NULL;
}

void supervise_start(const struct config *cfg)
{
    int64_t by = config_num(cfg, CFG_SUPERVISED);
    if (is_upstart_job(cfg)) {
        log_notice("supervised by upstart, will stop to signal readiness.");
        raise(SIGSTOP);
    } else if (systemd_socket(cfg)) {
        log_notice("Supervised by systemd. Please make sure you set appropriate values for TimeoutStartSec and "
                   "TimeoutStopSec in your service unit.");
    } else if (by == BY_UPSTART) {
        log_warning("upstart supervision requested, but UPSTART_JOB not found!");
    } else if (by == BY_SYSTEMD) {
        log_warning("systemd supervision error: NOTIFY_SOCKET not found!");
    }
}

/* The protocol of sd_notify(3): one datagram of "NAME=value" lines; '@' stands for an abstract name. */
static void tell_systemd(const struct config *cfg, const char *lines)
{
    const char *path = systemd_socket(cfg);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!path) return;
    size_t n = strlen(path);
    if (n >= sizeof to.sun_path) {
        log_warning("NOTIFY_SOCKET is too long: %s", path);
        return;
    }
    memcpy(to.sun_path, path, n);
    if (*path == '@') to.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ssize_t sent = fd < 0 ? -1
                          : sendto(fd, lines, strlen(lines), MSG_NOSIGNAL, (struct sockaddr *)&to,
                                   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
    if (sent < 0) log_warning("Can't tell systemd at %s: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
}

void supervise_ready(const struct config *cfg)
{
    tell_systemd(cfg, "READY=1\nSTATUS=Ready to accept connections\n");
}

void supervise_stopping(const struct config *cfg)
{
    tell_systemd(cfg, "STOPPING=1\n");
}
