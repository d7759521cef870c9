/* node.h: the data node put together; inside src/server only.
 * Each module gets what it needs passed in; this struct is only the place where the pieces are held. */
#ifndef COVEY_SERVER_NODE_H
#define COVEY_SERVER_NODE_H

#include "change/change.h"
#include "command/call.h"
#include "net/net.h"
#include "server/config.h"
#include "store/store.h"

#include <pthread.h>
#include <sched.h>

struct cluster;
struct cluster_state;
struct replication;
struct worker;
struct conn;
struct waiting_room;
struct watch_registry;
struct pubsub;
struct tracking;
struct blocking;
struct persistence;
struct aof;
struct reaper;
struct slowlog;
struct crew;
struct failover;
struct shutdown;
struct durable;
struct last_writes;
struct latency;
struct errorstats;
struct migrate_cache;
struct sampler;
struct listeners;
struct tls;
struct acl;
struct acl_log;
struct renames;
struct scripting;

/* What a command cost, for INFO commandstats; written by one worker, read by all. */
struct command_stats {
    _Atomic uint64_t calls, ticks, rejected, failed;
};

enum pause_mode { PAUSE_NONE, PAUSE_WRITE, PAUSE_ALL };

/* Counters that no single worker owns; any thread, relaxed. */
struct node_stats {
    _Atomic uint64_t connections_received, connections_rejected, query_buffer_disconnects, output_limit_disconnects;
    _Atomic uint64_t sync_full, sync_partial_ok, sync_partial_err;
    _Atomic uint64_t evicted_keys, evicted_clients;
    _Atomic uint64_t unexpected_errors; /* of commands of the primary or the AOF: propagation_failed() */
    _Atomic uint64_t held_timed_out;    /* replies that became errors: not safe in time, or the role changed */
    _Atomic uint64_t expire_us, expire_cut_short; /* active expiry: time taken, and ticks whose budget did not do */
    _Atomic uint64_t over_maxmemory_us;           /* time spent above maxmemory, but for a time that goes on */
    _Atomic int64_t over_maxmemory_since_us;      /* monotonic; 0: not above it */
};

struct node {
    struct config *config;
    char config_trouble[128];     /* why the last CONFIG SET was taken back; with the server at rest */
    struct call_options *options; /* derived from config; changed with the server at rest */
    struct store *store;
    struct gate *gate;
    struct change_log *log;
    struct durable *durable;         /* how far the log is safe: replies wait for it */
    struct last_writes *last_writes; /* NULL: nobody has asked so far */
    struct worker **workers;
    int worker_count;
    _Atomic(struct crew *) crew;  /* NULL with one worker */
    struct waiting_room *waiting; /* connections that wait for a slot */
    struct watch_registry *watch;
    struct pubsub *pubsub;
    struct tracking *tracking;
    _Atomic int monitor_count;
    struct blocking *blocking; /* clients that sleep until a key has something for them */
    struct persistence *persistence;
    struct aof *aof;
    struct replication *replication;
    struct cluster *cluster; /* NULL when cluster-enabled is no */
    struct cluster_state *cluster_state;
    struct snapshot_budget *snapshot_budget; /* what snapshots may keep */
    struct reaper *reaper;                   /* frees large values in the background */
    struct slowlog *slowlog;
    struct failover *failover;
    struct shutdown *shutdown;
    struct latency *latency;
    struct errorstats *errors;
    struct acl *acl;                    /* users; changed with the server at rest */
    const struct server_beside *beside; /* with proxy; set at the start */
    void *proxy;                        /* inside this process (proxy-port); NULL: none */
    struct acl_log *acl_log;
    struct renames *renames; /* of rename-command; NULL: no command has another name */
    struct scripting *scripting;
    struct sampler *sampler;                 /* rates for INFO */
    _Atomic(struct migrate_cache *) migrate; /* connections that MIGRATE keeps; NULL before its first use */
    struct loop *main_loop;
    struct listeners *listeners;
    struct tls *tls; /* contexts of sessions to come; configured only when an option asks for TLS */
    struct node_stats stats;
    char run_id[41];
    int64_t started_ms;    /* wall clock */
    size_t startup_memory; /* mem_used() before the dataset was loaded */

