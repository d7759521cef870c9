/* nodesconf.c: the text of nodes.conf and of CLUSTER NODES, CLUSTER INFO, both ways where there are two.
 *
 *   <id> <ip>:<port>@<cport>[,hostname] <flags> <primary or -> <ping ms> <pong ms> <epoch> <link> [slot|a-b|[mark]]...
 *   vars currentEpoch <n> lastVoteEpoch <n> */
#include "base/number.h"
#include "cluster/core/internal.h"

#include <inttypes.h>

int64_t wall_of(const struct cluster_core *core, struct cluster_time now, int64_t mono_ms)
{
    if (!mono_ms) return 0;
    int64_t wall = now.wall_ms - (now.mono_ms - mono_ms);
    return wall > 0 ? wall : 1; /* a clock set before 1970 still says that something happened */
}

/* ---- rendering ---- */

static const struct {
    unsigned flag;
    const char *name;
} flag_names[] = {
    {CLUSTER_NODE_MYSELF, "myself"}, {CLUSTER_NODE_PRIMARY, "master"},
    {CLUSTER_NODE_REPLICA, "slave"}, {CLUSTER_NODE_PFAIL, "fail?"},
    {CLUSTER_NODE_FAIL, "fail"},     {CLUSTER_NODE_HANDSHAKE, "handshake"},
    {CLUSTER_NODE_NOADDR, "noaddr"}, {CLUSTER_NODE_NOFAILOVER, "nofailover"},
};
enum { FLAG_NAMES = sizeof flag_names / sizeof *flag_names };

void cluster_flags_text(unsigned flags, struct buf *out)
{
    size_t start = out->n;
    for (size_t i = 0; i < FLAG_NAMES; i++) {
        if (!(flags & flag_names[i].flag)) continue;
        if (out->n > start) buf_append_char(out, ',');
        buf_append_cstr(out, flag_names[i].name);
    }
    if (out->n == start) buf_append_cstr(out, "noflags");
}

static void render_slots(const uint8_t *slots, struct buf *out)
{
    for (unsigned s = cluster_bit_next(slots, 0); s < SLOT_COUNT;) {
        unsigned end = cluster_bit_next_clear(slots, s) - 1;
        if (end == s)
            buf_printf(out, " %u", s);
        else
            buf_printf(out, " %u-%u", s, end);
        s = cluster_bit_next(slots, end + 1);
    }
}

static void render_marks(const struct cluster_core *core, struct buf *out)
{
    if (!core->migrating && !core->importing) return;
    for (unsigned s = 0; s < SLOT_COUNT; s++) {
        const struct cluster_node *to = cluster_slot_migrating_to(core, s);
        const struct cluster_node *from = cluster_slot_importing_from(core, s);
        if (to)
            buf_printf(out, " [%u->-%.40s]", s, to->id.c);
        else if (from)
            buf_printf(out, " [%u-<-%.40s]", s, from->id.c);
    }
}

static void render_line(const struct cluster_core *core, const struct cluster_node *node, struct cluster_time now,
                        bool pport, bool file, struct buf *out)
{
    const struct cluster_node *p = node->primary;
    unsigned port = pport && node->pport ? node->pport : node->port;
    buf_printf(out, "%.40s %s:%u@%u", node->id.c, node->ip, port, node->cport);
    bool shard = file && !cluster_id_is_null(&node->shard);
    if (node->hostname[0] || shard) buf_printf(out, ",%s", node->hostname);
    if (shard) buf_printf(out, ",shard-id=%.40s", node->shard.c);
    buf_append_char(out, ' ');
    cluster_flags_text(node->flags, out);
    buf_append_char(out, ' ');
    if (p)
        buf_append(out, p->id.c, CLUSTER_ID_SIZE);
    else
        buf_append_char(out, '-');
    buf_printf(out, " %" PRId64 " %" PRId64 " %" PRIu64 " %s", wall_of(core, now, node->ping_sent_ms),
               wall_of(core, now, node->pong_received_ms), p ? p->config_epoch : node->config_epoch,
               node == core->myself || node->out.id ? "connected" : "disconnected");
    render_slots(node->slots, out);
    if (node == core->myself) render_marks(core, out);
}

void cluster_render_node(const struct cluster_core *core, const struct cluster_node *node, struct cluster_time now,
                         bool pport, struct buf *out)
{
    render_line(core, node, now, pport, false, out);
}

