#include "server/aof_scripts.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/number.h"
#include "server/scripting.h"

#include <ctype.h>

enum { ERRORS_LOGGED = 20 };

struct aof_scripts {
    struct node *node;
    struct aof_scripts_host host;
    struct script_vm *vm;
    unsigned errors;
};

/* ---- what a script asks for -------------------------------------------------------------------------------------- */

static struct bytes host_call(void *run, const struct bytes *argv, size_t argc, int resp)
{
    struct aof_scripts *s = run;
    return s->host.call(s->host.ctx, argv, argc, resp);
}

static int host_acl_check(void *run, const struct bytes *argv, size_t argc)
{
    (void)run; /* who called it is not known any more, and was allowed to */
    (void)argv;
    return argc ? 1 : -1;
}

static void host_log(void *run, int level, struct bytes text)
{
    (void)run;
    if (level == SCRIPT_LOG_WARNING) log_warning("%.*s", (int)text.n, text.p);
    if (level == SCRIPT_LOG_NOTICE) log_notice("%.*s", (int)text.n, text.p);
}

static void host_set_repl(void *run, int what)
{
    (void)run; /* nobody listens */
    (void)what;
}

static void host_tick(void *run)
{
    (void)run;
}

static const struct script_host vm_host = {host_call, host_acl_check, host_log, host_set_repl, host_tick};

struct aof_scripts *aof_scripts_create(struct node *n)
{
    struct aof_scripts *s = mem_calloc(1, sizeof *s);
    s->node = n;
    s->vm = script_vm_create(SCRIPT_VM_EVAL, &vm_host);
    return s;
}

void aof_scripts_destroy(struct aof_scripts *s)
{
    if (!s) return;
    script_vm_destroy(s->vm);
    mem_free(s);
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

bool aof_scripts_knows(const struct command *cmd)
{
    return command_is_eval(cmd) || command_is_evalsha(cmd) || cmd->id == CMD_ID_SCRIPT_LOAD ||
           cmd->id == CMD_ID_SCRIPT_FLUSH;
}

static void complain(struct aof_scripts *s, struct bytes error)
{
    if (s->errors++ >= ERRORS_LOGGED) return;
    log_warning("A script in the append only file ended with an error: %.*s", (int)(error.n < 256 ? error.n : 256),
                error.p);
}

/* The script of that text, compiled and in the node's cache; NULL: it is none. */
static struct script_body *body_of_text(struct aof_scripts *s, struct bytes text, struct buf *error)
{
    char sha[SCRIPT_SHA_LENGTH];
    script_sha1_hex(text, sha);
    struct script_body *b = script_cache_find(s->node->scripting->cache, sha);
    if (!b) {
        b = script_body_create(sha, text, error);
        if (b && !script_vm_compile(s->vm, b, error)) {
            script_body_free(b);
            return NULL;
        }
        if (b) (void)script_cache_insert(s->node->scripting->cache, b); /* nobody else inserts */
    }
    return b && script_vm_compile(s->vm, b, error) ? b : NULL;
}

static struct script_body *body_of_sha(struct aof_scripts *s, struct bytes arg, struct buf *error)
{
    char sha[SCRIPT_SHA_LENGTH];
    if (arg.n == sizeof sha)
        for (size_t i = 0; i < arg.n; i++) sha[i] = (char)tolower((unsigned char)arg.p[i]);
    struct script_body *b = arg.n == sizeof sha ? script_cache_find(s->node->scripting->cache, sha) : NULL;
    if (!b) buf_append_cstr(error, "NOSCRIPT No matching script. Please use EVAL.");
    return b && script_vm_compile(s->vm, b, error) ? b : NULL;
}

static void eval(struct aof_scripts *s, const struct script_body *b, const struct bytes *argv, size_t argc)
{
    int64_t keys;
    if (!parse_i64(argv[2], &keys) || keys < 0 || keys > (int64_t)argc - 3) {
        complain(s, BYTES("ERR Number of keys can't be greater than number of args"));
        return;
    }
    struct buf reply = {0};
    struct resp_out out = {&reply, 2};
    struct script_run_args args = {.run = s,
                                   .keys = argv + 3,
                                   .key_count = (size_t)keys,
                                   .args = argv + 3 + keys,
                                   .arg_count = argc - 3 - (size_t)keys,
                                   .name = bytes_make(b->sha, sizeof b->sha)};
    (void)script_vm_eval(s->vm, b, &args, &out);
    if (reply.n && reply.p[0] == '-') complain(s, bytes_make(reply.p + 1, reply.n - 1));
    buf_deinit(&reply);
}

void aof_scripts_run(struct aof_scripts *s, struct aof_scripts_host host, const struct command *cmd,
                     const struct bytes *argv, size_t argc)
{
    s->host = host;
    if (!command_arity_ok(cmd, argc)) return;
    if (cmd->id == CMD_ID_SCRIPT_FLUSH) {
        script_vm_forget(s->vm);
        script_cache_flush(s->node->scripting->cache);
        return;
    }
    struct buf error = {0};
    struct script_body *b = command_is_evalsha(cmd) ? body_of_sha(s, argv[1], &error)
                                                    : body_of_text(s, argv[command_is_eval(cmd) ? 1 : 2], &error);
    if (!b)
        complain(s, buf_bytes(&error));
    else if (cmd->id != CMD_ID_SCRIPT_LOAD)
        eval(s, b, argv, argc);
    buf_deinit(&error);
}
