"""Bytes that nobody should send, thrown at a port."""
import contextlib
import random
import socket


def new_seed():
    """Of a run; what a test prints is shown when it fails."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    return seed


def damaged_requests(rng, good, count):
    """Sound requests with a few wrong bytes, and bytes without any sense."""
    for _ in range(count):
        if rng.random() < 0.5:
            data = bytearray(good * rng.randint(1, 3))
            for _ in range(rng.randint(1, 6)):
                data[rng.randrange(len(data))] = rng.choice(b"*$\r\n-0123456789:\x00\xff")
            yield data
        else:
            yield rng.randbytes(rng.randint(1, 300))


def throw(rng, connect, messages):
    """Each over a connection of its own, in two parts; some end the sending side, all leave without reading."""
    for data in messages:
        with connect() as sock, contextlib.suppress(OSError):
            at = rng.randrange(len(data) + 1)
            sock.sendall(data[:at])
            sock.sendall(data[at:])
            if rng.random() < 0.3:
                sock.shutdown(socket.SHUT_WR)
