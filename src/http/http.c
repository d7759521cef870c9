#include "http/http.h"

#include "base/list.h"
#include "base/log.h"

#include <microhttpd.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 64, IDLE_S = 10, MEMORY_EACH = 16 * 1024, RUNS_A_TURN = 64, LOOK_MS = 1000 };

static enum MHD_Result send_text(struct MHD_Connection *c, unsigned status, struct bytes body, const char *type)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(body.n, (void *)body.p, MHD_RESPMEM_MUST_COPY);
    if (!r) return MHD_NO;
    enum MHD_Result ok = MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED) ok = MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    if (ok == MHD_YES) ok = MHD_queue_response(c, status, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result answer(void *ctx, struct MHD_Connection *c, const char *path, const char *method,
                              const char *version, const char *upload, size_t *upload_size, void **state)
{
    struct http *h = ctx;
    static const char text[] = "text/plain; charset=utf-8";
    (void)version;
    (void)upload;
    if (!*state) { /* the headers are there; the reply is for the next call, so that the connection can be kept */
        *state = h;
        return MHD_YES;
    }
    if (*upload_size) { /* thrown away */
        *upload_size = 0;
        return MHD_YES;
    }
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return send_text(c, MHD_HTTP_METHOD_NOT_ALLOWED, BYTES("only GET and HEAD\n"), text);
    struct buf body = {0};
    const char *type = text;
    bool there = h->page(h->ctx, path, &body, &type);
    enum MHD_Result r = there ? send_text(c, MHD_HTTP_OK, buf_bytes(&body), type)
                              : send_text(c, MHD_HTTP_NOT_FOUND, BYTES("no such page\n"), text);
    buf_deinit(&body);
    return r;
}

/* Does what there is to do.  Its own epoll descriptor becomes readable in our loop when there is more. */
static void run(struct http *h)
{
    MHD_UNSIGNED_LONG_LONG wait;
    if (!h->daemon) return;
    for (int i = 0; i < RUNS_A_TURN; i++) {
        MHD_run(h->daemon);
        if (MHD_get_timeout(h->daemon, &wait) != MHD_YES || wait > 0) return;
    }
    loop_again(h->loop, &h->src);
}

static void ready(struct loop_source *src, int events)
{
    (void)events;
    run(container_of(src, struct http, src));
}

static void look(struct loop_timer *t, int64_t now_ms)
{
    (void)now_ms;
    run(container_of(t, struct http, timer));
}

bool http_serve(struct http *h, struct loop *l, int listener, http_page *page, void *ctx)
{
    *h = (struct http){.src = {.fd = -1, .ready = ready}, .loop = l, .page = page, .ctx = ctx};
    h->daemon =
        MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, answer, h, MHD_OPTION_LISTEN_SOCKET, listener,
                         MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
                         (unsigned)IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY_EACH, MHD_OPTION_END);
    if (!h->daemon) {
        close(listener);
        return false;
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (info) h->src.fd = info->epoll_fd;
    if (!info || loop_add(l, &h->src, NET_READ) != OK) {
        MHD_stop_daemon(h->daemon);
        h->daemon = NULL;
        return false;
    }
    h->timer = (struct loop_timer){.every_ms = LOOK_MS, .tick = look};
    loop_timer_add(l, &h->timer);
    return true;
}

void http_close(struct http *h)
{
    if (!h->daemon) return;
    loop_remove(h->loop, &h->src);
    int listener = MHD_quiesce_daemon(h->daemon); /* another process may go on with it: no shutdown() */
    MHD_stop_daemon(h->daemon);
    if (listener >= 0) close(listener);
    h->daemon = NULL;
}
