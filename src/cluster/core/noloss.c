/* noloss.c: only a replica that cannot lack an acknowledged write stands for its primary's place (docs/durability.md).
 *
 * With min-replicas-to-ack the primary keeps a set of members: the replicas that may stand.  A write is acknowledged
 * when every member has executed it (and at least so many members have confirmed that they are some), so each member
 * has all that was ever acknowledged, and no offsets have to be compared when one stands.
 *
 *   GRANT      primary -> replica   you are a member (of my config epoch and incarnation), once you have this offset
 *   CONFIRM    replica -> primary   I am, and have it
 *   EXCLUDE    primary -> voters    do not vote for these replicas of mine
 *   EXCLUDED   voter -> primary     I shall not
 *
 * A member counts from before the GRANT leaves; it ceases to count when it follows another primary, or when a majority
 * of the primaries has said that it does not vote for it.  A voter that has voted for a replica of this primary lately
 * does not say so.  Membership lives in memory: a replica that was restarted is none until it was granted anew. A
 * primary that begins (restarted, or the option was set) cannot know whom it granted or who would stand without, so all
 * replicas it knows are members at first. */
#include "base/endian.h"
#include "base/mem.h"
#include "cluster/core/internal.h"

enum { GRANT = 1, CONFIRM, EXCLUDE, EXCLUDED };
enum { ASK_AGAIN_MS = 200, REFRESH_MS = 1000, NUMBERS = 3 };
/* In eight bytes that no module of Redis has registered. */
static const char MODULE_ID[8] = "Covey\0nl";

static bool wanted(const struct cluster_core *core)
{
    return core->config.min_replicas_to_ack > 0 && node_is_primary(core->myself) && core->myself->slot_count;
}

/* ---- messages: three numbers, then ids ---- */

static void tell(struct cluster_core *core, struct cluster_node *to, uint8_t type, uint64_t a, uint64_t b, uint64_t c,
                 const struct cluster_id *ids, size_t n)
{
    uint8_t payload[8 * NUMBERS + CLUSTER_MEMBERS_MAX * CLUSTER_ID_SIZE];
    store_be64(payload, a);
    store_be64(payload + 8, b);
    store_be64(payload + 16, c);
    for (size_t i = 0; i < n; i++) memcpy(payload + 8 * NUMBERS + i * CLUSTER_ID_SIZE, ids[i].c, CLUSTER_ID_SIZE);
    uint64_t module;
    memcpy(&module, MODULE_ID, sizeof module);
    send_module(core, to, module, type, bytes_make((char *)payload, 8 * NUMBERS + n * CLUSTER_ID_SIZE));
}

/* ---- the primary: members ---- */

static struct noloss_member *member_find(struct cluster_core *core, const struct cluster_id *id)
{
    for (size_t i = 0; i < core->noloss.count; i++)
        if (cluster_id_eq(&core->noloss.members[i].node, id)) return &core->noloss.members[i];
    return NULL;
}

static const uint64_t *ack_of(const struct cluster_core *core, const struct cluster_id *id)
{
    for (size_t i = 0; i < core->facts.ack_count; i++)
        if (cluster_id_eq(&core->facts.acks[i].node, id)) return &core->facts.acks[i].offset;
    return NULL;
}

/* Able to stand, if it came to that. */
static bool is_ready(const struct cluster_core *core, const struct noloss_member *m)
{
    const struct cluster_node *node = node_find(core, &m->node);
    return node && !m->leaving && m->confirmed && m->granted_epoch == core->myself->config_epoch;
}

static size_t ready_count(const struct cluster_core *core)
{
    size_t n = 0;
    for (size_t i = 0; i < core->noloss.count; i++) n += is_ready(core, &core->noloss.members[i]);
    return n;
}

/* Tells the data side, before anything that is sent later in this step.  Whoever has ceased to be the primary takes
 * nobody's acknowledgement for enough. */
static void require(struct cluster_core *core)
{
    struct cluster_required *r = &core->out->required;
    r->on = core->noloss.on || (core->config.min_replicas_to_ack > 0 && node_is_replica(core->myself));
    r->count = core->noloss.count;
    r->ready = ready_count(core);
    for (size_t i = 0; i < core->noloss.count; i++) r->nodes[i] = core->noloss.members[i].node;
    act(core, CLUSTER_DO_REQUIRE);
}

