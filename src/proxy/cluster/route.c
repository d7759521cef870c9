/* route.c: what is done with a request: by its keys to one node, in parts, to all nodes, here, or not at all. */
#include "proxy/cluster/worker.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>

enum { KEYS_AT_ONCE = 16, SHOWN_MAX = 128 };

/* ---- keys ---- */

static int slot_of_keys(const struct bytes *argv, const struct command_key *keys, size_t n, uint16_t *slot)
{
    *slot = (uint16_t)key_slot(argv[keys[0].index]);
    for (size_t i = 1; i < n; i++)
        if (key_slot(argv[keys[i].index]) != *slot) return 2;
    return 1;
}

int route_slot(const struct command *cmd, const struct bytes *argv, size_t argc, uint16_t *slot)
{
    struct command_key few[KEYS_AT_ONCE];
    int n = command_routing_keys(cmd, argv, argc, few, KEYS_AT_ONCE);
    if (n <= 0) return n;
    if (n <= KEYS_AT_ONCE) return slot_of_keys(argv, few, (size_t)n, slot);
    struct command_key *all = mem_try_alloc((size_t)n * sizeof *all);
    if (!all) return -1;
    command_routing_keys(cmd, argv, argc, all, (size_t)n);
    int found = slot_of_keys(argv, all, (size_t)n, slot);
    mem_free(all);
    return found;
}

int route_find(const struct worker *w, const struct command *cmd, const struct resp_request *req, uint16_t *slot)
{
    int found = route_slot(cmd, req->argv, req->argc, slot);
    if (found <= 0 || !worker_has_one_server(w)) return found;
    *slot = 0;
    return 1;
}

uint16_t route_any_slot(struct client *c)
{
    struct worker *w = c->worker;
    if (worker_has_one_server(w)) return 0;
    unsigned from = (unsigned)(c->base.id * 2654435761u) % SLOT_COUNT;
    for (unsigned i = 0; i < SLOT_COUNT; i++)
        if (w->slots[(from + i) % SLOT_COUNT]) return (uint16_t)((from + i) % SLOT_COUNT);
    return (uint16_t)from;
}

/* ---- refusals ---- */

static unsigned shown(struct bytes b)
{
    return (unsigned)(b.n < SHOWN_MAX ? b.n : SHOWN_MAX);
}

static void refuse(struct client *c, const char *text)
{
    if (c->in_multi) c->multi_failed = true;
    client_reply_error(c, text);
}

static void refuse_unknown(struct client *c, const struct resp_request *req, const struct command *container)
{
    char text[512];
    struct buf b = {0};
    const struct bytes *argv = req->argv;
    if (container) {
        char upper[64];
        size_t n = 0;
        for (; container->name[n] && n < sizeof upper - 1; n++)
            upper[n] = container->name[n] >= 'a' && container->name[n] <= 'z' ? (char)(container->name[n] - 32)
                                                                              : container->name[n];
        upper[n] = '\0';
        snprintf(text, sizeof text, "ERR unknown subcommand '%.*s'. Try %s HELP.", (int)shown(argv[1]), argv[1].p,
                 upper);
        refuse(c, text);
        return;
    }
    buf_printf(&b, "ERR unknown command '%.*s', with args beginning with: ", (int)shown(argv[0]), argv[0].p);
    size_t start = b.n;
    for (size_t i = 1; i < req->argc && b.n - start < SHOWN_MAX; i++) {
        size_t room = SHOWN_MAX - (b.n - start);
        buf_printf(&b, "'%.*s' ", (int)(argv[i].n < room ? argv[i].n : room), argv[i].p);
    }
    buf_append_char(&b, '\0');
    refuse(c, b.p);
    buf_deinit(&b);
}

static void refuse_arity(struct client *c, const struct command *cmd)
{
    char text[128];
    snprintf(text, sizeof text, "ERR wrong number of arguments for '%s' command", cmd->name);
    refuse(c, text);
}

/* ---- dispatch ---- */

bool route_alone(struct client *c)
{
    c->barrier = c->base.first != NULL;
    return !c->barrier;
}

