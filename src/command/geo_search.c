/* GEOSEARCH, GEOSEARCHSTORE, GEORADIUS, GEORADIUSBYMEMBER and their _RO forms. */
#include "base/mem.h"
#include "command/geo.h"
#include "command/zset_result.h"
#include "store/zset.h"

#include <stdlib.h>

enum form { SEARCH, SEARCH_STORE, RADIUS, RADIUS_MEMBER };
enum order { ANY_ORDER, ASCENDING, DESCENDING };

struct search {
    enum form form;
    bool read_only; /* no STORE */
    size_t source_arg;
    const struct entry *e; /* NULL: no such key */

    struct geo_shape shape;
    double unit; /* in meters */
    bool from_member, from_point, by_radius, by_box;
    bool with_dist, with_hash, with_point;
    bool any;
    enum order order;
    int64_t count;    /* 0: all */
    size_t store_arg; /* 0: reply */
    bool store_dist;
};

/* ---- Arguments --------------------------------------------------------------------------------------------------- */

static bool searches(const struct search *s)
{
    return s->form == SEARCH || s->form == SEARCH_STORE;
}

static bool length_parse(struct call *c, size_t arg, const char *error, double *out)
{
    return call_arg_double(c, arg, out, error);
}

static bool radius_parse(struct call *c, size_t arg, struct search *s)
{
    if (!length_parse(c, arg, "ERR need numeric radius", &s->shape.radius)) return false;
    if (s->shape.radius < 0) {
        resp_error(&c->out, "ERR radius cannot be negative");
        return false;
    }
    return geo_unit_parse(c, arg + 1, &s->unit);
}

static bool box_parse(struct call *c, size_t arg, struct search *s)
{
    if (!length_parse(c, arg, "ERR need numeric width", &s->shape.width)) return false;
    if (!length_parse(c, arg + 1, "ERR need numeric height", &s->shape.height)) return false;
    if (s->shape.width < 0 || s->shape.height < 0) {
        resp_error(&c->out, "ERR height or width cannot be negative");
        return false;
    }
    s->shape.box = true;
    return geo_unit_parse(c, arg + 2, &s->unit);
}

static bool member_parse(struct call *c, size_t arg, struct search *s)
{
    if (geo_member(s->e, c->argv[arg], &s->shape.center)) return true;
    resp_error(&c->out, "ERR could not decode requested zset member");
    return false;
}

static bool count_parse(struct call *c, size_t arg, struct search *s)
{
    if (!call_arg_i64(c, arg, &s->count, NULL)) return false;
    if (s->count > 0) return true;
    resp_error(&c->out, "ERR COUNT must be > 0");
    return false;
}

/* A word by itself; false: it is none. */
static bool flag_option(const struct call *c, size_t arg, struct search *s)
{
    if (call_arg_is(c, arg, "withdist"))
        s->with_dist = true;
    else if (call_arg_is(c, arg, "withhash"))
        s->with_hash = true;
    else if (call_arg_is(c, arg, "withcoord"))
        s->with_point = true;
    else if (call_arg_is(c, arg, "any"))
        s->any = true;
    else if (call_arg_is(c, arg, "asc"))
        s->order = ASCENDING;
    else if (call_arg_is(c, arg, "desc"))
        s->order = DESCENDING;
    else if (s->form == SEARCH_STORE && call_arg_is(c, arg, "storedist"))
        s->store_dist = true;
    else
        return false;
    return true;
}

/* STORE and STOREDIST of the older commands, each with its key. */
static bool store_option(const struct call *c, size_t arg, struct search *s)
{
    bool dist = call_arg_is(c, arg, "storedist");
    if (searches(s) || s->read_only || (!dist && !call_arg_is(c, arg, "store"))) return false;
    s->store_dist = dist;
    s->store_arg = arg + 1;
    return true;
}

