#include "command/mpop.h"

bool mpop_parse(struct call *c, size_t arg, const char *const ends[2], struct mpop *m)
{
    int64_t keys;
    if (!call_arg_range(c, arg, 1, INT64_MAX, &keys, "ERR numkeys should be greater than 0")) return false;
    if ((uint64_t)keys >= c->argc - arg - 1) {
        resp_error(&c->out, ERR_SYNTAX);
        return false;
    }
    *m = (struct mpop){.first_key = arg + 1, .keys = (size_t)keys, .count = 1};
    size_t at = m->first_key + m->keys;
    m->end = call_arg_is(c, at, ends[1]);
    bool ok = m->end || call_arg_is(c, at, ends[0]);
    bool counted = ok && at + 2 < c->argc && call_arg_is(c, at + 1, "count");
    if (counted && !call_arg_range(c, at + 2, 1, INT64_MAX, &m->count, "ERR count should be greater than 0"))
        return false;
    if (ok && at + (counted ? 3 : 1) == c->argc) return true;
    resp_error(&c->out, ERR_SYNTAX);
    return false;
}
