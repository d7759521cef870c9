/* snapshot_budget.h: what open snapshots may keep beyond the dataset: 5% of the memory in use, 64 MB at least.  Above
 * it clients that write wait (as under CLIENT PAUSE WRITE), keys are not expired, and a replica's stream stands still,
 * until the snapshot has saved some of what is kept.  A snapshot whose sink stands still for 5 seconds is not waited
 * for: it keeps what it needs then, as much as that may be. */
#ifndef COVEY_SERVER_SNAPSHOT_BUDGET_H
#define COVEY_SERVER_SNAPSHOT_BUDGET_H

#include <stdbool.h>

struct node;
struct snapshot_budget;

struct snapshot_budget *snapshot_budget_create(struct node *n);
void snapshot_budget_destroy(struct snapshot_budget *b);
/* Whether writers have to wait; any thread. */
bool snapshot_budget_spent(const struct node *n);
/* Whether half of it is spent: who sends a snapshot to somebody slow takes the rest aside.  Any thread. */
bool snapshot_budget_half_spent(const struct node *n);
/* Every 100 ms; the main thread. */
void snapshot_budget_tick(struct snapshot_budget *b, long long now_mono_ms);

#endif
