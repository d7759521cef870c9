#include "server/digest.h"

#include "base/sha1.h"
#include "store/hash.h"
#include "store/listtype.h"
#include "store/set.h"
#include "store/stream.h"
#include "store/zset.h"

#include <arpa/inet.h>
#include <stdio.h>

/* ---- values ---- */

void digest_xor(unsigned char digest[DIGEST_SIZE], struct bytes b)
{
    unsigned char sum[DIGEST_SIZE];
    sha1(b, sum);
    for (int i = 0; i < DIGEST_SIZE; i++) digest[i] ^= sum[i];
}

void digest_mix(unsigned char digest[DIGEST_SIZE], struct bytes b)
{
    unsigned char mixed[DIGEST_SIZE];
    digest_xor(digest, b);
    sha1(bytes_make(digest, DIGEST_SIZE), mixed);
    memcpy(digest, mixed, DIGEST_SIZE);
}

static void digest_list(const struct entry *e, unsigned char digest[DIGEST_SIZE])
{
    struct list_iter it;
    struct element el;
    list_iter_init(&it, e, 0, false);
    while (list_iter_next(&it, &el, NULL)) digest_mix(digest, el.text);
}

static void digest_set(const struct entry *e, unsigned char digest[DIGEST_SIZE])
{
    struct set_iter it;
    struct element el;
    set_iter_init(&it, e);
    while (set_iter_next(&it, &el)) digest_xor(digest, el.text);
}

static void digest_zset(const struct entry *e, unsigned char digest[DIGEST_SIZE])
{
    struct zset_iter it;
    struct element el;
    double score;
    zset_iter_init(&it, e, 0, false);
    while (zset_iter_next(&it, &el, &score)) {
        unsigned char one[DIGEST_SIZE] = {0};
        char text[128];
        int n = snprintf(text, sizeof text, "%.17g", score);
        digest_mix(one, el.text);
        digest_mix(one, bytes_make(text, (size_t)n));
        digest_xor(digest, bytes_make(one, DIGEST_SIZE));
    }
}

static void digest_hash(const struct entry *e, unsigned char digest[DIGEST_SIZE])
{
    struct hash_iter it;
    struct element field, value;
    hash_iter_init(&it, e);
    while (hash_iter_next(&it, &field, &value)) {
        unsigned char one[DIGEST_SIZE] = {0};
        digest_mix(one, field.text);
        digest_mix(one, value.text);
        digest_xor(digest, bytes_make(one, DIGEST_SIZE));
    }
}

static void digest_stream(const struct entry *e, unsigned char digest[DIGEST_SIZE])
{
    struct stream_iter it;
    struct stream_id id;
    struct element field, value;
    char text[48];
    size_t fields;
    stream_iter_init(&it, stream_of(e), STREAM_ID_MIN, STREAM_ID_MAX, false);
    while (stream_iter_next(&it, &id, &fields)) {
        int n = snprintf(text, sizeof text, "%llu.%llu", (unsigned long long)id.ms, (unsigned long long)id.seq);
        digest_mix(digest, bytes_make(text, (size_t)n));
        while (fields--) {
            stream_iter_field(&it, &field, &value);
            digest_mix(digest, field.text);
            digest_mix(digest, value.text);
        }
    }
}

void digest_entry(const struct entry *e, unsigned char digest[DIGEST_SIZE])
{
    char digits[24];
    uint32_t type = 0;
    switch (entry_type(e)) {
    case TYPE_STRING: type = 0; break;
    case TYPE_LIST: type = 1; break;
    case TYPE_SET: type = 2; break;
    case TYPE_ZSET: type = 3; break;
    case TYPE_HASH: type = 4; break;
    default: type = 6;
    }
    type = htonl(type);
    digest_mix(digest, bytes_make(&type, sizeof type));
    switch (entry_type(e)) {
    case TYPE_STRING: digest_mix(digest, entry_string(e, digits)); break;
    case TYPE_LIST: digest_list(e, digest); break;
    case TYPE_SET: digest_set(e, digest); break;
    case TYPE_ZSET: digest_zset(e, digest); break;
    case TYPE_HASH: digest_hash(e, digest); break;
    case TYPE_STREAM: digest_stream(e, digest); break;
    }
    if (entry_has_ttl(e)) digest_xor(digest, BYTES("!!expire!!"));
}
