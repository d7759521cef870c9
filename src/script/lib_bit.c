/* lib_bit.c: `bit`, operations on 32 bit integers, and math.random() as Redis has it.
 * Source of bit's rules: the documentation of Lua BitOp 1.0.2. */
#include "script/vm.h"

#include <math.h>

/* The integer nearest to a number, modulo 2^32; adding 2^52 + 2^51 leaves it in the low bits of the double. */
static uint32_t to_bits(lua_State *L, int arg)
{
    union {
        double d;
        uint64_t u;
    } v = {luaL_checknumber(L, arg) + 6755399441055744.0};
    return (uint32_t)v.u;
}

static int push_bits(lua_State *L, uint32_t v)
{
    lua_pushnumber(L, (lua_Number)(int32_t)v);
    return 1;
}

static int bit_tobit(lua_State *L)
{
    return push_bits(L, to_bits(L, 1));
}

static int bit_bnot(lua_State *L)
{
    return push_bits(L, ~to_bits(L, 1));
}

static int bit_band(lua_State *L)
{
    uint32_t v = to_bits(L, 1);
    for (int i = lua_gettop(L); i > 1; i--) v &= to_bits(L, i);
    return push_bits(L, v);
}

static int bit_bor(lua_State *L)
{
    uint32_t v = to_bits(L, 1);
    for (int i = lua_gettop(L); i > 1; i--) v |= to_bits(L, i);
    return push_bits(L, v);
}

static int bit_bxor(lua_State *L)
{
    uint32_t v = to_bits(L, 1);
    for (int i = lua_gettop(L); i > 1; i--) v ^= to_bits(L, i);
    return push_bits(L, v);
}

static int bit_lshift(lua_State *L)
{
    uint32_t v = to_bits(L, 1);
    return push_bits(L, v << (to_bits(L, 2) & 31));
}

static int bit_rshift(lua_State *L)
{
    uint32_t v = to_bits(L, 1);
    return push_bits(L, v >> (to_bits(L, 2) & 31));
}

static int bit_arshift(lua_State *L)
{
    int32_t v = (int32_t)to_bits(L, 1);
    return push_bits(L, (uint32_t)(v >> (to_bits(L, 2) & 31)));
}

static int bit_rol(lua_State *L)
{
    uint32_t v = to_bits(L, 1), n = to_bits(L, 2) & 31;
    return push_bits(L, v << n | v >> ((32 - n) & 31));
}

static int bit_ror(lua_State *L)
{
    uint32_t v = to_bits(L, 1), n = to_bits(L, 2) & 31;
    return push_bits(L, v >> n | v << ((32 - n) & 31));
}

static int bit_bswap(lua_State *L)
{
    return push_bits(L, __builtin_bswap32(to_bits(L, 1)));
}

static int bit_tohex(lua_State *L)
{
    uint32_t v = to_bits(L, 1);
    int64_t digits = lua_isnone(L, 2) ? 8 : (int32_t)to_bits(L, 2);
    const char *alphabet = digits < 0 ? "0123456789ABCDEF" : "0123456789abcdef";
    if (digits < 0) digits = -digits;
    if (digits > 8) digits = 8;
    char text[8];
    for (int64_t i = digits; i > 0; i--, v >>= 4) text[i - 1] = alphabet[v & 15];
    lua_pushlstring(L, text, (size_t)digits);
    return 1;
}

int luaopen_covey_bit(lua_State *L)
{
    static const luaL_Reg functions[] = {{"tobit", bit_tobit},   {"bnot", bit_bnot},       {"band", bit_band},
                                         {"bor", bit_bor},       {"bxor", bit_bxor},       {"lshift", bit_lshift},
                                         {"rshift", bit_rshift}, {"arshift", bit_arshift}, {"rol", bit_rol},
                                         {"ror", bit_ror},       {"bswap", bit_bswap},     {"tohex", bit_tohex}};
    lua_newtable(L);
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        lua_pushcfunction(L, functions[i].func);
        lua_setfield(L, -2, functions[i].name);
    }
    return 1;
}

/* ---- math.random: the 48 bit generator of POSIX (drand48), so that scripts see the numbers they see elsewhere ---- */

static uint32_t next_random(struct script_vm *vm)
{
    vm->random = (vm->random * 0x5DEECE66Dull + 0xB) & 0xffffffffffffull;
    return (uint32_t)(vm->random >> 17);
}

static int math_random(lua_State *L)
{
    lua_Number r = (lua_Number)(next_random(vm_of(L)) % INT32_MAX) / (lua_Number)INT32_MAX;
    switch (lua_gettop(L)) {
    case 0: lua_pushnumber(L, r); break;
    case 1: {
        int max = luaL_checkint(L, 1);
        luaL_argcheck(L, 1 <= max, 1, "interval is empty");
        lua_pushnumber(L, floor(r * max) + 1);
        break;
    }
    case 2: {
        int min = luaL_checkint(L, 1), max = luaL_checkint(L, 2);
        luaL_argcheck(L, min <= max, 2, "interval is empty");
        int32_t width = (int32_t)((uint32_t)max - (uint32_t)min + 1);
        lua_pushnumber(L, floor(r * width) + min);
        break;
    }
    default: return luaL_error(L, "wrong number of arguments");
    }
    return 1;
}

static int math_randomseed(lua_State *L)
{
    uint32_t seed = (uint32_t)luaL_checkint(L, 1);
    vm_of(L)->random = (uint64_t)seed << 16 | 0x330E;
    return 0;
}

void random_library_patch(lua_State *L)
{
    lua_pushcfunction(L, math_random);
    lua_setfield(L, -2, "random");
    lua_pushcfunction(L, math_randomseed);
    lua_setfield(L, -2, "randomseed");
}
