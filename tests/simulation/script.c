/* script.c: an operator forms the cluster, then things go wrong, then everything is put right. */
#include "base/mem.h"
#include "sim.h"

enum script {
    FORM_MEET,      /* all meet the first */
    FORM_SLOTS,     /* primaries get their slots */
    FORM_REPLICATE, /* arg: node; repeated until it works */
    FAULT,          /* arg: how many are still to come */
    KILL,           /* arg: node */
    RESTART,        /* arg: node */
    REJOIN,         /* arg: a node that lost its id: meets the cluster */
    UNPARTITION,
    CALM, /* the network is in a better mood again */
    MOVE_TARGET,
    MOVE_SOURCE,
    MOVE_OTHERS,
    HEAL,
    REPAIR, /* arg: attempt.  The operator's --cluster fix */
    CHECK_END,
};

static void later(struct world *w, int64_t ms, enum script what, int arg)
{
    world_post(w, ms, (struct sim_event){.kind = SIM_SCRIPT, .what = (int)what, .arg = arg});
}

static void later_move(struct world *w, int64_t ms, enum script what, const struct sim_event *move)
{
    struct sim_event ev = *move;
    ev.what = (int)what;
    world_post(w, ms, ev);
}

/* ---- orders ---- */

static bool can_order(const struct world *w, const struct sim_node *n)
{
    return node_running(w, n) && !n->host_down;
}

static void done(struct world *w, struct sim_node *n, bool ok)
{
    if (ok) node_carry_out(w, n);
}

static bool order_meet(struct world *w, struct sim_node *n, const struct sim_node *other)
{
    struct cluster_error err;
    bool ok = cluster_meet(n->core, bytes_of(other->ip), BYTES("7000"), NULL, node_time(w, n), &err, &w->out);
    done(w, n, ok);
    return ok;
}

static bool order_replicate(struct world *w, struct sim_node *n, const struct sim_node *primary)
{
    struct cluster_error err;
    struct cluster_id id = node_id(primary);
    bool ok = cluster_replicate(n->core, bytes_make(id.c, CLUSTER_ID_SIZE), node_time(w, n), &err, &w->out);
    done(w, n, ok);
    return ok;
}

static bool order_setslot(struct world *w, struct sim_node *n, unsigned slot, const char *action,
                          const struct cluster_id *id)
{
    struct cluster_error err;
    char text[12];
    snprintf(text, sizeof text, "%u", slot);
    struct bytes who = bytes_make(id->c, CLUSTER_ID_SIZE);
    bool ok = cluster_set_slot(n->core, bytes_of(text), bytes_of(action), &who, node_time(w, n), &err, &w->out);
    done(w, n, ok);
    return ok;
}

static void order_add_range(struct world *w, struct sim_node *n, unsigned first, unsigned last)
{
    struct cluster_error err;
    char a[12], b[12];
    snprintf(a, sizeof a, "%u", first);
    snprintf(b, sizeof b, "%u", last);
    struct bytes bounds[] = {bytes_of(a), bytes_of(b)};
    done(w, n, cluster_add_slot_ranges(n->core, bounds, 2, node_time(w, n), &err, &w->out));
}

static void order_failover(struct world *w, struct sim_node *n, const char *mode)
{
    struct cluster_error err;
    struct bytes word = bytes_of(mode ? mode : "");
    done(w, n, cluster_failover(n->core, mode ? &word : NULL, node_time(w, n), &err, &w->out));
}

static bool order_forget(struct world *w, struct sim_node *n, const struct cluster_id *id)
{
    struct cluster_error err;
    bool ok = cluster_forget(n->core, bytes_make(id->c, CLUSTER_ID_SIZE), node_time(w, n), &err, &w->out);
    done(w, n, ok);
    return ok;
}

static void order_bump(struct world *w, struct sim_node *n)
{
    struct cluster_error err;
    bool bumped;
    uint64_t epoch;
    done(w, n, cluster_bump_epoch(n->core, &bumped, &epoch, node_time(w, n), &err, &w->out));
}

/* ---- choosing ---- */

enum want { ANY, PRIMARY, REPLICA };

static struct sim_node *choose(struct world *w, enum want want)
{
    for (int tries = 0; tries < 50; tries++) {
        struct sim_node *n = &w->nodes[random_below(&w->random, (uint64_t)w->next_node)];
        if (!n->member || !can_order(w, n)) continue;
        if (want == ANY) return n;
        struct cluster_node_view me;
        cluster_node_view(n->core, cluster_myself(n->core), &me);
        if (want == PRIMARY && cluster_is_primary(n->core) && me.slot_count) return n;
        if (want == REPLICA && !cluster_is_primary(n->core)) return n;
    }
    return NULL;
}

