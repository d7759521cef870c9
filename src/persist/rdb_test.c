/* The RDB format against bytes that redis-server 7.0.15 wrote or accepted, random values through a file and back, and
 * inputs that are broken on purpose. */
#include "persist/rdb_test.h"

#include "base/clock.h"
#include "base/crc.h"
#include "persist/rdb_input.h"

#include <liblzf/lzf.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- helpers -------------------------------------------------------------------------------------------------------
 */

static void footer_append(struct buf *b, unsigned version)
{
    buf_append_char(b, (char)version);
    buf_append_char(b, 0);
    uint64_t crc = crc64(0, b->p, b->n);
    buf_append(b, &crc, 8);
}

static struct entry *restore_ok(struct bytes payload)
{
    struct entry *e = NULL;
    assert_int_equal(persist_restore(payload, KEY, limits, &e), OK);
    assert_true(bytes_eq(entry_key(e), KEY));
    return e;
}

static void assert_dumps_as(const struct entry *e, const char *hex)
{
    struct buf want = {0}, got = {0};
    hex_append(&want, hex);
    assert_int_equal(persist_dump(e, true, &got), OK);
    assert_same(buf_bytes(&got), buf_bytes(&want));
    buf_deinit(&want);
    buf_deinit(&got);
}

/* Both directions of one payload. */
static void assert_payload(const char *hex, const char *again)
{
    struct buf payload = {0};
    hex_append(&payload, hex);
    struct entry *e = restore_ok(buf_bytes(&payload));
    assert_dumps_as(e, again);
    entry_free(e);
    buf_deinit(&payload);
}

/* A body without its footer. */
static enum status restore_body(const char *hex, struct entry **out)
{
    struct buf payload = {0};
    hex_append(&payload, hex);
    footer_append(&payload, 10);
    enum status st = persist_restore(buf_bytes(&payload), KEY, limits, out);
    buf_deinit(&payload);
    return st;
}

static void assert_text_payload(struct bytes text, const char *hex)
{
    struct entry *e = entry_try_new_string(KEY, text);
    struct buf payload = {0};
    char digits[24];
    assert_dumps_as(e, hex);
    entry_free(e);
    hex_append(&payload, hex);
    e = restore_ok(buf_bytes(&payload));
    assert_int_equal(entry_type(e), TYPE_STRING);
    assert_same(entry_string(e, digits), text);
    entry_free(e);
    buf_deinit(&payload);
}

/* ---- bytes kept from redis-server ----------------------------------------------------------------------------------
 */

static void test_strings(void **state)
{
    char a[300];
    memset(a, 'a', sizeof a);
    assert_text_payload(BYTES("abc"), "00036162630a00d9ac303d4172a2e2");
    assert_text_payload(BYTES(""), "00000a005d9b5c400f7fa2da");
    assert_text_payload(BYTES("0"), "00c0000a009840a778f8500308");
    assert_text_payload(BYTES("v"), "0001760a009108ceb219388ace");
    assert_text_payload(BYTES("128"), "00c180000a00eb7ab3b510cf4b65");
    assert_text_payload(BYTES("32768"), "00c2008000000a0045d82eedd5bda910");
    assert_text_payload(BYTES("2147483648"), "000a323134373438333634380a00e7b129a34c1d76ee");
    assert_text_payload(bytes_make(a, 21), "00c30615016161e00a000a00fd0cb36807413f68");
    assert_text_payload(bytes_make(a, 63), "00c3093f016161e032000161610a00c7b454c16b8866cb");
    assert_text_payload(bytes_make(a, 64), "00c3094040016161e033000161610a00c3659612ce1cc46c");
    assert_text_payload(bytes_make(a, 300), "00c30c412c016161e0ff00e017000161610a004b1bc2625246e713");
}

static void assert_string_body(struct bytes text, const char *hex)
{
    struct entry *e = entry_try_new_string(KEY, text);
    struct buf got = {0}, want = {0};
    assert_int_equal(persist_dump(e, true, &got), OK);
    got.n -= 10;
    hex_append(&want, "00");
    hex_append(&want, hex);
    assert_same(buf_bytes(&got), buf_bytes(&want));
    entry_free(e);
    buf_deinit(&got);
    buf_deinit(&want);
}

static void test_string_encodings(void **state)
{
    char a[21];
    memset(a, 'a', sizeof a);
    assert_string_body(BYTES("-1"), "c0ff");
    assert_string_body(BYTES("127"), "c07f");
    assert_string_body(BYTES("-128"), "c080");
    assert_string_body(BYTES("-129"), "c17fff");
    assert_string_body(BYTES("32767"), "c1ff7f");
    assert_string_body(BYTES("-2147483648"), "c200000080");
    assert_string_body(BYTES("2147483647"), "c2ffffff7f");
    assert_string_body(BYTES("-2147483649"), "0b '-2147483649'");
    assert_string_body(BYTES("012"), "03303132");
    assert_string_body(BYTES("-0"), "02 '-0'");
    assert_string_body(BYTES(" 1"), "02 ' 1'");
    assert_string_body(BYTES("abcabcabcabcabcabcabcabcabcabc"), "c3 0b 1e 0361626361e00f02016263");
    assert_string_body(bytes_make(a, 20), "14 'aaaaaaaaaaaaaaaaaaaa'");
}

