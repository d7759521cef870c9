#include "store/stream.h"

#include "base/mem.h"
#include "base/number.h"
#include "store/listpack.h"

/* An entry's flags are one byte of its listpack: an integer up to 127 is its own encoding. */
enum { FLAG_DELETED = 1, FLAG_SAME_FIELDS = 2, FIELDS_ON_STACK = 32, NEEDLES_MORE = 8, EFFORT_ENOUGH = 4096 };

/* ---- ids ----------------------------------------------------------------------------------------------------------*/

bool stream_id_next(struct stream_id *id)
{
    if (id->seq == UINT64_MAX && id->ms == UINT64_MAX) return false;
    if (++id->seq == 0) id->ms++;
    return true;
}

bool stream_id_prev(struct stream_id *id)
{
    if (stream_id_is_zero(*id)) return false;
    if (id->seq-- == 0) id->ms--;
    return true;
}

size_t stream_id_format(char out[STREAM_ID_TEXT_MAX], struct stream_id id)
{
    size_t n = format_u64(out, id.ms);
    out[n++] = '-';
    return n + format_u64(out + n, id.seq);
}

/* ---- nodes --------------------------------------------------------------------------------------------------------*/

static void node_free(struct tree_ref *r)
{
    struct stream_node *node = (struct stream_node *)r;
    mem_free(node->lp);
    mem_free(node);
}

/* Takes lp. */
static struct stream_node *node_new(struct stream_id id, uint8_t *lp)
{
    struct stream_node *node = mem_alloc(sizeof *node);
    tree_ref_init(&node->ref, node_free);
    node->id = id;
    node->lp = lp;
    return node;
}

static struct tree_ref *node_clone(const struct tree_ref *r)
{
    const struct stream_node *node = (const struct stream_node *)r;
    mem_must_begin();
    uint8_t *lp = lp_try_copy(lp_blob(node->lp));
    mem_must_end();
    if (!lp) mem_abort(lp_bytes(node->lp));
    return &node_new(node->id, lp)->ref;
}

static int64_t get_int(const uint8_t *at)
{
    int64_t v = 0;
    bool is_int = lp_get_int(at, &v);
    assert(is_int);
    (void)is_int;
    return v;
}

struct master {
    int64_t count, deleted;
    size_t fields;
    const uint8_t *first_field; /* or the 0 behind them */
};

static struct master master_of(const uint8_t *lp)
{
    struct master m;
    const uint8_t *at = lp_first(lp);
    m.count = get_int(at);
    m.deleted = get_int(at = lp_next(lp, at));
    m.fields = (size_t)get_int(at = lp_next(lp, at));
    m.first_field = lp_next(lp, at);
    return m;
}

static const uint8_t *skip(const uint8_t *lp, const uint8_t *at, size_t n)
{
    while (n--) at = lp_next(lp, at);
    return at;
}

static void master_set(uint8_t **lp, int64_t count, int64_t deleted)
{
    const uint8_t *at = lp_first(*lp);
    lp_set_int(lp, &at, count);
    at = lp_next(*lp, at);
    if (get_int(at) != deleted) lp_set_int(lp, &at, deleted);
}

static bool same_fields(const uint8_t *lp, const struct master *m, const struct lp_needle *pairs, size_t n)
{
    if (m->fields != n) return false;
    const uint8_t *at = m->first_field;
    for (size_t i = 0; i < n; i++, at = lp_next(lp, at))
        if (!lp_equal(at, &pairs[2 * i])) return false;
    return true;
}

static struct lp_needle int_needle(int64_t v)
{
    return (struct lp_needle){.number = v, .is_int = true};
}

/* Appends an entry; out has room for 2 * n + 5. */
static bool entry_append(uint8_t **lp, struct stream_id node, struct stream_id id, bool same,
                         const struct lp_needle *pairs, size_t n, struct lp_needle *out)
{
    size_t k = 0;
    out[k++] = int_needle(same ? FLAG_SAME_FIELDS : 0);
    out[k++] = int_needle((int64_t)(id.ms - node.ms));
    out[k++] = int_needle((int64_t)(id.seq - node.seq));
    if (!same) out[k++] = int_needle((int64_t)n);
    for (size_t i = 0; i < n; i++) {
        if (!same) out[k++] = pairs[2 * i];
        out[k++] = pairs[2 * i + 1];
    }
    out[k] = int_needle((int64_t)k);
    return lp_append_needles(lp, out, k + 1);
}

