/* library.h: libraries of functions: the set of them, and how they get into a VM.
 *
 * The set changes with the server at rest (or while the dataset is loaded and nobody else is served) and is read by
 * anyone between.  A VM takes a library in when it first calls one of its functions; so what a library keeps in local
 * variables exists once a VM. */
#ifndef COVEY_SCRIPT_LIBRARY_H
#define COVEY_SCRIPT_LIBRARY_H

#include "script/script.h"

struct script_library;

struct script_function {
    struct script_library *library;
    char *name, *description; /* description: NULL when there is none */
    unsigned flags;           /* enum script_flag, SCRIPT_HAS_SHEBANG included */
    uint64_t serial;          /* never given twice */
    _Atomic int manners;      /* enum script_manners */
};

struct script_library {
    char *name;
    struct bytes text, code; /* text is owned, code is inside */
    struct script_function *functions;
    size_t count;
    bool names_rest_command;
};

/* The name that a source's first line states, appended to *name.  False: *error says what is wrong with the line. */
bool script_library_name(struct bytes text, struct buf *name, struct buf *error);
/* Compiles and runs the source in a VM of its own and finds out what it registers.  NULL: *error (appended) says why
 * not, without '-'. */
struct script_library *script_library_create(struct bytes text, struct buf *error);
void script_library_free(struct script_library *l);

struct script_libraries {
    struct script_library **all; /* in the order of their loading */
    size_t count;
    struct script_function **functions; /* sorted by name, without regard to case */
    size_t function_count;
    _Atomic uint64_t generation; /* raised by every change */
    size_t memory;
};
void script_libraries_deinit(struct script_libraries *set);
struct script_library *script_libraries_find(const struct script_libraries *set, struct bytes name);
struct script_function *script_libraries_function(const struct script_libraries *set, struct bytes name);
/* Takes l.  A library of that name is replaced if `replace`.  False: *error says which name is taken; nothing was
 * changed and l stays the caller's. */
bool script_libraries_add(struct script_libraries *set, struct script_library *l, bool replace, struct buf *error);
void script_libraries_remove(struct script_libraries *set, struct script_library *l); /* frees l */
void script_libraries_clear(struct script_libraries *set);

/* Takes the function's library into the VM unless it is there.  False: *error says why. */
bool script_vm_take_function(struct script_vm *vm, const struct script_function *f, struct buf *error);
/* Forgets functions that are no more. */
void script_vm_sweep(struct script_vm *vm, const struct script_libraries *set);
/* As script_vm_eval(), for a function that was taken in. */
bool script_vm_fcall(struct script_vm *vm, const struct script_function *f, const struct script_run_args *args,
                     struct resp_out *out);

#endif