/* Every text that LZF can shorten enough is shortened: the same bytes as redis-server's, which asks LZF each time. */
static void test_compressed_when_it_pays(void **state)
{
    random_seed(&rng, 3);
    unsigned packed = 0, plain = 0;
    for (int i = 0; i < 20000; i++) {
        char text[170], out[200];
        size_t n = 21 + pick(140), run = 3 + pick(9);
        for (size_t j = 0; j < n; j++) text[j] = (char)random_u64(&rng);
        for (size_t at = run + pick(n - run); at + run <= n && pick(3); at += run) memcpy(text + at, text, run);
        unsigned want = lzf_compress(text, (unsigned)n, out, (unsigned)n - 4);
        struct entry *e = entry_try_new_string(KEY, bytes_make(text, n));
        struct buf got = {0};
        assert_int_equal(persist_dump(e, true, &got), OK);
        assert_int_equal((unsigned char)got.p[1] == 0xc3, want != 0);
        want ? packed++ : plain++;
        entry_free(e);
        buf_deinit(&got);
    }
    assert_true(packed > 1000 && plain > 1000);
}

static void test_payloads(void **state)
{
    static const char *const same[] = {
        "1201020a0a0000000100816102ff0a0009b9edf594ded995",
        "0b0e02000000030000000100020003000a00a5025ce26d6e4d1b",
        "1012120000000400816602817602816e020a01ff0a0045f842d8ea0693ca",
        "111d1d0000000600816302842d696e6605816102010181620283322e3504ff0a003992339be11f323d",
        "130110000000000000000100000000000000011d1d0000000a0001010001010181660200010201000100018176020401ff0101010101"
        "000001000a00ff55ab626ac035db",
        /* Fields alike and not, an entry removed, two groups, three consumers. */
        "13011000000000000000010000000000000001404f4f0000001f00030101010201816602816e0200010201000100018176020c01050103"
        "0100010101817702dffb02050100010401dfff0201018167028178020601020104010001817602c12c020501ff03050101010102040202"
        "67310501040300000000000000010000000000000001256dba02a20100000100000000000000050000000000000000256dba02a2010000"
        "0100000000000000050000000000000001256dba02a2010000010305616c696365256dba02a20100000200000000000000010000000000"
        "0000010000000000000005000000000000000003626f62256dba02a201000001000000000000000500000000000000010469646c65276d"
        "ba02a201000000026732050181ffffffffffffffff00000a005f8ddab802dae908",
    };
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) assert_payload(same[i], same[i]);
    /* A stream of version 1 is written as one of version 2. */
    assert_payload("0f0110000000000000000100000000000000011d1d0000000a0001010001010181660200010201000100018176020401ff"
                   "010101000a00e6fb31ccd80975e9",
                   same[4]);
}

static struct bytes nth(const struct entry *e, int64_t index, struct element *el)
{
    assert_true(list_index(e, index, el));
    return el->text;
}

static void test_legacy_list(void **state)
{
    struct element el;
    struct buf payload = {0};
    hex_append(&payload, "0102016101620a0032a8907ed5031a45");
    struct entry *e = restore_ok(buf_bytes(&payload));
    assert_int_equal(list_len(e), 2);
    assert_same(nth(e, 0, &el), BYTES("a"));
    assert_same(nth(e, 1, &el), BYTES("b"));
    entry_free(e);
    payload.n = 0;
    hex_append(&payload, "0e0111110000000d0000000200000166030176ff0a00ac4ab50af94ab127");
    e = restore_ok(buf_bytes(&payload));
    assert_int_equal(list_len(e), 2);
    assert_same(nth(e, 0, &el), BYTES("f"));
    assert_same(nth(e, 1, &el), BYTES("v"));
    entry_free(e);
    buf_deinit(&payload);
}

static void test_ziplist_entries(void **state)
{
    static const char *const want[] = {"a", "1", "127", "256", "8388607", "16777216", "1099511627776"};
    struct entry *e;
    struct element el;
    char x[70];
    memset(x, 'x', sizeof x);
    assert_int_equal(restore_body("0a 4075 75000000 2b000000 0800 000161 03f2 02fe7f 03c00001 04f0ffff7f 05d000000001"
                                  "06e00000000000010000 0a4046"
                                  "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' ff",
                                  &e),
                     OK);
    assert_int_equal(list_len(e), 8);
    for (int i = 0; i < 7; i++) assert_same(nth(e, i, &el), bytes_of(want[i]));
    assert_same(nth(e, 7, &el), bytes_make(x, sizeof x));
    entry_free(e);
}

static void assert_hash_fv(const char *hex)
{
    struct buf payload = {0};
    struct element value;
    hex_append(&payload, hex);
    struct entry *e = restore_ok(buf_bytes(&payload));
    assert_int_equal(entry_type(e), TYPE_HASH);
    assert_int_equal(hash_len(e), 1);
    assert_true(hash_get(e, BYTES("f"), &value));
    assert_same(value.text, BYTES("v"));
    entry_free(e);
    buf_deinit(&payload);
}

static void assert_score(const struct entry *e, const char *member, double want)
{
    double score;
    assert_true(zset_score(e, bytes_of(member), &score));
    assert_true(score == want);
}