/* A listpack with a head for these fields and the one entry; NULL: memory is out. */
static uint8_t *node_begin(struct stream_id id, const struct lp_needle *pairs, size_t n, struct lp_needle *scratch)
{
    uint8_t *lp = lp_new();
    size_t k = 0;
    scratch[k++] = int_needle(1);
    scratch[k++] = int_needle(0);
    scratch[k++] = int_needle((int64_t)n);
    for (size_t i = 0; i < n; i++) scratch[k++] = pairs[2 * i];
    scratch[k++] = int_needle(0);
    if (lp_append_needles(&lp, scratch, k) && entry_append(&lp, id, id, true, pairs, n, scratch)) return lp;
    mem_free(lp);
    return NULL;
}

/* ---- the stream ---------------------------------------------------------------------------------------------------*/

struct stream *stream_new(void)
{
    return mem_calloc(1, sizeof(struct stream));
}

struct entry *stream_entry_new(struct bytes key)
{
    return entry_new_word(key, TYPE_STREAM, ENC_STREAM, stream_new());
}

void stream_free(struct stream *s)
{
    if (s->nodes) tree_free(s->nodes);
    if (s->groups) tree_free(s->groups);
    if (s->tail) tree_ref_drop(&s->tail->ref);
    mem_free(s);
}

static struct tree *forked(const struct tree *t)
{
    if (!t) return NULL;
    struct tree *fork = mem_alloc(sizeof *fork);
    tree_fork(t, fork);
    return fork;
}

struct stream *stream_fork(const struct stream *s)
{
    struct stream *fork = mem_alloc(sizeof *fork);
    *fork = *s;
    fork->nodes = forked(s->nodes);
    fork->groups = forked(s->groups);
    if (s->tail) tree_ref_share(&s->tail->ref);
    return fork;
}

size_t stream_node_count(const struct stream *s)
{
    return (s->tail ? 1 : 0) + (s->nodes ? s->nodes->count : 0);
}

size_t stream_free_effort(const struct stream *s)
{
    size_t effort = 1 + stream_node_count(s);
    struct tree_pos pos;
    if (!s->groups || !tree_at(s->groups, 0, &pos)) return effort;
    do {
        const struct stream_group *g = stream_group_at(s, &pos, NULL);
        effort += 1 + g->pending.nodes + g->consumers.count;
    } while (effort < EFFORT_ENOUGH && tree_next(&pos));
    return effort;
}

static size_t group_memory(const struct stream_group *g, size_t samples)
{
    size_t sum = mem_size(g) + tree_memory(&g->pending, samples) + tree_memory(&g->consumers, samples);
    size_t seen = 0, bytes = 0;
    struct tree_pos pos;
    if (!tree_at(&g->consumers, 0, &pos)) return sum;
    do {
        const struct stream_consumer *c = stream_consumer_at(g, &pos);
        bytes += mem_size(c) + mem_size(c->name) + tree_memory(&c->pending, samples);
        seen++;
    } while ((samples == 0 || seen < samples) && tree_next(&pos));
    return sum + (size_t)((double)bytes * (double)g->consumers.count / (double)seen);
}

static size_t groups_memory(const struct stream *s, size_t samples)
{
    struct tree_pos pos;
    size_t sum = mem_size(s->groups) + tree_memory(s->groups, samples);
    if (!tree_at(s->groups, 0, &pos)) return sum;
    do sum += group_memory(stream_group_at(s, &pos, NULL), samples);
    while (tree_next(&pos));
    return sum;
}

