/* Memory runs out in the middle: each command of a list is run with its first try of an allocation failing, its second,
 * and so on.  It answers an error or does without; nothing leaks, and the keys are whole.  Needs the faults of the
 * sanitizer builds (mem.h). */
#include "command/call_test.h"

#include "command/handlers.h"

#include <string.h>

#if COVEY_LIBC_MALLOC

enum { BIG = 5000, FAULTS_MAX = 5000 };

struct fault_case {
    const char *setup; /* lines; '@' stands for BIG bytes of text, '#' for a hundred numbers, '%' for a hundred pairs */
    const char *line;
};

static const struct fault_case cases[] = {
    {"", "SET k @"},
    {"SET k @", "APPEND k @"},
    {"SET k 12", "APPEND k @"},
    {"SET k 5", "SETRANGE k 9000 x"},
    {"SET k @", "GETSET k @"},
    {"", "MSET a @ b @"},
    {"SET k abc", "SETBIT k 90000 1"},
    {"SET a @\nSET b @", "BITOP XOR k a b"},
    {"SET k @", "BITFIELD k SET u8 #9000 1"},
    {"SET k 1", "INCRBYFLOAT k 1.5"},
    {"SET a @\nSET b @", "LCS a b"},
    {"", "RPUSH k @ # @"},
    {"RPUSH k # # #", "LPUSH k @ @"},
    {"RPUSH k # @ x", "LINSERT k BEFORE x @"},
    {"RPUSH k # @ x", "LSET k 50 @"},
    {"RPUSH k # @ x", "LREM k 1 @"},
    {"RPUSH k @ x", "LMOVE k j LEFT RIGHT"},
    {"RPUSH k # # # #", "LTRIM k 120 300"},
    {"SADD k #", "SADD k @ x y"},
    {"SADD k # @", "SREM k 5 @"},
    {"SADD a # @\nSADD b # x @", "SUNIONSTORE k a b"},
    {"SADD a # @\nSADD b # x @", "SINTERSTORE k a b"},
    {"SADD a # @", "SMOVE a k @"},
    {"HSET k %", "HSET k @ @"},
    {"HSET k a 1", "HSET k % % @ x"},
    {"HSET k a 1", "HINCRBYFLOAT k a 1.25"},
    {"ZADD k %", "ZADD k 5 @"},
    {"ZADD k 1 a", "ZADD k % 7 @"},
    {"ZADD a % 3 @\nZADD b %", "ZUNIONSTORE k 2 a b"},
    {"ZADD a % 3 @", "ZRANGESTORE k a 0 -1"},
    {"ZADD a % 3 @\nSADD b # @", "ZINTERSTORE k 2 a b"},
    {"GEOADD a 1 1 x 2 2 y 3 3 @", "GEOSEARCHSTORE k a FROMLONLAT 1 1 BYRADIUS 5000 km"},
    {"", "XADD k 1-1 f @"},
    {"XADD k 1-1 f @", "XADD k MAXLEN 1 2-1 g @"},
    {"", "PFADD k # @"},
    {"PFADD a #\nPFADD b @", "PFMERGE k a b"},
    {"RPUSH a # @", "SORT a ALPHA STORE k"},
    {"SET a @", "COPY a k"},
    {"RPUSH a # # @", "COPY a k"},
    {"ZADD a % % 3 @", "COPY a k"},
    {"XADD a 1-1 f @", "COPY a k"},
    {"HSET a % @ @", "RENAME a k"},
    {"ZADD k % 3 @", "DUMP k"},
};

static int64_t calls_before_fault;
static command_handler *real_handler;
static unsigned refusals;

static void faulty(struct call *c)
{
    mem_fail_after(calls_before_fault);
    real_handler(c);
    bool failed = mem_failed();
    mem_fail_after(-1);
    if (failed) calls_before_fault = -1;
}

