/* prometheus.h: Prometheus's text exposition format, version 0.0.4.  Pure functions over a buffer. */
#ifndef COVEY_OBSERVE_PROMETHEUS_H
#define COVEY_OBSERVE_PROMETHEUS_H

#include "base/bytes.h"
#include "base/histogram.h"

#define PROMETHEUS_TYPE "text/plain; version=0.0.4; charset=utf-8"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metric_label {
    const char *name;
    struct bytes value; /* any bytes: what is not ASCII becomes '?' */
};

/* The HELP and TYPE lines; the samples of this name follow, and of no other. */
void metric_family(struct buf *b, const char *name, enum metric_type type, const char *help);
void metric_u64(struct buf *b, const char *name, const struct metric_label *labels, size_t n, uint64_t value);
void metric_double(struct buf *b, const char *name, const struct metric_label *labels, size_t n, double value);
/* A family without labels and its one sample. */
void metric_one(struct buf *b, const char *name, enum metric_type type, const char *help, uint64_t value);
/* The samples of a histogram of microseconds, in seconds.  A bound counts what its own bucket of the histogram holds,
 * which may exceed it by 1/128.  h does not grow meanwhile. */
void metric_histogram(struct buf *b, const char *name, const struct metric_label *labels, size_t n,
                      const struct histogram *h, uint64_t sum_us);

#endif
