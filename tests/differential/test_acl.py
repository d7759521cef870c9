"""The differential test of access control: random rules for a few users, given to both servers.  After every change the
users are described (ACL LIST, ACL GETUSER), commands are tried (ACL DRYRUN) and run by connections that are logged in
as these users, also in transactions whose rules change before EXEC.

The oracle lists single commands in the order of a hash table with a random seed; they are compared in any order.
ACL_EXAMPLES=500: rules for each protocol.  COVEY_TEST_SEED repeats a run."""

import os
import random

import pytest
from compare_server import NEWER, plain_users
from resp import is_error
from sequences import base_seed, how_many
from servers import both

EXAMPLES = int(os.environ.get("ACL_EXAMPLES", 0)) or how_many(4000, 400)

CATEGORIES = """keyspace read write set sortedset list hash string bitmap hyperloglog geo stream pubsub admin fast slow
blocking dangerous connection transaction scripting all""".split()
COMMANDS = """get set del mget hset hget zadd keys sort config config|get config|set client client|id acl acl|whoami
publish subscribe select object object|encoding copy zunionstore eval multi exec ping info flushall debug""".split()
BAD_RULES = """+nosuch -nosuch +@nosuch -@nosuch +config|nosuch +config|get|x -get|x +get| + - +@ % %~a %X~a %RR~a #abc !abc
<never foo ( ) (on) (~a(+get) +@all|x (~a""".split()
KEYS = ["a", "ab", "k1", "k2", "{x}1", "w1", "r1", "sort", ""]
CHANNELS = ["c", "c1", "news.a", "news.*", "*"]
PATTERNS = ["a*", "*", "k?", "[rw]1", "a", "*a*a*b", "", "\\*", "{x}*"]
HASHES = ["2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90", "A" * 64, "0" * 64, "0" * 63]
CALLS = [
    "get K", "set K 1", "set K 1 get", "del K K", "mget K K K", "copy K K", "zunionstore K 2 K K", "zunionstore K x K",
    "sort K by W_*", "sort K get # get W_*", "sort K store K", "sort K by nosort", "hset K f 1", "hget K f", "zadd K 1 a",
    "keys *", "config get port-x", "acl whoami", "acl users", "publish C x", "spublish C x", "select 0", "select 1",
    "SELECT 0", "object encoding K", "ping", "dbsize", "getex K", "rename K K", "object freq K", "bitfield K get u8 0",
    "bitfield K set u8 0 1", "georadius K 0 0 1 m store K", "migrate", "exists K K", "append K x", "touch K", "scan 0",
    "lmpop 2 K K left", "sintercard 2 K K", "xadd K * a b", "pfcount K K", "eval nothing 1 K", "smove K K a",
    "nosuchcommand K", "config nosuch", "getrange K 0 1", "lcs K K", "memory usage K", "command count",
]  # fmt: skip


SCRIPTS = {
    "S1": "return redis.call('set', KEYS[1], '1')",
    "S2": "return redis.pcall('get', KEYS[1])",
    "S3": "return redis.call('publish', ARGV[1], 'x')",
    "S4": "return redis.acl_check_cmd('get', KEYS[1]) and 1 or 0",
    "S5": "return redis.acl_check_cmd('publish', ARGV[1], 'x') and 1 or 0",
    "S6": "return redis.call('sort', KEYS[1], 'by', 'w_*')",
}
CALLS += ["eval %s 1 K C" % name for name in SCRIPTS]


def send(conn, *words):
    return conn.pipeline([[w.encode() if isinstance(w, str) else w for w in words]])[0]


def rule(rng):
    kind = rng.randrange(20)
    sign = rng.choice("+-")
    if kind < 5:
        return sign + "@" + rng.choice(CATEGORIES)
    if kind < 9:
        return sign + rng.choice(COMMANDS)
    if kind == 9:
        return "+" + rng.choice(["select|0", "select|1", "SELECT|A", "get|a", "object|help", "config|Get", "ping|x"])
    if kind < 12:
        return rng.choice(["~", "~", "%R~", "%W~", "%RW~", "%w~", "%r"]) + rng.choice(PATTERNS)
    if kind == 12:
        return "&" + rng.choice(CHANNELS + PATTERNS)
    if kind == 13:
        return rng.choice(["allkeys", "resetkeys", "allchannels", "ResetChannels", "allcommands", "nocommands"])
    if kind == 14:
        return rng.choice(["on", "ON", "off", "nopass", "resetpass", "sanitize-payload", "skip-sanitize-payload", "",
                           "clearselectors", "reset"] + [">p", ">q", "<p", "<q"])  # fmt: skip
    if kind == 15:
        return rng.choice("#!") + rng.choice(HASHES)
    if kind == 16:
        return rng.choice(BAD_RULES)
    return "(" + " ".join(r for r in (rule(rng) for _ in range(rng.randrange(4))) if "(" not in r) + ")"


def rules(rng):
    made = [rule(rng) for _ in range(1 + rng.randrange(4))]
    if rng.randrange(3) == 0:  # parentheses over several arguments
        made = [word for r in made for word in (r.split(" ") if " " in r else [r])]
    return made


class Pair:
    """Two connections, one to each server, that always get the same."""

    def __init__(self, servers, resp):
        self.conns = [s.connect() for s in servers]
        self.trace = []
        if resp == 3:
            for conn in self.conns:
                send(conn, "HELLO", "3")

    def __call__(self, *words):
        self.trace.append(words)
        one, two = (send(conn, *words) for conn in self.conns)
        assert plain_users(one) == plain_users(two), "differ after:\n%s\noracle:  %r\nsubject: %r" % (
            "\n".join(" ".join(map(str, line)) for line in self.trace[-200:]), one, two)  # fmt: skip
        return one

    def close(self):
        for conn in self.conns:
            conn.close()


