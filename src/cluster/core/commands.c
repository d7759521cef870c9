/* commands.c: what operators order.  Error texts are those of Redis 7.0; existing tools match on them. */
#include "base/mem.h"
#include "base/number.h"
#include "cluster/core/internal.h"

#include <arpa/inet.h>
#include <stdio.h>

static int shown(struct bytes b)
{
    return (int)(b.n < 200 ? b.n : 200);
}

static struct cluster_node *find_node(const struct cluster_core *core, struct bytes text)
{
    struct cluster_id id;
    return cluster_id_parse(text, &id) ? node_find(core, &id) : NULL;
}

static bool unknown_node(struct cluster_error *err, struct bytes id)
{
    return fail_with(err, "Unknown node %.*s", shown(id), id.p);
}

/* ---- MEET, FORGET ---- */

static bool parse_address(struct bytes text, char *ip)
{
    char raw[CLUSTER_IP_SIZE + 1];
    unsigned char packed[sizeof(struct in6_addr)];
    if (text.n == 0 || text.n > CLUSTER_IP_SIZE) return false;
    memcpy(raw, text.p, text.n);
    raw[text.n] = 0;
    int family = inet_pton(AF_INET, raw, packed) == 1 ? AF_INET : inet_pton(AF_INET6, raw, packed) == 1 ? AF_INET6 : 0;
    return family && inet_ntop(family, packed, ip, CLUSTER_IP_SIZE); /* one spelling for one address */
}

static bool handshake_runs(const struct cluster_core *core, const char *ip, int64_t cport)
{
    for (size_t i = 0; i < core->node_count; i++) {
        const struct cluster_node *n = core->nodes[i];
        if (n->flags & CLUSTER_NODE_HANDSHAKE && n->cport == cport && strcmp(n->ip, ip) == 0) return true;
    }
    return false;
}

bool cluster_meet(struct cluster_core *core, struct bytes ip, struct bytes port, const struct bytes *bus_port,
                  struct cluster_time now, struct cluster_error *err, struct cluster_actions *out)
{
    int64_t p, c;
    char address[CLUSTER_IP_SIZE + 1] = "";
    step_begin(core, now, out);
    if (!parse_i64(port, &p)) return fail_with(err, "Invalid TCP base port specified: %.*s", shown(port), port.p);
    if (bus_port && !parse_i64(*bus_port, &c))
        return fail_with(err, "Invalid TCP bus port specified: %.*s", shown(*bus_port), bus_port->p);
    if (!bus_port) c = p < INT64_MAX - 10000 ? p + 10000 : p;
    if (p < 1 || p > 65535 || c < 1 || c > 65535 || !parse_address(ip, address))
        return fail_with(err, "Invalid node address specified: %.*s:%.*s", shown(ip), ip.p, shown(port), port.p);
    if (!handshake_runs(core, address, c)) {
        struct cluster_node *node = node_create(core, NULL, CLUSTER_NODE_HANDSHAKE | CLUSTER_NODE_MEET);
        memcpy(node->ip, address, sizeof address);
        node->port = (uint16_t)p;
        node->cport = (uint16_t)c;
        note(core, CLUSTER_NOTE_MEET, node, 0, "told to");
    }
    step_end(core);
    return true;
}

bool cluster_forget(struct cluster_core *core, struct bytes id, struct cluster_time now, struct cluster_error *err,
                    struct cluster_actions *out)
{
    step_begin(core, now, out);
    struct cluster_node *node = find_node(core, id);
    if (!node) return unknown_node(err, id);
    if (node == core->myself) return fail_with(err, "I tried hard but I can't forget myself...");
    if (node == core->myself->primary) return fail_with(err, "Can't forget my master!");
    blacklist_add(core, &node->id);
    note(core, CLUSTER_NOTE_FORGOTTEN, node, 0, "told to");
    node_delete(core, node);
    core->due |= DUE_SAVE;
    step_end(core);
    return true;
}

