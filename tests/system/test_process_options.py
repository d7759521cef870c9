"""Options about the process: the system's log, processors, huge pages, reports of crashes."""
import contextlib
import os
import re
import signal
import socket
import subprocess

import pytest
import redis

import covey
from covey import TestFailure

# A /dev of its own, in which /dev/log leads to a socket of the test.
OWN_DEV = """
mkdir -p "$0/dev" && mount --rbind /dev "$0/dev" && mount -t tmpfs tmpfs /dev || exit 77
for name in null zero urandom random; do : > /dev/$name; mount --bind "$0/dev/$name" /dev/$name; done
ln -s "$0/logger" /dev/log
exec "$@"
"""


@contextlib.contextmanager
def system_logger(servers):
    """A socket that receives what a node logs, and the words that start a node which finds it."""
    directory = servers.directory("logger")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        raise TestFailure("cannot have mounts of its own (needs root)")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as logger:
        logger.bind(os.path.join(directory, "logger"))
        logger.settimeout(10 * covey.PATIENCE)
        yield logger, ["unshare", "-m", "sh", "-c", OWN_DEV, directory]


def message_with(logger, text):
    """The first message with this text: facility, severity, name, pid, text."""
    while True:
        line = logger.recv(4096).decode()
        if text in line:
            break
    found = re.match(r"<(\d+)>\w+ +\d+ [\d:]+ (\S+)\[(\d+)\]: (.*)", line, re.S)
    assert found, line
    priority = int(found[1])
    return priority >> 3, priority & 7, found[2], int(found[3]), found[4]


@pytest.mark.parametrize("kind", ["covey", "redis"])
def test_messages_go_to_the_system_log(servers, kind):
    with system_logger(servers) as (logger, prefix):
        node = servers.node(kind, prefix=prefix, start=False, syslog_enabled="yes", syslog_ident="cache-7", syslog_facility="local3",
                            loglevel="debug")
        node.start()
        facility, severity, name, pid, text = message_with(logger, "Ready to accept connections")
        assert (facility, severity, name, pid) == (19, 5, "cache-7", node.pid)
        assert text.startswith("Ready to accept connections")
        node.client.execute_command("DEBUG", "LOG", "a line 100% as it came %s")
        assert message_with(logger, "a line")[1:] == (4, "cache-7", node.pid, "DEBUG LOG: a line 100% as it came %s")
        assert "a line 100%" in node.log_tail(), "the log file has it as well"


def test_the_system_log_takes_nothing_by_default(servers):
    with system_logger(servers) as (logger, prefix):
        servers.node(prefix=prefix)
        logger.settimeout(0.2)
        with pytest.raises(TimeoutError):
            logger.recv(4096)


@pytest.mark.parametrize("name, value, reason", [
    ("syslog-facility", "local8", "argument(s) must be one of the following: user, local0, local1, local2, local3, local4, "
                                  "local5, local6, local7"),
    ("syslog-enabled", "maybe", "argument must be 'yes' or 'no'"),
    ("disable-thp", "perhaps", "argument must be 'yes' or 'no'")])
@pytest.mark.parametrize("kind", ["covey", "redis"])
def test_wrong_values(servers, kind, name, value, reason):
    node = servers.node(kind, start=False, **{name: value})
    node.expected_dead = True
    node.start(wait=False)
    assert node.wait_exit(10) > 0
    assert reason in node.log_tail()


@pytest.mark.parametrize("kind", ["covey", "redis"])
def test_fixed_at_the_start(servers, kind):
    node = servers.node(kind)
    for name, value in (("syslog-enabled", "yes"), ("syslog-ident", "x"), ("syslog-facility", "user"), ("server_cpulist", "0"),
                        ("bio_cpulist", "0"), ("aof_rewrite_cpulist", "0"), ("bgsave_cpulist", "0"), ("disable-thp", "no")):
        with pytest.raises(redis.ResponseError, match="can't set immutable config"):
            node.client.config_set(name, value)