/* Takes the option at argv[arg]: returns how many arguments it has, 0 after an error reply. */
static size_t option_parse(struct call *c, size_t arg, struct search *s)
{
    size_t more = c->argc - arg - 1;
    if (flag_option(c, arg, s)) return 1;
    if (more >= 1 && call_arg_is(c, arg, "count")) return count_parse(c, arg + 1, s) ? 2 : 0;
    if (more >= 1 && store_option(c, arg, s)) return 2;
    if (searches(s) && more >= 1 && !s->from_point && call_arg_is(c, arg, "frommember")) {
        s->from_member = true;
        /* Without a source nothing is looked up; the rest of the arguments still decides about the reply. */
        return !s->e || member_parse(c, arg + 1, s) ? 2 : 0;
    }
    if (searches(s) && more >= 2 && !s->from_member && call_arg_is(c, arg, "fromlonlat")) {
        s->from_point = true;
        return geo_point_parse(c, arg + 1, &s->shape.center) ? 3 : 0;
    }
    if (searches(s) && more >= 2 && !s->by_box && call_arg_is(c, arg, "byradius")) {
        s->by_radius = true;
        return radius_parse(c, arg + 1, s) ? 3 : 0;
    }
    if (searches(s) && more >= 3 && !s->by_radius && call_arg_is(c, arg, "bybox")) {
        s->by_box = true;
        return box_parse(c, arg + 1, s) ? 4 : 0;
    }
    resp_error(&c->out, ERR_SYNTAX);
    return 0;
}

/* What does not go together; false: replied. */
static bool consistent(struct call *c, const struct search *s)
{
    int n = c->argv[0].n < 64 ? (int)c->argv[0].n : 64;
    const char *name = c->argv[0].p;
    if (s->store_arg && (s->with_dist || s->with_hash || s->with_point))
        resp_errorf(&c->out, "ERR %s is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
                    s->form == SEARCH_STORE ? "GEOSEARCHSTORE" : "STORE option in GEORADIUS");
    else if (searches(s) && !s->from_member && !s->from_point)
        resp_errorf(&c->out, "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for %.*s", n, name);
    else if (searches(s) && !s->by_radius && !s->by_box)
        resp_errorf(&c->out, "ERR exactly one of BYRADIUS and BYBOX can be specified for %.*s", n, name);
    else if (s->any && !s->count)
        resp_error(&c->out, "ERR the ANY argument requires COUNT argument");
    else
        return true;
    return false;
}

static bool arguments_parse(struct call *c, struct search *s)
{
    size_t arg = s->source_arg + 1;
    if (s->form == RADIUS) {
        if (!geo_point_parse(c, 2, &s->shape.center) || !radius_parse(c, 4, s)) return false;
        arg = 6;
    } else if (s->form == RADIUS_MEMBER) {
        if (s->e && (!member_parse(c, 2, s) || !radius_parse(c, 3, s))) return false;
        arg = 5;
    }
    while (arg < c->argc) {
        size_t taken = option_parse(c, arg, s);
        if (!taken) return false;
        arg += taken;
    }
    s->shape.radius *= s->unit;
    s->shape.width *= s->unit;
    s->shape.height *= s->unit;
    return consistent(c, s);
}

/* ---- Finding ----------------------------------------------------------------------------------------------------- */

struct place {
    struct geo_point point;
    double distance;
    size_t item; /* of the result with member and score */
};

struct found {
    struct zset_result members;
    struct place *places; /* owned; in the order found, then sorted */
    size_t n, cap;
};

static enum status found_add(struct found *f, const struct element *member, double score, struct geo_point p,
                             double distance)
{
    if (f->n == f->cap) {
        size_t cap = f->cap ? f->cap * 2 : 16;
        struct place *places = mem_try_realloc(f->places, cap * sizeof *places);
        if (!places) return E_NOMEM;
        f->places = places;
        f->cap = cap;
    }
    if (zset_result_add(&f->members, member, score) != OK) return E_NOMEM;
    f->places[f->n] = (struct place){p, distance, f->n};
    f->n++;
    return OK;
}

/* limit 0: none. */
static enum status find_in_cell(const struct search *s, struct geo_range cell, uint64_t limit, struct found *f)
{
    struct zset_score_range range = {.min = cell.min, .max = cell.max, .max_exclusive = true};
    struct zset_iter it;
    struct element member;
    double score, distance;
    uint64_t first, end;
    zset_ranks_by_score(s->e, &range, &first, &end);
    zset_iter_init(&it, s->e, first, false);
    for (; first < end && zset_iter_next(&it, &member, &score); first++) {
        struct geo_point p = geo_decode(score);
        if (!geo_within(&s->shape, p, &distance)) continue;
        if (found_add(f, &member, score, p, distance) != OK) return E_NOMEM;
        if (limit && f->n >= limit) break;
    }
    return OK;
}

