/* sampler.c: counters turned into rates. */
#include "server/sampler.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/mem.h"

enum { SAMPLES = 16, EVERY_MS = 100 };

enum { COMMANDS, INPUT, OUTPUT, COUNTERS };

struct sampler {
    struct loop_timer timer;
    struct node *node;
    uint64_t last[COUNTERS];
    int64_t last_ms;
    unsigned at;
    _Atomic uint64_t rate[COUNTERS][SAMPLES]; /* a second */
};

static void tick(struct loop_timer *t, int64_t now_ms)
{
    struct sampler *s = container_of(t, struct sampler, timer);
    struct stats_sum sum;
    node_stats_sum(s->node, &sum);
    const uint64_t now[COUNTERS] = {sum.commands, sum.net_in, sum.net_out};
    int64_t took = now_ms - s->last_ms;
    for (int i = 0; i < COUNTERS; i++) {
        /* CONFIG RESETSTAT sets the counters back. */
        uint64_t more = now[i] >= s->last[i] ? now[i] - s->last[i] : 0;
        atomic_store_explicit(&s->rate[i][s->at], took > 0 ? more * 1000 / (uint64_t)took : 0, memory_order_relaxed);
        s->last[i] = now[i];
    }
    s->last_ms = now_ms;
    s->at = (s->at + 1) % SAMPLES;
}

struct sampler *sampler_create(struct node *n)
{
    struct sampler *s = mem_calloc(1, sizeof *s);
    s->node = n;
    s->last_ms = clock_mono_ms();
    s->timer = (struct loop_timer){.every_ms = EVERY_MS, .tick = tick};
    loop_timer_add(n->main_loop, &s->timer);
    return s;
}

static uint64_t average(const struct sampler *s, int counter)
{
    uint64_t sum = 0;
    for (int i = 0; i < SAMPLES; i++) sum += atomic_load_explicit(&s->rate[counter][i], memory_order_relaxed);
    return sum / SAMPLES;
}

void sampler_rates(const struct sampler *s, struct rates *out)
{
    *out = (struct rates){0};
    if (!s) return;
    out->commands = average(s, COMMANDS);
    out->input_kbps = (double)average(s, INPUT) / 1024;
    out->output_kbps = (double)average(s, OUTPUT) / 1024;
}