static void render(const struct cluster_core *core, struct cluster_time now, unsigned without, bool pport, bool file,
                   struct buf *out)
{
    for (size_t i = 0; i < core->node_count; i++) {
        if (core->nodes[i]->flags & without) continue;
        render_line(core, core->nodes[i], now, pport, file, out);
        buf_append_char(out, '\n');
    }
}

void cluster_render_nodes(const struct cluster_core *core, struct cluster_time now, bool pport, struct buf *out)
{
    render(core, now, 0, pport, false, out);
}

void cluster_render_nodes_conf(const struct cluster_core *core, struct cluster_time now, struct buf *out)
{
    render(core, now, CLUSTER_NODE_HANDSHAKE, false, true, out);
    buf_printf(out, "vars currentEpoch %" PRIu64 " lastVoteEpoch %" PRIu64 "\n", core->current_epoch,
               core->last_vote_epoch);
}

const char *cluster_type_name(unsigned type)
{
    static const char *const names[CLUSTER_TYPE_COUNT] = {"ping",    "pong",     "meet",        "fail",
                                                          "publish", "auth-req", "auth-ack",    "update",
                                                          "mfstart", "module",   "publishshard"};
    return type < CLUSTER_TYPE_COUNT ? names[type] : "unknown";
}

static void render_counters(const uint64_t *counters, const char *what, struct buf *out)
{
    uint64_t total = 0;
    for (unsigned t = 0; t < CLUSTER_TYPE_COUNT; t++) {
        total += counters[t];
        if (counters[t])
            buf_printf(out, "cluster_stats_messages_%s_%s:%" PRIu64 "\r\n", cluster_type_name(t), what, counters[t]);
    }
    buf_printf(out, "cluster_stats_messages_%s:%" PRIu64 "\r\n", what, total);
}

void cluster_render_info(const struct cluster_core *core, struct buf *out)
{
    unsigned ok = 0, pfail = 0, fail = 0;
    for (size_t i = 0; i < core->node_count; i++) {
        const struct cluster_node *n = core->nodes[i];
        unsigned *sum = n->flags & CLUSTER_NODE_FAIL ? &fail : n->flags & CLUSTER_NODE_PFAIL ? &pfail : &ok;
        *sum += n->slot_count;
    }
    buf_printf(out, "cluster_state:%s\r\ncluster_slots_assigned:%u\r\n", cluster_state_ok(core) ? "ok" : "fail",
               core->slots_assigned);
    buf_printf(out, "cluster_slots_ok:%u\r\ncluster_slots_pfail:%u\r\ncluster_slots_fail:%u\r\n", ok, pfail, fail);
    buf_printf(out, "cluster_known_nodes:%zu\r\ncluster_size:%zu\r\n", core->node_count, cluster_size(core));
    buf_printf(out, "cluster_current_epoch:%" PRIu64 "\r\ncluster_my_epoch:%" PRIu64 "\r\n", core->current_epoch,
               cluster_my_config_epoch(core));
    render_counters(core->sent, "sent", out);
    render_counters(core->received, "received", out);
    buf_printf(out, "total_cluster_links_buffer_limit_exceeded:%" PRIu64 "\r\n", core->links_over_limit);
}

/* ---- parsing ---- */

enum { FIELDS = 8 };

/* The next word of *line; empty at its end. */
static struct bytes next_word(struct bytes *line)
{
    while (line->n && (*line->p == ' ' || *line->p == '\t' || *line->p == '\r')) line->p++, line->n--;
    size_t n = 0;
    while (n < line->n && line->p[n] != ' ' && line->p[n] != '\t' && line->p[n] != '\r') n++;
    struct bytes word = {line->p, n};
    line->p += n;
    line->n -= n;
    return word;
}

static struct bytes next_line(struct bytes *text)
{
    const char *end = memchr(text->p, '\n', text->n);
    size_t n = end ? (size_t)(end - text->p) : text->n;
    struct bytes line = {text->p, n};
    text->p += n + !!end;
    text->n -= n + !!end;
    return line;
}

static bool split_at(struct bytes all, char c, bool last, struct bytes *before, struct bytes *after)
{
    if (!all.n) return false;
    const char *at = last ? memrchr(all.p, c, all.n) : memchr(all.p, c, all.n);
    if (!at) return false;
    *before = bytes_make(all.p, (size_t)(at - all.p));
    *after = bytes_make(at + 1, all.n - before->n - 1);
    return true;
}

