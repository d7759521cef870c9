/* SETBIT, GETBIT, BITCOUNT, BITPOS and BITOP. */
#include "command/bitmap.h"

#include "base/mem.h"
#include "base/number.h"
#include "command/bits.h"
#include "command/string.h"

#include <assert.h>

bool bit_offset_parse(struct call *c, size_t arg, unsigned width, uint64_t *out)
{
    struct bytes text = c->argv[arg];
    int64_t at;
    bool counts_fields = width > 0 && text.n > 0 && text.p[0] == '#';
    if (counts_fields) text = bytes_make(text.p + 1, text.n - 1);
    bool ok = parse_i64(text, &at);
    /* The product may wrap, as it does in Redis. */
    if (ok && counts_fields) at = (int64_t)((uint64_t)at * width);
    bool trusted = c->flags & (CALL_FROM_PRIMARY | CALL_LOADING);
    if (ok && at >= 0 && (trusted || at >> 3 < c->env->options->proto_max_bulk_len)) {
        *out = (uint64_t)at;
        return true;
    }
    resp_error(&c->out, "ERR bit offset is not an integer or out of range");
    return false;
}

void cmd_setbit(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    uint64_t at;
    int64_t bit;
    if (!bit_offset_parse(c, 2, 0, &at)) return;
    if (!call_arg_range(c, 3, 0, 1, &bit, "ERR bit is not an integer or out of range")) return;
    if (!call_edit_type(c, &k, TYPE_STRING, &e)) return;
    bool grows = !e || entry_string_len(e) <= at / 8;
    char *p = string_open(c, &k, e, at / 8 + 1);
    if (!p) {
        resp_error(&c->out, ERR_OOM_VALUE);
        return;
    }
    unsigned char mask = (unsigned char)(0x80 >> at % 8);
    bool old = (unsigned char)p[at / 8] & mask;
    if (old != bit) p[at / 8] ^= (char)mask;
    if (grows || old != bit) call_changed(c, &k, NOTIFY_STRING, "setbit");
    resp_i64(&c->out, old);
}

void cmd_getbit(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    uint64_t at;
    char digits[24];
    if (!bit_offset_parse(c, 2, 0, &at) || !call_read_type(c, &k, TYPE_STRING, &e)) return;
    resp_i64(&c->out, e ? (int64_t)bits_get(entry_string(e, digits), at, 1) : 0);
}

/* ---- BITCOUNT and BITPOS ----------------------------------------------------------------------------------------- */

/* A range of bits, inclusive; start > end: empty. */
struct bit_range {
    int64_t start, end;
};

/* argv[arg ...]: start, end (unless there are `least` arguments only) and BYTE or BIT, of a string of n bytes. */
static bool range_parse(struct call *c, size_t arg, size_t n, struct bit_range *r)
{
    bool bits = false;
    int64_t start, end = -1;
    if (!call_arg_i64(c, arg, &start, NULL)) return false;
    bool has_end = arg + 1 < c->argc, has_unit = arg + 2 < c->argc;
    if (has_end && !call_arg_i64(c, arg + 1, &end, NULL)) return false;
    if (has_unit) bits = call_arg_is(c, arg + 2, "bit");
    if (has_unit && !bits && !call_arg_is(c, arg + 2, "byte")) {
        resp_error(&c->out, ERR_SYNTAX);
        return false;
    }
    int64_t total = (int64_t)n * (bits ? 8 : 1);
    if (start < 0) start = start + total < 0 ? 0 : start + total;
    if (end < 0) end = end + total < 0 ? 0 : end + total;
    if (end >= total) end = total - 1;
    *r = (struct bit_range){start, end};
    if (start > end) *r = (struct bit_range){1, 0};
    if (!bits && start <= end) *r = (struct bit_range){start * 8, end * 8 + 7};
    return true;
}

/* The bits of a byte before and behind those of the range, of which neither counts. */
static uint64_t count_range(struct bytes b, struct bit_range r)
{
    if (r.start > r.end) return 0;
    assert(r.start >= 0);
    uint64_t first = (uint64_t)r.start / 8, last = (uint64_t)r.end / 8;
    uint64_t n = bits_count(bytes_make(b.p + first, last - first + 1));
    unsigned before = (unsigned char)b.p[first] & ~(0xffu >> r.start % 8);
    unsigned behind = (unsigned char)b.p[last] & (0xffu >> 1 >> r.end % 8);
    return n - (unsigned)__builtin_popcount(before & 0xff) - (unsigned)__builtin_popcount(behind);
}

void cmd_bitcount(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    char digits[24];
    if (!call_read_type(c, &k, TYPE_STRING, &e)) return;
    if (!e) {
        resp_i64(&c->out, 0);
        return;
    }
    struct bytes b = entry_string(e, digits);
    struct bit_range r = {0, (int64_t)b.n * 8 - 1};
    if (c->argc == 3 || c->argc > 5) {
        resp_error(&c->out, ERR_SYNTAX);
        return;
    }
    int64_t start, end;
    bool backwards = c->argc > 3 && parse_i64(c->argv[2], &start) && parse_i64(c->argv[3], &end) && start < 0 &&
                     end < 0 && start > end;
    if (backwards) /* as in Redis: nobody looks at the unit */
        resp_i64(&c->out, 0);
    else if (c->argc == 2 || range_parse(c, 2, b.n, &r))
        resp_i64(&c->out, (int64_t)count_range(b, r));
}

