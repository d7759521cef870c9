/* Values that arrive as bytes (RESTORE, RDB files): whatever is accepted must be a sound value. */
#include "store/hash.h"
#include "store/listtype.h"
#include "store/set.h"
#include "store/stream.h"
#include "store/ziplist.h"
#include "store/zset.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct store_limits limits = {.hash_max_listpack_entries = 8,
                                           .hash_max_listpack_value = 16,
                                           .zset_max_listpack_entries = 8,
                                           .zset_max_listpack_value = 16,
                                           .set_max_intset_entries = 8,
                                           .list_max_listpack_size = 4};

static void use_hash(struct entry *e)
{
    struct hash_iter it;
    struct element field, value;
    uint64_t n = 0;
    for (hash_iter_init(&it, e); hash_iter_next(&it, &field, &value); n++)
        if (!hash_has(e, field.text)) abort();
    if (n != hash_len(e) || n == 0) abort();
    if (hash_set(e, BYTES("new"), BYTES("1"), &limits, NULL) != OK || !hash_del(e, BYTES("new"))) abort();
}

static void use_zset(struct entry *e)
{
    struct zset_iter it;
    struct element member;
    double score;
    uint64_t rank, n = 0;
    for (zset_iter_init(&it, e, 0, false); zset_iter_next(&it, &member, &score); n++)
        if (!zset_rank(e, member.text, false, &rank, NULL) || rank != n) abort();
    if (n != zset_len(e) || n == 0) abort();
    if (zset_add(e, 1, BYTES("new"), &limits, NULL) != OK || !zset_remove(e, BYTES("new"))) abort();
}

static void use_set(struct entry *e)
{
    struct set_iter it;
    struct element member;
    uint64_t n = 0;
    for (set_iter_init(&it, e); set_iter_next(&it, &member); n++)
        if (!set_has(e, member.text)) abort();
    if (n != set_len(e) || n == 0) abort();
}

static void use_list(struct bytes blob)
{
    struct entry *e = list_new(BYTES("k"));
    struct list_iter it;
    struct element el;
    uint64_t n = 0;
    if (list_append_listpack(e, blob, &limits) == OK) {
        for (list_iter_init(&it, e, 0, false); list_iter_next(&it, &el, NULL);) n++;
        if (n != list_len(e)) abort();
        if (n && list_insert(e, (int64_t)(n / 2), true, BYTES("new"), &limits) != OK) abort();
        list_delete(e, n / 2, 3);
    }
    entry_free(e);
}

/* One node, walked both ways, then taken apart. */
static void use_stream(struct bytes blob)
{
    struct stream *s = stream_new();
    struct stream_id id = {5, 5};
    struct element field, value;
    size_t fields, n = 0;
    if (stream_add_node(s, id, blob) == OK) {
        s->last_id = STREAM_ID_MAX;
        for (int reverse = 0; reverse < 2; reverse++) {
            struct stream_iter it;
            for (stream_iter_init(&it, s, STREAM_ID_MIN, STREAM_ID_MAX, reverse); stream_iter_next(&it, &id, &fields);
                 n++)
                while (fields--) stream_iter_field(&it, &field, &value);
        }
        if (n != 2 * s->length) abort();
        if (stream_last(s, &id) != (n > 0) || stream_has(s, id) != (n > 0)) abort();
        struct bytes pair[] = {BYTES("f"), BYTES("v")};
        s->last_id = id;
        if (stream_id_next(&id) && stream_append(s, id, pair, 1, &limits) != OK) abort();
        stream_trim(s, &(struct stream_trim){.max_length = s->length / 2});
        while (stream_first(s, &id))
            if (!stream_delete(s, id)) abort();
        if (s->length || s->nodes) abort();
    }
    stream_free(s);
}

static void walk_legacy(struct bytes blob)
{
    struct ziplist_iter zl;
    struct zipmap_iter zm;
    struct element el;
    struct bytes field, value;
    uint64_t sum = 0;
    enum status s = ziplist_iter_init(&zl, blob);
    while (s == OK && (s = ziplist_iter_next(&zl, &el)) == OK)
        for (size_t i = 0; i < el.text.n; i++) sum += (uint8_t)el.text.p[i];
    s = zipmap_iter_init(&zm, blob);
    while (s == OK && (s = zipmap_iter_next(&zm, &field, &value)) == OK)
        for (size_t i = 0; i < value.n; i++) sum += (uint8_t)value.p[i];
    if (sum == 1 && blob.n == 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct entry *e;
    if (size == 0) return 0;
    /* A block of its own, so that a read behind it is seen. */
    char *copy = malloc(size > 1 ? size - 1 : 1);
    struct bytes blob = bytes_make(size > 1 ? memcpy(copy, data + 1, size - 1) : copy, size - 1);
    switch (data[0] % 6) {
    case 0:
        if (hash_from_listpack(BYTES("k"), blob, &limits, &e) == OK) {
            use_hash(e);
            entry_free(e);
        }
        break;
    case 1:
        if (zset_from_listpack(BYTES("k"), blob, &limits, &e) == OK) {
            use_zset(e);
            entry_free(e);
        }
        break;
    case 2:
        if (set_from_intset(BYTES("k"), blob, &limits, &e) == OK) {
            use_set(e);
            entry_free(e);
        }
        break;
    case 3: use_list(blob); break;
    case 4: use_stream(blob); break;
    default: walk_legacy(blob);
    }
    free(copy);
    return 0;
}
