/* acl.h: users and what they may do: names, passwords, rules with selectors, checks, and the log of refusals.
 *
 * It knows no command, no connection and no file: the commands are a table handed in, requests are arguments with the
 * positions of their keys and channels.
 *
 * Promises: a rule that cannot be applied changes nothing; what acl_user_describe() prints gives the same permissions
 * when it is applied to a new user (but for future commands, which only +@all includes).  Matching of patterns takes at
 * most pattern length times text length.
 * Threads: whatever changes a user or the table (a struct acl * that is not const) has no reader or writer beside it:
 * the server does it at rest.  Reading is free for any number of threads between that.  The log has its own lock. */
#ifndef COVEY_ACL_ACL_H
#define COVEY_ACL_ACL_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- what is known about commands ---- */

/* Ids are dense from 0; a container stands before its subcommands, which follow it. */
struct acl_command {
    const char *name;    /* lower case, "config|get" for a subcommand */
    uint32_t categories; /* bits */
    uint16_t subs;       /* how many subcommands follow */
    bool is_sub;
    bool newer; /* does not weigh in which categories describe a user: the text is that of a server without it, and more
                 */
};

enum { ACL_COMMANDS_MAX = 511 };

struct acl_commands {
    const struct acl_command *rows;
    unsigned count;                    /* at most ACL_COMMANDS_MAX */
    int (*find)(struct bytes name);    /* id of a name in any case, also of "config|get"; -1: none */
    const char *const *category_names; /* of the bits, from bit 0 on */
    unsigned category_count;
};

/* ---- users ---- */

struct acl;
struct acl_user;

/* The table with its default user, who may do everything without a password.  `commands` stays the caller's and
 * outlives it. */
struct acl *acl_create(const struct acl_commands *commands);
void acl_destroy(struct acl *a);
/* Another table with the same users, which may be changed while the first is read. */
struct acl *acl_copy(const struct acl *a);
/* Whether new users (and "reset") begin with all channels: acl-pubsub-default. */
void acl_set_all_channels_default(struct acl *a, bool all);

struct acl_user *acl_default_user(const struct acl *a); /* lives as long as the table */
struct acl_user *acl_find(const struct acl *a, struct bytes name);
size_t acl_count(const struct acl *a);
/* All users by name; mem_free() the array, the users stay the table's. */
const struct acl_user **acl_sorted(const struct acl *a, size_t *n);

/* May a user be called that? */
bool acl_name_ok(struct bytes name);

/* Joins "(+get", "~a)" to "(+get ~a)".  Gives the rules and their bytes in one allocation, to be freed with mem_free();
 * NULL: rules[*unmatched] opens a parenthesis that is not closed. */
struct bytes *acl_join_selectors(const struct bytes *rules, size_t n, size_t *joined, size_t *unmatched);

/* Changes a user, or adds one, by rules that were joined: all of them or none.  NULL: done.  Otherwise the reason in
 * redis-server's words, for rules[*failed]. */
const char *acl_set_user(struct acl *a, struct bytes name, const struct bytes *rules, size_t n, size_t *failed);
/* The same for a user that exists nowhere, to see whether the rules are fine: applies them all one by one and tells
 * each that fails. */
void acl_try_rules(const struct acl *a, const struct bytes *rules, size_t n,
                   void (*failed)(void *ctx, size_t rule, const char *why, bool unknown_name), void *ctx);
/* Takes a user out of the table and frees it.  Nobody may point to it any more.  Not for the default user. */
void acl_delete(struct acl *a, struct acl_user *u);
/* Exchanges the users of both, but each keeps the identity of its default user. */
void acl_exchange(struct acl *a, struct acl *b);
/* Takes everything from the default user, as if it was new: for a file that describes it. */
void acl_blank_default(struct acl *a);
/* Sets the default user's password; empty: none is needed. */
void acl_set_default_password(struct acl *a, struct bytes password);

struct bytes acl_user_name(const struct acl_user *u);
bool acl_user_enabled(const struct acl_user *u);
bool acl_user_nopass(const struct acl_user *u);
/* Whether the password is right and the user enabled; takes the same time wherever it differs. */
bool acl_user_authenticate(const struct acl_user *u, struct bytes password);

