#include "change/change.h"

#include "base/mem.h"
#include "base/number.h"
#include "base/random.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>

enum { BLOCK_SIZE = 64 * 1024 };

/* A block keeps its successor alive, so whoever holds one block holds all that come behind it. */
struct change_block {
    _Atomic uint32_t refs;
    _Atomic size_t *bytes; /* where its log counts it */
    size_t cap;
    uint64_t start;                      /* offset before its first byte */
    _Atomic size_t n;                    /* bytes published; only grows, under the log's mu */
    _Atomic(struct change_block *) next; /* set once, under the log's mu */
    char data[];
};

struct change_log {
    pthread_mutex_t mu;                /* order: after slots and registries, before mailboxes */
    struct change_block *first, *last; /* under mu; NULL while not active; one reference on first */
    size_t backlog_size;               /* under mu */
    uint64_t first_offset;             /* under mu: nothing before this offset is promised */
    bool forgetful;                    /* under mu: no replica may come back to what was, see change_log_forget() */
    int selected_db;                   /* under mu; -1: the next effect selects */
    struct change_id id;               /* under mu */
    _Atomic unsigned id_generation;    /* written under mu */
    _Atomic uint64_t end;              /* written under mu */
    _Atomic bool active;               /* written under mu */
    _Atomic size_t bytes;              /* of all blocks, those that only readers keep too */
};

static struct change_block *block_new(struct change_log *log, size_t cap, uint64_t start)
{
    struct change_block *b = mem_alloc(sizeof *b + cap);
    b->bytes = &log->bytes;
    atomic_fetch_add_explicit(b->bytes, mem_size(b), memory_order_relaxed);
    atomic_init(&b->refs, 1);
    atomic_init(&b->n, 0);
    atomic_init(&b->next, NULL);
    b->cap = cap;
    b->start = start;
    return b;
}

static struct change_block *block_ref(struct change_block *b)
{
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

static void block_unref(struct change_block *b)
{
    while (b && atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) == 1) {
        struct change_block *next = atomic_load(&b->next);
        atomic_fetch_sub_explicit(b->bytes, mem_size(b), memory_order_relaxed);
        mem_free(b);
        b = next;
    }
}

struct change_log *change_log_create(size_t backlog_size)
{
    struct change_log *log = mem_calloc(1, sizeof *log);
    pthread_mutex_init(&log->mu, NULL);
    log->backlog_size = backlog_size;
    log->selected_db = -1;
    change_id_new(log);
    return log;
}

void change_log_destroy(struct change_log *log)
{
    block_unref(log->first);
    pthread_mutex_destroy(&log->mu);
    mem_free(log);
}

bool change_log_active(const struct change_log *log)
{
    return atomic_load_explicit(&log->active, memory_order_relaxed);
}

static void activate(struct change_log *log)
{
    if (log->first) return;
    uint64_t end = atomic_load(&log->end);
    log->first = log->last = block_new(log, BLOCK_SIZE, end);
    log->first_offset = end;
    log->forgetful = false;
    log->selected_db = -1;
    atomic_store(&log->active, true);
}

static void deactivate(struct change_log *log)
{
    block_unref(log->first);
    log->first = log->last = NULL;
    atomic_store(&log->active, false);
}

void change_log_activate(struct change_log *log)
{
    pthread_mutex_lock(&log->mu);
    activate(log);
    pthread_mutex_unlock(&log->mu);
}

void change_log_deactivate(struct change_log *log)
{
    pthread_mutex_lock(&log->mu);
    deactivate(log);
    pthread_mutex_unlock(&log->mu);
}

/* Drops whole blocks from the front that the backlog does not need. */
static void trim(struct change_log *log)
{
    uint64_t end = atomic_load_explicit(&log->end, memory_order_relaxed);
    if (log->forgetful) log->first_offset = end;
    for (;;) {
        struct change_block *b = log->first, *next = atomic_load_explicit(&b->next, memory_order_relaxed);
        if (!next || end - next->start < (log->forgetful ? 0 : log->backlog_size)) return;
        log->first = block_ref(next);
        if (log->first_offset < next->start) log->first_offset = next->start;
        block_unref(b);
    }
}

bool change_log_forget(struct change_log *log, bool yes)
{
    pthread_mutex_lock(&log->mu);
    bool other = log->first && log->forgetful != yes;
    if (other) {
        log->forgetful = yes;
        trim(log);
    }
    pthread_mutex_unlock(&log->mu);
    return other;
}

void change_log_set_backlog_size(struct change_log *log, size_t bytes)
{
    pthread_mutex_lock(&log->mu);
    log->backlog_size = bytes;
    if (log->first) trim(log);
    pthread_mutex_unlock(&log->mu);
}

