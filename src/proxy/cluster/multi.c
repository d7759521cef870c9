/* multi.c: MULTI, EXEC, WATCH.  A transaction is kept here until EXEC, and then sent in one piece on a shared
 * connection; its keys are all in one slot of a cluster.  WATCH takes a connection of the client's own until EXEC. */
#include "proxy/cluster/worker.h"

#include "base/mem.h"
#include "base/number.h"

#include <stdio.h>

void transaction_begin(struct client *c)
{
    c->in_multi = true;
    c->multi_failed = false;
    c->multi_count = 0;
    c->multi_slot = -1;
    c->multi_selects = c->multi_writes = c->multi_crosses = c->multi_asks_cross = c->multi_scripts = false;
    c->multi_db = c->db;
    c->multi.n = 0;
    resp_request_cstr(&c->multi, 1, "MULTI");
    client_reply_ok(c);
}

void transaction_reset(struct client *c)
{
    c->in_multi = c->multi_failed = false;
    buf_deinit(&c->multi);
}

static void refuse(struct client *c, const char *text)
{
    c->multi_failed = true;
    client_reply_error(c, text);
}

/* NULL: it may be queued.  Else the error. */
static const char *why_not(struct client *c, const struct command *cmd, int found, uint16_t slot, char text[160])
{
    const struct decision *d = decision_of(cmd);
    bool one = worker_has_one_server(c->worker), only = worker_may_cross(c->worker);
    bool possible = d->in_multi || d->course == COURSE_SPLIT ||
                    ((one || only) && (d->course == COURSE_EVERY || cmd->id == CMD_ID_SELECT)) ||
                    (one && (d->course == COURSE_SCAN || d->course == COURSE_ONE || d->course == COURSE_DEBUG));
    if (cmd->flags & CMD_NO_MULTI) return "ERR Command not allowed inside a transaction";
    if (!possible && d->reason) return d->reason;
    if (!possible) {
        snprintf(text, 160, "ERR '%s' is not possible inside MULTI through the proxy", cmd->name);
        return text;
    }
    bool crosses = found == 2 || (found == 1 && c->multi_slot >= 0 && c->multi_slot != slot) ||
                   (found == 1 && c->watching && c->watch_slot != slot) || (d->course == COURSE_EVERY && !one);
    if (crosses && !only) return CROSSSLOT_ERROR;
    c->multi_crosses |= crosses;
    return NULL;
}

/* SELECT changes what the connection is afterwards, so that the transaction needs one of its own. */
static void note_select(struct client *c, const struct command *cmd, const struct resp_request *req)
{
    int64_t db;
    if (cmd->id != CMD_ID_SELECT) return;
    c->multi_selects = true;
    if (parse_i64(req->argv[1], &db) && db >= 0 && db < (int64_t)c->worker->map->databases) c->multi_db = (uint16_t)db;
}

void transaction_queue(struct client *c, const struct command *cmd, const struct resp_request *req, struct bytes raw)
{
    uint16_t slot = 0;
    char text[160];
    int found = route_find(c->worker, cmd, req, &slot);
    const char *reason = why_not(c, cmd, found, slot, text);
    if (reason) {
        refuse(c, reason);
    } else if ((int64_t)(c->multi.n + raw.n) > c->worker->config->query_limit ||
               buf_try_reserve(&c->multi, raw.n) != OK) {
        refuse(c, "OOM the transaction is too large");
    } else {
        if (found >= 1) c->multi_slot = slot;
        c->multi_asks_cross |= route_asks_cross(c->worker, cmd, c->multi_crosses);
        note_select(c, cmd, req);
        c->multi_scripts |= evals_matters(cmd);
        c->multi_writes |= (cmd->flags & (CMD_WRITE | CMD_MAY_REPLICATE)) != 0;
        buf_append_bytes(&c->multi, raw);
        c->multi_count++;
        struct resp_out o;
        struct request *r = client_reply_begin(c, &o);
        resp_status(&o, "QUEUED");
        client_reply_end(c, r);
    }
}

