"""Static pools: every key has the server that nutcracker gives it."""
import collections
import os
import random
import subprocess

import pytest

import covey
from nutcracker import NUTCRACKER, Nutcracker, Sinks

HASHES = ("one_at_a_time", "md5", "crc16", "crc32", "crc32a", "fnv1_64", "fnv1a_64", "fnv1_32", "fnv1a_32", "hsieh",
          "murmur", "jenkins")
KEYS = 10_000

pytestmark = pytest.mark.skipif(not os.path.exists(NUTCRACKER), reason="nutcracker is not installed")


@pytest.fixture(scope="module")
def sinks(tmp_path_factory):
    s = Sinks(str(tmp_path_factory.mktemp("sinks")), 5)
    yield s
    s.close()


@pytest.fixture
def start(tmp_path):
    started = []

    def one(pools):
        started.append(Nutcracker(str(tmp_path), pools))
        return started[-1]
    yield one
    for n in started:
        n.close()


def some_keys(seed, count=KEYS):
    """Words, numbers and bytes of any value but line ends; lengths 1 to 40, some longer, tags in some."""
    r = random.Random(seed)
    anything = bytes(b for b in range(256) if b not in b"\r\n")
    high = bytes(range(0x80, 0x100))
    keys = []
    for i in range(count):
        kind = i % 5
        length = r.randrange(1, 41) if i % 50 else r.randrange(100, 400)
        if kind == 0:
            key = b"user:%d:name" % r.randrange(10 ** 9)
        elif kind == 1:
            key = bytes(r.choices(anything, k=length))
        elif kind == 2:
            key = bytes(r.choices(high, k=length))
        elif kind == 3:
            key = b"%s{%s}%s" % (bytes(r.choices(b"ab}{", k=r.randrange(4))), bytes(r.choices(high + b"xyz", k=r.randrange(4))),
                                 bytes(r.choices(b"cd}{", k=r.randrange(4))))
        else:
            key = bytes(r.choices(b"abcdefghijklmnopqrstuvwxyz$0123456789", k=length))
        keys.append(key)
    return keys


def ours(conf, pool, keys, without=()):
    words = [covey.COVEY_BIN, "pool-of", conf, pool]
    for name in without:
        words += ["--without", name]
    p = subprocess.run(words, input=b"".join(k + b"\n" for k in keys), capture_output=True, timeout=60)
    assert p.returncode == 0, p.stderr.decode()
    lines = p.stdout.decode().splitlines()
    assert len(lines) == len(keys)
    return [line.split("\t") for line in lines]


def same(sinks, n, pool, keys, without=()):
    """Compares all keys, and answers how many each server has."""
    theirs = n.places(pool, keys)
    address_of = dict(zip(sinks.names, sinks.addresses))
    mine = [address.rsplit(":", 1)[0] for address, _ in ours(n.conf, pool, keys, without)]
    wrong = [(k, a, b) for k, a, b in zip(keys, theirs, mine) if address_of.get(a) != b]
    assert not wrong, f"pool {pool}: {len(wrong)} of {len(keys)} keys, e.g. (key, nutcracker's, ours): {wrong[:3]}"
    return collections.Counter(mine)


def pool(servers, hash_name="fnv1a_64", distribution="ketama", more=""):
    lines = "".join(f"   - {s}\n" for s in servers)
    return f"  hash: {hash_name}\n  distribution: {distribution}\n  redis: true\n{more}  servers:\n{lines}"


def weighted(sinks, weights, names=None):
    return [f"{a}:{w}" + (f" {n}" if n else "") for a, w, n in zip(sinks.addresses, weights, names or [None] * 5)]


def test_all_hashes_and_distributions(sinks, start):
    n = start({f"{h}-{d}": pool(weighted(sinks, [1] * 5), h, d) for h in HASHES for d in ("ketama", "modula")})
    keys = some_keys(1)
    for name in n.sockets:
        counts = same(sinks, n, name, keys)
        # crc32 gives 15 bits, which is a small piece of ketama's ring: nutcracker's users know not to combine the two.
        assert len(counts) == 5 or name == "crc32-ketama", f"{name} uses {len(counts)} servers only"


