/* unit_test.h: what unit tests of several folders share: cmocka with what its header needs, seeds that can be replayed,
 * vectors of bytes.  For tests only. */
#ifndef COVEY_BASE_UNIT_TEST_H
#define COVEY_BASE_UNIT_TEST_H

#include "base/bytes.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

/* Of the variable SEED, or a new one; printed. */
static inline uint64_t seed_of_run(void)
{
    const char *given = getenv("SEED");
    uint64_t seed;
    random_secure(&seed, sizeof seed);
    seed = given ? strtoull(given, NULL, 10) : seed >> 32;
    print_message("SEED=%lu\n", (unsigned long)seed);
    return seed;
}

/* "0102 ff": three bytes, in out. */
static inline struct bytes unhex(const char *hex, char *out)
{
    size_t n = 0;
    for (; *hex; hex++) {
        if (*hex == ' ') continue;
        const char two[3] = {hex[0], hex[1], 0};
        out[n++] = (char)strtol(two, NULL, 16);
        hex++;
    }
    return bytes_make(out, n);
}

static inline void assert_bytes(struct bytes got, const char *hex)
{
    char room[1024];
    assert_in_range(strlen(hex), 0, sizeof room);
    struct bytes want = unhex(hex, room);
    assert_int_equal(got.n, want.n);
    assert_memory_equal(got.p, want.p, want.n);
}

#endif
