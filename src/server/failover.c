#include "server/failover.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"
#include "replica/replica.h"
#include "server/replication.h"

#include <stdio.h>

enum state { NO_FAILOVER, WAITING_FOR_SYNC, IN_PROGRESS };

struct failover {
    pthread_mutex_t mu; /* for what stands below `state`; a leaf */
    _Atomic int state;  /* changed under mu */
    char host[NET_ADDRESS_MAX];
    int port; /* 0: any replica */
    bool force;
    int64_t deadline_ms; /* monotonic; INT64_MAX: none */
};

/* Long enough to be for ever: what ends a failover ends the pause. */
#define FOR_EVER (INT64_MAX / 8)

struct failover *failover_create(void)
{
    struct failover *f = mem_calloc(1, sizeof *f);
    pthread_mutex_init(&f->mu, NULL);
    return f;
}

static int state_of(const struct node *n)
{
    return atomic_load_explicit(&n->failover->state, memory_order_relaxed);
}

const char *failover_state(const struct node *n)
{
    static const char *const names[] = {"no-failover", "waiting-for-sync", "failover-in-progress"};
    return names[state_of(n)];
}

bool failover_in_progress(const struct node *n)
{
    return state_of(n) == IN_PROGRESS;
}

/* True if it was in that state, and is over now. */
static bool end(struct node *n, int from)
{
    if (!atomic_compare_exchange_strong(&n->failover->state, &from, NO_FAILOVER)) return false;
    node_pause_for_failover(n, 0);
    return true;
}

/* ---- which replica ---- */

struct search {
    const struct failover *f;
    uint64_t offset;
    bool synced, found, known;
    char host[NET_ADDRESS_MAX];
    int port;
};

static void look_at(void *ctx, const struct hub_replica *r)
{
    struct search *s = ctx;
    bool wanted = s->f->port == 0 || (r->port == s->f->port && strcmp(r->ip, s->f->host) == 0);
    if (!wanted || s->found) return;
    s->known = true;
    if (strcmp(r->state, "online") != 0 || (s->synced && r->ack_offset != s->offset)) return;
    s->found = true;
    snprintf(s->host, sizeof s->host, "%s", r->ip);
    s->port = r->port;
}

static bool find_replica(struct node *n, bool synced, struct search *s)
{
    *s = (struct search){.f = n->failover, .offset = change_offset(n->log), .synced = synced};
    replication_each_replica(n->replication, look_at, s);
    return s->found;
}

/* ---- the steps ---- */

/* Outside the gate. */
static void hand_over(struct node *n, const char *host, int port)
{
    int waiting = WAITING_FOR_SYNC;
    if (!atomic_compare_exchange_strong(&n->failover->state, &waiting, IN_PROGRESS)) return;
    log_notice("Failover target is synced, failing over to %s:%d.", host, port);
    replication_hand_over(n->replication, host, port);
}

void failover_tick(struct worker *w)
{
    struct node *n = w->node;
    struct search s;
    if (state_of(n) != WAITING_FOR_SYNC) return;
    pthread_mutex_lock(&n->failover->mu);
    bool found = find_replica(n, true, &s);
    bool late = w->now_mono_ms > n->failover->deadline_ms;
    bool forced = !found && late && n->failover->force;
    if (forced) {
        found = true;
        snprintf(s.host, sizeof s.host, "%s", n->failover->host);
        s.port = n->failover->port;
    }
    pthread_mutex_unlock(&n->failover->mu);
    if (!found && late && end(n, WAITING_FOR_SYNC)) log_notice("Replica never caught up before timeout");
    if (!found) return;
    if (forced) log_notice("Failover to %s:%d time out exceeded, failing over.", s.host, s.port);
    worker_leave_gate(w);
    hand_over(n, s.host, s.port);
    worker_enter_gate(w);
}

static void look_now(struct worker *w)
{
    if (!w->inner) failover_tick(w);
}

void failover_acked(struct node *n)
{
    if (state_of(n) == WAITING_FOR_SYNC) node_post_workers(n, look_now);
}

void failover_answered(struct node *n, bool ok)
{
    if (!end(n, IN_PROGRESS)) return;
    if (ok) {
        log_notice("Failover done: the replica is the primary now");
        return;
    }
    log_notice("Failover target refused: staying primary");
    replication_promote(n->replication);
}

