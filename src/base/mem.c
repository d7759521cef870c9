#include "base/mem.h"

#include "base/log.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The sanitizers bring their own malloc and want to see every call of it. */
#if COVEY_LIBC_MALLOC
#define impl_malloc malloc
#define impl_calloc calloc
#define impl_realloc realloc
#define impl_aligned(n, a) aligned_alloc(a, ((n) + (a)-1) / (a) * (a))
#define impl_free free
#define impl_size(p) malloc_usable_size((void *)(uintptr_t)(p))
#else
#include <mimalloc.h>
#define impl_malloc mi_malloc
#define impl_calloc mi_calloc
#define impl_realloc mi_realloc
#define impl_aligned(n, a) mi_malloc_aligned(n, a)
#define impl_free mi_free
#define impl_size(p) mi_usable_size(p)
#endif

/* Each thread counts in a cell of its own, so that counting is an uncontended add; a cell outlives its thread because
 * memory often does, and a new thread reuses a free cell with the sum it finds. */
enum { CELLS = 512 };
static struct cell {
    _Atomic int64_t bytes;
    _Atomic int taken;
    char pad[64 - sizeof(_Atomic int64_t) - sizeof(_Atomic int)];
} cells[CELLS];

#define LARGE_PAGE ((uintptr_t)2 << 20)

static _Thread_local struct cell *my_cell;
static _Atomic size_t peak;
static _Atomic int64_t kept;
static _Atomic int cells_used; /* no cell from here on was ever taken, but for the last one */

static void raise_cells_used(int n)
{
    int seen = atomic_load_explicit(&cells_used, memory_order_relaxed);
    while (seen < n && !atomic_compare_exchange_weak(&cells_used, &seen, n)) {
    }
}

static struct cell *cell_take(void)
{
    for (int i = 0; i < CELLS - 1; i++) {
        int expected = 0;
        if (!atomic_compare_exchange_strong(&cells[i].taken, &expected, 1)) continue;
        raise_cells_used(i + 1);
        return my_cell = &cells[i];
    }
    raise_cells_used(CELLS);
    return my_cell = &cells[CELLS - 1]; /* shared by every thread beyond the table */
}

static void count(int64_t delta)
{
    struct cell *c = my_cell ? my_cell : cell_take();
    if (c == &cells[CELLS - 1]) {
        atomic_fetch_add_explicit(&c->bytes, delta, memory_order_relaxed);
        return;
    }
    int64_t now = atomic_load_explicit(&c->bytes, memory_order_relaxed); /* only this thread writes its cell */
    atomic_store_explicit(&c->bytes, now + delta, memory_order_relaxed);
}

static void *counted(void *p)
{
    if (p) count((int64_t)impl_size(p));
    return p;
}

_Noreturn void mem_abort(size_t n)
{
    log_warning("Out Of Memory allocating %zu bytes!", n);
    abort();
}

#if COVEY_LIBC_MALLOC
static _Thread_local struct {
    int64_t left; /* tries until one fails, and 1; 0: none does */
    int must;
    bool failed;
} faults;

void mem_fail_after(int64_t calls)
{
    faults.left = calls < 0 ? 0 : calls + 1;
    faults.failed = false;
}

bool mem_failed(void)
{
    return faults.failed;
}

void mem_must_begin(void)
{
    faults.must++;
}

void mem_must_end(void)
{
    faults.must--;
}

static bool fails(void)
{
    if (faults.left == 0 || faults.must > 0 || --faults.left > 0) return false;
    return faults.failed = true;
}
#else
static bool fails(void)
{
    return false;
}
#endif

void *mem_try_alloc(size_t n)
{
    return fails() ? NULL : counted(impl_malloc(n ? n : 1));
}

void *mem_alloc(size_t n)
{
    void *p = counted(impl_malloc(n ? n : 1));
    if (!p) mem_abort(n);
    return p;
}

void *mem_calloc(size_t count_of, size_t n)
{
    void *p = counted(impl_calloc(count_of ? count_of : 1, n ? n : 1));
    if (!p) mem_abort(count_of * n);
    return p;
}

