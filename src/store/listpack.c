#include "store/listpack.h"

#include "base/endian.h"
#include "base/mem.h"
#include "base/number.h"

#include <assert.h>

enum { LP_END = 0xff };

/* An element in front of its backward length, as found by reading its encoding. */
struct shape {
    size_t head;  /* bytes of encoding in front of the data */
    size_t data;  /* bytes of data */
    bool is_text; /* else an integer */
};

static unsigned header_count(const uint8_t *lp)
{
    return (unsigned)(lp[4] | lp[5] << 8);
}

static void header_set(uint8_t *lp, size_t bytes, size_t count)
{
    store_le32(lp, (uint32_t)bytes);
    if (count > LP_COUNT_UNKNOWN) count = LP_COUNT_UNKNOWN;
    lp[4] = (uint8_t)count;
    lp[5] = (uint8_t)(count >> 8);
}

/* Reads the encoding at p, of which `room` bytes may be looked at. */
static bool shape_read(const uint8_t *p, size_t room, struct shape *s)
{
    if (room == 0) return false;
    uint8_t b = p[0];
    *s = (struct shape){.head = 1};
    if (b < 0x80) return true;
    if (b < 0xc0) {
        s->data = b & 0x3f;
        s->is_text = true;
        return true;
    }
    if (b < 0xe0) {
        s->data = 1;
        return true;
    }
    if (b < 0xf0) {
        if (room < 2) return false;
        *s = (struct shape){.head = 2, .data = (size_t)(b & 15) << 8 | p[1], .is_text = true};
        return true;
    }
    if (b == 0xf0) {
        if (room < 5) return false;
        *s = (struct shape){.head = 5, .data = load_le32(p + 1), .is_text = true};
        return true;
    }
    static const uint8_t widths[] = {2, 3, 4, 8};
    if (b > 0xf4) return false;
    s->data = widths[b - 0xf1];
    return true;
}

static struct shape shape_of(const uint8_t *p)
{
    struct shape s;
    bool ok = shape_read(p, 5, &s);
    assert(ok);
    (void)ok;
    return s;
}

static size_t back_size(size_t n)
{
    return n <= 127 ? 1 : n < 16383 ? 2 : n < 2097151 ? 3 : n < 268435455 ? 4 : 5;
}

static size_t back_write(uint8_t *p, size_t n)
{
    size_t size = back_size(n);
    for (size_t i = size; i-- > 0;) {
        p[i] = (uint8_t)((n & 127) | (i ? 128 : 0));
        n >>= 7;
    }
    return size;
}

/* Reads the backward length whose last byte is *p; valid listpacks only. */
static size_t back_read(const uint8_t *p)
{
    size_t n = 0;
    for (unsigned shift = 0; shift < 35; shift += 7, p--) {
        n |= (size_t)(*p & 127) << shift;
        if (!(*p & 128)) break;
    }
    return n;
}

static size_t element_size(const uint8_t *p)
{
    struct shape s = shape_of(p);
    return s.head + s.data + back_size(s.head + s.data);
}

uint8_t *lp_new(void)
{
    uint8_t *lp = mem_alloc(LP_HEADER + 1);
    header_set(lp, LP_HEADER + 1, 0);
    lp[LP_HEADER] = LP_END;
    return lp;
}

uint8_t *lp_try_copy(struct bytes blob)
{
    uint8_t *lp = mem_try_alloc(blob.n);
    return lp ? memcpy(lp, blob.p, blob.n) : NULL;
}

size_t lp_bytes(const uint8_t *lp)
{
    return load_le32(lp);
}

size_t lp_count(const uint8_t *lp)
{
    unsigned known = header_count(lp);
    if (known != LP_COUNT_UNKNOWN) return known;
    size_t n = 0;
    for (const uint8_t *at = lp_first(lp); at; at = lp_next(lp, at)) n++;
    return n;
}

bool lp_has_room(const uint8_t *lp, size_t more)
{
    return lp_bytes(lp) + more <= LP_BYTES_MAX;
}

const uint8_t *lp_first(const uint8_t *lp)
{
    return lp[LP_HEADER] == LP_END ? NULL : lp + LP_HEADER;
}

const uint8_t *lp_last(const uint8_t *lp)
{
    return lp_prev(lp, lp + lp_bytes(lp) - 1);
}

const uint8_t *lp_next(const uint8_t *lp, const uint8_t *at)
{
    at += element_size(at);
    assert(at < lp + lp_bytes(lp));
    return *at == LP_END ? NULL : at;
}

const uint8_t *lp_prev(const uint8_t *lp, const uint8_t *at)
{
    if (at == lp + LP_HEADER) return NULL;
    size_t n = back_read(at - 1);
    return at - n - back_size(n);
}

