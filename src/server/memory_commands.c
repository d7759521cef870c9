/* memory_commands.c: MEMORY but for USAGE, which stands with the data commands. */
#include "server/memory.h"

#include "base/mem.h"
#include "base/number.h"

#include <stdio.h>

static struct node *node_of(const struct call *c)
{
    return call_conn(c)->worker->node;
}

void cmd_memory_purge(struct call *c)
{
    mem_collect(true); /* of this thread, before the reply */
    memory_purge(node_of(c));
    resp_ok(&c->out);
}

static void append_text(const char *text, void *ctx)
{
    buf_append_cstr(ctx, text);
}

void cmd_memory_malloc_stats(struct call *c)
{
    struct buf text = {0};
    mem_report(append_text, &text);
    resp_verbatim(&c->out, "txt", buf_bytes(&text));
    buf_deinit(&text);
}

/* ---- STATS ---- */

static void field_i64(struct call *c, const char *name, int64_t v)
{
    resp_bulk_cstr(&c->out, name);
    resp_i64(&c->out, v);
}

static void field_double(struct call *c, const char *name, double v)
{
    resp_bulk_cstr(&c->out, name);
    resp_double(&c->out, v);
}

/* Returns how many were shown. */
static size_t stats_of_databases(struct call *c, const struct store *s)
{
    size_t shown = 0;
    for (int db = 0; db < store_databases(s); db++) {
        if (store_db_count(s, db) == 0) continue;
        shown++;
        char name[24];
        snprintf(name, sizeof name, "db.%d", db);
        resp_bulk_cstr(&c->out, name);
        resp_map(&c->out, 3);
        field_i64(c, "overhead.hashtable.main", (int64_t)store_db_overhead(s, db));
        field_i64(c, "overhead.hashtable.expires", 0); /* a time of expiry stands in the entry */
        field_i64(c, "overhead.hashtable.slot-to-keys", 0);
    }
    return shown;
}

void cmd_memory_stats(struct call *c)
{
    struct node *n = node_of(c);
    struct memory_view v;
    if (!call_exclusive(c)) return;
    memory_view_get(n, &v);
    size_t net = v.used > v.startup ? v.used - v.startup : 0;
    size_t mark = resp_defer(&c->out);
    field_i64(c, "peak.allocated", (int64_t)v.peak);
    field_i64(c, "total.allocated", (int64_t)v.used);
    field_i64(c, "startup.allocated", (int64_t)v.startup);
    field_i64(c, "replication.backlog", (int64_t)v.backlog);
    field_i64(c, "clients.slaves", (int64_t)v.replica_buffers);
    field_i64(c, "clients.normal", (int64_t)v.clients);
    field_i64(c, "cluster.links", (int64_t)v.links);
    field_i64(c, "aof.buffer", 0);
    field_i64(c, "lua.caches", 0);
    field_i64(c, "functions.caches", 0);
    size_t databases = stats_of_databases(c, n->store);
    field_i64(c, "overhead.total", (int64_t)v.overhead);
    field_i64(c, "keys.count", (int64_t)v.keys);
    field_i64(c, "keys.bytes-per-key", v.keys ? (int64_t)(net / v.keys) : 0);
    field_i64(c, "dataset.bytes", (int64_t)v.dataset);
    field_double(c, "dataset.percentage", v.dataset_perc);
    field_double(c, "peak.percentage", v.peak_perc);
    field_i64(c, "allocator.allocated", (int64_t)v.used);
    field_i64(c, "allocator.active", (int64_t)v.committed);
    field_i64(c, "allocator.resident", (int64_t)v.rss);
    field_double(c, "allocator-fragmentation.ratio", v.allocator_frag);
    field_i64(c, "allocator-fragmentation.bytes", v.allocator_frag_bytes);
    field_double(c, "allocator-rss.ratio", v.allocator_rss);
    field_i64(c, "allocator-rss.bytes", v.allocator_rss_bytes);
    field_double(c, "rss-overhead.ratio", v.rss_overhead);
    field_i64(c, "rss-overhead.bytes", v.rss_overhead_bytes);
    field_double(c, "fragmentation", v.frag);
    field_i64(c, "fragmentation.bytes", v.frag_bytes);
    resp_defer_map(&c->out, mark, 27 + databases);
}

