/* view.h: what nodes say about their cluster (CLUSTER NODES), and what it amounts to: is the cluster whole, what has
 * happened. Pure functions over the caller's memory; any thread. */
#ifndef COVEY_OPERATOR_VIEW_H
#define COVEY_OPERATOR_VIEW_H

#include "base/bytes.h"
#include "base/status.h"
#include "operator/plan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NODE_ID_LENGTH = 40, NODE_ADDRESS_MAX = 300 };

enum node_flag {
    NODE_MYSELF = 1,
    NODE_PRIMARY = 2,
    NODE_REPLICA = 4,
    NODE_PFAIL = 8,
    NODE_FAIL = 16,
    NODE_HANDSHAKE = 32,
    NODE_NO_ADDRESS = 64,
};

/* One line of CLUSTER NODES. */
struct node_line {
    char id[NODE_ID_LENGTH + 1];
    char primary[NODE_ID_LENGTH + 1]; /* "" for a primary, or a replica that has none */
    char address[NODE_ADDRESS_MAX];   /* "127.0.0.1:7000", without bus port and host name */
    unsigned flags;
    bool connected; /* the bus link to it */
    uint64_t epoch;
    size_t first_range, range_count; /* in the view's ranges; slots under migration are not counted twice */
};

struct cluster_view {
    struct node_line *nodes; /* owned */
    size_t n;
    struct slot_range *ranges; /* owned */
    size_t range_count;
    const struct node_line *myself; /* the line of who answered; never NULL after OK */
};

/* Borrows text.  E_CORRUPT when it is not what CLUSTER NODES answers, or lacks the line of the node itself; out is then
 * empty. */
MUST_USE enum status view_parse(struct bytes text, struct cluster_view *out);
void view_deinit(struct cluster_view *v);                                        /* v is empty and usable again */
const struct node_line *view_find(const struct cluster_view *v, const char *id); /* NULL: not known there */
size_t view_slots(const struct cluster_view *v, const struct node_line *node);
/* "0-5460 7000 9000-9001", or "-" without slots. */
void view_print_slots(const struct cluster_view *v, const struct node_line *node, struct buf *out);
/* The value of "field:" in an INFO-like text; empty when it is not there.  Borrows text. */
struct bytes info_field(struct bytes text, const char *field);

/* What one of our nodes said in one round of questions. */
struct sample {
    bool answered;            /* everything below is valid */
    struct cluster_view view; /* owned */
    bool state_ok;            /* cluster_state:ok */
    bool link_up;             /* a replica whose link to its primary is up */
};

/* Whether all nodes answer, know each other, agree who serves which slot, leave none out, and every replica has its
 * data. When not, why (an empty buffer) gets the first reason found.  port: of node 0. */
bool samples_whole(const struct sample *samples, int n, int port, struct buf *why);

/* What is known about one of our nodes over time.  All zero: nothing yet. */
struct member {
    bool known;
    bool away;    /* it failed, or its process died, and it has not rejoined yet */
    int well;     /* while away: looks in a row at which all seemed well again */
    bool failed;  /* most of the others say so */
    bool primary; /* as it says itself */
    char id[NODE_ID_LENGTH + 1];
    char follows[NODE_ID_LENGTH + 1];
};

struct members {
    struct member *list; /* owned by the caller */
    int n;
    int port;   /* of node 0 */
    bool known; /* cluster_ok is valid */
    bool cluster_ok;
};

/* Compares the samples with what was known, calls event() with a sentence for everything that has changed, and
 * remembers.  port is 0 for what concerns the cluster as a whole. */
void members_observe(struct members *m, const struct sample *samples,
                     void (*event)(void *ctx, int port, const char *text), void *ctx);

#endif
