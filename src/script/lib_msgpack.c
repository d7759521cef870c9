/* lib_msgpack.c: `cmsgpack`, MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md) with the choices and
 * limits of lua-cmsgpack 0.4.0: no binary and extension types, 16 levels when packing. */
#include "script/vm.h"

#include <limits.h>
#include <math.h>

enum { NESTING_MAX = 16 };

/* ---- packing: into a luaL_Buffer-like string of our own, because tables are walked on the same stack ---- */

static void put_be(struct buf *b, uint64_t v, unsigned bytes)
{
    while (bytes-- > 0) buf_append_char(b, (char)(v >> (8 * bytes)));
}

static void put_head(struct buf *b, unsigned char type, uint64_t v, unsigned bytes)
{
    buf_append_char(b, (char)type);
    put_be(b, v, bytes);
}

static void put_integer(struct buf *b, int64_t v)
{
    if (v >= 0) {
        if (v <= 127)
            put_head(b, (unsigned char)v, 0, 0);
        else if (v <= 0xff)
            put_head(b, 0xcc, (uint64_t)v, 1);
        else if (v <= 0xffff)
            put_head(b, 0xcd, (uint64_t)v, 2);
        else if (v <= 0xffffffffll)
            put_head(b, 0xce, (uint64_t)v, 4);
        else
            put_head(b, 0xcf, (uint64_t)v, 8);
        return;
    }
    if (v >= -32)
        put_head(b, (unsigned char)v, 0, 0);
    else if (v >= -128)
        put_head(b, 0xd0, (uint64_t)v, 1);
    else if (v >= -32768)
        put_head(b, 0xd1, (uint64_t)v, 2);
    else if (v >= INT32_MIN)
        put_head(b, 0xd2, (uint64_t)v, 4);
    else
        put_head(b, 0xd3, (uint64_t)v, 8);
}

static void put_number(struct buf *b, double d)
{
    if (d >= -9223372036854775808.0 && d < 9223372036854775808.0 && (double)(int64_t)d == d) {
        put_integer(b, (int64_t)d);
        return;
    }
    float f = (float)d;
    if ((double)f == d) {
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        put_head(b, 0xca, bits, 4);
    } else {
        uint64_t bits;
        memcpy(&bits, &d, sizeof bits);
        put_head(b, 0xcb, bits, 8);
    }
}

static bool put_string(struct buf *b, struct bytes s)
{
    if (buf_try_reserve(b, s.n + 8) != OK) return false;
    if (s.n < 32)
        put_head(b, (unsigned char)(0xa0 | s.n), 0, 0);
    else if (s.n <= 0xff)
        put_head(b, 0xd9, s.n, 1);
    else if (s.n <= 0xffff)
        put_head(b, 0xda, s.n, 2);
    else
        put_head(b, 0xdb, s.n, 4);
    buf_append_bytes(b, s);
    return true;
}

/* A table whose keys are 1 to its number of keys; *count gets that number. */
static bool is_array(lua_State *L, size_t *count)
{
    double max = 0;
    bool array = true;
    *count = 0;
    lua_pushnil(L);
    for (; lua_next(L, -2); ++*count) {
        lua_pop(L, 1);
        double k = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : 0;
        if (!(k > 0) || k > INT_MAX || k != floor(k)) array = false;
        if (k > max) max = k;
    }
    return array && max == (double)*count;
}

/* False: no memory. */
static bool put_value(lua_State *L, struct buf *b, int level);

static bool put_table(lua_State *L, struct buf *b, int level)
{
    size_t n;
    bool ok = true;
    bool array = is_array(L, &n);
    unsigned char fixed = array ? 0x90 : 0x80, wide = array ? 0xdc : 0xde;
    if (n <= 15)
        put_head(b, (unsigned char)(fixed | n), 0, 0);
    else if (n <= 0xffff)
        put_head(b, wide, n, 2);
    else
        put_head(b, (unsigned char)(wide + 1), n, 4);
    if (array) {
        for (size_t i = 1; ok && i <= n; i++) {
            lua_rawgeti(L, -1, (int)i);
            ok = put_value(L, b, level + 1);
        }
        return ok;
    }
    lua_pushnil(L);
    while (ok && lua_next(L, -2)) {
        lua_pushvalue(L, -2);
        ok = put_value(L, b, level + 1) && put_value(L, b, level + 1);
    }
    return ok;
}