static void link_block(struct change_log *log, struct change_block *b)
{
    atomic_store_explicit(&log->last->next, b, memory_order_release);
    log->last = b;
}

/* Copies n bytes to the end; small ones only, what is large comes as a block of its own. */
static void put(struct change_log *log, const void *p, size_t n)
{
    const char *from = p;
    while (n) {
        struct change_block *b = log->last;
        size_t used = atomic_load_explicit(&b->n, memory_order_relaxed), room = b->cap - used;
        if (room == 0) {
            link_block(log, block_new(log, BLOCK_SIZE, atomic_load_explicit(&log->end, memory_order_relaxed)));
            continue;
        }
        size_t part = n < room ? n : room;
        memcpy(b->data + used, from, part);
        atomic_store_explicit(&log->end, atomic_load_explicit(&log->end, memory_order_relaxed) + part,
                              memory_order_relaxed);
        atomic_store_explicit(&b->n, used + part, memory_order_release);
        from += part;
        n -= part;
    }
}

static void put_block(struct change_log *log, struct change_block *b)
{
    /* Nothing more goes into the present block: offsets must stay contiguous. */
    b->start = atomic_load_explicit(&log->end, memory_order_relaxed);
    atomic_store(&log->end, b->start + atomic_load(&b->n));
    struct change_block *before = log->last;
    before->cap = atomic_load(&before->n);
    link_block(log, b);
}

static void put_select(struct change_log *log, int db)
{
    char text[64], digits[24];
    size_t len = format_i64(digits, db);
    digits[len] = '\0';
    int n = snprintf(text, sizeof text, "*2\r\n$6\r\nSELECT\r\n$%zu\r\n%s\r\n", len, digits);
    put(log, text, (size_t)n);
}

static const char multi[] = "*1\r\n$5\r\nMULTI\r\n", exec[] = "*1\r\n$4\r\nEXEC\r\n";

uint64_t change_append(struct change_log *log, int db, struct bytes effects, unsigned count, int db_after)
{
    /* Bytes by the megabyte are copied before the lock is taken. */
    struct change_block *own = NULL;
    if (effects.n > BLOCK_SIZE / 2) {
        own = block_new(log, effects.n, 0);
        memcpy(own->data, effects.p, effects.n);
        atomic_store(&own->n, effects.n);
    }
    pthread_mutex_lock(&log->mu);
    if (!log->first) { /* deactivated since the caller looked */
        pthread_mutex_unlock(&log->mu);
        block_unref(own);
        return atomic_load(&log->end);
    }
    if (db != log->selected_db) put_select(log, db);
    if (count > 1) put(log, multi, sizeof multi - 1);
    if (own)
        put_block(log, own);
    else
        put(log, effects.p, effects.n);
    if (count > 1) put(log, exec, sizeof exec - 1);
    log->selected_db = db_after;
    trim(log);
    uint64_t end = atomic_load_explicit(&log->end, memory_order_relaxed);
    pthread_mutex_unlock(&log->mu);
    return end;
}

uint64_t change_append_raw(struct change_log *log, struct bytes bytes)
{
    pthread_mutex_lock(&log->mu);
    if (log->first) {
        put(log, bytes.p, bytes.n);
        trim(log);
    } else {
        atomic_fetch_add(&log->end, bytes.n);
    }
    uint64_t end = atomic_load_explicit(&log->end, memory_order_relaxed);
    pthread_mutex_unlock(&log->mu);
    return end;
}

void change_reset_db(struct change_log *log)
{
    change_set_selected_db(log, -1);
}

int change_selected_db(const struct change_log *log)
{
    struct change_log *l = (struct change_log *)(uintptr_t)log;
    pthread_mutex_lock(&l->mu);
    int db = l->selected_db;
    pthread_mutex_unlock(&l->mu);
    return db;
}

void change_set_selected_db(struct change_log *log, int db)
{
    pthread_mutex_lock(&log->mu);
    log->selected_db = db;
    pthread_mutex_unlock(&log->mu);
}

size_t change_log_bytes(const struct change_log *log)
{
    return atomic_load_explicit(&log->bytes, memory_order_relaxed);
}

size_t change_log_slack(void)
{
    return 2 * BLOCK_SIZE;
}

uint64_t change_offset(const struct change_log *log)
{
    return atomic_load_explicit(&log->end, memory_order_acquire);
}

/* ---- ids ---- */

static void second_none(struct change_id *id)
{
    memset(id->id2, '0', REPLID_LENGTH);
    id->id2[REPLID_LENGTH] = '\0';
    id->second_offset = -1;
    id->fresh = false;
}

unsigned change_id_generation(const struct change_log *log)
{
    return atomic_load_explicit(&log->id_generation, memory_order_acquire);
}

