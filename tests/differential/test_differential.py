"""The differential test: random command sequences to redis-server 7.0.15 and to Covey, every reply compared.

What it does
    grammar.py and the families (family_*.py) make sequences of commands, valid and erroneous, over a small pool of
    keys; arguments.py makes calls of every command from the description of its arguments.  runner.py pipelines each
    sequence to both servers and compares every reply, then the type, encoding, expiry, value and DUMP of every key,
    and loads each server's DUMPs into the other.  Standalone and cluster mode, RESP2 and RESP3.

    Every command of COMMAND LIST is called at least so often (scope.py), validly and erroneously, in each of these four
    combinations, or is exempt there for a reason; what the sequences call too seldom gets calls of its own at the end,
    chosen by what is still missing.  What changes the conversation itself (subscriptions, tracking, protocols) is in
    test_dialogue.py.

How to run it
    ./run test                                    the seeded share, about a minute and a half
    ./run test long differential                  the full count; it goes on after a difference
    COVEY_TEST_SEED=7 pytest tests/differential   other sequences (the seed is printed with a failure)
    COVEY_BIN=build-thread/covey pytest -m sanitizer ...   the share that runs on the sanitizer builds, too
    COVEY_BIN=/usr/bin/redis-server pytest ...    Redis against itself: must find nothing
    DIFFERENTIAL_EXAMPLES=50 pytest ...           sequences of all commands for each of the four combinations

How to replay a failure
    A failing sequence is shrunk and printed as lines for redis-cli, and kept in a file.
        python3 tests/differential/replay.py FILE [--cluster]
    starts both servers, runs the lines on both and says where they differ.  By hand: paste the lines into
    `redis-cli -p PORT`; "# connection 1" means a second redis-cli, "# sleep 12 ms" a pause.
"""

import os

import pytest

import grammar
import scope
from registry import FAMILIES, TABLE
from runner import Coverage, Runner, total
from sequences import base_seed, how_many, long_run, search, top_up
from servers import both

FULL = 600
EXAMPLES = int(os.environ.get("DIFFERENTIAL_EXAMPLES", 0)) or how_many(FULL, 100)
FAMILY_SHARE = 8  # of these sequences, how many fewer each family gets
QUICK = 20  # the seeded share must make a twentieth of the calls of the full run, in its four combinations together
ROUNDS = 6000 if long_run() else 100

ENCODINGS = [b"string/int", b"string/embstr", b"string/raw", b"list/quicklist", b"hash/listpack", b"hash/hashtable",
             b"set/intset", b"set/hashtable", b"zset/listpack", b"zset/skiplist", b"stream/stream"]  # fmt: skip

