/* stream_group.c: consumer groups of a stream, their consumers, and who has been given what. */
#include "store/stream.h"

#include "base/mem.h"

/* Sorts names as memcmp does: the first eight bytes, the rest by the key itself. */
static uint64_t name_ord(struct bytes name)
{
    uint64_t ord = 0;
    for (size_t i = 0; i < 8; i++) ord = ord << 8 | (i < name.n ? (unsigned char)name.p[i] : 0);
    return ord;
}

static bool name_find(const struct tree *t, struct bytes name, struct tree_pos *pos)
{
    return t && tree_find(t, name_ord(name), name, pos);
}

/* ---- groups -------------------------------------------------------------------------------------------------------*/

static void group_free(struct tree_ref *r)
{
    struct stream_group *g = (struct stream_group *)r;
    tree_deinit(&g->pending);
    tree_deinit(&g->consumers);
    mem_free(g);
}

static struct stream_group *group_new(struct stream_id last_id, int64_t entries_read)
{
    struct stream_group *g = mem_alloc(sizeof *g);
    tree_ref_init(&g->ref, group_free);
    g->last_id = last_id;
    g->entries_read = entries_read;
    tree_init(&g->pending, TREE_PENDING);
    tree_init(&g->consumers, TREE_REFS);
    g->pending.uncounted = g->consumers.uncounted = true; /* small, and shared by COPY unnoticed */
    return g;
}

static struct tree_ref *group_clone(const struct tree_ref *r)
{
    const struct stream_group *g = (const struct stream_group *)r;
    struct stream_group *copy = group_new(g->last_id, g->entries_read);
    tree_fork(&g->pending, &copy->pending);
    tree_fork(&g->consumers, &copy->consumers);
    return &copy->ref;
}

size_t stream_group_count(const struct stream *s)
{
    return s->groups ? s->groups->count : 0;
}

const struct stream_group *stream_group_find(const struct stream *s, struct bytes name)
{
    struct tree_pos pos;
    return name_find(s->groups, name, &pos) ? (const struct stream_group *)tree_ref_at(&pos) : NULL;
}

struct stream_group *stream_group_edit(struct stream *s, struct bytes name)
{
    struct tree_pos pos;
    if (!name_find(s->groups, name, &pos)) return NULL;
    return (struct stream_group *)tree_ref_own(s->groups, &pos, group_clone);
}

struct stream_group *stream_group_create(struct stream *s, struct bytes name, struct stream_id last_id,
                                         int64_t entries_read)
{
    struct stream_group *g = group_new(last_id, entries_read);
    if (!s->groups) s->groups = tree_new(TREE_REFS);
    s->groups->uncounted = true;
    if (tree_ref_insert(s->groups, name_ord(name), name, &g->ref)) return g;
    tree_ref_drop(&g->ref);
    return NULL;
}

bool stream_group_destroy(struct stream *s, struct bytes name)
{
    struct tree_pos pos;
    if (!name_find(s->groups, name, &pos)) return false;
    tree_remove_pos(s->groups, &pos);
    if (s->groups->count == 0) {
        tree_free(s->groups);
        s->groups = NULL;
    }
    return true;
}

const struct stream_group *stream_group_at(const struct stream *s, const struct tree_pos *pos, struct bytes *name)
{
    struct tree_item item;
    if (name) {
        tree_item(s->groups, pos, &item);
        *name = item.key;
    }
    return (const struct stream_group *)tree_ref_at(pos);
}

/* ---- consumers ----------------------------------------------------------------------------------------------------*/

static void consumer_free(struct tree_ref *r)
{
    struct stream_consumer *c = (struct stream_consumer *)r;
    tree_deinit(&c->pending);
    tree_box_unref(c->name);
    mem_free(c);
}

/* Takes a reference to name. */
static struct stream_consumer *consumer_new(struct tree_box *name)
{
    struct stream_consumer *c = mem_alloc(sizeof *c);
    tree_ref_init(&c->ref, consumer_free);
    c->name = name;
    c->seen_ms = 0;
    c->active_ms = -1;
    tree_init(&c->pending, TREE_ZSCORE);
    c->pending.uncounted = true;
    return c;
}

static struct tree_ref *consumer_clone(const struct tree_ref *r)
{
    const struct stream_consumer *c = (const struct stream_consumer *)r;
    struct stream_consumer *copy = consumer_new(tree_box_ref(c->name));
    copy->seen_ms = c->seen_ms;
    copy->active_ms = c->active_ms;
    tree_fork(&c->pending, &copy->pending);
    return &copy->ref;
}

const struct stream_consumer *stream_consumer_find(const struct stream_group *g, struct bytes name)
{
    struct tree_pos pos;
    return name_find(&g->consumers, name, &pos) ? stream_consumer_at(g, &pos) : NULL;
}

