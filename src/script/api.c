/* api.c: the table `redis` of a script. */
#include "script/vm.h"

#include "base/mem.h"
#include "base/number.h"

#include <stdio.h>

enum { ARGV_KEEP = 1024 };

/* ---- errors ---- */

static struct bytes trim_line_end(struct bytes b)
{
    while (b.n && (b.p[b.n - 1] == '\r' || b.p[b.n - 1] == '\n')) b.n--;
    while (b.n && (b.p[0] == '\r' || b.p[0] == '\n')) b = bytes_make(b.p + 1, b.n - 1);
    return b;
}

void api_push_error(lua_State *L, struct bytes text)
{
    lua_createtable(L, 0, 4);
    lua_pushliteral(L, "err");
    bool coded = text.n && text.p[0] == '-';
    if (coded) text = trim_line_end(bytes_make(text.p + 1, text.n - 1));
    if (coded && text.n && memchr(text.p, ' ', text.n)) {
        lua_pushlstring(L, text.p, text.n);
    } else {
        text = trim_line_end(text);
        lua_pushliteral(L, "ERR ");
        lua_pushlstring(L, text.p ? text.p : "", text.n);
        lua_concat(L, 2);
    }
    lua_rawset(L, -3);
}

static void mark_counted(lua_State *L)
{
    lua_pushliteral(L, "ignore_error_stats_update");
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
}

int api_raise(lua_State *L)
{
    return lua_error(L);
}

int api_fail(lua_State *L, const char *text)
{
    api_push_error(L, bytes_of(text));
    return api_raise(L);
}

/* What tostring() gives for a value that is no table; the globals may be out of sight. */
static void push_text(lua_State *L, int idx)
{
    switch (lua_type(L, idx)) {
    case LUA_TNUMBER:
    case LUA_TSTRING:
        lua_pushvalue(L, idx);
        lua_tostring(L, -1);
        break;
    case LUA_TNIL: lua_pushliteral(L, "nil"); break;
    case LUA_TBOOLEAN: lua_pushstring(L, lua_toboolean(L, idx) ? "true" : "false"); break;
    default: lua_pushfstring(L, "%s: %p", luaL_typename(L, idx), lua_topointer(L, idx)); break;
    }
}

/* Makes a table of every error and adds where it happened. */
int api_error_handler(lua_State *L)
{
    lua_settop(L, 1);
    if (!lua_istable(L, 1)) {
        lua_createtable(L, 0, 4);
        lua_pushliteral(L, "ERR ");
        push_text(L, 1);
        lua_concat(L, 2);
        lua_setfield(L, -2, "err");
        lua_replace(L, 1);
    }
    lua_Debug ar;
    bool found = lua_getstack(L, 1, &ar) && lua_getinfo(L, "Sl", &ar);
    if (found && *ar.what == 'C') found = lua_getstack(L, 2, &ar) && lua_getinfo(L, "Sl", &ar);
    if (found && !sandbox_behind(L, 1)) {
        lua_pushstring(L, ar.source);
        lua_setfield(L, 1, "source");
        lua_pushinteger(L, ar.currentline);
        lua_setfield(L, 1, "line");
    }
    lua_settop(L, 1);
    return 1;
}

/* ---- redis.call ---- */

static bool reserve_argv(struct script_vm *vm, size_t n, size_t numbers)
{
    enum { NUMBER_ROOM = 32 };
    size_t need = n + (numbers * NUMBER_ROOM + sizeof(struct bytes) - 1) / sizeof(struct bytes);
    if (need <= vm->argv_cap) return true;
    struct bytes *p = mem_try_realloc(vm->argv, need * sizeof *p);
    if (!p) return false;
    vm->argv = p;
    vm->argv_cap = need;
    return true;
}

static size_t format_number(char *out, double v)
{
    if (v > -1e15 && v < 1e15 && v == (double)(int64_t)v && (v != 0 || 1 / v > 0)) return format_i64(out, (int64_t)v);
    int n = snprintf(out, 32, "%.17g", v);
    return (size_t)n;
}

static size_t refuse_argv(lua_State *L, const char *text, bool raise)
{
    api_push_error(L, bytes_of(text));
    if (raise) api_raise(L);
    return 0;
}

/* The arguments on the stack as a request.  If they are none an error is on the stack instead: it is raised, or the
 * result is 0. */
