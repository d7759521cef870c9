/* debug.c: the DEBUG subcommands that test suites and redis-cli use. */
#include "server/debug.h"

#include "base/glob.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"
#include "cluster/cluster.h"
#include "server/aof.h"
#include "server/conn.h"
#include "server/memory.h"
#include "server/persistence.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct node *node_of(const struct call *c)
{
    return call_conn(c)->worker->node;
}

static void debug_unknown(struct call *c)
{
    struct bytes name = c->argv[1];
    resp_errorf(&c->out, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try DEBUG HELP.",
                (int)(name.n < 128 ? name.n : 128), name.p);
}

void debug_sleep_seconds(double seconds)
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
    debug_sleep_seconds(seconds);
    if (leave) worker_enter_gate(w);
    resp_ok(&c->out);
}

/* True after an error reply: a load goes on beside the gate, so the whole dataset is nobody's then. */
bool debug_loading(struct call *c)
{
    bool yes = atomic_load(&node_of(c)->loading);
    if (yes) resp_error(&c->out, "LOADING Redis is loading the dataset in memory");
    return yes;
}

/* ---- the rest ---- */

static void debug_reload(struct call *c)
{
    struct reload how = {.save = true, .flush = true};
    for (size_t i = 2; i < c->argc; i++) {
        if (call_arg_is(c, i, "NOSAVE"))
            how.save = false;
        else if (call_arg_is(c, i, "NOFLUSH"))
            how.flush = false;
        else if (call_arg_is(c, i, "MERGE"))
            how.merge = true;
        else {
            resp_error(&c->out, "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.");
            return;
        }
    }
    if (!call_exclusive(c) || debug_loading(c)) return;
    char *error = NULL;
    if (persistence_reload(node_of(c)->persistence, &how, &error) == OK) {
        log_warning("DB reloaded by DEBUG RELOAD");
        resp_ok(&c->out);
    } else {
        log_warning("DEBUG RELOAD failed: %s", error ? error : "");
        resp_error(&c->out, "ERR Error trying to load the RDB dump");
    }
    mem_free(error);
}

