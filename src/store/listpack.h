/* listpack.h: Redis's listpack, byte for byte: a block of strings and integers that can be walked from both ends.
 *
 *   u32 LE total bytes | u16 LE elements (65535: unknown, walk) | elements | FF
 *   element: encoding and data | its length again, readable from right to left
 *
 * A listpack is a block of mem_alloc(); whoever holds the pointer owns it.  Functions that change it take uint8_t **lp
 * and may move it: every pointer into it is then invalid.  They fail (false, nothing changed) when memory is out or the
 * result would exceed LP_BYTES_MAX.  Texts may not point into the listpack that is changed. Only lp_is_valid() may see
 * bytes from outside; everything else expects a valid listpack.  Source: the listpack specification of Redis 5 and
 * later. */
#ifndef COVEY_STORE_LISTPACK_H
#define COVEY_STORE_LISTPACK_H

#include "store/element.h"

#include <stdbool.h>
#include <stdint.h>

enum { LP_HEADER = 6, LP_BYTES_MAX = 1 << 30, LP_COUNT_UNKNOWN = 65535 };

uint8_t *lp_new(void);
/* A copy; NULL when memory is out. */
uint8_t *lp_try_copy(struct bytes blob);
size_t lp_bytes(const uint8_t *lp); /* total, header and terminator included */
static inline struct bytes lp_blob(const uint8_t *lp)
{
    return bytes_make(lp, lp_bytes(lp));
}
/* Elements; walks when the header does not know. */
size_t lp_count(const uint8_t *lp);
/* Whether `more` bytes of text can be added. */
bool lp_has_room(const uint8_t *lp, size_t more);
/* Bytes that text takes as an element. */
size_t lp_element_bytes(struct bytes text);

/* Positions: NULL before the first and behind the last element. */
const uint8_t *lp_first(const uint8_t *lp);
const uint8_t *lp_last(const uint8_t *lp);
const uint8_t *lp_next(const uint8_t *lp, const uint8_t *at);
const uint8_t *lp_prev(const uint8_t *lp, const uint8_t *at);
/* Index from the head, or from the tail when negative (-1 is the last); walks from the nearer end. */
const uint8_t *lp_seek(const uint8_t *lp, int64_t index);

/* The element as text. */
void lp_get(const uint8_t *at, struct element *out);
/* Whether it is kept as an integer, and which. */
bool lp_get_int(const uint8_t *at, int64_t *out);
/* Length of the element as text. */
size_t lp_text_len(const uint8_t *at);
/* A text to look for, read once. */
struct lp_needle {
    struct bytes text;
    int64_t number;
    bool is_int;
};
struct lp_needle lp_needle(struct bytes text);
bool lp_equal(const uint8_t *at, const struct lp_needle *needle);
/* From `at` on, the first element equal to text; `skip` elements are passed over after each that is looked at. */
const uint8_t *lp_find(const uint8_t *lp, const uint8_t *at, struct bytes text, size_t skip);

/* Replaces `removed` elements from `at` on (NULL: the end) by n texts. */
MUST_USE bool lp_splice(uint8_t **lp, const uint8_t *at, size_t removed, const struct bytes *texts, size_t n);
MUST_USE bool lp_append(uint8_t **lp, struct bytes text);
MUST_USE bool lp_prepend(uint8_t **lp, struct bytes text);
MUST_USE bool lp_replace(uint8_t **lp, const uint8_t *at, struct bytes text);
/* Removes count elements from `at` on; cannot fail. */
void lp_delete(uint8_t **lp, const uint8_t *at, size_t count);

/* Appends elements that were read already; an integer needs no text. */
MUST_USE bool lp_append_needles(uint8_t **lp, const struct lp_needle *elements, size_t n);
/* Makes the integer at *at another one; *at stays on it.  Aborts when memory is out: an integer grows by 8 bytes. */
void lp_set_int(uint8_t **lp, const uint8_t **at, int64_t v);

/* Whether blob is a listpack through and through; reads nothing outside it.  count may be NULL. */
bool lp_is_valid(struct bytes blob, size_t *count);

#endif
