/* latency.c: LATENCY, and the percentiles in INFO. */
#include "server/latency.h"

#include "base/clock.h"
#include "base/histogram.h"
#include "base/mem.h"
#include "base/number.h"
#include "observe/durations.h"

#include <math.h>
#include <stdio.h>

enum { SAMPLES = 160, EVENTS_MAX = 16, GRAPH_WIDTH = 80, GRAPH_ROWS = 4, PERCENTILES_MAX = 16 };

struct latency_sample {
    int64_t at_s, ms;
};

/* The last samples of one event, at most one a second. */
struct latency_event {
    const char *name;
    struct latency_sample samples[SAMPLES];
    size_t n, next; /* next: where the next one goes */
    int64_t max;
};

struct latency {
    pthread_mutex_t mu; /* for everything below; a leaf */
    struct latency_event events[EVENTS_MAX];
    size_t event_count;
};

void latency_init(struct node *n)
{
    n->latency = mem_calloc(1, sizeof *n->latency);
    pthread_mutex_init(&n->latency->mu, NULL);
}

/* ---- histograms ---- */

void latency_track(struct worker *w, const struct command *cmd, uint64_t ns)
{
    if (!config_bool(w->node->config, CFG_LATENCY_TRACKING)) return;
    struct histogram *h = atomic_load_explicit(&w->latency[cmd->id], memory_order_relaxed);
    if (!h) {
        h = mem_calloc(1, sizeof *h);
        atomic_store_explicit(&w->latency[cmd->id], h, memory_order_release);
    }
    histogram_add(h, ns);
}

/* Over the workers; false: never called. */
static bool sum_of(void *node, enum command_id id, struct histogram *out)
{
    const struct node *n = node;
    histogram_clear(out);
    for (int i = 0; i < n->worker_count; i++) {
        const struct histogram *h = atomic_load_explicit(&n->workers[i]->latency[id], memory_order_acquire);
        if (h) histogram_merge(out, h);
    }
    return atomic_load_explicit(&out->total, memory_order_relaxed) > 0;
}

void latency_reset_histograms(struct node *n)
{
    for (int i = 0; i < n->worker_count; i++)
        for (unsigned id = 0; id < CMD_ID_COUNT; id++) {
            struct histogram *h = atomic_load_explicit(&n->workers[i]->latency[id], memory_order_acquire);
            if (h) histogram_clear(h);
        }
}

static size_t percentiles_of(const struct node *n, double out[PERCENTILES_MAX])
{
    struct buf text = {0};
    config_text(n->config, CFG_LATENCY_TRACKING_INFO_PERCENTILES, &text);
    size_t count = 0;
    for (size_t at = 0; at < text.n && count < PERCENTILES_MAX;) {
        size_t end = at;
        while (end < text.n && text.p[end] != ' ') end++;
        if (parse_double(bytes_make(text.p + at, end - at), &out[count])) count++;
        at = end + 1;
    }
    buf_deinit(&text);
    return count;
}

void latency_info(struct node *n, struct buf *b)
{
    double percentiles[PERCENTILES_MAX];
    size_t count = percentiles_of(n, percentiles);
    struct histogram *h = mem_alloc(sizeof *h);
    for (enum command_id id = 0; id < CMD_ID_COUNT; id++) {
        if (!sum_of(n, id, h)) continue;
        buf_printf(b, "latency_percentiles_usec_%s:", command_by_id(id)->name);
        for (size_t i = 0; i < count; i++)
            buf_printf(b, "%sp%.10g=%.3f", i ? "," : "", percentiles[i],
                       (double)histogram_percentile(h, percentiles[i]) / 1000);
        buf_append_cstr(b, "\r\n");
    }
    mem_free(h);
}

void cmd_latency_histogram(struct call *c)
{
    const struct durations d = {sum_of, call_conn(c)->worker->node, 1000};
    durations_reply(&c->out, &d, c->argv + 2, c->argc - 2);
}

/* ---- events ---- */

static struct latency *latency_of(const struct call *c)
{
    return call_conn(c)->worker->node->latency;
}

static struct latency_event *event_named(struct latency *l, struct bytes name)
{
    for (size_t i = 0; i < l->event_count; i++)
        if (bytes_eq(bytes_of(l->events[i].name), name)) return &l->events[i];
    return NULL;
}

static void add_sample(struct latency *l, const char *name, int64_t ms)
{
    struct latency_event *ev = event_named(l, bytes_of(name));
    if (!ev) {
        if (l->event_count == EVENTS_MAX) return;
        ev = &l->events[l->event_count++];
        ev->name = name;
    }
    int64_t now_s = clock_wall_ms() / 1000;
    if (ms > ev->max) ev->max = ms;
    struct latency_sample *last = ev->n ? &ev->samples[(ev->next + SAMPLES - 1) % SAMPLES] : NULL;
    if (last && last->at_s == now_s) {
        if (ms > last->ms) last->ms = ms;
        return;
    }
    ev->samples[ev->next] = (struct latency_sample){now_s, ms};
    ev->next = (ev->next + 1) % SAMPLES;
    if (ev->n < SAMPLES) ev->n++;
}

