#include "server/crash_report.h"

#include "base/crash.h"
#include "server/conn.h"

/* In the handler: other threads run, so what is read of their workers may be of the moment before or behind.  Keys and
 * values are not for logs. */
static void describe(const void *ctx)
{
    const struct node *n = ctx;
    for (int i = 0; i < n->worker_count; i++) {
        const struct worker *w = n->workers[i];
        const struct call *call = w ? w->executing_call : NULL;
        if (!call) continue;
        crash_put("worker ");
        crash_put_number((uint64_t)i, 10);
        crash_put(" executes '");
        crash_put(call->cmd ? call->cmd->name : "an unknown command");
        crash_put("' with ");
        crash_put_number(call->argc, 10);
        crash_put(" arguments in database ");
        crash_put_number((uint64_t)call->db, 10);
        crash_put(", for client id=");
        crash_put_number(w->executing, 10);
        crash_put("\n");
    }
}

void crash_report_init(const struct node *n)
{
    crash_describe(describe, n);
}
