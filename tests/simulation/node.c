/* node.c: what a driver does, for one node: links, disk, data, time. */
#include "base/mem.h"
#include "base/number.h"
#include "sim.h"

#include <stdlib.h>

struct cluster_time node_time(const struct world *w, const struct sim_node *n)
{
    /* Clocks of different machines have nothing to do with each other. */
    int64_t mono = w->now + 1000 + n->index * 7919;
    return (struct cluster_time){.mono_ms = mono, .wall_ms = INT64_C(1700000000000) + w->now + n->wall_offset_ms};
}

static int64_t mono(const struct world *w, const struct sim_node *n)
{
    return node_time(w, n).mono_ms;
}

struct cluster_id node_id(const struct sim_node *n)
{
    struct cluster_node_view v;
    cluster_node_view(n->core, cluster_myself(n->core), &v);
    return v.id;
}

int node_by_ip(const struct world *w, const char *ip)
{
    unsigned i;
    if (sscanf(ip, "10.0.0.%u", &i) != 1 || i < 1 || i > NODES_MAX || !w->nodes[i - 1].exists) return -1;
    return (int)i - 1;
}

bool node_running(const struct world *w, const struct sim_node *n)
{
    return n->core && n->frozen_until <= w->now;
}

void node_init(struct world *w, int index)
{
    struct sim_node *n = &w->nodes[index];
    n->index = index;
    n->exists = n->member = true;
    n->repl_target = -1;
    n->wall_offset_ms = pick(w, -2000, 2000);
    snprintf(n->ip, sizeof n->ip, "10.0.0.%d", index + 1);
}

/* ---- life ---- */

static struct cluster_id random_replid(struct world *w)
{
    struct cluster_id id;
    for (size_t i = 0; i < CLUSTER_ID_SIZE; i++) id.c[i] = "0123456789abcdef"[random_below(&w->random, 16)];
    return id;
}

static struct cluster_config configuration(struct world *w, const struct sim_node *n)
{
    struct cluster_config c;
    cluster_config_init(&c);
    c.node_timeout_ms = w->node_timeout_ms;
    c.port = 7000;
    c.cport = 17000;
    c.repl_ping_period_s = 1;
    c.require_full_coverage = w->seed % 3 != 0;
    c.seed = random_u64(&w->random);
    c.plant = w->plant;
    c.min_replicas_to_ack = w->noloss;
    c.ack_patience_ms = 1000;
    if (n->index % 3 == 0) memcpy(c.announce_ip, n->ip, sizeof c.announce_ip); /* the others find out */
    if (n->index % 4 == 0) snprintf(c.announce_hostname, sizeof c.announce_hostname, "node-%d.example", n->index);
    return c;
}

void node_start(struct world *w, struct sim_node *n)
{
    struct cluster_error err;
    struct cluster_config config = configuration(w, n);
    n->incarnation++;
    n->host_down = false;
    n->frozen_until = 0;
    n->persisted_seq = n->seen_current = 0;
    n->shown = 0;
    memset(n->sample, 0, sizeof n->sample);
    n->repl = REPL_NONE;
    n->repl_target = -1;
    n->down_since_ms = n->paused_until_ms = 0;
    n->sealed = n->serving = false;
    memset(&n->required, 0, sizeof n->required);
    n->data = n->disk_data;
    n->core = cluster_create(&config, buf_bytes(&n->disk), node_time(w, n), &err);
    if (!n->core) {
        check_fail(w, "node %d cannot read the nodes.conf it wrote: %s", n->index, err.text);
        return;
    }
    n->id = node_id(n);
    trace(w, "n%d starts as %.8s", n->index, node_id(n).c);
    cluster_start(n->core, &n->data, node_time(w, n), &w->out);
    node_carry_out(w, n);
    if (cluster_id_is_null(&n->data.replid)) n->data.replid = random_replid(w);
    world_post(w, pick(w, 1, TICK_MS),
               (struct sim_event){.kind = SIM_TICK, .node = n->index, .incarnation = n->incarnation});
}

