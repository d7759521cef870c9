/* main.c: runs seeds, adds up, complains.
 *
 *   sim [--seeds N] [--first S] [--nodes N] [--noloss] [--plant vote-twice|old-epoch|replica-serves|anybody-stands]
 *   sim --seed S [--trace] [--nodes N] [--plant ...]      one seed alone, the same way as in the run
 *
 * --plant makes every node break a rule (vote-twice, old-epoch: in the core; replica-serves: in the eyes of the
 * checks): a run that then ends with 0 shows that the checks are blind. */
#include "base/clock.h"
#include "base/mem.h"
#include "base/number.h"
#include "sim.h"

#include <stdlib.h>
#include <time.h>

struct options {
    uint64_t first, count;
    int nodes; /* 0: chosen by the seed */
    bool trace, single;
    enum cluster_plant plant;
    bool replicas_serve, noloss;
};

/* Mostly small clusters, because they make as many mistakes in a tenth of the time; some large ones. */
static int node_count(struct world *w)
{
    uint64_t r = random_below(&w->random, 100);
    if (r < 70) return (int)pick(w, 6, 9);
    if (r < 94) return (int)pick(w, 10, 18);
    return r < 98 ? (int)pick(w, 19, 35) : (int)pick(w, 36, 60);
}

static struct world *world_new(uint64_t seed, const struct options *o, struct totals *totals)
{
    struct world *w = mem_calloc(1, sizeof *w);
    w->seed = seed;
    random_seed(&w->random, seed);
    w->totals = totals;
    w->trace = o->trace;
    w->plant = o->plant;
    w->replicas_serve = o->replicas_serve;
    w->noloss = o->noloss;
    w->node_count = node_count(w);
    if (o->nodes) w->node_count = o->nodes;
    w->node_timeout_ms = pick(w, 1000, 2500);
    if (w->node_count > 18) w->node_timeout_ms = 3000;
    w->heal_at = pick(w, 78000, 84000);
    w->end = 121000;
    return w;
}

static bool run_seed(uint64_t seed, const struct options *o, struct totals *totals, uint64_t *digest)
{
    struct world *w = world_new(seed, o, totals);
    world_run(w);
    bool ok = !w->failed;
    if (!ok) {
        printf("seed %llu (%d nodes): %s\n", (unsigned long long)seed, w->node_count, w->failure);
        printf("  replay: sim --seed %llu --trace%s%s\n", (unsigned long long)seed, o->noloss ? " --noloss" : "",
               o->plant == CLUSTER_PLANT_VOTE_TWICE       ? " --plant vote-twice"
               : o->plant == CLUSTER_PLANT_OLD_EPOCH      ? " --plant old-epoch"
               : o->plant == CLUSTER_PLANT_ANYBODY_STANDS ? " --plant anybody-stands"
               : o->replicas_serve                        ? " --plant replica-serves"
                                                          : "");
    }
    *digest = *digest * 31 + w->digest;
    world_free(w);
    mem_free(w);
    return ok;
}

static unsigned long long ull(uint64_t v)
{
    return (unsigned long long)v;
}

static void print_totals(const struct totals *t)
{
    const uint64_t *n = t->notes;
    printf("  virtual time %.1f h, %llu steps, %llu messages, %.1f GB on the wire\n", (double)t->virtual_ms / 3.6e6,
           ull(t->steps), ull(t->messages), (double)t->bytes / 1e9);
    printf("  faults %llu: crashes %llu (disk lost %llu), partitions %llu, refusals %llu, freezes %llu, clock jumps "
           "%llu, slot moves "
           "%llu, joins %llu, forgotten %llu\n",
           ull(t->faults), ull(t->crashes), ull(t->disks_lost), ull(t->partitions), ull(t->refusals), ull(t->freezes),
           ull(t->clock_jumps), ull(t->slot_moves), ull(t->joins), ull(t->forgotten));
    printf("  elections won %llu (manual %llu, takeover %llu), expired %llu, votes %llu, denied %llu\n",
           ull(n[CLUSTER_NOTE_PROMOTED]), ull(t->manual_failovers), ull(t->takeovers),
           ull(n[CLUSTER_NOTE_ELECTION_EXPIRED]), ull(t->votes_cast), ull(n[CLUSTER_NOTE_VOTE_DENIED]));
    printf("  epoch collisions %llu, replica migrations %llu, healed minorities %llu, demotions %llu\n",
           ull(n[CLUSTER_NOTE_EPOCH_COLLISION]), ull(n[CLUSTER_NOTE_REPLICA_MIGRATED]),
           ull(n[CLUSTER_NOTE_MINORITY_HEALED]), ull(n[CLUSTER_NOTE_DEMOTED]));
    printf("  PFAIL %llu, FAIL %llu, cleared %llu, probations %llu, yielded %llu, muted %llu, repairs %llu\n",
           ull(n[CLUSTER_NOTE_PFAIL]), ull(n[CLUSTER_NOTE_FAIL]), ull(n[CLUSTER_NOTE_FAIL_CLEARED]),
           ull(n[CLUSTER_NOTE_PROBATION_BEGIN]), ull(n[CLUSTER_NOTE_YIELDING]), ull(n[CLUSTER_NOTE_MUTED]),
           ull(t->repairs));
}

