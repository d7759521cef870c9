#include "server/monitor.h"

#include "base/clock.h"
#include "base/mem.h"
#include "server/config_table.h"
#include "server/pubsub.h"
#include "server/slowlog.h"

enum { LINE_OVERHEAD = 128 };

struct line_mail {
    struct mail mail;
    struct worker *worker;
    size_t n;
    char data[];
};

void monitor_begin(struct conn *c)
{
    if (c->is_monitor) return;
    c->is_monitor = true;
    list_push_back(&c->worker->monitors, &c->monitor_link);
    atomic_fetch_add(&c->worker->monitor_count, 1);
    atomic_fetch_add(&c->worker->node->monitor_count, 1);
}

void monitor_end(struct conn *c)
{
    if (!c->is_monitor) return;
    c->is_monitor = false;
    list_remove(&c->monitor_link);
    atomic_fetch_sub(&c->worker->monitor_count, 1);
    atomic_fetch_sub(&c->worker->node->monitor_count, 1);
}

void cmd_monitor(struct call *c)
{
    struct conn *conn = call_conn(c);
    if (conn->is_monitor) return; /* no reply, as in Redis */
    monitor_begin(conn);
    resp_ok(&c->out);
}

static void deliver(struct mail *mail)
{
    struct line_mail *l = container_of(mail, struct line_mail, mail);
    list_each(it, &l->worker->monitors)
    {
        struct conn *c = container_of(it, struct conn, monitor_link);
        if (!conn_push_begin(c, l->n)) continue;
        buf_append(&c->out, l->data, l->n);
        conn_push_end(c);
    }
    pubsub_backlog_done(l->worker, l->n + LINE_OVERHEAD);
    mem_free(l);
}

static void post(struct worker *w, struct bytes line)
{
    struct line_mail *l = mem_try_alloc(sizeof *l + line.n);
    if (!l) return; /* as long as the command that it shows: there may be no room for it */
    *l = (struct line_mail){.mail.deliver = deliver, .worker = w, .n = line.n};
    memcpy(l->data, line.p, line.n);
    pubsub_backlog_add(w, line.n + LINE_OVERHEAD);
    loop_post(w->loop, &l->mail);
}

/* Empty when nobody wants it. */
static void append_line(struct buf *line, const struct conn *c, const struct call *call)
{
    int64_t us = clock_wall_us();
    if (!monitor_wanted(c->worker->node) || call->cmd->flags & CMD_ADMIN) return;
    buf_printf(line, "+%lld.%06lld [%d ", (long long)(us / 1000000), (long long)(us % 1000000), c->db);
    if (c->worker->in_script && !(call->cmd->flags & CMD_SKIP_MONITOR))
        buf_append_cstr(line, "lua]");
    else if (c->is_unix)
        buf_printf(line, "unix:%s]", c->local);
    else
        buf_printf(line, "%s]", c->peer);
    for (size_t i = 0; i < call->argc; i++) {
        buf_append_char(line, ' ');
        resp_append_quoted(line, slowlog_is_secret(call->cmd, call->argv, i) ? BYTES("(redacted)") : call->argv[i]);
    }
    buf_append_cstr(line, "\r\n");
}

static void post_all(struct worker *self, struct bytes lines)
{
    struct node *n = self->node;
    if (lines.n == 0) return;
    for (int i = 0; i < n->worker_count; i++)
        if (atomic_load_explicit(&n->workers[i]->monitor_count, memory_order_relaxed)) post(n->workers[i], lines);
    self->notified = true;
}

void monitor_show(struct conn *c, const struct call *call)
{
    struct worker *w = c->worker;
    if (!monitor_wanted(w->node)) return;
    if (w->in_script) {
        append_line(&w->script_lines, c, call);
        return;
    }
    struct buf line = {0};
    append_line(&line, c, call);
    post_all(w, buf_bytes(&line));
    buf_deinit(&line);
}

void monitor_script_begin(struct conn *c, const struct call *call)
{
    c->worker->in_script = true;
    append_line(&c->worker->script_lines, c, call);
}

void monitor_script_end(struct worker *w, bool executed)
{
    w->in_script = false;
    if (executed) post_all(w, buf_bytes(&w->script_lines));
    if (w->script_lines.cap) buf_deinit(&w->script_lines);
}
