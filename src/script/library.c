/* library.c: sources of functions: their first line, what they register, and the set of all of them. */
#include "script/library.h"

#include "base/clock.h"
#include "base/mem.h"
#include "script/vm.h"

#include <ctype.h>
#include <stdlib.h>
#include <strings.h>

/* ---- the first line: "#!lua name=x" ---- */

static bool name_ok(struct bytes name)
{
    for (size_t i = 0; i < name.n; i++)
        if (!isalnum((unsigned char)name.p[i]) && name.p[i] != '_') return false;
    return name.n > 0;
}

static const char NAME_RULE[] =
    "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long";

static bool take_word(struct bytes *line, struct buf *word)
{
    while (line->n && (line->p[0] == ' ' || line->p[0] == '\r')) *line = bytes_make(line->p + 1, line->n - 1);
    word->n = 0;
    size_t i = 0;
    for (; i < line->n && line->p[i] != ' ' && line->p[i] != '\r'; i++)
        if (line->p[i] != '"' && line->p[i] != '\'') buf_append_char(word, line->p[i]);
    *line = bytes_make(line->p + i, line->n - i);
    return i > 0;
}

static bool take_options(struct script_library *l, struct bytes line, struct buf *word, struct buf *error)
{
    while (take_word(&line, word)) {
        struct bytes w = buf_bytes(word);
        if (w.n < 5 || strncasecmp(w.p, "name=", 5) != 0) {
            buf_printf(error, "ERR Invalid metadata value given: %.*s", (int)w.n, w.n ? w.p : "");
            return false;
        }
        if (l->name) {
            buf_append_cstr(error, "ERR Invalid metadata value, name argument was given multiple times");
            return false;
        }
        l->name = bytes_dup_cstr(bytes_make(w.p + 5, w.n - 5));
    }
    if (!l->name)
        buf_append_cstr(error, "ERR Library name was not given");
    else if (!name_ok(bytes_of(l->name)))
        buf_printf(error, "ERR %s", NAME_RULE);
    else
        return true;
    return false;
}

static bool take_first_line(struct script_library *l, struct buf *error)
{
    if (l->text.n < 2 || memcmp(l->text.p, "#!", 2) != 0) {
        buf_append_cstr(error, "ERR Missing library metadata");
        return false;
    }
    const char *end = memchr(l->text.p, '\n', l->text.n);
    if (!end) {
        buf_append_cstr(error, "ERR Invalid library metadata");
        return false;
    }
    l->code = bytes_make(end, l->text.n - (size_t)(end - l->text.p));
    struct bytes line = bytes_make(l->text.p, (size_t)(end - l->text.p));
    struct buf word = {0};
    take_word(&line, &word);
    bool ok = take_options(l, line, &word, error);
    if (ok) {
        line = bytes_make(l->text.p, (size_t)(end - l->text.p));
        take_word(&line, &word);
        ok = word.n == 5 && strncasecmp(word.p, "#!lua", 5) == 0;
        if (!ok) buf_printf(error, "ERR Engine '%.*s' not found", (int)word.n - 2, word.p + 2);
    }
    buf_deinit(&word);
    return ok;
}

bool script_library_name(struct bytes text, struct buf *name, struct buf *error)
{
    struct script_library l = {.text = text};
    bool ok = take_first_line(&l, error);
    if (ok) buf_append_cstr(name, l.name);
    mem_free(l.name);
    return ok;
}

/* ---- redis.register_function ---- */

struct definition {
    char *name, *description;
    unsigned flags;
    int callback; /* reference */
};

/* What a library registers while its top level runs. */
struct draft {
    struct definition *all;
    size_t count, cap;
};

static void definition_free(struct definition *d)
{
    mem_free(d->name);
    mem_free(d->description);
}

static void draft_deinit(struct draft *d)
{
    for (size_t i = 0; i < d->count; i++) definition_free(&d->all[i]);
    mem_free(d->all);
}