static struct noloss_member *member_add(struct cluster_core *core, const struct cluster_id *id)
{
    struct noloss *nl = &core->noloss;
    if (nl->count == CLUSTER_MEMBERS_MAX) return NULL;
    struct noloss_member *m = &nl->members[nl->count++];
    *m = (struct noloss_member){
        .node = *id, .is_new = true, .mark = core->facts.primary_offset, .mark_ms = core->now.mono_ms};
    return m;
}

static void begin(struct cluster_core *core, bool on, bool all_known)
{
    struct noloss *nl = &core->noloss;
    nl->on = on;
    nl->count = nl->excluded_count = 0;
    nl->version++;
    for (size_t i = 0; on && all_known && i < core->myself->replica_count; i++)
        (void)member_add(core, &core->myself->replicas[i]->id);
    require(core);
}

void noloss_update(struct cluster_core *core)
{
    if (wanted(core) != core->noloss.on) begin(core, !core->noloss.on, true);
}

/* Nobody was granted anything in the epoch of an election just won. */
void noloss_promoted(struct cluster_core *core)
{
    core->noloss.valid = core->noloss.owed = false;
    begin(core, wanted(core), false);
}

void noloss_demoted(struct cluster_core *core)
{
    core->noloss.valid = core->noloss.owed = core->noloss.known = false;
    core->noloss.follows_ms = core->now.mono_ms;
    if (core->noloss.on) begin(core, false, false);
}

static void grant(struct cluster_core *core, struct noloss_member *m, struct cluster_node *node)
{
    if (m->granted_epoch != core->myself->config_epoch) m->confirmed = false;
    m->granted_epoch = core->myself->config_epoch;
    m->asked_ms = core->now.mono_ms;
    tell(core, node, GRANT, m->granted_epoch, core->noloss.incarnation, core->facts.primary_offset, NULL, 0);
}

/* ---- the primary: exclusion ---- */

static void excluded_remove(struct noloss *nl, const struct cluster_id *id)
{
    for (size_t i = 0; i < nl->excluded_count; i++) {
        if (!cluster_id_eq(&nl->excluded[i], id)) continue;
        nl->excluded[i] = nl->excluded[--nl->excluded_count];
        nl->version++;
        return;
    }
}

static bool is_voter(const struct cluster_core *core, const struct cluster_node *node)
{
    return node != core->myself && node_is_primary(node) && node->slot_count && node->covey;
}

static void tell_voters(struct cluster_core *core)
{
    struct noloss *nl = &core->noloss;
    bool all = core->now.mono_ms - nl->told_ms >= REFRESH_MS;
    if (nl->told_version != nl->version) all = true;
    if (nl->excluded_count == 0 && nl->told_version == nl->version) return;
    for (size_t i = 0; i < core->node_count; i++) {
        struct cluster_node *node = core->nodes[i];
        if (!is_voter(core, node) || !(all || node->exclusion_confirmed < nl->version)) continue;
        tell(core, node, EXCLUDE, core->myself->config_epoch, nl->incarnation, nl->version, nl->excluded,
             nl->excluded_count);
    }
    if (all) nl->told_ms = core->now.mono_ms;
    nl->told_version = nl->version;
}

static bool majority_excludes(struct cluster_core *core, uint64_t version)
{
    size_t n = 1; /* myself */
    for (size_t i = 0; i < core->node_count; i++)
        n += is_voter(core, core->nodes[i]) && core->nodes[i]->exclusion_confirmed >= version;
    return n >= size_now(core) / 2 + 1;
}

/* A member that keeps writes waiting is given up, if enough others are left to acknowledge. */
static bool is_late(struct cluster_core *core, struct noloss_member *m)
{
    const uint64_t *ack = ack_of(core, &m->node);
    if (ack && *ack >= m->mark) {
        m->mark = core->facts.primary_offset;
        m->mark_ms = core->now.mono_ms;
    }
    if (!ack) m->confirmed = false; /* it may be restarted */
    return core->now.mono_ms - m->mark_ms > core->config.ack_patience_ms;
}

