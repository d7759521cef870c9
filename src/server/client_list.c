/* client_list.c: the CLIENT subcommands that look at or touch other connections: LIST, INFO, KILL, PAUSE. */
#include "base/clock.h"
#include "base/mem.h"
#include "base/number.h"
#include "server/client.h"
#include "server/pubsub.h"
#include "server/replication.h"
#include "server/tracking.h"

#include <stdlib.h>

enum client_kind { KIND_ANY, KIND_NORMAL, KIND_PRIMARY, KIND_REPLICA, KIND_PUBSUB, KIND_UNKNOWN };

static enum client_kind kind_of(struct bytes b)
{
    if (bytes_ieq(b, BYTES("normal"))) return KIND_NORMAL;
    if (bytes_ieq(b, BYTES("master"))) return KIND_PRIMARY;
    if (bytes_ieq(b, BYTES("slave")) || bytes_ieq(b, BYTES("replica"))) return KIND_REPLICA;
    if (bytes_ieq(b, BYTES("pubsub"))) return KIND_PUBSUB;
    return KIND_UNKNOWN;
}

static bool arg_kind(struct call *c, size_t arg, enum client_kind *out)
{
    struct bytes b = c->argv[arg];
    *out = kind_of(b);
    if (*out != KIND_UNKNOWN) return true;
    resp_errorf(&c->out, "ERR Unknown client type '%.*s'", resp_shown(b), b.p);
    return false;
}

/* The links of replication that a kind means; they are no connections of a worker. */
static unsigned links_of(enum client_kind kind)
{
    switch (kind) {
    case KIND_ANY: return LINK_REPLICAS | LINK_PRIMARY;
    case KIND_PRIMARY: return LINK_PRIMARY;
    case KIND_REPLICA: return LINK_REPLICAS;
    default: return 0;
    }
}

/* ---- lines ---- */

static size_t flags_of(const struct conn *c, char out[16])
{
    size_t n = 0;
    if (c->is_replica_link) out[n++] = 'S';
    if (c->is_monitor) out[n++] = 'O';
    if (c->is_primary_link) out[n++] = 'M';
    if (pubsub_active(c)) out[n++] = 'P';
    if (c->in_multi) out[n++] = 'x';
    if (c->wait == WAIT_REPLICAS || blocking_asleep(c)) out[n++] = 'b';
    if (atomic_load(&c->dirty_cas)) out[n++] = 'd';
    if (c->tracking) {
        out[n++] = 't';
        if (c->tracking->flags & TRACKING_BROKEN) out[n++] = 'R';
        if (c->tracking->flags & TRACKING_BCAST) out[n++] = 'B';
    }
    if (c->close_after_reply) out[n++] = 'c';
    if (c->close_asap || atomic_load(&c->kill)) out[n++] = 'A';
    if (c->is_unix) out[n++] = 'U';
    if (c->readonly) out[n++] = 'r';
    if (c->no_evict) out[n++] = 'e';
    if (c->no_touch) out[n++] = 'T';
    if (n == 0) out[n++] = 'N';
    return n;
}

void client_line(const struct conn *c, const struct call *now, struct buf *out)
{
    char flags[16];
    size_t flag_count = flags_of(c, flags), in = c->in.n - c->in_pos, args = c->queue_bytes + blocking_memory(c);
    size_t pending = c->out.n - c->out_pos;
    int64_t ms = clock_wall_ms();
    /* Of a transaction or a script the command that the client sent is shown, not the one that is being run. */
    const struct command *cmd = now && !(now->flags & CALL_IN_EXEC) ? now->cmd : c->last_cmd;
    struct bytes user = acl_user_name(c->user);
    for (size_t i = 0; now && i < now->argc; i++) args += now->argv[i].n;
    if (now) in = in ? in : args;
    size_t total = conn_memory(c) + (now ? args - c->queue_bytes : 0);
    buf_printf(out,
               "id=%llu addr=%s laddr=%s fd=%d name=%s age=%lld idle=%lld flags=%.*s db=%d sub=%zu psub=%zu ssub=%zu "
               "multi=%lld qbuf=%zu qbuf-free=%zu argv-mem=%zu multi-mem=%zu rbs=%zu rbp=%zu obl=%zu oll=0 omem=0 "
               "tot-mem=%zu events=%s%s cmd=%s user=%.*s redir=%lld resp=%d",
               (unsigned long long)c->id, c->peer, c->local, c->src.fd, c->name ? c->name : "",
               (long long)(ms - c->created_ms) / 1000, (long long)(now ? 0 : (ms - c->last_ms) / 1000), (int)flag_count,
               flags, c->db, pubsub_count(c, PUBSUB_CHANNEL), pubsub_count(c, PUBSUB_PATTERN),
               pubsub_count(c, PUBSUB_SHARD), c->in_multi ? (long long)c->queue_n : -1ll, in, c->in.cap - c->in.n, args,
               c->queue_bytes, c->out.cap, pending, pending, total, c->src.events & NET_READ ? "r" : "",
               c->src.events & NET_WRITE ? "w" : "", cmd ? cmd->name : "NULL", (int)user.n, user.p,
               c->tracking ? (long long)c->tracking->redirect.id : -1ll, c->resp);
    if (c->user_lib_name) buf_printf(out, " lib-name=%s", c->user_lib_name);
    if (c->user_lib_ver) buf_printf(out, " lib-ver=%s", c->user_lib_ver);
}