static int add_definition(lua_State *L, struct definition d)
{
    struct script_vm *vm = vm_of(L);
    struct draft *draft = vm->registering;
    const char *why = NULL;
    if (!draft)
        why = "redis.register_function can only be called on FUNCTION LOAD command";
    else if (!name_ok(bytes_of(d.name)))
        why = NAME_RULE;
    for (size_t i = 0; !why && i < draft->count; i++)
        if (strcmp(draft->all[i].name, d.name) == 0) why = "Function already exists in the library";
    if (why) {
        definition_free(&d);
        luaL_unref(L, LUA_REGISTRYINDEX, d.callback);
        return api_fail(L, why);
    }
    if (draft->count == draft->cap) {
        draft->cap = draft->cap ? draft->cap * 2 : 8;
        draft->all = mem_realloc(draft->all, draft->cap * sizeof *draft->all);
    }
    draft->all[draft->count++] = d;
    return 0;
}

static char *dup_string(lua_State *L, int idx)
{
    struct bytes s;
    s.p = lua_tolstring(L, idx, &s.n);
    return bytes_dup_cstr(s);
}

/* The table of flags at the top; false: an unknown one. */
static bool read_flags(lua_State *L, unsigned *flags)
{
    for (int i = 1;; i++) {
        lua_rawgeti(L, -1, i);
        if (lua_isnil(L, -1)) {
            lua_pop(L, 1);
            return true;
        }
        struct bytes name = {0};
        if (lua_type(L, -1) == LUA_TSTRING) name.p = lua_tolstring(L, -1, &name.n);
        unsigned flag = script_flag_find(name);
        lua_pop(L, 1);
        if (!flag) return false;
        *flags |= flag;
    }
}

/* One named argument: its value is at the top.  NULL: fine. */
static const char *named_argument(lua_State *L, struct bytes key, struct definition *d)
{
    if (bytes_ieq(key, BYTES("function_name"))) {
        if (!lua_isstring(L, -1)) return "function_name argument given to redis.register_function must be a string";
        mem_free(d->name);
        d->name = dup_string(L, -1);
    } else if (bytes_ieq(key, BYTES("description"))) {
        if (!lua_isstring(L, -1)) return "description argument given to redis.register_function must be a string";
        mem_free(d->description);
        d->description = dup_string(L, -1);
    } else if (bytes_ieq(key, BYTES("callback"))) {
        if (!lua_isfunction(L, -1)) return "callback argument given to redis.register_function must be a function";
        lua_pushvalue(L, -1);
        d->callback = luaL_ref(L, LUA_REGISTRYINDEX);
    } else if (bytes_ieq(key, BYTES("flags"))) {
        if (!lua_istable(L, -1))
            return "flags argument to redis.register_function must be a table representing function flags";
        if (!read_flags(L, &d->flags)) return "unknown flag given";
    } else {
        return "unknown argument given to redis.register_function";
    }
    return NULL;
}

static int register_named(lua_State *L)
{
    struct definition d = {.callback = LUA_NOREF};
    const char *why = NULL;
    lua_pushnil(L);
    while (!why && lua_next(L, 1)) {
        struct bytes key = {0};
        if (lua_type(L, -2) == LUA_TSTRING) key.p = lua_tolstring(L, -2, &key.n);
        if (lua_type(L, -2) == LUA_TNUMBER)
            why = "unknown argument given to redis.register_function";
        else
            why = key.p ? named_argument(L, key, &d)
                        : "named argument key given to redis.register_function is not a string";
        if (!why) lua_pop(L, 1);
    }
    if (!why && !d.name) why = "redis.register_function must get a function name argument";
    if (!why && d.callback == LUA_NOREF) why = "redis.register_function must get a callback argument";
    if (!why) return add_definition(L, d);
    definition_free(&d);
    luaL_unref(L, LUA_REGISTRYINDEX, d.callback);
    return api_fail(L, why);
}

static int api_register_function(lua_State *L)
{
    int argc = lua_gettop(L);
    if (argc < 1 || argc > 2) return api_fail(L, "wrong number of arguments to redis.register_function");
    if (argc == 1) {
        if (!lua_istable(L, 1))
            return api_fail(L, "calling redis.register_function with a single argument is only applicable to Lua table "
                               "(representing named arguments).");
        return register_named(L);
    }
    if (!lua_isstring(L, 1)) return api_fail(L, "first argument to redis.register_function must be a string");
    if (!lua_isfunction(L, 2)) return api_fail(L, "second argument to redis.register_function must be a function");
    struct definition d = {.name = dup_string(L, 1)};
    d.callback = luaL_ref(L, LUA_REGISTRYINDEX);
    return add_definition(L, d);
}

