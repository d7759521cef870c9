/* command_commands.c: COMMAND and its subcommands, from the command table. */
#include "base/glob.h"
#include "base/mem.h"
#include "base/number.h"
#include "command/call.h"
#include "commands/arguments.h"
#include "server/conn.h"
#include "server/renames.h"

/* Commands that are not subcommands, one after the other. */
static const struct command *next_command(const struct renames *renames, const struct command *c)
{
    for (;;) {
        unsigned id = c ? c->id + 1 + command_sub_count(c) : 0;
        c = id < CMD_ID_COUNT ? command_by_id((enum command_id)id) : NULL;
        if (!c || !renames || renames_has(renames, c)) return c;
    }
}

static const struct node *node_of(const struct call *c)
{
    return call_conn(c)->worker->node;
}

static size_t command_total(const struct renames *renames)
{
    size_t n = 0;
    for (const struct command *c = next_command(renames, NULL); c; c = next_command(renames, c)) n++;
    return n;
}

/* ---- INFO ---- */

/* A set of names of the bits, with something before each. */
static void reply_bits(struct resp_out *out, uint32_t bits, unsigned count, const char *(*name)(unsigned bit),
                       const char *before)
{
    size_t mark = resp_defer(out), n = 0;
    char text[64];
    for (unsigned i = 0; i < count; i++) {
        const char *word = bits & 1u << i ? name(i) : NULL;
        size_t prefix = strlen(before), length = word ? strlen(word) : 0;
        if (!word || prefix + length >= sizeof text) continue;
        memcpy(text, before, prefix);
        memcpy(text + prefix, word, length + 1);
        resp_status(out, text);
        n++;
    }
    resp_defer_set(out, mark, n);
}

struct tips {
    struct resp_out *out;
    size_t n;
};

static void reply_tip(void *arg, struct bytes tip)
{
    struct tips *t = arg;
    resp_bulk(t->out, tip);
    t->n++;
}

static void reply_tips(struct resp_out *out, const struct command *c)
{
    size_t mark = resp_defer(out);
    struct tips t = {out, 0};
    command_each_tip(c, reply_tip, &t);
    resp_defer_set(out, mark, t.n);
}

static void reply_number(struct resp_out *out, const char *name, int64_t v)
{
    resp_bulk_cstr(out, name);
    resp_i64(out, v);
}

static void reply_begin(struct resp_out *out, const struct key_spec *k)
{
    resp_bulk_cstr(out, "begin_search");
    resp_map(out, 2);
    resp_bulk_cstr(out, "type");
    if (k->begin == KEYS_AT_INDEX) {
        resp_bulk_cstr(out, "index");
        resp_bulk_cstr(out, "spec");
        resp_map(out, 1);
        reply_number(out, "index", k->index);
    } else if (k->begin == KEYS_AFTER_KEYWORD) {
        resp_bulk_cstr(out, "keyword");
        resp_bulk_cstr(out, "spec");
        resp_map(out, 2);
        resp_bulk_cstr(out, "keyword");
        resp_bulk_cstr(out, k->keyword);
        reply_number(out, "startfrom", k->index);
    } else {
        resp_bulk_cstr(out, "unknown");
        resp_bulk_cstr(out, "spec");
        resp_map(out, 0);
    }
}

static void reply_find(struct resp_out *out, const struct key_spec *k)
{
    resp_bulk_cstr(out, "find_keys");
    resp_map(out, 2);
    resp_bulk_cstr(out, "type");
    if (k->find == KEYS_IN_RANGE) {
        resp_bulk_cstr(out, "range");
        resp_bulk_cstr(out, "spec");
        resp_map(out, 3);
        reply_number(out, "lastkey", k->last);
        reply_number(out, "keystep", k->step);
        reply_number(out, "limit", k->limit);
    } else if (k->find == KEYS_BY_COUNT) {
        resp_bulk_cstr(out, "keynum");
        resp_bulk_cstr(out, "spec");
        resp_map(out, 3);
        reply_number(out, "keynumidx", k->count_index);
        reply_number(out, "firstkey", k->first);
        reply_number(out, "keystep", k->step);
    } else {
        resp_bulk_cstr(out, "unknown");
        resp_bulk_cstr(out, "spec");
        resp_map(out, 0);
    }
}

