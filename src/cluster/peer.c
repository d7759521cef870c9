#include "cluster/peer.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/number.h"
#include "resp/resp.h"

#include <pthread.h>
#include <unistd.h>

/* A connection to the other node. */
struct line {
    int fd;
    struct tls_session *tls; /* NULL: plain */
};

static enum status wait_ready(const struct line *l, int events, int64_t deadline_ms)
{
    return stream_wait(l->fd, l->tls, events, deadline_ms) == OK ? OK : E_IO;
}

/* Sends a request and waits for its whole reply; NULL when that fails.  The caller frees it with resp_value_free(). */
static struct resp_value *ask(const struct line *l, const struct bytes *argv, size_t argc, int64_t deadline_ms)
{
    struct buf b = {0};
    resp_request_append(&b, argv, argc);
    for (size_t at = 0; at < b.n;) {
        size_t put;
        if (stream_write(l->fd, l->tls, b.p + at, b.n - at, &put) == E_IO) goto fail;
        at += put;
        if (at < b.n && wait_ready(l, NET_WRITE, deadline_ms) != OK) goto fail;
    }
    b.n = 0;
    struct resp_reply_parser parser = {0};
    struct resp_value *reply = NULL;
    for (enum status st = E_AGAIN; st == E_AGAIN;) {
        size_t got;
        buf_reserve(&b, 16 * 1024);
        st = stream_read(l->fd, l->tls, &b, 16 * 1024, &got);
        if (st == E_AGAIN)
            st = wait_ready(l, NET_READ, deadline_ms) == OK ? E_AGAIN : E_IO;
        else if (st == OK)
            st = resp_parse_reply(&parser, buf_bytes(&b), &reply);
    }
    buf_deinit(&b);
    return reply;
fail:
    buf_deinit(&b);
    return NULL;
}

static bool line_value(struct bytes info, const char *name, struct bytes *out)
{
    size_t n = strlen(name);
    const char *p = info.p, *end = info.p + info.n;
    while (p < end) {
        const char *stop = memchr(p, '\r', (size_t)(end - p));
        if (!stop) stop = end;
        if ((size_t)(stop - p) > n && memcmp(p, name, n) == 0 && p[n] == ':') {
            *out = bytes_make(p + n + 1, (size_t)(stop - p) - n - 1);
            return true;
        }
        p = stop + 2;
    }
    return false;
}

static bool read_history(struct bytes info, struct cluster_history *h)
{
    struct bytes v;
    int64_t n;
    *h = (struct cluster_history){0};
    if (line_value(info, "master_replid", &v) && v.n == CLUSTER_ID_SIZE) memcpy(h->replid.c, v.p, v.n);
    if (line_value(info, "master_replid2", &v) && v.n == CLUSTER_ID_SIZE) memcpy(h->replid2.c, v.p, v.n);
    if (line_value(info, "second_repl_offset", &v) && parse_i64(v, &n) && n > 0) h->offset2 = (uint64_t)n;
    if (line_value(info, "synced_config_epoch", &v) && parse_i64(v, &n) && n > 0) h->synced_epoch = (uint64_t)n;
    /* A replica's master_repl_offset is what it has applied. */
    if (!line_value(info, "master_repl_offset", &v) || !parse_i64(v, &n) || n < 0) return false;
    h->offset = (uint64_t)n;
    return true;
}

static bool talk(const struct line *l, const struct peer_question *q, int64_t deadline, struct cluster_history *h)
{
    bool ok = true;
    if (q->password.n) {
        struct bytes auth[3] = {BYTES("AUTH"), buf_bytes(&q->user), buf_bytes(&q->password)};
        if (q->user.n == 0) auth[1] = auth[2];
        struct resp_value *reply = ask(l, auth, q->user.n ? 3 : 2, deadline);
        ok = reply && !resp_is_error(reply, NULL);
        resp_value_free(reply);
    }
    struct bytes yield[] = {BYTES("CLUSTER"), BYTES("FAILOVER"), BYTES("FORCE")};
    struct bytes info[] = {BYTES("INFO"), BYTES("replication")};
    struct resp_value *reply = ok ? ask(l, q->yield ? yield : info, q->yield ? 3 : 2, deadline) : NULL;
    ok = reply && !resp_is_error(reply, NULL) && (q->yield || read_history(reply->str, h));
    resp_value_free(reply);
    return ok;
}

static bool converse(const struct peer_question *q, struct cluster_history *h)
{
    int64_t deadline = clock_mono_ms() + q->timeout_ms;
    struct line l = {.fd = net_connect_wait(q->ip, q->port, q->timeout_ms)};
    if (l.fd < 0) return false;
    struct buf error = {0};
    if (q->tls) l.tls = tls_connect_wait(q->tls, l.fd, deadline, &error);
    bool ok = (!q->tls || l.tls) && talk(&l, q, deadline, h);
    buf_deinit(&error);
    tls_close(l.tls);
    close(l.fd);
    return ok;
}

static void *run(void *arg)
{
    struct peer_question *q = arg;
    struct cluster_history h = {0};
    bool ok = converse(q, &h);
    q->answered(q, ok, &h);
    return NULL;
}

void peer_ask(struct peer_question *q)
{
    pthread_t t;
    if (pthread_create(&t, NULL, run, q) == 0) {
        pthread_detach(t);
        return;
    }
    struct cluster_history none = {0};
    q->answered(q, false, &none);
}

void peer_question_free(struct peer_question *q)
{
    buf_deinit(&q->user);
    buf_deinit(&q->password);
    mem_free(q);
}
