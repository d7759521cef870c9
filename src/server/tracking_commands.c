/* tracking_commands.c: CLIENT TRACKING, CACHING, GETREDIR and TRACKINGINFO. */
#include "base/mem.h"
#include "server/tracking.h"

struct options {
    unsigned flags;
    struct conn_ref redirect;
    struct bytes *prefix;
    size_t prefix_count;
};

/* With the server at rest. */
static bool find_client(struct node *n, int64_t id, struct conn_ref *out)
{
    for (int i = 0; id > 0 && i < n->worker_count; i++) {
        const struct conn *c = conn_find(n->workers[i], (uint64_t)id);
        if (!c) continue;
        *out = conn_ref_of(c);
        return true;
    }
    return false;
}

static bool parse_redirect(struct call *c, size_t arg, struct options *o)
{
    int64_t id;
    if (o->redirect.id) {
        resp_error(&c->out, "ERR A client can only redirect to a single other client");
        return false;
    }
    if (!call_arg_i64(c, arg, &id, NULL)) return false;
    if (find_client(call_conn(c)->worker->node, id, &o->redirect)) return true;
    resp_error(&c->out, "ERR The client ID you want redirect to does not exist");
    return false;
}

/* o->prefix has room for all arguments. */
static bool parse_options(struct call *c, struct options *o)
{
    for (size_t i = 3; i < c->argc; i++) {
        bool more = i + 1 < c->argc;
        if (call_arg_is(c, i, "REDIRECT") && more) {
            if (!parse_redirect(c, ++i, o)) return false;
        } else if (call_arg_is(c, i, "BCAST")) {
            o->flags |= TRACKING_BCAST;
        } else if (call_arg_is(c, i, "OPTIN")) {
            o->flags |= TRACKING_OPTIN;
        } else if (call_arg_is(c, i, "OPTOUT")) {
            o->flags |= TRACKING_OPTOUT;
        } else if (call_arg_is(c, i, "NOLOOP")) {
            o->flags |= TRACKING_NOLOOP;
        } else if (call_arg_is(c, i, "PREFIX") && more) {
            o->prefix[o->prefix_count++] = c->argv[++i];
        } else {
            resp_error(&c->out, ERR_SYNTAX);
            return false;
        }
    }
    return true;
}

static bool overlap(struct bytes a, struct bytes b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    return n == 0 || memcmp(a.p, b.p, n) == 0;
}

static bool prefixes_apart(struct call *c, const struct options *o)
{
    const struct conn *conn = call_conn(c);
    for (size_t i = 0; i < o->prefix_count; i++) {
        struct bytes p = o->prefix[i], other;
        for (size_t k = 0; conn->tracking && (other = tracking_prefix(conn, k)).p; k++) {
            if (!overlap(p, other)) continue;
            resp_errorf(&c->out,
                        "ERR Prefix '%.*s' overlaps with an existing prefix '%.*s'. Prefixes for a single client must "
                        "not overlap.",
                        resp_shown(p), p.p, resp_shown(other), other.p);
            return false;
        }
        for (size_t k = i + 1; k < o->prefix_count; k++) {
            other = o->prefix[k];
            if (!overlap(p, other)) continue;
            resp_errorf(&c->out,
                        "ERR Prefix '%.*s' overlaps with another provided prefix '%.*s'. Prefixes for a single client "
                        "must not overlap.",
                        resp_shown(p), p.p, resp_shown(other), other.p);
            return false;
        }
    }
    return true;
}

/* What is wrong with the options together; NULL: nothing, but prefixes may overlap. */
static const char *contradiction(const struct conn *c, const struct options *o)
{
    enum { OPT = TRACKING_OPTIN | TRACKING_OPTOUT };
    unsigned now = c->tracking ? c->tracking->flags : 0, f = o->flags;
    if (!(f & TRACKING_BCAST) && o->prefix_count) return "ERR PREFIX option requires BCAST mode to be enabled";
    if (c->tracking && (now ^ f) & TRACKING_BCAST)
        return "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling "
               "it with a different mode.";
    if (f & TRACKING_BCAST && f & OPT) return "ERR OPTIN and OPTOUT are not compatible with BCAST";
    if ((f & OPT) == OPT) return "ERR You can't specify both OPTIN mode and OPTOUT mode";
    if ((f & TRACKING_OPTIN && now & TRACKING_OPTOUT) || (f & TRACKING_OPTOUT && now & TRACKING_OPTIN))
        return "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling "
               "it with a different mode.";
    return NULL;
}

