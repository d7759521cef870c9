/* sim.h: a whole cluster in one process and in virtual time.
 *
 *   main.c    arguments, seeds, totals          world.c   event queue and network
 *   node.c    the driver around one core        script.c  the operator and the faults
 *   check.c   what must hold in every step and at the end
 *
 * Everything a run does follows from its seed. */
#ifndef COVEY_TESTS_SIMULATION_SIM_H
#define COVEY_TESTS_SIMULATION_SIM_H

#include "base/random.h"
#include "cluster/codec.h"
#include "cluster/core/core.h"

#include <stdio.h>

enum { NODES_MAX = 72, TICK_MS = 100, SAMPLE_STEP = 61, SAMPLES = SLOT_COUNT / SAMPLE_STEP };

/* ---- totals over all seeds ---- */

struct totals {
    uint64_t notes[CLUSTER_NOTE_COUNT];
    uint64_t messages, steps, faults, manual_failovers, takeovers, slot_moves, joins, forgotten, repairs;
    uint64_t crashes, disks_lost, partitions, refusals, freezes, clock_jumps, virtual_ms, votes_cast, lone_epochs;
    uint64_t bytes, released, taken_over; /* acknowledged writes (bytes of the log); elections checked against them */
};

/* ---- one node ---- */

/* What the checks want to know of a message that leaves a node. */
struct departure {
    struct cluster_id sender;
    unsigned type;
    bool claims; /* of a primary with slots */
    uint64_t current_epoch, config_epoch;
};

struct held_send { /* waits for a persist */
    uint64_t after;
    int conn;
    struct frame *frame;
    struct departure departure;
};

struct frame { /* bytes of one message on their way; counted, because duplicates share them */
    int refs;
    struct frame *next_free;
    struct buf bytes;
};

enum repl_state { REPL_NONE, REPL_DOWN, REPL_SYNCING, REPL_UP };

struct sim_node {
    int index;
    struct cluster_id id; /* when it last ran */
    char ip[CLUSTER_IP_SIZE + 1];
    struct cluster_core *core; /* NULL: not running */
    uint32_t incarnation;      /* counts starts; events of an older life are dropped */
    bool exists;               /* was ever started */
    bool member;               /* part of the cluster at the end */
    bool host_down;            /* crashed without a word: connects hang */
    int64_t frozen_until, wall_offset_ms;

    /* disk */
    struct buf disk;                  /* durable nodes.conf */
    struct cluster_history disk_data; /* as of the last save */
    struct buf in_flight;             /* being written */
    uint64_t in_flight_seq, queued_seq;
    struct buf queued; /* to be written next */
    bool writing, has_queued;
    uint64_t persisted_seq;

    struct held_send *held;
    size_t held_count, held_cap;
    int *out_conn; /* by outbound link id */
    size_t out_conn_cap;

    /* data */
    struct cluster_history data;
    enum repl_state repl;
    int repl_target; /* node index */
    int64_t sync_done_ms, last_interaction_ms, down_since_ms, paused_until_ms;
    bool sealed;
    struct cluster_required required; /* whose acknowledgements a write needs */
    struct cluster_id released_in;    /* the history of ... */
    uint64_t released;                /* ... what has been acknowledged to clients; outlives a crash: they have it */

    /* for the checks */
    bool serving;
    uint64_t serving_epoch, seen_current;
    uint64_t asked; /* the highest epoch in which it asked for votes, in any of its lives */
    size_t shown;   /* 1 + index in world.shown of its id */
    uint8_t serving_slots[CLUSTER_SLOT_BYTES];
    struct {
        const struct cluster_node *owner; /* NULL: nobody, or one that does not claim it */
        uint64_t epoch;
    } sample[SAMPLES]; /* of slot i * SAMPLE_STEP */
};

/* ---- connections and events ---- */

struct conn {
    int node[2]; /* 0 called 1 */
    uint32_t incarnation[2];
    uint64_t link[2];
    bool open[2];
    int64_t last_at[2]; /* keeps the order of messages towards side 0 and 1 */
};

enum sim_event_kind {
    SIM_TICK,
    SIM_DELIVER,   /* frame to side of conn */
    SIM_CONNECT,   /* conn's caller reaches the other end */
    SIM_CONNECTED, /* tell the caller */
    SIM_LINK_DOWN, /* tell side of conn */
    SIM_REFUSED,   /* tell node that link could not be opened */
    SIM_PERSISTED,
    SIM_PAUSED,
    SIM_PROBED,  /* node asks, other answers */
    SIM_YIELDED, /* likewise */
    SIM_SCRIPT,  /* the operator or a fault: script_run(what) */
};