static void test_legacy_hash_zset(void **state)
{
    struct buf payload = {0};
    assert_hash_fv("0907010166010076ff0a007994afb42199d720");
    assert_hash_fv("0d11110000000d0000000200000166030176ff0a0000159240ef8448c9");
    hex_append(&payload, "0c13130000000d000000020000016d0303312e35ff0a008dca9178cf9e03ee");
    struct entry *e = restore_ok(buf_bytes(&payload));
    assert_int_equal(zset_len(e), 1);
    assert_score(e, "m", 1.5);
    entry_free(e);
    payload.n = 0;
    hex_append(&payload, "0302016101310162fe0a00ee12afeb42b90008");
    e = restore_ok(buf_bytes(&payload));
    assert_int_equal(zset_len(e), 2);
    assert_score(e, "a", 1);
    assert_score(e, "b", __builtin_inf());
    entry_free(e);
    buf_deinit(&payload);
}

/* Only a skiplist keeps the sign of zero, and what becomes one never loses it on the way. */
static void test_minus_zero(void **state)
{
    (void)state;
    struct store_limits small = store_limits_default;
    struct buf payload = {0};
    struct entry *e;
    double score;
    hex_append(&payload, "05 02 0161 0000000000000080 026262 000000000000f03f");
    footer_append(&payload, 10);
    for (int i = 0; i < 4; i++) {
        small.zset_max_listpack_entries = i & 1 ? 2 : 1;
        small.zset_max_listpack_value = i & 2 ? 2 : 1;
        assert_int_equal(persist_restore(buf_bytes(&payload), KEY, &small, &e), OK);
        assert_int_equal(entry_enc(e), i == 3 ? ENC_LISTPACK : ENC_SKIPLIST);
        assert_true(zset_score(e, BYTES("a"), &score) && score == 0);
        assert_int_equal(!!signbit(score), i != 3);
        entry_free(e);
    }
    buf_deinit(&payload);
}

/* With the limits at 0 the same values are large ones, and are written element by element. */
static void test_large_encodings(void **state)
{
    struct store_limits small = store_limits_default;
    small.zset_max_listpack_entries = small.hash_max_listpack_entries = 0;
    struct buf payload = {0};
    struct entry *e;
    static const char zset[] =
        "05050164000000000000f07f016200000000000004400161000000000000f03f01659a9999999999b93f016300"
        "0000000000f0ff0a0012f7decc63034f03";
    hex_append(&payload, zset);
    assert_int_equal(persist_restore(buf_bytes(&payload), KEY, &small, &e), OK);
    assert_int_equal(entry_enc(e), ENC_SKIPLIST);
    assert_dumps_as(e, zset);
    entry_free(e);
    e = restore_ok(buf_bytes(&payload));
    assert_int_equal(entry_enc(e), ENC_LISTPACK);
    assert_int_equal(zset_len(e), 5);
    entry_free(e);
    payload.n = 0;
    hex_append(&payload, "04 01 0166 0176");
    footer_append(&payload, 9);
    assert_int_equal(persist_restore(buf_bytes(&payload), KEY, &small, &e), OK);
    assert_int_equal(entry_enc(e), ENC_HASHTABLE);
    struct buf again = {0};
    assert_int_equal(persist_dump(e, true, &again), OK);
    assert_true(again.n == payload.n && memcmp(again.p, payload.p, 6) == 0);
    entry_free(e);
    buf_deinit(&payload);
    buf_deinit(&again);
}

/* What only Redis 7.2 and Valkey write. */
static void test_version_11(void **state)
{
    struct entry *e;
    struct buf payload = {0};
    hex_append(&payload, "14 0c 0c000000 0200 816102 0101 ff");
    footer_append(&payload, 11);
    e = restore_ok(buf_bytes(&payload));
    assert_int_equal(entry_type(e), TYPE_SET);
    assert_int_equal(set_len(e), 2);
    assert_true(set_has(e, BYTES("a")) && set_has(e, BYTES("1")));
    entry_free(e);
    payload.n -= 10;
    footer_append(&payload, 12);
    assert_int_equal(persist_restore(buf_bytes(&payload), KEY, limits, &e), E_INVALID);
    buf_deinit(&payload);
    /* A stream of version 3 becomes one of version 2: the active time of its consumer goes. */
    static const char head[] = "01 10 0000000000000001 0000000000000001 1d 1d0000000a0001010001010181660200010201000100"
                               "018176020401ff 01 01 01 01 01 00 00 01 01 03'grp' 01 01 01"
                               "01 0000000000000001 0000000000000001 1122334455667788 01 01 05'alice' 0102030405060708";
    static const char tail[] = "01 0000000000000001 0000000000000001";
    char v3[1024];
    struct buf want = {0}, got = {0};
    snprintf(v3, sizeof v3, "15 %s 0807060504030201 %s", head, tail);
    assert_int_equal(restore_body(v3, &e), OK);
    hex_append(&want, "13");
    hex_append(&want, head);
    hex_append(&want, tail);
    footer_append(&want, 10);
    assert_int_equal(persist_dump(e, true, &got), OK);
    assert_same(buf_bytes(&got), buf_bytes(&want));
    entry_free(e);
    buf_deinit(&want);
    buf_deinit(&got);
}

