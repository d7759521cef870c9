/* stats.c: nutcracker's statistics: whoever connects to the port gets one JSON object, and the connection is closed.
 * A sheet goes by mail from worker to worker, each adds its numbers, and back to the main thread. */
#include "base/clock.h"
#include "base/mem.h"
#include "proxy/pool/engine.h"
#include "proxy/pool/pools.h"

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

/* ---- the sheet ---- */

struct server_sums {
    struct server_stats stats;
    /* in: not written to the server yet; out: its reply is awaited. */
    uint64_t in, in_bytes, out, out_bytes;
};

struct pool_sums {
    struct pool_stats stats;
    struct server_sums *servers;
};

struct visitor;

struct sheet {
    struct mail mail;
    struct pools *all;
    struct generation *generation; /* whose pools; held */
    int next;                      /* worker */
    struct pool_sums *pools;
    uint64_t total_connections, current_connections;
    struct visitor *visitor;
};

static void add(uint64_t *sums, const uint64_t *more, size_t bytes)
{
    for (size_t i = 0; i < bytes / sizeof *sums; i++) sums[i] += more[i];
}

static void add_server(struct server_sums *sums, const struct server *s)
{
    add((uint64_t *)&sums->stats, (const uint64_t *)&s->stats, sizeof s->stats);
    for (int k = 0; k < s->pool->conf->server_connections; k++) {
        const struct server_link *l = s->links[k];
        for (const struct message *m = l ? l->first : NULL; m; m = m->link_next) {
            bool written = m->end <= l->written;
            *(written ? &sums->out : &sums->in) += 1;
            *(written ? &sums->out_bytes : &sums->in_bytes) += m->size;
        }
    }
}

static void add_pool(struct pool_sums *sums, const struct pool_conf *conf, const struct pool *p)
{
    add((uint64_t *)&sums->stats, (const uint64_t *)&p->stats, sizeof p->stats);
    for (size_t i = 0; i < conf->servers_n; i++)
        for (size_t k = 0; k < p->conf->servers_n; k++)
            if (strcmp(conf->servers[i].name, p->conf->servers[k].name) == 0) {
                add_server(&sums->servers[i], &p->servers[k]);
                break;
            }
}

/* The worker's pools may be older or newer than the sheet. */
static void add_worker(struct sheet *s, const struct pool_worker *w)
{
    const struct pool_conf_file *file = &s->generation->file;
    for (size_t i = 0; i < file->n; i++)
        for (size_t k = 0; k < w->pools_n; k++)
            if (strcmp(file->pools[i].name, w->pools[k]->conf->name) == 0)
                add_pool(&s->pools[i], &file->pools[i], w->pools[k]);
    for (size_t k = 0; k < w->pools_n; k++) s->current_connections += w->pools[k]->stats.client_connections;
    for (size_t k = 0; k < w->retired_n; k++) s->current_connections += w->retired[k]->stats.client_connections;
    s->total_connections += w->total_connections;
}

static void sheet_done(struct mail *mail);

static void pass_on(struct sheet *s)
{
    bool last = s->next == s->all->worker_count;
    loop_post(last ? s->all->front->loop : s->all->workers[s->next]->loop, &s->mail);
}

static void fill_in(struct mail *mail)
{
    struct sheet *s = container_of(mail, struct sheet, mail);
    add_worker(s, s->all->workers[s->next++]);
    if (s->next == s->all->worker_count) s->mail.deliver = sheet_done;
    pass_on(s);
}

static void sheet_start(struct pools *all, struct visitor *v)
{
    struct sheet *s = mem_calloc(1, sizeof *s);
    s->mail.deliver = fill_in;
    s->all = all;
    s->visitor = v;
    s->generation = all->generation;
    atomic_fetch_add(&s->generation->refs, 1);
    s->pools = mem_calloc(s->generation->file.n, sizeof *s->pools);
    for (size_t i = 0; i < s->generation->file.n; i++)
        s->pools[i].servers = mem_calloc(s->generation->file.pools[i].servers_n, sizeof(struct server_sums));
    pass_on(s);
}

static void sheet_free(struct sheet *s)
{
    for (size_t i = 0; i < s->generation->file.n; i++) mem_free(s->pools[i].servers);
    mem_free(s->pools);
    generation_release(s->generation);
    mem_free(s);
}

/* ---- the text ---- */

