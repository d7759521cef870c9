/* Whole frames that a running redis-server 7.0.15 accepted, both ways, and frames that must be refused. */
#include "base/crc.h"
#include "cluster/codec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

/* The notation of the vectors: hexadecimal, "xx*n" for n times xx, spaces between. */
static void append_hex(struct buf *out, const char *text)
{
    while (*text) {
        if (*text == ' ') {
            text++;
            continue;
        }
        char pair[3] = {text[0], text[1], 0};
        char byte = (char)strtoul(pair, NULL, 16);
        unsigned long times = 1;
        text += 2;
        if (*text == '*') times = strtoul(text + 1, (char **)&text, 10);
        while (times--) buf_append_char(out, byte);
    }
}

static uint8_t slots[CLUSTER_SLOT_BYTES], update_slots[CLUSTER_SLOT_BYTES];
static struct cluster_gossip gossip[1];

static void fill_id(struct cluster_id *id, char c)
{
    memset(id->c, c, sizeof id->c);
}

static struct cluster_message base_message(unsigned type)
{
    struct cluster_message m = {.type = (uint16_t)type, .port = 7000, .cport = 17000, .flags = 0x11, .slots = slots};
    memset(slots, 0, sizeof slots);
    fill_id(&m.sender, 'a');
    return m;
}

static void set_slots(uint8_t *map, unsigned first, unsigned last)
{
    for (unsigned s = first; s <= last; s++) cluster_bit_set(map, s);
}

struct vector {
    const char *hex;
    size_t length;
    uint64_t crc;
};

/* m encodes to the vector; the vector decodes and encodes to itself. */
static void check_vector(const struct cluster_message *m, const struct vector *v)
{
    struct buf want = {0}, got = {0}, again = {0};
    append_hex(&want, v->hex);
    assert_int_equal(want.n, v->length);
    assert_true(crc64(0, want.p, want.n) == v->crc);
    cluster_encode(m, &got);
    assert_int_equal(got.n, want.n);
    assert_memory_equal(got.p, want.p, want.n);

    size_t length = 0;
    assert_int_equal(cluster_frame_length(bytes_make(want.p, 16), &length), OK);
    assert_int_equal(length, v->length);
    struct cluster_decoder d = {0};
    struct cluster_message back;
    assert_int_equal(cluster_decode(&d, buf_bytes(&want), &back), OK);
    assert_int_equal(back.type, m->type);
    assert_int_equal(back.gossip_count, m->gossip_count);
    assert_true(bytes_eq(back.hostname, m->hostname));
    cluster_encode(&back, &again);
    assert_true(bytes_eq(buf_bytes(&again), buf_bytes(&want)));
    cluster_decoder_deinit(&d);
    buf_deinit(&want);
    buf_deinit(&got);
    buf_deinit(&again);
}

static void v1_meet(void **state)
{
    struct cluster_message m = base_message(CLUSTER_MEET);
    m.state = 1;
    check_vector(&m, &(struct vector){"52436d62000008d000011b580002 00*26 61*40 00*2168 4268001101000000", 2256,
                                      0x8c569bcbe61bda52});
}

static void v2_ping_with_gossip_and_hostname(void **state)
{
    struct cluster_message m = base_message(CLUSTER_PING);
    m.current_epoch = 9;
    m.config_epoch = 7;
    m.offset = 12345;
    m.flags = 0x111;
    cluster_bit_set(slots, 0);
    cluster_bit_set(slots, 9);
    cluster_bit_set(slots, 16383);
    strcpy(m.ip, "10.0.0.1");
    m.mflags = CLUSTER_MSG_EXT_DATA;
    gossip[0] = (struct cluster_gossip){
        .pong_received_s = 0x6b01f88b, .ip = "127.0.0.1", .port = 6361, .cport = 16361, .flags = CLUSTER_NODE_PRIMARY};
    fill_id(&gossip[0].id, 'b');
    m.gossip = gossip;
    m.gossip_count = 1;
    m.hostname = BYTES("host.example");
    check_vector(&m, &(struct vector){
                         "52436d620000095000011b5800000001000000000000000900000000000000070000000000003039 61*40 0102 "
                         "00*2045 80 00*40 31302e302e302e31 00*39 01 00*32 4268011100040000 "
                         "62*40 000000006b01f88b3132372e302e302e31 00*37 18d93fe9000100000000"
                         "000000180000 0000 686f73742e6578616d706c6500000000",
                         2384, 0xab2ec96cda41911a});
}

