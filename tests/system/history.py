"""A checked history: clients that count, append and overwrite while a cluster suffers, and what became of what they were told.

Each client has one shard and does one operation at a time, so its own history is a sequence.  An operation is answered
(it has happened), refused (it has not), or unknown (the connection broke, or the server says that it cannot tell).  At the
end, with the cluster whole again:
  lost        an acknowledged append that is not in the list, a counter below its acknowledged steps, a register older than
              its last acknowledged write
  dirty       a value of the list that another client has been shown, and that is gone
  duplicated  an append that is in the list twice, a counter's value that was returned twice, a counter above all attempts
  stale       a read that did not show the client's own last acknowledged write"""
import collections
import random
import threading
import time

import covey
from wire import Closed, Error, Wire

# Refusals after which it is certain that nothing was executed.
NOT_EXECUTED = ("MOVED", "ASK", "CLUSTERDOWN", "READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS", "TRYAGAIN", "MISCONF", "BUSY",
                "OOM")
RATE = 240  # operations a second and client
READ_RATE = 60  # and reader


class Caller(threading.Thread):
    """Does one operation after another with one shard: follows MOVED, and asks every node in turn where nobody is known."""
    rate = RATE

    def __init__(self, cluster, slot, number, setup=()):
        super().__init__(daemon=True)
        self.cluster, self.setup, self.stopped, self.number = cluster, setup, False, number
        self.slot = slot
        self.rng = random.Random(number)
        self.wire = self.node = None
        self.counts = collections.Counter()
        self.wrong = []
        self.between = threading.Lock()  # held while an operation is under way

    # ---- connection

    def connect(self, node):
        self.drop()
        self.wire, self.node = Wire(node, timeout=3, connect_timeout=0.5), node
        for words in self.setup:
            if isinstance(reply := self.wire(*words), Error):
                raise covey.TestFailure(f"{words}: {reply}")

    def drop(self):
        if self.wire:
            self.wire.close()
        self.wire = None

    def find(self):
        """Somewhere else: any node but the last one, which will tell."""
        others = [n for n in self.cluster.nodes if n is not self.node] or self.cluster.nodes
        try:
            self.connect(self.rng.choice(others))
        except (OSError, Closed):
            self.drop()
            time.sleep(0.01)

    def request(self, *words):
        """(reply, None) or (None, whether it may have happened)"""
        if not self.wire:
            self.find()
            if not self.wire:
                return None, False
        try:
            self.wire.send(*words)
            reply = self.wire.read()
        except (OSError, Closed):
            self.drop()
            return None, True
        if not isinstance(reply, Error):
            return reply, None
        word = reply.split()[0]
        if word == "MOVED":
            address = reply.split()[2]
            target = next((n for n in self.cluster.nodes if f"{n.announced}:{n.port}" == address), None)
            try:
                if target and target is not self.node:
                    self.connect(target)
                else:
                    time.sleep(0.01)
            except (OSError, Closed):
                self.drop()
        elif word in NOT_EXECUTED:
            time.sleep(0.01)
            if word in ("CLUSTERDOWN", "READONLY", "LOADING", "MASTERDOWN"):
                self.find()
        self.counts[word] += 1
        return None, word not in NOT_EXECUTED

    # ---- operations

    def run(self):
        due = time.monotonic()
        try:
            while not self.stopped:
                due = max(due + 1 / self.rate, time.monotonic() - 1)
                time.sleep(max(0, due - time.monotonic()))
                with self.between:
                    self.operate()
        except Exception as failure:  # pylint: disable=broad-except
            self.wrong.append(f"the client itself failed: {failure!r}")
        self.drop()

    def stop(self):
        self.stopped = True
        self.join(60)
        assert not self.is_alive(), "a client hangs"


class Reader(Caller):
    """Remembers every value that it has ever seen in a list to which others append: none may be gone in the end."""
    rate = READ_RATE

    def __init__(self, cluster, slot, number, key):
        super().__init__(cluster, slot, number)
        self.key, self.seen = key, set()
        self.start()

    def operate(self):
        reply, _ = self.request("LRANGE", self.key, -30, -1)
        self.seen.update(reply or ())

    def missing(self):
        """Between two operations, with the cluster whole."""
        with self.between:
            owner = next(n for n in self.cluster.primaries() if self.slot in covey.cluster_nodes(n)[n.id].slots)
            with Wire(owner, timeout=30) as wire:
                wire("CLIENT", "MIN-REPLICAS-TO-ACK", 0)
                assert not self.wrong, self.wrong
                return self.seen - set(wire("LRANGE", self.key, 0, -1))