def test_weights_names_and_tags(sinks, start):
    names = ["beta", "a", "gamma-long", "c\u00e4".encode().decode("latin-1"), "10"]
    tag = '  hash_tag: "{}"\n'
    pools = {}
    for d in ("ketama", "modula"):
        pools |= {
            f"weights-{d}": pool(weighted(sinks, [1, 2, 3, 7, 13]), "md5", d),
            f"heavy-{d}": pool(weighted(sinks, [1000, 1, 333, 77, 2]), "murmur", d),
            f"names-{d}": pool(weighted(sinks, [1] * 5, names), "jenkins", d),
            f"both-{d}": pool(weighted(sinks, [5, 4, 3, 2, 1], names), "fnv1_32", d, tag),
            f"tags-{d}": pool(weighted(sinks, [1] * 5), "crc32a", d, tag),
            f"dollars-{d}": pool(weighted(sinks, [1] * 5), "fnv1a_64", d, '  hash_tag: "$$"\n'),
            f"one-{d}": pool(weighted(sinks, [3])[:1], "fnv1a_64", d),
        }
    n = start(pools)
    keys = some_keys(2)
    for name in pools:
        same(sinks, n, name, keys)


def test_random_weights(sinks, start):
    """Where single precision decides whether a server has four points more or less."""
    r = random.Random(3)
    pools = {}
    for i in range(20):
        count = r.randrange(2, 6)
        weights = [r.choice([1, 2, 3, 10, 100, r.randrange(1, 10 ** r.randrange(1, 7))]) for _ in range(count)]
        pools[f"p{i}"] = pool(weighted(sinks, weights), "md5", "ketama")
    n = start(pools)
    keys = some_keys(4, 2000)
    for name in pools:
        same(sinks, n, name, keys)


def test_one_server_ejected(sinks, start):
    gone = f"127.0.0.1:{covey.free_port()}"
    eject = "  auto_eject_hosts: true\n  server_failure_limit: 1\n  server_retry_timeout: 600000\n"
    pools = {}
    for d in ("ketama", "modula"):
        for h in HASHES:
            if (h, d) == ("crc32", "ketama"):
                continue  # all keys have one server
            servers = weighted(sinks, [1] * 5)
            pools[f"{h}-{d}"] = pool(servers[:2] + [f"{gone}:1"] + servers[2:], h, d, eject)
        pools[f"weights-{d}"] = pool(weighted(sinks, [2, 9, 4, 1, 1]) + [f"{gone}:20"], "md5", d, eject)
    n = start(pools)
    keys = some_keys(5)
    for name in pools:
        for first in range(0, 2000, 20):
            if any("refused" in p for p in n.places(name, keys[first:first + 20])):
                break
        else:
            raise covey.TestFailure(f"no key of pool {name} went to the server that is not there")
        counts = same(sinks, n, name, keys, without=[gone])
        assert len(counts) == 5


def test_port_of_memcached_is_left_out_of_the_name(sinks, start):
    """Nobody listens at the other address: its keys are those that get an error."""
    other = "127.77.31.9:11211"
    n = start({"p": pool([f"{sinks.addresses[0]}:1", f"{other}:1"], "md5")})
    keys = some_keys(6, 1000)
    theirs = [p == "s0" for p in n.places("p", keys, batch=20)]
    mine = ours(n.conf, "p", keys)
    assert theirs == [address.startswith("127.0.0.1:") for address, _ in mine]
    assert {name for _, name in mine} == {sinks.addresses[0], "127.77.31.9"}


def test_random_distribution(sinks, start):
    n = start({"p": pool(weighted(sinks, [1, 1, 1, 1, 50]), "md5", "random")})
    keys = [b"same"] * KEYS
    for counts in (collections.Counter(n.places("p", keys)), collections.Counter(a for a, _ in ours(n.conf, "p", keys))):
        assert len(counts) == 5 and all(1700 < c < 2300 for c in counts.values()), counts


