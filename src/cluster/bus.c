/* bus.c: the cluster's thread: sockets and time around the core.
 *
 *   peers' bytes -> frame -> codec -> cluster_step() -> actions -> link queues, acts, map
 *
 * A link's queue is a list of frames in order; it stops at a frame whose nodes.conf is not durable yet. */
#include "cluster/cluster.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "cluster/codec.h"
#include "cluster/nodes_file.h"
#include "cluster/peer.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TICK_MS = 100, READ_ROOM = 64 * 1024, LINK_BUCKETS = 1024, LISTENERS_MAX = 17, ACCEPTS_A_TURN = 1000 };
enum { SYNC_AFTER_S = 1 }; /* what nobody has to wait for is durable by then */

/* A message of a client on its way out; its bytes are shared by the frames to all peers. */
struct publication {
    struct mail mail;
    struct cluster *cluster;
    bool shard;
    size_t refs; /* of the cluster's thread, from its delivery on */
    size_t channel_n, n;
    char data[]; /* the channel, then the payload */
};

struct frame {
    struct frame *next;
    uint64_t after_persist;
    struct publication *body; /* NULL, or what follows the data */
    size_t n, at;             /* of both together; sent */
    size_t head;              /* bytes of data */
    char data[];
};

struct link {
    struct loop_source src;
    struct cluster *cluster;
    struct list hash_link;
    uint64_t id;
    bool connecting;
    bool refused;            /* the other end said that nobody listens */
    struct tls_session *tls; /* NULL: plain; until it is established nothing is read or written */
    int64_t made_ms;
    struct buf in;
    size_t in_counted; /* of its memory, in links_memory */
    struct frame *out, **out_last;
    size_t out_bytes;
    char peer_ip[NET_ADDRESS_MAX], local_ip[NET_ADDRESS_MAX];
};

struct listener {
    struct loop_source src;
    struct cluster *cluster;
};

/* Texts that wait to be written to nodes.conf; only the newest counts. */
struct writer {
    pthread_t thread;
    pthread_mutex_t mu;
    pthread_cond_t wake, idle;
    pthread_cond_t written_now;
    struct buf text;        /* under mu */
    uint64_t seq;           /* under mu: of text; 0: none */
    uint64_t written;       /* under mu: in the file, or, if that was asked for, on the disk */
    bool durable;           /* under mu: text has to be */
    bool busy;              /* under mu */
    bool unsynced;          /* under mu: what is written is not all on the disk */
    struct nodes_file file; /* the writer's thread, after the start */
};

struct cluster {
    struct cluster_host host;
    struct cluster_core *core;  /* the cluster's thread, after the start */
    struct cluster_actions out; /* the same */
    struct cluster_decoder decoder;
    struct loop *loop;
    struct loop_timer timer;
    pthread_t thread;
    _Atomic bool started;     /* the thread runs */
    pthread_mutex_t early_mu; /* whoever uses the core before that */
    struct listener listeners[LISTENERS_MAX];
    int listener_count;
    struct list links[LINK_BUCKETS];
    uint64_t next_inbound;
    uint64_t persisted;              /* newest durable nodes.conf */
    uint64_t last_saved;             /* newest that the writer was given */
    _Atomic int64_t node_timeout_ms; /* set by any thread */
    _Atomic int drop_type;           /* the same; -1: none */
    int handshakes;                  /* steps of TLS handshakes in this turn */
    struct writer writer;
    struct buf encode;
    struct publication *publishing; /* whose sending is being carried out */
    uint64_t reading;               /* the link whose frame is being handled; 0: none */
    struct buf kept;                /* its input, if the link was freed meanwhile: the frame's actions point into it */

    /* published */
    _Atomic uint8_t slot_state[SLOT_COUNT];
    _Atomic bool ok, primary;
    _Atomic int64_t lease_until; /* monotonic; INT64_MAX: not limited */
    _Atomic uint64_t synced_epoch;
    _Atomic size_t links_memory, messages_waiting;
    pthread_mutex_t map_mu;                         /* order: after the slots; nothing is taken under it */
    struct cluster_endpoint *nodes;                 /* under map_mu */
    size_t node_cap;                                /* under map_mu */
    uint16_t owner[SLOT_COUNT], target[SLOT_COUNT]; /* under map_mu; index in nodes + 1, 0: none */
    _Atomic bool poked;
};

static struct cluster_time now(void)
{
    return (struct cluster_time){clock_mono_ms(), clock_wall_ms()};
}

static void carry_out(struct cluster *c);
static void give_facts(struct cluster *c);

static void step(struct cluster *c, const struct cluster_event *ev)
{
    cluster_step(c->core, ev, now(), &c->out);
    carry_out(c);
}

/* ---- links ---- */

static void link_ready(struct loop_source *src, int events);

static struct link *link_find(struct cluster *c, uint64_t id)
{
    list_each(it, &c->links[id % LINK_BUCKETS])
    {
        struct link *l = container_of(it, struct link, hash_link);
        if (l->id == id) return l;
    }
    return NULL;
}

static void link_count_memory(struct cluster *c, size_t add, size_t remove)
{
    atomic_fetch_add_explicit(&c->links_memory, add - remove, memory_order_relaxed);
}

static void link_count_input(struct link *l)
{
    link_count_memory(l->cluster, l->in.cap, l->in_counted);
    l->in_counted = l->in.cap;
}