static void assert_refused(const char *hex)
{
    struct entry *e = NULL;
    assert_int_equal(restore_body(hex, &e), E_CORRUPT);
    assert_null(e);
}

/* A stream put together from parts; what a case leaves NULL is right. */
struct stream_parts {
    const char *nodes, *length, *last, *pending, *consumers;
};

static enum status restore_stream(struct stream_parts parts)
{
    static const char node[] = "01 10 0000000000000001 0000000000000001 1d 1d0000000a0001010001010181660200010201000100"
                               "018176020401ff";
    static const char one[] = "0000000000000001 0000000000000001";
    char body[2000], pending[200], consumers[400];
    snprintf(pending, sizeof pending, "01 %s 1122334455667788 01", one);
    snprintf(consumers, sizeof consumers, "01 05'alice' 0102030405060708 01 %s", one);
    snprintf(body, sizeof body, "13 %s %s %s 01 01 00 00 01 01 03'grp' 01 01 01 %s %s",
             parts.nodes ? parts.nodes : node, parts.length ? parts.length : "01", parts.last ? parts.last : "01 01",
             parts.pending ? parts.pending : pending, parts.consumers ? parts.consumers : consumers);
    struct entry *e = NULL;
    enum status st = restore_body(body, &e);
    if (st == OK) entry_free(e);
    return st;
}

static void test_refused_streams(void **state)
{
#define NODE_LP " 1d 1d0000000a0001010001010181660200010201000100018176020401ff"
#define NODE_1_1 "10 0000000000000001 0000000000000001" NODE_LP
#define NODE_2_1 "10 0000000000000002 0000000000000001" NODE_LP
#define ID_1 "0000000000000001 0000000000000001"
#define ID_2 "0000000000000002 0000000000000001"
#define TIMES " 1122334455667788 01 "
    static const struct stream_parts right[] = {
        {.nodes = NULL},
        {.nodes = "02 " NODE_1_1 NODE_2_1, .length = "02", .last = "02 01"},
        {.nodes = "00", .length = "00"},
        {.pending = "00", .consumers = "00"},
    };
    static const struct stream_parts wrong[] = {
        {.length = "02"},
        {.nodes = "00"},
        {.last = "01 00"}, /* below the entry there is */
        {.nodes = "02 " NODE_2_1 NODE_1_1, .length = "02", .last = "02 01"},
        {.nodes = "02 " NODE_1_1 NODE_1_1, .length = "02", .last = "02 01"},
        {.nodes = "01 0f 00000000000001 0000000000000001" NODE_LP},
        {.nodes = "01 10 0000000000000001 0000000000000001 07 070000000000ff"}, /* an empty node */
        {.pending = "00"},   /* what the consumer has is not the group's */
        {.consumers = "00"}, /* nobody has what is pending */
        {.pending = "02 " ID_1 TIMES ID_1 TIMES},
        {.pending = "02 " ID_2 TIMES ID_1 TIMES},
        {.consumers = "01 05'alice' 0102030405060708 01 " ID_2},
        {.consumers = "01 05'alice' 0102030405060708 02 " ID_1 ID_1},
        {.consumers = "02 05'alice' 0102030405060708 01 " ID_1 " 03'bob' 0102030405060708 01 " ID_1},
        {.consumers = "02 05'alice' 0102030405060708 01 " ID_1 " 05'alice' 0102030405060708 00"},
        {.consumers = "80 ffffffff 05'alice' 0102030405060708 01 " ID_1},
        {.pending = "80 ffffffff " ID_1 TIMES},
    };
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) assert_int_equal(restore_stream(right[i]), OK);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) assert_int_equal(restore_stream(wrong[i]), E_CORRUPT);
}

static void test_refused_payloads(void **state)
{
    struct entry *e;
    struct buf payload = {0};
    assert_refused("");
    assert_refused("08 00"); /* no such type */
    assert_refused("16 00"); /* nor this */
    assert_refused("06 00"); /* modules */
    assert_refused("07 81 0000000000000000 00");
    assert_refused("02 00"); /* empty collections */
    assert_refused("12 00");
    assert_refused("12 01 02 07 070000000000ff");
    assert_refused("0b 08 0200000000000000");
    assert_refused("10 07 070000000000ff");
    assert_refused("02 02 0161 0161"); /* an element twice */
    assert_refused("04 02 0161 0162 0161 0163");
    assert_refused("05 02 0161 000000000000f03f 0161 000000000000f03f");
    assert_refused("10 10 10000000 0400 816102 0101 816102 0101 ff");
    assert_refused("05 01 0161 000000000000f87f"); /* NaN */
    assert_refused("03 01 0161 fd");
    assert_refused("03 01 0161 02 'x1'");
    assert_refused("0b 0c 0200000002000000 0200 0100"); /* not in order */
    assert_refused("12 01 03 0161");                    /* no such container */
    assert_refused("00 c4");                            /* no such string encoding */
    assert_refused("00 c3 01 0a 00");                   /* LZF whose output is too short */
    assert_refused("00 c3 03 80ffffffff 016161");
    assert_refused("00 81 7fffffffffffffff 61");
    assert_refused("00 80 ffffffff 61");
    assert_refused("01 80 ffffffff 0161");
    assert_refused("13 00 01 01 01 00 00 01 01 01 00"); /* a length, and no node */
    /* A footer that is not right. */
    hex_append(&payload, "00036162630a00d9ac303d4172a2e3");
    assert_int_equal(persist_restore(buf_bytes(&payload), KEY, limits, &e), E_INVALID);
    memset(payload.p + payload.n - 8, 0, 8);
    assert_int_equal(persist_restore(buf_bytes(&payload), KEY, limits, &e), E_INVALID);
    assert_false(persist_payload_ok(BYTES("123456789")));
    /* What stands between value and footer is not looked at. */
    payload.n = 0;
    hex_append(&payload, "0003616263 ffff");
    footer_append(&payload, 10);
    entry_free(restore_ok(buf_bytes(&payload)));
    buf_deinit(&payload);
}

