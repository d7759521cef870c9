/* ziplist.h: reading the small encodings of old RDB files: ziplists and zipmaps.  Never written.
 *
 *   ziplist  u32 LE bytes | u32 LE offset of the last entry | u16 LE entries (65535: unknown) | entries | FF
 *            entry: length of the one before, encoding, data
 *   zipmap   u8 pairs (254 and more: unknown) | length, field, length, u8 unused, value, unused bytes | ... | FF
 *
 * The bytes come from outside: everything is checked, nothing outside the blob is read.  The blob is borrowed. */
#ifndef COVEY_STORE_ZIPLIST_H
#define COVEY_STORE_ZIPLIST_H

#include "store/element.h"

struct ziplist_iter {
    struct bytes blob;
    size_t at, before; /* offset of the next entry; size of the one before it */
    size_t seen;
};

/* E_CORRUPT: the frame is broken. */
MUST_USE enum status ziplist_iter_init(struct ziplist_iter *it, struct bytes blob);
/* OK: *out is the next entry.  E_NOT_FOUND: that was the last.  E_CORRUPT. */
MUST_USE enum status ziplist_iter_next(struct ziplist_iter *it, struct element *out);

struct zipmap_iter {
    struct bytes blob;
    size_t at;
    size_t seen;
};

MUST_USE enum status zipmap_iter_init(struct zipmap_iter *it, struct bytes blob);
/* As above. */
MUST_USE enum status zipmap_iter_next(struct zipmap_iter *it, struct bytes *field, struct bytes *value);

#endif
