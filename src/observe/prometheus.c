#include "observe/prometheus.h"

#include <stdio.h>

static const uint64_t bounds_us[] = {50,    100,    250,    500,    1000,    2500,    5000,    10000,   25000,
                                     50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000};
enum { BOUNDS = sizeof bounds_us / sizeof *bounds_us };

static void append_escaped(struct buf *b, struct bytes text, bool quotes)
{
    for (size_t i = 0; i < text.n; i++) {
        unsigned char ch = (unsigned char)text.p[i];
        if (ch == '\\')
            buf_append_cstr(b, "\\\\");
        else if (ch == '\n')
            buf_append_cstr(b, "\\n");
        else if (ch == '"' && quotes)
            buf_append_cstr(b, "\\\"");
        else
            buf_append_char(b, ch < 0x80 ? (char)ch : '?');
    }
}

void metric_family(struct buf *b, const char *name, enum metric_type type, const char *help)
{
    static const char *const names[] = {
        [METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram"};
    buf_printf(b, "# HELP %s ", name);
    append_escaped(b, bytes_of(help), false);
    buf_printf(b, "\n# TYPE %s %s\n", name, names[type]);
}

/* le: one label more, or NULL. */
static void append_name(struct buf *b, const char *name, const char *suffix, const struct metric_label *labels,
                        size_t n, const char *le)
{
    buf_append_cstr(b, name);
    buf_append_cstr(b, suffix);
    if (n == 0 && !le) return;
    buf_append_char(b, '{');
    for (size_t i = 0; i < n; i++) {
        buf_printf(b, "%s%s=\"", i ? "," : "", labels[i].name);
        append_escaped(b, labels[i].value, true);
        buf_append_char(b, '"');
    }
    if (le) buf_printf(b, "%sle=\"%s\"", n ? "," : "", le);
    buf_append_char(b, '}');
}

static void sample(struct buf *b, const char *name, const char *suffix, const struct metric_label *labels, size_t n,
                   const char *le, uint64_t value)
{
    append_name(b, name, suffix, labels, n, le);
    buf_printf(b, " %llu\n", (unsigned long long)value);
}

void metric_u64(struct buf *b, const char *name, const struct metric_label *labels, size_t n, uint64_t value)
{
    sample(b, name, "", labels, n, NULL, value);
}

void metric_double(struct buf *b, const char *name, const struct metric_label *labels, size_t n, double value)
{
    append_name(b, name, "", labels, n, NULL);
    buf_printf(b, " %.9g\n", value);
}

void metric_one(struct buf *b, const char *name, enum metric_type type, const char *help, uint64_t value)
{
    metric_family(b, name, type, help);
    metric_u64(b, name, NULL, 0, value);
}

void metric_histogram(struct buf *b, const char *name, const struct metric_label *labels, size_t n,
                      const struct histogram *h, uint64_t sum_us)
{
    char le[32];
    for (size_t i = 0; i < BOUNDS; i++) {
        snprintf(le, sizeof le, "%g", (double)bounds_us[i] / 1e6);
        sample(b, name, "_bucket", labels, n, le, histogram_up_to(h, bounds_us[i]));
    }
    uint64_t all = histogram_up_to(h, HISTOGRAM_MAX);
    sample(b, name, "_bucket", labels, n, "+Inf", all);
    append_name(b, name, "_sum", labels, n, NULL);
    buf_printf(b, " %.9g\n", (double)sum_us / 1e6);
    sample(b, name, "_count", labels, n, NULL, all);
}
