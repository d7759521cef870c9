/* harness.h: for the unit tests of this folder only: a core, a clock, and messages made by hand. */
#ifndef COVEY_CLUSTER_CORE_HARNESS_H
#define COVEY_CLUSTER_CORE_HARNESS_H

#include "cluster/core/core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

struct harness {
    struct cluster_core *core;
    struct cluster_config config;
    struct cluster_actions out;
    struct cluster_time now;
    struct cluster_error err;
    uint64_t keys[4]; /* keys in slots 0..3 */
    uint8_t slots[CLUSTER_SLOT_BYTES];
};

static inline uint64_t harness_keys(void *ctx, unsigned slot)
{
    struct harness *h = ctx;
    return slot < 4 ? h->keys[slot] : 0;
}

static inline void harness_config(struct harness *h)
{
    memset(h, 0, sizeof *h);
    cluster_config_init(&h->config);
    h->config.node_timeout_ms = 1000;
    h->config.port = 7000;
    h->config.cport = 17000;
    h->config.seed = 42;
    h->config.dataset = (struct cluster_dataset_view){harness_keys, h};
    h->now = (struct cluster_time){1000000, 1700000000000};
}

/* text "": a fresh node.  Persists are reported as done at once. */
static inline void harness_settle(struct harness *h);
static inline void harness_start(struct harness *h, const char *text)
{
    struct cluster_history none = {0};
    h->core = cluster_create(&h->config, bytes_of(text), h->now, &h->err);
    assert_non_null(h->core);
    cluster_start(h->core, &none, h->now, &h->out);
    harness_settle(h);
}

static inline void harness_stop(struct harness *h)
{
    cluster_check(h->core);
    cluster_destroy(h->core);
    cluster_actions_deinit(&h->out);
}

static inline const struct cluster_action *harness_find(const struct harness *h, enum cluster_action_kind kind)
{
    for (size_t i = 0; i < h->out.count; i++)
        if (h->out.actions[i].kind == kind) return &h->out.actions[i];
    return NULL;
}

static inline const struct cluster_action *harness_note(const struct harness *h, enum cluster_note note)
{
    for (size_t i = 0; i < h->out.count; i++)
        if (h->out.actions[i].kind == CLUSTER_DO_NOTE && h->out.actions[i].note == note) return &h->out.actions[i];
    return NULL;
}

static inline const struct cluster_action *harness_sent(const struct harness *h, enum cluster_message_type type)
{
    for (size_t i = 0; i < h->out.count; i++)
        if (h->out.actions[i].kind == CLUSTER_DO_SEND && h->out.actions[i].message->type == type)
            return &h->out.actions[i];
    return NULL;
}

static inline void harness_step(struct harness *h, const struct cluster_event *ev)
{
    cluster_step(h->core, ev, h->now, &h->out);
}

/* Reports the persist of the last step as done; out is that of the report. */
static inline void harness_settle(struct harness *h)
{
    const struct cluster_action *p = harness_find(h, CLUSTER_DO_PERSIST);
    if (p) harness_step(h, &(struct cluster_event){.kind = CLUSTER_EV_PERSISTED, .seq = p->seq});
}

static inline void harness_tick(struct harness *h, int64_t ms)
{
    h->now.mono_ms += ms;
    h->now.wall_ms += ms;
    harness_step(h, &(struct cluster_event){.kind = CLUSTER_EV_TICK});
}

static inline struct cluster_id harness_id(char c)
{
    struct cluster_id id;
    memset(id.c, c, sizeof id.c);
    return id;
}

static inline struct bytes harness_id_text(const struct cluster_id *id)
{
    return bytes_make(id->c, CLUSTER_ID_SIZE);
}

/* A message of node `sender`, a primary without slots until changed; h->slots is its bitmap. */
static inline struct cluster_message harness_message(struct harness *h, unsigned type, char sender)
{
    memset(h->slots, 0, sizeof h->slots);
    return (struct cluster_message){.type = (uint16_t)type,
                                    .sender = harness_id(sender),
                                    .flags = CLUSTER_NODE_MYSELF | CLUSTER_NODE_PRIMARY,
                                    .port = 7000,
                                    .cport = 17000,
                                    .slots = h->slots};
}

static inline void harness_receive(struct harness *h, uint64_t link, const struct cluster_message *m)
{
    char peer[] = "10.0.0.0";
    peer[7] = (char)('1' + m->sender.c[0] % 8); /* one address a node */
    harness_step(h,
                 &(struct cluster_event){
                     .kind = CLUSTER_EV_MESSAGE, .link = link, .message = m, .peer_ip = peer, .local_ip = "10.0.0.99"});
}

static inline struct cluster_node_view harness_view(const struct harness *h, char c)
{
    struct cluster_node_view v = {0};
    struct cluster_id id = harness_id(c);
    const struct cluster_node *node = cluster_node_find(h->core, &id);
    assert_non_null(node);
    cluster_node_view(h->core, node, &v);
    return v;
}

static inline struct cluster_node_view harness_me(const struct harness *h)
{
    struct cluster_node_view v;
    cluster_node_view(h->core, cluster_myself(h->core), &v);
    return v;
}

/* Opens the outbound link that the last tick asked for to node c. */
static inline uint64_t harness_connect(struct harness *h, char c)
{
    uint64_t link = harness_view(h, c).link_out;
    assert_true(link != 0);
    harness_step(h, &(struct cluster_event){.kind = CLUSTER_EV_CONNECTED, .link = link});
    return link;
}

#endif
