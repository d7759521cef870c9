/* limit.h: how fast a user, or an address, may send: requests and bytes a second, each a token bucket.
 *
 * A bucket is one number, the time at which it is full again (the "theoretical arrival time" of the generic cell rate
 * algorithm, ITU-T I.371).  A request takes its tokens when it comes, and is told how long to wait until they are
 * really there; so those that wait are served in the order of their coming, each woken once.
 * Threads: a limiter is shared by all workers; taking tokens is a compare and swap. */
#ifndef COVEY_PROXY_POLICY_LIMIT_H
#define COVEY_PROXY_POLICY_LIMIT_H

#include "base/bytes.h"

#include <stdatomic.h>

struct limit_rule {
    int64_t ops, ops_burst;     /* a second, and at once; ops 0: no limit */
    int64_t bytes, bytes_burst; /* of requests and replies */
};

/* "OPS[:BURST]" or "OPS[:BURST] BYTES[:BURST]"; OPS 0: bytes only; bytes with kb, mb, gb.  A burst that is not given is
 * what may be sent in a second. */
bool limit_rule_parse(struct bytes text, struct limit_rule *out);

struct limit_rules; /* what was configured for users; constant once read */

struct limit_rules *limit_rules_create(void);
struct limit_rules *limit_rules_copy(const struct limit_rules *r);
void limit_rules_destroy(struct limit_rules *r);
/* "NAME RULE", or "* RULE" for every user without one of its own.  False: not that. */
bool limit_rules_add(struct limit_rules *r, struct bytes text);
/* The rule for this user; NULL: none. */
const struct limit_rule *limit_rule_of_user(const struct limit_rules *r, struct bytes name);

struct limiter;

struct limiter *limiter_create(const struct limit_rule *rule); /* NULL for NULL */
/* The same with another rule, for the same user: what was taken stays taken.  old may be NULL. */
struct limiter *limiter_renew(const struct limiter *old, const struct limit_rule *rule);
struct limiter *limiter_hold(struct limiter *l);
void limiter_release(struct limiter *l); /* NULL is fine */
const struct limit_rule *limiter_rule(const struct limiter *l);

/* Nanoseconds until a request might be sent; 0: now.  Takes nothing. */
int64_t limiter_wait(const struct limiter *l, int64_t now_ns);
/* Takes a request of so many bytes, whatever is left, and returns the nanoseconds after which it may be sent. */
int64_t limiter_take(struct limiter *l, int64_t now_ns, size_t bytes);
/* Takes bytes that go the other way; later requests wait for them. */
void limiter_charge(struct limiter *l, int64_t now_ns, size_t bytes);

/* ---- by address ---- */

struct address_limits;

/* A rule that limits nothing: every address gets NULL. */
struct address_limits *address_limits_create(const struct limit_rule *rule);
/* Another rule for those that ask from here on; what was taken is forgotten. */
void address_limits_configure(struct address_limits *a, const struct limit_rule *rule);
/* Another number after each change of the rule.  Any thread. */
uint64_t address_limits_version(const struct address_limits *a);
void address_limits_destroy(struct address_limits *a);
/* The limiter of the address in "1.2.3.4:567" or "[::1]:567", counted; an IPv6 address stands for its /64.  NULL: none.
 * It remembers what was taken after its last client has gone.  Any thread; a leaf lock inside. */
struct limiter *address_limit(struct address_limits *a, const char *peer, int64_t now_ns);
/* How many addresses are remembered now. */
size_t address_limits_count(struct address_limits *a);

#endif
