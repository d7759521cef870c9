#include "observe/errorstats.h"

#include "base/mem.h"

#include <pthread.h>

enum { CODES_MAX = 128, CODE_LENGTH_MAX = 32 };

struct errorstats {
    pthread_mutex_t mu; /* order: nothing is taken under it */
    size_t n;           /* all under mu */
    uint64_t total, others;
    struct {
        char code[CODE_LENGTH_MAX];
        uint64_t count;
    } codes[CODES_MAX];
};

struct errorstats *errorstats_create(void)
{
    struct errorstats *s = mem_calloc(1, sizeof *s);
    pthread_mutex_init(&s->mu, NULL);
    return s;
}

void errorstats_destroy(struct errorstats *s)
{
    pthread_mutex_destroy(&s->mu);
    mem_free(s);
}

static void code_of(struct bytes reply, char out[CODE_LENGTH_MAX])
{
    size_t n = 0;
    for (size_t i = 1; i < reply.n && reply.p[i] > ' ' && n < CODE_LENGTH_MAX - 1; i++) out[n++] = reply.p[i];
    out[n] = '\0';
}

/* Keeps the codes sorted; they are few, and a new one is rare. */
static void count_code(struct errorstats *s, const char *code)
{
    size_t at = 0;
    while (at < s->n && strcmp(s->codes[at].code, code) < 0) at++;
    if (at == s->n || strcmp(s->codes[at].code, code) != 0) {
        if (s->n == CODES_MAX) {
            s->others++;
            return;
        }
        memmove(&s->codes[at + 1], &s->codes[at], (s->n - at) * sizeof s->codes[0]);
        memset(&s->codes[at], 0, sizeof s->codes[at]);
        strcpy(s->codes[at].code, code);
        s->n++;
    }
    s->codes[at].count++;
}

void errorstats_note(struct errorstats *s, struct bytes reply)
{
    char code[CODE_LENGTH_MAX];
    code_of(reply, code);
    pthread_mutex_lock(&s->mu);
    s->total++;
    count_code(s, code);
    pthread_mutex_unlock(&s->mu);
}

void errorstats_info(struct errorstats *s, struct buf *out)
{
    pthread_mutex_lock(&s->mu);
    for (size_t i = 0; i < s->n; i++)
        buf_printf(out, "errorstat_%s:count=%llu\r\n", s->codes[i].code, (unsigned long long)s->codes[i].count);
    if (s->others) buf_printf(out, "errorstat_OTHERS:count=%llu\r\n", (unsigned long long)s->others);
    pthread_mutex_unlock(&s->mu);
}

void errorstats_each(struct errorstats *s, void (*each)(void *ctx, const char *code, uint64_t count), void *ctx)
{
    pthread_mutex_lock(&s->mu);
    for (size_t i = 0; i < s->n; i++) each(ctx, s->codes[i].code, s->codes[i].count);
    if (s->others) each(ctx, "OTHERS", s->others);
    pthread_mutex_unlock(&s->mu);
}

uint64_t errorstats_total(struct errorstats *s)
{
    pthread_mutex_lock(&s->mu);
    uint64_t total = s->total;
    pthread_mutex_unlock(&s->mu);
    return total;
}

void errorstats_reset(struct errorstats *s)
{
    pthread_mutex_lock(&s->mu);
    s->n = 0;
    s->total = s->others = 0;
    pthread_mutex_unlock(&s->mu);
}
