/* scripts.h: the texts of scripts that clients have run or loaded, by their SHA-1, so that EVALSHA finds its script at
 * every node; inside src/proxy/cluster only.  All threads share one; a mutex guards it, held for moments.  The texts
 * are bounded by number and bytes; who was not asked for longest goes first. */
#ifndef COVEY_PROXY_CLUSTER_SCRIPTS_H
#define COVEY_PROXY_CLUSTER_SCRIPTS_H

#include "base/bytes.h"
#include "base/htable.h"
#include "base/list.h"
#include "base/sha1.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* Constant; counted. */
struct script {
    struct hnode node;
    struct list used; /* in scripts.used */
    _Atomic unsigned refs;
    uint8_t sha[SHA1_SIZE];
    size_t n;
    char text[];
};

struct scripts {
    pthread_mutex_t mu;
    struct htable table;
    struct list used; /* the one asked for last is at the end */
    size_t bytes;
    _Atomic uint64_t lost;    /* how often some went */
    _Atomic uint64_t flushed; /* how often all went, because the nodes forgot them too */
};

void scripts_init(struct scripts *s);
void scripts_deinit(struct scripts *s); /* held ones stay until they are released */
/* Remembers a text, if the limits allow it at all.  sha: its name. */
void scripts_note(struct scripts *s, struct bytes text, size_t most, size_t most_bytes, uint8_t sha[SHA1_SIZE]);
/* Held; NULL: not known. */
MUST_USE struct script *scripts_find(struct scripts *s, const uint8_t sha[SHA1_SIZE]);
void scripts_forget(struct scripts *s, struct bytes text);
void scripts_flush(struct scripts *s);
void script_release(struct script *s); /* NULL is fine */
/* What EVALSHA and SCRIPT EXISTS call it: 40 digits, of either case.  False: that is no name. */
MUST_USE bool script_sha_parse(struct bytes name, uint8_t sha[SHA1_SIZE]);

#endif
