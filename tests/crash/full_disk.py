"""Fill the disk of a campaign at some moment, look at what it does, free the disk, and let it come to its end.

Run as a script: ``python full_disk.py PLACE DISK`` with DISK a small file system of its own; prints a JSON list.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import crash_campaign
from crash_checks import outcome, problems
from crash_loop import Course, Crasher

from alloop import attempt, loop

CASES = [
    *((decisions, left, 0.0) for decisions in (3, 5, 8, 10) for left in (0, 65536)),
    (5, 4_000_000, 0.006),
]
"""After how many decisions the disk is filled, how many bytes are left, and `budget.free_disk_GB`."""
LOOK_SECONDS = 1.5


def fill(disk: Path, left: int) -> None:
    state = os.statvfs(disk)
    with (disk / "ballast").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, max(1, state.f_bavail * state.f_frsize - left))


def half_written(root: Path) -> list[str]:
    """Files that somebody reads and that are not whole."""
    found = []
    for file in root.glob("iterations/**/*.json"):
        if not file.name.startswith(".tmp.") and "quarantine" not in file.parts and "out" not in file.parts:
            try:
                json.loads(file.read_text())
            except ValueError:
                found.append(str(file))
    return found


def run(disk: Path, decisions: int, left: int, floor_GB: float, wanted: dict[str, Any]) -> dict[str, Any]:
    """One campaign; the first thing that a filled disk meets is an attempt."""
    root = disk / "campaign"
    root.mkdir()
    param = crash_campaign.PARAM | {"budget": {"free_disk_GB": floor_GB}}
    (root / "param.json").write_text(json.dumps(param))
    report, output = disk.parent / "report.json", disk.parent / "output.txt"
    report.unlink(missing_ok=True)
    filled = False

    def each_wait() -> None:
        nonlocal filled
        if not filled and sum(1 for _ in (root / "iterations" / "decisions").iterdir()) >= decisions:
            filled = True
            fill(disk, left)

    def work() -> int:
        with output.open("w") as stream:
            code, campaign = crash_campaign.drive(root, barrier=True, mode="forked", output=stream, each_wait=each_wait)
        found = {"code": code, "problems": list(problems(root, campaign)), "outcome": outcome(root)}
        report.write_text(json.dumps(found))
        return 0

    pid = crash_campaign.fork(work)
    while not (disk / "ballast").exists():
        time.sleep(0.01)
    time.sleep(LOOK_SECONDS)
    early = os.waitpid(pid, os.WNOHANG) != (0, 0)
    torn = half_written(root)
    (disk / "ballast").unlink()
    code = None if early else crash_campaign.wait_for(pid)
    found = json.loads(report.read_text()) if report.exists() else {"problems": ["no report"]}
    said = output.read_text()
    return {
        "case": [decisions, left, floor_GB],
        "said": "no space left" in said or "nothing new begins" in said,
        "ended_early": early,
        "exit": code,
        "torn": torn,
        "problems": found["problems"],
        "same_end": found.get("outcome") == wanted,
    }


def main(place: Path, disk: Path) -> None:
    loop.TICK_SECONDS = attempt.SPACE_SECONDS = 0.1
    crasher = Crasher(place)
    wanted = crasher.reference(Course()).report["outcome"]
    found = []
    for decisions, left, floor_GB in CASES:
        found.append(run(disk, decisions, left, floor_GB, wanted))
        for entry in disk.iterdir():
            shutil.rmtree(entry)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
