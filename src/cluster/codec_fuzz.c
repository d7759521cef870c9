/* Any bytes: no crash; what decodes and is encoded again decodes to the same bytes a second time. */
#include "base/mem.h"
#include "cluster/codec.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t length = 0;
    struct bytes input = bytes_make(data, size);
    enum status s = cluster_frame_length(input, &length);
    if (s != OK || length > size) return 0;

    struct cluster_decoder d = {0};
    struct cluster_message m;
    struct buf once = {0}, twice = {0};
    if (cluster_decode(&d, bytes_make(data, length), &m) == OK && m.type < CLUSTER_TYPE_COUNT) {
        struct cluster_decoder d2 = {0};
        struct cluster_message again;
        cluster_encode(&m, &once);
        if (cluster_decode(&d2, buf_bytes(&once), &again) != OK) abort();
        cluster_encode(&again, &twice);
        if (!bytes_eq(buf_bytes(&once), buf_bytes(&twice))) abort();
        cluster_decoder_deinit(&d2);
    }
    buf_deinit(&once);
    buf_deinit(&twice);
    cluster_decoder_deinit(&d);
    return 0;
}
