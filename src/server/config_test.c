/* Options: files, command lines, bad values, CONFIG SET and GET, CONFIG REWRITE. */
#include "server/config.h"

#include "base/mem.h"
#include "command/call.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/covey-config-XXXXXX";
static char path[64], path2[64];

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static char *read_file(const char *name)
{
    static char text[65536];
    FILE *f = fopen(name, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    return text;
}

/* Loads "covey-server <args...>"; the warnings end up in `warnings`, the error in `error`. */
static char warnings[8192], error[8192];

static struct config *load(int argc, ...)
{
    static char role[] = "server";
    char *argv[32] = {role};
    struct buf w = {0};
    char *e = NULL;
    struct config *c = config_create();
    va_list ap;
    va_start(ap, argc);
    for (int i = 1; i <= argc; i++) argv[i] = va_arg(ap, char *);
    va_end(ap);
    error[0] = '\0';
    enum status st = config_load(c, argc + 1, argv, &e, &w);
    assert_true((st == OK) == (e == NULL));
    snprintf(error, sizeof error, "%s", e ? e : "");
    snprintf(warnings, sizeof warnings, "%.*s", (int)w.n, w.n ? w.p : "");
    mem_free(e);
    buf_deinit(&w);
    if (st == OK) return c;
    config_destroy(c);
    return NULL;
}

static struct config *load_text(const char *text)
{
    write_file(path, text);
    return load(1, path);
}

static void assert_text(const struct config *c, enum config_id id, const char *want)
{
    char *got = config_cstr(c, id);
    assert_string_equal(got, want);
    mem_free(got);
}

static void assert_refused(const char *text, int line, const char *directive, const char *reason)
{
    char want[512];
    struct config *c = load_text(text);
    assert_null(c);
    snprintf(want, sizeof want,
             "\n*** FATAL CONFIG FILE ERROR (Covey) ***\nReading the configuration file %s, at line %d\n>>> '%s'\n%s\n",
             path, line, directive, reason);
    assert_string_equal(error, want);
}

static void defaults(void **state)
{
    (void)state;
    struct config *c = load(0);
    struct save_point points[SAVE_POINTS_MAX];
    struct output_limit limit;
    assert_string_equal(warnings, "");
    assert_string_equal(config_file(c), "");
    assert_int_equal(config_num(c, CFG_PORT), 6379);
    assert_int_equal(config_num(c, CFG_MAXMEMORY_POLICY), MAXMEMORY_NOEVICTION);
    assert_int_equal(config_num(c, CFG_PROTO_MAX_BULK_LEN), 512 * 1024 * 1024);
    assert_true(config_num(c, CFG_WORKERS) >= 1);
    assert_true(config_text_is_empty(c, CFG_REQUIREPASS));
    assert_false(config_text_is_empty(c, CFG_BIND));
    assert_int_equal(config_save_points(c, points), 3);
    assert_int_equal(points[2].seconds, 60);
    assert_int_equal(points[2].changes, 10000);
    config_output_limit(c, OUTPUT_REPLICA, &limit);
    assert_int_equal(limit.hard, 268435456);
    assert_int_equal(limit.soft, 67108864);
    assert_int_equal(limit.soft_seconds, 60);
    config_destroy(c);
}

static void file(void **state)
{
    (void)state;
    write_file(path2, "timeout 7\n");
    char text[2048];
    snprintf(text, sizeof text,
             "# a comment\n\n   PORT 7001  \r\nmaxmemory 2gb\nslave-priority 5\nlist-compress-depth "
             "1\nhash-max-ziplist-entries 3\n"
             "requirepass \"a \\\"b\\\" \\x41\"\nsave 900 1\nsave 30 5 7 8\ninclude %s\n"
             "client-output-buffer-limit replica 1kb 2mb 3\nbind 127.0.0.1 -::1\nio-threads 3\n"
             "no-such-thing 1 2\nreplicaof 10.0.0.1 6380\nunixsocketperm 700\nmaxmemory-clients 5%%\n"
             "repl-diskless-sync-delay 0\nshutdown-on-sigterm save force\nnotify-keyspace-events gEx\nloglevel "
             "WARNING\nhz 1000\n",
             path2);
    struct config *c = load_text(text);
    assert_non_null(c);
    assert_int_equal(config_num(c, CFG_PORT), 7001);
    assert_int_equal(config_num(c, CFG_MAXMEMORY), 2ll << 30);
    assert_int_equal(config_num(c, CFG_REPLICA_PRIORITY), 5);
    assert_int_equal(config_num(c, CFG_HASH_MAX_LISTPACK_ENTRIES), 3);
    assert_text(c, CFG_REQUIREPASS, "a \"b\" A");
    assert_text(c, CFG_SAVE, "900 1 30 5 7 8");
    assert_int_equal(config_num(c, CFG_TIMEOUT), 7);
    assert_text(c, CFG_CLIENT_OUTPUT_BUFFER_LIMIT, "normal 0 0 0 slave 1024 2097152 3 pubsub 33554432 8388608 60");
    assert_text(c, CFG_BIND, "127.0.0.1 -::1");
    assert_int_equal(config_num(c, CFG_WORKERS), 3);
    assert_text(c, CFG_REPLICAOF, "10.0.0.1 6380");
    assert_int_equal(config_num(c, CFG_UNIXSOCKETPERM), 0700);
    assert_text(c, CFG_UNIXSOCKETPERM, "700");
    assert_int_equal(config_num(c, CFG_MAXMEMORY_CLIENTS), -5);
    assert_text(c, CFG_MAXMEMORY_CLIENTS, "5%");
    assert_int_equal(config_num(c, CFG_SHUTDOWN_ON_SIGTERM), SHUTDOWN_SAVE | SHUTDOWN_FORCE);
    assert_text(c, CFG_SHUTDOWN_ON_SIGTERM, "save force");
    assert_text(c, CFG_NOTIFY_KEYSPACE_EVENTS, "gxE");
    assert_text(c, CFG_LOGLEVEL, "warning");
    assert_int_equal(config_num(c, CFG_HZ), 500);
    assert_string_equal(config_file(c), path);
    assert_non_null(strstr(warnings, "directive 'no-such-thing' is not known and is ignored"));
    assert_non_null(strstr(warnings, "line 15)"));
    assert_non_null(strstr(warnings, "directive 'list-compress-depth' is accepted and has nothing to do here"));
    assert_non_null(strstr(warnings, "directive 'repl-diskless-sync-delay' is accepted and has nothing to do here"));
    assert_null(strstr(warnings, "'timeout'"));
    config_destroy(c);
}

static void bad_values(void **state)
{
    (void)state;
    assert_refused("port abc\n", 1, "port abc", "argument couldn't be parsed into an integer");
    assert_refused("\n# x\nport 70000", 3, "port 70000", "argument must be between 0 and 65535 inclusive");
    assert_refused("maxmemory 1tb\n", 1, "maxmemory 1tb", "argument must be a memory value");
    assert_refused("maxmemory -1\n", 1, "maxmemory -1", "argument must be a memory value");
    assert_refused("maxmemory 99999999999gb\n", 1, "maxmemory 99999999999gb", "argument must be a memory value");
    assert_refused("appendonly maybe", 1, "appendonly maybe", "argument must be 'yes' or 'no'");
    assert_refused("appendfsync x", 1, "appendfsync x",
                   "argument(s) must be one of the following: everysec, always, no");
    assert_refused("hz", 1, "hz", "wrong number of arguments");
    assert_refused("hz 1 2", 1, "hz 1 2", "wrong number of arguments");
    assert_refused("requirepass \"a", 1, "requirepass \"a", "Unbalanced quotes in configuration line");
    assert_refused("save 1", 1, "save 1", "Invalid save parameters");
    assert_refused("client-output-buffer-limit normal 1", 1, "client-output-buffer-limit normal 1",
                   "Wrong number of arguments in buffer limit configuration.");
    assert_refused("unixsocketperm 9", 1, "unixsocketperm 9", "argument couldn't be parsed as an octal number");
    assert_refused("maxmemory-clients 101%", 1, "maxmemory-clients 101%",
                   "percentage argument must be less or equal to 100");
    assert_refused("dbfilename a/b", 1, "dbfilename a/b", "dbfilename can't be a path, just a filename");
    assert_refused("dir /nonexistent", 1, "dir /nonexistent", "No such file or directory");
    assert_refused("loadmodule /x.so", 1, "loadmodule /x.so", "modules are not supported");
    assert_refused("workers 129", 1, "workers 129", "argument must be between 1 and 128 inclusive");
    assert_null(load_text("cluster-enabled yes\nreplicaof a 1\n"));
    assert_non_null(strstr(error, "replicaof directive not allowed in cluster mode"));
    assert_null(load_text("include /nonexistent\n"));
    assert_string_equal(error, "Fatal error, can't open config file '/nonexistent': No such file or directory\n");
    char text[128];
    snprintf(text, sizeof text, "include %s\n", path);
    assert_null(load_text(text)); /* includes itself */
    assert_non_null(strstr(error, "too many levels of include"));
}

static void command_line(void **state)
{
    (void)state;
    write_file(path, "port 1\nsave 1 2\ntimeout 3\n");
    struct config *c =
        load(9, path, "--port", "2", "--save", "--bind", "127.0.0.1", "::1", "--hz 20", "--appendfsync=no");
    assert_non_null(c);
    assert_int_equal(config_num(c, CFG_PORT), 2);
    assert_int_equal(config_num(c, CFG_TIMEOUT), 3);
    assert_int_equal(config_num(c, CFG_HZ), 20);
    assert_text(c, CFG_SAVE, "");
    assert_text(c, CFG_BIND, "127.0.0.1 ::1");
    assert_non_null(strstr(warnings, "'appendfsync=no' is not known"));
    config_destroy(c);
    c = load(2, "--save", "");
    assert_text(c, CFG_SAVE, "");
    config_destroy(c);
    c = load(2, "--requirepass", "--x");
    assert_text(c, CFG_REQUIREPASS, "--x");
    config_destroy(c);
    assert_null(load(1, "--hz"));
    assert_string_equal(error, "\n*** FATAL CONFIG FILE ERROR (Covey) ***\nReading the command line\n>>> 'hz'\n"
                               "wrong number of arguments\n");
    assert_null(load(2, "--hz", "x y"));
    assert_non_null(strstr(error, ">>> 'hz \"x y\"'"));
    assert_null(load(1, "/nonexistent/covey.conf"));
}

static void assert_set(struct config *c, const char *name, const char *value, const char *want)
{
    struct bytes pairs[] = {bytes_of(name), bytes_of(value)};
    struct buf reply = {0};
    enum status st = config_set(c, pairs, 2, false, &reply);
    buf_append_char(&reply, '\0');
    if (want) {
        assert_int_equal(st, E_INVALID);
        assert_string_equal(reply.p, want);
    } else {
        assert_int_equal(st, OK);
    }
    buf_deinit(&reply);
}

static int told, told_id;

static void listener(void *ctx, enum config_id id)
{
    (void)ctx;
    told++;
    told_id = (int)id;
}

static void set(void **state)
{
    (void)state;
    struct config *c = load(0);
    config_set_listener(c, listener, NULL);
    told = 0;
    assert_set(c, "Slave-Priority", "7", NULL);
    assert_int_equal(told, 1);
    assert_int_equal(told_id, CFG_REPLICA_PRIORITY);
    assert_int_equal(config_num(c, CFG_REPLICA_PRIORITY), 7);
    assert_set(c, "nosuch", "7", "ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'");
    assert_set(c, "databases", "7",
               "ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config");
    assert_set(c, "dir", "/tmp",
               "ERR CONFIG SET failed (possibly related to argument 'dir') - can't set protected config");
    assert_set(c, "save", "60 1 x",
               "ERR CONFIG SET failed (possibly related to argument 'save') - Invalid save parameters");
    assert_set(c, "save", "60 1 70 2", NULL);
    assert_text(c, CFG_SAVE, "60 1 70 2");
    assert_set(c, "save", "", NULL);
    assert_text(c, CFG_SAVE, "");
    assert_set(c, "client-output-buffer-limit", "pubsub 0 0 0", NULL);
    assert_text(c, CFG_CLIENT_OUTPUT_BUFFER_LIMIT, "normal 0 0 0 slave 268435456 67108864 60 pubsub 0 0 0");
    struct bytes pairs[] = {BYTES("timeout"), BYTES("5"), BYTES("hz"), BYTES("x")};
    struct buf reply = {0};
    told = 0;
    assert_int_equal(config_set(c, pairs, 4, false, &reply), E_INVALID);
    assert_int_equal(config_num(c, CFG_TIMEOUT), 0); /* all or none */
    assert_int_equal(told, 0);
    pairs[2] = BYTES("TIMEOUT");
    pairs[3] = BYTES("6");
    assert_int_equal(config_set(c, pairs, 4, false, &reply), E_INVALID);
    buf_append_char(&reply, '\0');
    assert_string_equal(reply.p,
                        "ERR CONFIG SET failed (possibly related to argument 'TIMEOUT') - duplicate parameter");
    buf_deinit(&reply);
    assert_set(c, "maxmemory-policy", "allkeys-lfu", NULL);
    assert_set(c, "zset-max-ziplist-value", "1kb", NULL);
    struct call_options options;
    options_derive(c, &options);
    assert_true(options.lfu);
    assert_int_equal(options.limits.zset_max_listpack_value, 1024);
    assert_int_equal(options.limits.list_max_listpack_size, -2);
    config_destroy(c);
}

static void get(void **state)
{
    (void)state;
    struct config *c = load(0);
    struct buf b = {0};
    struct resp_out out = {&b, 3};
    struct bytes patterns[] = {BYTES("PORT"), BYTES("slave-prio*"), BYTES("port"), BYTES("nosuch")};
    config_reply_get(c, patterns, 4, &out);
    struct bytes want = BYTES("%2\r\n$4\r\nPORT\r\n$4\r\n6379\r\n$14\r\nslave-priority\r\n$3\r\n100\r\n");
    assert_true(bytes_eq(buf_bytes(&b), want));
    buf_deinit(&b);
    config_destroy(c);
}

static void rewrite(void **state)
{
    (void)state;
    struct config *c = load_text("# head\nport 7001\n\n# pairs\nsave 900 1\nslave-priority 5\nsave 30 5\n"
                                 "unknown-one a b\ntimeout 3\n# tail\n");
    assert_non_null(c);
    assert_set(c, "maxmemory", "3gb", NULL);
    assert_set(c, "requirepass", "p \"w\n", NULL);
    assert_set(c, "timeout", "0", NULL);
    assert_set(c, "save", "1 2 3 4", NULL);
    assert_int_equal(config_rewrite(c, false), OK);
    char want[1024], cwd[512];
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(
        want, sizeof want,
        "# head\nport 7001\n\n# pairs\nsave 1 2\nsave 3 4\nreplica-priority 5\nunknown-one a b\ntimeout 0\n# tail\n"
        "# Generated by CONFIG REWRITE\ndir \"%s\"\nrequirepass \"p \\\"w\\n\"\nmaxmemory 3gb\n",
        cwd);
    assert_string_equal(read_file(path), want);
    /* What was written reads back as the same, and a second rewrite changes nothing. */
    struct config *d = load(1, path);
    assert_non_null(d);
    for (int id = 0; id < CFG_COUNT; id++) {
        char *text = config_cstr(c, (enum config_id)id);
        assert_text(d, (enum config_id)id, text);
        mem_free(text);
    }
    assert_int_equal(config_rewrite(d, false), OK);
    assert_string_equal(read_file(path), want);
    config_destroy(c);
    config_destroy(d);
    c = load(0);
    assert_int_equal(config_rewrite(c, false), E_NOT_FOUND);
    config_destroy(c);
}

/* Every option's present value survives a rewrite, also when none is at its default. */
static void rewrite_all(void **state)
{
    (void)state;
    static const char *const lines =
        "bind 127.0.0.1\nclient-output-buffer-limit normal 1 2 3\noom-score-adj-values 1 2 3\nsave \"\"\n"
        "latency-tracking-info-percentiles 1 99.95\nnotify-keyspace-events AKE\nshutdown-on-sigint nosave now\n"
        "maxmemory-clients 7%\nunixsocketperm 755\nlogfile \"a b\"\nreplicaof h 1\nlist-max-listpack-size -5\n"
        "maxmemory-policy volatile-ttl\nrepl-backlog-size 1000\n";
    struct config *c = load_text(lines);
    assert_non_null(c);
    assert_int_equal(config_rewrite(c, false), OK);
    struct config *d = load(1, path);
    assert_non_null(d);
    for (int id = 0; id < CFG_COUNT; id++) {
        char *text = config_cstr(c, (enum config_id)id);
        assert_text(d, (enum config_id)id, text);
        mem_free(text);
    }
    config_destroy(c);
    config_destroy(d);
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/covey.conf", dir);
    snprintf(path2, sizeof path2, "%s/more.conf", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    unlink(path2);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),     cmocka_unit_test(file),        cmocka_unit_test(bad_values),
        cmocka_unit_test(command_line), cmocka_unit_test(set),         cmocka_unit_test(get),
        cmocka_unit_test(rewrite),      cmocka_unit_test(rewrite_all),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
