/* clients.c: CLIENT LIST and CLIENT KILL: a sheet goes by mail from worker to worker and back to the one that asked,
 * and each worker looks at its own clients.  Source of the words and the order of the checks: redis-server 7.0.15. */
#include "proxy/cluster/worker.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/number.h"

enum type { TYPE_ANY, TYPE_NORMAL, TYPE_PUBSUB, TYPE_NONE /* masters and replicas */ };

struct roll_call {
    struct mail mail;
    struct proxy *proxy;
    struct worker *home;
    struct client *asker; /* NULL: it has gone; of its worker */
    struct request *request;
    uint64_t asker_id;
    int left; /* workers */
    bool kills, old_form, skips_me;
    enum type type;
    uint64_t *ids; /* NULL: any */
    size_t ids_n;
    struct buf address, local_address, user; /* empty: any */
    struct buf lines;
    unsigned killed;
};

/* ---- one client ---- */

static const char *flags_of(const struct client *c)
{
    if (c->subscribed) return "P";
    return c->in_multi ? "x" : client_first(c) && client_first(c)->is_blocking ? "b" : "N";
}

void client_describe(const struct client *c, struct buf *b)
{
    const struct front_client *f = &c->base;
    char local[NET_ADDRESS_MAX];
    int64_t now = clock_wall_ms(), idle = c->worker->now_ms - c->last_ms;
    size_t unread = f->out.n - f->out_pos;
    net_local_address(f->src.fd, local);
    struct bytes user = account_name(c->policy.account);
    buf_printf(b, "id=%llu addr=%s laddr=%s fd=%d name=%s age=%lld idle=%lld flags=%s db=%d sub=%lld psub=0 ssub=%lld",
               (unsigned long long)f->id, f->peer, local, f->src.fd, c->name ? c->name : "",
               (long long)(now - f->created_ms) / 1000, (long long)(c->last_ms ? idle : 0) / 1000, flags_of(c), c->db,
               (long long)c->channels, (long long)c->shard_channels);
    buf_printf(b, " multi=%d qbuf=%zu qbuf-free=%zu argv-mem=0 multi-mem=%zu rbs=0 rbp=0 obl=%zu oll=0 omem=%zu",
               c->in_multi ? (int)c->multi_count : -1, f->in.n, f->in.cap - f->in.n, c->multi.n, unread, f->out.cap);
    buf_printf(b, " tot-mem=%zu events=%s%s cmd=%s user=", sizeof *c + f->in.cap + f->out.cap + c->multi.cap,
               f->src.events & NET_READ ? "r" : "", f->src.events & NET_WRITE ? "w" : "",
               c->last_cmd ? c->last_cmd->name : "NULL");
    buf_append_bytes(b, user);
    buf_printf(b, " redir=-1 resp=%d\n", c->resp);
}

static bool has_id(const struct roll_call *r, uint64_t id)
{
    for (size_t i = 0; i < r->ids_n; i++)
        if (r->ids[i] == id) return true;
    return r->ids == NULL;
}

static bool is_text(const struct buf *wanted, const char *text)
{
    return wanted->n == 0 || bytes_eq(buf_bytes(wanted), bytes_of(text));
}

static bool is_meant(const struct roll_call *r, const struct client *c)
{
    char local[NET_ADDRESS_MAX];
    enum type type = c->subscribed ? TYPE_PUBSUB : TYPE_NORMAL;
    if (r->skips_me && c->base.id == r->asker_id) return false;
    if (r->type != TYPE_ANY && r->type != type) return false;
    if (!has_id(r, c->base.id) || !is_text(&r->address, c->base.peer)) return false;
    if (r->user.n && !bytes_eq(buf_bytes(&r->user), account_name(c->policy.account))) return false;
    if (r->local_address.n) net_local_address(c->base.src.fd, local);
    return r->local_address.n == 0 || is_text(&r->local_address, local);
}

static void kill(struct roll_call *r, struct client *c)
{
    r->killed++;
    if (c->base.id == r->asker_id)
        c->base.close_after_reply = true;
    else
        c->base.close_asap = true;
    client_wants_write(c);
}

static void call_worker(struct roll_call *r, struct worker *w)
{
    list_each(it, &w->clients)
    {
        struct client *c = container_of(it, struct client, link);
        if (c->base.close_asap || !is_meant(r, c)) continue;
        if (r->kills)
            kill(r, c);
        else
            client_describe(c, &r->lines);
    }
}

/* ---- the way ---- */

static void roll_call_free(struct roll_call *r)
{
    buf_deinit(&r->address);
    buf_deinit(&r->local_address);
    buf_deinit(&r->user);
    buf_deinit(&r->lines);
    mem_free(r->ids);
    mem_free(r);
}

static void answer(struct roll_call *r)
{
    struct buf b = {0};
    struct resp_out o = {&b, r->asker->resp};
    if (!r->kills)
        resp_verbatim(&o, "txt", buf_bytes(&r->lines));
    else if (!r->old_form)
        resp_i64(&o, r->killed);
    else if (r->killed)
        resp_ok(&o);
    else
        resp_error(&o, "ERR No such client");
    r->asker->roll_call = NULL;
    request_answer(r->home, r->request, buf_bytes(&b));
    buf_deinit(&b);
}

static void came_home(struct mail *mail)
{
    struct roll_call *r = container_of(mail, struct roll_call, mail);
    if (r->asker) answer(r);
    roll_call_free(r);
}

