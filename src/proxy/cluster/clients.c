/* clients.c: CLIENT: the proxy's clients, of all workers. */
#include "proxy/cluster/crowd.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/number.h"

#include <stdio.h>

enum { PAUSED_LOOK_MS = 20 };

/* ---- a line of CLIENT LIST ---- */

static const char *flags_of(const struct client *c, char out[8])
{
    size_t n = 0;
    const struct request *first = client_first(c);
    if (c->monitoring) out[n++] = 'O';
    if (c->subscribed) out[n++] = 'P';
    if (c->in_multi) out[n++] = 'x';
    if (first && first->is_blocking) out[n++] = 'b';
    if (c->watch_lost) out[n++] = 'd';
    if (c->base.close_after_reply) out[n++] = 'c';
    if (n == 0) out[n++] = 'N';
    out[n] = '\0';
    return out;
}

void client_describe(const struct client *c, struct buf *b)
{
    const struct front_client *f = &c->base;
    char local[NET_ADDRESS_MAX], flags[8];
    int64_t now = clock_wall_ms();
    size_t owed = f->out.n - f->out_pos, patterns = subscriptions_count(c, true);
    struct bytes user = account_name(c->base.policy.account);
    net_local_address(f->src.fd, local);
    buf_printf(b, "id=%llu addr=%s laddr=%s fd=%d name=%s age=%lld idle=%lld flags=%s db=%d ",
               (unsigned long long)f->id, f->peer, local, f->src.fd, c->name ? c->name : "",
               (long long)(now - f->created_ms) / 1000, (long long)(c->worker->now_ms - f->last_ms) / 1000,
               flags_of(c, flags), c->db);
    buf_printf(b, "sub=%zu psub=%zu ssub=%lld multi=%d qbuf=%zu qbuf-free=%zu argv-mem=0 multi-mem=%zu ",
               subscriptions_count(c, false), patterns, (long long)c->shard_channels,
               c->in_multi ? (int)c->multi_count : -1, f->in.n, f->in.cap - f->in.n, c->multi.n);
    buf_printf(b, "rbs=%zu rbp=%zu obl=%zu oll=0 omem=0 tot-mem=%zu events=%s%s cmd=%s user=", f->out.cap, f->out.cap,
               owed, sizeof *c + f->in.cap + f->out.cap + c->multi.cap, f->src.events & NET_READ ? "r" : "",
               f->src.events & NET_WRITE ? "w" : "", c->last_cmd ? c->last_cmd->name : "NULL");
    buf_append_bytes(b, user);
    buf_printf(b, " redir=-1 resp=%d\n", c->resp);
}

/* ---- which clients ---- */

enum client_type { TYPE_ANY, TYPE_NORMAL, TYPE_PUBSUB, TYPE_NONE_HERE };

struct filter {
    enum client_type type;
    uint64_t me;
    bool skip_me, has_id, is_kill, is_address;
    char addr[NET_ADDRESS_MAX], laddr[NET_ADDRESS_MAX], user[256];
    bool has_addr, has_laddr, has_user;
    size_t n;
    uint64_t ids[];
};

static bool matches(const struct client *c, const struct filter *f)
{
    char local[NET_ADDRESS_MAX];
    if (f->skip_me && c->base.id == f->me) return false;
    if (f->type == TYPE_NONE_HERE || (f->type != TYPE_ANY && (f->type == TYPE_PUBSUB) != c->subscribed)) return false;
    if (f->has_addr && strcmp(c->base.peer, f->addr) != 0) return false;
    if (f->has_user && !bytes_eq(account_name(c->base.policy.account), bytes_of(f->user))) return false;
    if (f->has_laddr) {
        net_local_address(c->base.src.fd, local);
        if (strcmp(local, f->laddr) != 0) return false;
    }
    bool found = !f->has_id;
    for (size_t i = 0; i < f->n && !found; i++) found = f->ids[i] == c->base.id;
    return found;
}