/* ---- forming ---- */

static int primaries(const struct world *w)
{
    return w->node_count < 9 ? 3 : w->node_count / 3 + (int)(w->seed % 2);
}

void script_begin(struct world *w)
{
    for (int i = 0; i < w->node_count; i++) {
        node_init(w, i);
        node_start(w, &w->nodes[i]);
    }
    w->next_node = w->node_count;
    later(w, 200, FORM_MEET, 0);
    later(w, 2500, FORM_SLOTS, 0);
    int faults = (int)pick(w, 8, 13); /* not in the call below: the order of arguments is the compiler's */
    later(w, pick(w, 12000, 16000), FAULT, faults);
    later(w, w->heal_at - w->now, HEAL, 0);
    later(w, w->end - w->now, CHECK_END, 0);
}

static void form_meet(struct world *w)
{
    for (int i = 1; i < w->node_count; i++) order_meet(w, &w->nodes[i], &w->nodes[w->seed % 2 ? i - 1 : 0]);
}

static void form_slots(struct world *w)
{
    unsigned count = (unsigned)primaries(w);
    for (unsigned p = 0; p < count; p++)
        order_add_range(w, &w->nodes[p], SLOT_COUNT * p / count, SLOT_COUNT * (p + 1) / count - 1);
    for (int i = (int)count; i < w->node_count; i++) later(w, 1500, FORM_REPLICATE, i);
}

/* Some primaries get more replicas than others, so that some are there to migrate. */
static void form_replicate(struct world *w, int i)
{
    struct sim_node *n = &w->nodes[i];
    int count = primaries(w), k = i - count;
    int target = k < count ? k : (int)random_below(&w->random, (uint64_t)(count < 3 ? 1 : count / 2));
    struct sim_node *p = &w->nodes[target];
    if (w->now > 12000 || !can_order(w, n) || !can_order(w, p)) return;
    if (!order_replicate(w, n, p)) later(w, 500, FORM_REPLICATE, i);
}

/* ---- faults ---- */

static void fault_partition(struct world *w)
{
    bool lonely = chance(w, 30);
    int victim = (int)random_below(&w->random, (uint64_t)w->next_node);
    for (int i = 0; i < NODES_MAX; i++) w->group[i] = lonely ? i == victim : (int)random_below(&w->random, 2);
    w->totals->partitions++;
    trace(w, "partition%s", lonely ? " of one" : "");
    later(w, pick(w, 1000, 6 * w->node_timeout_ms), UNPARTITION, 0);
}

static void fault_deaf(struct world *w)
{
    int a = (int)random_below(&w->random, (uint64_t)w->next_node);
    for (int b = 0; b < NODES_MAX; b++) w->deaf[a][b] = chance(w, 50);
    w->totals->partitions++;
    trace(w, "half of what n%d sends is not heard", a);
    later(w, pick(w, 1000, 5 * w->node_timeout_ms), UNPARTITION, 0);
}

/* Alive, but its bus port is closed to others, by a firewall for instance; perhaps to what it opened itself, too. */
static void fault_refuse(struct world *w, struct sim_node *n)
{
    if (!n) return;
    bool its_own = chance(w, 50);
    trace(w, "n%d refuses connections%s", n->index, its_own ? ", and its own are cut" : "");
    net_refuse(w, n->index, its_own);
    w->totals->refusals++;
    later(w, pick(w, 100, 3 * w->node_timeout_ms), UNPARTITION, 0);
}

static void fault_crash(struct world *w, struct sim_node *n)
{
    bool host = chance(w, 30), fast = chance(w, 30);
    if (!n) return;
    node_crash(w, n, host, false);
    later(w, fast ? pick(w, 50, 500) : pick(w, 500, 12 * w->node_timeout_ms), RESTART, n->index);
}

static void fault_lose_disk(struct world *w, struct sim_node *n)
{
    if (!n) return;
    node_crash(w, n, chance(w, 50), true);
    n->member = false; /* until it has met the others again */
    later(w, pick(w, 500, 5 * w->node_timeout_ms), RESTART, n->index);
}

