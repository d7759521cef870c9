/* mem.h: the allocator and its account.
 * Any thread may call any function.  mem_alloc() and friends abort when memory is out (sizes of our own); the try_
 * forms return NULL (sizes chosen by the network or a file).  A pointer is freed by mem_free() from any thread. */
#ifndef COVEY_BASE_MEM_H
#define COVEY_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t n);                /* not cleared */
void *mem_calloc(size_t count, size_t n); /* cleared */
void *mem_realloc(void *p, size_t n);
void *mem_try_alloc(size_t n);
void *mem_try_realloc(void *p, size_t n);        /* on NULL, p is untouched */
void *mem_alloc_aligned(size_t n, size_t align); /* freed by mem_free() */
void mem_free(void *p);                          /* NULL is fine */
char *mem_strdup(const char *s);

/* Bytes the allocator really set aside for p (0 for NULL): at least what was asked. */
size_t mem_size(const void *p);

/* Bytes in use now by all threads, as counted by mem_size(); exact once all threads are idle. */
size_t mem_used(void);
/* Highest value that mem_used() returned so far. */
size_t mem_used_peak(void);
/* Resident bytes of the process (VmRSS). */
size_t mem_rss(void);
/* "mimalloc-2.0.9" or "libc". */
const char *mem_allocator_name(void);

_Noreturn void mem_abort(size_t n);

#endif
