/* Where a request's keys are, from the key specifications, plus the few commands whose keys these cannot tell. */
#include "base/number.h"
#include "commands/table.h"

struct key_list {
    struct command_key *out;
    size_t cap;
    size_t n;        /* all, also those that found no room */
    bool incomplete; /* a list that may go on to the last argument has nothing in it */
};

static inline void add_key(struct key_list *list, size_t index, unsigned flags)
{
    if (list->n < list->cap) list->out[list->n] = (struct command_key){(uint32_t)index, (uint16_t)flags};
    list->n++;
}

static bool is_word(struct bytes arg, const char *word)
{
    return bytes_ieq(arg, bytes_of(word));
}

/* Position behind the keyword, 0 if it is not there.  A word at the very end introduces nothing.  The search runs
 * forwards from a positive `from`, backwards from one that counts from the end. */
static size_t behind_keyword(const struct key_spec *s, const struct bytes *argv, size_t argc)
{
    if (s->index >= 0) {
        for (size_t i = (size_t)s->index; i + 1 < argc; i++)
            if (is_word(argv[i], s->keyword)) return i + 1;
        return 0;
    }
    for (size_t i = argc > (size_t)-s->index ? argc - (size_t)-s->index : 0; i > 1; i--)
        if (is_word(argv[i], s->keyword)) return i + 1;
    return 0;
}

/* A number of keys, read as C's atoi() does: redis-server looks for the keys of a call whose number is none ("1x") that
 * way before the command refuses it. */
static bool parse_count(struct bytes text, int64_t *count)
{
    if (parse_i64(text, count)) return true;
    size_t from = 0;
    while (from < text.n && (text.p[from] == ' ' || (text.p[from] >= '\t' && text.p[from] <= '\r'))) from++;
    if (from < text.n && text.p[from] == '+') from++;
    while (from + 1 < text.n && text.p[from] == '0') from++;
    size_t end = from;
    while (end < text.n && text.p[end] >= '0' && text.p[end] <= '9') end++;
    return parse_i64(bytes_make(text.p + from, end - from), count);
}

/* Adds the keys of one specification; false: they cannot be where it says. */
static bool add_keys_of_spec(const struct key_spec *s, const struct bytes *argv, size_t argc, struct key_list *list)
{
    int64_t first = s->index, last, count = (int64_t)argc;
    if (s->begin == KEYS_AFTER_KEYWORD) {
        first = (int64_t)behind_keyword(s, argv, argc);
        if (first == 0) return true;
    }
    if (s->find == KEYS_BY_COUNT) {
        int64_t keys, at = first + s->count_index;
        if (at >= count || !parse_count(argv[at], &keys) || keys <= 0 || keys > count) return false;
        first += s->first;
        last = first + (keys - 1) * s->step;
    } else if (s->last >= 0) {
        last = first + s->last;
    } else {
        last = s->limit <= 1 ? count + s->last : first + (count - first) / s->limit + s->last;
    }
    if (first == count && s->find != KEYS_BY_COUNT && s->last < 0) {
        list->incomplete = true; /* PFMERGE needs no sources, and has a target nevertheless */
        return true;
    }
    if (first >= count || last >= count || last < first) return false;
    for (int64_t i = first; i <= last; i += s->step) add_key(list, (size_t)i, s->flags);
    return true;
}

/* ---- Commands that need a look at their words -------------------------------------------------------------------- */

static void sort_keys(const struct bytes *argv, size_t argc, struct key_list *list)
{
    add_key(list, 1, KEY_RO | KEY_ACCESS);
    size_t store = 0;
    for (size_t i = 2; i < argc; i++) {
        if (is_word(argv[i], "limit"))
            i += 2;
        else if (is_word(argv[i], "get") || is_word(argv[i], "by"))
            i++;
        else if (is_word(argv[i], "store") && i + 1 < argc)
            store = i + 1; /* the last one counts; its key may itself read as a word */
    }
    if (store) add_key(list, store, KEY_OW | KEY_UPDATE);
}

static void migrate_keys(const struct command *c, const struct bytes *argv, size_t argc, struct key_list *list)
{
    const unsigned flags = KEY_RW | KEY_ACCESS | KEY_DELETE;
    bool list_follows = behind_keyword(&c->key_specs[1], argv, argc) != 0;
    for (size_t i = 6; i < argc && list_follows; i++) {
        if (is_word(argv[i], "auth")) {
            i++;
        } else if (is_word(argv[i], "auth2")) {
            i += 2;
        } else if (is_word(argv[i], "keys")) {
            if (argv[3].n) return; /* both ways at a time: a syntax error */
            for (size_t k = i + 1; k < argc; k++) add_key(list, k, flags);
            return;
        }
    }
    if (argc > 3) add_key(list, 3, flags);
}

