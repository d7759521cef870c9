/* sandbox.c: the world a script sees.
 *
 * Tables that scripts share are read-only.  Lua 5.1 has no such thing, so what scripts get is an empty stand-in whose
 * metatable finds the real table and refuses stores; the functions that go around metatables (next, pairs, rawget,
 * rawset, getmetatable, setmetatable, table.insert) are replaced by ones that know stand-ins. */
#include "script/vm.h"

#include <lua-cjson.h>

static const char READONLY[] = "Attempt to modify a readonly table";

/* The key in a stand-in's metatable under which the real table is. */
static char behind_key;

bool sandbox_behind(lua_State *L, int idx)
{
    if (!lua_istable(L, idx) || !lua_getmetatable(L, idx)) return false;
    lua_pushlightuserdata(L, &behind_key);
    lua_rawget(L, -2);
    lua_remove(L, -2);
    if (lua_istable(L, -1)) return true;
    lua_pop(L, 1);
    return false;
}

static int refuse_store(lua_State *L)
{
    return luaL_error(L, READONLY);
}

/* As an error of the interpreter itself, which names no place when a C function is what runs. */
static int refuse_from_c(lua_State *L)
{
    lua_pushstring(L, READONLY);
    return lua_error(L);
}

void sandbox_protect(lua_State *L)
{
    int real = lua_gettop(L);
    lua_newtable(L);
    lua_createtable(L, 0, 3);
    lua_pushvalue(L, real);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, refuse_store);
    lua_setfield(L, -2, "__newindex");
    lua_pushlightuserdata(L, &behind_key);
    lua_pushvalue(L, real);
    lua_rawset(L, -3);
    lua_setmetatable(L, -2);
    lua_replace(L, real);
}

/* Argument `idx` becomes the real table if it is a stand-in. */
static void unwrap(lua_State *L, int idx)
{
    if (sandbox_behind(L, idx)) lua_replace(L, idx);
}

static int safe_next(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 2);
    unwrap(L, 1);
    if (lua_next(L, 1)) return 2;
    lua_pushnil(L);
    return 1;
}

static int safe_pairs(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

static int safe_rawget(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checkany(L, 2);
    lua_settop(L, 2);
    unwrap(L, 1);
    lua_rawget(L, 1);
    return 1;
}

static int safe_rawset(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checkany(L, 2);
    luaL_checkany(L, 3);
    lua_settop(L, 3);
    if (sandbox_behind(L, 1)) return refuse_from_c(L);
    lua_rawset(L, 1);
    return 1;
}

/* upvalue 1: what it answers for strings; 2: for the globals */
static int safe_getmetatable(lua_State *L)
{
    luaL_checkany(L, 1);
    if (lua_type(L, 1) == LUA_TSTRING) {
        lua_pushvalue(L, lua_upvalueindex(1));
        return 1;
    }
    if (lua_rawequal(L, 1, LUA_GLOBALSINDEX)) {
        lua_pushvalue(L, lua_upvalueindex(2));
        return 1;
    }
    if (sandbox_behind(L, 1) || !lua_getmetatable(L, 1)) {
        lua_pushnil(L);
        return 1;
    }
    luaL_getmetafield(L, 1, "__metatable");
    return 1; /* the field, or the metatable */
}

static int safe_setmetatable(lua_State *L)
{
    int t = lua_type(L, 2);
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argcheck(L, t == LUA_TNIL || t == LUA_TTABLE, 2, "nil or table expected");
    if (luaL_getmetafield(L, 1, "__metatable")) return luaL_error(L, "cannot change a protected metatable");
    if (sandbox_behind(L, 1)) return refuse_from_c(L);
    lua_settop(L, 2);
    lua_setmetatable(L, 1);
    return 1;
}

/* upvalue 1: the library's function */
static int checked_insert(lua_State *L)
{
    if (sandbox_behind(L, 1)) return refuse_from_c(L);
    int n = lua_gettop(L);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, n, LUA_MULTRET);
    return lua_gettop(L);
}

static int unwrapped_call(lua_State *L)
{
    unwrap(L, 1);
    int n = lua_gettop(L);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, n, LUA_MULTRET);
    return lua_gettop(L);
}

/* pcall() gives the text of an error that the server made, not its table. */
static int text_pcall(lua_State *L)
{
    luaL_checkany(L, 1);
    int status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
    if (status && lua_istable(L, -1)) {
        lua_pushliteral(L, "err");
        lua_rawget(L, -2);
        if (lua_isstring(L, -1))
            lua_replace(L, -2);
        else
            lua_pop(L, 1);
    }
    lua_pushboolean(L, status == 0);
    lua_insert(L, 1);
    return lua_gettop(L);
}

/* xpcall() whose handler is called after the error has unwound: inside it, where the interpreter would call it, no hook
 * runs, so that a handler which does not return could not be ended. */
