/* debug.c: the DEBUG subcommands that test suites and redis-cli use. */
#include "base/glob.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"
#include "persist/persist.h"
#include "server/aof.h"
#include "server/conn.h"
#include "server/digest.h"
#include "server/persistence.h"
#include "store/listtype.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct node *node_of(const struct call *c)
{
    return call_conn(c)->worker->node;
}

static void sleep_seconds(double seconds)
{
    if (!(seconds > 0)) return;
    if (seconds > 1e6) seconds = 1e6;
    struct timespec ts = {.tv_sec = (time_t)seconds};
    ts.tv_nsec = (long)((seconds - (double)ts.tv_sec) * 1e9);
    while (nanosleep(&ts, &ts) != 0 && errno == EINTR) continue;
}

/* The worker leaves the gate, so that only its own clients wait; but in a transaction the slots are held. */
static void debug_sleep(struct call *c)
{
    char *text = bytes_dup_cstr(c->argv[2]);
    double seconds = strtod(text, NULL);
    mem_free(text);
    struct worker *w = call_conn(c)->worker;
    bool leave = !(c->flags & (CALL_EXCLUSIVE | CALL_IN_EXEC));
    if (leave) worker_leave_gate(w);
    sleep_seconds(seconds);
    if (leave) worker_enter_gate(w);
    resp_ok(&c->out);
}

/* ---- OBJECT ---- */

static void append_list_facts(struct call *c, const struct entry *e, struct buf *out)
{
    struct list_node_iter it;
    struct bytes blob;
    bool packed;
    size_t size = 0;
    uint64_t nodes = list_node_count(e);
    list_node_iter_init(&it, e);
    while (list_node_iter_next(&it, &blob, &packed)) size += blob.n;
    buf_printf(out, " ql_nodes:%llu ql_avg_node:%.2f ql_listpack_max:%lld ql_compressed:0 ql_uncompressed_size:%zu",
               (unsigned long long)nodes, nodes ? (double)list_len(e) / (double)nodes : 0.0,
               (long long)c->env->options->limits.list_max_listpack_size, size);
}

/* What the value takes in an RDB file: a payload without type, version and checksum. */
static size_t serialized_length(const struct entry *e)
{
    enum { AROUND = 1 + 2 + 8 };
    struct buf payload = {0};
    size_t n = persist_dump(e, true, &payload) == OK && payload.n > AROUND ? payload.n - AROUND : 0;
    buf_deinit(&payload);
    return n;
}

static void debug_object(struct call *c)
{
    struct key k = key_of(c->argv[2]);
    call_lock_slot(c, k.slot);
    const struct entry *e = store_find(node_of(c)->store, c->db, &k);
    if (!e) {
        call_unlock_slot(c, k.slot);
        resp_error(&c->out, ERR_NO_SUCH_KEY);
        return;
    }
    struct buf line = {0};
    bool lfu = c->env->options->lfu;
    uint32_t lru = entry_lru(e), idle = lfu ? 0 : (c->lru_clock - lru) & 0xffffff;
    buf_printf(&line, "Value at:%p refcount:1 encoding:%s serializedlength:%zu lru:%u lru_seconds_idle:%u",
               (const void *)e, encoding_name(entry_enc(e)), serialized_length(e), lru, idle);
    if (entry_enc(e) == ENC_QUICKLIST) append_list_facts(c, e, &line);
    call_unlock_slot(c, k.slot);
    buf_append_char(&line, '\0');
    resp_status(&c->out, line.p);
    buf_deinit(&line);
}

/* True after an error reply: a load goes on beside the gate, so the whole dataset is nobody's then. */
static bool loading(struct call *c)
{
    bool yes = atomic_load(&node_of(c)->loading);
    if (yes) resp_error(&c->out, "LOADING Redis is loading the dataset in memory");
    return yes;
}

/* ---- digests ---- */

static void hex(const unsigned char digest[DIGEST_SIZE], char out[2 * DIGEST_SIZE + 1])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < DIGEST_SIZE; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[2 * DIGEST_SIZE] = '\0';
}