static struct link *link_new(struct cluster *c, int fd, uint64_t id)
{
    struct link *l = mem_calloc(1, sizeof *l);
    l->src = (struct loop_source){.fd = fd, .ready = link_ready};
    l->cluster = c;
    l->id = id;
    l->made_ms = clock_mono_ms();
    l->out_last = &l->out;
    list_push_back(&c->links[id % LINK_BUCKETS], &l->hash_link);
    link_count_memory(c, sizeof *l, 0);
    return l;
}

static void publication_unref(struct publication *p)
{
    if (p && --p->refs == 0) mem_free(p);
}

static void frame_free(struct frame *f)
{
    publication_unref(f->body);
    mem_free(f);
}

static void link_free(struct link *l)
{
    int fd = l->src.fd;
    loop_remove(l->cluster->loop, &l->src);
    tls_close(l->tls);
    if (fd >= 0) close(fd);
    list_remove(&l->hash_link);
    link_count_memory(l->cluster, 0, sizeof *l + l->in_counted + l->out_bytes);
    while (l->out) {
        struct frame *f = l->out;
        l->out = f->next;
        frame_free(f);
    }
    if (l->id == l->cluster->reading)
        l->cluster->kept = l->in;
    else
        buf_deinit(&l->in);
    mem_free(l);
}

/* The link is gone by itself: the core is told. */
static void link_lost(struct link *l)
{
    struct cluster *c = l->cluster;
    uint64_t id = l->id;
    bool refused = l->refused;
    link_free(l);
    step(c, &(struct cluster_event){.kind = CLUSTER_EV_LINK_DOWN, .link = id, .refused = refused});
}

/* What to wait for; TLS may need more. */
static void link_set_events(struct link *l, int events)
{
    loop_set(l->cluster->loop, &l->src, l->tls ? tls_events(l->tls, events) : events);
}

static bool link_is_open(const struct link *l)
{
    return !l->connecting && (!l->tls || tls_established(l->tls));
}

/* Sends what may leave.  False: the connection is broken. */
static bool link_flush(struct link *l)
{
    struct cluster *c = l->cluster;
    if (!link_is_open(l)) return true;
    while (l->out && l->out->after_persist <= c->persisted) {
        struct frame *f = l->out;
        size_t put = 0;
        struct bytes rest = f->at < f->head ? bytes_make(f->data + f->at, f->head - f->at)
                                            : bytes_make(f->body->data + (f->at - f->head), f->n - f->at);
        enum status st = rest.n ? stream_write(l->src.fd, l->tls, rest.p, rest.n, &put) : OK;
        if (st == E_IO) return false;
        f->at += put;
        if (st == OK && put == rest.n && f->at < f->n) continue; /* the body */
        if (f->at < f->n) {
            link_set_events(l, NET_READ | NET_WRITE);
            return true;
        }
        l->out = f->next;
        if (!l->out) l->out_last = &l->out;
        l->out_bytes -= sizeof *f + f->n;
        link_count_memory(c, 0, sizeof *f + f->n);
        frame_free(f);
    }
    link_set_events(l, NET_READ);
    return true;
}

/* Counts the body with every link: that is what would have to be sent, whoever shares the memory. */
static void link_queue(struct link *l, struct bytes data, struct publication *body, uint64_t after_persist)
{
    struct frame *f = mem_alloc(sizeof *f + data.n);
    *f = (struct frame){
        .after_persist = after_persist, .body = body, .n = data.n + (body ? body->n : 0), .head = data.n};
    if (body) body->refs++;
    memcpy(f->data, data.p, data.n);
    *l->out_last = f;
    l->out_last = &f->next;
    l->out_bytes += sizeof *f + f->n;
    link_count_memory(l->cluster, sizeof *f + f->n, 0);
}

static void link_learn_addresses(struct link *l)
{
    int port;
    net_peer_ip(l->src.fd, l->peer_ip, &port);
    net_local_ip(l->src.fd, l->local_ip, &port);
}

/* One whole frame.  The link may be gone afterwards. */
static void link_frame(struct link *l, struct bytes frame)
{
    struct cluster *c = l->cluster;
    struct cluster_message m;
    if (cluster_decode(&c->decoder, frame, &m) != OK ||
        m.type == atomic_load_explicit(&c->drop_type, memory_order_relaxed)) {
        cluster_count_ignored(c->core, m.type);
        return;
    }
    step(c,
         &(struct cluster_event){
             .kind = CLUSTER_EV_MESSAGE, .link = l->id, .message = &m, .peer_ip = l->peer_ip, .local_ip = l->local_ip});
    /* What the message asks for may have been reached already, and then nothing else would tell. */
    if (cluster_wants_facts(c->core)) give_facts(c);
}

/* Takes whole frames off the buffer.  False: not the protocol. */
static bool link_take_frames(struct cluster *c, uint64_t id)
{
    struct link *l;
    size_t pos = 0, length;
    enum status st = E_AGAIN;
    c->reading = id;
    while ((l = link_find(c, id))) {
        struct bytes have = bytes_make(l->in.p + pos, l->in.n - pos);
        st = have.n ? cluster_frame_length(have, &length) : E_AGAIN;
        if (st != OK || have.n < length) break;
        link_frame(l, bytes_make(have.p, length));
        pos += length;
    }
    c->reading = 0;
    buf_deinit(&c->kept);
    if (!l) return true; /* closed while its frames were handled */
    buf_drop_front(&l->in, pos);
    if (l->in.n == 0 && l->in.cap > 4 * READ_ROOM) buf_deinit(&l->in);
    link_count_input(l);
    return st == OK || st == E_AGAIN;
}

