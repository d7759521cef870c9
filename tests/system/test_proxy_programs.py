"""Programs written for one Redis, through `covey proxy`: over a cluster of six nodes, one of whose primaries is killed while
they work, with at most their own prefix for keys; and over a single node, without any setting.

All of them run at once, in front of the same nodes; each is judged in a test of its own."""
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

import covey
from covey import TestFailure, free_port, tag_of_slot, wait_for
from proxying import Proxy

TESTS = os.path.join(covey.ROOT, "tests")
PROGRAMS = os.path.join(TESTS, "clients", "programs")
PYTHON = "/usr/bin/python3"
UNKNOWN = re.compile("may or may not have been executed|Failed to write session data|Socket closed unexpectedly")
# Of each program, requests that can be under way when the primary dies.
UNKNOWN_MAX = 20


class Program:
    """A process that says "ready" when it works, and is told to stop by a line on its standard input."""

    def __init__(self, words, env=None, log=None):
        self.log = log
        self.process = subprocess.Popen([str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        stderr=open(log, "wb"), env={**os.environ, **(env or {})}, preexec_fn=covey.die_with_parent, start_new_session=True)
        self.lines = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)

    def said(self):
        with open(self.log, errors="replace") as file:
            return "".join(self.lines) + file.read()[-3000:]

    def ready(self):
        if self.process.poll() is not None:
            raise TestFailure(f"{self.process.args} ended with {self.process.returncode}: {self.said()}")
        return "ready\n" in self.lines

    def stop(self):
        """What it counted."""
        try:
            self.process.stdin.write("stop\n")
            self.process.stdin.flush()
            self.process.wait(60 * covey.PATIENCE)
        except (subprocess.TimeoutExpired, BrokenPipeError) as error:
            raise TestFailure(f"{error!r}: {self.said()}") from None
        finally:
            self.process.kill()
            self.process.wait()
        if self.process.returncode:
            raise TestFailure(f"{self.process.args} ended with {self.process.returncode}: {self.said()}")
        wait_for("its last line", lambda: self.lines and self.lines[-1].startswith("{") and self.lines[-1].endswith("}\n"), 5)
        return json.loads(self.lines[-1])


class Background(Program):
    """A worker or a web server, which works until it is ended; processes of its own end with it."""

    def stop(self):
        early = self.process.poll()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if early is not None:
            raise TestFailure(f"{self.process.args} had ended with {early}: {self.said()}")


class Supervised:
    """A worker that ends when it loses a connection, as RQ's does also when a redis-server restarts, and is to be started again by
    a supervisor.  That is counted; whatever else ends it is a failure."""

    REASON = re.compile(r"ConnectionError: Connection closed by server\.\s*$")

    def __init__(self, start):
        self.start, self.worker, self.restarts = start, start(0), 0
        self.stopped, self.finished = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        while not self.stopped.wait(0.05):
            if self.worker.process.poll() is None:
                continue
            if self.worker.process.returncode not in (0, 1) or not self.REASON.search(self.worker.said()):
                break
            self.restarts += 1
            self.worker = self.start(self.restarts)
        self.finished.set()
        threading.Event().wait()  # what a thread started ends with it

    @property
    def process(self):
        return self.worker.process

    def said(self):
        return self.worker.said()

    def stop(self):
        self.stopped.set()
        self.finished.wait()
        self.worker.stop()