/* ---- the command ---- */

struct request {
    struct bytes host;
    int64_t port, timeout_ms;
    bool to, force, abort;
};

/* False: an error was replied. */
static bool parse(struct call *c, struct request *q)
{
    *q = (struct request){0};
    for (size_t i = 1; i < c->argc; i++) {
        if (call_arg_is(c, i, "timeout") && i + 1 < c->argc && q->timeout_ms == 0) {
            if (!call_arg_i64(c, i + 1, &q->timeout_ms, NULL)) return false;
            if (q->timeout_ms <= 0) {
                resp_error(&c->out, "ERR FAILOVER timeout must be greater than 0");
                return false;
            }
            i++;
        } else if (call_arg_is(c, i, "abort") && c->argc == 2) {
            q->abort = true;
        } else if (call_arg_is(c, i, "to") && i + 2 < c->argc && !q->to) {
            q->to = true;
            q->host = c->argv[i + 1];
            if (!call_arg_i64(c, i + 2, &q->port, NULL)) return false;
            i += 2;
        } else if (call_arg_is(c, i, "force") && !q->force) {
            q->force = true;
        } else {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
    }
    return true;
}

static void abort_failover(struct call *c)
{
    struct node *n = call_conn(c)->worker->node;
    if (end(n, WAITING_FOR_SYNC)) {
        log_notice("Failover manually aborted");
    } else if (end(n, IN_PROGRESS)) {
        log_notice("Failover manually aborted: staying primary");
        replication_promote_at_rest(n->replication);
    } else {
        resp_error(&c->out, "ERR No failover in progress.");
        return;
    }
    resp_ok(&c->out);
}

/* Why it cannot begin; NULL: it can. */
static const char *refusal(struct node *n, const struct request *q)
{
    if (state_of(n) != NO_FAILOVER) return "ERR FAILOVER already in progress.";
    if (data_node_is_replica(n)) return "ERR FAILOVER is not valid when server is a replica.";
    if (replication_replica_count(n->replication) == 0) return "ERR FAILOVER requires connected replicas.";
    if (q->force && (!q->timeout_ms || !q->to))
        return "ERR FAILOVER with force option requires both a timeout and target HOST and IP.";
    return NULL;
}

/* The addresses and the deadline; false: an error was replied. */
static bool choose(struct call *c, const struct request *q)
{
    struct node *n = call_conn(c)->worker->node;
    struct failover *f = n->failover;
    struct search s = {.synced = false};
    pthread_mutex_lock(&f->mu);
    snprintf(f->host, sizeof f->host, "%.*s", (int)q->host.n, q->host.n ? q->host.p : "");
    f->port = (int)q->port;
    f->force = q->force;
    f->deadline_ms = q->timeout_ms ? call_conn(c)->worker->now_mono_ms + q->timeout_ms : INT64_MAX;
    if (q->to) find_replica(n, false, &s);
    pthread_mutex_unlock(&f->mu);
    if (!q->to || s.found) return true;
    resp_error(&c->out, s.known ? "ERR FAILOVER target replica is not online."
                                : "ERR FAILOVER target HOST and PORT is not a replica.");
    return false;
}

void cmd_failover(struct call *c)
{
    struct node *n = call_conn(c)->worker->node;
    struct request q;
    if (n->cluster) {
        resp_error(&c->out, "ERR FAILOVER not allowed in cluster mode. Use CLUSTER FAILOVER command instead.");
        return;
    }
    if (!parse(c, &q)) return;
    if (!call_exclusive(c)) return; /* the pause begins between commands, not in the middle of one */
    if (q.abort) {
        abort_failover(c);
        return;
    }
    const char *why_not = refusal(n, &q);
    if (why_not) {
        resp_error(&c->out, why_not);
        return;
    }
    if (!choose(c, &q)) return;
    log_notice("FAILOVER requested to %s.", q.to ? n->failover->host : "any replica");
    atomic_store(&n->failover->state, WAITING_FOR_SYNC);
    replication_ask_ack(n->replication); /* before the pause, which keeps the stream still */
    node_pause_for_failover(n, FOR_EVER);
    resp_ok(&c->out);
}
