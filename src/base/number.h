/* number.h: numbers as Redis reads and writes them.  Pure functions; any thread. */
#ifndef COVEY_BASE_NUMBER_H
#define COVEY_BASE_NUMBER_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

enum { NUMBER_TEXT_MAX = 400 }; /* enough for any double in fixed notation plus sign and NUL */

/* Canonical decimal only: no spaces, no '+', no leading zeros, no "-0". */
bool parse_i64(struct bytes b, int64_t *out);
bool parse_u64(struct bytes b, uint64_t *out);
/* strtod()/strtold() over the whole text; rejects empty, leading space, trailing bytes, NaN and overflow. "inf" is
 * fine. */
bool parse_double(struct bytes b, double *out);
bool parse_long_double(struct bytes b, long double *out);
/* "100", "1k" (1000), "1kb" (1024), "mb", "gb", any case. */
bool parse_memory(struct bytes b, int64_t *out);

/* Writes at most 21 bytes, returns how many; no terminator. */
size_t format_i64(char *out, int64_t v);
size_t format_u64(char *out, uint64_t v);
/* %.17g, integral values in range as integers, "inf"/"-inf"/"nan": what ZSCORE prints.  Up to NUMBER_TEXT_MAX bytes. */
size_t format_double(char *out, double v);
/* Fixed notation, 17 decimals at most, trailing zeros cut: what INCRBYFLOAT prints.  Up to NUMBER_TEXT_MAX * 13 bytes.
 */
enum { LONG_DOUBLE_TEXT_MAX = 5 * 1024 };
size_t format_long_double(char *out, long double v);

#endif