static void test_empty_stream(void **state)
{
    struct entry *e;
    assert_int_equal(restore_body("13 00 00 01 01 00 00 01 01 01 00", &e), OK);
    assert_int_equal(entry_type(e), TYPE_STREAM);
    entry_free(e);
}

/* ---- whole files ---------------------------------------------------------------------------------------------------
 */

static enum status load_bytes(struct store *s, struct bytes b, size_t piece, const struct rdb_load_options *options,
                              struct rdb_extras *extras, struct rdb_load_result *result, struct rdb_error *err)
{
    struct memory m = {b, piece};
    return rdb_load(s, (struct rdb_source){&m, memory_read, 0}, options, extras, NULL, result, err);
}

static enum status load_hex(const char *hex, struct store *s, struct rdb_error *err)
{
    struct buf b = {0};
    struct rdb_load_options options = load_options();
    struct rdb_load_result result;
    hex_append(&b, hex);
    enum status st = load_bytes(s, buf_bytes(&b), SIZE_MAX, &options, NULL, &result, err);
    buf_deinit(&b);
    return st;
}

static void test_empty_file(void **state)
{
    struct buf b = {0};
    struct store *s = new_store();
    struct rdb_load_options options = load_options();
    struct rdb_load_result result;
    struct rdb_error err;
    hex_append(&b, "524544495330303130 fa 09 72656469732d766572 06 372e302e3135 fa 0a 72656469732d62697473 c040 fa 05"
                   "6374696d65 c2 18f6016b fa 08 757365642d6d656d c2 a8b40e00 fa 08 616f662d62617365 c000 ff"
                   "37b37fbc58c4417f 'rest'");
    for (size_t piece = 1; piece < 100; piece++) {
        assert_int_equal(load_bytes(s, buf_bytes(&b), piece, &options, NULL, &result, &err), OK);
        assert_int_equal(result.bytes, 89);
        assert_int_equal(result.aux.ctime_s, 0x6b01f618);
        assert_int_equal(result.aux.used_memory, 0xeb4a8);
        assert_false(result.aux.has_repl || result.aux.aof_base);
    }
    struct buf rest = {0};
    options.rest = &rest;
    assert_int_equal(load_bytes(s, buf_bytes(&b), SIZE_MAX, &options, NULL, &result, &err), OK);
    assert_same(buf_bytes(&rest), BYTES("rest"));
    buf_deinit(&rest);
    options.rest = NULL;
    b.p[22] ^= 1;
    assert_int_equal(load_bytes(s, buf_bytes(&b), SIZE_MAX, &options, NULL, &result, &err), E_CORRUPT);
    assert_non_null(strstr(err.text, "checksum"));
    options.ignore_checksum = true;
    assert_int_equal(load_bytes(s, buf_bytes(&b), SIZE_MAX, &options, NULL, &result, &err), OK);
    store_destroy(s);
    buf_deinit(&b);
}

/* Stands for a checksum: 0 is not compared. */
#define NO_SUM " ff 0000000000000000"

static void test_items(void **state)
{
    struct store *s = new_store();
    struct rdb_error err;
    assert_int_equal(load_hex("'REDIS0011' fa 03'foo' 03'bar' f4 05 01 00 fe00 fb0101 fc00d8c32cbb030000 00 016b 0176"
                              "fd 00000070 f8 05 00 0173 0176 f9 07 02 0165 00 fe03 fb0100 00 0161 c001" NO_SUM,
                              s, &err),
                     OK);
    struct key k = key_of(BYTES("k")), sec = key_of(BYTES("s")), a = key_of(BYTES("a"));
    assert_int_equal(entry_expire_at(store_find(s, 0, &k)), 4102444800000);
    assert_int_equal(entry_expire_at(store_find(s, 0, &sec)), 0x70000000ll * 1000);
    assert_int_equal(entry_lru(store_find(s, 0, &sec)), 995);
    assert_int_equal(entry_lru(store_find(s, 0, &k)), 1000);
    assert_int_equal(entry_expire_at(store_find(s, 3, &a)), -1);
    assert_int_equal(store_db_count(s, 0), 2);
    assert_int_equal(store_db_count(s, 3), 1);
    store_destroy(s);
}

