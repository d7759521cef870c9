/* slowlog.c: the slow log. */
#include "server/slowlog.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/number.h"

enum { ARGS_KEPT = 32, ARG_BYTES_KEPT = 128 };

struct slow_entry {
    struct list link;
    uint64_t id, us;
    int64_t at_s;
    size_t argc;
    struct bytes argv[ARGS_KEPT]; /* owned */
    char *peer, *name;
};

struct slowlog {
    pthread_mutex_t mu;  /* for everything below; a leaf */
    struct list entries; /* oldest first */
    size_t count;
    uint64_t next_id;
};

void slowlog_init(struct node *n)
{
    struct slowlog *s = mem_calloc(1, sizeof *s);
    pthread_mutex_init(&s->mu, NULL);
    list_init(&s->entries);
    n->slowlog = s;
}

/* ---- entries ---- */

static void entry_drop(struct slow_entry *e)
{
    list_remove(&e->link);
    for (size_t i = 0; i < e->argc; i++) mem_free((char *)e->argv[i].p);
    mem_free(e->peer);
    mem_free(e->name);
    mem_free(e);
}

static struct bytes keep_text(struct buf *b)
{
    return bytes_make(b->p, b->n);
}

static struct bytes keep_arg(struct bytes arg)
{
    struct buf b = {0};
    buf_append(&b, arg.p, arg.n < ARG_BYTES_KEPT ? arg.n : ARG_BYTES_KEPT);
    if (arg.n > ARG_BYTES_KEPT) buf_printf(&b, "... (%zu more bytes)", arg.n - ARG_BYTES_KEPT);
    return keep_text(&b);
}

bool slowlog_is_secret(const struct call *c, size_t i)
{
    if (c->cmd->id == CMD_ID_AUTH) return i > 0;
    if (c->cmd->id == CMD_ID_HELLO)
        return (i > 2 && call_arg_is(c, i - 1, "AUTH")) || (i > 3 && call_arg_is(c, i - 2, "AUTH"));
    if (c->cmd->id == CMD_ID_ACL_SETUSER) return i > 1;
    if (c->cmd->id == CMD_ID_MIGRATE)
        return i > 5 &&
               (call_arg_is(c, i - 1, "AUTH") || call_arg_is(c, i - 1, "AUTH2") || call_arg_is(c, i - 2, "AUTH2"));
    if (c->cmd->id != CMD_ID_CONFIG_SET || i < 3 || i % 2 == 0) return false;
    return call_arg_is(c, i - 1, "requirepass") || call_arg_is(c, i - 1, "masterauth") ||
           call_arg_is(c, i - 1, "masteruser") || call_arg_is(c, i - 1, "tls-key-file-pass") ||
           call_arg_is(c, i - 1, "tls-client-key-file-pass");
}

static struct slow_entry *entry_of(const struct conn *c, const struct call *call, uint64_t us)
{
    struct slow_entry *e = mem_calloc(1, sizeof *e);
    list_init(&e->link);
    e->us = us;
    e->at_s = call->now_ms / 1000;
    e->argc = call->argc < ARGS_KEPT ? call->argc : ARGS_KEPT;
    for (size_t i = 0; i < e->argc; i++) {
        if (i == ARGS_KEPT - 1 && call->argc > ARGS_KEPT) {
            struct buf b = {0};
            buf_printf(&b, "... (%zu more arguments)", call->argc - ARGS_KEPT + 1);
            e->argv[i] = keep_text(&b);
        } else {
            e->argv[i] = keep_arg(slowlog_is_secret(call, i) ? BYTES("(redacted)") : call->argv[i]);
        }
    }
    e->peer = mem_strdup(c->peer);
    e->name = mem_strdup(c->name ? c->name : "");
    return e;
}

static void note_slow(struct node *n, const struct conn *c, const struct call *call, uint64_t us)
{
    struct slowlog *s = n->slowlog;
    size_t most = (size_t)config_num(n->config, CFG_SLOWLOG_MAX_LEN);
    struct slow_entry *e = entry_of(c, call, us);
    pthread_mutex_lock(&s->mu);
    e->id = s->next_id++;
    list_push_back(&s->entries, &e->link);
    s->count++;
    while (s->count > most) {
        entry_drop(container_of(s->entries.next, struct slow_entry, link));
        s->count--;
    }
    pthread_mutex_unlock(&s->mu);
}

void slowlog_note(struct node *n, const struct conn *c, const struct call *call, uint64_t us)
{
    int64_t slow = config_num(n->config, CFG_SLOWLOG_LOG_SLOWER_THAN);
    if (slow >= 0 && us >= (uint64_t)slow && !(call->cmd->flags & CMD_SKIP_SLOWLOG)) note_slow(n, c, call, us);
}

/* ---- SLOWLOG ---- */

static struct slowlog *log_of(const struct call *c)
{
    return call_conn(c)->worker->node->slowlog;
}

static void reply_entry(struct resp_out *out, const struct slow_entry *e)
{
    resp_array(out, 6);
    resp_i64(out, (int64_t)e->id);
    resp_i64(out, e->at_s);
    resp_i64(out, (int64_t)e->us);
    resp_array(out, e->argc);
    for (size_t i = 0; i < e->argc; i++) resp_bulk(out, e->argv[i]);
    resp_bulk_cstr(out, e->peer);
    resp_bulk_cstr(out, e->name);
}

void cmd_slowlog_get(struct call *c)
{
    struct slowlog *s = log_of(c);
    int64_t count = 10, replied = 0;
    if (c->argc > 3) {
        struct bytes name = c->argv[1];
        resp_errorf(&c->out, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try SLOWLOG HELP.",
                    (int)name.n, name.p);
        return;
    }
    if (c->argc == 3 && (!parse_i64(c->argv[2], &count) || count < -1)) {
        resp_error(&c->out, "ERR count should be greater than or equal to -1");
        return;
    }
    pthread_mutex_lock(&s->mu);
    if (count == -1 || (uint64_t)count > s->count) count = (int64_t)s->count;
    resp_array(&c->out, (size_t)count);
    for (struct list *it = s->entries.prev; it != &s->entries && replied < count; it = it->prev, replied++)
        reply_entry(&c->out, container_of(it, struct slow_entry, link));
    pthread_mutex_unlock(&s->mu);
}

void cmd_slowlog_len(struct call *c)
{
    struct slowlog *s = log_of(c);
    pthread_mutex_lock(&s->mu);
    resp_i64(&c->out, (int64_t)s->count);
    pthread_mutex_unlock(&s->mu);
}

void cmd_slowlog_reset(struct call *c)
{
    struct slowlog *s = log_of(c);
    pthread_mutex_lock(&s->mu);
    while (!list_empty(&s->entries)) entry_drop(container_of(s->entries.next, struct slow_entry, link));
    s->count = 0;
    pthread_mutex_unlock(&s->mu);
    resp_ok(&c->out);
}

void cmd_slowlog_help(struct call *c)
{
    static const char *const lines[] = {
        "GET [<count>]",
        "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
        "    Entries are made of:",
        "    id, timestamp, time in microseconds, arguments array, client IP and port,",
        "    client name",
        "LEN",
        "    Return the length of the slowlog.",
        "RESET",
        "    Reset the slowlog.",
    };
    call_help(c, "SLOWLOG", lines, sizeof lines / sizeof *lines);
}
