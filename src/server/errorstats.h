/* errorstats.h: how many errors of each code were replied; inside src/server only.  Any thread. */
#ifndef COVEY_SERVER_ERRORSTATS_H
#define COVEY_SERVER_ERRORSTATS_H

#include "base/bytes.h"

#include <stdint.h>

struct errorstats;
struct errorstats *errorstats_create(void);
/* Counts an encoded error reply, "-CODE text\r\n".  Beyond 128 codes the rest is counted together (scripts may make up
 * codes). */
void errorstats_note(struct errorstats *s, struct bytes reply);
/* "errorstat_ERR:count=3\r\n" and so on, in alphabetical order. */
void errorstats_info(struct errorstats *s, struct buf *out);
uint64_t errorstats_total(struct errorstats *s);
void errorstats_reset(struct errorstats *s);

#endif