static size_t nodes_memory(const struct stream *s, size_t samples)
{
    struct tree_pos pos;
    size_t sum = mem_size(s->nodes) + tree_memory(s->nodes, samples), bytes = 0, seen = 0;
    if (!tree_at(s->nodes, 0, &pos)) return sum;
    do {
        const struct stream_node *node = (const struct stream_node *)tree_ref_at(&pos);
        bytes += mem_size(node) + mem_size(node->lp);
        seen++;
    } while ((samples == 0 || seen < samples) && tree_next(&pos));
    return sum + (size_t)((double)bytes * (double)s->nodes->count / (double)seen);
}

size_t stream_memory(const struct stream *s, size_t samples)
{
    size_t n = 0;
    if (s->tail) n += mem_size(s->tail) + mem_size(s->tail->lp);
    if (s->nodes) n += nodes_memory(s, samples);
    if (s->groups) n += groups_memory(s, samples);
    return n;
}

/* ---- places: a node, in the tree or the tail ----------------------------------------------------------------------*/

struct place {
    struct stream_node *node; /* NULL: none */
    bool in_tail;
    struct tree_pos pos;
};

static bool place_tail(const struct stream *s, struct place *p)
{
    p->node = s->tail;
    p->in_tail = true;
    return p->node != NULL;
}

static bool place_pos(struct place *p)
{
    p->node = (struct stream_node *)tree_ref_at(&p->pos);
    p->in_tail = false;
    return true;
}

static bool place_first(const struct stream *s, struct place *p)
{
    if (!s->nodes || !tree_at(s->nodes, 0, &p->pos)) return place_tail(s, p);
    return place_pos(p);
}

/* The last node that begins at or before id; the first one when none does. */
static bool place_seek(const struct stream *s, struct stream_id id, struct place *p)
{
    if (!s->tail || !s->nodes || !s->nodes->count || stream_id_cmp(s->tail->id, id) <= 0) return place_tail(s, p);
    struct stream_id_key key = stream_id_key(id);
    if (!tree_lower_bound(s->nodes, id.ms, bytes_make(key.b, sizeof key.b), &p->pos)) {
        tree_at(s->nodes, s->nodes->count - 1, &p->pos);
    } else if (stream_id_cmp(((struct stream_node *)tree_ref_at(&p->pos))->id, id) > 0 && !tree_prev(&p->pos)) {
        tree_at(s->nodes, 0, &p->pos);
    }
    return place_pos(p);
}

/* The node of p for editing. */
static struct stream_node *place_own(struct stream *s, struct place *p)
{
    if (!p->in_tail) {
        p->node = (struct stream_node *)tree_ref_own(s->nodes, &p->pos, node_clone);
    } else if (tree_ref_is_shared(&s->tail->ref)) {
        struct stream_node *copy = (struct stream_node *)node_clone(&s->tail->ref);
        tree_ref_drop(&s->tail->ref);
        p->node = s->tail = copy;
    }
    return p->node;
}

static void nodes_cut(struct stream *s, struct tree_pos *pos)
{
    tree_remove_pos(s->nodes, pos);
    if (s->nodes->count) return;
    tree_free(s->nodes);
    s->nodes = NULL;
}

static void place_remove(struct stream *s, struct place *p)
{
    if (!p->in_tail) {
        nodes_cut(s, &p->pos);
        return;
    }
    struct tree_pos pos;
    tree_ref_drop(&s->tail->ref);
    s->tail = NULL;
    if (!s->nodes || !tree_at(s->nodes, s->nodes->count - 1, &pos)) return;
    s->tail = (struct stream_node *)tree_ref_share(tree_ref_at(&pos));
    nodes_cut(s, &pos);
}

const struct stream_node *stream_node_next(const struct stream *s, struct stream_node_iter *it)
{
    if (it->done) return NULL;
    bool more = s->nodes && (it->started ? tree_next(&it->pos) : tree_at(s->nodes, 0, &it->pos));
    it->started = true;
    if (more) return (const struct stream_node *)tree_ref_at(&it->pos);
    it->done = true;
    return s->tail;
}

/* ---- adding -------------------------------------------------------------------------------------------------------*/

