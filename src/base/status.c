#include "base/status.h"

const char *status_name(enum status s)
{
    switch (s) {
    case OK: return "ok";
    case E_AGAIN: return "again";
    case E_NOMEM: return "out of memory";
    case E_TOO_BIG: return "too big";
    case E_CORRUPT: return "corrupt";
    case E_INVALID: return "invalid";
    case E_NOT_FOUND: return "not found";
    case E_EXISTS: return "exists";
    case E_IO: return "i/o error";
    case E_CLOSED: return "closed";
    case E_STALE: return "stale";
    }
    return "unknown";
}