/* What may look at keys of slots that it does not name. */
static bool reaches_further(const struct command *cmd)
{
    return cmd->id == CMD_ID_SORT || cmd->id == CMD_ID_SORT_RO || command_runs_script(cmd);
}

bool route_asks_cross(const struct worker *w, const struct command *cmd, bool crosses)
{
    return worker_may_cross(w) && (crosses || reaches_further(cmd));
}

static void send_by_keys(struct client *c, const struct command *cmd, uint16_t slot, bool crosses, struct bytes raw)
{
    struct request *r = request_create(c->worker, c, cmd, slot);
    r->crosses = crosses;
    r->asks_cross = route_asks_cross(c->worker, cmd, crosses);
    r->charged = raw.n;
    c->queued_bytes += raw.n;
    client_enqueue(c, r);
    request_dispatch(c->worker, r, raw);
}

static void send_to_slot(struct client *c, const struct command *cmd, uint16_t slot, struct bytes raw)
{
    send_by_keys(c, cmd, slot, false, raw);
}

/* XREAD and XREADGROUP block when they are told to. */
static bool blocks(const struct command *cmd, const struct resp_request *req)
{
    if (!(cmd->flags & CMD_BLOCKING)) return false;
    if (cmd->id != CMD_ID_XREAD && cmd->id != CMD_ID_XREADGROUP) return true;
    for (size_t i = 1; i < req->argc && !bytes_ieq(req->argv[i], BYTES("streams")); i++)
        if (bytes_ieq(req->argv[i], BYTES("block"))) return true;
    return false;
}

static enum outcome route_keys(struct client *c, const struct command *cmd, const struct resp_request *req,
                               struct bytes raw)
{
    uint16_t slot = 0;
    const struct worker *w = c->worker;
    int found = route_find(w, cmd, req, &slot);
    bool splits = found == 2 && decision_of(cmd)->course == COURSE_SPLIT;
    /* In one piece, and so atomic, where it is known that the node will take it. */
    if (splits && !(w->only && w->only->crossing == CROSSING_YES)) {
        split_dispatch(c, cmd, req);
        return OUTCOME_DONE;
    }
    if (found == 2 && !worker_may_cross(w)) {
        refuse(c, CROSSSLOT_ERROR);
        return OUTCOME_DONE;
    }
    if (found >= 0 && evals_matters(cmd)) evals_sent(c->worker, cmd, req);
    if (found <= 0) slot = route_any_slot(c); /* the node says what is wrong */
    if (blocks(cmd, req)) return blocking_dispatch(c, cmd, slot, raw, found == 2);
    send_by_keys(c, cmd, slot, found == 2, raw);
    return OUTCOME_DONE;
}

/* Messages of a channel keep their order. */
static enum outcome send_to_any(struct client *c, const struct command *cmd, const struct resp_request *req,
                                struct bytes raw)
{
    uint16_t slot = route_any_slot(c);
    if (cmd->id == CMD_ID_PUBLISH && !worker_has_one_server(c->worker)) slot = (uint16_t)key_slot(req->argv[1]);
    send_to_slot(c, cmd, slot, raw);
    return OUTCOME_DONE;
}

static enum outcome send_everywhere(struct client *c, const struct command *cmd, const struct resp_request *req,
                                    struct bytes raw, enum gather_kind kind)
{
    if (worker_has_one_server(c->worker)) return send_to_any(c, cmd, req, raw);
    if (!route_alone(c)) return OUTCOME_NOT_NOW;
    everywhere_dispatch(c, cmd, kind, raw);
    c->barrier = true;
    return OUTCOME_DONE;
}

/* DEBUG OBJECT and the like name a key. */
static enum outcome route_debug(struct client *c, const struct command *cmd, const struct resp_request *req,
                                struct bytes raw, const char *reason)
{
    static const char *const about_keys[] = {"object", "listpack", "ziplist", "quicklist", "sdslen", "stringmatch-len"};
    if (worker_has_one_server(c->worker)) return send_to_any(c, cmd, req, raw);
    for (size_t i = 0; req->argc > 2 && i < sizeof about_keys / sizeof *about_keys; i++) {
        if (!bytes_ieq(req->argv[1], bytes_of(about_keys[i]))) continue;
        send_to_slot(c, cmd, (uint16_t)key_slot(req->argv[2]), raw);
        return OUTCOME_DONE;
    }
    refuse(c, reason);
    return OUTCOME_DONE;
}

