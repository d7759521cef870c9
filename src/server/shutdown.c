/* shutdown.c: SHUTDOWN and what a signal does: nothing is acknowledged after the last save began. */
#include "server/shutdown.h"

#include "base/log.h"
#include "base/mem.h"
#include "server/aof.h"
#include "server/cluster_node.h"
#include "server/conn.h"
#include "server/persistence.h"
#include "server/replication.h"
#include "server/scripting.h"

#include <stdlib.h>
#include <unistd.h>

enum save_choice { SAVE_BY_CONFIG, SAVE_ALWAYS, SAVE_NEVER };

/* With the server at rest, for ever if it succeeds. */
static bool save_for_the_last_time(struct node *n, enum save_choice choice, bool force)
{
    bool save = choice == SAVE_ALWAYS || (choice == SAVE_BY_CONFIG && persistence_has_save_points(n->persistence));
    if (!save || atomic_load(&n->loading)) return true;
    log_notice("Saving the final RDB snapshot before exiting.");
    if (persistence_save_now(n->persistence) == OK) return true;
    log_warning("Error trying to save the DB, %s", force ? "but the shutdown is forced." : "can't exit.");
    return force;
}

static void remove_pidfile(struct node *n)
{
    char *path = config_cstr(n->config, CFG_PIDFILE);
    if (*path) unlink(path);
    mem_free(path);
    path = config_cstr(n->config, CFG_UNIXSOCKET);
    if (*path) unlink(path);
    mem_free(path);
}

/* With the server at rest. */
static void end(struct node *n)
{
    replication_flush(n->replication); /* what was written goes to the replicas before the connections are cut */
    if (n->cluster) cluster_node_stop(n);
    remove_pidfile(n);
    log_warning("Covey is now ready to exit, bye bye...");
    /* Threads and memory go with the process; nothing of theirs has to be written any more. */
    _exit(0);
}

bool shutdown_prepare(struct node *n)
{
    persistence_save_cancel(n->persistence);
    if (!aof_shutdown(n->aof, false) || !save_for_the_last_time(n, SAVE_BY_CONFIG, false)) return false;
    replication_flush(n->replication);
    if (n->cluster) cluster_node_stop(n);
    return true;
}

void shutdown_on_signal(struct node *n)
{
    gate_close(n->gate);
    persistence_save_cancel(n->persistence);
    if (aof_shutdown(n->aof, false) && save_for_the_last_time(n, SAVE_BY_CONFIG, false)) end(n);
    gate_open(n->gate);
}

bool shutdown_finished(const struct node *n)
{
    return atomic_load(&n->shutdown_requested);
}

void cmd_shutdown(struct call *c)
{
    enum save_choice choice = SAVE_BY_CONFIG;
    bool force = false;
    for (size_t i = 1; i < c->argc; i++) {
        if (call_arg_is(c, i, "save") && choice != SAVE_NEVER)
            choice = SAVE_ALWAYS;
        else if (call_arg_is(c, i, "nosave") && choice != SAVE_ALWAYS)
            choice = SAVE_NEVER;
        else if (call_arg_is(c, i, "force"))
            force = true;
        else if (call_arg_is(c, i, "now"))
            continue;
        else if (call_arg_is(c, i, "abort") && c->argc == 2) {
            resp_error(&c->out, "ERR No shutdown in progress.");
            return;
        } else {
            resp_error(&c->out, ERR_SYNTAX);
            return;
        }
    }
    /* Nobody gets the server at rest while a script runs long; and nothing has to be saved. */
    struct node *node = call_conn(c)->worker->node;
    if (choice == SAVE_NEVER && script_any_slow(node)) {
        log_warning("User requested shutdown while a script runs...");
        aof_sync_now(node->aof);
        end(node);
    }
    if (!call_exclusive(c)) return;
    struct node *n = call_conn(c)->worker->node;
    log_warning("User requested shutdown...");
    persistence_save_cancel(n->persistence);
    if (aof_shutdown(n->aof, force) && save_for_the_last_time(n, choice, force)) end(n);
    resp_error(&c->out, "ERR Errors trying to SHUTDOWN. Check logs.");
}
