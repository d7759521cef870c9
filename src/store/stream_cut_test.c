/* Streams while they are being saved: a cut shows each as it was when the cut was made, whatever writers do to its
 * entries, groups and pending entries meanwhile, on this thread and on another one.  SEED replays one seed. */
#include "store/store.h"
#include "store/stream.h"

#include "base/mem.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { STREAMS = 8, STEPS = 6000, GROUPS = 2, CONSUMERS = 3 };

static struct key key_at(unsigned i, char text[32])
{
    return key_of(bytes_make(text, (size_t)snprintf(text, 32, i % 2 ? "{tag}%u" : "stream:%u", i)));
}

static struct bytes name_at(unsigned i, char text[32])
{
    return bytes_make(text, (size_t)snprintf(text, 32, "name:%u", i));
}

static uint64_t mix(uint64_t sum, uint64_t v)
{
    return (sum ^ v) * 0x9e3779b97f4a7c15u + (sum >> 29);
}

static uint64_t mix_bytes(uint64_t sum, struct bytes b)
{
    return mix(sum, hash_bytes(b));
}

static uint64_t group_sum(uint64_t sum, const struct stream_group *g)
{
    struct tree_pos pos, at;
    sum = mix(mix(sum, g->last_id.ms), (uint64_t)g->entries_read);
    for (bool more = tree_at(&g->pending, 0, &pos); more; more = tree_next(&pos)) {
        struct stream_pending p;
        stream_pending_at(g, &pos, &p);
        sum = mix(mix(sum, stream_pending_id(&g->pending, &pos).ms), p.count);
        sum = mix_bytes(mix(sum, (uint64_t)p.delivered_ms), tree_box_key(p.consumer));
    }
    for (bool more = tree_at(&g->consumers, 0, &pos); more; more = tree_next(&pos)) {
        const struct stream_consumer *c = stream_consumer_at(g, &pos);
        sum = mix(mix_bytes(sum, tree_box_key(c->name)), (uint64_t)c->seen_ms);
        for (bool has = tree_at(&c->pending, 0, &at); has; has = tree_next(&at))
            sum = mix(sum, stream_pending_id(&c->pending, &at).ms);
    }
    return sum;
}

/* Everything a reader could see of a stream, in one number. */
static uint64_t stream_sum(const struct stream *s)
{
    struct stream_iter it;
    struct stream_id id;
    struct element field, value;
    struct tree_pos pos;
    size_t fields;
    uint64_t sum = mix(mix(1, s->length), s->last_id.ms), n = 0;
    stream_iter_init(&it, s, STREAM_ID_MIN, STREAM_ID_MAX, false);
    for (; stream_iter_next(&it, &id, &fields); n++) {
        sum = mix(sum, id.ms);
        while (fields--) {
            stream_iter_field(&it, &field, &value);
            sum = mix_bytes(mix_bytes(sum, field.text), value.text);
        }
    }
    assert_int_equal(n, s->length);
    for (bool more = s->groups && tree_at(s->groups, 0, &pos); more; more = tree_next(&pos)) {
        struct bytes name;
        const struct stream_group *g = stream_group_at(s, &pos, &name);
        sum = group_sum(mix_bytes(sum, name), g);
    }
    return sum;
}

/* ---- one thread ---------------------------------------------------------------------------------------------------*/

struct open_cut {
    struct cut *cut;
    uint64_t want[STREAMS]; /* 0: no such key */
    unsigned seen[STREAMS];
};

static unsigned index_of(struct bytes key)
{
    char text[32];
    for (unsigned i = 0; i < STREAMS; i++)
        if (bytes_eq(key_at(i, text).name, key)) return i;
    fail();
    return 0;
}

static enum status visit(void *ctx, int db, struct entry *e)
{
    struct open_cut *o = ctx;
    unsigned i = index_of(entry_key(e));
    (void)db;
    assert_int_equal(++o->seen[i], 1);
    assert_true(stream_sum(stream_of(e)) == o->want[i]);
    return OK;
}