struct sim_event {
    int64_t at;
    uint64_t order;
    enum sim_event_kind kind;
    int node, other;
    uint32_t incarnation;
    int conn, side;
    uint64_t link;
    struct frame *frame;
    int what, arg;
};

struct world {
    uint64_t seed;
    struct random random;
    bool trace;
    enum cluster_plant plant;
    bool noloss;         /* min-replicas-to-ack 1, and one fault at a time */
    bool replicas_serve; /* planted: replicas are taken for servers of their primary's slots */
    struct totals *totals;
    int64_t now, end, heal_at, takeover_ms; /* takeover_ms: the last one, 0: none */
    bool healed;
    int faults; /* so far */
    int64_t node_timeout_ms;

    struct sim_node nodes[NODES_MAX];
    int node_count; /* of the beginning */
    int next_node;  /* the next fresh one */

    struct sim_event *heap;
    size_t heap_count, heap_cap;
    uint64_t order;
    struct conn *conns;
    size_t conn_count, conn_cap;
    struct frame *free_frames;
    struct cluster_actions out;
    struct cluster_decoder decoder;

    /* the network's temper */
    int group[NODES_MAX];            /* nodes of different groups do not hear each other */
    bool deaf[NODES_MAX][NODES_MAX]; /* [a][b]: what a sends does not reach b */
    bool refusing[NODES_MAX];        /* alive, and refuses connections */
    unsigned loss_ppm, duplicate_ppm, reset_ppm;
    int delay_max_ms;

    /* the checks' memory */
    struct vote *votes;
    size_t vote_count, vote_cap;
    struct shown *shown;
    size_t shown_count, shown_cap;
    uint64_t digest;
    bool failed;
    char failure[512];
};

/* A vote that left a node, and the highest epochs a node id has shown. */
struct vote {
    struct cluster_id voter;
    uint64_t epoch;
};
struct shown {
    struct cluster_id id;
    uint64_t current, config;
};

/* world.c */
void world_run(struct world *w);
void world_free(struct world *w);
void world_post(struct world *w, int64_t delay_ms, struct sim_event ev);
bool world_connected(const struct world *w, int from, int to);
struct frame *frame_new(struct world *w);
void frame_put(struct world *w, struct frame *f);
void net_connect(struct world *w, struct sim_node *n, uint64_t link, const char *ip);
void net_close(struct world *w, int conn, int side);
/* From now on node n refuses connections; those it has accepted are cut, and perhaps its own. */
void net_refuse(struct world *w, int n, bool cut_its_own);
void net_send(struct world *w, int conn, int side, struct frame *f);
int net_find(struct world *w, struct sim_node *n, uint64_t link, int *side);
void net_drop_node(struct world *w, struct sim_node *n, bool quietly);
void trace(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int64_t pick(struct world *w, int64_t low, int64_t high); /* both included */
bool chance(struct world *w, unsigned percent);

/* node.c */
void node_init(struct world *w, int index);
void node_start(struct world *w, struct sim_node *n);
void node_crash(struct world *w, struct sim_node *n, bool host_down, bool lose_disk);
void node_event(struct world *w, const struct sim_event *ev);
void node_carry_out(struct world *w, struct sim_node *n);
struct cluster_time node_time(const struct world *w, const struct sim_node *n);
struct cluster_id node_id(const struct sim_node *n);
int node_by_ip(const struct world *w, const char *ip);
bool node_running(const struct world *w, const struct sim_node *n); /* alive, not frozen */

/* script.c */
void script_begin(struct world *w);
void script_run(struct world *w, const struct sim_event *ev);

/* check.c */
void check_fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void check_after_step(struct world *w, struct sim_node *n);
void check_rebinding(struct world *w, struct sim_node *n, bool by_message);
void check_left(struct world *w, struct sim_node *n, const struct departure *d, int to);
void check_note(struct world *w, struct sim_node *n, const struct cluster_action *a);
void check_stopped(struct sim_node *n);
void check_release(struct world *w, const struct sim_node *n);
bool check_agreement(struct world *w, bool complain);

#endif
