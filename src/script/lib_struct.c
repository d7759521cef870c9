/* lib_struct.c: `struct`, C structures in strings.  Source of the formats: the documentation of Roberto Ierusalimschy's
 * struct 0.2; the limits and texts are those of redis-server 7.0.15. */
#include "script/vm.h"

#include <ctype.h>
#include <limits.h>

enum { INTEGER_MAX = 32, ALIGN_DEFAULT = 8 };

struct layout {
    lua_State *L;
    const char *fmt;
    bool big_endian;
    int align;
};

static void layout_begin(struct layout *l, lua_State *L)
{
    *l = (struct layout){.L = L, .fmt = luaL_checkstring(L, 1), .align = 1};
}

static int take_number(struct layout *l, int otherwise)
{
    if (!isdigit((unsigned char)*l->fmt)) return otherwise;
    int64_t v = 0;
    for (; isdigit((unsigned char)*l->fmt); l->fmt++) {
        v = v * 10 + (*l->fmt - '0');
        if (v > INT_MAX) luaL_error(l->L, "integral size overflow");
    }
    return (int)v;
}

/* The bytes an item takes, as far as its format says. */
static size_t item_size(struct layout *l, int opt)
{
    switch (opt) {
    case 'b':
    case 'B':
    case 'x': return 1;
    case 'h':
    case 'H': return sizeof(short);
    case 'l':
    case 'L': return sizeof(long);
    case 'T': return sizeof(size_t);
    case 'f': return sizeof(float);
    case 'd': return sizeof(double);
    case 'c': return (size_t)take_number(l, 1);
    case 'i':
    case 'I': {
        int n = take_number(l, sizeof(int));
        if (n > INTEGER_MAX) luaL_error(l->L, "integral size %d is larger than limit of %d", n, INTEGER_MAX);
        return (size_t)n;
    }
    default: return 0;
    }
}

static size_t padding(const struct layout *l, size_t at, int opt, size_t size)
{
    if (size == 0 || opt == 'c') return 0;
    if (size > (size_t)l->align) size = (size_t)l->align;
    return (size - (at & (size - 1))) & (size - 1);
}

static void control(struct layout *l, int opt)
{
    switch (opt) {
    case ' ': break;
    case '>': l->big_endian = true; break;
    case '<': l->big_endian = false; break;
    case '!': {
        int a = take_number(l, ALIGN_DEFAULT);
        if (a <= 0 || a & (a - 1)) luaL_error(l->L, "alignment %d is not a power of 2", a);
        l->align = a;
        break;
    }
    default: luaL_argerror(l->L, 1, lua_pushfstring(l->L, "invalid format option '%c'", opt)); break;
    }
}

static bool is_integer(int opt)
{
    return opt && strchr("bBhHlLTiI", opt);
}

/* ---- packing ---- */

/* Conversions out of range give what x86-64 gives. */
static uint64_t to_u64(double v)
{
    if (v < 0) return v >= -9223372036854775808.0 ? (uint64_t)(int64_t)v : 1ull << 63;
    if (v < 9223372036854775808.0) return (uint64_t)(int64_t)v;
    if (v < 18446744073709551616.0) return (uint64_t)v;
    return v != v ? 1ull << 63 : 0;
}

static void swap_bytes(char *p, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        char c = p[i];
        p[i] = p[n - 1 - i];
        p[n - 1 - i] = c;
    }
}

static void pack_integer(struct layout *l, luaL_Buffer *b, int arg, size_t size)
{
    char bytes[INTEGER_MAX];
    uint64_t v = to_u64(luaL_checknumber(l->L, arg));
    for (size_t i = 0; i < size; i++, v >>= 8) bytes[i] = (char)(v & 0xff);
    if (l->big_endian) swap_bytes(bytes, size);
    luaL_addlstring(b, bytes, size);
}

static void pack_float(struct layout *l, luaL_Buffer *b, int arg, size_t size)
{
    char bytes[8];
    double d = luaL_checknumber(l->L, arg);
    float f = (float)d;
    memcpy(bytes, size == sizeof f ? (void *)&f : (void *)&d, size);
    if (l->big_endian) swap_bytes(bytes, size);
    luaL_addlstring(b, bytes, size);
}

static size_t pack_string(struct layout *l, luaL_Buffer *b, int arg, int opt, size_t size)
{
    size_t n;
    const char *s = luaL_checklstring(l->L, arg, &n);
    if (size == 0) size = n;
    luaL_argcheck(l->L, n >= size, arg + 1, "string too short");
    luaL_addlstring(b, s, size);
    if (opt != 's') return size;
    luaL_addchar(b, '\0');
    return size + 1;
}

