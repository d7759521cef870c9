/* local.c: what the proxy answers itself: the connection, and the proxy's own state. */
#include "proxy/cluster/worker.h"

#include "base/clock.h"
#include "base/glob.h"
#include "base/mem.h"
#include "base/number.h"
#include "base/version.h"

#include <unistd.h>

enum { LOOK_MS = 20 };

static const char wrong_password[] = "WRONGPASS invalid username-password pair or user is disabled.";

static void auth(struct client *c, struct resp_out *o, const struct resp_request *req)
{
    if (req->argc > 3)
        resp_error(o, "ERR syntax error");
    else if (req->argc == 2 && acl_user_nopass(user_set_default(c->worker->front->policy.users)->user))
        resp_error(o, "ERR AUTH <password> called without any password configured for the default user. Are you sure "
                      "your configuration is correct?");
    else if (front_log_in(&c->base, req->argv[0], req->argc == 3 ? req->argv[1] : BYTES("default"),
                          req->argv[req->argc - 1]))
        resp_ok(o);
    else
        resp_error(o, wrong_password);
}

static bool name_ok(struct bytes name)
{
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] < '!' || name.p[i] > '~') return false;
    return true;
}

static bool set_name(struct client *c, struct resp_out *o, struct bytes name)
{
    if (!name_ok(name)) {
        resp_error(o, "ERR Client names cannot contain spaces, newlines or special characters.");
        return false;
    }
    mem_free(c->name);
    c->name = name.n ? bytes_dup_cstr(name) : NULL;
    return true;
}

static void describe(struct client *c, struct resp_out *o)
{
    resp_map(o, 7);
    resp_bulk_cstr(o, "server");
    resp_bulk_cstr(o, "redis");
    resp_bulk_cstr(o, "version");
    resp_bulk_cstr(o, "7.0.15");
    resp_bulk_cstr(o, "proto");
    resp_i64(o, c->resp);
    resp_bulk_cstr(o, "id");
    resp_i64(o, (int64_t)c->base.id);
    resp_bulk_cstr(o, "mode");
    resp_bulk_cstr(o, "standalone");
    resp_bulk_cstr(o, "role");
    resp_bulk_cstr(o, "master");
    resp_bulk_cstr(o, "modules");
    resp_array(o, 0);
}

static bool hello_options(struct client *c, struct resp_out *o, const struct resp_request *req)
{
    for (size_t i = 2; i < req->argc; i++) {
        size_t more = req->argc - 1 - i;
        if (bytes_ieq(req->argv[i], BYTES("AUTH")) && more >= 2) {
            if (!front_log_in(&c->base, req->argv[0], req->argv[i + 1], req->argv[i + 2])) {
                resp_error(o, wrong_password);
                return false;
            }
            i += 2;
        } else if (bytes_ieq(req->argv[i], BYTES("SETNAME")) && more >= 1) {
            if (!set_name(c, o, req->argv[++i])) return false;
        } else {
            struct bytes a = req->argv[i];
            resp_errorf(o, "ERR Syntax error in HELLO option '%.*s'", resp_shown(a), a.p);
            return false;
        }
    }
    return true;
}

static void hello(struct client *c, struct resp_out *o, const struct resp_request *req)
{
    int64_t version = c->resp;
    if (req->argc > 1 && !parse_i64(req->argv[1], &version)) {
        resp_error(o, "ERR Protocol version is not an integer or out of range");
        return;
    }
    if (version < 2 || version > 3) {
        resp_error(o, "NOPROTO unsupported protocol version");
        return;
    }
    if (!hello_options(c, o, req)) return;
    if (front_must_log_in(&c->base)) {
        resp_error(o, "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH "
                      "<user> <pass> option can be used to authenticate the client and select the RESP protocol "
                      "version at the same time");
        return;
    }
    if (c->resp != version) unwatch(c); /* its connection speaks the other version */
    c->resp = (uint8_t)version;
    o->version = c->resp;
    describe(c, o);
}

static void select_database(struct client *c, struct resp_out *o, struct bytes number)
{
    int64_t db;
    const struct topology_map *map = c->worker->map;
    if (!parse_i64(number, &db)) {
        resp_error(o, "ERR value is not an integer or out of range");
    } else if (db < 0 || db >= (map ? (int64_t)map->databases : 1)) {
        resp_error(o, "ERR DB index is out of range");
    } else {
        c->db = (uint16_t)db;
        if (c->watching && c->pinned) node_link_select(c->pinned, c->db);
        resp_ok(o);
    }
}

/* ---- CONFIG GET ---- */

struct config_get {
    struct resp_out *o;
    const struct resp_request *req;
    size_t n;
};

static void get_if_wanted(void *arg, const char *name, struct bytes value)
{
    struct config_get *g = arg;
    for (size_t i = 2; i < g->req->argc; i++) {
        if (!glob_match(g->req->argv[i], bytes_of(name), true)) continue;
        resp_bulk_cstr(g->o, name);
        resp_bulk(g->o, value);
        g->n++;
        return;
    }
}

