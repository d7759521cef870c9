/* Vectors here are answers of redis-server 7.0.15; tests/differential/scripts.txt has many more of them. */
#include "script/script.h"

#include "base/hash.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* A server that answers every command with the same bytes and counts. */
struct fake {
    const char *reply;
    int calls, ticks, abort_at_tick, resp;
    bool abort_at_call;
    struct script_vm *vm;
    struct buf last; /* arguments of the last call, "|" between them */
};

static struct bytes fake_call(void *run, const struct bytes *argv, size_t argc, int resp)
{
    struct fake *f = run;
    f->calls++;
    f->resp = resp;
    f->last.n = 0;
    for (size_t i = 0; i < argc; i++) {
        if (i) buf_append_char(&f->last, '|');
        buf_append_bytes(&f->last, argv[i]);
    }
    if (f->abort_at_call) script_vm_abort(f->vm);
    return bytes_of(f->reply);
}

static int fake_acl(void *run, const struct bytes *argv, size_t argc)
{
    (void)run;
    (void)argc;
    return bytes_eq(argv[0], BYTES("nosuch")) ? -1 : 1;
}

static void fake_log(void *run, int level, struct bytes text)
{
    (void)run;
    (void)level;
    (void)text;
}

static void fake_set_repl(void *run, int what)
{
    (void)run;
    (void)what;
}

static void fake_tick(void *run)
{
    struct fake *f = run;
    if (++f->ticks == f->abort_at_tick) script_vm_abort(f->vm);
}

static const struct script_host host = {fake_call, fake_acl, fake_log, fake_set_repl, fake_tick};

static struct buf out;

/* Runs a script in a VM of its own unless f->vm is set; the reply, or "aborted". */
static const char *run_in(struct fake *f, const char *text, int version)
{
    char sha[SCRIPT_SHA_LENGTH];
    struct buf error = {0};
    bool own = !f->vm;
    if (own) f->vm = script_vm_create(SCRIPT_VM_EVAL, &host);
    out.n = 0;
    struct resp_out o = {&out, (uint8_t)version};
    script_sha1_hex(bytes_of(text), sha);
    struct script_body *b = script_body_create(sha, bytes_of(text), &error);
    bool done = true;
    if (b && script_vm_compile(f->vm, b, &error)) {
        const struct bytes strings[] = {BYTES("key1"), BYTES("arg1"), BYTES("arg2")};
        struct script_run_args args = {
            .run = f, .keys = strings, .key_count = 1, .args = strings + 1, .arg_count = 2, .name = BYTES("NAME")};
        done = script_vm_eval(f->vm, b, &args, &o);
    } else {
        resp_error_bytes(&o, buf_bytes(&error));
    }
    if (!done) {
        assert_int_equal(out.n, 0);
        buf_append_cstr(&out, "aborted");
    }
    buf_append_char(&out, '\0');
    if (b) script_vm_drop(f->vm, b);
    script_body_free(b);
    buf_deinit(&error);
    if (own) {
        script_vm_destroy(f->vm);
        f->vm = NULL;
    }
    return out.p;
}

static const char *run(const char *text)
{
    struct fake f = {.reply = "+OK\r\n"};
    const char *reply = run_in(&f, text, 2);
    buf_deinit(&f.last);
    return reply;
}

