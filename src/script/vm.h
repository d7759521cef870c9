/* vm.h: the inside of a VM; inside src/script only. */
#ifndef COVEY_SCRIPT_VM_H
#define COVEY_SCRIPT_VM_H

#include "script/script.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

struct script_vm {
    lua_State *L;
    const struct script_host *host;
    enum script_vm_kind kind;
    _Atomic size_t memory;
    /* references in the registry */
    int globals;       /* the table behind the read-only _G */
    int load_globals;  /* what a library's top level sees instead; in VMs of functions only */
    int error_handler; /* __redis__err__handler */
    int functions;     /* compiled scripts and functions by the address of their body */
    /* the run under way */
    void *run;
    int resp; /* what redis.setresp() chose */
    bool aborted;
    int abort_line;        /* where the script was then; 0: not known */
    void *registering;     /* struct draft of library.c while a library's top level runs; NULL: none does */
    int64_t load_until_ms; /* monotonic: when that has to be over */
    unsigned runs;
    uint64_t random;    /* 48 bits of math.random() */
    struct bytes *argv; /* of redis.call() */
    size_t argv_cap;
};

static inline struct script_vm *vm_of(lua_State *L)
{
    void *vm;
    lua_getallocf(L, &vm);
    return vm;
}

/* ---- sandbox.c ---- */

/* Puts a read-only stand-in for the table at the top in its place. */
void sandbox_protect(lua_State *L);
/* The table behind the stand-in at idx is pushed and true returned; false, nothing pushed: it is none. */
bool sandbox_behind(lua_State *L, int idx);
/* Opens the libraries, replaces what is not safe, and makes everything read-only.  In a protected call. */
void sandbox_build(struct script_vm *vm);

/* ---- api.c: the table `redis` ---- */
void api_push_redis(lua_State *L, struct script_vm *vm);
/* The one that a library's top level sees. */
void api_push_load_redis(lua_State *L);
void library_push_api(lua_State *L); /* library.c: sets register_function in the table at the top */
/* Pushes {err = ...} for an error as the server writes it ("-CODE text") or a bare text. */
void api_push_error(lua_State *L, struct bytes text);
/* luaL_error() for what was pushed by api_push_error(). */
int api_raise(lua_State *L);
/* api_push_error() of "-ERR text" or "text", marked as counted already, then raise. */
int api_fail(lua_State *L, const char *text);
int api_error_handler(lua_State *L);

/* ---- convert.c ---- */

/* Pushes the value of one encoded reply. */
void convert_push_reply(lua_State *L, struct bytes reply);
/* Writes the value at the top as a reply and pops it. */
void convert_write_reply(lua_State *L, struct script_vm *vm, struct resp_out *out);

/* ---- libraries ---- */
int luaopen_covey_bit(lua_State *L);
int luaopen_covey_struct(lua_State *L);
int luaopen_covey_cmsgpack(lua_State *L);
void random_library_patch(lua_State *L); /* math at the top: random and randomseed as Redis has them */

/* ---- run.c ---- */
/* Calls the function below nargs arguments; on failure writes the error, else the reply.  False: aborted. */
/* Makes the VM fit for the next run after one that may have been aborted. */
void vm_run_over(struct script_vm *vm);
void vm_push_strings(lua_State *L, const struct bytes *s, size_t n);
bool vm_call(struct script_vm *vm, int nargs, struct bytes name, struct resp_out *out);
/* lua_load() of text only: binary chunks are not understood. */
int vm_load_text(lua_State *L, struct bytes text, const char *chunk_name);

#endif
