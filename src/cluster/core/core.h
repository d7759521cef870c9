/* core.h: the Redis Cluster bus as a pure, deterministic state machine.
 *
 * What goes in: an event (or an operator's command) and the time.  What comes out: a list of actions, to be carried out
 * in order before the next call.  The core holds the node table, the slot map, failure detection, elections, epochs,
 * manual failover, replica migration and the text of nodes.conf.  It has no socket, clock, thread, file or global
 * state; the same seed and the same inputs give the same actions, so it runs unchanged in tests/simulation.
 *
 * Promises:
 *  - no call blocks or fails for lack of anything but memory (small sizes of our own: abort);
 *  - a tick costs O(nodes), a message O(its length); a change of the slot map O(slots);
 *  - epochs and votes leave in no message before the nodes.conf that holds them is durable
 * (cluster_action.after_persist). Does not promise: anything about keys.  It asks how many keys a slot has, and says
 * when a slot's keys must go.
 *
 * Threads: one thread at a time for everything here; the driver's cluster thread owns the core.  Others get what they
 * need through the driver (a published copy of the slot map, made on CLUSTER_DO_PUBLISH_MAP).
 *
 * A driver, in outline:
 *
 *     core = cluster_create(&config, saved_text, now, &err);
 *     cluster_start(core, &restored, now, &out);             carry_out(&out);
 *     every 100 ms:        facts event, tick event           carry_out(&out);
 *     frame complete:      codec decode, message event       carry_out(&out);
 *     CLUSTER MEET ...:    cluster_meet(core, ...)           carry_out(&out);
 *
 * carry_out() walks out->actions[0 .. count) in order.  A CLUSTER_DO_SEND is encoded at once (its message is borrowed
 * from `out`), and the bytes are put in the link's queue; a link sends in order, and stops at bytes whose after_persist
 * has not been reported by CLUSTER_EV_PERSISTED. */
#ifndef COVEY_CLUSTER_CORE_CORE_H
#define COVEY_CLUSTER_CORE_CORE_H

#include "base/bytes.h"
#include "base/status.h"
#include "cluster/core/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cluster_core;
struct cluster_node; /* one line of CLUSTER NODES; the pointer stays valid until the node is deleted, in a step */

/* ---- time -------------------------------------------------------------------------------------------------------- */

/* Every call gets both clocks.  All timers live on mono_ms, so a jump of the wall clock moves none of them; wall_ms is
 * only for what others see (gossip, nodes.conf, CLUSTER NODES). */
struct cluster_time {
    int64_t mono_ms; /* > 0, never goes back */
    int64_t wall_ms; /* unix time; may jump */
};

/* ---- configuration ----------------------------------------------------------------------------------------------- */

/* How many keys are stored in a slot now.  Called inside steps and commands; must not call back into the core. */
struct cluster_dataset_view {
    uint64_t (*count_keys)(void *ctx, unsigned slot); /* NULL: no keys anywhere */
    void *ctx;
};

/* Planted faults for tests of the simulator; the server leaves it 0. */
enum cluster_plant {
    CLUSTER_PLANT_NONE,
    CLUSTER_PLANT_VOTE_TWICE,
    CLUSTER_PLANT_OLD_EPOCH,
    CLUSTER_PLANT_ANYBODY_STANDS, /* whether it may lack acknowledged writes or not */
};

struct cluster_config {
    int64_t node_timeout_ms;               /* cluster-node-timeout, > 0 */
    int replica_validity_factor;           /* 0 = data of any age may be promoted */
    int repl_ping_period_s;                /* repl-ping-replica-period */
    int migration_barrier;                 /* replicas a primary keeps when one migrates away */
    bool require_full_coverage;            /* cluster-require-full-coverage */
    bool allow_replica_migration;          /* cluster-allow-replica-migration */
    bool replica_no_failover;              /* cluster-replica-no-failover */
    bool probation;                        /* compare with the replicas before serving after a restart (rule 16) */
    char announce_ip[CLUSTER_IP_SIZE + 1]; /* "" = find out from the first connections */
    char announce_hostname[CLUSTER_HOSTNAME_MAX + 1];
    uint16_t port;     /* client port to announce (the TLS port when the bus is TLS) */
    uint16_t pport;    /* plaintext client port when the bus is TLS, else 0 */
    uint16_t cport;    /* bus port to announce */
    bool follow_pport; /* replicate from a primary's plaintext port when it is known */
    uint64_t seed;     /* from random_secure() in a server, from the run's seed in a simulation */
    struct cluster_dataset_view dataset;
    enum cluster_plant plant;
    int min_replicas_to_ack; /* the option; 0: writes are acknowledged without them (noloss.c) */
    int64_t ack_patience_ms; /* a member that has not acknowledged for so long may be given up */
};
/* Replicas of one primary that can be members at a time. */
enum { CLUSTER_MEMBERS_MAX = 64 };
/* CLUSTER_DO_REQUIRE: a write is acknowledged to its client when all of these replicas have acknowledged it, and
 * `ready` is at least as many as were asked for. */