static bool tracking_begin(struct call *c, const struct options *o)
{
    struct conn *conn = call_conn(c);
    const char *why_not = contradiction(conn, o);
    if (why_not) resp_error(&c->out, why_not);
    if (why_not || (o->flags & TRACKING_BCAST && !prefixes_apart(c, o))) return false;
    tracking_on(conn, o->flags, o->redirect, o->prefix, o->prefix_count);
    return true;
}

void cmd_client_tracking(struct call *c)
{
    bool redirect = false, ok;
    for (size_t i = 3; i < c->argc; i++) redirect |= call_arg_is(c, i, "REDIRECT");
    if (redirect && !call_exclusive(c)) return; /* to look for a connection of any worker */
    struct options o = {.prefix = mem_alloc(c->argc * sizeof *o.prefix)};
    ok = parse_options(c, &o);
    if (ok && call_arg_is(c, 2, "ON")) {
        ok = tracking_begin(c, &o);
    } else if (ok && call_arg_is(c, 2, "OFF")) {
        tracking_off(call_conn(c));
    } else if (ok) {
        resp_error(&c->out, ERR_SYNTAX);
        ok = false;
    }
    mem_free(o.prefix);
    if (ok) resp_ok(&c->out);
}

void cmd_client_caching(struct call *c)
{
    struct tracking_conn *t = call_conn(c)->tracking;
    bool yes = call_arg_is(c, 2, "YES");
    if (!t) {
        resp_error(&c->out, "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or "
                            "OPTOUT mode enabled");
    } else if (!yes && !call_arg_is(c, 2, "NO")) {
        resp_error(&c->out, ERR_SYNTAX);
    } else if (!(t->flags & (yes ? TRACKING_OPTIN : TRACKING_OPTOUT))) {
        resp_error(&c->out, yes ? "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode."
                                : "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.");
    } else {
        t->flags |= TRACKING_CACHING;
        resp_ok(&c->out);
    }
}

void cmd_client_getredir(struct call *c)
{
    const struct tracking_conn *t = call_conn(c)->tracking;
    resp_i64(&c->out, t ? (int64_t)t->redirect.id : -1);
}

static void reply_flags(struct call *c, const struct tracking_conn *t)
{
    const char *words[8];
    size_t n = 0;
    unsigned f = t ? t->flags : 0;
    words[n++] = t ? "on" : "off";
    if (f & TRACKING_BCAST) words[n++] = "bcast";
    if (f & TRACKING_OPTIN) words[n++] = "optin";
    if (f & TRACKING_OPTIN && f & TRACKING_CACHING) words[n++] = "caching-yes";
    if (f & TRACKING_OPTOUT) words[n++] = "optout";
    if (f & TRACKING_OPTOUT && f & TRACKING_CACHING) words[n++] = "caching-no";
    if (f & TRACKING_NOLOOP) words[n++] = "noloop";
    if (f & TRACKING_BROKEN) words[n++] = "broken_redirect";
    resp_set(&c->out, n);
    for (size_t i = 0; i < n; i++) resp_bulk_cstr(&c->out, words[i]);
}

void cmd_client_trackinginfo(struct call *c)
{
    const struct conn *conn = call_conn(c);
    const struct tracking_conn *t = conn->tracking;
    size_t n = 0;
    while (t && tracking_prefix(conn, n).p) n++;
    resp_map(&c->out, 3);
    resp_bulk_cstr(&c->out, "flags");
    reply_flags(c, t);
    resp_bulk_cstr(&c->out, "redirect");
    resp_i64(&c->out, t ? (int64_t)t->redirect.id : -1);
    resp_bulk_cstr(&c->out, "prefixes");
    resp_array(&c->out, n);
    for (size_t i = 0; i < n; i++) resp_bulk(&c->out, tracking_prefix(conn, i));
}
