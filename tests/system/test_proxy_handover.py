"""covey proxy ends politely, and hands its listening sockets over to another process."""
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time

import pytest
import redis

import covey
from covey import wait_for
from test_proxy_front import Proxy, ask


@pytest.fixture(scope="module")
def backend(module_servers):
    return module_servers.node("redis")


def gone(pid):
    """Whether the process has ended; nobody waits for those that proxies have started."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


# ---------------------------------------------------------------------------------------------------- SIGTERM

@pytest.mark.sanitizer
def test_the_end_is_polite(servers, backend):
    proxy = Proxy(servers, [backend])
    proxy.cmd("DEL", "l", "t")
    idle, blocked, busy, piped = proxy.raw(), proxy.raw(), proxy.raw(), proxy.raw()
    assert ask(idle, b"PING\r\n") == b"+PONG\r\n"
    assert ask(busy, b"MULTI\r\nSET t 1\r\n", b"+QUEUED\r\n") == b"+OK\r\n+QUEUED\r\n"
    blocked.sendall(b"BLPOP l 0\r\n")
    assert ask(piped, b"PING\r\n") == b"+PONG\r\n"
    backend.cmd("CLIENT", "PAUSE", "600", "ALL")  # what is under way takes a while
    piped.sendall(b"SET a 1\r\nINCR n\r\nGET a\r\n")
    time.sleep(0.2)
    proxy.expected_dead = True
    proxy.signal(signal.SIGTERM)
    assert idle.recv(10) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), 1).close()
    got = b""
    while got.count(b"\r\n") < 4:
        part = piped.recv(1000)
        assert part
        got += part
    assert got.startswith(b"+OK\r\n:") and got.endswith(b"$1\r\n1\r\n") and piped.recv(10) == b""
    assert ask(busy, b"EXEC\r\n", b"+OK\r\n") == b"*1\r\n+OK\r\n" and busy.recv(10) == b""
    backend.cmd("RPUSH", "l", "x")
    assert ask(blocked, b"", b"x\r\n") == b"*2\r\n$1\r\nl\r\n$1\r\nx\r\n" and blocked.recv(10) == b""
    assert proxy.wait_exit(5) == 0
    assert b"cut off" not in proxy.log_text()


@pytest.mark.sanitizer
def test_the_end_comes_when_its_time_has_come(servers, backend):
    proxy = Proxy(servers, [backend], drain_timeout=300)
    with proxy.raw() as blocked:
        blocked.sendall(b"BLPOP nothing 0\r\n")
        time.sleep(0.2)
        started = time.monotonic()
        assert proxy.terminate() == 0
        assert 0.25 < time.monotonic() - started < 10 * covey.PATIENCE
        assert blocked.recv(10) == b"" and b"1 clients are cut off" in proxy.log_text()


def test_the_second_signal_is_not_patient(servers, backend):
    proxy = Proxy(servers, [backend], drain_timeout=60000)
    with proxy.raw() as blocked:
        blocked.sendall(b"BLPOP nothing 0\r\n")
        time.sleep(0.2)
        proxy.expected_dead = True
        proxy.signal(signal.SIGTERM)
        time.sleep(0.3)
        assert proxy.alive()
        assert proxy.terminate(5) == 0


def test_a_client_under_load_loses_no_reply(servers, backend):
    """Every request that was sent before the end is answered, or the connection ends without a reply to it and without its effect."""
    proxy = Proxy(servers, [backend])
    results = []

    def work(number):
        done = 0
        with proxy.raw() as s:
            with contextlib.suppress(ConnectionError):
                while ask(s, b"INCR end:%d\r\n" % number) == b":%d\r\n" % (done + 1):
                    done += 1
        results.append((number, done))
    threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
    for n in range(20):
        backend.cmd("DEL", f"end:{n}")
    for t in threads:
        t.start()
    time.sleep(0.5)
    assert proxy.terminate() == 0
    for t in threads:
        t.join(10)
    assert len(results) == 20
    for number, done in results:
        assert done > 0 and int(backend.cmd("GET", f"end:{number}")) == done


# ---------------------------------------------------------------------------------------------------- hand-over

class Load:
    """Threads that connect, ask and close, over and over; `problems` are connects refused and replies missing."""

    def __init__(self, address, threads=6):
        self.address, self.problems, self.rounds, self.stop = address, [], 0, False
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(threads)]
        for t in self.threads:
            t.start()

    def run(self, number):
        while not self.stop:
            try:
                kind = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
                with socket.socket(kind) as s:
                    s.settimeout(10 * covey.PATIENCE)
                    s.connect(self.address)
                    for n in range(5):
                        word = b"%d:%d" % (number, n)
                        got = ask(s, b"SET load:%d %s\r\nGET load:%d\r\n" % (number, word, number), word + b"\r\n")
                        assert got == b"+OK\r\n$%d\r\n%s\r\n" % (len(word), word), got
                self.rounds += 1
            except Exception as error:
                self.problems.append(repr(error))

    def end(self):
        self.stop = True
        for t in self.threads:
            t.join()
        return self.problems


def open_clients(proxy, backend):
    """Clients of all kinds, and a function that checks that they work as before."""
    backend.cmd("DEL", "l", "w")
    plain, watching, blocked, subscriber, transaction = (proxy.raw() for _ in range(5))
    assert ask(plain, b"SET plain 1\r\n") == b"+OK\r\n"
    assert ask(watching, b"WATCH w\r\n") == b"+OK\r\n"
    assert ask(transaction, b"MULTI\r\nSET x 1\r\n", b"+QUEUED\r\n").startswith(b"+OK")
    blocked.sendall(b"BLPOP l 0\r\n")
    assert ask(subscriber, b"SUBSCRIBE news\r\n", b":1\r\n")
    time.sleep(0.2)

    def check():
        assert ask(plain, b"GET plain\r\n", b"1\r\n") == b"$1\r\n1\r\n"
        assert ask(transaction, b"EXEC\r\n", b"+OK\r\n") == b"*1\r\n+OK\r\n"
        assert ask(transaction, b"MULTI\r\nSET x 1\r\n", b"+QUEUED\r\n").startswith(b"+OK")
        assert ask(watching, b"MULTI\r\nINCR w\r\nEXEC\r\n", b":1\r\n") == b"+OK\r\n+QUEUED\r\n*1\r\n:1\r\n"
        backend.cmd("DEL", "w")
        assert ask(watching, b"WATCH w\r\n") == b"+OK\r\n"
        backend.cmd("RPUSH", "l", "x")
        assert ask(blocked, b"", b"x\r\n") == b"*2\r\n$1\r\nl\r\n$1\r\nx\r\n"
        blocked.sendall(b"BLPOP l 0\r\n")
        backend.cmd("PUBLISH", "news", "hello")
        assert ask(subscriber, b"", b"hello\r\n") == b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n"

    def close():
        for s in (plain, watching, blocked, subscriber, transaction):
            s.close()
    return check, close


def serving_pid(proxy):
    with redis.Redis(port=proxy.port, socket_timeout=10) as client:
        return client.info("server")["process_id"]


@pytest.mark.sanitizer
def test_hand_over_to_a_new_program(servers, backend):
    """SIGUSR2: the program starts itself anew, from the file that is now at its place."""
    pidfile = os.path.join(servers.base, "pid")
    proxy = Proxy(servers, [backend], pidfile=pidfile)
    first, later = proxy.pid, []
    load = Load(("127.0.0.1", proxy.port))
    check, close = open_clients(proxy, backend)
    check()
    try:
        for number in range(3):
            pid = serving_pid(proxy)
            assert int(open(pidfile).read()) == pid
            os.kill(pid, signal.SIGUSR2)
            wait_for("another process", lambda: serving_pid(proxy) != pid and int(open(pidfile).read()) != pid)
            later.append(serving_pid(proxy))
            check()
            if number:
                wait_for("a process without clients to end", lambda: gone(pid))
        time.sleep(0.3)
        assert load.end() == [] and load.rounds > 50
        assert proxy.alive() and b"stay here until they go" in proxy.log_text()
        proxy.expected_dead = True
        close()
        assert proxy.wait_exit(10) == 0 and first not in later
        assert serving_pid(proxy) == later[-1] and int(open(pidfile).read()) == later[-1]
    finally:
        load.end()
        for pid in later:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
    wait_for("the last one to end", lambda: all(gone(pid) for pid in later))
    assert not os.path.exists(pidfile)


@pytest.mark.sanitizer
def test_hand_over_by_the_control_socket(servers, backend):
    path, local = os.path.join(servers.base, "control"), os.path.join(servers.base, "proxy.sock")
    old = Proxy(servers, [backend], listen=["127.0.0.1:PORT", local], control_socket=path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    tcp, unix = Load(("127.0.0.1", old.port), 3), Load(local, 3)
    check, close = open_clients(old, backend)
    chain = [old]
    for _ in range(2):
        new = Proxy(servers, [backend], listen=[f"127.0.0.1:{old.port}", local], wait=False, control_socket=path, take_over=path, workers=3)
        new.port = old.port
        chain.append(new)
        new.wait_log("Taken over")
        wait_for("the new one to answer", lambda: serving_pid(old) == new.pid)
        check()
    time.sleep(0.3)
    assert tcp.end() == [] and unix.end() == [] and min(tcp.rounds, unix.rounds) > 20
    chain[1].expected_dead = old.expected_dead = True
    assert chain[1].wait_exit(10) == 0 and old.alive()
    close()
    assert old.wait_exit(10) == 0
    assert os.path.exists(local) and os.path.exists(path) and serving_pid(old) == chain[2].pid
    assert chain[2].terminate() == 0 and not os.path.exists(local) and not os.path.exists(path)


def test_clients_may_stay_for_so_long(servers, backend):
    path = os.path.join(servers.base, "control")
    old = Proxy(servers, [backend], control_socket=path, hand_over_timeout=700, drain_timeout=100)
    with old.raw() as s:
        assert ask(s, b"PING\r\n") == b"+PONG\r\n"
        new = Proxy(servers, [backend], listen=[f"127.0.0.1:{old.port}"], wait=False, take_over=path)
        new.wait_log("Taken over")
        old.expected_dead = True
        assert ask(s, b"PING\r\n") == b"+PONG\r\n"
        started = time.monotonic()
        assert s.recv(10) == b"" and 0.3 < time.monotonic() - started < 5 * covey.PATIENCE
    assert old.wait_exit(10) == 0


def test_a_new_process_that_cannot_serve_changes_nothing(servers, backend):
    path = os.path.join(servers.base, "control")
    old = Proxy(servers, [backend], control_socket=path)
    with old.raw() as s:
        # neither a file with mistakes, nor one that listens where it may not, nor one that ends in the middle
        words = [covey.COVEY_BIN, "proxy", "--take-over", path, "--cluster", backend.address]
        for more in (["--bogus", "1"], ["--listen", f"127.0.0.1:{old.port}", "--listen", backend.address]):
            assert subprocess.run(words + more, capture_output=True, timeout=20).returncode != 0
            assert serving_pid(old) == old.pid
        for message in (b"take-over 1", b"nonsense", b"take-over 2", None):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as c:
                c.connect(path)
                if message:
                    c.sendall(message)
                if message == b"take-over 1":
                    text, fds, _, _ = socket.recv_fds(c, 65536, 10)
                    assert text == b"sockets 1\n127.0.0.1:%d\n" % old.port and len(fds) == 1
                    os.close(fds[0])
        assert serving_pid(old) == old.pid and ask(s, b"PING\r\n") == b"+PONG\r\n"
        old.wait_log("The other process did not take over", 2)
    new = Proxy(servers, [backend], listen=[f"127.0.0.1:{old.port}"], wait=False, take_over=path)
    new.wait_log("Taken over")
    old.expected_dead = True
    assert old.wait_exit(10) == 0


def test_a_new_process_that_does_not_see_the_cluster(servers, backend):
    if not covey.LONG and covey.SANITIZED:
        pytest.skip("takes ten seconds")
    path = os.path.join(servers.base, "control")
    old = Proxy(servers, [backend], control_socket=path)
    done = subprocess.run([covey.COVEY_BIN, "proxy", "--take-over", path, "--listen", f"127.0.0.1:{old.port}", "--cluster", f"127.0.0.1:{covey.free_port()}"],
                          capture_output=True, text=True, timeout=40)
    assert done.returncode == 1 and "the process before goes on" in done.stdout
    assert serving_pid(old) == old.pid


def test_nobody_to_take_over_from(servers, backend):
    done = subprocess.run([covey.COVEY_BIN, "proxy", "--take-over", os.path.join(servers.base, "none"), "--listen", f"127.0.0.1:{covey.free_port()}", "--cluster",
                           backend.address], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "Cannot take over from" in done.stdout


@pytest.mark.sanitizer
def test_pools_are_handed_over(servers, backend):
    conf, local, pidfile = (os.path.join(servers.base, name) for name in ("pools.yml", "pool.sock", "pid"))
    port, stats = covey.free_port(), covey.free_port()
    with open(conf, "w") as f:
        for name, listen in (("alpha", f"127.0.0.1:{port}"), ("beta", local)):
            f.write(f"{name}:\n  listen: {listen}\n  hash: md5\n  redis: true\n  servers:\n   - {backend.address}:1\n")
    process = subprocess.Popen([covey.COVEY_BIN, "proxy", "--pool", conf, "-s", str(stats), "-a", "127.0.0.1", "-p", pidfile], preexec_fn=covey.die_with_parent,
                               stdout=subprocess.DEVNULL)

    def pid():
        return int(open(pidfile).read())
    last = process.pid
    try:
        wait_for("the pools", lambda: socket.create_connection(("127.0.0.1", port)).close() is None and pid())
        tcp, unix = Load(("127.0.0.1", port), 3), Load(local, 3)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as kept:
            assert ask(kept, b"SET a 1\r\n") == b"+OK\r\n"
            os.kill(process.pid, signal.SIGUSR2)
            wait_for("another process", lambda: pid() != process.pid)
            last = pid()
            assert ask(kept, b"GET a\r\n", b"1\r\n") == b"$1\r\n1\r\n"
            with socket.create_connection(("127.0.0.1", stats), timeout=10) as s:
                assert b'"beta": {' in s.makefile("rb").read()
            time.sleep(0.3)
            assert tcp.end() == [] and unix.end() == []
            assert process.poll() is None
        assert process.wait(10) == 0
        assert os.path.exists(local)
    finally:
        for one in {process.pid, last}:
            with contextlib.suppress(OSError):
                os.kill(one, signal.SIGTERM)
    wait_for("the end", lambda: gone(last) and not os.path.exists(local))
