/* view.c: the text of CLUSTER NODES, and whether the nodes' views make one whole cluster. */
#include "operator/view.h"

#include "base/mem.h"
#include "base/number.h"

#include <ctype.h>

/* Cuts the text before the next separator off the front; what is left may be empty. */
static struct bytes cut(struct bytes *text, char separator)
{
    const char *end = text->n ? memchr(text->p, separator, text->n) : NULL;
    struct bytes head = {text->p, end ? (size_t)(end - text->p) : text->n};
    size_t used = head.n + (end ? 1 : 0);
    text->p += used;
    text->n -= used;
    return head;
}

static bool take_id(struct bytes text, char out[NODE_ID_LENGTH + 1])
{
    if (text.n != NODE_ID_LENGTH) return false;
    for (size_t i = 0; i < text.n; i++)
        if (!isxdigit((unsigned char)text.p[i])) return false;
    memcpy(out, text.p, text.n);
    out[text.n] = '\0';
    return true;
}

static bool take_address(struct bytes text, struct node_line *node)
{
    text = cut(&text, ',');
    struct bytes address = cut(&text, '@');
    if (address.n >= sizeof node->address) return false;
    memcpy(node->address, address.p, address.n);
    node->address[address.n] = '\0';
    return true;
}

static void take_flags(struct bytes text, struct node_line *node)
{
    static const struct {
        const char *name;
        unsigned flag;
    } names[] = {
        {"myself", NODE_MYSELF}, {"master", NODE_PRIMARY},      {"slave", NODE_REPLICA},     {"fail?", NODE_PFAIL},
        {"fail", NODE_FAIL},     {"handshake", NODE_HANDSHAKE}, {"noaddr", NODE_NO_ADDRESS},
    };
    while (text.n) {
        struct bytes word = cut(&text, ',');
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if (bytes_eq(word, bytes_of(names[i].name))) node->flags |= names[i].flag;
    }
}

static bool take_slot(struct bytes text, uint16_t *out)
{
    int64_t v;
    if (!parse_i64(text, &v) || v < 0 || v >= PLAN_SLOTS) return false;
    *out = (uint16_t)v;
    return true;
}

/* "5-7", "5", or "[5->-id]" of a slot on its way, which the owner's ranges hold already. */
static bool take_range(struct bytes text, struct cluster_view *v, struct node_line *node, size_t *room)
{
    if (text.n && text.p[0] == '[') return true;
    struct slot_range range;
    struct bytes first = cut(&text, '-');
    if (!take_slot(first, &range.first)) return false;
    range.last = range.first;
    if (text.n && !take_slot(text, &range.last)) return false;
    if (range.last < range.first) return false;
    if (v->range_count == *room) {
        *room = *room ? *room * 2 : 16;
        v->ranges = mem_realloc(v->ranges, *room * sizeof *v->ranges);
    }
    v->ranges[v->range_count++] = range;
    node->range_count++;
    return true;
}

/* "id address flags primary ping pong epoch link slots..." */
static bool take_line(struct bytes line, struct cluster_view *v, struct node_line *node, size_t *room)
{
    *node = (struct node_line){.first_range = v->range_count};
    if (!take_id(cut(&line, ' '), node->id) || !take_address(cut(&line, ' '), node)) return false;
    take_flags(cut(&line, ' '), node);
    struct bytes primary = cut(&line, ' ');
    if (!bytes_eq(primary, BYTES("-")) && !take_id(primary, node->primary)) return false;
    cut(&line, ' ');
    cut(&line, ' ');
    if (!parse_u64(cut(&line, ' '), &node->epoch)) return false;
    struct bytes link = cut(&line, ' ');
    node->connected = bytes_eq(link, BYTES("connected"));
    if (!node->connected && !bytes_eq(link, BYTES("disconnected"))) return false;
    while (line.n)
        if (!take_range(cut(&line, ' '), v, node, room)) return false;
    return true;
}

enum status view_parse(struct bytes text, struct cluster_view *out)
{
    *out = (struct cluster_view){0};
    size_t nodes_room = 0, ranges_room = 0, myself = SIZE_MAX;
    while (text.n) {
        struct bytes line = cut(&text, '\n');
        if (line.n && line.p[line.n - 1] == '\r') line.n--;
        if (!line.n) continue;
        if (out->n == nodes_room) {
            nodes_room = nodes_room ? nodes_room * 2 : 8;
            out->nodes = mem_realloc(out->nodes, nodes_room * sizeof *out->nodes);
        }
        if (!take_line(line, out, &out->nodes[out->n], &ranges_room)) break;
        if (out->nodes[out->n].flags & NODE_MYSELF) myself = out->n;
        out->n++;
        if (!text.n && myself != SIZE_MAX) {
            out->myself = &out->nodes[myself];
            return OK;
        }
    }
    view_deinit(out);
    return E_CORRUPT;
}

