/* redis.c: what is done with a request of a RESP client. */
#include "base/mem.h"
#include "commands/table.h"
#include "proxy/pool/engine.h"

#include <errno.h>

enum { KEYS_AT_ONCE = 16, SHOWN_MAX = 128 };

/* ---- what is allowed ---- */

/* Of several keys nutcracker looks at the first only, and sends the command to its server. */
static bool goes_by_first_key(const struct command *cmd)
{
    switch (cmd->id) {
    case CMD_ID_RPOPLPUSH:
    case CMD_ID_LMOVE:
    case CMD_ID_SDIFF:
    case CMD_ID_SDIFFSTORE:
    case CMD_ID_SINTER:
    case CMD_ID_SINTERSTORE:
    case CMD_ID_SMOVE:
    case CMD_ID_SUNION:
    case CMD_ID_SUNIONSTORE:
    case CMD_ID_ZDIFF:
    case CMD_ID_ZDIFFSTORE:
    case CMD_ID_ZINTER:
    case CMD_ID_ZINTERSTORE:
    case CMD_ID_ZUNION:
    case CMD_ID_ZUNIONSTORE:
    case CMD_ID_PFMERGE:
    case CMD_ID_PFCOUNT:
    case CMD_ID_COPY:
    case CMD_ID_SORT:
    case CMD_ID_GEORADIUS:
    case CMD_ID_GEORADIUSBYMEMBER:
    case CMD_ID_GEOSEARCHSTORE:
    case CMD_ID_EVAL:
    case CMD_ID_EVALSHA: return true;
    default: return false;
    }
}

/* MGET and the like: the merge, and how many arguments belong to a key. */
static enum merge splits(const struct command *cmd, unsigned *step)
{
    *step = 1;
    switch (cmd->id) {
    case CMD_ID_MGET: return MERGE_VALUES;
    case CMD_ID_MSET: *step = 2; return MERGE_OK;
    case CMD_ID_DEL:
    case CMD_ID_UNLINK:
    case CMD_ID_EXISTS:
    case CMD_ID_TOUCH: return MERGE_SUM;
    default: return MERGE_NONE;
    }
}

/* XREAD and XREADGROUP block when they are told to; all others that can, do. */
static bool blocks(const struct command *cmd, const struct resp_request *req)
{
    if (!(cmd->flags & CMD_BLOCKING)) return false;
    if (cmd->id != CMD_ID_XREAD && cmd->id != CMD_ID_XREADGROUP) return true;
    for (size_t i = 1; i < req->argc && !bytes_ieq(req->argv[i], BYTES("streams")); i++)
        if (bytes_ieq(req->argv[i], BYTES("block"))) return true;
    return false;
}

/* Connections to servers are shared, so nothing may wait there or change their state. */
static bool is_refused(const struct command *cmd, const struct resp_request *req)
{
    if (!command_has_keys(cmd) || cmd->flags & CMD_ADMIN || blocks(cmd, req)) return true;
    return cmd->id == CMD_ID_WATCH || cmd->id == CMD_ID_MIGRATE || cmd->id == CMD_ID_MOVE;
}

/* ---- sending ---- */

static void send_to(struct pool_client *c, struct server *s, struct bytes raw)
{
    struct message *m = message_create(c);
    if (s) {
        server_send(s, m, raw);
        return;
    }
    c->pool->stats.forward_error++;
    message_fail(m, errno);
}

