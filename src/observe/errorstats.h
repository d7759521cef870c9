/* errorstats.h: how many errors of each code were replied; any thread; a lock of its
 * own, a leaf. */
#ifndef COVEY_OBSERVE_ERRORSTATS_H
#define COVEY_OBSERVE_ERRORSTATS_H

#include "base/bytes.h"

#include <stdint.h>

struct errorstats;
struct errorstats *errorstats_create(void);
void errorstats_destroy(struct errorstats *s);
/* Counts an encoded error reply, "-CODE text\r\n".  Beyond 128 codes the rest is counted together (scripts may make up
 * codes). */
void errorstats_note(struct errorstats *s, struct bytes reply);
/* "errorstat_ERR:count=3\r\n" and so on, in alphabetical order. */
void errorstats_info(struct errorstats *s, struct buf *out);
/* Calls each with every code, under the lock; "OTHERS" for the rest. */
void errorstats_each(struct errorstats *s, void (*each)(void *ctx, const char *code, uint64_t count), void *ctx);
uint64_t errorstats_total(struct errorstats *s);
void errorstats_reset(struct errorstats *s);

#endif
