"""Runs a sequence of steps against both servers at once and compares everything."""

import time
from collections import Counter, defaultdict

import family_server
from compare import SCANS, Group, encoding_of, exact, flat_pairs, freeze, group, multiset, name_of
from compare import same, same_dump, same_items, same_pairs, scan_shape
from draw import DATABASES_USED
from grammar import SLEEP, payload_sources
from resp import Disconnected, is_error, is_null

QUEUED = ("+", b"QUEUED")
BATCH_COMMANDS, BATCH_BYTES = 120, 1 << 16
EXPIRING_MS = 1000
COPY_SUFFIX = b"|copy"
# Errors before a command is executed.
EARLY = (b"wrong number of arguments", b"unknown command", b"unknown subcommand", b"CROSSSLOT", b"NOPERM", b"EXECABORT")

# Settings of both servers, one per sequence: default limits, limits so low that small values cross them, limits
# at their extremes with compressed list nodes.
PROFILES = [
    {"hash-max-listpack-entries": 512, "hash-max-listpack-value": 64, "set-max-intset-entries": 512,
     "zset-max-listpack-entries": 128, "zset-max-listpack-value": 64, "list-max-listpack-size": -2,
     "list-compress-depth": 0, "rdbcompression": "yes",
     "stream-node-max-entries": 100, "stream-node-max-bytes": 4096, "hll-sparse-max-bytes": 3000},
    {"hash-max-listpack-entries": 6, "hash-max-listpack-value": 16, "set-max-intset-entries": 6,
     "zset-max-listpack-entries": 6, "zset-max-listpack-value": 16, "list-max-listpack-size": 4,
     "list-compress-depth": 0, "rdbcompression": "no",
     "stream-node-max-entries": 3, "stream-node-max-bytes": 4096, "hll-sparse-max-bytes": 100},
    {"hash-max-listpack-entries": 128, "hash-max-listpack-value": 20, "set-max-intset-entries": 0,
     "zset-max-listpack-entries": 0, "zset-max-listpack-value": 64, "list-max-listpack-size": -1,
     "list-compress-depth": 1, "rdbcompression": "no",
     "stream-node-max-entries": 0, "stream-node-max-bytes": 150, "hll-sparse-max-bytes": 1000},
]  # fmt: skip


class Mismatch(AssertionError):
    """The servers differ."""


def quoted(arg):
    """An argument as redis-cli reads it."""
    if arg and all(33 <= byte < 127 and byte not in b"\"'\\" for byte in arg):
        return arg.decode()
    special = {34: '\\"', 92: "\\\\", 10: "\\n", 13: "\\r", 9: "\\t"}
    return '"' + "".join(special.get(b) or (chr(b) if 32 <= b < 127 else "\\x%02x" % b) for b in arg) + '"'


def script(steps, profile, resp):
    """The sequence as lines for redis-cli; comments tell what it cannot express."""
    lines = ["CONFIG SET %s %s" % item for item in PROFILES[profile].items()]
    lines += ["# profile %d" % profile, "HELLO %d" % resp]
    current = 0
    for conn, argv in steps:
        if conn != current:
            lines.append("# connection %d" % conn)
            current = conn
        lines.append("# sleep %s ms" % argv[1].decode() if argv[0] == SLEEP else " ".join(map(quoted, argv)))
    return "\n".join(lines)


def plain_zeros(reply):
    """A score of -0 loses its sign when a skiplist is loaded as a listpack."""
    if isinstance(reply, (list, tuple)):
        return type(reply)(map(plain_zeros, reply))
    return b"0" if reply == b"-0" else reply


