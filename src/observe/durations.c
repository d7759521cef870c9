#include "observe/durations.h"

#include "base/mem.h"

/* Cumulative counts at doubling durations, leaving out those that add nothing.  The bounds are redis-server's: the tops
 * of the buckets of 1024 ns, 2048 ns, ..., in microseconds. */
static void reply_one(struct resp_out *o, const char *name, const struct histogram *h, unsigned per_us)
{
    uint64_t total = atomic_load_explicit(&h->total, memory_order_relaxed), before = 0;
    resp_bulk_cstr(o, name);
    resp_map(o, 2);
    resp_bulk_cstr(o, "calls");
    resp_i64(o, (int64_t)total);
    resp_bulk_cstr(o, "histogram_usec");
    size_t mark = resp_defer(o), n = 0;
    for (uint64_t ns = 1024; before < total; ns *= 2) {
        uint64_t us = histogram_top_of(ns) / 1000, value = per_us == 1 ? us : ns;
        uint64_t now = value >= HISTOGRAM_MAX ? total : histogram_up_to(h, value);
        if (now == before) continue;
        resp_i64(o, (int64_t)us);
        resp_i64(o, (int64_t)now);
        before = now;
        n++;
    }
    resp_defer_map(o, mark, n);
}

static size_t reply_command(struct resp_out *o, const struct durations *d, const struct command *c, struct histogram *h)
{
    size_t n = 0;
    for (unsigned id = c->id; id <= c->id + command_sub_count(c); id++) {
        if (!d->of(d->ctx, (enum command_id)id, h)) continue;
        reply_one(o, command_by_id((enum command_id)id)->name, h, d->per_us);
        n++;
    }
    return n;
}

void durations_reply(struct resp_out *o, const struct durations *d, const struct bytes *names, size_t n)
{
    struct histogram *h = mem_alloc(sizeof *h);
    size_t mark = resp_defer(o), found = 0;
    for (unsigned id = 0; n == 0 && id < CMD_ID_COUNT; id++) {
        const struct command *c = command_by_id((enum command_id)id);
        found += reply_command(o, d, c, h);
        id += command_sub_count(c);
    }
    for (size_t i = 0; i < n; i++) {
        const struct command *c = command_find(names[i]);
        if (c) found += reply_command(o, d, c, h);
    }
    resp_defer_map(o, mark, found);
    mem_free(h);
}
