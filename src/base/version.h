/* version.h: the version of this program, and the one of Redis that it stands in for. */
#ifndef COVEY_BASE_VERSION_H
#define COVEY_BASE_VERSION_H

#define COVEY_VERSION "0.1.0"
#define REDIS_VERSION "7.0.15"

#endif