/* The first bit equal to `bit` in the range, or -1. */
static int64_t find_in_range(struct bytes b, struct bit_range r, bool bit)
{
    while (r.start <= r.end && r.start % 8) {
        if (bits_get(b, (uint64_t)r.start, 1) == bit) return r.start;
        r.start++;
    }
    if (r.start > r.end) return -1;
    uint64_t first = (uint64_t)r.start / 8, last = (uint64_t)r.end / 8;
    int64_t at = r.start + (int64_t)bits_find(bytes_make(b.p + first, last - first + 1), bit);
    return at <= r.end ? at : -1;
}

void cmd_bitpos(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    int64_t bit;
    char digits[24];
    if (!call_arg_i64(c, 2, &bit, NULL)) return;
    if (bit != 0 && bit != 1) {
        resp_error(&c->out, "ERR The bit argument must be 1 or 0.");
        return;
    }
    if (!call_read_type(c, &k, TYPE_STRING, &e)) return;
    if (!e) {
        resp_i64(&c->out, bit ? -1 : 0);
        return;
    }
    struct bytes b = entry_string(e, digits);
    struct bit_range r = {0, (int64_t)b.n * 8 - 1};
    if (c->argc > 6) {
        resp_error(&c->out, ERR_SYNTAX);
        return;
    }
    int64_t start;
    if (c->argc == 6) { /* other than BITCOUNT it looks at the unit before the end */
        if (!call_arg_i64(c, 3, &start, NULL)) return;
        if (!call_arg_is(c, 5, "bit") && !call_arg_is(c, 5, "byte")) {
            resp_error(&c->out, ERR_SYNTAX);
            return;
        }
    }
    if (c->argc > 3 && !range_parse(c, 3, b.n, &r)) return;
    int64_t at = find_in_range(b, r, bit);
    /* Without an end, the string goes on with zeros for ever. */
    if (at < 0 && !bit && c->argc < 5 && r.start <= r.end) at = (int64_t)b.n * 8;
    resp_i64(&c->out, at);
}

/* ---- BITOP ------------------------------------------------------------------------------------------------------- */

static bool operation_parse(struct call *c, enum bits_op *op)
{
    static const char *const names[] = {[BITS_AND] = "and", [BITS_OR] = "or", [BITS_XOR] = "xor", [BITS_NOT] = "not"};
    for (int i = BITS_AND; i <= BITS_NOT; i++) {
        if (!call_arg_is(c, 1, names[i])) continue;
        *op = (enum bits_op)i;
        if (*op != BITS_NOT || c->argc == 4) return true;
        resp_error(&c->out, "ERR BITOP NOT must be called with a single source key.");
        return false;
    }
    resp_error(&c->out, ERR_SYNTAX);
    return false;
}

typedef char digits_of[24];

/* The n strings at argv[3 ...]; returns the length of the longest, -1 after replying an error. */
static int64_t inputs(struct call *c, size_t n, struct bytes *in, digits_of *digits)
{
    size_t longest = 0;
    for (size_t i = 0; i < n; i++) {
        struct key k = call_key(c, 3 + i);
        struct entry *e;
        if (!call_read_type(c, &k, TYPE_STRING, &e)) return -1;
        in[i] = e ? entry_string(e, digits[i]) : BYTES("");
        if (in[i].n > longest) longest = in[i].n;
    }
    return (int64_t)longest;
}

/* Fresh memory for a large result costs more than the operation (the kernel clears it page by page).  So what stands
 * at the destination is overwritten, if it is as long and nobody else's.  NULL: it is not. */
static char *room_at_destination(struct call *c, const struct key *k, size_t size)
{
    enum { IN_PLACE_MIN = 32 * 1024 };
    struct entry *e = size < IN_PLACE_MIN ? NULL : call_peek(c, k);
    if (!e || entry_type(e) != TYPE_STRING || entry_has_ttl(e) || entry_string_len(e) != size) return NULL;
    return entry_raw_bytes(store_edit(c->env->store, c->db, k));
}

/* An input that is overwritten has to be read first, and once: it goes to the front.  False: it comes twice. */
static bool order_inputs(struct bytes *in, size_t n, const char *out)
{
    size_t seen = 0;
    for (size_t i = 0; i < n; i++) {
        if (in[i].p != out) continue;
        struct bytes first = in[0];
        in[0] = in[i];
        in[i] = first;
        seen++;
    }
    return seen < 2;
}

static void combined(struct call *c, const struct key *k, size_t size)
{
    call_changed(c, k, NOTIFY_STRING, "set");
    resp_i64(&c->out, (int64_t)size);
}

static void store_combined(struct call *c, enum bits_op op, struct bytes *in, size_t n, size_t size)
{
    struct key k = call_key(c, 2);
    char *out;
    if (size == 0) {
        if (call_delete(c, &k)) {
            call_changed(c, &k, NOTIFY_GENERIC, "del");
        }
        resp_i64(&c->out, 0);
        return;
    }
    out = room_at_destination(c, &k, size);
    if (out && order_inputs(in, n, out)) {
        bits_combine(op, in, n, out, size);
        combined(c, &k, size);
        return;
    }
    struct entry *e = entry_try_new_room(k.name, size, &out);
    if (!e) {
        resp_error(&c->out, ERR_OOM_VALUE);
        return;
    }
    bits_combine(op, in, n, out, size);
    call_peek(c, &k); /* an expired key is deleted before it is replaced */
    call_put(c, &k, e);
    combined(c, &k, size);
}

void cmd_bitop(struct call *c)
{
    enum bits_op op;
    if (!operation_parse(c, &op)) return;
    size_t n = c->argc - 3;
    struct bytes *in = mem_alloc(n * sizeof *in);
    digits_of *digits = mem_alloc(n * sizeof *digits);
    int64_t size = inputs(c, n, in, digits);
    if (size >= 0) store_combined(c, op, in, n, (size_t)size);
    mem_free(in);
    mem_free(digits);
}
