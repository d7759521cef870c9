/* internal.h: how users are kept; inside src/acl only. */
#ifndef COVEY_ACL_INTERNAL_H
#define COVEY_ACL_INTERNAL_H

#include "acl/acl.h"
#include "base/list.h"

enum { COMMAND_WORDS = 8, FUTURE_BIT = ACL_COMMANDS_MAX, HASH_HEX = 64 };

/* A pattern, password or first argument; text lies behind it. */
struct acl_text {
    uint64_t hash;
    uint32_t tag; /* patterns of keys: ACL_READ, ACL_WRITE; first arguments: the command */
    uint32_t n;
    char text[];
};

/* In the order of their coming, with an index by hash once they are many. */
struct acl_texts {
    struct acl_text **at;
    size_t n, cap;
    uint32_t *index; /* position + 1, open addressing; NULL while n is small */
    size_t index_size;
};

void texts_deinit(struct acl_texts *t);
void texts_copy(struct acl_texts *to, const struct acl_texts *from);
struct acl_text *texts_find(const struct acl_texts *t, struct bytes text);
/* NULL: longer than any text may be, or no memory. */
struct acl_text *texts_add(struct acl_texts *t, struct bytes text, uint32_t tag);
void texts_remove(struct acl_texts *t, struct acl_text *x);
static inline struct bytes text_bytes(const struct acl_text *x)
{
    return bytes_make(x->text, x->n);
}

struct acl_selector {
    uint64_t allowed[COMMAND_WORDS]; /* by command id; FUTURE_BIT: set by +@all only */
    bool all_commands;               /* +@all, and nothing was taken away since */
    bool all_keys, all_channels;
    struct acl_texts keys, channels, first_args;
};

struct acl_user {
    bool is_free; /* first: acl_user_is_free() */
    bool enabled, nopass, skip_sanitize, sanitize, limits_keys, limits_channels;
    struct acl_texts passwords; /* SHA-256 in lower-case hexadecimal digits */
    struct acl_selector **selectors;
    size_t selector_count;
    char *name; /* terminated; name_n bytes */
    size_t name_n;
    uint64_t name_hash;
};

struct acl {
    const struct acl_commands *commands;
    bool all_channels_default;
    uint64_t categories[32][COMMAND_WORDS]; /* the commands of each */
    uint64_t weighed[COMMAND_WORDS];        /* those that are not `newer` */
    struct acl_user *default_user;
    struct acl_user **slots; /* open addressing by name_hash, NULL: free */
    size_t slot_count, count;
};

static inline bool selector_has(const struct acl_selector *s, unsigned id)
{
    return s->allowed[id / 64] >> id % 64 & 1;
}

/* rules.c */
enum rule_error {
    RULE_OK,
    RULE_UNKNOWN,
    RULE_SYNTAX,
    RULE_AFTER_ALL_KEYS,
    RULE_AFTER_ALL_CHANNELS,
    RULE_NO_SUCH_PASSWORD,
    RULE_BAD_HASH,
    RULE_SUB_FIRST_ARG,
    RULE_TOO_BIG
};
const char *rule_error_text(enum rule_error e);
enum rule_error user_apply(const struct acl *a, struct acl_user *u, struct bytes rule);
enum rule_error selector_apply(const struct acl *a, struct acl_selector *s, struct bytes rule);
void selector_set_category(const struct acl *a, struct acl_selector *s, uint32_t bits, bool on);
void selector_set_command(const struct acl *a, struct acl_selector *s, unsigned id, bool on);
struct acl_selector *selector_new(const struct acl *a);
void selector_free(struct acl_selector *s);

/* users.c */
struct acl_user *user_new(const struct acl *a, struct bytes name);
void user_free(struct acl_user *u);
void user_refresh(struct acl_user *u); /* derives is_free and the like */

#endif