/* As Redis 7.2 writes it: the shard's id comes last, without a NUL. */
static void ping_with_a_shard(void **state)
{
    struct cluster_message m = base_message(CLUSTER_PING), back;
    struct cluster_decoder d = {0};
    struct buf frame = {0}, want = {0};
    m.hostname = BYTES("h");
    fill_id(&m.shard, 'c');
    cluster_encode(&m, &frame);
    append_hex(&want, "00000010 0000 0000 68 00*7 00000030 0003 0000 63*40");
    assert_int_equal(frame.n, CLUSTER_HEADER_SIZE + want.n);
    assert_memory_equal(frame.p + CLUSTER_HEADER_SIZE, want.p, want.n);
    assert_int_equal(frame.p[2215], 2);
    assert_int_equal(cluster_decode(&d, buf_bytes(&frame), &back), OK);
    assert_true(cluster_id_eq(&back.shard, &m.shard));
    frame.p[frame.n - 1] = '!'; /* no id: as good as absent */
    assert_int_equal(cluster_decode(&d, buf_bytes(&frame), &back), OK);
    assert_true(cluster_id_is_null(&back.shard) && bytes_eq(back.hostname, BYTES("h")));
    cluster_decoder_deinit(&d);
    buf_deinit(&frame);
    buf_deinit(&want);
}

static void v3_pong_of_a_replica(void **state)
{
    struct cluster_message m = base_message(CLUSTER_PONG);
    m.current_epoch = 9;
    m.config_epoch = 7;
    m.offset = 12345;
    m.flags = 0x12;
    set_slots(slots, 0, 99);
    fill_id(&m.replica_of, 'b');
    check_vector(&m,
                 &(struct vector){"52436d62000008d000011b580001 00*9 0900000000000000070000000000003039 61*40 ff*12 0f "
                                  "00*2035 62*40 00*80 4268001200000000",
                                  2256, 0xd71828c3e73264d2});
}

static void v4_fail(void **state)
{
    struct cluster_message m = base_message(CLUSTER_FAIL);
    m.current_epoch = 9;
    m.config_epoch = 7;
    fill_id(&m.fail, 'b');
    check_vector(&m, &(struct vector){"52436d62000008f800011b580003 00*9 090000000000000007 00*8 61*40 00*2168 "
                                      "4268001100000000 62*40",
                                      2296, 0xfa74df5afc4a70bc});
}

static void v5_publish(void **state)
{
    struct cluster_message m = base_message(CLUSTER_PUBLISH);
    m.current_epoch = 9;
    m.config_epoch = 7;
    m.publish.channel = BYTES("chan");
    m.publish.payload = BYTES("hello");
    check_vector(&m, &(struct vector){"52436d62000008e100011b580004 00*9 090000000000000007 00*8 61*40 00*2168 "
                                      "4268001100000000 00000004000000056368616e68656c6c6f",
                                      2273, 0x4ef69fdd0267a0c0});
}

/* What is sent in two pieces is the same frame. */
static void a_head_and_its_body_are_one_frame(void **state)
{
    static const uint16_t types[] = {CLUSTER_PUBLISH, CLUSTER_PUBLISHSHARD};
    static const char *const texts[][2] = {{"chan", "hello"}, {"", ""}, {"c", ""}, {"", "payload"}};
    (void)state;
    for (size_t t = 0; t < 2; t++) {
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
            struct cluster_message m = base_message(types[t]);
            struct buf whole = {0}, parts = {0};
            m.publish.channel = bytes_of(texts[i][0]);
            m.publish.payload = bytes_of(texts[i][1]);
            cluster_encode(&m, &whole);
            cluster_encode_head(&m, &parts);
            buf_append_bytes(&parts, m.publish.channel);
            buf_append_bytes(&parts, m.publish.payload);
            assert_int_equal(parts.n, whole.n);
            assert_memory_equal(parts.p, whole.p, whole.n);
            buf_deinit(&whole);
            buf_deinit(&parts);
        }
    }
}

