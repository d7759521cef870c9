/* What pack() writes liblzf reads back, whatever the text and whatever room it is given. */
#include "persist/rdb_pack.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/random.h"

#include <liblzf/lzf.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 70000, GUARD = 64 };

static struct random rng;
static struct packer packer;

static size_t pick(size_t below)
{
    return (size_t)random_below(&rng, below);
}

/* Packs exactly n bytes (a copy that ends where its memory ends) into cap bytes and unpacks them. */
static size_t pack_and_unpack(const char *text, size_t n, size_t cap)
{
    char *in = malloc(n ? n : 1), *back = malloc(n + 1);
    unsigned char *out = malloc(cap + GUARD);
    memcpy(in, text, n);
    memset(out + cap, 0xa5, GUARD);
    size_t packed = pack(&packer, in, n, out, cap);
    assert_true(packed <= cap);
    for (int i = 0; i < GUARD; i++) assert_int_equal(out[cap + (size_t)i], 0xa5);
    if (packed) {
        assert_int_equal(lzf_decompress(out, (unsigned)packed, back, (unsigned)n + 1), n);
        assert_memory_equal(back, text, n);
    }
    free(in);
    free(back);
    free(out);
    return packed;
}

/* Random stretches, copies of what came before from near and far, and runs of one byte. */
static size_t random_text(char *text, size_t most)
{
    size_t n = 0, size = pick(4) ? pick(most < 400 ? most : 400) : pick(most);
    unsigned letters = pick(3) ? 4 : 256;
    while (n < size) {
        size_t many = 1 + pick(pick(8) ? 20 : 1000), back = n ? 1 + pick(pick(2) ? n : (n < 9000 ? n : 9000)) : 0;
        if (many > size - n) many = size - n;
        unsigned kind = (unsigned)pick(3), byte = (unsigned)pick(256);
        for (size_t i = 0; i < many; i++, n++)
            text[n] = (char)(kind == 0 || back == 0 ? pick(letters) : kind == 1 ? (unsigned char)text[n - back] : byte);
    }
    return n;
}

static void everything_comes_back(void **state)
{
    (void)state;
    const char *replay = getenv("SEED");
    uint64_t seed = replay ? strtoull(replay, NULL, 10) : (uint64_t)clock_wall_us();
    print_message("seed %llu\n", (unsigned long long)seed);
    random_seed(&rng, seed);
    static char text[TEXT_MAX];
    unsigned packed = 0;
    for (int i = 0; i < 4000; i++) {
        size_t n = random_text(text, TEXT_MAX);
        /* A text of n bytes takes a control byte for every 32 at worst. */
        assert_true(pack_and_unpack(text, n, n + n / 32 + 4) || n == 0);
        packed += n > 4 && pack_and_unpack(text, n, n - 4) != 0;
        pack_and_unpack(text, n, pick(n + 1));
    }
    assert_in_range(packed, 500, 3900);
}

static void numbers_of_bytes_start_over(void **state)
{
    (void)state;
    static char text[TEXT_MAX];
    random_seed(&rng, 7);
    for (uint32_t before = 0; before < 100000; before += 997) {
        packer.base = UINT32_MAX - before;
        size_t n = random_text(text, TEXT_MAX);
        assert_true(pack_and_unpack(text, n, n + n / 32 + 4) || n == 0);
        assert_true(pack_and_unpack(text, n, n + n / 32 + 4) || n == 0);
    }
}

/* The reach of a copy is 8192 bytes, its longest 264. */
static void limits_of_the_format(void **state)
{
    (void)state;
    static char text[TEXT_MAX];
    random_seed(&rng, 11);
    for (size_t i = 0; i < 20000; i++) text[i] = (char)random_u64(&rng);
    for (size_t far = 8190; far <= 8194; far++) {
        memcpy(text + far, text, 100);
        size_t n = far + 100, literal = n + (n + 31) / 32;
        assert_int_equal(pack_and_unpack(text, n, literal) < literal, far <= 8192);
    }
    memset(text, 'x', TEXT_MAX);
    assert_in_range(pack_and_unpack(text, TEXT_MAX, TEXT_MAX), TEXT_MAX / 264 * 3, TEXT_MAX / 264 * 3 + 16);
    for (size_t n = 0; n < 600; n++) assert_true(pack_and_unpack(text, n, n + 20) || n == 0);
}

/* Ordinary values become about as short as by liblzf. */
static void as_short_as_liblzf(void **state)
{
    (void)state;
    random_seed(&rng, 13);
    size_t ours = 0, theirs = 0;
    for (int i = 0; i < 300; i++) {
        char text[2048], out[2100];
        size_t n = 0;
        for (int j = 0; n < 1500; j++)
            n += (size_t)snprintf(
                text + n, sizeof text - n,
                "{\"id\":%d,\"name\":\"user%zu\",\"created\":\"2024-%02zu-%02zuT10:%02zu:00Z\",\"price\":%zu.5}", j,
                pick(100000), 1 + pick(12), 1 + pick(28), pick(60), pick(1000));
        ours += pack_and_unpack(text, n, n - 4);
        theirs += lzf_compress(text, (unsigned)n, out, (unsigned)n - 4);
    }
    assert_true(ours < theirs + theirs / 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_comes_back),
        cmocka_unit_test(numbers_of_bytes_start_over),
        cmocka_unit_test(limits_of_the_format),
        cmocka_unit_test(as_short_as_liblzf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
