/* info.c: INFO, with redis-server 7.0's sections and fields in its order.  What Covey does not have says 0. */
#include "observe/errorstats.h"
#include "server/aof.h"
#include "server/conn.h"
#include "server/latency.h"
#include "server/memory.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/version.h"
#include "cluster/cluster.h"
#include "server/persistence.h"
#include "server/pubsub.h"
#include "server/replication.h"
#include "server/sampler.h"
#include "server/scripting.h"
#include "server/shutdown.h"
#include "server/supervise.h"
#include "server/topkeys.h"
#include "server/tracking.h"

#include <stdio.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

typedef unsigned long long ull;

static void bytes_human(char out[32], double n)
{
    static const char units[] = "BKMGTP";
    int u = 0;
    while (n >= 1024 && u < 5) {
        n /= 1024;
        u++;
    }
    if (u == 0)
        snprintf(out, 32, "%lluB", (ull)n);
    else
        snprintf(out, 32, "%.2f%c", n, units[u]);
}

/* name:n and name_human:n. */
static void append_size(struct buf *b, const char *name, uint64_t n)
{
    char human[32];
    bytes_human(human, (double)n);
    buf_printf(b, "%s:%llu\r\n%s_human:%s\r\n", name, (ull)n, name, human);
}

static void info_server(struct node *n, struct buf *b)
{
    struct utsname os = {0};
    char executable[4096] = "";
    int64_t now_us = clock_wall_us(), up_s = (now_us / 1000 - n->started_ms) / 1000;
    const char *by = supervisor(n->config);
    uname(&os);
    ssize_t got = readlink("/proc/self/exe", executable, sizeof executable - 1);
    executable[got > 0 ? got : 0] = '\0';
    buf_printf(b,
               "redis_version:7.0.15\r\nredis_git_sha1:00000000\r\nredis_git_dirty:0\r\nredis_build_id:0\r\n"
               "redis_mode:%s\r\nos:%s %s %s\r\narch_bits:%zu\r\nmonotonic_clock:POSIX clock_gettime\r\n"
               "multiplexing_api:epoll\r\natomicvar_api:c11-builtin\r\ngcc_version:%d.%d.%d\r\nprocess_id:%ld\r\n"
               "process_supervised:%s\r\nrun_id:%s\r\ntcp_port:%lld\r\nserver_time_usec:%lld\r\n"
               "uptime_in_seconds:%lld\r\nuptime_in_days:%lld\r\nhz:%lld\r\nconfigured_hz:%lld\r\nlru_clock:%u\r\n"
               "executable:%s\r\nconfig_file:%s\r\nio_threads_active:%d\r\ncovey_version:%s\r\n",
               n->cluster ? "cluster" : "standalone", os.sysname, os.release, os.machine, sizeof(void *) * 8, __GNUC__,
               __GNUC_MINOR__, __GNUC_PATCHLEVEL__, (long)getpid(), by ? by : "no", n->run_id,
               (long long)config_num(n->config, config_num(n->config, CFG_PORT) ? CFG_PORT : CFG_TLS_PORT),
               (long long)now_us, (long long)up_s, (long long)up_s / 86400, (long long)config_num(n->config, CFG_HZ),
               (long long)config_num(n->config, CFG_HZ), (unsigned)(now_us / 1000000) & 0xffffff, executable,
               config_file(n->config), n->worker_count > 1, COVEY_VERSION);
    int64_t shutdown_ms = shutdown_in_ms(n);
    if (shutdown_ms >= 0) buf_printf(b, "shutdown_in_milliseconds:%lld\r\n", (long long)shutdown_ms);
}

