"""What the log says when a node ends by a fault of its own (crash-log-enabled)."""
import os
import re
import signal
import subprocess

import pytest
import redis

import covey

START, END = "=== COVEY BUG REPORT START", "=== COVEY BUG REPORT END"
pytestmark = pytest.mark.skipif(covey.SANITIZED, reason="the sanitizer reports it")


def debug_ends(node, *words):
    """Sends DEBUG, which ends the process; returns the signal and the log."""
    node.expected_dead = True
    with pytest.raises(redis.ConnectionError):
        node.client.execute_command("DEBUG", *words)
    return -node.wait_exit(20), node.log_text().decode()


def functions_of(log):
    """Names of the functions in the stack trace."""
    places = re.findall(r"^(\S+)\(\+(0x[0-9a-f]+)\)", log, re.M)
    own = [place for file, place in places if os.path.realpath(file) == os.path.realpath(covey.COVEY_BIN)]
    assert own, log
    out = subprocess.run(["addr2line", "-f", "-e", covey.COVEY_BIN, *own], capture_output=True, text=True, check=True).stdout
    return out.split("\n")[::2]


def test_a_bad_access(servers):
    node = servers.node()
    client_id = node.client.client_id()
    ended, log = debug_ends(node, "SEGFAULT")
    assert ended == signal.SIGSEGV
    assert START in log and END in log
    assert re.search(r"^%d:signal-handler \(\d{10,}\) Covey \S+ crashed by signal: 11 \(SIGSEGV\), si_code: 2$" % node.process.pid, log, re.M)
    address = re.search(r"Accessing address: 0x([0-9a-f]+)", log)[1]
    assert int(address, 16) % 4096 == 0 and address in log.split("REGISTERS")[1], "a page, and in a register"
    assert re.search(r"Thread: worker-\d+\nworker \d+ executes 'debug' with 2 arguments in database 0, for client id=%d\n" % client_id, log)
    assert "debug_segfault" in functions_of(log)


@pytest.mark.parametrize("words, first, function", [
    (["ASSERT"], "=== ASSERTION FAILED ===", "debug_assert"),
    (["PANIC"], "Guru Meditation: called by DEBUG PANIC #src/server/debug_crash.c:", "debug_panic"),
    (["OOM"], "Out Of Memory allocating", "mem_abort")])
def test_other_ends(servers, words, first, function):
    ended, log = debug_ends(servers.node(), *words)
    assert ended == signal.SIGABRT
    assert log.index(first) < log.index("crashed by signal: 6 (SIGABRT)") < log.index(END)
    assert function in functions_of(log) or function == "debug_panic", log


@pytest.mark.parametrize("sent", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL])
def test_a_signal_of_another_process(servers, sent):
    node = servers.node()
    node.expected_dead = True
    os.kill(node.pid, sent)
    assert node.wait_exit(20) == -sent
    log = node.log_text().decode()
    assert f"crashed by signal: {sent.value} ({sent.name}), si_code: 0" in log
    assert f"Sent by process {os.getpid()}, user {os.getuid()}" in log


@pytest.mark.parametrize("words, ends", [(["SEGFAULT"], signal.SIGSEGV), (["ASSERT"], signal.SIGABRT)])
def test_switched_off(servers, words, ends):
    node = servers.node(crash_log_enabled="no")
    assert node.config_get("crash-log-enabled") == "no"
    ended, log = debug_ends(node, *words)
    assert ended == ends and START not in log and "crashed by signal" not in log
    assert ("=== ASSERTION FAILED ===" in log) == (words == ["ASSERT"])


@pytest.mark.parametrize("last", ["no", "yes"])
def test_switched_while_it_runs(servers, last):
    node = servers.node()
    for value in ("no", "yes", "no", last):
        node.client.config_set("crash-log-enabled", value)
    ended, log = debug_ends(node, "SEGFAULT")
    assert ended == signal.SIGSEGV and (START in log) == (last == "yes")


def test_the_report_goes_to_the_log_file(servers):
    node = servers.node(logfile="own.log")
    node.expected_dead = True
    with pytest.raises(redis.ConnectionError):
        node.client.execute_command("DEBUG", "ASSERT")
    node.wait_exit(20)
    with open(os.path.join(node.dir, "own.log")) as file:
        text = file.read()
    assert "'c->argc == 0 && \"DEBUG ASSERT\"' is not true" in text and END in text
    assert START not in node.log_text().decode()


def test_it_dies_all_the_same_when_the_log_is_full(servers):
    """A report that cannot be written does not keep the process alive."""
    node = servers.node(logfile="/dev/full")
    assert debug_ends(node, "SEGFAULT")[0] == signal.SIGSEGV
