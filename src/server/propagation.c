#include "server/propagation.h"

#include "base/crash.h"
#include "base/log.h"

enum { IGNORE, PANIC, PANIC_ON_REPLICAS }; /* the values of the option */
enum { TEXT_MAX = 300, NAME_MAX_SHOWN = 64 };

static int shown(struct bytes text, int most)
{
    int n = 0;
    while (n < most && (size_t)n < text.n && text.p[n] != '\r' && text.p[n] != '\n') n++;
    return n;
}

/* A replica that takes writes may differ from its primary, and is no reason to end. */
static bool ends_the_process(const struct node *n, enum propagation_source source)
{
    int64_t behavior = config_num(n->config, CFG_PROPAGATION_ERROR_BEHAVIOR);
    if (source == FROM_AOF) return behavior == PANIC;
    return behavior != IGNORE && config_bool(n->config, CFG_REPLICA_READ_ONLY);
}

void propagation_failed(struct node *n, enum propagation_source source, struct bytes command, struct bytes error)
{
    const char *us = source == FROM_AOF ? "server" : "replica";
    const char *them = source == FROM_AOF ? "AOF-loading-client" : "master";
    int name = shown(command, NAME_MAX_SHOWN);
    atomic_fetch_add(&n->stats.unexpected_errors, 1);
    log_warning("== CRITICAL == This %s is sending an error to its %s: '%.*s' after processing the command '%.*s'", us,
                them, shown(error, TEXT_MAX), error.p, name, command.p);
    if (ends_the_process(n, source))
        crash_panic(__FILE__, __LINE__,
                    "This %s panicked sending an error to its %s after processing the command '%.*s'", us, them, name,
                    command.p);
}
