/* users.c: the table of users. */
#include "acl/internal.h"

#include "base/hash.h"
#include "base/mem.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>

static_assert(offsetof(struct acl_user, is_free) == 0, "acl_user_is_free() reads the first member");
static_assert(FUTURE_BIT < COMMAND_WORDS * 64, "the bits do not fit");

enum { SLOTS_MIN = 16 };

/* ---- one user ---- */

struct acl_user *user_new(const struct acl *a, struct bytes name)
{
    struct acl_user *u = mem_calloc(1, sizeof *u);
    u->name = bytes_dup_cstr(name);
    u->name_n = name.n;
    u->name_hash = hash_bytes(name);
    u->selectors = mem_alloc(sizeof(struct acl_selector *));
    u->selectors[0] = selector_new(a);
    u->selector_count = 1;
    user_refresh(u);
    return u;
}

static void user_clear(struct acl_user *u)
{
    for (size_t i = 0; i < u->selector_count; i++) selector_free(u->selectors[i]);
    mem_free(u->selectors);
    texts_deinit(&u->passwords);
    mem_free(u->name);
}

void user_free(struct acl_user *u)
{
    user_clear(u);
    mem_free(u);
}

static struct acl_user *user_copy(const struct acl_user *u)
{
    struct acl_user *copy = mem_alloc(sizeof *copy);
    *copy = *u;
    copy->name = bytes_dup_cstr(acl_user_name(u));
    texts_copy(&copy->passwords, &u->passwords);
    copy->selectors = mem_alloc(u->selector_count * sizeof(struct acl_selector *));
    for (size_t i = 0; i < u->selector_count; i++) {
        struct acl_selector *s = copy->selectors[i] = mem_alloc(sizeof *s);
        *s = *u->selectors[i];
        texts_copy(&s->keys, &u->selectors[i]->keys);
        texts_copy(&s->channels, &u->selectors[i]->channels);
        texts_copy(&s->first_args, &u->selectors[i]->first_args);
    }
    return copy;
}

/* The user takes over the other one's inside; the other one is gone. */
static void user_become(struct acl_user *u, struct acl_user *other)
{
    user_clear(u);
    *u = *other;
    mem_free(other);
}

void user_refresh(struct acl_user *u)
{
    u->is_free = u->limits_keys = u->limits_channels = false;
    for (size_t i = 0; i < u->selector_count; i++) {
        const struct acl_selector *s = u->selectors[i];
        if (!s->all_keys) u->limits_keys = true;
        if (!s->all_channels) u->limits_channels = true;
        if (s->all_keys && s->all_channels && s->all_commands) u->is_free = true;
    }
}

struct bytes acl_user_name(const struct acl_user *u)
{
    return bytes_make(u->name, u->name_n);
}

bool acl_user_enabled(const struct acl_user *u)
{
    return u->enabled;
}

bool acl_user_nopass(const struct acl_user *u)
{
    return u->nopass;
}

bool acl_user_limits_keys(const struct acl_user *u)
{
    return u->limits_keys;
}

bool acl_user_limits_channels(const struct acl_user *u)
{
    return u->limits_channels;
}

bool acl_name_ok(struct bytes name)
{
    for (size_t i = 0; i < name.n; i++)
        if (isspace((unsigned char)name.p[i]) || name.p[i] == '\0') return false;
    return true;
}

/* ---- the table ---- */

static struct acl_user **slot_of(const struct acl *a, struct bytes name, uint64_t hash)
{
    size_t mask = a->slot_count - 1, i = hash & mask;
    while (a->slots[i] && !(a->slots[i]->name_hash == hash && bytes_eq(acl_user_name(a->slots[i]), name)))
        i = (i + 1) & mask;
    return &a->slots[i];
}

static void resize(struct acl *a, size_t slots)
{
    struct acl_user **old = a->slots;
    size_t n = a->slot_count;
    a->slots = mem_calloc(slots, sizeof(struct acl_user *));
    a->slot_count = slots;
    for (size_t i = 0; i < n; i++)
        if (old[i]) *slot_of(a, acl_user_name(old[i]), old[i]->name_hash) = old[i];
    mem_free(old);
}

static void insert(struct acl *a, struct acl_user *u)
{
    if ((a->count + 1) * 2 > a->slot_count) resize(a, a->slot_count * 2);
    *slot_of(a, acl_user_name(u), u->name_hash) = u;
    a->count++;
}

struct acl *acl_create(const struct acl_commands *commands)
{
    assert(commands->count <= ACL_COMMANDS_MAX && commands->category_count <= 32);
    struct acl *a = mem_calloc(1, sizeof *a);
    a->commands = commands;
    for (unsigned id = 0; id < commands->count; id++)
        for (unsigned i = 0; i < commands->category_count; i++)
            if (commands->rows[id].categories >> i & 1) a->categories[i][id / 64] |= 1ull << id % 64;
    for (unsigned id = 0; id < commands->count; id++)
        if (!commands->rows[id].newer) a->weighed[id / 64] |= 1ull << id % 64;
    resize(a, SLOTS_MIN);
    a->default_user = user_new(a, BYTES("default"));
    const char *const rules[] = {"+@all", "~*", "&*", "on", "nopass"};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (user_apply(a, a->default_user, bytes_of(rules[i])) != RULE_OK) mem_abort(0);
    user_refresh(a->default_user);
    insert(a, a->default_user);
    return a;
}

void acl_destroy(struct acl *a)
{
    for (size_t i = 0; i < a->slot_count; i++)
        if (a->slots[i]) user_free(a->slots[i]);
    mem_free(a->slots);
    mem_free(a);
}

