#include "proxy/cluster/crowd.h"

#include "base/mem.h"

struct crowd_mail {
    struct mail mail;
    struct crowd *crowd;
    struct worker *worker;
};

static void crowd_free(struct crowd *q)
{
    for (int i = 0; i < q->workers; i++) buf_deinit(&q->texts[i]);
    mem_free(q->texts);
    mem_free(q->numbers);
    mem_free(q->question);
    mem_free(q);
}

static void all_answered(struct mail *mail)
{
    struct crowd *q = container_of(mail, struct crowd, mail);
    struct client *c = client_find(q->asker, q->client_id);
    if (c && client_first(c) == q->request) {
        struct buf b = {0};
        struct resp_out o = {&b, c->resp};
        q->reply(q, c, &o);
        request_answer(q->asker, q->request, buf_bytes(&b));
        buf_deinit(&b);
    }
    crowd_free(q);
}

static void asked(struct mail *mail)
{
    struct crowd_mail *m = container_of(mail, struct crowd_mail, mail);
    struct crowd *q = m->crowd;
    q->ask(m->worker, q, m->worker->id);
    mem_free(m);
    if (atomic_fetch_sub(&q->left, 1) == 1) loop_post(q->asker->loop, &q->mail);
}

void crowd_ask(struct client *c, const struct command *cmd, void *question,
               void (*ask)(struct worker *w, const struct crowd *q, int at),
               void (*reply)(const struct crowd *q, struct client *c, struct resp_out *o))
{
    struct proxy *p = c->worker->proxy;
    struct crowd *q = mem_calloc(1, sizeof *q);
    struct request *r = request_create(c->worker, c, cmd, 0);
    r->state = REQUEST_PARTS;
    client_enqueue(c, r);
    c->barrier = true;
    *q = (struct crowd){.mail = {NULL, all_answered}, .asker = c->worker, .client_id = c->base.id, .request = r};
    q->workers = p->worker_count;
    q->ask = ask;
    q->reply = reply;
    q->question = question;
    q->texts = mem_calloc((size_t)q->workers, sizeof *q->texts);
    q->numbers = mem_calloc((size_t)q->workers, sizeof *q->numbers);
    atomic_store(&q->left, q->workers);
    for (int i = 0; i < p->worker_count; i++) {
        struct crowd_mail *m = mem_alloc(sizeof *m);
        *m = (struct crowd_mail){{NULL, asked}, q, p->workers[i]};
        loop_post(p->workers[i]->loop, &m->mail);
    }
}

int64_t crowd_sum(const struct crowd *q)
{
    int64_t sum = 0;
    for (int i = 0; i < q->workers; i++) sum += q->numbers[i];
    return sum;
}
