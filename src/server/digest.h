/* digest.h: the digest of a value that DEBUG DIGEST and DEBUG DIGEST-VALUE print, equal to redis-server's: SHA-1 sums
 * mixed in order where order counts and xored where it does not, so that equal values give equal digests whatever their
 * encoding.  Inside src/server only.  Pure functions. */
#ifndef COVEY_SERVER_DIGEST_H
#define COVEY_SERVER_DIGEST_H

#include "store/entry.h"

enum { DIGEST_SIZE = 20 };

/* Digest of the value and its expiry, on top of what `digest` holds (all zero at first). */
void digest_entry(const struct entry *e, unsigned char digest[DIGEST_SIZE]);
/* digest ^= SHA-1(b), and that followed by digest = SHA-1(digest). */
void digest_xor(unsigned char digest[DIGEST_SIZE], struct bytes b);
void digest_mix(unsigned char digest[DIGEST_SIZE], struct bytes b);

#endif
