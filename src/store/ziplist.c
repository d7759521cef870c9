#include "store/ziplist.h"

#include "base/number.h"

enum { ZIPLIST_HEADER = 10, ZIPLIST_END = 0xff, ZIPLIST_COUNT_UNKNOWN = 65535, LONG_LENGTH = 254 };

static const uint8_t *raw(struct bytes blob)
{
    return (const uint8_t *)blob.p;
}

static uint64_t load_le(const uint8_t *p, unsigned width)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < width; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

enum status ziplist_iter_init(struct ziplist_iter *it, struct bytes blob)
{
    *it = (struct ziplist_iter){.blob = blob, .at = ZIPLIST_HEADER};
    if (blob.n < ZIPLIST_HEADER + 1 || load_le(raw(blob), 4) != blob.n) return E_CORRUPT;
    if (raw(blob)[blob.n - 1] != ZIPLIST_END || load_le(raw(blob) + 4, 4) >= blob.n) return E_CORRUPT;
    return OK;
}

/* The end mark has been reached: do count and tail offset of the header agree? */
static enum status finish(const struct ziplist_iter *it)
{
    uint64_t count = load_le(raw(it->blob) + 8, 2), tail = load_le(raw(it->blob) + 4, 4);
    if (it->at != it->blob.n - 1 || tail != it->at - it->before) return E_CORRUPT;
    return count == ZIPLIST_COUNT_UNKNOWN || count == it->seen ? E_NOT_FOUND : E_CORRUPT;
}

/* Reads the length of a text at p; returns the bytes it takes, 0 when p does not hold a text's encoding. */
static size_t text_length(const uint8_t *p, size_t room, size_t *n)
{
    switch (p[0] >> 6) {
    case 0: *n = p[0]; return 1;
    case 1:
        if (room < 2) return 0;
        *n = (size_t)(p[0] & 63) << 8 | p[1];
        return 2;
    case 2:
        if (room < 5 || p[0] != 0x80) return 0;
        *n = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
        return 5;
    default: return 0;
    }
}

/* Reads an integer at p; returns the bytes it takes, 0 when there is none. */
static size_t integer(const uint8_t *p, size_t room, int64_t *out)
{
    unsigned width;
    switch (p[0]) {
    case 0xc0: width = 2; break;
    case 0xd0: width = 4; break;
    case 0xe0: width = 8; break;
    case 0xf0: width = 3; break;
    case 0xfe: width = 1; break;
    default:
        if (p[0] < 0xf1 || p[0] > 0xfd) return 0;
        *out = p[0] - 0xf1;
        return 1;
    }
    if (room < 1 + width) return 0;
    unsigned unused = 64 - 8 * width;
    *out = (int64_t)(load_le(p + 1, width) << unused) >> unused;
    return 1 + width;
}

/* Size of the field with the length of the entry before, which must agree; 0: it is broken. */
static size_t before_size(const struct ziplist_iter *it, size_t room)
{
    const uint8_t *p = raw(it->blob) + it->at;
    if (p[0] < LONG_LENGTH) return p[0] == it->before ? 1 : 0;
    return room >= 5 && load_le(p + 1, 4) == it->before ? 5 : 0;
}

enum status ziplist_iter_next(struct ziplist_iter *it, struct element *out)
{
    size_t end = it->blob.n - 1, room = end - it->at, n = 0;
    const uint8_t *p = raw(it->blob) + it->at;
    int64_t v = 0;
    if (p[0] == ZIPLIST_END) return finish(it);
    size_t head = before_size(it, room);
    if (head == 0 || head >= room) return E_CORRUPT;
    p += head;
    room -= head;
    size_t size = p[0] < 0xc0 ? text_length(p, room, &n) : integer(p, room, &v);
    if (size == 0 || n > room - size) return E_CORRUPT;
    out->text = p[0] < 0xc0 ? bytes_make(p + size, n) : bytes_make(out->digits, format_i64(out->digits, v));
    it->before = head + size + n;
    it->at += it->before;
    it->seen++;
    return OK;
}

enum status zipmap_iter_init(struct zipmap_iter *it, struct bytes blob)
{
    *it = (struct zipmap_iter){.blob = blob, .at = 1};
    return blob.n >= 2 && raw(blob)[blob.n - 1] == ZIPLIST_END ? OK : E_CORRUPT;
}

/* Reads a length and, behind `gap` bytes, that many bytes of text. */
static bool zipmap_text(struct zipmap_iter *it, size_t gap, struct bytes *out)
{
    const uint8_t *p = raw(it->blob) + it->at;
    size_t room = it->blob.n - 1 - it->at, head = 1, n;
    if (room < 1) return false;
    n = p[0];
    if (n == LONG_LENGTH) {
        if (room < 5) return false;
        n = load_le(p + 1, 4);
        head = 5;
    }
    if (p[0] > LONG_LENGTH || head + gap > room || n > room - head - gap) return false;
    size_t unused = gap ? p[head] : 0;
    if (unused > room - head - gap - n) return false;
    *out = bytes_make(p + head + gap, n);
    it->at += head + gap + n + unused;
    return true;
}

enum status zipmap_iter_next(struct zipmap_iter *it, struct bytes *field, struct bytes *value)
{
    uint8_t count = raw(it->blob)[0];
    if (raw(it->blob)[it->at] == ZIPLIST_END) {
        bool agrees = count >= LONG_LENGTH || count == it->seen;
        return it->at == it->blob.n - 1 && agrees ? E_NOT_FOUND : E_CORRUPT;
    }
    if (!zipmap_text(it, 0, field) || !zipmap_text(it, 1, value)) return E_CORRUPT;
    it->seen++;
    return OK;
}
