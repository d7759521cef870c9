/* The table itself and the look-ups by name.  Names are found through one open-addressing table over (container, name),
 * filled before main() and constant from then on. */
#include "commands/table.h"

#include <assert.h>

#define NAME_LENGTH(name) (sizeof(name) - 1)

/* What a row's flags imply about its ACL categories; scripts read and write whatever they like. */
#define IMPLIED(flags, cats)                                                                                           \
    ((cats) | ((flags)&CMD_WRITE ? CAT_WRITE : 0) | ((flags)&CMD_READONLY && !((cats)&CAT_SCRIPTING) ? CAT_READ : 0) | \
     ((flags)&CMD_ADMIN ? CAT_ADMIN | CAT_DANGEROUS : 0) | ((flags)&CMD_PUBSUB ? CAT_PUBSUB : 0) |                     \
     ((flags)&CMD_FAST ? CAT_FAST : CAT_SLOW) | ((flags)&CMD_BLOCKING ? CAT_BLOCKING : 0))

#define NO_KEYS \
    {           \
        0       \
    }
#define RANGE(at, l, st, fl)                                                                                   \
    {                                                                                                          \
        .flags = (fl), .begin = KEYS_AT_INDEX, .find = KEYS_IN_RANGE, .index = (at), .last = (l), .step = (st) \
    }
#define AT(at, fl) RANGE(at, 0, 1, fl)
#define COUNTED(at, c, f, st, fl)                                                                                      \
    {                                                                                                                  \
        .flags = (fl), .begin = KEYS_AT_INDEX, .find = KEYS_BY_COUNT, .index = (at), .count_index = (c), .first = (f), \
        .step = (st)                                                                                                   \
    }
#define AFTER(word, from, l, st, lim, fl)                                                                      \
    {                                                                                                          \
        .flags = (fl), .begin = KEYS_AFTER_KEYWORD, .find = KEYS_IN_RANGE, .index = (from), .keyword = (word), \
        .last = (l), .step = (st), .limit = (lim)                                                              \
    }
#define UNKNOWN(fl)                                                           \
    {                                                                         \
        .flags = (fl), .begin = KEYS_BEGIN_UNKNOWN, .find = KEYS_FIND_UNKNOWN \
    }

#define ROW(id_, name_, arity_, flags_, cats_, first_, last_, step_, tips_, group_, since_, complexity_, summary_, \
            ...)                                                                                                   \
    [CMD_ID_##id_] = {.name = name_,                                                                               \
                      .flags = (flags_) | ((flags_)&CMD_ADMIN ? CMD_AT_REST : 0),                                  \
                      .categories = IMPLIED(flags_, cats_),                                                        \
                      .id = CMD_ID_##id_,                                                                          \
                      .arity = arity_,                                                                             \
                      .first = first_,                                                                             \
                      .last = last_,                                                                               \
                      .step = step_,                                                                               \
                      .name_length = NAME_LENGTH(name_),                                                           \
                      .key_specs = {__VA_ARGS__},                                                                  \
                      .tips = tips_,                                                                               \
                      .group = group_,                                                                             \
                      .since = since_,                                                                             \
                      .complexity = complexity_,                                                                   \
                      .summary = summary_},

#define CMD(id, name, arity, flags, cats, first, last, step, tips, group, since, complexity, summary, handler, ...) \
    ROW(id, name, arity, flags, cats, first, last, step, tips, group, since, complexity, summary, __VA_ARGS__)
#define CMD_CONTAINER ROW

static const struct command commands[CMD_ID_COUNT] = {
#include "commands/commands.def"
};

/* ---- Names ------------------------------------------------------------------------------------------------------- */

enum { INDEX_SIZE = 2048, NAME_MAX_LENGTH = 40, NO_PARENT = CMD_ID_COUNT };

/* A name, or the part of a subcommand's name behind the bar, in lower case: its first and its last eight bytes
 * (overlapping when it is shorter than sixteen, zero-padded when shorter than eight). */
struct name_key {
    uint64_t head, tail;
    uint16_t length;
    uint16_t parent; /* id of the container, or NO_PARENT */
};

struct index_entry {
    struct name_key key;
    uint16_t id;
    bool used;
};

