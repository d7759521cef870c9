/* SORT and SORT_RO.
 *
 * Texts are borrowed from the values they come from, which nothing changes while the command runs; only what a value
 * keeps as an integer is copied.  BY and GET patterns lead to keys of any slot, so they need the server at rest. */
#include "base/mem.h"
#include "command/call.h"
#include "store/hash.h"
#include "store/listtype.h"
#include "store/set.h"
#include "store/zset.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* Short texts that have no other owner; freed all at once. */
struct arena {
    struct chunk *chunks;
    size_t used;
};
enum { CHUNK_BYTES = 4096 - 16 };
struct chunk {
    struct chunk *next;
    char data[CHUNK_BYTES];
};

struct item {
    struct bytes text;
    bool has_by;     /* the BY pattern led somewhere */
    struct bytes by; /* ALPHA: what is compared */
    double score;    /* else */
    size_t order;    /* in the value, so that equal elements keep it */
};

struct sort {
    struct call *c;
    bool desc, alpha, read_only;
    bool dont_sort;  /* BY without '*' */
    struct bytes by; /* n 0: by the element itself */
    bool has_by;
    int64_t offset, count; /* LIMIT; count -1: all */
    size_t store_arg;      /* 0: none */
    size_t *get_args;      /* owned */
    size_t gets;
    bool patterns; /* other keys are looked at */

    struct item *items; /* owned */
    size_t n;
    size_t first, end; /* the items [first, end) are the result */
    bool not_a_number;
    struct arena arena;
};

static struct bytes arena_copy(struct arena *a, struct bytes text)
{
    assert(text.n <= 24);
    if (!a->chunks || a->used + text.n > CHUNK_BYTES) {
        struct chunk *chunk = mem_alloc(sizeof *chunk);
        chunk->next = a->chunks;
        a->chunks = chunk;
        a->used = 0;
    }
    char *to = a->chunks->data + a->used;
    if (text.n) memcpy(to, text.p, text.n);
    a->used += text.n;
    return bytes_make(to, text.n);
}

/* The text so that it outlives `digits` (24 bytes), where it may be. */
static struct bytes keep(struct sort *s, struct bytes text, const char *digits)
{
    bool inside = (uintptr_t)text.p >= (uintptr_t)digits && (uintptr_t)text.p < (uintptr_t)digits + 24;
    return inside ? arena_copy(&s->arena, text) : text;
}

static void sort_deinit(struct sort *s)
{
    for (struct chunk *chunk = s->arena.chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        mem_free(chunk);
    }
    mem_free(s->get_args);
    mem_free(s->items);
}

/* ---- Arguments --------------------------------------------------------------------------------------------------- */

static bool denied(struct call *c, const char *option)
{
    if (c->env->cluster_enabled && !(c->flags & CALL_ALL_SLOTS)) {
        resp_errorf(&c->out, "ERR %s option of SORT denied in Cluster mode.", option);
        return true;
    }
    if (!(c->flags & CALL_KEYS_LIMITED)) return false;
    resp_errorf(&c->out, "ERR %s option of SORT denied due to insufficient ACL permissions.", option);
    return true;
}

static bool has_star(struct bytes pattern)
{
    return pattern.n && memchr(pattern.p, '*', pattern.n);
}

static bool parse_by(struct sort *s, struct bytes pattern)
{
    s->by = pattern;
    s->has_by = true;
    if (!has_star(pattern)) {
        s->dont_sort = true;
        return true;
    }
    s->patterns = true;
    return !denied(s->c, "BY");
}

static bool parse_get(struct sort *s, size_t arg)
{
    s->get_args[s->gets++] = arg;
    if (has_star(s->c->argv[arg])) s->patterns = true;
    return !denied(s->c, "GET");
}

