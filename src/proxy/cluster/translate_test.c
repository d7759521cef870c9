/* Replies of RESP2 as RESP3; both columns are what redis-server 7.0.15 says to the same command in the two protocols.
 */
#include "base/mem.h"
#include "proxy/cluster/translate.h"
#include "resp/resp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define B(n, s) "$" #n "\r\n" s "\r\n"

static const struct {
    const char *request, *in, *want;
} vectors[] = {
    {"GET k", "$-1\r\n", "_\r\n"},
    {"GET k", B(1, "v"), B(1, "v")},
    {"BLPOP k 1", "*-1\r\n", "_\r\n"},
    {"SET k v", "+OK\r\n", "+OK\r\n"},
    {"HGETALL h", "*4\r\n" B(1, "a") B(1, "1") B(1, "b") B(1, "2"), "%2\r\n" B(1, "a") B(1, "1") B(1, "b") B(1, "2")},
    {"HGETALL h", "*0\r\n", "%0\r\n"},
    {"HMGET h a z", "*2\r\n" B(1, "1") "$-1\r\n", "*2\r\n" B(1, "1") "_\r\n"},
    {"SMEMBERS s", "*1\r\n" B(1, "1"), "~1\r\n" B(1, "1")},
    {"SPOP s", B(1, "2"), B(1, "2")},
    {"SPOP s 1", "*1\r\n" B(1, "2"), "~1\r\n" B(1, "2")},
    {"ZSCORE z a", B(3, "2.5"), ",2.5\r\n"},
    {"ZSCORE z a", "$-1\r\n", "_\r\n"},
    {"ZADD z 1 a", ":1\r\n", ":1\r\n"},
    {"ZADD z INCR 1 a", B(3, "inf"), ",inf\r\n"},
    {"ZRANK z a WITHSCORE", "*2\r\n:0\r\n" B(3, "2.5"), "*2\r\n:0\r\n,2.5\r\n"},
    {"ZRANK z a", ":0\r\n", ":0\r\n"},
    {"ZSCORE z a", B(3, "x:y"), B(3, "x:y")},
    {"ZMSCORE z a b", "*2\r\n" B(1, "1") "$-1\r\n", "*2\r\n,1\r\n_\r\n"},
    {"ZRANGE z 0 -1", "*2\r\n" B(1, "a") B(1, "b"), "*2\r\n" B(1, "a") B(1, "b")},
    {"ZRANGE z 0 -1 withscores", "*4\r\n" B(1, "b") B(3, "2.5") B(1, "a") B(1, "3"),
     "*2\r\n*2\r\n" B(1, "b") ",2.5\r\n*2\r\n" B(1, "a") ",3\r\n"},
    {"ZPOPMIN z", "*2\r\n" B(1, "a") B(1, "3"), "*2\r\n" B(1, "a") ",3\r\n"},
    {"ZPOPMIN z", "*0\r\n", "*0\r\n"},
    {"ZPOPMIN z 1", "*2\r\n" B(1, "a") B(1, "1"), "*1\r\n*2\r\n" B(1, "a") ",1\r\n"},
    {"BZPOPMAX z 1", "*3\r\n" B(1, "z") B(1, "b") B(1, "2"), "*3\r\n" B(1, "z") B(1, "b") ",2\r\n"},
    {"ZMPOP 1 z MIN", "*2\r\n" B(1, "z") "*1\r\n*2\r\n" B(1, "b") B(3, "2.5"),
     "*2\r\n" B(1, "z") "*1\r\n*2\r\n" B(1, "b") ",2.5\r\n"},
    {"HRANDFIELD h 1 WITHVALUES", "*2\r\n" B(1, "a") B(1, "1"), "*1\r\n*2\r\n" B(1, "a") B(1, "1")},
    {"GEOPOS g P none", "*2\r\n*2\r\n" B(2, "13") B(2, "38") "*-1\r\n", "*2\r\n*2\r\n,13\r\n,38\r\n_\r\n"},
    {"GEORADIUS g 1 1 1 m WITHCOORD WITHDIST WITHHASH",
     "*1\r\n*4\r\n" B(1, "P") B(6, "0.0000") ":7\r\n*2\r\n" B(2, "13") B(2, "38"),
     "*1\r\n*4\r\n" B(1, "P") B(6, "0.0000") ":7\r\n*2\r\n,13\r\n,38\r\n"},
    {"XREAD STREAMS x 0", "*1\r\n*2\r\n" B(1, "x") "*1\r\n*2\r\n" B(3, "1-1") "*2\r\n" B(1, "a") B(1, "b"),
     "%1\r\n" B(1, "x") "*1\r\n*2\r\n" B(3, "1-1") "*2\r\n" B(1, "a") B(1, "b")},
    {"XREAD STREAMS x 0", "*-1\r\n", "_\r\n"},
    {"XINFO STREAM x", "*4\r\n" B(6, "length") ":1\r\n" B(6, "groups") ":1\r\n",
     "%2\r\n" B(6, "length") ":1\r\n" B(6, "groups") ":1\r\n"},
    {"XINFO STREAM x FULL",
     "*2\r\n" B(6, "groups") "*1\r\n*4\r\n" B(4, "name") B(1, "g") B(9, "consumers") "*1\r\n*2\r\n" B(4, "name")
         B(2, "me"),
     "%1\r\n" B(6, "groups") "*1\r\n%2\r\n" B(4, "name") B(1, "g") B(9, "consumers") "*1\r\n%1\r\n" B(4, "name")
         B(2, "me")},
    {"LCS a b", B(1, "x"), B(1, "x")},
    {"LCS a b IDX", "*4\r\n" B(7, "matches") "*0\r\n" B(3, "len") ":0\r\n",
     "%2\r\n" B(7, "matches") "*0\r\n" B(3, "len") ":0\r\n"},
    {"COMMAND GETKEYSANDFLAGS set a b", "*1\r\n*2\r\n" B(1, "a") "*2\r\n+OW\r\n+update\r\n",
     "*1\r\n*2\r\n" B(1, "a") "~2\r\n+OW\r\n+update\r\n"},
    {"FUNCTION STATS",
     "*4\r\n" B(14, "running_script") "$-1\r\n" B(7, "engines") "*2\r\n" B(3, "LUA") "*2\r\n" B(1, "n") ":1\r\n",
     "%2\r\n" B(14, "running_script") "_\r\n" B(7, "engines") "%1\r\n" B(3, "LUA") "%1\r\n" B(1, "n") ":1\r\n"},
    {"LOLWUT", B(1, "x"), "=5\r\ntxt:x\r\n"},
    {"EVAL x 0", "*4\r\n:1\r\n$-1\r\n" B(1, "a") "*1\r\n$-1\r\n", "*4\r\n:1\r\n_\r\n" B(1, "a") "*1\r\n_\r\n"},
    {"HGETALL h", "-WRONGTYPE x\r\n", "-WRONGTYPE x\r\n"},
};

