/* config_table.h: the rows of options.def and how their values are read and printed; inside src/server/config*.c only.
 * Pure functions; any thread. */
#ifndef COVEY_SERVER_CONFIG_TABLE_H
#define COVEY_SERVER_CONFIG_TABLE_H

#include "server/config.h"

enum option_type {
    TYPE_BOOL,
    TYPE_NUMBER,
    TYPE_OCTAL,
    TYPE_MEMORY,
    TYPE_SHARE,
    TYPE_ENUM,
    TYPE_WORDS,
    TYPE_NOTIFY, /* up to here the number is the value */
    TYPE_TEXT,   /* from here on the text is; the number says whether there is any */
    TYPE_FILENAME,
    TYPE_HOSTNAME,
    TYPE_TITLE,
    TYPE_DIRECTORY,
    TYPE_BIND,
    TYPE_REPLICAOF,
    TYPE_SAVE,
    TYPE_OUTPUT_LIMIT,
    TYPE_OOM_VALUES,
    TYPE_PERCENTILES,
};

/* The words of the flags column. */
enum option_flag {
    LIVE = 1 << 0,
    IMMUTABLE = 1 << 1,
    PROTECTED = 1 << 2,
    MULTI = 1 << 3,
    HIDDEN = 1 << 5,
    NULLABLE = 1 << 6,
    NEEDLESS = 1 << 7,
};

struct option {
    const char *name, *alias; /* alias may be NULL */
    enum option_type type;
    unsigned flags;
    const char *def;
    int64_t min, max;
    const char *names;
    const char *summary;
};

const struct option *option_row(enum config_id id);
/* By name or alias, in any case; false: there is none.  *by_alias may be asked for. */
bool option_find(struct bytes name, enum config_id *id, bool *by_alias);

static inline bool option_is_text(const struct option *o)
{
    return o->type >= TYPE_TEXT;
}

struct option_value {
    int64_t num;
    struct buf text; /* owned; the canonical form, as CONFIG GET shows it */
};

/* Reads the arguments of a directive (without its name).  `now` is the present text, which some directives only add
 * to.  False: `reason` says why, in redis-server's words. */
MUST_USE bool option_parse(const struct option *o, const struct bytes *argv, size_t argc, struct bytes now,
                           struct option_value *out, struct buf *reason);
/* Appends the printed form of a value that is a number. */
void option_print(const struct option *o, int64_t num, struct buf *out);

/* Calls each with the words between spaces; stops and returns false when each does. */
bool words_each(struct bytes text, bool (*each)(void *ctx, struct bytes word), void *ctx);
/* The words between spaces, at most cap of them; returns how many there are. */
size_t words_split(struct bytes text, struct bytes *out, size_t cap);

/* Decoded forms of canonical texts. */
void decode_output_limits(struct bytes text, struct output_limit out[OUTPUT_CLASSES]);
int decode_save_points(struct bytes text, struct save_point out[SAVE_POINTS_MAX]);

/* ---- inside of struct config, for loading and rewriting ---- */
/* Reads and keeps one directive's arguments, at the start.  first: forget what the file said before. */
MUST_USE bool config_give(struct config *c, enum config_id id, const struct bytes *argv, size_t argc, bool first,
                          struct buf *reason);
bool config_is_default(const struct config *c, enum config_id id);
void config_set_file(struct config *c, const char *path);
/* Keeps a "user" line (without that word); false: there was one for that user. */
MUST_USE bool config_keep_user(struct config *c, const struct bytes *argv, size_t argc);
/* Keeps a rename-command line; NULL or the reason why it cannot be. */
const char *config_keep_rename(struct config *c, struct bytes from, struct bytes to);
/* The present "user" lines, for a rewrite. */
void config_user_lines(const struct config *c, struct buf *out);

#endif
