"""Generators: settings, statistics, memory, latency, the slow log, the description of commands, and what waits for
replicas.  What these tell is mostly each server's own: compare_server.py compares its form."""

from draw import NOT_INTS
from registry import command, simple

FAMILY = "server"
# Settings of both servers that a sequence may change.  test_differential.py puts them back.
SETTINGS = {
    b"maxmemory-samples": [b"5", b"10", b"0", b"-1", b"x"],
    b"slowlog-max-len": [b"128", b"0", b"10", b"-1", b"1k"],
    b"latency-monitor-threshold": [b"0", b"1000", b"-1", b""],
    b"lfu-log-factor": [b"10", b"1", b"-1", b"1.5"],
    b"lfu-decay-time": [b"1", b"0", b"-5"],
    b"timeout": [b"0", b"1000", b"-1", b"99999999999"],
    b"tcp-keepalive": [b"300", b"60", b"-1"],
    b"maxmemory-policy": [b"noeviction", b"NOEVICTION", b"nosuch", b""],
    b"stop-writes-on-bgsave-error": [b"yes", b"no", b"YES", b"maybe"],
    b"appendfsync": [b"everysec", b"no", b"always", b"never"],
    b"lua-time-limit": [b"5000", b"4000", b"-1"],
    b"lazyfree-lazy-expire": [b"yes", b"no", b"1"],
    b"active-expire-effort": [b"1", b"10", b"0", b"11"],
    b"repl-backlog-size": [b"1mb", b"1048576", b"1MB", b"-1", b"1xb"],
    b"proto-max-bulk-len": [b"512mb", b"536870912", b"1", b"500mb"],
    b"notify-keyspace-events": [b"", b"KEA", b"AKE", b"Kg", b"xyz!", b"gK$lshzxetdmn"],
    b"client-output-buffer-limit": [b"normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60", b"pubsub 1 2",
                                    b"pubsub 32mb 8mb 60", b"nosuch 1 2 3", b""],
    b"save": [b"", b"900 1 300 10", b"900", b"0 1", b"x y", b"  "],
    b"loglevel": [b"notice", b"verbose", b"loud"],
    b"oom-score-adj-values": [b"0 200 800", b"1 2", b"0 -3000 1"],
    b"databases": [b"16", b"32"],
    b"nosuch-setting": [b"1"],
    b"client-query-buffer-limit": [b"1gb", b"1", b"1073741824"],
}  # fmt: skip
HARMLESS = [b"maxmemory-samples", b"slowlog-max-len", b"lfu-log-factor", b"lfu-decay-time", b"tcp-keepalive",
            b"maxmemory-policy", b"stop-writes-on-bgsave-error", b"appendfsync", b"lazyfree-lazy-expire",
            b"active-expire-effort", b"nosuch-setting", b"databases", b"latency-monitor-threshold",
            b"client-output-buffer-limit", b"oom-score-adj-values", b"proto-max-bulk-len", b"repl-backlog-size",
            b"client-query-buffer-limit"]  # fmt: skip
DEFAULTS = {name: SETTINGS[name][0] for name in HARMLESS if name not in (b"nosuch-setting", b"databases", b"proto-max-bulk-len")}
PATTERNS = [b"maxmemory-s*", b"hash-max-listpack-*", b"slowlog*", b"nosuch", b"*-threshold", b"[st]imeout", b"HASH-max-listpack-value",
            b"appendfsync", b"lfu-*", b"notify*", b"databases", b"save", b"set-max*", b"list-*", b"requirepass", b"masterauth",
            b"lua-time-limit", b"busy-reply-threshold", b"client-output-buffer-limit", b"lazyfree-*", b"hz", b"loglevel"]  # fmt: skip


@command("CONFIG|SET", 6, family=FAMILY)
def _config_set(d):
    names = [d.pick(HARMLESS) for _ in range(1 + (d.n(3) if d.chance(30) else 0))]
    words = [word for name in names for word in (d.option(name), d.pick(SETTINGS[name]))]
    return [b"CONFIG", d.option(b"SET")] + (words[:-1] if d.chance(5) else words)


@command("CONFIG|GET", 6, family=FAMILY)
def _config_get(d):
    names = [d.pick(PATTERNS) if d.chance(50) else d.pick(HARMLESS) for _ in range(1 + (d.n(3) if d.chance(30) else 0))]
    return [b"CONFIG", d.option(b"GET")] + names


def helped(container):
    simple(container + "|HELP", "", 2, family=FAMILY)


for container in ("ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "LATENCY", "MEMORY", "MODULE", "PUBSUB", "SCRIPT",
                  "SLOWLOG", "FUNCTION"):  # fmt: skip
    helped(container)
for name in ("TIME", "LASTSAVE", "ROLE", "CONFIG|RESETSTAT", "LATENCY|DOCTOR", "LATENCY|LATEST", "SLOWLOG|LEN", "SLOWLOG|RESET",
             "MEMORY|DOCTOR", "MEMORY|PURGE", "MEMORY|STATS", "MEMORY|MALLOC-STATS", "MODULE|LIST"):  # fmt: skip
    simple(name, "", 2, family=FAMILY)
