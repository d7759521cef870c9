/* wait.c: WAIT and WAITAOF: asked of the nodes that the client has written to, each on a connection of its own.
 *
 * A node counts the replicas that have what it had written when the connection's last command ended.  So a PING goes in
 * front: whatever this client has been told is written by then. */
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
