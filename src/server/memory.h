/* memory.h: maxmemory and maxmemory-clients: making room before a command runs; inside src/server only.
 *
 * Threads: a function that takes a worker runs on its thread, inside the gate, holding no slot.  Those that take a node
 * may be called by any thread. */
#ifndef COVEY_SERVER_MEMORY_H
#define COVEY_SERVER_MEMORY_H

#include "server/conn.h"

enum memory_room {
    ROOM_THERE,  /* memory is below maxmemory, or may be above it (a replica, a pause, a load) */
    ROOM_COMING, /* above it; eviction goes on in the background */
    ROOM_NONE,   /* above it, and there is nothing to evict: what needs memory is refused */
};

/* Before a command: evicts until memory is below maxmemory, for as long as maxmemory-eviction-tenacity allows. Also
 * sets w->out_of_memory, for what checks command by command (scripts). */
enum memory_room memory_make_room(struct worker *w);
/* Goes on with that in the background; for node_post_workers() after maxmemory was changed. */
void memory_evict_soon(struct worker *w);

/* What maxmemory is compared with: memory in use but for what Redis leaves out too (streams that slow replicas have not
 * read) and what is on its way back (values that wait for the reaper, entries that only a snapshot still needs). */
size_t memory_counted(const struct node *n);
size_t memory_not_counted(const struct node *n); /* mem_not_counted_for_evict */
/* Memory of the change log beyond the backlog. */
size_t memory_replica_buffers(const struct node *n);

/* ---- giving memory back to the system ----
 * Pages belong to the thread that allocated in them; only that one can give them back, whoever frees what is in them.
 * So when memory in use falls (a mass expiry, a flush), each thread that allocates looks after its own, and those that
 * sleep are woken for it. */

/* What a thread has done already; all zero at first. */
struct memory_trim {
    unsigned falls, purges; /* node.memory_falls, memory_purges */
};

/* From the main thread's tick: notices a fall. */
void memory_watch(struct node *n);
/* True when memory_trim() has something to do. */
bool memory_trim_due(const struct node *n, const struct memory_trim *t);
/* From each thread, several times a second or when it is woken for that. */
void memory_trim(const struct node *n, struct memory_trim *t);
/* MEMORY PURGE: every thread gives back all it can, soon. */
void memory_purge(struct node *n);

/* At the end of a turn, outside the gate: when all clients together take more than maxmemory-clients, closes the
 * largest. */
void memory_evict_clients(struct worker *w);
/* DEBUG CLIENT-EVICTION: the clients that may be closed, by classes of the memory they take.  With the server at rest.
 * False: maxmemory-clients is not set. */
bool memory_client_classes(struct node *n, struct buf *out);
size_t memory_of_clients(const struct node *n);

/* How MEMORY STATS and INFO see it; each a moment of its own. */
struct memory_view {
    size_t used, peak, startup, rss, committed;
    size_t backlog, replica_buffers, clients, links, tables, overhead, dataset, keys;
    double dataset_perc, peak_perc;
    double frag, allocator_frag, allocator_rss, rss_overhead;
    int64_t frag_bytes, allocator_frag_bytes, allocator_rss_bytes, rss_overhead_bytes;
};
void memory_view_get(struct node *n, struct memory_view *out);

#endif
