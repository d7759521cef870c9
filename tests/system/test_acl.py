"""Users: the ACL file, redis.conf, reloads, disconnects, transactions, the log, replicas, rename-command."""
import os
import re
import threading
import time

import pytest
import redis

import covey
from covey import wait_for, wait_in_sync
from test_start import starts_not

HASH_P = "148de9c5a7a44d19e56cd9ae1a554bf67847afb0c58f6e12fa29ac7ddfca9940"  # of "p"
DEFAULT = "user default on nopass ~* &* +@all"


def users(node, **auth):
    return [line.decode() if isinstance(line, bytes) else line for line in node.new_client(**auth).execute_command("ACL", "LIST")]


def refused(error, client, *words):
    """The client library takes some codes off the text; they count here all the same."""
    codes = {"NoPermissionError": "NOPERM ", "AuthenticationError": "NOAUTH WRONGPASS "}
    with pytest.raises((redis.ResponseError, redis.AuthenticationError)) as caught:
        client.execute_command(*words)
    text = codes.get(type(caught.value).__name__, "") + str(caught.value)
    assert re.search(error, text), text
    return text


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def log_in(node, name, password="p"):
    return node.new_client(username=name, password=password, single_connection_client=True)


def wait_closed(client, what):
    def closed():
        try:
            client.connection.can_read(0)
            client.connection.send_command("PING")
            client.connection.read_response()
        except redis.ConnectionError:
            return True
        except redis.ResponseError:
            return False
        return False

    client.connection.retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    wait_for(what, closed, timeout=5)


@pytest.fixture
def file_node(servers):
    directory = servers.directory("acl")
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "users.acl")
    write(path, "user alice on #%s ~a* +@read\nuser bob off +get\n" % HASH_P)
    node = servers.node(directory=directory, aclfile=path)
    node.acl = path
    return node


ALICE = "user alice on #%s ~a* resetchannels -@all +@read" % HASH_P


@pytest.mark.sanitizer
def test_file(file_node):
    """Loaded at the start, again by LOAD, all or nothing; SAVE writes what LIST shows."""
    node = file_node
    assert users(node) == [ALICE, "user bob off resetchannels -@all +get", DEFAULT]
    alice = log_in(node, "alice")
    assert alice.get("a") is None
    write(node.acl, "user alice on +nosuch\nuser bob on\nuser bob on\nnonsense\nuser c (+get\n")
    error = str(refused("Error in applying operation", node.new_client(), "ACL", "LOAD"))
    for part in (":1: Error in applying operation '+nosuch'", "WARNING: Duplicate user 'bob' found on line 3",
                 ":4 should start with user keyword", ":5: Unmatched parenthesis", "no change to the previously active"):
        assert part in error, error
    assert users(node)[0] == ALICE and alice.get("a") is None, "a bad file changed something"
    write(node.acl, "user alice on >q ~b* +get\nuser default on nopass ~* &* +@all -debug\n")
    assert node.cmd("ACL", "LOAD") in (b"OK", "OK", True)
    wait_closed(alice, "a client of a user that was loaded anew to be disconnected")
    assert log_in(node, "alice", "q").get("b") is None
    node.cmd("ACL", "SETUSER", "carol", "on", "nopass", "+ping", "(~x +get)")
    node.cmd("ACL", "SAVE")
    with open(node.acl) as file:
        assert file.read().splitlines() == users(node)
    before = users(node)
    node.terminate()
    node.start()
    assert users(node) == before
    refused("without a config file", node.new_client(), "CONFIG", "REWRITE")