RUNS = [(cluster, resp) for cluster in (False, True) for resp in (2, 3)]
COVERAGE = {run: Coverage() for run in RUNS}
VALID_MIN, ERROR_MIN = (n if long_run() else -(-n // (QUICK * len(RUNS))) for n in (scope.VALID_FULL, scope.ERROR_FULL))
KINDS = ["all", "described", *sorted(FAMILIES)]
FINISHED = set()


@pytest.fixture(scope="module", params=[False, True], ids=["standalone", "cluster"])
def servers(request):
    with both(cluster=request.param) as pair:
        grammar.learn(*pair)
        yield pair


def test_every_command_has_a_generator_or_an_exemption(servers):
    version = servers[0].connect().call("INFO", "server")[1]
    assert b"redis_version:7.0." in version, "the oracle is to be Redis 7.0: %r" % version[:80]
    theirs, ours = (grammar.command_list(server.connect()) for server in servers)
    assert theirs <= ours, "not listed by the subject: %s" % sorted(theirs - ours)
    assert ours - theirs <= set(scope.NEWER), "newer than the oracle: %s" % sorted(ours - theirs)
    known = set(scope.EXEMPT) | scope.DIALOGUE | set(TABLE)
    assert theirs <= known, "neither a generator nor a reason: %s" % sorted(theirs - known)
    gone = {name for name in known if " " not in name} - theirs - {"COMMAND"}  # which works alone, too
    assert not gone, "no such command: %s" % sorted(gone)


@pytest.mark.sanitizer
@pytest.mark.parametrize("resp", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_sequences(servers, kind, resp):
    oracle, subject = servers
    run = (oracle.cluster, resp)
    runner = Runner(oracle, subject, resp, COVERAGE[run])
    seed = base_seed() * 1000 + KINDS.index(kind) * len(RUNS) + RUNS.index(run)
    chosen = {"all": grammar.ANY, "described": grammar.general_chooser()}.get(kind) or grammar.family_chooser(kind)
    try:
        search(runner, seed, EXAMPLES if kind == "all" else max(1, EXAMPLES // FAMILY_SHARE), chosen=chosen)
    finally:
        runner.close()
    FINISHED.add((run, kind))


def judged():
    return sorted(name for name in set(TABLE) - set(scope.EXEMPT) if " " not in name)


def run_name(run):
    return "%s, RESP%d" % ("cluster" if run[0] else "standalone", run[1])


def made(run):
    """Two dictionaries, {command: calls}, valid and erroneous, of the commands that one combination is to call so."""
    refused = scope.ONLY_STANDALONE if run[0] else scope.ONLY_CLUSTER
    rejected = scope.ONLY_REJECTED | (scope.ONLY_REJECTED_IN_CLUSTER if run[0] else set())
    counts = COVERAGE[run].counts
    valid = {name: counts[name]["valid"] for name in judged() if name not in scope.NO_VALID and name not in refused}
    wrong = {name: counts[name]["failed"] + (counts[name]["rejected"] if name in rejected else 0)
             for name in judged() if name not in scope.NO_ERROR}  # fmt: skip
    return valid, wrong


def lacking(run):
    """Two sets: the commands that one combination has called too seldom, validly and erroneously."""
    valid, wrong = made(run)
    return {name for name, n in valid.items() if n < VALID_MIN}, {name for name, n in wrong.items() if n < ERROR_MIN}


def least(run):
    """A line for one combination: the command with the fewest valid calls and the one with the fewest erroneous ones."""
    valid, wrong = (min(calls.items(), key=lambda item: item[1]) for calls in made(run))
    return "%s: %d commands to each server; fewest valid calls: %s %d; fewest erroneous calls: %s %d" % (
        run_name(run), COVERAGE[run].commands, *valid, *wrong)  # fmt: skip


@pytest.mark.parametrize("resp", [2, 3])
def test_rare_commands(servers, resp):
    """What is still missing of this combination's calls."""
    run = (servers[0].cluster, resp)
    runner = Runner(*servers, resp, COVERAGE[run])
    try:
        top_up(runner, base_seed() * 1000 + 900 + RUNS.index(run), lambda: lacking(run), ROUNDS)
    finally:
        runner.close()


def test_coverage(capsys):
    """Last: every command was really exercised."""
    with capsys.disabled():
        print("\n" + total(COVERAGE.values()).table(judged()))
        print("\n".join(map(least, RUNS)))
    if FINISHED != {(run, kind) for run in RUNS for kind in KINDS}:
        pytest.skip("only judged when everything ran to the end")  # by hand; in ./run test a skip counts as a failure
    poor = ["%s: no key of %s was compared" % (run_name(run), kind.decode())
            for run in RUNS for kind in ENCODINGS if COVERAGE[run].encodings[kind] < ERROR_MIN]  # fmt: skip
    poor += ["%s: %s: fewer than %d %s calls" % (run_name(run), name, need, how) for run in RUNS
             for names, need, how in zip(lacking(run), (VALID_MIN, ERROR_MIN), ("valid", "erroneous")) for name in sorted(names)]  # fmt: skip
    assert not poor, "\n".join(poor)
