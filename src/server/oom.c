#include "server/oom.h"

#include "base/bytes.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OOM_NO, OOM_YES, OOM_RELATIVE, OOM_ABSOLUTE }; /* the values of the option; yes is relative */
enum { SCORE_MAX = 1000 };

static const char path[] = "/proc/self/oom_score_adj";

int oom_score(void)
{
    char text[16] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    return n > 0 ? atoi(text) : 0;
}

bool oom_put(int score)
{
    char text[16];
    int n = snprintf(text, sizeof text, "%d", score), fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, (size_t)n) == n;
    if (!ok) log_warning("Unable to write oom_score_adj %d: %s", score, strerror(errno));
    if (fd >= 0) close(fd);
    return ok;
}

void oom_init(struct node *n)
{
    n->oom_base = oom_score();
}

/* The third value is for processes of redis-server that there are none of here. */
static int wanted(struct node *n, int64_t mode)
{
    int primary = 0, replica = 0;
    struct buf text = {0};
    config_text(n->config, CFG_OOM_SCORE_ADJ_VALUES, &text);
    buf_append_char(&text, '\0');
    if (sscanf(text.p, "%d %d", &primary, &replica) != 2) primary = replica = 0;
    buf_deinit(&text);
    int score = data_node_is_replica(n) ? replica : primary;
    if (mode != OOM_ABSOLUTE) score += n->oom_base;
    return score > SCORE_MAX ? SCORE_MAX : score < -SCORE_MAX ? -SCORE_MAX : score;
}

bool oom_apply(struct node *n)
{
    int64_t mode = config_num(n->config, CFG_OOM_SCORE_ADJ);
    if (mode == OOM_NO && !atomic_load(&n->oom_changed)) return true;
    if (!oom_put(mode == OOM_NO ? n->oom_base : wanted(n, mode))) return false;
    atomic_store(&n->oom_changed, mode != OOM_NO);
    return true;
}
