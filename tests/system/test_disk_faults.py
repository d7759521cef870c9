"""Disks that fail under a server: errors of each call, slow syncs, other file systems, files that somebody removes.  What the clients, the log
and INFO say, and that all goes on without a restart once the cause is gone."""
import errno
import glob
import os
import random
import threading
import time

import pytest
import redis

import covey
from covey import wait_for
from faulty_disk import Disk

SHORT = 9999  # half of a write is done


def on_a_bad_disk(servers, **directives):
    node = servers.node(start=False, **directives)
    disk = Disk(servers, node)
    node.start()
    return node, disk


def persistence(node, field):
    return node.stat(field, "persistence")


def is_written_again(node):
    try:
        return node.cmd("SET", "probe", 1)
    except redis.ResponseError as error:
        assert str(error).startswith("MISCONF"), error
        return False


def restart(node):
    """kill -9 once what is acknowledged is in the file: while a sync is under way it need not be."""
    wait_for("all to be written", lambda: not (persistence(node, "aof_enabled") and persistence(node, "aof_buffer_length")))
    node.kill()
    wait_for("the port to be free", lambda: covey._bindable(node.port))
    node.prefix = []
    node.start()


# ---- the AOF ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("call,error", [("write", errno.EIO), ("write", errno.ENOSPC), ("write", errno.EDQUOT),
                                        ("sync", errno.EIO), ("sync", errno.ENOSPC)])
def test_the_aof_cannot_be_written(servers, call, error):
    node, disk = on_a_bad_disk(servers, appendonly="yes", appendfsync="everysec")
    node.cmd("SET", "a", 1)
    assert persistence(node, "aof_last_write_status") == "ok"
    disk("fail", call, ".incr.aof", error, 0)

    def refused():
        try:
            node.cmd("INCR", "count")
            return False
        except redis.ResponseError as refusal:
            return str(refusal)
    text = wait_for("a refusal", refused, 5, 0.01)
    assert text == f"MISCONF Errors writing to the AOF file: {os.strerror(error)}"
    before = int(node.cmd("GET", "count"))
    assert persistence(node, "aof_last_write_status") == "err"
    assert node.cmd("GET", "a") == b"1", "reads go on"
    with pytest.raises(redis.ResponseError, match="MISCONF"):
        node.cmd("PING")
    log = node.log_text()
    assert (b"Error writing to the AOF file: " if call == "write" else b"Fail to fsync the AOF file: ") \
        + os.strerror(error).encode() in log
    disk("clear")
    wait_for("writes again", lambda: is_written_again(node), 5)
    assert persistence(node, "aof_last_write_status") == "ok"
    if call == "write":
        assert b"AOF write error looks solved" in node.log_text()
    else:  # what a failed sync was about may be lost for good without another error
        wait_for("everything to be written anew", lambda: persistence(node, "aof_rewrites") == 1
                 and not persistence(node, "aof_rewrite_in_progress"))
    restart(node)
    assert int(node.cmd("GET", "count")) == before, "nothing refused was executed, nothing acknowledged is lost"
    assert node.cmd("GET", "probe") == b"1"


def test_short_writes_are_taken_back(servers):
    """Half a command at the end of the file, and then an error; also when what was written cannot be cut off."""
    node, disk = on_a_bad_disk(servers, appendonly="yes", appendfsync="everysec")
    acknowledged = 0
    for round_ in range(24 if covey.LONG else 6):
        if round_ % 3 == 2:
            disk("fail", "truncate", "*", errno.EIO, 0)
        disk("fail", "write", ".incr.aof", SHORT, 1 + round_ % 2)
        disk("fail", "write", ".incr.aof", errno.ENOSPC, 1 + round_ % 2)
        for _ in range(20):
            try:
                node.cmd("INCR", "count")
                acknowledged += 1
            except redis.ResponseError as refusal:
                assert "MISCONF" in str(refusal)
        disk("clear")
        wait_for("writes again", lambda: is_written_again(node), 5)
    restart(node)
    assert int(node.cmd("GET", "count")) == acknowledged
    assert b"!!! " not in node.log_text(), "nothing had to be cut off at the start"


