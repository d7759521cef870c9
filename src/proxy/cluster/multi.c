/* multi.c: MULTI, EXEC, WATCH.  A transaction is kept here until EXEC, and then sent in one piece on a shared
 * connection; its keys are all in one slot.  WATCH takes a connection of the client's own until EXEC. */
#include "proxy/cluster/worker.h"

#include "base/mem.h"

#include <stdio.h>

void transaction_begin(struct client *c)
{
    c->in_multi = true;
    c->multi_failed = false;
    c->multi_count = 0;
    c->multi_slot = -1;
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

/* Commands without keys that any node answers as this proxy would. */
static bool is_possible_without_keys(const struct command *cmd)
{
    switch (cmd->id) {
    case CMD_ID_PING:
    case CMD_ID_ECHO:
    case CMD_ID_TIME:
    case CMD_ID_PUBLISH: return true;
    default: return command_has_keys(cmd); /* EVAL without keys */
    }
}

void transaction_queue(struct client *c, const struct command *cmd, const struct resp_request *req, struct bytes raw)
{
    uint16_t slot = 0;
    char text[160];
    int found = route_slot(cmd, req->argv, req->argc, &slot);
    if (cmd->flags & CMD_NO_MULTI) {
        refuse(c, "ERR Command not allowed inside a transaction");
    } else if (found <= 0 && !is_possible_without_keys(cmd)) {
        snprintf(text, sizeof text, "ERR '%s' is not possible inside MULTI through the proxy", cmd->name);
        refuse(c, text);
    } else if (found == 2 || (found == 1 && c->multi_slot >= 0 && c->multi_slot != slot) ||
               (found == 1 && c->watching && c->watch_slot != slot)) {
        refuse(c, "CROSSSLOT Keys in request don't hash to the same slot");
    } else if ((int64_t)(c->multi.n + raw.n) > c->worker->config->query_limit ||
               buf_try_reserve(&c->multi, raw.n) != OK) {
        refuse(c, "OOM the transaction is too large");
    } else {
        if (found == 1) c->multi_slot = slot;
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
    r->is_watched = c->watching;
    resp_request_cstr(&c->multi, 1, "EXEC");
    client_enqueue(c, r);
    request_dispatch(w, r, buf_bytes(&c->multi));
}

enum outcome transaction_exec(struct client *c, const struct command *cmd)
{
    if (c->watching && !route_alone(c)) return OUTCOME_NOT_NOW;
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
        c->barrier = c->watching; /* the connection goes back with its reply */
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
    int found = route_slot(cmd, req->argv, req->argc, &slot);
    if (!route_alone(c)) return OUTCOME_NOT_NOW;
    if (found != 1 || (c->watching && c->watch_slot != slot)) {
        client_reply_error(c, "CROSSSLOT Keys in request don't hash to the same slot");
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
    r->is_watching = true;
    client_enqueue(c, r);
    node_link_send(c->pinned, r, raw);
    c->barrier = true;
    return OUTCOME_DONE;
}