void latency_note(struct node *n, const char *event, uint64_t us)
{
    int64_t threshold = config_num(n->config, CFG_LATENCY_MONITOR_THRESHOLD);
    if (threshold <= 0 || us / 1000 < (uint64_t)threshold) return;
    pthread_mutex_lock(&n->latency->mu);
    add_sample(n->latency, event, (int64_t)(us / 1000));
    pthread_mutex_unlock(&n->latency->mu);
}

/* The i-th sample, oldest first. */
static const struct latency_sample *sample_at(const struct latency_event *ev, size_t i)
{
    return &ev->samples[(ev->next + SAMPLES - ev->n + i) % SAMPLES];
}

void cmd_latency_latest(struct call *c)
{
    struct latency *l = latency_of(c);
    size_t mark = resp_defer(&c->out), n = 0;
    pthread_mutex_lock(&l->mu);
    for (size_t i = 0; i < l->event_count; i++) {
        const struct latency_event *ev = &l->events[i];
        if (ev->n == 0) continue;
        const struct latency_sample *last = sample_at(ev, ev->n - 1);
        resp_array(&c->out, 4);
        resp_bulk_cstr(&c->out, ev->name);
        resp_i64(&c->out, last->at_s);
        resp_i64(&c->out, last->ms);
        resp_i64(&c->out, ev->max);
        n++;
    }
    pthread_mutex_unlock(&l->mu);
    resp_defer_array(&c->out, mark, n);
}

void cmd_latency_history(struct call *c)
{
    struct latency *l = latency_of(c);
    size_t mark = resp_defer(&c->out), n = 0;
    pthread_mutex_lock(&l->mu);
    const struct latency_event *ev = event_named(l, c->argv[2]);
    for (; ev && n < ev->n; n++) {
        resp_array(&c->out, 2);
        resp_i64(&c->out, sample_at(ev, n)->at_s);
        resp_i64(&c->out, sample_at(ev, n)->ms);
    }
    pthread_mutex_unlock(&l->mu);
    resp_defer_array(&c->out, mark, n);
}

void cmd_latency_reset(struct call *c)
{
    struct latency *l = latency_of(c);
    int64_t forgotten = 0;
    pthread_mutex_lock(&l->mu);
    for (size_t i = 0; i < l->event_count; i++) {
        struct latency_event *ev = &l->events[i];
        bool named = c->argc == 2;
        for (size_t k = 2; k < c->argc; k++) named |= bytes_eq(c->argv[k], bytes_of(ev->name));
        if (!named || ev->n == 0) continue;
        ev->n = ev->next = 0;
        ev->max = 0;
        forgotten++;
    }
    pthread_mutex_unlock(&l->mu);
    resp_i64(&c->out, forgotten);
}

/* ---- GRAPH ---- */

static void append_age(char out[8], int64_t s)
{
    const struct {
        int64_t seconds;
        char unit;
    } units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (s < units[i].seconds && units[i].seconds > 1) continue;
        snprintf(out, 8, "%lld%c", (long long)(s / units[i].seconds), units[i].unit);
        return;
    }
}

/* One column a sample, drawn from below with "_", "o" and "#" and filled with "|"; its age reads downwards. */
static void draw(struct buf *b, const struct latency_event *ev)
{
    size_t columns = ev->n < GRAPH_WIDTH ? ev->n : GRAPH_WIDTH, first = ev->n - columns;
    int64_t low = INT64_MAX, high = 0, now_s = clock_wall_ms() / 1000;
    for (size_t i = first; i < ev->n; i++) {
        int64_t ms = sample_at(ev, i)->ms;
        if (ms < low) low = ms;
        if (ms > high) high = ms;
    }
    buf_printf(b, "%s - high %lld ms, low %lld ms (all time high %lld ms)\n", ev->name, (long long)high, (long long)low,
               (long long)ev->max);
    for (int i = 0; i < GRAPH_WIDTH; i++) buf_append_char(b, '-');
    buf_append_char(b, '\n');
    enum { STEPS = 3 };
    for (int row = GRAPH_ROWS - 1; row >= 0; row--) {
        for (size_t i = first; i < ev->n; i++) {
            double share = high > low ? (double)(sample_at(ev, i)->ms - low) / (double)(high - low) : 0;
            int step = (int)(share * (GRAPH_ROWS * STEPS - 1)), here = step - row * STEPS;
            buf_append_char(b, here < 0 ? ' ' : here < STEPS ? "_o#"[here] : '|');
        }
        buf_append_char(b, '\n');
    }
    buf_append_char(b, '\n');
    char ages[GRAPH_WIDTH][8];
    size_t longest = 0;
    for (size_t i = 0; i < columns; i++) {
        append_age(ages[i], now_s - sample_at(ev, first + i)->at_s);
        if (strlen(ages[i]) > longest) longest = strlen(ages[i]);
    }
    for (size_t row = 0; row < longest; row++) {
        for (size_t i = 0; i < columns; i++) buf_append_char(b, row < strlen(ages[i]) ? ages[i][row] : ' ');
        buf_append_char(b, '\n');
    }
}