@pytest.mark.parametrize("call", ["write", "sync"])
def test_always_ends_rather_than_lies(servers, call):
    node, disk = on_a_bad_disk(servers, appendonly="yes", appendfsync="always")
    for n in range(1, 4):
        node.cmd("INCR", "count")
    node.expected_dead = True
    disk("fail", call, ".incr.aof", errno.EIO, 0)
    with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
        node.cmd("INCR", "count")
    assert node.wait_exit() == 1
    assert b"'always'" in node.log_text() and b"Input/output error" in node.log_text()
    disk.close()
    node.prefix = []
    node.start()
    assert int(node.cmd("GET", "count")) in ((3,) if call == "write" else (3, 4))


def test_a_slow_sync_is_told_and_holds_up_nobody(servers):
    node, disk = on_a_bad_disk(servers, appendonly="yes", appendfsync="everysec")
    disk("delay", "sync", ".incr.aof", 2600)
    client, longest, pending = node.new_client(), 0.0, 0
    until = time.monotonic() + 5
    while time.monotonic() < until:
        began = time.monotonic()
        client.incr("count")
        longest = max(longest, time.monotonic() - began)
        pending |= persistence(node, "aof_pending_bio_fsync")
    print(f"longest stall beside syncs of 2.6 s: {longest * 1000:.0f} ms")
    assert pending == 1
    assert persistence(node, "aof_delayed_fsync") > 0
    assert b"Asynchronous AOF fsync is taking too long (disk is busy?)" in node.log_text()
    assert persistence(node, "aof_last_write_status") == "ok"
    disk("clear")
    assert longest < 2, longest


@pytest.mark.parametrize("call,error,path", [("open", errno.EROFS, "*"), ("open", errno.EACCES, ".incr.aof"), ("rename", errno.EIO, "*"),
                                             ("write", errno.ENOSPC, "temp-rewrite"), ("sync", errno.EIO, "temp-rewrite"),
                                             ("write", errno.ENOSPC, "manifest"), ("sync", errno.EIO, "manifest")])
def test_a_rewrite_fails(servers, call, error, path):
    node, disk = on_a_bad_disk(servers, appendonly="yes", appendfsync="everysec")
    for n in range(50):
        node.cmd("RPUSH", "list", n)
    disk("fail", call, path, error, 0)
    node.cmd("BGREWRITEAOF")
    wait_for("the failure", lambda: persistence(node, "aof_last_bgrewrite_status") == "err", 10)
    assert persistence(node, "aof_rewrites_consecutive_failures") == 1
    assert os.strerror(error).encode() in node.log_text()
    assert b"Background AOF rewrite terminated with error" in node.log_text()
    for n in range(50, 100):
        node.cmd("RPUSH", "list", n)  # is taken all the while
    disk("clear")
    node.cmd("BGREWRITEAOF")
    wait_for("the rewrite", lambda: persistence(node, "aof_last_bgrewrite_status") == "ok", 10)
    assert persistence(node, "aof_rewrites_consecutive_failures") == 0
    names = sorted(os.listdir(os.path.join(node.dir, "appendonlydir")))
    assert len(names) == 3, names
    node.cmd("RPUSH", "list", 100)
    restart(node)
    assert node.cmd("LRANGE", "list", 0, -1) == [b"%d" % n for n in range(101)]


def test_a_rewrite_without_a_directory(servers):
    node, disk = on_a_bad_disk(servers, appendonly="yes", appendfsync="everysec")
    node.cmd("SET", "a", 1)
    for path in glob.glob(os.path.join(node.dir, "appendonlydir", "*")):
        os.unlink(path)
    os.rmdir(os.path.join(node.dir, "appendonlydir"))
    disk("fail", "open", "appendonlydir", errno.EROFS, 0)
    with pytest.raises(redis.ResponseError, match="Can't execute an AOF background rewriting"):
        node.cmd("BGREWRITEAOF")
    assert persistence(node, "aof_last_bgrewrite_status") == "err"
    assert b"Can't open or create append-only dir" in node.log_text()
    disk("clear")
    node.cmd("BGREWRITEAOF")
    wait_for("the rewrite", lambda: persistence(node, "aof_last_bgrewrite_status") == "ok"
             and not persistence(node, "aof_rewrite_in_progress"))
    restart(node)
    assert node.cmd("GET", "a") == b"1"


