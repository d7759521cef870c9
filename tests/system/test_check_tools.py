"""covey check-rdb and check-aof beside Debian's redis-check-rdb and redis-check-aof: outputs, exit statuses, files."""
import os
import re
import subprocess

import pytest

import covey
from covey import fill_all_types


def command(*words):
    words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


SET, MULTI, EXEC = command("SET", "a", 1), command("MULTI"), command("EXEC")
TIMES = b"#TS:100\r\n" + SET + b"#TS:200\r\n" + SET + b"#TS:300\r\n" + SET
FILES = {
    "good": SET + SET, "empty": b"", "torn": SET + b"*3\r\n$3\r\nSE", "torn header": SET + b"*3\r\n",
    "no end of line": SET + b"*3", "torn value": SET + SET[:-2], "garbage": SET + b"garbage\r\n" + SET,
    "bad count": SET + b"*x\r\n", "zero": SET + b"*0\r\n" + SET, "bad length": SET + b"*1\r\n$-1\r\n",
    "bad prefix": SET + b"*1\r\n+OK\r\n", "bad end": SET + b"*1\r\n$3\r\nSETxx" + SET,
    "huge": SET + b"*1\r\n$99999999999\r\nx", "transaction": SET + MULTI + SET + EXEC, "open": SET + MULTI + SET,
    "nested": SET + MULTI + MULTI + SET + EXEC, "stray exec": SET + EXEC + SET, "times": TIMES,
    "position": b"#POS:0123456789abcdef0123456789abcdef01234567:5\r\n" + SET, "torn annotation": SET + b"#hel",
}


@pytest.fixture(scope="module")
def rdb(tmp_path_factory):
    """An RDB of redis-server's with everything in it."""
    directory = str(tmp_path_factory.mktemp("rdb"))
    node = covey.Node("redis", directory).start()
    fill_all_types(node.client)
    node.new_client(db=3).set("k", "v")
    node.cmd("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 1 end)")
    node.cmd("SET", "gone", 1, "PX", 100000)
    node.cmd("SAVE")
    node.kill()
    with open(os.path.join(directory, "dump.rdb"), "rb") as file:
        return file.read()


def links(directory):
    for name in ("redis-check-rdb", "redis-check-aof"):
        if not os.path.exists(os.path.join(directory, name)):
            os.symlink(covey.COVEY_BIN, os.path.join(directory, name))
    return directory


def run(tool, arguments, files, directory, answer=b""):
    """(exit status, standard output, files afterwards)"""
    os.makedirs(directory)
    for name, content in files.items():
        with open(os.path.join(directory, name), "wb") as file:
            file.write(content)
    done = subprocess.run([tool, *arguments], input=answer, capture_output=True, cwd=directory, timeout=60)
    after = {}
    for name in files:
        with open(os.path.join(directory, name), "rb") as file:
            after[name] = file.read()
    return done.returncode, done.stdout.decode(errors="replace"), after


def assert_same(tmp_path, name, arguments, files, answer=b"", loosely=False):
    links(str(tmp_path))
    theirs = run("/usr/bin/" + name, arguments, files, str(tmp_path / "theirs"), answer)
    ours = run(str(tmp_path / name), arguments, files, str(tmp_path / "ours"), answer)
    assert ours[0] == theirs[0] and ours[2] == theirs[2]
    if loosely:
        assert ours[1].splitlines()[0] == theirs[1].splitlines()[0]
    else:
        assert ours[1] == theirs[1]
    return ours


@pytest.mark.parametrize("name", FILES)
def test_one_file(tmp_path, name):
    assert_same(tmp_path, "redis-check-aof", ["x.aof"], {"x.aof": FILES[name]})


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("answer", [b"y\n", b"n\n", b""])
def test_fix(tmp_path, name, answer):
    assert_same(tmp_path, "redis-check-aof", ["--fix", "x.aof"], {"x.aof": FILES[name]}, answer)


@pytest.mark.parametrize("when", ["0", "50", "100", "150", "200", "299", "300", "400", "abc"])
def test_back_to_a_time(tmp_path, when):
    assert_same(tmp_path, "redis-check-aof", ["--truncate-to-timestamp", when, "x.aof"], {"x.aof": TIMES})