def test_file_that_is_bad_at_the_start(servers):
    directory = servers.directory("bad")
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, "u.acl")
    write(path, "user a +nosuch\n")
    _, log = starts_not(servers, aclfile=path)
    assert "Aborting Redis startup because of ACL errors" in log
    _, log = starts_not(servers, aclfile=path + ".missing")
    assert "No such file" in log
    _, log = starts_not(servers, aclfile=path, config="user a on\n")
    assert "but not both" in log
    for line, text in (("user a +nosuch", "Error loading ACL rule '+nosuch' for the user named 'a'"),
                       ("user a (+get", "Error in user declaration"), ("user a on\nuser a off", "Duplicate user"),
                       ("user", "Bad directive"), ("rename-command nosuch x", "No such command in rename-command"),
                       ("rename-command get set", "Target command name already exists")):
        _, log = starts_not(servers, config=line + "\n")
        assert text in log, (line, log)


def test_redis_conf_and_rewrite(servers):
    node = servers.node(config="""# users
user alice on >p ~a* +@all -@dangerous (~b* +get)
# between
user bob off
requirepass secret
# end
""", start=False)
    node.start(wait=False)
    client = wait_for("the node", lambda: node.new_client(password="secret"))
    wait_for("an answer", client.ping)
    assert log_in(node, "alice").execute_command("ACL", "WHOAMI") in (b"alice", "alice")
    refused("WRONGPASS", node.new_client(), "AUTH", "bob", "")
    client.execute_command("ACL", "DELUSER", "bob")
    client.execute_command("ACL", "SETUSER", "carol", "on", "nopass")
    client.execute_command("CONFIG", "REWRITE")
    with open(node.config_file) as file:
        text = file.read()
    shown = users(node, password="secret")
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("user ")] == shown
    assert lines.index("# users") < lines.index(shown[0]) < lines.index("# between") < lines.index(shown[1]) < lines.index("# end")
    node.terminate()
    node.start(wait=False)
    # As in redis-server, a default user that stands in the file is the last word, and is shown as it was described.
    after = wait_for("the users", lambda: users(node, password="secret"))
    assert [u.replace(" sanitize-payload", "") for u in after] == shown


@pytest.mark.sanitizer
def test_deleted_and_changed_users_are_disconnected(node):
    node.cmd("ACL", "SETUSER", "a", "on", ">p", "~*", "&*", "+@all")
    node.cmd("ACL", "SETUSER", "b", "on", ">p", "~*", "&*", "+@all")
    a, b = log_in(node, "a"), log_in(node, "b")
    assert a.ping() and b.ping()
    listener = log_in(node, "b")
    listener.connection.send_command("SUBSCRIBE", "news", "chat")
    listener.connection.read_response(), listener.connection.read_response()
    node.cmd("ACL", "SETUSER", "b", "resetchannels", "&news", "&chat")
    assert b.ping()
    listener.connection.send_command("PING")
    assert listener.connection.read_response()
    node.cmd("ACL", "SETUSER", "b", "resetchannels", "&news")
    wait_closed(listener, "a listener of a channel that is not allowed any more to be disconnected")
    assert b.ping(), "only listeners are disconnected"
    assert node.cmd("CLIENT", "KILL", "USER", "b") == 1
    wait_closed(b, "CLIENT KILL USER")
    assert a.ping()
    assert node.cmd("ACL", "DELUSER", "a", "b", "nobody") == 2
    wait_closed(a, "a client of a deleted user to be disconnected")
    refused("WRONGPASS", node.new_client(), "AUTH", "a", "p")


def test_exec_checks_again(node):
    node.cmd("ACL", "SETUSER", "a", "on", ">p", "~*", "+@all")
    a = log_in(node, "a")
    for words in (("MULTI",), ("SET", "x", "1"), ("GET", "y"), ("INCR", "n")):
        a.execute_command(*words)
    node.cmd("ACL", "SETUSER", "a", "-incr", "resetkeys", "~x", "~n")
    a.connection.send_command("EXEC")
    done = a.connection.read_response()
    assert done[0] in (b"OK", "OK")
    assert "no permission to touch the specified keys" in str(done[1])
    assert "no permission to execute the command or subcommand" in str(done[2])
    assert node.cmd("GET", "n") is None
    entries = node.new_client().acl_log()
    assert [(e["reason"], e["context"], e["object"]) for e in entries] == [("command", "multi", "incr"), ("key", "multi", "y")]
    stats = node.info("stats")
    assert stats["acl_access_denied_cmd"] == 1 and stats["acl_access_denied_key"] == 1