static enum status find_all(const struct search *s, struct found *f)
{
    struct geo_range cells[GEO_CELLS_MAX];
    unsigned n = geo_cover(&s->shape, cells);
    uint64_t limit = s->any ? (uint64_t)s->count : 0;
    for (unsigned i = 0; i < n && (!limit || f->n < limit); i++)
        if (find_in_cell(s, cells[i], limit, f) != OK) return E_NOMEM;
    return OK;
}

/* ---- Sorting ----------------------------------------------------------------------------------------------------- */

static int nearer(const struct place *a, const struct place *b, enum order order)
{
    int cmp = a->distance < b->distance ? -1 : a->distance > b->distance;
    return order == DESCENDING ? -cmp : cmp;
}

/* A whole sort keeps the order of equal distances. */
static int compare_up(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    int cmp = nearer(x, y, ASCENDING);
    return cmp ? cmp : x->item < y->item ? -1 : x->item > y->item;
}

static int compare_down(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    int cmp = nearer(x, y, DESCENDING);
    return cmp ? cmp : x->item < y->item ? -1 : x->item > y->item;
}

static void swap(struct place *p, size_t i, size_t j)
{
    struct place t = p[i];
    p[i] = p[j];
    p[j] = t;
}

static size_t median(const struct place *p, size_t a, size_t b, size_t c, enum order order)
{
    if (nearer(&p[a], &p[b], order) < 0) {
        if (nearer(&p[b], &p[c], order) < 0) return b;
        return nearer(&p[a], &p[c], order) < 0 ? c : a;
    }
    if (nearer(&p[b], &p[c], order) > 0) return b;
    return nearer(&p[a], &p[c], order) < 0 ? a : c;
}

static size_t pivot(const struct place *p, size_t n, enum order order)
{
    size_t low = 0, middle = n / 2, high = n - 1;
    if (n == 7) return middle;
    if (n > 40) {
        size_t d = n / 8;
        low = median(p, low, low + d, low + 2 * d, order);
        middle = median(p, middle - d, middle, middle + d, order);
        high = median(p, high - 2 * d, high - d, high, order);
    }
    return median(p, low, middle, high, order);
}

static void swap_blocks(struct place *p, size_t i, size_t j, size_t n)
{
    for (; n > 0; n--) swap(p, i++, j++);
}

/* Splits p[0 .. n) into nearer, equal and farther than the pivot; gives the sizes of the first and the last part. */
static void partition(struct place *p, size_t n, enum order order, size_t *nearer_n, size_t *farther_n)
{
    swap(p, 0, pivot(p, n, order));
    /* Equal ones gather at both ends: [0, a) and (d, n). */
    size_t a = 1, b = 1, c = n - 1, d = n - 1;
    for (;;) {
        int cmp;
        for (; b <= c && (cmp = nearer(&p[b], &p[0], order)) <= 0; b++)
            if (cmp == 0) swap(p, a++, b);
        for (; b <= c && (cmp = nearer(&p[c], &p[0], order)) >= 0; c--)
            if (cmp == 0) swap(p, c, d--);
        if (b > c) break;
        swap(p, b++, c--);
    }
    size_t left = a < b - a ? a : b - a, right = d - c < n - 1 - d ? d - c : n - 1 - d;
    swap_blocks(p, 0, b - left, left);
    swap_blocks(p, b, n - right, right);
    *nearer_n = b - a;
    *farther_n = d - c;
}

/* Brings the nearest `want` to the front, in order; the quicksort of Bentley and McIlroy ("Engineering a sort
 * function", 1993) as Redis uses it, because what it does to equal distances can be seen. */
static void sort_front(struct place *p, size_t n, size_t want, enum order order)
{
    while (n >= 7) {
        size_t left, right;
        partition(p, n, order, &left, &right);
        if (left > 1) sort_front(p, left, want, order);
        if (right <= 1 || n - right >= want) return;
        p += n - right;
        want -= n - right;
        n = right;
    }
    for (size_t i = 1; i < n; i++)
        for (size_t j = i; j > 0 && nearer(&p[j - 1], &p[j], order) > 0; j--) swap(p, j, j - 1);
}

