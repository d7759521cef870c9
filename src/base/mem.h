/* mem.h: the allocator and its account.
 * Any thread may call any function.  mem_alloc() and friends abort when memory is out (sizes of our own); the try_
 * forms return NULL (sizes chosen by the network or a file).  A pointer is freed by mem_free() from any thread. */
#ifndef COVEY_BASE_MEM_H
#define COVEY_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t n);                /* not cleared */
void *mem_calloc(size_t count, size_t n); /* cleared */
void *mem_realloc(void *p, size_t n);
void *mem_try_alloc(size_t n);
/* The same for megabytes that are going to be filled at once: asks the system for large pages, which it gives in a
 * tenth of the time that it takes for small ones. */
void *mem_try_alloc_large(size_t n);
void *mem_try_realloc(void *p, size_t n);        /* on NULL, p is untouched */
void *mem_alloc_aligned(size_t n, size_t align); /* freed by mem_free() */
void mem_free(void *p);                          /* NULL is fine */
char *mem_strdup(const char *s);

/* Bytes the allocator really set aside for p (0 for NULL): at least what was asked. */
size_t mem_size(const void *p);

/* Bytes in use now by all threads, as counted by mem_size(); exact once all threads are idle. */
size_t mem_used(void);
/* The calling thread's part of that sum, positive or not: what it has allocated beyond what it has freed.  Costs
 * nothing; differences tell what a piece of work has taken or given back. */
int64_t mem_used_here(void);
/* Threads that have counted so far: among how many a growth of mem_used() may be spread. */
int mem_threads(void);
/* Counts memory that does not come from here (mmap) as used, or as given back when negative. */
void mem_note_foreign(int64_t bytes);
/* An account of its own, within mem_used(): bytes of old versions that are kept for somebody who still reads them. */
void mem_note_kept(int64_t bytes);
size_t mem_kept(void);
/* Highest value that mem_used() returned so far. */
size_t mem_used_peak(void);
/* Resident bytes of the process (VmRSS). */
size_t mem_rss(void);
/* Bytes that the allocator has from the system at present (committed); 0: it does not say. */
size_t mem_committed(void);
/* Gives back to the system what the calling thread holds free; `all`: at once and whatever that costs (milliseconds),
 * else what is cheap.  Other threads keep theirs. */
void mem_collect(bool all);
/* Whether pages go back to the system the moment they are free, which spreads the cost when much is freed and makes it
 * needless when it is not; otherwise they are kept a while. Not while another thread calls it. */
void mem_return_at_once(bool yes);
/* What the allocator has to say about itself, text for people. */
void mem_report(void (*put)(const char *text, void *ctx), void *ctx);
/* "mimalloc-2.0.9" or "libc". */
const char *mem_allocator_name(void);

_Noreturn void mem_abort(size_t n);

/* For tests, in the sanitizer builds only: after that many more calls of the try_ forms on this thread one of them
 * fails (0: the next), the others do not; negative: none.  What an aborting function asks for between mem_must_begin()
 * and mem_must_end() does not count. */
#if COVEY_LIBC_MALLOC
void mem_fail_after(int64_t calls);
bool mem_failed(void); /* whether it has happened */
void mem_must_begin(void);
void mem_must_end(void);
#else
static inline void mem_must_begin(void)
{
}
static inline void mem_must_end(void)
{
}
#endif

#endif