static int late_xpcall(lua_State *L)
{
    luaL_checkany(L, 2);
    lua_settop(L, 2);
    lua_insert(L, 1); /* handler, function */
    int status = lua_pcall(L, 0, LUA_MULTRET, 0);
    if (status && vm_of(L)->aborted) return lua_error(L);
    if (status) {
        lua_pushvalue(L, 1);
        lua_insert(L, -2);
        if (lua_pcall(L, 1, 1, 0)) {
            if (vm_of(L)->aborted) return lua_error(L);
            lua_pushliteral(L, "error in error handling");
        }
    }
    lua_pushboolean(L, status == 0);
    lua_replace(L, 1);
    if (status) {
        lua_insert(L, 2);
        lua_settop(L, 2);
    }
    return lua_gettop(L);
}

/* ---- load and loadstring, without binary chunks, which could break the interpreter ---- */

static int loaded(lua_State *L, int status)
{
    if (status == 0) return 1;
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
}

static int safe_loadstring(lua_State *L)
{
    size_t n;
    const char *s = luaL_checklstring(L, 1, &n);
    return loaded(L, vm_load_text(L, bytes_make(s, n), luaL_optstring(L, 2, s)));
}

struct pieces {
    lua_State *L;
    bool begun;
};

static const char *next_piece(lua_State *L, void *data, size_t *n)
{
    struct pieces *p = data;
    if (!p->begun) {
        p->begun = true;
        *n = 1;
        return " ";
    }
    luaL_checkstack(L, 2, "too many nested functions");
    lua_pushvalue(L, 1);
    lua_call(L, 0, 1);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        *n = 0;
        return NULL;
    }
    if (!lua_isstring(L, -1)) luaL_error(L, "reader function must return a string");
    lua_replace(L, 3); /* kept while it is read */
    return lua_tolstring(L, 3, n);
}

static int safe_load(lua_State *L)
{
    const char *name = luaL_optstring(L, 2, "=(load)");
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 3);
    struct pieces p = {.L = L};
    return loaded(L, lua_load(L, next_piece, &p, name));
}

/* ---- cjson ---- */

enum { JSON_TEXT_MAX = 1 << 30, JSON_DEPTH_MAX = 4000, JSON_PER_ELEMENT = 32, JSON_PER_BYTE = 6 };

/* Takes what the value at the top could need as JSON off *left; false: it is too much. */
static bool json_fits(lua_State *L, int depth, int64_t *left)
{
    *left -= JSON_PER_ELEMENT;
    if (lua_type(L, -1) == LUA_TSTRING) *left -= (int64_t)lua_objlen(L, -1) * JSON_PER_BYTE;
    if (*left < 0) return false;
    if (lua_type(L, -1) != LUA_TTABLE) return true;
    if (depth > JSON_DEPTH_MAX || !lua_checkstack(L, 4)) return false;
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        bool fits = json_fits(L, depth + 1, left);
        lua_pop(L, 1);
        if (lua_type(L, -1) == LUA_TSTRING) *left -= (int64_t)lua_objlen(L, -1) * JSON_PER_BYTE;
        if (fits) continue;
        lua_pop(L, 1);
        return false;
    }
    return true;
}

/* The library counts its buffer in an int and ends the process when that overflows, so it is not let get there.
 * upvalue 1: its function */
