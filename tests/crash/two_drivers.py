"""Two drivers started at the same moment, again and again: ``python two_drivers.py PLACE RACES`` prints it."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import crash_campaign
from crash_loop import Course, Crasher

from alloop import failpoint
from alloop.errors import HELD_BY_ANOTHER


def race(crasher: Crasher, course: Course, begun_to: int) -> list[str]:
    """Kill a campaign at some point (0: a new one), start two drivers at once, and look at what they make of it."""
    root = crasher._new("race", course)
    if begun_to:
        crasher._drive(root, failpoint.Armed(kill_at=begun_to), course)
    codes = [crash_campaign.wait_for(pid) for pid in [crasher._start(root, None, course) for _ in range(2)]]
    # both end well only where one had come to the end before the other began
    found = [] if 0 in codes and {*codes} <= {0, HELD_BY_ANOTHER} else [f"they ended with {codes}"]
    report = crasher._drive(root, None, course)
    wanted = crasher.reference(course).report["outcome"]
    assert report is not None
    found += report["problems"]
    found += [f"{name} differs" for name in wanted if report["outcome"] and report["outcome"][name] != wanted[name]]
    return found


def main(place: Path, races: int) -> None:
    crasher, course, rng = Crasher(place), Course(), random.Random(1)
    points = len(crasher.reference(course).points)
    starts = [rng.choice((0, rng.randint(1, 60), rng.randint(1, points))) for _ in range(races)]
    print(json.dumps({f"race {number} from point {at}": race(crasher, course, at) for number, at in enumerate(starts)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