static void test_sha1(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sha;
    } vectors[] = {
        {"", "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
        {"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
        {"return 1", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"}};
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        char sha[SCRIPT_SHA_LENGTH];
        script_sha1_hex(bytes_of(vectors[i].text), sha);
        assert_memory_equal(sha, vectors[i].sha, sizeof sha);
    }
    /* A million times 'a', from FIPS 180. */
    struct buf many = {0};
    for (int i = 0; i < 1000000; i++) buf_append_char(&many, 'a');
    char sha[SCRIPT_SHA_LENGTH];
    script_sha1_hex(buf_bytes(&many), sha);
    assert_memory_equal(sha, "34aa973cd4c4daa4f61eeb2bdbad27316534016f", sizeof sha);
    buf_deinit(&many);
}

static void test_replies(void **state)
{
    (void)state;
    assert_string_equal(run("return {KEYS[1],ARGV[1],ARGV[2],#ARGV}"),
                        "*4\r\n$4\r\nkey1\r\n$4\r\narg1\r\n$4\r\narg2\r\n:2\r\n");
    assert_string_equal(run("return -3.99"), ":-3\r\n");
    assert_string_equal(run("return 1e100"), ":-9223372036854775808\r\n");
    assert_string_equal(run("return {1,nil,2}"), "*1\r\n:1\r\n");
    assert_string_equal(run("return {ok='a\\r\\nb'}"), "+a  b\r\n");
    assert_string_equal(run("return {err='X y'}"), "-X y\r\n");
    assert_string_equal(run("return {map={a=1}}"), "*2\r\n$1\r\na\r\n:1\r\n");
    assert_string_equal(run("return false"), "$-1\r\n");
    struct fake f = {.reply = "+OK\r\n"};
    assert_string_equal(run_in(&f, "redis.setresp(3) return {true, {map={a=1}}, {double=1.5}}", 3),
                        "*3\r\n#t\r\n%1\r\n$1\r\na\r\n:1\r\n,1.5\r\n");
}

static void test_values_of_replies(void **state)
{
    (void)state;
    static const struct {
        const char *reply, *script, *want;
    } cases[] = {
        {":5\r\n", "return redis.call('x') + 1", ":6\r\n"},
        {"$-1\r\n", "return redis.call('x') == false and 7", ":7\r\n"},
        {"_\r\n", "return redis.call('x') == nil and 7", ":7\r\n"},
        {"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", "local r = redis.call('x') return r[1] .. r[2][1]", "$2\r\na1\r\n"},
        {"+PONG\r\n", "return redis.call('x').ok", "$4\r\nPONG\r\n"},
        {"-ERR bad\r\n", "return redis.pcall('x').err", "$7\r\nERR bad\r\n"},
        {"-ERR bad\r\n", "return redis.call('x')", "-ERR bad script: NAME, on @user_script:1.\r\n"},
        {",1.25\r\n", "return redis.call('x').double * 4", ":5\r\n"},
        {"%1\r\n$1\r\na\r\n:3\r\n", "return redis.call('x').map.a", ":3\r\n"},
        {"~1\r\n$1\r\na\r\n", "return redis.call('x').set.a", ":1\r\n"},
        {"=7\r\ntxt:abc\r\n", "return redis.call('x').verbatim_string.string", "$3\r\nabc\r\n"},
        {"(123456789012345678901\r\n", "return redis.call('x').big_number", "$21\r\n123456789012345678901\r\n"},
        {"#t\r\n", "return redis.call('x')", ":1\r\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fake f = {.reply = cases[i].reply};
        assert_string_equal(run_in(&f, cases[i].script, 2), cases[i].want);
        buf_deinit(&f.last);
    }
}

static void test_arguments(void **state)
{
    (void)state;
    struct fake f = {.reply = "+OK\r\n"};
    run_in(&f, "redis.call('set', 1, 2.5, 0.1, -0, 1e15, 1e100, 'a b')", 2);
    assert_int_equal(f.calls, 1);
    buf_append_char(&f.last, '\0');
    assert_string_equal(f.last.p, "set|1|2.5|0.10000000000000001|-0|1000000000000000|1e+100|a b");
    buf_deinit(&f.last);
    assert_string_equal(run("redis.call()"),
                        "-ERR Please specify at least one argument for this redis lib call script: "
                        "NAME, on @user_script:1.\r\n");
    assert_string_equal(run("return redis.acl_check_cmd('nosuch')"),
                        "-ERR Invalid command passed to redis.acl_check_cmd() script: NAME, on @user_script:1.\r\n");
}

static void test_sandbox(void **state)
{
    (void)state;
    static const char *const refused[] = {"x = 1",
                                          "redis.x = 1",
                                          "redis.call = 1",
                                          "string.upper = nil",
                                          "getmetatable('').__index = 1",
                                          "getmetatable(_G).__index = 1",
                                          "_G.x = 1",
                                          "KEYS = 1",
                                          "rawset(_G, 'x', 1)",
                                          "rawset(redis, 'x', 1)",
                                          "setmetatable(_G, {})",
                                          "setmetatable(redis, {})",
                                          "table.insert(redis, 1)",
                                          "table.insert(_G, 1)"};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        const char *reply = run(refused[i]);
        if (!strstr(reply, "Attempt to modify a readonly table")) fail_msg("%s: %s", refused[i], reply);
    }
    static const char *const missing[] = {"print", "dofile", "loadfile", "require", "module",  "package",
                                          "os",    "io",     "debug",    "getfenv", "setfenv", "newproxy"};
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++) {
        char text[64], want[128];
        snprintf(text, sizeof text, "return %s", missing[i]);
        snprintf(want, sizeof want, "Script attempted to access nonexistent global variable '%s'", missing[i]);
        const char *reply = run(text);
        if (!strstr(reply, want)) fail_msg("%s: %s", missing[i], reply);
    }
    /* Whatever a script can reach through pairs() is the stand-in, not the table behind it. */
    assert_string_equal(run("for k, v in pairs(_G) do if type(v) == 'table' and k ~= 'KEYS' and k ~= 'ARGV' then "
                            "if pcall(function() v.hole = 1 end) then return k end end end return 'safe'"),
                        "$4\r\nsafe\r\n");
    assert_string_equal(run("return loadstring('\\27Lua') == nil"), ":1\r\n");
    assert_string_equal(run("return loadstring(string.dump(function() return 1 end)) == nil"), ":1\r\n");
}

static void test_scripts_leave_nothing_behind(void **state)
{
    (void)state;
    struct fake f = {.reply = "+OK\r\n", .vm = script_vm_create(SCRIPT_VM_EVAL, &host)};
    run_in(&f, "KEYS.hidden = 1 ARGV.hidden = 1 redis.setresp(3)", 2);
    assert_string_equal(run_in(&f, "return {KEYS.hidden == nil, ARGV.hidden == nil}", 2), "*2\r\n:1\r\n:1\r\n");
    run_in(&f, "redis.call('x')", 2);
    assert_int_equal(f.resp, 2);
    buf_deinit(&f.last);
    script_vm_destroy(f.vm);
}

static void test_abort(void **state)
{
    (void)state;
    /* However the script catches errors, it ends; and the VM is fit for the next one. */
    static const char *const scripts[] = {
        "while true do end", "while true do pcall(function() while true do end end) end",
        "local function f() pcall(f) while true do end end f()",
        "coroutine.wrap(function() while true do pcall(function() while true do end end) end end)() while true do end",
        "xpcall(function() while true do end end, function() while true do end end) while true do end"};
    struct fake f = {.reply = "+OK\r\n", .vm = script_vm_create(SCRIPT_VM_EVAL, &host)};
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        f.ticks = 0;
        f.abort_at_tick = 3;
        assert_string_equal(run_in(&f, scripts[i], 2), "aborted");
        f.abort_at_tick = 0;
        assert_string_equal(run_in(&f, "return 5", 2), ":5\r\n");
    }
    f.abort_at_call = true;
    f.calls = 0;
    assert_string_equal(run_in(&f, "while true do pcall(redis.call, 'x') end", 2), "aborted");
    assert_int_equal(f.calls, 1);
    buf_deinit(&f.last);
    script_vm_destroy(f.vm);
}

