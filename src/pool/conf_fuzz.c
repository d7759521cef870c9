/* Any text as a nutcracker.yml: read or refused with a reason; what was read can place a key. */
#include "pool/conf.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pool_conf_file f;
    char error[POOL_CONF_ERROR_MAX];
    enum status st = pool_conf_parse(bytes_make(data, size), "f", &f, error);
    if ((st == OK) != (f.n > 0) || (st == OK) != (*error == 0)) abort();
    for (size_t i = 0; i < f.n; i++) {
        struct ring r = {0};
        if (pool_conf_ring(&f.pools[i], NULL, &r) == OK) {
            int at = pool_conf_place(&f.pools[i], &r, bytes_make(data, size), (uint32_t)size);
            if (at < 0 || (size_t)at >= f.pools[i].servers_n) abort();
        }
        ring_deinit(&r);
    }
    pool_conf_deinit(&f);
    return 0;
}
