/* replicas.c: reads that are answered by replicas.
 *
 * Every second each node is asked for its INFO replication, on a connection for questions.  That says whether a replica
 * has a link to its primary, how far it is behind, and how long an answer takes.  A replica that cannot answer a read
 * is left alone for a while, and the primary answers it. */
#include "proxy/cluster/worker.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/number.h"

enum {
    ASK_EVERY_MS = 1000,
    AVOID_MS = 1000,
    KNOWN_FOR_MS = 5000, /* what a node has said is believed for so long */
    NEAR_US = 200,       /* no difference */
    UNANSWERED_US = 1000000,
};

/* ---- what nodes tell ---- */

static bool field(struct bytes text, const char *name, struct bytes *value)
{
    size_t n = strlen(name);
    const char *at = memmem(text.p, text.n, name, n);
    if (!at) return false;
    size_t from = (size_t)(at - text.p) + n, to = from;
    while (to < text.n && text.p[to] != '\r') to++;
    *value = bytes_make(text.p + from, to - from);
    return true;
}

static void note_time(struct backend *b)
{
    int64_t us = clock_mono_us() - b->probed_us;
    if (us < 1) us = 1;
    b->rtt_us = b->rtt_us ? (b->rtt_us * 7 + us) / 8 : us;
}

void replica_told(struct worker *w, struct backend *b, struct bytes reply)
{
    struct bytes role, link, offset;
    (void)w;
    note_time(b);
    b->offset = -1;
    b->in_step = true; /* where it may not be asked, it is believed to be */
    if (reply.p[0] == '-' || !field(reply, "\nrole:", &role)) return;
    bool is_replica = bytes_eq(role, BYTES("slave"));
    b->in_step = !is_replica || (field(reply, "\nmaster_link_status:", &link) && bytes_eq(link, BYTES("up")));
    if (!field(reply, is_replica ? "\nslave_repl_offset:" : "\nmaster_repl_offset:", &offset) ||
        !parse_i64(offset, &b->offset))
        b->offset = -1;
}

void replica_failed(struct worker *w, struct backend *b)
{
    count(&w->stats.replica_failures, 1);
    b->avoid_until = w->now_ms + AVOID_MS;
}

void replicas_tick(struct worker *w, int64_t now_ms)
{
    if (!w->config->replica_reads) return;
    list_each(it, &w->backends)
    {
        struct backend *b = container_of(it, struct backend, link);
        if ((!b->in_map || !b->replica_count) && !b->is_replica) continue;
        if (b->probing || now_ms * 1000 - b->probed_us >= ASK_EVERY_MS * 1000) node_probe(w, b);
    }
}

void replicas_adopt_map(struct worker *w, struct topology_map *map, struct backend **primaries)
{
    list_each(it, &w->backends)
    {
        struct backend *b = container_of(it, struct backend, link);
        b->is_replica = false;
        b->replica_count = 0;
    }
    if (!w->config->replica_reads) return;
    for (int i = 0; i < map->replica_count; i++) {
        const struct map_node *n = &map->replicas[i];
        struct backend *primary = primaries[n->primary], *b = backend_get(w, bytes_of(n->name), n->ip, n->port);
        if (!primary || !b || b == primary || primary->replica_count == REPLICAS_MAX) continue;
        backend_renew(b, n);
        b->is_replica = true;
        primary->replicas[primary->replica_count++] = b;
    }
}

/* ---- a client's own writes ---- */

enum { RECENT_SLOTS = 16 };

/* By a part of the slot's number; where two live ones meet, all slots count as written. */
struct recent_writes {
    int64_t all_until;
    struct {
        int64_t until;
        uint16_t slot;
    } at[RECENT_SLOTS];
};

static bool has_written(const struct client *c, const struct request *r, int64_t now_ms)
{
    if (!c->recent) return false;
    uint16_t slot = r->slot % RECENT_SLOTS;
    return now_ms < c->recent->all_until || (c->recent->at[slot].slot == r->slot && now_ms < c->recent->at[slot].until);
}

void replica_note_write(struct worker *w, const struct request *r)
{
    struct client *c = r->client;
    int64_t now = w->now_ms, until = now + w->config->replica_after_write_ms;
    if (until == now || !r->cmd) return;
    if (!(r->cmd->flags & (CMD_WRITE | CMD_MAY_REPLICATE)) && r->cmd->id != CMD_ID_EXEC) return;
    if (!c->recent) c->recent = mem_calloc(1, sizeof *c->recent);
    uint16_t at = r->slot % RECENT_SLOTS;
    bool taken = c->recent->at[at].slot != r->slot && now < c->recent->at[at].until;
    if (taken || r->crosses) c->recent->all_until = until;
    if (taken) return;
    c->recent->at[at].slot = r->slot;
    c->recent->at[at].until = until;
}

/* ---- which ---- */

static bool is_usable(const struct worker *w, const struct backend *b, const struct backend *primary)
{
    int64_t lag = primary->offset - b->offset, most = w->config->replica_max_lag;
    if (!*b->ip || b->alive_ms + KNOWN_FOR_MS < w->now_ms || w->now_ms < b->avoid_until || w->now_ms < b->retry_ms)
        return false;
    if (!b->in_step || !b->rtt_us) return false;
    if (b->probing && clock_mono_us() - b->probed_us > UNANSWERED_US) return false;
    return most == 0 || b->offset < 0 || primary->offset < 0 || lag <= most;
}

static bool is_near(const struct backend *b, int64_t best_us)
{
    return b->rtt_us <= best_us + best_us / 4 + NEAR_US;
}

/* What is read again and again by one client is read from one replica, as long as that can be. */
struct backend *replica_for(struct worker *w, const struct request *r, struct backend *b)
{
    const struct client *c = r->client;
    struct backend *found[REPLICAS_MAX + 1];
    unsigned n = 0;
    if (!w->config->replica_reads || !b->replica_count || !c || r->no_replica || r->ask || r->crosses || c->watching)
        return NULL;
    if (!r->cmd || !r->is_safe || !command_has_keys(r->cmd)) return NULL;
    if (has_written(c, r, w->now_ms)) return NULL;
    bool nearest = w->config->replica_reads == 2;
    int64_t best = INT64_MAX;
    for (unsigned i = 0; i < b->replica_count; i++)
        if (is_usable(w, b->replicas[i], b)) found[n++] = b->replicas[i];
    if (nearest && b->rtt_us) found[n++] = b;
    for (unsigned i = 0; i < n; i++)
        if (found[i]->rtt_us < best) best = found[i]->rtt_us;
    unsigned kept = 0;
    for (unsigned i = 0; i < n; i++)
        if (!nearest || is_near(found[i], best)) found[kept++] = found[i];
    if (kept == 0) return NULL;
    struct backend *chosen = found[c->base.id % kept];
    return chosen == b ? NULL : chosen;
}
