/* Commands about keys of any type; times of expiry, walks and flushes have files of their own. */
#include "base/number.h"
#include "command/call.h"
#include "command/scan.h"

#include <limits.h>

/* ---- Deleting, counting ------------------------------------------------------------------------------------------ */

/* Large values are freed in the background anyway (see store_hooks), so DEL and UNLINK are the same. */
void cmd_del(struct call *c)
{
    int64_t deleted = 0;
    for (size_t i = 1; i < c->argc; i++) {
        struct key k = call_key(c, i);
        if (!call_peek(c, &k) || !call_delete(c, &k)) continue;
        call_changed(c, &k, NOTIFY_GENERIC, "del");
        deleted++;
    }
    resp_i64(&c->out, deleted);
}

void cmd_unlink(struct call *c)
{
    cmd_del(c);
}

void cmd_exists(struct call *c)
{
    int64_t found = 0;
    for (size_t i = 1; i < c->argc; i++) {
        struct key k = call_key(c, i);
        found += call_look(c, &k) != NULL;
    }
    resp_i64(&c->out, found);
}

void cmd_touch(struct call *c)
{
    int64_t found = 0;
    for (size_t i = 1; i < c->argc; i++) {
        struct key k = call_key(c, i);
        found += call_read(c, &k) != NULL;
    }
    resp_i64(&c->out, found);
}

void cmd_type(struct call *c)
{
    struct key k = call_key(c, 1);
    struct entry *e = call_look(c, &k);
    resp_status(&c->out, e ? type_name(entry_type(e)) : "none");
}

void cmd_dbsize(struct call *c)
{
    resp_i64(&c->out, (int64_t)store_db_count(c->env->store, c->db));
}

/* ---- Other names, other databases -------------------------------------------------------------------------------- */

static void rename_key(struct call *c, bool only_new)
{
    struct key from = call_key(c, 1), to = call_key(c, 2);
    if (!call_peek(c, &from)) {
        resp_error(&c->out, ERR_NO_SUCH_KEY);
        return;
    }
    bool same = bytes_eq(from.name, to.name);
    if (only_new && (same || call_peek(c, &to))) {
        resp_i64(&c->out, 0);
        return;
    }
    if (!same) {
        call_peek(c, &to); /* an expired key is deleted before it is replaced */
        struct entry *e = store_take(c->env->store, c->db, &from);
        store_put(c->env->store, c->db, &to, entry_with_key(e, to.name));
        call_added(c, &to);
        call_changed(c, &from, NOTIFY_GENERIC, "rename_from");
        call_notify(c, &to, NOTIFY_GENERIC, "rename_to");
    }
    if (only_new)
        resp_i64(&c->out, 1);
    else
        resp_ok(&c->out);
}

void cmd_rename(struct call *c)
{
    rename_key(c, false);
}

void cmd_renamenx(struct call *c)
{
    rename_key(c, true);
}

/* Parses a database's number; false: the error was replied. */
static bool parse_db(struct call *c, size_t arg, int *db)
{
    int64_t n;
    if (!call_arg_range(c, arg, INT_MIN, INT_MAX, &n, NULL)) return false;
    if (n < 0 || n >= store_databases(c->env->store)) {
        resp_error(&c->out, "ERR DB index is out of range");
        return false;
    }
    *db = (int)n;
    return true;
}

static void effect_select(struct call *c, int db)
{
    char digits[24];
    call_effect_cstr(c, 2, BYTES("SELECT"), bytes_make(digits, format_i64(digits, db)));
}

/* call_peek() in another database.  Should it delete an expired key, the deletion is propagated for that database. */
static struct entry *peek_in(struct call *c, int db, const struct key *k)
{
    if (db == c->db) return call_peek(c, k);
    struct entry *e = store_find(c->env->store, db, k);
    if (!e) return NULL;
    int own = c->db;
    bool over = entry_has_ttl(e) && entry_expire_at(e) <= c->now_ms;
    if (!over || c->flags & (CALL_FROM_PRIMARY | CALL_LOADING)) {
        c->db = db;
        call_peek(c, k);
        c->db = own;
        return e;
    }
    if (c->flags & CALL_ON_REPLICA) return NULL;
    bool verbatim_off = c->verbatim_off;
    effect_select(c, db);
    c->db = db;
    call_expire(c, k);
    c->db = own;
    effect_select(c, own);
    c->verbatim_off = verbatim_off;
    return NULL;
}

