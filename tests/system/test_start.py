"""Starting and configuring one data node."""
import os
import re
import signal
import socket
import subprocess

import pytest
import redis

import covey
from covey import Network, TestFailure


def starts_not(servers, **options):
    """The node exits by itself with an error; returns its log."""
    node = servers.node(start=False, **options)
    node.expected_dead = True
    node.start(wait=False)
    code = node.wait_exit(10)
    assert code not in (0, None) and code > 0, f"exit code {code}, log:\n{node.log_tail()}"
    return node, node.log_tail()


@pytest.mark.sanitizer
def test_config_file(servers):
    node = servers.node(config="""
# a comment
  maxclients   123
databases 7
requirepass "a b\\x41\\n"
client-output-buffer-limit normal 1mb 512kb 30
hash-max-listpack-entries 33
maxmemory 1gb
save 900 1
save 300 10
""", start=False)
    del node.directives["save"]
    node.start(wait=False)
    client = node.new_client(password="a bA\n")
    covey.wait_for("PING with the password", client.ping)
    got = {name: client.config_get(name)[name] for name in
           ("maxclients", "databases", "hash-max-listpack-entries", "maxmemory", "save", "requirepass")}
    assert got == {"maxclients": "123", "databases": "7", "hash-max-listpack-entries": "33",
                   "maxmemory": str(1 << 30), "save": "900 1 300 10", "requirepass": "a bA\n"}
    assert "normal 1048576 524288 30" in client.config_get("client-output-buffer-limit")["client-output-buffer-limit"]
    with pytest.raises(redis.AuthenticationError, match="NOAUTH|Authentication required"):
        node.new_client().get("a")
    with pytest.raises(redis.ResponseError, match="DB index is out of range"):
        client.execute_command("SELECT", 7)


def test_flags_win_over_the_file(servers):
    node = servers.node(config="maxclients 123\nport 1\n", maxclients=77)
    assert node.config_get("maxclients") == "77"


def test_include(servers):
    directory = servers.directory("included")
    with open(os.path.join(directory, "more.conf"), "w") as file:
        file.write("maxclients 88\n")
    node = servers.node(config=f"include {directory}/more.conf\n")
    assert node.config_get("maxclients") == "88"


def test_unknown_directive_is_named_in_a_warning(servers):
    node = servers.node(config="maxclients 55\nno-such-directive some value\n")
    assert node.config_get("maxclients") == "55"
    assert "no-such-directive" in node.log_tail()


@pytest.mark.parametrize("line", ["maxclients abc", "port 99999999", "appendfsync sometimes", "save 1", "maxmemory 12xb",
                                  'requirepass "unbalanced', "cluster-enabled perhaps", "databases 0"])
def test_bad_value_stops_with_file_line_and_reason(servers, line):
    node = servers.node(start=False, config=f"# first line\n\n{line}\n")
    node.expected_dead = True
    node.directives = {}
    node.start(wait=False)
    assert node.wait_exit(10) > 0
    log = node.log_tail()
    log = "\n".join(l for l in log.splitlines() if not l.startswith("---"))
    assert "redis.conf" in log, f"the file is not named:\n{log}"
    assert re.search(r"\b3\b", log), f"the line is not named:\n{log}"
    assert line.split()[0] in log, f"the directive is not named:\n{log}"


def test_bad_value_of_a_flag(servers):
    _, log = starts_not(servers, maxclients="abc")
    assert "maxclients" in log.split("\n", 1)[1]


def test_missing_config_file(servers):
    node = servers.node(start=False, config="")
    words = covey.server_command("covey") + [node.config_file, "--port", str(node.port)]
    done = subprocess.run(words, capture_output=True, timeout=20, stdin=subprocess.DEVNULL, cwd=node.dir)
    assert done.returncode > 0
    assert b"redis.conf" in done.stdout + done.stderr


def test_busy_port_is_a_clear_error(servers, node):
    other, log = starts_not(servers, port=node.port)
    assert str(node.port) in log.split("\n", 1)[1] and re.search("in use|bind", log)
    assert node.cmd("PING")


def test_link_named_redis_server_is_a_data_node(servers):
    node = servers.node(start=False)
    link = os.path.join(servers.directory("bin"), "redis-server")
    os.symlink(covey.COVEY_BIN, link)
    words = [link] + node.command()[len(covey.server_command("covey")):]
    node.command = lambda: words
    node.start()
    assert node.cmd("SET", "a", "1") and node.info("server")["redis_mode"] == "standalone"
    version = node.info("server")["redis_version"]
    assert version.startswith("7.0."), version


@pytest.mark.sanitizer
def test_config_set_get_and_rewrite(servers):
    node = servers.node(config="# kept comment\nmaxclients 100\nhash-max-listpack-entries 10\n")
    assert node.cmd("CONFIG", "SET", "hash-max-listpack-entries", "20", "maxmemory", "100mb", "timeout", "9")
    assert node.config_get("maxmemory") == str(100 << 20)
    with pytest.raises(redis.ResponseError, match="CONFIG SET failed"):
        node.cmd("CONFIG", "SET", "timeout", "5", "maxclients", "abc")
    assert node.config_get("timeout") == "9", "a CONFIG SET that fails changes nothing"
    with pytest.raises(redis.ResponseError, match="Unknown option or number of arguments for CONFIG SET"):
        node.cmd("CONFIG", "SET", "no-such-thing", "1")
    assert set(node.client.config_get("hash-max-listpack-*")) == {"hash-max-listpack-entries", "hash-max-listpack-value"}
    assert node.cmd("CONFIG", "REWRITE")
    with open(node.config_file) as file:
        text = file.read()
    assert "# kept comment" in text and re.search("^hash-max-listpack-entries 20$", text, re.M), text
    node.shutdown("NOSAVE")
    node.start()
    assert node.config_get("hash-max-listpack-entries") == "20" and node.config_get("timeout") == "9"


