#include "commands/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void every_row_is_found_by_its_name(void **state)
{
    (void)state;
    for (unsigned id = 0; id < CMD_ID_COUNT; id++) {
        const struct command *c = command_by_id(id);
        assert_int_equal(c->id, id);
        assert_int_equal(c->name_length, strlen(c->name));
        assert_ptr_equal(command_find(bytes_of(c->name)), c);
        char upper[64];
        for (size_t i = 0; i <= c->name_length; i++)
            upper[i] = (char)(c->name[i] >= 'a' && c->name[i] <= 'z' ? c->name[i] - 32 : c->name[i]);
        assert_ptr_equal(command_find(bytes_of(upper)), c);
        upper[0] = '!'; /* differs from no letter by the case bit alone, and names nothing */
        assert_null(command_find(bytes_of(upper)));
    }
}

static void unknown_names(void **state)
{
    (void)state;
    const char *names[] = {"",
                           "g",
                           "gett",
                           "get ",
                           "ge\t",
                           "|",
                           "config|",
                           "|get",
                           "config|gett",
                           "get|get",
                           "config|get|get",
                           "'et",
                           "georadiusbymembex_ro",
                           "georadiusbymemberxro",
                           "a name that is much longer than any command's name is"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) assert_null(command_find(bytes_of(names[i])));
    assert_null(command_find(bytes_make("get\0", 4)));
    assert_null(command_find(bytes_make("\0get", 4)));
    assert_null(command_find((struct bytes){0}));
    /* Bytes that differ from letters in bit 5 only are other bytes. */
    assert_null(command_find(BYTES("client|no\x0d"
                                   "evict")));
    assert_ptr_equal(command_find(BYTES("client|no-evict")), command_by_id(CMD_ID_CLIENT_NO_EVICT));
}

static void rows_hang_together(void **state)
{
    (void)state;
    unsigned handled = 0;
    for (unsigned id = 0; id < CMD_ID_COUNT; id++) {
        const struct command *c = command_by_id(id), *parent = command_parent(c);
        const char *bar = strchr(c->name, '|');
        assert_true((parent != NULL) == (bar != NULL));
        if (parent) assert_int_equal(strncmp(parent->name, c->name, parent->name_length), 0);
        if (parent) assert_true(id > parent->id && id <= parent->id + command_sub_count(parent));
        handled += command_sub_count(c) == 0;
        assert_true(c->arity != 0 && *c->summary && *c->since && *c->group);
        assert_false((c->flags & CMD_WRITE) && (c->flags & CMD_READONLY));
        assert_true(!!(c->categories & CAT_FAST) != !!(c->categories & CAT_SLOW));
        assert_int_equal(!!(c->categories & CAT_WRITE), !!(c->flags & CMD_WRITE));
        if (c->flags & CMD_ADMIN) assert_true(c->flags & CMD_AT_REST);
        assert_int_equal(c->first != 0, c->step != 0);
    }
    assert_true(handled > 200);
    assert_int_equal(command_sub_count(command_by_id(CMD_ID_CLUSTER)), 28);
    assert_int_equal(command_sub_count(command_by_id(CMD_ID_GET)), 0);
}

static const struct command *request(size_t argc, const char **argv, struct bytes *out,
                                     const struct command **container)
{
    for (size_t i = 0; i < argc; i++) out[i] = bytes_of(argv[i]);
    return command_of_request(out, argc, container);
}

#define REQUEST(container, ...)                                                                    \
    request(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *), (const char *[]){__VA_ARGS__}, \
            (struct bytes[16]){{0}}, container)

static void requests_find_their_subcommand(void **state)
{
    (void)state;
    const struct command *container;
    assert_int_equal(REQUEST(&container, "CONFIG", "gEt", "x")->id, CMD_ID_CONFIG_GET);
    assert_null(container);
    assert_int_equal(REQUEST(&container, "config")->id, CMD_ID_CONFIG);
    assert_null(REQUEST(&container, "config", "nothing"));
    assert_ptr_equal(container, command_by_id(CMD_ID_CONFIG));
    assert_null(REQUEST(&container, "nothing", "get"));
    assert_null(container);
    assert_int_equal(REQUEST(NULL, "COMMAND")->id, CMD_ID_COMMAND);
    assert_int_equal(REQUEST(NULL, "get", "get")->id, CMD_ID_GET);
    assert_int_equal(REQUEST(NULL, "debug", "object")->id, CMD_ID_DEBUG);
}

static void arity(void **state)
{
    (void)state;
    const struct command *get = command_by_id(CMD_ID_GET), *mget = command_by_id(CMD_ID_MGET);
    assert_true(command_arity_ok(get, 2) && !command_arity_ok(get, 1) && !command_arity_ok(get, 3));
    assert_true(command_arity_ok(mget, 2) && !command_arity_ok(mget, 1) && command_arity_ok(mget, 1000));
    assert_int_equal(command_by_id(CMD_ID_CONFIG_GET)->arity, -3);
}