static void debug_digest_value(struct call *c)
{
    resp_array(&c->out, c->argc - 2);
    for (size_t i = 2; i < c->argc; i++) {
        unsigned char digest[DIGEST_SIZE] = {0};
        char text[2 * DIGEST_SIZE + 1];
        struct key k = key_of(c->argv[i]);
        call_lock_slot(c, k.slot);
        const struct entry *e = store_find(node_of(c)->store, c->db, &k);
        bool gone = e && entry_has_ttl(e) && entry_expire_at(e) <= c->now_ms;
        if (e && !gone) digest_entry(e, digest);
        call_unlock_slot(c, k.slot);
        hex(digest, text);
        resp_bulk_cstr(&c->out, text);
    }
}

static void add_to_digest(void *ctx, struct entry *e)
{
    unsigned char *all = ctx, one[DIGEST_SIZE] = {0};
    digest_mix(one, entry_key(e));
    digest_entry(e, one);
    digest_xor(all, bytes_make(one, DIGEST_SIZE));
}

static void debug_digest(struct call *c)
{
    struct store *s = node_of(c)->store;
    unsigned char digest[DIGEST_SIZE] = {0};
    char text[2 * DIGEST_SIZE + 1];
    if (!call_exclusive(c) || loading(c)) return;
    for (int db = 0; db < store_databases(s); db++) {
        uint32_t number = htonl((uint32_t)db);
        if (store_db_count(s, db) == 0) continue;
        digest_mix(digest, bytes_make(&number, sizeof number));
        for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
            if (store_slot_count(s, db, slot) == 0) continue;
            uint64_t cursor = 0;
            do cursor = store_scan_slot(s, db, slot, cursor, add_to_digest, digest);
            while (cursor != 0);
        }
    }
    hex(digest, text);
    resp_status(&c->out, text);
}

/* ---- the rest ---- */

static void debug_reload(struct call *c)
{
    bool save = true;
    for (size_t i = 2; i < c->argc; i++) {
        if (call_arg_is(c, i, "NOSAVE"))
            save = false;
        else if (!call_arg_is(c, i, "NOFLUSH") && !call_arg_is(c, i, "MERGE")) {
            resp_error(&c->out, "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.");
            return;
        } else {
            resp_error(&c->out, "ERR DEBUG RELOAD MERGE and NOFLUSH are not supported");
            return;
        }
    }
    if (!call_exclusive(c) || loading(c)) return;
    char *error = NULL;
    if (persistence_reload(node_of(c)->persistence, save, &error) == OK) {
        log_warning("DB reloaded by DEBUG RELOAD");
        resp_ok(&c->out);
    } else {
        log_warning("DEBUG RELOAD failed: %s", error ? error : "");
        resp_error(&c->out, "ERR Error trying to load the RDB dump, check server logs.");
    }
    mem_free(error);
}

static void debug_loadaof(struct call *c)
{
    if (!call_exclusive(c) || loading(c)) return;
    if (!aof_has_files(node_of(c)->aof)) {
        resp_error(&c->out, "ERR Error trying to load the AOF files, check server logs.");
        return;
    }
    if (!aof_reload(node_of(c)->aof)) {
        /* As redis-server: half a dataset is not to be served. */
        log_warning("DEBUG LOADAOF failed, exiting");
        exit(1);
    }
    log_warning("Append Only File loaded by DEBUG LOADAOF");
    resp_ok(&c->out);
}

static void debug_set_active_expire(struct call *c)
{
    char *text = bytes_dup_cstr(c->argv[2]);
    atomic_store(&node_of(c)->active_expire, atoi(text) != 0);
    mem_free(text);
    resp_ok(&c->out);
}

static void debug_change_repl_id(struct call *c)
{
    if (!call_exclusive(c)) return;
    log_notice("Changing replication IDs after receiving change-repl-id");
    change_id_new(node_of(c)->log);
    resp_ok(&c->out);
}

/* Matches a pattern against a long text of one letter: shows that hostile patterns cost little. */
static void debug_stringmatch_len(struct call *c)
{
    int64_t n;
    if (!call_arg_range(c, 2, 0, INT32_MAX, &n, NULL)) return;
    char *text = mem_try_alloc((size_t)n + 1);
    if (!text) {
        resp_error(&c->out, "ERR out of memory");
        return;
    }
    memset(text, 'x', (size_t)n);
    resp_i64(&c->out, glob_match(c->argv[3], bytes_make(text, (size_t)n), false));
    mem_free(text);
}

static void debug_accepted(struct call *c)
{
    resp_ok(&c->out);
}