static int struct_pack(lua_State *L)
{
    struct layout l;
    luaL_Buffer b;
    int arg = 2;
    size_t total = 0;
    layout_begin(&l, L);
    lua_pushnil(L); /* between the arguments and the buffer's pieces */
    luaL_buffinit(L, &b);
    while (*l.fmt) {
        int opt = (unsigned char)*l.fmt++;
        size_t size = item_size(&l, opt), pad = padding(&l, total, opt, size);
        total += pad;
        while (pad-- > 0) luaL_addchar(&b, '\0');
        if (is_integer(opt))
            pack_integer(&l, &b, arg++, size);
        else if (opt == 'x')
            luaL_addchar(&b, '\0');
        else if (opt == 'f' || opt == 'd')
            pack_float(&l, &b, arg++, size);
        else if (opt == 'c' || opt == 's')
            size = pack_string(&l, &b, arg++, opt, size);
        else
            control(&l, opt);
        total += size;
    }
    luaL_pushresult(&b);
    return 1;
}

/* ---- unpacking ---- */

static lua_Number integer_at(const struct layout *l, const char *p, size_t size, bool is_signed)
{
    uint64_t v = 0;
    for (size_t i = 0; i < size; i++) v = v << 8 | (unsigned char)p[l->big_endian ? i : size - 1 - i];
    if (!is_signed) return (lua_Number)v;
    uint64_t mask = ~0ull << ((size * 8 - 1) & 63);
    if (v & mask) v |= mask;
    return (lua_Number)(int64_t)v;
}

static lua_Number float_at(const struct layout *l, const char *p, size_t size)
{
    char bytes[8];
    memcpy(bytes, p, size);
    if (l->big_endian) swap_bytes(bytes, size);
    float f;
    double d;
    if (size == sizeof d) {
        memcpy(&d, bytes, sizeof d);
        return d;
    }
    memcpy(&f, bytes, sizeof f);
    return f;
}

static void need(lua_State *L, size_t have, size_t at, size_t size)
{
    luaL_argcheck(L, size <= have && at <= have - size, 2, "data string too short");
}

/* The length that was read just before, which is taken back. */
static size_t counted_size(lua_State *L, int *values, size_t have, size_t at)
{
    if (*values == 0 || !lua_isnumber(L, -1)) luaL_error(L, "format 'c0' needs a previous size");
    size_t size = (size_t)to_u64(lua_tonumber(L, -1));
    lua_pop(L, 1);
    --*values;
    need(L, have, at, size);
    return size;
}

static int struct_unpack(lua_State *L)
{
    struct layout l;
    size_t have;
    int values = 0;
    layout_begin(&l, L);
    const char *data = luaL_checklstring(L, 2, &have);
    size_t pos = (size_t)luaL_optinteger(L, 3, 1);
    luaL_argcheck(L, pos > 0, 3, "offset must be 1 or greater");
    pos--;
    while (*l.fmt) {
        int opt = (unsigned char)*l.fmt++;
        size_t size = item_size(&l, opt);
        pos += padding(&l, pos, opt, size);
        need(L, have, pos, size);
        luaL_checkstack(L, 2, "too many results");
        if (is_integer(opt)) {
            lua_pushnumber(L, integer_at(&l, data + pos, size, islower(opt)));
            values++;
        } else if (opt == 'f' || opt == 'd') {
            lua_pushnumber(L, float_at(&l, data + pos, size));
            values++;
        } else if (opt == 'c') {
            if (size == 0) size = counted_size(L, &values, have, pos);
            lua_pushlstring(L, data + pos, size);
            values++;
        } else if (opt == 's') {
            const char *end = memchr(data + pos, '\0', have - pos);
            if (!end) luaL_error(L, "unfinished string in data");
            size = (size_t)(end - (data + pos)) + 1;
            lua_pushlstring(L, data + pos, size - 1);
            values++;
        } else if (opt != 'x') {
            control(&l, opt);
        }
        pos += size;
    }
    lua_pushinteger(L, (lua_Integer)pos + 1);
    return values + 1;
}

static int struct_size(lua_State *L)
{
    struct layout l;
    size_t total = 0;
    layout_begin(&l, L);
    while (*l.fmt) {
        int opt = (unsigned char)*l.fmt++;
        size_t size = item_size(&l, opt);
        total += padding(&l, total, opt, size);
        if (opt == 's') luaL_argerror(L, 1, "option 's' has no fixed size");
        if (opt == 'c' && size == 0) luaL_argerror(L, 1, "option 'c0' has no fixed size");
        if (!isalnum(opt)) control(&l, opt);
        total += size;
    }
    lua_pushinteger(L, (lua_Integer)total);
    return 1;
}

int luaopen_covey_struct(lua_State *L)
{
    lua_newtable(L);
    lua_pushcfunction(L, struct_pack);
    lua_setfield(L, -2, "pack");
    lua_pushcfunction(L, struct_unpack);
    lua_setfield(L, -2, "unpack");
    lua_pushcfunction(L, struct_size);
    lua_setfield(L, -2, "size");
    return 1;
}