def test_config_resetstat(node):
    for n in range(10):
        node.cmd("GET", n)
    assert node.stat("keyspace_misses") == 10
    node.cmd("CONFIG", "RESETSTAT")
    assert node.stat("keyspace_misses") == 0 and node.stat("total_commands_processed") < 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(servers, number):
    node = servers.node()
    node.expected_dead = True
    node.signal(number)
    assert node.wait_exit() == 0


def test_info_has_the_fields_that_tools_read(node):
    info = node.info("everything")
    for name in ("redis_version", "redis_mode", "os", "arch_bits", "process_id", "run_id", "tcp_port", "uptime_in_seconds",
                 "connected_clients", "blocked_clients", "used_memory", "used_memory_human", "used_memory_rss", "maxmemory",
                 "mem_fragmentation_ratio", "mem_allocator", "loading", "rdb_changes_since_last_save",
                 "rdb_bgsave_in_progress", "rdb_last_save_time", "rdb_last_bgsave_status", "total_connections_received",
                 "total_commands_processed", "instantaneous_ops_per_sec", "expired_keys", "evicted_keys", "keyspace_hits",
                 "keyspace_misses", "sync_full", "sync_partial_ok", "sync_partial_err", "role", "connected_slaves",
                 "master_replid", "master_replid2", "master_repl_offset", "second_repl_offset", "repl_backlog_active",
                 "repl_backlog_size", "used_cpu_sys", "used_cpu_user", "cluster_enabled"):
        assert name in info, f"INFO lacks {name}"
    node.cmd("SET", "a", "1")
    assert node.info("keyspace")["db0"]["keys"] == 1


def test_workers_and_its_alias(servers):
    if covey.COVEY_IS_REDIS:
        raise TestFailure("this is a redis-server")
    assert servers.node(workers=3).config_get("workers") == "3"
    assert servers.node(io_threads=2).config_get("workers") == "2"


@pytest.mark.parametrize("settings, answer", [({}, b"-DENIED "), ({"requirepass": "secret"}, b"-NOAUTH "),
                                              ({"protected_mode": "no"}, b"+PONG")])
def test_protected_mode_serves_other_hosts_only_when_told_to(servers, settings, answer):
    network = Network(servers, 2)
    node = servers.node("covey", port=7000, host=network.control_address(0), prefix=network.prefix(0), bind="0.0.0.0",
                        start=False, **settings)
    node.start(wait=False)

    def ask():
        with socket.create_connection((node.host, node.port), timeout=2) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(1000)

    assert covey.wait_for("the node to listen", ask).startswith(answer)


@pytest.mark.parametrize("kind", ["covey", "redis"])
@pytest.mark.parametrize("option", ["systemd", "auto"])
@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(servers, tmp_path, monkeypatch, kind, option, abstract):
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind("\0" + name if abstract else name)
        ear.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if abstract else name)
        node = servers.node(kind, supervised=option, daemonize="yes", loglevel="notice")
        said = ear.recv(1000)
        while b"READY=1" not in said:
            said = ear.recv(1000)
        assert node.alive(), "in the foreground"
        assert node.info("server")["process_supervised"] == "systemd"
        node.shutdown("NOSAVE")
        assert b"STOPPING=1" in ear.recv(1000)


def test_systemd_is_not_there(servers, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    node = servers.node(supervised="systemd")
    assert node.info("server")["process_supervised"] == "no" and "NOTIFY_SOCKET not found" in node.log_tail()


def test_every_role_explains_itself(tmp_path):
    if covey.COVEY_IS_REDIS:
        raise TestFailure("this is a redis-server")
    roles = re.findall(r"^  ([a-z-]+) ", covey.run([covey.COVEY_BIN, "--help"]), re.M)
    assert {"server", "proxy", "up", "down", "check-rdb", "check-aof", "pool-of"} == set(roles)
    for role in set(roles):
        assert f"Usage: covey {role} " in covey.run([covey.COVEY_BIN, role, "--help"], timeout=10)
    link = tmp_path / "redis-server"
    link.symlink_to(covey.COVEY_BIN)
    assert "Usage: covey server" in covey.run([str(link), "--help"], timeout=10)


@pytest.mark.parametrize("kind", ["covey", "redis"])
def test_oom_score(servers, kind):
    def score():
        with open(f"/proc/{node.pid}/oom_score_adj") as file:
            return int(file.read())
    with open("/proc/self/oom_score_adj") as file:
        base = int(file.read())
    node = servers.node(kind)
    assert score() == base
    assert node.cmd("CONFIG", "SET", "oom-score-adj", "relative", "oom-score-adj-values", "10 20 30") and score() == base + 10
    node.cmd("REPLICAOF", "127.0.0.1", "1")
    assert score() == base + 20
    assert node.cmd("CONFIG", "SET", "oom-score-adj", "absolute", "oom-score-adj-values", "500 400 30") and score() == 400
    node.cmd("REPLICAOF", "NO", "ONE")
    assert score() == 500
    assert node.cmd("CONFIG", "SET", "oom-score-adj-values", "2000 2000 2000") and score() == 1000
    assert node.cmd("CONFIG", "SET", "oom-score-adj", "no") and score() == base
    node = servers.node(kind, oom_score_adj="yes", oom_score_adj_values="300 400 500")
    assert score() == base + 300
