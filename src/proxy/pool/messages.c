/* messages.c: a request under way, whole or in parts, and its reply. */
#include "base/mem.h"
#include "proxy/pool/engine.h"

#include <stdio.h>

struct message *message_create(struct pool_client *c)
{
    struct message *m = mem_calloc(1, sizeof *m);
    m->client = c;
    m->redis = c->pool->conf->redis;
    m->at = c->pool->worker->ticks;
    m->command = c->pool->worker->command;
    front_enqueue(&c->base, &m->reply);
    return m;
}

void message_split(struct message *m, enum merge merge, unsigned parts)
{
    m->merge = merge;
    m->parts = mem_calloc(parts, sizeof *m->parts);
    m->parts_n = m->parts_left = parts;
    for (unsigned i = 0; i < parts; i++) {
        m->parts[i] = mem_calloc(1, sizeof **m->parts);
        m->parts[i]->parent = m;
        m->parts[i]->redis = m->redis;
    }
    m->client->pool->stats.fragments += parts;
}

struct message *message_part(struct message *parent, unsigned i)
{
    return parent->parts[i];
}

void message_free(struct message *m)
{
    for (unsigned i = 0; i < m->parts_n; i++) message_free(m->parts[i]);
    mem_free(m->parts);
    mem_free(m->place);
    buf_deinit(&m->reply.bytes);
    mem_free(m);
}

static void part_done(struct message *m)
{
    if (--m->parts_left > 0) return;
    if (!m->client) {
        message_free(m);
        return;
    }
    if (m->redis)
        redis_merge(m, &m->reply.bytes);
    else
        memcache_merge(m, &m->reply.bytes);
    measure_answered(m->client, m, buf_bytes(&m->reply.bytes));
    m->reply.done = true;
    front_drain(&m->client->base);
}

void message_reply(struct message *m, struct bytes reply)
{
    if (m->parent) {
        buf_append_bytes(&m->reply.bytes, reply);
        part_done(m->parent);
        return;
    }
    struct pool_client *c = m->client;
    if (!c) {
        message_free(m);
        return;
    }
    measure_answered(c, m, reply);
    m->reply.done = true;
    if (&m->reply == c->base.first)
        buf_append_bytes(&c->base.out, reply); /* its turn: without a copy in between */
    else
        buf_append_bytes(&m->reply.bytes, reply);
    front_drain(&c->base);
}

void message_fail(struct message *m, int error)
{
    char text[160];
    snprintf(text, sizeof text, "%s %s\r\n", m->redis ? "-ERR" : "SERVER_ERROR", strerror(error));
    message_reply(m, bytes_of(text));
}
