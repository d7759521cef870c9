/* intset.h: Redis's intset, byte for byte: u32 LE width (2, 4, 8) | u32 LE count | sorted signed integers of that
 * width, LE. The width only grows.  A block of mem_alloc(); changes may move it.  Only intset_is_valid() may see bytes
 * from outside. */
#ifndef COVEY_STORE_INTSET_H
#define COVEY_STORE_INTSET_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

enum { INTSET_HEADER = 8 };

uint8_t *intset_new(void);
/* A copy of a valid one; NULL when memory is out. */
uint8_t *intset_try_copy(struct bytes blob);
size_t intset_len(const uint8_t *is);
size_t intset_bytes(const uint8_t *is);
bool intset_has(const uint8_t *is, int64_t v);
/* index < intset_len(); ascending. */
int64_t intset_at(const uint8_t *is, size_t index);
/* False when v was there already. */
bool intset_add(uint8_t **is, int64_t v);
/* False when v was not there. */
bool intset_remove(uint8_t **is, int64_t v);
/* Width, size, and strict ascending order. */
bool intset_is_valid(struct bytes blob);

#endif
