/* decide.c: the table.  A command that has keys and no row here goes by its keys. */
#include "proxy/cluster/decide.h"

#define NOT_HERE(what) "ERR this is a proxy: " what
static const char one_server[] = NOT_HERE("this command is about one server; send it to the node itself");
static const char no_replica[] = NOT_HERE("nothing replicates from it or through it");
static const char no_modules[] = NOT_HERE("modules are loaded into the nodes themselves");
static const char no_cluster[] = "ERR This instance has cluster support disabled";

#define ROW(id, ...) [CMD_ID_##id] = {__VA_ARGS__}
#define ANY(id) ROW(id, COURSE_ANY, .in_multi = true)
#define EVERY(id, kind) ROW(id, COURSE_EVERY, GATHER_##kind)
#define LOCAL(id) ROW(id, COURSE_LOCAL)
#define REFUSED(id, why) ROW(id, COURSE_REFUSED, .reason = why)

static const struct decision rows[CMD_ID_COUNT] = {
    /* keys of several slots */
    ROW(MGET, COURSE_SPLIT),
    ROW(MSET, COURSE_SPLIT),
    ROW(DEL, COURSE_SPLIT),
    ROW(UNLINK, COURSE_SPLIT),
    ROW(EXISTS, COURSE_SPLIT),
    ROW(TOUCH, COURSE_SPLIT),

    /* all keys */
    ROW(SCAN, COURSE_SCAN),
    EVERY(DBSIZE, SUM),
    EVERY(KEYS, CONCAT),
    EVERY(RANDOMKEY, RANDOM),
    EVERY(FLUSHALL, FIRST),
    EVERY(FLUSHDB, FIRST),
    ROW(SWAPDB, COURSE_ONE, .reason = "ERR SWAPDB is not allowed in cluster mode"),

    /* scripts and functions */
    EVERY(SCRIPT_LOAD, FIRST),
    EVERY(SCRIPT_FLUSH, FIRST),
    EVERY(SCRIPT_EXISTS, AND),
    EVERY(SCRIPT_KILL, ANY_OK),
    REFUSED(SCRIPT_DEBUG, NOT_HERE("scripts are debugged on the node itself")),
    EVERY(FUNCTION_LOAD, FIRST),
    EVERY(FUNCTION_DELETE, FIRST),
    EVERY(FUNCTION_FLUSH, FIRST),
    EVERY(FUNCTION_RESTORE, FIRST),
    EVERY(FUNCTION_KILL, ANY_OK),
    ANY(FUNCTION_DUMP),
    ANY(FUNCTION_LIST),
    ANY(FUNCTION_STATS),

    /* messages */
    ROW(SUBSCRIBE, COURSE_SUBSCRIBE),
    ROW(UNSUBSCRIBE, COURSE_SUBSCRIBE),
    ROW(PSUBSCRIBE, COURSE_SUBSCRIBE),
    ROW(PUNSUBSCRIBE, COURSE_SUBSCRIBE),
    ROW(SSUBSCRIBE, COURSE_SUBSCRIBE),
    ROW(SUNSUBSCRIBE, COURSE_SUBSCRIBE),
    ANY(PUBLISH),
    ROW(SPUBLISH, COURSE_KEYS, .in_multi = true),
    EVERY(PUBSUB_CHANNELS, UNION),
    EVERY(PUBSUB_NUMPAT, SUM),
    EVERY(PUBSUB_NUMSUB, COUNTS),
    EVERY(PUBSUB_SHARDCHANNELS, UNION),
    EVERY(PUBSUB_SHARDNUMSUB, COUNTS),

    /* transactions */
    ROW(MULTI, COURSE_TRANSACTION),
    ROW(EXEC, COURSE_TRANSACTION),
    ROW(DISCARD, COURSE_TRANSACTION),
    ROW(WATCH, COURSE_TRANSACTION),
    ROW(UNWATCH, COURSE_TRANSACTION, .in_multi = true),

    /* the connection, which is the proxy's */
    ROW(PING, COURSE_LOCAL, .in_multi = true),
    ROW(ECHO, COURSE_LOCAL, .in_multi = true),
    LOCAL(AUTH),
    LOCAL(HELLO),
    LOCAL(QUIT),
    LOCAL(RESET),
    LOCAL(SELECT),
    LOCAL(CLIENT),
    LOCAL(CLIENT_CACHING),
    LOCAL(CLIENT_GETNAME),
    LOCAL(CLIENT_GETREDIR),
    LOCAL(CLIENT_HELP),
    LOCAL(CLIENT_ID),
    LOCAL(CLIENT_INFO),
    LOCAL(CLIENT_KILL),
    LOCAL(CLIENT_LIST),
    REFUSED(CLIENT_CROSSSLOT, NOT_HERE("where it can take keys of several slots together, it does so unasked")),
    REFUSED(CLIENT_MIN_REPLICAS_TO_ACK,
            NOT_HERE("its connections to the nodes are shared; set min-replicas-to-ack there")),
    LOCAL(CLIENT_NO_EVICT),
    LOCAL(CLIENT_NO_TOUCH),
    LOCAL(CLIENT_PAUSE),
    LOCAL(CLIENT_REPLY),
    LOCAL(CLIENT_SETINFO),
    LOCAL(CLIENT_SETNAME),
    REFUSED(CLIENT_TRACKING,
            NOT_HERE("its connections to the nodes are shared, so nothing can be tracked for one client")),
    LOCAL(CLIENT_TRACKINGINFO),
    LOCAL(CLIENT_UNBLOCK),
    LOCAL(CLIENT_UNPAUSE),

    /* users and settings, which are the proxy's */
    LOCAL(ACL),
    LOCAL(ACL_CAT),
    LOCAL(ACL_DELUSER),
    LOCAL(ACL_DRYRUN),
    LOCAL(ACL_GENPASS),
    LOCAL(ACL_GETUSER),
    LOCAL(ACL_HELP),
    LOCAL(ACL_LIST),
    LOCAL(ACL_LOAD),
    LOCAL(ACL_LOG),
    LOCAL(ACL_SAVE),
    LOCAL(ACL_SETUSER),
    LOCAL(ACL_USERS),
    LOCAL(ACL_WHOAMI),
    LOCAL(CONFIG),
    LOCAL(CONFIG_GET),
    LOCAL(CONFIG_HELP),
    LOCAL(CONFIG_RESETSTAT),
    LOCAL(CONFIG_REWRITE),
    LOCAL(CONFIG_SET),

    /* what a server says of itself: the proxy's own */
    LOCAL(INFO),
    LOCAL(ROLE),
    LOCAL(SLOWLOG),
    LOCAL(SLOWLOG_GET),
    LOCAL(SLOWLOG_HELP),
    LOCAL(SLOWLOG_LEN),
    LOCAL(SLOWLOG_RESET),
    LOCAL(LATENCY),
    LOCAL(LATENCY_DOCTOR),
    LOCAL(LATENCY_GRAPH),
    LOCAL(LATENCY_HELP),
    LOCAL(LATENCY_HISTOGRAM),
    LOCAL(LATENCY_HISTORY),
    LOCAL(LATENCY_LATEST),
    LOCAL(LATENCY_RESET),
    LOCAL(MEMORY_DOCTOR),
    LOCAL(MEMORY_MALLOC_STATS),
    LOCAL(MEMORY_STATS),
    LOCAL(MODULE_LIST),

    /* what every node knows */
    ANY(TIME),
    ANY(LOLWUT),
    ANY(PFSELFTEST),
    ANY(COMMAND),
    ANY(COMMAND_COUNT),
    ANY(COMMAND_DOCS),
    ANY(COMMAND_GETKEYS),
    ANY(COMMAND_GETKEYSANDFLAGS),
    ANY(COMMAND_HELP),
    ANY(COMMAND_INFO),
    ANY(COMMAND_LIST),
    ANY(FUNCTION),
    ANY(FUNCTION_HELP),
    ANY(MEMORY),
    ANY(MEMORY_HELP),
    ANY(MODULE),
    ANY(MODULE_HELP),
    ANY(OBJECT),
    ANY(OBJECT_HELP),
    ANY(PUBSUB),
    ANY(PUBSUB_HELP),
    ANY(SCRIPT),
    ANY(SCRIPT_HELP),
    ANY(XGROUP),
    ANY(XGROUP_HELP),
    ANY(XINFO),
    ANY(XINFO_HELP),

    /* the nodes themselves */
    ROW(WAIT, COURSE_WAIT, GATHER_LEAST, .in_multi = true),
    ROW(WAITAOF, COURSE_WAIT, GATHER_LEAST_EACH, .in_multi = true),
    ROW(MONITOR, COURSE_MONITOR),
    ROW(DEBUG, COURSE_DEBUG, .reason = one_server),
    EVERY(BGSAVE, FIRST),
    EVERY(BGREWRITEAOF, FIRST),
    EVERY(SAVE, FIRST),
    EVERY(LASTSAVE, LEAST),
    EVERY(MEMORY_PURGE, FIRST),
    REFUSED(SHUTDOWN, one_server),
    REFUSED(FAILOVER, one_server),
    REFUSED(REPLICAOF, one_server),
    REFUSED(SLAVEOF, one_server),
    REFUSED(PSYNC, no_replica),
    REFUSED(SYNC, no_replica),
    REFUSED(REPLCONF, no_replica),
    REFUSED(MODULE_LOAD, no_modules),
    REFUSED(MODULE_LOADEX, no_modules),
    REFUSED(MODULE_UNLOAD, no_modules),

    /* as a server without cluster mode */
    REFUSED(ASKING, no_cluster),
    REFUSED(READONLY, no_cluster),
    REFUSED(READWRITE, no_cluster),
    REFUSED(CLUSTER, no_cluster),
};

const struct decision *decision_of(const struct command *cmd)
{
    static const struct decision by_keys = {COURSE_KEYS, .in_multi = true}, none = {0};
    const struct decision *d = &rows[cmd->id];
    if (d->course != COURSE_NONE) return d;
    if (command_has_keys(cmd)) return &by_keys;
    const struct command *parent = command_parent(cmd);
    return parent && parent->id == CMD_ID_CLUSTER ? &rows[CMD_ID_CLUSTER] : &none;
}