static void fault_freeze(struct world *w, struct sim_node *n)
{
    if (!n) return;
    int64_t ms = pick(w, 300, 4 * w->node_timeout_ms);
    n->frozen_until = w->now + ms;
    n->serving = false; /* nobody serves while it stands still; checked again with its first step */
    w->totals->freezes++;
    trace(w, "n%d is frozen for %lld ms", n->index, (long long)ms);
}

static void fault_temper(struct world *w)
{
    switch (random_below(&w->random, 4)) {
    case 0: w->loss_ppm = (unsigned)pick(w, 10000, 300000); break;
    case 1: w->duplicate_ppm = (unsigned)pick(w, 10000, 300000); break;
    case 2: w->delay_max_ms = (int)pick(w, 50, w->node_timeout_ms); break;
    default: w->reset_ppm = (unsigned)pick(w, 1000, 20000); break;
    }
    trace(w, "network: loss %u ppm, duplicates %u ppm, resets %u ppm, delay up to %d ms", w->loss_ppm, w->duplicate_ppm,
          w->reset_ppm, w->delay_max_ms);
    later(w, pick(w, 2000, 15000), CALM, 0);
}

static void fault_clock(struct world *w, struct sim_node *n)
{
    if (!n) return;
    n->wall_offset_ms += chance(w, 50) ? pick(w, -20000, 20000) : pick(w, -3600000, 3600000);
    w->totals->clock_jumps++;
    trace(w, "n%d: the wall clock jumps to %+lld ms", n->index, (long long)n->wall_offset_ms);
}

static void fault_failover(struct world *w, struct sim_node *n)
{
    if (!n) return;
    unsigned kind = (unsigned)random_below(&w->random, 10);
    const char *mode = kind < 6 ? NULL : kind < 9 ? "FORCE" : "TAKEOVER";
    trace(w, "operator: n%d FAILOVER %s", n->index, mode ? mode : "");
    order_failover(w, n, mode);
}

static void fault_move_slots(struct world *w)
{
    struct sim_node *from = choose(w, PRIMARY), *to = choose(w, PRIMARY);
    if (!from || !to || from == to) return;
    struct cluster_node_view v;
    cluster_node_view(from->core, cluster_myself(from->core), &v);
    unsigned first = cluster_bit_next(v.slots, (unsigned)random_below(&w->random, SLOT_COUNT));
    if (first >= SLOT_COUNT) first = cluster_bit_next(v.slots, 0);
    if (first >= SLOT_COUNT) return;
    struct cluster_id from_id = v.id, to_id = node_id(to);
    if (!order_setslot(w, to, first, "IMPORTING", &from_id) || !order_setslot(w, from, first, "MIGRATING", &to_id))
        return;
    trace(w, "operator: slot %u moves from n%d to n%d", first, from->index, to->index);
    w->totals->slot_moves++;
    later_move(w, pick(w, 5, 3000), MOVE_TARGET,
               &(struct sim_event){.kind = SIM_SCRIPT,
                                   .node = from->index,
                                   .other = to->index,
                                   .incarnation = to->incarnation,
                                   .arg = (int)first});
}

/* The new owner first, then the old one, then the rest; each only when the one before is done for good. */
static void move_step(struct world *w, const struct sim_event *ev)
{
    struct sim_node *from = &w->nodes[ev->node], *to = &w->nodes[ev->other];
    if (!can_order(w, to) || to->incarnation != ev->incarnation) return;
    struct cluster_id id = node_id(to);
    if (ev->what == MOVE_TARGET) {
        if (order_setslot(w, to, (unsigned)ev->arg, "NODE", &id)) later_move(w, 500, MOVE_SOURCE, ev);
        return;
    }
    if (cluster_slot_owner(to->core, (unsigned)ev->arg) != cluster_myself(to->core)) return;
    if (ev->what == MOVE_SOURCE) {
        if (can_order(w, from)) order_setslot(w, from, (unsigned)ev->arg, "NODE", &id);
        later_move(w, 20, MOVE_OTHERS, ev);
        return;
    }
    for (int i = 0; i < w->next_node; i++) {
        struct sim_node *n = &w->nodes[i];
        if (n != from && n != to && n->member && can_order(w, n)) order_setslot(w, n, (unsigned)ev->arg, "NODE", &id);
    }
}

static void fault_join(struct world *w)
{
    struct sim_node *known = choose(w, ANY);
    if (!known || w->next_node >= NODES_MAX - 1) return;
    int i = w->next_node++;
    node_init(w, i);
    w->nodes[i].member = false;
    w->totals->joins++;
    trace(w, "operator: n%d joins", i);
    node_start(w, &w->nodes[i]);
    later(w, 100, REJOIN, i);
}