/* Derived from `commands` before main(), constant afterwards. */
static struct index_entry name_index[INDEX_SIZE];
static uint16_t parents[CMD_ID_COUNT];
static uint16_t sub_counts[CMD_ID_COUNT];
static uint8_t one_keys[CMD_ID_COUNT];

/* ASCII letters of eight bytes at once to lower case. */
static inline uint64_t lower8(uint64_t x)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x80 * ones;
    uint64_t low7 = x & ~high;
    uint64_t from_a = low7 + (0x80 - 'A') * ones, above_z = low7 + (0x7f - 'Z') * ones;
    return x | ((from_a ^ above_z) & ~x & high) >> 2;
}

static inline uint64_t load(const char *p, size_t n)
{
    uint64_t x = 0;
    memcpy(&x, p, n);
    return x;
}

static inline struct name_key make_key(struct bytes name, unsigned parent)
{
    struct name_key k = {.length = (uint16_t)name.n, .parent = (uint16_t)parent};
    const char *p = name.p;
    if (name.n >= 8) {
        k.head = load(p, 8);
        k.tail = lower8(load(p + name.n - 8, 8));
    } else if (name.n >= 4) {
        k.head = load(p, 4) | load(p + name.n - 4, 4) << 32;
    } else if (name.n) { /* first, middle and last: with one or two bytes some of them twice */
        k.head = (uint64_t)(unsigned char)p[0] | (uint64_t)(unsigned char)p[name.n / 2] << 8 |
                 (uint64_t)(unsigned char)p[name.n - 1] << 16;
    }
    k.head = lower8(k.head);
    return k;
}

static inline unsigned key_slot_of(const struct name_key *k)
{
    uint64_t h = (k->head ^ (k->tail >> 7 | k->tail << 57)) + k->parent + ((uint64_t)k->length << 32);
    h *= 0x9e3779b97f4a7c15u;
    return (unsigned)(h >> 40 ^ h >> 53) % INDEX_SIZE;
}

static inline bool key_eq(const struct name_key *a, const struct name_key *b)
{
    return a->head == b->head && a->tail == b->tail && a->length == b->length && a->parent == b->parent;
}

static struct bytes full_name(const struct command *c)
{
    return bytes_make(c->name, c->name_length);
}

/* Behind the bar, or all. */
static struct bytes own_name(const struct command *c)
{
    const char *bar = memchr(c->name, '|', c->name_length);
    return bar ? bytes_make(bar + 1, (size_t)(c->name + c->name_length - bar - 1)) : full_name(c);
}

static const struct command *find(struct bytes name, unsigned parent)
{
    if (name.n == 0 || name.n > NAME_MAX_LENGTH) return NULL;
    struct name_key k = make_key(name, parent);
    for (unsigned i = key_slot_of(&k); name_index[i].used; i = (i + 1) % INDEX_SIZE) {
        if (!key_eq(&name_index[i].key, &k)) continue;
        const struct command *c = &commands[name_index[i].id];
        if (name.n <= 16 || bytes_ieq(own_name(c), name)) return c;
    }
    return NULL;
}

static uint8_t find_one_key(const struct command *c)
{
    const struct key_spec *s = &c->key_specs[0];
    bool one = s->begin == KEYS_AT_INDEX && s->find == KEYS_IN_RANGE && s->last == 0 && s->index > 0 &&
               !(s->flags & KEY_NOT_KEY) && c->key_specs[1].begin == KEYS_NOWHERE;
    return one ? (uint8_t)s->index : 0;
}

unsigned command_one_key(const struct command *c)
{
    return one_keys[c->id];
}

__attribute__((constructor)) static void index_commands(void)
{
    unsigned container = NO_PARENT;
    for (unsigned id = 0; id < CMD_ID_COUNT; id++) {
        const struct command *c = &commands[id];
        bool sub = memchr(c->name, '|', c->name_length) != NULL;
        if (!sub) container = id;
        parents[id] = sub ? (uint16_t)container : NO_PARENT;
        one_keys[id] = find_one_key(c);
        if (sub) sub_counts[container]++;
        struct name_key k = make_key(own_name(c), parents[id]);
        unsigned i = key_slot_of(&k);
        while (name_index[i].used) i = (i + 1) % INDEX_SIZE;
        name_index[i] = (struct index_entry){.key = k, .id = (uint16_t)id, .used = true};
    }
}

