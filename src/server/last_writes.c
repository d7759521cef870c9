#include "server/last_writes.h"

#include "base/mem.h"
#include "server/reply_gate.h"

enum { CHANGED_MAX = 32 };

struct last_writes {
    /* No write is known to end below it: of the whole dataset, or of what touches every slot (FLUSHALL). */
    _Atomic uint64_t floor;
    _Atomic uint64_t latest; /* of all slots */
    uint64_t at[SLOT_COUNT]; /* under the slot's lock */
};

/* Slots whose changes are not in the log yet: of a transaction, a script. */
struct changed_slots {
    unsigned n;
    bool all;
    uint16_t slot[CHANGED_MAX];
};

static void raise(_Atomic uint64_t *mark, uint64_t to)
{
    uint64_t seen = atomic_load_explicit(mark, memory_order_relaxed);
    while (seen < to && !atomic_compare_exchange_weak(mark, &seen, to)) {
    }
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void last_writes_begin(struct node *n)
{
    if (!last_writes_kept(n)) return;
    struct last_writes *l = n->last_writes;
    /* A replica that has acknowledged nothing stands at 0, so there has to be something that one can acknowledge. */
    if (change_log_active(n->log) && change_offset(n->log) == 0)
        change_append_raw(n->log, BYTES("*1\r\n$4\r\nPING\r\n"));
    uint64_t now = larger(change_offset(n->log), 1);
    memset(l->at, 0, sizeof l->at); /* perhaps of another history */
    atomic_store(&l->floor, now);
    atomic_store(&l->latest, now);
}

void last_writes_reconfigure(struct node *n)
{
    bool on = config_bool(n->config, CFG_MIN_REPLICAS_TO_ACK_READS);
    if (on == last_writes_kept(n)) return;
    if (on && !n->last_writes) n->last_writes = mem_calloc(1, sizeof *n->last_writes);
    atomic_store(&n->reads_wait, on);
    last_writes_begin(n);
}

void last_writes_note(struct node *n, unsigned slot, uint64_t offset)
{
    if (!last_writes_kept(n)) return;
    n->last_writes->at[slot] = offset;
    raise(&n->last_writes->latest, offset);
}

/* While nothing is recorded no replica can have what is written. */
static uint64_t at_least(const struct node *n)
{
    return change_log_active(n->log) ? atomic_load(&n->last_writes->floor) : UINT64_MAX;
}

uint64_t last_writes_of(const struct node *n, unsigned slot)
{
    if (!last_writes_kept(n) || data_node_is_replica(n)) return 0;
    return larger(at_least(n), n->last_writes->at[slot]);
}

static uint64_t latest(const struct node *n)
{
    return larger(at_least(n), atomic_load(&n->last_writes->latest));
}

/* ---- commands ---- */

static void changed(struct conn *c, unsigned slot, bool all)
{
    struct changed_slots *s = c->changed_slots;
    if (!s) s = c->changed_slots = mem_calloc(1, sizeof *s);
    if (s->n && s->slot[s->n - 1] == slot && !all) return;
    if (all || s->n == CHANGED_MAX)
        s->all = true;
    else
        s->slot[s->n++] = (uint16_t)slot;
}

static void ran_on(struct conn *c, const struct call *call, unsigned slot)
{
    const struct node *n = c->worker->node;
    /* At rest it may have looked at more (SORT BY). */
    uint64_t seen = call->flags & CALL_EXCLUSIVE ? latest(n) : last_writes_of(n, slot);
    c->seen_offset = larger(c->seen_offset, seen);
    if (call->effect_count) changed(c, slot, false);
}

/* The keys of a call that has more than it keeps. */
static void ran_on_many(struct conn *c, const struct call *call)
{
    int n = command_keys(call->cmd, call->argv, call->argc, NULL, 0);
    if (n <= 0) return;
    struct command_key *found = mem_alloc((size_t)n * sizeof *found);
    command_keys(call->cmd, call->argv, call->argc, found, (size_t)n);
    for (int i = 0; i < n; i++) ran_on(c, call, key_slot(call->argv[found[i].index]));
    mem_free(found);
}

void last_writes_ran(struct conn *c, const struct call *call)
{
    const struct node *n = c->worker->node;
    /* Of EXEC and scripts each of their commands comes here. */
    if (!(call->cmd->flags & (CMD_READONLY | CMD_WRITE)) || data_node_is_replica(n)) return;
    if (!command_has_keys(call->cmd)) {
        /* KEYS, SCAN, RANDOMKEY, DBSIZE; FLUSHALL and what else is done at rest. */
        c->seen_offset = larger(c->seen_offset, latest(n));
        if (call->effect_count && call->flags & CALL_EXCLUSIVE) changed(c, 0, true);
    } else if (call->key_count == CALL_KEYS_INLINE) {
        ran_on_many(c, call);
    } else {
        for (size_t i = 0; i < call->key_count; i++) ran_on(c, call, call->keys[i].slot);
    }
}

void last_writes_appended(struct conn *c)
{
    struct changed_slots *s = c->changed_slots;
    struct node *n = c->worker->node;
    if (!s) return;
    for (unsigned i = 0; i < s->n; i++) last_writes_note(n, s->slot[i], c->write_offset);
    if (s->all && last_writes_kept(n)) {
        raise(&n->last_writes->latest, c->write_offset);
        raise(&n->last_writes->floor, c->write_offset);
    }
    s->n = 0;
    s->all = false;
}

void last_writes_forget(struct conn *c)
{
    mem_free(c->changed_slots);
    c->changed_slots = NULL;
}