/* ---- slots ---- */

static bool parse_slot(struct bytes text, unsigned *slot)
{
    int64_t v;
    if (!parse_i64(text, &v) || v < 0 || v >= SLOT_COUNT) return false;
    *slot = (unsigned)v;
    return true;
}

/* Adds first..last to the wanted set; the first slot that does not fit is reported. */
static bool want_slots(const struct cluster_core *core, uint8_t *wanted, unsigned first, unsigned last, bool add,
                       struct cluster_error *err)
{
    for (unsigned s = first; s <= last; s++) {
        if (add && core->owner[s]) return fail_with(err, "Slot %u is already busy", s);
        if (!add && !core->owner[s]) return fail_with(err, "Slot %u is already unassigned", s);
        if (cluster_bit_get(wanted, s)) return fail_with(err, "Slot %u specified multiple times", s);
        cluster_bit_set(wanted, s);
    }
    return true;
}

static void assign_wanted(struct cluster_core *core, const uint8_t *wanted, bool add)
{
    for (unsigned s = cluster_bit_next(wanted, 0); s < SLOT_COUNT; s = cluster_bit_next(wanted, s + 1)) {
        slot_set_importing(core, s, NULL);
        slot_assign(core, s, add ? core->myself : NULL);
    }
}

static bool change_slots(struct cluster_core *core, const struct bytes *slots, size_t count, bool add,
                         struct cluster_error *err)
{
    uint8_t wanted[CLUSTER_SLOT_BYTES] = {0};
    unsigned s;
    /* Numbers first, then their state: the order in which Redis finds fault. */
    for (size_t i = 0; i < count; i++)
        if (!parse_slot(slots[i], &s)) return fail_with(err, "Invalid or out of range slot");
    for (size_t i = 0; i < count; i++)
        if (!parse_slot(slots[i], &s) || !want_slots(core, wanted, s, s, add, err)) return false;
    assign_wanted(core, wanted, add);
    return true;
}

static bool change_ranges(struct cluster_core *core, const struct bytes *bounds, size_t count, bool add,
                          struct cluster_error *err)
{
    uint8_t wanted[CLUSTER_SLOT_BYTES] = {0};
    unsigned a, b;
    for (size_t i = 0; i + 1 < count; i += 2) {
        if (!parse_slot(bounds[i], &a) || !parse_slot(bounds[i + 1], &b))
            return fail_with(err, "Invalid or out of range slot");
        if (a > b) return fail_with(err, "start slot number %u is greater than end slot number %u", a, b);
        if (!want_slots(core, wanted, a, b, add, err)) return false;
    }
    assign_wanted(core, wanted, add);
    return true;
}

bool cluster_add_slots(struct cluster_core *core, const struct bytes *slots, size_t count, struct cluster_time now,
                       struct cluster_error *err, struct cluster_actions *out)
{
    step_begin(core, now, out);
    bool ok = change_slots(core, slots, count, true, err);
    step_end(core);
    return ok;
}

bool cluster_del_slots(struct cluster_core *core, const struct bytes *slots, size_t count, struct cluster_time now,
                       struct cluster_error *err, struct cluster_actions *out)
{
    step_begin(core, now, out);
    bool ok = change_slots(core, slots, count, false, err);
    step_end(core);
    return ok;
}

bool cluster_add_slot_ranges(struct cluster_core *core, const struct bytes *bounds, size_t count,
                             struct cluster_time now, struct cluster_error *err, struct cluster_actions *out)
{
    step_begin(core, now, out);
    bool ok = change_ranges(core, bounds, count, true, err);
    step_end(core);
    return ok;
}

bool cluster_del_slot_ranges(struct cluster_core *core, const struct bytes *bounds, size_t count,
                             struct cluster_time now, struct cluster_error *err, struct cluster_actions *out)
{
    step_begin(core, now, out);
    bool ok = change_ranges(core, bounds, count, false, err);
    step_end(core);
    return ok;
}

