/* What a C program does with a Redis, through hiredis.  usage: uses PORT
 * Prints one line for each use that works; a wrong answer ends it with status 1. */
#include <hiredis/hiredis.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static redisContext *r;

static void fail(const char *what, const redisReply *got)
{
    fprintf(stderr, "%s: got type %d '%s' %lld (%s)\n", what, got ? got->type : 0, got && got->str ? got->str : "",
            got ? got->integer : 0, r->errstr);
    exit(1);
}

static redisReply *ask(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    redisReply *reply = redisvCommand(r, fmt, ap);
    va_end(ap);
    if (!reply || reply->type == REDIS_REPLY_ERROR) fail(fmt, reply);
    return reply;
}

static void expect_text(const char *wanted, redisReply *got)
{
    if (!got->str || strcmp(got->str, wanted) != 0) fail(wanted, got);
    freeReplyObject(got);
}

static void expect_number(long long wanted, redisReply *got)
{
    if (got->type != REDIS_REPLY_INTEGER || got->integer != wanted) fail("number", got);
    freeReplyObject(got);
}

static void session(void)
{
    expect_text("OK", ask("SET c:session %s EX 60", "user 7"));
    expect_text("user 7", ask("GET c:session"));
    expect_number(2, ask("HSET c:profile name %b visits 1", "A\0n", (size_t)3));
    redisReply *got = ask("HGET c:profile name");
    if (got->len != 3 || memcmp(got->str, "A\0n", 3) != 0) fail("binary value", got);
    freeReplyObject(got);
}

static void transaction(void)
{
    expect_text("OK", ask("MULTI"));
    expect_text("QUEUED", ask("INCR c:n"));
    expect_text("QUEUED", ask("EXPIRE c:n 10"));
    redisReply *got = ask("EXEC");
    if (got->elements != 2 || got->element[0]->integer != 1 || got->element[1]->integer != 1) fail("EXEC", got);
    freeReplyObject(got);
}

static void script(void)
{
    redisReply *got =
        ask("EVAL %s 1 c:s 41", "return {redis.call('INCRBY', KEYS[1], ARGV[1]), 'x', false, {ok='fine'}}");
    if (got->elements != 4 || got->element[0]->integer != 41 || strcmp(got->element[1]->str, "x") != 0 ||
        got->element[2]->type != REDIS_REPLY_NIL || strcmp(got->element[3]->str, "fine") != 0)
        fail("EVAL", got);
    freeReplyObject(got);
}

static void pipeline(void)
{
    enum { N = 10000 };
    for (int i = 0; i < N; i++) redisAppendCommand(r, "INCRBY c:sum %d", i);
    long long sum = 0;
    for (int i = 0; i < N; i++) {
        redisReply *got = NULL;
        sum += i;
        if (redisGetReply(r, (void **)&got) != REDIS_OK) fail("pipeline", got);
        expect_number(sum, got);
    }
}

static void queue(void)
{
    expect_number(1, ask("RPUSH c:queue job"));
    redisReply *got = ask("BLPOP c:queue 2");
    if (got->elements != 2 || strcmp(got->element[1]->str, "job") != 0) fail("BLPOP", got);
    freeReplyObject(got);
}

static void stream(void)
{
    expect_text("5-1", ask("XADD c:stream 5-1 event login"));
    redisReply *got = ask("XRANGE c:stream - +");
    if (got->elements != 1 || strcmp(got->element[0]->element[1]->element[1]->str, "login") != 0) fail("XRANGE", got);
    freeReplyObject(got);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } uses[] = {{"session", session}, {"transaction", transaction},
                {"script", script},   {"pipeline", pipeline},
                {"queue", queue},     {"stream", stream}};
    if (argc < 2) return 2;
    r = redisConnectWithTimeout("127.0.0.1", atoi(argv[1]), (struct timeval){5, 0});
    if (!r || r->err) return 1;
    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++) {
        uses[i].run();
        printf("ok %s\n", uses[i].name);
    }
    redisFree(r);
    return 0;
}
