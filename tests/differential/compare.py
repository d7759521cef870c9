"""How the replies of the two servers to one command are compared.

group(argv) wraps a command in a Group: the commands actually sent (the command itself and sometimes a companion
before or after it, such as SMEMBERS after SRANDMEMBER) and a check over both servers' replies to them.  The
same check serves a plain reply and the slice of an EXEC reply.  A check returns None or what is wrong.
"""

import re
from collections import Counter

import compare_server
import compare_streams
from draw import ALL_KEYS, JUNK, MISSING
from resp import is_error, is_null

SUBCOMMANDS = (b"ACL", b"CLIENT", b"CLUSTER", b"COMMAND", b"CONFIG", b"DEBUG", b"FUNCTION", b"LATENCY", b"MEMORY", b"MODULE",
               b"OBJECT", b"PUBSUB", b"SCRIPT", b"SLOWLOG", b"XGROUP", b"XINFO")  # fmt: skip
TTL_SLACK = {b"TTL": 2, b"EXPIRETIME": 2, b"PTTL": 3000, b"PEXPIRETIME": 3000}
COMPACT = (b"listpack", b"intset")


def name_of(argv):
    """The command as the scope list spells it."""
    name = argv[0].upper()
    if name in SUBCOMMANDS and len(argv) > 1:
        name += b"|" + argv[1].upper()
    return name.decode("latin-1")


ONE_OF_SEVERAL = re.compile(rb"ERR (Function|Library) \w+ already exists")


def expected(name, one, two):
    """Errors that may differ.  The keys of a broken call are looked for in slots (docs/compatibility.notes); which of
    several functions is named is a matter of the oracle's hash table; the oracle cuts what it quotes at a NUL
    byte, and lets sizes above 2^63 wrap around."""
    if name == b"CONFIG" and is_error(one) and is_error(two):
        said = [reply[1].split(b"\0")[0].rstrip(b"'") for reply in (one, two)]
        return said[0] == said[1] or all(b"argument must be" in text for text in said) and two[1].endswith(b"a memory value")
    if name == b"FUNCTION" and is_error(one) and is_error(two):
        return ONE_OF_SEVERAL.fullmatch(one[1]) and ONE_OF_SEVERAL.fullmatch(two[1])
    broken = is_error(one) and is_error(two) and any(reply[1].startswith(b"CROSSSLOT") for reply in (one, two))
    return broken and name in (b"XREAD", b"XREADGROUP", b"GEORADIUS", b"GEORADIUSBYMEMBER")


class Group:
    """commands: what is sent; main: index of the command itself; check(replies, replies) -> None or text."""

    def __init__(self, argv, check, before=(), after=()):
        self.argv = argv
        self.commands = [*before, argv, *after]
        self.main = len(before)
        self.check_replies = check

    def check(self, left, right):
        one, two = left[self.main], right[self.main]
        if is_error(one) or is_error(two):
            return None if one == two or expected(self.argv[0].upper(), one, two) else "errors differ"
        return self.check_replies(left, right)


def freeze(reply):
    """Something hashable that equals only what is exactly the same reply."""
    if isinstance(reply, (list, tuple)):
        return tuple(freeze(part) for part in reply)
    return reply


def multiset(items):
    return Counter(freeze(item) for item in items)


def shape(reply):
    """The types of a reply without its values."""
    if isinstance(reply, list):
        return [shape(part) for part in reply]
    if isinstance(reply, tuple) and reply and isinstance(reply[0], str):
        nested = reply[1] if len(reply) > 1 and isinstance(reply[1], list) else None
        return (reply[0], is_null(reply), shape(nested) if nested is not None else None)
    if isinstance(reply, tuple):
        return tuple(shape(part) for part in reply)
    return None


def same(one, two):
    return None if one == two else "replies differ"


def exact(at=0):
    return lambda left, right: same(left[at], right[at])


def same_items(one, two):
    """Aggregates with the same members in any order."""
    if one[0] != two[0] or len(one) < 2 or not isinstance(one[1], list) or not isinstance(two[1], list):
        return same(one, two)
    return None if multiset(one[1]) == multiset(two[1]) else "members differ"