static bool holds_keys(const struct cluster_core *core)
{
    for (unsigned s = 0; s < SLOT_COUNT; s++)
        if (slot_keys(core, s)) return true;
    return false;
}

bool cluster_flush_slots(struct cluster_core *core, struct cluster_time now, struct cluster_error *err,
                         struct cluster_actions *out)
{
    step_begin(core, now, out);
    if (holds_keys(core)) return fail_with(err, "DB must be empty to perform CLUSTER FLUSHSLOTS.");
    slots_unassign_all(core, core->myself);
    core->due |= DUE_STATE | DUE_SAVE;
    step_end(core);
    return true;
}

/* ---- SETSLOT ---- */

static bool setslot_mark(struct cluster_core *core, unsigned slot, bool importing, struct bytes id,
                         struct cluster_error *err)
{
    bool mine = core->owner[slot] == core->myself;
    if (!importing && !mine) return fail_with(err, "I'm not the owner of hash slot %u", slot);
    if (importing && mine) return fail_with(err, "I'm already the owner of hash slot %u", slot);
    struct cluster_node *node = find_node(core, id);
    if (!node) return fail_with(err, "I don't know about node %.*s", shown(id), id.p);
    if (node_is_replica(node)) return fail_with(err, "Target node is not a master");
    if (importing)
        slot_set_importing(core, slot, node);
    else
        slot_set_migrating(core, slot, node);
    return true;
}

/* The slot is mine at the end of an import: a new epoch makes that known and stick. */
static void import_finished(struct cluster_core *core, unsigned slot)
{
    epoch_bump(core);
    slot_set_importing(core, slot, NULL);
    broadcast_pong(core, PONG_TO_ALL);
}

static bool setslot_node(struct cluster_core *core, unsigned slot, struct bytes id, struct cluster_error *err)
{
    struct cluster_node *me = core->myself, *node = find_node(core, id);
    if (!node) return unknown_node(err, id);
    if (node_is_replica(node)) return fail_with(err, "Target node is not a master");
    bool was_mine = core->owner[slot] == me;
    uint64_t keys = slot_keys(core, slot);
    if (was_mine && node != me && keys)
        return fail_with(
            err, "Can't assign hashslot %u to a different node while I still hold keys for this hash slot.", slot);
    if (!keys) slot_set_migrating(core, slot, NULL);
    slot_assign(core, slot, node);
    if (was_mine && node != me && me->slot_count == 0 && core->config.allow_replica_migration) {
        note(core, CLUSTER_NOTE_DEMOTED, node, 0, "told to");
        become_replica_of(core, node);
    }
    if (node == me && core->importing && core->importing[slot]) import_finished(core, slot);
    return true;
}

static bool setslot(struct cluster_core *core, struct bytes slot_text, struct bytes action, const struct bytes *id,
                    struct cluster_error *err)
{
    unsigned slot;
    if (node_is_replica(core->myself)) return fail_with(err, "Please use SETSLOT only with masters.");
    if (!parse_slot(slot_text, &slot)) return fail_with(err, "Invalid or out of range slot");
    if (id && bytes_ieq(action, BYTES("migrating"))) return setslot_mark(core, slot, false, *id, err);
    if (id && bytes_ieq(action, BYTES("importing"))) return setslot_mark(core, slot, true, *id, err);
    if (id && bytes_ieq(action, BYTES("node"))) return setslot_node(core, slot, *id, err);
    if (id || !bytes_ieq(action, BYTES("stable")))
        return fail_with(err, "Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP");
    slot_set_importing(core, slot, NULL);
    slot_set_migrating(core, slot, NULL);
    return true;
}

bool cluster_set_slot(struct cluster_core *core, struct bytes slot, struct bytes action, const struct bytes *id,
                      struct cluster_time now, struct cluster_error *err, struct cluster_actions *out)
{
    step_begin(core, now, out);
    bool ok = setslot(core, slot, action, id, err);
    if (ok) core->due |= DUE_SAVE | DUE_STATE;
    step_end(core);
    return ok;
}