def test_what_cannot_be_deleted_is_deleted_later(servers):
    node, disk = on_a_bad_disk(servers, appendonly="yes")
    disk("fail", "unlink", "*", errno.EIO, 0)
    for n in range(3):
        node.cmd("SET", "a", n)
        before = persistence(node, "aof_rewrites")
        node.cmd("BGREWRITEAOF")
        wait_for("the rewrite", lambda: persistence(node, "aof_rewrites") > before
                 and not persistence(node, "aof_rewrite_in_progress"))
        assert persistence(node, "aof_last_bgrewrite_status") == "ok"
    disk("clear")
    restart(node)
    assert node.cmd("GET", "a") == b"2"
    assert b"Can't remove the history file appendonly.aof.1.base.rdb: Input/output error" in node.log_text()
    node.cmd("BGREWRITEAOF")
    wait_for("the old files to go", lambda: len(os.listdir(os.path.join(node.dir, "appendonlydir"))) == 3)


def test_random_faults_lose_nothing(servers):
    """Calls of all classes fail now and then under writes and rewrites; in the end every acknowledged write is there, once."""
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    node, disk = on_a_bad_disk(servers, appendonly="yes", appendfsync="everysec", workers=2)
    ended, acknowledged, refused = threading.Event(), [0, 0, 0], [0, 0, 0]

    def write(number):
        client = node.new_client()
        while not ended.is_set():
            try:
                client.execute_command("RPUSH", f"list{number}", acknowledged[number])
                acknowledged[number] += 1
            except redis.ResponseError as refusal:
                assert "MISCONF" in str(refusal), refusal
                refused[number] += 1
                time.sleep(0.002)
    threads = [threading.Thread(target=write, args=(n,), daemon=True) for n in range(3)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + (60 if covey.LONG else 8)
    faults = rules = 0
    while time.monotonic() < until:
        for _ in range(chance.randint(1, 3)):
            call = chance.choice(("write", "write", "sync", "open", "rename", "unlink", "truncate"))
            error = chance.choice((errno.EIO, errno.ENOSPC, SHORT if call == "write" else errno.EROFS))
            disk("fail", call, "*", error, chance.randint(1, 5))
            faults += 1
        if chance.random() < 0.3:
            disk("delay", chance.choice(("sync", "write")), "*", chance.randint(1, 100))
        if chance.random() < 0.3:
            try:
                node.cmd("BGREWRITEAOF")
            except redis.ResponseError:
                pass
        time.sleep(chance.uniform(0.01, 0.3))
        rules += 4
        if chance.random() < 0.5 or rules > 12:
            disk("clear")
            rules = 0
    disk("clear")
    wait_for("writes again", lambda: is_written_again(node), 10)
    ended.set()
    for thread in threads:
        thread.join(10)
    print(f"seed {seed}: {faults} faults, {sum(acknowledged)} acknowledged, {sum(refused)} refused")
    restart(node)
    for n in range(3):
        assert node.cmd("LRANGE", f"list{n}", 0, -1) == [b"%d" % i for i in range(acknowledged[n])], f"seed {seed}"


# ---- snapshots -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("call,error", [("write", errno.ENOSPC), ("write", errno.EIO), ("write", SHORT), ("sync", errno.EIO),
                                        ("rename", errno.EXDEV), ("open", errno.EROFS)])
