/* BITFIELD and BITFIELD_RO. */
#include "base/mem.h"
#include "base/number.h"
#include "command/bitmap.h"
#include "command/bits.h"
#include "command/collection.h"
#include "command/string.h"

#include <assert.h>

enum opcode { OP_GET, OP_SET, OP_INCRBY };
enum overflow { WRAP, SATURATE, FAIL };

struct field {
    uint64_t at;
    unsigned width; /* signed: 1 .. 64, unsigned: 1 .. 63 */
    bool is_signed;
};

struct operation {
    enum opcode op;
    enum overflow overflow;
    struct field field;
    int64_t number; /* of SET and INCRBY */
};

struct program {
    struct operation *ops; /* owned */
    size_t n;
    bool writes;
    uint64_t last_bit; /* the highest that is written */
};

/* ---- Arguments --------------------------------------------------------------------------------------------------- */

static bool type_parse(struct call *c, size_t arg, struct field *f)
{
    struct bytes text = c->argv[arg];
    int64_t width = 0;
    const char *nul = text.n ? memchr(text.p, '\0', text.n) : NULL;
    if (nul) text.n = (size_t)(nul - text.p);
    f->is_signed = text.n && text.p[0] == 'i';
    bool ok = f->is_signed || (text.n && text.p[0] == 'u');
    ok = ok && parse_i64(bytes_make(text.p + 1, text.n - 1), &width) && width >= 1 && width <= (f->is_signed ? 64 : 63);
    if (!ok)
        resp_error(&c->out,
                   "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.");
    f->width = (unsigned)width;
    return ok;
}

static bool overflow_parse(struct call *c, size_t arg, enum overflow *out)
{
    static const char *const names[] = {[WRAP] = "wrap", [SATURATE] = "sat", [FAIL] = "fail"};
    for (int i = WRAP; i <= FAIL; i++) {
        if (!call_arg_is(c, arg, names[i])) continue;
        *out = (enum overflow)i;
        return true;
    }
    resp_error(&c->out, "ERR Invalid OVERFLOW type specified");
    return false;
}

/* Reads the operation at *arg and moves behind it. */
static bool operation_parse(struct call *c, size_t *arg, struct program *p, enum overflow overflow)
{
    struct operation *o = &p->ops[p->n];
    size_t at = *arg, more = c->argc - at - 1;
    *o = (struct operation){.overflow = overflow};
    if (more >= 3 && call_arg_is(c, at, "set"))
        o->op = OP_SET;
    else if (more >= 3 && call_arg_is(c, at, "incrby"))
        o->op = OP_INCRBY;
    else if (more < 2 || !call_arg_is(c, at, "get")) {
        resp_error(&c->out, ERR_SYNTAX);
        return false;
    }
    if (!type_parse(c, at + 1, &o->field) || !bit_offset_parse(c, at + 2, o->field.width, &o->field.at)) return false;
    *arg += 3;
    p->n++;
    if (o->op == OP_GET) return true;
    uint64_t last = o->field.at + o->field.width - 1;
    if (!p->writes || last > p->last_bit) p->last_bit = last;
    p->writes = true;
    ++*arg;
    return call_arg_i64(c, at + 3, &o->number, NULL);
}

static bool program_parse(struct call *c, struct program *p)
{
    enum overflow overflow = WRAP;
    for (size_t arg = 2; arg < c->argc;) {
        if (arg + 1 < c->argc && call_arg_is(c, arg, "overflow")) {
            if (!overflow_parse(c, arg + 1, &overflow)) return false;
            arg += 2;
        } else if (!operation_parse(c, &arg, p, overflow)) {
            return false;
        }
    }
    return true;
}

/* ---- Arithmetic -------------------------------------------------------------------------------------------------- */

static uint64_t low_bits(uint64_t v, unsigned width)
{
    assert(width <= 64);
    return width == 64 ? v : v & ((UINT64_C(1) << width) - 1);
}

static int64_t sign_extended(uint64_t v, unsigned width)
{
    assert(width >= 1 && width <= 64);
    return (int64_t)(v << (64 - width)) >> (64 - width);
}

/* The value of a field as a reply: unsigned ones are below 2^63. */
static int64_t number_of(const struct field *f, uint64_t bits)
{
    return f->is_signed ? sign_extended(bits, f->width) : (int64_t)bits;
}