void library_push_api(lua_State *L)
{
    lua_pushcfunction(L, api_register_function);
    lua_setfield(L, -2, "register_function");
}

/* ---- into a VM ---- */

enum { LOAD_MS_MAX = 500 };

/* In a protected call: (vm); what globals are found in: 0 everything, 1 what a library's top level may use. */
static void see_globals(struct script_vm *vm, bool loading)
{
    lua_State *L = vm->L;
    lua_pushvalue(L, LUA_GLOBALSINDEX);
    lua_getmetatable(L, -1);
    lua_pushliteral(L, "__index"); /* is there: nothing is allocated */
    lua_rawgeti(L, LUA_REGISTRYINDEX, loading ? vm->load_globals : vm->globals);
    lua_rawset(L, -3);
    lua_pop(L, 2);
}

/* Runs a library's top level; false: *error says why. */
static bool run_top_level(struct script_vm *vm, struct bytes code, struct draft *draft, struct buf *error)
{
    lua_State *L = vm->L;
    if (vm_load_text(L, code, "@user_function")) {
        const char *why = lua_tostring(L, -1);
        buf_printf(error, "ERR Error compiling function: %s", why ? why : "?");
        lua_pop(L, 1);
        return false;
    }
    vm->registering = draft;
    vm->load_until_ms = clock_mono_ms() + LOAD_MS_MAX;
    see_globals(vm, true);
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->error_handler);
    lua_insert(L, -2);
    int failed = lua_pcall(L, 0, 0, -2);
    see_globals(vm, false);
    vm->registering = NULL;
    if (failed) {
        const char *why = "execution failure";
        if (vm->aborted)
            why = "ERR FUNCTION LOAD timeout";
        else if (lua_istable(L, -1)) {
            lua_pushliteral(L, "err");
            lua_rawget(L, -2);
            if (lua_isstring(L, -1)) why = lua_tostring(L, -1);
            lua_pop(L, 1); /* the table keeps it */
        } else if (lua_isstring(L, -1)) {
            why = lua_tostring(L, -1);
        }
        buf_printf(error, "ERR Error registering functions: %s", why);
        lua_pop(L, 1);
    }
    lua_pop(L, 1); /* the handler */
    vm_run_over(vm);
    return !failed;
}

struct store_request {
    struct script_vm *vm;
    const struct script_library *l;
    const struct draft *draft;
};

static const struct definition *find_definition(const struct draft *d, const char *name)
{
    for (size_t i = 0; i < d->count; i++)
        if (strcmp(d->all[i].name, name) == 0) return &d->all[i];
    return NULL;
}

static int store_callbacks(lua_State *L)
{
    const struct store_request *r = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, r->vm->functions);
    for (size_t i = 0; i < r->l->count; i++) {
        const struct definition *d = find_definition(r->draft, r->l->functions[i].name);
        if (!d) continue;
        lua_pushnumber(L, (lua_Number)r->l->functions[i].serial);
        lua_rawgeti(L, LUA_REGISTRYINDEX, d->callback);
        lua_rawset(L, -3);
    }
    return 0;
}

static bool push_function(struct script_vm *vm, const struct script_function *f)
{
    lua_rawgeti(vm->L, LUA_REGISTRYINDEX, vm->functions);
    lua_pushnumber(vm->L, (lua_Number)f->serial);
    lua_rawget(vm->L, -2);
    lua_remove(vm->L, -2);
    if (lua_isfunction(vm->L, -1)) return true;
    lua_pop(vm->L, 1);
    return false;
}