command("COMMAND", 1, mutate=False, family=FAMILY)(lambda d: [b"COMMAND"])


@command("MEMORY|USAGE", 5, family=FAMILY)
def _memory_usage(d):
    samples = [d.option(b"SAMPLES"), d.pick([b"0", b"1", b"5", b"1000", b"-1", b"x"])] if d.chance(50) else []
    return [b"MEMORY", d.option(b"USAGE"), d.any_key()] + samples + ([b"SAMPLES"] if d.chance(5) else [])


SECTIONS = [b"server", b"memory", b"CPU", b"all", b"everything", b"nosuch", b"keyspace", b"modules", b"commandstats", b""]
command("INFO", 3, family=FAMILY)(lambda d: [b"INFO"] + [d.pick(SECTIONS) for _ in range(d.n(3))])
command("LATENCY|GRAPH", 2, family=FAMILY)(lambda d: [b"LATENCY", b"GRAPH", d.pick([b"command", b"nosuch", b""])])
command("LATENCY|HISTORY", 2, family=FAMILY)(lambda d: [b"LATENCY", b"HISTORY", d.pick([b"nosuch", b"fork", b""])])
command("LATENCY|RESET", 2, family=FAMILY)(lambda d: [b"LATENCY", b"RESET"] + [b"nosuch"] * d.n(3))
command("LATENCY|HISTOGRAM", 2, family=FAMILY)(
    lambda d: [b"LATENCY", b"HISTOGRAM"] + [d.pick([b"nosuch", b"latency", b"NOSUCH", b"config|nosuch"]) for _ in range(1 + d.n(3))]
)


@command("SLOWLOG|GET", 3, family=FAMILY)
def _slowlog_get(d):
    return [b"SLOWLOG", d.option(b"GET")] + ([d.pick([b"0", b"1", b"-1", b"-2", b"10", *NOT_INTS])] if d.chance(70) else [])


@command("COMMAND|LIST", 3, family=FAMILY)
def _command_list(d):
    how = d.pick([
        [], [b"FILTERBY", b"ACLCAT", d.pick([b"string", b"LIST", b"nosuch", b"dangerous", b"geo", b"scripting"])],
        [b"filterby", b"PATTERN", d.pick([b"x*", b"*|get", b"z[r-u]*", b"nosuch", b"", b"CONFIG|*", b"?et"])],
        [b"FILTERBY", b"MODULE", d.pick([b"nosuch", b""])], [b"FILTERBY"], [b"FILTERBY", b"ACLCAT"],
        [b"FILTERBY", b"NOSUCH", b"x"], [b"FILTERBY", b"PATTERN", b"a*", b"b*"]])  # fmt: skip
    return [b"COMMAND", d.option(b"LIST")] + how


command("LOLWUT", 1, family=FAMILY)(
    lambda d: [b"LOLWUT"] + d.pick([[], [b"VERSION", d.pick([b"5", b"6", b"7", b"x"])], [b"VERSION"], [b"1"], [b"x"]]))  # fmt: skip
command("MODULE|LOAD", 1, family=FAMILY)(lambda d: [b"MODULE", b"LOAD", b"/nonexistent"] + [b"x"] * d.n(2))
command("MODULE|LOADEX", 1, family=FAMILY)(lambda d: [b"MODULE", b"LOADEX", b"/nonexistent"] + [b"CONFIG"] * d.n(2))
command("MODULE|UNLOAD", 1, family=FAMILY)(lambda d: [b"MODULE", b"UNLOAD", b"nosuch"])


@command("WAIT", 3, mutate=False, family=FAMILY)
def _wait(d):
    if d.chance(30):
        return [b"WAIT", d.pick([b"x", b"-1", b"0", b""]), d.pick([b"-1", b"x", b"", b"9223372036854775808"])]
    return [b"WAIT", d.pick([b"0", b"1", b"-5"]), b"1"] + ([b"1"] if d.chance(5) else [])


@command("MIGRATE", 3, mutate=False, family=FAMILY)
def _migrate(d):
    """Only to where nobody listens; what is missing is told before that."""
    key = d.pick([b"none{a}", b"none{a}", d.any_key(), b""])
    options = d.options([lambda: [d.option(b"COPY")], lambda: [b"REPLACE"], lambda: [b"AUTH", b"x"], lambda: [b"AUTH2", b"u", b"p"],
                         lambda: [b"KEYS", b"none{a}", b"gone{a}"], lambda: [b"AUTH"], lambda: [b"AUTH2", b"u"], lambda: [b"XX"]])  # fmt: skip
    return [b"MIGRATE", b"127.0.0.1", b"1", key, d.pick([b"0", b"0", b"x"]), d.pick([b"10", b"x"])] + options


@command("RESTORE-ASKING", 3, mutate=False, family=FAMILY)
def _restore_asking(d):
    payload = d.pick(d.context.payloads) if not d.chance(25) else d.pick([b"", b"short", b"x" * 20])
    return [b"RESTORE-ASKING", d.any_key(), b"0", payload] + ([b"REPLACE"] if d.chance(80) else [])
