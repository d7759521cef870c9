#!/usr/bin/python3
"""Replays the lines of a failing sequence on both servers and says where they differ.

    python3 tests/differential/replay.py FILE [--cluster] [--only-subject]

COVEY_BIN and REDIS_BIN name the servers, as for the test.  --only-subject prints what the subject replies and
compares nothing, to run a sequence under a debugger's or sanitizer's eye.
"""

import argparse
import re
import sys

from grammar import SLEEP
from runner import Mismatch, Runner, quoted
from servers import ORACLE, SUBJECT, Server

ESCAPES = {"n": 10, "r": 13, "t": 9}


def words(line):
    """A line as redis-cli splits it."""
    out, at = [], 0
    while at < len(line):
        if line[at] == " ":
            at += 1
            continue
        if line[at] != '"':
            end = line.find(" ", at)
            end = len(line) if end < 0 else end
            out.append(line[at:end].encode())
            at = end
            continue
        word, at = bytearray(), at + 1
        while line[at] != '"':
            if line[at] != "\\":
                word.append(ord(line[at]))
                at += 1
            elif line[at + 1] == "x":
                word.append(int(line[at + 2 : at + 4], 16))
                at += 4
            else:
                word.append(ESCAPES.get(line[at + 1], ord(line[at + 1])))
                at += 2
        out.append(bytes(word))
        at += 1
    return out


def read(lines):
    """(steps, profile, resp) of what runner.script() wrote."""
    steps, profile, resp, link = [], 0, 2, 0
    for line in lines:
        line = line.rstrip("\n")
        if match := re.fullmatch(r"# profile (\d+)", line):
            profile = int(match[1])
        elif match := re.fullmatch(r"# connection (\d)", line):
            link = int(match[1])
        elif match := re.fullmatch(r"# sleep (\d+) ms", line):
            steps.append((link, [SLEEP, match[1].encode()]))
        elif match := re.fullmatch(r"HELLO (\d)", line):
            resp = int(match[1])
        elif line and not line.startswith(("#", "CONFIG SET ")):
            steps.append((link, words(line)))
    return steps, profile, resp


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    args.add_argument("file")
    args.add_argument("--cluster", action="store_true")
    args.add_argument("--only-subject", action="store_true")
    args = args.parse_args()
    with open(args.file, encoding="ascii") as file:
        steps, profile, resp = read(file)
    servers = [Server(SUBJECT if args.only_subject else ORACLE, args.cluster)]
    try:
        servers.append(Server(SUBJECT, args.cluster))
        runner = Runner(*servers, resp)
        if args.only_subject:
            runner.reset(profile)
            for link, argv in steps:
                if argv[0] != SLEEP:
                    print(link, " ".join(map(quoted, argv))[:200], "->", repr(runner.both(link, [argv])[1][0])[:400])
            return 0
        runner.run(steps, profile)
        print("%d commands: no difference" % len(steps))
        return 0
    except Mismatch as why:
        print(why)
        return 1
    finally:
        for server in servers:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
