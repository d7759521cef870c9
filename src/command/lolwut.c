/* LOLWUT: a small landscape, of another season for each version asked for. */
#include "base/version.h"
#include "command/call.h"

#include <math.h>

enum { COLUMNS = 60, ROWS = 9, COLUMNS_MAX = 1000 };

/* Waves over waves; `phase` moves them. */
static double height(int column, double phase)
{
    double x = column * 0.1;
    return sin(x + phase) * 0.5 + sin(x * 2.3 + phase * 1.7) * 0.3 + sin(x * 5.1 - phase) * 0.2;
}

static void draw(struct buf *out, int columns, double phase)
{
    static const char *const shades[] = {"#", "%", "+", "-", "."};
    for (int row = 0; row < ROWS; row++) {
        double level = 1 - 2.0 * row / (ROWS - 1);
        for (int column = 0; column < columns; column++) {
            double below = height(column, phase) - level;
            int shade = (int)(below * 4);
            buf_append_cstr(out, below < 0 ? " " : shades[shade < 4 ? 4 - shade : 0]);
        }
        buf_append_char(out, '\n');
    }
}

/* [VERSION version] [columns ...]: numbers behind are checked, as by Redis, which gives them a meaning by version. */
void cmd_lolwut(struct call *c)
{
    int64_t version = 7, number, columns = COLUMNS;
    size_t arg = 1;
    if (c->argc >= 3 && call_arg_is(c, 1, "version")) {
        if (!call_arg_i64(c, 2, &version, NULL)) return;
        arg = 3;
    }
    bool has_art = version == 5 || version == 6;
    for (size_t i = arg; has_art && i < c->argc && i < arg + (version == 5 ? 3 : 2); i++) {
        if (!call_arg_i64(c, i, &number, NULL)) return;
        if (i == arg) columns = number < 1 ? 1 : number > COLUMNS_MAX ? COLUMNS_MAX : number;
    }
    struct buf out = {0};
    draw(&out, (int)columns, (double)(random_below(c->env->rng, 6283)) / 1000 + (double)(version % 7));
    buf_append_cstr(&out, "\nA cove at low tide. Redis ver. " REDIS_VERSION ", Covey ver. " COVEY_VERSION "\n");
    resp_verbatim(&c->out, "txt", buf_bytes(&out));
    buf_deinit(&out);
}