/* One request a server; servers[i] has key i. */
static void send_parts(struct pool_client *c, const struct resp_request *req, enum merge merge, unsigned step,
                       struct server *const *servers, size_t keys)
{
    const struct pool *p = c->pool;
    size_t n = p->conf->servers_n;
    uint32_t *count = mem_calloc(n, sizeof *count), *part_of = mem_alloc(n * sizeof *part_of);
    unsigned parts = 0;
    for (size_t i = 0; i < keys; i++) {
        size_t at = (size_t)(servers[i] - p->servers);
        if (count[at]++ == 0) part_of[at] = parts++;
    }
    struct message *m = message_create(c);
    message_split(m, merge, parts);
    struct buf *text = mem_calloc(parts, sizeof *text);
    struct server **target = mem_calloc(parts, sizeof(struct server *));
    if (merge == MERGE_VALUES) {
        m->keys_n = keys;
        m->place = mem_alloc(keys * sizeof *m->place);
    }
    for (size_t i = 0; i < keys; i++) {
        size_t at = (size_t)(servers[i] - p->servers);
        unsigned part = part_of[at];
        if (text[part].n == 0) {
            resp_request_begin(&text[part], 1 + (size_t)count[at] * step);
            resp_request_arg(&text[part], req->argv[0]);
            target[part] = servers[i];
        }
        for (unsigned k = 0; k < step; k++) resp_request_arg(&text[part], req->argv[1 + i * step + k]);
        if (m->place) m->place[i] = part;
    }
    for (unsigned i = 0; i < parts; i++) { /* m may be gone after the last */
        server_send(target[i], message_part(m, i), buf_bytes(&text[i]));
        buf_deinit(&text[i]);
    }
    mem_free(text);
    mem_free(target);
    mem_free(count);
    mem_free(part_of);
}

static void send_by_keys(struct pool_client *c, const struct command *cmd, const struct resp_request *req,
                         struct bytes raw, const struct command_key *keys, size_t n)
{
    unsigned step;
    enum merge merge = splits(cmd, &step);
    if (n == 1 || (merge == MERGE_NONE && goes_by_first_key(cmd))) {
        send_to(c, pool_server_of(c->pool, req->argv[keys[0].index]), raw);
        return;
    }
    struct server **servers = mem_try_alloc(n * sizeof(struct server *));
    if (!servers) {
        client_answer_text(c, "-ERR out of memory\r\n");
        return;
    }
    bool same = true;
    for (size_t i = 0; i < n; i++) {
        servers[i] = pool_server_of(c->pool, req->argv[keys[i].index]);
        same = same && servers[i] == servers[0];
        if (!servers[i]) break;
    }
    if (same)
        send_to(c, servers[0], raw);
    else if (merge != MERGE_NONE)
        send_parts(c, req, merge, step, servers, n);
    else
        client_answer_text(c, "-ERR the keys of '%s' are on different servers of this pool\r\n", cmd->name);
    mem_free(servers);
}

static void send_keyed(struct pool_client *c, const struct command *cmd, const struct resp_request *req,
                       struct bytes raw)
{
    struct command_key few[KEYS_AT_ONCE], *keys = few;
    int n = command_keys(cmd, req->argv, req->argc, few, KEYS_AT_ONCE);
    if (n > KEYS_AT_ONCE) {
        keys = mem_try_alloc((size_t)n * sizeof *keys);
        if (keys) command_keys(cmd, req->argv, req->argc, keys, (size_t)n);
    }
    if (n <= 0)
        client_answer_text(c, "-ERR '%s' without a key has no server in this pool\r\n", cmd->name);
    else if (!keys)
        client_answer_text(c, "-ERR out of memory\r\n");
    else if (cmd->id == CMD_ID_MSET && req->argc % 2 == 0)
        client_answer_text(c, "-ERR wrong number of arguments for 'mset' command\r\n");
    else
        send_by_keys(c, cmd, req, raw, keys, (size_t)n);
    if (keys != few) mem_free(keys);
}

/* ---- answered here ---- */

static bool same_secret(struct bytes a, struct bytes b)
{
    unsigned differ = a.n != b.n;
    for (size_t i = 0; i < a.n; i++) differ |= (unsigned)(uint8_t)a.p[i] ^ (uint8_t)b.p[b.n ? i % b.n : 0];
    return differ == 0;
}

