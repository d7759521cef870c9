/* run.c: a VM's life: memory, compiling, running, ending what runs too long. */
#include "script/vm.h"

#include "base/clock.h"
#include "base/mem.h"

enum { TICK_INSTRUCTIONS = 100000, GC_EVERY = 50 };

static void *alloc(void *ud, void *p, size_t old, size_t n)
{
    struct script_vm *vm = ud;
    size_t used = atomic_load_explicit(&vm->memory, memory_order_relaxed);
    if (n == 0) {
        if (p) atomic_store_explicit(&vm->memory, used - old, memory_order_relaxed);
        mem_free(p);
        return NULL;
    }
    void *q = p ? mem_try_realloc(p, n) : mem_try_alloc(n);
    if (q) atomic_store_explicit(&vm->memory, used + n - (p ? old : 0), memory_order_relaxed);
    return q;
}

size_t script_vm_memory(const struct script_vm *vm)
{
    return atomic_load_explicit(&vm->memory, memory_order_relaxed);
}

static void hook(lua_State *L, lua_Debug *ar)
{
    struct script_vm *vm = vm_of(L);
    if (!vm->aborted && vm->run) {
        vm->host->tick(vm->run);
        if (vm->aborted) vm->abort_line = lua_getinfo(L, "l", ar) ? ar->currentline : 0;
    }
    if (vm->registering && clock_mono_ms() > vm->load_until_ms) vm->aborted = true;
    if (!vm->aborted) return;
    /* Whatever catches this error is ended at its next line. */
    lua_sethook(L, hook, LUA_MASKLINE | LUA_MASKCOUNT, 1);
    luaL_error(L, "aborted");
}

static void set_hook(struct script_vm *vm)
{
    lua_sethook(vm->L, hook, LUA_MASKCOUNT, TICK_INSTRUCTIONS);
}

