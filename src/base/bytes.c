#include "base/bytes.h"

#include "base/mem.h"

#include <assert.h>
#include <stdio.h>

static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
}

bool bytes_ieq(struct bytes a, struct bytes b)
{
    if (a.n != b.n) return false;
    for (size_t i = 0; i < a.n; i++)
        if (lower(a.p[i]) != lower(b.p[i])) return false;
    return true;
}

int bytes_cmp(struct bytes a, struct bytes b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    if (c) return c;
    return a.n < b.n ? -1 : a.n > b.n;
}

char *bytes_dup_cstr(struct bytes b)
{
    char *s = mem_alloc(b.n + 1);
    if (b.n) memcpy(s, b.p, b.n);
    s[b.n] = '\0';
    return s;
}

struct bytes *bytes_dup_array(const struct bytes *v, size_t n, size_t *size)
{
    size_t total = n * sizeof *v;
    for (size_t i = 0; i < n; i++) total += v[i].n;
    struct bytes *copy = mem_alloc(total);
    char *p = (char *)(copy + n);
    for (size_t i = 0; i < n; i++) {
        if (v[i].n) memcpy(p, v[i].p, v[i].n);
        copy[i] = bytes_make(p, v[i].n);
        p += v[i].n;
    }
    if (size) *size = total;
    return copy;
}

void buf_deinit(struct buf *b)
{
    mem_free(b->p);
    *b = (struct buf){0};
}

static size_t grown_capacity(const struct buf *b, size_t need)
{
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need) cap = cap < (1u << 20) ? cap * 2 : cap + cap / 2;
    return cap;
}

enum status buf_try_reserve(struct buf *b, size_t more)
{
    if (more > SIZE_MAX / 4 - b->n) return E_NOMEM;
    size_t need = b->n + more;
    if (need <= b->cap) return OK;
    size_t cap = grown_capacity(b, need);
    char *p = mem_try_realloc(b->p, cap);
    if (!p) return E_NOMEM;
    b->p = p;
    b->cap = cap;
    return OK;
}

void buf_reserve(struct buf *b, size_t more)
{
    mem_must_begin();
    enum status st = buf_try_reserve(b, more);
    mem_must_end();
    if (st != OK) mem_abort(more);
}

void buf_append(struct buf *b, const void *p, size_t n)
{
    if (n == 0) return;
    buf_reserve(b, n);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

void buf_append_bytes(struct buf *b, struct bytes s)
{
    buf_append(b, s.p, s.n);
}

void buf_append_char(struct buf *b, char c)
{
    buf_append(b, &c, 1);
}

void buf_append_cstr(struct buf *b, const char *s)
{
    buf_append(b, s, strlen(s));
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    buf_reserve(b, 128);
    int n = vsnprintf(b->p + b->n, b->cap - b->n, fmt, ap);
    assert(n >= 0);
    if ((size_t)n >= b->cap - b->n) {
        buf_reserve(b, (size_t)n + 1);
        vsnprintf(b->p + b->n, b->cap - b->n, fmt, again);
    }
    b->n += (size_t)n;
    va_end(again);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
}

void buf_drop_front(struct buf *b, size_t n)
{
    assert(n <= b->n);
    if (n == 0) return;
    b->n -= n;
    if (b->n) memmove(b->p, b->p + n, b->n);
}