static void authenticate_user(struct pool_client *c, const struct resp_request *req)
{
    const struct account *everybody = user_set_default(c->base.worker->policy.users);
    struct bytes name = req->argc == 3 ? req->argv[1] : BYTES("default");
    if (req->argc == 2 && acl_user_nopass(everybody->user))
        client_answer_text(c, "-ERR AUTH <password> called without any password configured for the default user. Are "
                              "you sure your configuration is correct?\r\n");
    else if (front_log_in(&c->base, req->argv[0], name, req->argv[req->argc - 1]))
        client_answer_text(c, "+OK\r\n");
    else
        client_answer_text(c, "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
}

static void authenticate(struct pool_client *c, const struct resp_request *req)
{
    const char *secret = c->pool->conf->redis_auth;
    bool named = req->argc == 3;
    if (req->argc != 2 && !named) {
        client_answer_text(c, "-ERR wrong number of arguments for 'auth' command\r\n");
    } else if (client_has_users(c)) {
        authenticate_user(c, req);
    } else if (!secret) {
        client_answer_text(c, "-ERR Client sent AUTH, but no password is set\r\n");
    } else if (same_secret(req->argv[req->argc - 1], bytes_of(secret)) &&
               (!named || bytes_eq(req->argv[1], BYTES("default")))) {
        c->authenticated = true;
        c->resp.unauthenticated = false;
        client_answer_text(c, "+OK\r\n");
    } else {
        c->authenticated = false;
        client_answer_text(c, "-ERR invalid password\r\n");
    }
}

/* True: it may not, and was told so. */
static bool is_forbidden(struct pool_client *c, const struct command *cmd, const struct resp_request *req)
{
    char text[ACCESS_REFUSAL_MAX];
    if (!cmd) return false;
    bool is_whole = command_arity_ok(cmd, req->argc);
    const char *why = is_whole && client_has_users(c) ? front_refusal(&c->base, cmd, req->argv, req->argc, text) : NULL;
    if (why) client_answer_text(c, "-%s\r\n", why);
    if (is_whole && !why)
        measure_called(c);
    else
        measure_rejected(c);
    return why != NULL;
}

static void answer_acl(struct pool_client *c, const struct command *cmd, const struct resp_request *req)
{
    struct buf b = {0};
    struct resp_out o = {&b, 2};
    front_answer_acl(&c->base, &o, cmd, req->argv, req->argc);
    client_answer(c, buf_bytes(&b));
    buf_deinit(&b);
}

static void info(struct pool_client *c, const struct resp_request *req)
{
    struct buf b = {0};
    pool_report_info(c, req, &b);
    client_answer(c, buf_bytes(&b));
    buf_deinit(&b);
}

static void ping(struct pool_client *c, const struct resp_request *req)
{
    struct buf b = {0};
    struct resp_out o = {&b, 2};
    if (req->argc == 1)
        resp_status(&o, "PONG");
    else if (req->argc == 2)
        resp_bulk(&o, req->argv[1]);
    else
        resp_error(&o, "ERR wrong number of arguments for 'ping' command");
    client_answer(c, buf_bytes(&b));
    buf_deinit(&b);
}

static bool must_log_in(struct pool_client *c)
{
    if (!client_has_users(c)) return !c->authenticated;
    front_refresh_users(c->base.worker, &c->base);
    return front_must_log_in(&c->base);
}

/* False: it is not one of these. */
static bool answered_here(struct pool_client *c, const struct command *cmd, const struct resp_request *req)
{
    if (cmd && cmd->id == CMD_ID_QUIT) {
        measure_called(c);
        client_answer_text(c, "+OK\r\n");
        c->base.close_after_reply = true;
    } else if (cmd && cmd->id == CMD_ID_AUTH) {
        measure_called(c);
        authenticate(c, req);
    } else if (must_log_in(c)) {
        client_answer_text(c, "-NOAUTH Authentication required\r\n");
    } else if (is_forbidden(c, cmd, req)) {
        return true;
    } else if (cmd && cmd->id == CMD_ID_PING) {
        ping(c, req);
    } else if (cmd && cmd->id == CMD_ID_SELECT && req->argc == 2 && bytes_eq(req->argv[1], BYTES("0"))) {
        client_answer_text(c, "+OK\r\n");
    } else if (cmd && cmd->id == CMD_ID_INFO) {
        info(c, req);
    } else if (cmd && client_has_users(c) && front_answers_acl(cmd) && command_arity_ok(cmd, req->argc)) {
        answer_acl(c, cmd, req);
    } else {
        return false;
    }
    return true;
}

static bool for_any_server(const struct command *cmd)
{
    const struct command *top = command_parent(cmd) ? command_parent(cmd) : cmd;
    return top->id == CMD_ID_COMMAND || cmd->id == CMD_ID_LOLWUT;
}

static void dispatch(struct pool_client *c, const struct resp_request *req, struct bytes raw)
{
    const struct command *cmd = command_of_request(req->argv, req->argc, NULL);
    if (cmd) c->pool->worker->command = cmd->id;
    if (answered_here(c, cmd, req)) return;
    if (!cmd) {
        char name[SHOWN_MAX];
        size_t n = req->argv[0].n < sizeof name ? req->argv[0].n : sizeof name;
        for (size_t i = 0; i < n; i++) name[i] = req->argv[0].p[i] < ' ' ? ' ' : req->argv[0].p[i];
        client_answer_text(c, "-ERR unknown command '%.*s'\r\n", (int)n, name);
    } else if (!command_arity_ok(cmd, req->argc)) {
        client_answer_text(c, "-ERR wrong number of arguments for '%s' command\r\n", cmd->name);
    } else if (for_any_server(cmd)) {
        send_to(c, pool_any_server(c->pool), raw);
    } else if (is_refused(cmd, req)) {
        client_answer_text(c, "-ERR '%s' is not available in a static pool\r\n", cmd->name);
    } else {
        send_keyed(c, cmd, req, raw);
    }
}

void redis_request(struct pool_client *c, const struct resp_request *req, struct bytes raw)
{
    if (raw.n > 1 && raw.p[0] == '*' && raw.p[1] >= '1' && raw.p[1] <= '9') {
        dispatch(c, req, raw);
        return;
    }
    struct buf b = {0}; /* an inline request, and one behind empty lines, is written anew */
    resp_request_append(&b, req->argv, req->argc);
    dispatch(c, req, buf_bytes(&b));
    buf_deinit(&b);
}

/* ---- replies of parts ---- */

static const struct message *first_error(const struct message *m)
{
    for (unsigned i = 0; i < m->parts_n; i++)
        if (m->parts[i]->reply.bytes.n == 0 || m->parts[i]->reply.bytes.p[0] == '-') return m->parts[i];
    return NULL;
}

static bool merge_sum(const struct message *m, struct buf *out)
{
    int64_t sum = 0;
    for (unsigned i = 0; i < m->parts_n; i++) {
        const struct buf *r = &m->parts[i]->reply.bytes;
        if (r->p[0] != ':') return false;
        int64_t v = 0;
        for (size_t k = 1; k < r->n && r->p[k] >= '0' && r->p[k] <= '9' && k < 17; k++) v = v * 10 + (r->p[k] - '0');
        sum += v;
    }
    buf_printf(out, ":%lld\r\n", (long long)sum);
    return true;
}

/* Every key's element comes from where its part's array has got to. */
static bool merge_values(const struct message *m, struct buf *out)
{
    size_t *pos = mem_calloc(m->parts_n, sizeof *pos);
    bool good = true;
    for (unsigned i = 0; good && i < m->parts_n; i++) {
        const struct buf *r = &m->parts[i]->reply.bytes;
        const char *end = memchr(r->p, '\n', r->n);
        good = r->p[0] == '*' && end;
        if (good) pos[i] = (size_t)(end - r->p) + 1;
    }
    buf_printf(out, "*%zu\r\n", m->keys_n);
    for (size_t k = 0; good && k < m->keys_n; k++) {
        const struct buf *r = &m->parts[m->place[k]]->reply.bytes;
        size_t *at = &pos[m->place[k]];
        struct resp_reply_parser p = {0};
        good = resp_scan_reply(&p, bytes_make(r->p + *at, r->n - *at)) == OK;
        if (!good) break;
        buf_append(out, r->p + *at, p.size);
        *at += p.size;
    }
    for (unsigned i = 0; good && i < m->parts_n; i++) good = pos[i] == m->parts[i]->reply.bytes.n;
    mem_free(pos);
    return good;
}

void redis_merge(const struct message *m, struct buf *out)
{
    const struct message *bad = first_error(m);
    bool good = !bad;
    if (bad) {
        buf_append_bytes(out, buf_bytes(&bad->reply.bytes));
        good = bad->reply.bytes.n > 0;
    } else if (m->merge == MERGE_SUM) {
        good = merge_sum(m, out);
    } else if (m->merge == MERGE_VALUES) {
        good = merge_values(m, out);
    } else {
        buf_append_bytes(out, buf_bytes(&m->parts[0]->reply.bytes));
    }
    if (good) return;
    out->n = 0;
    buf_append_cstr(out, "-ERR a server's reply does not fit its request\r\n");
}
