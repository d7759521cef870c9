"""How replies about the servers themselves are compared: their form, since the values are each server's own."""

import scope


def kind(reply):
    """The type of a reply; an aggregate or text may be of any size, but null is null."""
    return reply[0], len(reply) == 1 or reply[1] is None


def same_kind(left, right):
    return None if kind(left[0]) == kind(right[0]) else "types differ"


def outline(reply):
    """The types within a reply, without values; texts that are names stay."""
    if reply[0] in "*~>" and reply[1] is not None:
        return reply[0], [outline(part) for part in reply[1]]
    if reply[0] == "%":
        return reply[0], [(key, outline(value)) for key, value in reply[1]]
    return kind(reply)


def same_outline(left, right):
    return None if outline(left[0]) == outline(right[0]) else "forms differ"


def lines_of(reply):
    return reply[1].split(b"\r\n")


OWN_SECTIONS = (b"# Hotkeys", b"# Bigkeys")


def info(left, right):
    """INFO: the same sections in the same order (what is in them: tests/system/test_observe.py)."""
    sections = [[line for line in lines_of(replies[0]) if line.startswith(b"#") and line not in OWN_SECTIONS]
                for replies in (left, right)]  # fmt: skip
    return None if left[0][0] == right[0][0] and sections[0] == sections[1] else "sections differ"


def client_lines(left, right):
    """CLIENT LIST and INFO: the same facts of a client.  A list of IDs may find clients in one server and none in the other."""
    if not left[0][1].strip(b"txt:") or not right[0][1].strip(b"txt:"):
        return None
    first = [[word.split(b"=")[0] for word in replies[0][1].split(b"\n")[0].split(b" ")] for replies in (left, right)]
    return None if left[0][0] == right[0][0] and first[0] == first[1] else "facts differ"


def same_size(left, right):
    """A random text: how long it is."""
    one, two = left[0], right[0]
    return None if one[0] == two[0] and len(one[1] or b"") == len(two[1] or b"") else "lengths differ"


OWN_SETTINGS = (b"port", b"dir", b"io-threads")


def settings(left, right):
    """CONFIG GET: the same pairs in any order; the subject may have settings of its own."""
    one, two = left[0], right[0]
    if one[0] != two[0]:
        return "types differ"
    pairs = [dict(reply[1] if reply[0] == "%" else zip(reply[1][::2], reply[1][1::2])) for reply in (one, two)]
    wrong = [name[1].decode() for name, value in pairs[0].items() if pairs[1].get(name) != value and name[1] not in OWN_SETTINGS]
    return "settings differ: " + ", ".join(wrong) if wrong else None


def any_order(left, right):
    """Arrays of simple values."""
    one, two = left[0], right[0]
    if one[0] != two[0] or one[1] is None or two[1] is None:
        return None if one == two else "replies differ"
    return None if sorted(map(repr, one[1])) == sorted(map(repr, two[1])) else "members differ"


def same_number(left, right):
    """Arrays that may hold some of what there is: as many members."""
    one, two = left[0], right[0]
    return None if one[0] == two[0] and len(one[1]) == len(two[1]) else "another number"


NEWER = [name.lower().encode() for name in scope.NEWER]


def command_names(left, right):
    """COMMAND LIST, ACL CAT: the names in any order, those besides that the oracle cannot know."""
    one, two = left[0], right[0]
    known = [name for name in two[1] if name[1] not in NEWER]
    return None if one[0] == two[0] and sorted(one[1]) == sorted(known) else "names differ"


def command_rows(left, right):
    """COMMAND alone: as many rows; what is in them is compared by COMMAND INFO."""
    return None if left[0][0] == right[0][0] and abs(len(left[0][1]) - len(right[0][1])) < 10 else "rows differ"


def deep_sorted(reply):
    """The whole reply without any order in its aggregates."""
    if reply[0] in "*~>" and reply[1] is not None:
        return reply[0], sorted(map(repr, map(deep_sorted, reply[1])))
    if reply[0] == "%":
        return reply[0], sorted(repr((key, deep_sorted(value))) for key, value in reply[1])
    return reply


def no_order(left, right):
    return None if deep_sorted(left[0]) == deep_sorted(right[0]) else "replies differ"


