/* clock.h: the time, read at the edges and passed inwards as an argument. */
#ifndef COVEY_BASE_CLOCK_H
#define COVEY_BASE_CLOCK_H

#include <stdint.h>

int64_t clock_wall_ms(void); /* unix time; may jump */
int64_t clock_wall_us(void);
/* CLOCK_BOOTTIME: never goes back, and goes on while the process is stopped or the machine sleeps. */
int64_t clock_mono_ms(void);
int64_t clock_mono_us(void);

/* A counter for short durations that costs a few nanoseconds (the processor's, where it has a steady one), and its
 * rate.  Differences only; one thread. */
uint64_t clock_ticks(void);
uint64_t clock_ticks_per_us(void);
/* So many ticks in nanoseconds; a multiplication. */
uint64_t clock_ticks_ns(uint64_t ticks);

#endif
