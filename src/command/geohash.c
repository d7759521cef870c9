#include "command/geohash.h"

#include <math.h>

static const double LAT_MAX = 85.05112878, LON_MAX = 180, EARTH_RADIUS = 6372797.560856, MERCATOR_MAX = 20037726.37;

/* A cell after so many steps; lon and lat have one bit a step. */
struct cell {
    uint32_t lon, lat;
    unsigned step; /* 0: none */
};
struct area {
    struct geo_point min, max;
};

bool geo_valid(struct geo_point p)
{
    return p.lon >= -LON_MAX && p.lon <= LON_MAX && p.lat >= -LAT_MAX && p.lat <= LAT_MAX;
}

/* ---- Bits -------------------------------------------------------------------------------------------------------- */

/* Puts a zero before each bit. */
static uint64_t spread(uint32_t bits)
{
    uint64_t v = bits;
    v = (v | v << 16) & UINT64_C(0x0000ffff0000ffff);
    v = (v | v << 8) & UINT64_C(0x00ff00ff00ff00ff);
    v = (v | v << 4) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    v = (v | v << 2) & UINT64_C(0x3333333333333333);
    return (v | v << 1) & UINT64_C(0x5555555555555555);
}

static uint32_t gather(uint64_t v)
{
    v &= UINT64_C(0x5555555555555555);
    v = (v | v >> 1) & UINT64_C(0x3333333333333333);
    v = (v | v >> 2) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    v = (v | v >> 4) & UINT64_C(0x00ff00ff00ff00ff);
    v = (v | v >> 8) & UINT64_C(0x0000ffff0000ffff);
    return (uint32_t)(v | v >> 16);
}

static uint64_t cell_bits(struct cell c)
{
    return spread(c.lat) | spread(c.lon) << 1;
}

static struct cell cell_of(struct geo_point p, double lat_max, unsigned step)
{
    double lon = (p.lon + LON_MAX) / (2 * LON_MAX), lat = (p.lat + lat_max) / (2 * lat_max);
    return (struct cell){(uint32_t)(lon * (double)(1u << step)), (uint32_t)(lat * (double)(1u << step)), step};
}

static struct area cell_area(struct cell c)
{
    double cells = (double)(1u << c.step);
    return (struct area){
        {-LON_MAX + c.lon / cells * (2 * LON_MAX), -LAT_MAX + c.lat / cells * (2 * LAT_MAX)},
        {-LON_MAX + (c.lon + 1) / cells * (2 * LON_MAX), -LAT_MAX + (c.lat + 1) / cells * (2 * LAT_MAX)},
    };
}

/* ---- Places ------------------------------------------------------------------------------------------------------ */

uint64_t geo_encode(struct geo_point p)
{
    return cell_bits(cell_of(p, LAT_MAX, GEO_STEPS));
}

/* As the processors convert that Redis runs on: what is out of range has a fixed result too. */
static uint64_t score_bits(double score)
{
    const double two63 = 9223372036854775808.0;
    if (score < -two63) return UINT64_C(1) << 63;
    if (score < two63) return (uint64_t)(int64_t)score;
    return score < 2 * two63 ? (uint64_t)score : 0;
}

static double clamped(double v, double limit)
{
    return v > limit ? limit : v < -limit ? -limit : v;
}

struct geo_point geo_decode(double score)
{
    uint64_t bits = score_bits(score);
    struct area a = cell_area((struct cell){gather(bits >> 1), gather(bits), GEO_STEPS});
    return (struct geo_point){clamped((a.min.lon + a.max.lon) / 2, LON_MAX),
                              clamped((a.min.lat + a.max.lat) / 2, LAT_MAX)};
}

void geo_text(struct geo_point p, char out[GEOHASH_TEXT])
{
    static const char alphabet[] = "0123456789bcdefghjkmnpqrstuvwxyz";
    uint64_t bits = cell_bits(cell_of(p, 90, GEO_STEPS));
    for (int i = 0; i < GEOHASH_TEXT - 1; i++) out[i] = alphabet[bits >> (2 * GEO_STEPS - 5 * (i + 1)) & 31];
    out[GEOHASH_TEXT - 1] = '0';
}

static double radians(double degrees)
{
    return degrees * (M_PI / 180.0);
}

static double degrees(double radians_)
{
    return radians_ / (M_PI / 180.0);
}

double geo_distance(struct geo_point a, struct geo_point b)
{
    double lat1 = radians(a.lat), lat2 = radians(b.lat);
    double u = sin((lat2 - lat1) / 2), v = sin((radians(b.lon) - radians(a.lon)) / 2);
    return 2.0 * EARTH_RADIUS * asin(sqrt(u * u + cos(lat1) * cos(lat2) * v * v));
}

