#include "pool/conf.h"

#include <stdio.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <setjmp.h>

#include <cmocka.h>

static void test_everything(void **state)
{
    static const char text[] = "zeta:\n"
                               "  listen: 127.0.0.1:22121\n"
                               "  servers:\n"
                               "   - 127.0.0.1:11211:1\n"
                               "b:\n"
                               "  listen: /tmp/gamma 0666\n"
                               "  hash: hsieh\n"
                               "  hash_tag: \"$!\"\n"
                               "  distribution: modula\n"
                               "  timeout: 400\n"
                               "  backlog: 1024\n"
                               "  client_connections: 7\n"
                               "  tcpkeepalive: true\n"
                               "  reuseport: true\n"
                               "  preconnect: true\n"
                               "  redis: true\n"
                               "  redis_auth: secret word\n"
                               "  redis_db: 3\n"
                               "  server_connections: 4\n"
                               "  auto_eject_hosts: true\n"
                               "  server_failure_limit: 5\n"
                               "  server_retry_timeout: 6\n"
                               "  servers:\n"
                               "   - ::1:6379:2\n"
                               "   - example.org:6380:3 zz\n"
                               "   - /var/run/x y.sock:4 a\n"
                               "   - example.org:6380:5 b\n";
    struct pool_conf_file f;
    char error[POOL_CONF_ERROR_MAX];
    assert_int_equal(pool_conf_parse(BYTES(text), "f", &f, error), OK);
    assert_int_equal(f.n, 2);
    const struct pool_conf *b = &f.pools[0], *z = &f.pools[1];
    assert_ptr_equal(pool_conf_find(&f, BYTES("zeta")), z);
    assert_null(pool_conf_find(&f, BYTES("zet")));
    assert_string_equal(b->name, "b");
    assert_int_equal(b->line, 5);
    assert_string_equal(b->listen, "/tmp/gamma 0666");
    assert_string_equal(b->listen_host, "/tmp/gamma");
    assert_int_equal(b->listen_port, 0);
    assert_int_equal(b->listen_mode, 0666);
    assert_int_equal(b->hash, POOL_HASH_HSIEH);
    assert_true(b->hash_tagged && b->hash_tag[0] == '$' && b->hash_tag[1] == '!');
    assert_int_equal(b->distribution, POOL_MODULA);
    assert_int_equal(b->timeout_ms, 400);
    assert_int_equal(b->backlog, 1024);
    assert_int_equal(b->client_connections, 7);
    assert_true(b->tcpkeepalive && b->reuseport && b->preconnect && b->redis && b->auto_eject_hosts);
    assert_string_equal(b->redis_auth, "secret word");
    assert_int_equal(b->redis_db, 3);
    assert_int_equal(b->server_connections, 4);
    assert_int_equal(b->server_failure_limit, 5);
    assert_int_equal(b->server_retry_timeout_ms, 6);
    assert_int_equal(b->servers_n, 4);
    static const struct {
        const char *address, *name, *host;
        int port;
        uint32_t weight;
    } sorted[] = {
        {"/var/run/x y.sock:4", "a", "/var/run/x y.sock", 0, 4},
        {"example.org:6380:5", "b", "example.org", 6380, 5},
        {"example.org:6380:3", "zz", "example.org", 6380, 3},
        {"::1:6379:2", "::1:6379", "::1", 6379, 2},
    };
    for (int i = 0; i < 4; i++) {
        assert_string_equal(b->servers[i].address, sorted[i].address);
        assert_string_equal(b->servers[i].name, sorted[i].name);
        assert_string_equal(b->servers[i].host, sorted[i].host);
        assert_int_equal(b->servers[i].port, sorted[i].port);
        assert_int_equal(b->servers[i].weight, sorted[i].weight);
    }
    assert_string_equal(z->servers[0].name, "127.0.0.1");
    assert_int_equal(z->hash, POOL_HASH_FNV1A_64);
    assert_int_equal(z->distribution, POOL_KETAMA);
    assert_int_equal(z->timeout_ms, -1);
    assert_int_equal(z->backlog, 512);
    assert_int_equal(z->client_connections, 0);
    assert_int_equal(z->listen_mode, -1);
    assert_int_equal(z->server_connections, 1);
    assert_int_equal(z->server_failure_limit, 2);
    assert_int_equal(z->server_retry_timeout_ms, 30000);
    assert_false(z->hash_tagged || z->redis || z->auto_eject_hosts || z->preconnect || z->tcpkeepalive || z->reuseport);
    assert_null(z->redis_auth);
    pool_conf_deinit(&f);
}

