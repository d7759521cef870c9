/* net.h: event loops, mailboxes and sockets: the public face of src/net/.
 *
 * A loop belongs to the thread that runs it; only loop_post() and loop_wake() may be called by others.  Callbacks run
 * on the loop's thread, one at a time.  A callback may remove and free its own source, or any other. */
#ifndef COVEY_NET_NET_H
#define COVEY_NET_NET_H

#include "base/bytes.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct loop;

enum { NET_READ = 1, NET_WRITE = 2 };

/* A descriptor in a loop; lives inside the object it serves. */
struct loop_source {
    int fd; /* -1: not in a loop */
    int events;
    /* events: what is ready; errors and hang-ups are reported as both, so that the next read or write meets them. */
    void (*ready)(struct loop_source *src, int events);
    struct loop_source *again_next; /* of the loop: see loop_again() */
    bool again;
};

/* A message to a loop; memory of the sender until it is delivered, then the receiver's. */
struct mail {
    struct mail *next;
    void (*deliver)(struct mail *m); /* on the receiving loop's thread */
};

struct loop_timer {
    int64_t due_ms; /* monotonic */
    int64_t every_ms;
    void (*tick)(struct loop_timer *t, int64_t now_ms);
    struct loop_timer *next;
};

struct loop *loop_create(void); /* aborts when the kernel has no descriptor left for it */
void loop_destroy(struct loop *l);
MUST_USE enum status loop_add(struct loop *l, struct loop_source *src, int events);
void loop_set(struct loop *l, struct loop_source *src, int events);
void loop_remove(struct loop *l, struct loop_source *src); /* does not close; src->fd becomes -1 */
/* Calls src->ready(NET_READ) in the next turn without asking the kernel, and does not sleep before; nothing happens if
 * NET_READ is not among its events then.  For bytes that a layer above the socket holds. */
void loop_again(struct loop *l, struct loop_source *src);
void loop_timer_add(struct loop *l, struct loop_timer *t);
/* begin is called when the loop wakes up, end before it goes to sleep again; both once a turn. */
void loop_set_hooks(struct loop *l, void (*begin)(void *ctx), void (*end)(void *ctx), void *ctx);
/* Waits up to timeout_ms (-1: for ever, 0: not at all; less when a timer is due), then delivers mail and calls what is
 * ready. */
void loop_turn(struct loop *l, int timeout_ms);
/* For a thread that drives several loops and waits for all of them at once.  prepare: milliseconds until loop_turn()
 * has to be called (0: now, -1: when loop_fd() is readable); from here on loop_post() makes it readable.  wake_up ends
 * that, and is true when a turn is due even if loop_fd() is not readable. */
int loop_fd(const struct loop *l);
int loop_prepare_sleep(struct loop *l);
bool loop_wake_up(struct loop *l, int64_t now_ms);
/* The two halves of a turn, for a thread that sleeps in one loop to which loop_fd() of the others was added: wait,
 * between prepare and wake_up, returns whether something is ready; run does the rest, at once or not at all. */
bool loop_wait(struct loop *l, int timeout_ms);
void loop_run(struct loop *l);
/* Monotonic time of the present turn's wake-up; cheaper than the clock. */
int64_t loop_now_ms(const struct loop *l);
/* From any thread. */
void loop_post(struct loop *l, struct mail *m);

/* ---- sockets: non-blocking and close-on-exec.  Results are descriptors, or -1 with errno set. ---- */

enum { NET_ADDRESS_MAX = 128 };

/* host "" or "*": every IPv4 and IPv6 address is up to the caller; "*" means 0.0.0.0, "::" IPv6. */
int net_listen_tcp(const char *host, int port, int backlog);
/* The same while the sockets that net_share_port() was called for still listen there. */
int net_listen_tcp_beside(const char *host, int port, int backlog);
void net_share_port(int listener, bool on);
void net_set_mark(int fd, unsigned mark); /* SO_MARK; 0: nothing is done */
int net_listen_unix(const char *path, unsigned mode, int backlog);
/* A connection under way; wait for NET_WRITE, then ask net_connect_error().  source may be NULL. */
int net_connect(const char *host, int port, const char *source);
int net_connect_error(int fd); /* 0 or an errno */
/* Blocking connect with a deadline, for tools and MIGRATE; the result is non-blocking. */
int net_connect_wait(const char *host, int port, int64_t timeout_ms);
int net_accept(int listener);
/* Two ends of a connection inside this process; false: errno. */
bool net_pair(int ends[2]);
void net_set_nodelay(int fd);
void net_clear_nodelay(int fd);                 /* fewer, fuller packets, up to 40 ms later */
void net_set_keepalive(int fd, int interval_s); /* 0: off */
/* What is lost is sent again every second at the latest, so a stream goes on soon after a network that was down is up
 * again; and the kernel does not give the connection up, its owner has to.  Off before it is closed, or what the peer
 * has not taken is offered to it for a day.  Linux 6.15 and later; elsewhere nothing is changed. */
void net_set_patient(int fd, bool on);
/* "127.0.0.1:6379", "[::1]:6379" or "/path:0" as CLIENT LIST shows it. */
void net_peer_address(int fd, char out[NET_ADDRESS_MAX]);
void net_local_address(int fd, char out[NET_ADDRESS_MAX]);
/* The address without port ("" for a unix socket), and the port. */
void net_peer_ip(int fd, char out[NET_ADDRESS_MAX], int *port);
void net_local_ip(int fd, char out[NET_ADDRESS_MAX], int *port);
/* Reads into the buffer's spare room, at most max bytes.  OK: *got > 0.  E_AGAIN: nothing there now.  E_CLOSED: end of
 * stream.  E_IO. */
MUST_USE enum status net_read(int fd, struct buf *b, size_t max, size_t *got);
/* Writes what goes; *put may be short.  E_AGAIN: nothing went.  E_IO: the connection is broken. */
MUST_USE enum status net_write(int fd, const void *p, size_t n, size_t *put);

#endif