static void assert_load_fails(const char *hex, enum status want, const char *text)
{
    struct store *s = new_store();
    struct rdb_error err;
    assert_int_equal(load_hex(hex, s, &err), want);
    if (!strstr(err.text, text)) fail_msg("'%s' is not in '%s'", text, err.text);
    store_destroy(s);
}

static void test_refused_files(void **state)
{
    assert_load_fails("", E_CLOSED, "unexpected end");
    assert_load_fails("'REDIS001'", E_CLOSED, "unexpected end");
    assert_load_fails("'RADIS0010'" NO_SUM, E_CORRUPT, "wrong signature");
    assert_load_fails("'REDIS00x0'" NO_SUM, E_CORRUPT, "version");
    assert_load_fails("'REDIS0000'" NO_SUM, E_CORRUPT, "version");
    assert_load_fails("'REDIS0012'" NO_SUM, E_TOO_BIG, "can't handle RDB format version 12");
    assert_load_fails("'REDIS0010' fe10" NO_SUM, E_CORRUPT, "database 16");
    assert_load_fails("'REDIS0010' 00 0161 0162", E_CLOSED, "at offset 14");
    assert_load_fails("'REDIS0010' 00 0161 0162 00 0161 0163" NO_SUM, E_EXISTS, "key 'a'");
    assert_load_fails("'REDIS0010' 07 0161 81 0000000000000000 00" NO_SUM, E_CORRUPT, "AAAAAAAAA");
    assert_load_fails("'REDIS0010' f7 81 0000000000000000 00" NO_SUM, E_CORRUPT, "modules are not supported");
    assert_load_fails("'REDIS0010' 1e 0161" NO_SUM, E_CORRUPT, "unknown type or opcode 30");
    assert_load_fails("'REDIS0010' 04 0161 02 0166 0167 0166 0168" NO_SUM, E_CORRUPT, "hash-hashtable, key 'a'");
    assert_load_fails("'REDIS0010' ff 0000", E_CLOSED, "unexpected end");
}

static void test_old_versions_have_no_checksum(void **state)
{
    struct store *s = new_store();
    struct rdb_error err;
    assert_int_equal(load_hex("'REDIS0004' fe00 00 0161 0162 ff", s, &err), OK);
    assert_int_equal(store_db_count(s, 0), 1);
    store_destroy(s);
}

static void count_expired(void *ctx, int db, struct bytes key)
{
    assert_int_equal(db, 0);
    assert_same(key, BYTES("k"));
    ++*(int *)ctx;
}

static void test_expired_keys(void **state)
{
    static const char file[] = "'REDIS0010' fe00 fc0100000000000000 00 016b 0176 02 0165 00" NO_SUM;
    struct buf b = {0};
    struct rdb_load_options options = load_options();
    struct rdb_load_result result;
    struct rdb_error err;
    int seen = 0;
    hex_append(&b, file);
    options.ctx = &seen;
    options.expired = count_expired;
    struct store *s = new_store();
    assert_int_equal(load_bytes(s, buf_bytes(&b), SIZE_MAX, &options, NULL, &result, &err), OK);
    assert_int_equal(store_db_count(s, 0), 0);
    assert_int_equal(seen, 1);
    options.keep_expired = true;
    assert_int_equal(load_bytes(s, buf_bytes(&b), SIZE_MAX, &options, NULL, &result, &err), OK);
    assert_int_equal(store_db_count(s, 0), 1);
    assert_int_equal(store_db_ttl_count(s, 0), 1);
    assert_int_equal(load_bytes(s, buf_bytes(&b), SIZE_MAX, &options, NULL, &result, &err), E_EXISTS);
    options.replace = true;
    assert_int_equal(load_bytes(s, buf_bytes(&b), SIZE_MAX, &options, NULL, &result, &err), OK);
    assert_int_equal(result.keys, 1);
    store_destroy(s);
    buf_deinit(&b);
}

/* ---- random datasets through a file --------------------------------------------------------------------------------
 */

static char dir[64];