static void fault_forget(struct world *w, struct sim_node *n)
{
    struct cluster_error err;
    if (!n || w->healed) return;
    struct cluster_id id = node_id(n);
    trace(w, "operator: n%d is forgotten and reset", n->index);
    for (int i = 0; i < w->next_node; i++)
        if (&w->nodes[i] != n && can_order(w, &w->nodes[i])) order_forget(w, &w->nodes[i], &id);
    bool hard = chance(w, 50);
    bool ok = cluster_reset(n->core, hard, node_time(w, n), &err, &w->out);
    if (hard) n->seen_current = 0;
    done(w, n, ok);
    n->member = false;
    w->totals->forgotten++;
    later(w, pick(w, 500, 8000), REJOIN, n->index);
}

/* A replica stands still until it is given up, and its primary dies when it goes on.  */
static void stale_heir(struct world *w, int64_t ms)
{
    struct sim_node *r = choose(w, REPLICA);
    const struct cluster_node *primary = r ? cluster_my_primary(r->core) : NULL;
    if (!primary) return;
    struct cluster_node_view v;
    cluster_node_view(r->core, primary, &v);
    int p = node_by_ip(w, v.ip);
    if (p < 0) return;
    trace(w, "n%d stands still until its primary n%d dies", r->index, p);
    r->frozen_until = w->now + ms;
    w->totals->freezes++;
    later(w, ms - 1, KILL, p);
    later(w, ms + 6 * w->node_timeout_ms, RESTART, p);
}

/* One node fails in one way; the rest of the time until the next is for getting over it. */
static void single_fault(struct world *w)
{
    struct sim_node *n = choose(w, chance(w, 70) ? PRIMARY : ANY);
    if (!n) return;
    int64_t ms = pick(w, 200, 4 * w->node_timeout_ms);
    switch (random_below(&w->random, 6)) {
    case 5: fault_refuse(w, n); break;
    case 4: stale_heir(w, ms); break;
    case 0:
        if (chance(w, 30)) memset(&n->disk_data, 0, sizeof n->disk_data); /* no dump was ever saved */
        node_crash(w, n, chance(w, 50), false);
        later(w, ms, RESTART, n->index);
        break;
    case 1:
        trace(w, "n%d is frozen for %lld ms", n->index, (long long)ms);
        n->frozen_until = w->now + ms;
        w->totals->freezes++;
        break;
    case 2:
        trace(w, "n%d is cut off", n->index);
        w->group[n->index] = 1;
        w->totals->partitions++;
        later(w, ms, UNPARTITION, 0);
        break;
    default:
        trace(w, "half of what n%d sends is not heard", n->index);
        for (int i = 0; i < w->next_node; i++) w->deaf[n->index][i] = chance(w, 50);
        later(w, ms, UNPARTITION, 0);
        break;
    }
}

static void fault(struct world *w, int left)
{
    if (w->healed || left == 0) return;
    w->totals->faults++;
    w->faults++;
    if (w->noloss) {
        single_fault(w);
        later(w, pick(w, 0, 2000) + 14 * w->node_timeout_ms + 4000, FAULT, left - 1);
        return;
    }
    switch (random_below(&w->random, 18)) {
    case 0:
    case 1:
    case 2: fault_partition(w); break;
    case 3: fault_deaf(w); break;
    case 4:
    case 5: fault_crash(w, choose(w, PRIMARY)); break;
    case 6: fault_crash(w, choose(w, ANY)); break;
    case 7: fault_lose_disk(w, choose(w, chance(w, 70) ? REPLICA : ANY)); break;
    case 8: fault_freeze(w, choose(w, chance(w, 60) ? PRIMARY : ANY)); break;
    case 9: fault_temper(w); break;
    case 10: fault_clock(w, choose(w, ANY)); break;
    case 11:
    case 12: fault_failover(w, choose(w, REPLICA)); break;
    case 13: fault_move_slots(w); break;
    case 14: fault_join(w); break;
    case 15:
    case 16: fault_refuse(w, choose(w, chance(w, 80) ? PRIMARY : ANY)); break;
    default: fault_forget(w, choose(w, REPLICA)); break;
    }
    int64_t rest = w->heal_at - w->now;
    later(w, pick(w, 50, rest / left > 100 ? 2 * rest / left : 200), FAULT, left - 1);
}

