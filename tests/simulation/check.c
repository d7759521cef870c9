/* check.c: what must hold.
 *
 * In every step:
 *  1. Two primaries never serve one slot in one config epoch.  "Serves": runs, is a primary, holds the slot, sees the
 *     cluster as up.
 *  2. A node id votes once in an epoch, across restarts.  Judged by the votes that leave a node, not by those it has
 *     decided upon: a vote that dies with the process before it is durable was never given.
 *     Nor does it vote in an epoch in which the candidate has not asked.
 *  3. Epochs that a node id shows to others (currentEpoch; configEpoch while it claims slots as a primary) never go
 *     back; nor does currentEpoch inside a process.
 *  4. No message moves a slot from an owner that claims it to one of a lower or equal config epoch.  (Looked at on a
 *     sample of the slots, because this is done very often.)
 *  5. Whoever is elected without FORCEACK is elected after the right to write (rule 18) of every other node that takes
 *     itself for the primary of its slots has ended, though that one may have been frozen or cut off since.  Not
 *     within 30 s of a TAKEOVER, which changes who votes behind the voters' backs, nor while the two do not agree who
 *     votes, because the news of another election has not come to one of them: majorities of different voters need not
 *     have a member in common.
 *  6. With min-replicas-to-ack and one fault at a time: whoever is elected (TAKEOVER apart), or serves after a restart,
 *     has every write that was acknowledged to a client.
 *
 * At the end, after the network has healed: all members agree on the owner of every slot. */
#include "base/hash.h"
#include "base/mem.h"
#include "sim.h"

#include <stdarg.h>

void check_fail(struct world *w, const char *fmt, ...)
{
    if (w->failed) return;
    w->failed = true;
    va_list ap;
    va_start(ap, fmt);
    int n = snprintf(w->failure, sizeof w->failure, "at %.3f s: ", (double)w->now / 1000);
    vsnprintf(w->failure + n, sizeof w->failure - (size_t)n, fmt, ap);
    va_end(ap);
    trace(w, "FAILED %s", w->failure);
}

/* ---- 1: one server a slot and epoch ---- */

static bool overlap(const uint8_t *a, const uint8_t *b, unsigned *slot)
{
    for (unsigned i = 0; i < CLUSTER_SLOT_BYTES; i++) {
        if (!(a[i] & b[i])) continue;
        *slot = i * 8 + (unsigned)__builtin_ctz(a[i] & b[i]);
        return true;
    }
    return false;
}

static void check_serving(struct world *w, const struct sim_node *n)
{
    unsigned slot;
    for (int i = 0; i < w->next_node; i++) {
        const struct sim_node *o = &w->nodes[i];
        if (o == n || !o->serving || o->serving_epoch != n->serving_epoch) continue;
        if (overlap(o->serving_slots, n->serving_slots, &slot))
            check_fail(w, "n%d and n%d both serve slot %u in config epoch %llu", n->index, o->index, slot,
                       (unsigned long long)n->serving_epoch);
    }
}

void check_stopped(struct sim_node *n)
{
    n->serving = false;
}

void check_after_step(struct world *w, struct sim_node *n)
{
    if (w->failed || !n->core) return;
    uint64_t current = cluster_current_epoch(n->core);
    if (current < n->seen_current)
        check_fail(w, "n%d: currentEpoch went from %llu back to %llu", n->index, (unsigned long long)n->seen_current,
                   (unsigned long long)current);
    n->seen_current = current;
    struct cluster_node_view me;
    const struct cluster_node *primary = cluster_my_primary(n->core);
    bool serving = cluster_state_ok(n->core) && (cluster_is_primary(n->core) || (w->replicas_serve && primary));
    if (serving) {
        cluster_node_view(n->core, cluster_is_primary(n->core) ? cluster_myself(n->core) : primary, &me);
        serving = me.slot_count > 0;
    }
    if (!serving) {
        n->serving = false;
        return;
    }
    if (n->serving && n->serving_epoch == me.config_epoch &&
        memcmp(n->serving_slots, me.slots, CLUSTER_SLOT_BYTES) == 0)
        return;
    n->serving = true;
    n->serving_epoch = me.config_epoch;
    memcpy(n->serving_slots, me.slots, CLUSTER_SLOT_BYTES);
    check_serving(w, n);
}

/* ---- 4: claims ---- */

void check_rebinding(struct world *w, struct sim_node *n, bool by_message)
{
    for (unsigned i = 0; i < SAMPLES; i++) {
        unsigned slot = i * SAMPLE_STEP;
        const struct cluster_node *owner = cluster_slot_owner(n->core, slot), *before = n->sample[i].owner;
        struct cluster_node_view v = {0};
        if (owner) cluster_node_view(n->core, owner, &v);
        if (by_message && owner && before && owner != before && v.config_epoch <= n->sample[i].epoch)
            check_fail(w, "n%d gave slot %u of epoch %llu to %.8s of epoch %llu", n->index, slot,
                       (unsigned long long)n->sample[i].epoch, v.id.c, (unsigned long long)v.config_epoch);
        n->sample[i].owner = owner && cluster_slot_is_claimed(n->core, slot) ? owner : NULL;
        n->sample[i].epoch = v.config_epoch;
    }
}

