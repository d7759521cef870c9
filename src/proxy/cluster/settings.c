/* settings.c: CONFIG SET and REWRITE.  Settings are made on the front's thread, which a worker asks by mail. */
#include "proxy/cluster/worker.h"

#include "base/mem.h"

#include <stdio.h>

struct settings_mail {
    struct mail mail; /* there and back */
    struct worker *worker;
    uint64_t client_id;
    struct request *request; /* compared, never dereferenced before it is found again */
    bool rewrites;
    struct buf text; /* the arguments' bytes */
    struct bytes *pairs;
    size_t n;
    char error[PROXY_CHANGE_ERROR_MAX]; /* "" none */
};

static void done(struct mail *mail)
{
    struct settings_mail *m = container_of(mail, struct settings_mail, mail);
    struct client *c = client_find(m->worker, m->client_id);
    if (c && client_first(c) == m->request) {
        if (*m->error)
            request_answer_error(m->worker, m->request, m->error);
        else
            request_answer(m->worker, m->request, BYTES("+OK\r\n"));
    }
    buf_deinit(&m->text);
    mem_free(m->pairs);
    mem_free(m);
}

static void change(struct front *f, struct settings_mail *m)
{
    struct proxy_config *c = proxy_config_copy(f->config);
    if (proxy_config_change(c, m->pairs, m->n, m->error)) {
        if (f->adopt(f->adopt_ctx, c)) return;
        snprintf(m->error, sizeof m->error, "ERR CONFIG SET failed - the log of the proxy says why");
    }
    proxy_config_release(c);
}

/* On the front's thread. */
static void asked(struct mail *mail)
{
    struct settings_mail *m = container_of(mail, struct settings_mail, mail);
    struct front *f = m->worker->proxy->front;
    struct loop *back = m->worker->loop;
    if (!f->adopt)
        snprintf(m->error, sizeof m->error,
                 "ERR the settings of this port are the node's: change them there, at the node's own port");
    else if (!m->rewrites)
        change(f, m);
    else if (!proxy_config_rewrite(f->config, m->error) && !*m->error)
        snprintf(m->error, sizeof m->error, "ERR Rewriting config file failed");
    m->mail = (struct mail){NULL, done};
    loop_post(back, &m->mail);
}

static void keep_arguments(struct settings_mail *m, const struct bytes *argv, size_t argc)
{
    m->n = argc;
    m->pairs = mem_calloc(argc + 1, sizeof *m->pairs);
    for (size_t i = 0; i < argc; i++) buf_append_bytes(&m->text, argv[i]);
    for (size_t i = 0, at = 0; i < argc; at += argv[i++].n) m->pairs[i] = bytes_make(m->text.p + at, argv[i].n);
}

enum outcome settings_dispatch(struct client *c, const struct command *cmd, const struct resp_request *req)
{
    struct worker *w = c->worker;
    bool rewrites = cmd->id == CMD_ID_CONFIG_REWRITE;
    if (!route_alone(c)) return OUTCOME_NOT_NOW;
    if (!rewrites && req->argc % 2) {
        client_reply_error(c, "ERR syntax error");
        return OUTCOME_DONE;
    }
    struct settings_mail *m = mem_calloc(1, sizeof *m);
    struct request *r = request_create(w, c, cmd, 0);
    r->state = REQUEST_PARTS;
    client_enqueue(c, r);
    c->barrier = true;
    m->mail = (struct mail){NULL, asked};
    m->worker = w;
    m->client_id = c->base.id;
    m->request = r;
    m->rewrites = rewrites;
    if (!rewrites) keep_arguments(m, req->argv + 2, req->argc - 2);
    loop_post(w->proxy->front->loop, &m->mail);
    return OUTCOME_DONE;
}
