/* adopt.h: other settings for a proxy that runs. */
#ifndef COVEY_PROXY_ADOPT_H
#define COVEY_PROXY_ADOPT_H

#include "proxy/cluster/cluster.h"
#include "proxy/front/front.h"

/* The contexts for TLS that the settings ask for, if they ask for any.  False: the log says why. */
MUST_USE bool proxy_install_tls(struct front *f, const struct proxy_config *c);
/* New settings for everybody; clients stay.  c is held where it is needed.  False: the log says why, and all is as it
 * was, with `old`.  cluster NULL: there is none. */
MUST_USE bool proxy_adopt(struct front *f, struct proxy *cluster, struct proxy_config *c, struct proxy_config *old);

#endif
