/* sha1.h: SHA-1 (FIPS 180-1, RFC 3174) as a name for scripts and in the digest of values; it protects nothing.  Of our
 * own because a system's cryptographic policy may take the library's away, and scripts keep their names.
 * Pure function; any thread. */
#ifndef COVEY_BASE_SHA1_H
#define COVEY_BASE_SHA1_H

#include "base/bytes.h"

#include <stdint.h>

enum { SHA1_SIZE = 20 };

void sha1(struct bytes b, uint8_t out[SHA1_SIZE]);

#endif