/* ---- repairs ---- */

static void restart(struct world *w, int i)
{
    struct sim_node *n = &w->nodes[i];
    if (n->core) return;
    bool fresh = n->disk.n == 0;
    node_start(w, n);
    if (fresh) later(w, 300, REJOIN, i);
}

/* A fresh node meets somebody, then gets a primary to follow. */
static void rejoin(struct world *w, int i)
{
    struct sim_node *n = &w->nodes[i];
    if (!can_order(w, n)) return;
    struct sim_node *known = choose(w, ANY), *primary = choose(w, PRIMARY);
    if (!known || !primary || known == n) {
        later(w, 1000, REJOIN, i);
        return;
    }
    if (!n->member) {
        if (cluster_node_count(n->core) < 2) order_meet(w, n, known);
        n->member = cluster_node_count(n->core) > 2;
    }
    struct cluster_node_view me;
    cluster_node_view(n->core, cluster_myself(n->core), &me);
    bool settled = n->member && (!cluster_is_primary(n->core) || me.slot_count || order_replicate(w, n, primary));
    if (!settled) later(w, 1000, REJOIN, i);
}

static void unpartition(struct world *w)
{
    trace(w, "no partition any more");
    memset(w->group, 0, sizeof w->group);
    memset(w->deaf, 0, sizeof w->deaf);
    memset(w->refusing, 0, sizeof w->refusing);
}

static void calm(struct world *w)
{
    trace(w, "the network is calm");
    w->loss_ppm = w->duplicate_ppm = w->reset_ppm = 0;
    w->delay_max_ms = 0;
}

static void heal(struct world *w)
{
    trace(w, "heal");
    w->healed = true;
    unpartition(w);
    calm(w);
    for (int i = 0; i < w->next_node; i++) {
        if (w->nodes[i].exists) restart(w, i);
        w->nodes[i].frozen_until = w->now < w->nodes[i].frozen_until ? w->now + 1 : 0;
    }
    later(w, 12000, REPAIR, 0);
    later(w, 20000, REPAIR, 1);
}

/* Slots that nobody claims for itself go to somebody, as `redis-cli --cluster fix` does. */
static void repair(struct world *w)
{
    struct sim_node *n = choose(w, PRIMARY);
    if (!n) return;
    uint8_t claimed[CLUSTER_SLOT_BYTES] = {0};
    for (int i = 0; i < w->next_node; i++) {
        struct cluster_node_view v;
        if (!w->nodes[i].core || !cluster_is_primary(w->nodes[i].core)) continue;
        cluster_node_view(w->nodes[i].core, cluster_myself(w->nodes[i].core), &v);
        for (size_t b = 0; b < sizeof claimed; b++) claimed[b] |= v.slots[b];
    }
    struct cluster_error err;
    bool any = false;
    for (unsigned s = 0; s < SLOT_COUNT; s++) {
        if (cluster_bit_get(claimed, s)) continue;
        char text[12];
        snprintf(text, sizeof text, "%u", s);
        struct bytes slot = bytes_of(text);
        done(w, n, cluster_del_slots(n->core, &slot, 1, node_time(w, n), &err, &w->out));
        done(w, n, cluster_add_slots(n->core, &slot, 1, node_time(w, n), &err, &w->out));
        any = true;
    }
    if (!any) return;
    trace(w, "operator: n%d gets the slots that nobody claims", n->index);
    w->totals->repairs++;
    order_bump(w, n);
}

void script_run(struct world *w, const struct sim_event *ev)
{
    switch ((enum script)ev->what) {
    case FORM_MEET: form_meet(w); break;
    case FORM_SLOTS: form_slots(w); break;
    case FORM_REPLICATE: form_replicate(w, ev->arg); break;
    case FAULT: fault(w, ev->arg); break;
    case KILL: node_crash(w, &w->nodes[ev->arg], false, false); break;
    case RESTART: restart(w, ev->arg); break;
    case REJOIN: rejoin(w, ev->arg); break;
    case UNPARTITION: unpartition(w); break;
    case CALM: calm(w); break;
    case MOVE_TARGET:
    case MOVE_SOURCE:
    case MOVE_OTHERS: move_step(w, ev); break;
    case HEAL: heal(w); break;
    case REPAIR: repair(w); break;
    case CHECK_END:
        if (w->faults < (w->noloss ? 1 : 5)) check_fail(w, "only %d faults", w->faults);
        check_agreement(w, true);
        break;
    }
}