struct cluster_required {
    bool on; /* false: any replicas will do */
    size_t count, ready;
    struct cluster_id nodes[CLUSTER_MEMBERS_MAX];
};
/* Redis's defaults; the caller sets ports, seed and dataset. */
void cluster_config_init(struct cluster_config *config);

/* ---- actions ----------------------------------------------------------------------------------------------------- */

enum cluster_action_kind {
    CLUSTER_DO_SEND,         /* message on link, not before persist `after_persist` is done (0 = at once) */
    CLUSTER_DO_CONNECT,      /* open outbound `link` to ip:port (bus port); report CONNECTED or LINK_DOWN */
    CLUSTER_DO_CLOSE,        /* close `link`, deliver nothing more of it, report nothing */
    CLUSTER_DO_PERSIST,      /* write out->persist_text to nodes.conf, fsync, then report PERSISTED(seq); at once if it
                              * is `durable`, else within a second.  At most one a step.  A newer one replaces an older
                              * one not yet begun; done(seq) covers all below. */
    CLUSTER_DO_PUBLISH_MAP,  /* routing changed (owner, mark, role, address, state): make a new copy for the workers; of
                              * slots, those from first_slot to last_slot may be others */
    CLUSTER_DO_REPLICATE,    /* be a replica of `node` at ip:port (client port); also when its address changed */
    CLUSTER_DO_PROMOTE,      /* be a primary: stop replication, shift the replication id, keep the data */
    CLUSTER_DO_PAUSE_WRITES, /* stop writers, expiry, eviction and the stream's PINGs until `until_ms` (mono) at the
                              * latest; report CLUSTER_EV_PAUSED with the final offset */
    CLUSTER_DO_UNPAUSE,      /* the pause is over */
    CLUSTER_DO_SEAL,         /* stop applying the stream at a command or EXEC boundary; sends that follow wait for it.
                              * May be given again for the next attempt. */
    CLUSTER_DO_UNSEAL,       /* the election came to nothing: apply again (also implied by REPLICATE and PROMOTE) */
    CLUSTER_DO_DELETE_KEYS,  /* delete all keys of the slots in out->delete_slots (they moved away) */
    CLUSTER_DO_FLUSH,        /* drop the whole dataset (CLUSTER RESET on a replica) */
    CLUSTER_DO_PROBE,        /* ask replica `node` at ip:port for INFO replication; report CLUSTER_EV_PROBED */
    CLUSTER_DO_YIELD,        /* send CLUSTER FAILOVER FORCE to `node` at ip:port; report CLUSTER_EV_YIELDED */
    CLUSTER_DO_DELIVER,      /* message is a PUBLISH or PUBLISHSHARD from a peer: hand it to local subscribers */
    CLUSTER_DO_REQUIRE,      /* out->required holds from now on, before any message behind this leaves */
    CLUSTER_DO_NOTE,         /* something worth a log line or a counter: see cluster_note */
};