static void exclude(struct cluster_core *core, struct noloss_member *m)
{
    struct noloss *nl = &core->noloss;
    size_t others = ready_count(core) - is_ready(core, m);
    if (m->leaving || others < (size_t)core->config.min_replicas_to_ack || nl->excluded_count == CLUSTER_MEMBERS_MAX)
        return;
    m->leaving = true;
    m->leave_version = ++nl->version;
    nl->excluded[nl->excluded_count++] = m->node;
    note(core, CLUSTER_NOTE_EXCLUDED, node_find(core, &m->node), 0, NULL);
}

/* ---- the primary: once a tick ---- */

static void look_at_members(struct cluster_core *core)
{
    struct noloss *nl = &core->noloss;
    for (size_t i = nl->count; i-- > 0;) {
        struct noloss_member *m = &nl->members[i];
        struct cluster_node *node = node_find(core, &m->node);
        /* A redis-server stands whatever it is told: docs/durability.md. */
        bool gone = !node || node->primary != core->myself || (node->offset_at_ms && !node->covey);
        if (gone || (m->leaving && majority_excludes(core, m->leave_version))) {
            *m = nl->members[--nl->count];
            continue;
        }
        if (is_late(core, m)) exclude(core, m);
        if (m->leaving || m->is_new) continue;
        int64_t every = is_ready(core, m) ? REFRESH_MS : ASK_AGAIN_MS;
        if (ack_of(core, &m->node) && core->now.mono_ms - m->asked_ms >= every) grant(core, m, node);
    }
}

/* Replicas that have caught up become members. */
static void take_new_members(struct cluster_core *core)
{
    struct noloss *nl = &core->noloss;
    const struct cluster_node *me = core->myself;
    for (size_t i = 0; i < me->replica_count; i++) {
        struct cluster_node *node = me->replicas[i];
        const uint64_t *ack = ack_of(core, &node->id);
        if (!ack || *ack < nl->last_offset || member_find(core, &node->id)) continue;
        struct noloss_member *m = member_add(core, &node->id);
        if (!m) return;
        excluded_remove(nl, &node->id);
        require(core); /* from before it knows: it is told in a later tick */
    }
}

/* A replica asks at once whether its primary knows of it. */
static void ask_primary(struct cluster_core *core)
{
    struct cluster_node *p = core->myself->primary;
    if (p && p->covey && p->out.up && !p->ping_sent_ms && !core->noloss.known) send_ping(core, p);
}

void noloss_tick(struct cluster_core *core)
{
    struct noloss *nl = &core->noloss;
    ask_primary(core);
    noloss_update(core);
    if (!nl->on) return;
    look_at_members(core);
    take_new_members(core);
    require(core);
    tell_voters(core);
    nl->last_offset = core->facts.primary_offset;
}

/* ---- the replica ---- */

static bool is_granted(const struct cluster_core *core, const struct cluster_node *p)
{
    const struct noloss *nl = &core->noloss;
    return nl->valid && cluster_id_eq(&nl->primary, &p->id) && nl->epoch == p->config_epoch &&
           core->facts.applied_offset >= nl->join;
}

static void confirm(struct cluster_core *core)
{
    struct noloss *nl = &core->noloss;
    struct cluster_node *p = core->myself->primary;
    nl->owed = nl->valid && p && cluster_id_eq(&nl->primary, &p->id) && nl->epoch == p->config_epoch;
    if (!nl->owed || core->election.sealed || !core->facts.link_up || !is_granted(core, p)) return;
    nl->owed = false;
    tell(core, p, CONFIRM, nl->epoch, nl->of, 0, NULL, 0);
}

static bool is_short(const struct cluster_core *core)
{
    return core->noloss.on && ready_count(core) < (size_t)core->config.min_replicas_to_ack;
}

void noloss_facts(struct cluster_core *core)
{
    /* This end of the log is behind whatever was acknowledged before they counted. */
    for (size_t i = 0; i < core->noloss.count; i++) core->noloss.members[i].is_new = false;
    if (core->noloss.owed) confirm(core);
    if (!is_short(core)) return;
    /* Writes are held until somebody is ready: not so long as to the next tick. */
    look_at_members(core);
    take_new_members(core);
    require(core);
}

bool cluster_wants_facts(const struct cluster_core *core)
{
    return cluster_waits_for_offset(core) || core->noloss.owed || is_short(core);
}

