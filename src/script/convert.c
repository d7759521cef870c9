/* convert.c: replies to Lua values and back.
 *
 * To Lua: integers become numbers, bulks strings, a status {ok=}, an error {err=}, arrays tables, null false (nil in
 * RESP3), and in RESP3 doubles {double=}, maps {map=}, sets {set=}, big numbers {big_number=}, verbatim strings
 * {verbatim_string=}.  The replies are our own, so their form is not checked beyond staying inside them. */
#include "script/vm.h"

#include "base/number.h"

#include <stdlib.h>

struct cursor {
    const char *p, *end;
};

/* The line behind the type byte. */
static struct bytes take_line(struct cursor *c)
{
    const char *begin = c->p;
    const char *cr = memchr(begin, '\r', (size_t)(c->end - begin));
    if (!cr) cr = c->end;
    c->p = cr + 2 <= c->end ? cr + 2 : c->end;
    return bytes_make(begin, (size_t)(cr - begin));
}

static int64_t line_number(struct bytes line)
{
    int64_t v = 0;
    bool negative = line.n && line.p[0] == '-';
    for (size_t i = negative; i < line.n; i++) v = (int64_t)((uint64_t)v * 10 + (uint64_t)(line.p[i] - '0'));
    return negative ? (int64_t)(0 - (uint64_t)v) : v;
}

static struct bytes take_body(struct cursor *c, int64_t n)
{
    struct bytes body = bytes_make(c->p, (size_t)n);
    if (n > c->end - c->p) body.n = (size_t)(c->end - c->p);
    c->p += body.n;
    c->p = c->end - c->p >= 2 ? c->p + 2 : c->end;
    return body;
}

static void push_value(lua_State *L, struct cursor *c);

static void push_field(lua_State *L, const char *name, struct bytes text)
{
    lua_createtable(L, 0, 1);
    lua_pushlstring(L, text.p, text.n);
    lua_setfield(L, -2, name);
}

static void push_array(lua_State *L, struct cursor *c, int64_t n)
{
    lua_createtable(L, n < 1 << 24 ? (int)n : 0, 0);
    for (int64_t i = 1; i <= n && c->p < c->end; i++) {
        push_value(L, c);
        lua_rawseti(L, -2, (int)i);
    }
}

/* As a table's key: what cannot be one is skipped with its value. */
static void store_pair(lua_State *L)
{
    if (lua_isnil(L, -2))
        lua_pop(L, 2);
    else
        lua_rawset(L, -3);
}

static void push_map(lua_State *L, struct cursor *c, int64_t n)
{
    lua_createtable(L, 0, 1);
    lua_createtable(L, 0, n < 1 << 24 ? (int)n : 0);
    for (int64_t i = 0; i < n && c->p < c->end; i++) {
        push_value(L, c);
        push_value(L, c);
        store_pair(L);
    }
    lua_setfield(L, -2, "map");
}

static void push_set(lua_State *L, struct cursor *c, int64_t n)
{
    lua_createtable(L, 0, 1);
    lua_createtable(L, 0, n < 1 << 24 ? (int)n : 0);
    for (int64_t i = 0; i < n && c->p < c->end; i++) {
        push_value(L, c);
        lua_pushboolean(L, 1);
        store_pair(L);
    }
    lua_setfield(L, -2, "set");
}

static void push_verbatim(lua_State *L, struct bytes body)
{
    lua_createtable(L, 0, 1);
    lua_createtable(L, 0, 2);
    size_t format = body.n < 3 ? body.n : 3, skip = body.n < 4 ? body.n : 4;
    lua_pushlstring(L, body.p + skip, body.n - skip);
    lua_setfield(L, -2, "string");
    lua_pushlstring(L, body.p, format);
    lua_setfield(L, -2, "format");
    lua_setfield(L, -2, "verbatim_string");
}