void node_crash(struct world *w, struct sim_node *n, bool host_down, bool lose_disk)
{
    if (!n->core) return;
    trace(w, "n%d crashes%s%s", n->index, host_down ? ", host and all" : "", lose_disk ? ", disk lost" : "");
    w->totals->crashes++;
    check_stopped(n);
    cluster_destroy(n->core);
    n->core = NULL;
    for (size_t i = 0; i < n->held_count; i++) frame_put(w, n->held[i].frame);
    n->held_count = 0;
    /* The file being written may have made it to the disk. */
    if (n->writing && chance(w, 50)) {
        n->disk.n = 0;
        buf_append_bytes(&n->disk, buf_bytes(&n->in_flight));
    }
    n->writing = n->has_queued = false;
    net_drop_node(w, n, host_down);
    n->host_down = host_down;
    if (!lose_disk) return;
    w->totals->disks_lost++;
    n->disk.n = 0;
    memset(&n->disk_data, 0, sizeof n->disk_data);
}

/* ---- disk ---- */

static void write_begin(struct world *w, struct sim_node *n)
{
    n->writing = true;
    int64_t ms = chance(w, 3) ? pick(w, 50, 400) : pick(w, 0, 8);
    world_post(w, ms, (struct sim_event){.kind = SIM_PERSISTED, .node = n->index, .incarnation = n->incarnation});
}

/* What need not be durable at once may never be: a later one has it, or it is lost with the machine. */
static void persist(struct world *w, struct sim_node *n, uint64_t seq, bool durable, struct bytes text)
{
    if (!durable && chance(w, 50)) return;
    struct buf *to = n->writing ? &n->queued : &n->in_flight;
    to->n = 0;
    buf_append_bytes(to, text);
    if (n->writing) {
        n->has_queued = true;
        n->queued_seq = seq;
        return;
    }
    n->in_flight_seq = seq;
    write_begin(w, n);
}

static void depart(struct world *w, struct sim_node *n, const struct held_send *h)
{
    int side = w->conns[h->conn].node[0] == n->index ? 0 : 1;
    check_left(w, n, &h->departure, w->conns[h->conn].node[!side]);
    net_send(w, h->conn, side, h->frame);
}

static void release_held(struct world *w, struct sim_node *n)
{
    size_t i = 0;
    for (; i < n->held_count && n->held[i].after <= n->persisted_seq; i++) {
        struct held_send *h = &n->held[i];
        depart(w, n, h);
    }
    n->held_count -= i;
    if (i && n->held_count) memmove(n->held, n->held + i, n->held_count * sizeof *n->held);
}

static void written(struct world *w, struct sim_node *n)
{
    n->disk.n = 0;
    buf_append_bytes(&n->disk, buf_bytes(&n->in_flight));
    n->persisted_seq = n->in_flight_seq;
    n->writing = false;
    if (n->has_queued) {
        n->has_queued = false;
        struct buf swap = n->in_flight;
        n->in_flight = n->queued;
        n->queued = swap;
        n->in_flight_seq = n->queued_seq;
        write_begin(w, n);
    }
    release_held(w, n);
    cluster_step(n->core, &(struct cluster_event){.kind = CLUSTER_EV_PERSISTED, .seq = n->persisted_seq},
                 node_time(w, n), &w->out);
}

/* ---- data: a history id and an offset stand for the dataset ---- */

static void replicate(struct world *w, struct sim_node *n, const char *ip)
{
    n->repl_target = node_by_ip(w, ip);
    n->repl = REPL_DOWN;
    n->sealed = false;
    if (n->down_since_ms == 0) n->down_since_ms = 0; /* never synced stays never synced */
}

/* What its predecessor had acknowledged is now its to keep. */
static void inherit(struct world *w, struct sim_node *n, const struct cluster_id *replid)
{
    uint64_t most = 0;
    for (int i = 0; i < w->next_node; i++) {
        const struct sim_node *o = &w->nodes[i];
        if (o != n && cluster_id_eq(&o->released_in, &n->data.replid) && o->released > most) most = o->released;
    }
    n->released_in = *replid;
    n->released = most;
}

static void promote(struct world *w, struct sim_node *n)
{
    struct cluster_id replid = random_replid(w);
    inherit(w, n, &replid);
    n->data.replid2 = n->data.replid;
    n->data.offset2 = n->data.offset;
    n->data.replid = replid;
    n->repl = REPL_NONE;
    n->repl_target = -1;
    n->sealed = false;
}

static bool continues(const struct cluster_history *have, const struct cluster_history *primary)
{
    if (have->offset > primary->offset) return false;
    if (cluster_id_eq(&have->replid, &primary->replid)) return true;
    return cluster_id_eq(&have->replid, &primary->replid2) && have->offset <= primary->offset2;
}