static size_t take_argv(lua_State *L, struct script_vm *vm, bool raise)
{
    int n = lua_gettop(L);
    if (n == 0) return refuse_argv(L, "Please specify at least one argument for this redis lib call", raise);
    size_t numbers = 0;
    for (int i = 1; i <= n; i++) {
        int type = lua_type(L, i);
        if (type == LUA_TNUMBER)
            numbers++;
        else if (type != LUA_TSTRING)
            return refuse_argv(L, "Lua redis lib command arguments must be strings or integers", raise);
    }
    if (!reserve_argv(vm, (size_t)n, numbers)) luaL_error(L, "not enough memory");
    char *text = (char *)(vm->argv + n);
    for (int i = 1; i <= n; i++) {
        struct bytes *arg = &vm->argv[i - 1];
        if (lua_type(L, i) == LUA_TNUMBER) {
            *arg = bytes_make(text, format_number(text, lua_tonumber(L, i)));
            text += 32;
        } else {
            arg->p = lua_tolstring(L, i, &arg->n);
        }
    }
    return (size_t)n;
}

static void shrink_argv(struct script_vm *vm)
{
    if (vm->argv_cap <= ARGV_KEEP) return;
    mem_free(vm->argv);
    vm->argv = NULL;
    vm->argv_cap = 0;
}

static int call(lua_State *L, bool raise)
{
    struct script_vm *vm = vm_of(L);
    if (vm->aborted) return luaL_error(L, "aborted");
    size_t argc = take_argv(L, vm, raise);
    if (!argc) return 1;
    struct bytes reply = vm->host->call(vm->run, vm->argv, argc, vm->resp);
    shrink_argv(vm);
    if (vm->aborted) return luaL_error(L, "aborted");
    lua_settop(L, 0);
    if (reply.n && reply.p[0] == '-') {
        api_push_error(L, reply);
        mark_counted(L);
        return raise ? api_raise(L) : 1;
    }
    convert_push_reply(L, reply);
    return 1;
}

static int api_call(lua_State *L)
{
    return call(L, true);
}

static int api_pcall(lua_State *L)
{
    return call(L, false);
}

static int api_acl_check_cmd(lua_State *L)
{
    struct script_vm *vm = vm_of(L);
    size_t argc = take_argv(L, vm, true);
    int allowed = vm->host->acl_check(vm->run, vm->argv, argc);
    shrink_argv(vm);
    if (allowed < 0) return api_fail(L, "Invalid command passed to redis.acl_check_cmd()");
    lua_pushboolean(L, allowed);
    return 1;
}

/* ---- small things ---- */

static int api_error_reply(lua_State *L)
{
    if (lua_gettop(L) != 1 || lua_type(L, 1) != LUA_TSTRING) {
        api_push_error(L, BYTES("wrong number or type of arguments"));
        return 1;
    }
    if (lua_tostring(L, 1)[0] != '-') {
        lua_pushliteral(L, "-");
        lua_insert(L, 1);
        lua_concat(L, 2);
    }
    size_t n;
    const char *s = lua_tolstring(L, 1, &n);
    api_push_error(L, bytes_make(s, n));
    return 1;
}

static int api_status_reply(lua_State *L)
{
    if (lua_gettop(L) != 1 || lua_type(L, 1) != LUA_TSTRING) {
        api_push_error(L, BYTES("wrong number or type of arguments"));
        return 1;
    }
    lua_createtable(L, 0, 1);
    lua_pushvalue(L, 1);
    lua_setfield(L, -2, "ok");
    return 1;
}

static int api_sha1hex(lua_State *L)
{
    if (lua_gettop(L) != 1) return api_fail(L, "wrong number of arguments");
    size_t n;
    const char *s = lua_tolstring(L, 1, &n);
    char sha[SCRIPT_SHA_LENGTH];
    script_sha1_hex(bytes_make(s ? s : "", s ? n : 0), sha);
    lua_pushlstring(L, sha, sizeof sha);
    return 1;
}

