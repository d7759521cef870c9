/* topology.h: who serves which slot, learned from the cluster by a thread of its own.
 *
 * The map is immutable and reference-counted; every thread may hold one.  A node without cluster mode is a cluster of
 * one that has all slots. */
#ifndef COVEY_PROXY_CLUSTER_TOPOLOGY_H
#define COVEY_PROXY_CLUSTER_TOPOLOGY_H

#include "base/crc.h"
#include "proxy/front/config.h"
#include "resp/resp.h"

#include <stdatomic.h>
#include <stdbool.h>

struct map_node {
    char *name;      /* as the cluster announces it: an address or a host's name */
    char ip[64];     /* what to connect to; "" not known now */
    char spoken[64]; /* the address the cluster knows for that name; "" none */
    int port;
    unsigned slots;   /* how many it serves; 0: a primary that serves none, or a replica */
    uint16_t primary; /* of a replica: index in nodes; else NO_NODE */
};

enum { NO_NODE = UINT16_MAX };

struct topology_map {
    _Atomic unsigned refs;
    unsigned covered; /* slots that somebody serves */
    uint16_t count;
    bool standalone;           /* a server without cluster mode: commands are not bound to one slot */
    unsigned databases;        /* which SELECT takes, from 0 on */
    struct map_node *nodes;    /* primaries, and those that others may be redirected to */
    uint16_t slot[SLOT_COUNT]; /* index in nodes, or NO_NODE */
    uint16_t replica_count;
    struct map_node *replicas;
};

struct topology_map *topology_map_hold(struct topology_map *m);
void topology_map_release(struct topology_map *m); /* NULL is fine */
/* From a reply to CLUSTER SLOTS.  asked: where it came from, for entries without an address.  NULL: it makes no
 * sense. The nodes' ip is not filled in yet. */
MUST_USE struct topology_map *topology_map_read(const struct resp_value *slots, const char *asked);
/* Adds the nodes of a reply to CLUSTER NODES that have a host's name and are not known yet: a slot may be on its way to
 * one that serves none.  Lines that make no sense are skipped. */
void topology_map_read_nodes(struct topology_map *m, struct bytes text);

struct topology;
/* changed is called on the topology's thread with a new map, which it borrows; never twice with the same one. */
struct tls;
/* tls: for connections to nodes, when the settings ask for it. */
struct topology *topology_create(struct proxy_config *config, struct tls *tls,
                                 void (*changed)(void *ctx, struct topology_map *map), void *ctx);
void topology_start(struct topology *t);
/* Other settings from the next look on; holds them. */
void topology_configure(struct topology *t, struct proxy_config *config);
/* Ends the thread; a map may be published until then. */
void topology_stop(struct topology *t);
/* Behind topology_stop(). */
void topology_destroy(struct topology *t);
/* Asks for a look now; any thread, cheap, may be called as often as one likes. */
void topology_refresh(struct topology *t);

#endif