def flat_pairs(items):
    return list(zip(items[::2], items[1::2]))


def same_pairs(one, two):
    """HGETALL: pairs in any order, flat in RESP2, a map in RESP3."""
    if one[0] == "*" and two[0] == "*" and one[1] is not None and two[1] is not None and len(one[1]) % 2 == 0:
        return None if multiset(flat_pairs(one[1])) == multiset(flat_pairs(two[1])) else "pairs differ"
    return same_items(one, two)


def encoding_of(reply):
    return reply[1] if reply[0] == "$" else None


def ordered_when_compact(compare):
    """The order counts while the value is compact; the companion before tells the encoding."""

    def check(left, right):
        if left[0] != right[0]:
            return "encodings differ"
        if encoding_of(left[0]) in COMPACT:
            return same(left[1], right[1])
        return compare(left[1], right[1])

    return check


def near(slack):
    def check(left, right):
        one, two = left[0], right[0]
        if one[0] == two[0] == ":" and one[1] >= 0 and two[1] >= 0:
            return None if abs(one[1] - two[1]) <= slack else "times differ by more than %d" % slack
        return same(one, two)

    return check


# ---- random replies


def collection(reply, paired):
    """The companion's reply as a list of members, or of (member, value) pairs."""
    items = reply[1] if len(reply) > 1 and reply[1] is not None else []
    if reply[0] == "%":
        return list(items)
    if paired and items and items[0][0] == "*":
        return [tuple(item[1]) for item in items]
    return flat_pairs(items) if paired else list(items)


def pick_check(paired, count, with_values):
    """SRANDMEMBER, HRANDFIELD, ZRANDMEMBER: members of the collection, as many as asked for, distinct if positive."""

    def verify(reply, companion):
        if is_error(companion):
            return "companion failed"
        have = collection(companion, paired)
        names = {freeze(item[0]) if paired else freeze(item) for item in have}
        if count is None:
            return None if (freeze(reply) in names if names else is_null(reply)) else "not a member"
        picked = collection(reply, with_values)
        allowed = {freeze(item) for item in have} if with_values else names
        if any(freeze(item) not in allowed for item in picked):
            return "not a member"
        if count >= 0 and len({freeze(item) for item in picked}) != len(picked):
            return "repeats with a positive count"
        want = min(count, len(have)) if count >= 0 else (-count if have else 0)
        return None if len(picked) == want else "%d picked, %d expected" % (len(picked), want)

    def check(left, right):
        wrong = same_items(left[1], right[1])
        if wrong:
            return "collections differ"
        for side, replies in (("oracle", left), ("subject", right)):
            wrong = verify(replies[0], replies[1])
            if wrong:
                return "%s: %s" % (side, wrong)
        one, two = left[0], right[0]
        if shape(one) != shape(two):
            return "shapes differ"
        return None

    return check


def number_or_none(argv, at):
    try:
        return int(argv[at])
    except (IndexError, ValueError):
        return None


def random_group(argv):
    name = argv[0].upper()
    paired = name != b"SRANDMEMBER"
    companion = {
        b"SRANDMEMBER": [b"SMEMBERS", argv[1]],
        b"HRANDFIELD": [b"HGETALL", argv[1]],
        b"ZRANDMEMBER": [b"ZRANGE", argv[1], b"0", b"-1", b"WITHSCORES"],
    }[name]
    return Group(argv, pick_check(paired, number_or_none(argv, 2), len(argv) > 3), after=[companion])


def randomkey_check(left, right):
    wrong = same_items(left[1], right[1])
    for replies in (left, right):
        keys = {freeze(key) for key in replies[1][1] or []}
        if not wrong and not (freeze(replies[0]) in keys if keys else is_null(replies[0])):
            wrong = "RANDOMKEY gave a key that is not there"
    return wrong or (None if shape(left[0]) == shape(right[0]) else "shapes differ")


