/* script_functions.c: FUNCTION and FCALL.  Libraries change with the server at rest, replicas repeat the commands, and
 * RDB files carry the sources. */
#include "server/scripting.h"

#include "base/glob.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"
#include "persist/persist.h"

#include <stdio.h>

static struct node *node_of(const struct call *call)
{
    return call->env->server;
}

/* ---- FCALL ---- */

bool function_needs_token(struct conn *c, struct call *call)
{
    const struct script_function *f = script_libraries_function(&c->worker->node->scripting->libraries, call->argv[1]);
    return f && atomic_load_explicit(&f->manners, memory_order_relaxed) != MANNERS_CLEAN;
}

static bool function_key_count(struct call *call, size_t *count)
{
    int64_t n;
    const char *why = NULL;
    if (!parse_i64(call->argv[2], &n))
        why = "ERR Bad number of keys provided";
    else if (n > (int64_t)call->argc - 3)
        why = "ERR Number of keys can't be greater than number of args";
    else if (n < 0)
        why = "ERR Number of keys can't be negative";
    else
        *count = (size_t)n;
    if (why) resp_error(&call->out, why);
    return !why;
}

static void fcall(struct call *call, bool read_only)
{
    struct worker *w = call_conn(call)->worker;
    struct script_function *f = script_libraries_function(&w->node->scripting->libraries, call->argv[1]);
    size_t keys;
    if (!f) {
        resp_error(&call->out, "ERR Function not found");
        return;
    }
    if (!function_key_count(call, &keys)) return;
    struct script_vm *vm = script_worker_vm(w, SCRIPT_VM_FUNCTIONS);
    struct buf error = {0};
    if (script_vm_take_function(vm, f, &error)) {
        struct script_target target = {.function = f,
                                       .flags = f->flags,
                                       .manners = &f->manners,
                                       .name = bytes_of(f->name),
                                       .read_only_command = read_only};
        script_run(call, vm, &target, 3, keys);
    } else {
        resp_error_bytes(&call->out, buf_bytes(&error));
    }
    buf_deinit(&error);
}

void cmd_fcall(struct call *call)
{
    fcall(call, false);
}

void cmd_fcall_ro(struct call *call)
{
    fcall(call, true);
}

/* ---- FUNCTION ---- */

/* Whether the name is free; the source is not run before. */
static bool may_load(const struct script_libraries *set, struct bytes source, bool replace, struct buf *error)
{
    struct buf name = {0};
    bool ok = script_library_name(source, &name, error);
    if (ok && !replace && script_libraries_find(set, buf_bytes(&name))) {
        buf_printf(error, "ERR Library '%.*s' already exists", (int)name.n, name.p);
        ok = false;
    }
    buf_deinit(&name);
    return ok;
}

void cmd_function_load(struct call *call)
{
    bool replace = false;
    for (size_t i = 2; i + 1 < call->argc; i++) {
        if (!call_arg_is(call, i, "replace")) {
            resp_errorf(&call->out, "ERR Unknown option given: %.*s", resp_shown(call->argv[i]), call->argv[i].p);
            return;
        }
        replace = true;
    }
    if (!call_exclusive(call)) return;
    struct script_libraries *set = &node_of(call)->scripting->libraries;
    struct buf error = {0};
    struct script_library *l = NULL;
    if (may_load(set, call->argv[call->argc - 1], replace, &error))
        l = script_library_create(call->argv[call->argc - 1], &error);
    if (l && script_libraries_add(set, l, replace, &error)) {
        call->dirty++;
        resp_bulk_cstr(&call->out, l->name);
    } else {
        script_library_free(l);
        resp_error_bytes(&call->out, buf_bytes(&error));
    }
    buf_deinit(&error);
}

void cmd_function_delete(struct call *call)
{
    if (!call_exclusive(call)) return;
    struct script_libraries *set = &node_of(call)->scripting->libraries;
    struct script_library *l = script_libraries_find(set, call->argv[2]);
    if (!l) {
        resp_error(&call->out, "ERR Library not found");
        return;
    }
    script_libraries_remove(set, l);
    call->dirty++;
    resp_ok(&call->out);
}

static void wrong_arguments(struct call *call)
{
    resp_errorf(&call->out, "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try FUNCTION HELP.",
                (int)(call->argv[1].n < 128 ? call->argv[1].n : 128), call->argv[1].p);
}

void cmd_function_flush(struct call *call)
{
    if (call->argc > 3) {
        wrong_arguments(call);
        return;
    }
    if (call->argc == 3 && !call_arg_is(call, 2, "sync") && !call_arg_is(call, 2, "async")) {
        resp_error(&call->out, "ERR FUNCTION FLUSH only supports SYNC|ASYNC option");
        return;
    }
    if (!call_exclusive(call)) return;
    script_libraries_clear(&node_of(call)->scripting->libraries);
    call->dirty++;
    resp_ok(&call->out);
}

