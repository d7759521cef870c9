/* topology.h: who serves which slot, learned from the cluster by a thread of its own.
 *
 * Inside a node it is that node which says so, as soon as its view of the cluster changes, and nobody else is asked as
 * long as there are no doubts: a worker that was sent elsewhere, or has lost a node, and the own node has no news.  It
 * may be cut off itself, so then the others are asked, and again and again until all agree.
 *
 * The map is immutable and reference-counted; every thread may hold one.  A node without cluster mode is a cluster of
 * one that has all slots. */
#ifndef COVEY_PROXY_CLUSTER_TOPOLOGY_H
#define COVEY_PROXY_CLUSTER_TOPOLOGY_H

#include "base/crc.h"
#include "proxy/cluster/own.h"
#include "proxy/front/config.h"
#include "resp/resp.h"

#include <stdatomic.h>
#include <stdbool.h>

enum { NO_NODE = UINT16_MAX, NODE_ID_SIZE = 40 };

struct map_node {
    char *name;      /* as the cluster announces it: an address or a host's name */
    char ip[64];     /* what to connect to; "" not known now */
    char spoken[64]; /* the address the cluster knows for that name; "" none */
    int port;
    unsigned slots;            /* how many it serves; 0: a primary that serves none, or a replica */
    uint16_t primary;          /* of a replica: index in nodes; else NO_NODE */
    char id[NODE_ID_SIZE + 1]; /* in the cluster; "" not told */
    bool is_own;               /* the node of this process */
};

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
 * one that serves none.  The one of that id is added without a name as well.  Lines that make no sense are skipped. */
void topology_map_read_nodes(struct topology_map *m, struct bytes text, const char *own_id);
/* Whether both say the same of who serves which slot.  Nodes are the same by their ids, where both are told: what they
 * are called, and in which order replicas stand, depends on who is asked. */
bool topology_maps_agree(const struct topology_map *a, const struct topology_map *b);
/* Which nodes are the one of that id; "" none. */
void topology_map_mark_own(struct topology_map *m, const char *own_id);

struct topology;
/* changed is called on the topology's thread with a new map, which it borrows; never twice with the same one. */
struct tls;
/* tls: for connections to nodes, when the settings ask for it.  own, which stays the caller's, is asked instead of the
 * seeds, where there is one. */
struct topology *topology_create(struct proxy_config *config, struct tls *tls, const struct own_node *own,
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
/* The own node knows something new; any thread, cheap. */
void topology_own_changed(struct topology *t);

#endif
