/* evals.c: EVALSHA finds its script at every node.
 *
 * A text that a node has accepted is remembered (scripts.h).  Which scripts a node has is noted for each, as far as
 * this worker has seen; before an EVALSHA of another one, or a transaction with one, goes out on a connection, SCRIPT
 * LOAD does, so that the order of a pipeline holds.  Where the note was wrong the node says NOSCRIPT; it has executed
 * nothing then, and the request is sent again. */
#include "proxy/cluster/worker.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/number.h"

enum { NODE_SCRIPTS = 256, TRIES_MAX = 3 };

/* By a part of the SHA-1; one that comes later takes the place. */
struct node_scripts {
    uint64_t flushed; /* scripts.flushed then */
    uint8_t sha[NODE_SCRIPTS][SHA1_SIZE];
};

void evals_node_lost(struct backend *b)
{
    mem_free(b->scripts);
    b->scripts = NULL;
}

static uint8_t *place_of(struct worker *w, struct backend *b, const uint8_t sha[SHA1_SIZE])
{
    uint64_t flushed = atomic_load(&w->proxy->scripts.flushed);
    if (b->scripts && b->scripts->flushed != flushed) evals_node_lost(b);
    if (!b->scripts) b->scripts = mem_calloc(1, sizeof *b->scripts);
    b->scripts->flushed = flushed;
    return b->scripts->sha[sha[SHA1_SIZE - 1] % NODE_SCRIPTS];
}

static void mark(struct worker *w, struct backend *b, const uint8_t sha[SHA1_SIZE], bool has)
{
    uint8_t *at = place_of(w, b, sha);
    if (has)
        memcpy(at, sha, SHA1_SIZE);
    else if (memcmp(at, sha, SHA1_SIZE) == 0)
        memset(at, 0, SHA1_SIZE);
}

/* The argument after the first of a request that was written by a client library: a cut without a parser. */
static struct bytes second_argument(struct bytes raw)
{
    size_t at = 0;
    for (int i = 0;; i++) {
        int64_t n;
        const char *line = i ? raw.p + at : memchr(raw.p, '\n', raw.n);
        if (!line) return (struct bytes){0};
        if (i == 0) {
            at = (size_t)(line - raw.p) + 1;
            continue;
        }
        const char *cr = at < raw.n && *line == '$' ? memchr(line, '\r', raw.n - at) : NULL;
        if (!cr || !parse_i64(bytes_make(line + 1, (size_t)(cr - line) - 1), &n) || n < 0) return (struct bytes){0};
        at = (size_t)(cr - raw.p) + 2;
        if (at > raw.n || (size_t)n + 2 > raw.n - at) return (struct bytes){0};
        if (i == 2) return bytes_make(raw.p + at, (size_t)n);
        at += (size_t)n + 2;
    }
}

/* ---- ahead ---- */

/* False: nobody knows it. */
static bool load_ahead(struct link *l, struct bytes name)
{
    struct worker *w = l->worker;
    uint8_t sha[SHA1_SIZE];
    if (!script_sha_parse(name, sha)) return false;
    if (memcmp(place_of(w, l->backend, sha), sha, SHA1_SIZE) == 0) return true;
    struct script *script = scripts_find(&w->proxy->scripts, sha);
    if (!script) return false;
    struct buf b = {0};
    resp_request_begin(&b, 3);
    resp_request_arg(&b, BYTES("SCRIPT"));
    resp_request_arg(&b, BYTES("LOAD"));
    resp_request_arg(&b, bytes_make(script->text, script->n));
    node_link_send(l, request_create(w, NULL, NULL, 0), buf_bytes(&b));
    buf_deinit(&b);
    mark(w, l->backend, sha, true);
    count(&w->stats.scripts_loaded, 1);
    script_release(script);
    return true;
}

bool evals_matters(const struct command *cmd)
{
    return command_is_evalsha(cmd) || command_is_eval(cmd) || cmd->id == CMD_ID_SCRIPT_LOAD ||
           cmd->id == CMD_ID_SCRIPT_FLUSH;
}

/* Calls each with the commands of a transaction. */
static void each_queued(struct bytes raw, void *arg,
                        void (*each)(void *arg, const struct command *cmd, const struct resp_request *req))
{
    struct resp_parser p;
    struct resp_request req = {0};
    resp_parser_init(&p, INT64_MAX);
    while (raw.n && resp_parse_request(&p, raw, &req) == OK) {
        const struct command *container, *cmd = command_of_request(req.argv, req.argc, &container);
        if (cmd && evals_matters(cmd) && command_arity_ok(cmd, req.argc)) each(arg, cmd, &req);
        raw = bytes_make(raw.p + req.size, raw.n - req.size);
    }
    resp_request_deinit(&req);
    resp_parser_deinit(&p);
}

static void load_queued(void *arg, const struct command *cmd, const struct resp_request *req)
{
    if (command_is_evalsha(cmd)) load_ahead(arg, req->argv[1]);
}

void evals_load_ahead(struct link *l, struct request *r, struct bytes raw)
{
    if (r->cmd->id == CMD_ID_EXEC)
        each_queued(raw, l, load_queued);
    else if (command_is_evalsha(r->cmd) && !load_ahead(l, second_argument(raw)))
        r->script_tries = TRIES_MAX; /* as one server would say, whatever comes behind it */
}

