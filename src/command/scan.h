/* scan.h: what SCAN, HSCAN, SSCAN and ZSCAN share: their arguments and the form of their reply.
 *
 *   struct scan_options o;
 *   if (!scan_parse_cursor(c, 2, &o)) return;              (false: the error was replied)
 *   ... look at the key: the wrong type is an error, no key is scan_reply_empty() ...
 *   if (!scan_parse_options(c, 3, false, &o)) return;
 *   struct scan_reply r = scan_reply_begin(c);
 *   cursor = hash_scan(e, o.cursor, o.count, emit, &r);    emit: scan_reply_add() if scan_matches()
 *   scan_reply_end(&r, cursor);
 *
 * Threads: as struct call. */
#ifndef COVEY_COMMAND_SCAN_H
#define COVEY_COMMAND_SCAN_H

#include "command/call.h"

struct scan_options {
    uint64_t cursor;
    size_t count;         /* at least 1; 10 when not said */
    bool has_pattern;     /* false also for "*" */
    struct bytes pattern; /* borrowed from argv, as type */
    bool has_type;
    struct bytes type;
};

/* Sets *o to the cursor at argv[arg] and no options.  False: it is no number, and that was replied. */
MUST_USE bool scan_parse_cursor(struct call *c, size_t arg, struct scan_options *o);
/* Adds MATCH, COUNT and, with_type, TYPE from argv[arg] on.  False: the error was replied. */
MUST_USE bool scan_parse_options(struct call *c, size_t arg, bool with_type, struct scan_options *o);

bool scan_matches(const struct scan_options *o, struct bytes name);

/* A reply under way; nothing but elements is written to c->out between begin and end. */
struct scan_reply {
    struct call *c;
    size_t mark; /* where the reply starts */
    size_t n;    /* elements so far */
};
struct scan_reply scan_reply_begin(struct call *c);
void scan_reply_add(struct scan_reply *r, struct bytes element);
void scan_reply_end(struct scan_reply *r, uint64_t cursor);
/* Cursor 0 and no elements. */
void scan_reply_empty(struct call *c);

/* Walks over slots lock one slot at a time, which must not be tried while a transaction holds its own.  False: the
 * handler returns at once, as for call_exclusive(). */
MUST_USE bool walk_allowed(struct call *c);
/* Whether a walk shows this entry: keys that are over are hidden, but not deleted there. */
bool walk_shows(const struct call *c, const struct entry *e);

#endif
