/* internal.h: the inside of the core.  Nothing outside this folder includes it.
 *
 * A step runs: step_begin(), the handler of the event, then step_end(), which does what handlers only asked for by
 * due flags: manual failover, election, cluster state, and at most one persist.  Handlers may thus change several
 * things in any order, and each of these is worked out once, from the final state. */
#ifndef COVEY_CLUSTER_CORE_INTERNAL_H
#define COVEY_CLUSTER_CORE_INTERNAL_H

#include "base/list.h"
#include "base/random.h"
#include "cluster/core/core.h"

enum {
    MF_LIMIT_MS = 5000,        /* a manual failover must be over after this */
    MF_PAUSE_MS = 10000,       /* writers are released after this even if nothing else happens */
    ORPHAN_DELAY_MS = 5000,    /* a primary without replicas this long attracts one */
    BLACKLIST_MS = 60000,      /* a forgotten node is not learned again from gossip for this long */
    WRITABLE_DELAY_MS = 2000,  /* a primary does not serve sooner after its start */
    REJOIN_DELAY_MIN_MS = 500, /* bounds of the wait after a minority */
    REJOIN_DELAY_MAX_MS = 5000,
    PROBE_RETRY_MS = 1000,
};
/* "Long ago": so far back that every delay since then is over, yet now - LONG_AGO does not overflow. */
#define LONG_AGO (-(INT64_C(1) << 60))
/* Above this a peer's epoch is taken for damage: adding one must never wrap. */
#define EPOCH_MAX (UINT64_C(1) << 62)

struct cluster_link {
    uint64_t id; /* 0: no link */
    struct cluster_node *node;
    struct cluster_link *next; /* in the hash chain */
    bool up;                   /* outbound: connected */
    int64_t since_ms;
};

struct failure_report {
    struct cluster_node *reporter;
    int64_t at_ms;
};

struct cluster_node {
    struct cluster_id id;
    unsigned flags;
    uint64_t config_epoch;
    char ip[CLUSTER_IP_SIZE + 1];
    uint16_t port, pport, cport;
    char hostname[CLUSTER_HOSTNAME_MAX + 1];

    struct cluster_node *primary;   /* of a replica; NULL when unknown */
    struct cluster_node **replicas; /* those whose primary is this node */
    size_t replica_count, replica_cap;

    struct cluster_link out, in;
    bool knows_extensions;   /* sent EXT_DATA once */
    bool knows_shards;       /* ... as only peers newer than 7.0 do */
    struct cluster_id shard; /* as it told, or nodes.conf; null: it told none.  Read it by shard_of() */
    bool noloss;             /* as a primary: it waits for members (noloss.c) */
    struct cluster_id
        *excluded; /* as a primary: its replicas for which I do not vote, of this incarnation and version */
    size_t excluded_count, excluded_cap;
    uint64_t excluded_of, excluded_version;
    uint64_t exclusion_confirmed; /* as a voter: this version of my exclusions */
    bool covey;                   /* its last header said so */

    /* The right to write, lease.c.  Mono ms, 0: none. */
    int64_t lease_ping_ms;     /* when the oldest ping that is not answered yet left on the present link */
    uint64_t lease_ping_epoch; /* my current epoch then */
    int64_t lease_ms;          /* when the last answered one left */
    int64_t ponged_ms;         /* when I last answered a ping of its */

    /* gone.c.  Mono ms, 0: none. */
    int64_t lost_ms;    /* when a connection that stood was closed; none has stood since */
    int64_t refused_ms; /* the first of the connections it refused since then, with nothing heard in between */
    bool gone;

    /* Mono ms.  0 means "none" for ping_sent, pong_received, offset_at, orphaned_since. */
    int64_t created_ms, ping_sent_ms, pong_received_ms, data_received_ms;
    int64_t fail_ms, voted_ms, orphaned_since_ms, offset_at_ms;
    uint64_t voted_epoch; /* of the vote at voted_ms for a replica of this node; 0: none that it has not agreed to */
    uint64_t offset;      /* last heard in a header */
    uint64_t acked_epoch; /* the last election of mine in which its vote was counted */

    struct failure_report *reports;
    size_t report_count, report_cap;