/* What happened, for logs, `covey up` and the simulator.  node, epoch and reason are set where they make sense. */
enum cluster_note {
    CLUSTER_NOTE_MEET,               /* a handshake with `node` was started */
    CLUSTER_NOTE_JOINED,             /* `node` is known now */
    CLUSTER_NOTE_FORGOTTEN,          /* `node` was deleted */
    CLUSTER_NOTE_PFAIL,              /* `node` does not answer me */
    CLUSTER_NOTE_FAIL,               /* `node` failed; reason: quorum or told */
    CLUSTER_NOTE_FAIL_CLEARED,       /* `node` is back */
    CLUSTER_NOTE_ELECTION_SCHEDULED, /* I shall stand for `node`'s place; epoch = delay in ms */
    CLUSTER_NOTE_ELECTION_STARTED,   /* I ask for votes in `epoch` */
    CLUSTER_NOTE_ELECTION_EXPIRED,   /* not enough votes in time */
    CLUSTER_NOTE_ELECTION_BLOCKED,   /* I may not stand; reason */
    CLUSTER_NOTE_PROMOTED,           /* I won `epoch` */
    CLUSTER_NOTE_VOTE_GRANTED,       /* my vote of `epoch` goes to `node` */
    CLUSTER_NOTE_VOTE_DENIED,        /* reason */
    CLUSTER_NOTE_EPOCH_COLLISION,    /* I shared my config epoch with `node` and took `epoch` */
    CLUSTER_NOTE_EPOCH_BUMPED,       /* I took `epoch` without asking */
    CLUSTER_NOTE_DEMOTED,            /* I became a replica of `node`, which took my last slot */
    CLUSTER_NOTE_REPLICA_OF,         /* I follow `node` now (operator, migration or a new primary) */
    CLUSTER_NOTE_REPLICA_MIGRATED,   /* I left my primary for the orphan `node` */
    CLUSTER_NOTE_MF_STARTED,         /* manual failover begins; reason: mode */
    CLUSTER_NOTE_MF_TIMEOUT,         /* manual failover ran out of time */
    CLUSTER_NOTE_STATE_OK,           /* the cluster is up, as I see it */
    CLUSTER_NOTE_STATE_FAIL,         /* the cluster is down; reason */
    CLUSTER_NOTE_MINORITY_HEALED,    /* I reach a majority again */
    CLUSTER_NOTE_PROBATION_BEGIN,    /* restarted as a primary: comparing with my replicas */
    CLUSTER_NOTE_PROBATION_END,      /* no replica is ahead: serving */
    CLUSTER_NOTE_YIELDING,           /* `node` is ahead and takes over */
    CLUSTER_NOTE_MUTED,              /* `node` did not take over when asked: silent until it is elected */
    CLUSTER_NOTE_EXCLUDED,           /* member `node` does not acknowledge: voters are asked not to vote for it */
    CLUSTER_NOTE_ADDRESS,            /* `node` has a new address */
    CLUSTER_NOTE_COUNT
};

/* Links are numbered: outbound ones by the core (in CLUSTER_DO_CONNECT), inbound ones by the driver, which sets the
 * top bit.  A number is never used again. */
#define CLUSTER_LINK_INBOUND (UINT64_C(1) << 63)

struct cluster_action {
    enum cluster_action_kind kind;
    enum cluster_note note;                /* NOTE */
    uint64_t link;                         /* SEND, CONNECT, CLOSE */
    uint64_t after_persist;                /* SEND */
    uint64_t seq;                          /* PERSIST */
    bool durable;                          /* PERSIST */
    uint16_t first_slot, last_slot;        /* PUBLISH_MAP */
    const struct cluster_message *message; /* SEND, DELIVER; borrowed until the next use of `out` */
    struct cluster_id node; /* REPLICATE, PROBE, YIELD, NOTE (null: none); SEND, CONNECT: the peer, if known */
    uint64_t epoch;         /* NOTE */
    int64_t until_ms;       /* PAUSE_WRITES; PROMOTE: its old primary agreed and comes back as a replica at once */
    const char *reason;     /* NOTE: a fixed text or NULL */
    uint16_t port;          /* CONNECT: bus port; REPLICATE, PROBE, YIELD: client port */
    char ip[CLUSTER_IP_SIZE + 1]; /* CONNECT, REPLICATE, PROBE, YIELD */
};

struct cluster_outgoing; /* memory behind messages; private */

/* The result of one call.  Zero-initialize once, pass to every call (each empties it first), deinit at the end. */
struct cluster_actions {
    struct cluster_action *actions;
    size_t count, cap;
    struct buf persist_text; /* of CLUSTER_DO_PERSIST */
    uint8_t delete_slots[CLUSTER_SLOT_BYTES];
    struct cluster_required required; /* as of the last step that changed it */
    struct cluster_outgoing **outgoing;
    size_t outgoing_count, outgoing_cap;
};
void cluster_actions_deinit(struct cluster_actions *out);

/* A log line for a note, without a newline; false when it is not worth one (repeated or internal). */
bool cluster_note_text(const struct cluster_action *note, struct buf *out);

/* ---- life -------------------------------------------------------------------------------------------------------- */

struct cluster_error {
    char text[256]; /* without the "ERR " prefix, NUL-terminated */
};

/* Makes a core from the text of nodes.conf (empty text: a new node with a new id).  NULL when the text is corrupt; err
 * says where.  Borrows everything until return. */