static void config_get(struct client *c, struct resp_out *o, const struct resp_request *req)
{
    /* What programs look at before they work with a server. */
    static const char *const fixed[][2] = {
        {"save", ""},
        {"appendonly", "no"},
        {"cluster-enabled", "no"},
        {"maxmemory", "0"},
        {"maxmemory-policy", "noeviction"},
    };
    size_t mark = resp_defer(o);
    struct config_get g = {o, req, 0};
    proxy_config_each(c->worker->config, get_if_wanted, &g);
    char digits[24];
    uint64_t databases = c->worker->map ? c->worker->map->databases : 1;
    get_if_wanted(&g, "databases", bytes_make(digits, format_u64(digits, databases)));
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) get_if_wanted(&g, fixed[i][0], bytes_of(fixed[i][1]));
    resp_defer_map(o, mark, g.n);
}

/* ---- which ---- */

static void reset(struct client *c, struct resp_out *o)
{
    transaction_reset(c);
    unwatch(c);
    if (c->subscribed) {
        struct link *l = c->pinned;
        c->pinned = NULL;
        subscriptions_end(c);
        if (l) node_link_unpin(l, false);
    }
    mem_free(c->name);
    c->name = NULL;
    c->resp = o->version = 2;
    c->db = 0;
    c->reply_off = c->reply_skip = false;
    feeds_end(c);
    front_log_out(&c->base);
    resp_status(o, "RESET");
}

static bool answer(struct client *c, struct resp_out *o, const struct command *cmd, const struct resp_request *req)
{
    switch (cmd->id) {
    case CMD_ID_PING:
        if (req->argc > 2)
            resp_error(o, "ERR wrong number of arguments for 'ping' command");
        else if (c->subscribed && c->resp == 2) {
            resp_array(o, 2);
            resp_bulk_cstr(o, "pong");
            resp_bulk(o, req->argc == 2 ? req->argv[1] : BYTES(""));
        } else if (req->argc == 2)
            resp_bulk(o, req->argv[1]);
        else
            resp_status(o, "PONG");
        return true;
    case CMD_ID_ECHO: resp_bulk(o, req->argv[1]); return true;
    case CMD_ID_AUTH: auth(c, o, req); return true;
    case CMD_ID_HELLO: hello(c, o, req); return true;
    case CMD_ID_SELECT: select_database(c, o, req->argv[1]); return true;
    case CMD_ID_INFO: report_info(c, o, req); return true;
    case CMD_ID_CONFIG_GET: config_get(c, o, req); return true;
    case CMD_ID_RESET: reset(c, o); return true;
    case CMD_ID_CLIENT_SETNAME:
        if (set_name(c, o, req->argv[2])) resp_ok(o);
        return true;
    case CMD_ID_QUIT:
        resp_ok(o);
        c->base.close_after_reply = true;
        return true;
    default: break;
    }
    if (report_slowlog(c, o, cmd, req)) return true;
    if (front_answers_acl(cmd)) {
        front_answer_acl(&c->base, o, cmd, req->argv, req->argc);
        return true;
    }
    return clients_answer(c, o, cmd, req->argv, req->argc) || answers_answer(c, o, cmd, req->argv, req->argc);
}

/* How many databases there are is not known in the first moments. */
static bool awaits_map(struct client *c)
{
    struct worker *w = c->worker;
    if (w->map || clock_wall_ms() - w->proxy->front->started_ms > w->config->hold_timeout_ms) return false;
    front_delay(&c->base, LOOK_MS);
    return true;
}

enum outcome local_dispatch(struct client *c, const struct command *cmd, const struct resp_request *req)
{
    struct resp_out o;
    if (cmd->id == CMD_ID_SELECT && !route_alone(c)) return OUTCOME_NOT_NOW; /* other databases, other connections */
    if (cmd->id == CMD_ID_SELECT && awaits_map(c)) return OUTCOME_NOT_NOW;
    if (cmd->id == CMD_ID_CONFIG_SET || cmd->id == CMD_ID_CONFIG_REWRITE) return settings_dispatch(c, cmd, req);
    if (cmd->id == CMD_ID_CONFIG_RESETSTAT) return answers_reset_stats(c, cmd);
    if (clients_asks_all(cmd)) return clients_ask_all(c, cmd, req->argv, req->argc);
    if (cmd->id == CMD_ID_CLIENT_REPLY) c->is_mute = c->reply_off && !bytes_ieq(req->argv[2], BYTES("on"));
    struct request *r = client_reply_begin(c, &o);
    size_t at = o.buf->n;
    if (!answer(c, &o, cmd, req)) resp_errorf(&o, "ERR '%s' is not possible through the proxy", cmd->name);
    if (o.buf->n > at && o.buf->p[at] == '-') {
        count(&c->worker->measure.commands[cmd->id].failed, 1);
        measure_error(c->worker, bytes_make(o.buf->p + at, o.buf->n - at));
    }
    client_reply_end(c, r);
    return OUTCOME_DONE;
}

bool local_before_login(struct client *c, const struct command *cmd, const struct resp_request *req)
{
    return (cmd->flags & CMD_NO_AUTH) != 0 && decision_of(cmd)->course == COURSE_LOCAL &&
           local_dispatch(c, cmd, req) == OUTCOME_DONE;
}
