"""The differential test through `covey proxy`: what a plain client gets from it, beside one redis-server.

Behind the proxy are three primaries, of this project or of redis-server (or of the server that VALKEY_SERVER names), or one
node, by itself or as a cluster of one.  Over several shards only what concerns keys of different shards may be refused (proxied.py); over one
nothing.  The sequences are those of test_differential.py; PROXY_EXAMPLES=100 makes so many of all commands."""

import os

import pytest

import grammar
from proxied import BACKENDS, Proxied, ProxyRunner
from registry import FAMILIES
from runner import Coverage
from sequences import base_seed, long_run, search
from servers import ORACLE, both

EXAMPLES = int(os.environ.get("PROXY_EXAMPLES", 0)) or (100 if long_run() else 6)
# The families whose commands the proxy passes on.
WITH_KEYS = sorted(set(FAMILIES) - {"server", "users", "clients"})
BEHIND = [(kind, 3) for kind in BACKENDS] + [("covey", 1), ("covey", "a shard")]


@pytest.fixture(scope="module", params=BEHIND, ids=["%s-%s" % each for each in BEHIND])
def servers(request):
    with both() as plain:
        grammar.learn(*plain)
    # Another server's files and encodings are those of its own version.
    oracle = BACKENDS["valkey"] if request.param[0] == "valkey" else ORACLE
    with both(subject=lambda: Proxied(*request.param), oracle=oracle) as pair:
        yield pair


@pytest.mark.parametrize("resp", [2, 3])
def test_sequences_through_the_proxy(servers, resp):
    runner = ProxyRunner(*servers, resp, Coverage())
    seed = base_seed() * 1000 + 500 + resp
    try:
        search(runner, seed, EXAMPLES, chosen=grammar.ANY)
        search(runner, seed + 10, max(1, EXAMPLES // 4), chosen=grammar.general_chooser())
        for at, family in enumerate(WITH_KEYS):
            search(runner, seed + 20 + at, max(1, EXAMPLES // 12), chosen=grammar.family_chooser(family))
    finally:
        runner.close()
    print("%d commands, %d refused" % (runner.coverage.commands, runner.refused))
    assert runner.coverage.commands > 150 * EXAMPLES
    assert (runner.refused == 0) == servers[1].one
