/* output.c: clients that do not read what they have asked for: client-output-buffer-limit. */
#include "base/log.h"
#include "proxy/front/internal.h"

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

/* Whoever reads nothing at all gives no other occasion. */
void front_output_tick(struct front_worker *w)
{
    list_each(it, &w->clients)
    {
        struct front_client *c = container_of(it, struct front_client, link);
        if (!c->soft_since_ms || c->close_asap || !front_output_over(c)) continue;
        c->close_asap = true;
        front_wants_write(c);
    }
}
