/* sampler.h: rates over the last second and a half, for INFO; inside src/server only. */
#ifndef COVEY_SERVER_SAMPLER_H
#define COVEY_SERVER_SAMPLER_H

#include "server/node.h"

struct rates {
    uint64_t commands;              /* a second */
    double input_kbps, output_kbps; /* KiB a second */
};

/* Samples ten times a second from the main loop's thread on; before it runs. */
struct sampler *sampler_create(struct node *n);
void sampler_rates(const struct sampler *s, struct rates *out); /* any thread; NULL: all zero */

#endif