const uint8_t *lp_seek(const uint8_t *lp, int64_t index)
{
    unsigned known = header_count(lp);
    if (known != LP_COUNT_UNKNOWN) {
        if (index >= (int64_t)known || index < -(int64_t)known) return NULL;
        if (index >= 0 && index > known / 2)
            index -= known;
        else if (index < 0 && -index > known / 2)
            index += known;
    }
    const uint8_t *at = index < 0 ? lp_last(lp) : lp_first(lp);
    if (index < 0)
        while (at && ++index < 0) at = lp_prev(lp, at);
    else
        while (at && index-- > 0) at = lp_next(lp, at);
    return at;
}

bool lp_get_int(const uint8_t *at, int64_t *out)
{
    uint8_t b = at[0];
    if (b < 0x80) {
        *out = b;
        return true;
    }
    if (b < 0xc0 || (b >= 0xe0 && b <= 0xf0)) return false;
    if (b < 0xe0) {
        int v = (b & 31) << 8 | at[1];
        *out = v >= 4096 ? v - 8192 : v;
        return true;
    }
    unsigned width = (unsigned)shape_of(at).data;
    assert(width > 0);
    uint64_t v = 0;
    for (unsigned i = 0; i < width; i++) v |= (uint64_t)at[1 + i] << (8 * i);
    unsigned unused = 64 - 8 * width;
    *out = (int64_t)(v << unused) >> unused;
    return true;
}

void lp_get(const uint8_t *at, struct element *out)
{
    int64_t v;
    if (lp_get_int(at, &v)) {
        out->text = bytes_make(out->digits, format_i64(out->digits, v));
        return;
    }
    struct shape s = shape_of(at);
    out->text = bytes_make(at + s.head, s.data);
}

size_t lp_text_len(const uint8_t *at)
{
    struct shape s = shape_of(at);
    if (s.is_text) return s.data;
    struct element el;
    lp_get(at, &el);
    return el.text.n;
}

struct lp_needle lp_needle(struct bytes text)
{
    struct lp_needle needle = {.text = text};
    needle.is_int = parse_i64(text, &needle.number);
    return needle;
}

bool lp_equal(const uint8_t *at, const struct lp_needle *needle)
{
    int64_t v;
    struct shape s = shape_of(at);
    if (s.is_text) return bytes_eq(bytes_make(at + s.head, s.data), needle->text);
    return needle->is_int && lp_get_int(at, &v) && v == needle->number;
}

const uint8_t *lp_find(const uint8_t *lp, const uint8_t *at, struct bytes text, size_t skip)
{
    struct lp_needle needle = lp_needle(text);
    while (at) {
        if (lp_equal(at, &needle)) return at;
        for (size_t i = 0; at && i <= skip; i++) at = lp_next(lp, at);
    }
    return NULL;
}

/* Size of an integer's encoding and data. */
static size_t int_size(int64_t v)
{
    if (v >= 0 && v <= 127) return 1;
    if (v >= -4096 && v <= 4095) return 2;
    if (v >= INT16_MIN && v <= INT16_MAX) return 3;
    if (v >= -8388608 && v <= 8388607) return 4;
    return v >= INT32_MIN && v <= INT32_MAX ? 5 : 9;
}

static void int_write(uint8_t *p, int64_t v)
{
    size_t size = int_size(v);
    if (size == 1) {
        p[0] = (uint8_t)v;
    } else if (size == 2) {
        p[0] = (uint8_t)(0xc0 | ((v >> 8) & 31));
        p[1] = (uint8_t)v;
    } else {
        p[0] = (uint8_t)(size == 9 ? 0xf4 : 0xf1 + size - 3);
        for (size_t i = 1; i < size; i++) p[i] = (uint8_t)((uint64_t)v >> (8 * (i - 1)));
    }
}

static size_t text_head(size_t n)
{
    return n < 64 ? 1 : n < 4096 ? 2 : 5;
}

static void text_write(uint8_t *p, struct bytes text)
{
    size_t n = text.n, head = text_head(n);
    if (head == 1) {
        p[0] = (uint8_t)(0x80 | n);
    } else if (head == 2) {
        p[0] = (uint8_t)(0xe0 | n >> 8);
        p[1] = (uint8_t)n;
    } else {
        p[0] = 0xf0;
        store_le32(p + 1, (uint32_t)n);
    }
    if (n) memcpy(p + head, text.p, n);
}

size_t lp_element_bytes(struct bytes text)
{
    int64_t v;
    size_t n = parse_i64(text, &v) ? int_size(v) : text_head(text.n) + text.n;
    return n + back_size(n);
}

static uint8_t *element_write(uint8_t *p, struct bytes text)
{
    int64_t v;
    size_t n;
    if (parse_i64(text, &v)) {
        n = int_size(v);
        int_write(p, v);
    } else {
        n = text_head(text.n) + text.n;
        text_write(p, text);
    }
    p += n;
    return p + back_write(p, n);
}

