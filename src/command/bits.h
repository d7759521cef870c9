/* bits.h: operations on long rows of bits, bit 0 being the highest of byte 0.  Pure functions; any thread. */
#ifndef COVEY_COMMAND_BITS_H
#define COVEY_COMMAND_BITS_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

/* How many bits of b are 1. */
uint64_t bits_count(struct bytes b);
/* The position of the first bit equal to `bit`, b.n * 8 if there is none. */
uint64_t bits_find(struct bytes b, bool bit);

enum bits_op { BITS_AND, BITS_OR, BITS_XOR, BITS_NOT };
/* Combines n inputs into out, which has room for the longest of them; shorter ones count as filled up with zeros.
 * BITS_NOT takes one input.  out may be the first input, if that is as long as the result. */
void bits_combine(enum bits_op op, const struct bytes *in, size_t n, char *out, size_t out_size);

/* The `width` (1 .. 64) bits from bit `at` on as a number; what lies behind the end of b is zero. */
uint64_t bits_get(struct bytes b, uint64_t at, unsigned width);
/* Overwrites them with the low bits of value; they lie within the bytes at p. */
void bits_set(char *p, uint64_t at, unsigned width, uint64_t value);

#endif