void script_vm_abort(struct script_vm *vm)
{
    vm->aborted = true;
    lua_sethook(vm->L, hook, LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

int script_vm_abort_line(const struct script_vm *vm)
{
    return vm->abort_line;
}

static int build(lua_State *L)
{
    struct script_vm *vm = lua_touserdata(L, 1);
    lua_settop(L, 0);
    sandbox_build(vm);
    lua_newtable(L);
    vm->functions = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

struct script_vm *script_vm_create(enum script_vm_kind kind, const struct script_host *host)
{
    struct script_vm *vm = mem_calloc(1, sizeof *vm);
    vm->kind = kind;
    vm->host = host;
    vm->random = 0x1234ABCD330Eull;
    vm->L = lua_newstate(alloc, vm);
    if (!vm->L || lua_cpcall(vm->L, build, vm) != 0) mem_abort(0);
    set_hook(vm);
    return vm;
}

void script_vm_destroy(struct script_vm *vm)
{
    if (!vm) return;
    lua_close(vm->L);
    mem_free(vm->argv);
    mem_free(vm);
}

/* ---- compiling ---- */

struct text_reader {
    struct bytes rest[2];
};

static const char *read_text(lua_State *L, void *data, size_t *n)
{
    (void)L;
    struct text_reader *r = data;
    for (int i = 0; i < 2; i++) {
        struct bytes b = r->rest[i];
        r->rest[i].n = 0;
        *n = b.n;
        if (b.n) return b.p;
    }
    return NULL;
}

int vm_load_text(lua_State *L, struct bytes text, const char *chunk_name)
{
    /* With a space before it, nothing is a binary chunk. */
    struct text_reader r = {{BYTES(" "), text}};
    return lua_load(L, read_text, &r, chunk_name);
}

static bool has_function(struct script_vm *vm, const void *key)
{
    lua_rawgeti(vm->L, LUA_REGISTRYINDEX, vm->functions);
    lua_pushlightuserdata(vm->L, (void *)(uintptr_t)key);
    lua_rawget(vm->L, -2);
    bool there = lua_isfunction(vm->L, -1);
    lua_pop(vm->L, 2);
    return there;
}

struct store_request {
    int functions;
    void *key;
};

/* In a protected call, because a table may have to grow: function, light userdata of a store_request. */
static int store_function(lua_State *L)
{
    const struct store_request *r = lua_touserdata(L, 2);
    lua_rawgeti(L, LUA_REGISTRYINDEX, r->functions);
    lua_pushlightuserdata(L, r->key);
    lua_pushvalue(L, 1);
    lua_rawset(L, -3);
    return 0;
}

bool script_vm_compile(struct script_vm *vm, const struct script_body *body, struct buf *error)
{
    if (has_function(vm, body)) return true;
    lua_State *L = vm->L;
    int failed = vm_load_text(L, body->code, "@user_script");
    if (!failed) {
        struct store_request r = {vm->functions, (void *)(uintptr_t)body};
        lua_pushcfunction(L, store_function);
        lua_insert(L, -2);
        lua_pushlightuserdata(L, &r);
        failed = lua_pcall(L, 2, 0, 0);
    }
    if (failed) {
        const char *why = lua_tostring(L, -1);
        buf_printf(error, "ERR Error compiling script (new function): %s", why ? why : "?");
        lua_pop(L, 1);
    }
    return !failed;
}

void script_vm_drop(struct script_vm *vm, const struct script_body *body)
{
    /* Storing nil under a key that is there allocates nothing. */
    lua_rawgeti(vm->L, LUA_REGISTRYINDEX, vm->functions);
    lua_pushlightuserdata(vm->L, (void *)(uintptr_t)body);
    lua_pushnil(vm->L);
    lua_rawset(vm->L, -3);
    lua_pop(vm->L, 1);
}

static int forget(lua_State *L)
{
    struct script_vm *vm = lua_touserdata(L, 1);
    lua_newtable(L);
    lua_rawseti(L, LUA_REGISTRYINDEX, vm->functions);
    lua_gc(L, LUA_GCCOLLECT, 0);
    return 0;
}

void script_vm_forget(struct script_vm *vm)
{
    if (lua_cpcall(vm->L, forget, vm) != 0) lua_pop(vm->L, 1);
}

/* ---- running ---- */

/* A string field of the error table below the top, as text that lives as long as the table. */
static const char *error_field(lua_State *L, const char *name, struct bytes *out)
{
    lua_pushstring(L, name);
    lua_rawget(L, -2);
    out->p = lua_tolstring(L, -1, &out->n);
    lua_pop(L, 1);
    return out->p;
}

/* The error at the top as a reply; no Lua function that can fail is called. */
static void write_error(lua_State *L, struct bytes name, struct resp_out *out)
{
    struct buf text = {0};
    if (!lua_istable(L, -1)) {
        const char *why = lua_isstring(L, -1) ? lua_tostring(L, -1) : "execution failure";
        buf_printf(&text, "ERR Error running script %.*s, %.100s", (int)name.n, name.p, why);
    } else {
        struct bytes msg, source;
        if (!error_field(L, "err", &msg)) msg = BYTES("ERR unknown error");
        buf_append_bytes(&text, msg);
        lua_pushliteral(L, "line");
        lua_rawget(L, -2);
        bool has_line = lua_isnumber(L, -1);
        long line = has_line ? (long)lua_tonumber(L, -1) : 0;
        lua_pop(L, 1);
        if (has_line && error_field(L, "source", &source))
            buf_printf(&text, " script: %.*s, on %.*s:%ld.", (int)name.n, name.p, (int)source.n, source.p, line);
    }
    resp_error_bytes(out, buf_bytes(&text));
    buf_deinit(&text);
}

/* The result is at the top; converting may need stack and so may fail. */
static int write_reply(lua_State *L)
{
    struct resp_out *out = lua_touserdata(L, 2);
    lua_settop(L, 1);
    convert_write_reply(L, vm_of(L), out);
    return 0;
}

static void collect_some(struct script_vm *vm)
{
    if (++vm->runs % GC_EVERY == 0) lua_gc(vm->L, LUA_GCSTEP, 1);
}

void vm_run_over(struct script_vm *vm)
{
    if (!vm->aborted) return;
    vm->aborted = false;
    set_hook(vm);
}

bool vm_call(struct script_vm *vm, int nargs, struct bytes name, struct resp_out *out)
{
    lua_State *L = vm->L;
    int handler = lua_gettop(L) - nargs;
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->error_handler);
    lua_insert(L, handler);
    int failed = lua_pcall(L, nargs, 1, handler);
    vm->run = NULL;
    if (vm->aborted) {
        lua_settop(L, handler - 1);
        vm_run_over(vm);
        return false;
    }
    if (failed) {
        write_error(L, name, out);
    } else {
        size_t at = out->buf->n;
        lua_pushcfunction(L, write_reply);
        lua_insert(L, -2);
        lua_pushlightuserdata(L, out);
        if (lua_pcall(L, 2, 0, 0)) {
            out->buf->n = at;
            resp_error(out, "ERR Error running script, not enough memory");
        }
    }
    lua_settop(L, handler - 1);
    collect_some(vm);
    return true;
}

void vm_push_strings(lua_State *L, const struct bytes *s, size_t n)
{
    lua_createtable(L, n < 1 << 24 ? (int)n : 0, 0);
    for (size_t i = 0; i < n; i++) {
        lua_pushlstring(L, s[i].p ? s[i].p : "", s[i].n);
        lua_rawseti(L, -2, (int)i + 1);
    }
}

/* In a protected call: sets KEYS and ARGV, leaves the function. */
static int prepare_eval(lua_State *L)
{
    const struct script_run_args *args = lua_touserdata(L, 1);
    const void *body = lua_touserdata(L, 2);
    struct script_vm *vm = vm_of(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->globals);
    vm_push_strings(L, args->keys, args->key_count);
    lua_setfield(L, -2, "KEYS");
    vm_push_strings(L, args->args, args->arg_count);
    lua_setfield(L, -2, "ARGV");
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->functions);
    lua_pushlightuserdata(L, (void *)(uintptr_t)body);
    lua_rawget(L, -2);
    return 1;
}

bool script_vm_eval(struct script_vm *vm, const struct script_body *body, const struct script_run_args *args,
                    struct resp_out *out)
{
    lua_State *L = vm->L;
    vm->run = args->run;
    vm->resp = 2;
    vm->aborted = false;
    lua_pushcfunction(L, prepare_eval);
    lua_pushlightuserdata(L, (void *)(uintptr_t)args);
    lua_pushlightuserdata(L, (void *)(uintptr_t)body);
    if (lua_pcall(L, 2, 1, 0) != 0) {
        vm->run = NULL;
        write_error(L, args->name, out);
        lua_pop(L, 1);
        return true;
    }
    return vm_call(vm, 0, args->name, out);
}
