/* geo.h: what the geographic commands share. */
#ifndef COVEY_COMMAND_GEO_H
#define COVEY_COMMAND_GEO_H

#include "command/call.h"
#include "command/geohash.h"

/* The parsers reply the error when they return false. */
MUST_USE bool geo_point_parse(struct call *c, size_t arg, struct geo_point *p); /* longitude, latitude */
MUST_USE bool geo_unit_parse(struct call *c, size_t arg, double *meters);
/* Where a member of e (may be NULL) is; false: there is no such member. */
bool geo_member(const struct entry *e, struct bytes member, struct geo_point *p);

void geo_reply_distance(struct call *c, double distance);
void geo_reply_point(struct call *c, struct geo_point p);

#endif
