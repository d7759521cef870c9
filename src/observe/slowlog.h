/* slowlog.h: calls that took long, the newest ones, and what SLOWLOG replies about them.
 * Threads: any; a lock of its own, a leaf. */
#ifndef COVEY_OBSERVE_SLOWLOG_H
#define COVEY_OBSERVE_SLOWLOG_H

#include "commands/table.h"
#include "resp/resp.h"

struct slow_call { /* borrowed */
    const struct command *cmd;
    const struct bytes *argv;
    size_t argc;
    uint64_t us;
    int64_t at_s; /* wall clock */
    const char *peer, *name;
};

struct slowlog;

struct slowlog *slowlog_create(void);
void slowlog_destroy(struct slowlog *s);
/* Copies the beginning of its arguments; the oldest entry goes when there are more than `most`. */
void slowlog_add(struct slowlog *s, const struct slow_call *c, size_t most);
/* Whether argument i is a password or a rule of a user: shown as "(redacted)" wherever commands are kept or shown. */
bool slowlog_is_secret(const struct command *cmd, const struct bytes *argv, size_t i);

void slowlog_reply_get(struct resp_out *o, struct slowlog *s, const struct bytes *argv, size_t argc);
size_t slowlog_length(struct slowlog *s);
void slowlog_reset(struct slowlog *s);
extern const char *const slowlog_help[]; /* the lines of SLOWLOG HELP that are its own */
extern const size_t slowlog_help_count;

#endif