static enum outcome route_command(struct client *c, const struct command *cmd, const struct resp_request *req,
                                  struct bytes raw)
{
    const struct decision *d = decision_of(cmd);
    switch ((enum course)d->course) {
    case COURSE_KEYS:
    case COURSE_SPLIT: return route_keys(c, cmd, req, raw);
    case COURSE_ANY: return send_to_any(c, cmd, req, raw);
    case COURSE_EVERY: return send_everywhere(c, cmd, req, raw, (enum gather_kind)d->gather);
    case COURSE_SUBSCRIBE: return subscribe_dispatch(c, cmd, req, raw);
    case COURSE_DEBUG: return route_debug(c, cmd, req, raw, d->reason);
    case COURSE_LOCAL: return local_dispatch(c, cmd, req);
    case COURSE_WAIT: return wait_dispatch(c, cmd, req, raw);
    case COURSE_MONITOR: return feeds_dispatch(c, cmd);
    case COURSE_SCAN:
        if (worker_has_one_server(c->worker)) return send_to_any(c, cmd, req, raw);
        scan_dispatch(c, cmd, req);
        return OUTCOME_DONE;
    case COURSE_ONE:
        if (worker_has_one_server(c->worker)) return send_to_any(c, cmd, req, raw);
        refuse(c, d->reason);
        return OUTCOME_DONE;
    default:
        refuse(c, d->reason ? d->reason : "ERR this command is not possible through the proxy");
        return OUTCOME_DONE;
    }
}

static enum outcome route_transaction(struct client *c, const struct command *cmd, const struct resp_request *req,
                                      struct bytes raw)
{
    switch (cmd->id) {
    case CMD_ID_EXEC: return transaction_exec(c, cmd);
    case CMD_ID_DISCARD:
        if (c->watching && !route_alone(c)) return OUTCOME_NOT_NOW;
        transaction_discard(c);
        return OUTCOME_DONE;
    case CMD_ID_MULTI:
        client_reply_error(c, "ERR MULTI calls can not be nested"); /* which redis-server forgives */
        return OUTCOME_DONE;
    case CMD_ID_WATCH: client_reply_error(c, "ERR WATCH inside MULTI is not allowed"); return OUTCOME_DONE;
    default: transaction_queue(c, cmd, req, raw); return OUTCOME_DONE;
    }
}

static enum outcome route_known(struct client *c, const struct command *cmd, const struct resp_request *req,
                                struct bytes raw)
{
    if (cmd->id == CMD_ID_QUIT || cmd->id == CMD_ID_RESET) {
        if (!route_alone(c)) return OUTCOME_NOT_NOW;
        return local_dispatch(c, cmd, req);
    }
    if (c->in_multi) return route_transaction(c, cmd, req, raw);
    switch (cmd->id) {
    case CMD_ID_MULTI: transaction_begin(c); return OUTCOME_DONE;
    case CMD_ID_EXEC: client_reply_error(c, "ERR EXEC without MULTI"); return OUTCOME_DONE;
    case CMD_ID_DISCARD: client_reply_error(c, "ERR DISCARD without MULTI"); return OUTCOME_DONE;
    case CMD_ID_WATCH: return watch_dispatch(c, cmd, req, raw);
    case CMD_ID_UNWATCH:
        if (!route_alone(c)) return OUTCOME_NOT_NOW;
        unwatch(c);
        client_reply_ok(c);
        return OUTCOME_DONE;
    default: return route_command(c, cmd, req, raw);
    }
}

static bool allowed_while_subscribed(const struct client *c, const struct command *cmd)
{
    return !c->subscribed || c->resp == 3 || decision_of(cmd)->course == COURSE_SUBSCRIBE || cmd->id == CMD_ID_PING ||
           cmd->id == CMD_ID_QUIT || cmd->id == CMD_ID_RESET;
}