/* ---- 2 and 3: what leaves a node ---- */

static void check_vote(struct world *w, struct sim_node *n, const struct departure *m, int to)
{
    /* Under whatever id: a vote may be on its way to a life that has ended. */
    if (m->current_epoch > w->nodes[to].asked)
        check_fail(w, "n%d votes for n%d in epoch %llu, which asked in %llu", n->index, to,
                   (unsigned long long)m->current_epoch, (unsigned long long)w->nodes[to].asked);
    for (size_t i = 0; i < w->vote_count; i++) {
        const struct vote *v = &w->votes[i];
        if (v->epoch == m->current_epoch && cluster_id_eq(&v->voter, &m->sender)) {
            check_fail(w, "n%d (%.8s) voted twice in epoch %llu", n->index, m->sender.c,
                       (unsigned long long)m->current_epoch);
            return;
        }
    }
    if (w->vote_count == w->vote_cap) {
        w->vote_cap = w->vote_cap ? w->vote_cap * 2 : 64;
        w->votes = mem_realloc(w->votes, w->vote_cap * sizeof *w->votes);
    }
    w->votes[w->vote_count++] = (struct vote){.voter = m->sender, .epoch = m->current_epoch};
    w->totals->votes_cast++;
    trace(w, "n%d votes for n%d in epoch %llu", n->index, to, (unsigned long long)m->current_epoch);
}

static struct shown *shown_of(struct world *w, const struct cluster_id *id)
{
    for (size_t i = 0; i < w->shown_count; i++)
        if (cluster_id_eq(&w->shown[i].id, id)) return &w->shown[i];
    if (w->shown_count == w->shown_cap) {
        w->shown_cap = w->shown_cap ? w->shown_cap * 2 : 64;
        w->shown = mem_realloc(w->shown, w->shown_cap * sizeof *w->shown);
    }
    struct shown *s = &w->shown[w->shown_count++];
    *s = (struct shown){.id = *id};
    return s;
}

static void check_epochs(struct world *w, struct sim_node *n, const struct departure *m)
{
    if (!n->shown || !cluster_id_eq(&w->shown[n->shown - 1].id, &m->sender))
        n->shown = (size_t)(shown_of(w, &m->sender) - w->shown) + 1;
    struct shown *s = &w->shown[n->shown - 1];
    if (m->current_epoch < s->current)
        check_fail(w, "n%d (%.8s) showed currentEpoch %llu, then %llu", n->index, m->sender.c,
                   (unsigned long long)s->current, (unsigned long long)m->current_epoch);
    s->current = m->current_epoch;
    if (!m->claims) return;
    if (m->config_epoch < s->config)
        check_fail(w, "n%d (%.8s) showed configEpoch %llu, then %llu", n->index, m->sender.c,
                   (unsigned long long)s->config, (unsigned long long)m->config_epoch);
    s->config = m->config_epoch;
}

/* Called with the message as it leaves, which may be later than it was made. */
void check_left(struct world *w, struct sim_node *n, const struct departure *d, int to)
{
    if (d->type == CLUSTER_AUTH_REQUEST && n->asked < d->current_epoch) n->asked = d->current_epoch;
    w->digest = w->digest * UINT64_C(1099511628211) + d->current_epoch * 31 + (uint64_t)d->type + (uint64_t)w->now;
    check_epochs(w, n, d);
    if (d->type == CLUSTER_AUTH_ACK) check_vote(w, n, d, to);
}

/* ---- notes ---- */

static bool is_manual(const struct cluster_action *a)
{
    return a->reason && strcmp(a->reason, "manual") == 0;
}

/* ---- 5: the right to write ---- */

enum { TAKEOVER_SETTLES_MS = 30000 };

static bool votes(const struct cluster_node_view *v)
{
    return v->flags & CLUSTER_NODE_PRIMARY && v->slot_count;
}

/* Whether all voters that `a` knows, but for a and b themselves, are voters for b. */
static bool voters_within(const struct sim_node *a, const struct sim_node *b)
{
    struct cluster_id ida = node_id(a), idb = node_id(b);
    for (size_t i = 0; i < cluster_node_count(a->core); i++) {
        struct cluster_node_view v, same = {0};
        cluster_node_view(a->core, cluster_node_at(a->core, i), &v);
        if (!votes(&v) || cluster_id_eq(&v.id, &ida) || cluster_id_eq(&v.id, &idb)) continue;
        const struct cluster_node *other = cluster_node_find(b->core, &v.id);
        if (other) cluster_node_view(b->core, other, &same);
        if (!votes(&same)) return false;
    }
    return true;
}