/* Puts an entry into a database of its choice. */
static void put_in(struct call *c, int db, const struct key *k, struct entry *e)
{
    int own = c->db;
    c->db = db;
    store_put(c->env->store, db, k, e);
    call_added(c, k);
    c->db = own;
}

static void notify_in(struct call *c, int db, const struct key *k, const char *event)
{
    int own = c->db;
    c->db = db;
    call_notify(c, k, NOTIFY_GENERIC, event);
    c->db = own;
}

void cmd_move(struct call *c)
{
    struct key k = call_key(c, 1);
    int db;
    if (c->env->one_database) {
        resp_error(&c->out, "ERR MOVE is not allowed in cluster mode");
        return;
    }
    if (!parse_db(c, 2, &db)) return;
    if (db == c->db) {
        resp_error(&c->out, "ERR source and destination objects are the same");
        return;
    }
    if (!call_peek(c, &k) || peek_in(c, db, &k)) {
        resp_i64(&c->out, 0);
        return;
    }
    struct entry *e = store_take(c->env->store, c->db, &k);
    put_in(c, db, &k, e);
    call_changed(c, &k, NOTIFY_GENERIC, "move_from");
    notify_in(c, db, &k, "move_to");
    resp_i64(&c->out, 1);
}

static bool parse_copy(struct call *c, int *db, bool *replace)
{
    *db = c->db;
    *replace = false;
    for (size_t i = 3; i < c->argc; i++) {
        if (call_arg_is(c, i, "replace")) {
            *replace = true;
        } else if (call_arg_is(c, i, "db") && i + 1 < c->argc) {
            if (!parse_db(c, ++i, db)) return false;
        } else {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
    }
    return true;
}

void cmd_copy(struct call *c)
{
    struct key from = call_key(c, 1), to = call_key(c, 2);
    int db;
    bool replace;
    if (!parse_copy(c, &db, &replace)) return;
    if (c->env->one_database && (c->db || db)) {
        resp_error(&c->out, "ERR Copying to another database is not allowed in cluster mode");
        return;
    }
    if (db == c->db && bytes_eq(from.name, to.name)) {
        resp_error(&c->out, "ERR source and destination objects are the same");
        return;
    }
    struct entry *e = call_read(c, &from);
    if (!e || (peek_in(c, db, &to) && !replace)) {
        resp_i64(&c->out, 0);
        return;
    }
    struct entry *copy = entry_with_key(entry_fork(e), to.name);
    entry_leave_uncounted(e);
    entry_leave_uncounted(copy);
    entry_set_lru(copy, call_fresh_access(c));
    put_in(c, db, &to, copy);
    notify_in(c, db, &to, "copy_to");
    c->dirty++;
    resp_i64(&c->out, 1);
}

/* ---- RANDOMKEY --------------------------------------------------------------------------------------------------- */

enum { RANDOM_TRIES = 100 };

/* A slot with keys, each weighted by how many it has; SLOT_COUNT when there are none. */
static unsigned random_slot(struct call *c)
{
    size_t total = store_db_count(c->env->store, c->db);
    if (total == 0) return SLOT_COUNT;
    size_t at = random_below(c->env->rng, total);
    unsigned last = SLOT_COUNT; /* counts may shrink on the way */
    for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
        size_t n = store_slot_count(c->env->store, c->db, slot);
        if (n > at) return slot;
        at -= n;
        if (n) last = slot;
    }
    return last;
}