@pytest.mark.parametrize("kind", ["covey", "redis"])
def test_log_names_the_command_that_was_sent(servers, kind):
    node = servers.node(kind)
    node.cmd("ACL", "SETUSER", "u", "on", ">p", "~k*", "+@all")
    with log_in(node, "u") as client:
        refused("NOPERM", client, "GET", "other")
        refused("can't access", client, "EVAL", "return redis.call('GET', 'other2')", 0)
        client.execute_command("MULTI")
        client.execute_command("SET", "k", 1)
        node.cmd("ACL", "SETUSER", "u", "-set")
        # the library would take the reply of EXEC for what it queued itself
        client.connection.send_command("EXEC")
        client.connection.read_response()
        client.execute_command("MULTI")
        client.execute_command("CLIENT", "INFO")
        client.connection.send_command("EXEC")
        assert b" cmd=exec " in client.connection.read_response()[0]
    assert re.findall(r" cmd=([^ ']+)", node.cli("ACL", "LOG")) == ["exec", "eval", "get"]


def test_log_is_bounded(node):
    node.cmd("CONFIG", "SET", "acllog-max-len", 5)
    node.cmd("ACL", "SETUSER", "a", "on", ">p", "+get", "~k")
    a = log_in(node, "a")
    for i in range(30):
        refused("NOPERM", a, "GET", "x%d" % i)
    for _ in range(7):
        refused("NOPERM", a, "GET", "x29")
    entries = node.new_client().acl_log()
    assert [e["object"] for e in entries] == ["x29", "x28", "x27", "x26", "x25"] and entries[0]["count"] == 8
    big = b"y" * (1 << 20)
    refused("NOPERM", a, "GET", big)
    assert len(node.new_client().acl_log()[0]["object"]) == 4096
    node.cmd("ACL", "LOG", "RESET")
    assert node.new_client().acl_log() == []


@pytest.mark.sanitizer
def test_hostile_patterns_and_many_users(node):
    """Matching stays polynomial, and neither many users nor many rules make a single step long."""
    node.cmd("ACL", "SETUSER", "glob", "on", "nopass", "+get", "~" + "*a" * 40 + "*b")
    glob = log_in(node, "glob")
    begin = time.monotonic()
    refused("NOPERM", glob, "GET", "a" * 4000)
    assert time.monotonic() - begin < 10 * covey.PATIENCE
    many = 2000 if covey.SANITIZED else 20000
    pipe = node.new_client().pipeline(transaction=False)
    for i in range(many):
        pipe.execute_command("ACL", "SETUSER", "u%d" % i, "on", ">p", "~k%d" % i, "+@read")
    pipe.execute()
    assert len(node.cmd("ACL", "USERS")) == many + 2
    assert len(users(node)) == many + 2
    rules = ["~pattern:%d*" % i for i in range(many)]
    begin = time.monotonic()
    node.cmd("ACL", "SETUSER", "wide", "on", "nopass", "+get", *rules)
    node.cmd("ACL", "SETUSER", "wide", *rules)  # all of them are known already
    assert time.monotonic() - begin < 10 * covey.PATIENCE
    assert log_in(node, "wide").get("pattern:%dx" % (many - 1)) is None
    pipe = node.new_client().pipeline(transaction=False)
    for i in range(many):
        pipe.execute_command("ACL", "DELUSER", "u%d" % i)
    assert pipe.execute() == [1] * many