struct cluster_core *cluster_create(const struct cluster_config *config, struct bytes nodes_conf,
                                    struct cluster_time now, struct cluster_error *err);
void cluster_destroy(struct cluster_core *core);

/* What the node has in its replication history: from RDB or AOF at start, from INFO replication in a probe.
 * An id that is not known is null. */
struct cluster_history {
    struct cluster_id replid, replid2;
    uint64_t offset;       /* of the data held */
    uint64_t offset2;      /* replid2 is valid up to here (second_repl_offset) */
    uint64_t synced_epoch; /* of a replica: config epoch of the primary whose stream it had last; 0: not known */
};

/* Called once, with the dataset loaded, before the first event: adopts slots that hold keys and belong to nobody,
 * imports from the owner those that belong to another node, wires replication, begins probation. */
void cluster_start(struct cluster_core *core, const struct cluster_history *restored, struct cluster_time now,
                   struct cluster_actions *out);

/* New values of the options above (seed, dataset and plant are ignored).  Takes effect at once. */
void cluster_set_config(struct cluster_core *core, const struct cluster_config *config, struct cluster_time now,
                        struct cluster_actions *out);

/* ---- events ------------------------------------------------------------------------------------------------------ */

/* What the data side knows.  Give it before every tick; give it at once, too, when `applied_offset` moves while
 * cluster_waits_for_offset(), or anything else changes while cluster_wants_facts(). */
struct cluster_facts {
    uint64_t primary_offset;     /* as a primary: end of the change log */
    uint64_t applied_offset;     /* as a replica: applied of the primary's stream */
    bool link_up;                /* as a replica: the stream is established and in sync */
    int64_t last_interaction_ms; /* link_up: when something last came from the primary (mono) */
    int64_t link_down_since_ms;  /* !link_up: since when (mono); 0 = never synced since the process began */
    bool loading;                /* the dataset is being loaded from disk: the bus stays silent */
    /* As a primary: the replicas in sync whose node is known, and what they have acknowledged. */
    size_t ack_count;
    struct {
        struct cluster_id node;
        uint64_t offset;
    } acks[CLUSTER_MEMBERS_MAX];
};

enum cluster_event_kind {
    CLUSTER_EV_TICK,      /* every 100 ms */
    CLUSTER_EV_CONNECTED, /* outbound `link` is up */
    CLUSTER_EV_LINK_DOWN, /* `link` could not be opened, or was closed by the peer or by an error */
    CLUSTER_EV_MESSAGE,   /* message on `link` */
    CLUSTER_EV_PERSISTED, /* nodes.conf of `seq`, or newer, is durable */
    CLUSTER_EV_FACTS,     /* facts */
    CLUSTER_EV_PAUSED,    /* writers stand still; facts.primary_offset is final */
    CLUSTER_EV_PROBED,    /* node, ok, history */
    CLUSTER_EV_YIELDED,   /* node, ok: it answered +OK */
};

struct cluster_event {
    enum cluster_event_kind kind;
    uint64_t link;                         /* CONNECTED, LINK_DOWN, MESSAGE */
    bool refused;                          /* LINK_DOWN of one that never stood: nobody listens there (ECONNREFUSED) */
    uint64_t seq;                          /* PERSISTED */
    const struct cluster_message *message; /* MESSAGE; borrowed */
    const char *peer_ip, *local_ip;        /* MESSAGE: both ends of the connection, numeric; borrowed, "" = unknown */
    struct cluster_facts facts;            /* FACTS, PAUSED */
    struct cluster_id node;                /* PROBED, YIELDED */
    bool ok;                               /* PROBED, YIELDED */
    struct cluster_history history;        /* PROBED and ok */
};

void cluster_step(struct cluster_core *core, const struct cluster_event *ev, struct cluster_time now,
                  struct cluster_actions *out);

/* ---- operator commands ------------------------------------------------------------------------------------------- *
 * True: done (+OK).  False: nothing was changed and err has Redis's text, behind which the caller sees no "ERR ".
 * The reply belongs behind the persist that the call asked for, as the messages do: an operator who has read +OK goes
 * on to the next node in the belief that a crash cannot undo this one.  Arity is the caller's business; words and
 * numbers are parsed here where Redis has a text of its own for them. */

/* CLUSTER MEET ip port [bus-port]; bus_port NULL: port + 10000. */
bool cluster_meet(struct cluster_core *core, struct bytes ip, struct bytes port, const struct bytes *bus_port,
                  struct cluster_time now, struct cluster_error *err, struct cluster_actions *out);
