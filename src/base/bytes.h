/* bytes.h: borrowed byte strings and a growing buffer.
 * struct bytes never owns: it is valid as long as what it points into.  struct buf owns its memory.
 * No function here is thread safe on the same object; none keeps state. */
#ifndef COVEY_BASE_BYTES_H
#define COVEY_BASE_BYTES_H

#include "base/status.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytes {
    const char *p; /* may be NULL when n is 0 */
    size_t n;
};

/* BYTES("literal"), and bytes of a C string, and of a range. */
#define BYTES(lit) ((struct bytes){(lit), sizeof(lit) - 1})

static inline struct bytes bytes_of(const char *cstr)
{
    return (struct bytes){cstr, strlen(cstr)};
}

static inline struct bytes bytes_make(const void *p, size_t n)
{
    return (struct bytes){(const char *)p, n};
}

static inline bool bytes_eq(struct bytes a, struct bytes b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* ASCII case-insensitive equality. */
bool bytes_ieq(struct bytes a, struct bytes b);

/* memcmp order, a shorter prefix first: <0, 0, >0. */
int bytes_cmp(struct bytes a, struct bytes b);

/* A malloc'ed, NUL-terminated copy; the caller frees it with mem_free(). */
char *bytes_dup_cstr(struct bytes b);
/* A copy of n strings and of the bytes behind them in one allocation, which the caller frees with mem_free().  *size
 * (may be NULL): bytes of it. */
struct bytes *bytes_dup_array(const struct bytes *v, size_t n, size_t *size);

struct buf {
    char *p;
    size_t n;   /* bytes used */
    size_t cap; /* bytes allocated */
};

void buf_deinit(struct buf *b); /* frees; b is empty and usable again */

/* Makes room for `more` bytes behind b->n.  E_NOMEM leaves b as it was.  Use this where the size comes from outside. */
MUST_USE enum status buf_try_reserve(struct buf *b, size_t more);
/* The same for sizes of our own; aborts when memory is out. */
void buf_reserve(struct buf *b, size_t more);

void buf_append(struct buf *b, const void *p, size_t n);
void buf_append_bytes(struct buf *b, struct bytes s);
void buf_append_char(struct buf *b, char c);
void buf_append_cstr(struct buf *b, const char *s);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *fmt, va_list ap);
/* Forgets the first n bytes (n <= b->n), moving the rest to the front. */
void buf_drop_front(struct buf *b, size_t n);

static inline struct bytes buf_bytes(const struct buf *b)
{
    return (struct bytes){b->p, b->n};
}

#endif
