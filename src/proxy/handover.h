/* handover.h: one proxy process takes the listening sockets over from another, without a moment in which nobody
 * listens.
 *
 * The new one asks on a unix socket (SOCK_SEQPACKET), which is the old one's control socket or was given to it when the
 * old one started it, and gets the names and descriptors of all listening sockets in one message.  When it is able to
 * serve it says so, and the old one accepts nobody any more; its clients stay with it.  If the new one goes before,
 * nothing has changed.  Main thread only. */
#ifndef COVEY_PROXY_HANDOVER_H
#define COVEY_PROXY_HANDOVER_H

#include "proxy/front/front.h"

/* ---- the old process ---- */

struct hand_over {
    struct front *front;
    char *path;                 /* of the control socket, its own; NULL: none */
    struct loop_source control; /* fd <= 0: none */
    struct loop_source other;   /* the new process; fd <= 0: none */
    bool done;                  /* somebody else listens now */
};

/* Listens at the path, if there is one.  False: errno says why. */
MUST_USE bool hand_over_listen(struct hand_over *h, struct front *f, const char *path);
/* Starts the program again, as this process was started, to take over. */
void hand_over_to_new_program(struct hand_over *h);
void hand_over_close(struct hand_over *h);

/* ---- the new process ---- */

/* The descriptor to the other process; -1: there is none to take over from; -2: it does not answer, which was logged.
 * Its sockets are the front's then, to be found by front_listen(). */
int take_over_begin(struct front *f, const char *path);
/* From here on the other one does not accept.  Closes the descriptor. */
void take_over_ready(int fd);

#endif
