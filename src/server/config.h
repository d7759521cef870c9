/* config.h: every option of the data node, one row each in options.def.
 *
 * Numbers, booleans and enumerations may be read by any thread at any time (relaxed atomics); texts are copied out
 * under the table's mutex.  Values change through config_set() only (start-up, CONFIG SET). */
#ifndef COVEY_SERVER_CONFIG_H
#define COVEY_SERVER_CONFIG_H

#include "base/bytes.h"
#include "resp/resp.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum config_id {
#define OPTION(id, ...) CFG_##id,
#include "server/options.def"
#undef OPTION
    CFG_COUNT
};

struct config;

/* Told after all values of a CONFIG SET are in place, once for each that was named; by CONFIG SET's thread. */
typedef void config_listener(void *ctx, enum config_id id);

/* Values of the enumerations that other parts of the node compare with, in the order of their rows in options.def. */
enum {
    MAXMEMORY_VOLATILE_LRU,
    MAXMEMORY_VOLATILE_LFU,
    MAXMEMORY_VOLATILE_RANDOM,
    MAXMEMORY_VOLATILE_TTL,
    MAXMEMORY_ALLKEYS_LRU,
    MAXMEMORY_ALLKEYS_LFU,
    MAXMEMORY_ALLKEYS_RANDOM,
    MAXMEMORY_NOEVICTION
};
enum { ENDPOINT_IP, ENDPOINT_HOSTNAME, ENDPOINT_UNKNOWN };
enum { FSYNC_EVERYSEC, FSYNC_ALWAYS, FSYNC_NO };
enum { PROTECTED_NO, PROTECTED_YES, PROTECTED_LOCAL }; /* enable-debug-command and its like */
enum { SHUTDOWN_SAVE = 1, SHUTDOWN_NOSAVE = 2, SHUTDOWN_NOW = 4, SHUTDOWN_FORCE = 8 }; /* shutdown-on-sigterm, bits */

/* Told before the listener, with the new values in place: makes what can fail (sockets, certificates).  False: the old
 * values are put back; *failed is an index in ids, *reason a sentence. */
typedef bool config_applier(void *ctx, const enum config_id *ids, size_t n, size_t *failed, const char **reason);
enum { PUBSUB_ALLCHANNELS, PUBSUB_RESETCHANNELS }; /* acl-pubsub-default */

struct config *config_create(void); /* all defaults */
void config_destroy(struct config *c);

/* Start-up; argv[0] is skipped: an optional redis.conf, then "--directive value ..." flags, as redis-server takes them
 * ("-" reads standard input; include is followed).  E_INVALID: *error (owned by the caller, mem_free()) says file,
 * line, directive and reason in redis-server's words; unknown directives only append to *warnings. */
MUST_USE enum status config_load(struct config *c, int argc, char **argv, char **error, struct buf *warnings);
/* The absolute path of the file that was loaded; "" when there is none. */
const char *config_file(const struct config *c);

/* How struct config begins: several options are looked at with every command. */
struct config_numbers {
    _Atomic int64_t num[CFG_COUNT]; /* of texts: whether there is any */
};
/* Numbers, memory sizes, enumerations, booleans. */
static inline int64_t config_num(const struct config *c, enum config_id id)
{
    return atomic_load_explicit(&((const struct config_numbers *)c)->num[id], memory_order_relaxed);
}
static inline bool config_bool(const struct config *c, enum config_id id)
{
    return config_num(c, id) != 0;
}
/* Appends the text of a string option (or the printed value of any other). */
void config_text(const struct config *c, enum config_id id, struct buf *out);
/* A malloc'ed, terminated copy; mem_free(). */
char *config_cstr(const struct config *c, enum config_id id);
bool config_text_is_empty(const struct config *c, enum config_id id);

/* CONFIG SET: n names and values in turn (n is even), all of them or none.  `privileged` lets it change protected
 * options.  E_INVALID: *error gets the whole error reply (without '-') in redis-server's words.  One thread at a time.
 */
MUST_USE enum status config_set(struct config *c, const struct bytes *pairs, size_t n, bool privileged,
                                struct buf *error);
void config_set_applier(struct config *c, config_applier *fn, void *ctx);
void config_set_listener(struct config *c, config_listener *fn, void *ctx);
/* Sets a number without checks or listener (values that the node derives itself). */
void config_force_num(struct config *c, enum config_id id, int64_t value);
/* Sets a text the same way (REPLICAOF rewrites itself). */
void config_force_text(struct config *c, enum config_id id, struct bytes text);

/* CONFIG GET pattern...: writes the whole map reply. */
void config_reply_get(const struct config *c, const struct bytes *patterns, size_t n, struct resp_out *out);
/* CONFIG REWRITE: keeps comments and order, replaces the file atomically.  `all`: options that have their defaults are
 * written, too.  E_NOT_FOUND: started without a file.  E_IO: errno. */
MUST_USE enum status config_rewrite(struct config *c, bool all);

/* The "user" lines of redis.conf as requests: name and rules of each, one behind the other. */
struct bytes config_users(const struct config *c);
/* The rename-command lines; NULL: there are none.  The config's. */
struct renames *config_renames(const struct config *c);
/* Who writes the "user" lines for CONFIG REWRITE. */
void config_set_user_lines(struct config *c, void (*fn)(void *ctx, struct buf *out), void *ctx);

struct call_options;
/* What the handlers of data commands look at; at the start, and with the server at rest. */
void options_derive(const struct config *c, struct call_options *out);

struct output_limit {
    uint64_t hard, soft; /* bytes; 0: none */
    int64_t soft_seconds;
};
enum output_class { OUTPUT_NORMAL, OUTPUT_REPLICA, OUTPUT_PUBSUB, OUTPUT_CLASSES };
/* client-output-buffer-limit, kept decoded. */
void config_output_limit(const struct config *c, enum output_class cls, struct output_limit *out);

struct save_point {
    int64_t seconds, changes;
};
enum { SAVE_POINTS_MAX = 16 };
/* The save option, decoded; returns how many. */
int config_save_points(const struct config *c, struct save_point out[SAVE_POINTS_MAX]);

#endif
