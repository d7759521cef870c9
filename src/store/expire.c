/* expire.c: finding keys whose time is over without a second table: each slot knows a lower bound of its times. */
#include "store/keyspace.h"

enum { EXPIRED_BATCH = 64 };

bool store_slot_may_expire(const struct store *s, int db, unsigned slot, int64_t now_ms)
{
    const struct table *t = store_table(s, db, slot);
    return atomic_load_explicit(&t->ttl_count, memory_order_relaxed) > 0 &&
           atomic_load_explicit(&t->ttl_min, memory_order_relaxed) <= now_ms;
}

/* Collects the bucket's expired entries; E_AGAIN when there were more than fit. */
static enum status bucket_expired(struct table_extra *x, const struct bucket *head, int64_t now_ms, struct entry **out,
                                  size_t *n)
{
    for (const struct bucket *b = head; b; b = bucket_next(b)) {
        for (int i = 0; i < BUCKET_SLOTS && b->ptr[i]; i++) {
            struct entry *e = bucket_entry(b->ptr[i]);
            if (!entry_has_ttl(e)) continue;
            int64_t at = entry_expire_at(e);
            if (at > now_ms) {
                if (at < x->expire_min) x->expire_min = at;
            } else if (*n == EXPIRED_BATCH) {
                return E_AGAIN;
            } else {
                out[(*n)++] = e;
            }
        }
    }
    return OK;
}

bool store_expire_slot(struct store *s, int db, unsigned slot, int64_t now_ms, unsigned buckets,
                       void (*expired)(void *ctx, const struct key *k, struct entry *e), void *ctx)
{
    struct table *t = store_table(s, db, slot);
    if (!store_slot_may_expire(s, db, slot, now_ms)) return false;
    struct table_extra *x = table_extra_get(t);
    if (x->expire_cursor == 0) x->expire_min = INT64_MAX;
    for (unsigned i = 0; i < buckets && x->expire_cursor < t->bucket_count; i++) {
        struct entry *found[EXPIRED_BATCH];
        size_t n = 0;
        enum status rest = bucket_expired(x, table_bucket(t, x->expire_cursor), now_ms, found, &n);
        uint32_t before = t->bucket_count;
        for (size_t j = 0; j < n; j++) {
            struct key k = key_of(entry_key(found[j]));
            expired(ctx, &k, found[j]);
        }
        /* Deleting may have merged the last bucket into one that was passed already: another pass has to look there. */
        if (t->bucket_count != before) x->expire_min = now_ms;
        if (rest == OK) x->expire_cursor++;
    }
    if (x->expire_cursor < t->bucket_count) return true;
    x->expire_cursor = 0;
    atomic_store_explicit(&t->ttl_min, x->expire_min, memory_order_relaxed);
    return x->expire_min <= now_ms;
}
