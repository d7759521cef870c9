/* report.h: INFO: choosing its sections, and those that are the same for every backend. */
#ifndef COVEY_PROXY_FRONT_REPORT_H
#define COVEY_PROXY_FRONT_REPORT_H

#include "proxy/front/front.h"

#include <stddef.h>

struct report_section {
    const char *name, *title;
    bool always; /* also when none is asked for */
    void (*write)(const void *ctx, struct buf *b);
};

/* Those that the request wants. */
void report_sections(const struct report_section *all, size_t n, const void *ctx, const struct resp_request *req,
                     struct buf *b);

void report_number(struct buf *b, const char *name, uint64_t v);
/* On a worker: the contents of sections server, clients, memory and stats. */
void report_server(const struct front *f, int port, struct buf *b);
void report_clients(const struct front_worker *w, struct buf *b);
void report_memory(struct buf *b);
void report_stats(const struct front *f, uint64_t commands, uint64_t errors, struct buf *b);

#define report_sum(f, field) front_sum((f), offsetof(struct front_stats, field))

#endif