/* Packs and pops the value at the top. */
static bool put_value(lua_State *L, struct buf *b, int level)
{
    bool ok = lua_checkstack(L, 5);
    int type = ok ? lua_type(L, -1) : LUA_TNIL;
    if (type == LUA_TTABLE && level == NESTING_MAX) type = LUA_TNIL;
    switch (type) {
    case LUA_TSTRING: {
        struct bytes s;
        s.p = lua_tolstring(L, -1, &s.n);
        ok = put_string(b, s);
        break;
    }
    case LUA_TBOOLEAN: put_head(b, lua_toboolean(L, -1) ? 0xc3 : 0xc2, 0, 0); break;
    case LUA_TNUMBER: put_number(b, lua_tonumber(L, -1)); break;
    case LUA_TTABLE: ok = put_table(L, b, level); break;
    default: put_head(b, 0xc0, 0, 0); break;
    }
    if (ok) lua_pop(L, 1);
    return ok;
}

static int push_result(lua_State *L)
{
    const struct buf *b = lua_touserdata(L, 1);
    lua_pushlstring(L, b->p ? b->p : "", b->n);
    return 1;
}

static int msgpack_pack(lua_State *L)
{
    int n = lua_gettop(L);
    if (n == 0) return luaL_argerror(L, 0, "MessagePack pack needs input.");
    if (!lua_checkstack(L, n)) return luaL_argerror(L, 0, "Too many arguments for MessagePack pack.");
    struct buf b = {0};
    bool ok = true;
    for (int i = 1; ok && i <= n; i++) {
        lua_pushvalue(L, i);
        ok = put_value(L, &b, 0);
    }
    /* The copy may fail and must not leave the buffer behind. */
    lua_settop(L, 0);
    lua_pushcfunction(L, push_result);
    lua_pushlightuserdata(L, &b);
    int failed = ok ? lua_pcall(L, 1, 1, 0) : 1;
    buf_deinit(&b);
    if (!ok) return luaL_error(L, "not enough memory");
    return failed ? lua_error(L) : 1;
}

/* ---- unpacking ---- */

enum fault { FAULT_NONE, FAULT_END, FAULT_FORMAT };

struct input {
    const unsigned char *p;
    size_t left;
    enum fault fault;
};

static bool take(struct input *in, size_t n, const unsigned char **p)
{
    if (in->left < n) {
        in->fault = FAULT_END;
        return false;
    }
    *p = in->p;
    in->p += n;
    in->left -= n;
    return true;
}

static bool take_be(struct input *in, unsigned bytes, uint64_t *v)
{
    const unsigned char *p;
    if (!take(in, bytes, &p)) return false;
    *v = 0;
    for (unsigned i = 0; i < bytes; i++) *v = *v << 8 | p[i];
    return true;
}

static void push_value(lua_State *L, struct input *in);

static void push_array(lua_State *L, struct input *in, uint64_t n)
{
    lua_newtable(L);
    luaL_checkstack(L, 1, "in function mp_decode_to_lua_array");
    for (uint64_t i = 1; i <= n; i++) {
        lua_pushnumber(L, (lua_Number)i);
        push_value(L, in);
        if (in->fault) return;
        lua_settable(L, -3);
    }
}

static void push_map(lua_State *L, struct input *in, uint64_t n)
{
    lua_newtable(L);
    for (; n > 0; n--) {
        push_value(L, in);
        if (in->fault) return;
        push_value(L, in);
        if (in->fault) return;
        lua_settable(L, -3);
    }
}

static void push_string(lua_State *L, struct input *in, uint64_t n)
{
    const unsigned char *p;
    if (take(in, n, &p)) lua_pushlstring(L, (const char *)p, n);
}

static void push_float(lua_State *L, unsigned bytes, uint64_t v)
{
    if (bytes == 4) {
        uint32_t bits = (uint32_t)v;
        float f;
        memcpy(&f, &bits, sizeof f);
        lua_pushnumber(L, f);
    } else {
        double d;
        memcpy(&d, &v, sizeof d);
        lua_pushnumber(L, d);
    }
}

static int64_t sign_extended(uint64_t v, unsigned bytes)
{
    unsigned unused = 64 - 8 * bytes;
    return (int64_t)(v << unused) >> unused;
}