/* ---- roles and epochs ---- */

bool cluster_replicate(struct cluster_core *core, struct bytes id, struct cluster_time now, struct cluster_error *err,
                       struct cluster_actions *out)
{
    struct cluster_node *me = core->myself;
    step_begin(core, now, out);
    struct cluster_node *node = find_node(core, id);
    if (!node) return unknown_node(err, id);
    if (node == me) return fail_with(err, "Can't replicate myself");
    if (node_is_replica(node)) return fail_with(err, "I can only replicate a master, not a replica.");
    if (node_is_primary(me) && (me->slot_count || holds_keys(core)))
        return fail_with(err, "To set a master the node must be empty and without assigned slots.");
    slots_unassign_all(core, me); /* ADDSLOTS gives them to replicas, too */
    note(core, CLUSTER_NOTE_REPLICA_OF, node, 0, "told to");
    become_replica_of(core, node);
    step_end(core);
    return true;
}

bool cluster_bump_epoch(struct cluster_core *core, bool *bumped, uint64_t *epoch, struct cluster_time now,
                        struct cluster_error *err, struct cluster_actions *out)
{
    step_begin(core, now, out);
    *bumped = epoch_bump(core);
    *epoch = core->myself->config_epoch;
    step_end(core);
    return true;
}

bool cluster_set_config_epoch(struct cluster_core *core, struct bytes epoch, struct cluster_time now,
                              struct cluster_error *err, struct cluster_actions *out)
{
    int64_t v;
    step_begin(core, now, out);
    if (!parse_i64(epoch, &v)) return fail_with(err, "value is not an integer or out of range");
    if (v < 0 || (uint64_t)v > EPOCH_MAX) return fail_with(err, "Invalid config epoch specified: %lld", (long long)v);
    if (core->node_count > 1)
        return fail_with(err, "The user can assign a config epoch only when the node does not know any other node.");
    if (core->myself->config_epoch) return fail_with(err, "Node config epoch is already non-zero");
    core->myself->config_epoch = (uint64_t)v;
    epoch_raise(core, (uint64_t)v);
    core->due |= DUE_VITAL | DUE_STATE;
    step_end(core);
    return true;
}

static void forget_everybody(struct cluster_core *core)
{
    for (size_t i = core->node_count; i-- > 0;)
        if (core->nodes[i] != core->myself) node_delete(core, core->nodes[i]);
}

bool cluster_reset(struct cluster_core *core, bool hard, struct cluster_time now, struct cluster_error *err,
                   struct cluster_actions *out)
{
    struct cluster_node *me = core->myself;
    step_begin(core, now, out);
    if (node_is_primary(me) && holds_keys(core))
        return fail_with(err, "CLUSTER RESET can't be called with master nodes containing keys");
    probation_end(core);
    manual_reset(core);
    if (node_is_replica(me)) {
        node_make_primary(core, me);
        core->wired.valid = false;
        act(core, CLUSTER_DO_PROMOTE);
        act(core, CLUSTER_DO_FLUSH);
        shard_new(core);
    }
    slots_drop_marks(core, NULL);
    for (unsigned s = 0; s < SLOT_COUNT; s++) slot_assign(core, s, NULL);
    forget_everybody(core);
    core->election.at_ms = LONG_AGO;
    core->election.sent = core->election.sealed = false;
    if (hard) {
        core->current_epoch = core->last_vote_epoch = me->config_epoch = 0;
        struct cluster_id id = node_random_id(core);
        node_rename(core, me, &id);
        shard_new(core);
    }
    core->due |= DUE_VITAL | DUE_STATE | DUE_MAP;
    step_end(core);
    return true;
}

void cluster_save(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out)
{
    step_begin(core, now, out);
    core->due |= DUE_VITAL;
    step_end(core);
}