static bool is_full(const uint8_t *lp, const struct master *m, size_t more, const struct store_limits *lim)
{
    size_t bytes_max = lim->stream_node_max_bytes;
    if (bytes_max == 0 || bytes_max > STREAM_NODE_BYTES_MAX) bytes_max = STREAM_NODE_BYTES_MAX;
    if (lp_bytes(lp) + more >= bytes_max) return true;
    return lim->stream_node_max_entries && (uint64_t)(m->count + m->deleted) >= lim->stream_node_max_entries;
}

/* Puts node (taken) behind all others; false: memory is out. */
static void push_node(struct stream *s, struct stream_node *node)
{
    if (s->tail) {
        struct stream_id_key key = stream_id_key(s->tail->id);
        if (!s->nodes) s->nodes = tree_new(TREE_REFS);
        bool ok = tree_ref_insert(s->nodes, s->tail->id.ms, bytes_make(key.b, sizeof key.b), &s->tail->ref);
        assert(ok); /* the key is short */
        (void)ok;
    }
    s->tail = node;
}

static enum status append_needles(struct stream *s, struct stream_id id, const struct lp_needle *pairs, size_t n,
                                  size_t bytes, struct lp_needle *scratch, const struct store_limits *lim)
{
    struct master m;
    if (s->tail) m = master_of(s->tail->lp);
    if (!s->tail || is_full(s->tail->lp, &m, bytes, lim)) {
        uint8_t *lp = node_begin(id, pairs, n, scratch);
        if (!lp) return E_NOMEM;
        push_node(s, node_new(id, lp));
        return OK;
    }
    struct place p = {.node = s->tail, .in_tail = true};
    struct stream_node *node = place_own(s, &p);
    m = master_of(node->lp);
    if (!entry_append(&node->lp, node->id, id, same_fields(node->lp, &m, pairs, n), pairs, n, scratch)) return E_NOMEM;
    const uint8_t *at = lp_first(node->lp);
    lp_set_int(&node->lp, &at, m.count + 1);
    return OK;
}

enum status stream_append(struct stream *s, struct stream_id id, const struct bytes *texts, size_t n,
                          const struct store_limits *lim)
{
    struct lp_needle stack[4 * FIELDS_ON_STACK + NEEDLES_MORE], *needles = stack;
    size_t bytes = 0;
    assert(stream_id_cmp(id, s->last_id) > 0);
    for (size_t i = 0; i < 2 * n; i++) {
        bytes += texts[i].n;
        if (bytes > STREAM_NODE_BYTES_MAX) return E_TOO_BIG;
    }
    if (n > FIELDS_ON_STACK) {
        needles = mem_try_alloc((4 * n + NEEDLES_MORE) * sizeof *needles);
        if (!needles) return E_NOMEM;
    }
    for (size_t i = 0; i < 2 * n; i++) needles[i] = lp_needle(texts[i]);
    enum status st = append_needles(s, id, needles, n, bytes, needles + 2 * n, lim);
    if (needles != stack) mem_free(needles);
    if (st != OK) return st;
    s->entries_added++;
    s->last_id = id;
    if (s->length++ == 0) s->first_id = id;
    return OK;
}

/* ---- walking ------------------------------------------------------------------------------------------------------*/

/* The head of the entry whose flags stand at `flags`: sets up the walk over its fields. */
static int64_t enter_entry(struct stream_iter *it, const uint8_t *flags, struct stream_id *id)
{
    const uint8_t *lp = it->node->lp, *at = flags;
    int64_t bits = get_int(at);
    it->flags = flags;
    at = lp_next(lp, at);
    id->ms = it->node->id.ms + (uint64_t)get_int(at);
    at = lp_next(lp, at);
    id->seq = it->node->id.seq + (uint64_t)get_int(at);
    it->at = lp_next(lp, at);
    it->same_fields = bits & FLAG_SAME_FIELDS;
    if (it->same_fields) {
        it->left_fields = it->left = it->node_fields;
        it->field = it->node_field;
    } else {
        it->left_fields = (size_t)get_int(it->at);
        it->left = 2 * it->left_fields;
        it->at = lp_next(lp, it->at);
    }
    return bits;
}

