"""Reads mutated files with every reader of untrusted bytes: each must be accepted or refused with a user error.

A case is a target and a seed, and can be repeated. Cases run in child processes with limits of time and memory.
`make fuzz` runs it for 10 minutes.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.reliability.untrusted import TARGETS, Target

SECONDS, MEMORY = 20, 3 << 30
"""Limits of a case: seconds, and bytes of address space beyond those of the libraries."""
CHUNK = 150
"""Cases of one child process."""
TOKENS = [
    b"-1", b"0", b"1e999", b"NaN", b"99999999999999999999", b"2147483648", b"null", b"[]", b"{}", b'""', b'"x"',
    b"[[1],[1,2]]", b"true", b"../../x", b"\xff\xfe", b"\x00",
]  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """The result of a case: `accepted`, `refused`, or the error that is a bug."""

    target: str
    seed: int
    result: str
    seconds: float

    @property
    def is_bug(self) -> bool:
        return self.result not in ("accepted", "refused")


def mutate(content: bytes, rng: random.Random) -> bytes:
    """The content after one to four random changes of bytes, slices or numbers."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(data) + 1)
        end = min(len(data), start + rng.choice([1, 1, 4, 16, 64]))
        kind = rng.randrange(6)
        if kind == 0:
            data[start:end] = bytes(rng.randrange(256) for _ in range(end - start))
        elif kind == 1:
            data[start:end] = b""
        elif kind == 2:
            data[start:start] = data[start:end] * rng.choice([1, 2, 50])
        elif kind == 3:
            data[start:end] = rng.choice(TOKENS)
        elif kind == 4 and (numbers := list(re.finditer(rb"\d+|\"[^\"]*\"", data))):
            chosen = rng.choice(numbers)
            data[chosen.start() : chosen.end()] = rng.choice(TOKENS)
        elif rng.random() < 0.3:
            del data[start:]
    return bytes(data)


def run(cases: Iterable[tuple[Target, int]], folder: Path) -> list[Outcome]:
    """The outcome of each case."""
    waiting, outcomes = list(cases), []
    while waiting:
        found = _run_child(waiting[:CHUNK], folder)
        outcomes += found
        waiting = waiting[len(found) :]
    return outcomes


def _run_child(cases: list[tuple[Target, int]], folder: Path) -> list[Outcome]:
    """The outcomes of one child process; a case that ends the process is its last."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(cases, folder, writing)
    os.close(writing)
    with os.fdopen(reading) as lines:
        rows = [json.loads(line) for line in lines]
    _, status = os.waitpid(child, 0)
    outcomes = [Outcome(**row) for row in rows]
    if len(outcomes) < len(cases):
        target, seed = cases[len(outcomes)]
        killed = os.WIFSIGNALED(status) and signal.Signals(os.WTERMSIG(status)).name
        reason = f"took over {SECONDS} s" if killed == "SIGALRM" else f"ended the process ({killed or status})"
        outcomes.append(Outcome(target.name, seed, reason, float(SECONDS)))
    return outcomes


def _work(cases: list[tuple[Target, int]], folder: Path, pipe: int) -> None:
    """Run cases in this process and write one line for each; never returns."""
    warnings.simplefilter("ignore")
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1), os.dup2(silent, 2)  # C libraries print too
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, whatever code runs
    for target, seed in cases:
        signal.alarm(SECONDS)
        started = time.perf_counter()
        result = _read(target, seed, folder)
        row = {"target": target.name, "seed": seed, "result": result, "seconds": time.perf_counter() - started}
        os.write(pipe, (json.dumps(row) + "\n").encode())
    os._exit(0)


def _read(target: Target, seed: int, folder: Path) -> str:
    path = target.path(folder)
    path.write_bytes(mutate(target.content(folder), random.Random(f"{target.name} {seed}")))
    try:
        target.read(path)
    except target.refusals:
        return "refused"
    except BaseException as error:  # every other error is a bug to report
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} ({Path(where.filename).name}:{where.lineno})"
    return "accepted"


def report(outcomes: list[Outcome]) -> int:
    """Print figures for each target and each kind of bug; returns the number of bugs."""
    for name, group in itertools.groupby(sorted(outcomes, key=lambda o: o.target), lambda o: o.target):
        mine = list(group)
        counts = collections.Counter("bug" if o.is_bug else o.result for o in mine)
        slowest = max(o.seconds for o in mine)
        print(
            f"{name:<14}{len(mine):>7} cases{counts['accepted']:>7} accepted{counts['refused']:>7} refused"
            f"{counts['bug']:>4} bugs, slowest {slowest:.2f} s"
        )
    bugs = [outcome for outcome in outcomes if outcome.is_bug]
    kinds: dict[tuple[str, str], Outcome] = {}
    for bug in bugs:
        kinds.setdefault((bug.target, re.sub(r"\d+", "#", bug.result)[:80]), bug)
    for bug in kinds.values():
        print(f"{bug.target} seed {bug.seed}: {bug.result}")
    print(f"{len(outcomes)} cases, {len(bugs)} bugs")
    return len(bugs)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args(argv)
    outcomes: list[Outcome] = []
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as root:
        targets = [target for target in TARGETS if target.prepare(Path(root) / target.name)]
        for seed in itertools.count(options.first_seed, 10):
            for target in targets:
                cases = [(target, number) for number in range(seed, seed + 10)]
                outcomes += run(cases, Path(root) / target.name)
            if time.monotonic() > end:
                break
    return min(1, report(outcomes))


if __name__ == "__main__":
    sys.exit(main())