static int api_log(lua_State *L)
{
    int argc = lua_gettop(L);
    if (argc < 2) return api_fail(L, "redis.log() requires two arguments or more.");
    if (!lua_isnumber(L, 1)) return api_fail(L, "First argument must be a number (log level).");
    double level = lua_tonumber(L, 1);
    if (!(level >= SCRIPT_LOG_DEBUG && level <= SCRIPT_LOG_WARNING)) return api_fail(L, "Invalid debug level.");
    struct script_vm *vm = vm_of(L);
    struct buf text = {0};
    for (int i = 2; i <= argc; i++) {
        size_t n;
        const char *s = lua_tolstring(L, i, &n);
        if (!s) continue;
        if (text.n) buf_append_char(&text, ' ');
        if (buf_try_reserve(&text, n + 1) != OK) break;
        buf_append(&text, s, n);
    }
    vm->host->log(vm->run, (int)level, buf_bytes(&text));
    buf_deinit(&text);
    return 0;
}

static int api_setresp(lua_State *L)
{
    if (lua_gettop(L) != 1) return api_fail(L, "redis.setresp() requires one argument.");
    double v = lua_tonumber(L, 1);
    if (v != 2 && v != 3) return api_fail(L, "RESP version must be 2 or 3.");
    vm_of(L)->resp = (int)v;
    return 0;
}

static int api_set_repl(lua_State *L)
{
    if (lua_gettop(L) != 1) return api_fail(L, "redis.set_repl() requires two arguments.");
    double v = lua_tonumber(L, 1);
    if (!(v >= 0 && v <= SCRIPT_REPL_ALL))
        return api_fail(L, "Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.");
    struct script_vm *vm = vm_of(L);
    vm->host->set_repl(vm->run, (int)v);
    return 0;
}

static int api_replicate_commands(lua_State *L)
{
    lua_pushboolean(L, 1);
    return 1;
}

static int api_breakpoint(lua_State *L)
{
    lua_pushboolean(L, 0);
    return 1;
}

static int api_debug(lua_State *L)
{
    (void)L;
    return 0;
}

/* ---- the table ---- */

static void set_numbers(lua_State *L)
{
    static const struct {
        const char *name;
        int value;
    } numbers[] = {{"LOG_DEBUG", SCRIPT_LOG_DEBUG},     {"LOG_VERBOSE", SCRIPT_LOG_VERBOSE},
                   {"LOG_NOTICE", SCRIPT_LOG_NOTICE},   {"LOG_WARNING", SCRIPT_LOG_WARNING},
                   {"REPL_NONE", SCRIPT_REPL_NONE},     {"REPL_AOF", SCRIPT_REPL_AOF},
                   {"REPL_SLAVE", SCRIPT_REPL_REPLICA}, {"REPL_REPLICA", SCRIPT_REPL_REPLICA},
                   {"REPL_ALL", SCRIPT_REPL_ALL},       {"REDIS_VERSION_NUM", 0x0007000f}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        lua_pushinteger(L, numbers[i].value);
        lua_setfield(L, -2, numbers[i].name);
    }
    lua_pushliteral(L, "7.0.15");
    lua_setfield(L, -2, "REDIS_VERSION");
}

void api_push_load_redis(lua_State *L)
{
    lua_newtable(L);
    library_push_api(L);
    lua_pushcfunction(L, api_log);
    lua_setfield(L, -2, "log");
    set_numbers(L);
}

void api_push_redis(lua_State *L, struct script_vm *vm)
{
    static const luaL_Reg common[] = {{"call", api_call},
                                      {"pcall", api_pcall},
                                      {"log", api_log},
                                      {"setresp", api_setresp},
                                      {"error_reply", api_error_reply},
                                      {"status_reply", api_status_reply},
                                      {"set_repl", api_set_repl},
                                      {"sha1hex", api_sha1hex},
                                      {"acl_check_cmd", api_acl_check_cmd}};
    static const luaL_Reg eval_only[] = {
        {"replicate_commands", api_replicate_commands}, {"breakpoint", api_breakpoint}, {"debug", api_debug}};
    lua_newtable(L);
    for (size_t i = 0; i < sizeof common / sizeof common[0]; i++) {
        lua_pushcfunction(L, common[i].func);
        lua_setfield(L, -2, common[i].name);
    }
    for (size_t i = 0; vm->kind == SCRIPT_VM_EVAL && i < sizeof eval_only / sizeof eval_only[0]; i++) {
        lua_pushcfunction(L, eval_only[i].func);
        lua_setfield(L, -2, eval_only[i].name);
    }
    set_numbers(L);
}
