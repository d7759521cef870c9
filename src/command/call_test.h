/* call_test.h: what the tests of handlers share: a dataset, an environment and one function that runs a command line as
 * the server would: keys located, slots locked, again with everything at rest when the handler asks for that.
 * The handler is passed in, so that a test links only what it tests.
 *
 *   struct harness h;
 *   harness_init(&h);
 *   assert_string_equal(run(&h, cmd_set, "SET k 'two words' EX 10"), "+OK\r\n");
 *   assert_string_equal(h.effects, "SET k 'two words' PXAT 1000010000");
 *   harness_deinit(&h);
 *
 * For tests only.  One thread. */
#ifndef COVEY_COMMAND_CALL_TEST_H
#define COVEY_COMMAND_CALL_TEST_H

#include "base/mem.h"
#include "base/unit_test.h"
#include "command/call.h"

#include <stdio.h>

enum { HARNESS_NOW = 1000000000, HARNESS_LRU = 1000 };

struct harness {
    /* To be changed by a test between runs. */
    struct call_options options;
    int db;
    unsigned flags;      /* CALL_... */
    uint8_t version;     /* of RESP */
    int64_t now_ms;      /* starts at HARNESS_NOW */
    uint32_t lru_clock;  /* starts at HARNESS_LRU */
    uint32_t served_arg; /* run for a client that sleeps */
    struct call_env env;

    /* Results of the last run. */
    const char *reply;   /* as it goes to the client, and a NUL */
    size_t reply_length; /* without the NUL */
    const char *effects; /* "DEL a; SET b 'x y'": what replicas repeat; arguments that are no plain words quoted */
    const char *events;  /* "set k; expire k": what changed() was told, in order */
    uint64_t dirty;
    bool exclusive; /* the handler asked for the server at rest */
    bool waits;     /* it wants its client to sleep, as in `wait` without the arguments, and did not reply */
    struct call_wait wait;
    const char *kept; /* the arguments that are kept for then, as one line */
    unsigned flushes; /* calls of flushed() since the beginning */
    int flushed_db;   /* argument of the last one */

    /* private */
    struct store *store;
    struct call_stats stats;
    struct random rng;
    struct buf reply_buf, effects_raw, effects_buf, events_buf, kept_buf;
};

static inline void harness_changed(void *ctx, int db, const struct key *k, enum notify_class cls, const char *event)
{
    struct harness *h = ctx;
    (void)db, (void)cls;
    if (h->events_buf.n) buf_append_cstr(&h->events_buf, "; ");
    buf_append_cstr(&h->events_buf, event);
    buf_append_char(&h->events_buf, ' ');
    buf_append_bytes(&h->events_buf, k->name);
}

static inline void harness_flushed(void *ctx, int db, int replaced_by)
{
    struct harness *h = ctx;
    (void)replaced_by;
    h->flushes++;
    h->flushed_db = db;
}

static inline void harness_init(struct harness *h)
{
    *h = (struct harness){.version = 2, .now_ms = HARNESS_NOW, .lru_clock = HARNESS_LRU};
    h->options = (struct call_options){
        .limits = store_limits_default, .proto_max_bulk_len = RESP_BULK_MAX_DEFAULT, .hll_sparse_max_bytes = 3000};
    h->store = store_create(16, (struct store_hooks){0});
    random_seed(&h->rng, 1);
    h->env = (struct call_env){.store = h->store,
                               .options = &h->options,
                               .stats = &h->stats,
                               .rng = &h->rng,
                               .ctx = h,
                               .changed = harness_changed,
                               .flushed = harness_flushed};
}

static inline void harness_deinit(struct harness *h)
{
    store_destroy(h->store);
    buf_deinit(&h->reply_buf);
    buf_deinit(&h->effects_raw);
    buf_deinit(&h->effects_buf);
    buf_deinit(&h->events_buf);
    buf_deinit(&h->kept_buf);
}

/* Locks or unlocks the slots of the keys, each once. */
static inline void harness_slots(struct harness *h, const struct bytes *argv, const struct command_key *keys, size_t n,
                                 bool lock)
{
    for (size_t i = 0; i < n; i++) {
        unsigned slot = key_slot(argv[keys[i].index]);
        bool again = false;
        for (size_t j = 0; j < i && !again; j++) again = key_slot(argv[keys[j].index]) == slot;
        if (again) continue;
        if (lock)
            assert_true(slot_try_lock(h->store, slot));
        else
            slot_unlock(h->store, slot);
    }
}

static inline void harness_quote(struct buf *out, struct bytes arg)
{
    bool plain = arg.n > 0;
    for (size_t i = 0; i < arg.n; i++)
        if ((unsigned char)arg.p[i] <= ' ' || (unsigned char)arg.p[i] >= 127 || strchr("'\";\\", arg.p[i]))
            plain = false;
    if (plain) {
        buf_append_bytes(out, arg);
        return;
    }
    buf_append_char(out, '\'');
    for (size_t i = 0; i < arg.n; i++) {
        unsigned char c = (unsigned char)arg.p[i];
        if (c < ' ' || c >= 127 || c == '\'' || c == '\\')
            buf_printf(out, "\\x%02x", c);
        else
            buf_append_char(out, (char)c);
    }
    buf_append_char(out, '\'');
}