static void reply_key_specs(struct resp_out *out, const struct command *c)
{
    size_t mark = resp_defer(out), n = 0;
    for (; n < KEY_SPECS_MAX && c->key_specs[n].begin != KEYS_NOWHERE; n++) {
        resp_map(out, 3);
        resp_bulk_cstr(out, "flags");
        reply_bits(out, c->key_specs[n].flags, KEY_FLAG_COUNT, key_flag_name, "");
        reply_begin(out, &c->key_specs[n]);
        reply_find(out, &c->key_specs[n]);
    }
    resp_defer_set(out, mark, n);
}

static void reply_info(struct resp_out *out, const struct command *c)
{
    unsigned subs = command_sub_count(c);
    resp_array(out, 10);
    resp_bulk_cstr(out, c->name);
    resp_i64(out, c->arity);
    reply_bits(out, c->flags, CMD_FLAG_COUNT, command_flag_name, "");
    resp_i64(out, c->first);
    resp_i64(out, c->last);
    resp_i64(out, c->step);
    reply_bits(out, c->categories, CMD_CATEGORY_COUNT, command_category_name, "@");
    reply_tips(out, c);
    reply_key_specs(out, c);
    resp_set(out, subs);
    for (unsigned i = 1; i <= subs; i++) reply_info(out, command_by_id((enum command_id)(c->id + i)));
}

static void reply_info_all(struct call *c)
{
    resp_array(&c->out, command_total(node_of(c)->renames));
    for (const struct command *cmd = next_command(node_of(c)->renames, NULL); cmd;
         cmd = next_command(node_of(c)->renames, cmd))
        reply_info(&c->out, cmd);
}

void cmd_command(struct call *c)
{
    reply_info_all(c); /* with an argument it would be a subcommand */
}

void cmd_command_info(struct call *c)
{
    if (c->argc == 2) {
        reply_info_all(c);
        return;
    }
    resp_array(&c->out, c->argc - 2);
    for (size_t i = 2; i < c->argc; i++) {
        const struct command *cmd = node_command_find(node_of(c), c->argv[i]);
        if (cmd)
            reply_info(&c->out, cmd);
        else
            resp_null(&c->out);
    }
}

void cmd_command_count(struct call *c)
{
    resp_i64(&c->out, (int64_t)command_total(node_of(c)->renames));
}

/* ---- DOCS ---- */

static void reply_text(struct resp_out *out, const char *name, const char *text)
{
    resp_bulk_cstr(out, name);
    resp_bulk_cstr(out, text);
}

/* What has been superseded, since when and by what. */
static const struct deprecated {
    enum command_id id;
    const char *since, *replaced_by;
} deprecated[] = {
    {CMD_ID_BRPOPLPUSH, "6.2.0", "`BLMOVE` (`RIGHT` `LEFT`)"},
    {CMD_ID_CLUSTER_SLAVES, "5.0.0", "`CLUSTER REPLICAS`"},
    {CMD_ID_CLUSTER_SLOTS, "7.0.0", "`CLUSTER SHARDS`"},
    {CMD_ID_GEORADIUS, "6.2.0", "`GEOSEARCH` or `GEOSEARCHSTORE` (`BYRADIUS`)"},
    {CMD_ID_GEORADIUS_RO, "6.2.0", "`GEOSEARCH` (`BYRADIUS`)"},
    {CMD_ID_GEORADIUSBYMEMBER, "6.2.0", "`GEOSEARCH` or `GEOSEARCHSTORE` (`BYRADIUS`, `FROMMEMBER`)"},
    {CMD_ID_GEORADIUSBYMEMBER_RO, "6.2.0", "`GEOSEARCH` (`BYRADIUS`, `FROMMEMBER`)"},
    {CMD_ID_GETSET, "6.2.0", "`SET` (`GET`)"},
    {CMD_ID_HMSET, "4.0.0", "`HSET`, which takes several fields"},
    {CMD_ID_RPOPLPUSH, "6.2.0", "`LMOVE` (`RIGHT` `LEFT`)"},
    {CMD_ID_SLAVEOF, "5.0.0", "`REPLICAOF`"},
    {CMD_ID_SUBSTR, "2.0.0", "`GETRANGE`"},
    {CMD_ID_ZRANGEBYLEX, "6.2.0", "`ZRANGE` (`BYLEX`)"},
    {CMD_ID_ZRANGEBYSCORE, "6.2.0", "`ZRANGE` (`BYSCORE`)"},
    {CMD_ID_ZREVRANGE, "6.2.0", "`ZRANGE` (`REV`)"},
    {CMD_ID_ZREVRANGEBYLEX, "6.2.0", "`ZRANGE` (`REV`, `BYLEX`)"},
    {CMD_ID_ZREVRANGEBYSCORE, "6.2.0", "`ZRANGE` (`REV`, `BYSCORE`)"},
};