/* ---- Keys -------------------------------------------------------------------------------------------------------- */

/* "position:FLAGS position:FLAGS", "none", or "invalid". */
static void expect_keys_of(const char *expected, size_t argc, const char **words, bool routing)
{
    struct bytes argv[32];
    const struct command *c = request(argc, words, argv, NULL);
    assert_non_null(c);
    struct command_key keys[32];
    int n = (routing ? command_routing_keys : command_keys)(c, argv, argc, keys, 32);
    char text[512] = "";
    size_t len = 0;
    for (int i = 0; i < n; i++) {
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%u", i ? " " : "", keys[i].index);
        for (unsigned bit = 0; bit < KEY_FLAG_COUNT; bit++)
            if (keys[i].flags >> bit & 1)
                len += (size_t)snprintf(text + len, sizeof text - len, ":%s", key_flag_name(bit));
    }
    assert_string_equal(n < 0 ? "invalid" : n == 0 ? "none" : text, expected);
    /* Less room: the same count, and nothing behind the room is touched. */
    keys[0] = (struct command_key){99, 99};
    assert_int_equal((routing ? command_routing_keys : command_keys)(c, argv, argc, keys, 0), n);
    assert_int_equal(keys[0].index, 99);
}

#define KEYS(expected, ...)                                                                                         \
    expect_keys_of(expected, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *), (const char *[]){__VA_ARGS__}, \
                   false)

/* What COMMAND GETKEYSANDFLAGS of redis-server 7.0.15 says. */
static void keys_by_position(void **state)
{
    (void)state;
    KEYS("1:RO:access", "GET", "k");
    KEYS("none", "PING");
    KEYS("1:OW:update 3:OW:update", "MSET", "a", "1", "b", "2");
    KEYS("1:RM:delete 2:RM:delete", "DEL", "a", "b");
    KEYS("2:RO", "OBJECT", "ENCODING", "k");
    KEYS("1:RW:access:delete 2:OW:update", "RENAME", "a", "b");
    KEYS("1:RW:access:delete 2:RW:access:delete", "BLPOP", "a", "b", "0");
    KEYS("2:RO", "MEMORY", "USAGE", "k");
    KEYS("invalid", "GET");
    KEYS("none", "CLUSTER", "COUNTKEYSINSLOT", "1");
}

/* What is valid with an empty list has its other keys all the same: they are what is locked. */
static void keys_without_a_list(void **state)
{
    (void)state;
    KEYS("1:RW:access:insert", "PFMERGE", "a");
    KEYS("1:RW:access:insert 2:RO:access 3:RO:access", "PFMERGE", "a", "b", "c");
    struct bytes argv[] = {BYTES("PFMERGE"), BYTES("a"), BYTES("b")};
    const struct command *c = command_by_id(CMD_ID_PFMERGE);
    assert_false(command_keys_complete(c, argv, 2));
    assert_true(command_keys_complete(c, argv, 3));
}

static void keys_by_count(void **state)
{
    (void)state;
    KEYS("3:RW:access:update 4:RW:access:update", "EVAL", "return", "2", "a", "b", "arg");
    KEYS("invalid", "EVAL", "return", "0", "arg");
    KEYS("invalid", "EVAL", "return", "3", "a", "b");
    KEYS("invalid", "EVAL", "return", "x", "a");
    KEYS("invalid", "EVAL", "return", "-1", "a");
    KEYS("invalid", "EVAL", "return", "9223372036854775807", "a");
    KEYS("1:OW:update 3:RO:access 4:RO:access", "ZUNIONSTORE", "dst", "2", "a", "b", "WEIGHTS", "1", "2");
    KEYS("2:RO:access 3:RO:access", "ZINTER", "2", "a", "b");
    KEYS("3:RW:access:delete", "BLMPOP", "0", "1", "a", "LEFT");
}

static void keys_by_keyword(void **state)
{
    (void)state;
    KEYS("4:RO:access 5:RO:access", "XREAD", "COUNT", "2", "streams", "a", "b", "0", "0");
    KEYS("2:RO:access", "XREAD", "STREAMS", "a", "0");
    KEYS("2:RO:access", "XREAD", "STREAMS", "a", "b", "0");
    KEYS("1:RO:access", "GEORADIUS", "k", "1", "2", "3", "km");
    KEYS("1:RO:access 7:OW:update", "GEORADIUS", "k", "1", "2", "3", "km", "STORE", "dst");
}