def test_a_save_fails(servers, call, error):
    node, disk = on_a_bad_disk(servers, save="3600 1000000")
    for n in range(10):
        node.cmd("SET", f"key{n}", "v" * 100)
    node.cmd("BGSAVE")
    wait_for("the first save", lambda: not persistence(node, "rdb_bgsave_in_progress"))
    path = os.path.join(node.dir, "dump.rdb")
    with open(path, "rb") as file:
        good = file.read()
    node.cmd("SET", "new", 1)
    disk("fail", call, "*", error, 1 if error == SHORT else 0)
    node.cmd("BGSAVE")
    wait_for("its end", lambda: not persistence(node, "rdb_bgsave_in_progress"))
    if error == SHORT:  # no failure: the rest is written next
        assert persistence(node, "rdb_last_bgsave_status") == "ok"
        restart(node)
        assert node.cmd("DBSIZE") == 11
        return
    assert persistence(node, "rdb_last_bgsave_status") == "err"
    with pytest.raises(redis.ResponseError, match="^MISCONF Redis is configured to save RDB snapshots, but it's currently "
                                                  "unable to persist to disk"):
        node.cmd("SET", "b", 1)
    assert node.cmd("GET", "new") == b"1"
    assert os.strerror(error).encode() in node.log_text()
    with open(path, "rb") as file:
        assert file.read() == good, "the old file stays"
    assert not glob.glob(os.path.join(node.dir, "temp-*"))
    node.cmd("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
    node.cmd("SET", "b", 1)
    node.cmd("CONFIG", "SET", "stop-writes-on-bgsave-error", "yes")
    disk("clear")
    node.cmd("BGSAVE")
    wait_for("a good save", lambda: persistence(node, "rdb_last_bgsave_status") == "ok")
    node.cmd("SET", "c", 1)
    restart(node)
    assert node.cmd("MGET", "new", "b", "c") == [b"1", b"1", None]


def test_a_save_that_failed_is_tried_again(servers):
    """Save points try again after five seconds, and writes are taken as soon as one works."""
    node, disk = on_a_bad_disk(servers, save="1 1")
    disk("fail", "write", "*", errno.ENOSPC, 0)
    node.cmd("SET", "a", 1)
    wait_for("the failure", lambda: persistence(node, "rdb_last_bgsave_status") == "err")
    disk("clear")
    wait_for("writes again", lambda: is_written_again(node), 12, 0.2)


# ---- other file systems, files changed by others -----------------------------------------------------------------------

def test_directories_on_other_file_systems(servers):
    """dir moved at run time, dir a link elsewhere, the AOF's directory and a replica's too: nothing is renamed across."""
    first, second = servers.file_system("16m"), servers.file_system("16m")
    node = servers.node(start=False, appendonly="yes")
    os.symlink(second, os.path.join(node.dir, "appendonlydir"))
    node.start()
    replica = servers.node(start=False, replicaof=f"127.0.0.1 {node.port}", repl_diskless_load="disabled")
    os.symlink(first, os.path.join(replica.dir, "link"))
    replica.directives["dir"] = os.path.join(replica.dir, "link")
    for n in range(200):
        node.cmd("SET", f"key{n}", n)
    node.cmd("CONFIG", "SET", "dir", node.dir)
    node.cmd("BGREWRITEAOF")
    wait_for("the rewrite", lambda: persistence(node, "aof_rewrites") == 1 and not persistence(node, "aof_rewrite_in_progress"))
    assert persistence(node, "aof_last_bgrewrite_status") == "ok"
    replica.start()
    wait_for("the replica", lambda: replica.stat("master_link_status", "replication") == "up")
    assert replica.cmd("DBSIZE") == 200
    replica.cmd("CONFIG", "SET", "dir", servers.directory("third"))
    replica.cmd("SAVE")
    assert os.path.exists(os.path.join(servers.base, "third", "dump.rdb"))
    node.kill()
    node.start()
    assert node.cmd("DBSIZE") == 200


@pytest.mark.parametrize("harm", ["increment", "manifest", "directory", "emptied"])
def test_files_that_somebody_removes(servers, harm):
    """The server goes on, and a rewrite makes everything whole again."""
    node = servers.node(appendonly="yes")
    for n in range(100):
        node.cmd("SET", f"key{n}", n)
    directory = os.path.join(node.dir, "appendonlydir")
    for path in glob.glob(os.path.join(directory, "*")):
        if harm == "directory" or (harm == "increment" and ".incr." in path) or (harm == "manifest" and "manifest" in path):
            os.unlink(path)
        if harm == "emptied" and ".incr." in path:
            os.truncate(path, 0)
    if harm == "directory":
        os.rmdir(directory)
    node.cmd("SET", "after", 1)
    node.cmd("BGREWRITEAOF")
    wait_for("the rewrite", lambda: persistence(node, "aof_rewrites") == 1 and not persistence(node, "aof_rewrite_in_progress"))
    node.cmd("SET", "later", 1)
    node.kill()
    node.start()
    assert node.cmd("DBSIZE") == 102


def test_a_file_cut_by_somebody_has_no_hole(servers):
    """What comes behind an increment that was emptied can be loaded."""
    node = servers.node(appendonly="yes")
    node.cmd("SET", "a", 1)
    os.truncate(glob.glob(os.path.join(node.dir, "appendonlydir", "*.incr.aof"))[0], 0)
    node.cmd("SET", "b", 1)
    node.kill()
    with open(glob.glob(os.path.join(node.dir, "appendonlydir", "*.incr.aof"))[0], "rb") as file:
        assert file.read().startswith(b"*")


def test_a_removed_snapshot_is_made_anew(servers):
    node = servers.node()
    node.cmd("SET", "a", 1)
    node.cmd("SAVE")
    os.unlink(os.path.join(node.dir, "dump.rdb"))
    assert node.cmd("BGSAVE")
    wait_for("the save", lambda: os.path.exists(os.path.join(node.dir, "dump.rdb")))
    assert persistence(node, "rdb_last_bgsave_status") == "ok"