static void info_clients(struct node *n, struct buf *b)
{
    struct tracking_totals tracking;
    tracking_totals(n, &tracking);
    buf_printf(
        b,
        "connected_clients:%d\r\ncluster_connections:0\r\nmaxclients:%lld\r\nclient_recent_max_input_buffer:0\r\n"
        "client_recent_max_output_buffer:0\r\nblocked_clients:%d\r\ntracking_clients:%zu\r\n"
        "clients_in_timeout_table:%d\r\n",
        atomic_load(&n->client_count), (long long)config_num(n->config, CFG_MAXCLIENTS),
        atomic_load(&n->blocked_count) + blocking_clients(n), tracking.clients, blocking_timeouts(n));
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static void info_memory_scripts(struct node *n, struct buf *b)
{
    struct scripting_stats st;
    scripting_stats_get(n, &st);
    char human[32];
    bytes_human(human, (double)st.vm_eval);
    buf_printf(b, "used_memory_lua:%zu\r\nused_memory_vm_eval:%zu\r\nused_memory_lua_human:%s\r\n", st.vm_eval,
               st.vm_eval, human);
    buf_printf(b, "used_memory_scripts_eval:%zu\r\nnumber_of_cached_scripts:%zu\r\n", st.scripts_memory, st.scripts);
    buf_printf(b, "number_of_functions:%zu\r\nnumber_of_libraries:%zu\r\nused_memory_vm_functions:%zu\r\n",
               st.functions, st.libraries, st.vm_functions);
    append_size(b, "used_memory_vm_total", st.vm_eval + st.vm_functions);
    buf_printf(b, "used_memory_functions:%zu\r\n", st.functions_memory);
    append_size(b, "used_memory_scripts", st.scripts_memory + st.functions_memory);
}

static void info_memory(struct node *n, struct buf *b)
{
    struct memory_view v;
    struct buf policy = {0};
    memory_view_get(n, &v);
    config_text(n->config, CFG_MAXMEMORY_POLICY, &policy);
    append_size(b, "used_memory", v.used);
    append_size(b, "used_memory_rss", v.rss);
    append_size(b, "used_memory_peak", v.peak);
    buf_printf(b,
               "used_memory_peak_perc:%.2f%%\r\nused_memory_overhead:%zu\r\nused_memory_startup:%zu\r\n"
               "used_memory_dataset:%zu\r\nused_memory_dataset_perc:%.2f%%\r\nallocator_allocated:%zu\r\n"
               "allocator_active:%zu\r\nallocator_resident:%zu\r\n",
               v.peak_perc, v.overhead, v.startup, v.dataset, v.dataset_perc, v.used, v.committed, v.rss);
    append_size(b, "total_system_memory", (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
    info_memory_scripts(n, b);
    append_size(b, "maxmemory", (uint64_t)config_num(n->config, CFG_MAXMEMORY));
    buf_printf(b,
               "maxmemory_policy:%.*s\r\nallocator_frag_ratio:%.2f\r\nallocator_frag_bytes:%lld\r\n"
               "allocator_rss_ratio:%.2f\r\nallocator_rss_bytes:%lld\r\nrss_overhead_ratio:%.2f\r\n"
               "rss_overhead_bytes:%lld\r\nmem_fragmentation_ratio:%.2f\r\nmem_fragmentation_bytes:%lld\r\n",
               (int)policy.n, policy.n ? policy.p : "", v.allocator_frag, (long long)v.allocator_frag_bytes,
               v.allocator_rss, (long long)v.allocator_rss_bytes, v.rss_overhead, (long long)v.rss_overhead_bytes,
               v.frag, (long long)v.frag_bytes);
    buf_printf(b,
               "mem_not_counted_for_evict:%zu\r\nmem_replication_backlog:%zu\r\nmem_total_replication_buffers:%zu\r\n"
               "mem_clients_slaves:%zu\r\nmem_clients_normal:%zu\r\nmem_cluster_links:%zu\r\nmem_aof_buffer:%llu\r\n"
               "mem_allocator:%s\r\nactive_defrag_running:0\r\nlazyfree_pending_objects:%llu\r\n"
               "lazyfreed_objects:%llu\r\n",
               memory_not_counted(n), v.backlog, change_log_bytes(n->log), v.replica_buffers, v.clients, v.links,
               (ull)aof_waiting(n->aof), mem_allocator_name(), (ull)reaper_pending(n->reaper),
               (ull)reaper_freed(n->reaper));
    buf_deinit(&policy);
}

static void info_stats(struct node *n, struct buf *b)
{
    struct tracking_totals tracking;
    tracking_totals(n, &tracking);
    struct stats_sum sum;
    struct rates rates;
    struct node_stats *s = &n->stats;
    node_stats_sum(n, &sum);
    sampler_rates(n->sampler, &rates);
    int64_t over_since = atomic_load(&s->over_maxmemory_since_us);
    int64_t over_us = over_since ? clock_mono_us() - over_since : 0;
    buf_printf(
        b,
        "total_connections_received:%llu\r\ntotal_commands_processed:%llu\r\ninstantaneous_ops_per_sec:%llu\r\n"
        "total_net_input_bytes:%llu\r\ntotal_net_output_bytes:%llu\r\ntotal_net_repl_input_bytes:0\r\n"
        "total_net_repl_output_bytes:0\r\ninstantaneous_input_kbps:%.2f\r\ninstantaneous_output_kbps:%.2f\r\n"
        "instantaneous_input_repl_kbps:0.00\r\ninstantaneous_output_repl_kbps:0.00\r\nrejected_connections:%llu\r\n"
        "sync_full:%llu\r\nsync_partial_ok:%llu\r\nsync_partial_err:%llu\r\nexpired_keys:%llu\r\n"
        "expired_stale_perc:0.00\r\nexpired_time_cap_reached_count:%llu\r\nexpire_cycle_cpu_milliseconds:%llu\r\n"
        "evicted_keys:%llu\r\nevicted_clients:%llu\r\ntotal_eviction_exceeded_time:%lld\r\n"
        "current_eviction_exceeded_time:%lld\r\nkeyspace_hits:%llu\r\nkeyspace_misses:%llu\r\npubsub_channels:%zu\r\n"
        "pubsub_patterns:%zu\r\npubsubshard_channels:%zu\r\nlatest_fork_usec:0\r\ntotal_forks:0\r\n"
        "migrate_cached_sockets:0\r\nslave_expires_tracked_keys:0\r\nactive_defrag_hits:0\r\n"
        "active_defrag_misses:0\r\nactive_defrag_key_hits:0\r\nactive_defrag_key_misses:0\r\n"
        "total_active_defrag_time:0\r\ncurrent_active_defrag_time:0\r\ntracking_total_keys:%zu\r\n"
        "tracking_total_items:%zu\r\ntracking_total_prefixes:%zu\r\nunexpected_error_replies:%llu\r\n"
        "total_error_replies:%llu\r\ndump_payload_sanitizations:0\r\ntotal_reads_processed:0\r\n"
        "total_writes_processed:0\r\nio_threaded_reads_processed:0\r\nio_threaded_writes_processed:0\r\n"
        "reply_buffer_shrinks:0\r\nreply_buffer_expands:0\r\nacl_access_denied_auth:%llu\r\n"
        "acl_access_denied_cmd:%llu\r\nacl_access_denied_key:%llu\r\nacl_access_denied_channel:%llu\r\n",
        (ull)atomic_load(&s->connections_received), (ull)sum.commands, (ull)rates.commands, (ull)sum.net_in,
        (ull)sum.net_out, rates.input_kbps, rates.output_kbps, (ull)atomic_load(&s->connections_rejected),
        (ull)atomic_load(&s->sync_full), (ull)atomic_load(&s->sync_partial_ok), (ull)atomic_load(&s->sync_partial_err),
        (ull)sum.expired, (ull)atomic_load(&s->expire_cut_short), (ull)atomic_load(&s->expire_us) / 1000,
        (ull)atomic_load(&s->evicted_keys), (ull)atomic_load(&s->evicted_clients),
        (long long)((int64_t)atomic_load(&s->over_maxmemory_us) + over_us) / 1000, (long long)over_us / 1000,
        (ull)sum.hits, (ull)sum.misses, pubsub_entries(n, PUBSUB_CHANNEL), pubsub_entries(n, PUBSUB_PATTERN),
        pubsub_entries(n, PUBSUB_SHARD), tracking.keys, tracking.items, tracking.prefixes,
        (ull)atomic_load(&s->unexpected_errors), (ull)errorstats_total(n->errors),
        (ull)acl_log_refusals(n->acl_log, ACL_DENIED_AUTH), (ull)acl_log_refusals(n->acl_log, ACL_DENIED_COMMAND),
        (ull)acl_log_refusals(n->acl_log, ACL_DENIED_KEY), (ull)acl_log_refusals(n->acl_log, ACL_DENIED_CHANNEL));
}

static void append_time(struct buf *b, const char *name, struct timeval t)
{
    buf_printf(b, "%s:%ld.%06ld\r\n", name, (long)t.tv_sec, (long)t.tv_usec);
}

static void info_cpu(struct node *n, struct buf *b)
{
    (void)n;
    struct rusage self, children, thread;
    getrusage(RUSAGE_SELF, &self);
    getrusage(RUSAGE_CHILDREN, &children);
    getrusage(RUSAGE_THREAD, &thread);
    append_time(b, "used_cpu_sys", self.ru_stime);
    append_time(b, "used_cpu_user", self.ru_utime);
    append_time(b, "used_cpu_sys_children", children.ru_stime);
    append_time(b, "used_cpu_user_children", children.ru_utime);
    append_time(b, "used_cpu_sys_main_thread", thread.ru_stime);
    append_time(b, "used_cpu_user_main_thread", thread.ru_utime);
}

static void info_commandstats(struct node *n, struct buf *b)
{
    uint64_t per_us = clock_ticks_per_us();
    for (int id = 0; id < CMD_ID_COUNT; id++) {
        uint64_t calls = 0, ticks = 0, rejected = 0, failed = 0;
        for (int i = 0; i < n->worker_count; i++) {
            struct command_stats *s = &n->workers[i]->commands[id];
            calls += atomic_load_explicit(&s->calls, memory_order_relaxed);
            ticks += atomic_load_explicit(&s->ticks, memory_order_relaxed);
            rejected += atomic_load_explicit(&s->rejected, memory_order_relaxed);
            failed += atomic_load_explicit(&s->failed, memory_order_relaxed);
        }
        if (!calls && !rejected && !failed) continue;
        uint64_t us = ticks / per_us;
        buf_printf(b, "cmdstat_%s:calls=%llu,usec=%llu,usec_per_call=%.2f,rejected_calls=%llu,failed_calls=%llu\r\n",
                   command_by_id((enum command_id)id)->name, (ull)calls, (ull)us, ratio((double)us, (double)calls),
                   (ull)rejected, (ull)failed);
    }
}

static void info_keyspace(struct node *n, struct buf *b)
{
    for (int db = 0; db < store_databases(n->store); db++) {
        size_t keys = store_db_count(n->store, db);
        if (keys) buf_printf(b, "db%d:keys=%zu,expires=%zu,avg_ttl=0\r\n", db, keys, store_db_ttl_count(n->store, db));
    }
}

static void info_persistence(struct node *n, struct buf *b)
{
    persistence_info(n->persistence, b);
}

static void info_replication(struct node *n, struct buf *b)
{
    replication_info(n->replication, b);
}

static void info_cluster(struct node *n, struct buf *b)
{
    buf_printf(b, "cluster_enabled:%d\r\n", n->cluster != NULL);
    /* -1: its right to write is not limited. */
    if (n->cluster) buf_printf(b, "cluster_lease_left_ms:%lld\r\n", (long long)cluster_lease_left_ms(n->cluster));
}

static void info_errorstats(struct node *n, struct buf *b)
{
    errorstats_info(n->errors, b);
}

static void info_nothing(struct node *n, struct buf *b)
{
    (void)n;
    (void)b;
}

static const struct section {
    const char *name, *title;
    bool by_default;
    void (*fields)(struct node *n, struct buf *b);
} sections[] = {
    {"server", "Server", true, info_server},
    {"clients", "Clients", true, info_clients},
    {"memory", "Memory", true, info_memory},
    {"persistence", "Persistence", true, info_persistence},
    {"stats", "Stats", true, info_stats},
    {"replication", "Replication", true, info_replication},
    {"cpu", "CPU", true, info_cpu},
    {"modules", "Modules", true, info_nothing},
    {"commandstats", "Commandstats", false, info_commandstats},
    {"errorstats", "Errorstats", true, info_errorstats},
    {"latencystats", "Latencystats", false, latency_info},
    {"cluster", "Cluster", true, info_cluster},
    {"keyspace", "Keyspace", true, info_keyspace},
    {"hotkeys", "Hotkeys", false, topkeys_info_hot},
    {"bigkeys", "Bigkeys", false, topkeys_info_big},
};

static bool asked_for(const struct call *c, const struct section *s)
{
    if (c->argc == 1) return s->by_default;
    for (size_t i = 1; i < c->argc; i++) {
        if (call_arg_is(c, i, "all") || call_arg_is(c, i, "everything") || call_arg_is(c, i, s->name)) return true;
        if (call_arg_is(c, i, "default") && s->by_default) return true;
    }
    return false;
}

void cmd_info(struct call *c)
{
    struct node *n = call_conn(c)->worker->node;
    struct buf text = {0};
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        if (!asked_for(c, &sections[i])) continue;
        buf_printf(&text, "%s# %s\r\n", text.n ? "\r\n" : "", sections[i].title);
        sections[i].fields(n, &text);
    }
    resp_verbatim(&c->out, "txt", buf_bytes(&text));
    buf_deinit(&text);
}