    size_t index;              /* in core->nodes */
    struct cluster_node *next; /* in the hash chain */
    struct list suspects;      /* member of core->suspects while PFAIL is set */

    unsigned slot_count;
    uint8_t slots[CLUSTER_SLOT_BYTES];
};

struct blacklisted {
    struct cluster_id id;
    int64_t until_ms;
};

/* My attempt to replace my primary. */
struct election {
    int64_t at_ms; /* when votes are (to be) asked for; LONG_AGO: none */
    uint64_t epoch;
    unsigned votes, rank;
    size_t needed; /* a majority, when they were asked for */
    bool sent, sealed, expired_noted;
    const char *blocked; /* last reason noted */
};

/* Manual failover, both sides. */
struct manual {
    int64_t end_ms; /* 0: none */
    /* primary side */
    struct cluster_node *replica;
    uint64_t reply_link; /* the connection MFSTART came in on */
    bool paused;         /* writers stand still, the offset is final */
    /* replica side */
    bool unasked; /* MFSTART waits for the connection to the primary */
    bool offset_known, can_start;
    uint64_t offset;
};

/* A replica whose acknowledgement my writes need. */
struct noloss_member {
    struct cluster_id node;
    uint64_t granted_epoch; /* of the last GRANT; 0: none */
    bool confirmed;         /* that one */
    bool is_new;            /* no facts have come since it counts: GRANT would name too early an end of the log */
    bool leaving;           /* voters are asked to exclude it */
    uint64_t leave_version;
    uint64_t mark; /* where the log ended when it had acknowledged the mark before ... */
    int64_t mark_ms;
    int64_t asked_ms; /* last GRANT */
};

struct noloss {
    /* the primary */
    bool on;
    uint64_t incarnation, version, told_version;
    int64_t told_ms;
    uint64_t last_offset; /* end of the log at the last tick */
    struct noloss_member members[CLUSTER_MEMBERS_MAX];
    size_t count;
    struct cluster_id excluded[CLUSTER_MEMBERS_MAX];
    size_t excluded_count;
    /* the replica: member of `primary` in `epoch`, incarnation `of`, once it has applied `join` */
    bool valid;
    struct cluster_id primary;
    uint64_t epoch, of, join;
    bool owed;          /* the CONFIRM is still to be sent */
    bool known;         /* the primary knows of me ... */
    int64_t follows_ms; /* ... as its replica since then */
};

enum probation_state { PROBATION_NONE, PROBATION_PROBING, PROBATION_YIELDING, PROBATION_MUTED };

struct probe {
    struct cluster_id node;
    bool answered, gone; /* gone: not my replica any more */
    int64_t asked_ms;
    struct cluster_history history;
};

struct probation {
    enum probation_state state;
    int64_t until_ms; /* end of the present state */
    struct cluster_history mine;
    struct cluster_id ahead; /* to whom this node yields */
    struct probe *probes;
    size_t count;
};

enum due {
    DUE_STATE = 1,
    DUE_SAVE = 2,
    DUE_VITAL = 4, /* save, and let no message out before it is durable */
    DUE_MAP = 8,
    DUE_ELECTION = 16,
    DUE_MANUAL = 32,
    DUE_ADDRESS = 64, /* wire replication again */
    DUE_LEASE = 128,
    DUE_MAP_SLOTS = 256, /* only of the slots map_first to map_last */
};

struct cluster_core {
    struct cluster_config config;
    struct random random;
    struct cluster_time now;
    struct cluster_actions *out;
    unsigned due;
    unsigned map_first, map_last; /* with DUE_MAP_SLOTS */

    struct cluster_node *myself;
    struct cluster_node **nodes;
    size_t node_count, node_cap;
    struct cluster_node **node_table; /* by id */
    struct cluster_link **link_table; /* by link id; same number of buckets */
    size_t table_size;                /* a power of two */
    struct list suspects;             /* PFAIL nodes */
    uint64_t next_link;

    struct cluster_node *owner[SLOT_COUNT];
    struct cluster_node **migrating, **importing; /* NULL until the first mark */
    unsigned slots_assigned;
    unsigned not_claiming_count; /* bits set in the next */
    uint8_t owner_not_claiming[CLUSTER_SLOT_BYTES];

