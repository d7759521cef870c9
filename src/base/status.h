/* status.h: the one result code.  Zero is success; everything else says why not.
 * Text for users is made at the edge (a reply, a log line), never carried in here. */
#ifndef COVEY_BASE_STATUS_H
#define COVEY_BASE_STATUS_H

#define MUST_USE __attribute__((warn_unused_result))

enum status {
    OK = 0,
    E_AGAIN,     /* not now: more input, more room or another turn is needed */
    E_NOMEM,     /* a size chosen by somebody else could not be allocated */
    E_TOO_BIG,   /* over a stated limit */
    E_CORRUPT,   /* bytes that break their format */
    E_INVALID,   /* an argument out of its range */
    E_NOT_FOUND, /* no such thing */
    E_EXISTS,    /* already there */
    E_IO,        /* the operating system said no; errno is set */
    E_CLOSED,    /* the other side is gone */
    E_STALE,     /* an epoch or term that is over */
};

/* A fixed English word for logs: "ok", "again", "corrupt", ... */
const char *status_name(enum status s);

#endif
