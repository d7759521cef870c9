/* crc.h: the two checksums of the wire formats.
 * CRC-16/XMODEM names a key's slot; CRC-64/Jones (reflected, no final xor) guards RDB files and DUMP payloads.
 * Pure functions; any thread. */
#ifndef COVEY_BASE_CRC_H
#define COVEY_BASE_CRC_H

#include "base/bytes.h"

#include <stdint.h>

uint16_t crc16(struct bytes b);
/* Continues `crc` (0 at the start) over n bytes. */
uint64_t crc64(uint64_t crc, const void *p, size_t n);

enum { SLOT_COUNT = 16384 };
/* The slot of a key: CRC-16 of its hash tag (what stands between the first '{' and the first '}' behind it, when that
 * is not empty), else of the whole key; Redis Cluster specification. */
unsigned key_slot(struct bytes key);
/* The part of the key that is hashed, as above. */
struct bytes key_hash_tag(struct bytes key);

#endif
