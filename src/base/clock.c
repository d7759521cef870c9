#include "base/clock.h"

#include <time.h>

static int64_t read_us(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t clock_wall_ms(void)
{
    return read_us(CLOCK_REALTIME) / 1000;
}

int64_t clock_wall_us(void)
{
    return read_us(CLOCK_REALTIME);
}

int64_t clock_mono_ms(void)
{
    return read_us(CLOCK_BOOTTIME) / 1000;
}

int64_t clock_mono_us(void)
{
    return read_us(CLOCK_BOOTTIME);
}

/* Nanoseconds of a tick in units of 2^-32; set before main(). */
static uint64_t tick_ns;

uint64_t clock_ticks_ns(uint64_t ticks)
{
    return (uint64_t)((unsigned __int128)ticks * tick_ns >> 32);
}

#if defined(__x86_64__)
#include <x86intrin.h>
static uint64_t ticks_per_us;

static void ticks_calibrate(void)
{
    int64_t begin_us = clock_mono_us();
    uint64_t begin = __rdtsc();
    while (clock_mono_us() - begin_us < 2000) {
    }
    uint64_t rate = (__rdtsc() - begin) / (uint64_t)(clock_mono_us() - begin_us);
    ticks_per_us = rate ? rate : 1;
}

uint64_t clock_ticks(void)
{
    return __rdtsc();
}

uint64_t clock_ticks_per_us(void)
{
    return ticks_per_us;
}
#elif defined(__aarch64__)
static void ticks_calibrate(void)
{
}

uint64_t clock_ticks(void)
{
    uint64_t v;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(v));
    return v;
}

uint64_t clock_ticks_per_us(void)
{
    uint64_t hz;
    __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(hz));
    return hz >= 1000000 ? hz / 1000000 : 1;
}
#else
static void ticks_calibrate(void)
{
}

uint64_t clock_ticks(void)
{
    return (uint64_t)clock_mono_us();
}

uint64_t clock_ticks_per_us(void)
{
    return 1;
}
#endif

__attribute__((constructor)) static void ticks_begin(void)
{
    ticks_calibrate();
    tick_ns = ((uint64_t)1000 << 32) / clock_ticks_per_us();
}
