/* table.h: what is known about every command of Redis 7.0, as data: the rows of commands.def and look-ups in them.
 * Promises: everything here is constant once the program runs; no look-up allocates.  It knows no handler (those are
 * command/handlers.h), so that a proxy or a tool can use the table without linking a server.
 * Threads: any thread at any time. */
#ifndef COVEY_COMMANDS_TABLE_H
#define COVEY_COMMANDS_TABLE_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* CMD_ID_GET, CMD_ID_CONFIG_GET, ...: dense numbers from 0, in the order of commands.def (containers stand before their
 * subcommands).  They are this program's own and may change with every version. */
enum command_id {
#define CMD(id, ...) CMD_ID_##id,
#define CMD_CONTAINER(id, ...) CMD_ID_##id,
#include "commands/commands.def"
#undef CMD
#undef CMD_CONTAINER
    CMD_ID_COUNT
};

/* Flags, in the order in which COMMAND INFO lists them. */
enum command_flag {
    CMD_WRITE = 1 << 0,
    CMD_READONLY = 1 << 1,
    CMD_DENYOOM = 1 << 2, /* refused when maxmemory is reached and nothing can be evicted */
    CMD_ADMIN = 1 << 3,
    CMD_PUBSUB = 1 << 4,
    CMD_NOSCRIPT = 1 << 5,
    CMD_BLOCKING = 1 << 6,
    CMD_LOADING = 1 << 7,            /* allowed while a data set is being loaded */
    CMD_STALE = 1 << 8,              /* allowed on a replica without a link and replica-serve-stale-data no */
    CMD_SKIP_MONITOR = 1 << 9,       /* not shown to MONITOR */
    CMD_SKIP_SLOWLOG = 1 << 10,      /* not put into SLOWLOG */
    CMD_ASKING = 1 << 11,            /* as if ASKING came before it */
    CMD_FAST = 1 << 12,              /* constant or logarithmic time */
    CMD_NO_AUTH = 1 << 13,           /* allowed before logging in */
    CMD_NO_MANDATORY_KEYS = 1 << 14, /* its keys may be absent altogether */
    CMD_NO_ASYNC_LOADING = 1 << 15,  /* refused during a diskless load that still serves the old data */
    CMD_NO_MULTI = 1 << 16,          /* refused inside MULTI */
    CMD_ALLOW_BUSY = 1 << 17,        /* allowed while a script runs too long */
    CMD_MOVABLEKEYS = 1 << 18,       /* the legacy triple does not find all keys */
    CMD_MAY_REPLICATE = 1 << 19,     /* may reach the replication stream without being a write; not shown */
    CMD_AT_REST = 1 << 20, /* may touch more than its keys' slots, or ask for the server at rest: a transaction
                            * with it runs so as a whole; every CMD_ADMIN is one; not shown */
};
enum { CMD_FLAG_COUNT = 21 };

/* ACL categories, in the order in which COMMAND INFO lists them; the column has the implied ones as well. */
enum command_category {
    CAT_KEYSPACE = 1 << 0,
    CAT_READ = 1 << 1,
    CAT_WRITE = 1 << 2,
    CAT_SET = 1 << 3,
    CAT_SORTEDSET = 1 << 4,
    CAT_LIST = 1 << 5,
    CAT_HASH = 1 << 6,
    CAT_STRING = 1 << 7,
    CAT_BITMAP = 1 << 8,
    CAT_HYPERLOGLOG = 1 << 9,
    CAT_GEO = 1 << 10,
    CAT_STREAM = 1 << 11,
    CAT_PUBSUB = 1 << 12,
    CAT_ADMIN = 1 << 13,
    CAT_FAST = 1 << 14,
    CAT_SLOW = 1 << 15,
    CAT_BLOCKING = 1 << 16,
    CAT_DANGEROUS = 1 << 17,
    CAT_CONNECTION = 1 << 18,
    CAT_TRANSACTION = 1 << 19,
    CAT_SCRIPTING = 1 << 20,
};
enum { CMD_CATEGORY_COUNT = 21 };

/* What a command does with a key, in the order in which COMMAND INFO lists it. */
enum key_flag {
    KEY_RO = 1 << 0,              /* reads the value, its type or its metadata */
    KEY_RW = 1 << 1,              /* changes the value */
    KEY_OW = 1 << 2,              /* overwrites it whatever it was */
    KEY_RM = 1 << 3,              /* removes it */
    KEY_ACCESS = 1 << 4,          /* user data is returned or copied */
    KEY_UPDATE = 1 << 5,          /* user data is changed */
    KEY_INSERT = 1 << 6,          /* user data is added, none is changed or removed */
    KEY_DELETE = 1 << 7,          /* user data is removed */
    KEY_NOT_KEY = 1 << 8,         /* not a key, but routed like one (a shard channel) */
    KEY_INCOMPLETE = 1 << 9,      /* the specification may miss keys */
    KEY_VARIABLE_FLAGS = 1 << 10, /* the true flags depend on the arguments */
};
enum { KEY_FLAG_COUNT = 11 };