# ---- processors ----

def processors(node):
    """{name of a thread: the processors it may use}"""
    found = {}
    for task in os.listdir(f"/proc/{node.pid}/task"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{node.pid}/task/{task}/status") as file:
            text = file.read()
            name = re.search(r"^Name:\s*(.*)$", text, re.M)[1]
            found[name] = re.search(r"^Cpus_allowed_list:\s*(.*)$", text, re.M)[1]
    return found


def all_processors():
    return open("/proc/self/status").read().split("Cpus_allowed_list:\t")[1].split("\n")[0]


def two_processors():
    ours = sorted(os.sched_getaffinity(0))
    if len(ours) < 2:
        raise TestFailure("needs two processors")
    return ours[:2]


def node_on(servers, lists, **options):
    """A node with these processors; the names have underscores."""
    node = servers.node(start=False, **options)
    node.directives.update({f"{name}_cpulist": text for name, text in lists.items()})
    node.start()
    return node


def test_each_kind_of_thread_has_its_processors(servers):
    one, two = two_processors()
    lists = {"server": f"{one}-{one}:2", "bio": str(two), "bgsave": str(two), "aof_rewrite": str(two)}
    node = node_on(servers, lists, appendonly="yes", workers=2)
    found = processors(node)
    assert found["worker-0"] == found["worker-1"] == found["replicas"] == str(one), found
    assert found["reaper"] == found["aof"] == str(two), found
    node.client.execute_command("DEBUG", "POPULATE", 300000, "key", 100)
    for name, command in (("snapshot", "BGSAVE"), ("aof-rewrite", "BGREWRITEAOF")):

        def seen():
            """It may be over before we look, and is begun again then."""
            with contextlib.suppress(redis.ResponseError):  # it runs
                node.client.execute_command(command)
            return next((where for where in (processors(node).get(name) for _ in range(200)) if where), None)

        assert covey.wait_for(f"the thread {name}", seen, timeout=30) == str(two)


def test_without_a_list_of_their_own(servers):
    one, two = two_processors()
    node = node_on(servers, {"server": f" {two} "}, appendonly="yes")
    found = processors(node)
    assert found["worker-0"] == str(two) and found["reaper"] == found["aof"] == all_processors(), found


@pytest.mark.parametrize("wrong", ["x", "1-", "3-1", "0-3:0", "0,,1", "0-1-2", "99999", "1000"])
def test_a_wrong_list_is_named_and_left_out(servers, wrong):
    node = node_on(servers, {"server": wrong})
    assert processors(node)["worker-0"] == all_processors()
    assert f"The processors '{wrong}' of server_cpulist are not used" in node.log_tail()
    assert node.config_get("server_cpulist") == wrong


# ---- huge pages ----

def kernel_says(servers, text):
    """The words that start a node which reads this as the kernel's setting of huge pages."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        raise TestFailure("cannot have mounts of its own (needs root)")
    path = os.path.join(servers.directory("huge"), "enabled")
    with open(path, "w") as file:
        file.write(text)
    script = 'mount --bind "$0" /sys/kernel/mm/transparent_hugepage/enabled || exit 77; exec "$@"'
    return ["unshare", "-m", "sh", "-c", script, path]


@pytest.mark.parametrize("kind", ["covey", "redis"])
@pytest.mark.parametrize("kernel, disable, off, warned", [
    ("[always] madvise never\n", "yes", True, False), ("[always] madvise never\n", "no", False, True),
    ("always [madvise] never\n", "yes", False, False)])
def test_huge_pages(servers, kind, kernel, disable, off, warned):
    node = servers.node(kind, prefix=kernel_says(servers, kernel), disable_thp=disable)
    status = open(f"/proc/{node.pid}/status").read()
    assert ("THP_enabled:\t0" in status) == off, status
    assert ("WARNING You have Transparent Huge Pages (THP) support enabled" in node.log_tail(100)) == warned
