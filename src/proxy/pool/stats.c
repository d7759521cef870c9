/* stats.c: nutcracker's statistics: whoever connects to the port gets one JSON object, and the connection is closed. */
#include "base/clock.h"
#include "base/mem.h"
#include "proxy/pool/engine.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

enum { VISITORS_MAX = 64 };

static void write_text(struct buf *out, const char *text)
{
    buf_append_char(out, '"');
    for (const char *s = text; *s; s++) {
        if (*s == '"' || *s == '\\')
            buf_printf(out, "\\%c", *s);
        else if ((unsigned char)*s < ' ')
            buf_printf(out, "\\u%04x", *s);
        else
            buf_append_char(out, *s);
    }
    buf_append_char(out, '"');
}

static void write_number(struct buf *out, const char *name, uint64_t value)
{
    buf_printf(out, "\"%s\":%" PRIu64 ", ", name, value);
}

struct queues {
    uint64_t in, in_bytes, out, out_bytes;
};

/* in: not written to the server yet; out: its reply is awaited. */
static struct queues count_queues(const struct server *s)
{
    struct queues q = {0};
    for (int k = 0; k < s->pool->conf->server_connections; k++) {
        const struct server_link *l = s->links[k];
        for (const struct message *m = l ? l->first : NULL; m; m = m->link_next) {
            bool written = m->end <= l->written;
            *(written ? &q.out : &q.in) += 1;
            *(written ? &q.out_bytes : &q.in_bytes) += m->size;
        }
    }
    return q;
}

static void write_server(struct buf *out, const struct server *s)
{
    struct queues q = count_queues(s);
    write_text(out, s->conf->name);
    buf_append_cstr(out, ": {");
    write_number(out, "server_eof", s->stats.eof);
    write_number(out, "server_err", s->stats.err);
    write_number(out, "server_timedout", s->stats.timedout);
    write_number(out, "server_connections", s->stats.connections);
    write_number(out, "server_ejected_at", (uint64_t)s->stats.ejected_at_us);
    write_number(out, "requests", s->stats.requests);
    write_number(out, "request_bytes", s->stats.request_bytes);
    write_number(out, "responses", s->stats.responses);
    write_number(out, "response_bytes", s->stats.response_bytes);
    write_number(out, "in_queue", q.in);
    write_number(out, "in_queue_bytes", q.in_bytes);
    write_number(out, "out_queue", q.out);
    buf_printf(out, "\"out_queue_bytes\":%" PRIu64 "}", q.out_bytes);
}

static void write_pool(struct buf *out, const struct pool *p)
{
    write_text(out, p->conf->name);
    buf_append_cstr(out, ": {");
    write_number(out, "client_eof", p->stats.client_eof);
    write_number(out, "client_err", p->stats.client_err);
    write_number(out, "client_connections", p->stats.client_connections);
    write_number(out, "server_ejects", p->stats.server_ejects);
    write_number(out, "forward_error", p->stats.forward_error);
    buf_printf(out, "\"fragments\":%" PRIu64, p->stats.fragments);
    for (size_t i = 0; i < p->conf->servers_n; i++) {
        buf_append_cstr(out, ", ");
        write_server(out, &p->servers[i]);
    }
    buf_append_char(out, '}');
}

void stats_write(const struct engine *e, struct buf *out)
{
    char host[256] = "unknown";
    if (gethostname(host, sizeof host - 1) != 0) strcpy(host, "unknown");
    buf_append_cstr(out, "{\"service\":\"nutcracker\", \"source\":");
    write_text(out, host);
    buf_append_cstr(out, ", \"version\":\"0.5.0\", ");
    write_number(out, "uptime", (uint64_t)(clock_mono_ms() - e->started_ms) / 1000);
    write_number(out, "timestamp", (uint64_t)clock_wall_ms() / 1000);
    write_number(out, "total_connections", e->total_connections);
    buf_printf(out, "\"curr_connections\":%" PRIu64, e->current_connections);
    for (size_t i = 0; i < e->pools_n; i++) {
        buf_append_cstr(out, ", ");
        write_pool(out, e->pools[i]);
    }
    buf_append_cstr(out, "}\n");
}

/* ---- the port ---- */

struct visitor {
    struct loop_source src;
    struct loop *loop;
    struct buf text;
    size_t pos;
};

static void write_more(struct loop_source *src, int events)
{
    struct visitor *v = container_of(src, struct visitor, src);
    size_t put;
    enum status st = net_write(src->fd, v->text.p + v->pos, v->text.n - v->pos, &put);
    (void)events;
    if (st == OK) v->pos += put;
    if (st == E_AGAIN || (st == OK && v->pos < v->text.n)) return;
    int fd = src->fd;
    loop_remove(v->loop, src);
    close(fd);
    buf_deinit(&v->text);
    mem_free(v);
}

static void welcome(struct loop_source *src, int events)
{
    struct engine *e = container_of(src, struct engine, stats_listener);
    (void)events;
    for (int i = 0; i < VISITORS_MAX; i++) {
        int fd = net_accept(src->fd);
        if (fd < 0) return;
        struct visitor *v = mem_calloc(1, sizeof *v);
        v->src = (struct loop_source){.fd = fd, .ready = write_more};
        v->loop = e->loop;
        stats_write(e, &v->text);
        if (loop_add(e->loop, &v->src, NET_WRITE) == OK) continue;
        close(fd);
        buf_deinit(&v->text);
        mem_free(v);
    }
}

bool stats_listen(struct engine *e, const char *host, int port)
{
    e->stats_listener = (struct loop_source){.fd = net_listen_tcp(host, port, 64), .ready = welcome};
    return e->stats_listener.fd >= 0 && loop_add(e->loop, &e->stats_listener, NET_READ) == OK;
}

void stats_describe(void)
{
    puts("Of a pool:\n"
         "  client_eof          connections that clients closed\n"
         "  client_err          connections of clients that broke or were refused\n"
         "  client_connections  clients connected now\n"
         "  server_ejects       how often a server was ejected\n"
         "  forward_error       requests that could not be handed to a server\n"
         "  fragments           parts that requests with several keys were split into\n\n"
         "Of a server:\n"
         "  server_eof          connections that the server closed\n"
         "  server_err          connections that broke or could not be made\n"
         "  server_timedout     connections given up because a reply did not come in time\n"
         "  server_connections  connections open now\n"
         "  server_ejected_at   when it was ejected last, microseconds since 1970\n"
         "  requests            requests sent\n"
         "  request_bytes       their bytes\n"
         "  responses           replies received\n"
         "  response_bytes      their bytes\n"
         "  in_queue            requests not written to the server yet\n"
         "  in_queue_bytes      their bytes\n"
         "  out_queue           requests whose reply is awaited\n"
         "  out_queue_bytes     their bytes");
}