/* The encoded effects as one line of text. */
static inline void harness_decode_effects(struct harness *h, unsigned count)
{
    struct resp_parser parser;
    struct resp_request request = {0};
    resp_parser_init(&parser, RESP_BULK_MAX_DEFAULT);
    unsigned seen = 0;
    for (size_t at = 0; at < h->effects_raw.n; at += request.size, seen++) {
        struct bytes rest = bytes_make(h->effects_raw.p + at, h->effects_raw.n - at);
        assert_int_equal(resp_parse_request(&parser, rest, &request), OK);
        if (at) buf_append_cstr(&h->effects_buf, "; ");
        for (size_t i = 0; i < request.argc; i++) {
            if (i) buf_append_char(&h->effects_buf, ' ');
            harness_quote(&h->effects_buf, request.argv[i]);
        }
    }
    assert_int_equal(seen, count);
    resp_request_deinit(&request);
    resp_parser_deinit(&parser);
}

static inline void harness_take_wait(struct harness *h, struct call *c)
{
    h->waits = c->wait != NULL;
    h->kept_buf.n = 0;
    if (!h->waits) return;
    h->wait = *c->wait;
    for (size_t i = 0; c->wait->kept && i < c->argc; i++) {
        if (i) buf_append_char(&h->kept_buf, ' ');
        harness_quote(&h->kept_buf, c->wait->kept[i]);
    }
    buf_append_char(&h->kept_buf, '\0');
    h->kept = h->kept_buf.p;
    h->wait.kept = NULL;
    call_wait_free(c->wait);
}

static inline void harness_once(struct harness *h, const struct command *cmd, command_handler *handler,
                                const struct bytes *argv, size_t argc, unsigned flags)
{
    h->reply_buf.n = h->effects_raw.n = h->effects_buf.n = h->events_buf.n = 0;
    struct call c = {.env = &h->env,
                     .cmd = cmd,
                     .handler = handler,
                     .argv = argv,
                     .argc = argc,
                     .out = {&h->reply_buf, h->version},
                     .db = h->db,
                     .flags = flags,
                     .now_ms = h->now_ms,
                     .lru_clock = h->lru_clock,
                     .served_arg = h->served_arg,
                     .effects_wanted = true,
                     .effects = &h->effects_raw};
    int n = call_prepare_keys(&c);
    struct command_key *keys = mem_calloc(n > 0 ? (size_t)n : 1, sizeof *keys);
    size_t locked = n > 0 && !(flags & CALL_EXCLUSIVE) ? (size_t)n : 0;
    if (locked) command_keys(cmd, argv, argc, keys, locked);
    harness_slots(h, argv, keys, locked, true);
    call_run(&c);
    harness_slots(h, argv, keys, locked, false);
    mem_free(keys);
    assert_int_equal(c.db, h->db);
    h->exclusive = c.want_exclusive;
    h->dirty = c.dirty;
    if (c.want_exclusive) {
        assert_false(flags & CALL_EXCLUSIVE);
        assert_true(h->reply_buf.n == 0 && h->effects_raw.n == 0 && c.dirty == 0);
        return;
    }
    harness_take_wait(h, &c);
    assert_true((h->reply_buf.n > 0) != h->waits);
    harness_decode_effects(h, c.effect_count);
}

/* Runs a command given as arguments; returns h->reply. */
static inline const char *run_argv(struct harness *h, command_handler *handler, const struct bytes *argv, size_t argc)
{
    const struct command *cmd = command_of_request(argv, argc, NULL);
    assert_non_null(cmd);
    assert_true(command_arity_ok(cmd, argc));
    harness_once(h, cmd, handler, argv, argc, h->flags);
    bool exclusive = h->exclusive;
    if (exclusive) harness_once(h, cmd, handler, argv, argc, h->flags | CALL_EXCLUSIVE);
    h->exclusive = exclusive;
    h->reply_length = h->reply_buf.n;
    buf_append_char(&h->reply_buf, '\0');
    buf_append_char(&h->effects_buf, '\0');
    buf_append_char(&h->events_buf, '\0');
    h->reply = h->reply_buf.p;
    h->effects = h->effects_buf.p;
    h->events = h->events_buf.p;
    return h->reply;
}

/* The same from one line, with the quoting of inline requests. */
static inline const char *run(struct harness *h, command_handler *handler, const char *line)
{
    struct resp_request request = {0};
    assert_int_equal(resp_split_line(bytes_of(line), &request), OK);
    assert_true(request.argc > 0);
    run_argv(h, handler, request.argv, request.argc);
    resp_request_deinit(&request);
    return h->reply;
}

/* One step of a table of expectations: effects and events may be NULL (not looked at). */
struct step {
    command_handler *handler;
    const char *line, *reply, *effects;
};

static inline void run_steps(struct harness *h, const struct step *steps, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        run(h, steps[i].handler, steps[i].line);
        if (strcmp(h->reply, steps[i].reply) != 0 || (steps[i].effects && strcmp(h->effects, steps[i].effects) != 0))
            fail_msg("step %zu: %s\n  replied  %s\n  expected %s\n  effects  %s\n  expected %s", i, steps[i].line,
                     h->reply, steps[i].reply, h->effects, steps[i].effects ? steps[i].effects : "(any)");
    }
}
#define RUN_STEPS(h, steps) run_steps(h, steps, sizeof(steps) / sizeof *(steps))

/* For cmocka_unit_test_setup_teardown(): *state is a struct harness *. */
static inline int harness_start(void **state)
{
    *state = mem_alloc(sizeof(struct harness));
    harness_init(*state);
    return 0;
}

static inline int harness_stop(void **state)
{
    harness_deinit(*state);
    mem_free(*state);
    return 0;
}

#endif