static void expand(struct buf *out, const char *line, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        switch (line[i]) {
        case '@':
            for (int k = 0; k < BIG; k++) buf_append_char(out, (char)('a' + k * k % 23));
            break;
        case '#':
            if (i + 1 < n && line[i + 1] >= '0' && line[i + 1] <= '9') {
                buf_append_char(out, '#');
                break;
            }
            for (int k = 0; k < 100; k++) buf_printf(out, "%d ", k * 1000);
            break;
        case '%':
            for (int k = 0; k < 100; k++) buf_printf(out, "%d m%d ", k, k);
            break;
        default: buf_append_char(out, line[i]);
        }
    }
    buf_append_char(out, '\0');
}

/* The table of all handlers would need those of the server. */
static const struct {
    const char *name;
    command_handler *handler;
} handlers[] = {
    {"APPEND", cmd_append},
    {"BITFIELD", cmd_bitfield},
    {"BITOP", cmd_bitop},
    {"COPY", cmd_copy},
    {"GEOADD", cmd_geoadd},
    {"GEOSEARCHSTORE", cmd_geosearchstore},
    {"GETSET", cmd_getset},
    {"HINCRBYFLOAT", cmd_hincrbyfloat},
    {"HSET", cmd_hset},
    {"INCRBYFLOAT", cmd_incrbyfloat},
    {"LCS", cmd_lcs},
    {"LINSERT", cmd_linsert},
    {"LMOVE", cmd_lmove},
    {"LPUSH", cmd_lpush},
    {"LREM", cmd_lrem},
    {"LSET", cmd_lset},
    {"LTRIM", cmd_ltrim},
    {"MSET", cmd_mset},
    {"PFADD", cmd_pfadd},
    {"PFMERGE", cmd_pfmerge},
    {"RENAME", cmd_rename},
    {"RPUSH", cmd_rpush},
    {"SADD", cmd_sadd},
    {"SET", cmd_set},
    {"SETBIT", cmd_setbit},
    {"SETRANGE", cmd_setrange},
    {"SINTERSTORE", cmd_sinterstore},
    {"SMOVE", cmd_smove},
    {"SORT", cmd_sort},
    {"SREM", cmd_srem},
    {"SUNIONSTORE", cmd_sunionstore},
    {"XADD", cmd_xadd},
    {"ZADD", cmd_zadd},
    {"ZINTERSTORE", cmd_zinterstore},
    {"ZRANGESTORE", cmd_zrangestore},
    {"ZUNIONSTORE", cmd_zunionstore},
    {"DUMP", cmd_dump},
};

static command_handler *handler_of_line(const char *line)
{
    size_t n = strcspn(line, " ");
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
        if (strlen(handlers[i].name) == n && strncmp(handlers[i].name, line, n) == 0) return handlers[i].handler;
    fail_msg("no handler: %.20s", line);
    return NULL;
}

static void prepare(struct harness *h, const char *lines)
{
    while (*lines) {
        size_t n = strcspn(lines, "\n");
        struct buf line = {0};
        expand(&line, lines, n);
        run(h, handler_of_line(line.p), line.p);
        assert_int_not_equal(h->reply[0], '-');
        buf_deinit(&line);
        lines += n + (lines[n] == '\n');
    }
}

/* What all keys hold, whatever the encoding: a type that is being changed for a larger one may have been changed. */
static void picture(struct harness *h, struct buf *out)
{
    static const char *const keys[] = {"k", "a", "b", "j"};
    static const struct {
        command_handler *handler;
        const char *name, *rest;
    } looks[] = {{cmd_get, "GET", ""},     {cmd_lrange, "LRANGE", " 0 -1"}, {cmd_zrange, "ZRANGE", " 0 -1 WITHSCORES"},
                 {cmd_scard, "SCARD", ""}, {cmd_hlen, "HLEN", ""},          {cmd_xrange, "XRANGE", " - +"}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char line[64];
        for (size_t k = 0; k < sizeof looks / sizeof *looks; k++) {
            snprintf(line, sizeof line, "%s %s%s", looks[k].name, keys[i], looks[k].rest);
            run(h, looks[k].handler, line);
            buf_append(out, h->reply, h->reply_length);
        }
        snprintf(line, sizeof line, "DUMP %s", keys[i]);
        run(h, cmd_dump, line);
        assert_int_equal(h->reply[0], '$');
    }
}