static void push_double(lua_State *L, struct bytes line)
{
    double v = 0;
    if (!parse_double(line, &v)) v = strtod(line.p, NULL); /* "nan"; the line is inside a longer buffer */
    lua_createtable(L, 0, 1);
    lua_pushnumber(L, v);
    lua_setfield(L, -2, "double");
}

static void push_error(lua_State *L, struct bytes line)
{
    lua_createtable(L, 0, 2);
    lua_pushlstring(L, line.p, line.n);
    lua_setfield(L, -2, "err");
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, "ignore_error_stats_update");
}

static void push_bulk(lua_State *L, struct cursor *c, int64_t n)
{
    struct bytes body = take_body(c, n);
    lua_pushlstring(L, body.p, body.n);
}

static void push_value(lua_State *L, struct cursor *c)
{
    luaL_checkstack(L, 8, "reply nested too deeply");
    if (c->p >= c->end) {
        lua_pushnil(L);
        return;
    }
    char type = *c->p++;
    struct bytes line = take_line(c);
    int64_t n = type == '+' || type == '-' || type == ',' || type == '(' || type == '#' ? 0 : line_number(line);
    switch (type) {
    case ':': lua_pushnumber(L, (lua_Number)n); break;
    case '$':
        if (n < 0)
            lua_pushboolean(L, 0);
        else
            push_bulk(L, c, n);
        break;
    case '+': push_field(L, "ok", line); break;
    case '-': push_error(L, line); break;
    case '*':
    case '>':
        if (n < 0)
            lua_pushboolean(L, 0);
        else
            push_array(L, c, n);
        break;
    case '%': push_map(L, c, n); break;
    case '~': push_set(L, c, n); break;
    case '#': lua_pushboolean(L, line.n && line.p[0] == 't'); break;
    case ',': push_double(L, line); break;
    case '(': push_field(L, "big_number", line); break;
    case '=': push_verbatim(L, take_body(c, n)); break;
    default: lua_pushnil(L); break;
    }
}

void convert_push_reply(lua_State *L, struct bytes reply)
{
    struct cursor c = {reply.p, reply.p + reply.n};
    push_value(L, &c);
}

/* ---- Lua to a reply ---- */

static void write_value(lua_State *L, struct script_vm *vm, struct resp_out *out);

/* Pushes a field of the table at the top; true if it is of that type, else nothing is left pushed. */
static bool field_is(lua_State *L, const char *name, int type)
{
    lua_pushstring(L, name);
    lua_rawget(L, -2);
    if (lua_type(L, -1) == type) return true;
    lua_pop(L, 1);
    return false;
}

static struct bytes top_string(lua_State *L)
{
    struct bytes b;
    b.p = lua_tolstring(L, -1, &b.n);
    return b;
}

static void write_one_line(struct resp_out *out, struct bytes text, char type)
{
    size_t at = out->buf->n;
    buf_append_char(out->buf, type);
    buf_append_bytes(out->buf, text);
    for (size_t i = at; i < out->buf->n; i++)
        if (out->buf->p[i] == '\r' || out->buf->p[i] == '\n') out->buf->p[i] = ' ';
    buf_append(out->buf, "\r\n", 2);
}

/* The table's pairs; the header needs their number first. */
static size_t count_pairs(lua_State *L)
{
    size_t n = 0;
    lua_pushnil(L);
    for (; lua_next(L, -2); n++) lua_pop(L, 1);
    return n;
}

static void write_map(lua_State *L, struct script_vm *vm, struct resp_out *out)
{
    resp_map(out, count_pairs(L));
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        lua_pushvalue(L, -2);
        write_value(L, vm, out); /* the key's copy */
        write_value(L, vm, out);
    }
}

static void write_set(lua_State *L, struct script_vm *vm, struct resp_out *out)
{
    resp_set(out, count_pairs(L));
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
        write_value(L, vm, out);
    }
}

