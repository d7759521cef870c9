/* users.h: who may do what through the proxy.
 *
 * A set of users is immutable once it is published, and counted.  Whoever changes users (ACL SETUSER, DELUSER, LOAD)
 * makes a changed copy under the lock and publishes that.  Every worker points to one set; its clients point into it.
 * Before a request is judged, its worker compares version numbers and, if they differ, adopts the newest set; so what
 * is sent after a change was confirmed is judged by it.  A mail wakes idle workers to do the same, because clients of
 * users that are gone have to be disconnected. */
#ifndef COVEY_PROXY_POLICY_USERS_H
#define COVEY_PROXY_POLICY_USERS_H

#include "access/access.h"
#include "proxy/policy/limit.h"

#include <pthread.h>
#include <stdatomic.h>

/* A user, in one set. */
struct account {
    const struct acl_user *user; /* of the set */
    struct limiter *limit;       /* counted; NULL: none.  The same in every set */
    uint64_t born;               /* another number: another user of the same name */
    uint64_t changed;            /* the version that changed its rules last */
};

struct user_set {
    _Atomic unsigned refs;
    uint64_t version;
    struct acl *acl;
    bool login_needed;        /* of clients that have not logged in */
    struct account *accounts; /* by name */
    size_t count;
};

struct users_options {
    const char *password;             /* of the default user; "" none is needed */
    const char *path;                 /* of the ACL file; "" there is none */
    const struct limit_rules *limits; /* constant */
    bool all_channels;                /* acl-pubsub-default */
};

struct users {
    char *path;                       /* of the ACL file; "" there is none */
    const struct limit_rules *limits; /* borrowed, constant; changes under mu */
    bool all_channels;
    pthread_mutex_t mu;       /* a leaf; guards `current`, and is held while a changed set is made */
    struct user_set *current; /* changes under mu */
    _Atomic uint64_t version; /* of `current` */
    uint64_t births;          /* under mu */
    struct acl_log *log;
    bool is_mirror; /* they are another table's: users_mirror() alone changes them.  Set before any other thread */
};

/* Before any other thread; the limits are borrowed, the rest is copied.  False: what is wrong was logged. */
bool users_create(struct users *u, const struct users_options *options);
void users_destroy(struct users *u);

/* The present set; any thread.  Each is to be released. */
struct user_set *users_hold(struct users *u);
void user_set_release(struct user_set *s); /* NULL is fine */

const struct account *user_set_find(const struct user_set *s, struct bytes name); /* NULL: there is none */
const struct account *user_set_default(const struct user_set *s);
static inline struct bytes account_name(const struct account *a)
{
    return acl_user_name(a->user);
}

/* Other limits (borrowed, constant) for the same users; the old ones are not looked at any more.  Any thread. */
void users_set_limits(struct users *u, const struct limit_rules *limits);
/* The default user's password, as requirepass sets it; who has logged in stays.  Any thread. */
void users_set_password(struct users *u, const char *password);

/* The users are those of this table, which it takes, from here on and until it is told others; `renewed`: all but the
 * default user are new ones, whatever their names.  The first time before any other thread, then any thread. */
void users_mirror(struct users *u, struct acl *acl, bool renewed);

/* Changes; any thread.  They reply to o what went wrong, or how it went. True: there is a new set. */
bool users_set(struct users *u, struct resp_out *o, const struct bytes *argv, size_t argc);
bool users_delete(struct users *u, struct resp_out *o, const struct bytes *argv, size_t argc);
bool users_load(struct users *u, struct resp_out *o);
void users_save(struct users *u, struct resp_out *o);

#endif
