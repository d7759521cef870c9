/* script_busy.c: scripts that run long: who is told so, and how they are ended. */
#include "server/scripting.h"

#include "base/clock.h"

enum { SLOW_MS = 10 };

static const char BUSY_SCRIPT[] =
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
static const char BUSY_FUNCTION[] =
    "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.";

static struct scripting *scripting_of(const struct slow_run *s)
{
    return s->conn->worker->node->scripting;
}

static void become_slow(struct slow_run *s)
{
    struct scripting *all = scripting_of(s);
    pthread_mutex_lock(&all->mu);
    list_push_back(&all->slow, &s->link);
    pthread_mutex_unlock(&all->mu);
    s->listed = true;
    atomic_fetch_add(&all->slow_count, 1);
}

bool script_slow_tick(struct slow_run *s, int64_t now_ms)
{
    int64_t took = now_ms - s->begun_ms;
    if (!s->listed && took >= SLOW_MS) become_slow(s);
    if (s->listed && !s->busy) {
        int64_t threshold = config_num(s->conn->worker->node->config, CFG_BUSY_REPLY_THRESHOLD);
        if (threshold > 0 && took >= threshold) {
            s->busy = true;
            atomic_store(&scripting_of(s)->busy_function, s->function);
            atomic_fetch_add(&scripting_of(s)->busy_count, 1);
        }
    }
    return atomic_load_explicit(&s->killed, memory_order_relaxed);
}

void script_slow_end(struct slow_run *s)
{
    if (!s->listed) return;
    struct scripting *all = scripting_of(s);
    pthread_mutex_lock(&all->mu);
    list_remove(&s->link);
    pthread_mutex_unlock(&all->mu);
    atomic_fetch_sub(&all->slow_count, 1);
    /* With several busy ones the others mark theirs again at their next tick. */
    if (s->busy) {
        for (size_t i = 0; i < sizeof all->busy_slots / sizeof all->busy_slots[0]; i++)
            atomic_store_explicit(&all->busy_slots[i], 0, memory_order_relaxed);
        atomic_fetch_sub(&all->busy_count, 1);
    }
    s->listed = s->busy = false;
}

bool script_waits_for_script(const struct command *cmd)
{
    return cmd->categories & CAT_SCRIPTING && !(cmd->flags & CMD_ALLOW_BUSY);
}

bool script_any_slow(const struct node *n)
{
    return atomic_load_explicit(&n->scripting->slow_count, memory_order_relaxed) > 0;
}

const char *script_busy_text(const struct node *n)
{
    if (atomic_load_explicit(&n->scripting->busy_count, memory_order_relaxed) == 0) return NULL;
    return atomic_load(&n->scripting->busy_function) ? BUSY_FUNCTION : BUSY_SCRIPT;
}

void script_busy_mark(struct scripting *s, unsigned slot)
{
    atomic_fetch_or_explicit(&s->busy_slots[slot / 64], 1ull << (slot % 64), memory_order_relaxed);
}

bool script_busy_has(const struct scripting *s, unsigned slot)
{
    return atomic_load_explicit(&s->busy_slots[slot / 64], memory_order_relaxed) >> (slot % 64) & 1;
}

static void resume_refused(struct conn *c, void *data)
{
    (void)data;
    if (c && c->wait == WAIT_SLOT) conn_resume(c);
}

void script_refuse_waiting(struct worker *w)
{
    struct scripting *s = w->node->scripting;
    if (!script_busy_text(w->node)) return;
    list_each(it, &w->conns)
    {
        struct conn *c = container_of(it, struct conn, link);
        if (c->wait != WAIT_SLOT || !script_busy_has(s, (unsigned)c->wait_offset)) continue;
        waiting_room_forget(w->node->waiting, c);
        c->refuse_busy = true;
        conn_post(conn_ref_of(c), resume_refused, NULL);
    }
}

/* ---- KILL ---- */

static const char UNKILLABLE[] =
    "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script "
    "termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.";

/* Every slow script of the kind that has not written is told to end. */
static void kill_slow(struct call *call, bool function)
{
    struct node *n = call->env->server;
    struct scripting *s = n->scripting;
    const char *why_not = "NOTBUSY No scripts in execution right now.";
    bool killed = false;
    pthread_mutex_lock(&s->mu);
    list_each(it, &s->slow)
    {
        struct slow_run *r = container_of(it, struct slow_run, link);
        if (atomic_load_explicit(&r->wrote, memory_order_relaxed)) {
            why_not = UNKILLABLE;
        } else if (r->function != function) {
            why_not = r->function ? BUSY_FUNCTION : BUSY_SCRIPT;
        } else {
            atomic_store(&r->killed, true);
            killed = true;
        }
    }
    pthread_mutex_unlock(&s->mu);
    if (killed)
        resp_ok(&call->out);
    else
        resp_error(&call->out, why_not);
}

void cmd_script_kill(struct call *call)
{
    kill_slow(call, false);
}

void cmd_function_kill(struct call *call)
{
    kill_slow(call, true);
}

/* ---- FUNCTION STATS ---- */

static void write_running(struct resp_out *o, const struct slow_run *r)
{
    resp_map(o, 3);
    resp_bulk_cstr(o, "name");
    resp_bulk(o, r->name);
    resp_bulk_cstr(o, "command");
    resp_array(o, r->argc);
    for (size_t i = 0; i < r->argc; i++) resp_bulk(o, r->argv[i]);
    resp_bulk_cstr(o, "duration_ms");
    resp_i64(o, clock_mono_ms() - r->begun_ms);
}

void cmd_function_stats(struct call *call)
{
    struct node *n = call->env->server;
    struct scripting *s = n->scripting;
    const struct slow_run *function = NULL;
    resp_map(&call->out, 2);
    resp_bulk_cstr(&call->out, "running_script");
    /* The run leaves the list, under the lock, before its call is over. */
    pthread_mutex_lock(&s->mu);
    list_each(it, &s->slow)
    {
        const struct slow_run *r = container_of(it, struct slow_run, link);
        if (r->function) function = r;
    }
    if (function) write_running(&call->out, function);
    pthread_mutex_unlock(&s->mu);
    if (!function) resp_null(&call->out);
    resp_bulk_cstr(&call->out, "engines");
    resp_map(&call->out, 1);
    resp_bulk_cstr(&call->out, "LUA");
    resp_map(&call->out, 2);
    resp_bulk_cstr(&call->out, "libraries_count");
    resp_i64(&call->out, (int64_t)s->libraries.count);
    resp_bulk_cstr(&call->out, "functions_count");
    resp_i64(&call->out, (int64_t)s->libraries.function_count);
}