static void v6_update(void **state)
{
    struct cluster_message m = base_message(CLUSTER_UPDATE);
    m.current_epoch = 50;
    m.config_epoch = 7;
    m.update.config_epoch = 50;
    fill_id(&m.update.id, 'b');
    memset(update_slots, 0, sizeof update_slots);
    set_slots(update_slots, 20, 30);
    m.update.slots = update_slots;
    check_vector(&m, &(struct vector){"52436d620000110000011b580007 00*9 320000000000000007 00*8 61*40 00*2168 "
                                      "4268001100000000 00*7 32 62*40 0000f07f 00*2044",
                                      4352, 0x48bfd6358904d843});
}

static void v7_auth_request(void **state)
{
    struct cluster_message m = base_message(CLUSTER_AUTH_REQUEST);
    m.current_epoch = 10;
    m.config_epoch = 7;
    m.offset = 1;
    m.flags = 0x12;
    m.mflags = CLUSTER_MSG_FORCEACK;
    set_slots(slots, 0, 99);
    fill_id(&m.replica_of, 'b');
    check_vector(&m,
                 &(struct vector){"52436d62000008d000011b580005 00*9 0a00000000000000070000000000000001 61*40 ff*12 0f "
                                  "00*2035 62*40 00*80 4268001200020000",
                                  2256, 0x55f485fdb9d07f24});
}

static void module_frames_pass_through(void **state)
{
    struct cluster_message m = base_message(CLUSTER_MODULE), back;
    struct cluster_decoder d = {0};
    struct buf frame = {0};
    memcpy(&m.module.module_id, "\1\2\3\4\5\6\7\10", 8);
    m.module.type = 200;
    m.module.payload = BYTES("data");
    cluster_encode(&m, &frame);
    assert_int_equal(frame.n, 2269 + 4);
    assert_memory_equal(frame.p + 2256, "\1\2\3\4\5\6\7\10\0\0\0\4\310data", 17);
    assert_int_equal(cluster_decode(&d, buf_bytes(&frame), &back), OK);
    assert_true(bytes_eq(back.module.payload, BYTES("data")));
    buf_deinit(&frame);
}

static enum status length_of(const char *hex)
{
    struct buf b = {0};
    size_t length;
    append_hex(&b, hex);
    enum status s = cluster_frame_length(buf_bytes(&b), &length);
    buf_deinit(&b);
    return s;
}

static void absurd_frames_are_refused_at_once(void **state)
{
    assert_int_equal(length_of("52"), E_AGAIN);
    assert_int_equal(length_of("58"), E_CORRUPT);
    assert_int_equal(length_of("5843"), E_CORRUPT);
    assert_int_equal(length_of("52436d62 000008cf"), E_CORRUPT); /* shorter than a header */
    assert_int_equal(length_of("52436d62 40000000"), E_TOO_BIG); /* 1 GiB */
    assert_int_equal(length_of("52436d62 ffffffff"), E_TOO_BIG);
    assert_int_equal(length_of("52436d62 00100000"), E_AGAIN);
    assert_int_equal(length_of("52436d62 00100000 00011b580003 0000"), E_TOO_BIG); /* FAIL of 1 MiB */
    assert_int_equal(length_of("52436d62 00100000 00011b580000 0000"), E_TOO_BIG); /* PING without gossip */
    assert_int_equal(length_of("52436d62 00100000 00011b580000 3000"), OK);        /* 12288 entries */
    assert_int_equal(length_of("52436d62 20000000 00011b580004 0000"), OK);        /* PUBLISH of 512 MiB */
    assert_int_equal(length_of("52436d62 00100001 00011b580021 0000"), E_TOO_BIG); /* unknown type */
}