static void *resized(void *p, size_t n)
{
    size_t before = p ? impl_size(p) : 0;
    void *q = impl_realloc(p, n ? n : 1);
    if (q) count((int64_t)impl_size(q) - (int64_t)before);
    return q;
}

void *mem_try_realloc(void *p, size_t n)
{
    return fails() ? NULL : resized(p, n);
}

void *mem_realloc(void *p, size_t n)
{
    void *q = resized(p, n);
    if (!q) mem_abort(n);
    return q;
}

void *mem_alloc_aligned(size_t n, size_t align)
{
    void *p = counted(impl_aligned(n, align));
    if (!p) mem_abort(n);
    return p;
}

void mem_free(void *p)
{
    if (!p) return;
    count(-(int64_t)impl_size(p));
    impl_free(p);
}

void *mem_try_alloc_large(size_t n)
{
    void *p = mem_try_alloc(n);
    uintptr_t from = ((uintptr_t)p + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    uintptr_t end = ((uintptr_t)p + n) / LARGE_PAGE * LARGE_PAGE;
    if (p && from < end)
        (void)madvise((void *)from, end - from, MADV_HUGEPAGE); /* where the system has none: no harm */
    return p;
}

char *mem_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(mem_alloc(n), s, n);
}

size_t mem_size(const void *p)
{
    return p ? impl_size(p) : 0;
}

int64_t mem_used_here(void)
{
    struct cell *c = my_cell ? my_cell : cell_take();
    return atomic_load_explicit(&c->bytes, memory_order_relaxed);
}

int mem_threads(void)
{
    return atomic_load_explicit(&cells_used, memory_order_relaxed);
}

void mem_note_foreign(int64_t bytes)
{
    count(bytes);
}

void mem_note_kept(int64_t bytes)
{
    atomic_fetch_add_explicit(&kept, bytes, memory_order_relaxed);
}

size_t mem_kept(void)
{
    int64_t n = atomic_load_explicit(&kept, memory_order_relaxed);
    return n > 0 ? (size_t)n : 0;
}

size_t mem_used(void)
{
    int64_t sum = 0;
    int n = mem_threads();
    for (int i = 0; i < n; i++) sum += atomic_load_explicit(&cells[i].bytes, memory_order_relaxed);
    size_t used = sum > 0 ? (size_t)sum : 0;
    size_t seen = atomic_load_explicit(&peak, memory_order_relaxed);
    while (used > seen && !atomic_compare_exchange_weak(&peak, &seen, used)) {
    }
    return used;
}

size_t mem_used_peak(void)
{
    mem_used();
    return atomic_load_explicit(&peak, memory_order_relaxed);
}

size_t mem_rss(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f) return 0;
    unsigned long size = 0, resident = 0;
    int got = fscanf(f, "%lu %lu", &size, &resident);
    fclose(f);
    return got == 2 ? resident * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

size_t mem_committed(void)
{
#if COVEY_LIBC_MALLOC
    return 0;
#else
    size_t elapsed, user, system, rss, peak_rss, committed, peak_committed, faults;
    mi_process_info(&elapsed, &user, &system, &rss, &peak_rss, &committed, &peak_committed, &faults);
    return committed;
#endif
}

void mem_collect(bool all)
{
#if COVEY_LIBC_MALLOC
    if (all) malloc_trim(0);
#else
    mi_collect(all);
#endif
}

void mem_return_at_once(bool yes)
{
#if !COVEY_LIBC_MALLOC
    enum { KEEP_MS = 25 };
    mi_option_set(mi_option_decommit_delay, yes ? 0 : KEEP_MS);
#endif
}

void mem_report(void (*put)(const char *text, void *ctx), void *ctx)
{
#if COVEY_LIBC_MALLOC
    put("libc malloc keeps no statistics\n", ctx);
#else
    mi_stats_print_out(put, ctx);
#endif
}

const char *mem_allocator_name(void)
{
#if COVEY_LIBC_MALLOC
    return "libc";
#else
    static char name[32];
    int v = mi_version();
    snprintf(name, sizeof name, "mimalloc-%d.%d.%d", v / 100, v / 10 % 10, v % 10);
    return name;
#endif
}
