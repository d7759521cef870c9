/* element.h: what the collection types hand out: one element as text.
 *
 * text borrows from the value, or points into digits when the value keeps the element as an integer.  It is valid until
 * the value is changed or freed and the struct is reused; because text may point into the struct itself, a struct
 * element is never copied by assignment. */
#ifndef COVEY_STORE_ELEMENT_H
#define COVEY_STORE_ELEMENT_H

#include "base/bytes.h"

struct element {
    struct bytes text;
    char digits[24];
};

/* Called for each element of a scan or a sample; the bytes are borrowed until it returns.  It must not touch the value.
 * second: value of a hash field, empty for a set member. */
typedef void element_fn(void *ctx, struct bytes first, struct bytes second);

#endif
