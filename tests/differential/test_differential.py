"""The differential test: random command sequences to redis-server 7.0.15 and to Covey, every reply compared.

What it does
    grammar.py makes sequences of commands, valid and erroneous, over a small pool of keys; runner.py pipelines
    each to both servers and compares every reply, then the type, encoding, expiry, value and DUMP of every key,
    and loads each server's DUMPs into the other.  Standalone and cluster mode, RESP2 and RESP3.

How to run it
    ./run test                                    the seeded share, about a minute and a half
    COVEY_TEST_LONG=1 ./run test                  the full count
    COVEY_TEST_SEED=7 pytest tests/differential   other sequences (the seed is printed with a failure)
    COVEY_BIN=/usr/bin/redis-server pytest ...    Redis against itself: must find nothing
    DIFFERENTIAL_EXAMPLES=50 pytest ...           sequences for each of the four combinations

How to replay a failure
    A failing sequence is shrunk and printed as lines for redis-cli, and kept in a file.
        python3 tests/differential/replay.py FILE [--cluster]
    starts both servers, runs the lines on both and says where they differ.  By hand: paste the lines into
    `redis-cli -p PORT`; "# connection 1" means a second redis-cli, "# sleep 12 ms" a pause.
"""

import os

import pytest

import grammar
from runner import Coverage, Runner
from scope import GROUPS, LEFT_OUT, SCOPE
from sequences import base_seed, long_run, search
from servers import ORACLE, SUBJECT, Server

EXAMPLES_MIN = 280  # what the minimums below are made for
EXAMPLES = int(os.environ.get("DIFFERENTIAL_EXAMPLES", 0)) or (20000 if long_run() else EXAMPLES_MIN)
# Calls of each command that a full run must have made: valid ones, and ones answered with an error.
VALID_MIN, ERROR_MIN = 30, 5
NO_VALID_CALL = {"OBJECT|FREQ"}  # needs an LFU policy; without one a call can only fail or find no key
NO_ERROR = {"COMMAND|INFO", "COMMAND|DOCS"}  # take any arguments

ENCODINGS = [b"string/int", b"string/embstr", b"string/raw", b"list/quicklist", b"hash/listpack", b"hash/hashtable",
             b"set/intset", b"set/hashtable", b"zset/listpack", b"zset/skiplist"]  # fmt: skip

COVERAGE = Coverage()
RUNS = [(cluster, resp) for cluster in (False, True) for resp in (2, 3)]
FINISHED = set()


@pytest.fixture(scope="module", params=[False, True], ids=["standalone", "cluster"])
def servers(request):
    oracle = Server(ORACLE, cluster=request.param)
    try:
        subject = Server(SUBJECT, cluster=request.param)
    except BaseException:
        oracle.stop()
        raise
    yield oracle, subject
    oracle.stop()
    subject.stop()


def test_every_command_in_scope_has_a_generator():
    assert set(grammar.TABLE) == set(SCOPE) | grammar.IN_FAMILIES


def test_every_data_command_of_the_oracle_is_in_scope_or_left_out():
    oracle = Server(ORACLE)
    try:
        conn = oracle.connect()
        version = conn.call("INFO", "server")[1]
        assert b"redis_version:7.0." in version, "the oracle is to be Redis 7.0: %r" % version[:80]
        categories = {"sorted-set": "sortedset", "generic": "keyspace"}
        bits = {name[1] for name in conn.call("COMMAND", "LIST", "FILTERBY", "ACLCAT", "bitmap")[1]}
        known = {name.split("|")[0] for name in SCOPE} | set(LEFT_OUT) | grammar.IN_FAMILIES
        for group in GROUPS:
            category = categories.get(group, group)
            listed = conn.call("COMMAND", "LIST", "FILTERBY", "ACLCAT", category)[1]
            names = {name[1].decode().upper() for name in listed if name[1] not in bits}
            internal = {name for name in names if "-" in name or "|" in name}  # RESTORE-ASKING and subcommands
            assert names - internal <= known, sorted(names - internal - known)
    finally:
        oracle.stop()


@pytest.mark.parametrize("resp", [2, 3])
def test_sequences(servers, resp):
    oracle, subject = servers
    runner = Runner(oracle, subject, resp, COVERAGE)
    seed = base_seed() * 100 + RUNS.index((oracle.cluster, resp))
    try:
        search(runner, seed, EXAMPLES)
    finally:
        runner.close()
    FINISHED.add((oracle.cluster, resp))


def test_coverage(capsys):
    """Last: every command was really exercised."""
    with capsys.disabled():
        print("\n" + COVERAGE.table(SCOPE))
    if FINISHED != set(RUNS) or EXAMPLES < EXAMPLES_MIN:
        # For runs of one combination or few sequences by hand; in ./run test a skip counts as a failure.
        pytest.skip("only judged when all four combinations ran to the end")
    poor = ["no key of %s was compared" % kind.decode() for kind in ENCODINGS if COVERAGE.encodings[kind] < VALID_MIN]
    for name in sorted(SCOPE - grammar.IN_FAMILIES):
        row = COVERAGE.counts[name]
        if row["valid"] < VALID_MIN and name not in NO_VALID_CALL:
            poor.append("%s: %d valid calls, %d required" % (name, row["valid"], VALID_MIN))
        if row["failed"] + row["rejected"] < ERROR_MIN and name not in NO_ERROR:
            poor.append("%s: %d erroneous calls, %d required" % (name, row["failed"] + row["rejected"], ERROR_MIN))
    assert not poor, "\n".join(poor)