bool geo_within(const struct geo_shape *s, struct geo_point p, double *distance)
{
    if (s->box) {
        struct geo_point same_lon = {p.lon, s->center.lat};
        struct geo_point same_lat = {s->center.lon, p.lat};
        if (geo_distance(p, same_lat) > s->width / 2 || geo_distance(p, same_lon) > s->height / 2) return false;
    }
    *distance = geo_distance(s->center, p);
    return s->box || *distance <= s->radius;
}

/* ---- Covering a shape -------------------------------------------------------------------------------------------- */

/* Degrees around the shape. */
static struct area bounding_box(const struct geo_shape *s)
{
    double height = s->box ? s->height / 2 : s->radius, width = s->box ? s->width / 2 : s->radius;
    double lat = degrees(height / EARTH_RADIUS);
    /* Degrees of longitude are shorter towards the nearer pole. */
    double edge = s->center.lat < 0 ? s->center.lat - lat : s->center.lat + lat;
    double lon = degrees(width / EARTH_RADIUS / cos(radians(edge)));
    return (struct area){{s->center.lon - lon, s->center.lat - lat}, {s->center.lon + lon, s->center.lat + lat}};
}

/* Steps after which a cell and its neighbours are large enough for everything so many meters around a place. */
static unsigned steps_for(double meters, double lat)
{
    int step = -1;
    if (meters == 0) return GEO_STEPS;
    while (meters < MERCATOR_MAX) {
        meters *= 2;
        step++;
    }
    if (fabs(lat) > 66) step--;
    if (fabs(lat) > 80) step--;
    if (step < 1) return 1;
    return step > GEO_STEPS ? GEO_STEPS : (unsigned)step;
}

/* The cell so many columns and rows away, around the globe. */
static struct cell neighbour(struct cell c, int columns, int rows)
{
    uint32_t mask = (1u << c.step) - 1;
    if (columns) c.lon = (c.lon + (uint32_t)columns) & mask;
    if (rows) c.lat = (c.lat + (uint32_t)rows) & mask;
    return c;
}

/* Whether the shape goes beyond the neighbours on some side. */
static bool too_small(struct cell c, const struct area *box)
{
    return cell_area(neighbour(c, 0, 1)).max.lat < box->max.lat ||
           cell_area(neighbour(c, 0, -1)).min.lat > box->min.lat ||
           cell_area(neighbour(c, 1, 0)).max.lon < box->max.lon ||
           cell_area(neighbour(c, -1, 0)).min.lon > box->min.lon;
}

static struct geo_range cell_range(struct cell c)
{
    uint64_t bits = cell_bits(c);
    unsigned shift = 2 * (GEO_STEPS - c.step);
    return (struct geo_range){(double)(bits << shift), (double)((bits + 1) << shift)};
}

/* Where the neighbours are, in Redis's order; the first is the cell itself. */
static const struct {
    int8_t columns, rows;
} places[GEO_CELLS_MAX] = {{0, 0}, {0, 1}, {0, -1}, {1, 0}, {-1, 0}, {1, 1}, {-1, 1}, {1, -1}, {-1, -1}};

unsigned geo_cover(const struct geo_shape *s, struct geo_range out[GEO_CELLS_MAX])
{
    struct area box = bounding_box(s);
    double reach = s->box ? sqrt((s->width / 2) * (s->width / 2) + (s->height / 2) * (s->height / 2)) : s->radius;
    unsigned step = steps_for(reach, s->center.lat), n = 0;
    struct cell c = cell_of(s->center, LAT_MAX, step);
    if (step > 1 && too_small(c, &box)) c = cell_of(s->center, LAT_MAX, --step);
    struct area a = cell_area(c);
    unsigned last = 0;
    uint64_t last_bits = 0;
    for (unsigned i = 0; i < GEO_CELLS_MAX; i++) {
        int columns = places[i].columns, rows = places[i].rows;
        /* Sides that the shape does not reach; on a map of four cells every one is a neighbour twice over. */
        if (step >= 2 && ((rows < 0 && a.min.lat < box.min.lat) || (rows > 0 && a.max.lat > box.max.lat) ||
                          (columns < 0 && a.min.lon < box.min.lon) || (columns > 0 && a.max.lon > box.max.lon)))
            continue;
        struct cell here = neighbour(c, columns, rows);
        /* Large cells can be their own neighbours: one like the one before is passed over, the first one not. */
        if (last && cell_bits(here) == last_bits) continue;
        out[n++] = cell_range(here);
        last = i;
        last_bits = cell_bits(here);
    }
    return n;
}