static void sync_step(struct world *w, struct sim_node *n, const struct sim_node *from)
{
    switch (n->repl) {
    case REPL_DOWN:
        if (continues(&n->data, &from->data)) {
            n->repl = REPL_UP;
            n->data.replid = from->data.replid;
        } else {
            n->repl = REPL_SYNCING;
            cluster_membership_over(n->core);
            n->sync_done_ms = w->now + pick(w, 100, 1500);
        }
        break;
    case REPL_SYNCING:
        if (w->now < n->sync_done_ms) break;
        n->data = from->data;
        n->repl = REPL_UP;
        break;
    default:
        if (!continues(&n->data, &from->data))
            n->repl = REPL_DOWN;
        else if (chance(w, 80) && !n->sealed)
            n->data.offset = from->data.offset - random_below(&w->random, (from->data.offset - n->data.offset) / 4 + 1);
        break;
    }
    if (n->repl == REPL_UP) n->last_interaction_ms = mono(w, n);
}

static bool acknowledges(const struct world *w, const struct sim_node *r, const struct sim_node *n)
{
    return node_running(w, r) && r->repl == REPL_UP && r->repl_target == n->index &&
           world_connected(w, r->index, n->index) && world_connected(w, n->index, r->index);
}

/* What all members have is acknowledged to clients, while the right to write lasts. */
static void release(struct world *w, struct sim_node *n)
{
    const struct cluster_required *q = &n->required;
    uint64_t all = n->data.offset;
    if (!q->on || q->ready == 0 || cluster_lease_until(n->core) <= mono(w, n)) return;
    for (size_t m = 0; m < q->count; m++) {
        uint64_t of_this = 0;
        for (int i = 0; i < w->next_node; i++) {
            const struct sim_node *r = &w->nodes[i];
            if (!r->core || !acknowledges(w, r, n)) continue;
            struct cluster_id id = node_id(r);
            if (cluster_id_eq(&id, &q->nodes[m])) of_this = r->data.offset;
        }
        if (of_this < all) all = of_this;
    }
    check_release(w, n);
    if (!cluster_id_eq(&n->released_in, &n->data.replid)) {
        n->released_in = n->data.replid;
        n->released = 0;
    }
    if (all <= n->released) return;
    w->totals->released += all - n->released;
    n->released = all;
}

static void data_step(struct world *w, struct sim_node *n)
{
    if (cluster_is_primary(n->core)) {
        struct cluster_node_view me;
        cluster_node_view(n->core, cluster_myself(n->core), &me);
        bool paused = n->paused_until_ms > mono(w, n);
        if (me.slot_count && cluster_state_ok(n->core) && !paused) n->data.offset += random_below(&w->random, 200);
        if (me.slot_count && cluster_state_ok(n->core)) release(w, n);
    } else if (n->repl_target >= 0) {
        const struct sim_node *from = &w->nodes[n->repl_target];
        bool reach = node_running(w, from) && world_connected(w, n->index, from->index) &&
                     world_connected(w, from->index, n->index) && cluster_is_primary(from->core) &&
                     !cluster_on_probation(from->core);
        if (reach) {
            sync_step(w, n, from);
        } else if (n->repl == REPL_UP) {
            n->down_since_ms = mono(w, n);
            n->repl = REPL_DOWN;
        } else {
            n->repl = REPL_DOWN;
        }
    }
    if (random_below(&w->random, 100) == 0) n->disk_data = n->data; /* a save now and then */
}

static struct cluster_facts facts_of(const struct world *w, const struct sim_node *n)
{
    struct cluster_facts f = {.primary_offset = n->data.offset,
                              .applied_offset = n->data.offset,
                              .link_up = n->repl == REPL_UP,
                              .last_interaction_ms = n->last_interaction_ms,
                              .link_down_since_ms = n->down_since_ms};
    for (int i = 0; w->noloss && i < w->next_node && f.ack_count < CLUSTER_MEMBERS_MAX; i++) {
        const struct sim_node *r = &w->nodes[i];
        if (!r->core || !acknowledges(w, r, n)) continue;
        f.acks[f.ack_count].node = node_id(r);
        f.acks[f.ack_count++].offset = r->data.offset;
    }
    return f;
}

/* ---- actions ---- */

static bool is_claim(const struct cluster_message *m)
{
    return cluster_id_is_null(&m->replica_of) && cluster_bit_next(m->slots, 0) < SLOT_COUNT;
}

