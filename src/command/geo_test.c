#include "command/call_test.h"
#include "command/geohash.h"

#include <math.h>

#define WRONGTYPE "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
#define NULLS "$-1\r\n"
#define ADD "GEOADD s{k} 13.361389 38.115556 Palermo 15.087269 37.502669 Catania"

/* Texts as redis-server 7.0.15 replies them. */
static void test_commands(void **state)
{
    struct harness h;
    harness_init(&h);
    static const struct step steps[] = {
        {cmd_geoadd, ADD, ":2\r\n", "ZADD s{k} 3479099956230698 Palermo 3479447370796909 Catania"},
        {cmd_geoadd, ADD, ":0\r\n", ""},
        {cmd_geoadd, "GEOADD s{k} NX CH 1 1 Palermo 12.758489 38.788135 edge", ":1\r\n", NULL},
        {cmd_geoadd, "GEOADD s{k} NX XX 1 1 a", "-ERR syntax error\r\n", ""},
        {cmd_geoadd, "GEOADD s{k} 200 100 a", "-ERR invalid longitude,latitude pair 200.000000,100.000000\r\n", ""},
        {cmd_geoadd, "GEOADD s{k} x 1 a", "-ERR value is not a valid float\r\n", ""},
        {cmd_geodist, "GEODIST s{k} Palermo Catania", "$11\r\n166274.1516\r\n", ""},
        {cmd_geodist, "GEODIST s{k} Palermo Catania mi", "$8\r\n103.3182\r\n", ""},
        {cmd_geodist, "GEODIST s{k} Palermo nobody", NULLS, ""},
        {cmd_geodist, "GEODIST s{k} Palermo Catania yd", "-ERR unsupported unit provided. please use M, KM, FT, MI\r\n",
         ""},
        {cmd_geohash, "GEOHASH s{k} Palermo nobody Catania",
         "*3\r\n$11\r\nsqc8b49rny0\r\n$-1\r\n$11\r\nsqdtr74hyu0\r\n", ""},
        {cmd_geopos, "GEOPOS s{k} Palermo nobody",
         "*2\r\n*2\r\n$20\r\n13.36138933897018433\r\n$20\r\n38.11555639549629859\r\n*-1\r\n", ""},
        {cmd_geosearch, "GEOSEARCH s{k} FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHDIST",
         "*2\r\n*2\r\n$7\r\nCatania\r\n$7\r\n56.4413\r\n*2\r\n$7\r\nPalermo\r\n$8\r\n190.4424\r\n", ""},
        {cmd_geosearch, "GEOSEARCH s{k} FROMMEMBER Palermo BYBOX 400 400 km DESC COUNT 1 WITHHASH",
         "*1\r\n*2\r\n$7\r\nCatania\r\n:3479447370796909\r\n", ""},
        {cmd_geosearch, "GEOSEARCH s{k} FROMMEMBER nobody BYRADIUS 1 m",
         "-ERR could not decode requested zset member\r\n", ""},
        {cmd_geosearch, "GEOSEARCH none FROMMEMBER nobody BYRADIUS 1 m", "*0\r\n", ""},
        {cmd_geosearch, "GEOSEARCH s{k} FROMLONLAT 1 1 ASC ASC ASC",
         "-ERR exactly one of BYRADIUS and BYBOX can be specified for GEOSEARCH\r\n", ""},
        {cmd_geosearch, "geosearch s{k} BYRADIUS 1 m ASC ASC ASC",
         "-ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for geosearch\r\n", ""},
        {cmd_geosearch, "GEOSEARCH s{k} FROMLONLAT 1 1 BYRADIUS -1 m", "-ERR radius cannot be negative\r\n", ""},
        {cmd_geosearch, "GEOSEARCH s{k} FROMLONLAT 1 1 BYBOX x 1 m", "-ERR need numeric width\r\n", ""},
        {cmd_geosearch, "GEOSEARCH s{k} FROMLONLAT 1 1 BYRADIUS 1 m ANY",
         "-ERR the ANY argument requires COUNT argument\r\n", ""},
        {cmd_geosearch, "GEOSEARCH s{k} FROMLONLAT 1 1 BYRADIUS 1 m COUNT 0", "-ERR COUNT must be > 0\r\n", ""},
        {cmd_geosearchstore, "GEOSEARCHSTORE d{k} s{k} FROMLONLAT 15 37 BYRADIUS 200 km COUNT 1 STOREDIST", ":1\r\n",
         "GEOSEARCHSTORE d{k} s{k} FROMLONLAT 15 37 BYRADIUS 200 km COUNT 1 STOREDIST"},
        {cmd_zrange, "ZRANGE d{k} 0 -1 WITHSCORES", "*2\r\n$7\r\nCatania\r\n$18\r\n56.441257870158204\r\n", ""},
        {cmd_georadius, "GEORADIUS s{k} 15 37 200 km STORE e{k}", ":2\r\n", NULL},
        {cmd_zscore, "ZSCORE e{k} Palermo", "$16\r\n3479099956230698\r\n", ""},
        {cmd_georadius, "GEORADIUS none{k} 15 37 200 km STORE e{k}", ":0\r\n", NULL},
        {cmd_exists, "EXISTS e{k}", ":0\r\n", ""},
        {cmd_georadius_ro, "GEORADIUS_RO s{k} 15 37 200 km STORE e{k}", "-ERR syntax error\r\n", ""},
        {cmd_georadius, "GEORADIUS s{k} 15 37 200 km STORE e{k} WITHDIST",
         "-ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options\r\n", ""},
        {cmd_georadiusbymember, "GEORADIUSBYMEMBER s{k} Palermo 100 km", "*2\r\n$7\r\nPalermo\r\n$4\r\nedge\r\n", ""},
        {cmd_georadiusbymember_ro, "GEORADIUSBYMEMBER_RO s{k} nobody 100 km",
         "-ERR could not decode requested zset member\r\n", ""},
        {cmd_rpush, "RPUSH l{k} e", ":1\r\n", NULL},
        {cmd_geopos, "GEOPOS l{k} a", WRONGTYPE, ""},
        {cmd_geosearch, "GEOSEARCH l{k} a b c d e", WRONGTYPE, ""},
    };
    RUN_STEPS(&h, steps);
    run(&h, cmd_geoadd, "GEOADD n{k} 1 1 a");
    assert_string_equal(h.events, "zadd n{k}");
    run(&h, cmd_georadius, "GEORADIUS n{k} 1 1 1 km STORE m{k}");
    assert_string_equal(h.events, "georadiusstore m{k}");
    h.version = 3;
    assert_string_equal(run(&h, cmd_geopos, "GEOPOS n{k} a b"),
                        "*2\r\n*2\r\n,0.99999994039535522\r\n,0.99999945914297683\r\n_\r\n");
    harness_deinit(&h);
}