static int make_dir(void **state)
{
    strcpy(dir, "/tmp/rdb_test.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char path[128];
    snprintf(path, sizeof path, "%s/dump.rdb", dir);
    unlink(path);
    return rmdir(dir);
}

static enum status load_dump(struct store *s, struct rdb_extras *extras, struct rdb_progress *progress,
                             struct rdb_load_result *result)
{
    char path[128];
    struct rdb_error err;
    struct rdb_load_options options = load_options();
    snprintf(path, sizeof path, "%s/dump.rdb", dir);
    enum status st = rdb_load_file(s, path, &options, extras, progress, result, &err);
    if (st != OK) print_message("%s\n", err.text);
    return st;
}

static void round_trip(size_t keys, const struct rdb_options *options)
{
    struct store *a = random_store(keys), *b = new_store();
    struct rdb_progress saved = {0}, loaded = {0};
    struct rdb_error err;
    struct rdb_load_result result;
    assert_int_equal(rdb_save_file(a, store_cut_begin(a), options, dir, "dump.rdb", &saved, &err), OK);
    assert_int_equal(load_dump(b, NULL, &loaded, &result), OK);
    assert_int_equal(saved.keys, keys);
    assert_int_equal(saved.keys_total, keys);
    assert_int_equal(loaded.keys, keys);
    assert_int_equal(loaded.keys_total, keys);
    assert_int_equal(loaded.bytes, saved.bytes);
    assert_int_equal(loaded.bytes_total, saved.bytes);
    assert_same_stores(a, b);
    store_destroy(a);
    store_destroy(b);
}

static void test_round_trip(void **state)
{
    uint64_t seed = (uint64_t)clock_wall_us();
    print_message("seed %llu\n", (unsigned long long)seed);
    random_seed(&rng, seed);
    struct rdb_options options = save_options();
    round_trip(0, &options);
    round_trip(300, &options);
    options.compress = false;
    options.access = RDB_ACCESS_IDLE;
    round_trip(100, &options);
    options.checksum = false;
    options.access = RDB_ACCESS_FREQ;
    round_trip(100, &options);
}

static void test_extras_and_aux(void **state)
{
    struct store *s = new_store();
    struct rdb_extras extras = {0}, again = {0};
    struct rdb_options options = save_options();
    struct rdb_error err;
    struct rdb_load_result result;
    rdb_extras_add(&extras, BYTES("#!lua name=one\nredis.register_function('f', function() end)"));
    rdb_extras_add(&extras, BYTES("#!lua name=two\n"));
    options.extras = &extras;
    options.has_repl = true;
    options.repl_db = 3;
    options.repl_offset = 123456789012;
    strcpy(options.repl_id, "0123456789abcdef0123456789abcdef01234567");
    assert_int_equal(rdb_save_file(s, store_cut_begin(s), &options, dir, "dump.rdb", NULL, &err), OK);
    assert_int_equal(load_dump(s, &again, NULL, &result), OK);
    assert_int_equal(again.count, 2);
    for (size_t i = 0; i < 2; i++) assert_same(buf_bytes(&again.libraries[i]), buf_bytes(&extras.libraries[i]));
    assert_true(result.aux.has_repl);
    assert_int_equal(result.aux.repl_db, 3);
    assert_int_equal(result.aux.repl_offset, 123456789012);
    assert_string_equal(result.aux.repl_id, options.repl_id);
    assert_int_equal(result.aux.ctime_s, 1700000000);
    options.aof_base = true;
    assert_int_equal(rdb_save_file(s, store_cut_begin(s), &options, dir, "dump.rdb", NULL, &err), OK);
    assert_int_equal(load_dump(s, NULL, NULL, &result), OK);
    assert_true(result.aux.aof_base && !result.aux.has_repl);
    rdb_extras_deinit(&extras);
    rdb_extras_deinit(&again);
    store_destroy(s);
}

static off_t dump_size(void)
{
    char path[128];
    struct stat sb;
    snprintf(path, sizeof path, "%s/dump.rdb", dir);
    return stat(path, &sb) == 0 ? sb.st_size : -1;
}

static bool temp_is_there(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/temp-%d.rdb", dir, (int)getpid());
    return access(path, F_OK) == 0;
}

/* A file that cannot be written whole leaves the old one alone and nothing behind. */
static void test_save_fails(void **state)
{
    random_seed(&rng, 7);
    struct store *s = random_store(200), *empty = new_store();
    struct rdb_options options = save_options();
    struct rdb_error err;
    assert_int_equal(rdb_save_file(empty, store_cut_begin(empty), &options, dir, "dump.rdb", NULL, &err), OK);
    off_t size = dump_size();
    struct rlimit old, tight = {20000, RLIM_INFINITY};
    getrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_IGN);
    tight.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_FSIZE, &tight);
    enum status st = rdb_save_file(s, store_cut_begin(s), &options, dir, "dump.rdb", NULL, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(st, E_IO);
    assert_non_null(strstr(err.text, "File too large"));
    assert_int_equal(dump_size(), size);
    assert_false(temp_is_there());
    struct rdb_progress progress = {.cancel = true};
    assert_int_equal(rdb_save_file(s, store_cut_begin(s), &options, dir, "dump.rdb", &progress, &err), E_CLOSED);
    assert_int_equal(dump_size(), size);
    assert_false(temp_is_there());
    assert_int_equal(rdb_save_file(s, store_cut_begin(s), &options, "/no/such/dir", "d", NULL, &err), E_IO);
    assert_non_null(strstr(err.text, "No such file"));
    /* Every cut was given back. */
    struct cut *cuts[CUTS_MAX];
    for (int i = 0; i < CUTS_MAX; i++) assert_non_null(cuts[i] = store_cut_begin(s));
    for (int i = 0; i < CUTS_MAX; i++) store_cut_end(cuts[i]);
    store_destroy(s);
    store_destroy(empty);
}

/* ---- hostile bytes -------------------------------------------------------------------------------------------------
 */

/* Whatever became of it: loaded, or refused with a reason. */
static void load_damaged(struct bytes b)
{
    struct store *s = new_store();
    struct rdb_load_options options = load_options();
    struct rdb_load_result result;
    struct rdb_error err;
    options.ignore_checksum = true;
    enum status st = load_bytes(s, b, SIZE_MAX, &options, NULL, &result, &err);
    assert_true((st == OK) == (err.text[0] == 0));
    if (st == OK) { /* what was taken over can be written */
        struct buf again = {0};
        struct rdb_options save = save_options();
        save_to_buf(s, &save, &again);
        buf_deinit(&again);
    }
    store_destroy(s);
}

