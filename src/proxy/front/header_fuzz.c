/* PROXY headers: nothing is read beyond the bytes, a prefix of a header is never refused, and texts fit their line. */
#include "proxy/front/header.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct header h, shorter;
    enum status st = header_parse(bytes_make((const char *)data, size), &h);
    if (st == OK) {
        if (h.size == 0 || h.size > size || h.size > HEADER_V2_MAX) abort();
        if (strlen(h.source) >= NET_ADDRESS_MAX || strlen(h.destination) >= NET_ADDRESS_MAX) abort();
        for (const char *s = h.source; *s; s++)
            if (*s <= ' ' || *s > '~') abort();
        if (header_parse(bytes_make((const char *)data, h.size - 1), &shorter) != E_AGAIN) abort();
    } else if (st == E_AGAIN && size > 0) {
        if (header_parse(bytes_make((const char *)data, size - 1), &shorter) != E_AGAIN) abort();
    } else if (st == E_CORRUPT && !h.error) {
        abort();
    }
    return 0;
}
