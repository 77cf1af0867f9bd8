"""Kill a small campaign at every commit point it passes, and see that it comes to the right end each time.

Run: ``nice python benchmarks/failpoints.py`` (one core, about an hour; interrupted, it goes on where it was). Two
orders of the stages, and three places for the attempts: in the driver's process, in one of their own that dies alone,
and in one that outlives the driver. A write is also torn after half of its bytes, random chains of deaths hit
recoveries too, and drivers and attempts are stopped at their points, to wake up when another driver has finished the
campaign: they must change nothing. A further campaign begins on a foundation's labels, converges on every criterion
there is, and is then relabelled; of its points one in so many is tried, and all around those decisions. In the
classical order the end must be that of an undisturbed campaign; in the streaming order all that was asked for must be
done or given up, once, and the counts must add up. Two cores go twice as fast with ``--share 1 2`` and ``--share 2 2``
side by side; the plain command then sums up.
What has been run is kept beside the record, and counts as long as neither the code nor the campaigns change. Writes
``benchmarks/results/failpoints.json``, after `--seconds` with as much as was run, in random order.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "crash"))
os.environ["OMP_NUM_THREADS"] = "1"

from checkout import commit, content  # noqa: E402
from crash_loop import Course, Crash, Crasher, at_decisions, chains, decision_cycle, single_crashes, stops  # noqa: E402

RECORD = HERE / "results" / "failpoints.json"
TRIED = ("alloop", "tests/crash", "tests/quick_tasks")
"""What the end of a crash depends on: a loop goes on over commits that leave it alone."""
COURSES = [Course(order, mode) for mode in ("inline", "apart", "forked") for order in ("barrier", "streaming")]
LEVELS = Course("levels")
CLOSING = ("final_train", "final_check", "melting", "guard", "relax_glass")
SELDOM = ("probe", "relax", "promote", "pretrain", "relabel", *CLOSING)
"""Decisions that only the campaign with a foundation takes."""
STOPPED = [Course("barrier", mode) for mode in ("forked", "elsewhere")]
CHAINS = 60


def crashes(crasher: Crasher, every: int) -> Iterator[Crash]:
    """All of them; of attempts with their own processes, and of the campaign with a foundation, one in `every`."""
    for course in COURSES:
        thinned = 1 if course.mode == "inline" else every
        yield from list(single_crashes(crasher, course))[::thinned]
        if course.mode != "forked":
            yield from chains(crasher, course, CHAINS)
    own = list(at_decisions(crasher, LEVELS, SELDOM))
    yield from own
    yield from (crash for crash in list(single_crashes(crasher, LEVELS))[::every] if crash not in own)
    yield from chains(crasher, LEVELS, CHAINS)
    for course in STOPPED:
        yield from list(stops(crasher, course))[::every]


def sample(crasher: Crasher, seed: int) -> list[Crash]:
    """All points of one decision's cycle, those around seldom decisions, then everything else in random order."""
    first = [*decision_cycle(crasher, Course("barrier"), "select"), *at_decisions(crasher, LEVELS, SELDOM)]
    return first + [crash for crash in shuffled(crashes(crasher, 1), seed) if crash not in first]


def shuffled(crashes: Iterable[Crash], seed: int) -> list[Crash]:
    """The same in random order, so that a part of them says something of all."""
    found = list(crashes)
    random.Random(seed).shuffle(found)
    return found


def run(crasher: Crasher, wanted: Iterable[Crash], known: dict[str, Any], part: Path | None, seconds: float) -> None:
    """Run the crashes that are not known yet, and note each at once."""
    began = time.monotonic()
    for crash in wanted:
        if time.monotonic() - began > seconds:
            return
        if crash.name in known:
            continue
        before, drives = time.monotonic(), crasher.drives
        found = crasher.crash(crash)
        taken = {"seconds": time.monotonic() - before, "drives": crasher.drives - drives}
        known[crash.name] = {"name": crash.name, "wrong": found} | taken
        if found:
            print(crash.name, *found, sep="\n  ", flush=True)
        if part is not None:
            with part.open("a") as stream:
                stream.write(json.dumps(known[crash.name]) + "\n")


def summary(crasher: Crasher, known: dict[str, Any]) -> dict[str, Any]:
    """Counts per course and kind of crash."""
    runs: dict[str, dict[str, Any]] = {}
    for name, record in known.items():
        entry = runs.setdefault(name.rpartition("/")[0], {"runs": 0, "drives": 0, "wrong": 0, "seconds": 0.0})
        entry["runs"] += 1
        entry["drives"] += record["drives"]
        entry["wrong"] += bool(record["wrong"])
        entry["seconds"] = round(entry["seconds"] + record["seconds"], 1)
    courses = {}
    for course in dict.fromkeys([*COURSES, LEVELS, *STOPPED]):
        reference = crasher.reference(course)
        courses[f"{course.order}/{course.mode}"] = {
            "points": len(reference.points),
            "writes": len(reference.writes),
            "points_by_name": dict(Counter(name.removeprefix("attempt ") for name in reference.points).most_common()),
        }
    total = Counter({name: sum(entry[name] for entry in runs.values()) for name in ("runs", "drives", "wrong")})
    return {"commit": commit(), "code": content(*TRIED), **total, "undisturbed": courses, "crashes": runs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=int, default=4, help="of the courses with separate processes, one in so many")
    parser.add_argument("--sample", type=int, metavar="SEED", help="one decision's cycle, then others in random order")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--most", type=int, help="stop after so many crashes")
    parser.add_argument("--share", type=int, nargs=2, default=(1, 1), metavar=("I", "N"), help="the I-th of N shares")
    parser.add_argument("--place", type=Path, help="folder for the campaigns")
    arguments = parser.parse_args()
    part = None if arguments.sample is not None else RECORD.with_suffix(f".{content(*TRIED)}.part")
    known: dict[str, Any] = {}
    if part is not None and part.exists():
        known = {record["name"]: record for record in map(json.loads, part.read_text().splitlines())}
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="failpoints.", dir=arguments.place or fast) as place:
        crasher = Crasher(Path(place))
        if arguments.sample is None:
            wanted = shuffled(crashes(crasher, arguments.every), 1)
        else:
            wanted = sample(crasher, arguments.sample)
        number, of = arguments.share
        run(crasher, wanted[: arguments.most][number - 1 :: of], known, part, arguments.seconds)
        found = {"planned": len(wanted)} | summary(crasher, known)
    print(json.dumps(found, indent=1))
    if part is not None and of == 1:
        RECORD.write_text(json.dumps(found, indent=1) + "\n")
        if len(known) == len(wanted):
            part.unlink()
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
