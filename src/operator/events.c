/* events.c: what has happened between one look at the cluster and the next.  A node's role is what it says itself; that
 * it failed is what most of the others say. */
#include "operator/view.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A primary that is back may find at once that it has to make room for its replica: look a few times before believing
 * it. */
enum { PRIMARY_LOOKS = 6 };

struct reporter {
    void (*event)(void *ctx, int port, const char *text);
    void *ctx;
};

static void report(const struct reporter *r, int port, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void report(const struct reporter *r, int port, const char *fmt, ...)
{
    struct buf text = {0};
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    buf_append_char(&text, '\0');
    r->event(r->ctx, port, text.p);
    buf_deinit(&text);
}

/* How the others see one node. */
struct opinion {
    int heard;  /* others that answered and know it */
    int failed; /* of them, those that say it failed */
    int agreed; /* of them, those that see its role and number of slots as it does itself */
};

static struct opinion ask_others(const struct members *m, const struct sample *samples, int about)
{
    struct opinion o = {0};
    const struct sample *own = &samples[about];
    for (int i = 0; i < m->n; i++) {
        if (i == about || !samples[i].answered) continue;
        const struct node_line *line = view_find(&samples[i].view, m->list[about].id);
        if (!line) continue;
        o.heard++;
        o.failed += (line->flags & NODE_FAIL) != 0;
        o.agreed += own->answered && !((line->flags ^ own->view.myself->flags) & NODE_PRIMARY) &&
                    view_slots(&samples[i].view, line) == view_slots(&own->view, own->view.myself);
    }
    return o;
}

/* How to call a node in a sentence: its port when it is one of ours, otherwise the address others know. */
static void name_of(const struct members *m, const struct cluster_view *v, const char *id, char out[NODE_ADDRESS_MAX])
{
    for (int i = 0; i < m->n; i++) {
        if (!m->list[i].known || strcmp(m->list[i].id, id) != 0) continue;
        snprintf(out, NODE_ADDRESS_MAX, "%d", m->port + i);
        return;
    }
    const struct node_line *line = view_find(v, id);
    snprintf(out, NODE_ADDRESS_MAX, "%s", line && *line->address ? line->address : "an unknown node");
}

static void observe_role(struct members *m, const struct sample *s, int i, const struct reporter *r)
{
    struct member *one = &m->list[i];
    const struct node_line *self = s->view.myself;
    bool primary = (self->flags & NODE_PRIMARY) != 0;
    char name[NODE_ADDRESS_MAX];
    if (primary && !one->primary) {
        struct buf slots = {0};
        view_print_slots(&s->view, self, &slots);
        report(r, m->port + i, "promoted: now the primary of slots %.*s", (int)slots.n, slots.p);
        buf_deinit(&slots);
    } else if (!primary && *self->primary && strcmp(one->follows, self->primary) != 0) {
        name_of(m, &s->view, self->primary, name);
        report(r, m->port + i, one->primary ? "is no primary any more: now a replica of %s" : "now a replica of %s",
               name);
    }
    one->primary = primary;
    snprintf(one->follows, sizeof one->follows, "%s", self->primary);
}

static void observe_health(struct members *m, const struct sample *s, int i, struct opinion o, const struct reporter *r)
{
    struct member *one = &m->list[i];
    bool failed = o.heard ? 2 * o.failed > o.heard : one->failed;
    if (failed && !one->failed)
        report(r, m->port + i, "failed: %d of %d other nodes agree that it does not answer", o.failed, o.heard);
    one->failed = failed;
    one->away |= failed;
    bool well = one->away && !failed && s->answered && 2 * o.agreed >= o.heard && (one->primary || s->link_up);
    one->well = well ? one->well + 1 : 0;
    if (one->primary ? one->well < PRIMARY_LOOKS : !well) return;
    one->away = false;
    one->well = 0;
    if (one->primary) {
        report(r, m->port + i, "rejoined as a primary");
    } else {
        char name[NODE_ADDRESS_MAX];
        name_of(m, &s->view, one->follows, name);
        report(r, m->port + i, "rejoined as a replica of %s, in sync", name);
    }
}

/* The first look at a node; a node whose id is another one than before (CLUSTER RESET HARD) is seen for the first time
 * again. */
static void get_to_know(struct member *one, const struct node_line *self)
{
    if (one->known && strcmp(one->id, self->id) == 0) return;
    *one = (struct member){.known = true, .away = one->away, .primary = (self->flags & NODE_PRIMARY) != 0};
    snprintf(one->id, sizeof one->id, "%s", self->id);
    snprintf(one->follows, sizeof one->follows, "%s", self->primary);
}

static void observe_cluster(struct members *m, const struct sample *samples, const struct reporter *r)
{
    int heard = 0, ok = 0;
    for (int i = 0; i < m->n; i++) {
        heard += samples[i].answered;
        ok += samples[i].answered && samples[i].state_ok;
    }
    if (!heard) return;
    bool cluster_ok = 2 * ok > heard;
    if (m->known && cluster_ok != m->cluster_ok)
        report(r, 0, cluster_ok ? "all slots are served again" : "the cluster is down: not all slots are served");
    m->known = true;
    m->cluster_ok = cluster_ok;
}

void members_observe(struct members *m, const struct sample *samples,
                     void (*event)(void *ctx, int port, const char *text), void *ctx)
{
    struct reporter r = {event, ctx};
    for (int i = 0; i < m->n; i++)
        if (samples[i].answered) get_to_know(&m->list[i], samples[i].view.myself);
    for (int i = 0; i < m->n; i++) {
        if (!m->list[i].known) continue;
        if (samples[i].answered) observe_role(m, &samples[i], i, &r);
        observe_health(m, &samples[i], i, ask_others(m, samples, i), &r);
    }
    observe_cluster(m, samples, &r);
}