static size_t sort_found(const struct search *s, struct found *f)
{
    size_t n = s->count && (uint64_t)s->count < f->n ? (size_t)s->count : f->n;
    enum order order = s->order == ANY_ORDER && s->count && !s->any ? ASCENDING : s->order;
    if (order == ANY_ORDER || n == 0) return n;
    if (n == f->n)
        qsort(f->places, n, sizeof *f->places, order == ASCENDING ? compare_up : compare_down);
    else
        sort_front(f->places, f->n, n, order);
    return n;
}

/* ---- Results ----------------------------------------------------------------------------------------------------- */

static void reply_found(struct call *c, const struct search *s, const struct found *f, size_t n)
{
    size_t parts = 1 + s->with_dist + s->with_hash + s->with_point;
    resp_array(&c->out, n);
    for (size_t i = 0; i < n; i++) {
        const struct place *p = &f->places[i];
        const struct scored *member = &f->members.items[p->item];
        if (parts > 1) resp_array(&c->out, parts);
        resp_bulk(&c->out, member->member);
        if (s->with_dist) geo_reply_distance(c, p->distance / s->unit);
        if (s->with_hash) resp_i64(&c->out, (int64_t)member->score);
        if (s->with_point) geo_reply_point(c, p->point);
    }
}

static void store_found(struct call *c, const struct search *s, const struct found *f, size_t n)
{
    struct zset_result out = {0};
    struct key k = call_key(c, s->store_arg);
    for (size_t i = 0; i < n; i++) {
        const struct place *p = &f->places[i];
        const struct scored *member = &f->members.items[p->item];
        struct element text;
        text.text = member->member;
        if (zset_result_add(&out, &text, s->store_dist ? p->distance / s->unit : member->score) == OK) continue;
        resp_error(&c->out, ERR_OOM_VALUE);
        zset_result_deinit(&out);
        return;
    }
    zset_result_sort(&out);
    zset_result_store(c, &k, &out, searches(s) ? "geosearchstore" : "georadiusstore", n);
    zset_result_deinit(&out);
}

/* The table finds the first STORE only, the last one counts: then its key's slot may not be locked.  False: the handler
 * returns. */
static bool store_key_held(struct call *c, const struct search *s)
{
    if (!s->store_arg) return true;
    struct key k = call_key(c, s->store_arg);
    for (size_t i = 0; i < c->key_count; i++)
        if (c->keys[i].slot == k.slot) return true;
    if (!c->env->cluster_enabled) return call_exclusive(c);
    resp_error(&c->out, "CROSSSLOT Keys in request don't hash to the same slot");
    return false;
}

static void run(struct call *c, const struct search *s)
{
    struct found f = {{0}};
    enum status status = s->e ? find_all(s, &f) : OK;
    if (status != OK) {
        resp_error(&c->out, ERR_OOM_VALUE);
    } else {
        size_t n = sort_found(s, &f);
        if (s->store_arg)
            store_found(c, s, &f, n);
        else
            reply_found(c, s, &f, n);
    }
    mem_free(f.places);
    zset_result_deinit(&f.members);
}

static void search(struct call *c, enum form form, bool read_only)
{
    struct search s = {.form = form, .read_only = read_only, .unit = 1, .source_arg = form == SEARCH_STORE ? 2 : 1};
    struct entry *e;
    struct key k = call_key(c, s.source_arg);
    if (form == SEARCH_STORE) s.store_arg = 1;
    if (!call_read_type(c, &k, TYPE_ZSET, &e)) return;
    s.e = e;
    if (arguments_parse(c, &s) && store_key_held(c, &s)) run(c, &s);
}

void cmd_geosearch(struct call *c)
{
    search(c, SEARCH, true);
}

void cmd_geosearchstore(struct call *c)
{
    search(c, SEARCH_STORE, false);
}

void cmd_georadius(struct call *c)
{
    search(c, RADIUS, false);
}

void cmd_georadius_ro(struct call *c)
{
    search(c, RADIUS, true);
}

void cmd_georadiusbymember(struct call *c)
{
    search(c, RADIUS_MEMBER, false);
}

void cmd_georadiusbymember_ro(struct call *c)
{
    search(c, RADIUS_MEMBER, true);
}