static void link_read(struct link *l)
{
    struct cluster *c = l->cluster;
    size_t got;
    if (buf_try_reserve(&l->in, READ_ROOM) != OK) {
        link_lost(l);
        return;
    }
    link_count_input(l);
    enum status st = stream_read(l->src.fd, l->tls, &l->in, READ_ROOM, &got);
    if (l->tls) {
        if (tls_has_more(l->tls)) loop_again(c->loop, &l->src);
        link_set_events(l, l->out ? NET_READ | (l->src.events & NET_WRITE) : NET_READ);
    }
    if (st == E_AGAIN) return;
    uint64_t id = l->id;
    bool good = st == OK && link_take_frames(c, id);
    l = link_find(c, id);
    if (!good && l) {
        if (st == OK) log_warning("Closing a cluster bus link with %s: it does not speak the protocol", l->peer_ip);
        link_lost(l);
    }
}

static void link_connected(struct link *l)
{
    struct cluster *c = l->cluster;
    l->connecting = false;
    link_set_events(l, NET_READ);
    link_learn_addresses(l);
    step(c, &(struct cluster_event){.kind = CLUSTER_EV_CONNECTED, .link = l->id});
}

/* Goes on with the handshake.  True: it is over, and the link can be used. */
static bool link_shake_hands(struct link *l)
{
    if (++l->cluster->handshakes > TLS_HANDSHAKES_A_TURN) return false; /* the socket stays ready: in the next turn */
    enum status st = tls_handshake(l->tls);
    if (st == OK) {
        if (l->connecting)
            link_connected(l);
        else
            link_set_events(l, NET_READ);
        return true;
    }
    if (st == E_AGAIN) {
        link_set_events(l, 0);
        return false;
    }
    log_verbose("TLS handshake on a cluster bus link with %s failed: %s", l->peer_ip, tls_error(l->tls));
    link_lost(l);
    return false;
}

/* The TCP connection stands, or does not. */
static void link_connect_ready(struct link *l, int events)
{
    struct tls *tls = l->cluster->host.tls(l->cluster->host.ctx);
    int error = net_connect_error(l->src.fd);
    if (error != 0) {
        l->refused = error == ECONNREFUSED;
        link_lost(l);
    } else if (events & NET_WRITE && !tls) {
        link_connected(l);
    } else if (events & NET_WRITE) {
        link_learn_addresses(l);
        l->tls = tls_connect(tls, l->src.fd);
        if (l->tls)
            (void)link_shake_hands(l);
        else
            link_lost(l);
    }
}

static void link_ready(struct loop_source *src, int events)
{
    struct link *l = container_of(src, struct link, src);
    struct cluster *c = l->cluster;
    uint64_t id = l->id;
    if (l->connecting && !l->tls) {
        link_connect_ready(l, events);
        return;
    }
    if (!link_is_open(l)) {
        if (!link_shake_hands(l) || link_find(c, id) != l) return;
        events = NET_READ | NET_WRITE; /* frames may have come with the end of the handshake */
    } else if (l->tls) {
        events = tls_ready(l->tls, events);
    }
    if (events & NET_WRITE && !link_flush(l)) {
        link_lost(l);
        return;
    }
    if (events & NET_READ && link_find(c, id) == l) link_read(l);
}

static void accept_ready(struct loop_source *src, int events)
{
    struct cluster *c = container_of(src, struct listener, src)->cluster;
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int fd = net_accept(src->fd);
        if (fd < 0) return;
        net_set_nodelay(fd);
        net_set_keepalive(fd, (int)(c->node_timeout_ms / 1000 * 2));
        struct tls *tls = c->host.tls(c->host.ctx);
        struct link *l = link_new(c, fd, CLUSTER_LINK_INBOUND | ++c->next_inbound);
        link_learn_addresses(l);
        if (tls && !(l->tls = tls_accept(tls, fd, true)))
            link_free(l);
        else if (loop_add(c->loop, &l->src, NET_READ) != OK)
            link_free(l);
    }
}

/* ---- actions ---- */

static void do_connect(struct cluster *c, const struct cluster_action *a)
{
    char source[NET_ADDRESS_MAX];
    c->host.source(c->host.ctx, source);
    int fd = net_connect(a->ip, a->port, source), error = fd < 0 ? errno : 0;
    struct link *l = link_new(c, fd, a->link);
    l->connecting = true;
    l->refused = error == ECONNREFUSED;
    if (fd >= 0) {
        net_set_nodelay(fd);
        if (loop_add(c->loop, &l->src, NET_WRITE) == OK) return;
    }
    /* The core hears of it in a step of its own, not inside this one. */
    l->src.fd = fd;
}