class Visitors:
    """Visitors of a page that counts the visits in their sessions: a visit shows one more than the last, or says why not."""

    def __init__(self, port, count=4):
        self.port, self.stopped = port, False
        self.result = {"done": 0, "unknown": 0, "errors": [], "wrong": [], "longest": 0}
        self.threads = [threading.Thread(target=self.visit, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def visit(self):
        cookie, seen = None, 0
        while not self.stopped:
            began = time.monotonic()
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                connection.request("GET", "/", headers={"Cookie": cookie} if cookie else {})
                answer = connection.getresponse()
                text = answer.read().decode(errors="replace")
                cookie = (answer.getheader("Set-Cookie") or cookie or "").split(";")[0]
                connection.close()
            except (OSError, http.client.HTTPException) as error:
                self.result["errors"].append(repr(error))
                continue
            self.result["longest"] = max(self.result["longest"], round(1000 * (time.monotonic() - began)))
            if answer.status == 200 and text.isdigit():
                if int(text) != seen + 1:
                    self.result["wrong"].append(f"visit {text} after {seen}")
                seen = int(text)
                self.result["done"] += 1
            elif UNKNOWN.search(text):
                self.result["unknown"] += 1
                seen = self.settle(cookie) or seen
            else:
                self.result["errors"].append(text[:300])
            time.sleep(0.005)

    def settle(self, cookie):
        """After a visit whose fate is unknown the next one says where the session stands."""
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            connection.request("GET", "/", headers={"Cookie": cookie})
            text = connection.getresponse().read().decode(errors="replace")
            connection.close()
            return int(text) if text.isdigit() else None
        except (OSError, http.client.HTTPException) as error:
            self.result["errors"].append(repr(error))
            return None

    def ready(self):
        if len(self.result["errors"]) > 20:
            raise TestFailure(f"the page does not work: {self.result['errors'][:3]}")
        return self.result["done"] > 20

    def stop(self):
        self.stopped = True
        for thread in self.threads:
            thread.join(70)
        return self.result


class Site:
    """A web server and its visitors."""

    def __init__(self, server, port):
        self.server, self.port, self.visitors = server, port, None

    def ready(self):
        if self.visitors is None:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                self.visitors = Visitors(self.port)
        return self.visitors.ready()

    def stop(self):
        result = self.visitors.stop()
        self.server.stop()
        return result


class WithWorker:
    """A driver and the worker that does what it asks for."""

    def __init__(self, driver, worker):
        self.driver, self.worker = driver, worker

    def ready(self):
        if self.worker.process.poll() is not None:
            raise TestFailure(f"the worker ended: {self.worker.said()}")
        return self.driver.ready()

    def stop(self):
        try:
            result = self.driver.stop()
        finally:
            self.worker.stop()
        print(f"the driver said: {self.driver.said()}\nits worker: {self.worker.said()}")
        return {**result, "restarts": getattr(self.worker, "restarts", 0)}


def need(program):
    if not shutil.which(program):
        raise TestFailure(f"{program} is missing: ./run test installs it")


def programs(port, prefix, directory, workers_port=None):
    """{name: what starts it}, to work with the proxy on this port; workers_port: one for those that take an error for a mistake of
    their own (unknown-fate close)."""
    for program in ("node", "php", "ruby"):
        need(program)
    env = {"PROXY_PORT": str(workers_port or port), "PROXY_PREFIX": prefix, "PYTHONPATH": PROGRAMS, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}

    def log(name):
        return os.path.join(directory, name + ".log")
    pages, node_pages = free_port(), free_port()
    save_path = f"tcp://127.0.0.1:{port}?timeout=30&read_timeout=30" + (f"&prefix={prefix}php:" if prefix else "")
    proxied = os.path.join(TESTS, "node", "proxied.js")
    return {
        "bullmq": lambda: Program(["node", proxied, "bullmq", port, f"{prefix}bull" if prefix else ""], log=log("bullmq")),
        "connect-redis": lambda: Site(Background(["node", proxied, "sessions", port, prefix, node_pages], log=log("sessions")), node_pages),
        "redis-rb": lambda: Program(["ruby", "-W0", os.path.join(PROGRAMS, "jobs.rb"), port, prefix], log=log("ruby")),
        "php-sessions": lambda: Site(Background(
            ["php", "-d", "session.save_handler=redis", "-d", f'session.save_path="{save_path}"', "-d", "redis.session.locking_enabled=1",
             "-d", "redis.session.lock_retries=1000", "-d", "redis.session.lock_wait_time=5000", "-d", "display_errors=0",
             "-S", f"127.0.0.1:{pages}", os.path.join(PROGRAMS, "page.php")], {"PHP_CLI_SERVER_WORKERS": "4"}, log("php")), pages),
        "celery": lambda: WithWorker(
            Program([PYTHON, os.path.join(PROGRAMS, "celery_drive.py")], env, log("celery-drive")),
            Background([PYTHON, "-m", "celery", "-A", "celery_tasks", "worker", "-P", "threads", "-c", "4", "-l", "info"], env, log("celery"))),
        "rq": lambda: WithWorker(
            Program([PYTHON, os.path.join(PROGRAMS, "rq_drive.py")], env, log("rq-drive")),
            Supervised(lambda n: Background([PYTHON, "-c", "from rq.cli import main; main()", "worker", "-c", "rq_settings"], env, log(f"rq-{n}")))),
    }


NAMES = ("bullmq", "connect-redis", "redis-rb", "php-sessions", "celery", "rq")


def run_programs(request, ports, prefix, directory, meanwhile):
    """{program: what it counted, or the failure}, of those that are to be judged"""
    running, results = {}, {}
    wanted = {item.callspec.params["name"] for item in request.session.items if item.module is request.module and request.fixturename in item.fixturenames}
    try:
        for name, start in programs(ports[0], prefix, directory, ports[-1]).items():
            if name in wanted:
                running[name] = start()
        for name, program in running.items():
            try:
                wait_for(f"{name} to work", program.ready, 30)
            except TestFailure as failure:
                results[name] = failure
        meanwhile()
    finally:
        def end(name):
            try:
                counted = running[name].stop()
                results.setdefault(name, counted)
            except (TestFailure, AttributeError, ValueError) as failure:
                results.setdefault(name, failure)
        threads = [threading.Thread(target=end, args=(name,)) for name in running]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return results


@pytest.fixture(scope="module")
def over_six_nodes(request, module_servers):
    cluster = module_servers.cluster(["covey"] * 6, replicas=1)
    proxies = [Proxy(module_servers, cluster.nodes[:2], unknown_fate=how) for how in ("error", "close")]
    primary, (replica,) = cluster.pairs()[0]
    slot = min(min(line.slots) for line in covey.cluster_nodes(primary).values() if "myself" in line.flags)

    def fail_over():
        covey.wait_in_sync(primary, replica)
        primary.kill()
        cluster.wait_primary(replica)
        time.sleep(2.5)
    # Everything with a prefix is on the primary that dies.
    return run_programs(request, [proxy.port for proxy in proxies], f"{{{tag_of_slot(slot)}}}", module_servers.directory("programs"), fail_over)


@pytest.fixture(scope="module")
def over_one_node(request, module_servers):
    proxy = Proxy(module_servers, [module_servers.node("covey")])
    return run_programs(request, [proxy.port], "", module_servers.directory("programs-alone"), lambda: time.sleep(1.5))


@pytest.mark.parametrize("name", NAMES)
def test_over_six_nodes_with_a_failover(over_six_nodes, name):
    counted = over_six_nodes[name]
    if isinstance(counted, Exception):
        raise counted
    print(f"{name}: {counted}")
    assert not counted["wrong"] and not counted["errors"], counted
    assert counted["unknown"] <= UNKNOWN_MAX and counted.get("missed", 0) <= 2, counted
    assert counted.get("restarts", 0) <= 2, counted  # by a connection of each of the proxy's workers, at most
    assert name != "rq" or counted["missed"] <= counted["restarts"], counted  # what such a worker had taken off the queue and not begun
    assert counted["done"] >= 5


@pytest.mark.parametrize("name", NAMES)
def test_over_one_node_without_any_setting(over_one_node, name):
    counted = over_one_node[name]
    if isinstance(counted, Exception):
        raise counted
    print(f"{name}: {counted}")
    assert not counted["wrong"] and not counted["errors"] and counted["unknown"] == counted.get("restarts", 0) == 0, counted
    assert counted["done"] >= 5