void change_id_get(struct change_log *log, struct change_id *out)
{
    pthread_mutex_lock(&log->mu);
    *out = log->id;
    pthread_mutex_unlock(&log->mu);
}

void change_id_new(struct change_log *log)
{
    pthread_mutex_lock(&log->mu);
    random_hex(log->id.id, REPLID_LENGTH);
    log->id.id[REPLID_LENGTH] = '\0';
    second_none(&log->id);
    atomic_fetch_add(&log->id_generation, 1);
    pthread_mutex_unlock(&log->mu);
}

static void shift(struct change_log *log)
{
    memcpy(log->id.id2, log->id.id, sizeof log->id.id2);
    log->id.second_offset = (int64_t)atomic_load(&log->end) + 1;
    log->id.fresh = false;
    atomic_fetch_add(&log->id_generation, 1);
}

void change_id_shift(struct change_log *log)
{
    pthread_mutex_lock(&log->mu);
    shift(log);
    random_hex(log->id.id, REPLID_LENGTH);
    log->id.fresh = true;
    log->selected_db = -1;
    pthread_mutex_unlock(&log->mu);
}

void change_id_told(struct change_log *log)
{
    pthread_mutex_lock(&log->mu);
    if (log->id.fresh) atomic_fetch_add(&log->id_generation, 1); /* change_id_known() is another one now */
    log->id.fresh = false;
    pthread_mutex_unlock(&log->mu);
}

const char *change_id_known(const struct change_id *id, uint64_t offset)
{
    return id->fresh && (int64_t)offset + 1 == id->second_offset ? id->id2 : id->id;
}

void change_id_adopt(struct change_log *log, const char *id)
{
    pthread_mutex_lock(&log->mu);
    shift(log);
    memcpy(log->id.id, id, REPLID_LENGTH);
    pthread_mutex_unlock(&log->mu);
}

void change_log_restart(struct change_log *log, const char *id, uint64_t offset)
{
    pthread_mutex_lock(&log->mu);
    deactivate(log);
    memcpy(log->id.id, id, REPLID_LENGTH);
    second_none(&log->id);
    atomic_fetch_add(&log->id_generation, 1);
    atomic_store(&log->end, offset);
    pthread_mutex_unlock(&log->mu);
}

void change_id_set_second(struct change_log *log, const char *id2, int64_t second_offset)
{
    pthread_mutex_lock(&log->mu);
    memcpy(log->id.id2, id2, REPLID_LENGTH);
    log->id.second_offset = second_offset;
    pthread_mutex_unlock(&log->mu);
}

/* ---- readers ---- */

void change_window_get(struct change_log *log, struct change_window *out)
{
    pthread_mutex_lock(&log->mu);
    uint64_t end = atomic_load(&log->end);
    *out = (struct change_window){.active = log->first && !log->forgetful, .size = log->backlog_size};
    if (out->active) {
        out->first = log->first_offset + 1;
        out->length = end - log->first_offset;
    }
    pthread_mutex_unlock(&log->mu);
}

enum status change_reader_seek(struct change_log *log, struct change_reader *r, uint64_t offset)
{
    pthread_mutex_lock(&log->mu);
    enum status st = E_NOT_FOUND;
    if (log->first && offset >= log->first_offset && offset <= atomic_load(&log->end)) {
        struct change_block *b = log->first, *next;
        while ((next = atomic_load(&b->next)) && next->start <= offset) b = next;
        change_reader_close(r);
        r->block = block_ref(b);
        r->offset = offset;
        st = OK;
    }
    pthread_mutex_unlock(&log->mu);
    return st;
}

struct bytes change_reader_peek(struct change_reader *r)
{
    if (!r->block) return (struct bytes){0};
    for (;;) {
        struct change_block *b = r->block;
        /* next first: once it is set, n is final. */
        struct change_block *next = atomic_load_explicit(&b->next, memory_order_acquire);
        size_t n = atomic_load_explicit(&b->n, memory_order_acquire), at = (size_t)(r->offset - b->start);
        assert(at <= n);
        if (at < n) return bytes_make(b->data + at, n - at);
        if (!next) return (struct bytes){0};
        r->block = block_ref(next);
        block_unref(b);
    }
}

void change_reader_skip(struct change_reader *r, size_t n)
{
    r->offset += n;
}

void change_reader_copy(const struct change_reader *from, struct change_reader *to)
{
    struct change_block *b = from->block ? block_ref(from->block) : NULL;
    uint64_t offset = from->offset;
    change_reader_close(to);
    *to = (struct change_reader){b, offset};
}

void change_reader_close(struct change_reader *r)
{
    block_unref(r->block);
    *r = (struct change_reader){0};
}