/* Where a call of XREAD or XREADGROUP names its streams; 0: nowhere, as it should. */
static size_t first_stream(const struct bytes *argv, size_t argc)
{
    size_t i = 1;
    for (; i < argc && !is_word(argv[i], "streams"); i++) {
        if (is_word(argv[i], "block") || is_word(argv[i], "count"))
            i++;
        else if (is_word(argv[i], "group"))
            i += 2;
        else if (!is_word(argv[i], "noack"))
            return 0;
    }
    return i + 1 < argc && (argc - i - 1) % 2 == 0 ? i + 1 : 0;
}

/* XREADGROUP without a group in front: the specification looks for STREAMS behind the place of one only, but a
 * cluster's node does not. */
static bool early_streams(const struct bytes *argv, size_t argc, struct key_list *list)
{
    size_t first = first_stream(argv, argc);
    if (first == 0 || first > 4) return false;
    for (size_t i = first; i < first + (argc - first) / 2; i++) add_key(list, i, KEY_RO | KEY_ACCESS);
    list->incomplete = true;
    return true;
}

static unsigned set_key_flags(const struct bytes *argv, size_t argc)
{
    for (size_t i = 3; i < argc; i++)
        if (is_word(argv[i], "get")) return KEY_RW | KEY_ACCESS | KEY_UPDATE;
    return KEY_OW | KEY_UPDATE;
}

/* BITFIELD only reads if all it does is GET. */
static unsigned bitfield_key_flags(const struct bytes *argv, size_t argc)
{
    for (size_t i = 2; i < argc; i++) {
        size_t left = argc - i - 1;
        if (is_word(argv[i], "get") && left >= 2)
            i += 2;
        else if (is_word(argv[i], "overflow") && left >= 1)
            i++;
        else
            return KEY_RW | KEY_ACCESS | KEY_UPDATE;
    }
    return KEY_RO | KEY_ACCESS;
}

/* True if the command is one of these. */
static bool add_keys_of_special(const struct command *c, const struct bytes *argv, size_t argc, struct key_list *list)
{
    if (argc < 2) return false;
    switch (c->id) {
    case CMD_ID_SORT: sort_keys(argv, argc, list); return true;
    case CMD_ID_SORT_RO: add_key(list, 1, KEY_RO | KEY_ACCESS); return true;
    case CMD_ID_MIGRATE: migrate_keys(c, argv, argc, list); return true;
    case CMD_ID_SET: add_key(list, 1, set_key_flags(argv, argc)); return true;
    case CMD_ID_BITFIELD: add_key(list, 1, bitfield_key_flags(argv, argc)); return true;
    case CMD_ID_XREADGROUP: return early_streams(argv, argc, list);
    default: return false;
    }
}

static int find_keys(const struct command *c, const struct bytes *argv, size_t argc, struct key_list *list,
                     bool not_keys)
{
    if (!add_keys_of_special(c, argv, argc, list)) {
        for (unsigned i = 0; i < KEY_SPECS_MAX && c->key_specs[i].begin != KEYS_NOWHERE; i++) {
            const struct key_spec *s = &c->key_specs[i];
            if ((s->flags & KEY_NOT_KEY) && !not_keys) continue;
            if (s->begin == KEYS_BEGIN_UNKNOWN) continue;
            if (!add_keys_of_spec(s, argv, argc, list)) return -1;
        }
    }
    return list->n > INT32_MAX ? -1 : (int)list->n;
}

int command_keys(const struct command *c, const struct bytes *argv, size_t argc, struct command_key *out,
                 size_t out_cap)
{
    return find_keys(c, argv, argc, &(struct key_list){out, out_cap, 0, false}, false);
}

bool command_keys_complete(const struct command *c, const struct bytes *argv, size_t argc)
{
    struct key_list list = {0};
    return find_keys(c, argv, argc, &list, false) >= 0 && !list.incomplete;
}

bool command_is_routed(const struct command *c, const struct bytes *argv, size_t argc)
{
    return (c->id != CMD_ID_XREAD && c->id != CMD_ID_XREADGROUP) || first_stream(argv, argc);
}

int command_routing_keys(const struct command *c, const struct bytes *argv, size_t argc, struct command_key *out,
                         size_t out_cap)
{
    if (!command_is_routed(c, argv, argc)) return 0;
    return find_keys(c, argv, argc, &(struct key_list){out, out_cap, 0, false}, true);
}

bool command_has_keys(const struct command *c)
{
    for (unsigned i = 0; i < KEY_SPECS_MAX && c->key_specs[i].begin != KEYS_NOWHERE; i++)
        if (!(c->key_specs[i].flags & KEY_NOT_KEY)) return true;
    return false;
}