bool cluster_forget(struct cluster_core *core, struct bytes id, struct cluster_time now, struct cluster_error *err,
                    struct cluster_actions *out);
/* ADDSLOTS, DELSLOTS: `slots` are the arguments as they came. */
bool cluster_add_slots(struct cluster_core *core, const struct bytes *slots, size_t count, struct cluster_time now,
                       struct cluster_error *err, struct cluster_actions *out);
bool cluster_del_slots(struct cluster_core *core, const struct bytes *slots, size_t count, struct cluster_time now,
                       struct cluster_error *err, struct cluster_actions *out);
/* ADDSLOTSRANGE, DELSLOTSRANGE: `bounds` are start end start end ...; count is even. */
bool cluster_add_slot_ranges(struct cluster_core *core, const struct bytes *bounds, size_t count,
                             struct cluster_time now, struct cluster_error *err, struct cluster_actions *out);
bool cluster_del_slot_ranges(struct cluster_core *core, const struct bytes *bounds, size_t count,
                             struct cluster_time now, struct cluster_error *err, struct cluster_actions *out);
bool cluster_flush_slots(struct cluster_core *core, struct cluster_time now, struct cluster_error *err,
                         struct cluster_actions *out);
/* SETSLOT slot MIGRATING|IMPORTING|NODE id, SETSLOT slot STABLE (id NULL). */
bool cluster_set_slot(struct cluster_core *core, struct bytes slot, struct bytes action, const struct bytes *id,
                      struct cluster_time now, struct cluster_error *err, struct cluster_actions *out);
bool cluster_replicate(struct cluster_core *core, struct bytes id, struct cluster_time now, struct cluster_error *err,
                       struct cluster_actions *out);
/* FAILOVER [FORCE|TAKEOVER]; mode NULL: default. */
bool cluster_failover(struct cluster_core *core, const struct bytes *mode, struct cluster_time now,
                      struct cluster_error *err, struct cluster_actions *out);
bool cluster_reset(struct cluster_core *core, bool hard, struct cluster_time now, struct cluster_error *err,
                   struct cluster_actions *out);
/* *bumped: reply +BUMPED, else +STILL; *epoch: my config epoch now. */
bool cluster_bump_epoch(struct cluster_core *core, bool *bumped, uint64_t *epoch, struct cluster_time now,
                        struct cluster_error *err, struct cluster_actions *out);
bool cluster_set_config_epoch(struct cluster_core *core, struct bytes epoch, struct cluster_time now,
                              struct cluster_error *err, struct cluster_actions *out);
/* SAVECONFIG: asks for a persist in any case. */
void cluster_save(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out);
bool cluster_count_failure_reports(struct cluster_core *core, struct bytes id, size_t *count, struct cluster_time now,
                                   struct cluster_error *err);

/* A client's PUBLISH (shard: SPUBLISH): sends to all nodes, or to the rest of this shard.  Borrows both until the
 * actions are carried out. */
void cluster_publish(struct cluster_core *core, bool shard, struct bytes channel, struct bytes payload,
                     struct cluster_time now, struct cluster_actions *out);

/* ---- questions --------------------------------------------------------------------------------------------------- */

/* My own part. */
const struct cluster_node *cluster_myself(const struct cluster_core *core);
bool cluster_is_primary(const struct cluster_core *core);
const struct cluster_node *cluster_my_primary(const struct cluster_core *core); /* NULL: I am one, or it is unknown */
bool cluster_state_ok(const struct cluster_core *core); /* cluster_state:ok; false during probation, too */
/* True while rule 16 holds this node back: nothing is served and PSYNC is answered with -NOMASTERLINK. */
bool cluster_on_probation(const struct cluster_core *core);
/* As a replica: the dataset is being replaced, so that a membership (noloss.c) says nothing any more. */
void cluster_membership_over(struct cluster_core *core);
/* The right to write (rule 18): mono ms at which it ends.  INT64_MAX: not limited (a replica, the only primary).
 *  Changes in steps only. */
int64_t cluster_lease_until(const struct cluster_core *core);
/* True while a manual failover of mine waits for applied_offset: give facts whenever it moves. */
bool cluster_waits_for_offset(const struct cluster_core *core);
/* The stream of my primary stands, and I hold its data. */
void cluster_note_synced(struct cluster_core *core);
/* Whether my primary is the one whose stream I had last, and has not been elected anew since: what I hold is what it
 * acknowledged. */