static bool parse_type(struct bytes name, enum client_type *type)
{
    static const char *const none[] = {"master", "replica", "slave"};
    if (bytes_ieq(name, BYTES("normal"))) return *type = TYPE_NORMAL, true;
    if (bytes_ieq(name, BYTES("pubsub"))) return *type = TYPE_PUBSUB, true;
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        if (bytes_ieq(name, bytes_of(none[i]))) return *type = TYPE_NONE_HERE, true;
    return false;
}

static bool copy(char *to, size_t size, struct bytes from)
{
    snprintf(to, size, "%.*s", (int)(from.n < size ? from.n : size - 1), from.p);
    return true;
}

/* ---- CLIENT LIST ---- */

static void list_some(struct worker *w, const struct crowd *q, int at)
{
    const struct filter *f = q->question;
    list_each(it, &w->clients)
    {
        const struct client *c = container_of(it, struct client, link);
        if (matches(c, f)) client_describe(c, &q->texts[at]);
    }
}

static void list_reply(const struct crowd *q, struct client *c, struct resp_out *o)
{
    struct buf all = {0};
    for (int i = 0; i < q->workers; i++) buf_append_bytes(&all, buf_bytes(&q->texts[i]));
    resp_verbatim(o, "txt", buf_bytes(&all));
    buf_deinit(&all);
}

static enum outcome fail(struct client *c, void *question, const char *text)
{
    mem_free(question);
    client_reply_error(c, text);
    return OUTCOME_DONE;
}

static struct filter *filter_create(const struct client *c, size_t ids)
{
    struct filter *f = mem_calloc(1, sizeof *f + ids * sizeof *f->ids);
    f->me = c->base.id;
    return f;
}

static enum outcome list(struct client *c, const struct command *cmd, const struct bytes *argv, size_t argc)
{
    struct filter *f = filter_create(c, argc);
    char text[192];
    if (argc == 4 && bytes_ieq(argv[2], BYTES("type"))) {
        if (!parse_type(argv[3], &f->type)) {
            snprintf(text, sizeof text, "ERR Unknown client type '%.*s'", (int)(argv[3].n < 128 ? argv[3].n : 128),
                     argv[3].p);
            return fail(c, f, text);
        }
    } else if (argc > 3 && bytes_ieq(argv[2], BYTES("id"))) {
        f->has_id = true;
        for (size_t i = 3; i < argc; i++)
            if (!parse_u64(argv[i], &f->ids[f->n++]) || f->ids[f->n - 1] < 1)
                return fail(c, f, "ERR Invalid client ID");
    } else if (argc != 2) {
        return fail(c, f, "ERR syntax error");
    }
    crowd_ask(c, cmd, f, list_some, list_reply);
    return OUTCOME_DONE;
}

/* ---- CLIENT KILL ---- */

static void kill_some(struct worker *w, const struct crowd *q, int at)
{
    const struct filter *f = q->question;
    list_each(it, &w->clients)
    {
        struct client *c = container_of(it, struct client, link);
        if (!matches(c, f)) continue;
        q->numbers[at]++;
        if (c->base.id == f->me)
            c->base.close_after_reply = true;
        else
            c->base.close_asap = true;
        client_wants_write(c);
    }
}

static void kill_reply(const struct crowd *q, struct client *c, struct resp_out *o)
{
    const struct filter *f = q->question;
    if (!f->is_address)
        resp_i64(o, crowd_sum(q));
    else if (crowd_sum(q))
        resp_ok(o);
    else
        resp_error(o, "ERR No such client");
}