static void do_send(struct cluster *c, const struct cluster_action *a)
{
    struct link *l = link_find(c, a->link);
    if (!l) return;
    struct publication *body = NULL;
    c->encode.n = 0;
    if (a->message->type == CLUSTER_PUBLISH || a->message->type == CLUSTER_PUBLISHSHARD) {
        body = c->publishing;
        cluster_encode_head(a->message, &c->encode);
    } else {
        cluster_encode(a->message, &c->encode);
    }
    link_queue(l, buf_bytes(&c->encode), body, a->after_persist);
}

static void do_persist(struct cluster *c, uint64_t seq, bool durable)
{
    struct writer *w = &c->writer;
    pthread_mutex_lock(&w->mu);
    w->text.n = 0;
    buf_append_bytes(&w->text, buf_bytes(&c->out.persist_text));
    w->seq = c->last_saved = seq;
    w->durable |= durable;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->mu);
}

static size_t published_index(struct cluster *c, const struct cluster_node *node)
{
    if (!node) return 0;
    size_t count = cluster_node_count(c->core);
    for (size_t i = 0; i < count; i++)
        if (cluster_node_at(c->core, i) == node) return i + 1;
    return 0;
}

static void publish_nodes(struct cluster *c)
{
    size_t count = cluster_node_count(c->core);
    if (count > c->node_cap) {
        c->node_cap = count + 16;
        c->nodes = mem_realloc(c->nodes, c->node_cap * sizeof *c->nodes);
    }
    for (size_t i = 0; i < count; i++) {
        struct cluster_node_view v;
        cluster_node_view(c->core, cluster_node_at(c->core, i), &v);
        struct cluster_endpoint *e = &c->nodes[i];
        snprintf(e->ip, sizeof e->ip, "%s", v.ip);
        snprintf(e->hostname, sizeof e->hostname, "%s", v.hostname);
        e->port = v.port;
        e->pport = v.pport;
    }
}

static void publish_map(struct cluster *c, unsigned first, unsigned last_slot)
{
    const struct cluster_node *me = cluster_myself(c->core), *primary = cluster_my_primary(c->core);
    const struct cluster_node *last = NULL;
    size_t last_index = 0;
    uint8_t lost[CLUSTER_SLOT_BYTES] = {0};
    bool any_lost = false;
    pthread_mutex_lock(&c->map_mu);
    publish_nodes(c);
    for (unsigned slot = first; slot <= last_slot; slot++) {
        const struct cluster_node *owner = cluster_slot_owner(c->core, slot);
        const struct cluster_node *to = cluster_slot_migrating_to(c->core, slot);
        if (owner != last) {
            last = owner;
            last_index = published_index(c, owner);
        }
        c->owner[slot] = (uint16_t)last_index;
        c->target[slot] = to ? (uint16_t)published_index(c, to) : 0;
        unsigned state = owner ? SLOT_ASSIGNED : 0;
        if (owner == me) state |= SLOT_MINE;
        if (owner && owner == primary) state |= SLOT_OF_MY_PRIMARY;
        if (to) state |= SLOT_MIGRATING;
        if (cluster_slot_importing_from(c->core, slot)) state |= SLOT_IMPORTING;
        unsigned before = cluster_slot_state(c, slot);
        if (before & (SLOT_MINE | SLOT_OF_MY_PRIMARY) && !(state & (SLOT_MINE | SLOT_OF_MY_PRIMARY))) {
            cluster_bit_set(lost, slot);
            any_lost = true;
        }
        atomic_store_explicit(&c->slot_state[slot], (uint8_t)state, memory_order_release);
    }
    pthread_mutex_unlock(&c->map_mu);
    atomic_store(&c->ok, cluster_state_ok(c->core));
    atomic_store(&c->primary, cluster_is_primary(c->core));
    c->host.probation(c->host.ctx, cluster_on_probation(c->core));
    if (any_lost) c->host.slots_lost(c->host.ctx, lost);
    c->host.map_changed(c->host.ctx);
}

/* When it ends earlier this is said before anything else of the step is carried out, and when it lasts longer behind
 * it: a node that loses its last slot has no limit from then on, and is not to be taken for a primary any more. */
static void publish_lease(struct cluster *c, bool raise)
{
    int64_t until = cluster_lease_until(c->core), before = atomic_load_explicit(&c->lease_until, memory_order_relaxed);
    if (until == before || (until > before) != raise) return;
    atomic_store(&c->lease_until, until);
    if (raise) c->host.lease_moved(c->host.ctx);
}

uint64_t cluster_synced_epoch_now(const struct cluster *c)
{
    return atomic_load(&c->synced_epoch);
}

static void act(struct cluster *c, enum cluster_act_kind kind, const struct cluster_action *a)
{
    struct cluster_act *x = mem_calloc(1, sizeof *x);
    x->kind = kind;
    x->until_ms = a->until_ms;
    x->port = a->port;
    memcpy(x->ip, a->ip, sizeof x->ip);
    if (kind == CLUSTER_ACT_DELETE_KEYS) memcpy(x->slots, c->out.delete_slots, sizeof x->slots);
    c->host.act(c->host.ctx, x);
}

struct answer_mail {
    struct mail mail;
    struct cluster *cluster;
    struct cluster_event event;
};

static void deliver_answer(struct mail *m)
{
    struct answer_mail *a = container_of(m, struct answer_mail, mail);
    step(a->cluster, &a->event);
    mem_free(a);
}

