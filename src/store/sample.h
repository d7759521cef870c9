/* sample.h: n different ranks out of len, every subset equally likely, in ascending order (so that who reads them can
 * walk). Few ranks are drawn by Floyd's method (Bentley and Floyd, 1987), many by selection sampling (Knuth, volume
 * 2, 3.4.2, algorithm S). */
#ifndef COVEY_STORE_SAMPLE_H
#define COVEY_STORE_SAMPLE_H

#include "base/random.h"

#include <stdbool.h>
#include <stdint.h>

struct sample {
    struct random *rng;
    uint64_t len, left, at;
    uint64_t *picked; /* NULL: selection */
    uint64_t next;
};

/* n may be above len: then every rank comes. Borrows rng until sample_deinit(). */
void sample_init(struct sample *s, struct random *rng, uint64_t len, uint64_t n);
bool sample_next(struct sample *s, uint64_t *rank);
void sample_deinit(struct sample *s);

#endif
