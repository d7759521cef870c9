/* thread.h: what the system is told about a thread. */
#ifndef COVEY_BASE_THREAD_H
#define COVEY_BASE_THREAD_H

/* For a thread that works long and that nobody waits for: whoever wakes up may take the processor from it at once.  Its
 * share of the processor stays what it is, so it can be waited for after all.  A priority would have to be raised
 * again then, which takes a privilege.  Asks for a long time slice: since Linux 6.12 that puts it behind those with
 * ordinary ones (EEVDF: I. Stoica, H. Abdel-Wahab, 1995); without effect before. */
void thread_is_patient(void);

#endif