static void answered(struct peer_question *q, bool ok, const struct cluster_history *history)
{
    struct cluster *c = q->ctx;
    struct answer_mail *a = mem_calloc(1, sizeof *a);
    a->mail.deliver = deliver_answer;
    a->cluster = c;
    a->event = (struct cluster_event){
        .kind = q->yield ? CLUSTER_EV_YIELDED : CLUSTER_EV_PROBED, .node = q->node, .ok = ok, .history = *history};
    peer_question_free(q);
    loop_post(c->loop, &a->mail);
}

static void ask_peer(struct cluster *c, const struct cluster_action *a, bool yield)
{
    struct peer_question *q = mem_calloc(1, sizeof *q);
    q->node = a->node;
    q->port = a->port;
    q->timeout_ms = c->node_timeout_ms / 2 > 250 ? c->node_timeout_ms / 2 : 250;
    q->yield = yield;
    q->tls = c->host.tls(c->host.ctx);
    q->ctx = c;
    q->answered = answered;
    memcpy(q->ip, a->ip, sizeof q->ip);
    c->host.credentials(c->host.ctx, &q->user, &q->password);
    peer_ask(q);
}

static void note(const struct cluster_action *a)
{
    struct buf line = {0};
    if (cluster_note_text(a, &line)) log_notice("%.*s", (int)line.n, line.p);
    buf_deinit(&line);
}

static void carry_out_one(struct cluster *c, const struct cluster_action *a)
{
    struct link *l;
    switch (a->kind) {
    case CLUSTER_DO_SEND: do_send(c, a); break;
    case CLUSTER_DO_CONNECT: do_connect(c, a); break;
    case CLUSTER_DO_CLOSE:
        if ((l = link_find(c, a->link))) link_free(l);
        break;
    case CLUSTER_DO_PERSIST: do_persist(c, a->seq, a->durable); break;
    case CLUSTER_DO_PUBLISH_MAP: publish_map(c, a->first_slot, a->last_slot); break;
    case CLUSTER_DO_REPLICATE:
        c->host.seal(c->host.ctx, false);
        act(c, CLUSTER_ACT_FOLLOW, a);
        break;
    case CLUSTER_DO_PROMOTE: act(c, CLUSTER_ACT_PROMOTE, a); break;
    case CLUSTER_DO_PAUSE_WRITES:
        c->host.pause(c->host.ctx, a->until_ms);
        act(c, CLUSTER_ACT_PAUSE, a);
        break;
    case CLUSTER_DO_UNPAUSE:
        c->host.pause(c->host.ctx, 0);
        act(c, CLUSTER_ACT_UNPAUSE, a);
        break;
    case CLUSTER_DO_SEAL: c->host.seal(c->host.ctx, true); break;
    case CLUSTER_DO_UNSEAL: c->host.seal(c->host.ctx, false); break;
    case CLUSTER_DO_DELETE_KEYS: act(c, CLUSTER_ACT_DELETE_KEYS, a); break;
    case CLUSTER_DO_FLUSH: act(c, CLUSTER_ACT_FLUSH, a); break;
    case CLUSTER_DO_PROBE: ask_peer(c, a, false); break;
    case CLUSTER_DO_YIELD: ask_peer(c, a, true); break;
    case CLUSTER_DO_DELIVER:
        c->host.deliver(c->host.ctx, a->message->type == CLUSTER_PUBLISHSHARD, a->message->publish.channel,
                        a->message->publish.payload);
        break;
    case CLUSTER_DO_REQUIRE: c->host.require(c->host.ctx, &c->out.required); break;
    case CLUSTER_DO_NOTE: note(a); break;
    }
}

/* Writers go on last, when the new role is on its way and the new map can be seen: a write that came in between would
 * be acknowledged by a primary that is none any more. */
static void carry_out(struct cluster *c)
{
    const struct cluster_action *unpause = NULL;
    publish_lease(c, false);
    atomic_store(&c->synced_epoch, cluster_synced_epoch(c->core));
    for (size_t i = 0; i < c->out.count; i++) {
        const struct cluster_action *a = &c->out.actions[i];
        if (a->kind == CLUSTER_DO_UNPAUSE) {
            unpause = a;
            continue;
        }
        if (a->kind == CLUSTER_DO_PAUSE_WRITES) unpause = NULL;
        carry_out_one(c, a);
    }
    publish_lease(c, true);
    if (unpause) carry_out_one(c, unpause);
}

/* Everything that was queued in this turn leaves, broken links and failed connects are reported. */
static void turn_end(void *ctx)
{
    struct cluster *c = ctx;
    c->handshakes = 0;
    for (int i = 0; i < LINK_BUCKETS; i++) {
        for (bool again = true; again;) {
            again = false;
            list_each(it, &c->links[i])
            {
                struct link *l = container_of(it, struct link, hash_link);
                bool failed = l->connecting ? l->src.fd < 0 : l->out && !link_flush(l);
                if (!failed) continue;
                link_lost(l); /* may change any list */
                again = true;
                break;
            }
        }
    }
}

/* ---- nodes.conf ---- */

struct persisted_mail {
    struct mail mail;
    struct cluster *cluster;
    uint64_t seq;
};

static void deliver_persisted(struct mail *m)
{
    struct persisted_mail *p = container_of(m, struct persisted_mail, mail);
    struct cluster *c = p->cluster;
    if (p->seq > c->persisted) c->persisted = p->seq;
    step(c, &(struct cluster_event){.kind = CLUSTER_EV_PERSISTED, .seq = p->seq});
    mem_free(p);
}

