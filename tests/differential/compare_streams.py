"""How replies about streams are compared: what the clock has put into them may differ by a few seconds."""

CLOCK_MIN, CLOCK_SLACK_MS, IDLE_SLACK_MS = 1_500_000_000_000, 60_000, 20_000
DELIVERED = 8  # bytes of a time in a payload


def near(one, two):
    """Numbers that are times may differ, everything else must be equal."""
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        return type(one) is type(two) and len(one) == len(two) and all(map(near, one, two))
    if isinstance(one, int) and isinstance(two, int) and min(one, two) >= CLOCK_MIN:
        return abs(one - two) <= CLOCK_SLACK_MS
    return one == two


def idle(one, two):
    both = one[0] == two[0] == ":" and min(one[1], two[1]) >= 0
    return both and abs(one[1] - two[1]) <= IDLE_SLACK_MS


def pending(left, right):
    """XPENDING: the third of an entry's four is how long ago it was delivered."""
    one, two = left[0], right[0]
    entries = lambda reply: reply[0] == "*" and reply[1] and all(  # noqa: E731
        item[0] == "*" and item[1] and len(item[1]) == 4 for item in reply[1])  # fmt: skip
    if not (entries(one) and entries(two)):
        return None if one == two else "replies differ"
    if len(one[1]) != len(two[1]):
        return "another number of entries"
    for mine, other in zip(one[1], two[1]):
        a, b = mine[1], other[1]
        if a[:2] + a[3:] != b[:2] + b[3:] or not idle(a[2], b[2]):
            return "entries differ"
    return None


def facts(reply):
    """A map, or its flat form, as a dictionary."""
    items = reply[1] if reply[0] == "%" else list(zip(reply[1][::2], reply[1][1::2]))
    return {key[1]: value for key, value in items}


def consumers(left, right):
    """XINFO CONSUMERS: the subject has one more fact, that of Redis 7.2 (listed in docs/compatibility.notes); a proxy in front
    of redis-server has not."""
    one, two = left[0], right[0]
    if one[0] != two[0] or len(one[1]) != len(two[1]):
        return "replies differ"
    for mine, other in zip(one[1], two[1]):
        a, b = facts(mine), facts(other)
        inactive = b.pop(b"inactive", (":", -1))
        a.pop(b"inactive", None)  # Valkey as the oracle
        if mine[0] != other[0] or list(a) != list(b) or inactive[0] != ":" or inactive[1] < -1:
            return "facts differ"
        if not idle(a.pop(b"idle"), b.pop(b"idle")) or a != b:
            return "consumers differ"
    return None


def near_check(left, right):
    return None if near(left[0], right[0]) else "replies differ"


CHECKS = {"XPENDING": pending, "XINFO|CONSUMERS": consumers, "XINFO|STREAM": near_check}


def is_time_at(one, two, at):
    times = [int.from_bytes(body[at : at + DELIVERED], "little") for body in (one, two)]
    return min(times) >= CLOCK_MIN and max(times) < 2 * CLOCK_MIN and abs(times[0] - times[1]) <= CLOCK_SLACK_MS


def same_payload(one, two):
    """Contents of DUMPs: equal bytes but for times."""
    if len(one) != len(two):
        return "DUMP payloads have different lengths"
    at = 0
    while at < len(one):
        if one[at] == two[at]:
            at += 1
            continue
        window = next((start for start in range(at, max(at - DELIVERED, -1), -1) if is_time_at(one, two, start)), None)
        if window is None:
            return "DUMP payloads differ at byte %d" % at
        at = window + DELIVERED
    return None