const struct command *command_by_id(enum command_id id)
{
    assert((unsigned)id < CMD_ID_COUNT);
    return &commands[id];
}

const struct command *command_find(struct bytes name)
{
    const char *bar = name.n ? memchr(name.p, '|', name.n) : NULL;
    if (!bar) return find(name, NO_PARENT);
    size_t n = (size_t)(bar - name.p);
    const struct command *container = find(bytes_make(name.p, n), NO_PARENT);
    return container ? command_find_sub(container, bytes_make(bar + 1, name.n - n - 1)) : NULL;
}

const struct command *command_find_sub(const struct command *container, struct bytes name)
{
    return sub_counts[container->id] ? find(name, container->id) : NULL;
}

const struct command *command_of_request(const struct bytes *argv, size_t argc, const struct command **container)
{
    if (container) *container = NULL;
    const struct command *c = find(argv[0], NO_PARENT);
    if (!c || argc < 2 || sub_counts[c->id] == 0) return c;
    const struct command *sub = find(argv[1], c->id);
    if (!sub && container) *container = c;
    return sub;
}

const struct command *command_parent(const struct command *c)
{
    return parents[c->id] == NO_PARENT ? NULL : &commands[parents[c->id]];
}

unsigned command_sub_count(const struct command *c)
{
    return sub_counts[c->id];
}

bool command_arity_ok(const struct command *c, size_t argc)
{
    return c->arity >= 0 ? argc == (size_t)c->arity : argc >= (size_t)-c->arity;
}

bool command_is_eval(const struct command *c)
{
    return c->id == CMD_ID_EVAL || c->id == CMD_ID_EVAL_RO;
}

bool command_is_evalsha(const struct command *c)
{
    return c->id == CMD_ID_EVALSHA || c->id == CMD_ID_EVALSHA_RO;
}

bool command_runs_script(const struct command *c)
{
    switch (c->id) {
    case CMD_ID_EVAL:
    case CMD_ID_EVAL_RO:
    case CMD_ID_EVALSHA:
    case CMD_ID_EVALSHA_RO:
    case CMD_ID_FCALL:
    case CMD_ID_FCALL_RO: return true;
    default: return false;
    }
}

/* ---- Names of bits ----------------------------------------------------------------------------------------------- */

static const char *const flag_names[CMD_FLAG_COUNT] = {
    "write",    "readonly",     "denyoom",      "admin",  "pubsub", "noscript", "blocking",          "loading",
    "stale",    "skip_monitor", "skip_slowlog", "asking", "fast",   "no_auth",  "no_mandatory_keys", "no_async_loading",
    "no_multi", "allow_busy",   "movablekeys",  NULL,     NULL};

static const char *const category_names[CMD_CATEGORY_COUNT] = {
    "keyspace", "read",   "write",       "set",       "sortedset",  "list",        "hash",
    "string",   "bitmap", "hyperloglog", "geo",       "stream",     "pubsub",      "admin",
    "fast",     "slow",   "blocking",    "dangerous", "connection", "transaction", "scripting"};

static const char *const key_flag_names[KEY_FLAG_COUNT] = {
    "RO", "RW", "OW", "RM", "access", "update", "insert", "delete", "not_key", "incomplete", "variable_flags"};

const char *command_flag_name(unsigned bit)
{
    return bit < CMD_FLAG_COUNT ? flag_names[bit] : NULL;
}

const char *command_category_name(unsigned bit)
{
    return bit < CMD_CATEGORY_COUNT ? category_names[bit] : NULL;
}

const char *key_flag_name(unsigned bit)
{
    return bit < KEY_FLAG_COUNT ? key_flag_names[bit] : NULL;
}

uint32_t command_category_find(struct bytes name)
{
    for (unsigned i = 0; i < CMD_CATEGORY_COUNT; i++)
        if (bytes_ieq(bytes_of(category_names[i]), name)) return 1u << i;
    return 0;
}

void command_each_tip(const struct command *c, void (*each)(void *arg, struct bytes tip), void *arg)
{
    for (const char *s = c->tips; *s;) {
        size_t n = strcspn(s, " ");
        each(arg, bytes_make(s, n));
        s += n + (s[n] == ' ');
    }
}