def scan_shape(left, right):
    """One SCAN call whose cursor cannot be followed: its outer form only."""
    for reply in (left[0], right[0]):
        ok = reply[0] == "*" and reply[1] and len(reply[1]) == 2 and reply[1][0][0] == "$" and reply[1][1][0] == "*"
        if not ok or not reply[1][0][1].isdigit():
            return "not a scan reply"
    return None


# ---- SORT


def sort_options(argv):
    """Which of BY, ALPHA, LIMIT, STORE, NOSORT a SORT has, read as the server reads them."""
    found, at = {}, 2
    while at < len(argv):
        word = argv[at].upper()
        if word in (b"BY", b"GET", b"STORE"):
            found[word] = argv[at + 1] if at + 1 < len(argv) else b""
            if word == b"BY" and b"*" not in found[word]:
                found[b"NOSORT"] = True  # sticks, even if another BY follows
            at += 2
        elif word == b"LIMIT":
            found[word] = True
            at += 3
        else:
            found[word] = True
            at += 1
    return found


def same_count(one, two):
    if one[0] == two[0] == "*" and one[1] is not None and two[1] is not None and len(one[1]) == len(two[1]):
        return None
    return same(one, two)


def sort_group(argv):
    """strtod() in SORT of the oracle fails after a number out of range in any earlier command (a stale errno); the
    cursor of an SSCAN sets that right."""
    clean = [[b"SSCAN", argv[1], b"0"]]
    options = sort_options(argv)
    by = options.get(b"BY")
    sorts = b"NOSORT" not in options
    if by is not None and sorts and b"ALPHA" in options:  # equal weights: no order between them is promised
        if b"STORE" in options:
            return None
        compare = same_count if b"LIMIT" in options else same_items
        return Group(argv, lambda left, right: compare(left[1], right[1]), before=clean)
    if not sorts and b"STORE" not in options:
        compare = same_count if b"LIMIT" in options else same_items

        def check(left, right):
            if encoding_of(left[1]) == b"hashtable":
                return compare(left[2], right[2])
            return same(left[2], right[2])

        return Group(argv, check, before=[*clean, [b"OBJECT", b"ENCODING", argv[1]]])
    return Group(argv, exact(1), before=clean)


# ---- DUMP


def lzf_expand(data, size):
    """Undoes LZF: a control byte below 32 starts a literal run, others are back references."""
    out, at = bytearray(), 0
    while at < len(data):
        control = data[at]
        at += 1
        if control < 32:
            out += data[at : at + control + 1]
            at += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[at]
            at += 1
        start = len(out) - ((control & 31) << 8 | data[at]) - 1
        at += 1
        for i in range(length + 2):
            out.append(out[start + i])
    if len(out) != size:
        raise ValueError("LZF length")
    return bytes(out)


def rdb_length(data, at):
    """(value, next, special): special is True for an encoded string."""
    kind = data[at] >> 6
    if kind == 0:
        return data[at] & 63, at + 1, False
    if kind == 1:
        return (data[at] & 63) << 8 | data[at + 1], at + 2, False
    if kind == 3:
        return data[at] & 63, at + 1, True
    size = 8 if data[at] & 1 else 4
    return int.from_bytes(data[at + 1 : at + 1 + size], "big"), at + 1 + size, False


def dump_body(payload):
    """(type, version, content) of a payload that is one string; LZF is undone, since an encoder is free in
    what it finds to compress."""
    value, at, special = rdb_length(payload, 1)
    version = payload[-10:-8]
    if special and value == 3:
        packed, at, _ = rdb_length(payload, at)
        size, at, _ = rdb_length(payload, at)
        return payload[0], version, lzf_expand(payload[at : at + packed], size), at + packed == len(payload) - 10
    if special:
        return payload[0], version, payload[1:-10], True
    return payload[0], version, payload[at : at + value], at + value == len(payload) - 10


BYTE_EQUAL = (b"int", b"embstr", b"raw", b"listpack", b"intset")


def rdb_string(data, at):
    """(text, next); a number stays as it is encoded."""
    value, start, special = rdb_length(data, at)
    if not special:
        return data[start : start + value], start + value
    if value == 3:
        packed, start, _ = rdb_length(data, start)
        size, start, _ = rdb_length(data, start)
        return lzf_expand(data[start : start + packed], size), start + packed
    return data[at : start + (1 << value)], start + (1 << value)