static int bounded_encode(lua_State *L)
{
    int64_t left = JSON_TEXT_MAX;
    luaL_argcheck(L, lua_gettop(L) == 1, 1, "expected 1 argument");
    if (lua_type(L, 1) == LUA_TTABLE || lua_type(L, 1) == LUA_TSTRING) {
        bool fits = json_fits(L, 0, &left);
        lua_settop(L, 1);
        if (!fits && left < 0) return luaL_error(L, "Cannot serialise, the text would be too long");
        if (!fits) return luaL_error(L, "Cannot serialise, excessive depth (%d)", JSON_DEPTH_MAX + 1);
    }
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    int status = lua_pcall(L, 1, 1, 0);
    if (status == 0) return 1;
    if (status == LUA_ERRRUN && lua_isstring(L, -1)) {
        luaL_where(L, 1); /* the place is that of our caller */
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

/* upvalue 1: the library's function */
static int bounded_new(lua_State *L)
{
    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_call(L, 0, 1);
    lua_getfield(L, -1, "encode");
    lua_pushcclosure(L, bounded_encode, 1);
    lua_setfield(L, -2, "encode");
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, bounded_new, 1);
    lua_setfield(L, -2, "new");
    return 1;
}

/* ---- building ---- */

static int missing_global(lua_State *L)
{
    const char *name = lua_tostring(L, 2);
    return luaL_error(L, "Script attempted to access nonexistent global variable '%s'", name ? name : "?");
}

static void open_library(lua_State *L, const char *name, lua_CFunction open)
{
    lua_pushcfunction(L, open);
    lua_pushstring(L, name);
    lua_call(L, 1, 0);
}

static void set_nil(lua_State *L, const char *name)
{
    lua_pushnil(L);
    lua_setglobal(L, name);
}

static void set_function(lua_State *L, const char *name, lua_CFunction f)
{
    lua_pushcfunction(L, f);
    lua_setglobal(L, name);
}

static void replace_unsafe(lua_State *L)
{
    static const char *const gone[] = {"dofile",   "loadfile", "print",   "getfenv", "setfenv",
                                       "newproxy", "module",   "require", "package"};
    for (size_t i = 0; i < sizeof gone / sizeof gone[0]; i++) set_nil(L, gone[i]);
    lua_pushcfunction(L, safe_next);
    lua_pushvalue(L, -1);
    lua_setglobal(L, "next");
    lua_pushcclosure(L, safe_pairs, 1);
    lua_setglobal(L, "pairs");
    set_function(L, "rawget", safe_rawget);
    set_function(L, "rawset", safe_rawset);
    set_function(L, "setmetatable", safe_setmetatable);
    set_function(L, "pcall", text_pcall);
    set_function(L, "xpcall", late_xpcall);
    set_function(L, "load", safe_load);
    set_function(L, "loadstring", safe_loadstring);
}

static void wrap_field(lua_State *L, const char *name, lua_CFunction f)
{
    lua_getfield(L, -1, name);
    lua_pushcclosure(L, f, 1);
    lua_setfield(L, -2, name);
}

static void patch_libraries(lua_State *L)
{
    lua_getglobal(L, "table");
    wrap_field(L, "insert", checked_insert);
    wrap_field(L, "foreach", unwrapped_call);
    lua_pop(L, 1);
    lua_getglobal(L, "cjson");
    wrap_field(L, "encode", bounded_encode);
    wrap_field(L, "new", bounded_new);
    lua_pop(L, 1);
    lua_getglobal(L, "math");
    random_library_patch(L);
    lua_pop(L, 1);
}

static void open_all(lua_State *L)
{
    open_library(L, "", luaopen_base);
    open_library(L, LUA_TABLIBNAME, luaopen_table);
    open_library(L, LUA_STRLIBNAME, luaopen_string);
    open_library(L, LUA_MATHLIBNAME, luaopen_math);
    static const struct {
        const char *name;
        lua_CFunction open;
    } ours[] = {{"cjson", luaopen_cjson},
                {"struct", luaopen_covey_struct},
                {"cmsgpack", luaopen_covey_cmsgpack},
                {"bit", luaopen_covey_bit}};
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        lua_pushcfunction(L, ours[i].open);
        lua_call(L, 0, 1);
        lua_setglobal(L, ours[i].name);
    }
}

static void protect_globals_tables(lua_State *L)
{
    static const char *const names[] = {"table",  "string",   "math", "coroutine", "cjson",
                                        "struct", "cmsgpack", "bit",  "redis"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        lua_getglobal(L, names[i]);
        if (!lua_istable(L, -1)) {
            lua_pop(L, 1);
            continue;
        }
        sandbox_protect(L);
        lua_setglobal(L, names[i]);
    }
}

/* getmetatable() needs the answers for strings and for the globals as read-only tables of their own. */
static void make_getmetatable(lua_State *L)
{
    lua_newtable(L);
    lua_getglobal(L, "string");
    lua_setfield(L, -2, "__index");
    sandbox_protect(L);
    lua_newtable(L);
    lua_pushcfunction(L, missing_global);
    lua_setfield(L, -2, "__index");
    sandbox_protect(L);
    lua_pushcclosure(L, safe_getmetatable, 2);
    lua_setglobal(L, "getmetatable");
}

/* Looking up what is not there is an error. */
static void set_strict(lua_State *L)
{
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, missing_global);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
}

/* A library's top level sees `redis` and nothing else. */
static void make_load_globals(struct script_vm *vm)
{
    lua_State *L = vm->L;
    lua_newtable(L);
    api_push_load_redis(L);
    set_strict(L);
    sandbox_protect(L);
    lua_setfield(L, -2, "redis");
    set_strict(L);
    vm->load_globals = luaL_ref(L, LUA_REGISTRYINDEX);
}

void sandbox_build(struct script_vm *vm)
{
    lua_State *L = vm->L;
    open_all(L);
    replace_unsafe(L);
    patch_libraries(L);
    lua_pushcfunction(L, api_error_handler);
    lua_pushvalue(L, -1);
    vm->error_handler = luaL_ref(L, LUA_REGISTRYINDEX);
    if (vm->kind == SCRIPT_VM_EVAL)
        lua_setglobal(L, "__redis__err__handler");
    else
        lua_pop(L, 1);
    api_push_redis(L, vm);
    lua_setglobal(L, "redis");
    protect_globals_tables(L);
    make_getmetatable(L);
    if (vm->kind == SCRIPT_VM_FUNCTIONS) make_load_globals(vm);
    /* The real globals: a missing one is an error; behind an empty table that everyone sees. */
    lua_pushvalue(L, LUA_GLOBALSINDEX);
    set_strict(L);
    lua_pushvalue(L, -1);
    vm->globals = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushvalue(L, -1);
    sandbox_protect(L);
    lua_pushvalue(L, -1);
    lua_replace(L, LUA_GLOBALSINDEX);
    lua_setfield(L, -2, "_G");
    lua_pop(L, 1);
}
