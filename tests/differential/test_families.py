"""The differential test for families of commands: as test_differential.py, but sequences of few commands that work on
the same keys.  FAMILY_EXAMPLES=50: sequences for each family and protocol."""

import os

import pytest

import grammar
from registry import FAMILIES
from runner import Coverage, Runner
from sequences import base_seed, long_run, search
from servers import ORACLE, SUBJECT, Server

EXAMPLES_MIN = 60
EXAMPLES = int(os.environ.get("FAMILY_EXAMPLES", 0)) or (6000 if long_run() else EXAMPLES_MIN)
VALID_MIN, ERROR_MIN = 8, 5
NO_VALID_CALL = {"PFSELFTEST", "SET foreign"}  # takes seconds; not a command of its own
NO_ERROR = {"SET foreign"} | {name for name in grammar.IN_FAMILIES if name.endswith("|HELP")}
COVERAGE = Coverage()
RUNS = [(family, resp) for family in sorted(FAMILIES) for resp in (2, 3)]
FINISHED = set()


@pytest.fixture(scope="module")
def servers():
    oracle = Server(ORACLE)
    try:
        subject = Server(SUBJECT)
    except BaseException:
        oracle.stop()
        raise
    yield oracle, subject
    oracle.stop()
    subject.stop()


@pytest.mark.parametrize("family,resp", RUNS)
def test_family(servers, family, resp):
    runner = Runner(*servers, resp, COVERAGE)
    try:
        search(runner, base_seed() * 100 + 50 + RUNS.index((family, resp)), EXAMPLES,
               chosen=grammar.family_chooser(family))  # fmt: skip
    finally:
        runner.close()
    FINISHED.add((family, resp))


def test_coverage(capsys):
    """Last: every command was really exercised."""
    names = sorted(grammar.IN_FAMILIES)
    with capsys.disabled():
        print("\n" + COVERAGE.table(names))
    if FINISHED != set(RUNS) or EXAMPLES < EXAMPLES_MIN:
        pytest.skip("only judged when all families ran to the end")
    poor = []
    for name in names:
        row = COVERAGE.counts[name]
        if row["valid"] < VALID_MIN and name not in NO_VALID_CALL:
            poor.append("%s: %d valid calls, %d required" % (name, row["valid"], VALID_MIN))
        if row["failed"] + row["rejected"] < ERROR_MIN and name not in NO_ERROR:
            poor.append("%s: %d erroneous calls, %d required" % (name, row["failed"] + row["rejected"], ERROR_MIN))
    assert not poor, "\n".join(poor)