def stream_body(payload):
    """A stream's payload with its nodes as they are without compression, and without the checksum."""
    count, at, _ = rdb_length(payload, 1)
    out = [payload[:at]]
    for _ in range(2 * count):  # id, listpack
        text, at = rdb_string(payload, at)
        out.append(b"%d:" % len(text) + text)
    return b"".join(out) + payload[at:-8]


def same_dump(encoding, one, two):
    if one[0] != "$" or two[0] != "$" or one[1] is None or two[1] is None:
        return same(one, two)
    if encoding == b"stream":
        return compare_streams.same_payload(*(stream_body(payload) for payload in (one[1], two[1])))
    if encoding not in BYTE_EQUAL or one == two:
        return None if one[1][-10:-8] == two[1][-10:-8] else "RDB versions differ"
    try:
        return None if dump_body(one[1]) == dump_body(two[1]) else "DUMP payloads differ"
    except (IndexError, ValueError):
        return "DUMP payload cannot be read"


# ---- COMMAND


def as_names(reply):
    return multiset(reply[1]) if reply[0] in "*~" else reply


def info_entry(reply, wanted):
    """A COMMAND INFO entry with unordered parts made comparable; subcommands by name."""
    if reply[0] != "*" or reply[1] is None or len(reply[1]) != 10:
        return freeze(reply), {}
    parts = list(reply[1])
    if parts[0][1] in (b"zrank", b"zrevrank"):
        parts[1] = (":", -3)  # since 7.2 they take WITHSCORE
    subs = {sub[1][0][1]: info_entry(sub, wanted)[0] for sub in parts[9][1]}
    fixed = [parts[0], parts[1], as_names(parts[2]), parts[3], parts[4], parts[5], as_names(parts[6]), parts[7]]
    fixed += [key_spec(spec) for spec in parts[8][1]]
    return [freeze(part) if not isinstance(part, Counter) else part for part in fixed], subs


def key_spec(reply):
    """A key specification: a map (flat in RESP2) whose flags have no order."""
    items = reply[1] if reply[0] == "%" else flat_pairs(reply[1])
    facts = {key[1]: as_names(value) if key[1] == b"flags" else freeze(value) for key, value in items}
    facts.pop(b"notes", None)  # prose, which Covey does not have
    return facts


def command_info(left, right):
    one, two = left[0], right[0]
    if one[0] != two[0] or len(one[1]) != len(two[1]):
        return "replies differ"
    for mine, theirs in zip(one[1], two[1]):
        (fixed, subs), (fixed2, subs2) = info_entry(mine, None), info_entry(theirs, None)
        if fixed != fixed2:
            return "COMMAND INFO of %r differs" % (mine[1][0][1] if mine[1] else None)
        for name in compare_server.NEWER:
            subs2.pop(name, None)
        if subs != subs2:
            return "COMMAND INFO: subcommands differ"
    return None


DOC_FACTS = (b"since", b"group", b"doc_flags", b"deprecated_since", b"replaced_by")


def doc_value(name, value):
    if name == b"replaced_by":  # the words between are each server's own
        return [word.lstrip(b"!") for word in value[1].split(b"`")[1::2]]
    return as_names(value)


def doc_facts(reply):
    """{command: facts} of COMMAND DOCS; texts and argument trees are each server's own."""
    items = reply[1] if reply[0] == "%" else flat_pairs(reply[1])
    facts = {}
    for name, doc in items:
        entries = doc[1] if doc[0] == "%" else flat_pairs(doc[1])
        facts[name[1]] = (doc[0], {key[1]: doc_value(key[1], value) for key, value in entries if key[1] in DOC_FACTS})
    return (reply[0], facts)


def command_docs(left, right):
    return None if doc_facts(left[0]) == doc_facts(right[0]) else "COMMAND DOCS differ"


