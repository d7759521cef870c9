"""The process killed at its system calls: strace delivers SIGKILL at the nth write, sync, rename, truncation or
deletion, below everything the program does itself; afterwards nothing acknowledged is missing or there twice."""
import contextlib
import os
import random
import signal

import pytest
import redis

import covey
from covey import LONG, wait_for

# How often one thread may make them: strace counts each thread's by themselves, and a rewrite is a thread.
CALLS = {"writev": 40, "fdatasync": 40, "fsync": 5, "rename": 3, "openat": 8, "unlink": 4, "write": 12}


def run_until_killed(node, call, number, last):
    """Writes one after the other, with rewrites between, until the process is gone; the last number acknowledged."""
    client = node.new_client(socket_timeout=10)
    try:
        for n in range(last + 1, last + 400):
            pipe = client.pipeline(transaction=True)
            pipe.incr("counter").rpush("list", n).set("last", n)
            pipe.execute()
            last = n
            if n % 20 == 7:
                client.execute_command("BGREWRITEAOF")
    except redis.RedisError:
        pass
    finally:
        client.close()
    return last


def check(node, last, tried, what):
    rows = [int(x) for x in node.cmd("LRANGE", "list", 0, -1)]
    assert rows == list(range(1, len(rows) + 1)), f"{what}: a hole, or twice: {rows[-5:]}"
    assert last <= len(rows) <= tried, f"{what}: acknowledged {last}, there {len(rows)}"
    assert int(node.cmd("GET", "counter") or 0) == len(rows), what
    assert int(node.cmd("GET", "last") or 0) == len(rows), what
    return len(rows)


def strace(call, number):
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e",
            f"inject={call}:signal=KILL:when={number}"]


@pytest.mark.parametrize("call", CALLS)
def test_killed_at_a_system_call(servers, call):
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    kills = 0
    node = servers.node(start=False, appendonly="yes", appendfsync="always", workers=1)
    last = 0
    for _ in range(20 if LONG else 2):
        number = chance.randint(1, CALLS[call])
        node.prefix = strace(call, number)
        with contextlib.suppress(covey.TestFailure):  # killed while it starts
            node.start()
            last = run_until_killed(node, call, number, last)
        alive = node.alive()
        stop_tree(node)
        kills += not alive
        node.prefix = []
        node.start()
        last = check(node, last, last + 1, f"seed {seed}, {call} number {number}")
        # what a process that died left behind is gone, and a rewrite works
        node.cmd("BGREWRITEAOF")
        wait_for("the rewrite", lambda: node.stat("aof_last_bgrewrite_status", "persistence") == "ok"
                 and not node.stat("aof_rewrite_in_progress", "persistence"))
        names = os.listdir(os.path.join(node.dir, "appendonlydir"))
        assert len(names) == 3 and not any(name.startswith("temp") for name in names), names
        node.kill()
        node.start()
        check(node, last, last, "after a rewrite")
        node.kill()
    print(f"seed {seed}: {call}: {kills} kills, {last} acknowledged, 0 lost")


def stop_tree(node):
    """The server under strace, then strace."""
    children = []
    with contextlib.suppress(OSError):
        with open(f"/proc/{node.pid}/task/{node.pid}/children") as file:
            children = [int(pid) for pid in file.read().split()]
    for pid in children:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    node.kill()
    wait_for("the server under strace to be gone", lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children))