/* One pair of CLIENT KILL.  NULL: it is good; else the error. */
static const char *kill_option(struct client *c, struct filter *f, struct bytes name, struct bytes value,
                               char text[192])
{
    int shown = (int)(value.n < 128 ? value.n : 128);
    if (bytes_ieq(name, BYTES("id"))) {
        f->has_id = true;
        if (parse_u64(value, &f->ids[0]) && f->ids[0] > 0) return f->n = 1, NULL;
        return "ERR client-id should be greater than 0";
    }
    if (bytes_ieq(name, BYTES("type"))) {
        if (parse_type(value, &f->type)) return NULL;
        snprintf(text, 192, "ERR Unknown client type '%.*s'", shown, value.p);
        return text;
    }
    if (bytes_ieq(name, BYTES("addr"))) return f->has_addr = copy(f->addr, sizeof f->addr, value), NULL;
    if (bytes_ieq(name, BYTES("laddr"))) return f->has_laddr = copy(f->laddr, sizeof f->laddr, value), NULL;
    if (bytes_ieq(name, BYTES("user"))) {
        f->has_user = copy(f->user, sizeof f->user, value);
        if (user_set_find(c->worker->front->policy.users, value)) return NULL;
        snprintf(text, 192, "ERR No such user '%.*s'", shown, value.p);
        return text;
    }
    if (bytes_ieq(name, BYTES("skipme")) && bytes_ieq(value, BYTES("yes"))) return f->skip_me = true, NULL;
    if (bytes_ieq(name, BYTES("skipme")) && bytes_ieq(value, BYTES("no"))) return f->skip_me = false, NULL;
    return "ERR syntax error";
}

static enum outcome kill_clients(struct client *c, const struct command *cmd, const struct bytes *argv, size_t argc)
{
    struct filter *f = filter_create(c, 1);
    char text[192];
    if (argc == 3) {
        f->is_address = f->has_addr = copy(f->addr, sizeof f->addr, argv[2]);
    } else {
        f->skip_me = true;
        if (argc % 2) return fail(c, f, "ERR syntax error");
        for (size_t i = 2; i < argc; i += 2) {
            const char *error = kill_option(c, f, argv[i], argv[i + 1], text);
            if (error) return fail(c, f, error);
        }
    }
    crowd_ask(c, cmd, f, kill_some, kill_reply);
    return OUTCOME_DONE;
}

/* ---- CLIENT UNBLOCK ---- */

struct unblock {
    struct list link; /* in worker.unblocks, from when it was found */
    uint64_t id;
    uint64_t blocking; /* which of the client's waits, as it counts them */
    bool error;
    unsigned told; /* nodes that have not answered yet */
};

/* The node is told to end the wait: it may just be serving it.  Or it has not begun it yet; then it is told again. */
static void tell_node(struct worker *w, struct unblock *u, const struct link *blocked)
{
    struct link *l = node_link_shared(w, blocked->backend, 0, 0, 0);
    if (!l || !blocked->node_id) return;
    struct request *r = request_create(w, NULL, NULL, 0);
    r->unblocks = u->id;
    u->told++;
    struct buf b = {0};
    resp_request_begin(&b, 4);
    resp_request_arg(&b, BYTES("CLIENT"));
    resp_request_arg(&b, BYTES("UNBLOCK"));
    resp_request_arg_i64(&b, blocked->node_id);
    resp_request_arg(&b, u->error ? BYTES("ERROR") : BYTES("TIMEOUT"));
    node_link_send(l, r, buf_bytes(&b));
    buf_deinit(&b);
}

static struct request *wait_of(const struct client *c)
{
    struct request *r = c ? client_first(c) : NULL;
    return r && r->is_blocking ? r : NULL;
}

static void tell_nodes(struct worker *w, struct unblock *u, const struct request *r)
{
    for (unsigned i = 0; r->gather && i < r->gather->parts; i++)
        if (r->gather->part[i]->link) tell_node(w, u, r->gather->part[i]->link);
    if (r->link) tell_node(w, u, r->link);
}

/* It has not reached a node yet. */
static void end_held(struct worker *w, struct request *r, bool error)
{
    uint8_t version = r->client->resp;
    held_forget(w, r);
    if (error)
        request_answer_error(w, r, "UNBLOCKED client unblocked via CLIENT UNBLOCK");
    else
        request_answer(w, r, version == 3 ? BYTES("_\r\n") : BYTES("*-1\r\n"));
}