void cmd_latency_graph(struct call *c)
{
    struct latency *l = latency_of(c);
    struct buf b = {0};
    pthread_mutex_lock(&l->mu);
    const struct latency_event *ev = event_named(l, c->argv[2]);
    if (ev && ev->n) draw(&b, ev);
    pthread_mutex_unlock(&l->mu);
    if (b.n)
        resp_verbatim(&c->out, "txt", buf_bytes(&b));
    else
        resp_errorf(&c->out, "ERR No samples available for event '%.*s'", (int)c->argv[2].n, c->argv[2].p);
    buf_deinit(&b);
}

/* ---- DOCTOR ---- */

static void describe(struct buf *b, const struct latency_event *ev, int number)
{
    double sum = 0, deviation = 0;
    for (size_t i = 0; i < ev->n; i++) sum += (double)sample_at(ev, i)->ms;
    double mean = sum / (double)ev->n;
    for (size_t i = 0; i < ev->n; i++) deviation += fabs((double)sample_at(ev, i)->ms - mean);
    double seconds = (double)(sample_at(ev, ev->n - 1)->at_s - sample_at(ev, 0)->at_s);
    buf_printf(b,
               "%d. %s: %zu latency spikes (average %.0fms, mean deviation %.0fms, period %.2f sec). Worst all time "
               "event %lldms.\n",
               number, ev->name, ev->n, mean, deviation / (double)ev->n, ev->n > 1 ? seconds / (double)(ev->n - 1) : 0,
               (long long)ev->max);
}

static void advise(struct buf *b, const struct node *n, struct latency *l)
{
    int64_t threshold = config_num(n->config, CFG_LATENCY_MONITOR_THRESHOLD);
    int64_t slower_than = config_num(n->config, CFG_SLOWLOG_LOG_SLOWER_THAN);
    bool command = false, expiry = false, eviction = false;
    for (size_t i = 0; i < l->event_count; i++) {
        if (l->events[i].n == 0) continue;
        command |= strstr(l->events[i].name, "command") != NULL;
        expiry |= strncmp(l->events[i].name, "expire", 6) == 0;
        eviction |= strncmp(l->events[i].name, "eviction", 8) == 0;
    }
    buf_append_cstr(b, "\nWhat may help:\n\n");
    if (command && (slower_than < 0 || slower_than > threshold * 1000))
        buf_printf(b,
                   "- The slow log leaves out commands that the latency monitor counts. CONFIG SET "
                   "slowlog-log-slower-than %lld "
                   "shows them.\n",
                   (long long)threshold * 1000);
    if (command) buf_append_cstr(b, "- SLOWLOG GET lists the commands that took long, with their arguments.\n");
    if (command)
        buf_append_cstr(b, "- A command that reads or writes a whole large collection takes as long as that is large; "
                           "the SCAN family, "
                           "UNLINK and smaller keys avoid it.\n");
    if (expiry)
        buf_append_cstr(b,
                        "- Many keys run out at the same time. A little randomness in their TTLs spreads the work.\n");
    if (eviction)
        buf_append_cstr(b, "- Memory is full and is being made free under load. maxmemory, the policy, or "
                           "lazyfree-lazy-eviction may be "
                           "worth another look.\n");
}

void cmd_latency_doctor(struct call *c)
{
    const struct node *n = call_conn(c)->worker->node;
    struct latency *l = n->latency;
    struct buf b = {0};
    int found = 0;
    pthread_mutex_lock(&l->mu);
    for (size_t i = 0; i < l->event_count; i++)
        if (l->events[i].n) {
            if (!found) buf_append_cstr(&b, "Latency spikes were observed:\n\n");
            describe(&b, &l->events[i], ++found);
        }
    if (found)
        advise(&b, n, l);
    else if (config_num(n->config, CFG_LATENCY_MONITOR_THRESHOLD) <= 0)
        buf_append_cstr(
            &b, "The latency monitor is off. CONFIG SET latency-monitor-threshold <milliseconds> turns it on.\n");
    else
        buf_append_cstr(&b, "No latency spike was observed since the latency monitor was turned on or reset.\n");
    pthread_mutex_unlock(&l->mu);
    resp_verbatim(&c->out, "txt", buf_bytes(&b));
    buf_deinit(&b);
}

void cmd_latency_help(struct call *c)
{
    static const char *const lines[] = {
        "DOCTOR",
        "    Return a human readable latency analysis report.",
        "GRAPH <event>",
        "    Return an ASCII latency graph for the <event> class.",
        "HISTORY <event>",
        "    Return time-latency samples for the <event> class.",
        "LATEST",
        "    Return the latest latency samples for all events.",
        "RESET [<event> ...]",
        "    Reset latency data of one or more <event> classes.",
        "    (default: reset all data for all event classes)",
        "HISTOGRAM [COMMAND ...]",
        ("    Return a cumulative distribution of latencies in the format of a histogram for the specified command "
         "names."),
        "    If no commands are specified then all histograms are replied.",
    };
    call_help(c, "LATENCY", lines, sizeof lines / sizeof *lines);
}