class Client(Caller):
    """Counts, appends and overwrites, and remembers what it was told."""

    def __init__(self, cluster, slot, number, name, setup=()):
        super().__init__(cluster, slot, number, setup)
        self.tag = "{" + covey.tag_of_slot(slot) + "}" + name
        self.longest, self.last_answer = 0.0, None
        self.serial = 0
        # append: token -> acknowledged; counter: acknowledged values; register: the serials that may be there
        self.tokens = {}
        self.returned, self.steps_unknown = [], 0
        self.register_low, self.register_high = 0, 0
        self.start()

    def answered(self):
        now = time.monotonic()
        if self.last_answer is not None:
            self.longest = max(self.longest, now - self.last_answer)
        self.last_answer = now
        self.counts["answered"] += 1

    def operate(self):
        self.serial += 1
        kind = self.rng.randrange(4)
        if kind == 0:
            reply, unknown = self.request("INCR", self.tag + "counter")
            if reply is not None:
                self.returned.append(reply)
            elif unknown:
                self.steps_unknown += 1
        elif kind == 1:
            token = b"%d" % self.serial
            reply, unknown = self.request("RPUSH", self.tag + "list", token)
            if reply is not None or unknown:
                self.tokens[token] = reply is not None
        elif kind == 2:
            reply, unknown = self.request("SET", self.tag + "register", self.serial)
            if reply is not None:
                self.register_low = self.register_high = self.serial
            elif unknown:
                self.register_high = self.serial
        else:
            reply, unknown = self.request("GET", self.tag + "register")
            if unknown is None:
                value = int(reply or 0)
                if value < self.register_low:
                    self.counts["stale"] += 1
                elif value > self.register_high:
                    self.wrong.append(f"GET gave {value}, which nobody wrote")
            reply = None  # reads do not count for the longest time without writes
        if reply is not None:
            self.answered()
        elif unknown:
            self.counts["unknown"] += 1

    # ---- the end

    def check(self, node):
        """Compares with what the shard holds, between two operations; the node is its primary."""
        with self.between, Wire(node, timeout=30) as wire:
            wire("CLIENT", "MIN-REPLICAS-TO-ACK", 0)
            items, counter = wire("LRANGE", self.tag + "list", 0, -1), int(wire("GET", self.tag + "counter") or 0)
            register = int(wire("GET", self.tag + "register") or 0)
            there = collections.Counter(items)
            lost = [t for t, acknowledged in self.tokens.items() if acknowledged and not there[t]]
            twice = [t for t, n in there.items() if n > 1]
            self.counts["lost"] = len(lost) + max(0, len(self.returned) - counter) + (register < self.register_low)
            repeated = len(self.returned) - len(set(self.returned))
            self.counts["duplicated"] = len(twice) + repeated + max(0, counter - len(self.returned) - self.steps_unknown)
            self.wrong += [f"the list has {t!r}, which nobody appended" for t in there if t not in self.tokens][:3]
            if register > self.register_high:
                self.wrong.append(f"the register holds {register}, which nobody wrote")


class History:
    """A client, and a reader, for each of the cluster's shards; their keys have this name.  needs_replicas: without one nothing is
    acknowledged."""

    def __init__(self, cluster, name="", setup=(), needs_replicas=False, readers=False):
        self.cluster, self.needs_replicas = cluster, needs_replicas
        slots = [min(covey.cluster_nodes(n)[n.id].slots) for n in cluster.primaries()]
        self.clients = [Client(cluster, slot, number, name, setup) for number, slot in enumerate(sorted(slots))]
        self.readers = [Reader(cluster, c.slot, c.number, c.tag + "list") for c in self.clients] if readers else []

    def answered(self):
        return [c.counts["answered"] for c in self.clients]

    def wait_for_writes(self, timeout=60, more=20, meanwhile=lambda: None):
        """Until every shard has answered some more writes."""
        before = self.answered()

        def written():
            meanwhile()
            return all(b + more <= a for b, a in zip(before, self.answered()))
        covey.wait_for("writes in every shard", written, timeout)

    def longest_since(self):
        """The longest time without an acknowledged write in any shard since the last call."""
        longest = max(c.longest for c in self.clients)
        for client in self.clients:
            client.longest = 0.0
        return longest

    def stop_and_check(self):
        for client in self.clients + self.readers:
            client.stop()
        return self.check()

    def check(self):
        """Sums over all clients, which go on; the cluster is whole."""
        self.cluster.wait_whole(60)
        total = collections.Counter()
        for client in self.clients:
            owner = next(n for n in self.cluster.primaries() if client.slot in covey.cluster_nodes(n)[n.id].slots)
            client.check(owner)
            assert not client.wrong, client.wrong
            total.update(client.counts)
        for reader in self.readers:
            gone = reader.missing()
            total.update(dirty=len(gone), shown=len(reader.seen))
        return total


def describe(total):
    names = ("answered", "unknown", "lost", "duplicated", "stale") + (("shown", "dirty") if "shown" in total else ())
    refused = sum(n for word, n in total.items() if word.isupper() and word != "NOACK")
    return ", ".join(f"{name} {total[name]}" for name in names) + f", refused {refused}"
