"""The table of generators, and the means to add to it: what grammar.py and the families beside it share.

A family (family_*.py) is a group of commands with sequences of its own (test_families.py), in which they meet each
other more often than among all commands."""

from collections import defaultdict

TABLE = {}  # by the name of the command
GENERAL = {}  # the same, made from the descriptions of the arguments (arguments.py)
WEIGHT = {}
UNMUTATED = set()
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
