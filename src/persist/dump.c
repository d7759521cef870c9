/* dump.c: the payloads of DUMP and RESTORE: type byte, value, u16 LE version, u64 LE checksum of all before it. */
#include "base/crc.h"
#include "persist/persist.h"
#include "persist/rdb_format.h"
#include "persist/rdb_input.h"
#include "persist/rdb_output.h"

static void out_footer(struct rdb_out *o, size_t start)
{
    unsigned char footer[RDB_FOOTER_BYTES];
    put_le(footer, RDB_VERSION, 2);
    out_bytes(o, footer, 2);
    put_le(footer, o->st == OK ? crc64(0, o->b.p + start, o->b.n - start) : 0, 8);
    out_bytes(o, footer, 8);
}

enum status persist_dump(const struct entry *e, bool compress, struct buf *out)
{
    size_t start = out->n;
    struct rdb_out o = {.b = *out, .compress = compress};
    out_byte(&o, rdb_type_of(e));
    out_value(&o, e);
    out_footer(&o, start);
    *out = o.b;
    o.b = (struct buf){0};
    out_deinit(&o);
    if (o.st != OK) out->n = start;
    return o.st;
}

bool persist_payload_ok(struct bytes payload)
{
    if (payload.n < RDB_FOOTER_BYTES) return false;
    const unsigned char *footer = (const unsigned char *)payload.p + payload.n - RDB_FOOTER_BYTES;
    if (get_le(footer, 2) > RDB_VERSION_READ_MAX) return false;
    return get_le(footer + 2, 8) == crc64(0, payload.p, payload.n - 8);
}

enum status persist_restore(struct bytes payload, struct bytes key, const struct store_limits *limits,
                            struct entry **out)
{
    if (!persist_payload_ok(payload)) return E_INVALID;
    struct rdb_in in;
    unsigned type;
    in_init_bytes(&in, bytes_make(payload.p, payload.n - RDB_FOOTER_BYTES), limits);
    bool ok = in_byte(&in, &type) && in_value(&in, type, key, out);
    enum status st = ok ? OK : in.st == E_NOMEM ? E_NOMEM : E_CORRUPT;
    in_deinit(&in);
    return st;
}

enum status persist_dump_libraries(const struct rdb_extras *x, bool compress, struct buf *out)
{
    size_t start = out->n;
    struct rdb_out o = {.b = *out, .compress = compress};
    for (size_t i = 0; i < x->count; i++) {
        out_byte(&o, RDB_OP_FUNCTION);
        out_string(&o, buf_bytes(&x->libraries[i]));
    }
    out_footer(&o, start);
    *out = o.b;
    o.b = (struct buf){0};
    out_deinit(&o);
    if (o.st != OK) out->n = start;
    return o.st;
}

enum status persist_restore_libraries(struct bytes payload, struct rdb_extras *x)
{
    static const struct store_limits none;
    if (!persist_payload_ok(payload)) return E_INVALID;
    struct rdb_in in;
    unsigned type;
    struct bytes source;
    bool ok = true;
    enum status st = OK;
    in_init_bytes(&in, bytes_make(payload.p, payload.n - RDB_FOOTER_BYTES), &none);
    while (ok && in_more(&in)) {
        ok = in_byte(&in, &type);
        if (ok && type != RDB_OP_FUNCTION) {
            st = E_EXISTS;
            break;
        }
        ok = ok && in_string(&in, IN_VALUE, false, &source);
        if (ok) rdb_extras_add(x, source);
    }
    if (!ok || in.st != OK) st = in.st == E_NOMEM ? E_NOMEM : E_CORRUPT;
    in_deinit(&in);
    return st;
}
