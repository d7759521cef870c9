/* http.h: a few small pages over HTTP/1.1, served in somebody's loop (libmicrohttpd).
 * It is for operators' tools: no TLS, no logins, GET and HEAD only, at most 64 connections, each closed after ten idle
 * seconds.
 * Threads: all on the loop's thread. */
#ifndef COVEY_HTTP_HTTP_H
#define COVEY_HTTP_HTTP_H

#include "base/bytes.h"
#include "net/net.h"

/* Appends the page to body and says what it is.  False: there is no such page. */
typedef bool http_page(void *ctx, const char *path, struct buf *body, const char **type);

/* Of the caller; it stays where it is as long as the loop runs.  All zero is one that does not listen. */
struct http {
    struct loop_source src;
    struct loop_timer timer;
    struct loop *loop;
    void *daemon;
    http_page *page;
    void *ctx;
};

/* Serves on a listening socket, which it takes (and closes, also on failure).  False: it cannot. */
MUST_USE bool http_serve(struct http *h, struct loop *l, int listener, http_page *page, void *ctx);
/* Closes the listener and all connections. */
void http_close(struct http *h);

#endif
