/* The libraries that read bytes a client sends: cmsgpack, struct and cjson, and what they made of them packed again. */
#include "script/script.h"

#include "base/hash.h"

static struct bytes no_call(void *run, const struct bytes *argv, size_t argc, int resp)
{
    (void)run;
    (void)argv;
    (void)argc;
    (void)resp;
    return BYTES("+OK\r\n");
}

static int no_check(void *run, const struct bytes *argv, size_t argc)
{
    (void)run;
    (void)argv;
    (void)argc;
    return 1;
}

static void no_log(void *run, int level, struct bytes text)
{
    (void)run;
    (void)level;
    (void)text;
}

static void no_repl(void *run, int what)
{
    (void)run;
    (void)what;
}

static void no_tick(void *run)
{
    (void)run;
}

static const char script[] =
    "local function again(ok, ...) if ok then local p = cmsgpack.pack(...) return {cmsgpack.unpack(p)} end end "
    "if #ARGV[1] > 0 then pcall(again, pcall(cmsgpack.unpack, ARGV[1])) end "
    "pcall(cmsgpack.unpack_one, ARGV[1], #ARGV[2]) pcall(cmsgpack.unpack_limit, ARGV[1], 3, #ARGV[2]) "
    "pcall(struct.size, ARGV[1]) pcall(struct.unpack, ARGV[1], ARGV[2]) pcall(struct.pack, ARGV[1], 1, 2.5, ARGV[2], "
    "-3) "
    "local ok, v = pcall(cjson.decode, ARGV[2]) if ok then pcall(cjson.encode, v) end return {ARGV[1], v}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct script_host host = {no_call, no_check, no_log, no_repl, no_tick};
    static struct script_vm *vm;
    static struct script_body *body;
    struct buf out = {0}, error = {0};
    if (!vm) {
        char sha[SCRIPT_SHA_LENGTH] = {0};
        hash_seed_set(1);
        vm = script_vm_create(SCRIPT_VM_EVAL, &host);
        body = script_body_create(sha, bytes_of(script), &error);
        if (!body || !script_vm_compile(vm, body, &error)) __builtin_trap();
    }
    size_t first = size ? data[0] % size : 0;
    struct bytes args[] = {bytes_make(data, first), bytes_make(data + first, size - first)};
    struct script_run_args run = {.run = &run, .args = args, .arg_count = 2, .name = BYTES("x")};
    struct resp_out o = {&out, 3};
    if (!script_vm_eval(vm, body, &run, &o) || out.n == 0 || out.p[0] == '-') __builtin_trap();
    buf_deinit(&out);
    return 0;
}