/* The last STORE counts, though its key's slot was not among those locked. */
static void test_store_twice(void **state)
{
    struct harness h;
    harness_init(&h);
    run(&h, cmd_geoadd, "GEOADD a 1 1 m");
    assert_string_equal(run(&h, cmd_georadius, "GEORADIUS a 1 1 1 km STORE b STORE c"), ":1\r\n");
    assert_true(h.exclusive);
    assert_string_equal(run(&h, cmd_exists, "EXISTS b"), ":0\r\n");
    assert_string_equal(run(&h, cmd_exists, "EXISTS c"), ":1\r\n");
    h.env.cluster_enabled = true;
    assert_string_equal(run(&h, cmd_georadius, "GEORADIUS a 1 1 1 km STORE a STORE foo"),
                        "-CROSSSLOT Keys in request don't hash to the same slot\r\n");
    harness_deinit(&h);
}

static double random_in(struct random *rng, double min, double max)
{
    return min + (max - min) * (double)(random_u64(rng) >> 11) / 9007199254740992.0;
}

/* Every place within a shape lies in one of its cells, away from the poles and the date line. */
static void test_cover(void **state)
{
    struct random rng;
    random_seed(&rng, 3);
    size_t inside = 0;
    for (int round = 0; round < 3000; round++) {
        struct geo_shape s = {.box = round % 2};
        double reach = pow(10, random_in(&rng, 0, 5.7));
        s.center = (struct geo_point){random_in(&rng, -150, 150), random_in(&rng, -60, 60)};
        s.radius = s.width = reach;
        s.height = reach * random_in(&rng, 0.1, 1);
        struct geo_range cells[GEO_CELLS_MAX];
        unsigned n = geo_cover(&s, cells);
        for (int i = 0; i < 50; i++) {
            double degrees = reach / 111000 * 1.2;
            struct geo_point p = {s.center.lon + random_in(&rng, -2 * degrees, 2 * degrees),
                                  s.center.lat + random_in(&rng, -degrees, degrees)};
            double score = (double)geo_encode(p), distance;
            p = geo_decode(score);
            if (!geo_within(&s, p, &distance)) continue;
            inside++;
            bool covered = false;
            for (unsigned j = 0; j < n; j++) covered |= score >= cells[j].min && score < cells[j].max;
            if (!covered) fail_msg("round %d: %f,%f is not covered", round, p.lon, p.lat);
        }
    }
    assert_true(inside > 20000);
}

static void test_codec(void **state)
{
    struct random rng;
    random_seed(&rng, 4);
    for (int i = 0; i < 100000; i++) {
        struct geo_point p = {random_in(&rng, -180, 180), random_in(&rng, -85.05112878, 85.05112878)};
        struct geo_point q = geo_decode((double)geo_encode(p));
        assert_true(fabs(p.lon - q.lon) < 360.0 / (1 << 26) && fabs(p.lat - q.lat) < 171.0 / (1 << 26));
        assert_true(geo_distance(p, q) < 0.7);
    }
    static const double odd[] = {INFINITY, -INFINITY, -1, 1e19, 1e20, -1e20, 9.3e18, 0.5, -0.0};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) assert_true(geo_valid(geo_decode(odd[i])));
    assert_false(geo_valid((struct geo_point){180.1, 0}));
    assert_false(geo_valid((struct geo_point){NAN, 0}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_store_twice),
        cmocka_unit_test(test_cover),
        cmocka_unit_test(test_codec),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