/* The types with a number of `bytes` bytes behind their first one. */
static void push_long_form(lua_State *L, struct input *in, unsigned char type)
{
    static const unsigned char widths[32] = {[0xca - 0xc0] = 4, [0xcb - 0xc0] = 8, [0xcc - 0xc0] = 1, [0xcd - 0xc0] = 2,
                                             [0xce - 0xc0] = 4, [0xcf - 0xc0] = 8, [0xd0 - 0xc0] = 1, [0xd1 - 0xc0] = 2,
                                             [0xd2 - 0xc0] = 4, [0xd3 - 0xc0] = 8, [0xd9 - 0xc0] = 1, [0xda - 0xc0] = 2,
                                             [0xdb - 0xc0] = 4, [0xdc - 0xc0] = 2, [0xdd - 0xc0] = 4, [0xde - 0xc0] = 2,
                                             [0xdf - 0xc0] = 4};
    unsigned bytes = widths[type - 0xc0];
    uint64_t v;
    if (bytes == 0) {
        in->fault = FAULT_FORMAT;
        return;
    }
    if (!take_be(in, bytes, &v)) return;
    if (type <= 0xcb)
        push_float(L, bytes, v);
    else if (type <= 0xcf)
        lua_pushnumber(L, (lua_Number)(int64_t)v); /* the upper half as negative numbers, as there */
    else if (type <= 0xd3)
        lua_pushnumber(L, (lua_Number)sign_extended(v, bytes));
    else if (type <= 0xdb)
        push_string(L, in, v);
    else if (type <= 0xdd)
        push_array(L, in, v);
    else
        push_map(L, in, v);
}

static void push_value(lua_State *L, struct input *in)
{
    const unsigned char *p;
    luaL_checkstack(L, 1, "too many return values at once; use unpack_one or unpack_limit instead.");
    if (!take(in, 1, &p)) return;
    unsigned char c = *p;
    if (c < 0x80)
        lua_pushnumber(L, c);
    else if (c < 0x90)
        push_map(L, in, c & 15);
    else if (c < 0xa0)
        push_array(L, in, c & 15);
    else if (c < 0xc0)
        push_string(L, in, c & 31);
    else if (c >= 0xe0)
        lua_pushnumber(L, (lua_Number)(signed char)c);
    else if (c == 0xc0)
        lua_pushnil(L);
    else if (c == 0xc2 || c == 0xc3)
        lua_pushboolean(L, c == 0xc3);
    else
        push_long_form(L, in, c);
}

static int unpack(lua_State *L, int limit, int offset)
{
    size_t n;
    bool all = !limit && !offset;
    const char *s = luaL_checklstring(L, 1, &n);
    if (offset < 0 || limit < 0)
        return luaL_error(L, "Invalid request to unpack with offset of %d and limit of %d.", offset, (int)n);
    if ((size_t)offset > n) return luaL_error(L, "Start offset %d greater than input length %d.", offset, (int)n);
    struct input in = {(const unsigned char *)s + offset, n - (size_t)offset, FAULT_NONE};
    int count = 0;
    for (; in.left > 0 && (all || count < limit); count++) {
        push_value(L, &in);
        if (in.fault == FAULT_END) return luaL_error(L, "Missing bytes in input.");
        if (in.fault == FAULT_FORMAT) return luaL_error(L, "Bad data format in input.");
    }
    if (all) return count;
    luaL_checkstack(L, 1, "in function mp_unpack_full");
    lua_pushinteger(L, in.left == 0 ? -1 : (lua_Integer)(n - in.left));
    lua_insert(L, 2);
    return count + 1;
}

static int msgpack_unpack(lua_State *L)
{
    return unpack(L, 0, 0);
}

static int msgpack_unpack_one(lua_State *L)
{
    int offset = (int)luaL_optinteger(L, 2, 0);
    lua_settop(L, 1);
    return unpack(L, 1, offset);
}

static int msgpack_unpack_limit(lua_State *L)
{
    int limit = (int)luaL_checkinteger(L, 2);
    int offset = (int)luaL_optinteger(L, 3, 0);
    lua_settop(L, 1);
    return unpack(L, limit, offset);
}

int luaopen_covey_cmsgpack(lua_State *L)
{
    static const luaL_Reg functions[] = {{"pack", msgpack_pack},
                                         {"unpack", msgpack_unpack},
                                         {"unpack_one", msgpack_unpack_one},
                                         {"unpack_limit", msgpack_unpack_limit}};
    lua_newtable(L);
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        lua_pushcfunction(L, functions[i].func);
        lua_setfield(L, -2, functions[i].name);
    }
    lua_pushliteral(L, "cmsgpack");
    lua_setfield(L, -2, "_NAME");
    lua_pushliteral(L, "lua-cmsgpack 0.4.0");
    lua_setfield(L, -2, "_VERSION");
    lua_pushliteral(L, "Copyright (C) 2012, Salvatore Sanfilippo");
    lua_setfield(L, -2, "_COPYRIGHT");
    lua_pushliteral(L, "MessagePack C implementation for Lua");
    lua_setfield(L, -2, "_DESCRIPTION");
    return 1;
}