static void unblock_one(struct worker *w, const struct crowd *q, int at)
{
    const struct unblock *wanted = q->question;
    struct client *c = client_find(w, wanted->id);
    struct request *r = wait_of(c);
    if (!r) return;
    q->numbers[at] = 1;
    if (r->state == REQUEST_HELD) {
        end_held(w, r, wanted->error);
        return;
    }
    struct unblock *u = mem_alloc(sizeof *u);
    *u = (struct unblock){.id = wanted->id, .blocking = c->blockings, .error = wanted->error};
    list_push_back(&w->unblocks, &u->link);
    tell_nodes(w, u, r);
}

void clients_unblock_answered(struct worker *w, uint64_t id)
{
    list_each(it, &w->unblocks)
    {
        struct unblock *u = container_of(it, struct unblock, link);
        if (u->id == id && u->told) u->told--;
    }
}

void clients_tick(struct worker *w)
{
    list_each(it, &w->unblocks)
    {
        struct unblock *u = container_of(it, struct unblock, link);
        struct client *c = client_find(w, u->id);
        struct request *r = wait_of(c);
        if (r && c->blockings == u->blocking) {
            if (u->told) continue;
            if (r->state != REQUEST_HELD) {
                tell_nodes(w, u, r);
                continue;
            }
            end_held(w, r, u->error);
        }
        list_remove(it);
        mem_free(u);
    }
}

static void sum_reply(const struct crowd *q, struct client *c, struct resp_out *o)
{
    resp_i64(o, crowd_sum(q));
}

