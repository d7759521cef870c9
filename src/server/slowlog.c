/* slowlog.c: the slow log. */
#include "server/slowlog.h"

void slowlog_init(struct node *n)
{
    n->slowlog = slowlog_create();
}

void slowlog_note(struct node *n, const struct conn *c, const struct call *call, uint64_t us)
{
    int64_t slow = config_num(n->config, CFG_SLOWLOG_LOG_SLOWER_THAN);
    if (slow < 0 || us < (uint64_t)slow || call->cmd->flags & CMD_SKIP_SLOWLOG) return;
    struct slow_call s = {call->cmd, call->argv, call->argc, us, call->now_ms / 1000, c->peer, c->name ? c->name : ""};
    slowlog_add(n->slowlog, &s, (size_t)config_num(n->config, CFG_SLOWLOG_MAX_LEN));
}

static struct slowlog *log_of(const struct call *c)
{
    return call_conn(c)->worker->node->slowlog;
}

void cmd_slowlog_get(struct call *c)
{
    slowlog_reply_get(&c->out, log_of(c), c->argv, c->argc);
}

void cmd_slowlog_len(struct call *c)
{
    resp_i64(&c->out, (int64_t)slowlog_length(log_of(c)));
}

void cmd_slowlog_reset(struct call *c)
{
    slowlog_reset(log_of(c));
    resp_ok(&c->out);
}

void cmd_slowlog_help(struct call *c)
{
    call_help(c, "SLOWLOG", slowlog_help, slowlog_help_count);
}