void view_deinit(struct cluster_view *v)
{
    mem_free(v->nodes);
    mem_free(v->ranges);
    *v = (struct cluster_view){0};
}

const struct node_line *view_find(const struct cluster_view *v, const char *id)
{
    for (size_t i = 0; i < v->n; i++)
        if (strcmp(v->nodes[i].id, id) == 0) return &v->nodes[i];
    return NULL;
}

size_t view_slots(const struct cluster_view *v, const struct node_line *node)
{
    size_t sum = 0;
    for (size_t i = 0; i < node->range_count; i++) {
        const struct slot_range *r = &v->ranges[node->first_range + i];
        sum += (size_t)(r->last - r->first) + 1;
    }
    return sum;
}

void view_print_slots(const struct cluster_view *v, const struct node_line *node, struct buf *out)
{
    if (!node->range_count) buf_append_char(out, '-');
    for (size_t i = 0; i < node->range_count; i++) {
        const struct slot_range *r = &v->ranges[node->first_range + i];
        if (i) buf_append_char(out, ' ');
        buf_printf(out, r->first == r->last ? "%d" : "%d-%d", r->first, r->last);
    }
}

struct bytes info_field(struct bytes text, const char *field)
{
    size_t length = strlen(field);
    while (text.n) {
        struct bytes line = cut(&text, '\n');
        if (line.n && line.p[line.n - 1] == '\r') line.n--;
        if (line.n > length && line.p[length] == ':' && memcmp(line.p, field, length) == 0)
            return (struct bytes){line.p + length + 1, line.n - length - 1};
    }
    return (struct bytes){"", 0};
}

/* ---- is it whole? ---- */

static bool is_well(const struct sample *s, int port, struct buf *why)
{
    if (!s->answered) {
        buf_printf(why, "%d does not answer yet", port);
    } else if (s->view.myself->flags & NODE_REPLICA && !s->link_up) {
        buf_printf(why, "%d is not in sync with its primary yet", port);
    } else if (!s->state_ok) {
        buf_printf(why, "%d says that the cluster is not ready", port);
    } else {
        return true;
    }
    return false;
}

/* Whether the sample's node sees the other one well. */
static bool sees(const struct sample *s, const struct sample *other, int port, int other_port, struct buf *why)
{
    const struct node_line *line = view_find(&s->view, other->view.myself->id);
    unsigned roles = NODE_PRIMARY | NODE_REPLICA;
    if (!line) {
        buf_printf(why, "%d does not know %d yet", port, other_port);
    } else if (line->flags & (NODE_FAIL | NODE_PFAIL | NODE_HANDSHAKE | NODE_NO_ADDRESS) || !line->connected) {
        buf_printf(why, "%d has no link to %d yet", port, other_port);
    } else if ((line->flags & roles) != (other->view.myself->flags & roles) ||
               strcmp(line->primary, other->view.myself->primary) != 0) {
        buf_printf(why, "%d has not heard of the role of %d yet", port, other_port);
    } else {
        return true;
    }
    return false;
}

/* Who owns each slot in a view: the line's number plus one, 0 for nobody. */
static void owners(const struct cluster_view *v, uint32_t owner[PLAN_SLOTS])
{
    memset(owner, 0, PLAN_SLOTS * sizeof *owner);
    for (size_t i = 0; i < v->n; i++)
        for (size_t r = 0; r < v->nodes[i].range_count; r++)
            for (unsigned slot = v->ranges[v->nodes[i].first_range + r].first;
                 slot <= v->ranges[v->nodes[i].first_range + r].last; slot++)
                owner[slot] = (uint32_t)i + 1;
}

static bool agree(const struct sample *samples, int n, int port, struct buf *why)
{
    uint32_t *first = mem_alloc(2 * PLAN_SLOTS * sizeof *first), *other = first + PLAN_SLOTS;
    bool whole = true;
    owners(&samples[0].view, first);
    for (int i = 0; i < n && whole; i++) {
        owners(&samples[i].view, other);
        for (int slot = 0; slot < PLAN_SLOTS && whole; slot++) {
            if (!other[slot]) {
                buf_printf(why, "slot %d is nobody's for %d", slot, port + i);
                whole = false;
            } else if (!first[slot] || strcmp(samples[0].view.nodes[first[slot] - 1].id,
                                              samples[i].view.nodes[other[slot] - 1].id) != 0) {
                buf_printf(why, "%d and %d do not agree yet on slot %d", port, port + i, slot);
                whole = false;
            }
        }
    }
    mem_free(first);
    return whole;
}

bool samples_whole(const struct sample *samples, int n, int port, struct buf *why)
{
    for (int i = 0; i < n; i++)
        if (!is_well(&samples[i], port + i, why)) return false;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            if (i != j && !sees(&samples[i], &samples[j], port + i, port + j, why)) return false;
    return agree(samples, n, port, why);
}
