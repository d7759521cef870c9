/* wait.c: WAIT and WAITAOF: asked of the nodes that the client has written to, each on a connection of its own.
 *
 * A node counts the replicas that have what it had written when the connection's last command ended.  So a PING goes in
 * front: whatever this client has been told is written by then.
 *
 * From Redis 7.2 on, Valkey too, only a command that itself wrote something moves that mark.  There an empty set of
 * function libraries is added to those that it has: that goes to the replicas, and changes nothing. */
#include "proxy/cluster/worker.h"

#include "base/mem.h"
#include "base/number.h"

void wait_note_write(struct client *c, uint16_t slot)
{
    struct worker *w = c->worker;
    if (c->wrote == WROTE_TO_MANY || (c->wrote == WROTE_TO_ONE && w->slots[c->wrote_slot] == w->slots[slot])) return;
    c->wrote = c->wrote == WROTE_NOTHING ? WROTE_TO_ONE : WROTE_TO_MANY;
    c->wrote_slot = slot;
}

/* WAITAOF's arguments are the nodes' to judge. */
static bool is_valid(struct client *c, const struct command *cmd, const struct resp_request *req)
{
    int64_t n;
    if (cmd->id != CMD_ID_WAIT) return true;
    if (!parse_i64(req->argv[1], &n))
        client_reply_error(c, "ERR value is not an integer or out of range");
    else if (!parse_i64(req->argv[2], &n))
        client_reply_error(c, "ERR timeout is not an integer or out of range");
    else if (n < 0)
        client_reply_error(c, "ERR timeout is negative");
    else
        return true;
    return false;
}

bool wait_is(const struct command *cmd)
{
    return cmd && (cmd->id == CMD_ID_WAIT || cmd->id == CMD_ID_WAITAOF);
}

static const char refusal[] =
    "-ERR the node counts the writes of each connection and refuses FUNCTION RESTORE, so WAIT cannot be answered\r\n";
const struct bytes wait_refusal = {refusal, sizeof refusal - 1};

enum { COUNTS_OWN_WRITES = 0x702 };

static bool counts_own_writes(struct worker *w, const uint16_t *slots, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        const struct backend *b = w->slots[slots[i]];
        if (b && (b->release == 0 || b->release >= COUNTS_OWN_WRITES)) return true;
    }
    return false;
}

static void ask_releases(struct worker *w, const uint16_t *slots, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (w->slots[slots[i]]) node_ask_release(w, w->slots[slots[i]]);
}

/* What an RDB 10 says of no libraries: version and checksum. */
static void put_mark(struct buf *b)
{
    static const char nothing[] = {10, 0, '\x5d', '\x9b', '\x5c', '\x40', '\x0f', '\x7f', '\xa2', '\xda'};
    resp_request_begin(b, 4);
    resp_request_arg(b, BYTES("FUNCTION"));
    resp_request_arg(b, BYTES("RESTORE"));
    resp_request_arg(b, bytes_make(nothing, sizeof nothing));
    resp_request_arg(b, BYTES("APPEND"));
}

enum outcome wait_dispatch(struct client *c, const struct command *cmd, const struct resp_request *req,
                           struct bytes raw)
{
    struct worker *w = c->worker;
    if (!route_alone(c)) return OUTCOME_NOT_NOW;
    if (!is_valid(c, cmd, req)) return OUTCOME_DONE;
    uint16_t *slots = mem_alloc(SLOT_COUNT * sizeof *slots);
    unsigned n = c->wrote == WROTE_TO_MANY ? everywhere_slots(w, slots) : 0;
    if (n == 0) slots[n++] = c->wrote == WROTE_NOTHING ? route_any_slot(c) : c->wrote_slot;
    struct request *parent = request_create(w, c, cmd, slots[0]);
    parent->is_blocking = true;
    c->blockings++;
    client_enqueue(c, parent);
    c->barrier = true;
    struct gather *g = gather_create(parent, (enum gather_kind)decision_of(cmd)->gather, n);
    struct buf b = {0};
    bool marks = counts_own_writes(w, slots, n);
    if (marks) ask_releases(w, slots, n); /* for the next time */
    if (marks)
        put_mark(&b);
    else
        resp_request_cstr(&b, 1, "PING");
    buf_append_bytes(&b, raw);
    for (unsigned i = 0; i < n; i++) {
        struct request *r = gather_add(w, g, parent, i, slots[i]);
        r->is_blocking = true;
        r->is_safe = true;
        r->skip = 1;
    }
    for (unsigned i = 0; i < n; i++) request_dispatch(w, g->part[i], buf_bytes(&b)); /* the last may free g */
    buf_deinit(&b);
    mem_free(slots);
    return OUTCOME_DONE;
}