PLAIN = "a:\n  listen: 127.0.0.1:22121\n"
SERVERS = "  servers:\n   - 127.0.0.1:6379:1\n"
CONFS = {
    "plain": PLAIN + SERVERS,
    "comments": "# c\n" + PLAIN + "  timeout: 400 # ms\n" + SERVERS,
    "quoted": PLAIN + '  "timeout": "400"\n' + SERVERS,
    "everything": PLAIN + "  hash: hsieh\n  hash_tag: \"{}\"\n  distribution: modula\n  timeout: 1\n  backlog: 9\n  client_connections: 3\n"
                  "  tcpkeepalive: true\n  preconnect: false\n  redis: true\n  redis_auth: secret\n  redis_db: 2\n  server_connections: 2\n"
                  "  auto_eject_hosts: true\n  server_failure_limit: 0\n  server_retry_timeout: 0\n" + SERVERS,
    "two pools": PLAIN + SERVERS + "b:\n  listen: 127.0.0.1:22122\n" + SERVERS,
    "unix": "a:\n  listen: /tmp/covey-test.sock 0666\n  servers:\n   - /tmp/x.sock:1 name\n   - /tmp/x.sock:2\n",
    "ipv6": "a:\n  listen: ::1:22121\n  servers:\n   - ::1:6379:1\n",
    "same server, two names": PLAIN + "  servers:\n   - 127.0.0.1:1:1 n\n   - 127.0.0.1:1:1 m\n",
    "utf-8": PLAIN + "  servers:\n   - 127.0.0.1:1:1 \u00e9\n",
    "! empty": "",
    "! list": "- a\n",
    "! word": "a\n",
    "! no pool": "a: b\n",
    "! document start": "---\n" + PLAIN + SERVERS,
    "! flow": PLAIN + "  servers: [127.0.0.1:1:1]\n",
    "! anchor": PLAIN + "  timeout: &t 5\n" + SERVERS,
    "! tab": PLAIN + "\ttimeout: 5\n" + SERVERS,
    "! no listen": "a:\n" + SERVERS,
    "! no servers": PLAIN,
    "! empty servers": PLAIN + "  servers:\n",
    "! servers not a list": PLAIN + "  servers: 127.0.0.1:1:1\n",
    "! servers twice": PLAIN + SERVERS + SERVERS,
    "! timeout list": PLAIN + "  timeout:\n   - 5\n" + SERVERS,
    "! unknown": PLAIN + "  colour: red\n" + SERVERS,
    "! sentinels": PLAIN + "  sentinels:\n   - 127.0.0.1:1:1\n" + SERVERS,
    "! twice": PLAIN + "  timeout: 1\n  timeout: 1\n" + SERVERS,
    "! negative": PLAIN + "  timeout: -1\n" + SERVERS,
    "! word for number": PLAIN + "  timeout: soon\n" + SERVERS,
    "! yes": PLAIN + "  redis: yes\n" + SERVERS,
    "! hash": PLAIN + "  hash: sha1\n" + SERVERS,
    "! distribution": PLAIN + "  distribution: fair\n" + SERVERS,
    "! tag": PLAIN + "  hash_tag: \"{\"\n" + SERVERS,
    "! empty tag": PLAIN + "  hash_tag: \"\"\n" + SERVERS,
    "! no connections": PLAIN + "  server_connections: 0\n" + SERVERS,
    "! auth without redis": PLAIN + "  redis_auth: x\n" + SERVERS,
    "! empty auth": PLAIN + "  redis: true\n  redis_auth:\n" + SERVERS,
    "! listen port": "a:\n  listen: 127.0.0.1:65536\n" + SERVERS,
    "! listen without port": "a:\n  listen: localhost\n" + SERVERS,
    "! listen mode": "a:\n  listen: /tmp/x 7777\n" + SERVERS,
    "! zero weight": PLAIN + "  servers:\n   - 127.0.0.1:1:0\n",
    "! weight": PLAIN + "  servers:\n   - 127.0.0.1:1:x\n",
    "! no weight": PLAIN + "  servers:\n   - 127.0.0.1:1\n",
    "! port": PLAIN + "  servers:\n   - 127.0.0.1:0:1\n",
    "! path with colon": PLAIN + "  servers:\n   - /tmp/a:b:1\n",
    "! same server": PLAIN + "  servers:\n   - 127.0.0.1:1:1\n   - 127.0.0.1:1:2\n",
    "! same name": PLAIN + "  servers:\n   - 127.0.0.1:1:1 n\n   - 127.0.0.1:2:1 n\n",
    "! same listen": PLAIN + SERVERS + "b:\n  listen: 127.0.0.1:22121\n" + SERVERS,
    "! same pool": PLAIN + SERVERS + "a:\n  listen: 127.0.0.1:22122\n" + SERVERS,
}


@pytest.mark.parametrize("what", CONFS)
def test_files_are_judged_as_nutcracker_judges_them(tmp_path, what):
    conf = tmp_path / "nutcracker.yml"
    conf.write_text(CONFS[what], encoding="utf-8")
    theirs = subprocess.run([NUTCRACKER, "-t", "-o", str(tmp_path / "log"), "-c", str(conf)], capture_output=True, timeout=20)
    mine = subprocess.run([covey.COVEY_BIN, "pool-of", str(conf), "a", "key"], capture_output=True, timeout=20, text=True)
    assert (theirs.returncode == 0) == (not what.startswith("!")), theirs.stderr
    assert (mine.returncode == 0) == (theirs.returncode == 0), mine.stderr
    if mine.returncode:
        assert mine.stderr.startswith(f"covey pool-of: {conf}:") and mine.stderr.count("\n") == 1, mine.stderr
