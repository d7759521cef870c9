/* affinity.h: which processors the threads may use: server_cpulist, bio_cpulist, aof_rewrite_cpulist, bgsave_cpulist.
 */
#ifndef COVEY_SERVER_AFFINITY_H
#define COVEY_SERVER_AFFINITY_H

#include "server/node.h"

#include <sched.h>

/* A list as redis.conf has it: numbers and ranges between commas, a range perhaps with a step ("0-7:2,9"), blanks
 * allowed.  False: it is none. */
MUST_USE bool affinity_parse(struct bytes list, cpu_set_t *out);
/* Gives the calling thread the processors of that option, and with it the threads that it starts.  Nothing happens when
 * the option is empty; a list that cannot be used is logged, and changes nothing. */
void affinity_take(const struct config *cfg, enum config_id option);

/* Between these, what the calling thread starts has the processors of bio_cpulist, or when that is empty those that the
 * process was started with: node.processors.  affinity_parent_end() gives the caller its own ones back. */
void affinity_parent_begin(const struct node *n, cpu_set_t *own);
void affinity_parent_end(const cpu_set_t *own);
/* In the main thread, before any other is there: remembers the processors of the process, then takes server_cpulist. */
void affinity_init(struct node *n);

#endif
