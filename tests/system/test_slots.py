"""Turns at a slot that several workers want."""
import threading
import time


def test_a_pipeline_of_slow_commands_lets_others_in(servers):
    """Each of its commands holds the slot for long and hardly lets go between two: who waits at another worker would get
    in by chance, or when all is over."""
    node, count = servers.node("covey", workers=2), 500
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