@pytest.mark.parametrize("arguments", [[], ["--fix"], ["--what", "x.aof"], ["nope.aof"], ["a", "b", "c", "d"]])
def test_arguments(tmp_path, arguments):
    links(str(tmp_path))
    theirs = run("/usr/bin/redis-check-aof", arguments, {"x.aof": SET}, str(tmp_path / "theirs"))
    ours = run(str(tmp_path / "redis-check-aof"), arguments, {"x.aof": SET}, str(tmp_path / "ours"))
    assert ours[0] == theirs[0]
    assert re.sub(r"\S*redis-check-aof", "", ours[1]) == re.sub(r"\S*redis-check-aof", "", theirs[1])


MANIFEST = b"# files\nfile b seq 1 type b\nfile h seq 1 type h\nfile i1 seq 1 type i\nfile i2 seq 2 type i\n"


@pytest.mark.parametrize("arguments", [[], ["--fix"], ["--truncate-to-timestamp", "450"],
                                       ["--truncate-to-timestamp", "250"], ["--truncate-to-timestamp", "50"]])
@pytest.mark.parametrize("first,second", [(SET, SET), (b"", SET), (SET + b"*3", SET), (SET, SET + b"*3"),
                                          (TIMES, b"#TS:400\r\n" + SET + b"#TS:500\r\n" + SET), (SET + EXEC, SET)])
def test_manifest(tmp_path, rdb, arguments, first, second):
    files = {"m": MANIFEST, "b": rdb, "h": b"", "i1": first, "i2": second}
    assert_same(tmp_path, "redis-check-aof", arguments + ["m"], files, b"y\n")


@pytest.mark.parametrize("manifest", [b"file x\n", b"", b"file i1 seq 1 type i\n", b"file a/b seq 1 type b\n"])
def test_manifest_refused(tmp_path, manifest):
    assert_same(tmp_path, "redis-check-aof", ["m"], {"m": manifest, "i1": SET}, loosely=True)


def test_preamble(tmp_path, rdb):
    for n, content in enumerate((rdb, rdb + SET, rdb + SET + b"*3\r\n", rdb[:-1] + b"x", rdb[:60])):
        assert_same(tmp_path / str(n), "redis-check-aof", ["x.aof"], {"x.aof": content}) if (tmp_path / str(n)).mkdir() is None else None


def test_rdb(tmp_path, rdb):
    cases = {"good": rdb, "empty": b"", "signature": b"HELLO" + rdb[5:], "version": b"REDIS0099" + rdb[9:],
             "no checksum": rdb[:-8] + bytes(8), "checksum": rdb[:-1] + bytes([rdb[-1] ^ 1]), "behind": rdb + b"zzz",
             "cut in the head": rdb[:20], "cut at the end": rdb[:-3]}
    for name, content in cases.items():
        (tmp_path / name).mkdir()
        assert_same(tmp_path / name, "redis-check-rdb", ["x.rdb"], {"x.rdb": content})


def test_damaged_rdb(tmp_path, rdb):
    """Where something inside is damaged the verdict is the same, and the report has its parts."""
    import random
    chance = random.Random(7)
    for n in range(25):
        content = bytearray(rdb)
        content[chance.randrange(100, len(rdb) - 10)] ^= 1 << chance.randrange(8)
        (tmp_path / str(n)).mkdir()
        links(str(tmp_path / str(n)))
        code, text, _ = run(str(tmp_path / str(n) / "redis-check-rdb"), ["x.rdb"], {"x.rdb": bytes(content)},
                            str(tmp_path / str(n) / "ours"))
        assert code == 1
        assert "--- RDB ERROR DETECTED ---" in text and "[additional info] While doing: " in text
        assert "keys read" in text


def test_the_role(tmp_path, rdb):
    with open(tmp_path / "x.rdb", "wb") as file:
        file.write(rdb)
    assert "RDB looks OK!" in covey.run([covey.COVEY_BIN, "check-rdb", str(tmp_path / "x.rdb")])
    with open(tmp_path / "x.aof", "wb") as file:
        file.write(SET)
    assert "AOF x.aof is valid" in covey.run([covey.COVEY_BIN, "check-aof", str(tmp_path / "x.aof")])
