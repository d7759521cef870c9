/* geohash.h: places on earth as cells: longitude and latitude are halved again and again, and the bits of both are
 * interleaved, latitude in the even ones.  26 steps make the 52 bits that a sorted set's score holds exactly.
 *
 * Latitudes end where the square Mercator map does (85.05... degrees), as in Redis; the public Geohash strings go to
 * the poles.  Degrees and meters throughout.  Pure functions; any thread. */
#ifndef COVEY_COMMAND_GEOHASH_H
#define COVEY_COMMAND_GEOHASH_H

#include <stdbool.h>
#include <stdint.h>

enum { GEO_STEPS = 26, GEOHASH_TEXT = 11, GEO_CELLS_MAX = 9 };

struct geo_point {
    double lon, lat;
};

bool geo_valid(struct geo_point p);
/* The score of a place, and the middle of the cell of a score (any number: those that are no cell give some place). */
uint64_t geo_encode(struct geo_point p);
struct geo_point geo_decode(double score);
/* The Geohash string, without a NUL.  Its last character is always '0'. */
void geo_text(struct geo_point p, char out[GEOHASH_TEXT]);
/* Along a great circle of a sphere (haversine). */
double geo_distance(struct geo_point a, struct geo_point b);

struct geo_shape {
    struct geo_point center;
    bool box;
    double radius;        /* of a circle */
    double width, height; /* of a box */
};

/* The scores [min, max) of the cells in which all places within the shape are; in the order in which Redis looks at
 * them.  Cells may repeat. Returns how many. */
struct geo_range {
    double min, max;
};
unsigned geo_cover(const struct geo_shape *s, struct geo_range out[GEO_CELLS_MAX]);
/* Whether a place is within the shape; *distance from the center is set if so. */
bool geo_within(const struct geo_shape *s, struct geo_point p, double *distance);

#endif