static void write_flags(struct call *call, unsigned flags)
{
    size_t mark = resp_defer(&call->out), n = 0;
    for (unsigned bit = 0; script_flag_name(bit); bit++) {
        if (!(flags & 1u << bit)) continue;
        resp_status(&call->out, script_flag_name(bit));
        n++;
    }
    resp_defer_set(&call->out, mark, n);
}

static void write_library(struct call *call, const struct script_library *l, bool with_code)
{
    struct resp_out *o = &call->out;
    resp_map(o, with_code ? 4 : 3);
    resp_bulk_cstr(o, "library_name");
    resp_bulk_cstr(o, l->name);
    resp_bulk_cstr(o, "engine");
    resp_bulk_cstr(o, "LUA");
    resp_bulk_cstr(o, "functions");
    resp_array(o, l->count);
    for (size_t i = 0; i < l->count; i++) {
        const struct script_function *f = &l->functions[i];
        resp_map(o, 3);
        resp_bulk_cstr(o, "name");
        resp_bulk_cstr(o, f->name);
        resp_bulk_cstr(o, "description");
        if (f->description)
            resp_bulk_cstr(o, f->description);
        else
            resp_null(o);
        resp_bulk_cstr(o, "flags");
        write_flags(call, f->flags);
    }
    if (!with_code) return;
    resp_bulk_cstr(o, "library_code");
    resp_bulk(o, l->text);
}

void cmd_function_list(struct call *call)
{
    bool with_code = false, has_pattern = false;
    struct bytes pattern = {0};
    for (size_t i = 2; i < call->argc; i++) {
        if (!with_code && call_arg_is(call, i, "withcode")) {
            with_code = true;
        } else if (!has_pattern && call_arg_is(call, i, "libraryname")) {
            if (i + 1 == call->argc) {
                resp_error(&call->out, "ERR library name argument was not given");
                return;
            }
            has_pattern = true;
            pattern = call->argv[++i];
        } else {
            struct buf text = {0};
            buf_printf(&text, "ERR Unknown argument %.*s", resp_shown(call->argv[i]), call->argv[i].p);
            resp_error_uncut(&call->out, buf_bytes(&text));
            buf_deinit(&text);
            return;
        }
    }
    const struct script_libraries *set = &node_of(call)->scripting->libraries;
    size_t mark = resp_defer(&call->out), n = 0;
    for (size_t i = 0; i < set->count; i++) {
        if (has_pattern && !glob_match(pattern, bytes_of(set->all[i]->name), true)) continue;
        write_library(call, set->all[i], with_code);
        n++;
    }
    resp_defer_array(&call->out, mark, n);
}

void cmd_function_dump(struct call *call)
{
    struct rdb_extras x = {0};
    struct buf payload = {0};
    scripting_libraries_list(node_of(call), &x);
    if (persist_dump_libraries(&x, config_bool(node_of(call)->config, CFG_RDBCOMPRESSION), &payload) == OK)
        resp_bulk(&call->out, buf_bytes(&payload));
    else
        resp_error(&call->out, "ERR not enough memory for the payload");
    buf_deinit(&payload);
    rdb_extras_deinit(&x);
}

/* ---- RESTORE: all or nothing ---- */

/* The libraries of x into a set of their own, one by one: the first one that does not compile, or collides with one
 * before it, is what *error speaks of. */
static bool create_all(const struct rdb_extras *x, struct script_libraries *own, struct buf *error)
{
    for (size_t i = 0; i < x->count; i++) {
        struct script_library *l = script_library_create(buf_bytes(&x->libraries[i]), error);
        if (!l) return false;
        if (script_libraries_add(own, l, false, error)) continue;
        script_library_free(l);
        return false;
    }
    return true;
}

/* Whether the new libraries can come in beside those that stay. */
static bool fit(const struct script_libraries *set, const struct script_libraries *own, enum libraries_policy policy,
                struct buf *error)
{
    for (size_t i = 0; i < own->count; i++) {
        if (policy == LIBRARIES_APPEND && script_libraries_find(set, bytes_of(own->all[i]->name))) {
            buf_printf(error, "ERR Library %s already exists", own->all[i]->name);
            return false;
        }
    }
    for (size_t i = 0; policy != LIBRARIES_FLUSH && i < own->count; i++) {
        const struct script_library *l = own->all[i];
        for (size_t k = 0; k < l->count; k++) {
            const char *name = l->functions[k].name;
            const struct script_function *f = script_libraries_function(set, bytes_of(name));
            if (!f || script_libraries_find(own, bytes_of(f->library->name))) continue;
            buf_printf(error, "ERR Function %s already exists", name);
            return false;
        }
    }
    return true;
}