const char *noloss_why_not_stand(const struct cluster_core *core, bool forced)
{
    const struct cluster_node *p = core->myself->primary;
    if (core->config.plant == CLUSTER_PLANT_ANYBODY_STANDS) return NULL;
    if (p->noloss) return is_granted(core, p) ? NULL : "it may lack acknowledged writes";
    if (!p->covey || forced || core->noloss.known) return NULL;
    return "its primary may not know of it";
}

/* The primary has answered a ping that told it whose replica I am: if it waits for members later, I am among them. */
void noloss_on_pong(struct cluster_core *core, const struct cluster_node *node, int64_t sent_ms)
{
    if (node == core->myself->primary && sent_ms >= core->noloss.follows_ms) core->noloss.known = true;
}

void cluster_membership_over(struct cluster_core *core)
{
    core->noloss.valid = core->noloss.owed = false;
}

static void take_grant(struct cluster_core *core, struct cluster_node *p, uint64_t epoch, uint64_t incarnation,
                       uint64_t end)
{
    struct noloss *nl = &core->noloss;
    if (core->myself->primary != p || epoch != p->config_epoch || core->election.sealed) return;
    bool same = nl->valid && cluster_id_eq(&nl->primary, &p->id) && nl->epoch == epoch && nl->of == incarnation;
    if (!same) {
        nl->valid = true;
        nl->primary = p->id;
        nl->epoch = epoch;
        nl->of = incarnation;
        nl->join = end;
    }
    confirm(core);
}

/* ---- the voter ---- */

static void take_exclusion(struct cluster_core *core, struct cluster_node *p, uint64_t epoch, uint64_t incarnation,
                           uint64_t version, struct bytes ids)
{
    int64_t now = core->now.mono_ms, window = election_vote_counts_ms(core);
    size_t n = ids.n / CLUSTER_ID_SIZE;
    if (!node_is_primary(p) || !p->slot_count || epoch != p->config_epoch || n > CLUSTER_MEMBERS_MAX) return;
    if (p->voted_epoch && now - p->voted_ms < window) return;
    if (now - core->started_ms < window) return; /* before, it may have voted */
    if (p->excluded_of == incarnation && p->excluded_version > version) return;
    GROW(p->excluded, p->excluded_cap, n);
    for (size_t i = 0; i < n; i++) memcpy(p->excluded[i].c, ids.p + i * CLUSTER_ID_SIZE, CLUSTER_ID_SIZE);
    p->excluded_count = n;
    p->excluded_of = incarnation;
    p->excluded_version = version;
    tell(core, p, EXCLUDED, epoch, incarnation, version, NULL, 0);
}

bool noloss_is_excluded(const struct cluster_core *core, const struct cluster_node *p, const struct cluster_node *who)
{
    if (core->config.plant == CLUSTER_PLANT_ANYBODY_STANDS) return false;
    const struct cluster_id *list = p == core->myself ? core->noloss.excluded : p->excluded;
    size_t n = p == core->myself ? core->noloss.excluded_count : p->excluded_count;
    for (size_t i = 0; i < n; i++)
        if (cluster_id_eq(&list[i], &who->id)) return true;
    return false;
}

/* ---- what comes in ---- */

void noloss_receive(struct cluster_core *core, struct cluster_node *sender, const struct cluster_message *m)
{
    const uint8_t *p = (const uint8_t *)m->module.payload.p;
    size_t n = m->module.payload.n;
    if (memcmp(&m->module.module_id, MODULE_ID, sizeof MODULE_ID) != 0 || n < 8 * NUMBERS) return;
    uint64_t a = load_be64(p), b = load_be64(p + 8), c = load_be64(p + 16);
    struct noloss *nl = &core->noloss;
    struct noloss_member *member = member_find(core, &sender->id);
    switch (m->module.type) {
    case GRANT: take_grant(core, sender, a, b, c); break;
    case CONFIRM:
        if (!nl->on || !member || a != core->myself->config_epoch || b != nl->incarnation) break;
        if (member->confirmed) break;
        member->confirmed = true;
        require(core);
        break;
    case EXCLUDE: take_exclusion(core, sender, a, b, c, bytes_make((char *)p + 8 * NUMBERS, n - 8 * NUMBERS)); break;
    case EXCLUDED:
        if (nl->on && a == core->myself->config_epoch && b == nl->incarnation && c > sender->exclusion_confirmed)
            sender->exclusion_confirmed = c;
        break;
    default: break; /* of a newer version */
    }
}
