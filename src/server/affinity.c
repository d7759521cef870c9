#include "server/affinity.h"

#include "base/log.h"
#include "base/mem.h"
#include "server/config_table.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

/* A number below CPU_SETSIZE at *p, with blanks around it; -1: there is none. */
static int take_number(const char **p, const char *end)
{
    int n = -1;
    while (*p < end && isblank((unsigned char)**p)) ++*p;
    while (*p < end && isdigit((unsigned char)**p)) {
        n = (n < 0 ? 0 : n) * 10 + (**p - '0');
        if (n >= CPU_SETSIZE) return -1;
        ++*p;
    }
    while (*p < end && isblank((unsigned char)**p)) ++*p;
    return n;
}

static bool take_char(const char **p, const char *end, char c)
{
    bool yes = *p < end && **p == c;
    if (yes) ++*p;
    return yes;
}

bool affinity_parse(struct bytes list, cpu_set_t *out)
{
    const char *p = list.p, *end = list.p + list.n;
    CPU_ZERO(out);
    do {
        int first = take_number(&p, end), last = first, step = 1;
        if (take_char(&p, end, '-')) {
            last = take_number(&p, end);
            if (take_char(&p, end, ':')) step = take_number(&p, end);
        }
        if (first < 0 || last < first || step < 1) return false;
        for (int i = first; i <= last; i += step) CPU_SET((unsigned)i, out);
    } while (take_char(&p, end, ','));
    return p == end;
}

void affinity_take(const struct config *cfg, enum config_id option)
{
    cpu_set_t set;
    char *list = config_cstr(cfg, option);
    if (*list) {
        const char *why = NULL;
        if (!affinity_parse(bytes_of(list), &set))
            why = "it is no list of processors";
        else if (sched_setaffinity(0, sizeof set, &set))
            why = strerror(errno);
        if (why) log_warning("The processors '%s' of %s are not used: %s", list, option_row(option)->name, why);
    }
    mem_free(list);
}

void affinity_parent_begin(const struct node *n, cpu_set_t *own)
{
    if (sched_getaffinity(0, sizeof *own, own)) CPU_ZERO(own);
    if (config_text_is_empty(n->config, CFG_BIO_CPULIST) && CPU_COUNT(&n->processors))
        (void)sched_setaffinity(0, sizeof n->processors, &n->processors); /* it was allowed before */
    else
        affinity_take(n->config, CFG_BIO_CPULIST);
}

void affinity_parent_end(const cpu_set_t *own)
{
    if (CPU_COUNT(own)) (void)sched_setaffinity(0, sizeof *own, own);
}

void affinity_init(struct node *n)
{
    if (sched_getaffinity(0, sizeof n->processors, &n->processors)) CPU_ZERO(&n->processors);
    affinity_take(n->config, CFG_SERVER_CPULIST);
}
