/* config_commands.c: CONFIG and its subcommands. */
#include "server/conn.h"

#include "base/log.h"
#include "observe/errorstats.h"
#include "server/cluster_node.h"
#include "server/latency.h"

#include <errno.h>
#include <string.h>

static struct node *node_of(const struct call *c)
{
    return call_conn(c)->worker->node;
}

void cmd_config_get(struct call *c)
{
    config_reply_get(node_of(c)->config, c->argv + 2, c->argc - 2, &c->out);
}

/* What handlers read without a lock changes here, so the server is at rest. */
void cmd_config_set(struct call *c)
{
    struct node *n = node_of(c);
    if (c->argc % 2) {
        resp_error(&c->out, ERR_SYNTAX);
        return;
    }
    if (!call_exclusive(c)) return;
    int64_t who = config_num(n->config, CFG_ENABLE_PROTECTED_CONFIGS);
    bool privileged = who == PROTECTED_YES || (who == PROTECTED_LOCAL && conn_is_local(call_conn(c)));
    struct buf error = {0};
    if (config_set(n->config, c->argv + 2, c->argc - 2, privileged, &error) == OK) {
        options_derive(n->config, n->options);
        cluster_node_reconfigure(n);
        resp_ok(&c->out);
    } else {
        resp_error_bytes(&c->out, buf_bytes(&error));
    }
    buf_deinit(&error);
}

void cmd_config_rewrite(struct call *c)
{
    /* At rest: no second one writes the same file. */
    if (!call_exclusive(c)) return;
    enum status st = config_rewrite(node_of(c)->config, false);
    if (st == E_NOT_FOUND) {
        resp_error(&c->out, "ERR The server is running without a config file");
    } else if (st != OK) {
        log_warning("CONFIG REWRITE failed: %s", strerror(errno));
        resp_errorf(&c->out, "ERR Rewriting config file: %s", strerror(errno));
    } else {
        log_notice("CONFIG REWRITE executed with success.");
        resp_ok(&c->out);
    }
}

static void clear(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, 0, memory_order_relaxed);
}

/* The workers add to their counters without a lock: that they are at rest makes setting them to zero safe. */
void cmd_config_resetstat(struct call *c)
{
    struct node *n = node_of(c);
    if (!call_exclusive(c)) return;
    for (int i = 0; i < n->worker_count; i++) {
        struct worker *w = n->workers[i];
        clear(&w->stats.keyspace_hits);
        clear(&w->stats.keyspace_misses);
        clear(&w->stats.expired_keys);
        clear(&w->net_in);
        clear(&w->net_out);
        for (int id = 0; id < CMD_ID_COUNT; id++) {
            clear(&w->commands[id].calls);
            clear(&w->commands[id].ticks);
            clear(&w->commands[id].rejected);
            clear(&w->commands[id].failed);
        }
    }
    clear(&n->stats.connections_received);
    clear(&n->stats.connections_rejected);
    clear(&n->stats.query_buffer_disconnects);
    clear(&n->stats.output_limit_disconnects);
    clear(&n->stats.sync_full);
    clear(&n->stats.sync_partial_ok);
    clear(&n->stats.sync_partial_err);
    clear(&n->stats.evicted_keys);
    clear(&n->stats.evicted_clients);
    clear(&n->stats.over_maxmemory_us);
    reaper_reset_freed(n->reaper);
    errorstats_reset(n->errors);
    latency_reset_histograms(n);
    resp_ok(&c->out);
}

void cmd_config_help(struct call *c)
{
    static const char *const lines[] = {
        "GET <pattern>",
        "    Return parameters matching the glob-like <pattern> and their values.",
        "SET <directive> <value>",
        "    Set the configuration <directive> to <value>.",
        "RESETSTAT",
        "    Reset statistics reported by the INFO command.",
        "REWRITE",
        "    Rewrite the configuration file.",
    };
    call_help(c, "CONFIG", lines, sizeof lines / sizeof *lines);
}