static void send(struct world *w, struct sim_node *n, const struct cluster_action *a)
{
    int side = 0, c = net_find(w, n, a->link, &side);
    if (c < 0) return;
    const struct cluster_message *m = a->message;
    struct held_send h = {.after = a->after_persist, .conn = c, .frame = frame_new(w)};
    cluster_encode(m, &h.frame->bytes);
    h.departure = (struct departure){m->sender, m->type, is_claim(m), m->current_epoch, m->config_epoch};
    if (n->held_count == 0 && a->after_persist <= n->persisted_seq) {
        depart(w, n, &h);
        return;
    }
    if (n->held_count == n->held_cap) {
        n->held_cap = n->held_cap ? n->held_cap * 2 : 16;
        n->held = mem_realloc(n->held, n->held_cap * sizeof *n->held);
    }
    n->held[n->held_count++] = h;
}

static void close_link(struct world *w, struct sim_node *n, uint64_t link)
{
    int side = 0, c = net_find(w, n, link, &side);
    if (c >= 0) net_close(w, c, side);
}

static void ask(struct world *w, struct sim_node *n, const struct cluster_action *a, enum sim_event_kind kind)
{
    world_post(w, pick(w, 1, 20),
               (struct sim_event){.kind = kind,
                                  .node = n->index,
                                  .incarnation = n->incarnation,
                                  .other = node_by_ip(w, a->ip),
                                  .frame = NULL});
}

static void carry_out(struct world *w, struct sim_node *n, const struct cluster_action *a)
{
    switch (a->kind) {
    case CLUSTER_DO_SEND: send(w, n, a); break;
    case CLUSTER_DO_CONNECT: net_connect(w, n, a->link, a->ip); break;
    case CLUSTER_DO_CLOSE: close_link(w, n, a->link); break;
    case CLUSTER_DO_PERSIST: persist(w, n, a->seq, a->durable, buf_bytes(&w->out.persist_text)); break;
    case CLUSTER_DO_REPLICATE: replicate(w, n, a->ip); break;
    case CLUSTER_DO_PROMOTE: promote(w, n); break;
    case CLUSTER_DO_PAUSE_WRITES:
        n->paused_until_ms = a->until_ms;
        world_post(w, pick(w, 0, 5),
                   (struct sim_event){.kind = SIM_PAUSED, .node = n->index, .incarnation = n->incarnation});
        break;
    case CLUSTER_DO_UNPAUSE: n->paused_until_ms = 0; break;
    case CLUSTER_DO_SEAL: n->sealed = true; break;
    case CLUSTER_DO_UNSEAL: n->sealed = false; break;
    case CLUSTER_DO_FLUSH: n->data.offset = 0; break;
    case CLUSTER_DO_PROBE: ask(w, n, a, SIM_PROBED); break;
    case CLUSTER_DO_YIELD: ask(w, n, a, SIM_YIELDED); break;
    case CLUSTER_DO_REQUIRE: n->required = w->out.required; break;
    case CLUSTER_DO_NOTE: check_note(w, n, a); break;
    case CLUSTER_DO_PUBLISH_MAP:
    case CLUSTER_DO_DELETE_KEYS:
    case CLUSTER_DO_DELIVER: break;
    }
}

/* Carries out w->out for n.  Nothing in here steps a core, so w->out stays as it is. */
static void finish_step(struct world *w, struct sim_node *n, bool by_message)
{
    bool map_changed = false;
    w->totals->steps++;
    for (size_t i = 0; i < w->out.count; i++) {
        map_changed |= w->out.actions[i].kind == CLUSTER_DO_PUBLISH_MAP;
        carry_out(w, n, &w->out.actions[i]);
    }
    check_after_step(w, n);
    if (map_changed) check_rebinding(w, n, by_message);
}

void node_carry_out(struct world *w, struct sim_node *n)
{
    finish_step(w, n, false);
}

/* ---- events ---- */

static void on_tick(struct world *w, struct sim_node *n)
{
    data_step(w, n);
    struct cluster_event facts = {.kind = CLUSTER_EV_FACTS, .facts = facts_of(w, n)};
    cluster_step(n->core, &facts, node_time(w, n), &w->out);
    node_carry_out(w, n);
    cluster_step(n->core, &(struct cluster_event){.kind = CLUSTER_EV_TICK}, node_time(w, n), &w->out);
    world_post(w, TICK_MS, (struct sim_event){.kind = SIM_TICK, .node = n->index, .incarnation = n->incarnation});
}

