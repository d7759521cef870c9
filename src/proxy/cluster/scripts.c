#include "proxy/cluster/scripts.h"

#include "base/mem.h"

#include <string.h>

void scripts_init(struct scripts *s)
{
    *s = (struct scripts){0};
    pthread_mutex_init(&s->mu, NULL);
    list_init(&s->used);
}

void scripts_deinit(struct scripts *s)
{
    scripts_flush(s);
    htable_deinit(&s->table);
    pthread_mutex_destroy(&s->mu);
}

void script_release(struct script *s)
{
    if (s && atomic_fetch_sub(&s->refs, 1) == 1) mem_free(s);
}

static uint64_t hash_of(const uint8_t sha[SHA1_SIZE])
{
    uint64_t h;
    memcpy(&h, sha, sizeof h);
    return h;
}

/* Under the mutex. */
static struct script *find(struct scripts *s, const uint8_t sha[SHA1_SIZE])
{
    uint64_t hash = hash_of(sha);
    if (!s->table.count) return NULL;
    for (struct hnode *it = htable_chain(&s->table, hash); it; it = it->next) {
        struct script *found = container_of(it, struct script, node);
        if (memcmp(found->sha, sha, SHA1_SIZE) == 0) return found;
    }
    return NULL;
}

static void touch(struct scripts *s, struct script *it)
{
    list_remove(&it->used);
    list_push_back(&s->used, &it->used);
}

static void drop(struct scripts *s, struct script *it)
{
    htable_remove(&s->table, &it->node);
    list_remove(&it->used);
    s->bytes -= it->n;
    atomic_fetch_add(&s->lost, 1);
    script_release(it);
}

static void drop_oldest(struct scripts *s)
{
    drop(s, container_of(s->used.next, struct script, used));
}

void scripts_note(struct scripts *s, struct bytes text, size_t most, size_t most_bytes, uint8_t sha[SHA1_SIZE])
{
    sha1(text, sha);
    struct script *made = NULL;
    bool fits = most > 0 && text.n <= most_bytes;
    if (fits && (made = mem_try_alloc(sizeof *made + text.n))) {
        *made = (struct script){.node.hash = hash_of(sha), .n = text.n};
        atomic_store(&made->refs, 1);
        memcpy(made->sha, sha, SHA1_SIZE);
        if (text.n) memcpy(made->text, text.p, text.n);
        list_init(&made->used);
    }
    pthread_mutex_lock(&s->mu);
    struct script *old = find(s, sha);
    if (old) touch(s, old);
    while (s->table.count && made && !old && (s->table.count >= most || s->bytes + text.n > most_bytes)) drop_oldest(s);
    if (made && !old) {
        htable_insert(&s->table, &made->node);
        list_push_back(&s->used, &made->used);
        s->bytes += made->n;
        made = NULL;
    }
    pthread_mutex_unlock(&s->mu);
    mem_free(made);
}

struct script *scripts_find(struct scripts *s, const uint8_t sha[SHA1_SIZE])
{
    pthread_mutex_lock(&s->mu);
    struct script *found = find(s, sha);
    if (found) {
        touch(s, found);
        atomic_fetch_add(&found->refs, 1);
    }
    pthread_mutex_unlock(&s->mu);
    return found;
}

void scripts_forget(struct scripts *s, struct bytes text)
{
    uint8_t sha[SHA1_SIZE];
    sha1(text, sha);
    pthread_mutex_lock(&s->mu);
    struct script *found = find(s, sha);
    if (found) drop(s, found);
    pthread_mutex_unlock(&s->mu);
}

void scripts_flush(struct scripts *s)
{
    pthread_mutex_lock(&s->mu);
    while (s->table.count) drop_oldest(s);
    atomic_fetch_add(&s->flushed, 1);
    pthread_mutex_unlock(&s->mu);
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool script_sha_parse(struct bytes name, uint8_t sha[SHA1_SIZE])
{
    if (name.n != 2 * SHA1_SIZE) return false;
    for (size_t i = 0; i < SHA1_SIZE; i++) {
        int high = digit_of(name.p[2 * i]), low = digit_of(name.p[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        sha[i] = (uint8_t)(high * 16 + low);
    }
    return true;
}
