/* slots.c: who owns which slot, and how claims change that. */
#include "base/mem.h"
#include "cluster/core/internal.h"

#include <assert.h>

/* Eight bytes of the bitmap as one word: on little-endian machines (the codec asserts that) its bits are in slot order.
 */
static unsigned next_bit(const uint8_t *bitmap, unsigned from, uint64_t flip)
{
    for (unsigned i = from >> 6; i < SLOT_COUNT / 64; i++) {
        uint64_t word;
        memcpy(&word, bitmap + i * 8, sizeof word);
        word ^= flip;
        if (i == from >> 6) word &= UINT64_MAX << (from & 63);
        if (word) return i * 64 + (unsigned)__builtin_ctzll(word);
    }
    return SLOT_COUNT;
}

unsigned cluster_bit_next(const uint8_t *bitmap, unsigned from)
{
    return next_bit(bitmap, from, 0);
}

unsigned cluster_bit_next_clear(const uint8_t *bitmap, unsigned from)
{
    return next_bit(bitmap, from, UINT64_MAX);
}

unsigned cluster_bit_count(const uint8_t *bitmap)
{
    unsigned n = 0;
    for (size_t i = 0; i < CLUSTER_SLOT_BYTES; i += 8) {
        uint64_t word;
        memcpy(&word, bitmap + i, sizeof word);
        n += (unsigned)__builtin_popcountll(word);
    }
    return n;
}

uint64_t slot_keys(const struct cluster_core *core, unsigned slot)
{
    const struct cluster_dataset_view *d = &core->config.dataset;
    return d->count_keys ? d->count_keys(d->ctx, slot) : 0;
}

size_t size_now(struct cluster_core *core)
{
    if (core->size_stale) {
        core->size = 0;
        for (size_t i = 0; i < core->node_count; i++)
            core->size += node_is_primary(core->nodes[i]) && core->nodes[i]->slot_count;
        core->size_stale = false;
    }
    return core->size;
}

size_t cluster_size(const struct cluster_core *core)
{
    size_t n = 0;
    for (size_t i = 0; i < core->node_count; i++) n += node_is_primary(core->nodes[i]) && core->nodes[i]->slot_count;
    return n;
}

/* ---- owners ---- */

/* A primary that begins to serve in a cluster whose other primaries have replicas deserves some, too. */
static bool others_have_replicas(const struct cluster_core *core, const struct cluster_node *but)
{
    for (size_t i = 0; i < core->node_count; i++) {
        const struct cluster_node *n = core->nodes[i];
        if (n != but && node_is_primary(n) && n->replica_count) return true;
    }
    return false;
}

static void set_not_claiming(struct cluster_core *core, unsigned slot, bool on)
{
    if (cluster_bit_get(core->owner_not_claiming, slot) == on) return;
    core->owner_not_claiming[slot >> 3] ^= (uint8_t)(1u << (slot & 7));
    core->not_claiming_count += on ? 1 : -1u;
}

static void slot_release(struct cluster_core *core, unsigned slot)
{
    struct cluster_node *owner = core->owner[slot];
    core->owner[slot] = NULL;
    set_not_claiming(core, slot, false);
    if (!owner) return;
    cluster_bit_clear(owner->slots, slot);
    if (--owner->slot_count == 0) core->size_stale = true;
    core->slots_assigned--;
}

void slot_assign(struct cluster_core *core, unsigned slot, struct cluster_node *owner)
{
    assert(slot < SLOT_COUNT);
    if (core->owner[slot] == owner) {
        set_not_claiming(core, slot, false);
        return;
    }
    slot_release(core, slot);
    map_slot(core, slot);
    core->due |= DUE_STATE | DUE_SAVE;
    if (!owner) return;
    core->owner[slot] = owner;
    cluster_bit_set(owner->slots, slot);
    core->slots_assigned++;
    if (owner->slot_count++ == 0) {
        core->size_stale = true;
        if (others_have_replicas(core, owner)) node_set_flags(core, owner, CLUSTER_NODE_MIGRATE_TO, 0);
    }
}

void slots_unassign_all(struct cluster_core *core, struct cluster_node *node)
{
    for (unsigned s = cluster_bit_next(node->slots, 0); s < SLOT_COUNT; s = cluster_bit_next(node->slots, s + 1))
        slot_assign(core, s, NULL);
}

bool slot_unclaimed(const struct cluster_core *core, unsigned slot)
{
    return !core->owner[slot] || cluster_bit_get(core->owner_not_claiming, slot);
}

/* ---- marks of a slot that moves ---- */

static void mark(struct cluster_core *core, struct cluster_node ***table, unsigned slot, struct cluster_node *node)
{
    if (!*table) {
        if (!node) return;
        *table = mem_calloc(SLOT_COUNT, sizeof **table);
    }
    if ((*table)[slot] == node) return;
    (*table)[slot] = node;
    map_slot(core, slot);
    core->due |= DUE_SAVE;
}

void slot_set_migrating(struct cluster_core *core, unsigned slot, struct cluster_node *to)
{
    mark(core, &core->migrating, slot, to);
}

void slot_set_importing(struct cluster_core *core, unsigned slot, struct cluster_node *from)
{
    mark(core, &core->importing, slot, from);
}

void slots_drop_marks(struct cluster_core *core, const struct cluster_node *of)
{
    struct cluster_node ***tables[] = {&core->migrating, &core->importing};
    for (size_t t = 0; t < 2; t++) {
        if (!*tables[t]) continue;
        for (unsigned s = 0; s < SLOT_COUNT; s++)
            if ((*tables[t])[s] && (!of || (*tables[t])[s] == of)) mark(core, tables[t], s, NULL);
    }
}

