#include "server/renames.h"

#include "base/hash.h"
#include "base/mem.h"
#include "server/node.h"

enum { NAME_MAX_BYTES = 255 };

struct renamed {
    uint64_t hash;
    const struct command *cmd; /* NULL: the name is gone */
    struct bytes name;         /* lower case, owned */
};

struct renames {
    struct renamed *slots; /* open addressing; name.p NULL: free */
    size_t slot_count, count;
    bool gone[CMD_ID_COUNT];
};

struct renames *renames_create(void)
{
    struct renames *r = mem_calloc(1, sizeof *r);
    r->slot_count = 16;
    r->slots = mem_calloc(r->slot_count, sizeof *r->slots);
    return r;
}

void renames_destroy(struct renames *r)
{
    if (!r) return;
    for (size_t i = 0; i < r->slot_count; i++) mem_free((char *)r->slots[i].name.p);
    mem_free(r->slots);
    mem_free(r);
}

/* The same for all spellings; the table is small, so a simple hash will do and no copy is needed. */
static uint64_t hash_name(struct bytes name)
{
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < name.n; i++) {
        unsigned char c = (unsigned char)name.p[i];
        h = (h ^ (c >= 'A' && c <= 'Z' ? c + 32u : c)) * 1099511628211u;
    }
    return h ^ h >> 29;
}

static struct renamed *slot_of(const struct renames *r, struct bytes name, uint64_t hash)
{
    size_t mask = r->slot_count - 1, i = hash & mask;
    while (r->slots[i].name.p && !(r->slots[i].hash == hash && bytes_ieq(r->slots[i].name, name))) i = (i + 1) & mask;
    return &r->slots[i];
}

static void grow(struct renames *r)
{
    struct renamed *old = r->slots;
    size_t n = r->slot_count;
    r->slot_count *= 2;
    r->slots = mem_calloc(r->slot_count, sizeof *r->slots);
    for (size_t i = 0; i < n; i++)
        if (old[i].name.p) *slot_of(r, old[i].name, old[i].hash) = old[i];
    mem_free(old);
}

static void put(struct renames *r, struct bytes name, const struct command *cmd)
{
    uint64_t hash = hash_name(name);
    if ((r->count + 1) * 2 > r->slot_count) grow(r);
    struct renamed *at = slot_of(r, name, hash);
    if (!at->name.p) {
        *at = (struct renamed){hash, cmd, {bytes_dup_cstr(name), name.n}};
        r->count++;
    }
    at->cmd = cmd;
}

const struct command *renames_find(const struct renames *r, struct bytes name)
{
    if (name.n > NAME_MAX_BYTES) return NULL;
    const struct renamed *at = slot_of(r, name, hash_name(name));
    if (at->name.p) return at->cmd;
    return name.n && memchr(name.p, '|', name.n) ? NULL : command_find(name);
}

const char *renames_add(struct renames *r, struct bytes from, struct bytes to)
{
    const struct command *cmd = renames_find(r, from);
    if (!cmd) return "No such command in rename-command";
    put(r, from, NULL);
    r->gone[cmd->id] = to.n == 0;
    if (to.n == 0) return NULL;
    if (to.n > NAME_MAX_BYTES || renames_find(r, to)) return "Target command name already exists";
    put(r, to, cmd);
    return NULL;
}

bool renames_has(const struct renames *r, const struct command *c)
{
    return !r->gone[c->id];
}

/* ---- of a node ---- */

const struct command *node_command_of_request(const struct node *n, const struct bytes *argv, size_t argc,
                                              const struct command **container)
{
    const struct renames *r = n->renames;
    if (!r) return command_of_request(argv, argc, container);
    if (container) *container = NULL;
    const struct command *c = renames_find(r, argv[0]);
    if (!c || argc < 2 || command_sub_count(c) == 0) return c;
    const struct command *sub = command_find_sub(c, argv[1]);
    if (!sub && container) *container = c;
    return sub;
}

const struct command *node_command_find(const struct node *n, struct bytes name)
{
    if (!n->renames) return command_find(name);
    const char *bar = name.n ? memchr(name.p, '|', name.n) : NULL;
    if (!bar) return renames_find(n->renames, name);
    size_t first = (size_t)(bar - name.p);
    const struct command *c = renames_find(n->renames, bytes_make(name.p, first));
    return c ? command_find_sub(c, bytes_make(bar + 1, name.n - first - 1)) : NULL;
}
