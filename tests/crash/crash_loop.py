"""Crash a campaign at given commit points, let it recover, and say what is wrong with the end it comes to.

Every drive is a forked child of this process, which has imported all and run the undisturbed campaigns first.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crash_campaign
from crash_checks import outcome, problems, status_problems, wait_for_orphans

from alloop import failpoint
from alloop.errors import HELD_BY_ANOTHER, CampaignHeldError
from alloop.process import ProcessIdentity

MOST_DRIVES = 60


@dataclass(frozen=True)
class Course:
    """How a campaign is driven: in which order of stages, and where its attempts run (see `InlinePool`)."""

    order: str = "barrier"
    mode: str = "inline"

    @property
    def barrier(self) -> bool:
        return self.order != "streaming"


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
        if crash.kind == "stop":
            return self.stop(crash)
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

    def stop(self, crash: Crash) -> list[str]:
        """Stop the driver (or an attempt on a node that is lost with it), have another take over, and wake it up."""
        reference = self.reference(crash.course)
        root = self._new("stopped", crash.course)
        armed = failpoint.Armed(kill_at=crash.at[0], by=signal.SIGSTOP)
        first = self._start(root, armed, crash.course)
        code = crash_campaign.wait_for(first, os.WUNTRACED)
        if code == 0:
            return []
        report = self._taken_over(root, crash.course)
        before = fingerprint(root)
        if crash.course.mode == "elsewhere":
            wake_up(int((root / "iterations" / "run" / "stopped").read_text()))
        else:
            os.kill(first, signal.SIGCONT)
            code = crash_campaign.wait_for(first)
        found = report["problems"] + _differences(crash.course, report, reference.report)
        decided = max(at for at, name in enumerate(reference.points, start=1) if name.startswith("decide:"))
        if code not in (HELD_BY_ANOTHER, -signal.SIGKILL) and not (code == 0 and crash.at[0] > decided):
            found.append(f"the driver that lost the campaign ended with code {code}")
        after = fingerprint(root)
        names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        return found + [f"{name} was changed by a process that has lost its task" for name in names]

    def _taken_over(self, root: Path, course: Course) -> dict[str, Any]:
        code = crash_campaign.wait_for(self._start(root, None, course, take_over=True))
        if code:
            return {"code": code, "problems": [f"the second driver ended with code {code}"], "outcome": None}
        return json.loads((self.place / "report.json").read_text())

    def _new(self, name: str, course: Course) -> Path:
        root = self.place / name
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        (root / "param.json").write_text(json.dumps(crash_campaign.PARAMS[course.order]))
        return root

    def _drive(
        self, root: Path, armed: failpoint.Armed | None, course: Course, orphan_s: float = 0.0
    ) -> dict[str, Any] | None:
        """Drive in a child; return what it found at the end, None if it was killed on the way."""
        code = crash_campaign.wait_for(self._start(root, armed, course, orphan_s))
        if code == -signal.SIGKILL:
            return None
        if code:
            return {"code": code, "problems": [f"the driver ended with code {code}"], "outcome": None}
        return json.loads((self.place / "report.json").read_text())

    def _start(
        self,
        root: Path,
        armed: failpoint.Armed | None,
        course: Course,
        orphan_s: float = 0.0,
        *,
        take_over: bool = False,
    ) -> int:
        """Start a drive; it ends with the code of a campaign held by another, if that is what it finds."""
        self.drives += 1
        file = self.place / "report.json"
        file.unlink(missing_ok=True)

        def work() -> int:
            before = list(status_problems(root)) if course.mode != "apart" and not take_over else []
            failpoint.armed = armed
            how = {"barrier": course.barrier, "mode": course.mode, "orphan_s": orphan_s}
            try:
                code, campaign = crash_campaign.drive(root, **how, take_over=take_over)  # type: ignore[arg-type]
            except CampaignHeldError:
                return HELD_BY_ANOTHER
            passed, failpoint.armed = failpoint.armed or failpoint.Armed(), None
            report = {"code": code, "problems": before + list(problems(root, campaign)), "outcome": outcome(root)}
            report |= {"points": passed.points, "writes": [Path(name).name for name in passed.writes]}
            file.write_text(json.dumps(report))
            return 0

        return crash_campaign.fork(work)


def fingerprint(root: Path) -> dict[str, str]:
    """Every file that is for good: results, decisions, what was put aside."""
    kept = ("result", "decisions", "quarantine")
    files = [file for file in (root / "iterations").rglob("*") if file.is_file() and {*kept} & {*file.parts}]
    files = [file for file in files if not file.name.startswith(".tmp.") and not file.name.endswith(".reason.json")]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def wake_up(pid: int, seconds: float = 20.0) -> None:
    """Let a stopped process that is no child of this one go on to its end."""
    process = ProcessIdentity.of(pid)
    os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + seconds
    while process.alive():
        assert time.monotonic() < deadline, f"process {pid} does not end"
        time.sleep(0.005)


def _armed(kind: str, at: int) -> failpoint.Armed:
    return failpoint.Armed(torn_at=at) if kind == "torn" else failpoint.Armed(kill_at=at)


def _differences(course: Course, report: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """In the classical order all is as undisturbed; otherwise what does not depend on when things happened."""
    if report["outcome"] is None:
        return []
    names = list(wanted["outcome"])
    if not course.barrier:
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


def at_decisions(crasher: Crasher, course: Course, kinds: Iterable[str]) -> Iterator[Crash]:
    """One death just before and one just after each decision of some kinds."""
    wanted = {f"decide:{kind}:{when}" for kind in kinds for when in ("before", "after")}
    for at, name in enumerate(crasher.reference(course).points, start=1):
        if name in wanted:
            yield Crash(course, "kill", (at,))


def stops(crasher: Crasher, course: Course) -> Iterator[Crash]:
    """A process that wakes up too late: the driver at every point of its own, or an attempt elsewhere at one of its."""
    for at, name in enumerate(crasher.reference(course).points, start=1):
        if name.startswith("attempt ") == (course.mode == "elsewhere"):
            yield Crash(course, "stop", (at,))