static enum outcome abort_transaction(struct client *c, const char *refusal)
{
    char text[64 + ACCESS_REFUSAL_MAX];
    if (!route_alone(c)) return OUTCOME_NOT_NOW;
    snprintf(text, sizeof text, "EXECABORT Transaction discarded because of: %s", refusal);
    unwatch(c);
    transaction_reset(c);
    client_reply_error(c, text);
    return OUTCOME_DONE;
}

static enum outcome route_checked(struct client *c, const struct command *cmd, const struct resp_request *req,
                                  struct bytes raw)
{
    char why_not[ACCESS_REFUSAL_MAX];
    front_refresh_users(c->worker->front, &c->base);
    if (front_must_log_in(&c->base)) {
        if (!local_before_login(c, cmd, req)) client_reply_error(c, "NOAUTH Authentication required.");
        return OUTCOME_DONE;
    }
    const char *refusal = front_refusal(&c->base, cmd, req->argv, req->argc, why_not);
    if (refusal) measure_rejected(c->worker, cmd);
    if (refusal && cmd->id == CMD_ID_EXEC) return abort_transaction(c, refusal);
    if (refusal) {
        refuse(c, refusal);
        return OUTCOME_DONE;
    }
    if (c->confirming && decision_of(cmd)->course != COURSE_SUBSCRIBE) {
        c->held_back = true;
        return OUTCOME_NOT_NOW;
    }
    if (!allowed_while_subscribed(c, cmd)) {
        char text[200];
        snprintf(text, sizeof text,
                 "ERR Can't execute '%s': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in "
                 "this context",
                 cmd->name);
        client_reply_error(c, text);
        return OUTCOME_DONE;
    }
    if (client_must_pause(c, cmd)) return OUTCOME_NOT_NOW;
    enum outcome outcome = route_known(c, cmd, req, raw);
    if (outcome == OUTCOME_DONE) measure_call(c, cmd, req);
    return outcome;
}

/* An inline request, and one behind empty lines, is written anew. */
static enum outcome route_rewritten(struct client *c, const struct command *cmd, const struct resp_request *req)
{
    struct buf b = {0};
    resp_request_append(&b, req->argv, req->argc);
    enum outcome o = route_checked(c, cmd, req, buf_bytes(&b));
    buf_deinit(&b);
    return o;
}

/* A browser talked into posting to our port would otherwise have its body executed line by line. */
static bool is_http(struct bytes name)
{
    return bytes_ieq(name, BYTES("post")) || bytes_ieq(name, BYTES("host:"));
}

static void drop_http(struct client *c)
{
    log_warning("Somebody sends POST or Host: to the proxy, perhaps a browser that was made to: connection from %s is "
                "closed",
                c->base.peer);
    c->base.close_asap = true;
}

static enum outcome route_any(struct client *c, const struct resp_request *req, struct bytes raw)
{
    const struct command *container = NULL, *cmd = command_of_request(req->argv, req->argc, &container);
    if (!cmd) {
        if (is_http(req->argv[0]))
            drop_http(c);
        else if (front_must_log_in(&c->base))
            client_reply_error(c, "NOAUTH Authentication required.");
        else
            refuse_unknown(c, req, container);
        return OUTCOME_DONE;
    }
    c->last_cmd = cmd;
    if (!command_arity_ok(cmd, req->argc)) {
        if (cmd->id == CMD_ID_EXEC) return abort_transaction(c, "wrong number of arguments for 'exec' command");
        refuse_arity(c, cmd);
        return OUTCOME_DONE;
    }
    bool verbatim = raw.n > 1 && raw.p[0] == '*' && raw.p[1] >= '1' && raw.p[1] <= '9';
    return verbatim ? route_checked(c, cmd, req, raw) : route_rewritten(c, cmd, req);
}

enum outcome route_request(struct client *c, const struct resp_request *req, struct bytes raw)
{
    bool skipped = c->reply_skip;
    c->is_mute = skipped || c->reply_off;
    enum outcome outcome = route_any(c, req, raw);
    if (skipped && outcome == OUTCOME_DONE) c->reply_skip = false;
    c->is_mute = false;
    return outcome;
}
