/* memcache.c: what is done with a request of a memcached client. */
#include "base/mem.h"
#include "commands/table.h"
#include "proxy/pool/engine.h"

#include <errno.h>

static void send_to(struct pool_client *c, struct server *s, const struct mc_request *req, struct bytes raw)
{
    struct message *m = req->noreply ? NULL : message_create(c);
    if (s) {
        server_send(s, m, raw);
        return;
    }
    c->pool->stats.forward_error++;
    if (m) message_fail(m, errno);
}

/* get and gets with keys of several servers: one request a server. */
static void send_parts(struct pool_client *c, const struct mc_request *req, struct server *const *servers)
{
    const struct pool *p = c->pool;
    size_t n = p->conf->servers_n;
    unsigned parts = 0;
    struct buf *text = mem_calloc(n, sizeof *text);
    for (size_t i = 0; i < req->keys_n; i++) {
        struct buf *b = &text[servers[i] - p->servers];
        if (b->n == 0) {
            parts++;
            buf_append_cstr(b, mc_command_name(req->command));
        }
        buf_append_char(b, ' ');
        buf_append_bytes(b, req->keys[i]);
    }
    struct message *m = message_create(c);
    message_split(m, MERGE_BLOCKS, parts);
    unsigned part = 0;
    for (size_t i = 0; i < n; i++) { /* m may be gone after the last part */
        if (text[i].n == 0) continue;
        buf_append_cstr(&text[i], "\r\n");
        server_send(&c->pool->servers[i], message_part(m, part++), buf_bytes(&text[i]));
        buf_deinit(&text[i]);
    }
    mem_free(text);
}

void memcache_request(struct pool_client *c, const struct mc_request *req, struct bytes raw)
{
    c->pool->worker->command = CMD_ID_COUNT + (unsigned)req->command;
    measure_called(c);
    if (req->command == MC_QUIT) {
        c->base.close_after_reply = true;
        return;
    }
    if (req->command == MC_VERSION) {
        send_to(c, pool_any_server(c->pool), req, raw);
        return;
    }
    if (req->keys_n == 1) {
        send_to(c, pool_server_of(c->pool, req->keys[0]), req, raw);
        return;
    }
    struct server **servers = mem_try_alloc(req->keys_n * sizeof(struct server *));
    if (!servers) {
        client_answer_text(c, "SERVER_ERROR out of memory\r\n");
        return;
    }
    bool same = true;
    for (size_t i = 0; i < req->keys_n; i++) {
        servers[i] = pool_server_of(c->pool, req->keys[i]);
        same = same && servers[i] == servers[0];
        if (!servers[i]) break;
    }
    if (same)
        send_to(c, servers[0], req, raw);
    else
        send_parts(c, req, servers);
    mem_free(servers);
}

void memcache_merge(const struct message *m, struct buf *out)
{
    for (unsigned i = 0; i < m->parts_n; i++) {
        const struct buf *r = &m->parts[i]->reply.bytes;
        struct mc_reply_parser p = {0};
        if (mc_scan_reply(&p, buf_bytes(r)) == OK && p.kind == MC_REPLY_VALUES) {
            buf_append(out, r->p, p.values_size);
            continue;
        }
        out->n = 0;
        if (p.size > 0 && p.kind == MC_REPLY_ERROR)
            buf_append(out, r->p + p.values_size, p.size - p.values_size);
        else
            buf_append_cstr(out, "SERVER_ERROR a server's reply does not fit its request\r\n");
        return;
    }
    buf_append_cstr(out, "END\r\n");
}