bool script_vm_take_function(struct script_vm *vm, const struct script_function *f, struct buf *error)
{
    if (push_function(vm, f)) {
        lua_pop(vm->L, 1);
        return true;
    }
    struct draft draft = {0};
    bool ok = run_top_level(vm, f->library->code, &draft, error);
    if (ok) {
        struct store_request r = {vm, f->library, &draft};
        ok = lua_cpcall(vm->L, store_callbacks, &r) == 0;
        if (!ok) lua_pop(vm->L, 1);
    }
    for (size_t i = 0; i < draft.count; i++) luaL_unref(vm->L, LUA_REGISTRYINDEX, draft.all[i].callback);
    draft_deinit(&draft);
    if (ok && push_function(vm, f))
        lua_pop(vm->L, 1);
    else if (ok) {
        buf_append_cstr(error, "ERR The library did not register this function again");
        ok = false;
    }
    if (!ok && error->n == 0) buf_append_cstr(error, "ERR not enough memory for the library");
    return ok;
}

static bool alive(const struct script_libraries *set, double serial)
{
    for (size_t i = 0; i < set->function_count; i++)
        if ((double)set->functions[i]->serial == serial) return true;
    return false;
}

void script_vm_sweep(struct script_vm *vm, const struct script_libraries *set)
{
    lua_State *L = vm->L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, vm->functions);
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        lua_pop(L, 1);
        if (alive(set, lua_tonumber(L, -1))) continue;
        lua_pushvalue(L, -1);
        lua_pushnil(L);
        lua_rawset(L, -4); /* clearing a field is allowed on the way */
    }
    lua_pop(L, 1);
}

/* ---- creating ---- */

static bool names_rest_command(struct bytes code)
{
    char sha[SCRIPT_SHA_LENGTH] = {0};
    struct buf ignored = {0};
    struct script_body *b = script_body_create(sha, code, &ignored);
    bool found = b && atomic_load(&b->manners) == MANNERS_REST;
    script_body_free(b);
    buf_deinit(&ignored);
    return found;
}

static void take_definitions(struct script_library *l, struct draft *draft)
{
    static _Atomic uint64_t serials; /* only names things: no state that anything depends on */
    l->functions = mem_calloc(draft->count, sizeof *l->functions);
    l->count = draft->count;
    for (size_t i = 0; i < draft->count; i++) {
        struct script_function *f = &l->functions[i];
        f->library = l;
        f->name = draft->all[i].name;
        f->description = draft->all[i].description;
        f->flags = draft->all[i].flags | SCRIPT_HAS_SHEBANG;
        f->serial = atomic_fetch_add(&serials, 1) + 1;
        if (l->names_rest_command) atomic_store(&f->manners, MANNERS_REST);
        draft->all[i].name = draft->all[i].description = NULL;
    }
}

static void log_nothing(void *run, int level, struct bytes text)
{
    (void)run;
    (void)level;
    (void)text;
}

struct script_library *script_library_create(struct bytes text, struct buf *error)
{
    static const struct script_host nobody = {.log = log_nothing};
    struct script_library *l = mem_calloc(1, sizeof *l);
    l->text = bytes_make(bytes_dup_cstr(text), text.n);
    struct draft draft = {0};
    bool ok = take_first_line(l, error);
    if (ok) {
        struct script_vm *vm = script_vm_create(SCRIPT_VM_FUNCTIONS, &nobody);
        ok = run_top_level(vm, l->code, &draft, error);
        script_vm_destroy(vm);
    }
    if (ok && draft.count == 0) {
        buf_append_cstr(error, "ERR No functions registered");
        ok = false;
    }
    if (ok) {
        l->names_rest_command = names_rest_command(l->code);
        take_definitions(l, &draft);
    }
    draft_deinit(&draft);
    if (ok) return l;
    script_library_free(l);
    return NULL;
}

void script_library_free(struct script_library *l)
{
    if (!l) return;
    for (size_t i = 0; i < l->count; i++) {
        mem_free(l->functions[i].name);
        mem_free(l->functions[i].description);
    }
    mem_free(l->functions);
    mem_free(l->name);
    mem_free((char *)(uintptr_t)l->text.p);
    mem_free(l);
}

/* ---- the set ---- */

static int compare_functions(const void *a, const void *b)
{
    const struct script_function *x = *(struct script_function *const *)a, *y = *(struct script_function *const *)b;
    return strcasecmp(x->name, y->name);
}

