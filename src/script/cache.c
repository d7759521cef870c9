/* cache.c: the scripts of EVAL and SCRIPT LOAD by their SHA-1, for all VMs. */
#include "base/hash.h"
#include "base/mem.h"
#include "base/sha1.h"
#include "script/script.h"

#include <pthread.h>

enum { BUCKETS_MIN = 64 };

struct script_cache {
    pthread_mutex_t mu; /* a leaf: nothing is taken under it */
    struct script_body **buckets;
    size_t bucket_count, count, memory;
    _Atomic uint64_t generation;
};

void script_sha1_hex(struct bytes text, char out[SCRIPT_SHA_LENGTH])
{
    uint8_t sum[SHA1_SIZE];
    sha1(text, sum);
    for (int i = 0; i < SCRIPT_SHA_LENGTH; i++) out[i] = "0123456789abcdef"[sum[i / 2] >> (i % 2 ? 0 : 4) & 15];
}

struct script_cache *script_cache_create(void)
{
    struct script_cache *c = mem_calloc(1, sizeof *c);
    pthread_mutex_init(&c->mu, NULL);
    c->bucket_count = BUCKETS_MIN;
    c->buckets = mem_calloc(c->bucket_count, sizeof *c->buckets);
    return c;
}

static size_t footprint(const struct script_body *b)
{
    return sizeof *b + b->text.n;
}

void script_cache_flush(struct script_cache *c)
{
    pthread_mutex_lock(&c->mu);
    for (size_t i = 0; i < c->bucket_count; i++) {
        for (struct script_body *b = c->buckets[i], *next; b; b = next) {
            next = b->next;
            mem_free(b);
        }
        c->buckets[i] = NULL;
    }
    c->count = c->memory = 0;
    atomic_fetch_add(&c->generation, 1);
    pthread_mutex_unlock(&c->mu);
}

void script_cache_destroy(struct script_cache *c)
{
    script_cache_flush(c);
    pthread_mutex_destroy(&c->mu);
    mem_free(c->buckets);
    mem_free(c);
}

static size_t bucket_of(const struct script_cache *c, const char *sha)
{
    return hash_bytes(bytes_make(sha, SCRIPT_SHA_LENGTH)) & (c->bucket_count - 1);
}

static struct script_body *find(struct script_cache *c, const char *sha)
{
    struct script_body *b = c->buckets[bucket_of(c, sha)];
    while (b && memcmp(b->sha, sha, SCRIPT_SHA_LENGTH) != 0) b = b->next;
    return b;
}

struct script_body *script_cache_find(struct script_cache *c, const char sha[SCRIPT_SHA_LENGTH])
{
    pthread_mutex_lock(&c->mu);
    struct script_body *b = find(c, sha);
    pthread_mutex_unlock(&c->mu);
    return b;
}

static void grow(struct script_cache *c)
{
    struct script_body **old = c->buckets;
    size_t n = c->bucket_count;
    c->bucket_count *= 2;
    c->buckets = mem_calloc(c->bucket_count, sizeof *c->buckets);
    for (size_t i = 0; i < n; i++) {
        for (struct script_body *b = old[i], *next; b; b = next) {
            next = b->next;
            size_t at = bucket_of(c, b->sha);
            b->next = c->buckets[at];
            c->buckets[at] = b;
        }
    }
    mem_free(old);
}

/* ---- the first line: "#!lua flags=a,b" ---- */

static bool next_word(struct bytes *line, struct bytes *word)
{
    while (line->n && line->p[0] == ' ') *line = bytes_make(line->p + 1, line->n - 1);
    size_t n = 0;
    while (n < line->n && line->p[n] != ' ') n++;
    *word = bytes_make(line->p, n);
    *line = bytes_make(line->p + n, line->n - n);
    return n > 0;
}

static bool parse_flags(struct bytes list, unsigned *flags, struct buf *error)
{
    while (list.n) {
        const char *comma = memchr(list.p, ',', list.n);
        size_t n = comma ? (size_t)(comma - list.p) : list.n;
        struct bytes name = bytes_make(list.p, n);
        unsigned flag = script_flag_find(name);
        bool last = !comma || n + 1 == list.n;
        if (!flag) {
            buf_printf(error, "ERR Unexpected flag in script shebang: %.*s", (int)name.n, name.p);
            return false;
        }
        *flags |= flag;
        if (comma && last) {
            buf_printf(error, "ERR Unexpected flag in script shebang: ");
            return false;
        }
        list = last ? bytes_make(NULL, 0) : bytes_make(comma + 1, list.n - n - 1);
    }
    return true;
}

/* Quotes around a word, or a part of it, do not belong to it. */
static void unquote(struct buf *out, struct bytes word)
{
    for (size_t i = 0; i < word.n; i++)
        if (word.p[i] != '"' && word.p[i] != '\'') buf_append_char(out, word.p[i]);
}

