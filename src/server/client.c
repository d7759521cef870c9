/* client.c: the connection's own commands: AUTH, HELLO, SELECT, PING, QUIT, RESET and the cluster's marks. */
#include "server/client.h"

#include "base/mem.h"
#include "base/number.h"
#include "change/durable.h"
#include "server/acl_node.h"
#include "server/monitor.h"
#include "server/multi.h"
#include "server/pubsub.h"
#include "server/tracking.h"

static const char ERR_NAME[] = "ERR Client names cannot contain spaces, newlines or special characters.";
static const char ERR_WRONGPASS[] = "WRONGPASS invalid username-password pair or user is disabled.";

void cmd_auth(struct call *c)
{
    struct conn *conn = call_conn(c);
    if (c->argc > 3) {
        resp_error(&c->out, ERR_SYNTAX);
        return;
    }
    if (c->argc == 2 && atomic_load(&conn->worker->node->open_to_all)) {
        resp_error(&c->out, "ERR AUTH <password> called without any password configured for the default user. Are you "
                            "sure your configuration is correct?");
        return;
    }
    struct bytes user = c->argc == 3 ? c->argv[1] : BYTES("default");
    if (acl_log_in(c, user, c->argv[c->argc - 1]))
        resp_ok(&c->out);
    else
        resp_error(&c->out, ERR_WRONGPASS);
}

bool client_name_ok(struct bytes name)
{
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] < '!' || name.p[i] > '~') return false;
    return true;
}

void client_set_name(struct conn *c, struct bytes name)
{
    mem_free(c->name);
    c->name = name.n ? bytes_dup_cstr(name) : NULL;
}

static void reply_hello(struct call *c)
{
    struct conn *conn = call_conn(c);
    struct node *n = conn->worker->node;
    resp_map(&c->out, 7);
    resp_bulk_cstr(&c->out, "server");
    resp_bulk_cstr(&c->out, "redis");
    resp_bulk_cstr(&c->out, "version");
    resp_bulk_cstr(&c->out, "7.0.15");
    resp_bulk_cstr(&c->out, "proto");
    resp_i64(&c->out, conn->resp);
    resp_bulk_cstr(&c->out, "id");
    resp_i64(&c->out, (int64_t)conn->id);
    resp_bulk_cstr(&c->out, "mode");
    resp_bulk_cstr(&c->out, n->cluster ? "cluster" : "standalone");
    resp_bulk_cstr(&c->out, "role");
    resp_bulk_cstr(&c->out, data_node_is_replica(n) ? "replica" : "master");
    resp_bulk_cstr(&c->out, "modules");
    resp_array(&c->out, 0);
}

/* The options behind the version; false: an error was replied. */
static bool hello_options(struct call *c)
{
    struct conn *conn = call_conn(c);
    for (size_t i = 2; i < c->argc; i++) {
        size_t more = c->argc - 1 - i;
        if (call_arg_is(c, i, "AUTH") && more >= 2) {
            if (!acl_log_in(c, c->argv[i + 1], c->argv[i + 2])) {
                resp_error(&c->out, ERR_WRONGPASS);
                return false;
            }
            i += 2;
        } else if (call_arg_is(c, i, "SETNAME") && more >= 1) {
            if (!client_name_ok(c->argv[i + 1])) {
                resp_error(&c->out, ERR_NAME);
                return false;
            }
            client_set_name(conn, c->argv[++i]);
        } else {
            struct bytes a = c->argv[i];
            resp_errorf(&c->out, "ERR Syntax error in HELLO option '%.*s'", resp_shown(a), a.p);
            return false;
        }
    }
    return true;
}

void cmd_hello(struct call *c)
{
    struct conn *conn = call_conn(c);
    int64_t version = conn->resp;
    if (c->argc > 1 && !call_arg_i64(c, 1, &version, "ERR Protocol version is not an integer or out of range")) return;
    if (version < 2 || version > 3) {
        resp_error(&c->out, "NOPROTO unsupported protocol version");
        return;
    }
    if (!hello_options(c)) return;
    if (acl_must_log_in(conn)) {
        resp_error(&c->out,
                   "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> "
                   "<pass> option can be used to authenticate the client and select the RESP protocol version "
                   "at the same time");
        return;
    }
    conn->resp = (uint8_t)version;
    c->out.version = conn->resp;
    reply_hello(c);
}

void cmd_select(struct call *c)
{
    struct conn *conn = call_conn(c);
    struct node *n = conn->worker->node;
    int64_t db;
    if (!call_arg_i64(c, 1, &db, NULL)) return;
    if (db < INT32_MIN || db > INT32_MAX)
        resp_error(&c->out, "ERR value is out of range, value must between -2147483648 and 2147483647");
    else if (node_has_one_database(n) && db != 0)
        resp_error(&c->out, "ERR SELECT is not allowed in cluster mode");
    else if (db < 0 || db >= store_databases(n->store))
        resp_error(&c->out, "ERR DB index is out of range");
    else {
        conn->db = (int)db;
        conn->selected_db = true;
        resp_ok(&c->out);
    }
}

void cmd_ping(struct call *c)
{
    const struct conn *conn = call_conn(c);
    if (c->argc > 2) {
        call_wrong_arity(c);
    } else if (conn && pubsub_active(conn) && conn->resp == 2) {
        resp_array(&c->out, 2);
        resp_bulk_cstr(&c->out, "pong");
        resp_bulk(&c->out, c->argc == 2 ? c->argv[1] : BYTES(""));
    } else if (c->argc == 2)
        resp_bulk(&c->out, c->argv[1]);
    else
        resp_status(&c->out, "PONG");
}