bool lp_splice(uint8_t **lp, const uint8_t *at, size_t removed, const struct bytes *texts, size_t n)
{
    uint8_t *block = *lp;
    size_t bytes = lp_bytes(block), added = 0;
    for (size_t i = 0; i < n; i++) {
        if (texts[i].n > LP_BYTES_MAX) return false;
        added += lp_element_bytes(texts[i]);
    }
    size_t from = at ? (size_t)(at - block) : bytes - 1, to = from;
    for (size_t i = 0; i < removed; i++) to += element_size(block + to);
    size_t after = bytes - (to - from) + added;
    if (added && after > LP_BYTES_MAX) return false;
    unsigned known = header_count(block);
    if (after > bytes) {
        block = mem_try_realloc(block, after);
        if (!block) return false;
    }
    memmove(block + from + added, block + to, bytes - to);
    uint8_t *p = block + from;
    for (size_t i = 0; i < n; i++) p = element_write(p, texts[i]);
    if (after < bytes) {
        uint8_t *smaller = mem_try_realloc(block, after);
        if (smaller) block = smaller;
    }
    header_set(block, after, known == LP_COUNT_UNKNOWN ? known : known + n - removed);
    *lp = block;
    return true;
}

bool lp_append_needles(uint8_t **lp, const struct lp_needle *elements, size_t n)
{
    uint8_t *block = *lp;
    size_t bytes = lp_bytes(block), added = 0;
    for (size_t i = 0; i < n; i++) {
        if (!elements[i].is_int && elements[i].text.n > LP_BYTES_MAX) return false;
        size_t size =
            elements[i].is_int ? int_size(elements[i].number) : text_head(elements[i].text.n) + elements[i].text.n;
        added += size + back_size(size);
    }
    if (bytes + added > LP_BYTES_MAX) return false;
    block = mem_try_realloc(block, bytes + added);
    if (!block) return false;
    uint8_t *p = block + bytes - 1;
    for (size_t i = 0; i < n; i++) {
        size_t size;
        if (elements[i].is_int) {
            size = int_size(elements[i].number);
            int_write(p, elements[i].number);
        } else {
            size = text_head(elements[i].text.n) + elements[i].text.n;
            text_write(p, elements[i].text);
        }
        p += size;
        p += back_write(p, size);
    }
    *p = LP_END;
    unsigned known = header_count(block);
    header_set(block, bytes + added, known == LP_COUNT_UNKNOWN ? known : known + n);
    *lp = block;
    return true;
}

void lp_set_int(uint8_t **lp, const uint8_t **at, int64_t v)
{
    struct shape s = shape_of(*at);
    size_t offset = (size_t)(*at - *lp);
    if (!s.is_text && s.head + s.data == int_size(v)) {
        int_write(*lp + offset, v);
        return;
    }
    char digits[24];
    mem_must_begin();
    bool done = lp_replace(lp, *at, bytes_make(digits, format_i64(digits, v)));
    mem_must_end();
    if (!done) mem_abort(lp_bytes(*lp));
    *at = *lp + offset;
}

bool lp_append(uint8_t **lp, struct bytes text)
{
    return lp_splice(lp, NULL, 0, &text, 1);
}

bool lp_prepend(uint8_t **lp, struct bytes text)
{
    return lp_splice(lp, *lp + LP_HEADER, 0, &text, 1);
}

bool lp_replace(uint8_t **lp, const uint8_t *at, struct bytes text)
{
    return lp_splice(lp, at, 1, &text, 1);
}

void lp_delete(uint8_t **lp, const uint8_t *at, size_t count)
{
    bool ok = lp_splice(lp, at, count, NULL, 0);
    assert(ok);
    (void)ok;
}

bool lp_is_valid(struct bytes blob, size_t *count)
{
    const uint8_t *lp = (const uint8_t *)blob.p;
    if (blob.n < LP_HEADER + 1 || lp_bytes(lp) != blob.n) return false;
    size_t at = LP_HEADER, end = blob.n - 1, n = 0;
    while (at < end) {
        struct shape s;
        if (!shape_read(lp + at, end - at, &s) || s.head + s.data > end - at) return false;
        size_t size = s.head + s.data, back = back_size(size);
        uint8_t expected[5];
        if (back > end - at - size) return false;
        back_write(expected, size);
        if (memcmp(expected, lp + at + size, back) != 0) return false;
        at += size + back;
        n++;
    }
    if (lp[end] != LP_END) return false;
    if (header_count(lp) != LP_COUNT_UNKNOWN && header_count(lp) != n) return false;
    if (count) *count = n;
    return true;
}