/* One run with one fault.  False: the command asked for less memory than that. */
static bool run_with_fault(const struct fault_case *c, int64_t n)
{
    struct harness h;
    struct buf line = {0}, before = {0}, after = {0};
    expand(&line, c->line, strlen(c->line));
    harness_init(&h);
    prepare(&h, c->setup);
    picture(&h, &before);
    real_handler = handler_of_line(line.p);
    calls_before_fault = n;
    run(&h, faulty, line.p);
    bool failed = calls_before_fault < 0;
    if (!failed && h.reply[0] == '-') fail_msg("%s: %s", c->line, h.reply);
    if (failed && h.reply[0] == '-' && strncmp(h.reply, "-OOM", 4) != 0 && strncmp(h.reply, "-ERR", 4) != 0)
        fail_msg("%s, fault %lld: %s", c->line, (long long)n, h.reply);
    bool refused = h.reply[0] == '-', told = h.dirty > 0;
    refusals += refused;
    if (refused && !told) assert_string_equal(h.effects, "");
    picture(&h, &after);
    if (refused && !told && !bytes_eq(buf_bytes(&before), buf_bytes(&after)))
        fail_msg("%s, fault %lld: refused, and changed all the same", c->line, (long long)n);
    harness_deinit(&h);
    buf_deinit(&line);
    buf_deinit(&before);
    buf_deinit(&after);
    return failed;
}

static void test_commands_without_memory(void **state)
{
    (void)state;
    unsigned faults = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t n = 0;
        for (;; n++) {
            size_t before = mem_used();
            if (!run_with_fault(&cases[i], n)) break;
            if (mem_used() != before) fail_msg("%s, fault %lld: leaks", cases[i].line, (long long)n);
            assert_true(n < FAULTS_MAX);
            faults++;
        }
    }
    print_message("%u faults, %u refusals\n", faults, refusals);
    assert_true(faults > 100 && refusals > 100);
}

/* Payloads as DUMP makes them, read while memory runs out: an error, and the key is not there. */
static void test_restore_without_memory(void **state)
{
    (void)state;
    unsigned faults = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int64_t n = 0;; n++) {
            size_t before = mem_used();
            struct harness h;
            struct buf payload = {0};
            harness_init(&h);
            prepare(&h, cases[i].setup);
            run(&h, cmd_dump, "DUMP a");
            if (h.reply[1] == '-') run(&h, cmd_dump, "DUMP k");
            bool there = h.reply[1] != '-';
            if (there) {
                const char *body = strchr(h.reply, '\n') + 1;
                buf_append(&payload, body, h.reply_length - (size_t)(body - h.reply) - 2);
                struct bytes argv[] = {BYTES("RESTORE"), BYTES("new"), BYTES("0"), buf_bytes(&payload)};
                real_handler = cmd_restore;
                calls_before_fault = n;
                run_argv(&h, faulty, argv, 4);
                if (calls_before_fault >= 0) assert_string_equal(h.reply, "+OK\r\n");
                bool refused = h.reply[0] == '-';
                run(&h, cmd_dump, "DUMP new");
                assert_int_equal(h.reply[1] == '-', refused);
            }
            bool failed = there && calls_before_fault < 0;
            harness_deinit(&h);
            buf_deinit(&payload);
            if (mem_used() != before) fail_msg("payload of '%s', fault %lld: leaks", cases[i].setup, (long long)n);
            if (!failed) break;
            assert_true(n < FAULTS_MAX);
            faults++;
        }
    }
    print_message("%u faults\n", faults);
    assert_true(faults > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands_without_memory),
        cmocka_unit_test(test_restore_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    return 0;
}

#endif