/* False: the error was replied. */
static bool parse(struct sort *s)
{
    struct call *c = s->c;
    for (size_t i = 2; i < c->argc; i++) {
        size_t left = c->argc - i - 1;
        if (call_arg_is(c, i, "asc")) {
            s->desc = false;
        } else if (call_arg_is(c, i, "desc")) {
            s->desc = true;
        } else if (call_arg_is(c, i, "alpha")) {
            s->alpha = true;
        } else if (call_arg_is(c, i, "limit") && left >= 2) {
            if (!call_arg_i64(c, i + 1, &s->offset, NULL) || !call_arg_i64(c, i + 2, &s->count, NULL)) return false;
            i += 2;
        } else if (call_arg_is(c, i, "store") && left >= 1 && !s->read_only) {
            s->store_arg = ++i;
        } else if (call_arg_is(c, i, "by") && left >= 1) {
            if (!parse_by(s, c->argv[++i])) return false;
        } else if (call_arg_is(c, i, "get") && left >= 1) {
            if (!parse_get(s, ++i)) return false;
        } else {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
    }
    return true;
}

/* ---- Patterns ---------------------------------------------------------------------------------------------------- */

static bool read_field(struct sort *s, const struct entry *e, struct bytes field, struct bytes *out)
{
    struct element value;
    if (entry_type(e) != TYPE_HASH || !hash_get(e, field, &value)) return false;
    *out = keep(s, value.text, value.digits);
    return true;
}

static bool read_string(struct sort *s, const struct entry *e, struct bytes *out)
{
    char digits[24];
    if (entry_type(e) != TYPE_STRING) return false;
    *out = keep(s, entry_string(e, digits), digits);
    return true;
}

/* What a pattern leads to for one element: "#" to itself, "a*b" to a string, "a*b->f" to the field f of a hash.  False:
 * to nothing. */
static bool follow(struct sort *s, struct bytes pattern, struct bytes element, struct bytes *out)
{
    if (bytes_eq(pattern, BYTES("#"))) {
        *out = element;
        return true;
    }
    const char *star = pattern.n ? memchr(pattern.p, '*', pattern.n) : NULL;
    if (!star) return false;
    struct bytes tail = bytes_make(star + 1, (size_t)(pattern.p + pattern.n - star - 1)), field = {0};
    const char *arrow = memmem(tail.p, tail.n, "->", 2);
    if (arrow && arrow + 2 < tail.p + tail.n) {
        field = bytes_make(arrow + 2, (size_t)(tail.p + tail.n - arrow - 2));
        tail.n = (size_t)(arrow - tail.p);
    }
    struct buf name = {0};
    buf_append(&name, pattern.p, (size_t)(star - pattern.p));
    buf_append_bytes(&name, element);
    buf_append_bytes(&name, tail);
    struct key k = key_of(buf_bytes(&name));
    const struct entry *e = call_read(s->c, &k);
    bool found = e && (field.n ? read_field(s, e, field, out) : read_string(s, e, out));
    buf_deinit(&name);
    return found;
}

/* ---- Elements ---------------------------------------------------------------------------------------------------- */

static size_t value_length(const struct entry *e)
{
    if (!e) return 0;
    switch (entry_type(e)) {
    case TYPE_LIST: return list_len(e);
    case TYPE_SET: return set_len(e);
    default: return zset_len(e);
    }
}

static void add_item(struct sort *s, const struct element *element)
{
    struct item *item = &s->items[s->n];
    *item = (struct item){.text = keep(s, element->text, element->digits), .order = s->n};
    s->n++;
}

/* Takes `count` elements of the value from position `from` on, counted from its end when sorting is off but DESC is
 * given.  The order of sets is their own, whatever is asked. */
static void load_items(struct sort *s, const struct entry *e, size_t from, size_t count)
{
    struct element element;
    bool reverse = s->dont_sort && s->desc;
    if (count == 0) return;
    if (entry_type(e) == TYPE_LIST) {
        struct list_iter it;
        list_iter_init(&it, e, reverse ? list_len(e) - 1 - from : from, reverse);
        while (s->n < count && list_iter_next(&it, &element, NULL)) add_item(s, &element);
    } else if (entry_type(e) == TYPE_ZSET) {
        struct zset_iter it;
        zset_iter_init(&it, e, reverse ? zset_len(e) - 1 - from : from, reverse);
        while (s->n < count && zset_iter_next(&it, &element, NULL)) add_item(s, &element);
    } else {
        struct set_iter it;
        set_iter_init(&it, e);
        for (size_t skipped = 0; s->n < count && set_iter_next(&it, &element);)
            if (skipped++ >= from) add_item(s, &element);
    }
}

/* strtod() over the text, as generous as Redis: leading space and nothing at all are fine. */
static bool lenient_double(struct bytes text, double *out)
{
    char small[128], *end;
    bool fits = text.n < sizeof small;
    char *copy = fits ? small : mem_try_alloc(text.n + 1);
    if (!copy) return false;
    if (text.n) memcpy(copy, text.p, text.n);
    copy[text.n] = '\0';
    errno = 0;
    *out = strtod(copy, &end);
    bool ok = *end == '\0' && errno != ERANGE && !isnan(*out);
    if (!fits) mem_free(copy);
    return ok;
}

/* What the items are compared by. */
static void load_weights(struct sort *s)
{
    for (size_t i = 0; i < s->n; i++) {
        struct item *item = &s->items[i];
        item->has_by = !s->has_by || follow(s, s->by, item->text, &item->by);
        if (!item->has_by) continue;
        if (!s->has_by) item->by = item->text;
        if (!s->alpha && !lenient_double(item->by, &item->score)) s->not_a_number = true;
    }
}

static int compare_weights(const struct sort *s, const struct item *a, const struct item *b)
{
    if (!s->alpha) {
        if (a->score != b->score) return a->score < b->score ? -1 : 1;
        return bytes_cmp(a->text, b->text);
    }
    if (!a->has_by || !b->has_by) return a->has_by - b->has_by;
    return bytes_cmp(a->by, b->by);
}

static int compare_items(const void *pa, const void *pb, void *ctx)
{
    const struct sort *s = ctx;
    const struct item *a = pa, *b = pb;
    int by_weight = compare_weights(s, a, b);
    if (by_weight) return s->desc ? -by_weight : by_weight;
    return a->order < b->order ? -1 : 1;
}

/* Redis turns a sorted set into a skiplist before it sorts it, whatever its size, and leaves it so: clients can see
 * that (OBJECT ENCODING, DUMP).  False: the error was replied. */
static bool make_skiplist(struct sort *s, const struct key *k, const struct entry **e)
{
    if (entry_enc(*e) == ENC_SKIPLIST) return true;
    struct entry *edited = call_edit(s->c, k);
    *e = edited;
    if (edited && zset_make_skiplist(edited) == OK) return true;
    resp_error(&s->c->out, ERR_OOM_VALUE);
    return false;
}

/* Where LIMIT begins and ends in a value of n elements. */
static void apply_limit(struct sort *s, size_t n)
{
    s->first = s->offset < 0 ? 0 : (uint64_t)s->offset < n ? (size_t)s->offset : n;
    s->end = s->count < 0 || (uint64_t)s->count > n - s->first ? n : s->first + (size_t)s->count;
}

/* Fills items and [first, end); false: the error was replied. */
static bool select_items(struct sort *s, const struct entry *e)
{
    size_t n = value_length(e);
    apply_limit(s, n);
    size_t from = s->dont_sort ? s->first : 0, take = s->dont_sort ? s->end - s->first : n;
    if (take == 0) {
        s->first = s->end = 0;
        return true;
    }
    s->items = take <= SIZE_MAX / sizeof *s->items ? mem_try_alloc(take * sizeof *s->items) : NULL;
    if (!s->items) {
        resp_error(&s->c->out, ERR_OOM_VALUE);
        return false;
    }
    load_items(s, e, from, take);
    if (s->dont_sort) {
        s->first = 0;
        s->end = s->n;
        return true;
    }
    load_weights(s);
    if (s->not_a_number) {
        resp_error(&s->c->out, "ERR One or more scores can't be converted into double");
        return false;
    }
    qsort_r(s->items, s->n, sizeof *s->items, compare_items, s);
    return true;
}

/* ---- Result ------------------------------------------------------------------------------------------------------ */

/* Calls emit with each value of the result; found is false for a GET that leads nowhere. */
static bool each_result(struct sort *s, bool (*emit)(void *ctx, struct bytes text, bool found), void *ctx)
{
    for (size_t i = s->first; i < s->end; i++) {
        struct bytes element = s->items[i].text;
        if (s->gets == 0 && !emit(ctx, element, true)) return false;
        for (size_t g = 0; g < s->gets; g++) {
            struct bytes value = {0};
            bool found = follow(s, s->c->argv[s->get_args[g]], element, &value);
            if (!emit(ctx, value, found)) return false;
        }
    }
    return true;
}

static size_t result_length(const struct sort *s)
{
    return (s->end - s->first) * (s->gets ? s->gets : 1);
}

static bool reply_one(void *ctx, struct bytes text, bool found)
{
    struct call *c = ctx;
    if (found)
        resp_bulk(&c->out, text);
    else
        resp_null(&c->out);
    return true;
}

struct storing {
    struct entry *list;
    const struct store_limits *limits;
};

static bool store_one(void *ctx, struct bytes text, bool found)
{
    struct storing *to = ctx;
    return list_push(to->list, LIST_TAIL, found ? text : BYTES(""), to->limits) == OK;
}

/* Replicas and logs of a cluster's node do not take patterns: they get what was stored. */
static void log_result(struct sort *s, const struct key *k, const struct entry *list)
{
    enum { PIECE = 512 };
    struct call *c = s->c;
    struct bytes argv[2 + PIECE] = {BYTES("RPUSH"), k->name};
    char digits[PIECE][24];
    struct list_iter it;
    size_t n = 0;
    call_effect_delete(c, k->name, false);
    list_iter_init(&it, list, 0, false);
    for (struct element e; list_iter_next(&it, &e, NULL);) {
        bool inside = e.text.p >= e.digits && e.text.p < e.digits + sizeof e.digits;
        if (inside) memcpy(digits[n], e.digits, e.text.n);
        argv[2 + n] = inside ? bytes_make(digits[n], e.text.n) : e.text;
        if (++n < PIECE) continue;
        call_effect(c, 2 + n, argv);
        n = 0;
    }
    if (n) call_effect(c, 2 + n, argv);
}

static void store_result(struct sort *s)
{
    struct call *c = s->c;
    struct key k = call_key(c, s->store_arg);
    size_t n = result_length(s);
    if (n) {
        struct storing to = {list_new(k.name), &c->env->options->limits};
        if (!each_result(s, store_one, &to)) {
            entry_free(to.list);
            resp_error(&c->out, ERR_OOM_VALUE);
            return;
        }
        call_peek(c, &k);         /* an expired key is deleted before it is replaced */
        call_put(c, &k, to.list); /* the old value may be what was sorted: borrowed texts are over */
        call_changed(c, &k, NOTIFY_LIST, "sortstore");
        c->dirty += n - 1;
        if (s->patterns && c->env->cluster_enabled) log_result(s, &k, to.list);
    } else if (call_delete(c, &k)) {
        call_changed(c, &k, NOTIFY_GENERIC, "del");
        if (s->patterns && c->env->cluster_enabled) call_effect_delete(c, k.name, false);
    }
    resp_i64(&c->out, (int64_t)n);
}

static bool sortable(const struct entry *e)
{
    return entry_type(e) == TYPE_LIST || entry_type(e) == TYPE_SET || entry_type(e) == TYPE_ZSET;
}

static void run_sort(struct sort *s)
{
    struct call *c = s->c;
    if (!parse(s)) return;
    if (s->patterns && !call_exclusive(c)) return;
    struct key k = call_key(c, 1);
    const struct entry *e = call_read(c, &k);
    if (e && !sortable(e)) {
        resp_error(&c->out, ERR_WRONGTYPE);
        return;
    }
    /* A set has no order of its own that a replica would have too, so what is stored is sorted after all. */
    if (s->dont_sort && s->store_arg && e && entry_type(e) == TYPE_SET) {
        s->dont_sort = s->has_by = false;
        s->alpha = true;
    }
    if (e && entry_type(e) == TYPE_ZSET && !make_skiplist(s, &k, &e)) return;
    if (!select_items(s, e)) return;
    if (s->store_arg) {
        store_result(s);
    } else {
        resp_array(&c->out, result_length(s));
        each_result(s, reply_one, c);
    }
}

static void sort_command(struct call *c, bool read_only)
{
    struct sort s = {.c = c, .read_only = read_only, .count = -1};
    s.get_args = mem_alloc(c->argc * sizeof *s.get_args);
    run_sort(&s);
    sort_deinit(&s);
}

void cmd_sort(struct call *c)
{
    sort_command(c, false);
}

void cmd_sort_ro(struct call *c)
{
    sort_command(c, true);
}