static void test_first_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
        unsigned flags;
    } cases[] = {{"return 1", NULL, 0},
                 {"#!lua\nx", NULL, SCRIPT_HAS_SHEBANG},
                 {"#!lua flags=no-writes,allow-oom\nx", NULL, SCRIPT_HAS_SHEBANG | SCRIPT_NO_WRITES | SCRIPT_ALLOW_OOM},
                 {"#!lua flags=no-writes flags=allow-stale \nx", NULL,
                  SCRIPT_HAS_SHEBANG | SCRIPT_NO_WRITES | SCRIPT_ALLOW_STALE},
                 {"#!lua", "ERR Invalid script shebang", 0},
                 {"#!lu\nx", "ERR Unexpected engine in script shebang: #!lu", 0},
                 {"#! lua\nx", "ERR Unexpected engine in script shebang: #!", 0},
                 {"#!lua flags=no\nx", "ERR Unexpected flag in script shebang: no", 0},
                 {"#!lua name=x\nx", "ERR Unknown lua shebang option: name=x", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char sha[SCRIPT_SHA_LENGTH] = {0};
        struct buf error = {0};
        struct script_body *b = script_body_create(sha, bytes_of(cases[i].text), &error);
        buf_append_char(&error, '\0');
        if (cases[i].error) {
            assert_null(b);
            assert_string_equal(error.p, cases[i].error);
        } else {
            assert_non_null(b);
            assert_int_equal(b->flags, cases[i].flags);
        }
        script_body_free(b);
        buf_deinit(&error);
    }
}