/* Moves what is in `own`, which fits. */
static void put_all(struct script_libraries *set, struct script_libraries *own, enum libraries_policy policy,
                    struct buf *error)
{
    if (policy == LIBRARIES_FLUSH) script_libraries_clear(set);
    for (size_t i = 0; i < own->count; i++) {
        struct script_library *old = script_libraries_find(set, bytes_of(own->all[i]->name));
        if (old) script_libraries_remove(set, old);
    }
    for (size_t i = 0; i < own->count; i++)
        if (!script_libraries_add(set, own->all[i], false, error)) script_library_free(own->all[i]);
    own->count = 0;
}

static bool restore(struct node *n, struct bytes payload, enum libraries_policy policy, struct buf *error)
{
    struct rdb_extras x = {0};
    struct script_libraries own = {0};
    enum status st = persist_restore_libraries(payload, &x);
    bool ok = create_all(&x, &own, error); /* what came before the damage is judged before it */
    switch (ok ? st : OK) {
    case OK: break;
    case E_EXISTS: buf_append_cstr(error, "ERR given type is not a function"); break;
    case E_INVALID: buf_append_cstr(error, "ERR DUMP payload version or checksum are wrong"); break;
    default: buf_append_cstr(error, "ERR Failed loading library payload"); break;
    }
    ok = ok && st == OK && fit(&n->scripting->libraries, &own, policy, error);
    if (ok) put_all(&n->scripting->libraries, &own, policy, error);
    script_libraries_deinit(&own);
    rdb_extras_deinit(&x);
    return ok;
}

void cmd_function_restore(struct call *call)
{
    enum libraries_policy policy = LIBRARIES_APPEND;
    if (call->argc > 4) {
        wrong_arguments(call);
        return;
    }
    if (call->argc == 4) {
        if (call_arg_is(call, 3, "replace"))
            policy = LIBRARIES_REPLACE;
        else if (call_arg_is(call, 3, "flush"))
            policy = LIBRARIES_FLUSH;
        else if (!call_arg_is(call, 3, "append")) {
            resp_error(&call->out, "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.");
            return;
        }
    }
    if (!call_exclusive(call)) return;
    struct buf error = {0};
    if (restore(node_of(call), call->argv[2], policy, &error)) {
        call->dirty++;
        resp_ok(&call->out);
    } else {
        resp_error_bytes(&call->out, buf_bytes(&error));
    }
    buf_deinit(&error);
}

void cmd_function_help(struct call *call)
{
    static const char *const lines[] = {
        "LOAD [REPLACE] <FUNCTION CODE>",
        "    Create a new library with the given library name and code.",
        "DELETE <LIBRARY NAME>",
        "    Delete the given library.",
        "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
        "    Return general information on all the libraries:",
        "    * Library name",
        "    * The engine used to run the Library",
        "    * Library description",
        "    * Functions list",
        "    * Library code (if WITHCODE is given)",
        "    It also possible to get only function that matches a pattern using LIBRARYNAME argument.",
        "STATS",
        "    Return information about the current function running:",
        "    * Function name",
        "    * Command used to run the function",
        "    * Duration in MS that the function is running",
        "    If no function is running, return nil",
        "    In addition, returns a list of available engines.",
        "KILL",
        "    Kill the current running function.",
        "FLUSH [ASYNC|SYNC]",
        "    Delete all the libraries.",
        "    When called without the optional mode argument, the behavior is determined by the",
        "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
        "    * ASYNC: Asynchronously flush the libraries.",
        "    * SYNC: Synchronously flush the libraries.",
        "DUMP",
        ("    Return a serialized payload representing the current libraries, can be restored using FUNCTION RESTORE "
         "command"),
        "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
        "    Restore the libraries represented by the given payload, it is possible to give a restore policy to",
        "    control how to handle existing libraries (default APPEND):",
        "    * FLUSH: delete all existing libraries.",
        "    * APPEND: appends the restored libraries to the existing libraries. On collision, abort.",
        "    * REPLACE: appends the restored libraries to the existing libraries, On collision, replace the old",
        "      libraries with the new libraries (notice that even on this option there is a chance of failure",
        "      in case of functions name collision with another library).",
    };
    call_help(call, "FUNCTION", lines, sizeof lines / sizeof lines[0]);
}

/* ---- RDB files ---- */

void scripting_libraries_list(struct node *n, struct rdb_extras *x)
{
    rdb_extras_deinit(x);
    const struct script_libraries *set = &n->scripting->libraries;
    for (size_t i = 0; i < set->count; i++) rdb_extras_add(x, set->all[i]->text);
}

enum status scripting_libraries_load(struct node *n, const struct rdb_extras *x, enum libraries_policy policy,
                                     struct rdb_error *err)
{
    struct buf error = {0};
    struct script_libraries own = {0}, *set = &n->scripting->libraries;
    bool ok = create_all(x, &own, &error) && fit(set, &own, policy, &error);
    if (ok) put_all(set, &own, policy, &error);
    if (!ok) snprintf(err->text, sizeof err->text, "a function library: %.*s", (int)error.n, error.n ? error.p : "");
    script_libraries_deinit(&own);
    buf_deinit(&error);
    return ok ? OK : E_CORRUPT;
}