static void write_server(struct buf *out, const struct pool_server *conf, const struct server_health *health,
                         const struct server_sums *s)
{
    write_text(out, conf->name);
    buf_append_cstr(out, ": {");
    write_number(out, "server_eof", s->stats.eof);
    write_number(out, "server_err", s->stats.err);
    write_number(out, "server_timedout", s->stats.timedout);
    write_number(out, "server_connections", s->stats.connections);
    write_number(out, "server_ejected_at", (uint64_t)atomic_load(&health->ejected_us));
    write_number(out, "requests", s->stats.requests);
    write_number(out, "request_bytes", s->stats.request_bytes);
    write_number(out, "responses", s->stats.responses);
    write_number(out, "response_bytes", s->stats.response_bytes);
    write_number(out, "in_queue", s->in);
    write_number(out, "in_queue_bytes", s->in_bytes);
    write_number(out, "out_queue", s->out);
    buf_printf(out, "\"out_queue_bytes\":%" PRIu64 "}", s->out_bytes);
}

static void write_pool(struct buf *out, const struct pool_conf *conf, const struct pool_health *health,
                       const struct pool_sums *p)
{
    write_text(out, conf->name);
    buf_append_cstr(out, ": {");
    write_number(out, "client_eof", p->stats.client_eof);
    write_number(out, "client_err", p->stats.client_err);
    write_number(out, "client_connections", p->stats.client_connections);
    write_number(out, "server_ejects", p->stats.server_ejects);
    write_number(out, "forward_error", p->stats.forward_error);
    buf_printf(out, "\"fragments\":%" PRIu64, p->stats.fragments);
    for (size_t i = 0; i < conf->servers_n; i++) {
        buf_append_cstr(out, ", ");
        write_server(out, &conf->servers[i], &health->servers[i], &p->servers[i]);
    }
    buf_append_char(out, '}');
}

static void write_sheet(const struct sheet *s, struct buf *out)
{
    char host[256] = "unknown";
    if (gethostname(host, sizeof host - 1) != 0) strcpy(host, "unknown");
    buf_append_cstr(out, "{\"service\":\"nutcracker\", \"source\":");
    write_text(out, host);
    buf_append_cstr(out, ", \"version\":\"0.5.0\", ");
    write_number(out, "uptime", (uint64_t)(clock_mono_ms() - s->all->started_ms) / 1000);
    write_number(out, "timestamp", (uint64_t)clock_wall_ms() / 1000);
    write_number(out, "total_connections", s->total_connections);
    buf_printf(out, "\"curr_connections\":%" PRIu64, s->current_connections);
    for (size_t i = 0; i < s->generation->file.n; i++) {
        buf_append_cstr(out, ", ");
        write_pool(out, &s->generation->file.pools[i], &s->generation->health[i], &s->pools[i]);
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

static void leave(struct visitor *v)
{
    int fd = v->src.fd;
    loop_remove(v->loop, &v->src);
    close(fd);
    buf_deinit(&v->text);
    mem_free(v);
}

static void write_more(struct loop_source *src, int events)
{
    struct visitor *v = container_of(src, struct visitor, src);
    size_t put;
    enum status st = net_write(src->fd, v->text.p + v->pos, v->text.n - v->pos, &put);
    (void)events;
    if (st == OK) v->pos += put;
    if (st == E_AGAIN || (st == OK && v->pos < v->text.n)) return;
    leave(v);
}

static void sheet_done(struct mail *mail)
{
    struct sheet *s = container_of(mail, struct sheet, mail);
    struct visitor *v = s->visitor;
    write_sheet(s, &v->text);
    sheet_free(s);
    if (loop_add(v->loop, &v->src, NET_WRITE) != OK) leave(v);
}

static void welcome(struct loop_source *src, int events)
{
    struct pools *p = container_of(src, struct pools, stats_listener);
    (void)events;
    for (int i = 0; i < VISITORS_MAX; i++) {
        int fd = net_accept(src->fd);
        if (fd < 0) return;
        struct visitor *v = mem_calloc(1, sizeof *v);
        v->src = (struct loop_source){.fd = fd, .ready = write_more};
        v->loop = p->front->loop;
        sheet_start(p, v);
    }
}

bool stats_listen(struct pools *p, const char *host, int port)
{
    int fd = front_inherited_or_listen(p->front, host, port, 64);
    if (fd < 0) return false;
    p->stats_listener = (struct loop_source){.fd = fd, .ready = welcome};
    return loop_add(p->front->loop, &p->stats_listener, NET_READ) == OK;
}

void pools_describe_stats(void)
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