/* Applies one change to a good PING with one gossip entry and a hostname. */
static enum status decode_changed(size_t at, const char *hex, size_t cut)
{
    struct cluster_message m = base_message(CLUSTER_PING), back;
    struct cluster_decoder d = {0};
    struct buf frame = {0}, change = {0};
    gossip[0] = (struct cluster_gossip){.ip = "127.0.0.1", .port = 1, .cport = 2};
    fill_id(&gossip[0].id, 'b');
    m.gossip = gossip;
    m.gossip_count = 1;
    m.hostname = BYTES("host.example");
    cluster_encode(&m, &frame);
    append_hex(&change, hex);
    memcpy(frame.p + at, change.p, change.n);
    enum status s = cluster_decode(&d, bytes_make(frame.p, frame.n - cut), &back);
    cluster_decoder_deinit(&d);
    buf_deinit(&frame);
    buf_deinit(&change);
    return s;
}

static void damaged_frames_are_ignored(void **state)
{
    assert_int_equal(decode_changed(0, "52", 0), OK);
    assert_int_equal(decode_changed(8, "0002", 0), E_INVALID);  /* version */
    assert_int_equal(decode_changed(6, "0951", 0), E_INVALID);  /* length */
    assert_int_equal(decode_changed(0, "52", 1), E_INVALID);    /* truncated */
    assert_int_equal(decode_changed(14, "0002", 0), E_INVALID); /* more entries than bytes */
    assert_int_equal(decode_changed(14, "ffff", 0), E_INVALID);
    assert_int_equal(decode_changed(2253, "00", 0), E_INVALID);       /* extension bytes, yet no EXT_DATA */
    assert_int_equal(decode_changed(2214, "0002", 0), E_INVALID);     /* one extension too many */
    assert_int_equal(decode_changed(2214, "0000", 0), E_INVALID);     /* bytes left over */
    assert_int_equal(decode_changed(2360, "00000019", 0), E_INVALID); /* extension length not a multiple of 8 */
    assert_int_equal(decode_changed(2360, "00000000", 0), E_INVALID); /* would never end */
    assert_int_equal(decode_changed(2360, "00000020", 0), E_INVALID); /* beyond the frame */
    assert_int_equal(decode_changed(2360, "ffffffff", 0), E_INVALID);
    assert_int_equal(decode_changed(2364, "0007", 0), OK);           /* unknown extension: skipped */
    assert_int_equal(decode_changed(2168, "0a", 0), E_INVALID);      /* a line break in an address */
    assert_int_equal(decode_changed(2256 + 48, "20", 0), E_INVALID); /* a space in gossip's address */
}

static void unknown_types_keep_their_header(void **state)
{
    struct cluster_message m = base_message(CLUSTER_AUTH_ACK), back;
    struct cluster_decoder d = {0};
    struct buf frame = {0};
    m.current_epoch = 77;
    cluster_encode(&m, &frame);
    frame.p[13] = 33;
    assert_int_equal(cluster_decode(&d, buf_bytes(&frame), &back), OK);
    assert_int_equal(back.type, 33);
    assert_true(back.current_epoch == 77);
    buf_deinit(&frame);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(v1_meet),
        cmocka_unit_test(v2_ping_with_gossip_and_hostname),
        cmocka_unit_test(ping_with_a_shard),
        cmocka_unit_test(v3_pong_of_a_replica),
        cmocka_unit_test(v4_fail),
        cmocka_unit_test(v5_publish),
        cmocka_unit_test(a_head_and_its_body_are_one_frame),
        cmocka_unit_test(v6_update),
        cmocka_unit_test(v7_auth_request),
        cmocka_unit_test(module_frames_pass_through),
        cmocka_unit_test(absurd_frames_are_refused_at_once),
        cmocka_unit_test(damaged_frames_are_ignored),
        cmocka_unit_test(unknown_types_keep_their_header),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