    uint64_t current_epoch, last_vote_epoch;
    uint64_t persist_seq, persisted_seq, vital_seq;
    uint64_t serve_after_seq; /* a promotion serves nobody before this is durable */

    bool state_ok, minority;
    const char *state_reason; /* why not ok */
    size_t size;
    bool size_stale;
    int64_t lease_until;
    int64_t first_evaluation_ms, minority_ms, last_tick_ms, started_ms;
    int64_t cut_off_ms; /* last seen in a minority of primaries that have slots */

    struct election election;
    struct noloss noloss;
    struct manual manual;
    struct probation probation;
    struct cluster_facts facts;
    struct cluster_id synced_with; /* the primary whose stream stood last (null: none), */
    uint64_t synced_epoch;         /* and its config epoch while it stood */
    struct {
        struct cluster_id node;
        char ip[CLUSTER_IP_SIZE + 1];
        uint16_t port;
        bool valid;
    } wired; /* the last CLUSTER_DO_REPLICATE */

    struct blacklisted *blacklist;
    size_t blacklist_count, blacklist_cap;

    unsigned tick_number;
    uint64_t sent[CLUSTER_TYPE_COUNT], received[CLUSTER_TYPE_COUNT], links_over_limit;
};

/* Grows *array of elements of `size` so that it holds `need`. */
#define GROW(array, cap, need)                                       \
    do {                                                             \
        if ((need) > (cap)) {                                        \
            (cap) = (cap) ? (cap)*2 : 8;                             \
            if ((cap) < (need)) (cap) = (need);                      \
            (array) = mem_realloc((array), (cap) * sizeof *(array)); \
        }                                                            \
    } while (0)

/* actions.c */
void step_begin(struct cluster_core *core, struct cluster_time now, struct cluster_actions *out);
void step_end(struct cluster_core *core);
/* The published map is to show this slot anew. */
void map_slot(struct cluster_core *core, unsigned slot);
struct cluster_action *act(struct cluster_core *core, enum cluster_action_kind kind);
void note(struct cluster_core *core, enum cluster_note what, const struct cluster_node *node, uint64_t epoch,
          const char *reason);