static void test_damaged_files(void **state)
{
    random_seed(&rng, 11);
    struct store *s = random_store(40);
    struct rdb_options options = save_options();
    struct buf file = {0};
    save_to_buf(s, &options, &file);
    struct rdb_load_options load = load_options();
    struct rdb_load_result result;
    struct rdb_error err;
    struct store *t = new_store();
    for (int i = 0; i < 50; i++) { /* a part of a file is never a file */
        struct bytes part = bytes_make(file.p, pick(file.n));
        load.replace = true;
        assert_int_equal(load_bytes(t, part, 1 + pick(5000), &load, NULL, &result, &err), E_CLOSED);
    }
    store_destroy(t);
    for (int i = 0; i < 300; i++) {
        size_t at = pick(file.n);
        char was = file.p[at];
        file.p[at] = (char)(pick(2) ? was ^ 1 << pick(8) : (int)random_u64(&rng));
        load_damaged(buf_bytes(&file));
        file.p[at] = was;
    }
    buf_deinit(&file);
    store_destroy(s);
}

static void test_damaged_payloads(void **state)
{
    random_seed(&rng, 13);
    for (int i = 0; i < 200; i++) {
        struct entry *e = random_entry(KEY);
        struct buf payload = {0};
        assert_int_equal(persist_dump(e, true, &payload), OK);
        entry_free(e);
        size_t whole = payload.n - 10;
        for (int j = 0; j < 30; j++) {
            struct buf bad = {0};
            buf_append(&bad, payload.p, pick(3) ? whole : 1 + pick(whole));
            for (uint64_t flips = pick(4); flips; flips--) bad.p[pick(bad.n < 64 ? bad.n : 64)] ^= (char)(1 << pick(8));
            footer_append(&bad, 10);
            if (persist_restore(buf_bytes(&bad), KEY, limits, &e) == OK) {
                struct buf again = {0};
                assert_int_equal(persist_dump(e, true, &again), OK);
                buf_deinit(&again);
                entry_free(e);
            }
            buf_deinit(&bad);
        }
        buf_deinit(&payload);
    }
}

/* A declared length takes no memory before its bytes are there. */
static void test_declared_length(void **state)
{
    size_t before = mem_used_peak();
    assert_load_fails("'REDIS0010' 00 0161 8100000001ffffffff 'some'", E_CLOSED, "unexpected end");
    assert_load_fails("'REDIS0010' 00 0161 80ffffffff 'some'", E_CLOSED, "unexpected end");
    assert_load_fails("'REDIS0010' 04 0161 8100000001ffffffff 0161 0162", E_CLOSED, "unexpected end");
    assert_load_fails("'REDIS0010' 00 0161 c3 03 80ffffffff 016161", E_CORRUPT, "compressed");
    assert_load_fails("'REDIS0010' 00 81ffffffffffffffff", E_CORRUPT, "a string of");
    assert_true(mem_used_peak() < before + 16 * 1024 * 1024);
}

/* Strings larger than any buffer on the way. */
static void test_large_string(void **state)
{
    random_seed(&rng, 17);
    size_t n = 5 * 1024 * 1024 + 13;
    char *text = mem_alloc(n);
    for (size_t i = 0; i < n; i++) text[i] = (char)random_u64(&rng);
    struct store *a = new_store(), *b = new_store();
    struct key k = key_of(BYTES("large"));
    store_put(a, 0, &k, entry_try_new_string(k.name, bytes_make(text, n)));
    struct rdb_options options = save_options();
    struct buf file = {0};
    save_to_buf(a, &options, &file);
    static const size_t pieces[] = {SIZE_MAX, 100001, 4096};
    for (size_t i = 0; i < 3; i++) {
        struct rdb_load_options load = load_options();
        struct rdb_load_result result;
        struct rdb_error err;
        load.replace = true;
        assert_int_equal(load_bytes(b, buf_bytes(&file), pieces[i], &load, NULL, &result, &err), OK);
        assert_int_equal(result.bytes, file.n);
        assert_same_stores(a, b);
    }
    store_destroy(a);
    store_destroy(b);
    buf_deinit(&file);
    mem_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_string_encodings),
        cmocka_unit_test(test_compressed_when_it_pays),
        cmocka_unit_test(test_payloads),
        cmocka_unit_test(test_legacy_list),
        cmocka_unit_test(test_ziplist_entries),
        cmocka_unit_test(test_legacy_hash_zset),
        cmocka_unit_test(test_minus_zero),
        cmocka_unit_test(test_large_encodings),
        cmocka_unit_test(test_version_11),
        cmocka_unit_test(test_refused_payloads),
        cmocka_unit_test(test_empty_stream),
        cmocka_unit_test(test_refused_streams),
        cmocka_unit_test(test_empty_file),
        cmocka_unit_test(test_items),
        cmocka_unit_test(test_refused_files),
        cmocka_unit_test(test_old_versions_have_no_checksum),
        cmocka_unit_test(test_expired_keys),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_extras_and_aux),
        cmocka_unit_test(test_save_fails),
        cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_damaged_payloads),
        cmocka_unit_test(test_declared_length),
        cmocka_unit_test(test_large_string),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