static void write_array(lua_State *L, struct script_vm *vm, struct resp_out *out)
{
    int n = 0;
    for (bool more = true; more;) {
        lua_rawgeti(L, -1, n + 1);
        more = !lua_isnil(L, -1);
        n += more;
        lua_pop(L, 1);
    }
    resp_array(out, (size_t)n);
    for (int i = 1; i <= n; i++) {
        lua_rawgeti(L, -1, i);
        write_value(L, vm, out);
    }
}

static bool write_verbatim(lua_State *L, struct resp_out *out)
{
    bool done = false;
    if (field_is(L, "format", LUA_TSTRING)) {
        char format[4] = "txt";
        struct bytes f = top_string(L);
        memcpy(format, "   ", 3);
        memcpy(format, f.p, f.n < 3 ? f.n : 3);
        lua_pop(L, 1);
        if (field_is(L, "string", LUA_TSTRING)) {
            resp_verbatim(out, format, top_string(L));
            lua_pop(L, 1);
            done = true;
        }
    }
    return done;
}

static void write_big_number(struct resp_out *out, struct bytes digits)
{
    if (out->version >= 3) {
        write_one_line(out, digits, '(');
        return;
    }
    resp_bulk(out, digits);
    char *p = out->buf->p + out->buf->n - digits.n - 2;
    for (size_t i = 0; i < digits.n; i++)
        if (p[i] == '\r' || p[i] == '\n') p[i] = ' ';
}

static bool write_scalar_table(lua_State *L, struct resp_out *out)
{
    if (field_is(L, "err", LUA_TSTRING)) {
        resp_error_bytes(out, top_string(L));
    } else if (field_is(L, "ok", LUA_TSTRING)) {
        write_one_line(out, top_string(L), '+');
    } else if (field_is(L, "double", LUA_TNUMBER)) {
        resp_double(out, lua_tonumber(L, -1));
    } else if (field_is(L, "big_number", LUA_TSTRING)) {
        write_big_number(out, top_string(L));
    } else {
        return false;
    }
    lua_pop(L, 1);
    return true;
}

static void write_table(lua_State *L, struct script_vm *vm, struct resp_out *out)
{
    if (write_scalar_table(L, out)) return;
    if (field_is(L, "map", LUA_TTABLE)) {
        write_map(L, vm, out);
        lua_pop(L, 1);
        return;
    }
    if (field_is(L, "set", LUA_TTABLE)) {
        write_set(L, vm, out);
        lua_pop(L, 1);
        return;
    }
    if (field_is(L, "verbatim_string", LUA_TTABLE)) {
        bool done = write_verbatim(L, out);
        lua_pop(L, 1);
        if (done) return;
    }
    write_array(L, vm, out);
}

static int64_t truncated(double v)
{
    /* What a conversion on x86-64 gives for everything out of range. */
    return v >= -9223372036854775808.0 && v < 9223372036854775808.0 ? (int64_t)v : INT64_MIN;
}

/* Writes and pops the value at the top. */
static void write_value(lua_State *L, struct script_vm *vm, struct resp_out *out)
{
    if (!lua_checkstack(L, 4)) {
        resp_error(out, "ERR reached lua stack limit");
        lua_pop(L, 1);
        return;
    }
    switch (lua_type(L, -1)) {
    case LUA_TSTRING: resp_bulk(out, top_string(L)); break;
    case LUA_TBOOLEAN:
        if (vm->resp >= 3)
            resp_bool(out, lua_toboolean(L, -1));
        else if (lua_toboolean(L, -1))
            resp_i64(out, 1);
        else
            resp_null(out);
        break;
    case LUA_TNUMBER: resp_i64(out, truncated(lua_tonumber(L, -1))); break;
    case LUA_TTABLE: write_table(L, vm, out); break;
    default: resp_null(out); break;
    }
    lua_pop(L, 1);
}

void convert_write_reply(lua_State *L, struct script_vm *vm, struct resp_out *out)
{
    write_value(L, vm, out);
}