/* ---- checks ---- */

/* In the order of their weight: of several selectors' refusals the greatest is told. */
enum acl_verdict { ACL_ALLOWED, ACL_DENIED_COMMAND, ACL_DENIED_KEY, ACL_DENIED_AUTH, ACL_DENIED_CHANNEL };

enum { ACL_READ = 1, ACL_WRITE = 2 };

struct acl_key {
    uint32_t arg;  /* position of its name */
    uint32_t need; /* ACL_READ, ACL_WRITE, both or none (the name only) */
};

struct acl_channel {
    uint32_t arg;
    bool is_pattern; /* PSUBSCRIBE: must be listed as it is */
};

struct acl_request {
    unsigned command;
    bool always; /* the command itself needs no permission (AUTH, HELLO) */
    const struct bytes *argv;
    size_t argc;
    const struct acl_key *keys;
    size_t key_count;
    const struct acl_channel *channels;
    size_t channel_count;
};

/* True if the user may run everything on every key and channel: nothing has to be looked at.  One load. */
static inline bool acl_user_is_free(const struct acl_user *u)
{
    return *(const bool *)u; /* the first member; users.c has an assertion */
}
/* Whether keys, channels matter at all; if not, they need not be derived for acl_check(). */
bool acl_user_limits_keys(const struct acl_user *u);
bool acl_user_limits_channels(const struct acl_user *u);

/* *arg (may be asked for) is the argument that was refused, 0 for a command. */
enum acl_verdict acl_check(const struct acl_user *u, const struct acl_request *r, size_t *arg);
/* Whether the request is allowed by a selector that may read every key: for SORT BY and GET. */
bool acl_check_all_keys(const struct acl_user *u, const struct acl_request *r, unsigned need);
/* May the user use this channel (is_pattern: subscribe to this pattern)? */
bool acl_check_channel(const struct acl_user *u, struct bytes channel, bool is_pattern);

/* ---- descriptions ---- */

/* "on #<hash> ~k* resetchannels -@all +get (~x resetchannels -@all +set)", as ACL LIST shows it behind the name. */
void acl_user_describe(const struct acl *a, const struct acl_user *u, struct buf *out);

/* The pieces, for ACL GETUSER.  Flags and passwords by index, NULL or empty behind the last one. */
const char *acl_user_flag(const struct acl_user *u, unsigned i);
struct bytes acl_user_password(const struct acl_user *u, size_t i); /* the hash in hexadecimal digits */
size_t acl_user_selectors(const struct acl_user *u);                /* without the root, which is number 0 */
void acl_selector_commands(const struct acl *a, const struct acl_user *u, size_t selector, struct buf *out);
void acl_selector_keys(const struct acl_user *u, size_t selector, struct buf *out);
void acl_selector_channels(const struct acl_user *u, size_t selector, struct buf *out);

/* ---- the log ---- */

struct acl_log;

enum acl_context { ACL_AT_TOP, ACL_IN_MULTI, ACL_IN_LUA };

enum { ACL_LOG_TEXT_MAX = 4096 }; /* longer objects and user names are cut */

struct acl_log_entry {
    uint64_t count;
    enum acl_verdict reason;
    enum acl_context context;
    struct bytes object, user, client; /* client: the line of CLIENT LIST */
    int64_t at_ms;                     /* of the last one */
};

/* All of these: any thread; a leaf lock inside. */
struct acl_log *acl_log_create(void);
void acl_log_destroy(struct acl_log *log);
/* Notes a refusal; copies.  One that is like a recent entry is counted there.  At most `most` entries are kept. */
void acl_log_add(struct acl_log *log, const struct acl_log_entry *e, size_t most);
void acl_log_reset(struct acl_log *log);
/* Newest first, at most `most` of them; under the lock, so `each` takes no other. */
void acl_log_each(struct acl_log *log, size_t most, void (*each)(void *ctx, const struct acl_log_entry *e), void *ctx);
/* How many refusals for this reason there were since the start, logged or not. */
uint64_t acl_log_refusals(const struct acl_log *log, enum acl_verdict reason);

#endif
