/* conf_values.h: the keys of a pool and their values; private to conf.c.  One object fills one pool.  Any thread. */
#ifndef COVEY_POOL_CONF_VALUES_H
#define COVEY_POOL_CONF_VALUES_H

#include "pool/conf.h"

struct conf_values {
    struct pool_conf *pool; /* borrowed */
    uint32_t seen;          /* one bit a key */
    size_t servers_cap;
};

/* Sets the defaults. */
void conf_values_init(struct conf_values *v, struct pool_conf *pool);
bool conf_values_known(struct bytes key);
bool conf_values_is_list(struct bytes key); /* its value is a list, and _set() is called for each element */
/* E_INVALID: *why is a constant text that goes on "directive X ".  E_NOMEM. */
MUST_USE enum status conf_values_set(struct conf_values *v, struct bytes key, struct bytes value, const char **why);
/* What can be checked when all is known; sorts the servers.  *why is constant or points to `text`. */
MUST_USE enum status conf_values_finish(struct conf_values *v, char text[160], const char **why);

/* nutcracker's order of names: shorter first, then by bytes. */
int conf_values_compare_names(const char *a, const char *b);

#endif
