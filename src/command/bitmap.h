/* bitmap.h: what the commands on bits and on fields of bits share. */
#ifndef COVEY_COMMAND_BITMAP_H
#define COVEY_COMMAND_BITMAP_H

#include "command/call.h"

/* Reads the offset of a bit at argv[arg].  width 0: of a bit; else of a field so wide, where "#3" means the fourth of
 * them. Offsets lie within the longest string that may be; what a primary or a file says was checked before.
 * False: the error was replied. */
MUST_USE bool bit_offset_parse(struct call *c, size_t arg, unsigned width, uint64_t *out);

#endif