static void changed(struct script_libraries *set)
{
    mem_free(set->functions);
    set->functions = NULL;
    set->function_count = 0;
    set->memory = 0;
    size_t n = 0;
    for (size_t i = 0; i < set->count; i++) n += set->all[i]->count;
    if (n) set->functions = mem_alloc(n * sizeof *set->functions);
    for (size_t i = 0; i < set->count; i++) {
        struct script_library *l = set->all[i];
        set->memory += sizeof *l + l->text.n + l->count * sizeof *l->functions;
        for (size_t k = 0; k < l->count; k++) set->functions[set->function_count++] = &l->functions[k];
    }
    if (n) qsort(set->functions, n, sizeof *set->functions, compare_functions);
    atomic_fetch_add(&set->generation, 1);
}

struct script_library *script_libraries_find(const struct script_libraries *set, struct bytes name)
{
    for (size_t i = 0; i < set->count; i++)
        if (bytes_eq(bytes_of(set->all[i]->name), name)) return set->all[i];
    return NULL;
}

struct script_function *script_libraries_function(const struct script_libraries *set, struct bytes name)
{
    size_t low = 0, high = set->function_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const char *there = set->functions[mid]->name;
        size_t n = strlen(there);
        int order = strncasecmp(there, name.p, n < name.n ? n : name.n);
        if (order == 0) order = n < name.n ? -1 : n > name.n;
        if (order == 0) return set->functions[mid];
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

static size_t index_of(const struct script_libraries *set, const struct script_library *l)
{
    size_t i = 0;
    while (i < set->count && set->all[i] != l) i++;
    return i;
}

bool script_libraries_add(struct script_libraries *set, struct script_library *l, bool replace, struct buf *error)
{
    struct script_library *old = script_libraries_find(set, bytes_of(l->name));
    if (old && !replace) {
        buf_printf(error, "ERR Library '%s' already exists", l->name);
        return false;
    }
    for (size_t i = 0; i < l->count; i++) {
        const struct script_function *f = script_libraries_function(set, bytes_of(l->functions[i].name));
        if (!f || f->library == old) continue;
        buf_printf(error, "ERR Function %s already exists", l->functions[i].name);
        return false;
    }
    if (old) {
        set->all[index_of(set, old)] = l;
        script_library_free(old);
    } else {
        set->all = mem_realloc(set->all, (set->count + 1) * sizeof(struct script_library *));
        set->all[set->count++] = l;
    }
    changed(set);
    return true;
}

void script_libraries_remove(struct script_libraries *set, struct script_library *l)
{
    size_t i = index_of(set, l);
    memmove(&set->all[i], &set->all[i + 1], (set->count - i - 1) * sizeof(struct script_library *));
    set->count--;
    script_library_free(l);
    changed(set);
}

void script_libraries_clear(struct script_libraries *set)
{
    for (size_t i = 0; i < set->count; i++) script_library_free(set->all[i]);
    set->count = 0;
    changed(set);
}

void script_libraries_deinit(struct script_libraries *set)
{
    script_libraries_clear(set);
    mem_free(set->all);
    set->all = NULL;
}

/* ---- calling ---- */

static int push_arguments(lua_State *L)
{
    const struct script_run_args *args = lua_touserdata(L, 1);
    vm_push_strings(L, args->keys, args->key_count);
    vm_push_strings(L, args->args, args->arg_count);
    return 2;
}

bool script_vm_fcall(struct script_vm *vm, const struct script_function *f, const struct script_run_args *args,
                     struct resp_out *out)
{
    lua_State *L = vm->L;
    vm->run = args->run;
    vm->resp = 2;
    vm->aborted = false;
    push_function(vm, f);
    lua_pushcfunction(L, push_arguments);
    lua_pushlightuserdata(L, (void *)(uintptr_t)args);
    if (lua_pcall(L, 1, 2, 0) != 0) {
        vm->run = NULL;
        resp_error(out, "ERR Error running script, not enough memory");
        lua_pop(L, 2);
        return true;
    }
    return vm_call(vm, 2, args->name, out);
}
