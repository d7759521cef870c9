/* Commands that need neither keys nor a connection. */
#include "base/clock.h"
#include "command/call.h"

void cmd_echo(struct call *c)
{
    resp_bulk(&c->out, c->argv[1]);
}

void cmd_time(struct call *c)
{
    /* Not c->now_ms, which stands still: this is the one command that asks for the time, to the microsecond. */
    int64_t now = clock_wall_us();
    resp_array(&c->out, 2);
    resp_bulk_i64(&c->out, now / 1000000);
    resp_bulk_i64(&c->out, now % 1000000);
}