static void reply_null(struct client *c)
{
    struct resp_out o;
    struct request *r = client_reply_begin(c, &o);
    resp_null_array(&o);
    client_reply_end(c, r);
}

/* The watched keys matter no more. */
void unwatch(struct client *c)
{
    struct link *l = c->pinned;
    if (!c->watching) return;
    c->watching = c->watch_lost = false;
    c->pinned = NULL;
    if (l) node_link_unpin(l, false);
}

static void send_transaction(struct client *c, const struct command *cmd)
{
    struct worker *w = c->worker;
    uint16_t slot = c->multi_slot >= 0 ? (uint16_t)c->multi_slot : route_any_slot(c);
    struct request *r = request_create(w, c, cmd, c->watching ? c->watch_slot : slot);
    r->skip = c->multi_count + 1;
    r->is_safe = false;
    r->crosses = c->multi_crosses || (c->watching && c->watch_crosses);
    r->has_scripts = c->multi_scripts;
    r->asks_cross = r->crosses || c->multi_asks_cross;
    r->is_watched = c->watching;
    r->selects = c->multi_selects;
    r->db_after = c->multi_db;
    r->is_blocking = r->selects && !c->watching;
    resp_request_cstr(&c->multi, 1, "EXEC");
    client_enqueue(c, r);
    request_dispatch(w, r, buf_bytes(&c->multi));
}

enum outcome transaction_exec(struct client *c, const struct command *cmd)
{
    if ((c->watching || c->multi_selects) && !route_alone(c)) return OUTCOME_NOT_NOW;
    if (c->multi_failed) {
        client_reply_error(c, "EXECABORT Transaction discarded because of previous errors.");
        unwatch(c);
    } else if (c->watching && (c->watch_lost || !c->pinned)) {
        reply_null(c);
        unwatch(c);
    } else if (c->multi_count == 0 && !c->watching) {
        struct resp_out o;
        struct request *r = client_reply_begin(c, &o);
        resp_array(&o, 0);
        client_reply_end(c, r);
    } else {
        send_transaction(c, cmd);
        c->barrier = c->watching || c->multi_selects; /* the connection goes back with its reply */
    }
    transaction_reset(c);
    return OUTCOME_DONE;
}

void transaction_discard(struct client *c)
{
    unwatch(c);
    transaction_reset(c);
    client_reply_ok(c);
}

/* ---- WATCH ---- */

enum outcome watch_dispatch(struct client *c, const struct command *cmd, const struct resp_request *req,
                            struct bytes raw)
{
    struct worker *w = c->worker;
    uint16_t slot;
    bool full = false;
    int found = route_find(w, cmd, req, &slot);
    if (!route_alone(c)) return OUTCOME_NOT_NOW;
    bool crosses = found == 2 || (found == 1 && c->watching && c->watch_slot != slot);
    if (found < 1 || (crosses && !worker_may_cross(w))) {
        client_reply_error(c, CROSSSLOT_ERROR);
        return OUTCOME_DONE;
    }
    if (c->subscribed) { /* RESP3 only */
        client_reply_error(c, "ERR WATCH is not possible for a subscriber through the proxy");
        return OUTCOME_DONE;
    }
    if (!c->watching) {
        struct backend *b = w->slots[slot];
        struct link *l = b ? node_link_pin(w, b, c, &full) : NULL;
        if (full) {
            client_reply_error(c, "ERR too many connections of one client each (pinned-connections)");
            return OUTCOME_DONE;
        }
        c->watching = true;
        c->watch_crosses = false;
        c->watch_slot = slot;
        c->watch_lost = false;
        c->pinned = l;
    }
    if (!c->pinned) { /* nothing can be vouched for: EXEC will say that it did not happen */
        c->watch_lost = true;
        client_reply_ok(c);
        return OUTCOME_DONE;
    }
    struct request *r = request_create(w, c, cmd, slot);
    c->watch_crosses |= crosses;
    r->crosses = r->asks_cross = crosses;
    r->is_watching = true;
    client_enqueue(c, r);
    node_link_send(c->pinned, r, raw);
    c->barrier = true;
    return OUTCOME_DONE;
}