struct stream_consumer *stream_consumer_edit(struct stream_group *g, struct bytes name)
{
    struct tree_pos pos;
    if (!name_find(&g->consumers, name, &pos)) return NULL;
    return (struct stream_consumer *)tree_ref_own(&g->consumers, &pos, consumer_clone);
}

struct stream_consumer *stream_consumer_create(struct stream_group *g, struct bytes name, int64_t now_ms)
{
    struct tree_box *box = tree_box_try_new(name, (struct bytes){NULL, 0});
    if (!box) return NULL;
    struct stream_consumer *c = consumer_new(box);
    c->seen_ms = now_ms;
    if (tree_ref_insert(&g->consumers, name_ord(name), name, &c->ref)) return c;
    tree_ref_drop(&c->ref);
    return NULL;
}

const struct stream_consumer *stream_consumer_at(const struct stream_group *g, const struct tree_pos *pos)
{
    (void)g;
    return (const struct stream_consumer *)tree_ref_at(pos);
}

bool stream_consumer_delete(struct stream_group *g, struct bytes name, uint64_t *pending)
{
    struct tree_pos pos, at;
    if (!name_find(&g->consumers, name, &pos)) return false;
    const struct stream_consumer *c = stream_consumer_at(g, &pos);
    *pending = c->pending.count;
    if (tree_at(&c->pending, 0, &at)) {
        do {
            struct tree_item item;
            tree_item(&c->pending, &at, &item);
            tree_remove(&g->pending, item.ord, item.key);
        } while (tree_next(&at));
    }
    tree_remove_pos(&g->consumers, &pos);
    return true;
}

/* ---- pending entries ----------------------------------------------------------------------------------------------*/

static bool pending_pos(const struct tree *t, struct stream_id id, struct tree_pos *pos)
{
    struct stream_id_key key = stream_id_key(id);
    return tree_find(t, id.ms, bytes_make(key.b, sizeof key.b), pos);
}

void stream_pending_at(const struct stream_group *g, const struct tree_pos *pos, struct stream_pending *out)
{
    struct tree_item item;
    tree_item(&g->pending, pos, &item);
    memcpy(out, item.value.p, sizeof *out);
}

bool stream_pending_find(const struct stream_group *g, struct stream_id id, struct stream_pending *out)
{
    struct tree_pos pos;
    if (!pending_pos(&g->pending, id, &pos)) return false;
    if (out) stream_pending_at(g, &pos, out);
    return true;
}

static void consumer_lose(struct stream_group *g, const struct tree_box *name, struct stream_id id)
{
    struct stream_id_key key = stream_id_key(id);
    struct stream_consumer *c = stream_consumer_edit(g, tree_box_key(name));
    assert(c);
    tree_remove(&c->pending, id.ms, bytes_make(key.b, sizeof key.b));
}

static void consumer_gain(struct stream_consumer *c, struct stream_id id)
{
    struct stream_id_key key = stream_id_key(id);
    bool added;
    enum status st = tree_put(&c->pending, id.ms, bytes_make(key.b, sizeof key.b), (struct bytes){NULL, 0}, &added);
    assert(st == OK && added); /* the key is short */
    (void)st;
}

void stream_pending_put(struct stream_group *g, struct stream_id id, struct stream_consumer *c, int64_t delivered_ms,
                        uint64_t count)
{
    struct tree_pos pos;
    struct stream_pending entry = {delivered_ms, count, c->name}, old;
    struct bytes value = bytes_make(&entry, sizeof entry);
    if (pending_pos(&g->pending, id, &pos)) {
        stream_pending_at(g, &pos, &old);
        tree_set_value(&g->pending, &pos, value);
        if (old.consumer == c->name) return;
        consumer_lose(g, old.consumer, id);
    } else {
        struct stream_id_key key = stream_id_key(id);
        enum status st = tree_put(&g->pending, id.ms, bytes_make(key.b, sizeof key.b), value, NULL);
        assert(st == OK); /* the key is short */
        (void)st;
    }
    consumer_gain(c, id);
}

bool stream_pending_remove(struct stream_group *g, struct stream_id id)
{
    struct tree_pos pos;
    struct stream_pending old;
    if (!pending_pos(&g->pending, id, &pos)) return false;
    stream_pending_at(g, &pos, &old);
    tree_remove_pos(&g->pending, &pos);
    consumer_lose(g, old.consumer, id);
    return true;
}

bool stream_pending_seek(const struct tree *pending, struct stream_id id, struct tree_pos *pos)
{
    struct stream_id_key key = stream_id_key(id);
    return tree_lower_bound(pending, id.ms, bytes_make(key.b, sizeof key.b), pos);
}

struct stream_id stream_pending_id(const struct tree *pending, const struct tree_pos *pos)
{
    struct tree_item item;
    tree_item(pending, pos, &item);
    struct stream_id id = {item.ord, 0};
    for (int i = 0; i < 8; i++) id.seq = id.seq << 8 | (unsigned char)item.key.p[i];
    return id;
}