@pytest.mark.sanitizer
def test_changes_beside_traffic(servers):
    """Users come, change and go while connections on several workers use them."""
    node = servers.node(workers=4)
    stop, wrong = threading.Event(), []

    def work(name):
        while not stop.is_set():
            try:
                c = log_in(node, name)
                for _ in range(20):
                    assert c.execute_command("ACL", "WHOAMI") in (name, name.encode())
                    try:
                        c.set("k", name)
                        c.get("other")
                    except redis.exceptions.NoPermissionError:
                        pass
            except (redis.ConnectionError, redis.AuthenticationError, redis.ResponseError):
                pass
            except Exception as error:  # noqa: BLE001
                wrong.append(error)
                return

    threads = [threading.Thread(target=work, args=("u%d" % (i % 3),)) for i in range(6)]
    for t in threads:
        t.start()
    deadline = time.monotonic() + 4
    n = 0
    while time.monotonic() < deadline:
        name = "u%d" % (n % 3)
        node.cmd("ACL", "SETUSER", name, "on", ">p", "+@all", "resetkeys", "~k" if n % 2 else "~*")
        if n % 5 == 0:
            node.cmd("ACL", "DELUSER", name)
        n += 1
    stop.set()
    for t in threads:
        t.join()
    assert not wrong, wrong
    assert n > 20


@pytest.mark.parametrize("primary_kind,replica_kind", [("covey", "redis"), ("redis", "covey"), ("covey", "covey")])
def test_masteruser(servers, primary_kind, replica_kind):
    """A replica logs in as a user that may do no more than replicate; when that user goes, so does the link."""
    primary = servers.node(primary_kind, repl_ping_replica_period=1)
    primary.cmd("ACL", "SETUSER", "repl", "on", ">p", "+psync", "+replconf", "+ping")
    primary.cmd("CONFIG", "SET", "requirepass", "secret")
    client = primary.new_client(password="secret")
    client.set("before", "1")
    replica = servers.node(replica_kind, masteruser="repl", masterauth="p", repl_ping_replica_period=1)
    replica.cmd("REPLICAOF", primary.host, primary.port)
    wait_for("the link", lambda: replica.info("replication")["master_link_status"] == "up", timeout=20)
    client.set("after", "1")
    wait_for("the write", lambda: replica.cmd("GET", "after"))
    assert "user=repl" in str(client.execute_command("CLIENT", "LIST", "TYPE", "replica"))
    client.execute_command("ACL", "DELUSER", "repl")
    wait_for("the link to be cut", lambda: replica.info("replication")["master_link_status"] == "down", timeout=20)
    client.execute_command("ACL", "SETUSER", "repl", "on", ">p", "+psync", "+replconf", "+ping")
    wait_for("the link", lambda: replica.info("replication")["master_link_status"] == "up", timeout=20)


@pytest.mark.parametrize("target_kind", ["covey", "redis"])
def test_migrate_as_a_user(servers, target_kind):
    source, target = servers.node("covey"), servers.node(target_kind)
    target.cmd("ACL", "SETUSER", "mover", "on", ">p", "+restore", "+select", "~k*")
    target.cmd("CONFIG", "SET", "requirepass", "secret")
    source.cmd("SET", "k1", "v")
    source.cmd("SET", "x1", "v")
    here = source.new_client()
    refused("NOAUTH", here, "MIGRATE", target.host, target.port, "k1", 0, 1000)
    refused("NOPERM", here, "MIGRATE", target.host, target.port, "x1", 0, 1000, "AUTH2", "mover", "p")
    here.execute_command("MIGRATE", target.host, target.port, "k1", 0, 1000, "AUTH2", "mover", "p")
    here.execute_command("MIGRATE", target.host, target.port, "x1", 0, 1000, "AUTH", "secret")
    assert source.cmd("DBSIZE") == 0
    assert target.new_client(password="secret").dbsize() == 2


