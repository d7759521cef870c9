/* hyperloglog.h: the values of PFADD as Redis keeps them in strings: 16384 registers, each the length of the longest
 * run of zeros seen in a hash, behind a header of 16 bytes.
 *
 *   "HYLL" | encoding 1 | 3 zero bytes | cardinality 8, little endian, valid unless its highest bit is set | registers
 *
 * Dense: 6 bits a register, lowest bits first.  Sparse: runs of registers, one or two bytes each:
 *   00llllll            l + 1 registers are 0
 *   01llllll llllllll   l + 1 registers are 0
 *   1vvvvvll            l + 1 registers are v + 1
 *
 * The estimator is Ertl's ("New cardinality estimation algorithms for HyperLogLog sketches", 2017), the hash
 * MurmurHash64A (Appleby); both as in Redis, so that bytes and counts are the same.
 * Values come from outside: everything here takes any bytes and says E_CORRUPT.  Pure functions; any thread. */
#ifndef COVEY_COMMAND_HYPERLOGLOG_H
#define COVEY_COMMAND_HYPERLOGLOG_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    HLL_REGISTERS = 16384,
    HLL_HEADER = 16,
    HLL_DENSE_BYTES = HLL_HEADER + HLL_REGISTERS * 6 / 8,
    HLL_VALUE_MAX = 51, /* the largest value an element gives */
};

/* Registers one byte each. */
struct hll_registers {
    uint8_t value[HLL_REGISTERS];
};

/* Whether b can be a value: its header, and its size when it is dense. */
bool hll_is_value(struct bytes b);
bool hll_is_dense(struct bytes b); /* of a value */

/* The register that an element belongs to, and what it says. */
void hll_element(struct bytes element, unsigned *index, unsigned *value);

/* A value without elements, sparse. */
void hll_empty(struct buf *out);
/* Raises a register; a sparse value becomes dense when it would pass sparse_max bytes.  *changed: whether it was lower.
 * out is a value.  E_CORRUPT: nothing was changed. */
MUST_USE enum status hll_raise(struct buf *value, unsigned index, unsigned to, size_t sparse_max, bool *changed);
/* The same for the bytes of a dense value; whether it was lower. */
bool hll_dense_raise(char *value, unsigned index, unsigned to);
/* Makes a value dense.  The header stays. */
MUST_USE enum status hll_make_dense(struct buf *value);

/* Raises registers to those of a value. */
MUST_USE enum status hll_merge(struct hll_registers *into, struct bytes value);
/* Overwrites the registers of a dense value. */
void hll_dense_write(char *value, const struct hll_registers *from);

uint64_t hll_estimate_registers(const struct hll_registers *r);
MUST_USE enum status hll_estimate(struct bytes value, uint64_t *out);

/* The cardinality kept in the header; false: it is out of date. */
bool hll_cached(struct bytes value, uint64_t *out);
void hll_cache(char *value, uint64_t cardinality);
void hll_cache_drop(char *value);

/* The runs of a sparse value as text: "Z:100 v:2,1 z:3". */
void hll_describe(struct bytes value, struct buf *out);

#endif
