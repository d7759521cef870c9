/* The values were compared with nutcracker 0.5.0 by where it puts keys (tests/system/test_pools.py). */
#include "base/mem.h"
#include "pool/hash.h"
#include "pool/ring.h"

#include <stdio.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <setjmp.h>

#include <cmocka.h>

static const struct bytes sample_keys[] = {
    BYTES("a"),
    BYTES("foobar"),
    BYTES("123456789"),
    BYTES("\x80\xff\xe4"),
    BYTES("key:{tag}:0123456789abcdef"),
    BYTES("\xc3\xa4\xf0\x9f\x98\x80zz\x81"),
};
enum { SAMPLE_KEYS = sizeof sample_keys / sizeof *sample_keys };

static const struct {
    const char *name;
    uint32_t values[SAMPLE_KEYS];
} kept[] = {
    {"one_at_a_time", {0xca2e9442, 0xf952fde7, 0xc66b58c5, 0x1f9707fb, 0x95da243f, 0xbf69d63d}},
    {"md5", {0xb975c10c, 0x22f65838, 0x94e7f925, 0x2d13328a, 0x0f4a17f2, 0x33913647}},
    {"crc16", {0x00007c87, 0x9effb025, 0x869031c3, 0x9105850f, 0xabe8f246, 0x7155e0f9}},
    {"crc32", {0x000068b7, 0x00001ef6, 0x00004bf4, 0x00002a37, 0x000003c3, 0x00005b2c}},
    {"crc32a", {0xe8b7be43, 0x9ef61f95, 0xcbf43926, 0x2a371981, 0x83c3de08, 0xdb2c49bc}},
    {"fnv1_64", {0x8601b7be, 0xa4dda9c2, 0x2bf916d6, 0x94a3d5f2, 0x86ad9df4, 0x1a39ac0c}},
    {"fnv1a_64", {0x8601ec8c, 0xf73967e8, 0x23c6cdfc, 0x8b03cbcc, 0xd80ad2c2, 0x1f18310e}},
    {"fnv1_32", {0x050c5d7e, 0x31f0b262, 0x24148816, 0xe9ab7ad2, 0x12515654, 0x96cb6fec}},
    {"fnv1a_32", {0xe40c292c, 0xbf9cf968, 0xbb86b11c, 0x3454578c, 0x62053cc2, 0x0b4b890e}},
    {"hsieh", {0x93642e87, 0x07a5862c, 0xe4fc1670, 0x2df58fc8, 0x2e8730e6, 0xc1c20a14}},
    {"murmur", {0x4b41757c, 0xabecff17, 0xb7760690, 0x124248eb, 0x8870c1b6, 0xd50fb4ef}},
    {"jenkins", {0xe0a38690, 0x0fdd8b60, 0x19777af6, 0xe5ca1df0, 0x0ea336ff, 0xf64c58c6}},
};

static void test_kept_values(void **state)
{
    assert_int_equal(sizeof kept / sizeof *kept, POOL_HASH_COUNT);
    for (size_t i = 0; i < POOL_HASH_COUNT; i++) {
        enum pool_hash h;
        assert_true(pool_hash_find(bytes_of(kept[i].name), &h));
        assert_string_equal(pool_hash_name(h), kept[i].name);
        for (size_t k = 0; k < SAMPLE_KEYS; k++) {
            char *exact = mem_alloc(sample_keys[k].n); /* so that a sanitizer sees a byte too many */
            memcpy(exact, sample_keys[k].p, sample_keys[k].n);
            assert_int_equal(pool_hash_run(h, bytes_make(exact, sample_keys[k].n)), kept[i].values[k]);
            mem_free(exact);
        }
    }
    enum pool_hash h;
    assert_false(pool_hash_find(BYTES("sha1"), &h));
    assert_false(pool_hash_find(BYTES("MD5"), &h));
}

static void check_md5(const char *text, const char *hex)
{
    uint8_t out[16];
    char got[33];
    pool_md5(bytes_of(text), out);
    for (int i = 0; i < 16; i++) snprintf(got + 2 * i, 3, "%02x", out[i]);
    assert_string_equal(got, hex);
}

/* RFC 1321, appendix A.5; lengths on both sides of the block's and the padding's end. */
static void test_md5(void **state)
{
    check_md5("", "d41d8cd98f00b204e9800998ecf8427e");
    check_md5("abc", "900150983cd24fb0d6963f7d28e17f72");
    check_md5("abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b");
    check_md5("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f");
    check_md5("12345678901234567890123456789012345678901234567890123456789012345678901234567890",
              "57edf4a22be3c955ac49da2e2107b67a");
}

static void check_part(const char *key, const char *tag, const char *part)
{
    struct bytes got = pool_hash_part(bytes_of(key), bytes_of(tag));
    assert_true(bytes_eq(got, bytes_of(part)));
}

static void test_hash_tag(void **state)
{
    check_part("a{b}c", "{}", "b");
    check_part("a{b}c", "", "a{b}c");
    check_part("a{}c", "{}", "a{}c");
    check_part("a{}{b}c", "{}", "a{}{b}c");
    check_part("}a{b{c}d}", "{}", "b{c");
    check_part("a{b", "{}", "a{b");
    check_part("a{", "{}", "a{");
    check_part("a}b{", "{}", "a}b{");
    check_part("$x$y$", "$$", "x");
    check_part("$$y$", "$$", "$$y$");
    check_part("", "{}", "");
}

