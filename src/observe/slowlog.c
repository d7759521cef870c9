#include "observe/slowlog.h"

#include "base/list.h"
#include "base/mem.h"
#include "base/number.h"

#include <pthread.h>

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

struct slowlog *slowlog_create(void)
{
    struct slowlog *s = mem_calloc(1, sizeof *s);
    pthread_mutex_init(&s->mu, NULL);
    list_init(&s->entries);
    return s;
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

void slowlog_destroy(struct slowlog *s)
{
    slowlog_reset(s);
    pthread_mutex_destroy(&s->mu);
    mem_free(s);
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

static bool arg_is(const struct bytes *argv, size_t i, const char *word)
{
    return bytes_ieq(argv[i], bytes_of(word));
}

bool slowlog_is_secret(const struct command *cmd, const struct bytes *argv, size_t i)
{
    if (cmd->id == CMD_ID_AUTH) return i > 0;
    if (cmd->id == CMD_ID_HELLO)
        return (i > 2 && arg_is(argv, i - 1, "AUTH")) || (i > 3 && arg_is(argv, i - 2, "AUTH"));
    if (cmd->id == CMD_ID_ACL_SETUSER) return i > 1;
    if (cmd->id == CMD_ID_MIGRATE)
        return i > 5 && (arg_is(argv, i - 1, "AUTH") || arg_is(argv, i - 1, "AUTH2") || arg_is(argv, i - 2, "AUTH2"));
    if (cmd->id != CMD_ID_CONFIG_SET || i < 3 || i % 2 == 0) return false;
    return arg_is(argv, i - 1, "requirepass") || arg_is(argv, i - 1, "masterauth") ||
           arg_is(argv, i - 1, "masteruser") || arg_is(argv, i - 1, "tls-key-file-pass") ||
           arg_is(argv, i - 1, "tls-client-key-file-pass");
}

static struct slow_entry *entry_of(const struct slow_call *c)
{
    struct slow_entry *e = mem_calloc(1, sizeof *e);
    list_init(&e->link);
    e->us = c->us;
    e->at_s = c->at_s;
    e->argc = c->argc < ARGS_KEPT ? c->argc : ARGS_KEPT;
    for (size_t i = 0; i < e->argc; i++) {
        if (i == ARGS_KEPT - 1 && c->argc > ARGS_KEPT) {
            struct buf b = {0};
            buf_printf(&b, "... (%zu more arguments)", c->argc - ARGS_KEPT + 1);
            e->argv[i] = keep_text(&b);
        } else {
            e->argv[i] = keep_arg(slowlog_is_secret(c->cmd, c->argv, i) ? BYTES("(redacted)") : c->argv[i]);
        }
    }
    e->peer = mem_strdup(c->peer);
    e->name = mem_strdup(c->name);
    return e;
}

void slowlog_add(struct slowlog *s, const struct slow_call *c, size_t most)
{
    struct slow_entry *e = entry_of(c);
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

/* ---- SLOWLOG ---- */

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

void slowlog_reply_get(struct resp_out *o, struct slowlog *s, const struct bytes *argv, size_t argc)
{
    int64_t count = 10, replied = 0;
    if (argc > 3) {
        resp_errorf(o, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try SLOWLOG HELP.",
                    (int)argv[1].n, argv[1].p);
        return;
    }
    if (argc == 3 && (!parse_i64(argv[2], &count) || count < -1)) {
        resp_error(o, "ERR count should be greater than or equal to -1");
        return;
    }
    pthread_mutex_lock(&s->mu);
    if (count == -1 || (uint64_t)count > s->count) count = (int64_t)s->count;
    resp_array(o, (size_t)count);
    for (struct list *it = s->entries.prev; it != &s->entries && replied < count; it = it->prev, replied++)
        reply_entry(o, container_of(it, struct slow_entry, link));
    pthread_mutex_unlock(&s->mu);
}

size_t slowlog_length(struct slowlog *s)
{
    pthread_mutex_lock(&s->mu);
    size_t n = s->count;
    pthread_mutex_unlock(&s->mu);
    return n;
}

void slowlog_reset(struct slowlog *s)
{
    pthread_mutex_lock(&s->mu);
    while (!list_empty(&s->entries)) entry_drop(container_of(s->entries.next, struct slow_entry, link));
    s->count = 0;
    pthread_mutex_unlock(&s->mu);
}

const char *const slowlog_help[] = {
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
const size_t slowlog_help_count = sizeof slowlog_help / sizeof *slowlog_help;
