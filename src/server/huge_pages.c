#include "server/huge_pages.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static bool are_for_everybody(void)
{
    char text[128] = "";
    int fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    return n > 0 && strstr(text, "[always]");
}

void huge_pages_check(const struct config *cfg)
{
    if (!are_for_everybody()) return;
    if (config_bool(cfg, CFG_DISABLE_THP)) {
        if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0) return;
        log_warning("Transparent huge pages could not be turned off: %s", strerror(errno));
    }
    log_warning("WARNING You have Transparent Huge Pages (THP) support enabled in your kernel. Memory is given back in "
                "larger pieces then, which takes more of it and makes some commands slow. To turn them off for all "
                "programs, run the command 'echo madvise > /sys/kernel/mm/transparent_hugepage/enabled' as root, and "
                "have that done at every boot; then restart this node. 'disable-thp yes' turns them off for it alone.");
}