/* ---- DOCTOR ---- */

enum { DOCTOR_MIN = 5 * 1024 * 1024, DOCTOR_SLACK = 10 * 1024 * 1024, DOCTOR_CLIENT = 200 * 1024 };

static void advise(struct buf *b, const struct memory_view *v, int clients)
{
    if ((double)v->peak > (double)v->used * 1.5)
        buf_append_cstr(b,
                        " * Peak memory: at some time more than half as much again was in use as is now. Pages that "
                        "are no longer needed go back to the system by themselves; MEMORY PURGE does it at once.\n\n");
    if (v->frag > 1.4 && v->frag_bytes > DOCTOR_SLACK)
        buf_append_cstr(b, " * High total RSS: the process holds over 1.4 times the memory that is in use. After many "
                           "deletions that is free space between live values, and new ones will fill it. If it stays, "
                           "a restart from a snapshot packs the data anew.\n\n");
    if (v->allocator_frag > 1.4 && v->allocator_frag_bytes > DOCTOR_SLACK)
        buf_append_cstr(b,
                        " * High allocator fragmentation: the allocator has committed over 1.4 times what is in use. "
                        "MEMORY PURGE returns the pages that are wholly free.\n\n");
    if (clients > 0 && v->clients / (size_t)clients > DOCTOR_CLIENT)
        buf_append_cstr(b, " * Big client buffers: a connection takes more than 200 KB on average. CLIENT LIST shows "
                           "which (tot-mem); client-output-buffer-limit and maxmemory-clients set bounds.\n\n");
    if (v->replica_buffers > DOCTOR_SLACK)
        buf_append_cstr(b, " * Big replica buffers: some replica reads its stream slowly, or a full sync is under way. "
                           "INFO replication shows the offsets.\n\n");
}

void cmd_memory_doctor(struct call *c)
{
    struct node *n = node_of(c);
    struct memory_view v;
    struct buf text = {0}, advice = {0};
    memory_view_get(n, &v);
    if (v.used < v.startup + DOCTOR_MIN) {
        buf_append_cstr(&text,
                        "Hi Sam, this instance is empty or is using very little memory, my issues detector can't be "
                        "used in these conditions. Please, leave for your mission on Earth and fill it with some data. "
                        "The new Sam and I will be back to our programming as soon as I finished rebooting.\n");
    } else {
        advise(&advice, &v, atomic_load(&n->client_count));
        if (advice.n == 0)
            buf_append_cstr(&text,
                            "Hi Sam, I can't find any memory issue in your instance. I can only account for what "
                            "occurs on this base.\n");
        else
            buf_append_cstr(&text, "Sam, I detected a few issues in this Covey instance memory implants:\n\n");
        buf_append_bytes(&text, buf_bytes(&advice));
    }
    resp_verbatim(&c->out, "txt", buf_bytes(&text));
    buf_deinit(&advice);
    buf_deinit(&text);
}

void cmd_memory_help(struct call *c)
{
    static const char *const lines[] = {
        "DOCTOR",
        "    Return memory problems reports.",
        "MALLOC-STATS",
        "    Return internal statistics report from the memory allocator.",
        "PURGE",
        "    Attempt to purge dirty pages for reclamation by the allocator.",
        "STATS",
        "    Return information about the memory usage of the server.",
        "USAGE <key> [SAMPLES <count>]",
        "    Return memory in bytes used by <key> and its value. Nested values are",
        "    sampled up to <count> times (default: 5, 0 means sample all).",
    };
    call_help(c, "MEMORY", lines, sizeof lines / sizeof *lines);
}