static void tell_persisted(struct cluster *c, uint64_t seq)
{
    struct persisted_mail *p = mem_alloc(sizeof *p);
    *p = (struct persisted_mail){{NULL, deliver_persisted}, c, seq};
    loop_post(c->loop, &p->mail);
}

/* Under the lock: until there is something to write, or a quick write is to be synced. */
static void writer_wait(struct writer *w)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += SYNC_AFTER_S;
    while (w->seq == 0 && !(w->unsynced && w->durable)) {
        if (!w->unsynced)
            pthread_cond_wait(&w->wake, &w->mu);
        else if (pthread_cond_timedwait(&w->wake, &w->mu, &until) == ETIMEDOUT)
            return;
    }
}

static void writer_fail(void)
{
    /* A node that cannot remember its vote must not go on voting. */
    log_warning("Fatal: can't update cluster config file: %s", strerror(errno));
    exit(1);
}

static void *writer_run(void *arg)
{
    struct cluster *c = arg;
    struct writer *w = &c->writer;
    struct buf text = {0};
    int64_t unsynced_ms = 0;
    pthread_setname_np(pthread_self(), "nodes.conf");
    pthread_mutex_lock(&w->mu);
    for (;;) {
        writer_wait(w);
        uint64_t seq = w->seq;
        bool overdue = w->unsynced && clock_mono_ms() - unsynced_ms >= SYNC_AFTER_S * 1000;
        bool durable = w->durable || overdue;
        text.n = 0;
        buf_append_bytes(&text, buf_bytes(&w->text));
        w->seq = 0;
        w->durable = false;
        w->busy = true;
        pthread_mutex_unlock(&w->mu);
        enum status st = seq ? nodes_file_write(&w->file, buf_bytes(&text), &durable) : nodes_file_sync(&w->file);
        if (st != OK) writer_fail();
        durable |= seq == 0;
        pthread_mutex_lock(&w->mu);
        if (seq) w->written = seq;
        if (durable) tell_persisted(c, w->written);
        if (!durable && !w->unsynced) unsynced_ms = clock_mono_ms();
        w->unsynced = !durable;
        w->busy = false;
        pthread_cond_broadcast(&w->idle);
        pthread_cond_broadcast(&w->written_now);
    }
    return NULL;
}

void cluster_wait_saved(struct cluster *c, uint64_t seq)
{
    struct writer *w = &c->writer;
    pthread_mutex_lock(&w->mu);
    while (w->written < seq) pthread_cond_wait(&w->written_now, &w->mu);
    pthread_mutex_unlock(&w->mu);
}

/* ---- time ---- */

static void give_facts(struct cluster *c)
{
    struct cluster_event ev = {.kind = CLUSTER_EV_FACTS};
    c->host.facts(c->host.ctx, &ev.facts);
    step(c, &ev);
}

static void check_link_buffers(struct cluster *c)
{
    int64_t limit = c->host.sendbuf_limit(c->host.ctx);
    if (limit <= 0) return;
    for (int i = 0; i < LINK_BUCKETS; i++) {
        list_each(it, &c->links[i])
        {
            struct link *l = container_of(it, struct link, hash_link);
            if (l->out_bytes <= (size_t)limit) continue;
            log_warning("Freeing a cluster link, exceeding output buffer memory limit");
            cluster_count_link_over_limit(c->core);
            shutdown(l->src.fd, SHUT_RDWR); /* read as its end, then reported */
        }
    }
}

/* Who takes too long to shake hands is read as an end, then reported. */
static void check_handshakes(struct cluster *c, int64_t now_ms)
{
    int64_t limit = c->node_timeout_ms < TLS_HANDSHAKE_MS ? c->node_timeout_ms : TLS_HANDSHAKE_MS;
    for (int i = 0; i < LINK_BUCKETS; i++) {
        list_each(it, &c->links[i])
        {
            const struct link *l = container_of(it, struct link, hash_link);
            if (l->tls && !tls_established(l->tls) && now_ms - l->made_ms > limit) shutdown(l->src.fd, SHUT_RDWR);
        }
    }
}

static void tick(struct loop_timer *t, int64_t now_ms)
{
    struct cluster *c = container_of(t, struct cluster, timer);
    check_link_buffers(c);
    check_handshakes(c, now_ms);
    give_facts(c);
    step(c, &(struct cluster_event){.kind = CLUSTER_EV_TICK});
}

static void *run(void *arg)
{
    struct cluster *c = arg;
    pthread_setname_np(pthread_self(), "cluster");
    for (;;) loop_turn(c->loop, -1);
    return NULL;
}

/* ---- life ---- */

static void set_error(char **error, const char *fmt, const char *a, const char *b)
{
    struct buf text = {0};
    buf_printf(&text, fmt, a, b);
    *error = bytes_dup_cstr(buf_bytes(&text));
    buf_deinit(&text);
}

