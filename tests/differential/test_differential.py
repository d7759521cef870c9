"""The differential test: random command sequences to redis-server 7.0.15 and to Covey, every reply compared.

What it does
    grammar.py and the families (family_*.py) make sequences of commands, valid and erroneous, over a small pool of
    keys; arguments.py makes calls of every command from the description of its arguments.  runner.py pipelines each
    sequence to both servers and compares every reply, then the type, encoding, expiry, value and DUMP of every key,
    and loads each server's DUMPs into the other.  Standalone and cluster mode, RESP2 and RESP3.

    Every command of COMMAND LIST is called at least so often (scope.py), validly and erroneously, or is exempt there
    for a reason; what the sequences call too seldom gets calls of its own at the end.  What changes the conversation
    itself (subscriptions, tracking, protocols) is in test_dialogue.py.

How to run it
    ./run test                                    the seeded share, about a minute and a half
    COVEY_TEST_LONG=1 ./run test                  the full count
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
from runner import Coverage, Runner
from sequences import base_seed, how_many, long_run, search, top_up
from servers import both

FULL = 20000
EXAMPLES = int(os.environ.get("DIFFERENTIAL_EXAMPLES", 0)) or how_many(FULL, 100)
FAMILY_SHARE = 8  # of these sequences, how many fewer each family gets
QUICK = 20  # the seeded share must make a twentieth of the calls of the full run
VALID_MIN, ERROR_MIN = (n if long_run() else n // QUICK for n in (scope.VALID_FULL, scope.ERROR_FULL))
ROUNDS = 2000 if long_run() else 100

ENCODINGS = [b"string/int", b"string/embstr", b"string/raw", b"list/quicklist", b"hash/listpack", b"hash/hashtable",
             b"set/intset", b"set/hashtable", b"zset/listpack", b"zset/skiplist", b"stream/stream"]  # fmt: skip

COVERAGE = Coverage()
RUNS = [(cluster, resp) for cluster in (False, True) for resp in (2, 3)]
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
    runner = Runner(oracle, subject, resp, COVERAGE)
    run = (oracle.cluster, resp)
    seed = base_seed() * 1000 + KINDS.index(kind) * len(RUNS) + RUNS.index(run)
    chosen = {"all": grammar.ANY, "described": grammar.general_chooser()}.get(kind) or grammar.family_chooser(kind)
    try:
        search(runner, seed, EXAMPLES if kind == "all" else max(1, EXAMPLES // FAMILY_SHARE), chosen=chosen)
    finally:
        runner.close()
    FINISHED.add((run, kind))


def lacking(share=1, elsewhere=()):
    """{command: what is missing} of the calls that were to be made, without the commands to be called elsewhere."""
    poor = {}
    for name in sorted(set(TABLE) - set(scope.EXEMPT) - set(elsewhere)):
        row = COVERAGE.counts[name]
        if " " in name:
            continue
        errors = row["failed"] + (row["rejected"] if name in scope.ONLY_REJECTED else 0)
        if row["valid"] < VALID_MIN * share and name not in scope.NO_VALID:
            poor[name] = "%d valid calls, %d required" % (row["valid"], VALID_MIN * share)
        elif errors < ERROR_MIN * share and name not in scope.NO_ERROR:
            poor[name] = "%d erroneous calls, %d required" % (errors, ERROR_MIN * share)
    return poor


@pytest.mark.parametrize("resp", [2, 3])
def test_rare_commands(servers, resp):
    """Each of the four combinations makes its part of what is missing."""
    run = (servers[0].cluster, resp)
    share = (RUNS.index(run) + 1) / len(RUNS)
    elsewhere = scope.ONLY_STANDALONE if run[0] else scope.ONLY_CLUSTER
    own = (scope.ONLY_CLUSTER if run[0] else scope.ONLY_STANDALONE) & set(TABLE)

    def missing():
        return {**lacking(share, elsewhere), **{name: why for name, why in lacking().items() if name in own}}

    runner = Runner(*servers, resp, COVERAGE)
    try:
        top_up(runner, base_seed() * 1000 + 900 + RUNS.index(run), missing, ROUNDS)
    finally:
        runner.close()


def test_coverage(capsys):
    """Last: every command was really exercised."""
    with capsys.disabled():
        print("\n" + COVERAGE.table(name for name in TABLE if name not in scope.EXEMPT))
    if FINISHED != {(run, kind) for run in RUNS for kind in KINDS}:
        pytest.skip("only judged when everything ran to the end")  # by hand; in ./run test a skip counts as a failure
    poor = ["no key of %s was compared" % kind.decode() for kind in ENCODINGS if COVERAGE.encodings[kind] < ERROR_MIN]
    poor += ["%s: %s" % item for item in lacking().items()]
    assert not poor, "\n".join(poor)