/* Where a command's keys are: where to begin, and how to go on from there. */
struct key_spec {
    uint16_t flags;
    enum { KEYS_NOWHERE, KEYS_AT_INDEX, KEYS_AFTER_KEYWORD, KEYS_BEGIN_UNKNOWN } begin : 8;
    enum { KEYS_IN_RANGE, KEYS_BY_COUNT, KEYS_FIND_UNKNOWN } find : 8;
    int8_t index; /* position; for a keyword where the search starts, negative: from the end, backwards */
    const char *keyword;
    /* KEYS_IN_RANGE: last (relative to the first; negative: to the end), step, limit (2: only the first half, ...).
     * KEYS_BY_COUNT: position of the count, of the first key (relative to the beginning), step. */
    int8_t last, step, limit;
    int8_t count_index, first;
};
enum { KEY_SPECS_MAX = 3 };

struct command {
    const char *name;         /* lower case; "config|get" for a subcommand */
    uint32_t flags;           /* CMD_... */
    uint32_t categories;      /* CAT_... */
    uint16_t id;              /* enum command_id */
    int8_t arity;             /* arguments with the name (and subcommand); negative: at least so many */
    int8_t first, last, step; /* legacy triple of key positions; last < 0 counts from the end; all 0: none */
    uint8_t name_length;
    struct key_spec key_specs[KEY_SPECS_MAX]; /* the first with KEYS_NOWHERE ends them */
    const char *tips;                         /* separated by one space, "" if none */
    const char *group;                        /* "string", "sorted-set", ... */
    const char *since;                        /* the version of Redis that brought it */
    const char *complexity;                   /* "O(1)"; "" where it says nothing */
    const char *summary;
};

/* The row of an id below CMD_ID_COUNT. */
const struct command *command_by_id(enum command_id id);

/* A command by its name in any case; "config|get" finds the subcommand.  NULL if there is none. */
const struct command *command_find(struct bytes name);
/* container's subcommand of that name (in any case, "get"), or NULL. */
const struct command *command_find_sub(const struct command *container, struct bytes name);
/* What a request (argc >= 1) calls: for a container with a second argument the subcommand.  NULL if nothing has that
 * name; *container, if asked for, is then the container whose subcommand is unknown, or NULL. */
const struct command *command_of_request(const struct bytes *argv, size_t argc, const struct command **container);

const struct command *command_parent(const struct command *c); /* NULL if c is not a subcommand */
unsigned command_sub_count(const struct command *c);           /* they follow it: ids c->id + 1, + 2, ... */
bool command_arity_ok(const struct command *c, size_t argc);
bool command_runs_script(const struct command *c); /* EVAL, EVALSHA, FCALL and their _RO forms */
bool command_is_eval(const struct command *c);     /* EVAL, EVAL_RO: by the script's text */
bool command_is_evalsha(const struct command *c);  /* EVALSHA, EVALSHA_RO */

/* The reply to a command with keys of several slots. */
#define CROSSSLOT_ERROR "CROSSSLOT Keys in request don't hash to the same slot"

/* Names for the bits above: "write", "readonly"; "keyspace", "read" (no @); "RO", "access". NULL for the hidden ones.
 */
const char *command_flag_name(unsigned bit);
const char *command_category_name(unsigned bit);
const char *key_flag_name(unsigned bit);
/* The bit of a category's name in any case, without @; 0 if there is none. */
uint32_t command_category_find(struct bytes name);
/* Calls each with every tip of c, in order. */
void command_each_tip(const struct command *c, void (*each)(void *arg, struct bytes tip), void *arg);

struct command_key {
    uint32_t index; /* in argv */
    uint16_t flags; /* KEY_... for this very call */
};

/* Where the keys of this request are.  Stores the first out_cap of them and returns how many there are (0: none), or -1
 * when the arguments cannot be a valid call (a number of keys that is not one, or more than there are arguments).
 * Checks nothing else: test the arity first.  Repeated keys are reported repeatedly; order is that of the key
 * specifications. */
int command_keys(const struct command *c, const struct bytes *argv, size_t argc, struct command_key *out,
                 size_t out_cap);
/* Whether each key specification finds keys, as COMMAND GETKEYS demands. Calls may be valid without: PFMERGE of a
 * target alone. */
bool command_keys_complete(const struct command *c, const struct bytes *argv, size_t argc);
/* Whether a cluster's node asks whose the slots of the call's keys are.  Not for an XREAD or XREADGROUP whose words
 * cannot be right: that is refused where it came to, as redis-server does it. */
bool command_is_routed(const struct command *c, const struct bytes *argv, size_t argc);
/* command_keys() plus what is routed like a key without being one (KEY_NOT_KEY: shard channels); none for a call that
 * is not routed. */
int command_routing_keys(const struct command *c, const struct bytes *argv, size_t argc, struct command_key *out,
                         size_t out_cap);
/* Whether a call can have keys at all. */
bool command_has_keys(const struct command *c);
/* The position of the key where every call has one and always there; 0: it is not that simple. */
unsigned command_one_key(const struct command *c);

#endif
