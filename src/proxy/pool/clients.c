/* clients.c: what the front needs to know of a pool's client, and replies of our own. */
#include "base/mem.h"
#include "proxy/pool/engine.h"

#include <stdarg.h>

static struct pool_client *client_of(const struct front_client *base)
{
    return container_of(base, struct pool_client, base);
}

static struct front_client *create(void *target)
{
    struct pool *p = target;
    struct pool_client *c = mem_calloc(1, sizeof *c);
    c->pool = p;
    c->authenticated = !p->conf->redis_auth;
    resp_parser_init(&c->resp, RESP_BULK_MAX_DEFAULT);
    c->resp.unauthenticated = !c->authenticated;
    c->mc.value_max = RESP_BULK_MAX_DEFAULT;
    list_push_back(&p->clients, &c->link);
    p->stats.client_connections++;
    p->worker->total_connections++;
    return &c->base;
}

static void opened(struct front_client *base)
{
    (void)base;
}

static void ended(struct front_client *base, enum status why)
{
    struct pool_stats *s = &client_of(base)->pool->stats;
    if (why == E_CLOSED)
        s->client_eof++;
    else
        s->client_err++;
}

static void closed(struct front_client *base)
{
    struct pool_client *c = client_of(base);
    while (base->first) { /* what is under way is nobody's from here on, and goes when its reply is there */
        struct message *m = container_of(base->first, struct message, reply);
        base->first = m->reply.next;
        m->client = NULL;
        if (m->reply.done) message_free(m);
    }
    c->pool->stats.client_connections--;
    list_remove(&c->link);
    resp_parser_deinit(&c->resp);
}

static void release(struct front_client *base, struct front_reply *reply)
{
    (void)base;
    message_free(container_of(reply, struct message, reply));
}

static bool never(const struct front_client *base)
{
    (void)base;
    return false;
}

/* ---- input ---- */

/* False: nothing is to be done with the request; *st says whether it was refused (OK) or has to wait for its rate. */
static bool is_admitted(struct pool_client *c, size_t *used, enum status *st)
{
    bool refused;
    if (front_admit(&c->base, *used, &refused)) return true;
    if (refused) return false;
    c->base.input_waits = true;
    *used = 0;
    *st = E_AGAIN;
    return false;
}

/* One request from the front; *used: its bytes.  E_CORRUPT: it was refused. */
static enum status take_resp(struct pool_client *c, struct bytes in, size_t *used)
{
    struct resp_request *request = &c->base.worker->request;
    enum status st = resp_parse_request(&c->resp, in, request);
    *used = request->size;
    c->base.need = c->resp.need;
    c->pool->worker->command = NO_COMMAND;
    if (st == OK && !is_admitted(c, used, &st)) return st;
    if (st == OK) redis_request(c, request, bytes_make(in.p, *used));
    if (st == E_CORRUPT) client_answer_text(c, "-ERR %s\r\n", c->resp.error);
    return st;
}

static enum status take_memcache(struct pool_client *c, struct bytes in, size_t *used)
{
    struct mc_request *request = &c->pool->worker->mc_request;
    enum status st = mc_parse_request(&c->mc, in, request);
    *used = st == OK ? request->size : 0;
    c->base.need = c->mc.need;
    c->pool->worker->command = NO_COMMAND;
    if (st == OK && !is_admitted(c, used, &st)) return st;
    if (st == OK) memcache_request(c, request, bytes_make(in.p, *used));
    if (st == E_CORRUPT) client_answer_text(c, "%s\r\n", c->mc.error);
    return st;
}

static size_t take(struct front_client *base, struct bytes in)
{
    struct pool_client *c = client_of(base);
    size_t pos = 0, used;
    base->input_waits = false;
    c->pool->worker->ticks = clock_ticks();
    while (pos < in.n) {
        if (front_stalled(base)) {
            base->input_waits = true;
            break;
        }
        struct bytes rest = bytes_make(in.p + pos, in.n - pos);
        enum status st = c->pool->conf->redis ? take_resp(c, rest, &used) : take_memcache(c, rest, &used);
        pos += used;
        if (st == E_AGAIN) break;
        base->policy.admitted = false;
        if (st == OK) continue;
        if (st == E_CORRUPT) {
            c->pool->stats.client_err++;
            base->close_after_reply = true;
        } else {
            base->close_asap = true;
        }
        return in.n;
    }
    front_wants_write(base);
    return pos;
}

/* ---- users ---- */

bool client_has_users(const struct pool_client *c)
{
    return c->pool->conf->redis && *c->base.worker->front->policy.users.path;
}

static void answer_error(struct front_client *base, const char *text)
{
    struct pool_client *c = client_of(base);
    client_answer_text(c, "%s%s\r\n", c->pool->conf->redis ? "-" : "SERVER_ERROR ", text);
}

static void logged_in(struct front_client *base)
{
    struct pool_client *c = client_of(base);
    if (!client_has_users(c)) return; /* the pool's password decides */
    c->authenticated = base->policy.authenticated;
    c->resp.unauthenticated = !c->authenticated;
}

static bool is_stranger(const struct front_client *base)
{
    return !client_of(base)->authenticated;
}

/* A request without a reply cannot be refused. */
static bool awaits_no_reply(const struct front_client *base)
{
    const struct pool_client *c = client_of(base);
    return !c->pool->conf->redis && c->pool->worker->mc_request.noreply;
}

const struct front_backend pools_front = {
    .create = create,
    .opened = opened,
    .ended = ended,
    .closed = closed,
    .take = take,
    .stalled = never,
    .awaits_end = never,
    .engaged = never,
    .release = release,
    .answer_error = answer_error,
    .logged_in = logged_in,
    .is_stranger = is_stranger,
    .in_transaction = awaits_no_reply,
};

/* ---- replies of our own ---- */

void client_answer(struct pool_client *c, struct bytes reply)
{
    message_reply(message_create(c), reply);
}

void client_answer_text(struct pool_client *c, const char *fmt, ...)
{
    struct buf b = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    client_answer(c, buf_bytes(&b));
    buf_deinit(&b);
}