static void debug_packed_threshold(struct call *c)
{
    int64_t v;
    if (!parse_memory(c->argv[2], &v) || v < 0 || v > UINT32_MAX)
        resp_error(&c->out, "ERR argument must be a memory value bigger than 1 and smaller than 4gb");
    else
        resp_ok(&c->out);
}

static void debug_error(struct call *c)
{
    resp_error_bytes(&c->out, c->argv[2]);
}

static void debug_log(struct call *c)
{
    log_warning("DEBUG LOG: %.*s", (int)(c->argv[2].n < 1024 ? c->argv[2].n : 1024), c->argv[2].p);
    resp_ok(&c->out);
}

/* ---- POPULATE ---- */

enum { POPULATE_SIZE_MAX = 512 * 1024 * 1024 };

/* "value:<i>", cut or filled with zero bytes to the size (0: as it is).  NULL: no memory. */
static struct entry *populate_entry(struct bytes key, int64_t i, size_t size)
{
    char text[32];
    size_t n = (size_t)snprintf(text, sizeof text, "value:%lld", (long long)i);
    if (size == 0) return entry_try_new_string(key, bytes_make(text, n));
    char *value = mem_try_alloc(size);
    if (!value) return NULL;
    memset(value, 0, size);
    memcpy(value, text, n < size ? n : size);
    struct entry *e = entry_try_new_string(key, bytes_make(value, size));
    mem_free(value);
    return e;
}

/* Not propagated, and without regard to who serves the slots, as redis-server does it. */
static void debug_populate(struct call *c)
{
    int64_t count, size = 0;
    static const char range[] = "ERR value is out of range, must be positive";
    if (!call_arg_range(c, 2, 0, INT64_MAX, &count, range)) return;
    if (c->argc > 4 && !call_arg_range(c, 4, 0, POPULATE_SIZE_MAX, &size, range)) return;
    if (!call_exclusive(c)) return;
    struct bytes prefix = c->argc > 3 ? c->argv[3] : BYTES("key");
    struct buf name = {0};
    struct store *s = node_of(c)->store;
    bool ok = true;
    for (int64_t i = 0; i < count && ok; i++) {
        name.n = 0;
        buf_append_bytes(&name, prefix);
        buf_printf(&name, ":%lld", (long long)i);
        struct key k = key_of(buf_bytes(&name));
        if (store_find(s, c->db, &k)) continue;
        struct entry *e = populate_entry(k.name, i, (size_t)size);
        ok = e != NULL;
        if (ok) store_put(s, c->db, &k, e);
    }
    buf_deinit(&name);
    if (ok)
        resp_ok(&c->out);
    else
        resp_error(&c->out, "ERR out of memory");
}

/* ---- PROTOCOL: a reply of each type, for the tests of clients ---- */

static void reply_map(struct resp_out *o)
{
    resp_map(o, 3);
    for (int i = 0; i < 3; i++) {
        resp_i64(o, i);
        resp_bool(o, i == 1);
    }
}

static void reply_numbers(struct resp_out *o)
{
    for (int i = 0; i < 3; i++) resp_i64(o, i);
}

static void reply_attribute(struct resp_out *o)
{
    if (o->version > 2) {
        resp_raw(o, BYTES("|1\r\n"));
        resp_bulk_cstr(o, "key-popularity");
        resp_array(o, 2);
        resp_bulk_cstr(o, "key:123");
        resp_i64(o, 90);
    }
    resp_bulk_cstr(o, "Some real reply following the attribute");
}

static void reply_push(struct resp_out *o)
{
    if (o->version < 3) {
        resp_error(o, "ERR RESP2 is not supported by this command");
        return;
    }
    resp_push(o, 2);
    resp_bulk_cstr(o, "server-cpu-usage");
    resp_i64(o, 42);
    resp_bulk_cstr(o, "Some real reply following the push reply");
}

