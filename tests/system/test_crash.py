"""One node with an AOF that dies again and again: at random moments and at its system calls, in the middle of rewrites, saves and
switches, with and without loss of power; after each death the histories of its connections are looked at.

A connection's history is a sequence: what the server holds has to be what the first m operations make, and m lies between
the operations acknowledged and those sent.  An operation that is missing in the middle, or is there twice, fits no m."""
import random
import select
import time

import pytest
import redis

import covey
from covey import LONG
from faulty_disk import Disk
from wire import Closed, Error, Wire

CONNECTIONS = 4
CLASSES = ("write", "sync", "open", "rename", "unlink", "truncate", "any")
# Within how many calls of a class a round may end; the rare ones come with rewrites.
WITHIN = {"write": 120, "sync": 80, "open": 8, "rename": 5, "unlink": 6, "truncate": 2, "any": 200}


def encode(*words):
    words = [str(w).encode() for w in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


class History:
    """One connection's operations on keys of its own."""

    def __init__(self, name, chance):
        self.name, self.chance = name, chance
        self.serial = 0
        self.anew("0")
        self.wire = None

    def anew(self, generation):
        self.keys = [f"{{{self.name}}}{kind}{generation}" for kind in ("counter", "list", "register")]
        self.states, self.tokens = [(0, 0, 0)], []  # after each operation: counter, length, register
        self.acknowledged, self.frozen, self.times, self.counted = 0, None, {}, 0

    def connect(self, node):
        self.wire, self.expected = Wire(node, timeout=20), []

    def floor(self):
        return self.acknowledged if self.frozen is None else self.frozen

    def send(self, count):
        parts = []
        for _ in range(count):
            self.serial += 1
            counter, length, _register = state = self.states[-1]
            kind = self.chance.randrange(4)
            if kind == 0:
                state = (counter + 1, *state[1:])
                parts.append(encode("INCR", self.keys[0]))
                self.expected.append(counter + 1)
            elif kind == 1:
                state = (counter, length + 1, state[2])
                parts.append(encode("RPUSH", self.keys[1], self.serial))
                self.expected.append(length + 1)
            elif kind == 2:
                state = (*state[:2], self.serial)
                parts.append(encode("SET", self.keys[2], self.serial))
                self.expected.append("OK")
            else:
                state = (counter + 1, length + 1, self.serial)
                parts.append(encode("MULTI") + encode("INCR", self.keys[0]) + encode("RPUSH", self.keys[1], self.serial)
                             + encode("SET", self.keys[2], self.serial) + encode("EXEC"))
                self.expected += ["OK", *["QUEUED"] * 3, [counter + 1, length + 1, "OK"]]
            if kind & 1:
                self.tokens.append(b"%d" % self.serial)
            self.states.append(state)
        self.wire.sock.sendall(b"".join(parts))

    def receive(self):
        """Everything that has come; True when all is answered."""
        self.wire._more()
        now = time.monotonic()
        while self.expected:
            at, reply = self.wire.at, None
            try:
                # only whole replies: what is cut stays for the next time
                if self.wire.buffer.find(b"\r\n", at) < 0:
                    break
                self.wire.sock.setblocking(False)
                reply = self.wire.read()
            except BlockingIOError:
                self.wire.at = at
                break
            finally:
                self.wire.sock.settimeout(20)
            wanted = self.expected.pop(0)
            assert reply == wanted, f"{self.name}: answered {reply!r} and not {wanted!r}"
            if not (wanted == "QUEUED" or (wanted == "OK" and self.expected and self.expected[0] == "QUEUED")):
                self.acknowledged += 1
                self.times[self.acknowledged] = now
        return not self.expected

    def look(self, node_wire, patience=None):
        """After the death and a restart: (operations that are missing although promised, that were acknowledged at all, and how old
        the oldest of these was at the death).  Goes on from what is there."""
        counter, items, register = (node_wire("GET", self.keys[0]), node_wire("LRANGE", self.keys[1], 0, -1),
                                    node_wire("GET", self.keys[2]))
        found = (int(counter or 0), len(items), int(register or 0))
        assert items == self.tokens[:len(items)], \
            f"{self.name}: the list is no beginning of what was appended: {items[-3:]}, {self.tokens[len(items) - 3:len(items)]}"
        at = next((m for m in range(len(self.states) - 1, -1, -1) if self.states[m] == found), None)
        assert at is not None, f"{self.name}: {found} is after no operation; sent up to {self.states[-1]}"
        promised, missing = self.floor(), self.acknowledged - at
        age = (self.died - self.times.get(at + 1, self.died)) if missing > 0 else 0
        self.states, self.tokens = self.states[:at + 1], self.tokens[:found[1]]
        self.acknowledged, self.frozen = at, None
        return max(0, promised - at), max(0, missing), age


class Crasher:
    """A node, its disk and its histories through many deaths."""

    def __init__(self, servers, seed, **directives):
        self.chance = random.Random(seed)
        self.node = servers.node(start=False, appendonly="yes", workers=2, auto_aof_rewrite_min_size="64kb",
                                 **directives)
        self.disk = Disk(servers, self.node)
        self.histories = [History(f"c{n}", self.chance) for n in range(CONNECTIONS)]
        self.kills = self.lost = self.unpromised = self.power_cuts = self.operations = 0
        self.oldest = self.longest_start = self.longest_wait = 0.0
        self.where = {}
        self.flushing = False  # the reply to a FLUSHALL has not come

    def start(self, *commands):
        """False when it died before it answered."""
        self.disk.prepare(*commands)
        began = time.monotonic()
        self.node.start(wait=False)
        self.node.expected_dead = True
        while self.node.alive():
            assert time.monotonic() - began < 20 * covey.PATIENCE, self.node.log_tail()
            try:
                with Wire(self.node, timeout=5) as wire:
                    if wire("PING") == "PONG":
                        self.longest_start = max(self.longest_start, time.monotonic() - began)
                        return True
            except (OSError, Closed, ValueError):
                pass
            time.sleep(0.002)
        return False

    def work(self, seconds, operate, busy=lambda: None):
        """Writes on all connections until the process is dead, or kills it at that time."""
        until, last = time.monotonic() + seconds, {}
        control = Wire(self.node, timeout=5)
        waiting = {}
        try:
            for history in self.histories:
                history.connect(self.node)
                waiting[history.wire.sock] = history
            everybody = dict(waiting)
            while True:
                for sock, history in waiting.items():
                    history.send(self.chance.choice((1, 1, 2, 5, 20)))
                    last[sock] = time.monotonic()
                waiting = {}
                operate(self, control)
                busy()
                ready, _, _ = select.select(list(everybody), [], [], 0.005)
                for sock in ready:
                    if everybody[sock].receive():
                        waiting[sock] = everybody[sock]
                        self.longest_wait = max(self.longest_wait, time.monotonic() - last[sock])
                if time.monotonic() > until:
                    return
        except (OSError, Closed):
            pass
        finally:
            self.finish(control)

    def finish(self, control):
        """Dead, or nearly; takes the replies that are in the sockets still."""
        self.disk.die()
        died = time.monotonic()
        control.close()
        for history in self.histories:
            history.died = died
            try:
                while history.wire and not history.receive():
                    pass
            except (OSError, Closed):
                pass
            if history.wire:
                history.wire.close()
            history.wire = None
        self.disk.close()

    def died(self, power):
        self.kills += 1
        assert self.node.process.returncode in (-9, 1), f"ended with {self.node.process.returncode}: {self.node.log_tail()}"
        assert self.node.process.returncode == -9, f"it gave up by itself: {self.node.log_tail()}"
        if power:
            self.disk.lose_power(self.chance)
            self.power_cuts += 1

    def look(self):
        with Wire(self.node) as wire:
            if self.flushing and wire("DBSIZE") == 0:  # it died when that was done and nobody had been told
                for history in self.histories:
                    history.anew(f"{self.kills}f")
            self.flushing = False
            for history in self.histories:
                lost, missing, age = history.look(wire)
                self.lost += lost
                self.unpromised += missing
                self.oldest = max(self.oldest, age)
                self.operations += history.acknowledged - history.counted
                history.counted = history.acknowledged
            if self.kills % 8 == 7:
                self.flushing = True
                assert wire("FLUSHALL") == "OK"
                self.flushing = False
                for history in self.histories:
                    history.anew(str(self.kills))

    def round(self, power, operate, seconds=0.08):
        """From a start to a death; what is there is looked at in between."""
        kind = self.chance.choice(CLASSES)
        mode = self.chance.choice(("before", "after", "torn"))
        at_start, random_moment = self.chance.random() < 0.3, self.chance.random() < 0.3
        if power == "long":
            at_start, random_moment = False, True
        strike = f"kill {kind} {self.chance.randint(1, 5 if at_start else WITHIN[kind])} {mode}"
        commands = [f"delay sync * {self.chance.choice((0, 1, 3))}"]
        if not self.start(*commands, *([strike] if at_start and not random_moment else [])):
            self.died(power)
            self.where["start"] = self.where.get("start", 0) + 1
            return
        try:
            self.look()
            if not at_start and not random_moment:
                self.disk(*strike.split())
            self.where["moment" if random_moment else kind] = self.where.get("moment" if random_moment else kind, 0) + 1
            self.work(self.chance.uniform(2.5 if power == "long" else 0.01, seconds), operate)
        except (OSError, Closed):  # between the start and the first write
            for history in self.histories:
                history.died = time.monotonic()
            self.disk.die()
            self.disk.close()
        self.died(power)

    def end(self):
        assert self.start()
        self.look()
        self.node.kill()

    def figures(self):
        return (f"{self.kills} kills aimed at {self.where} (where the call did not come: at a random moment), {self.power_cuts} with loss of power, {self.operations} operations, promised and "
                f"lost {self.lost}, twice 0, acknowledged and lost {self.unpromised}, the oldest of them {self.oldest:.2f} s, "
                f"longest start {self.longest_start:.2f} s, longest wait for replies {self.longest_wait:.2f} s")


def tell(wire, *words):
    """A command whose reply may be an error, as when a save is under way."""
    return wire(*words)


def saves_and_rewrites(crasher, control):
    if crasher.chance.random() < 0.05:
        tell(control, *crasher.chance.choice((("BGREWRITEAOF",), ("BGREWRITEAOF",), ("BGSAVE",), ("BGSAVE", "SCHEDULE"))))


def switches(crasher, control):
    """Also turns the AOF off and on; what is written in between is promised once the first rewrite is over."""
    saves_and_rewrites(crasher, control)
    off = any(h.frozen is not None for h in crasher.histories)
    if off and crasher.chance.random() < 0.3:
        info = dict(line.split(":", 1) for line in control("INFO", "persistence").decode().split() if ":" in line)
        if info["aof_enabled"] == "1" and info["aof_rewrite_in_progress"] == "0" and info["aof_rewrite_scheduled"] == "0" \
                and crasher.turned_on:
            for history in crasher.histories:
                history.frozen = None
            return
    if crasher.chance.random() < 0.05:
        for history in crasher.histories:
            history.frozen = history.floor()
        crasher.turned_on = False
        assert control("CONFIG", "SET", "appendonly", "no") == "OK"
    elif off and not getattr(crasher, "turned_on", False) and crasher.chance.random() < 0.3:
        assert control("CONFIG", "SET", "appendonly", "yes") == "OK"
        crasher.turned_on = True


def crash(servers, rounds, operate, power, seconds=0.08, **directives):
    seed = random.randrange(1 << 30)
    crasher = Crasher(servers, seed, **directives)
    try:
        began = time.monotonic()
        for number in range(rounds):
            crasher.round(power if power == "long" else power == "always" or (power == "half" and number % 2 == 1), operate, seconds)
            assert crasher.lost == 0 or power != "half", "lost"
        crasher.end()
        print(f"seed {seed}: {crasher.figures()}; {time.monotonic() - began:.0f} s")
    except AssertionError as failure:
        raise AssertionError(f"seed {seed}: {failure}\n{crasher.figures()}") from failure
    return crasher


def test_always_loses_nothing(servers):
    crasher = crash(servers, 2000 if LONG else 200, saves_and_rewrites, "half", appendfsync="always")
    assert crasher.lost == 0
    assert crasher.unpromised == 0


def test_always_loses_nothing_while_the_aof_is_switched(servers):
    crasher = crash(servers, 1000 if LONG else 60, switches, "half", appendfsync="always", aof_use_rdb_preamble="no")
    assert crasher.lost == 0


@pytest.mark.parametrize("policy", ["everysec", "no"])
def test_kill_of_a_process_loses_little(servers, policy):
    """The page cache outlives the process: only what came while the sync of each second was under way may be missing."""
    crasher = crash(servers, 500 if LONG else 25, saves_and_rewrites, "never", appendfsync=policy)
    assert crasher.oldest < 2
    assert policy == "everysec" or crasher.unpromised == 0


@pytest.mark.sanitizer
def test_kill_at_each_step_of_a_change_of_files(servers):
    """A rewrite's new increment: made, named, synced; whatever step is the last one, the writes answered before are there."""
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    node = servers.node(start=False, appendonly="yes", appendfsync="no", workers=2, auto_aof_rewrite_percentage=0)
    disk = Disk(servers, node)
    acknowledged, lost, steps = 0, 0, {}
    for number in range(120 if LONG else 4 if covey.SANITIZED else 16):
        disk.prepare(*(f"delay {kind} * {chance.choice((1, 20))}" for kind in ("sync", "open", "rename", "unlink")))
        node.start()
        assert int(node.cmd("GET", "counter") or 0) >= acknowledged, f"seed {seed}, round {number}: {steps}"
        acknowledged = int(node.cmd("GET", "counter") or 0)
        client = node.new_client()
        kind, at = (("sync", 5), ("open", 3), ("rename", 3), ("unlink", 2))[number % 4]
        at, mode = chance.randint(1, at), chance.choice(("before", "after"))
        disk("kill", kind, at, mode)
        steps[f"{kind} {at} {mode}"] = steps.get(f"{kind} {at} {mode}", 0) + 1
        node.expected_dead = True
        node.cmd("BGREWRITEAOF")
        until = time.monotonic() + 1
        try:
            while time.monotonic() < until:
                acknowledged = client.incr("counter")
        except redis.RedisError:
            pass
        disk.die()
        disk.close()
    node.prefix = []
    node.start()
    assert int(node.cmd("GET", "counter")) >= acknowledged, f"seed {seed}, the last round: {steps}"
    print(f"seed {seed}: killed at {steps}, {acknowledged} acknowledged, 0 lost")


@pytest.mark.parametrize("policy", ["everysec", "no"])
def test_a_rewrite_on_a_slow_disk_loses_little(servers, policy):
    """While files are switched replies wait for the file; while the disk syncs they are ahead of it for two seconds at most: then
    writes wait, and reads do not."""
    node = servers.node(start=False, appendonly="yes", appendfsync=policy, workers=2)
    disk = Disk(servers, node)
    node.start()
    disk("delay", "sync", "*", 5000)
    client, reader, times, longest_read = node.new_client(), node.new_client(), [], 0.0
    client.connection_pool.connection_kwargs["socket_timeout"] = 1
    began = time.monotonic()
    node.cmd("BGREWRITEAOF")
    try:
        while time.monotonic() - began < 3:
            client.incr("counter")
            times.append(time.monotonic())
    except redis.RedisError:
        pass
    for _ in range(50):
        at = time.monotonic()
        assert reader.get("counter")
        longest_read = max(longest_read, time.monotonic() - at)
    node.expected_dead = True
    disk.die()
    died = time.monotonic()
    disk.close()
    node.prefix = []
    node.start()
    kept = int(node.cmd("GET", "counter") or 0)
    lost = times[kept:]
    print(f"{policy}: {len(times)} acknowledged, {len(lost)} lost, within {lost[-1] - lost[0] if lost else 0:.2f} s; "
          f"longest read {longest_read * 1000:.0f} ms, dead after {died - began:.1f} s")
    assert not lost or (policy == "everysec" and lost[-1] - lost[0] < 2.3)
    assert longest_read < 3


@pytest.mark.parametrize("how", ["start", "switch"])
def test_the_first_writes_survive_a_loss_of_power(servers, how):
    """The AOF's directory, too, has to be on the disk before anything in it counts."""
    node = servers.node(start=False, appendonly="yes" if how == "start" else "no", appendfsync="always")
    disk = Disk(servers, node)
    node.start()
    if how == "switch":
        node.cmd("CONFIG", "SET", "appendonly", "yes")
        covey.wait_for("the AOF", lambda: node.stat("aof_rewrites", "persistence") == 1
                       and not node.stat("aof_rewrite_in_progress", "persistence"))
    node.cmd("SET", "a", 1)
    node.expected_dead = True
    disk.die()
    disk.close()
    disk.lose_power(random.Random(1), worst=True)
    node.prefix = []
    node.start(appendonly="yes")
    assert node.cmd("GET", "a") == b"1"


def test_everysec_loses_the_last_second_of_power(servers):
    """Each round is longer than what may be lost."""
    crasher = crash(servers, 40 if LONG else 2, saves_and_rewrites, "long", seconds=4, appendfsync="everysec")
    assert crasher.oldest < 2.5, crasher.figures()


def test_the_checker_finds_a_server_that_lies(servers):
    """Without syncs a loss of power costs acknowledged writes: here that has to be seen."""
    crasher = crash(servers, 10, saves_and_rewrites, "always", appendfsync="no")
    assert crasher.lost > 0