const struct cluster_node *cluster_slot_owner(const struct cluster_core *core, unsigned slot)
{
    return core->owner[slot];
}

bool cluster_slot_is_claimed(const struct cluster_core *core, unsigned slot)
{
    return !slot_unclaimed(core, slot);
}

const struct cluster_node *cluster_slot_migrating_to(const struct cluster_core *core, unsigned slot)
{
    return core->migrating ? core->migrating[slot] : NULL;
}

const struct cluster_node *cluster_slot_importing_from(const struct cluster_core *core, unsigned slot)
{
    return core->importing ? core->importing[slot] : NULL;
}

/* ---- claims ---- */

struct claim_result {
    unsigned claimed; /* slots in the claim */
    unsigned lost;    /* of my shard's primary */
    bool dirty;       /* some of mine that moved hold keys: out->delete_slots */
};

static bool claim_wins(const struct cluster_core *core, unsigned slot, uint64_t epoch)
{
    if (slot_unclaimed(core, slot)) return true;
    uint64_t held = core->owner[slot]->config_epoch;
    return held < epoch || core->config.plant == CLUSTER_PLANT_OLD_EPOCH;
}

static void take_slot(struct cluster_core *core, unsigned slot, struct cluster_node *sender,
                      const struct cluster_node *shard, struct claim_result *r)
{
    struct cluster_node *owner = core->owner[slot];
    if (owner == shard) r->lost++;
    if (owner == core->myself && slot_keys(core, slot)) {
        cluster_bit_set(core->out->delete_slots, slot);
        r->dirty = true;
    }
    slot_assign(core, slot, sender);
}

/* The import of a slot that a claim has moved goes on from the new owner, if the giver is what was replaced: left with
 * the old one, and the claim refused, this node would take the slot for nobody's until the operator comes back. */
static void import_follows(struct cluster_core *core, unsigned slot, const struct cluster_node *was,
                           struct cluster_node *is)
{
    struct cluster_node *giver = core->importing ? core->importing[slot] : NULL;
    if (giver && (giver == was || node_is_replica(giver))) slot_set_importing(core, slot, is);
}

static void take_slots(struct cluster_core *core, struct cluster_node *sender, uint64_t epoch, const uint8_t *claim,
                       const struct cluster_node *shard, struct claim_result *r)
{
    for (unsigned s = cluster_bit_next(claim, 0); s < SLOT_COUNT; s = cluster_bit_next(claim, s + 1)) {
        r->claimed++;
        if (core->owner[s] == sender) {
            set_not_claiming(core, s, false);
            continue;
        }
        if (!claim_wins(core, s, epoch)) continue;
        struct cluster_node *was = core->owner[s];
        take_slot(core, s, sender, shard, r);
        import_follows(core, s, was, sender);
    }
    /* What it owns in my view but does not claim stays bound to it, yet free for whoever claims it. */
    for (unsigned s = cluster_bit_next(sender->slots, 0); s < SLOT_COUNT; s = cluster_bit_next(sender->slots, s + 1))
        if (!cluster_bit_get(claim, s)) set_not_claiming(core, s, true);
}

void slots_take_claim(struct cluster_core *core, struct cluster_node *sender, uint64_t epoch, const uint8_t *claim)
{
    if (sender == core->myself) return;
    struct claim_result r = {0};
    struct cluster_node *me = core->myself, *shard = my_shard_primary(core);
    take_slots(core, sender, epoch, claim, shard, &r);

    bool follow = core->config.allow_replica_migration || r.claimed == r.lost;
    if (r.lost && shard->slot_count == 0 && follow) {
        note(core, CLUSTER_NOTE_DEMOTED, sender, epoch, NULL);
        become_replica_of(core, sender);
    } else if (me->primary && node_is_replica(me->primary) && me->primary->primary && me->primary->primary != me) {
        note(core, CLUSTER_NOTE_REPLICA_OF, me->primary->primary, 0, "my primary became a replica");
        become_replica_of(core, me->primary->primary);
    } else if (r.dirty) {
        act(core, CLUSTER_DO_DELETE_KEYS);
    }
}

/* It claims again exactly what I hold for it. */
void slots_claim_unchanged(struct cluster_core *core, struct cluster_node *sender)
{
    if (!core->not_claiming_count) return;
    for (unsigned s = cluster_bit_next(sender->slots, 0); s < SLOT_COUNT; s = cluster_bit_next(sender->slots, s + 1))
        set_not_claiming(core, s, false);
}

/* Somebody claims what I know to be another's by a higher epoch: it missed that, so tell it, about one owner at a time.
 */
void slots_notify_stale(struct cluster_core *core, struct cluster_node *sender, const struct cluster_message *m)
{
    for (unsigned s = cluster_bit_next(m->slots, 0); s < SLOT_COUNT; s = cluster_bit_next(m->slots, s + 1)) {
        const struct cluster_node *owner = core->owner[s];
        if (owner == sender || slot_unclaimed(core, s)) continue;
        if (owner->config_epoch <= m->config_epoch) continue;
        send_update(core, sender, owner);
        return;
    }
}

/* ---- start ---- */

void slots_startup_check(struct cluster_core *core)
{
    struct cluster_node *me = core->myself;
    if (!node_is_primary(me)) return;
    for (unsigned s = 0; s < SLOT_COUNT; s++) {
        if (core->owner[s] == me || (core->importing && core->importing[s]) || !slot_keys(core, s)) continue;
        if (!core->owner[s])
            slot_assign(core, s, me);
        else
            slot_set_importing(core, s, core->owner[s]);
    }
}