struct acl *acl_copy(const struct acl *a)
{
    struct acl *copy = acl_create(a->commands);
    copy->all_channels_default = a->all_channels_default;
    for (size_t i = 0; i < a->slot_count; i++) {
        const struct acl_user *u = a->slots[i];
        if (!u) continue;
        if (u == a->default_user)
            user_become(copy->default_user, user_copy(u));
        else
            insert(copy, user_copy(u));
    }
    return copy;
}

void acl_set_all_channels_default(struct acl *a, bool all)
{
    a->all_channels_default = all;
}

struct acl_user *acl_default_user(const struct acl *a)
{
    return a->default_user;
}

struct acl_user *acl_find(const struct acl *a, struct bytes name)
{
    return *slot_of(a, name, hash_bytes(name));
}

size_t acl_count(const struct acl *a)
{
    return a->count;
}

static int by_name(const void *x, const void *y)
{
    return bytes_cmp(acl_user_name(*(const struct acl_user *const *)x),
                     acl_user_name(*(const struct acl_user *const *)y));
}

const struct acl_user **acl_sorted(const struct acl *a, size_t *n)
{
    const struct acl_user **all = mem_alloc((a->count + 1) * sizeof(struct acl_user *));
    *n = 0;
    for (size_t i = 0; i < a->slot_count; i++)
        if (a->slots[i]) all[(*n)++] = a->slots[i];
    qsort(all, *n, sizeof *all, by_name);
    return all;
}

void acl_delete(struct acl *a, struct acl_user *u)
{
    assert(u != a->default_user);
    size_t mask = a->slot_count - 1, hole = (size_t)(slot_of(a, acl_user_name(u), u->name_hash) - a->slots);
    a->slots[hole] = NULL;
    a->count--;
    /* What was pushed on by it moves back. */
    for (size_t i = (hole + 1) & mask; a->slots[i]; i = (i + 1) & mask) {
        struct acl_user *moved = a->slots[i];
        a->slots[i] = NULL;
        *slot_of(a, acl_user_name(moved), moved->name_hash) = moved;
    }
    user_free(u);
}

static void swap_insides(struct acl_user *a, struct acl_user *b)
{
    struct acl_user keep = *a;
    *a = *b;
    *b = keep;
}

void acl_exchange(struct acl *a, struct acl *b)
{
    struct acl keep = *a;
    *a = *b;
    *b = keep;
    /* Now each has the other's default user; the objects go back, with what stood in the other table. */
    struct acl_user *of_b = a->default_user, *of_a = b->default_user;
    struct acl_user **slot_a = slot_of(a, BYTES("default"), of_b->name_hash);
    struct acl_user **slot_b = slot_of(b, BYTES("default"), of_a->name_hash);
    *slot_a = a->default_user = of_a;
    *slot_b = b->default_user = of_b;
    swap_insides(of_a, of_b);
}

void acl_blank_default(struct acl *a)
{
    user_become(a->default_user, user_new(a, BYTES("default")));
}

void acl_set_default_password(struct acl *a, struct bytes password)
{
    struct buf rule = {0};
    struct acl_user *u = a->default_user;
    (void)user_apply(a, u, BYTES("resetpass"));
    buf_append_char(&rule, '>');
    buf_append_bytes(&rule, password);
    (void)user_apply(a, u, password.n ? buf_bytes(&rule) : BYTES("nopass"));
    buf_deinit(&rule);
}

const char *acl_set_user(struct acl *a, struct bytes name, const struct bytes *rules, size_t n, size_t *failed)
{
    struct acl_user *u = acl_find(a, name), *changed = u ? user_copy(u) : user_new(a, name);
    for (size_t i = 0; i < n; i++) {
        enum rule_error e = user_apply(a, changed, rules[i]);
        if (e == RULE_OK) continue;
        *failed = i;
        user_free(changed);
        return rule_error_text(e);
    }
    user_refresh(changed);
    if (u)
        user_become(u, changed);
    else
        insert(a, changed);
    return NULL;
}

void acl_try_rules(const struct acl *a, const struct bytes *rules, size_t n,
                   void (*failed)(void *ctx, size_t rule, const char *why, bool unknown_name), void *ctx)
{
    struct acl_user *u = user_new(a, BYTES(""));
    for (size_t i = 0; i < n; i++) {
        enum rule_error e = user_apply(a, u, rules[i]);
        if (e != RULE_OK) failed(ctx, i, rule_error_text(e), e == RULE_UNKNOWN);
    }
    user_free(u);
}

/* ---- arguments ---- */

struct bytes *acl_join_selectors(const struct bytes *rules, size_t n, size_t *joined, size_t *unmatched)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++) total += rules[i].n + 1;
    struct bytes *out = mem_alloc(n * sizeof *out + total + 1);
    char *p = (char *)(out + n), *open = NULL;
    assert(p);
    *joined = 0;
    for (size_t i = 0; i < n; i++) {
        struct bytes r = rules[i];
        bool closes = r.n && r.p[r.n - 1] == ')';
        if (r.n && r.p[0] == '(' && !closes) {
            open = p;
            *unmatched = i;
        } else if (open) {
            *p++ = ' ';
        }
        char *start = open ? open : p;
        if (r.n) memcpy(p, r.p, r.n);
        p += r.n;
        if (open && !closes) continue;
        open = NULL;
        out[(*joined)++] = bytes_make(start, (size_t)(p - start));
    }
    if (!open) return out;
    mem_free(out);
    return NULL;
}