static void enter_node(struct stream_iter *it, const struct place *p)
{
    it->node = p->node;
    it->in_tail = p->in_tail;
    if (!p->in_tail) it->pos = p->pos;
    it->flags = NULL;
    struct master m = master_of(p->node->lp);
    it->node_fields = m.fields;
    it->node_field = m.first_field;
}

void stream_iter_init(struct stream_iter *it, const struct stream *s, struct stream_id start, struct stream_id end,
                      bool reverse)
{
    struct place p;
    it->s = s;
    it->start = start;
    it->end = end;
    it->reverse = reverse;
    it->node = NULL;
    if (stream_id_cmp(start, end) > 0 || !s->length || stream_id_cmp(start, s->last_id) > 0) return;
    if (place_seek(s, reverse ? end : start, &p)) enter_node(it, &p);
}

static bool next_node(struct stream_iter *it)
{
    struct place p;
    bool there;
    if (it->reverse) {
        if (it->in_tail)
            there = it->s->nodes && tree_at(it->s->nodes, it->s->nodes->count - 1, &it->pos);
        else
            there = tree_prev(&it->pos);
    } else if (it->in_tail) {
        there = false;
    } else if (!(there = tree_next(&it->pos))) {
        place_tail(it->s, &p);
        enter_node(it, &p);
        return true;
    }
    it->node = NULL;
    if (!there) return false;
    p.pos = it->pos;
    place_pos(&p);
    enter_node(it, &p);
    return true;
}

/* The flags of the node's next entry in the direction of the walk; NULL when it has no more. */
static const uint8_t *next_flags(struct stream_iter *it)
{
    const uint8_t *lp = it->node->lp;
    if (!it->reverse) {
        if (it->flags) return lp_next(lp, skip(lp, it->at, it->left));
        return lp_next(lp, skip(lp, it->node_field, it->node_fields));
    }
    const uint8_t *at = it->flags ? lp_prev(lp, it->flags) : lp_last(lp);
    int64_t back = get_int(at);
    while (at && back-- > 0) {
        at = lp_prev(lp, at);
        if (back == 0) return at;
    }
    return NULL;
}

bool stream_iter_next(struct stream_iter *it, struct stream_id *id, size_t *fields)
{
    while (it->node) {
        const uint8_t *flags = next_flags(it);
        if (!flags) {
            if (!next_node(it)) return false;
            continue;
        }
        int64_t bits = enter_entry(it, flags, id);
        if (it->reverse ? stream_id_cmp(*id, it->start) < 0 : stream_id_cmp(*id, it->end) > 0) break;
        if (bits & FLAG_DELETED) continue;
        if (it->reverse ? stream_id_cmp(*id, it->end) > 0 : stream_id_cmp(*id, it->start) < 0) continue;
        if (fields) *fields = it->left_fields;
        return true;
    }
    it->node = NULL;
    return false;
}

void stream_iter_field(struct stream_iter *it, struct element *field, struct element *value)
{
    const uint8_t *lp = it->node->lp;
    assert(it->left > 0);
    if (it->same_fields) {
        lp_get(it->field, field);
        it->field = lp_next(lp, it->field);
    } else {
        lp_get(it->at, field);
        it->at = lp_next(lp, it->at);
        it->left--;
    }
    lp_get(it->at, value);
    it->at = lp_next(lp, it->at);
    it->left--;
}

bool stream_has(const struct stream *s, struct stream_id id)
{
    struct stream_iter it;
    struct stream_id found;
    stream_iter_init(&it, s, id, id, false);
    return stream_iter_next(&it, &found, NULL);
}

static bool edge(const struct stream *s, bool last, struct stream_id *id)
{
    struct stream_iter it;
    stream_iter_init(&it, s, STREAM_ID_MIN, STREAM_ID_MAX, last);
    if (stream_iter_next(&it, id, NULL)) return true;
    *id = STREAM_ID_MIN;
    return false;
}