static void debug_loadaof(struct call *c)
{
    if (!call_exclusive(c) || debug_loading(c)) return;
    if (c->flags & CALL_IN_EXEC && call_conn(c)->worker->effects.n) {
        /* The transaction goes into the log as a whole: what it has written would be in the file and not in memory. */
        resp_error(&c->out, "ERR DEBUG LOADAOF can't follow a write of the same transaction");
        return;
    }
    if (!aof_has_files(node_of(c)->aof)) {
        resp_error(&c->out, "ERR Error trying to load the AOF files, check server logs.");
        return;
    }
    if (!aof_reload(node_of(c)->aof)) {
        /* As redis-server: half a dataset is not to be served. */
        log_warning("DEBUG LOADAOF failed, exiting");
        _exit(1);
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

/* A whole number is asked for, and nothing done with it. */
static void debug_accepted_number(struct call *c)
{
    int64_t v;
    if (call_arg_i64(c, 2, &v, NULL)) resp_ok(&c->out);
}

static void debug_replybuffer(struct call *c)
{
    int64_t v;
    if (call_arg_is(c, 2, "peak-reset-time")) {
        bool word = call_arg_is(c, 3, "never") || call_arg_is(c, 3, "reset");
        if (word || call_arg_i64(c, 3, &v, NULL)) resp_ok(&c->out);
    } else if (call_arg_is(c, 2, "resizing")) {
        resp_ok(&c->out);
    } else {
        debug_unknown(c);
    }
}

static void debug_client_eviction(struct call *c)
{
    if (!call_exclusive(c)) return;
    struct buf text = {0};
    if (memory_client_classes(node_of(c), &text))
        resp_verbatim(&c->out, "txt", buf_bytes(&text));
    else
        resp_error(&c->out, "ERR maxmemory-clients is disabled.");
    buf_deinit(&text);
}

static void debug_config_rewrite(struct call *c)
{
    if (!call_exclusive(c)) return;
    enum status st = config_rewrite(node_of(c)->config, true);
    if (st == OK)
        resp_ok(&c->out);
    else
        resp_errorf(&c->out, "ERR CONFIG-REWRITE-FORCE-ALL failed: %s",
                    st == E_NOT_FOUND ? "The server is running without a config file" : strerror(errno));
}

/* Whatever it is, the replicas get it, and may then differ.  The AOF would get it, too, and could not be loaded again.
 */
static void debug_replicate(struct call *c)
{
    if (aof_is_on(node_of(c)->aof)) {
        resp_error(&c->out, "ERR DEBUG REPLICATE is not possible with appendonly yes");
        return;
    }
    call_effect(c, c->argc - 2, c->argv + 2);
    resp_ok(&c->out);
}

static void debug_drop_frames(struct call *c)
{
    int64_t type;
    if (!call_arg_i64(c, 2, &type, NULL)) return;
    struct cluster *cluster = node_of(c)->cluster;
    if (cluster) cluster_drop_frames(cluster, type < 0 || type > UINT16_MAX ? -1 : (int)type);
    resp_ok(&c->out);
}

struct link_kill {
    struct cluster *cluster;
    struct bytes node;
    bool to, from, known;
};

/* On the cluster's thread. */
static void kill_links(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out, void *arg)
{
    struct link_kill *k = arg;
    struct cluster_id id;
    const struct cluster_node *node = cluster_id_parse(k->node, &id) ? cluster_node_find(core, &id) : NULL;
    (void)now;
    (void)out;
    k->known = node != NULL;
    if (!node) return;
    struct cluster_node_view v;
    cluster_node_view(core, node, &v);
    if (k->to) cluster_link_cut(k->cluster, v.link_out);
    if (k->from) cluster_link_cut(k->cluster, v.link_in);
}

static void debug_clusterlink(struct call *c)
{
    struct bytes node = c->argv[4], direction = c->argv[3];
    if (!call_arg_is(c, 2, "KILL")) {
        debug_unknown(c);
        return;
    }
    bool all = call_arg_is(c, 3, "all");
    struct link_kill k = {.cluster = node_of(c)->cluster,
                          .node = node,
                          .to = all || call_arg_is(c, 3, "to"),
                          .from = all || call_arg_is(c, 3, "from")};
    if (!k.cluster) {
        resp_error(&c->out, "ERR Debug option only available for cluster mode enabled setup!");
        return;
    }
    (void)cluster_run(k.cluster, kill_links, &k); /* nothing of it is kept */
    if (!k.known)
        resp_errorf(&c->out, "ERR Unknown node %.*s", (int)(node.n < 128 ? node.n : 128), node.p);
    else if (!k.to && !k.from)
        resp_errorf(&c->out, "ERR Unknown direction %.*s", (int)(direction.n < 128 ? direction.n : 128), direction.p);
    else
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
        "ASSERT|OOM|PANIC|SEGFAULT",
        "    Crash the server: a failed assertion, memory that is not there, a panic, a bad access.",
        "AOF-FLUSH-SLEEP <microsec>",
        "    Accepted, without effect.",
        "CHANGE-REPL-ID",
        "    Change the replication IDs of the instance.",
        "    Dangerous: should be used only for testing the replication subsystem.",
        "CLIENT-EVICTION",
        "    How many clients take how much memory, while maxmemory-clients is set.",
        "CLUSTERLINK KILL <to|from|all> <node-id>",
        "    End the cluster bus's connections to that node, from it, or both.",
        "CONFIG-REWRITE-FORCE-ALL",
        "    Like CONFIG REWRITE, with the options that have their defaults, too.",
        "CRASH-AND-RECOVER [<milliseconds>]",
        "    Start anew after that delay, without saving anything.",
        "DIGEST",
        "    Output a hex signature representing the current DB content.",
        "DIGEST-VALUE <key> [<key> ...]",
        "    Output a hex signature of the values of all the specified keys.",
        "DROP-CLUSTER-PACKET-FILTER <packet-type>",
        "    Take frames of the cluster bus of that type for lost when they arrive. -1: none.",
        "ERROR <string>",
        "    Return an error with <string> as message.",
        "HTSTATS <dbid>",
        "    How many keys, and keys with a time of expiry, a database has.",
        "HTSTATS-KEY <key>",
        "    How many elements a large value has.",
        "LEAK <string>",
        "    Accepted, without effect.",
        "LISTPACK <key>",
        "    Write the size of a small value to the server log.",
        "LOG <message>",
        "    Write <message> to the server log.",
        "OBJECT <key>",
        "    Show low level info about `key` and associated value.",
        "PAUSE-CRON <0|1>",
        "    Accepted, without effect.",
        "POPULATE <count> [<prefix>] [<size>]",
        "    Create <count> string keys named key:<num>, or <prefix>:<num>. They are not propagated to replicas,",
        "    and do not respect who serves their slots.",
        "PROTOCOL <type>",
        "    Reply with a test value of the specified type. <type> can be: string,",
        "    integer, double, bignum, null, array, set, map, attrib, push, verbatim,",
        "    true, false.",
        "QUICKLIST <key> [<0|1>]",
        "    Write the sizes of a list to the server log.",
        "QUICKLIST-PACKED-THRESHOLD <size>",
        "    Accepted, without effect: elements of any size are kept alike.",
        "LOADAOF",
        "    Flush the AOF buffers on disk and reload the AOF in memory.",
        "RELOAD [MERGE] [NOFLUSH] [NOSAVE]",
        "    Save the RDB on disk (not with NOSAVE), empty the memory (not with NOFLUSH), and load the file.",
        "    Keys that are there already are an error, or with MERGE are replaced.",
        "REPLICATE <command> [<arg> ...]",
        "    Send a command to the replicas only, which may then differ.",
        "REPLYBUFFER PEAK-RESET-TIME <NEVER|RESET|time>",
        "REPLYBUFFER RESIZING <0|1>",
        "    Accepted, without effect.",
        "RESTART [<milliseconds>]",
        "    Save configuration and data, and start anew after that delay.",
        "SDSLEN <key>",
        "    Show lengths of a key and its string.",
        "SET-ACTIVE-EXPIRE <0|1>",
        "    Whether expired keys are deleted that nobody asks for.",
        "SLEEP <seconds>",
        "    Stop the worker of this connection for <seconds>. Decimals allowed.",
        "STRUCTSIZE",
        "    Show the sizes of the structures that hold keys.",
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
    {"sdslen", 3, 3, debug_sdslen},
    {"structsize", 2, 2, debug_structsize},
    {"listpack", 3, 3, debug_listpack},
    {"quicklist", 3, 4, debug_quicklist},
    {"htstats", 3, 4, debug_htstats},
    {"htstats-key", 3, 4, debug_htstats_key},
    {"replicate", 3, SIZE_MAX, debug_replicate},
    {"client-eviction", 2, 2, debug_client_eviction},
    {"config-rewrite-force-all", 2, 2, debug_config_rewrite},
    {"replybuffer", 4, 4, debug_replybuffer},
    {"drop-cluster-packet-filter", 3, 3, debug_drop_frames},
    {"clusterlink", 5, 5, debug_clusterlink},
    {"pause-cron", 3, 3, debug_accepted},
    {"leak", 3, 3, debug_accepted},
    {"aof-flush-sleep", 3, 3, debug_accepted_number},
    {"segfault", 2, 2, debug_segfault},
    {"panic", 2, 2, debug_panic},
    {"assert", 2, 2, debug_assert},
    {"oom", 2, 2, debug_oom},
    {"restart", 2, 3, debug_restart},
    {"crash-and-recover", 2, 3, debug_crash_and_recover},
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
    debug_unknown(c);
}