/* All connections in the order of their ids; with the server at rest.  mem_free() the result. */
static int compare_ids(const void *a, const void *b)
{
    uint64_t x = (*(struct conn *const *)a)->id, y = (*(struct conn *const *)b)->id;
    return x < y ? -1 : x > y;
}

static struct conn **all_conns(struct node *n, size_t *count)
{
    size_t cap = 0, found = 0;
    for (int i = 0; i < n->worker_count; i++) list_each(it, &n->workers[i]->conns) cap++;
    struct conn **all = mem_alloc((cap + 1) * sizeof(struct conn *));
    for (int i = 0; i < n->worker_count; i++)
        list_each(it, &n->workers[i]->conns) all[found++] = container_of(it, struct conn, link);
    qsort(all, found, sizeof *all, compare_ids);
    *count = found;
    return all;
}

static bool is_kind(const struct conn *c, enum client_kind kind)
{
    return kind == KIND_ANY || kind == (pubsub_active(c) ? KIND_PUBSUB : KIND_NORMAL);
}

static void list_of_kind(struct call *c, enum client_kind kind, struct buf *out)
{
    struct node *n = call_conn(c)->worker->node;
    size_t count;
    struct conn **all = all_conns(n, &count);
    for (size_t i = 0; i < count; i++) {
        if (!is_kind(all[i], kind)) continue;
        client_line(all[i], all[i] == call_conn(c) ? c : NULL, out);
        buf_append_char(out, '\n');
    }
    mem_free(all);
    if (links_of(kind)) replication_client_list(n->replication, out, links_of(kind));
}

static bool list_of_ids(struct call *c, struct buf *out)
{
    size_t count;
    int64_t id;
    for (size_t k = 3; k < c->argc; k++)
        if (!call_arg_i64(c, k, &id, "ERR Invalid client ID")) return false;
    struct conn **all = all_conns(call_conn(c)->worker->node, &count);
    for (size_t k = 3; k < c->argc; k++) {
        if (!parse_i64(c->argv[k], &id)) continue;
        for (size_t i = 0; i < count; i++) {
            if (all[i]->id != (uint64_t)id) continue;
            client_line(all[i], all[i] == call_conn(c) ? c : NULL, out);
            buf_append_char(out, '\n');
        }
    }
    mem_free(all);
    return true;
}

void cmd_client_list(struct call *c)
{
    enum client_kind kind = KIND_ANY;
    struct buf text = {0};
    bool ok = true;
    if (!call_exclusive(c)) return;
    if (c->argc == 4 && call_arg_is(c, 2, "TYPE")) {
        ok = arg_kind(c, 3, &kind);
        if (ok) list_of_kind(c, kind, &text);
    } else if (c->argc > 3 && call_arg_is(c, 2, "ID")) {
        ok = list_of_ids(c, &text);
    } else if (c->argc == 2) {
        list_of_kind(c, kind, &text);
    } else {
        resp_error(&c->out, ERR_SYNTAX);
        ok = false;
    }
    if (ok) resp_verbatim(&c->out, "txt", buf_bytes(&text));
    buf_deinit(&text);
}

void cmd_client_info(struct call *c)
{
    struct buf text = {0};
    client_line(call_conn(c), c, &text);
    buf_append_char(&text, '\n');
    resp_verbatim(&c->out, "txt", buf_bytes(&text));
    buf_deinit(&text);
}

/* ---- KILL ---- */

