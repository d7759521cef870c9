#include "base/file.h"

#include <errno.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024 };

bool file_read_all(int fd, size_t max, struct buf *out)
{
    for (;;) {
        if (out->n > max || buf_try_reserve(out, CHUNK) != OK) {
            errno = EFBIG;
            return false;
        }
        ssize_t got = read(fd, out->p + out->n, CHUNK);
        if (got == 0) return true;
        if (got < 0 && errno != EINTR) return false;
        if (got > 0) out->n += (size_t)got;
    }
}
