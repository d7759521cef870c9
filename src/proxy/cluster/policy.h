/* policy.h: what a worker and a client know of users and limits; inside src/proxy only. */
#ifndef COVEY_PROXY_CLUSTER_POLICY_H
#define COVEY_PROXY_CLUSTER_POLICY_H

#include "base/list.h"
#include "commands/table.h"
#include "net/net.h"
#include "proxy/policy/users.h"

struct client;
struct worker;
struct proxy;

struct client_policy {
    const struct account *account; /* of worker.policy.users; never NULL while the client is in its worker's list */
    struct limiter *address;       /* counted; NULL: none */
    int64_t delayed_until;         /* monotonic ms; 0: not delayed */
    struct list delayed;           /* in worker.policy.delayed */
    bool admitted;                 /* its next request has taken its tokens */
};

struct worker_policy {
    struct user_set *users;         /* counted */
    const _Atomic uint64_t *newest; /* users.version */
    uint64_t addresses;             /* version of the rule that its clients' limiters are of */
    struct list delayed;
    struct loop_timer timer;
};

struct proxy_policy {
    struct users users;
    struct address_limits *addresses;
    struct proxy_config *limits; /* whose limits these are; held; the main thread's */
};

/* Before any worker.  False: what is wrong was logged. */
bool policy_create(struct proxy *p);
void policy_destroy(struct proxy *p); /* behind the last worker */
/* The front has other settings: its limits hold for everybody from here on.  The main thread. */
void policy_configure(struct proxy *p);
void policy_worker_init(struct worker *w);
void policy_worker_deinit(struct worker *w);

/* A new client whose address is known (c->peer); and one that goes. */
void policy_client_begin(struct client *c);
void policy_client_end(struct client *c);
/* Its address is another one, now that it is known (behind a balancer). */
void policy_client_address(struct client *c);
/* As it was before it logged in. */
void policy_log_out(struct client *c);
/* AUTH and HELLO AUTH: true if the client is that user's now; a refusal is logged. */
bool policy_log_in(struct client *c, struct bytes command, struct bytes user, struct bytes password);

/* Why the client's user may not do this: an error without '-', perhaps in text, logged; NULL: it may. */
const char *policy_refusal(struct client *c, const struct command *cmd, const struct bytes *argv, size_t argc,
                           char text[ACCESS_REFUSAL_MAX]);
/* Behind inline checks in worker.h. */
void policy_refresh_slow(struct worker *w, struct client *me);
bool policy_admit_slow(struct client *c, size_t bytes, bool *refused);
/* It is looked at again so much later. */
void policy_delay(struct client *c, int64_t ms);
void policy_sent_slow(struct client *c, size_t bytes);

/* ACL's subcommands; false: it is none of them. */
bool policy_is_local(const struct command *cmd);
void policy_answer(struct client *c, struct resp_out *o, const struct command *cmd, const struct bytes *argv,
                   size_t argc);

#endif
