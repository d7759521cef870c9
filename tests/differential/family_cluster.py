"""Generators: questions about the cluster, and refusals where there is none.  What changes a cluster is in tests/system."""

from draw import NOT_INTS
from registry import command, simple

FAMILY = "cluster"
SLOTS = [b"0", b"1", b"15495", b"16383", b"16384", b"-1", b"5461", *NOT_INTS[:3]]

for name in ("INFO", "LINKS", "MYID", "NODES", "SHARDS", "SLOTS"):
    simple("CLUSTER|" + name, "", 3, family=FAMILY)
command("CLUSTER|KEYSLOT", 4, family=FAMILY)(lambda d: [b"CLUSTER", b"KEYSLOT", d.any_key() if d.chance(50) else d.value()])
command("CLUSTER|COUNTKEYSINSLOT", 4, family=FAMILY)(lambda d: [b"CLUSTER", b"COUNTKEYSINSLOT", d.pick(SLOTS)])
command("CLUSTER|GETKEYSINSLOT", 4, family=FAMILY)(
    lambda d: [b"CLUSTER", b"GETKEYSINSLOT", d.pick(SLOTS), d.pick([b"0", b"100", b"100", b"-1", b"x"])])  # fmt: skip
for name in (b"REPLICAS", b"SLAVES", b"COUNT-FAILURE-REPORTS"):
    command("CLUSTER|" + name.decode(), 2, family=FAMILY)(
        lambda d, name=name: [b"CLUSTER", name, d.pick([b"0" * 40, b"nosuch", b""])])  # fmt: skip