@pytest.fixture(scope="module")
def servers():
    with both() as pair:
        yield pair


def fill(text, rng):
    made = []
    for word in text.split(" "):
        if word == "K":
            word = rng.choice(KEYS)
        elif word == "C":
            word = rng.choice(CHANNELS)
        word = SCRIPTS.get(word, word)
        made.append(word)
    return made


def try_user(admin, user, rng):
    admin("ACL", "GETUSER", user)
    for _ in range(6):
        admin("ACL", "DRYRUN", user, *fill(rng.choice(CALLS), rng))


def use_user(servers, resp, admin, user, rng, calls):
    """Commands of a connection that is logged in, in the middle of which the rules change."""
    link = Pair(servers, resp)
    link.trace = admin.trace
    if not is_error(link("AUTH", user, rng.choice(["p", "q", "p", ""]))):
        for _ in range(5):
            link(*fill(rng.choice(calls), rng))
        queued = [fill(rng.choice(calls), rng) for _ in range(3)]
        link("MULTI")
        for words in queued:
            link(*words)
        if rng.randrange(2):
            admin("ACL", "SETUSER", user, *rules(rng))
        if rng.randrange(4) == 0:
            admin("ACL", "SETUSER", user, "+@all", "-@write")
        link("EXEC")
        link("ACL", "WHOAMI")
    link.close()


UNSTEADY = ("keys", "scan", "eval nothing", "xadd", "migrate", "command", "memory")  # replies are not the same on two servers


@pytest.mark.sanitizer
@pytest.mark.parametrize("resp", [2, 3])
def test_users(servers, resp):
    seed = base_seed() * 10 + resp
    print("seed %d" % seed)
    rng = random.Random(seed)
    admin = Pair(servers, resp)
    calls = [call for call in CALLS if not call.startswith(UNSTEADY)]
    accepted = refused = 0
    try:
        for number in range(EXAMPLES):
            user = "user%d" % rng.randrange(4)
            if rng.randrange(60) == 0:
                admin("ACL", "DELUSER", user, "nobody")
            if rng.randrange(40) == 0:
                admin("FLUSHALL")
            made = rules(rng)
            done = admin("ACL", "SETUSER", user, *made)
            accepted += not is_error(done)
            refused += is_error(done)
            admin("ACL", "LIST")
            if number % 5 == 0:
                admin("ACL", "SETUSER", user, "on", ">p")
                use_user(servers, resp, admin, user, rng, calls)
            if not is_error(done):
                try_user(admin, user, rng)
            if number % 20 == 0:
                compare_logs(admin)
    finally:
        for name in range(4):
            admin("ACL", "DELUSER", "user%d" % name)
        admin.close()
    assert accepted > EXAMPLES // 4 and refused > EXAMPLES // 50, (accepted, refused)


def without_times(entry):
    """An entry of ACL LOG but for its age and the client's line."""
    items = entry[1]
    pairs = items if entry[0] == "%" else list(zip(items[::2], items[1::2]))
    return [(k, v) for k, v in pairs if k[1] not in (b"age-seconds", b"client-info")]


def compare_logs(admin):
    left, right = (send(conn, "ACL", "LOG", "30") for conn in admin.conns)
    one, two = ([without_times(e) for e in reply[1]] for reply in (left, right))
    assert one == two, "\n".join(" ".join(map(str, line)) for line in admin.trace[-60:])
    admin("ACL", "LOG", "RESET")


@pytest.mark.sanitizer
@pytest.mark.parametrize("resp", [2, 3])
def test_everything_but_rules(servers, resp):
    admin = Pair(servers, resp)
    admin("ACL", "LOG", "RESET")
    for line in ("CAT", "CAT nosuch", "CAT a b", "WHOAMI", "WHOAMI x", "USERS", "LIST", "GETUSER nosuch", "GETUSER default",
                 "SAVE", "LOAD", "LOG", "LOG x", "LOG -1", "LOG 1 2", "LOG reset", "GENPASS 0", "GENPASS 4097", "GENPASS x",
                 "GENPASS 1 2", "DELUSER default", "DELUSER a default", "DELUSER nosuch", "DRYRUN nosuch get a",
                 "DRYRUN default nosuch", "DRYRUN default get", "DRYRUN default config get", "HELP", "NOSUCH", "SETUSER",
                 "SETUSER x (", "SETUSER x (a", "SETUSER x ) (", "GETUSER x", "DELUSER x"):  # fmt: skip
        admin("ACL", *line.split(" "))
    admin("ACL", "SETUSER", "with space", "on")
    admin("ACL", "SETUSER", b"nul\x00", "on")
    for category in CATEGORIES[:-1]:
        one, two = (send(conn, "ACL", "CAT", category) for conn in admin.conns)
        assert sorted(name for name in two[1] if name[1] not in NEWER) == sorted(one[1]), category
    for bits in (1, 4, 5, 256, 4096):
        one, two = (send(conn, "ACL", "GENPASS", str(bits)) for conn in admin.conns)
        assert len(one[1]) == len(two[1]) and all(c in b"0123456789abcdef" for c in two[1])
    for line in ("AUTH", "AUTH a", "AUTH a b", "AUTH a b c", "AUTH default x", "HELLO 3 AUTH a b", "HELLO 2 AUTH default x SETNAME y",
                 "HELLO 2 AUTH a", "CLIENT GETNAME", "ACL WHOAMI", "CLIENT KILL USER nosuch"):  # fmt: skip
        one, two = (send(conn, *line.split(" ")) for conn in admin.conns)
        assert one[0] == two[0] and (not is_error(one) or one == two), (line, one, two)
    admin("ACL", "LOG", "RESET")
    admin.close()
