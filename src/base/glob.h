/* glob.h: the patterns of KEYS, SCAN MATCH and CONFIG GET: * ? [a-z] [^x] and backslash. */
#ifndef COVEY_BASE_GLOB_H
#define COVEY_BASE_GLOB_H

#include "base/bytes.h"

#include <stdbool.h>

/* Time is bounded by pattern length times text length, also for hostile patterns such as "a*a*a*a*b". */
bool glob_match(struct bytes pattern, struct bytes text, bool ignore_case);

#endif
