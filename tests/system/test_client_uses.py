"""What applications do with a Redis (sessions, rate limiters, locks, leaderboards, queues, streams, pub/sub, BullMQ), through
the client libraries they do it with, against a node by itself and against a cluster.

COVEY_TEST_USES=redis runs the same against redis-server, to see that the uses are right."""
import os
import shutil
import subprocess

import pytest

import covey
from covey import TestFailure

TESTS = os.path.join(covey.ROOT, "tests")
KIND = os.environ.get("COVEY_TEST_USES", "covey")

# program, its arguments before mode and ports, uses that must come out right
CLIENTS = {
    "php-redis": (["php", "-d", "display_errors=stderr", os.path.join(TESTS, "clients", "uses.php")], 9),
    "ruby-redis": (["ruby", "-W0", os.path.join(TESTS, "clients", "uses.rb")], 8),
    "node-redis": (["node", os.path.join(TESTS, "node", "uses.js"), "redis"], 9),
    "ioredis": (["node", os.path.join(TESTS, "node", "uses.js"), "ioredis"], 9),
}


def run(command, uses):
    if not shutil.which(command[0]):
        raise TestFailure(f"{command[0]} is missing: ./run test installs it")
    done = subprocess.run(command, capture_output=True, text=True, timeout=90 * covey.PATIENCE, stdin=subprocess.DEVNULL,
                          preexec_fn=covey.die_with_parent)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert done.stdout.count("ok ") == uses, f"{done.stdout}{done.stderr}"


@pytest.mark.parametrize("client", CLIENTS)
def test_uses_of_a_node(servers, client):
    command, uses = CLIENTS[client]
    run([*command, "standalone", str(servers.node(KIND).port)], uses)


@pytest.mark.parametrize("client", CLIENTS)
def test_uses_of_a_cluster(servers, client):
    command, uses = CLIENTS[client]
    cluster = servers.cluster([KIND] * 3)
    run([*command, "cluster", *(str(node.port) for node in cluster.nodes)], uses)


def test_hiredis(servers, tmp_path):
    program = str(tmp_path / "uses")
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "hiredis"], capture_output=True, text=True, check=True).stdout.split()
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-o", program, os.path.join(TESTS, "clients", "uses.c"), *flags], check=True)
    run([program, str(servers.node(KIND).port)], 6)