static void check_leases(struct world *w, const struct sim_node *n)
{
    struct cluster_node_view mine, theirs;
    unsigned slot;
    if (w->takeover_ms && w->now - w->takeover_ms < TAKEOVER_SETTLES_MS) return;
    cluster_node_view(n->core, cluster_myself(n->core), &mine);
    for (int i = 0; i < w->next_node; i++) {
        const struct sim_node *o = &w->nodes[i];
        if (o == n || !o->core || !cluster_is_primary(o->core)) continue;
        cluster_node_view(o->core, cluster_myself(o->core), &theirs);
        int64_t left = cluster_lease_until(o->core) - node_time(w, o).mono_ms;
        if (left > 0 && voters_within(o, n) && voters_within(n, o) && overlap(theirs.slots, mine.slots, &slot))
            check_fail(w, "n%d is elected for slot %u, and n%d has the right to write there for %lld ms more", n->index,
                       slot, o->index, (long long)left);
    }
}

/* ---- 6: no acknowledged write is missing ---- */

static bool has_all_of(const struct sim_node *n, const struct sim_node *old)
{
    if (old->released == 0) return true;
    const struct cluster_history *d = &n->data;
    if (cluster_id_eq(&d->replid, &old->released_in)) return d->offset >= old->released;
    return cluster_id_eq(&d->replid2, &old->released_in) && d->offset2 >= old->released;
}

static void check_heir(struct world *w, const struct sim_node *n, const struct cluster_id *of)
{
    for (int i = 0; i < w->next_node; i++) {
        const struct sim_node *o = &w->nodes[i];
        struct cluster_id id = {{0}};
        if (o == n) continue;
        if (o->core) id = node_id(o);
        if (!cluster_id_eq(o->core ? &id : &o->id, of)) continue;
        w->totals->taken_over++;
        if (!has_all_of(n, o))
            check_fail(w, "n%d takes the place of n%d with %llu of %.6s, and %llu of %.6s were acknowledged", n->index,
                       o->index, (unsigned long long)n->data.offset, n->data.replid.c, (unsigned long long)o->released,
                       o->released_in.c);
    }
}

/* A primary about to acknowledge more. */
void check_release(struct world *w, const struct sim_node *n)
{
    if (!w->noloss || n->released == 0 || !cluster_id_eq(&n->released_in, &n->data.replid)) return;
    if (n->data.offset < n->released)
        check_fail(w, "n%d serves with %llu, and has acknowledged %llu", n->index, (unsigned long long)n->data.offset,
                   (unsigned long long)n->released);
}

void check_note(struct world *w, struct sim_node *n, const struct cluster_action *a)
{
    w->totals->notes[a->note]++;
    if (w->noloss && a->note == CLUSTER_NOTE_PROMOTED && !(a->reason && strcmp(a->reason, "takeover") == 0))
        check_heir(w, n, &a->node);
    if (a->note == CLUSTER_NOTE_PROMOTED && !a->reason) check_leases(w, n);
    if (a->note == CLUSTER_NOTE_PROMOTED) {
        if (is_manual(a)) w->totals->manual_failovers++;
        if (a->reason && strcmp(a->reason, "takeover") == 0) {
            w->totals->takeovers++;
            w->takeover_ms = w->now;
        }
    }
    if (!w->trace) return;
    struct buf text = {0};
    if (cluster_note_text(a, &text)) trace(w, "n%d (%.8s): %.*s", n->index, node_id(n).c, (int)text.n, text.p);
    buf_deinit(&text);
}

/* ---- the end ---- */

static bool same_owner(const struct cluster_node *a, const struct cluster_node *b, const struct cluster_core *ca,
                       const struct cluster_core *cb)
{
    if (!a || !b) return a == b;
    struct cluster_node_view va, vb;
    cluster_node_view(ca, a, &va);
    cluster_node_view(cb, b, &vb);
    return cluster_id_eq(&va.id, &vb.id);
}

static bool pair_agrees(struct world *w, const struct sim_node *a, const struct sim_node *b, bool complain)
{
    for (unsigned s = 0; s < SLOT_COUNT; s++) {
        const struct cluster_node *oa = cluster_slot_owner(a->core, s), *ob = cluster_slot_owner(b->core, s);
        if (same_owner(oa, ob, a->core, b->core)) continue;
        struct cluster_node_view va = {0}, vb = {0};
        if (oa) cluster_node_view(a->core, oa, &va);
        if (ob) cluster_node_view(b->core, ob, &vb);
        if (complain)
            check_fail(w, "slot %u belongs to %.8s for n%d, to %.8s for n%d", s, oa ? va.id.c : "nobody", a->index,
                       ob ? vb.id.c : "nobody", b->index);
        return false;
    }
    return true;
}

bool check_agreement(struct world *w, bool complain)
{
    const struct sim_node *first = NULL;
    for (int i = 0; i < w->next_node; i++) {
        const struct sim_node *n = &w->nodes[i];
        if (!n->core || !n->member) continue;
        cluster_check(n->core);
        if (!first)
            first = n;
        else if (!pair_agrees(w, first, n, complain))
            return false;
    }
    return true;
}
