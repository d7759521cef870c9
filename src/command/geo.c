/* GEOADD, GEODIST, GEOHASH and GEOPOS: places are members of sorted sets. */
#include "command/geo.h"

#include "base/mem.h"
#include "base/number.h"
#include "store/zset.h"

#include <stdio.h>

bool geo_point_parse(struct call *c, size_t arg, struct geo_point *p)
{
    if (!call_arg_double(c, arg, &p->lon, NULL) || !call_arg_double(c, arg + 1, &p->lat, NULL)) return false;
    if (geo_valid(*p)) return true;
    resp_errorf(&c->out, "ERR invalid longitude,latitude pair %f,%f", p->lon, p->lat);
    return false;
}

bool geo_unit_parse(struct call *c, size_t arg, double *meters)
{
    static const struct {
        const char *name;
        double meters;
    } units[] = {{"m", 1}, {"km", 1000}, {"ft", 0.3048}, {"mi", 1609.34}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (!call_arg_is(c, arg, units[i].name)) continue;
        *meters = units[i].meters;
        return true;
    }
    resp_error(&c->out, "ERR unsupported unit provided. please use M, KM, FT, MI");
    return false;
}

void geo_reply_distance(struct call *c, double distance)
{
    resp_bulkf(&c->out, "%.4f", distance);
}

static void reply_degrees(struct call *c, double v)
{
    char text[LONG_DOUBLE_TEXT_MAX + 4];
    size_t n = format_long_double(text + 1, v);
    if (c->out.version < 3) {
        resp_bulk(&c->out, bytes_make(text + 1, n));
        return;
    }
    text[0] = ',';
    memcpy(text + 1 + n, "\r\n", 2);
    resp_raw(&c->out, bytes_make(text, n + 3));
}

void geo_reply_point(struct call *c, struct geo_point p)
{
    resp_array(&c->out, 2);
    reply_degrees(c, p.lon);
    reply_degrees(c, p.lat);
}

bool geo_member(const struct entry *e, struct bytes member, struct geo_point *p)
{
    double score;
    if (!e || !zset_score(e, member, &score)) return false;
    *p = geo_decode(score);
    return true;
}

/* ---- GEOADD ------------------------------------------------------------------------------------------------------ */

/* The arguments of the ZADD that does the same, n places from argv[first] on: owned; NULL after an error reply. */
static struct bytes *zadd_arguments(struct call *c, size_t first, size_t n, char (*digits)[24])
{
    struct bytes *argv = mem_alloc((first + 2 * n) * sizeof *argv);
    memcpy(argv, c->argv, first * sizeof *argv);
    argv[0] = BYTES("ZADD");
    for (size_t i = 0; i < n; i++) {
        struct geo_point p;
        if (!geo_point_parse(c, first + 3 * i, &p)) {
            mem_free(argv);
            return NULL;
        }
        argv[first + 2 * i] = bytes_make(digits[i], format_u64(digits[i], geo_encode(p)));
        argv[first + 2 * i + 1] = c->argv[first + 3 * i + 2];
    }
    return argv;
}

static void add_as_zadd(struct call *c, const struct bytes *argv, size_t argc)
{
    const struct bytes *own = c->argv;
    size_t own_count = c->argc;
    c->argv = argv;
    c->argc = argc;
    cmd_zadd(c);
    if (c->dirty && !c->verbatim_off) call_effect(c, argc, argv);
    c->argv = own;
    c->argc = own_count;
}

void cmd_geoadd(struct call *c)
{
    bool nx = false, xx = false;
    size_t first = 2;
    for (; first < c->argc; first++) {
        if (call_arg_is(c, first, "nx"))
            nx = true;
        else if (call_arg_is(c, first, "xx"))
            xx = true;
        else if (!call_arg_is(c, first, "ch"))
            break;
    }
    size_t n = (c->argc - first) / 3;
    if ((c->argc - first) % 3 || (nx && xx)) {
        resp_error(&c->out, ERR_SYNTAX);
        return;
    }
    char(*digits)[24] = mem_alloc(n ? n * sizeof *digits : 1);
    struct bytes *argv = zadd_arguments(c, first, n, digits);
    if (argv) add_as_zadd(c, argv, first + 2 * n);
    mem_free(argv);
    mem_free(digits);
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

static bool find(struct call *c, struct entry **e)
{
    struct key k = call_key(c, 1);
    return call_read_type(c, &k, TYPE_ZSET, e);
}

void cmd_geodist(struct call *c)
{
    struct entry *e;
    struct geo_point a, b;
    double unit = 1;
    if (c->argc > 5) {
        resp_error(&c->out, ERR_SYNTAX);
        return;
    }
    if (c->argc == 5 && !geo_unit_parse(c, 4, &unit)) return;
    if (!find(c, &e)) return;
    if (geo_member(e, c->argv[2], &a) && geo_member(e, c->argv[3], &b))
        geo_reply_distance(c, geo_distance(a, b) / unit);
    else
        resp_null(&c->out);
}

void cmd_geohash(struct call *c)
{
    struct entry *e;
    if (!find(c, &e)) return;
    resp_array(&c->out, c->argc - 2);
    for (size_t i = 2; i < c->argc; i++) {
        struct geo_point p;
        char text[GEOHASH_TEXT];
        if (!geo_member(e, c->argv[i], &p)) {
            resp_null(&c->out);
            continue;
        }
        geo_text(p, text);
        resp_bulk(&c->out, bytes_make(text, sizeof text));
    }
}

void cmd_geopos(struct call *c)
{
    struct entry *e;
    if (!find(c, &e)) return;
    resp_array(&c->out, c->argc - 2);
    for (size_t i = 2; i < c->argc; i++) {
        struct geo_point p;
        if (geo_member(e, c->argv[i], &p))
            geo_reply_point(c, p);
        else
            resp_null_array(&c->out);
    }
}