static bool parse_port(struct bytes text, uint16_t *port)
{
    int64_t v;
    if (!parse_i64(text, &v) || v < 0 || v > 65535) return false;
    *port = (uint16_t)v;
    return true;
}

/* name=value, ... of 7.2 and later; what is not known here is of no use here. */
static bool parse_fields(struct cluster_node *node, struct bytes text)
{
    struct bytes one, name, value, rest = text;
    while (rest.n) {
        one = rest;
        if (!split_at(rest, ',', false, &one, &rest)) rest = (struct bytes){0};
        if (!split_at(one, '=', false, &name, &value) || !bytes_eq(name, BYTES("shard-id"))) continue;
        if (!cluster_id_parse(value, &node->shard)) return false;
    }
    return true;
}

/* ip:port[@cport][,hostname[,name=value]...] */
static bool parse_node_address(struct cluster_node *node, struct bytes text)
{
    struct bytes address = text, names = {0}, ip, port, cport = {0}, fields = {0};
    split_at(text, ',', false, &address, &names);
    if (!split_at(address, ':', true, &ip, &port) || ip.n > CLUSTER_IP_SIZE) return false;
    if (split_at(port, '@', false, &port, &cport)) {
        if (!parse_port(port, &node->port) || !parse_port(cport, &node->cport)) return false;
    } else {
        if (!parse_port(port, &node->port) || node->port > 55535) return false;
        node->cport = (uint16_t)(node->port + 10000);
    }
    memcpy(node->ip, ip.p, ip.n);
    node->ip[ip.n] = 0;
    split_at(names, ',', false, &names, &fields);
    if (names.n > CLUSTER_HOSTNAME_MAX) return false;
    if (names.n) memcpy(node->hostname, names.p, names.n);
    node->hostname[names.n] = 0;
    return parse_fields(node, fields);
}

static bool parse_flag(struct bytes word, unsigned *flags)
{
    for (size_t i = 0; i < FLAG_NAMES; i++) {
        if (!bytes_ieq(word, bytes_of(flag_names[i].name))) continue;
        *flags |= flag_names[i].flag;
        return true;
    }
    if (bytes_ieq(word, BYTES("primary"))) *flags |= CLUSTER_NODE_PRIMARY;
    if (bytes_ieq(word, BYTES("replica"))) *flags |= CLUSTER_NODE_REPLICA;
    return bytes_ieq(word, BYTES("primary")) || bytes_ieq(word, BYTES("replica")) || bytes_ieq(word, BYTES("noflags"));
}

static bool parse_flags(struct bytes text, unsigned *flags)
{
    struct bytes word, rest = text;
    *flags = 0;
    do {
        text = rest;
        rest = (struct bytes){0};
        word = text;
        split_at(text, ',', false, &word, &rest);
        if (!parse_flag(word, flags)) return false;
    } while (rest.n);
    return !(*flags & CLUSTER_NODE_PRIMARY && *flags & CLUSTER_NODE_REPLICA);
}

static struct cluster_node *node_for(struct cluster_core *core, const struct cluster_id *id)
{
    struct cluster_node *node = node_find(core, id);
    return node ? node : node_create(core, id, 0);
}

/* "[slot->-id]": moves to id; "[slot-<-id]": comes from id. */
static bool parse_mark(struct cluster_core *core, struct bytes word)
{
    struct bytes slot, id_text;
    struct cluster_id id;
    int64_t s;
    if (word.n < 2 || word.p[word.n - 1] != ']') return false;
    struct bytes inside = {word.p + 1, word.n - 2};
    if (!split_at(inside, '-', false, &slot, &id_text) || id_text.n != CLUSTER_ID_SIZE + 2 || id_text.p[1] != '-')
        return false;
    char way = id_text.p[0];
    if (!parse_i64(slot, &s) || s < 0 || s >= SLOT_COUNT || (way != '>' && way != '<')) return false;
    if (!cluster_id_parse(bytes_make(id_text.p + 2, CLUSTER_ID_SIZE), &id)) return false;
    if (way == '>')
        slot_set_migrating(core, (unsigned)s, node_for(core, &id));
    else
        slot_set_importing(core, (unsigned)s, node_for(core, &id));
    return true;
}

