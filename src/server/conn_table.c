/* conn_table.c: a worker's connections by id, and mail to a connection of any worker. */
#include "server/conn.h"

#include "base/mem.h"

enum { TABLE_MIN = 64 };

/* Ids count up over all workers, so their low bits spread by themselves. */
static struct conn **chain_of(const struct worker *w, uint64_t id)
{
    return &w->by_id[id & (w->by_id_size - 1)];
}

static void grow(struct worker *w)
{
    size_t old_size = w->by_id_size;
    struct conn **old = w->by_id;
    w->by_id_size = old_size ? old_size * 2 : TABLE_MIN;
    w->by_id = mem_calloc(w->by_id_size, sizeof(struct conn *));
    for (size_t i = 0; i < old_size; i++) {
        while (old[i]) {
            struct conn *c = old[i], **chain = chain_of(w, c->id);
            old[i] = c->next_by_id;
            c->next_by_id = *chain;
            *chain = c;
        }
    }
    mem_free(old);
}

void conn_table_add(struct conn *c)
{
    struct worker *w = c->worker;
    if (w->by_id_count == w->by_id_size) grow(w);
    struct conn **chain = chain_of(w, c->id);
    c->next_by_id = *chain;
    *chain = c;
    w->by_id_count++;
}

void conn_table_remove(struct conn *c)
{
    struct worker *w = c->worker;
    for (struct conn **at = chain_of(w, c->id); *at; at = &(*at)->next_by_id) {
        if (*at != c) continue;
        *at = c->next_by_id;
        w->by_id_count--;
        return;
    }
}

struct conn *conn_find(const struct worker *w, uint64_t id)
{
    if (w->by_id_size == 0) return NULL;
    struct conn *c = *chain_of(w, id);
    while (c && c->id != id) c = c->next_by_id;
    return c;
}

/* ---- mail ---- */

struct conn_mail {
    struct mail mail;
    struct conn_ref to;
    void (*fn)(struct conn *c, void *data);
    void *data;
};

static void deliver(struct mail *mail)
{
    struct conn_mail *m = container_of(mail, struct conn_mail, mail);
    m->fn(conn_find(m->to.worker, m->to.id), m->data);
    mem_free(m);
}

void conn_post(struct conn_ref to, void (*fn)(struct conn *c, void *data), void *data)
{
    struct conn_mail *m = mem_alloc(sizeof *m);
    *m = (struct conn_mail){{NULL, deliver}, to, fn, data};
    loop_post(to.worker->loop, &m->mail);
}
