"""Drives a Runner with sequences: those of the seeded share are made and shrunk by hypothesis, those of a long run by plain
seeded `random`, which takes no time, and shrunk step by step."""

import os
import random
import tempfile
import time

import hypothesis
from hypothesis import strategies as st

from draw import Context
from grammar import ANY, FILL_SIZES, lacking_chooser, sequence
from runner import PROFILES, Mismatch, script
from servers import SANITIZED

BLOCK = 25  # bytes for one command: the first says whether the sequence goes on
ITEMS_MAX = 300  # hypothesis allows 8 KB of bytes for one example
COPIES = 10  # sequences hypothesis may make for each one that is run
SCRIPT_SHOWN = 20000
BLOCKS = (40, 300)  # in a sequence that hypothesis does not make
ROUND_BLOCKS = 500  # in a sequence of what is called too seldom
FAILURES_MAX = 5  # of one search, in a long run


@st.composite
def blocks(draw):
    """A list of blocks, 85 on average.  A zero first byte ends the list, so deleting a block shrinks it."""
    block = st.binary(min_size=BLOCK, max_size=BLOCK)
    out = []
    while len(out) < ITEMS_MAX:
        data = draw(block)
        if data[0] < 3:
            break
        out.append(data[1:])
    return out


class Failure(AssertionError):
    """What a failing search ends with; `steps` is the shrunk sequence, kept as text in the file `path`."""

    def __init__(self, text, steps, path):
        super().__init__(text)
        self.steps, self.path = steps, path


def search(runner, seed, examples, shrink_seconds=30, chosen=ANY):
    """Runs `examples` sequences; raises Failure with the smallest failing one found.  In a long run: plain_search().

    Of every sequence hypothesis also tries about five copies with one block replaced.  Running those would spend
    the time on the same commands again, so until there is a failure to shrink they are passed over."""
    if long_run():
        plain_search(runner, seed, examples, chosen)
        return
    payloads = runner.payloads()
    last, ran, previous = {}, [], set()

    def attempt(profile, size, made):
        if not last:
            if len(ran) >= examples or len(made) < 4 or 2 * len(previous.intersection(made)) > len(made):
                return
            ran.append(len(made))
            previous.clear()
            previous.update(made)
        elif time.monotonic() > last["deadline"]:
            if (profile, size, made) == last["input"]:
                raise Mismatch(last["why"])
            return
        steps = sequence(made, Context(int(time.time()), payloads), size, chosen)
        try:
            runner.run(steps, profile)
        except Mismatch as why:
            last.setdefault("deadline", time.monotonic() + shrink_seconds)
            last.update(steps=steps, profile=profile, why=str(why), input=(profile, size, made))
            raise

    test = hypothesis.given(st.integers(0, len(PROFILES) - 1), st.sampled_from(FILL_SIZES), blocks())(attempt)
    test = hypothesis.settings(
        max_examples=examples * COPIES + 100,
        deadline=None,
        database=None,
        print_blob=False,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
        suppress_health_check=list(hypothesis.HealthCheck),
        report_multiple_bugs=False,
        verbosity=hypothesis.Verbosity.quiet,
    )(test)
    try:
        hypothesis.seed(seed)(test)()
    except Exception as why:  # Mismatch, or hypothesis's Flaky when it does not fail every time
        if not last:
            raise
        last.update(reduced(runner, last))
        raise Failure(*report(last, seed, runner, why)) from None
    assert len(ran) == examples, "only %d of %d sequences were run" % (len(ran), examples)


class Differences:
    """What a search finds that goes on after a difference: every one is shrunk, and all are told at the end."""

    def __init__(self, runner, seed, most):
        self.runner, self.seed, self.most = runner, seed, most
        self.found = []

    def run(self, steps, profile):
        try:
            self.runner.run(steps, profile)
        except Mismatch as why:
            last = reduced(self.runner, {"steps": steps, "profile": profile, "why": str(why)})
            self.found.append(report(last, self.seed, self.runner, why))
            if len(self.found) == self.most:
                self.tell()

    def tell(self):
        """Raises Failure if there are any."""
        if self.found:
            texts, steps, paths = zip(*self.found)
            raise Failure("\n".join(texts), steps[0], paths[0])


def random_sequence(rng, payloads, count, chosen):
    made = [rng.randbytes(BLOCK - 1) for _ in range(count)]
    return sequence(made, Context(int(time.time()), payloads), rng.choice(FILL_SIZES), chosen)


def plain_search(runner, seed, examples, chosen=ANY):
    """Runs `examples` sequences of seeded random blocks; raises Failure at the end, or after FAILURES_MAX differences."""
    rng, payloads = random.Random(seed), runner.payloads()
    differences = Differences(runner, seed, FAILURES_MAX)
    for _ in range(examples):
        differences.run(random_sequence(rng, payloads, rng.randint(*BLOCKS), chosen), rng.randrange(len(PROFILES)))
    differences.tell()


def top_up(runner, seed, lacking, rounds):
    """Runs seeded sequences of the commands that lacking() still names, at most `rounds`; raises Failure as search().
    lacking() returns two sets: those with too few valid calls, those with too few erroneous ones."""
    rng, payloads = random.Random(seed), runner.payloads()
    differences = Differences(runner, seed, FAILURES_MAX if long_run() else 1)
    for _ in range(rounds):
        valid, wrong = lacking()
        if not valid and not wrong:
            break
        steps = random_sequence(rng, payloads, ROUND_BLOCKS, lacking_chooser(sorted(valid), sorted(wrong)))
        differences.run(steps, rng.randrange(len(PROFILES)))
    differences.tell()


def reduced(runner, found, tries=400):
    """Leaves out single steps as long as it fails: hypothesis works on whole blocks, which may hold several."""
    best = dict(found)
    size = max(1, len(best["steps"]) // 2)
    while size and tries > 0:
        at = 0
        while at < len(best["steps"]) and tries > 0:
            steps = best["steps"][:at] + best["steps"][at + size :]
            tries -= 1
            try:
                runner.run(steps, best["profile"])
                at += size
            except Mismatch as why:
                best.update(steps=steps, why=str(why))
        size //= 2
    return best


def report(last, seed, runner, why):
    lines = script(last["steps"], last["profile"], runner.resp)
    with tempfile.NamedTemporaryFile("w", prefix="differential-", suffix=".txt", delete=False) as file:
        file.write(lines + "\n")
    if len(lines) > SCRIPT_SHOWN:
        lines = lines[:SCRIPT_SHOWN] + "\n... (the rest is in the file)"
    note = "" if isinstance(why, Mismatch) else "\nIt does not fail every time: %s" % type(why).__name__
    mode = "cluster" if runner.servers[0].cluster else "standalone"
    text = "%s%s\n\nseed %d, %s, RESP%d; shrunk to %d commands, kept in %s:\n%s\n" % (
        last["why"], note, seed, mode, runner.resp, len(last["steps"]), file.name, lines)  # fmt: skip
    return text, last["steps"], file.name


def long_run():
    return os.environ.get("COVEY_TEST_LONG", "") not in ("", "0")


def how_many(full, seeded):
    """How many: `full` in a long run, `seeded` otherwise; on a sanitizer build, which takes five times as long, the
    seeded number in a long run and a small part of it otherwise."""
    if SANITIZED:
        return seeded if long_run() else max(1, seeded // 24)
    return full if long_run() else seeded


def base_seed():
    return int(os.environ.get("COVEY_TEST_SEED", "1"))
