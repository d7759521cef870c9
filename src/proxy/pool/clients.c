/* clients.c: connections of clients: input, the queue that keeps replies in order, output. */
#include "base/mem.h"
#include "proxy/pool/engine.h"

#include <stdarg.h>
#include <unistd.h>

static void ready(struct loop_source *src, int events);

bool client_adopt(struct pool *p, int fd)
{
    struct engine *e = p->engine;
    struct pool_client *c = mem_calloc(1, sizeof *c);
    c->src = (struct loop_source){.fd = fd, .ready = ready};
    c->pool = p;
    c->authenticated = !p->conf->redis_auth;
    resp_parser_init(&c->resp, RESP_BULK_MAX_DEFAULT);
    c->resp.unauthenticated = !c->authenticated;
    c->mc.value_max = RESP_BULK_MAX_DEFAULT;
    net_set_nodelay(fd);
    list_init(&c->dirty);
    if (loop_add(e->loop, &c->src, NET_READ) != OK) {
        mem_free(c);
        return false;
    }
    list_push_back(&p->clients, &c->link);
    p->stats.client_connections++;
    e->total_connections++;
    e->current_connections++;
    return true;
}

void pool_client_destroy(struct pool_client *c)
{
    int fd = c->src.fd;
    loop_remove(c->pool->engine->loop, &c->src);
    close(fd);
    while (c->first) { /* what is under way is nobody's from here on, and goes when its reply is there */
        struct message *m = c->first;
        c->first = m->next;
        m->client = NULL;
        if (m->done) message_free(m);
    }
    c->pool->stats.client_connections--;
    c->pool->engine->current_connections--;
    list_remove(&c->link);
    list_remove(&c->dirty);
    resp_parser_deinit(&c->resp);
    buf_deinit(&c->in);
    buf_deinit(&c->out);
    mem_free(c);
}

static void wants_turn(struct pool_client *c)
{
    if (list_empty(&c->dirty)) list_push_back(&c->pool->engine->dirty_clients, &c->dirty);
}

void pool_client_drain(struct pool_client *c)
{
    while (c->first && c->first->done) {
        struct message *m = c->first;
        c->first = m->next;
        if (!c->first) c->last = NULL;
        c->queued--;
        buf_append_bytes(&c->out, buf_bytes(&m->reply));
        message_free(m);
    }
    wants_turn(c);
}

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

/* ---- input ---- */

static bool is_stalled(const struct pool_client *c)
{
    return c->closing || c->broken || c->queued >= QUEUE_MAX || c->out.n - c->out_pos > UNREAD_MAX;
}

/* One request from the front; *used: its bytes.  OK: it was taken, with E_CORRUPT refused. */
static enum status take_one(struct pool_client *c, struct bytes in, size_t *used)
{
    struct engine *e = c->pool->engine;
    enum status st;
    if (c->pool->conf->redis) {
        st = resp_parse_request(&c->resp, in, &e->request);
        *used = e->request.size;
        if (st == OK) redis_request(c, &e->request, bytes_make(in.p, *used));
        if (st == E_CORRUPT) client_answer_text(c, "-ERR %s\r\n", c->resp.error);
    } else {
        st = mc_parse_request(&c->mc, in, &e->mc_request);
        *used = st == OK ? e->mc_request.size : 0;
        if (st == OK) memcache_request(c, &e->mc_request, bytes_make(in.p, *used));
        if (st == E_CORRUPT) client_answer_text(c, "%s\r\n", c->mc.error);
    }
    return st;
}

static void process(struct pool_client *c)
{
    size_t pos = 0;
    c->input_waits = false;
    while (pos < c->in.n) {
        if (is_stalled(c)) {
            c->input_waits = true;
            break;
        }
        size_t used;
        enum status st = take_one(c, bytes_make(c->in.p + pos, c->in.n - pos), &used);
        pos += used;
        if (st == OK) continue;
        if (st == E_CORRUPT) {
            c->pool->stats.client_err++;
            c->closing = true;
        }
        if (st == E_NOMEM) c->broken = true;
        break;
    }
    buf_drop_front(&c->in, pos);
    if (c->in.n == 0 && c->in.cap > BUFFER_KEEP) buf_deinit(&c->in);
    if (c->in.n > QUERY_MAX) c->broken = true;
    wants_turn(c);
}

static void read_requests(struct pool_client *c)
{
    size_t want = c->pool->conf->redis ? c->resp.need : c->mc.need, got;
    if (want < READ_BYTES) want = READ_BYTES;
    if (want > READ_MAX) want = READ_MAX;
    enum status st = buf_try_reserve(&c->in, want);
    if (st == OK) st = net_read(c->src.fd, &c->in, want, &got);
    if (st == E_AGAIN) return;
    if (st == OK) {
        process(c);
        return;
    }
    if (st == E_CLOSED)
        c->pool->stats.client_eof++;
    else
        c->pool->stats.client_err++;
    if (st == E_CLOSED && c->first)
        c->closing = true; /* it may still read what it has asked for */
    else
        c->broken = true;
    wants_turn(c);
}

/* ---- output ---- */

void pool_client_flush(struct pool_client *c)
{
    while (c->out_pos < c->out.n && !c->broken) {
        size_t put;
        enum status st = net_write(c->src.fd, c->out.p + c->out_pos, c->out.n - c->out_pos, &put);
        if (st == E_AGAIN) break;
        if (st != OK) {
            c->pool->stats.client_err++;
            c->broken = true;
        } else {
            c->out_pos += put;
        }
    }
    bool all = c->out_pos == c->out.n;
    if (c->broken || (c->closing && all && !c->first)) {
        pool_client_destroy(c);
        return;
    }
    if (all) {
        c->out.n = c->out_pos = 0;
        if (c->out.cap > BUFFER_KEEP) buf_deinit(&c->out);
    } else if (c->out_pos > c->out.n / 2 && c->out_pos > BUFFER_KEEP) {
        buf_drop_front(&c->out, c->out_pos);
        c->out_pos = 0;
    }
    loop_set(c->pool->engine->loop, &c->src, (is_stalled(c) ? 0 : NET_READ) | (all ? 0 : NET_WRITE));
    if (c->input_waits && !is_stalled(c)) process(c); /* another flush in this very turn */
}

static void ready(struct loop_source *src, int events)
{
    struct pool_client *c = container_of(src, struct pool_client, src);
    if (events & NET_READ) {
        if (!is_stalled(c))
            read_requests(c);
        else if (!(src->events & NET_READ) && !(events & NET_WRITE && src->events & NET_WRITE))
            c->broken = true; /* reported although nobody asked: the connection is gone */
    }
    if (events & NET_WRITE || c->broken) wants_turn(c);
}