def heads(left, right):
    """HELP whose explanations are Covey's own: the lines they stand below."""
    lines = [sorted(line[1] for line in replies[0][1] if not line[1].startswith(b" ")) for replies in (left, right)]
    return None if lines[0] == lines[1] else "subcommands differ"


OWN_HELP = (b"MIN-REPLICAS-TO-ACK ", b"CROSSSLOT ")


def without_own(left, right):
    """HELP without the lines of subcommands that Redis has not."""
    lines, own = [], False
    for line in right[0][1]:
        own = line[1].startswith(OWN_HELP) or (own and line[1].startswith(b" "))
        lines += [] if own else [line]
    return None if left[0][1] == lines and left[0][0] == right[0][0] else "replies differ"


def rule_kind(rule):
    """Rules of one kind may stand in any order beside each other."""
    return rule[:2] if rule[1:2] == b"@" else b"command" if rule[:1] in (b"+", b"-") else None


UNKNOWN_RULES = {sign + name.lower().encode() for name in scope.NEWER for sign in (b"+", b"-")}


def normal_description(text):
    """Runs of single commands (+get -set), and of categories given or taken away, sorted; patterns as they are.  Categories
    come in the order of how much they give, in which commands count that the oracle does not know."""
    out, run = [], []
    for word in text.split(b" "):
        bare = word.rstrip(b")")
        if run and rule_kind(run[0]) != rule_kind(bare):
            out, run = out + sorted(run), []
        if bare in UNKNOWN_RULES:
            pass
        elif rule_kind(bare):
            run.append(bare)
        else:
            out.append(bare)
        if bare != word:
            out, run = out + sorted(run) + [b")" * (len(word) - len(bare))], []
    return out + sorted(run)


def plain_users(reply):
    """Descriptions of users, wherever they are in a reply, without the order of single commands: in the oracle that is
    the order of a hash table with a random seed."""
    if isinstance(reply, (list, tuple)):
        return tuple(plain_users(part) for part in reply)
    if isinstance(reply, bytes) and (b"+@all" in reply or b"-@all" in reply):
        return tuple(normal_description(reply))
    return reply


def users(left, right):
    return None if plain_users(left[0]) == plain_users(right[0]) else "users differ"


def dry_run(left, right):
    """ACL DRYRUN: the oracle cuts the key that it names at a NUL byte."""
    one, two = left[0], right[0]
    return None if one[0] == two[0] and one[1].split(b"\0")[0].split(b"' ")[0] == two[1].split(b"\0")[0].split(b"' ")[0] else "replies differ"


CHECKS = {
    "ACL|DRYRUN": dry_run,
    "ACL|GETUSER": users,
    "ACL|LIST": users,
    "CLUSTER|HELP": heads,
    "CLIENT|HELP": without_own,
    "FUNCTION|LIST": no_order,
    "FUNCTION|STATS": no_order,
    "FUNCTION|DUMP": same_size,
    "TIME": same_outline,
    "LASTSAVE": same_kind,
    "LOLWUT": same_kind,
    "INFO": info,
    "CLIENT|ID": same_kind,
    "CLIENT|LIST": client_lines,
    "CLIENT|INFO": client_lines,
    "CONFIG|GET": settings,
    "COMMAND": command_rows,
    "COMMAND|LIST": command_names,
    "MEMORY|STATS": same_kind,
    "MEMORY|DOCTOR": same_kind,
    "MEMORY|MALLOC-STATS": same_kind,
    "LATENCY|LATEST": same_kind,
    "LATENCY|HISTORY": same_kind,
    "LATENCY|GRAPH": same_kind,
    "LATENCY|DOCTOR": same_kind,
    "LATENCY|RESET": same_kind,
    "LATENCY|HISTOGRAM": same_kind,
    "SLOWLOG|GET": same_kind,
    "SLOWLOG|LEN": same_kind,
    "ACL|GENPASS": same_size,
    "ACL|LOG": same_kind,
    "ACL|CAT": command_names,
    "CLUSTER|INFO": same_kind,
    "CLUSTER|LINKS": same_kind,
    "CLUSTER|MYID": same_size,
    "CLUSTER|NODES": same_kind,
    "CLUSTER|SHARDS": same_outline,
    "CLUSTER|SLOTS": same_outline,
    "CLUSTER|GETKEYSINSLOT": same_number,
    "PUBSUB|CHANNELS": any_order,
    "PUBSUB|SHARDCHANNELS": any_order,
}
