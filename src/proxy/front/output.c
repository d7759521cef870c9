/* output.c: clients that do not read what they have asked for: client-output-buffer-limit. */
#include "base/log.h"
#include "proxy/front/internal.h"

enum { MORE = 4 }; /* times what it was */

static bool is_over(struct front_client *c, const struct output_limit *limit)
{
    int64_t unread = (int64_t)(c->out.n - c->out_pos), now = c->worker->now_ms;
    if (limit->hard && unread > limit->hard) return true;
    if (!limit->soft || unread <= limit->soft) {
        c->soft_since_ms = 0;
        return false;
    }
    if (!c->soft_since_ms) c->soft_since_ms = now;
    return now - c->soft_since_ms > limit->soft_s * 1000;
}

bool front_output_over(struct front_client *c)
{
    bool subscribed = c->backend->subscribed && c->backend->subscribed(c);
    if (!is_over(c, &c->worker->config->output_limits[subscribed ? OUTPUT_PUBSUB : OUTPUT_NORMAL])) return false;
    log_warning("Closing client %s: %zu bytes of output that it does not read pass client-output-buffer-limit %s",
                c->peer, c->out.n - c->out_pos, subscribed ? "pubsub" : "normal");
    front_count(&c->worker->stats.output_limit_closed, 1);
    return true;
}

/* Many clients write a whole pipeline before they read.  One that reads nothing and is not read from would wait for
 * ever, so it may have more unread, up to another limit. */
static void let_go_on(struct front_client *c)
{
    int64_t most = c->worker->config->output_limit_stuck;
    bool is_over = (int64_t)(c->out.n - c->out_pos) > c->unread_limit;
    if (is_over && c->sent == c->looked_sent && c->unread_limit < most) {
        c->unread_limit = c->unread_limit < most / MORE ? c->unread_limit * MORE : most;
        front_wants_write(c); /* and is read from again */
    }
    c->looked_sent = c->sent;
}

/* Whoever reads nothing at all gives no other occasion. */
void front_output_tick(struct front_worker *w)
{
    list_each(it, &w->clients)
    {
        struct front_client *c = container_of(it, struct front_client, link);
        let_go_on(c);
        if (!c->soft_since_ms || c->close_asap || !front_output_over(c)) continue;
        c->close_asap = true;
        front_wants_write(c);
    }
}