static bool parse_slot_range(struct cluster_core *core, struct cluster_node *node, struct bytes word)
{
    struct bytes first = word, last = word;
    int64_t a, b;
    split_at(word, '-', false, &first, &last);
    if (!parse_i64(first, &a) || !parse_i64(last, &b) || a < 0 || b >= SLOT_COUNT || a > b) return false;
    for (int64_t s = a; s <= b; s++) slot_assign(core, (unsigned)s, node);
    return true;
}

static bool parse_node_slots(struct cluster_core *core, struct cluster_node *node, struct bytes rest)
{
    for (struct bytes word = next_word(&rest); word.n; word = next_word(&rest)) {
        bool ok = word.p[0] == '[' ? parse_mark(core, word) : parse_slot_range(core, node, word);
        if (!ok) return false;
    }
    return true;
}

static bool parse_node_state(struct cluster_core *core, struct cluster_node *node, const struct bytes *f)
{
    unsigned flags;
    struct cluster_id primary;
    int64_t ping, pong;
    uint64_t epoch;
    if (!parse_flags(f[2], &flags)) return false;
    if (!parse_i64(f[4], &ping) || !parse_i64(f[5], &pong)) return false;
    if (!parse_u64(f[6], &epoch) || epoch > EPOCH_MAX) return false;
    bool myself = flags & CLUSTER_NODE_MYSELF;
    if (myself && core->myself && core->myself != node) return false;
    if (myself) core->myself = node;
    /* Suspicion does not outlive the process; it comes back soon enough if there is reason. */
    node->flags = flags & ~(unsigned)(CLUSTER_NODE_PFAIL | CLUSTER_NODE_HANDSHAKE);
    node->fail_ms = core->now.mono_ms;
    node->ping_sent_ms = ping ? core->now.mono_ms : 0;
    node->pong_received_ms = pong ? core->now.mono_ms : 0;
    node->config_epoch = node_is_replica(node) ? 0 : epoch;
    epoch_raise(core, epoch);
    if (bytes_eq(f[3], BYTES("-"))) return true;
    if (!cluster_id_parse(f[3], &primary) || cluster_id_eq(&primary, &node->id) || !node_is_replica(node)) return false;
    node_set_primary(core, node, node_for(core, &primary));
    return true;
}

static bool parse_node(struct cluster_core *core, struct bytes first, struct bytes rest)
{
    struct bytes f[FIELDS] = {first};
    struct cluster_id id;
    for (size_t i = 1; i < FIELDS; i++) f[i] = next_word(&rest);
    if (!f[FIELDS - 1].n || !cluster_id_parse(first, &id)) return false;
    struct cluster_node *node = node_for(core, &id);
    return parse_node_address(node, f[1]) && parse_node_state(core, node, f) && parse_node_slots(core, node, rest);
}

static bool parse_vars(struct cluster_core *core, struct bytes rest)
{
    for (struct bytes name = next_word(&rest); name.n; name = next_word(&rest)) {
        struct bytes text = next_word(&rest);
        uint64_t v;
        if (!text.n) return false;
        bool current = bytes_ieq(name, BYTES("currentEpoch")), vote = bytes_ieq(name, BYTES("lastVoteEpoch"));
        if (!current && !vote) continue;
        if (!parse_u64(text, &v) || v > EPOCH_MAX) return false;
        if (current) epoch_raise(core, v);
        if (vote) core->last_vote_epoch = v;
    }
    return true;
}

bool nodesconf_parse(struct cluster_core *core, struct bytes text, struct cluster_error *err)
{
    struct cluster_actions scratch = {0};
    core->out = &scratch;
    bool ok = true;
    unsigned number = 0;
    while (ok && text.n) {
        struct bytes line = next_line(&text), first = next_word(&line);
        number++;
        if (!first.n) continue; /* padding of files that were rewritten in place */
        ok = bytes_eq(first, BYTES("vars")) ? parse_vars(core, line) : parse_node(core, first, line);
        if (!ok) fail_with(err, "Unrecoverable error: corrupted cluster config file, line %u", number);
    }
    if (ok && !core->myself)
        ok = fail_with(err, "Unrecoverable error: corrupted cluster config file, no line is myself");
    if (core->last_vote_epoch > core->current_epoch) core->current_epoch = core->last_vote_epoch;
    core->size_stale = true;
    core->due = DUE_MAP;
    core->out = NULL;
    cluster_actions_deinit(&scratch);
    return ok;
}