/* ---- learning ---- */

/* What was done with a text, and at which node, changes with what was lost since. */
static uint64_t fingerprint(struct worker *w, const struct backend *b, struct bytes text)
{
    uint64_t lost = atomic_load(&w->proxy->scripts.lost) + 1;
    return hash_bytes(text) ^ (lost * 0x9e3779b97f4a7c15u) ^ ((uint64_t)(uintptr_t)b << 7);
}

/* Most texts come again and again: those seen lately need not be looked at.  b: it has the text; may be NULL. */
static void note_text(struct worker *w, struct backend *b, struct bytes text)
{
    uint64_t print = fingerprint(w, b, text);
    uint8_t sha[SHA1_SIZE];
    if (w->scripts_seen[print % SCRIPTS_SEEN] == print) return;
    scripts_note(&w->proxy->scripts, text, (size_t)w->config->scripts_max, (size_t)w->config->scripts_bytes, sha);
    if (b) mark(w, b, sha, true);
    print = fingerprint(w, b, text);
    w->scripts_seen[print % SCRIPTS_SEEN] = print;
}

void evals_sent(struct worker *w, const struct command *cmd, const struct resp_request *req)
{
    if (command_is_eval(cmd)) note_text(w, NULL, req->argv[1]);
}

struct learning {
    struct worker *w;
    struct backend *b;
};

static void learn(void *arg, const struct command *cmd, const struct resp_request *req)
{
    struct learning *at = arg;
    if (cmd->id == CMD_ID_SCRIPT_FLUSH)
        scripts_flush(&at->w->proxy->scripts);
    else if (!command_is_evalsha(cmd))
        note_text(at->w, at->b, req->argv[command_is_eval(cmd) ? 1 : 2]);
}

static bool did_not_compile(struct bytes error)
{
    static const char text[] = "-ERR Error compiling script";
    return error.n >= sizeof text && memcmp(error.p, text, sizeof text - 1) == 0;
}

/* A script may end with that error, too; it was run then. */
static bool says_so_itself(const struct request *r, const struct script *s)
{
    static const char word[] = "NOSCRIPT";
    size_t n = sizeof word - 1;
    return memmem(s->text, s->n, word, n) || memmem(r->chunk->p + r->offset, r->size, word, n);
}

/* True: the node did not have the script, and it can be loaded there. */
static bool is_missing(struct worker *w, struct link *l, struct request *r, struct bytes reply)
{
    static const char text[] = "-NOSCRIPT No matching script";
    uint8_t sha[SHA1_SIZE];
    if (reply.n < sizeof text || memcmp(reply.p, text, sizeof text - 1) != 0 || !r->client) return false;
    if (!script_sha_parse(second_argument(bytes_make(r->chunk->p + r->offset, r->size)), sha)) return false;
    if (l) mark(w, l->backend, sha, false);
    if (r->script_tries == TRIES_MAX) return false;
    struct script *script = scripts_find(&w->proxy->scripts, sha);
    bool can = script && !says_so_itself(r, script);
    script_release(script);
    r->script_tries++;
    return can;
}

bool evals_replied(struct worker *w, struct link *l, struct request *r, struct bytes reply)
{
    struct bytes raw = bytes_make(r->chunk->p + r->offset, r->size);
    struct learning at = {w, l ? l->backend : NULL};
    bool is_error = reply.p[0] == '-';
    if (command_is_evalsha(r->cmd)) {
        uint8_t sha[SHA1_SIZE];
        if (is_error) return is_missing(w, l, r, reply);
        if (l && script_sha_parse(second_argument(raw), sha)) mark(w, l->backend, sha, true);
    } else if (command_is_eval(r->cmd)) {
        struct bytes text = second_argument(raw);
        if (text.p && is_error && did_not_compile(reply))
            scripts_forget(&w->proxy->scripts, text);
        else if (text.p && !is_error)
            note_text(w, at.b, text);
    } else if (!is_error && (r->cmd->id != CMD_ID_EXEC || (reply.p[0] == '*' && reply.p[1] != '-'))) {
        each_queued(raw, &at, learn);
    }
    return false;
}

/* ---- SCRIPT EXISTS ---- */

/* What is remembered here is as good as there. */
void evals_exists(struct worker *w, const struct request *part, struct bytes merged, char *reply)
{
    struct resp_parser p;
    struct resp_request req = {0};
    uint8_t sha[SHA1_SIZE];
    resp_parser_init(&p, INT64_MAX);
    const char *end = merged.p[0] == '*' ? memchr(merged.p, '\n', merged.n) : NULL;
    bool ok =
        end && part->chunk && resp_parse_request(&p, bytes_make(part->chunk->p + part->offset, part->size), &req) == OK;
    size_t at = end ? (size_t)(end - merged.p) + 1 : 0;
    for (size_t i = 2; ok && i < req.argc && at + 4 <= merged.n; i++, at += 4) {
        if (reply[at + 1] != '0' || !script_sha_parse(req.argv[i], sha)) continue;
        struct script *s = scripts_find(&w->proxy->scripts, sha);
        if (s) reply[at + 1] = '1';
        script_release(s);
    }
    resp_request_deinit(&req);
    resp_parser_deinit(&p);
}