static void debug_protocol(struct call *c)
{
    struct resp_out *o = &c->out;
    if (call_arg_is(c, 2, "string"))
        resp_bulk_cstr(o, "Hello World");
    else if (call_arg_is(c, 2, "integer"))
        resp_i64(o, 12345);
    else if (call_arg_is(c, 2, "double"))
        resp_double(o, 3.141);
    else if (call_arg_is(c, 2, "bignum"))
        resp_big_number(o, BYTES("1234567999999999999999999999999999999"));
    else if (call_arg_is(c, 2, "null"))
        resp_null(o);
    else if (call_arg_is(c, 2, "array"))
        resp_array(o, 3), reply_numbers(o);
    else if (call_arg_is(c, 2, "set"))
        resp_set(o, 3), reply_numbers(o);
    else if (call_arg_is(c, 2, "map"))
        reply_map(o);
    else if (call_arg_is(c, 2, "attrib"))
        reply_attribute(o);
    else if (call_arg_is(c, 2, "push"))
        reply_push(o);
    else if (call_arg_is(c, 2, "verbatim"))
        resp_verbatim(o, "txt", BYTES("This is a verbatim\nstring"));
    else if (call_arg_is(c, 2, "true") || call_arg_is(c, 2, "false"))
        resp_bool(o, call_arg_is(c, 2, "true"));
    else
        resp_error(o, "ERR Wrong protocol type name. Please use one of the following: "
                      "string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false");
}

static void debug_help(struct call *c)
{
    static const char *const lines[] = {
        "CHANGE-REPL-ID",
        "    Change the replication IDs of the instance.",
        "    Dangerous: should be used only for testing the replication subsystem.",
        "DIGEST",
        "    Output a hex signature representing the current DB content.",
        "DIGEST-VALUE <key> [<key> ...]",
        "    Output a hex signature of the values of all the specified keys.",
        "ERROR <string>",
        "    Return an error with <string> as message.",
        "LOG <message>",
        "    Write <message> to the server log.",
        "OBJECT <key>",
        "    Show low level info about `key` and associated value.",
        "POPULATE <count> [<prefix>] [<size>]",
        "    Create <count> string keys named key:<num>, or <prefix>:<num>. They are not propagated to replicas,",
        "    and do not respect who serves their slots.",
        "PROTOCOL <type>",
        "    Reply with a test value of the specified type. <type> can be: string,",
        "    integer, double, bignum, null, array, set, map, attrib, push, verbatim,",
        "    true, false.",
        "QUICKLIST-PACKED-THRESHOLD <size>",
        "    Accepted, without effect: elements of any size are kept alike.",
        "LOADAOF",
        "    Flush the AOF buffers on disk and reload the AOF in memory.",
        "RELOAD [NOSAVE]",
        "    Save the RDB on disk and reload it back to memory.",
        "SET-ACTIVE-EXPIRE <0|1>",
        "    Whether expired keys are deleted that nobody asks for.",
        "SLEEP <seconds>",
        "    Stop the worker of this connection for <seconds>. Decimals allowed.",
        "STRINGMATCH-LEN <len> <pattern>",
        "    Match a pattern against a string of <len> letters 'x'.",
    };
    call_help(c, "DEBUG", lines, sizeof lines / sizeof *lines);
}

static const struct {
    const char *name;
    size_t argc_min, argc_max; /* with DEBUG itself */
    void (*run)(struct call *c);
} subcommands[] = {
    {"help", 2, 2, debug_help},
    {"sleep", 3, 3, debug_sleep},
    {"object", 3, 4, debug_object},
    {"reload", 2, SIZE_MAX, debug_reload},
    {"loadaof", 2, 2, debug_loadaof},
    {"digest", 2, 2, debug_digest},
    {"digest-value", 2, SIZE_MAX, debug_digest_value},
    {"set-active-expire", 3, 3, debug_set_active_expire},
    {"change-repl-id", 2, 2, debug_change_repl_id},
    {"stringmatch-len", 4, 4, debug_stringmatch_len},
    {"quicklist-packed-threshold", 3, 3, debug_packed_threshold},
    {"set-skip-checksum-validation", 3, 3, debug_accepted},
    {"set-disable-deny-scripts", 3, 3, debug_accepted},
    {"populate", 3, 5, debug_populate},
    {"protocol", 3, 3, debug_protocol},
    {"error", 3, 3, debug_error},
    {"log", 3, 3, debug_log},
};

void cmd_debug(struct call *c)
{
    for (size_t i = 0; i < sizeof subcommands / sizeof subcommands[0]; i++) {
        if (!call_arg_is(c, 1, subcommands[i].name)) continue;
        if (c->argc < subcommands[i].argc_min || c->argc > subcommands[i].argc_max) break;
        subcommands[i].run(c);
        return;
    }
    struct bytes name = c->argv[1];
    resp_errorf(&c->out, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try DEBUG HELP.",
                (int)(name.n < 128 ? name.n : 128), name.p);
}