static bool parse_option(struct bytes word, unsigned *flags, struct buf *error)
{
    struct buf plain = {0};
    unquote(&plain, word);
    struct bytes option = buf_bytes(&plain);
    bool ok = option.n >= 6 && memcmp(option.p, "flags=", 6) == 0;
    if (ok)
        ok = parse_flags(bytes_make(option.p + 6, option.n - 6), flags, error);
    else
        buf_printf(error, "ERR Unknown lua shebang option: %.*s", (int)option.n, option.n ? option.p : "");
    buf_deinit(&plain);
    return ok;
}

static bool parse_shebang(struct script_body *b, struct buf *error)
{
    if (b->text.n < 2 || memcmp(b->text.p, "#!", 2) != 0) return true;
    const char *end = memchr(b->text.p, '\n', b->text.n);
    if (!end) {
        buf_append_cstr(error, "ERR Invalid script shebang");
        return false;
    }
    struct bytes line = bytes_make(b->text.p, (size_t)(end - b->text.p)), word;
    if (line.n && line.p[line.n - 1] == '\r') line.n--;
    next_word(&line, &word);
    if (!bytes_eq(word, BYTES("#!lua"))) {
        buf_printf(error, "ERR Unexpected engine in script shebang: %.*s", (int)word.n, word.p);
        return false;
    }
    b->flags = SCRIPT_HAS_SHEBANG;
    while (next_word(&line, &word))
        if (!parse_option(word, &b->flags, error)) return false;
    b->code = bytes_make(end, b->text.n - (size_t)(end - b->text.p));
    return true;
}

/* Commands that only run with the server at rest: a script that names one begins so, because it cannot get there once
 * it has written. */
static bool names_rest_command(struct bytes text)
{
    static const char *const words[] = {"flushall", "flushdb", "swapdb"};
    for (size_t i = 0; i + 6 <= text.n; i++) {
        char c = (char)(text.p[i] | 0x20);
        if (c != 'f' && c != 's') continue;
        for (size_t w = 0; w < sizeof words / sizeof words[0]; w++) {
            size_t n = strlen(words[w]);
            if (i + n <= text.n && bytes_ieq(bytes_make(text.p + i, n), bytes_make(words[w], n))) return true;
        }
    }
    return false;
}

struct script_body *script_body_create(const char sha[SCRIPT_SHA_LENGTH], struct bytes text, struct buf *error)
{
    struct script_body *b = mem_try_alloc(sizeof *b + text.n);
    if (!b) {
        buf_append_cstr(error, "ERR not enough memory for the script");
        return NULL;
    }
    memset(b, 0, sizeof *b);
    memcpy(b->sha, sha, SCRIPT_SHA_LENGTH);
    if (text.n) memcpy(b + 1, text.p, text.n);
    b->text = b->code = bytes_make(b + 1, text.n);
    if (!parse_shebang(b, error)) {
        mem_free(b);
        return NULL;
    }
    if (names_rest_command(b->code)) atomic_store(&b->manners, MANNERS_REST);
    return b;
}

void script_body_free(struct script_body *b)
{
    mem_free(b);
}

struct script_body *script_cache_insert(struct script_cache *c, struct script_body *b)
{
    pthread_mutex_lock(&c->mu);
    struct script_body *there = find(c, b->sha);
    if (!there) {
        if (c->count >= c->bucket_count) grow(c);
        size_t at = bucket_of(c, b->sha);
        b->next = c->buckets[at];
        c->buckets[at] = b;
        c->count++;
        c->memory += footprint(b);
    }
    pthread_mutex_unlock(&c->mu);
    return there ? there : b;
}

uint64_t script_cache_generation(const struct script_cache *c)
{
    return atomic_load_explicit(&c->generation, memory_order_acquire);
}

size_t script_cache_count(struct script_cache *c)
{
    pthread_mutex_lock(&c->mu);
    size_t n = c->count;
    pthread_mutex_unlock(&c->mu);
    return n;
}

size_t script_cache_memory(struct script_cache *c)
{
    pthread_mutex_lock(&c->mu);
    size_t n = c->memory;
    pthread_mutex_unlock(&c->mu);
    return n;
}

/* ---- flags ---- */

static const char *const flag_names[] = {"no-writes", "allow-oom", "allow-stale", "no-cluster",
                                         "allow-cross-slot-keys"};

const char *script_flag_name(unsigned bit)
{
    return bit < sizeof flag_names / sizeof flag_names[0] ? flag_names[bit] : NULL;
}

unsigned script_flag_find(struct bytes name)
{
    for (unsigned i = 0; i < sizeof flag_names / sizeof flag_names[0]; i++)
        if (bytes_eq(name, bytes_of(flag_names[i]))) return 1u << i;
    return 0;
}