static void by_command(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        struct resp_request req = {0};
        struct buf out = {0};
        assert_int_equal(resp_split_line(bytes_of(vectors[i].request), &req), OK);
        const struct command *cmd = command_of_request(req.argv, req.argc, NULL);
        assert_non_null(cmd);
        translate_reply(cmd, req.argv, req.argc, bytes_of(vectors[i].in), &out);
        buf_append_char(&out, '\0');
        assert_string_equal(out.p, vectors[i].want);
        buf_deinit(&out);
        resp_request_deinit(&req);
    }
}

static void transactions(void **state)
{
    (void)state;
    struct buf requests = {0}, out = {0};
    resp_request_cstr(&requests, 1, "MULTI");
    resp_request_cstr(&requests, 2, "HGETALL", "h");
    resp_request_cstr(&requests, 3, "ZSCORE", "z", "a");
    resp_request_cstr(&requests, 2, "SMEMBERS", "s");
    resp_request_cstr(&requests, 1, "EXEC");
    translate_transaction(buf_bytes(&requests), BYTES("*3\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\n7\r\n-ERR x\r\n"), &out);
    buf_append_char(&out, '\0');
    assert_string_equal(out.p, "*3\r\n%1\r\n$1\r\na\r\n$1\r\n1\r\n,7\r\n-ERR x\r\n");
    out.n = 0;
    translate_transaction(buf_bytes(&requests), BYTES("*-1\r\n"), &out);
    translate_transaction(buf_bytes(&requests), BYTES("-EXECABORT x\r\n"), &out);
    buf_append_char(&out, '\0');
    assert_string_equal(out.p, "_\r\n-EXECABORT x\r\n");
    out.n = 0;
    translate_message(BYTES("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$-1\r\n"), &out);
    buf_append_char(&out, '\0');
    assert_string_equal(out.p, ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n_\r\n");
    buf_deinit(&out);
    buf_deinit(&requests);
}

/* Whatever a node says within the grammar, nothing is read or written beyond it. */
static void cut_short(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        struct resp_request req = {0};
        assert_int_equal(resp_split_line(bytes_of(vectors[i].request), &req), OK);
        const struct command *cmd = command_of_request(req.argv, req.argc, NULL);
        size_t n = strlen(vectors[i].in);
        for (size_t k = 0; k < n; k++) {
            struct buf out = {0};
            char *part = mem_alloc(k ? k : 1);
            memcpy(part, vectors[i].in, k);
            translate_reply(cmd, req.argv, req.argc, bytes_make(part, k), &out);
            buf_deinit(&out);
            mem_free(part);
        }
        resp_request_deinit(&req);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_command),
        cmocka_unit_test(transactions),
        cmocka_unit_test(cut_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