class Coverage:
    """Calls by command: succeeded, failed in execution, rejected before it (arity)."""

    def __init__(self):
        self.counts = defaultdict(Counter)
        self.encodings = Counter()  # of the keys compared at the ends of sequences
        self.sequences = 0
        self.commands = 0
        self.seconds = 0.0

    def count(self, argv, reply):
        if is_error(reply):
            early = any(text in reply[1] for text in EARLY)
            self.counts[name_of(argv)]["rejected" if early else "failed"] += 1
        else:
            self.counts[name_of(argv)]["valid"] += 1

    def table(self, names, columns=3):
        """A line for every few commands: valid, failed, rejected."""
        cells = []
        for name in sorted(names):
            row = self.counts[name]
            cells.append("%-24s %7d %6d %6d" % (name, row["valid"], row["failed"], row["rejected"]))
        rows = -(-len(cells) // columns)
        lines = [" | ".join(["%-24s %7s %6s %6s" % ("command", "valid", "failed", "reject")] * columns)]
        lines += [" | ".join(cells[at::rows]) for at in range(rows)]
        lines.append("keys compared: " + ", ".join("%d %s" % (n, kind.decode()) for kind, n in sorted(self.encodings.items())))
        rate = self.commands / self.seconds if self.seconds else 0
        lines.append("%d sequences, %d commands to each server, %.0f a second" % (self.sequences, self.commands, rate))
        return "\n".join(lines)


def total(coverages):
    """The sum of several."""
    out = Coverage()
    for part in coverages:
        for name, row in part.counts.items():
            out.counts[name].update(row)
        out.encodings.update(part.encodings)
        out.sequences += part.sequences
        out.commands += part.commands
        out.seconds += part.seconds
    return out


class Runner:
    """Two servers (oracle, subject), two client connections and one for administration to each."""

    def __init__(self, oracle, subject, resp, coverage=None, subject_settings=None):
        self.servers = (oracle, subject)
        self.resp = resp
        self.coverage = coverage or Coverage()
        self.subject_settings = subject_settings or {}
        self.profile = None
        self.links = None
        self.connect()

    def connect(self):
        """links[c] = (connection to the oracle, connection to the subject); c = 0, 1, or 2 for administration."""
        self.close()
        self.links = [tuple(server.connect() for server in self.servers) for _ in range(3)]
        self.profile = None
        for link in self.links:
            for conn in link:
                if is_error(conn.call("HELLO", self.resp)):
                    raise RuntimeError("HELLO %d refused" % self.resp)

    def close(self):
        for link in self.links or []:
            for conn in link:
                conn.close()
        self.links = None

    def both(self, link, commands):
        """Sends to both servers before it reads from either."""
        replies = []
        for conn in self.links[link]:
            conn.send(commands)
        for server, conn in zip(self.servers, self.links[link]):
            try:
                replies.append(conn.receive(len(commands)))
            except Disconnected as why:
                raise Mismatch("%s: %s\n%s" % (server.binary, why, self._post_mortem(server, commands))) from why
        self.coverage.commands += len(commands)
        return replies

    @staticmethod
    def _post_mortem(server, commands):
        """What became of a server that did not answer; one that still runs is ended, since it may be in a loop."""
        time.sleep(0.3)
        state = "still running" if server.alive() else "the process ended:\n" + server.log_tail()
        server.process.kill()
        server.process.wait()
        return state + "\nunanswered, in one of:\n" + "\n".join(" ".join(map(quoted, argv))[:200] for argv in commands)

    def payloads(self):
        """DUMPs made by the oracle, the material of RESTORE."""
        admin = self.links[2][0]
        admin.call("SELECT", 0)
        admin.call("FLUSHALL")
        out = []
        for key, argv in payload_sources():
            admin.pipeline([argv])
            out.append(admin.call("DUMP", key)[1])
        admin.call("FLUSHALL")
        return out

    # ---- one sequence

    def reset(self, profile):
        if any(not server.alive() for server in self.servers) or self.links is None:
            for server in self.servers:
                if not server.alive():
                    server.restart()
            self.connect()
        clean = [[b"DISCARD"], [b"UNWATCH"], [b"SELECT", b"0"], [b"CLIENT", b"SETNAME", b""], [b"CLIENT", b"NO-EVICT", b"off"]]
        for link in (0, 1):
            self.both(link, clean)
        self.both(2, [[b"SELECT", b"0"], [b"FLUSHALL"], [b"SCRIPT", b"FLUSH"], [b"FUNCTION", b"FLUSH"],
                      [b"ACL", b"DELUSER", *self.users()],
                      [b"CONFIG", b"SET", *(word for pair in family_server.DEFAULTS.items() for word in pair)]])  # fmt: skip
        if profile != self.profile:
            self._configure(profile)

    def users(self):
        """All but the one that cannot be deleted."""
        replies = self.both(2, [[b"ACL", b"USERS"]])
        return sorted({word[1] for (reply,) in replies for word in reply[1]} - {b"default"}) or [b"nobody"]

    def _configure(self, profile):
        settings = [[b"CONFIG", b"SET", k.encode(), str(v).encode()] for k, v in PROFILES[profile].items()]
        for side, replies in zip(self.servers, self.both(2, settings)):
            for argv, reply in zip(settings, replies):
                if reply != ("+", b"OK"):
                    raise Mismatch("%s: CONFIG SET %s: %r" % (side.binary, argv[2].decode(), reply))
        for key, value in self.subject_settings.items():
            self.links[2][1].call("CONFIG", "SET", key, value)
        self.profile = profile

    def run(self, steps, profile):
        """Raises Mismatch at the first difference."""
        started = time.monotonic()
        try:
            self._run(steps, profile)
        except (Mismatch, Disconnected, OSError):
            self._abandon()
            raise
        finally:
            self.coverage.sequences += 1
            self.coverage.seconds += time.monotonic() - started

    def _abandon(self):
        """After a difference replies may be unread: fresh connections next time."""
        self.close()

    def _run(self, steps, profile):
        self.reset(profile)
        self.multi = [False, False]
        self.queued = [[], []]
        self.batch, self.batch_link, self.batch_bytes = [], 0, 0
        for link, argv in steps:
            self._step(link, argv)
        self._flush()
        for link in (0, 1):
            self._step(link, [b"DISCARD"])
        self._flush()
        self._compare_keyspace()

    def _step(self, link, argv):
        if link != self.batch_link:
            self._flush()
            self.batch_link = link
        name = name_of(argv)
        multi = self.multi[link]
        if argv[0] == SLEEP:
            self._flush()
            time.sleep(int(argv[1]) / 1000)
            return
        if name == "SPOP" and multi:
            argv, name = [b"SCARD", *argv[1:2]], "SCARD"
        made = group(argv, multi)
        if made is None:
            return
        if name == "EXEC" or (name in ("MULTI", "DISCARD") and len(argv) == 1):
            self.multi[link] = name == "MULTI"  # EXEC with arguments is an error that ends the transaction
        self.batch.append(made)
        self.batch_bytes += sum(map(len, argv))
        if not multi and name == "SPOP":
            self.batch.pop()
            self._spop(argv)
        elif not multi and name in SCANS:
            self.batch.pop()
            self._scan(argv)
        elif len(self.batch) >= BATCH_COMMANDS or self.batch_bytes > BATCH_BYTES:
            self._flush()

    def _flush(self):
        if not self.batch:
            return
        batch, self.batch, self.batch_bytes = self.batch, [], 0
        left, right = self.both(self.batch_link, [argv for made in batch for argv in made.commands])
        at = 0
        for made in batch:
            end = at + len(made.commands)
            self._handle(self.batch_link, made, left[at:end], right[at:end])
            at = end

    def _handle(self, link, made, left, right):
        name = name_of(made.argv)
        if QUEUED in left or QUEUED in right:
            self._expect(made, left, right, None if left == right else "queued differently")
            if left[made.main] == QUEUED:
                self.queued[link].append(made)
            else:
                self.coverage.count(made.argv, left[made.main])
            return
        self.coverage.count(made.argv, left[made.main])
        if name == "EXEC" or (name == "DISCARD" and len(made.argv) == 1):
            queued, self.queued[link] = self.queued[link], []
            if name == "EXEC" and all(reply[0] == "*" and reply[1] is not None for reply in (left[0], right[0])):
                self._handle_exec(made, queued, left[0][1], right[0][1])
                return
        self._expect(made, left, right, made.check(left, right))

    def _handle_exec(self, made, queued, left, right):
        total = sum(len(part.commands) for part in queued)
        if len(left) != total or len(right) != total:
            self._fail(made, left, right, "EXEC replied to %d and %d of %d commands" % (len(left), len(right), total))
        at = 0
        for part in queued:
            end = at + len(part.commands)
            one, two = left[at:end], right[at:end]
            self.coverage.count(part.argv, one[part.main])
            self._expect(part, one, two, part.check(one, two))
            at = end

    def _expect(self, made, left, right, wrong):
        if wrong:
            self._fail(made, left, right, wrong)

    @staticmethod
    def _fail(made, left, right, wrong):
        def brief(replies):
            text = "\n".join(repr(reply) for reply in replies)
            return text if len(text) < 3000 else text[:2000] + " ... " + text[-900:]

        sent = "\n".join(" ".join(map(quoted, argv))[:600] for argv in made.commands)
        raise Mismatch("%s\nsent:\n%s\noracle:\n%s\nsubject:\n%s" % (wrong, sent, brief(left), brief(right)))

    # ---- commands that need both servers to be led along

    def _spop(self, argv):
        """Each server pops what it likes; what was popped is checked against the members before, and both go on
        with what the oracle has left."""
        self._flush()
        key = argv[1] if len(argv) > 1 else b""
        left, right = self.both(self.batch_link, [[b"SMEMBERS", key], argv, [b"SMEMBERS", key]])
        made = Group(argv, exact())
        self.coverage.count(argv, left[1])
        if is_error(left[1]) or is_error(right[1]) or is_error(left[0]):
            self._expect(made, left[1:2], right[1:2], made.check(left[1:2], right[1:2]))
            return
        if [reply[0] for reply in left] != [reply[0] for reply in right] or is_null(left[1]) != is_null(right[1]):
            self._fail(made, left, right, "replies have different types")
        for replies in (left, right):
            before, after = multiset(replies[0][1]), multiset(replies[2][1])
            several = replies[1][0] in "*~"
            popped = multiset(replies[1][1] if several else [replies[1]] if before else [])
            want = min(int(argv[2]), sum(before.values())) if several else min(1, len(before))
            if sum(popped.values()) != want or before - popped != after or popped - before:
                self._fail(made, left, right, "popped is not what is missing")
        if left[2] != right[2] and left[2][1]:
            self._level(made, key)

    def _level(self, made, key):
        """Gives both servers the oracle's value and expiry."""
        oracle = self.links[self.batch_link][0]
        payload, at = oracle.pipeline([[b"DUMP", key], [b"PEXPIRETIME", key]])
        restore = [b"RESTORE", key, b"%d" % max(0, at[1]), payload[1], b"REPLACE", b"ABSTTL"]
        left, right = self.both(self.batch_link, [restore])
        self._expect(made, left, right, None if left == right == [("+", b"OK")] else "RESTORE after SPOP failed")

    def _scan(self, argv):
        """A whole iteration from cursor 0: everything that is there comes at least once, and nothing else."""
        self._flush()
        at = 1 if argv[0].upper() == b"SCAN" else 2
        left, right = self.both(self.batch_link, [argv])
        made = Group(argv, scan_shape)
        self.coverage.count(argv, left[0])
        self._expect(made, left, right, made.check(left, right))
        if is_error(left[0]) or argv[at] != b"0":
            return
        paired = argv[0].upper() in (b"HSCAN", b"ZSCAN")
        seen = [self._iterate(side, argv, at, reply[0], paired) for side, reply in ((0, left), (1, right))]
        if seen[0] != seen[1]:
            only = [[("only here", mine - theirs)] for mine, theirs in (seen, seen[::-1])]
            self._fail(made, *only, "iterations differ")

    def _iterate(self, side, argv, at, reply, paired):
        conn, seen = self.links[self.batch_link][side], set()
        for _ in range(100000):
            items = reply[1][1][1]
            seen |= set(map(freeze, flat_pairs(items) if paired else items))
            cursor = reply[1][0][1]
            if cursor == b"0":
                return seen
            reply = conn.pipeline([argv[:at] + [cursor] + argv[at + 1 :]])[0]
            if is_error(reply):
                raise Mismatch("%s: scan with its own cursor %r: %r" % (self.servers[side].binary, cursor, reply))
        raise Mismatch("%s: the scan does not end: %r" % (self.servers[side].binary, argv))

    # ---- the end of a sequence: all keys

    def databases(self):
        """Those whose keys are compared at the end."""
        return [0] if self.servers[0].cluster else DATABASES_USED

    def _compare_keyspace(self):
        databases = self.databases()
        for number in databases:
            self._hold_expiring(number)
        asked = [argv for number in databases for argv in ([b"SELECT", b"%d" % number], [b"KEYS", b"*"])]
        left, right = self.both(2, asked)
        for at, number in enumerate(databases):
            one, two = left[2 * at + 1], right[2 * at + 1]
            if same_items(one, two):
                self._fail(Group(asked[2 * at + 1], exact()), [one], [two], "database %d has different keys" % number)
            if one[1]:
                self._compare_database(number, sorted(key[1] for key in one[1]))

    def _hold_expiring(self, number):
        """Keys that run out within a second, during the comparison, are made to stay; one that has done so on one
        server already is deleted on the other."""
        found = [replies[1][1] for replies in self.both(2, [[b"SELECT", b"%d" % number], [b"KEYS", b"*"]])]
        keys = sorted({key[1] for part in found for key in part})
        left, right = self.both(2, [[b"PTTL", key] for key in keys])
        times = [(key, one[1], two[1]) for key, one, two in zip(keys, left, right)]
        soon = [key for key, *both in times if max(both) >= 0 and all(t == -2 or 0 <= t < EXPIRING_MS for t in both)]
        left, right = self.both(2, [[b"PERSIST", key] for key in soon])
        self.both(2, [[b"DEL", key] for key, one, two in zip(soon, left, right) if one[1] != 1 or two[1] != 1])

    def _compare_database(self, number, keys):
        select = [[b"SELECT", b"%d" % number]]
        facts = [[*words, key] for key in keys
                 for words in ([b"TYPE"], [b"OBJECT", b"ENCODING"], [b"PEXPIRETIME"], [b"DUMP"])]  # fmt: skip
        left, right = self.both(2, select + facts)
        reads, crossed = [], [[], []]
        for at, key in enumerate(keys):
            one, two = left[1 + 4 * at : 5 + 4 * at], right[1 + 4 * at : 5 + 4 * at]
            self._compare_facts(number, key, one, two)
            reads.append(self._value_read(key, one[0][1]))
            copy = key + COPY_SUFFIX
            crossed[0] += [[b"RESTORE", copy, b"0", two[3][1]], [b"OBJECT", b"ENCODING", copy]]
            crossed[1] += [[b"RESTORE", copy, b"0", one[3][1]], [b"OBJECT", b"ENCODING", copy]]
        self._compare_values(number, reads, *self.both(2, reads))
        self._compare_copies(number, keys, reads, crossed)

    def _compare_facts(self, number, key, one, two):
        self.coverage.encodings[one[0][1] + b"/" + (one[1][1] or b"?")] += 1
        made = Group([b"TYPE/ENCODING/PEXPIRETIME/DUMP", key], exact())
        wrong = None
        if one[0] != two[0]:
            wrong = "types differ"
        elif one[1] != two[1]:
            wrong = "encodings differ"
        elif one[2][1] != two[2][1] and (min(one[2][1], two[2][1]) < 0 or abs(one[2][1] - two[2][1]) > 3000):
            wrong = "expiry differs"
        else:
            wrong = same_dump(encoding_of(one[1]), one[3], two[3])
        self._expect(made, one, two, wrong and "at the end, database %d, key %s: %s" % (number, quoted(key), wrong))

    @staticmethod
    def _value_read(key, kind):
        return {b"string": [b"GET", key], b"list": [b"LRANGE", key, b"0", b"-1"], b"hash": [b"HGETALL", key],
                b"set": [b"SMEMBERS", key], b"zset": [b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"],
                b"stream": [b"XRANGE", key, b"-", b"+"]}[kind]  # fmt: skip

    def _compare_values(self, number, reads, left, right):
        for argv, one, two in zip(reads, left, right):
            wrong = {b"HGETALL": same_pairs, b"SMEMBERS": same_items}.get(argv[0], same)(one, two)
            self._expect(Group(argv, exact()), [one], [two], wrong and "at the end, database %d: %s" % (number, wrong))

    def _compare_copies(self, number, keys, reads, crossed):
        """Each server has loaded the other's DUMP: the copies must agree with each other and with the originals."""
        for side in (0, 1):
            self.links[2][side].send(crossed[side])
        left, right = (self.links[2][side].receive(len(crossed[side])) for side in (0, 1))
        copies = [[argv[0], argv[1] + COPY_SUFFIX] + argv[2:] for argv in reads]
        values = self.both(2, copies)
        originals = self.both(2, reads)[0]
        for at, key in enumerate(keys):
            one, two = left[2 * at : 2 * at + 2], right[2 * at : 2 * at + 2]
            made = Group([b"RESTORE", key + COPY_SUFFIX, b"0", b"<DUMP of the other server>"], exact())
            wrong = None if one == two and one[0] == ("+", b"OK") else "the other's DUMP is loaded differently"
            self._expect(made, one, two, wrong and "database %d: %s" % (number, wrong))
            compare = {b"HGETALL": same_pairs, b"SMEMBERS": same_items}.get(reads[at][0], same)
            loaded = values[0][at]
            for mine, other in ((loaded, values[1][at]), (plain_zeros(loaded), plain_zeros(originals[at]))):
                wrong = compare(mine, other)
                self._expect(made, [mine], [other], wrong and "database %d, loaded copy: %s" % (number, wrong))