void cmd_randomkey(struct call *c)
{
    if (!walk_allowed(c)) return;
    /* An expired key is not a hit, nor is it deleted here: this command holds no key's lock up to its propagation. */
    bool found = false;
    for (int i = 0; i < RANDOM_TRIES && !found; i++) {
        unsigned slot = random_slot(c);
        if (slot == SLOT_COUNT) break;
        call_lock_slot(c, slot);
        struct entry *e = store_random_in_slot(c->env->store, c->db, slot, c->env->rng);
        found = e && walk_shows(c, e);
        if (found) resp_bulk(&c->out, entry_key(e));
        call_unlock_slot(c, slot);
    }
    if (!found) resp_null(&c->out);
}

/* ---- OBJECT, MEMORY USAGE ---------------------------------------------------------------------------------------- */

/* The entry of argv[2]; NULL: there is none, and that was replied. */
static struct entry *object_entry(struct call *c)
{
    struct key k = call_key(c, 2);
    struct entry *e = call_inspect(c, &k);
    if (!e) resp_null(&c->out);
    return e;
}

void cmd_object_encoding(struct call *c)
{
    struct entry *e = object_entry(c);
    if (e) resp_bulk_cstr(&c->out, encoding_name(entry_enc(e)));
}

void cmd_object_refcount(struct call *c)
{
    enum { SHARED_INTEGERS = 10000 }; /* Redis shows what it never counts as this: */
    struct entry *e = object_entry(c);
    if (!e) return;
    int64_t v = -1;
    if (entry_enc(e) == ENC_INT) memcpy(&v, entry_word(e), sizeof v);
    resp_i64(&c->out, v >= 0 && v < SHARED_INTEGERS ? INT_MAX : 1);
}

void cmd_object_freq(struct call *c)
{
    struct entry *e = object_entry(c);
    if (!e) return;
    const struct call_options *o = c->env->options;
    if (o->lfu)
        resp_i64(&c->out, lfu_counter(&o->lfu_settings, entry_lru(e), lfu_clock_of(c->now_ms)));
    else
        resp_error(&c->out,
                   "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that "
                   "when switching between policies at runtime LRU and LFU data will take some time to "
                   "adjust.");
}

void cmd_object_idletime(struct call *c)
{
    struct entry *e = object_entry(c);
    if (!e) return;
    if (c->env->options->lfu)
        resp_error(&c->out, "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when "
                            "switching between policies at runtime LRU and LFU data will take some time to adjust.");
    else
        resp_i64(&c->out, lru_idle(entry_lru(e), c->lru_clock));
}

void cmd_object_help(struct call *c)
{
    static const char *const lines[] = {
        "ENCODING <key>",
        "    Return the kind of internal representation used in order to store the value",
        "    associated with a <key>.",
        "FREQ <key>",
        "    Return the access frequency index of the <key>. The returned integer is",
        "    proportional to the logarithm of the recent access frequency of the key.",
        "IDLETIME <key>",
        "    Return the idle time of the <key>, that is the approximated number of",
        "    seconds elapsed since the last access to the key.",
        "REFCOUNT <key>",
        "    Return the number of references of the value associated with the specified",
        "    <key>.",
    };
    call_help(c, "OBJECT", lines, sizeof lines / sizeof *lines);
}

void cmd_memory_usage(struct call *c)
{
    int64_t samples = 5; /* as Redis; 0: all */
    for (size_t i = 3; i < c->argc; i += 2) {
        bool known = call_arg_is(c, i, "samples") && i + 1 < c->argc;
        if (known && !call_arg_i64(c, i + 1, &samples, NULL)) return;
        if (!known || samples < 0) {
            resp_error(&c->out, ERR_SYNTAX);
            return;
        }
    }
    struct key k = call_key(c, 2);
    struct entry *e = store_find(c->env->store, c->db, &k); /* no access, and what has expired uses memory too */
    if (e)
        resp_i64(&c->out, (int64_t)(entry_memory(e, (size_t)samples) + store_key_share(c->env->store, c->db, k.slot)));
    else
        resp_null(&c->out);
}