static bool listen_on(struct cluster *c, const char *bind, int port, char **error)
{
    char *list = mem_strdup(bind), *state = NULL;
    bool ok = true;
    for (char *addr = strtok_r(list, " ", &state); addr && ok && c->listener_count < LISTENERS_MAX;
         addr = strtok_r(NULL, " ", &state)) {
        bool optional = *addr == '-';
        if (optional) addr++;
        int fd = net_listen_tcp(strcmp(addr, "::*") == 0 ? "::" : addr, port, 511);
        if (fd < 0 && optional) continue;
        if (fd >= 0) net_set_mark(fd, c->host.socket_mark);
        struct listener *l = &c->listeners[c->listener_count++];
        *l = (struct listener){{.fd = fd, .ready = accept_ready}, c};
        ok = fd >= 0;
    }
    if (!ok || c->listener_count == 0)
        set_error(error, "Failed listening on the cluster bus port: %s%s", strerror(errno), "");
    mem_free(list);
    return ok && c->listener_count > 0;
}

struct cluster *cluster_new(const struct cluster_config *config, const char *path, const char *bind,
                            const struct cluster_host *host, char **error)
{
    struct cluster *c = mem_calloc(1, sizeof *c);
    c->host = *host;
    c->loop = loop_create();
    c->node_timeout_ms = config->node_timeout_ms;
    atomic_store(&c->drop_type, -1);
    for (int i = 0; i < LINK_BUCKETS; i++) list_init(&c->links[i]);
    pthread_mutex_init(&c->map_mu, NULL);
    pthread_mutex_init(&c->early_mu, NULL);
    pthread_mutex_init(&c->writer.mu, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->writer.wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_cond_init(&c->writer.idle, NULL);
    pthread_cond_init(&c->writer.written_now, NULL);
    struct buf text = {0};
    struct cluster_error err = {{0}};
    enum status st = nodes_file_open(&c->writer.file, path, &text);
    if (st == E_EXISTS)
        set_error(
            error,
            "Sorry, the cluster configuration file %s is already used by a different Redis Cluster node. Please make "
            "sure that different nodes use different cluster configuration files.%s",
            path, "");
    else if (st != OK)
        set_error(error, "Can't open %s in order to acquire a lock: %s", path, strerror(errno));
    if (st == OK && listen_on(c, bind, host->bus_port, error)) {
        c->core = cluster_create(config, buf_bytes(&text), now(), &err);
        if (!c->core) set_error(error, "Unrecoverable error: corrupted cluster config file %s: %s", path, err.text);
    }
    buf_deinit(&text);
    return c->core ? c : NULL;
}

void cluster_run_threads(struct cluster *c, const struct cluster_history *restored)
{
    pthread_t t;
    c->timer = (struct loop_timer){.every_ms = TICK_MS, .tick = tick};
    loop_timer_add(c->loop, &c->timer);
    loop_set_hooks(c->loop, NULL, turn_end, c);
    for (int i = 0; i < c->listener_count; i++)
        if (loop_add(c->loop, &c->listeners[i].src, NET_READ) != OK) mem_abort(0);
    if (pthread_create(&t, NULL, writer_run, c)) mem_abort(0);
    pthread_mutex_lock(&c->early_mu);
    cluster_start(c->core, restored, now(), &c->out);
    carry_out(c);
    publish_map(c, 0, SLOT_COUNT - 1);
    cluster_save(c->core, now(), &c->out);
    carry_out(c);
    atomic_store(&c->started, true);
    if (pthread_create(&c->thread, NULL, run, c)) mem_abort(0);
    pthread_mutex_unlock(&c->early_mu);
}

void cluster_shut(struct cluster *c)
{
    struct writer *w = &c->writer;
    if (!atomic_load(&c->started)) return; /* nobody writes yet */
    pthread_mutex_lock(&w->mu);
    w->durable |= w->unsynced;
    pthread_cond_signal(&w->wake);
    while (w->seq || w->busy || w->unsynced) pthread_cond_wait(&w->idle, &w->mu);
    pthread_mutex_unlock(&w->mu);
}

/* ---- asked by others ---- */

struct run_mail {
    struct mail mail;
    struct cluster *cluster;
    cluster_fn *fn;
    void *arg;
    pthread_mutex_t mu;
    pthread_cond_t finished;
    uint64_t saved; /* nodes.conf of this step; 0: none */
    bool done;      /* under mu */
};

static void deliver_run(struct mail *m)
{
    struct run_mail *r = container_of(m, struct run_mail, mail);
    struct cluster *c = r->cluster;
    uint64_t before = c->last_saved;
    c->out.count = 0;
    r->fn(c->core, now(), &c->out, r->arg);
    carry_out(c);
    c->out.count = 0;
    r->saved = c->last_saved != before ? c->last_saved : 0;
    pthread_mutex_lock(&r->mu);
    r->done = true;
    pthread_cond_signal(&r->finished);
    pthread_mutex_unlock(&r->mu);
}

uint64_t cluster_run(struct cluster *c, cluster_fn *fn, void *arg)
{
    struct run_mail r = {.mail = {NULL, deliver_run}, .cluster = c, .fn = fn, .arg = arg};
    pthread_mutex_init(&r.mu, NULL);
    pthread_cond_init(&r.finished, NULL);
    pthread_mutex_lock(&c->early_mu);
    bool early = !atomic_load(&c->started);
    if (early) deliver_run(&r.mail);
    pthread_mutex_unlock(&c->early_mu);
    if (!early) {
        loop_post(c->loop, &r.mail);
        pthread_mutex_lock(&r.mu);
        while (!r.done) pthread_cond_wait(&r.finished, &r.mu);
        pthread_mutex_unlock(&r.mu);
    }
    pthread_cond_destroy(&r.finished);
    pthread_mutex_destroy(&r.mu);
    return early ? 0 : r.saved;
}

void cluster_set_node_timeout(struct cluster *c, int64_t ms)
{
    atomic_store(&c->node_timeout_ms, ms);
}

static void deliver_publication(struct mail *m)
{
    struct publication *p = container_of(m, struct publication, mail);
    struct cluster *c = p->cluster;
    struct bytes channel = bytes_make(p->data, p->channel_n);
    atomic_fetch_sub_explicit(&c->messages_waiting, sizeof *p + p->n, memory_order_relaxed);
    c->out.count = 0;
    c->publishing = p;
    cluster_publish(c->core, p->shard, channel, bytes_make(p->data + p->channel_n, p->n - p->channel_n), now(),
                    &c->out);
    carry_out(c);
    c->out.count = 0;
    c->publishing = NULL;
    publication_unref(p);
}

void cluster_send_message(struct cluster *c, bool shard, struct bytes channel, struct bytes payload)
{
    if (!atomic_load(&c->started)) return;
    struct publication *p = mem_try_alloc(sizeof *p + channel.n + payload.n);
    if (!p) return;
    *p = (struct publication){.mail.deliver = deliver_publication,
                              .cluster = c,
                              .shard = shard,
                              .refs = 1,
                              .channel_n = channel.n,
                              .n = channel.n + payload.n};
    if (channel.n) memcpy(p->data, channel.p, channel.n);
    if (payload.n) memcpy(p->data + channel.n, payload.p, payload.n);
    atomic_fetch_add_explicit(&c->messages_waiting, sizeof *p + p->n, memory_order_relaxed);
    loop_post(c->loop, &p->mail);
}

void cluster_drop_frames(struct cluster *c, int type)
{
    atomic_store(&c->drop_type, type);
}

size_t cluster_messages_waiting(const struct cluster *c)
{
    return atomic_load_explicit(&c->messages_waiting, memory_order_relaxed);
}

struct signal_mail {
    struct mail mail;
    struct cluster *cluster;
};

static void deliver_paused(struct mail *m)
{
    struct signal_mail *s = container_of(m, struct signal_mail, mail);
    struct cluster_event ev = {.kind = CLUSTER_EV_PAUSED};
    s->cluster->host.facts(s->cluster->host.ctx, &ev.facts);
    step(s->cluster, &ev);
    mem_free(s);
}

static void deliver_poke(struct mail *m)
{
    struct signal_mail *s = container_of(m, struct signal_mail, mail);
    atomic_store(&s->cluster->poked, false);
    /* Twice: a new member is told of it only with facts from after it counted. */
    for (int i = 0; i < 2 && cluster_wants_facts(s->cluster->core); i++) give_facts(s->cluster);
    mem_free(s);
}

static void signal_thread(struct cluster *c, void (*deliver)(struct mail *m))
{
    struct signal_mail *s = mem_alloc(sizeof *s);
    *s = (struct signal_mail){{NULL, deliver}, c};
    loop_post(c->loop, &s->mail);
}

void cluster_paused(struct cluster *c)
{
    signal_thread(c, deliver_paused);
}

void cluster_poke(struct cluster *c)
{
    if (!atomic_exchange(&c->poked, true)) signal_thread(c, deliver_poke);
}

unsigned cluster_slot_state(const struct cluster *c, unsigned slot)
{
    return atomic_load_explicit(&c->slot_state[slot], memory_order_acquire);
}

bool cluster_is_ok(const struct cluster *c)
{
    return atomic_load_explicit(&c->ok, memory_order_relaxed);
}

bool cluster_may_serve(const struct cluster *c)
{
    int64_t until = atomic_load_explicit(&c->lease_until, memory_order_relaxed);
    return until == INT64_MAX || clock_mono_ms() < until;
}

int64_t cluster_lease_left_ms(const struct cluster *c)
{
    int64_t until = atomic_load_explicit(&c->lease_until, memory_order_relaxed), now = clock_mono_ms();
    return until == INT64_MAX ? -1 : until > now ? until - now : 0;
}

bool cluster_i_am_primary(const struct cluster *c)
{
    return atomic_load_explicit(&c->primary, memory_order_relaxed);
}

bool cluster_slot_endpoint(struct cluster *c, unsigned slot, bool migration_target, struct cluster_endpoint *out)
{
    pthread_mutex_lock(&c->map_mu);
    size_t i = migration_target ? c->target[slot] : c->owner[slot];
    if (i) *out = c->nodes[i - 1];
    pthread_mutex_unlock(&c->map_mu);
    return i != 0;
}

void cluster_link_buffer(struct cluster *c, uint64_t link, size_t *used, size_t *allocated)
{
    const struct link *l = link_find(c, link);
    *used = *allocated = l ? l->out_bytes : 0;
}

void cluster_link_cut(struct cluster *c, uint64_t link)
{
    const struct link *l = link ? link_find(c, link) : NULL;
    if (l) shutdown(l->src.fd, SHUT_RDWR);
}

size_t cluster_links_memory(const struct cluster *c)
{
    return atomic_load_explicit(&c->links_memory, memory_order_relaxed);
}