static void cut_open(struct store *s, struct open_cut *o)
{
    *o = (struct open_cut){.cut = store_cut_begin(s)};
    assert_non_null(o->cut);
    for (unsigned i = 0; i < STREAMS; i++) {
        char text[32];
        struct key k = key_at(i, text);
        struct entry *e = store_find(s, 0, &k);
        o->want[i] = e ? stream_sum(stream_of(e)) : 0;
    }
}

static void cut_close(struct open_cut *o)
{
    store_cut_end(o->cut);
    o->cut = NULL;
    for (unsigned i = 0; i < STREAMS; i++) assert_int_equal(o->seen[i], o->want[i] != 0);
}

static void append(struct stream *s, struct random *r, uint32_t step)
{
    char digits[16];
    struct bytes pair[] = {BYTES("step"), bytes_make(digits, (size_t)snprintf(digits, sizeof digits, "%u", step))};
    struct stream_id id = {s->last_id.ms + 1 + random_below(r, 3), random_below(r, 5)};
    assert_int_equal(stream_append(s, id, pair, 1, &store_limits_default), OK);
}

static void change_group(struct stream *s, struct random *r, uint32_t step)
{
    char text[32];
    struct bytes name = name_at((unsigned)random_below(r, GROUPS), text);
    struct stream_group *g = stream_group_edit(s, name);
    if (!g) {
        assert_non_null(stream_group_create(s, name, s->last_id, 0));
        return;
    }
    name = name_at((unsigned)random_below(r, CONSUMERS), text);
    struct stream_consumer *c = stream_consumer_edit(g, name);
    if (!c) c = stream_consumer_create(g, name, step);
    c->seen_ms = step;
    g->entries_read++;
    for (int n = 0; n < 30; n++) {
        struct stream_id id = {1 + random_below(r, s->last_id.ms + 1), 0};
        if (random_below(r, 3))
            stream_pending_put(g, id, c, step, random_below(r, 4));
        else
            stream_pending_remove(g, id);
    }
    uint64_t had;
    if (random_below(r, 100) == 0) stream_consumer_delete(g, name, &had);
}

static void change(struct store *s, struct random *r, uint32_t step)
{
    char text[32];
    struct key k = key_at((unsigned)random_below(r, STREAMS), text);
    slot_lock(s, k.slot);
    struct entry *e = store_edit(s, 0, &k);
    if (!e) {
        store_put(s, 0, &k, stream_entry_new(k.name));
        e = store_edit(s, 0, &k);
    }
    struct stream *stream = stream_of(e);
    struct stream_id first;
    switch (random_below(r, 10)) {
    case 0:
        if (stream_first(stream, &first)) stream_delete(stream, first);
        stream_update_first(stream);
        break;
    case 1: stream_trim(stream, &(struct stream_trim){.max_length = 50 + random_below(r, 1000)}); break;
    case 2:
        if (random_below(r, 40) == 0) store_delete(s, 0, &k);
        break;
    case 3:
    case 4: change_group(stream, r, step); break;
    default:
        for (int n = 0; n < 20; n++) append(stream, r, step);
    }
    slot_unlock(s, k.slot);
}

static void run_seed(uint64_t seed)
{
    struct random r;
    struct open_cut cuts[CUTS_MAX] = {{NULL, {0}, {0}}};
    random_seed(&r, seed);
    struct store *s = store_create(1, (struct store_hooks){0});
    for (uint32_t step = 1; step <= STEPS; step++) {
        change(s, &r, step);
        struct open_cut *o = &cuts[random_below(&r, CUTS_MAX)];
        if (!o->cut && random_below(&r, 50) == 0)
            cut_open(s, o);
        else if (o->cut && random_below(&r, 8) == 0 && store_cut_step(o->cut, 1, visit, o) == OK)
            cut_close(o);
    }
    for (int i = 0; i < CUTS_MAX; i++) {
        if (!cuts[i].cut) continue;
        while (store_cut_step(cuts[i].cut, 100, visit, &cuts[i]) == E_AGAIN) {
        }
        cut_close(&cuts[i]);
    }
    assert_int_equal(store_retained_bytes(s), 0);
    store_destroy(s);
}

