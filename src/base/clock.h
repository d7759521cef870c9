/* clock.h: the time, read at the edges and passed inwards as an argument. */
#ifndef COVEY_BASE_CLOCK_H
#define COVEY_BASE_CLOCK_H

#include <stdint.h>

int64_t clock_wall_ms(void); /* unix time; may jump */
int64_t clock_wall_us(void);
int64_t clock_mono_ms(void); /* CLOCK_MONOTONIC; never goes back, stands still while the machine sleeps */
int64_t clock_mono_us(void);
int64_t clock_boot_ms(void); /* CLOCK_BOOTTIME; goes on while the machine sleeps */

/* A counter for short durations that costs a few nanoseconds (the processor's, where it has a steady one), and its
 * rate.  Differences only; one thread. */
uint64_t clock_ticks(void);
uint64_t clock_ticks_per_us(void);
/* So many ticks in nanoseconds; a multiplication. */
uint64_t clock_ticks_ns(uint64_t ticks);

#endif