/* Sets err->text, returns false. */
bool fail_with(struct cluster_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A message to be filled and sent; memory belongs to core->out. */
struct cluster_outgoing {
    struct cluster_message m;
    struct cluster_gossip *gossip;
    size_t gossip_cap;
    uint8_t slots[CLUSTER_SLOT_BYTES], update_slots[CLUSTER_SLOT_BYTES];
    char payload[32 + CLUSTER_MEMBERS_MAX * CLUSTER_ID_SIZE];
};
struct cluster_outgoing *outgoing_new(struct cluster_actions *out);

/* node.c */
struct cluster_node *node_create(struct cluster_core *core, const struct cluster_id *id, unsigned flags);
void node_delete(struct cluster_core *core, struct cluster_node *node);
struct cluster_node *node_find(const struct cluster_core *core, const struct cluster_id *id);
void node_rename(struct cluster_core *core, struct cluster_node *node, const struct cluster_id *id);
struct cluster_id node_random_id(struct cluster_core *core);
/* Parent of a replica; NULL detaches.  Keeps MIGRATE_TO of both parents right. */
void node_set_primary(struct cluster_core *core, struct cluster_node *node, struct cluster_node *primary);
void node_make_primary(struct cluster_core *core, struct cluster_node *node);
void node_make_replica(struct cluster_core *core, struct cluster_node *node);
void node_set_flags(struct cluster_core *core, struct cluster_node *node, unsigned set, unsigned clear);
size_t node_working_replicas(const struct cluster_node *node, unsigned bad_flags);
bool node_is_primary(const struct cluster_node *node);
bool node_is_replica(const struct cluster_node *node);
/* Myself, or my primary when I have one. */
struct cluster_node *my_shard_primary(const struct cluster_core *core);

void link_open(struct cluster_core *core, struct cluster_node *node);
void link_bind_inbound(struct cluster_core *core, struct cluster_node *node, uint64_t id);
struct cluster_link *link_find(const struct cluster_core *core, uint64_t id);
void link_forget(struct cluster_core *core, struct cluster_link *link); /* gone already */
void link_close(struct cluster_core *core, struct cluster_link *link);  /* forget, and tell the driver to close */

bool blacklist_has(struct cluster_core *core, const struct cluster_id *id);
void blacklist_add(struct cluster_core *core, const struct cluster_id *id);

/* send.c */
bool bus_silent(const struct cluster_core *core);
void send_ping_type(struct cluster_core *core, uint64_t link, struct cluster_node *node,
                    enum cluster_message_type type);
void send_pong(struct cluster_core *core, uint64_t link, struct cluster_node *node, bool no_lease);
void send_ping(struct cluster_core *core, struct cluster_node *node); /* on its outbound link; starts ping_sent */
enum pong_targets { PONG_TO_ALL, PONG_TO_SHARD };
void broadcast_pong(struct cluster_core *core, enum pong_targets targets);
void broadcast_fail(struct cluster_core *core, const struct cluster_node *failed);
void broadcast_auth_request(struct cluster_core *core);
/* payload: at most sizeof cluster_outgoing.payload; copied. */
void send_module(struct cluster_core *core, struct cluster_node *node, uint64_t module, uint8_t type,
                 struct bytes payload);
void send_simple(struct cluster_core *core, struct cluster_node *node, enum cluster_message_type type);
void send_update(struct cluster_core *core, struct cluster_node *to, const struct cluster_node *about);

/* receive.c, gossip.c */
void receive(struct cluster_core *core, const struct cluster_event *ev);
void receive_gossip(struct cluster_core *core, const struct cluster_message *m, struct cluster_node *sender);
void gossip_fill(struct cluster_core *core, struct cluster_outgoing *o);

/* slots.c */
void slot_assign(struct cluster_core *core, unsigned slot, struct cluster_node *owner); /* NULL: nobody */
void slots_unassign_all(struct cluster_core *core, struct cluster_node *node);
void slots_drop_marks(struct cluster_core *core, const struct cluster_node *of); /* NULL: all */
void slot_set_migrating(struct cluster_core *core, unsigned slot, struct cluster_node *to);
void slot_set_importing(struct cluster_core *core, unsigned slot, struct cluster_node *from);
void slots_take_claim(struct cluster_core *core, struct cluster_node *sender, uint64_t epoch, const uint8_t *claim);
void slots_claim_unchanged(struct cluster_core *core, struct cluster_node *sender);
void slots_notify_stale(struct cluster_core *core, struct cluster_node *sender, const struct cluster_message *m);
bool slot_unclaimed(const struct cluster_core *core, unsigned slot); /* no owner, or one that does not claim it */
uint64_t slot_keys(const struct cluster_core *core, unsigned slot);
void slots_startup_check(struct cluster_core *core);
size_t size_now(struct cluster_core *core); /* primaries with slots */

/* epoch.c */
void epoch_raise(struct cluster_core *core, uint64_t seen);
bool epoch_bump(struct cluster_core *core);
void epoch_collision(struct cluster_core *core, const struct cluster_node *sender, uint64_t epoch);

/* role.c */
void become_replica_of(struct cluster_core *core, struct cluster_node *primary);
void promote_myself(struct cluster_core *core);
void wire_replication(struct cluster_core *core);

/* shard.c */
/* The shard's id, which a failover does not change.  A replica is in its primary's; one whose primary tells none (Redis
 * 7.0) is called by the primary's node id. */
struct cluster_id shard_of(const struct cluster_node *node);
void shard_new(struct cluster_core *core);    /* myself: a shard of my own */
void shard_follow(struct cluster_core *core); /* myself, a replica: keep my primary's, for the time without it */
void shard_take(struct cluster_core *core, struct cluster_node *sender, const struct cluster_message *m);
/* What kind of peer speaks; called for each message with EXT_DATA. */
void shard_note_extensions(struct cluster_node *sender, const struct cluster_message *m);

/* failure.c */
bool report_add(struct cluster_core *core, struct cluster_node *node, struct cluster_node *reporter);
bool report_remove(struct cluster_node *node, const struct cluster_node *reporter);
size_t reports_valid(struct cluster_core *core, struct cluster_node *node);
void failure_try_quorum(struct cluster_core *core, struct cluster_node *node);
void failure_suspect(struct cluster_core *core, struct cluster_node *node, const char *why);
void failure_set(struct cluster_core *core, struct cluster_node *node, const char *reason);
void failure_heard_pong(struct cluster_core *core, struct cluster_node *node);

/* gone.c */
void gone_link_lost(struct cluster_core *core, struct cluster_node *node); /* a connection that stood was closed */
void gone_connected(struct cluster_node *node);
void gone_refused(struct cluster_core *core, struct cluster_node *node);
void gone_cancel(struct cluster_node *node); /* heard of, or out of reach */

/* state.c */
void state_update(struct cluster_core *core);
bool state_is_rejoining(const struct cluster_core *core); /* in a minority, or a short time ago */
void state_lost_time(struct cluster_core *core); /* this process stood still for longer than the node timeout */

/* election.c */
int64_t election_vote_counts_ms(const struct cluster_core *core); /* how long an answer to a request may decide it */
void election_run(struct cluster_core *core);
void election_count_vote(struct cluster_core *core, struct cluster_node *sender, const struct cluster_message *m);
void election_vote(struct cluster_core *core, struct cluster_node *sender, const struct cluster_message *m);

/* lease.c */
void lease_ping_sent(struct cluster_core *core, struct cluster_node *node);
void lease_on_pong(struct cluster_core *core, struct cluster_node *node, const struct cluster_message *m);
void lease_on_ping(struct cluster_core *core, struct cluster_node *sender);
void lease_drop(struct cluster_core *core, struct cluster_node *node); /* a link with it is gone */
void lease_update(struct cluster_core *core);
bool lease_needs_ping(const struct cluster_core *core, const struct cluster_node *node);
void lease_refresh(struct cluster_core *core);
/* Whether an answer to the node, whose header m was, is no support for its right to write. */
bool lease_is_refused(const struct cluster_core *core, const struct cluster_node *node,
                      const struct cluster_message *m);
/* Why I may not vote for a replica of p yet; NULL: I may. */
const char *lease_why_no_vote(const struct cluster_core *core, const struct cluster_node *p);

/* noloss.c */
void noloss_update(struct cluster_core *core);
void noloss_tick(struct cluster_core *core);
void noloss_promoted(struct cluster_core *core);
void noloss_demoted(struct cluster_core *core);
void noloss_facts(struct cluster_core *core); /* new ones are there */
void noloss_on_pong(struct cluster_core *core, const struct cluster_node *node, int64_t sent_ms);
void noloss_receive(struct cluster_core *core, struct cluster_node *sender, const struct cluster_message *m);
const char *noloss_why_not_stand(const struct cluster_core *core, bool forced); /* NULL: I may */
bool noloss_is_excluded(const struct cluster_core *core, const struct cluster_node *p, const struct cluster_node *who);

/* manual.c */
void manual_reset(struct cluster_core *core);
void manual_check_timeout(struct cluster_core *core);
void manual_run(struct cluster_core *core);
void manual_on_mfstart(struct cluster_core *core, struct cluster_node *sender, uint64_t link);
void manual_on_header(struct cluster_core *core, struct cluster_node *sender, const struct cluster_message *m);
void manual_on_paused(struct cluster_core *core);
void manual_on_connected(struct cluster_core *core, const struct cluster_node *node);

/* migration.c */
void migration_run(struct cluster_core *core);

/* probation.c */
void probation_begin(struct cluster_core *core, const struct cluster_history *restored);
void probation_end(struct cluster_core *core);
void probation_tick(struct cluster_core *core);
void probation_on_probed(struct cluster_core *core, const struct cluster_event *ev);
void probation_on_yielded(struct cluster_core *core, const struct cluster_event *ev);

/* tick.c */
void tick(struct cluster_core *core);

/* nodesconf.c */
bool nodesconf_parse(struct cluster_core *core, struct bytes text, struct cluster_error *err);
int64_t wall_of(const struct cluster_core *core, struct cluster_time now, int64_t mono_ms);

#endif