static void cuts_show_streams_as_they_were(void **state)
{
    (void)state;
    size_t before = mem_used();
    const char *replay = getenv("SEED");
    for (uint64_t seed = 1; seed <= (replay ? 1 : 10); seed++) {
        uint64_t one = replay ? strtoull(replay, NULL, 10) : seed;
        print_message("seed %llu\n", (unsigned long long)one);
        run_seed(one);
    }
    assert_int_equal(mem_used(), before);
}

/* ---- a writer on another thread -----------------------------------------------------------------------------------*/

/* Two streams always get the same entry, which is pending in both, before a cut may begin. */
struct race {
    struct store *s;
    _Atomic bool stop;
    pthread_mutex_t rest;
};

static void race_write(struct store *s, unsigned i, uint32_t step)
{
    char text[32], digits[16];
    struct key k = key_at(i, text);
    struct bytes pair[] = {BYTES("f"), bytes_make(digits, (size_t)snprintf(digits, sizeof digits, "%u", step))};
    struct stream_id id = {step, 0};
    slot_lock(s, k.slot);
    struct entry *e = store_edit(s, 0, &k);
    struct stream *stream = stream_of(e);
    assert_int_equal(stream_append(stream, id, pair, 1, &store_limits_default), OK);
    struct stream_group *g = stream_group_edit(stream, BYTES("g"));
    stream_pending_put(g, id, stream_consumer_edit(g, BYTES("c")), step, 1);
    if (step > 3000) {
        stream_pending_remove(g, (struct stream_id){step - 3000, 0});
        stream_trim(stream, &(struct stream_trim){.max_length = 3000});
    }
    if (step % 7 == 0) stream_delete(stream, id);
    slot_unlock(s, k.slot);
}

static void *race_writer(void *arg)
{
    struct race *x = arg;
    for (uint32_t step = 1; !atomic_load(&x->stop); step++) {
        pthread_mutex_lock(&x->rest);
        race_write(x->s, 0, step);
        race_write(x->s, 1, step);
        pthread_mutex_unlock(&x->rest);
    }
    return NULL;
}

static enum status collect(void *ctx, int db, struct entry *e)
{
    uint64_t *sums = ctx;
    (void)db;
    sums[index_of(entry_key(e))] = stream_sum(stream_of(e));
    return OK;
}

static void a_writer_never_tears_a_stream(void **state)
{
    (void)state;
    struct race x = {.s = store_create(1, (struct store_hooks){0})};
    pthread_mutex_init(&x.rest, NULL);
    for (unsigned i = 0; i < 2; i++) {
        char text[32];
        struct key k = key_at(i, text);
        struct entry *e = stream_entry_new(k.name);
        struct stream_group *g = stream_group_create(stream_of(e), BYTES("g"), STREAM_ID_MIN, 0);
        assert_non_null(stream_consumer_create(g, BYTES("c"), 0));
        store_put(x.s, 0, &k, e);
    }
    pthread_t t;
    pthread_create(&t, NULL, race_writer, &x);
    for (int round = 0; round < 60; round++) {
        uint64_t sums[STREAMS] = {0};
        pthread_mutex_lock(&x.rest);
        struct cut *c = store_cut_begin(x.s);
        pthread_mutex_unlock(&x.rest);
        while (store_cut_step(c, 100, collect, sums) == E_AGAIN) {
        }
        store_cut_end(c);
        assert_true(sums[0] != 0 && sums[0] == sums[1]);
    }
    atomic_store(&x.stop, true);
    pthread_join(t, NULL);
    assert_int_equal(store_retained_bytes(x.s), 0);
    store_destroy(x.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_show_streams_as_they_were),
        cmocka_unit_test(a_writer_never_tears_a_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