    _Atomic uint64_t next_client_id;
    _Atomic int client_count;
    _Atomic int blocked_count;            /* clients in WAIT */
    _Atomic uint64_t dirty;               /* see node_changes() */
    _Atomic bool loading;                 /* the dataset is being loaded: most commands get -LOADING */
    size_t used_before, used_high;        /* main thread: mem_used() at the last tick; the most since the last fall */
    int steady_ticks;                     /* main thread: till memory counts as steady again; 0: it does */
    _Atomic unsigned memory_falls;        /* how often memory in use was seen to have fallen */
    _Atomic unsigned memory_purges;       /* how often MEMORY PURGE was called */
    _Atomic bool active_expire;           /* DEBUG SET-ACTIVE-EXPIRE */
    _Atomic int64_t client_pause;         /* CLIENT PAUSE: until (monotonic ms) * 4 + enum pause_mode, in one word */
    _Atomic int64_t failover_pause_until; /* a failover or a shutdown holds writes until then (monotonic ms); 0: none */
    _Atomic int watch_count;              /* keys under WATCH anywhere; 0 spares the look-up */
    _Atomic bool auth_required; /* a new connection has to log in: the default user is off or has a password */
    _Atomic bool open_to_all;   /* the default user needs no password */
    bool exec_at_rest; /* a transaction runs with the server at rest: what it has changed is not in the log yet */
    _Atomic bool replies_need_sync; /* appendfsync always */
    int oom_base;                   /* the process's score in the kernel when it was started */
    _Atomic bool oom_changed;       /* it has another one now */
    cpu_set_t processors;           /* that the process was started with; constant */
    _Atomic bool replies_need_file; /* the AOF's files are being changed */
    _Atomic bool reads_wait;        /* min-replicas-to-ack-reads; changed at rest */
};

/* Cluster mode without cluster-databases: nothing but database 0 can be used. */
static inline bool node_has_one_database(const struct node *n)
{
    return config_bool(n->config, CFG_CLUSTER_ENABLED) && config_num(n->config, CFG_CLUSTER_DATABASES) == 1;
}
/* Whether this node is a replica now; any thread. */
bool data_node_is_replica(const struct node *n);
/* CLIENT PAUSE until then (monotonic ms); PAUSE_NONE ends it at once.  Any thread. */
void node_pause(struct node *n, enum pause_mode mode, int64_t until_ms);
/* The same for a failover or a shutdown, which a CLIENT UNPAUSE does not end; 0: it is over. */
void node_pause_for_failover(struct node *n, int64_t until_ms);
/* What is held up now; any thread. */
enum pause_mode node_paused(const struct node *n, int64_t now_mono_ms);
/* Runs fn on every worker's loop thread, soon. */
void node_post_workers(struct node *n, void (*fn)(struct worker *w));
void node_wake_workers(struct node *n); /* a turn of every loop, soon, with nothing to do but to look around */
/* ---- reaper.c: frees large values on a thread of its own; any thread may call ---- */
struct reaper *reaper_create(void);
void reaper_free_entry(void *reaper, struct entry *e);                      /* the store's dispose hook; takes e */
void reaper_free_tables(struct reaper *r, struct table **tables, size_t n); /* takes the tables, copies the array */
uint64_t reaper_pending(const struct reaper *r);                            /* objects that wait to be freed */
uint64_t reaper_freed(const struct reaper *r);
void reaper_reset_freed(struct reaper *r);             /* CONFIG RESETSTAT */
uint64_t reaper_pending_bytes(const struct reaper *r); /* about as much memory comes back soon; without tables */
bool reaper_has_tables(const struct reaper *r);        /* whole tables wait to be freed */
void reaper_collect(struct reaper *r);                 /* its thread calls mem_collect(true) */

/* Sums over the workers. */
struct stats_sum {
    uint64_t hits, misses, expired, commands, net_in, net_out;
};
void node_stats_sum(const struct node *n, struct stats_sum *out);
/* Changes since the last save: node.dirty and what each worker counted.  Any thread. */
uint64_t node_changes(const struct node *n);

#endif