static bool on_deliver(struct world *w, struct sim_node *n, const struct sim_event *ev)
{
    struct conn *conn = &w->conns[ev->conn];
    struct cluster_message m;
    size_t length = 0;
    if (!conn->open[ev->side]) return false;
    struct bytes frame = buf_bytes(&ev->frame->bytes);
    if (cluster_frame_length(frame, &length) != OK || length != frame.n ||
        cluster_decode(&w->decoder, frame, &m) != OK) {
        check_fail(w, "a frame of our own does not decode");
        return false;
    }
    struct cluster_event in = {.kind = CLUSTER_EV_MESSAGE,
                               .link = conn->link[ev->side],
                               .message = &m,
                               .peer_ip = w->nodes[conn->node[!ev->side]].ip,
                               .local_ip = n->ip};
    cluster_step(n->core, &in, node_time(w, n), &w->out);
    return true;
}

static void on_link_down(struct world *w, struct sim_node *n, const struct sim_event *ev)
{
    struct conn *conn = &w->conns[ev->conn];
    bool was_open = conn->open[ev->side];
    conn->open[ev->side] = false;
    if (!was_open) return;
    cluster_step(
        n->core,
        &(struct cluster_event){.kind = CLUSTER_EV_LINK_DOWN, .link = conn->link[ev->side], .refused = ev->arg},
        node_time(w, n), &w->out);
    node_carry_out(w, n);
}

static bool can_ask(const struct world *w, const struct sim_node *n, int other)
{
    return other >= 0 && node_running(w, &w->nodes[other]) && world_connected(w, n->index, other) &&
           world_connected(w, other, n->index);
}

static void on_probed(struct world *w, struct sim_node *n, const struct sim_event *ev)
{
    struct cluster_event in = {.kind = CLUSTER_EV_PROBED, .ok = can_ask(w, n, ev->other)};
    if (!in.ok) return;
    in.node = node_id(&w->nodes[ev->other]);
    in.history = w->nodes[ev->other].data;
    cluster_step(n->core, &in, node_time(w, n), &w->out);
    node_carry_out(w, n);
}

static void on_yielded(struct world *w, struct sim_node *n, const struct sim_event *ev)
{
    struct cluster_event in = {.kind = CLUSTER_EV_YIELDED};
    struct cluster_error err;
    if (!can_ask(w, n, ev->other)) return;
    struct sim_node *other = &w->nodes[ev->other];
    in.node = node_id(other);
    in.ok = cluster_failover(other->core, &BYTES("FORCE"), node_time(w, other), &err, &w->out);
    if (in.ok) node_carry_out(w, other);
    cluster_step(n->core, &in, node_time(w, n), &w->out);
    node_carry_out(w, n);
}

void node_event(struct world *w, const struct sim_event *ev)
{
    struct sim_node *n = &w->nodes[ev->node];
    struct cluster_event in = {0};
    switch (ev->kind) {
    case SIM_TICK: on_tick(w, n); break;
    case SIM_DELIVER:
        if (!on_deliver(w, n, ev)) return;
        break;
    case SIM_CONNECTED:
        if (!w->conns[ev->conn].open[0]) return;
        in = (struct cluster_event){.kind = CLUSTER_EV_CONNECTED, .link = w->conns[ev->conn].link[0]};
        cluster_step(n->core, &in, node_time(w, n), &w->out);
        break;
    case SIM_REFUSED:
        in = (struct cluster_event){.kind = CLUSTER_EV_LINK_DOWN, .link = ev->link};
        cluster_step(n->core, &in, node_time(w, n), &w->out);
        break;
    case SIM_PERSISTED: written(w, n); break;
    case SIM_PAUSED:
        in = (struct cluster_event){.kind = CLUSTER_EV_PAUSED, .facts = facts_of(w, n)};
        cluster_step(n->core, &in, node_time(w, n), &w->out);
        break;
    case SIM_LINK_DOWN: on_link_down(w, n, ev); return;
    case SIM_PROBED: on_probed(w, n, ev); return;
    case SIM_YIELDED: on_yielded(w, n, ev); return;
    default: abort();
    }
    finish_step(w, n, ev->kind == SIM_DELIVER);
}