static const struct deprecated *deprecation_of(const struct command *c)
{
    for (size_t i = 0; i < sizeof deprecated / sizeof *deprecated; i++)
        if (deprecated[i].id == c->id) return &deprecated[i];
    return NULL;
}

/* Commands for servers and tests among themselves. */
static bool is_system_command(const struct command *c)
{
    switch (c->id) {
    case CMD_ID_DEBUG:
    case CMD_ID_PFDEBUG:
    case CMD_ID_PFSELFTEST:
    case CMD_ID_REPLCONF:
    case CMD_ID_RESTORE_ASKING: return true;
    default: return false;
    }
}

static void reply_doc_flag(struct resp_out *out, const char *flag)
{
    resp_bulk_cstr(out, "doc_flags");
    resp_set(out, 1);
    resp_status(out, flag);
}

static void reply_docs(struct resp_out *out, const struct command *c)
{
    const struct deprecated *old = deprecation_of(c);
    bool system = is_system_command(c);
    unsigned subs = command_sub_count(c);
    bool complexity = *c->complexity;
    const char *arguments = command_arguments((enum command_id)c->id);
    resp_bulk_cstr(out, c->name);
    resp_map(out, 3u + complexity + system + (old ? 3u : 0u) + (arguments != NULL) + (subs > 0));
    reply_text(out, "summary", c->summary);
    reply_text(out, "since", c->since);
    reply_text(out, "group", c->group);
    if (complexity) reply_text(out, "complexity", c->complexity);
    if (system) reply_doc_flag(out, "syscmd");
    if (old) {
        reply_doc_flag(out, "deprecated");
        reply_text(out, "deprecated_since", old->since);
        reply_text(out, "replaced_by", old->replaced_by);
    }
    if (arguments) {
        resp_bulk_cstr(out, "arguments");
        bool read = arguments_reply(out, arguments);
        (void)read; /* the unit test has read them all */
    }
    if (subs == 0) return;
    resp_bulk_cstr(out, "subcommands");
    resp_map(out, subs);
    for (unsigned i = 1; i <= subs; i++) reply_docs(out, command_by_id((enum command_id)(c->id + i)));
}

void cmd_command_docs(struct call *c)
{
    if (c->argc == 2) {
        resp_map(&c->out, command_total(node_of(c)->renames));
        for (const struct command *cmd = next_command(node_of(c)->renames, NULL); cmd;
             cmd = next_command(node_of(c)->renames, cmd))
            reply_docs(&c->out, cmd);
        return;
    }
    size_t mark = resp_defer(&c->out), n = 0;
    for (size_t i = 2; i < c->argc; i++) {
        const struct command *cmd = node_command_find(node_of(c), c->argv[i]);
        if (!cmd) continue;
        reply_docs(&c->out, cmd);
        n++;
    }
    resp_defer_map(&c->out, mark, n);
}

/* ---- LIST ---- */

enum list_filter { FILTER_NONE, FILTER_MODULE, FILTER_CATEGORY, FILTER_PATTERN };

static bool listed(const struct command *cmd, enum list_filter filter, uint32_t category, struct bytes pattern)
{
    switch (filter) {
    case FILTER_NONE: return true;
    case FILTER_CATEGORY: return cmd->categories & category;
    case FILTER_PATTERN: return glob_match(pattern, bytes_of(cmd->name), true);
    default: return false; /* there are no modules */
    }
}