static enum outcome unblock(struct client *c, const struct command *cmd, const struct bytes *argv, size_t argc)
{
    struct unblock u = {0};
    if (argc > 4 || (argc == 4 && !bytes_ieq(argv[3], BYTES("timeout")) && !bytes_ieq(argv[3], BYTES("error")))) {
        client_reply_error(c, "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
        return OUTCOME_DONE;
    }
    if (!parse_u64(argv[2], &u.id)) {
        client_reply_error(c, "ERR value is not an integer or out of range");
        return OUTCOME_DONE;
    }
    u.error = argc == 4 && bytes_ieq(argv[3], BYTES("error"));
    struct unblock *question = mem_alloc(sizeof *question);
    *question = u;
    crowd_ask(c, cmd, question, unblock_one, sum_reply);
    return OUTCOME_DONE;
}

/* ---- CLIENT PAUSE ---- */

static void pause_all(struct client *c, struct resp_out *o, const struct bytes *argv, size_t argc)
{
    struct proxy *p = c->worker->proxy;
    int64_t ms, until = atomic_load(&p->paused_until);
    bool all = argc == 3 || bytes_ieq(argv[3], BYTES("all")), was_all = atomic_load(&p->pause_is_for_all);
    if (argc > 4 || (!all && !bytes_ieq(argv[3], BYTES("write")))) {
        resp_error(o, "ERR CLIENT PAUSE mode must be WRITE or ALL");
        return;
    }
    if (!parse_i64(argv[2], &ms)) {
        resp_error(o, "ERR timeout is not an integer or out of range");
        return;
    }
    if (ms < 0) {
        resp_error(o, "ERR timeout is negative");
        return;
    }
    bool running = until > c->worker->now_ms;
    int64_t end = ms > INT64_MAX - c->worker->now_ms ? INT64_MAX : c->worker->now_ms + ms;
    atomic_store(&p->pause_is_for_all, all || (running && was_all));
    atomic_store(&p->paused_until, running && until > end ? until : end);
    resp_ok(o);
}

static bool is_held_by_pause(const struct client *c, const struct command *cmd)
{
    if (decision_of(cmd)->course == COURSE_LOCAL) return false;
    if (atomic_load(&c->worker->proxy->pause_is_for_all)) return true;
    if (c->in_multi) return cmd->id == CMD_ID_EXEC && c->multi_writes;
    return (cmd->flags & (CMD_WRITE | CMD_MAY_REPLICATE)) != 0;
}

bool client_must_pause(struct client *c, const struct command *cmd)
{
    int64_t until = atomic_load_explicit(&c->worker->proxy->paused_until, memory_order_relaxed);
    if (until <= c->worker->now_ms || !is_held_by_pause(c, cmd)) return false;
    int64_t left = until - c->worker->now_ms;
    front_delay(&c->base, left < PAUSED_LOOK_MS ? left : PAUSED_LOOK_MS);
    return true;
}

/* ---- CLIENT REPLY ---- */

static void set_reply_mode(struct client *c, struct resp_out *o, struct bytes mode)
{
    if (bytes_ieq(mode, BYTES("on"))) {
        c->reply_off = c->reply_skip = false;
        resp_ok(o);
    } else if (bytes_ieq(mode, BYTES("off"))) {
        c->reply_off = true;
    } else if (bytes_ieq(mode, BYTES("skip"))) {
        c->reply_skip = !c->reply_off;
    } else {
        resp_error(o, "ERR syntax error");
    }
}

/* ---- which ---- */

static void on_or_off(struct resp_out *o, struct bytes word)
{
    if (bytes_ieq(word, BYTES("on")) || bytes_ieq(word, BYTES("off")))
        resp_ok(o);
    else
        resp_error(o, "ERR syntax error");
}

static void set_info(struct resp_out *o, struct bytes option)
{
    if (bytes_ieq(option, BYTES("lib-name")) || bytes_ieq(option, BYTES("lib-ver")))
        resp_ok(o);
    else
        resp_errorf(o, "ERR Unrecognized option '%.*s'", (int)(option.n < 128 ? option.n : 128), option.p);
}

static void tracking_info(struct resp_out *o)
{
    resp_map(o, 3);
    resp_bulk_cstr(o, "flags");
    resp_set(o, 1);
    resp_bulk_cstr(o, "off");
    resp_bulk_cstr(o, "redirect");
    resp_i64(o, -1);
    resp_bulk_cstr(o, "prefixes");
    resp_array(o, 0);
}

bool clients_asks_all(const struct command *cmd)
{
    return cmd->id == CMD_ID_CLIENT_LIST || cmd->id == CMD_ID_CLIENT_KILL || cmd->id == CMD_ID_CLIENT_UNBLOCK;
}

enum outcome clients_ask_all(struct client *c, const struct command *cmd, const struct bytes *argv, size_t argc)
{
    if (!route_alone(c)) return OUTCOME_NOT_NOW;
    switch (cmd->id) {
    case CMD_ID_CLIENT_LIST: return list(c, cmd, argv, argc);
    case CMD_ID_CLIENT_KILL: return kill_clients(c, cmd, argv, argc);
    default: return unblock(c, cmd, argv, argc);
    }
}

bool clients_answer(struct client *c, struct resp_out *o, const struct command *cmd, const struct bytes *argv,
                    size_t argc)
{
    struct buf b = {0};
    switch (cmd->id) {
    case CMD_ID_CLIENT_ID: resp_i64(o, (int64_t)c->base.id); return true;
    case CMD_ID_CLIENT_GETNAME:
        if (c->name)
            resp_bulk_cstr(o, c->name);
        else
            resp_null(o);
        return true;
    case CMD_ID_CLIENT_INFO:
        client_describe(c, &b);
        resp_verbatim(o, "txt", buf_bytes(&b));
        buf_deinit(&b);
        return true;
    case CMD_ID_CLIENT_NO_EVICT:
    case CMD_ID_CLIENT_NO_TOUCH: on_or_off(o, argv[2]); return true;
    case CMD_ID_CLIENT_SETINFO: set_info(o, argv[2]); return true;
    case CMD_ID_CLIENT_REPLY: set_reply_mode(c, o, argv[2]); return true;
    case CMD_ID_CLIENT_PAUSE: pause_all(c, o, argv, argc); return true;
    case CMD_ID_CLIENT_UNPAUSE:
        atomic_store(&c->worker->proxy->paused_until, 0);
        resp_ok(o);
        return true;
    case CMD_ID_CLIENT_GETREDIR: resp_i64(o, -1); return true;
    case CMD_ID_CLIENT_TRACKINGINFO: tracking_info(o); return true;
    case CMD_ID_CLIENT_CACHING:
        resp_error(o, "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT "
                      "mode enabled");
        return true;
    default: return false;
    }
}
