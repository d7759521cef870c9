"""Turns at a slot that several workers want."""
import os
import threading
import time

import redis


def test_a_pipeline_of_slow_commands_lets_others_in(servers):
    """Each of its commands holds the slot for long and hardly lets go between two: who waits at another worker would get
    in by chance, or when all is over."""
    node, count = servers.node("covey", workers=2), 1500
    node.cmd("SADD", "{t}s", *range(3000))
    node.drop_client()
    hog, probes = node.raw(timeout=30), [node.raw(timeout=30) for _ in range(4)]
    over, worst = threading.Event(), []

    def push():
        hog.sendall(b"SUNIONSTORE {t}d {t}s\r\n" * count)
        left = count
        while left:
            left -= hog.recv(1 << 16).count(b"\n")
        over.set()

    def probe(sock):
        longest = 0
        while not over.is_set():
            began = time.monotonic()
            sock.sendall(b"GET {t}none\r\n")
            assert sock.recv(100) == b"$-1\r\n"
            longest = max(longest, time.monotonic() - began)
        worst.append(longest)

    threads = [threading.Thread(target=push)] + [threading.Thread(target=probe, args=(sock,)) for sock in probes]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = time.monotonic() - began
    # Half of them share the pipeline's worker and wait for its turn to end.
    assert len(worst) == 4 and sorted(worst)[1] < total / 5, (worst, total)


def test_a_long_command_holds_up_its_own_worker_only(servers):
    """With little to do one thread drives all workers. A command that takes long makes the other threads take over the rest
    within a moment."""
    node = servers.node("covey", workers=4)
    clients = [redis.Redis(port=node.port, socket_timeout=20) for _ in range(8)]
    for client in clients:
        client.ping()
    time.sleep(0.3)  # it is quiet: one thread
    sleeper = threading.Thread(target=lambda: clients[0].execute_command("DEBUG", "SLEEP", 2))
    sleeper.start()
    time.sleep(0.02)
    waits = []
    for client in clients[1:]:
        began = time.monotonic()
        client.ping()
        waits.append(time.monotonic() - began)
    sleeper.join()
    held_up = [wait for wait in waits if wait > 1]
    assert len(held_up) <= 1, f"{waits}: only the other connection of the same worker may wait"
    assert sorted(waits)[-2] < 0.6, waits


def test_one_thread_does_the_work_while_there_is_little(servers):
    node = servers.node("covey", workers=2)

    def cpu():
        used = {}
        for task in os.listdir(f"/proc/{node.pid}/task"):
            with open(f"/proc/{node.pid}/task/{task}/stat") as file:
                name, fields = file.read().split("(", 1)[1].rsplit(")", 1)
            used[name] = sum(int(n) for n in fields.split()[11:13])
        return [used[f"worker-{n}"] for n in range(2)]

    before = cpu()
    for n in range(300):
        node.client.set("k", n)
    assert cpu()[1] - before[1] <= 3, "the second thread stands by while there is little to do"