void cmd_command_list(struct call *c)
{
    enum list_filter filter = FILTER_NONE;
    uint32_t category = 0;
    struct bytes value = bytes_make("", 0);
    if (c->argc == 5 && call_arg_is(c, 2, "FILTERBY")) {
        value = c->argv[4];
        if (call_arg_is(c, 3, "MODULE"))
            filter = FILTER_MODULE;
        else if (call_arg_is(c, 3, "ACLCAT"))
            filter = FILTER_CATEGORY;
        else if (call_arg_is(c, 3, "PATTERN"))
            filter = FILTER_PATTERN;
        if (filter == FILTER_CATEGORY) category = command_category_find(value);
    }
    if (c->argc != 2 && filter == FILTER_NONE) {
        resp_error(&c->out, ERR_SYNTAX);
        return;
    }
    size_t mark = resp_defer(&c->out), n = 0;
    for (int id = 0; id < CMD_ID_COUNT; id++) {
        const struct command *cmd = command_by_id((enum command_id)id);
        const struct command *parent = command_parent(cmd);
        const struct renames *renames = node_of(c)->renames;
        if (renames && !renames_has(renames, parent ? parent : cmd)) continue;
        if (!listed(cmd, filter, category, value)) continue;
        resp_bulk_cstr(&c->out, cmd->name);
        n++;
    }
    resp_defer_array(&c->out, mark, n);
}

/* ---- GETKEYS ---- */

/* Where the number of keys is, when it is none ("1x", which commands refuse); 0: it is one, or there is none.
 * redis-server finds the keys of such a call as it did before key specifications: what is counted comes first, and
 * nothing is known of what is done with the keys. */
static size_t odd_count_at(const struct command *cmd, const struct bytes *argv, size_t argc)
{
    for (int i = 0; i < KEY_SPECS_MAX && cmd->key_specs[i].begin != KEYS_NOWHERE; i++) {
        const struct key_spec *s = &cmd->key_specs[i];
        size_t at = (size_t)(s->index + s->count_index);
        int64_t number;
        if (s->begin == KEYS_AT_INDEX && s->find == KEYS_BY_COUNT && at < argc && !parse_i64(argv[at], &number))
            return at;
    }
    return 0;
}

static void reply_key(struct call *c, struct bytes name, unsigned flags, bool with_flags)
{
    if (with_flags) resp_array(&c->out, 2);
    resp_bulk(&c->out, name);
    if (with_flags) reply_bits(&c->out, flags, KEY_FLAG_COUNT, key_flag_name, "");
}

static void get_keys(struct call *c, bool with_flags)
{
    const struct bytes *argv = c->argv + 2;
    size_t argc = c->argc - 2;
    const struct command *cmd = node_command_of_request(node_of(c), argv, argc, NULL);
    if (!cmd) {
        resp_error(&c->out, "ERR Invalid command specified");
        return;
    }
    if (!command_has_keys(cmd)) {
        resp_error(&c->out, "ERR The command has no key arguments");
        return;
    }
    if (!command_arity_ok(cmd, argc)) {
        resp_error(&c->out, "ERR Invalid number of arguments specified for command");
        return;
    }
    int n = command_keys(cmd, argv, argc, NULL, 0);
    if (n <= 0 && cmd->flags & CMD_NO_MANDATORY_KEYS) {
        resp_array(&c->out, 0);
        return;
    }
    if (n <= 0 || !command_keys_complete(cmd, argv, argc)) {
        resp_error(&c->out, "ERR Invalid arguments specified for command");
        return;
    }
    struct command_key *keys = mem_alloc((size_t)(n + 1) * sizeof *keys);
    command_keys(cmd, argv, argc, keys, (size_t)n);
    resp_array(&c->out, (size_t)n);
    size_t odd = odd_count_at(cmd, argv, argc);
    for (int i = 0; i < n; i++)
        if (keys[i].index > odd) reply_key(c, argv[keys[i].index], odd ? 0 : keys[i].flags, with_flags);
    for (int i = 0; i < n; i++)
        if (keys[i].index <= odd) reply_key(c, argv[keys[i].index], 0, with_flags);
    mem_free(keys);
}

void cmd_command_getkeys(struct call *c)
{
    get_keys(c, false);
}

void cmd_command_getkeysandflags(struct call *c)
{
    get_keys(c, true);
}

void cmd_command_help(struct call *c)
{
    static const char *const lines[] = {
        "(no subcommand)",
        "    Return details about all Redis commands.",
        "COUNT",
        "    Return the total number of commands in this Redis server.",
        "LIST",
        "    Return a list of all commands in this Redis server.",
        "INFO [<command-name> ...]",
        "    Return details about multiple Redis commands.",
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "DOCS [<command-name> ...]",
        "    Return documentation details about multiple Redis commands.",
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "GETKEYS <full-command>",
        "    Return the keys from a full Redis command.",
        "GETKEYSANDFLAGS <full-command>",
        "    Return the keys and the access flags from a full Redis command.",
    };
    call_help(c, "COMMAND", lines, sizeof lines / sizeof *lines);
}
