"""Crash a campaign at given commit points, let it recover, and say what is wrong with the end it comes to.

Every drive is a forked child of this process, which has imported all and run the undisturbed campaigns first.
"""

from __future__ import annotations

import gc
import json
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crash_campaign
from crash_checks import outcome, problems, status_problems, wait_for_orphans

from alloop import failpoint

MOST_DRIVES = 60


@dataclass(frozen=True)
class Course:
    """How a campaign is driven: in which order of stages, and where its attempts run (see `InlinePool`)."""

    order: str = "barrier"
    mode: str = "inline"


@dataclass(frozen=True)
class Crash:
    """Deaths of one campaign, drive by drive: at which commit point, or in which write, counted within the drive."""

    course: Course
    kind: str
    at: tuple[int, ...]
    orphan_s: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.course.order}/{self.course.mode}/{self.kind}/{'.'.join(map(str, self.at))}"


@dataclass(frozen=True)
class Reference:
    """An undisturbed campaign: how it ends, and what a drive of it passes."""

    report: dict[str, Any]
    points: list[str]
    writes: list[str]


class Crasher:
    """Runs campaigns under a folder, on a file system where much can be written quickly."""

    def __init__(self, place: Path) -> None:
        self.place = place
        crash_campaign.put_doubles_in_place(place / "quick.json")
        self.references: dict[Course, Reference] = {}
        self.drives = 0

    def reference(self, course: Course) -> Reference:
        """The undisturbed campaign, run once."""
        if course not in self.references:
            if not self.references:
                crash_campaign.drive(self._new("warm", course), barrier=True)  # imports all
                gc.collect()
                gc.freeze()
                gc.disable()  # a drive is short, and pages that nobody touches need no copies
            root = self._new("reference", course)
            report = self._drive(root, failpoint.Armed(), course)
            assert report is not None and not report["problems"], report
            self.references[course] = Reference(report, report["points"], report["writes"])
        return self.references[course]

    def crash(self, crash: Crash) -> list[str]:
        """Run a campaign with these deaths, and to its end; return what is wrong with it."""
        reference = self.reference(crash.course)
        root = self._new("crash", crash.course)
        report = None
        for at in crash.at:
            report = self._drive(root, _armed(crash.kind, at), crash.course, crash.orphan_s)
            if report is not None:
                break
        for _ in range(MOST_DRIVES):
            if report is not None:
                break
            report = self._drive(root, None, crash.course, crash.orphan_s)
        assert report is not None
        wait_for_orphans(root)
        found = report["problems"] + _differences(crash.course, report, reference.report)
        if not found:
            shutil.rmtree(root)
        return found

    def _new(self, name: str, course: Course) -> Path:
        root = self.place / name
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        param = crash_campaign.PARAM if course.order == "barrier" else crash_campaign.STREAMING
        (root / "param.json").write_text(json.dumps(param))
        return root

    def _drive(
        self, root: Path, armed: failpoint.Armed | None, course: Course, orphan_s: float = 0.0
    ) -> dict[str, Any] | None:
        """Drive in a child; return what it found at the end, None if it was killed on the way."""
        self.drives += 1
        file = self.place / "report.json"
        file.unlink(missing_ok=True)

        def work() -> int:
            before = list(status_problems(root)) if course.mode != "apart" else []  # there it changes under our eyes
            failpoint.armed = armed
            barrier = course.order == "barrier"
            code, campaign = crash_campaign.drive(root, barrier=barrier, mode=course.mode, orphan_s=orphan_s)
            passed, failpoint.armed = failpoint.armed or failpoint.Armed(), None
            report = {"code": code, "problems": before + list(problems(root, campaign)), "outcome": outcome(root)}
            report |= {"points": passed.points, "writes": [Path(name).name for name in passed.writes]}
            file.write_text(json.dumps(report))
            return 0

        code = crash_campaign.wait_for(crash_campaign.fork(work))
        if code == -signal.SIGKILL:
            return None
        if code:
            return {"code": code, "problems": [f"the driver ended with code {code}"], "outcome": None}
        return json.loads(file.read_text())


def _armed(kind: str, at: int) -> failpoint.Armed:
    return failpoint.Armed(torn_at=at) if kind == "torn" else failpoint.Armed(kill_at=at)


def _differences(course: Course, report: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """In the classical order all is as undisturbed; otherwise what does not depend on when things happened."""
    if report["outcome"] is None:
        return []
    names = list(wanted["outcome"])
    if course.order != "barrier":
        names = ["quarantined", "excluded", "requests"]
    pairs = {name: (report["outcome"][name], wanted["outcome"][name]) for name in names}
    pairs["code"] = report["code"], wanted["code"]
    return [f"{name}: {found} instead of {known}" for name, (found, known) in pairs.items() if found != known]


# ---------------------------------------------------------------------------------------- which crashes


def single_crashes(crasher: Crasher, course: Course) -> Iterator[Crash]:
    """One death at every commit point of a course, and in every write of it.

    Where attempts have their own processes, they alone die (forked), or the driver alone does (apart).
    """
    reference = crasher.reference(course)
    rng = random.Random(f"orphans {course}")
    for at, name in enumerate(reference.points, start=1):
        if course.mode != "forked" or name.startswith("attempt "):
            yield Crash(course, "kill", (at,), rng.choice((0.0, 0.02, 0.1)) if course.mode == "apart" else 0.0)
    if course.mode == "inline":
        yield from (Crash(course, "torn", (at,)) for at in range(1, len(reference.writes) + 1))


def chains(crasher: Crasher, course: Course, count: int, seed: int = 1) -> Iterator[Crash]:
    """Several deaths in a row, at random points, also while the campaign recovers."""
    most = len(crasher.reference(course).points)
    for number in range(count):
        rng = random.Random(f"{seed} {course} {number}")
        deaths = rng.randint(2, 8)
        # a start passes some forty points before it does anything new
        at = tuple(rng.randint(1, 60) if rng.random() < 0.3 else rng.randint(1, most) for _ in range(deaths))
        yield Crash(course, "chain", at, rng.choice((0.0, 0.02, 0.1)) if course.mode == "apart" else 0.0)


def decision_cycle(crasher: Crasher, course: Course, kind: str) -> Iterator[Crash]:
    """One death at every point from a decision to the next launch."""
    points = crasher.reference(course).points
    first = points.index(f"decide:{kind}:before")
    last = first + points[first:].index("launch:after")
    yield from (Crash(course, "kill", (at + 1,)) for at in range(first, last + 1))
