/* SCAN and KEYS: walks over the slots, one slot's lock at a time.
 *
 * SCAN's cursor is the slot in its low 14 bits and the cursor inside that slot's table above them, so the guarantee of
 * table_scan() (what is there all the time is seen) holds for the database as well. */
#include "command/scan.h"

#include "base/glob.h"
#include "base/number.h"

#include <errno.h>
#include <stdlib.h>

enum { CURSOR_TEXT_MAX = 128, CURSOR_SLOT_BITS = 14, SCAN_COUNT_DEFAULT = 10, BUCKETS_PER_COUNT = 10 };
static_assert(SLOT_COUNT == 1 << CURSOR_SLOT_BITS, "every slot has its number in a cursor");

/* ---- Shared by all scans ----------------------------------------------------------------------------------------- */

bool scan_parse_cursor(struct call *c, size_t arg, struct scan_options *o)
{
    /* As strtoul() reads it: clients have been seen to send what only it accepts. */
    char text[CURSOR_TEXT_MAX], *end;
    struct bytes b = c->argv[arg];
    *o = (struct scan_options){.count = SCAN_COUNT_DEFAULT};
    bool ok = b.n < sizeof text && !(b.n && (b.p[0] == ' ' || (b.p[0] >= '\t' && b.p[0] <= '\r')));
    if (ok) {
        if (b.n) memcpy(text, b.p, b.n);
        text[b.n] = '\0';
        errno = 0;
        o->cursor = strtoull(text, &end, 10);
        ok = *end == '\0' && errno != ERANGE;
    }
    if (!ok) resp_error(&c->out, "ERR invalid cursor");
    return ok;
}

bool scan_parse_options(struct call *c, size_t arg, bool with_type, struct scan_options *o)
{
    for (size_t i = arg; i < c->argc; i += 2) {
        int64_t count;
        bool has_value = i + 1 < c->argc;
        if (has_value && call_arg_is(c, i, "count")) {
            if (!call_arg_i64(c, i + 1, &count, NULL)) return false;
            if (count < 1) {
                resp_error(&c->out, ERR_SYNTAX);
                return false;
            }
            o->count = (size_t)count;
        } else if (has_value && call_arg_is(c, i, "match")) {
            o->pattern = c->argv[i + 1];
            o->has_pattern = !bytes_eq(o->pattern, BYTES("*"));
        } else if (has_value && with_type && call_arg_is(c, i, "type")) {
            o->type = c->argv[i + 1];
            o->has_type = true;
        } else {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
    }
    return true;
}

bool scan_matches(const struct scan_options *o, struct bytes name)
{
    return !o->has_pattern || glob_match(o->pattern, name, false);
}

struct scan_reply scan_reply_begin(struct call *c)
{
    return (struct scan_reply){c, c->out.buf->n, 0};
}

void scan_reply_add(struct scan_reply *r, struct bytes element)
{
    resp_bulk(&r->c->out, element);
    r->n++;
}

void scan_reply_end(struct scan_reply *r, uint64_t cursor)
{
    /* The header is known last but stands first: it is written behind the elements, then the two change places. */
    struct buf *b = r->c->out.buf;
    size_t elements = b->n - r->mark;
    char digits[24], header[96];
    resp_array(&r->c->out, 2);
    resp_bulk(&r->c->out, bytes_make(digits, format_u64(digits, cursor)));
    resp_array(&r->c->out, r->n);
    size_t n = b->n - r->mark - elements;
    assert(n <= sizeof header);
    memcpy(header, b->p + r->mark + elements, n);
    memmove(b->p + r->mark + n, b->p + r->mark, elements);
    memcpy(b->p + r->mark, header, n);
}

void scan_reply_empty(struct call *c)
{
    struct scan_reply r = scan_reply_begin(c);
    scan_reply_end(&r, 0);
}

bool walk_allowed(struct call *c)
{
    return !(c->flags & CALL_IN_EXEC) || call_exclusive(c);
}

bool walk_shows(const struct call *c, const struct entry *e)
{
    return !entry_has_ttl(e) || entry_expire_at(e) > c->now_ms || (c->flags & (CALL_FROM_PRIMARY | CALL_LOADING));
}

/* ---- SCAN -------------------------------------------------------------------------------------------------------- */

struct key_walk {
    struct scan_reply reply;
    const struct scan_options *options;
};

static void visit_key(void *ctx, struct entry *e)
{
    struct key_walk *w = ctx;
    struct bytes name = entry_key(e);
    if (!scan_matches(w->options, name) || !walk_shows(w->reply.c, e)) return;
    if (w->options->has_type && !bytes_ieq(w->options->type, bytes_of(type_name(entry_type(e))))) return;
    scan_reply_add(&w->reply, name);
}

/* Goes on from *inside in a slot that is not empty; visits at most *buckets buckets and stops at count keys. */
static void walk_slot(struct call *c, struct key_walk *w, unsigned slot, uint64_t *inside, uint64_t *buckets)
{
    call_lock_slot(c, slot);
    do {
        *inside = store_scan_slot(c->env->store, c->db, slot, *inside, visit_key, w);
        (*buckets)--;
    } while (*inside && *buckets && w->reply.n < w->options->count);
    call_unlock_slot(c, slot);
}

void cmd_scan(struct call *c)
{
    struct scan_options o;
    if (!walk_allowed(c) || !scan_parse_cursor(c, 1, &o) || !scan_parse_options(c, 2, true, &o)) return;
    struct key_walk w = {scan_reply_begin(c), &o};
    unsigned slot = o.cursor & (SLOT_COUNT - 1);
    uint64_t inside = o.cursor >> CURSOR_SLOT_BITS;
    uint64_t buckets = o.count > UINT64_MAX / BUCKETS_PER_COUNT ? UINT64_MAX : o.count * BUCKETS_PER_COUNT;
    while (slot < SLOT_COUNT && buckets && w.reply.n < o.count) {
        if (store_slot_count(c->env->store, c->db, slot))
            walk_slot(c, &w, slot, &inside, &buckets);
        else
            inside = 0;
        if (!inside) slot++;
    }
    scan_reply_end(&w.reply, slot < SLOT_COUNT ? inside << CURSOR_SLOT_BITS | slot : 0);
}

/* ---- KEYS -------------------------------------------------------------------------------------------------------- */

void cmd_keys(struct call *c)
{
    if (!walk_allowed(c)) return;
    struct scan_options o = {.pattern = c->argv[1], .has_pattern = !bytes_eq(c->argv[1], BYTES("*"))};
    struct key_walk w = {scan_reply_begin(c), &o};
    size_t mark = resp_defer(&c->out);
    for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
        if (!store_slot_count(c->env->store, c->db, slot)) continue;
        uint64_t cursor = 0;
        call_lock_slot(c, slot);
        do cursor = store_scan_slot(c->env->store, c->db, slot, cursor, visit_key, &w);
        while (cursor);
        call_unlock_slot(c, slot);
    }
    resp_defer_array(&c->out, mark, w.reply.n);
}