/* What a field becomes; false: overflow, and it is left alone. */
static bool fit(const struct operation *o, bool over, bool under, uint64_t wrapped, int64_t min, int64_t max,
                uint64_t *out)
{
    *out = low_bits(wrapped, o->field.width);
    if (!over && !under) return true;
    if (o->overflow == SATURATE) *out = low_bits((uint64_t)(over ? max : min), o->field.width);
    return o->overflow != FAIL;
}

static bool result_of(const struct operation *o, uint64_t old, uint64_t *out)
{
    const struct field *f = &o->field;
    unsigned width = f->width;
    int64_t max = (int64_t)low_bits(UINT64_MAX, f->is_signed ? width - 1 : width);
    int64_t min = f->is_signed ? -max - 1 : 0;
    if (o->op == OP_INCRBY) {
        __int128 sum = (__int128)number_of(f, old) + o->number;
        return fit(o, sum > max, sum < min, (uint64_t)sum, min, max, out);
    }
    /* As Redis has it, unsigned fields take numbers as unsigned, so that -1 is too large; and numbers that are too
     * small by 2^63 count as too large. */
    bool over = f->is_signed ? o->number > max : (uint64_t)o->number > (uint64_t)max;
    if (f->is_signed && width < 64 && o->number <= INT64_MIN + max) over = true;
    return fit(o, over, o->number < min && !over, (uint64_t)o->number, min, max, out);
}

/* ---- Execution --------------------------------------------------------------------------------------------------- */

static void run_reading(struct call *c, const struct program *p, struct bytes text)
{
    resp_array(&c->out, p->n);
    for (size_t i = 0; i < p->n; i++) {
        const struct field *f = &p->ops[i].field;
        resp_i64(&c->out, number_of(f, bits_get(text, f->at, f->width)));
    }
}

/* Returns how many operations changed something; grown: setting a field to what it was counts as well. */
static uint64_t run_writing(struct call *c, const struct program *p, char *bytes, size_t n, bool grown)
{
    uint64_t changes = 0;
    resp_array(&c->out, p->n);
    for (size_t i = 0; i < p->n; i++) {
        const struct operation *o = &p->ops[i];
        uint64_t old = bits_get(bytes_make(bytes, n), o->field.at, o->field.width), now;
        if (o->op == OP_GET) {
            resp_i64(&c->out, number_of(&o->field, old));
        } else if (!result_of(o, old, &now)) {
            resp_null(&c->out);
        } else {
            resp_i64(&c->out, number_of(&o->field, o->op == OP_SET ? old : now));
            bits_set(bytes, o->field.at, o->field.width, now);
            changes += grown || now != old;
        }
    }
    return changes;
}

static void run_program(struct call *c, const struct program *p)
{
    struct key k = call_key(c, 1);
    struct entry *e;
    char digits[24];
    if (!p->writes) {
        if (call_read_type(c, &k, TYPE_STRING, &e)) run_reading(c, p, e ? entry_string(e, digits) : BYTES(""));
        return;
    }
    if (!call_edit_type(c, &k, TYPE_STRING, &e)) return;
    size_t have = e ? entry_string_len(e) : 0, n = p->last_bit / 8 + 1;
    bool grown = n > have;
    char *bytes = string_open(c, &k, e, n);
    if (!bytes) {
        resp_error(&c->out, ERR_OOM_VALUE);
        return;
    }
    uint64_t changes = run_writing(c, p, bytes, grown ? n : have, grown);
    if (changes) collection_changed(c, &k, NOTIFY_STRING, "setbit", changes);
}

static void bitfield(struct call *c, bool read_only)
{
    struct program p = {.ops = mem_alloc((c->argc / 2 + 1) * sizeof *p.ops)};
    if (program_parse(c, &p)) {
        if (read_only && p.writes)
            resp_error(&c->out, "ERR BITFIELD_RO only supports the GET subcommand");
        else
            run_program(c, &p);
    }
    mem_free(p.ops);
}

void cmd_bitfield(struct call *c)
{
    bitfield(c, false);
}

void cmd_bitfield_ro(struct call *c)
{
    bitfield(c, true);
}