bool cluster_follows_as_before(const struct cluster_core *core);
/* The config epoch of that primary; 0: it is not so. */
uint64_t cluster_synced_epoch(const struct cluster_core *core);
/* As a replica: I stand at somebody's word (CLUSTER FAILOVER), and the time for that is not over. */
bool cluster_is_standing(const struct cluster_core *core);
/* As a replica: my primary waits for its members' acknowledgements, and I am one. */
bool cluster_is_member(const struct cluster_core *core);
/* True while something stands still until newer facts are given: that, or a membership (noloss.c) that begins. */
bool cluster_wants_facts(const struct cluster_core *core);
uint64_t cluster_current_epoch(const struct cluster_core *core);
uint64_t cluster_my_config_epoch(const struct cluster_core *core); /* of my primary, when I am a replica */
uint64_t cluster_last_vote_epoch(const struct cluster_core *core);
size_t cluster_size(const struct cluster_core *core); /* primaries with slots */

/* Slots; slot < SLOT_COUNT.  NULL: nobody, no mark. */
const struct cluster_node *cluster_slot_owner(const struct cluster_core *core, unsigned slot);
/* False when the owner's last header did not name the slot (it gave it away, and nobody has claimed it yet). */
bool cluster_slot_is_claimed(const struct cluster_core *core, unsigned slot);
const struct cluster_node *cluster_slot_migrating_to(const struct cluster_core *core, unsigned slot);
const struct cluster_node *cluster_slot_importing_from(const struct cluster_core *core, unsigned slot);

/* Nodes: index 0 .. count-1 in no particular order, stable between steps. */
size_t cluster_node_count(const struct cluster_core *core); /* myself and handshakes included */
const struct cluster_node *cluster_node_at(const struct cluster_core *core, size_t i);
const struct cluster_node *cluster_node_find(const struct cluster_core *core, const struct cluster_id *id);

struct cluster_node_view {
    struct cluster_id id;
    const char *ip;          /* borrowed until the next step, like all pointers here; "" = unknown */
    const char *hostname;    /* "" = none */
    struct cluster_id shard; /* what CLUSTER MYSHARDID says there; all of a shard agree */
    uint16_t port, pport, cport;
    unsigned flags;                     /* enum cluster_node_flag */
    const struct cluster_node *primary; /* of a replica; NULL: unknown */
    size_t replica_count;
    const uint8_t *slots; /* CLUSTER_SLOT_BYTES */
    unsigned slot_count;
    uint64_t config_epoch;
    uint64_t offset;            /* last heard; of myself: the facts'.  0: none heard (SLOTS hides such replicas) */
    int64_t ping_sent_ms;       /* mono, 0 = none pending */
    int64_t pong_received_ms;   /* mono, 0 = never */
    bool connected;             /* outbound link exists, or myself: the word in CLUSTER NODES */
    uint64_t link_out, link_in; /* 0 = none: CLUSTER LINKS */
    int64_t link_out_since_ms, link_in_since_ms; /* mono */
};
void cluster_node_view(const struct cluster_core *core, const struct cluster_node *node, struct cluster_node_view *out);
const struct cluster_node *cluster_node_replica_at(const struct cluster_node *node, size_t i);
/* "myself,master", ... as in CLUSTER NODES, appended to out. */
void cluster_flags_text(unsigned flags, struct buf *out);

/* Texts, appended to out: CLUSTER NODES (a line, without newline, for one node; all lines for everybody), CLUSTER INFO
 * (CRLF), and the file.  pport: show the plaintext port of nodes that have told it. */
void cluster_render_node(const struct cluster_core *core, const struct cluster_node *node, struct cluster_time now,
                         bool pport, struct buf *out);
void cluster_render_nodes(const struct cluster_core *core, struct cluster_time now, bool pport, struct buf *out);
void cluster_render_info(const struct cluster_core *core, struct buf *out);
void cluster_render_nodes_conf(const struct cluster_core *core, struct cluster_time now, struct buf *out);

/* Counters the driver keeps up: a frame that the codec told it to ignore, and a link over cluster-link-sendbuf-limit.
 */
void cluster_count_ignored(struct cluster_core *core, unsigned type);
void cluster_count_link_over_limit(struct cluster_core *core);

/* Walks every structure and aborts on a contradiction; for tests and the simulator. */
void cluster_check(const struct cluster_core *core);

#endif
