/* thread.h: what the system is told about a thread. */
#ifndef COVEY_BASE_THREAD_H
#define COVEY_BASE_THREAD_H

/* For a thread that works long and that nobody waits for: whoever wakes up may take the processor from it at once.  Its
 * share of the processor stays what it is, so it can be waited for after all.  A priority would have to be raised
 * again then, which takes a privilege.  Asks for a time slice longer than the usual ones: since Linux 6.12 who wakes up
 * with a shorter one goes first (EEVDF: I. Stoica, H. Abdel-Wahab, 1995).  Such a thread should not yield: that gives
 * away the whole slice.  Without effect before 6.12; before 6.6 who wakes up goes first anyway. */
void thread_is_patient(void);

#endif
