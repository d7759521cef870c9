/* form.c: makes one cluster of nodes that know nothing of each other, with the commands any client may send. */
#include "operator/supervise.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

enum { ANSWER_MS = 5000, ASK_MS = 500, EVERY_MS = 100, START_MS = 60 * 1000, KNOW_MS = 60 * 1000, SAY_MS = 3000 };

static bool told_to_stop(const struct up *up)
{
    return up->stops || up->dead >= 0;
}

/* One command to node i that must answer +OK. */
static bool must(struct up *up, int i, enum status sent)
{
    struct client *c = &up->askers[i].client;
    struct resp_value *reply = NULL;
    enum status st = sent ? sent : client_wait(c, ANSWER_MS, &reply);
    bool fine = st == OK && resp_is_status(reply, "OK");
    if (!fine && !told_to_stop(up)) {
        fprintf(stderr, "covey up: the cluster cannot be formed: %d ", up->fleet.shape.port + i);
        if (st)
            fprintf(stderr, "does not answer\n");
        else
            fprintf(stderr, "says: %.*s\n", (int)reply->str.n, reply->str.p);
    }
    resp_value_free(reply);
    return fine;
}

/* The connection to node i, opened if need be. */
static struct client *to(struct up *up, int i)
{
    struct client *c = &up->askers[i].client;
    if (c->fd < 0 && client_open(c, up_host(up), up->fleet.shape.port + i, up->options.password, ANSWER_MS))
        return NULL;
    return c;
}

#define COMMAND(up, i, ...) \
    (to(up, i) ? (client_send(&(up)->askers[i].client, __VA_ARGS__), must(up, i, OK)) : must(up, i, E_CLOSED))

static bool answers_ping(struct up *up, int i)
{
    struct client *c = &up->askers[i].client;
    if (c->fd < 0) {
        enum status st = client_open(c, up_host(up), up->fleet.shape.port + i, up->options.password, ASK_MS);
        if (st) return false;
    }
    struct resp_value *reply;
    client_send(c, 1, "PING");
    if (client_wait(c, ASK_MS, &reply)) return false;
    bool fine = resp_is_status(reply, "PONG");
    resp_value_free(reply);
    return fine;
}

static bool wait_started(struct up *up)
{
    int64_t deadline = clock_mono_ms() + START_MS;
    for (int i = 0; i < up->fleet.n; i++) {
        while (!answers_ping(up, i)) {
            up_turn(up, EVERY_MS);
            if (told_to_stop(up)) return false;
            if (clock_mono_ms() < deadline) continue;
            fprintf(stderr, "covey up: %d does not answer\n", up->fleet.shape.port + i);
            return false;
        }
    }
    return true;
}

static bool set_up_alone(struct up *up, int i)
{
    const struct shape *shape = &up->fleet.shape;
    char epoch[16], first[16], last[16];
    snprintf(epoch, sizeof epoch, "%d", i + 1);
    /* What is left of an attempt that was interrupted; a node that holds keys refuses, and nothing is lost. */
    if (!COMMAND(up, i, 3, "CLUSTER", "RESET", "HARD")) return false;
    if (!COMMAND(up, i, 3, "CLUSTER", "SET-CONFIG-EPOCH", epoch)) return false;
    if (plan_primary_of(shape, i) >= 0) return true;
    struct slot_range slots = plan_slots(shape, i);
    snprintf(first, sizeof first, "%d", slots.first);
    snprintf(last, sizeof last, "%d", slots.last);
    return COMMAND(up, i, 4, "CLUSTER", "ADDSLOTSRANGE", first, last);
}

static bool all_know_all(const struct up *up)
{
    for (int i = 0; i < up->fleet.n; i++) {
        const struct sample *s = &up->samples[i];
        if (!s->answered || s->view.n != (size_t)up->fleet.n) return false;
        for (size_t k = 0; k < s->view.n; k++)
            if (s->view.nodes[k].flags & (NODE_HANDSHAKE | NODE_NO_ADDRESS) || !s->view.nodes[k].connected)
                return false;
    }
    return true;
}

static bool introduce(struct up *up)
{
    char port[16];
    snprintf(port, sizeof port, "%d", up->fleet.shape.port);
    for (int i = 1; i < up->fleet.n; i++)
        if (!COMMAND(up, i, 4, "CLUSTER", "MEET", up_host(up), port)) return false;
    int64_t deadline = clock_mono_ms() + KNOW_MS;
    for (;;) {
        up_ask(up, ASK_MS);
        if (all_know_all(up)) return true;
        up_turn(up, EVERY_MS);
        if (told_to_stop(up)) return false;
        if (clock_mono_ms() < deadline) continue;
        fprintf(stderr, "covey up: the nodes do not find each other\n");
        return false;
    }
}

static bool attach_replicas(struct up *up)
{
    for (int i = 0; i < up->fleet.n; i++) {
        int primary = plan_primary_of(&up->fleet.shape, i);
        if (primary < 0) continue;
        if (!COMMAND(up, i, 3, "CLUSTER", "REPLICATE", up->samples[primary].view.myself->id)) return false;
    }
    return true;
}

bool up_form(struct up *up)
{
    if (!wait_started(up)) return false;
    for (int i = 0; i < up->fleet.n; i++)
        if (!set_up_alone(up, i)) return false;
    return introduce(up) && attach_replicas(up);
}

bool up_wait_whole(struct up *up, int64_t timeout_ms)
{
    int64_t began = clock_mono_ms(), said = began;
    struct buf why = {0};
    bool whole = false;
    for (;;) {
        up_ask(up, ASK_MS);
        why.n = 0;
        whole = !told_to_stop(up) && samples_whole(up->samples, up->fleet.n, up->fleet.shape.port, &why);
        int64_t now = clock_mono_ms();
        if (whole || told_to_stop(up)) break;
        if (timeout_ms >= 0 && now - began >= timeout_ms) {
            fprintf(stderr, "covey up: the cluster does not become whole: %.*s\n", (int)why.n, why.p);
            break;
        }
        if (now - said >= SAY_MS) {
            said = now;
            printf("Waiting: %.*s\n", (int)why.n, why.p);
        }
        up_turn(up, EVERY_MS);
    }
    buf_deinit(&why);
    return whole;
}
