#!/usr/bin/python3
"""Covey's figures beside redis-server's, measured in the same run on the same machine.

usage: ./run bench [--quick | --full] [--only NAME[,NAME...]] [--workers N]

  --quick     small counts, to see that everything works; the figures mean little
  --full      five failovers with a node timeout of 15 s as well, instead of one
  --only      some of: throughput tls commands memory collections eviction snapshot fsync noloss failover sync proxy
  --workers   workers of the Covey node in the throughput runs (default: its own default)
"""
import argparse
import os
import platform
import sys
import time

import commands
import figures
import fsync_figures
import memory_figures
import noloss_figures
import proxies
import secured
import snapshot_figures
from target import COVEY, Failure


NAMES = ("throughput", "tls", "commands", "memory", "collections", "eviction", "snapshot", "fsync", "noloss", "failover", "sync", "proxy")


class Size:
    def __init__(self, quick, full):
        self.keys = 100_000 if quick else 1_000_000
        self.requests = {1: 20_000, 16: 160_000, 100: 200_000} if quick else {1: 300_000, 16: 3_000_000, 100: 5_000_000}
        self.commands = {1: 5_000, 16: 20_000} if quick else {1: 100_000, 16: 500_000}
        self.turns = 1 if quick else 3
        self.shape_keys = 50_000 if quick else 1_000_000
        self.eviction_keys, self.eviction_requests = (50_000, 50_000) if quick else (200_000, 400_000)
        self.memory_keys = 200_000 if quick else 5_000_000
        self.failovers = {1000: 1} if quick else {1000: 5, 15000: 5 if full else 1}
        self.sync_bytes = 64 << 20 if quick else 1 << 30
        self.snapshot_keys, self.large_members = (100_000, 50_000) if quick else (2_000_000, 1_000_000)
        self.fsync_requests = {1: 20_000, 16: 100_000} if quick else {1: 200_000, 16: 2_000_000}
        self.aof_load_keys = 100_000 if quick else 3_000_000
        self.load_keys = 200_000 if quick else 5_000_000


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) / 2**20
    return f"{os.cpu_count()} cores ({model}), {memory:.1f} GiB, {platform.system()} {platform.release()} {platform.machine()}"


def parse(arguments):
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ", 1)[1])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--only", default=",".join(NAMES))
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    unknown = set(options.only) - set(NAMES)
    if unknown:
        parser.error(f"no such figures: {', '.join(sorted(unknown))}")
    return options


def measure(options, size, say):
    """Rows, lines to print below them, and what failed."""
    rows, lines, failed = [], [], []
    runs = {"throughput": lambda: figures.throughput(size, say, options.workers),
            "tls": lambda: secured.figures(size, say, options.workers),
            "commands": lambda: commands.figures(size, say, options.workers), "memory": lambda: figures.memory(size, say),
            "collections": lambda: memory_figures.collections(size, say), "eviction": lambda: memory_figures.eviction(size, say),
            "snapshot": lambda: snapshot_figures.figures(size, say), "fsync": lambda: fsync_figures.figures(size, say),
            "noloss": lambda: noloss_figures.figures(size, say),
            "failover": lambda: figures.failover(size, say), "sync": lambda: figures.full_sync(size, say)}
    for name in options.only:
        try:
            if name == "proxy":
                lines = proxies.figures(size, say)
                continue
            for row in runs[name]():
                rows.append(row)
        except (Failure, OSError) as failure:
            failed.append(f"{name}: {failure}")
            say(f"{name} failed: {failure}")
    return rows, lines, failed


def print_table(rows):
    print(f"\n{'':<56}{'Covey':>14}{'Redis':>14}{'ratio':>8}")
    for figure, covey, redis, form, less in rows:
        ratio = f"{covey / redis:.2f}" if redis > 0 else "-"
        better = covey <= redis if less else covey >= redis
        print(f"{figure:<56}{form.format(covey):>14}{form.format(redis):>14}{ratio:>8}{'' if better else '  worse'}")


def main():
    options = parse(sys.argv[1:])
    size, began = Size(options.quick, options.full), time.monotonic()

    def say(text):
        print(f"{time.monotonic() - began:6.0f} s  {text}", file=sys.stderr, flush=True)

    if not os.access(COVEY, os.X_OK):
        sys.exit(f"bench: {COVEY} is not there; ./run build makes it")
    rows, lines, failed = measure(options, size, say)
    print(f"\nMachine  {machine()}; load {os.getloadavg()[0]:.1f} at the end\nCovey    {figures.version('covey')}"
          f"\nRedis    {figures.version('redis')}")
    if "throughput" in options.only:
        print(f"Load     redis-benchmark, 50 connections, {size.keys:,} keys, values of 64 bytes; medians of {size.turns} alternating runs"
              f"; Covey with {options.workers or os.cpu_count()} workers, Redis with one thread")
    if rows:
        print_table(rows)
    if lines:
        print(f"\nProxies, one thread each; redis-benchmark, 50 connections, values of 64 bytes; medians of {size.turns} alternating runs. In front of one\n"
              "redis-server, but for the last column: there six Covey nodes.")
        print("\n".join(lines))
    print("\nCPU: user and system time of all of the server's threads. Failover: six nodes under `covey up --no-restart`.\n"
          "Full sync: each kind with its own, repl-diskless-sync-delay 0.")
    if options.quick:
        print("Small counts (--quick): these figures mean little.")
    elif not options.full and "failover" in options.only:
        print("The failover with a node timeout of 15 s was measured once; --full takes the median of 5.")
    for line in failed:
        print(f"NOT MEASURED  {line}")
    print(f"{time.monotonic() - began:.0f} s in all")
    sys.exit(1 if failed else 0)


main()