void cmd_quit(struct call *c)
{
    resp_ok(&c->out);
    call_conn(c)->close_after_reply = true;
}

void cmd_reset(struct call *c)
{
    struct conn *conn = call_conn(c);
    multi_discard(conn);
    watch_clear(conn);
    pubsub_forget(conn);
    tracking_off(conn);
    monitor_end(conn);
    client_set_name(conn, BYTES(""));
    conn->db = 0;
    conn->selected_db = false;
    conn->resp = 2;
    c->out.version = 2;
    conn->asking = conn->readonly = conn->no_touch = conn->cross_slot = false;
    if (conn->reply_mode != REPLY_SKIP) conn->reply_mode = REPLY_ON; /* this very reply is to be skipped */
    conn->min_acks = -1;
    acl_greet(conn);
    resp_status(&c->out, "RESET");
}

/* ---- marks that only a cluster's node knows ---- */

static bool in_cluster(struct call *c)
{
    if (call_conn(c)->worker->node->cluster) return true;
    resp_error(&c->out, "ERR This instance has cluster support disabled");
    return false;
}

void cmd_asking(struct call *c)
{
    if (!in_cluster(c)) return;
    call_conn(c)->asking = true;
    resp_ok(&c->out);
}

void cmd_readonly(struct call *c)
{
    if (!in_cluster(c)) return;
    call_conn(c)->readonly = true;
    resp_ok(&c->out);
}

void cmd_readwrite(struct call *c)
{
    if (!in_cluster(c)) return;
    call_conn(c)->readonly = false;
    resp_ok(&c->out);
}

/* ---- CLIENT subcommands about the caller itself ---- */

void cmd_client_id(struct call *c)
{
    resp_i64(&c->out, (int64_t)call_conn(c)->id);
}

void cmd_client_setname(struct call *c)
{
    if (!client_name_ok(c->argv[2])) {
        resp_error(&c->out, ERR_NAME);
        return;
    }
    client_set_name(call_conn(c), c->argv[2]);
    resp_ok(&c->out);
}

void cmd_client_getname(struct call *c)
{
    const char *name = call_conn(c)->name;
    if (name)
        resp_bulk_cstr(&c->out, name);
    else
        resp_null(&c->out);
}

void cmd_client_reply(struct call *c)
{
    struct conn *conn = call_conn(c);
    if (call_arg_is(c, 2, "ON")) {
        conn->reply_mode = REPLY_ON;
        resp_ok(&c->out);
    } else if (call_arg_is(c, 2, "OFF")) {
        conn->reply_mode = REPLY_OFF;
    } else if (call_arg_is(c, 2, "SKIP")) {
        if (conn->reply_mode != REPLY_OFF) conn->reply_mode = REPLY_SKIP_NEXT;
    } else {
        resp_error(&c->out, ERR_SYNTAX);
    }
}

static void set_switch(struct call *c, bool *is_on)
{
    bool on = call_arg_is(c, 2, "ON");
    if (!on && !call_arg_is(c, 2, "OFF")) {
        resp_error(&c->out, ERR_SYNTAX);
        return;
    }
    *is_on = on;
    resp_ok(&c->out);
}

void cmd_client_no_touch(struct call *c)
{
    set_switch(c, &call_conn(c)->no_touch);
}

static bool is_plain(struct bytes text)
{
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] < '!' || text.p[i] > '~') return false;
    return true;
}

void cmd_client_setinfo(struct call *c)
{
    struct conn *conn = call_conn(c);
    bool name = call_arg_is(c, 2, "lib-name");
    if (!name && !call_arg_is(c, 2, "lib-ver")) {
        resp_errorf(&c->out, "ERR Unrecognized option '%.*s'", (int)(c->argv[2].n < 128 ? c->argv[2].n : 128),
                    c->argv[2].p);
        return;
    }
    if (!is_plain(c->argv[3])) {
        resp_errorf(&c->out, "ERR %s cannot contain spaces, newlines or special characters.",
                    name ? "lib-name" : "lib-ver");
        return;
    }
    char **text = name ? &conn->user_lib_name : &conn->user_lib_ver;
    mem_free(*text);
    *text = c->argv[3].n ? bytes_dup_cstr(c->argv[3]) : NULL;
    resp_ok(&c->out);
}

void cmd_client_min_replicas_to_ack(struct call *c)
{
    int64_t n = -1;
    bool standard = call_arg_is(c, 2, "DEFAULT");
    if (!standard && (!parse_i64(c->argv[2], &n) || n < 0 || n > DURABLE_REPLICAS_MAX)) {
        resp_errorf(&c->out, "ERR the number of replicas must be between 0 and %d, or DEFAULT", DURABLE_REPLICAS_MAX);
        return;
    }
    call_conn(c)->min_acks = n;
    resp_ok(&c->out);
}

/* Without cluster mode nothing is bound to one slot anyway, and the word changes nothing. */
void cmd_client_crossslot(struct call *c)
{
    set_switch(c, &call_conn(c)->cross_slot);
}

void cmd_client_no_evict(struct call *c)
{
    set_switch(c, &call_conn(c)->no_evict);
}
