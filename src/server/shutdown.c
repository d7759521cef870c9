/* shutdown.c: SHUTDOWN and what a signal does: replicas get what was written, nothing is acknowledged after the last
 * save began. */
#include "server/shutdown.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "replica/replica.h"
#include "server/aof.h"
#include "server/cluster_node.h"
#include "server/conn.h"
#include "server/persistence.h"
#include "server/replication.h"
#include "server/scripting.h"
#include "server/supervise.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

/* A shutdown that waits for replicas.  While it does so writes are held, as by a failover. */
struct shutdown {
    pthread_mutex_t mu;       /* for what follows; a leaf */
    _Atomic int64_t until_ms; /* monotonic; 0: none waits.  Changed under mu */
    unsigned how;             /* SHUTDOWN_... */
};

struct shutdown *shutdown_create(void)
{
    struct shutdown *s = mem_calloc(1, sizeof *s);
    pthread_mutex_init(&s->mu, NULL);
    return s;
}

/* ---- the end ---- */

/* With the server at rest, for ever if it succeeds. */
static bool save_for_the_last_time(struct node *n, unsigned how)
{
    bool save = how & SHUTDOWN_SAVE || (!(how & SHUTDOWN_NOSAVE) && persistence_has_save_points(n->persistence));
    bool force = how & SHUTDOWN_FORCE;
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

struct sync_count {
    uint64_t offset;
    int all, synced;
    bool log;
};

static void count_replica(void *ctx, const struct hub_replica *r)
{
    struct sync_count *c = ctx;
    c->all++;
    if (r->ack_offset >= c->offset)
        c->synced++;
    else if (c->log)
        log_warning("Lagging replica %s:%d reported offset %llu behind master, lag=%lld, state=%s.", r->ip, r->port,
                    (unsigned long long)r->ack_offset, (long long)r->lag_s, r->state);
}

static struct sync_count count_replicas(struct node *n, bool log)
{
    struct sync_count c = {.offset = change_offset(n->log), .log = log};
    if (!data_node_is_replica(n)) replication_each_replica(n->replication, count_replica, &c);
    return c;
}

/* With the server at rest. */
static void end(struct node *n)
{
    replication_flush(n->replication); /* what was written goes to the replicas before the connections are cut */
    if (n->cluster) cluster_node_stop(n);
    remove_pidfile(n);
    supervise_stopping(n->config);
    log_warning("Covey is now ready to exit, bye bye...");
    /* Threads and memory go with the process; nothing of theirs has to be written any more. */
    _exit(0);
}

bool shutdown_prepare(struct node *n)
{
    persistence_save_cancel(n->persistence);
    if (!aof_shutdown(n->aof, false) || !save_for_the_last_time(n, 0)) return false;
    replication_flush(n->replication);
    if (n->cluster) cluster_node_stop(n);
    return true;
}

/* With the server at rest; comes back if it cannot be done. */
static void try_to_end(struct node *n, unsigned how)
{
    struct sync_count c = count_replicas(n, true);
    if (c.all) log_notice("%d of %d replicas are in sync when shutting down.", c.synced, c.all);
    persistence_save_cancel(n->persistence);
    if (aof_shutdown(n->aof, how & SHUTDOWN_FORCE) && save_for_the_last_time(n, how)) end(n);
}

/* ---- waiting for replicas ---- */

static bool is_waiting(const struct node *n)
{
    return atomic_load(&n->shutdown->until_ms) != 0;
}

/* With the server at rest.  False: there is nothing to wait for. */
static bool begin_waiting(struct node *n, unsigned how)
{
    int64_t timeout_ms = config_num(n->config, CFG_SHUTDOWN_TIMEOUT) * 1000;
    struct sync_count c = count_replicas(n, false);
    if (how & SHUTDOWN_NOW || timeout_ms == 0 || c.synced == c.all) return false;
    struct shutdown *s = n->shutdown;
    pthread_mutex_lock(&s->mu);
    s->how = how;
    atomic_store(&s->until_ms, clock_mono_ms() + timeout_ms);
    pthread_mutex_unlock(&s->mu);
    replication_ask_ack(n->replication); /* before the pause, which keeps the stream still */
    node_pause_for_failover(n, INT64_MAX / 8);
    log_notice("%d of %d replicas are in sync; waiting for the others before shutting down.", c.synced, c.all);
    return true;
}

/* True for the one who ends the wait. */
static bool end_waiting(struct node *n, unsigned *how)
{
    struct shutdown *s = n->shutdown;
    pthread_mutex_lock(&s->mu);
    bool waited = atomic_exchange(&s->until_ms, 0) != 0;
    *how = s->how;
    pthread_mutex_unlock(&s->mu);
    return waited;
}

void shutdown_tick(struct node *n)
{
    unsigned how;
    if (!is_waiting(n)) return;
    struct sync_count c = count_replicas(n, false);
    if (c.synced < c.all && clock_mono_ms() < atomic_load(&n->shutdown->until_ms)) return;
    if (!end_waiting(n, &how)) return;
    gate_close(n->gate);
    try_to_end(n, how);
    gate_open(n->gate);
    node_pause_for_failover(n, 0); /* whoever sent SHUTDOWN goes on, too, and is told */
}

void shutdown_on_signal(struct node *n, int signal)
{
    if (is_waiting(n) && signal == SIGINT) {
        log_warning("You insist... exiting now.");
        remove_pidfile(n);
        _exit(1);
    }
    if (is_waiting(n)) return;
    gate_close(n->gate);
    unsigned how = (unsigned)config_num(n->config, signal == SIGINT ? CFG_SHUTDOWN_ON_SIGINT : CFG_SHUTDOWN_ON_SIGTERM);
    if (!begin_waiting(n, how)) try_to_end(n, how);
    gate_open(n->gate);
}

int64_t shutdown_in_ms(const struct node *n)
{
    int64_t until = atomic_load(&n->shutdown->until_ms), now = clock_mono_ms();
    if (until == 0) return -1;
    return until > now ? until - now : 0;
}

/* ---- SHUTDOWN ---- */

static void reply_failed(struct call *c)
{
    resp_error(&c->out, "ERR Errors trying to SHUTDOWN. Check logs.");
}

static void abort_shutdown(struct call *c)
{
    struct node *n = call_conn(c)->worker->node;
    unsigned how;
    if (!end_waiting(n, &how)) {
        resp_error(&c->out, "ERR No shutdown in progress.");
        return;
    }
    node_pause_for_failover(n, 0);
    log_notice("Shutdown manually aborted.");
    resp_ok(&c->out);
}

/* False: an error was replied. */
static bool parse(struct call *c, unsigned *how, bool *abort)
{
    static const struct {
        const char *name;
        unsigned flag, excludes;
    } words[] = {{"save", SHUTDOWN_SAVE, SHUTDOWN_NOSAVE},
                 {"nosave", SHUTDOWN_NOSAVE, SHUTDOWN_SAVE},
                 {"now", SHUTDOWN_NOW, 0},
                 {"force", SHUTDOWN_FORCE, 0}};
    *how = 0;
    *abort = c->argc == 2 && call_arg_is(c, 1, "abort");
    for (size_t i = 1; i < c->argc && !*abort; i++) {
        size_t w = 0, count = sizeof words / sizeof *words;
        while (w < count && (!call_arg_is(c, i, words[w].name) || *how & words[w].excludes)) w++;
        if (w == count) {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
        *how |= words[w].flag;
    }
    return true;
}

void cmd_shutdown(struct call *c)
{
    struct conn *conn = call_conn(c);
    struct node *n = conn->worker->node;
    unsigned how;
    bool abort;
    if (!parse(c, &how, &abort)) return;
    if (abort) {
        abort_shutdown(c);
        return;
    }
    if (conn->waits_to_end && !is_waiting(n)) { /* it has waited, to no avail */
        conn->waits_to_end = false;
        reply_failed(c);
        return;
    }
    /* Nobody gets the server at rest while a script runs long; and nothing has to be saved. */
    if (how & SHUTDOWN_NOSAVE && script_any_slow(n)) {
        log_warning("User requested shutdown while a script runs...");
        aof_sync_now(n->aof);
        end(n);
    }
    if (!call_exclusive(c)) return;
    bool waits = is_waiting(n) && !(how & SHUTDOWN_NOW);
    if (!waits) {
        log_warning("User requested shutdown...");
        waits = begin_waiting(n, how);
    }
    if (waits) {
        conn->waits_to_end = true;
        dispatch_park(conn);
        return;
    }
    try_to_end(n, how);
    reply_failed(c);
}
