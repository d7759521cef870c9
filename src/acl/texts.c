/* texts.c: ordered sets of texts: patterns, passwords, first arguments. */
#include "acl/internal.h"

#include "base/hash.h"
#include "base/mem.h"

enum { INDEX_FROM = 16 };

void texts_deinit(struct acl_texts *t)
{
    for (size_t i = 0; i < t->n; i++) mem_free(t->at[i]);
    mem_free(t->at);
    mem_free(t->index);
    *t = (struct acl_texts){0};
}

static void index_put(struct acl_texts *t, size_t position)
{
    size_t mask = t->index_size - 1, i = t->at[position]->hash & mask;
    while (t->index[i]) i = (i + 1) & mask;
    t->index[i] = (uint32_t)position + 1;
}

static void index_build(struct acl_texts *t)
{
    mem_free(t->index);
    t->index = NULL;
    if (t->n < INDEX_FROM) return;
    t->index_size = INDEX_FROM * 2;
    while (t->index_size < t->n * 3) t->index_size *= 2;
    t->index = mem_calloc(t->index_size, sizeof *t->index);
    for (size_t i = 0; i < t->n; i++) index_put(t, i);
}

struct acl_text *texts_find(const struct acl_texts *t, struct bytes text)
{
    uint64_t hash = hash_bytes(text);
    if (!t->index) {
        for (size_t i = 0; i < t->n; i++)
            if (t->at[i]->hash == hash && bytes_eq(text_bytes(t->at[i]), text)) return t->at[i];
        return NULL;
    }
    size_t mask = t->index_size - 1;
    for (size_t i = hash & mask; t->index[i]; i = (i + 1) & mask) {
        struct acl_text *x = t->at[t->index[i] - 1];
        if (x->hash == hash && bytes_eq(text_bytes(x), text)) return x;
    }
    return NULL;
}

struct acl_text *texts_add(struct acl_texts *t, struct bytes text, uint32_t tag)
{
    if (text.n > UINT32_MAX / 2 || t->n >= UINT32_MAX / 2) return NULL;
    struct acl_text *x = mem_try_alloc(sizeof *x + text.n);
    if (!x) return NULL;
    *x = (struct acl_text){.hash = hash_bytes(text), .tag = tag, .n = (uint32_t)text.n};
    if (text.n) memcpy(x->text, text.p, text.n);
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 4;
        t->at = mem_realloc(t->at, t->cap * sizeof *t->at);
    }
    t->at[t->n++] = x;
    if (t->n == INDEX_FROM || (t->index && t->n * 2 > t->index_size))
        index_build(t);
    else if (t->index)
        index_put(t, t->n - 1);
    return x;
}

void texts_remove(struct acl_texts *t, struct acl_text *x)
{
    size_t i = 0;
    while (i < t->n && t->at[i] != x) i++;
    if (i == t->n) return;
    mem_free(x);
    memmove(&t->at[i], &t->at[i + 1], (t->n - i - 1) * sizeof *t->at);
    t->n--;
    index_build(t);
}

void texts_copy(struct acl_texts *to, const struct acl_texts *from)
{
    *to = (struct acl_texts){.n = from->n, .cap = from->n};
    if (from->n == 0) return;
    to->at = mem_alloc(from->n * sizeof *to->at);
    for (size_t i = 0; i < from->n; i++) {
        size_t size = sizeof *from->at[i] + from->at[i]->n;
        to->at[i] = mem_alloc(size);
        memcpy(to->at[i], from->at[i], size);
    }
    index_build(to);
}
