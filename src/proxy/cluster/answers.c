/* answers.c: what else a server says of itself, said of the proxy. */
#include "proxy/cluster/crowd.h"
#include "proxy/cluster/measure.h"
#include "proxy/cluster/worker.h"

#include "base/mem.h"
#include "observe/durations.h"

#include <stdio.h>

/* ---- HELP ---- */

/* "config|get" as "    GET": the subcommands of a container, from the table of commands. */
static void help_line(struct resp_out *o, const struct command *sub)
{
    char text[256];
    size_t n = 0;
    const char *name = strchr(sub->name, '|');
    for (name = name ? name + 1 : sub->name; *name && n < sizeof text - 1; name++)
        text[n++] = *name >= 'a' && *name <= 'z' ? (char)(*name - 32) : *name;
    text[n] = '\0';
    resp_status(o, text);
    snprintf(text, sizeof text, "    %s", sub->summary);
    resp_status(o, text);
}

static void help(struct resp_out *o, const struct command *container)
{
    char title[128];
    size_t n = 0;
    unsigned subs = command_sub_count(container), shown = 0;
    for (; container->name[n] && n < 32; n++) title[n] = (char)(container->name[n] - 32);
    snprintf(title + n, sizeof title - n, " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    for (unsigned i = 1; i <= subs; i++)
        shown += decision_of(command_by_id((enum command_id)(container->id + i)))->course != COURSE_REFUSED;
    resp_array(o, 1 + 2 * (size_t)shown);
    resp_status(o, title);
    for (unsigned i = 1; i <= subs; i++) {
        const struct command *sub = command_by_id((enum command_id)(container->id + i));
        if (decision_of(sub)->course != COURSE_REFUSED) help_line(o, sub);
    }
}

/* ---- MEMORY ---- */

static void memory_stats(const struct client *c, struct resp_out *o)
{
    resp_map(o, 3);
    resp_bulk_cstr(o, "total.allocated");
    resp_i64(o, (int64_t)mem_used());
    resp_bulk_cstr(o, "allocator.resident");
    resp_i64(o, (int64_t)mem_rss());
    resp_bulk_cstr(o, "clients.normal");
    resp_i64(o, (int64_t)atomic_load(&c->worker->proxy->front->clients));
}

/* ---- LATENCY HISTOGRAM ---- */

static bool sum_of(void *proxy, enum command_id id, struct histogram *out)
{
    const struct proxy *p = proxy;
    return calls_latency(&p->measures.calls, id, out);
}

static void latency_histogram(const struct client *c, struct resp_out *o, const struct bytes *argv, size_t argc)
{
    const struct durations d = {sum_of, c->worker->proxy, 1};
    durations_reply(o, &d, argv + 2, argc - 2);
}

/* ---- CONFIG RESETSTAT ---- */

static void clear(_Atomic uint64_t *n)
{
    atomic_store_explicit(n, 0, memory_order_relaxed);
}

/* What only grows; not how much there is now. */
static void reset_worker(struct worker *w, const struct crowd *q, int at)
{
    struct worker_stats *s = &w->stats;
    _Atomic uint64_t *const all[] = {&s->commands,
                                     &s->received,
                                     &s->sent,
                                     &s->held_ever,
                                     &s->retries,
                                     &s->moved,
                                     &s->asked,
                                     &s->unknown,
                                     &s->timeouts,
                                     &s->refused,
                                     &s->connects,
                                     &s->link_failures,
                                     &s->splits,
                                     &s->replica_reads,
                                     &s->scripts_loaded,
                                     &s->replica_failures,
                                     &w->front->stats.delayed_ever,
                                     &w->front->stats.limit_refusals,
                                     &w->front->stats.received,
                                     &w->front->stats.sent};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) clear(all[i]);
    calls_reset(&w->proxy->measures.calls, w->id);
}

static void reset_reply(const struct crowd *q, struct client *c, struct resp_out *o)
{
    resp_ok(o);
}

enum outcome answers_reset_stats(struct client *c, const struct command *cmd)
{
    if (!route_alone(c)) return OUTCOME_NOT_NOW;
    errorstats_reset(c->worker->proxy->measures.errors);
    crowd_ask(c, cmd, NULL, reset_worker, reset_reply);
    return OUTCOME_DONE;
}

/* ---- which ---- */

bool answers_answer(struct client *c, struct resp_out *o, const struct command *cmd, const struct bytes *argv,
                    size_t argc)
{
    switch (cmd->id) {
    case CMD_ID_ROLE:
        resp_array(o, 3);
        resp_bulk_cstr(o, "master");
        resp_i64(o, 0);
        resp_array(o, 0);
        return true;
    case CMD_ID_CLIENT_HELP:
    case CMD_ID_CONFIG_HELP:
    case CMD_ID_LATENCY_HELP: help(o, command_parent(cmd)); return true;
    case CMD_ID_LATENCY_LATEST:
    case CMD_ID_LATENCY_HISTORY:
    case CMD_ID_MODULE_LIST: resp_array(o, 0); return true;
    case CMD_ID_LATENCY_RESET: resp_i64(o, 0); return true;
    case CMD_ID_LATENCY_GRAPH:
        resp_errorf(o, "ERR No samples available for event '%.*s'", resp_shown(argv[2]), argv[2].p);
        return true;
    case CMD_ID_LATENCY_DOCTOR:
    case CMD_ID_MEMORY_DOCTOR:
        resp_verbatim(
            o, "txt",
            BYTES("This is a proxy: ask the nodes. What it has measured itself is in its INFO and SLOWLOG.\n"));
        return true;
    case CMD_ID_MEMORY_MALLOC_STATS: resp_verbatim(o, "txt", bytes_of(mem_allocator_name())); return true;
    case CMD_ID_MEMORY_STATS: memory_stats(c, o); return true;
    case CMD_ID_LATENCY_HISTOGRAM: latency_histogram(c, o, argv, argc); return true;
    default: return false;
    }
}