struct kill_filter {
    int64_t id;               /* 0: any */
    struct bytes addr, laddr; /* empty: any */
    enum client_kind kind;
    const struct acl_user *user; /* NULL: any */
    bool skip_me;
};

/* False: an error was replied. */
static bool parse_filter(struct call *c, struct kill_filter *f)
{
    for (size_t i = 2; i < c->argc; i += 2) {
        if (i + 1 >= c->argc) {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
        struct bytes value = c->argv[i + 1];
        if (call_arg_is(c, i, "ID")) {
            if (!parse_i64(value, &f->id) || f->id < 1) {
                resp_error(&c->out, "ERR client-id should be greater than 0");
                return false;
            }
        } else if (call_arg_is(c, i, "TYPE")) {
            if (!arg_kind(c, i + 1, &f->kind)) return false;
        } else if (call_arg_is(c, i, "ADDR")) {
            f->addr = value;
        } else if (call_arg_is(c, i, "LADDR")) {
            f->laddr = value;
        } else if (call_arg_is(c, i, "USER")) {
            f->user = acl_find(call_conn(c)->worker->node->acl, value);
            if (!f->user) {
                resp_errorf(&c->out, "ERR No such user '%.*s'", resp_shown(value), value.p);
                return false;
            }
        } else if (call_arg_is(c, i, "SKIPME") && (bytes_ieq(value, BYTES("yes")) || bytes_ieq(value, BYTES("no")))) {
            f->skip_me = bytes_ieq(value, BYTES("yes"));
        } else {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
    }
    return true;
}

static bool matches(const struct conn *c, const struct kill_filter *f, const struct conn *me)
{
    if (f->id && c->id != (uint64_t)f->id) return false;
    if (f->addr.n && !bytes_eq(f->addr, bytes_of(c->peer))) return false;
    if (f->laddr.n && !bytes_eq(f->laddr, bytes_of(c->local))) return false;
    if (!is_kind(c, f->kind)) return false;
    if (f->user && c->user != f->user) return false;
    return !(f->skip_me && c == me);
}

static int kill_conns(struct node *n, const struct kill_filter *f, struct conn *me)
{
    int killed = 0;
    bool others = false;
    size_t count;
    struct conn **all = all_conns(n, &count);
    for (size_t i = 0; i < count; i++) {
        if (!matches(all[i], f, me)) continue;
        killed++;
        if (all[i] == me) {
            me->close_after_reply = true;
        } else {
            atomic_store(&all[i]->kill, true);
            others = true;
        }
    }
    mem_free(all);
    if (others) node_post_workers(n, worker_reap);
    return killed;
}

static int kill_links(struct node *n, const struct kill_filter *f)
{
    unsigned kinds = links_of(f->kind);
    char *user = f->user ? bytes_dup_cstr(acl_user_name(f->user)) : NULL;
    if (f->user) kinds &= ~(unsigned)LINK_PRIMARY;
    char *addr = f->addr.n ? bytes_dup_cstr(f->addr) : NULL;
    int killed =
        kinds == 0 || f->laddr.n ? 0 : replication_kill_links(n->replication, kinds, (uint64_t)f->id, addr, user);
    mem_free(addr);
    mem_free(user);
    return killed;
}

void cmd_client_kill(struct call *c)
{
    struct conn *me = call_conn(c);
    struct node *n = me->worker->node;
    bool old_form = c->argc == 3;
    struct kill_filter f = {.skip_me = !old_form};
    if (!call_exclusive(c)) return;
    if (old_form)
        f.addr = c->argv[2];
    else if (!parse_filter(c, &f))
        return;
    int killed = old_form && f.addr.n == 0 ? 0 : kill_conns(n, &f, me) + kill_links(n, &f);
    if (!old_form)
        resp_i64(&c->out, killed);
    else if (killed)
        resp_ok(&c->out);
    else
        resp_error(&c->out, "ERR No such client");
}

/* ---- UNBLOCK ---- */

static bool unblock(struct conn *c, bool error)
{
    if (c->wait != WAIT_REPLICAS) return blocking_unblock(c, error);
    if (c->wait_unblocked) return false;
    c->wait_unblocked = error ? UNBLOCK_ERROR : UNBLOCK_TIMEOUT;
    return true;
}

void cmd_client_unblock(struct call *c)
{
    struct node *n = call_conn(c)->worker->node;
    int64_t id;
    bool error = c->argc == 4 && call_arg_is(c, 3, "error"), done = false;
    if (c->argc > 4) {
        struct bytes name = c->argv[1];
        resp_errorf(&c->out, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try CLIENT HELP.",
                    (int)(name.n < 128 ? name.n : 128), name.p);
        return;
    }
    if (c->argc == 4 && !error && !call_arg_is(c, 3, "timeout")) {
        resp_error(&c->out, "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
        return;
    }
    if (!call_arg_i64(c, 2, &id, NULL) || !call_exclusive(c)) return;
    for (int i = 0; i < n->worker_count && !done; i++) {
        struct conn *who = conn_find(n->workers[i], (uint64_t)id);
        done = who && unblock(who, error);
    }
    if (done) node_post_workers(n, replication_check_waits);
    resp_i64(&c->out, done);
}

/* ---- PAUSE ---- */

void cmd_client_pause(struct call *c)
{
    int64_t timeout;
    enum pause_mode mode = PAUSE_ALL;
    if (c->argc > 4) {
        struct bytes name = c->argv[1];
        resp_errorf(&c->out, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try CLIENT HELP.",
                    (int)name.n, name.p);
        return;
    }
    if (c->argc == 4 && call_arg_is(c, 3, "WRITE")) {
        mode = PAUSE_WRITE;
    } else if (c->argc == 4 && !call_arg_is(c, 3, "ALL")) {
        resp_error(&c->out, "ERR CLIENT PAUSE mode must be WRITE or ALL");
        return;
    }
    if (!call_arg_i64(c, 2, &timeout, "ERR timeout is not an integer or out of range")) return;
    if (timeout < 0) {
        resp_error(&c->out, "ERR timeout is negative");
        return;
    }
    /* At rest: when this replies, every command that began before the pause is over. */
    if (!call_exclusive(c)) return;
    int64_t now = clock_mono_ms();
    node_pause(call_conn(c)->worker->node, mode, timeout > INT64_MAX - now ? INT64_MAX : now + timeout);
    resp_ok(&c->out);
}

void cmd_client_unpause(struct call *c)
{
    node_pause(call_conn(c)->worker->node, PAUSE_NONE, 0);
    resp_ok(&c->out);
}

void cmd_client_help(struct call *c)
{
    static const char *const lines[] = {
        "CACHING (YES|NO)",
        "    Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
        "GETREDIR",
        "    Return the client ID we are redirecting to when tracking is enabled.",
        "GETNAME",
        "    Return the name of the current connection.",
        "ID",
        "    Return the ID of the current connection.",
        "INFO",
        "    Return information about the current client connection.",
        "KILL <ip:port>",
        "    Kill connection made from <ip:port>.",
        "KILL <option> <value> [<option> <value> [...]]",
        "    Kill connections. Options are:",
        "    * ADDR (<ip:port>|<unixsocket>:0)",
        "      Kill connections made from the specified address",
        "    * LADDR (<ip:port>|<unixsocket>:0)",
        "      Kill connections made to specified local address",
        "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
        "      Kill connections by type.",
        "    * USER <username>",
        "      Kill connections authenticated by <username>.",
        "    * SKIPME (YES|NO)",
        "      Skip killing current connection (default: yes).",
        "LIST [options ...]",
        "    Return information about client connections. Options:",
        "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
        "      Return clients of specified type.",
        "UNPAUSE",
        "    Stop the current client pause, resuming traffic.",
        "CROSSSLOT (ON|OFF)",
        "    Take keys of several slots in one command while this node serves them all.",
        "MIN-REPLICAS-TO-ACK (<n>|DEFAULT)",
        "    Hold replies to this connection's writes until <n> replicas have them.",
        "PAUSE <timeout> [WRITE|ALL]",
        "    Suspend all, or just write, clients for <timeout> milliseconds.",
        "REPLY (ON|OFF|SKIP)",
        "    Control the replies sent to the current connection.",
        "SETNAME <name>",
        "    Assign the name <name> to the current connection.",
        "UNBLOCK <clientid> [TIMEOUT|ERROR]",
        "    Unblock the specified blocked client.",
        "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
        "         [OPTIN] [OPTOUT] [NOLOOP]",
        "    Control server assisted client side caching.",
        "TRACKINGINFO",
        "    Report tracking status for the current connection.",
        "NO-EVICT (ON|OFF)",
        "    Protect current client connection from eviction.",
    };
    call_help(c, "CLIENT", lines, sizeof lines / sizeof *lines);
}
