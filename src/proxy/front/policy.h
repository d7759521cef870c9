/* policy.h: users, what they may do and how fast, the same for every backend.
 *
 * Every client has a user (the default one until it has logged in) from when it is a client.  A backend asks before it
 * takes a request (front_admit), and before it does what the request says (front_refusal).  It says to the client who
 * it is (front_log_in); whether clients have to log in at all is the backend's to decide. */
#ifndef COVEY_PROXY_FRONT_POLICY_H
#define COVEY_PROXY_FRONT_POLICY_H

#include "base/list.h"
#include "commands/table.h"
#include "net/net.h"
#include "proxy/policy/users.h"

struct front;
struct front_client;
struct front_worker;
struct proxy_config;

struct client_policy {
    const struct account *account; /* of its worker's users; never NULL once it is a client */
    struct limiter *address;       /* counted; NULL: none */
    int64_t delayed_until;         /* monotonic ms; 0: not delayed */
    struct list delayed;           /* in worker_policy.delayed */
    bool admitted;                 /* its next request has taken its tokens */
    bool authenticated;
};

struct worker_policy {
    struct user_set *users;         /* counted */
    const _Atomic uint64_t *newest; /* users.version */
    uint64_t addresses;             /* version of the rule that its clients' limiters are of */
    struct list delayed;
    struct loop_timer timer;
};

struct front_policy {
    struct users users;
    struct address_limits *addresses;
    struct proxy_config *limits; /* whose limits these are; held; the main thread's */
};

/* ---- the front's own ---- */

/* Before any worker.  False: what is wrong was logged. */
bool front_policy_create(struct front *f);
void front_policy_destroy(struct front *f); /* behind the last worker */
void front_policy_worker_init(struct front_worker *w);
void front_policy_worker_deinit(struct front_worker *w);
/* A client whose address is known (c->peer); and one that goes. */
void front_policy_begin(struct front_client *c);
void front_policy_end(struct front_client *c);

/* ---- the process's ---- */

/* The front has other settings: its limits hold for everybody from here on.  The main thread. */
void front_policy_configure(struct front *f);
/* The users are others, by whoever has changed f->policy.users: every worker is told.  Any thread. */
void front_users_changed(struct front *f);

/* ---- for backends ---- */

/* As it was before it logged in. */
void front_log_out(struct front_client *c);
/* AUTH and HELLO AUTH: true if the client is that user's now; a refusal is logged. */
bool front_log_in(struct front_client *c, struct bytes command, struct bytes user, struct bytes password);
/* Whether the users' rules ask it to log in before anything else. */
bool front_must_log_in(const struct front_client *c);
/* Why the client's user may not do this: an error without '-', perhaps in text, logged; NULL: it may. */
const char *front_refusal(struct front_client *c, const struct command *cmd, const struct bytes *argv, size_t argc,
                          char text[ACCESS_REFUSAL_MAX]);
/* It is looked at again so much later. */
void front_delay(struct front_client *c, int64_t ms);
/* ACL's subcommands; false: it is none of them. */
bool front_answers_acl(const struct command *cmd);
void front_answer_acl(struct front_client *c, struct resp_out *o, const struct command *cmd, const struct bytes *argv,
                      size_t argc);

/* Behind the inline checks in front.h. */
void front_refresh_users_slow(struct front_worker *w, struct front_client *me);
bool front_admit_slow(struct front_client *c, size_t bytes, bool *refused);
void front_charge_slow(struct front_client *c, size_t bytes);

#endif