static void arrived(struct mail *mail)
{
    struct roll_call *r = container_of(mail, struct roll_call, mail);
    struct worker *w = r->proxy->workers[--r->left];
    call_worker(r, w);
    if (r->left == 0) r->mail.deliver = came_home;
    loop_post(r->left ? r->proxy->workers[r->left - 1]->loop : r->home->loop, &r->mail);
}

void roll_call_forget(struct client *c)
{
    if (c->roll_call) c->roll_call->asker = NULL;
}

static void start(struct client *c, const struct command *cmd, struct roll_call *r)
{
    r->mail.deliver = arrived;
    r->proxy = c->worker->proxy;
    r->home = c->worker;
    r->asker = c;
    r->left = r->proxy->worker_count;
    r->request = request_create(c->worker, c, cmd, 0);
    client_enqueue(c, r->request);
    c->roll_call = r;
    c->barrier = true;
    loop_post(r->proxy->workers[r->left - 1]->loop, &r->mail);
}

/* ---- arguments ---- */

static const char *const bad_syntax = "ERR syntax error";

static bool read_type(struct bytes word, enum type *type)
{
    if (bytes_ieq(word, BYTES("normal")))
        *type = TYPE_NORMAL;
    else if (bytes_ieq(word, BYTES("pubsub")))
        *type = TYPE_PUBSUB;
    else if (bytes_ieq(word, BYTES("master")) || bytes_ieq(word, BYTES("replica")) || bytes_ieq(word, BYTES("slave")))
        *type = TYPE_NONE;
    else
        return false;
    return true;
}

static const char *unknown_type(struct client *c, struct bytes word)
{
    struct resp_out o;
    struct request *r = client_reply_begin(c, &o);
    resp_errorf(&o, "ERR Unknown client type '%.*s'", (int)(word.n < 128 ? word.n : 128), word.p);
    client_reply_end(c, r);
    return "";
}

/* NULL: read; "": an error was answered; else the error. */
static const char *read_list(struct client *c, struct roll_call *r, const struct bytes *argv, size_t argc)
{
    if (argc == 2) return NULL;
    if (argc == 4 && bytes_ieq(argv[2], BYTES("type")))
        return read_type(argv[3], &r->type) ? NULL : unknown_type(c, argv[3]);
    if (argc < 4 || !bytes_ieq(argv[2], BYTES("id"))) return bad_syntax;
    r->ids = mem_try_alloc((argc - 3) * sizeof *r->ids);
    if (!r->ids) return "OOM no memory for so many clients";
    for (size_t i = 3; i < argc; i++) {
        int64_t id;
        if (!parse_i64(argv[i], &id)) return "ERR Invalid client ID";
        r->ids[r->ids_n++] = (uint64_t)id;
    }
    return NULL;
}

static const char *read_kill_pair(struct client *c, struct roll_call *r, struct bytes name, struct bytes value)
{
    int64_t id;
    if (bytes_ieq(name, BYTES("id"))) {
        if (!parse_i64(value, &id) || id < 1) return "ERR client-id should be greater than 0";
        if (!r->ids) r->ids = mem_alloc(sizeof *r->ids);
        r->ids[0] = (uint64_t)id;
        r->ids_n = 1;
    } else if (bytes_ieq(name, BYTES("type"))) {
        if (!read_type(value, &r->type)) return unknown_type(c, value);
    } else if (bytes_ieq(name, BYTES("addr"))) {
        r->address.n = 0;
        buf_append_bytes(&r->address, value);
    } else if (bytes_ieq(name, BYTES("laddr"))) {
        r->local_address.n = 0;
        buf_append_bytes(&r->local_address, value);
    } else if (bytes_ieq(name, BYTES("user"))) {
        if (!user_set_find(c->worker->policy.users, value)) {
            struct resp_out o;
            struct request *reply = client_reply_begin(c, &o);
            resp_errorf(&o, "ERR No such user '%.*s'", (int)(value.n < 128 ? value.n : 128), value.p);
            client_reply_end(c, reply);
            return "";
        }
        r->user.n = 0;
        buf_append_bytes(&r->user, value);
    } else if (bytes_ieq(name, BYTES("skipme"))) {
        r->skips_me = bytes_ieq(value, BYTES("yes"));
        if (!r->skips_me && !bytes_ieq(value, BYTES("no"))) return bad_syntax;
    } else {
        return bad_syntax;
    }
    return NULL;
}

static const char *read_kill(struct client *c, struct roll_call *r, const struct bytes *argv, size_t argc)
{
    r->kills = true;
    r->old_form = argc == 3;
    if (argc == 3) {
        buf_append_bytes(&r->address, argv[2]);
        return NULL;
    }
    r->skips_me = true;
    const char *wrong = argc % 2 ? bad_syntax : NULL;
    for (size_t i = 2; !wrong && i + 1 < argc; i += 2) wrong = read_kill_pair(c, r, argv[i], argv[i + 1]);
    return wrong;
}

enum outcome roll_call_dispatch(struct client *c, const struct command *cmd, const struct resp_request *req)
{
    if (!route_alone(c)) return OUTCOME_NOT_NOW;
    struct roll_call *r = mem_calloc(1, sizeof *r);
    r->asker_id = c->base.id;
    const char *wrong =
        cmd->id == CMD_ID_CLIENT_LIST ? read_list(c, r, req->argv, req->argc) : read_kill(c, r, req->argv, req->argc);
    if (!wrong) {
        start(c, cmd, r);
        return OUTCOME_DONE;
    }
    roll_call_free(r);
    if (*wrong) client_reply_error(c, wrong);
    return OUTCOME_DONE;
}