#define POOL "a:\n  listen: 127.0.0.1:1\n"
#define SERVERS "  servers:\n   - h:1:1\n"

static const struct {
    const char *text, *error;
} refused[] = {
    {"", "f: has no pools"},
    {"a: b\n", "f:1: pool 'a' must have directives of the form \"key: value\" below it"},
    {"- a\n", "f:1: pools must be written \"name:\" with their directives below"},
    {POOL "  timeout: 1\n  timeout: 2\n" SERVERS, "f:4: directive \"timeout\" is a duplicate"},
    {POOL "  timeout: x\n" SERVERS, "f:3: directive \"timeout\" is not a number"},
    {POOL "  timeout: 2147483648\n" SERVERS, "f:3: directive \"timeout\" is not a number"},
    {POOL "  colour: x\n" SERVERS, "f:3: directive \"colour\" is unknown"},
    {POOL "  hash: x\n" SERVERS, "f:3: directive \"hash\" is not a valid hash"},
    {POOL "  redis: yes\n" SERVERS, "f:3: directive \"redis\" is not \"true\" or \"false\""},
    {POOL "  redis_auth: x\n" SERVERS, "f:1: pool 'a': directive \"redis_auth\" is only valid for a redis pool"},
    {POOL "  servers: [a]\n", "f:3: a list in brackets is not allowed here"},
    {POOL, "f:1: pool 'a': has no servers"},
    {"a:\n" SERVERS, "f:1: pool 'a': directive \"listen\" is missing"},
    {POOL "  servers:\n   - h:1:1 x\n   - h:2:1 x\n", "f:1: pool 'a': has servers with the same name 'x'"},
    {POOL SERVERS "b:\n  listen: 127.0.0.1:1\n" SERVERS,
     "f:5: pools 'a' and 'b' have the same listen address '127.0.0.1:1'"},
    {POOL "  servers:\n   - a: b\n", "f:4: a server must be written \"host:port:weight [name]\""},
    {POOL "  redis_auth: \"a\\0b\"\n", "f:3: directive \"redis_auth\" has a byte of value 0"},
    {"a:\n  listen: /x 0888\n",
     "f:2: directive \"listen\" has an invalid file permission in \"socket_path permission\" "
     "format string"},
};

static void test_refused(void **state)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct pool_conf_file f;
        char error[POOL_CONF_ERROR_MAX];
        assert_int_equal(pool_conf_parse(bytes_of(refused[i].text), "f", &f, error), E_INVALID);
        assert_string_equal(error, refused[i].error);
        assert_int_equal(f.n, 0);
        assert_null(f.pools);
    }
    struct pool_conf_file f;
    char error[POOL_CONF_ERROR_MAX];
    assert_int_equal(pool_conf_load("/nonexistent/f", &f, error), E_IO);
    assert_string_equal(error, "/nonexistent/f: No such file or directory");
}

/* A file cut anywhere is read or refused, and never half kept. */
static void test_cut(void **state)
{
    static const char text[] = "a:\n  listen: h:1\n  hash_tag: \"{}\"\n  servers:\n   - h:1:1 'x'\n   - \"h:2:1\"\n";
    for (size_t n = 0; n < sizeof text; n++) {
        struct pool_conf_file f;
        char error[POOL_CONF_ERROR_MAX] = "";
        enum status st = pool_conf_parse(bytes_make(text, n), "f", &f, error);
        assert_true(st == OK ? f.n == 1 && !*error : f.n == 0 && *error);
        pool_conf_deinit(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