static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005 + 1442695040888963407;
    return (uint32_t)(*seed >> 32);
}

enum { SERVERS = 7 };
static const char *const server_names[SERVERS] = {"a", "b:1", "10.0.0.1:6379", "10.0.0.2", "x", "yy", "zzz"};

static void some_servers(struct ring_server out[SERVERS], uint64_t *seed)
{
    for (int i = 0; i < SERVERS; i++)
        out[i] = (struct ring_server){bytes_of(server_names[i]), 1 + next_random(seed) % 50, true};
}

/* Ejecting a server moves its own keys and, weights being equal, none of the others. */
static void test_ejection_moves_only_its_keys(void **state)
{
    struct ring_server servers[SERVERS];
    uint64_t seed = 1;
    some_servers(servers, &seed);
    for (int i = 0; i < SERVERS; i++) servers[i].weight = 5;
    struct ring all = {0}, less = {0};
    assert_int_equal(ring_build(&all, POOL_KETAMA, servers, SERVERS), OK);
    assert_int_equal(all.n, SERVERS * 160);
    servers[3].live = false;
    assert_int_equal(ring_build(&less, POOL_KETAMA, servers, SERVERS), OK);
    assert_int_equal(less.n, (SERVERS - 1) * 160);
    int moved = 0;
    for (int i = 0; i < 100000; i++) {
        uint32_t hash = next_random(&seed);
        int before = ring_find(&all, hash, 0), after = ring_find(&less, hash, 0);
        assert_int_not_equal(after, 3);
        if (before == 3)
            moved++;
        else
            assert_int_equal(before, after);
    }
    assert_in_range(moved, 8000, 22000);
    ring_deinit(&all);
    ring_deinit(&less);
}

/* modula is what an array with `weight` entries a live server says. */
static void test_modula_against_the_array(void **state)
{
    for (uint64_t round = 1; round <= 50; round++) {
        struct ring_server servers[SERVERS];
        uint64_t seed = round;
        some_servers(servers, &seed);
        int array[SERVERS * 50];
        uint32_t n = 0;
        for (int i = 0; i < SERVERS; i++) {
            servers[i].live = next_random(&seed) % 4 != 0;
            for (uint32_t w = 0; servers[i].live && w < servers[i].weight; w++) array[n++] = i;
        }
        struct ring r = {0};
        assert_int_equal(ring_build(&r, POOL_MODULA, servers, SERVERS), OK);
        for (int i = 0; i < 1000; i++) {
            uint32_t hash = next_random(&seed);
            assert_int_equal(ring_find(&r, hash, 0), n == 0 ? -1 : array[hash % n]);
        }
        ring_deinit(&r);
    }
}

static void test_ketama_edges(void **state)
{
    struct ring_server servers[2] = {{BYTES("127.0.0.1:11214"), 100000, true}, {BYTES("127.0.0.1:11215"), 1, true}};
    struct ring r = {0};
    assert_int_equal(ring_build(&r, POOL_KETAMA, servers, 2), OK);
    assert_int_equal(r.n, 316); /* 79 digests for the one, none for the other */
    for (size_t i = 1; i < r.n; i++) assert_true(r.points[i - 1].upto <= r.points[i].upto);
    for (size_t i = 0; i < r.n; i++) {
        uint32_t point = (uint32_t)r.points[i].upto;
        assert_int_equal(ring_find(&r, point, 0), r.points[i].server);
    }
    assert_int_equal(ring_find(&r, UINT32_MAX, 0), r.points[0].server);
    servers[0].live = servers[1].live = false;
    assert_int_equal(ring_build(&r, POOL_KETAMA, servers, 2), OK);
    assert_int_equal(ring_find(&r, 5, 0), -1);
    assert_int_equal(ring_build(&r, POOL_RANDOM, servers, 2), OK);
    assert_int_equal(ring_find(&r, 5, 9), -1);
    servers[1].live = true;
    assert_int_equal(ring_build(&r, POOL_RANDOM, servers, 2), OK);
    for (uint32_t i = 0; i < 10; i++) assert_int_equal(ring_find(&r, 5, i), 1);
    servers[0].weight = servers[1].weight = UINT32_MAX;
    servers[0].live = true;
    assert_int_equal(ring_build(&r, POOL_MODULA, servers, 2), OK);
    assert_int_equal(ring_find(&r, UINT32_MAX, 0), 1);
    assert_int_equal(ring_find(&r, UINT32_MAX - 1, 0), 0);
    assert_int_equal(ring_build(&r, POOL_MODULA, servers, (size_t)RING_SERVERS_MAX + 1), E_TOO_BIG);
    assert_int_equal(ring_find(&r, UINT32_MAX, 0), 1);
    ring_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept_values),
        cmocka_unit_test(test_md5),
        cmocka_unit_test(test_hash_tag),
        cmocka_unit_test(test_ejection_moves_only_its_keys),
        cmocka_unit_test(test_modula_against_the_array),
        cmocka_unit_test(test_ketama_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