def test_cluster(servers):
    """The redirection comes after the permission, and not before."""
    cluster = servers.cluster(["covey", "covey", "redis"])
    for node in cluster.nodes:
        node.cmd("ACL", "SETUSER", "a", "on", ">p", "~k*", "+get", "+cluster|keyslot")
    for node in cluster.nodes:
        a = log_in(node, "a")
        answers = []
        for words in (("GET", "k1"), ("GET", "x"), ("SET", "k1", "v"), ("CLUSTER", "NODES"), ("CLUSTER", "KEYSLOT", "k1")):
            a.connection.send_command(*words)
            try:
                answers.append(a.connection.read_response())
            except redis.ResponseError as error:
                answers.append(error)
        assert answers[0] is None or "MOVED" in str(answers[0])
        assert all(isinstance(e, redis.exceptions.NoPermissionError) for e in answers[1:4]), answers
        assert answers[4] == covey.key_slot("k1")


def test_rename_command(servers):
    node = servers.node(config="rename-command GET fetch\nrename-command FLUSHALL \"\"\nrename-command config cfg\n")
    c = node.new_client()
    refused("unknown command", c, "get", "a")
    refused("unknown command", c, "FLUSHALL")
    refused("unknown command", c, "CONFIG", "GET", "port")
    c.set("a", "1")
    assert c.execute_command("FETCH", "a") in (b"1", "1")
    assert c.execute_command("CFG", "GET", "databases")
    c.execute_command("MULTI")
    c.execute_command("fetch", "a")
    assert c.execute_command("EXEC") in ([b"1"], ["1"])
    assert int(node.cli("COMMAND", "COUNT")) == int(servers.node().cli("COMMAND", "COUNT")) - 1
    names = node.cli("COMMAND", "LIST").split()
    assert not any("flushall" in n for n in names) and any("config" in n for n in names)
    # Rules go by the commands' own names.
    c.execute_command("ACL", "SETUSER", "a", "on", ">p", "~*", "+@all", "-get")
    refused("NOPERM.*'get'", log_in(node, "a"), "FETCH", "a")
    refused("Unknown command", c, "ACL", "SETUSER", "a", "+fetch")


def test_protected_commands(servers):
    for value, expected in (("no", False), ("local", True), ("yes", True)):
        node = servers.node(enable_debug_command=value, enable_protected_configs=value)
        c = node.new_client()
        if expected:
            c.execute_command("DEBUG", "SLEEP", "0")
            c.execute_command("CONFIG", "SET", "dir", node.dir)
        else:
            refused("DEBUG command not allowed", c, "DEBUG", "SLEEP", "0")
            refused("can't set protected config", c, "CONFIG", "SET", "dir", node.dir)
        refused("immutable", c, "CONFIG", "SET", "enable-debug-command", "yes")


def test_logging_in(node):
    c = node.new_client(single_connection_client=True)
    refused("AUTH <password> called without any password", c, "AUTH", "x")
    node.cmd("CONFIG", "SET", "requirepass", "secret")
    assert c.ping(), "who was in stays in"
    late = node.new_client(single_connection_client=True)
    refused("NOAUTH|Authentication required", late, "PING")
    refused("WRONGPASS|invalid username", late, "AUTH", "wrong")
    late.execute_command("AUTH", "secret")
    assert late.ping()
    last = node.new_client(single_connection_client=True)
    refused("NOAUTH|must be called", last, "HELLO", "3")
    last.execute_command("HELLO", "2", "AUTH", "default", "secret", "SETNAME", "me")
    assert last.client_getname() == "me"
    out = node.new_client(single_connection_client=True)
    late.execute_command("CONFIG", "SET", "requirepass", "")
    assert out.ping(), "no password is asked for any more"
    late.execute_command("ACL", "SETUSER", "default", "off")
    refused("NOAUTH|Authentication required", node.new_client(single_connection_client=True), "PING")
    slow = late.execute_command("SLOWLOG", "GET", 100)
    assert b"secret" not in repr(slow).encode()