static void test_cache(void **state)
{
    (void)state;
    struct script_cache *c = script_cache_create();
    char sha[SCRIPT_SHA_LENGTH], text[32];
    struct buf error = {0};
    for (int i = 0; i < 1000; i++) {
        snprintf(text, sizeof text, "return %d", i % 500);
        script_sha1_hex(bytes_of(text), sha);
        struct script_body *b = script_body_create(sha, bytes_of(text), &error);
        struct script_body *there = script_cache_insert(c, b);
        assert_true((there == b) == (i < 500));
        if (there != b) script_body_free(b);
    }
    assert_int_equal(script_cache_count(c), 500);
    assert_true(script_cache_memory(c) > 500 * 8);
    struct script_body *b = script_cache_find(c, sha);
    assert_non_null(b);
    assert_true(bytes_eq(b->text, bytes_of(text)));
    uint64_t generation = script_cache_generation(c);
    script_cache_flush(c);
    assert_null(script_cache_find(c, sha));
    assert_true(script_cache_generation(c) != generation);
    assert_int_equal(script_cache_memory(c), 0);
    script_cache_destroy(c);
}

static void test_memory_is_given_back(void **state)
{
    (void)state;
    struct script_vm *vm = script_vm_create(SCRIPT_VM_EVAL, &host);
    size_t empty = script_vm_memory(vm);
    struct fake f = {.reply = "+OK\r\n", .vm = vm};
    run_in(&f, "local t = {} for i = 1, 100000 do t[i] = 'x' .. i end return #t", 2);
    size_t full = script_vm_memory(vm);
    assert_true(full > empty + 3000000);
    script_vm_forget(vm); /* collects */
    assert_true(script_vm_memory(vm) < empty + (full - empty) / 3);
    script_vm_destroy(vm);
}

static void test_libraries(void **state)
{
    (void)state;
    static const struct {
        const char *script, *want;
    } cases[] = {
        {"math.randomseed(5) return tostring(math.random())", "$16\r\n0.52483957937213\r\n"},
        {"return bit.tohex(1, -2147483648)", "$8\r\n00000001\r\n"},
        {"return bit.bor(1, 2, 4)", ":7\r\n"},
        {"return struct.size('s')",
         "-ERR user_script:1: bad argument #1 to 'size' (option 's' has no fixed size) script: NAME, on "
         "@user_script:1.\r\n"},
        {"return {struct.unpack('bc0', '\\3abc')}", "*2\r\n$3\r\nabc\r\n:5\r\n"},
        {"return cmsgpack.pack({1, 'a'})", "$4\r\n\x92\x01\xa1"
                                           "a\r\n"},
        {"return {cmsgpack.unpack_one('\\1\\2', 1)}", "*2\r\n:-1\r\n:2\r\n"},
        {"return cmsgpack.unpack('\\203')",
         "-ERR user_script:1: Missing bytes in input. script: NAME, on @user_script:1.\r\n"},
        {"return cjson.encode({1, {a = 'x'}})", "$13\r\n[1,{\"a\":\"x\"}]\r\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *got = run(cases[i].script);
        assert_string_equal(got, cases[i].want);
    }
    run("return struct.pack('>I2h', 5, -3)");
    assert_memory_equal(out.p, "$4\r\n\0\5\xff\xfd\r\n", 10);
}

static int end(void **state)
{
    (void)state;
    buf_deinit(&out);
    return 0;
}

int main(void)
{
    hash_seed_set(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha1),
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_values_of_replies),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_sandbox),
        cmocka_unit_test(test_scripts_leave_nothing_behind),
        cmocka_unit_test(test_abort),
        cmocka_unit_test(test_first_line),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_memory_is_given_back),
        cmocka_unit_test(test_libraries),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
