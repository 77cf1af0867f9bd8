"""The verdict is on disk before anyone is told of it, and a driver killed right after it has converged for good."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_kit import begun, end_well, task_folder

from alloop import failpoint, loop
from alloop.campaign import Campaign
from alloop.loop import Driver
from alloop.policy import Ending, Limits, next_decision
from alloop.report import snapshot
from alloop.report.snapshot import read_status, write_snapshot
from alloop.report.status import build_status
from alloop.state import task_entries
from alloop.store import make_task, write_json

LIMITS = Limits(max_iterations=5, slots=1, barrier=True)
NOTHING = {"labels": 0, "force_rmse_eV_A": None, "force_components": 0}
SETS = ("new", "audit", "held_out_bootstrap", "held_out_explore")
FOUND = {"converged": True, "reason": "all criteria met", "errors": dict.fromkeys(SETS, NOTHING)}
"""What is decided."""


class KilledError(Exception):
    """The driver is gone."""


class Killing:
    """Fail points of which one ends the driver."""

    def __init__(self, point: str) -> None:
        self.point = point

    def passes(self, name: str) -> None:
        if name == self.point:
            raise KilledError

    def writes_to(self, stream: Any, data: bytes) -> None:
        stream.write(data)


class Watching:
    """Notes what of the verdict is on disk whenever somebody is told something."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.told: list[tuple[str, bool]] = []

    def decided(self, kind: str, iteration: int, content: dict[str, Any]) -> None:
        self.told.append((kind, on_disk(self.root)))


def on_disk(root: Path) -> bool:
    files = (root / "iterations" / "decisions").glob("*.json")
    return any(json.loads(file.read_text())["kind"] == "verdict" for file in files)


def before_the_verdict(root: Path) -> Campaign:
    """A campaign that this process drives and in which the verdict on the first ensemble is due."""
    campaign = begun(root)
    campaign.decide("seed_labels", iteration=-1, level=campaign.level, picks=[])
    for kind in ("train", "explore", "select", "evaluate"):
        common = {"training": [], "held_out": []} if kind == "train" else {}
        tasks = [] if kind == "select" else [make_task(kind, f"iter.000000/{kind}", f"{kind}.00", common)]
        asked = {"inputs": [], "common": common, "tasks": task_entries(tasks, common)} if tasks else {}
        classes = {"accurate": 9, "candidate": 0, "failed": 0}
        more = {"picks": [], "classes": classes, "events": {}, "lost_chunks": 0} if kind == "select" else {}
        campaign.decide(kind, iteration=0, **asked, **more)
        for task in tasks:
            end_well(campaign, task.key, accept=False)
            write_json(task_folder(campaign, task.key) / "result" / "summary.json", {"model": "model.pb"})
            assert campaign.accept(task.key)
    assert next_decision(campaign.state, LIMITS) == ("verdict", 0)
    return campaign


def driver_of(campaign: Campaign, watching: Watching, monkeypatch: pytest.MonkeyPatch) -> Driver:
    monkeypatch.setitem(loop.DECIDERS, "verdict", lambda *_: FOUND)
    nothing: Any = None
    return Driver(campaign, nothing, LIMITS, nothing, watching)  # type: ignore[arg-type]


def test_nobody_is_told_before_the_verdict_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign, watching = before_the_verdict(tmp_path), Watching(tmp_path)
    shown: list[tuple[bool, bool]] = []

    def watched(own: Campaign) -> None:
        shown.append((build_status(own, "alive")["converged"], on_disk(tmp_path)))
        write_snapshot(own)

    monkeypatch.setattr(snapshot, "write_snapshot", watched)
    driver = driver_of(campaign, watching, monkeypatch)
    driver.snapshots.write(force=True)
    driver._decide("verdict", 0, 0)
    assert watching.told == [("verdict", True)]
    assert shown == [(False, False), (True, True)]
    assert read_status(Campaign(tmp_path))["converged"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_driver_killed_around_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Status, from a snapshot that is older than the verdict, and the next driver both go by the file."""
    campaign, watching = before_the_verdict(tmp_path), Watching(tmp_path)
    driver = driver_of(campaign, watching, monkeypatch)
    driver.snapshots.write(force=True)
    monkeypatch.setattr(failpoint, "armed", Killing(f"decide:verdict:{moment}"))
    with pytest.raises(KilledError):
        driver._decide("verdict", 0, 0)
    monkeypatch.setattr(failpoint, "armed", None)
    beat = campaign.run_folder / "driver.json"
    write_json(beat, json.loads(beat.read_text()) | {"start_ticks": 1})  # it is no longer this process
    there = moment == "after"
    assert watching.told == [] and on_disk(tmp_path) == there
    assert read_status(Campaign(tmp_path))["converged"] == there
    resumed = Campaign(tmp_path)
    resumed.load()
    assert build_status(resumed, "not running")["converged"] == there
    due = next_decision(resumed.state, LIMITS)
    assert not isinstance(due, Ending) and due == (("quench", 0) if there else ("verdict", 0))