/* A run in which one of these never happened has shown nothing about it. */
static bool enough_happened(const struct totals *t)
{
    const uint64_t *n = t->notes;
    const struct {
        const char *what;
        uint64_t count;
    } wanted[] = {{"election", n[CLUSTER_NOTE_PROMOTED] - t->manual_failovers - t->takeovers},
                  {"epoch collision", n[CLUSTER_NOTE_EPOCH_COLLISION]},
                  {"replica migration", n[CLUSTER_NOTE_REPLICA_MIGRATED]},
                  {"healed minority", n[CLUSTER_NOTE_MINORITY_HEALED]},
                  {"manual failover", t->manual_failovers},
                  {"yield of a primary restarted behind", n[CLUSTER_NOTE_YIELDING]}};
    bool ok = true;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        if (wanted[i].count) continue;
        printf("sim: no %s in any seed\n", wanted[i].what);
        ok = false;
    }
    return ok;
}

static int usage(void)
{
    fprintf(stderr, "usage: sim [--seeds N] [--first S] [--nodes 6..60] [--plant vote-twice|old-epoch|replica-serves]\n"
                    "       sim --seed S [--trace] [--nodes 6..60] [--plant vote-twice|old-epoch|replica-serves]\n");
    return 2;
}

static bool parse_option(struct options *o, const char *name, const char *value, int *used)
{
    uint64_t v = 0;
    *used = 2;
    if (strcmp(name, "--trace") == 0) {
        o->trace = true;
        *used = 1;
        return true;
    }
    if (strcmp(name, "--noloss") == 0) {
        o->noloss = true;
        *used = 1;
        return true;
    }
    if (!value) return false;
    if (strcmp(name, "--plant") == 0) {
        if (strcmp(value, "vote-twice") == 0) o->plant = CLUSTER_PLANT_VOTE_TWICE;
        if (strcmp(value, "old-epoch") == 0) o->plant = CLUSTER_PLANT_OLD_EPOCH;
        if (strcmp(value, "anybody-stands") == 0) o->plant = CLUSTER_PLANT_ANYBODY_STANDS;
        if (strcmp(value, "replica-serves") == 0) o->replicas_serve = true;
        return o->plant != CLUSTER_PLANT_NONE || o->replicas_serve;
    }
    if (!parse_u64(bytes_of(value), &v)) return false;
    if (strcmp(name, "--seeds") == 0) return o->count = v, true;
    if (strcmp(name, "--first") == 0) return o->first = v, true;
    if (strcmp(name, "--nodes") == 0) return o->nodes = (int)v, v >= 6 && v <= 60;
    if (strcmp(name, "--seed") != 0) return false;
    o->first = v;
    o->count = 1;
    return o->single = true;
}

int main(int argc, char **argv)
{
    struct options o = {.first = 1, .count = 1000};
    for (int i = 1, used; i < argc; i += used)
        if (!parse_option(&o, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &used)) return usage();
    struct totals totals = {0};
    uint64_t failed = 0, digest = 0;
    int64_t start = clock_mono_ms();
    for (uint64_t s = o.first; s < o.first + o.count; s++) {
        failed += !run_seed(s, &o, &totals, &digest);
        if (failed == 10) {
            printf("sim: stopped after 10 failures\n");
            break;
        }
        fflush(stdout);
    }
    printf("sim: %llu seeds, %llu failed, %.1f s (%.1f s of CPU), digest %016llx\n", ull(o.count), ull(failed),
           (double)(clock_mono_ms() - start) / 1000, (double)clock() / CLOCKS_PER_SEC, ull(digest));
    print_totals(&totals);
    bool ok = failed == 0 && (o.single || o.plant || o.noloss || enough_happened(&totals));
    if (o.noloss) {
        printf(
            "  one fault at a time: %llu bytes of log acknowledged, %llu successors checked, members excluded %llu\n",
            ull(totals.released), ull(totals.taken_over), ull(totals.notes[CLUSTER_NOTE_EXCLUDED]));
        ok &= totals.released && totals.taken_over;
    }
    return ok ? 0 : 1;
}