def command_count(left, right):
    """A number; which commands there are is told by COMMAND INFO."""
    return None if left[0][0] == right[0][0] == ":" and right[0][1] > 100 else "COMMAND COUNT"


def keys_and_flags(left, right):
    def plain(reply):
        return [(freeze(item[1][0]), as_names(item[1][1])) for item in reply[1]]

    return None if left[0][0] == right[0][0] == "*" and plain(left[0]) == plain(right[0]) else "replies differ"


# ---- the table


SHARED = (":", 2147483647)


def refcount(left, right):
    """The oracle does not share the integers that COPY makes."""
    return None if left[0] == (":", 1) and right[0] == SHARED else same(left[0], right[0])


def idle_time(left, right):
    """The oracle has one clock for all keys that hold the same small integer; OBJECT REFCOUNT tells them."""
    if left[0] == SHARED:
        return same(shape(left[1]), shape(right[1]))
    return near(3)(left[1:], right[1:])


def any_order(left, right):
    return same_items(left[0], right[0])


CHECKS = {
    "OBJECT|IDLETIME": lambda left, right: same(shape(left[0]), shape(right[0])),  # in MULTI
    "SINTER": any_order,
    "SUNION": any_order,
    "SDIFF": any_order,
    "KEYS": any_order,
    "OBJECT|REFCOUNT": refcount,
    "COMMAND|INFO": command_info,
    "COMMAND|DOCS": command_docs,
    "COMMAND|COUNT": command_count,
    "COMMAND|GETKEYSANDFLAGS": keys_and_flags,
    **compare_server.CHECKS,
    **compare_streams.CHECKS,
    **{name.decode(): near(slack) for name, slack in TTL_SLACK.items()},
}
SCANS = ("SCAN", "HSCAN", "SSCAN", "ZSCAN")


def group(argv, queued=False):
    """The Group for a command, or None if it cannot be compared.  queued: it will be queued by MULTI."""
    name = name_of(argv)
    if len(argv) > 1:
        encoding = [[b"OBJECT", b"ENCODING", argv[1]]]
        if name in ("HGETALL", "HKEYS", "HVALS", "SMEMBERS"):
            compare = same_pairs if name == "HGETALL" else same_items
            return Group(argv, ordered_when_compact(compare), before=encoding)
        if name in ("SRANDMEMBER", "HRANDFIELD", "ZRANDMEMBER"):
            return random_group(argv)
        if name in ("SORT", "SORT_RO"):
            return sort_group(argv)
        if name == "DUMP":
            return Group(argv, lambda left, right: same_dump(encoding_of(left[0]), left[1], right[1]), before=encoding)
    call = argv[2:] if name.startswith("COMMAND|GETKEYS") else argv
    if call and call[0].upper() in (b"ZRANK", b"ZREVRANK") and len(call) > 3:
        return None  # WITHSCORE is of Redis 7.2; so is what is queued
    if name == "LPOS" and b"-9223372036854775808" in argv and b"COUNT" in map(bytes.upper, argv):
        return None  # the oracle's arithmetic overflows: it forgets the COUNT
    if name == "RANDOMKEY":
        return Group(argv, randomkey_check, after=[[b"KEYS", b"*"]])
    if name == "DBSIZE":  # counts what has expired and was not yet removed: looking at a key removes it
        look = [[b"EXISTS", key] for key in [*ALL_KEYS, MISSING, *JUNK]]
        return Group(argv, exact(len(look)), before=look)
    if name == "MEMORY|USAGE" and len(argv) > 2:  # may still see what has expired
        return Group(argv, lambda left, right: same(shape(left[1]), shape(right[1])), before=[[b"EXISTS", argv[2]]])
    if name == "OBJECT|IDLETIME" and len(argv) == 3 and not queued:
        return Group(argv, idle_time, before=[[b"OBJECT", b"REFCOUNT", argv[2]]])
    if name == "OBJECT|REFCOUNT" and queued:  # a queued command still holds its arguments
        return Group(argv, lambda left, right: same(shape(left[0]), shape(right[0])))
    if name in SCANS:
        return Group(argv, scan_shape)
    return Group(argv, CHECKS.get(name, exact()))