bool stream_first(const struct stream *s, struct stream_id *id)
{
    return edge(s, false, id);
}

bool stream_last(const struct stream *s, struct stream_id *id)
{
    return edge(s, true, id);
}

void stream_update_first(struct stream *s)
{
    stream_first(s, &s->first_id);
}

/* ---- removing -----------------------------------------------------------------------------------------------------*/

bool stream_delete(struct stream *s, struct stream_id id)
{
    struct stream_iter it;
    struct stream_id found;
    stream_iter_init(&it, s, id, id, false);
    if (!stream_iter_next(&it, &found, NULL)) return false;
    struct place p = {.node = (struct stream_node *)(uintptr_t)it.node, .in_tail = it.in_tail};
    if (!it.in_tail) p.pos = it.pos;
    struct master m = master_of(it.node->lp);
    s->length--;
    if (m.count == 1) {
        place_remove(s, &p);
        return true;
    }
    size_t offset = (size_t)(it.flags - it.node->lp);
    struct stream_node *node = place_own(s, &p);
    node->lp[offset] |= FLAG_DELETED;
    master_set(&node->lp, m.count - 1, m.deleted + 1);
    return true;
}

/* The id of the last entry of a node, deleted or not. */
static struct stream_id node_last_id(const struct stream_node *node)
{
    const uint8_t *at = lp_last(node->lp);
    int64_t back = get_int(at);
    while (back-- > 0) at = lp_prev(node->lp, at);
    at = lp_next(node->lp, at);
    struct stream_id id = {node->id.ms + (uint64_t)get_int(at), 0};
    id.seq = node->id.seq + (uint64_t)get_int(lp_next(node->lp, at));
    return id;
}

static bool keeps(const struct stream *s, const struct stream_trim *trim, struct stream_id id)
{
    return trim->by_id ? stream_id_cmp(id, trim->min_id) >= 0 : s->length <= trim->max_length;
}

/* Marks entries of a node that is not removed whole. */
static uint64_t trim_inside(struct stream *s, const struct stream_trim *trim, struct place *p)
{
    struct stream_iter it = {.s = s};
    uint64_t removed = 0;
    struct stream_node *node = place_own(s, p);
    struct master m = master_of(node->lp);
    enter_node(&it, p);
    for (const uint8_t *flags; (flags = next_flags(&it));) {
        struct stream_id id;
        int64_t bits = enter_entry(&it, flags, &id);
        if (keeps(s, trim, id)) break;
        if (bits & FLAG_DELETED) continue;
        node->lp[flags - node->lp] |= FLAG_DELETED;
        s->length--;
        removed++;
    }
    if (removed) master_set(&node->lp, m.count - (int64_t)removed, m.deleted + (int64_t)removed);
    return removed;
}

uint64_t stream_trim(struct stream *s, const struct stream_trim *trim)
{
    uint64_t removed = 0;
    struct place p;
    while (place_first(s, &p)) {
        if (!trim->by_id && s->length <= trim->max_length) break;
        uint64_t entries = (uint64_t)master_of(p.node->lp).count;
        if (trim->limit && removed + entries > trim->limit) break;
        bool whole = trim->by_id ? stream_id_cmp(node_last_id(p.node), trim->min_id) < 0
                                 : s->length - entries >= trim->max_length;
        if (whole) {
            place_remove(s, &p);
            s->length -= entries;
            removed += entries;
            continue;
        }
        if (!trim->approximate) removed += trim_inside(s, trim, &p);
        break;
    }
    if (removed || !s->length) stream_update_first(s);
    return removed;
}

/* ---- how far a group is -------------------------------------------------------------------------------------------*/

bool stream_has_gap_from(const struct stream *s, struct stream_id id)
{
    if (!s->length || stream_id_is_zero(s->max_deleted_id)) return false;
    if (stream_id_cmp(s->first_id, s->max_deleted_id) > 0) return false; /* all that is left is newer */
    return stream_id_cmp(id, s->max_deleted_id) <= 0;
}