static void keys_of_special_commands(void **state)
{
    (void)state;
    KEYS("1:RO:access", "SORT", "k");
    KEYS("1:RO:access", "SORT", "k", "BY", "store", "LIMIT", "0", "store", "GET", "store", "x");
    KEYS("1:RO:access 5:OW:update", "SORT", "k", "BY", "store", "STORE", "dst");
    KEYS("1:RO:access 5:OW:update", "SORT", "k", "STORE", "a", "store", "b");
    KEYS("1:RO:access", "SORT_RO", "k", "GET", "store");
    KEYS("3:RW:access:delete", "MIGRATE", "h", "1", "k", "0", "100");
    KEYS("8:RW:access:delete 9:RW:access:delete", "MIGRATE", "h", "1", "", "0", "100", "COPY", "KEYS", "a", "b");
    KEYS("10:RW:access:delete", "MIGRATE", "h", "1", "", "0", "100", "AUTH2", "keys", "keys", "KEYS", "a");
    KEYS("none", "MIGRATE", "h", "1", "k", "0", "100", "KEYS", "a");
    KEYS("1:OW:update", "SET", "k", "v");
    KEYS("1:OW:update", "SET", "k", "get");
    KEYS("1:RW:access:update", "SET", "k", "v", "EX", "10", "GET");
    KEYS("1:RO:access", "BITFIELD", "k", "GET", "u8", "0", "OVERFLOW", "SAT");
    KEYS("1:RW:access:update", "BITFIELD", "k", "GET", "u8", "0", "SET", "u8", "0", "1");
}

static void channels_are_routed_but_no_keys(void **state)
{
    (void)state;
    const char *publish[] = {"SPUBLISH", "channel", "x"};
    expect_keys_of("none", 3, publish, false);
    expect_keys_of("1:not_key", 3, publish, true);
    assert_false(command_has_keys(command_by_id(CMD_ID_SPUBLISH)));
    assert_true(command_has_keys(command_by_id(CMD_ID_EVAL)));
    assert_false(command_has_keys(command_by_id(CMD_ID_PING)));
}

static void wrong_calls_for_streams_are_not_routed(void **state)
{
    (void)state;
    static const struct {
        const char *words[10];
        const char *expected;
    } rows[] = {
        {{"XREAD", "STREAMS", "a", "b", "0", "0"}, "2:RO:access 3:RO:access"},
        {{"XREAD", "COUNT", "1", "NOACK", "streams", "a", "0"}, "5:RO:access"},
        {{"XREADGROUP", "GROUP", "g", "c", "STREAMS", "a", ">"}, "5:RO:access"},
        {{"XREAD", "STREAMS", "a", "b", "0"}, "none"},
        {{"XREAD", "NOSUCH", "STREAMS", "a", "0"}, "none"},
        {{"XREAD", "COUNT", "STREAMS", "a", "0"}, "none"},
        {{"XREAD", "STREAMS"}, "none"},
        {{"XREADGROUP", "GROUP", "g", "STREAMS"}, "none"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = 0;
        while (n < 10 && rows[i].words[n]) n++;
        expect_keys_of(rows[i].expected, n, (const char **)rows[i].words, true);
    }
}

static void append_tip(void *arg, struct bytes tip)
{
    buf_append_bytes(arg, tip);
    buf_append_char(arg, ';');
}

static void names_of_bits_and_tips(void **state)
{
    (void)state;
    assert_string_equal(command_flag_name(0), "write");
    assert_null(command_flag_name(CMD_FLAG_COUNT));
    assert_int_equal(1 << 18, CMD_MOVABLEKEYS);
    assert_string_equal(command_flag_name(18), "movablekeys");
    assert_string_equal(command_category_name(CMD_CATEGORY_COUNT - 1), "scripting");
    assert_int_equal(command_category_find(BYTES("SortedSet")), CAT_SORTEDSET);
    assert_int_equal(command_category_find(BYTES("all")), 0);
    struct buf tips = {0};
    command_each_tip(command_find(BYTES("dbsize")), append_tip, &tips);
    assert_true(bytes_eq(buf_bytes(&tips), BYTES("request_policy:all_shards;response_policy:agg_sum;")));
    buf_deinit(&tips);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_found_by_its_name),
        cmocka_unit_test(unknown_names),
        cmocka_unit_test(rows_hang_together),
        cmocka_unit_test(requests_find_their_subcommand),
        cmocka_unit_test(arity),
        cmocka_unit_test(keys_by_position),
        cmocka_unit_test(keys_without_a_list),
        cmocka_unit_test(keys_by_count),
        cmocka_unit_test(keys_by_keyword),
        cmocka_unit_test(keys_of_special_commands),
        cmocka_unit_test(channels_are_routed_but_no_keys),
        cmocka_unit_test(wrong_calls_for_streams_are_not_routed),
        cmocka_unit_test(names_of_bits_and_tips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
