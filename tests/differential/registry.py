"""The table of generators, and the means to add to it: what grammar.py and the families beside it share.

The commands that work on one kind of thing are in one file, family_*.py.  Those registered with family= have sequences
of their own besides, in which they meet each other more often than among all commands (test_differential.py)."""

from collections import defaultdict

from draw import NOT_INTS

TABLE = {}  # by the name of the command
GENERAL = {}  # the same, made from the descriptions of the arguments (arguments.py)
WEIGHT = {}
UNMUTATED = set()
SLEEP = b"@sleep"  # in the place of a command: a pause
FAMILIES = defaultdict(list)  # names of commands


def command(name, weight=4, mutate=True, family=None):
    def register(function):
        TABLE[name] = function
        WEIGHT[name] = weight
        if family:
            FAMILIES[family].append(name)
        if not mutate:
            UNMUTATED.add(name)
        return function

    return register


def number(value):
    return b"%d" % value


PIECES = {
    "key": lambda d: [d.any_key()],
    "v": lambda d: [d.value()],
    "i": lambda d: [d.int_arg()],
    "f": lambda d: [d.float_arg()],
    "x": lambda d: [d.index()],
    "F": lambda d: [d.field()],
    "F+": lambda d: [d.field() for _ in range(1 + d.n(4))],
    "m": lambda d: [d.member()],
    "m+": lambda d: [d.member() for _ in range(1 + d.n(4))],
    "v+": lambda d: [d.value() for _ in range(1 + d.n(4))],
    "sc": lambda d: [d.score()],
    "B": lambda d: [d.score_bound()],
    "key+": lambda d: [d.any_key() for _ in range(1 + d.n(4))],
}


def simple(name, spec, weight=4, family=None):
    """A command whose arguments are a plain row of pieces; s h l t z are keys that prefer that type."""
    makers = [PIECES.get(piece) or (lambda d, kind=piece: [d.key(kind)]) for piece in spec.split()]
    words = [word.encode() for word in name.split("|")]

    def generate(d):
        return words + [arg for make in makers for arg in make(d)]

    command(name, weight, family=family)(generate)


def rows(text):
    """Several of them: NAME SPEC|NAME SPEC, also on lines of their own."""
    for row in text.replace("\n", "|").split("|"):
        simple(*(row.strip().split(" ", 1) + [""])[:2])


# ---- what several families have


def pop(name, kind, weight=4):
    """A command that takes one or, if asked, several."""
    def generate(d):
        counts = [b"0", b"1", b"2", b"3", b"5", b"100", b"-1", b"9223372036854775807", b"x"]
        return [name.encode(), d.key(kind)] + ([d.pick(counts)] if d.chance(50) else [])

    command(name, weight)(generate)


def random_count(d):
    """Bounded below: a server would really send so many elements."""
    if d.chance(15):
        return d.pick([b"0", b"200", b"9223372036854775807", b"-200"] + NOT_INTS)
    return b"%d" % (d.n(40) - 15)


def random_tail(d, word):
    if d.chance(20):
        return []
    if d.chance(5):
        return [d.pick([b"-9223372036854775808", b"-9223372036854775807"]), word]
    return [random_count(d)] + ([d.option(word)] if d.chance(45) else [b"WITHX"] if d.chance(5) else [])