int64_t stream_distance(const struct stream *s, struct stream_id id)
{
    if (!s->entries_added) return 0;
    int last = stream_id_cmp(id, s->last_id), first = stream_id_cmp(id, s->first_id);
    if (!s->length && last <= 0) return (int64_t)s->entries_added;
    if (last >= 0) return last == 0 ? (int64_t)s->entries_added : STREAM_READ_UNKNOWN;
    bool gap_behind_first = stream_id_cmp(s->max_deleted_id, s->first_id) >= 0;
    if (first > 0 || (gap_behind_first && !stream_id_is_zero(s->max_deleted_id))) return STREAM_READ_UNKNOWN;
    return (int64_t)(s->entries_added - s->length) + (first == 0);
}

/* ---- nodes from outside -------------------------------------------------------------------------------------------*/

/* An integer element of a listpack that is valid as such; *at goes on to the next one (NULL at the end). */
static bool take_int(const uint8_t *lp, const uint8_t **at, int64_t *v)
{
    if (!*at || !lp_get_int(*at, v)) return false;
    *at = lp_next(lp, *at);
    return true;
}

static bool take_many(const uint8_t *lp, const uint8_t **at, int64_t n)
{
    while (n-- > 0) {
        if (!*at) return false;
        *at = lp_next(lp, *at);
    }
    return true;
}

struct node_check {
    struct stream_id node, last; /* last: of the entry before */
    bool any;
    int64_t fields, seen, deleted;
};

/* Flags stand in one byte, which removing an entry changes in place. */
static bool check_entry(const uint8_t *lp, const uint8_t **at, struct node_check *c)
{
    int64_t flags, ms, seq, fields = c->fields, back, elements;
    if (**at > (FLAG_DELETED | FLAG_SAME_FIELDS) || !take_int(lp, at, &flags)) return false;
    if (!take_int(lp, at, &ms) || !take_int(lp, at, &seq)) return false;
    struct stream_id id = {c->node.ms + (uint64_t)ms, c->node.seq + (uint64_t)seq};
    if (stream_id_cmp(id, c->node) < 0 || (c->any && stream_id_cmp(id, c->last) <= 0)) return false;
    bool same = flags & FLAG_SAME_FIELDS;
    if (!same && (!take_int(lp, at, &fields) || fields < 0 || fields > STREAM_NODE_BYTES_MAX)) return false;
    elements = same ? fields + 3 : 2 * fields + 4;
    if (!take_many(lp, at, same ? fields : 2 * fields)) return false;
    if (!take_int(lp, at, &back) || back != elements) return false;
    c->last = id;
    c->any = true;
    c->seen++;
    if (flags & FLAG_DELETED) c->deleted++;
    return true;
}

/* All entries may be marked: XTRIM MINID leaves such a node when its last one was removed before. */
static bool check_node(const uint8_t *lp, struct node_check *c)
{
    int64_t count, deleted, zero;
    const uint8_t *at = lp_first(lp);
    if (!take_int(lp, &at, &count) || !take_int(lp, &at, &deleted) || !take_int(lp, &at, &c->fields)) return false;
    if (count < 0 || deleted < 0 || c->fields < 0 || c->fields > STREAM_NODE_BYTES_MAX) return false;
    if (!take_many(lp, &at, c->fields) || !take_int(lp, &at, &zero) || zero != 0) return false;
    while (at)
        if (!check_entry(lp, &at, c)) return false;
    return c->deleted == deleted && c->seen - c->deleted == count;
}

enum status stream_add_node(struct stream *s, struct stream_id id, struct bytes blob)
{
    struct node_check c = {.node = id};
    if (blob.n > LP_BYTES_MAX || !lp_is_valid(blob, NULL) || !check_node((const uint8_t *)blob.p, &c)) return E_CORRUPT;
    if (s->tail && stream_id_cmp(node_last_id(s->tail), id) >= 0) return E_CORRUPT;
    uint8_t *lp = lp_try_copy(blob);
    if (!lp) return E_NOMEM;
    push_node(s, node_new(id, lp));
    s->length += (uint64_t)(c.seen - c.deleted);
    return OK;
}
