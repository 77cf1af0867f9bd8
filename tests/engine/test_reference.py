"""Event rates beside the labeler's own: reading its trajectories, the criterion, and what is refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase.io import write
from campaign_kit import param
from engine_kit import attempt_command

from alloop.decisions.exploration import trajectories
from alloop.decisions.reference import reference_criteria, reference_tasks
from alloop.event_params import definitions
from alloop.glass.crystals import crystal
from alloop.store import Store

GLASS, T = "LBS-20-60-20", 1000


def stop(files: list[str], **changes: Any) -> dict[str, Any]:
    return {"reference": [{"glass": GLASS, "temperature_K": T, "files": files} | changes]}


def configured(files: list[str], **changes: Any) -> Any:
    explore = {"temperatures_K": [300, T], "trajectories": 3}
    return param(stop=stop(files, **changes), explore=explore)


def test_frames_of_a_trajectory_that_show_an_event_are_counted(tmp_path: Path) -> None:
    """Two of the four frames that are read (every second of eight) have two atoms all but on top of each other."""
    frames = []
    for number in range(8):
        atoms = crystal("alpha-quartz") * (2, 2, 2)
        if number in (2, 6):
            atoms.positions[1] = atoms.positions[0] + (0.9, 0, 0)
        frames.append(atoms)
    write(tmp_path / "md.extxyz", frames)
    own = configured(["md.extxyz"] * 3, every=2)
    tasks = reference_tasks(SimpleNamespace(root=tmp_path), own)  # type: ignore[arg-type]
    assert len({task.key for task in tasks}) == 1, "the same file is looked at once"
    place = Store(tmp_path).prepare(tasks[0], "campaign-id", {})
    record = json.loads((place / "task.json").read_text())
    assert subprocess.run(attempt_command(place), check=False).returncode == 0, record
    summary = json.loads((place / "result" / "summary.json").read_text())
    assert summary["frames"] == 4
    assert summary["share"].keys() == definitions(own.select.events).keys()
    assert summary["share"]["overlap"] == 0.5


class Judged:
    """A campaign of which the explored tables and the references are known."""

    def __init__(self, root: Path, ensemble: list[float], labeler: list[float]) -> None:
        self.root = root
        self.summaries = {f"l{n}": {"share": {"overlap": 0.0, "five_coordinated_Si": x}} for n, x in enumerate(labeler)}
        evaluate = [{"name": "ensemble.00", "key": "e"}]
        evaluate += [{"name": f"reference.{GLASS}.{T}K.r{n}", "key": f"l{n}"} for n in range(len(labeler))]
        explore = []
        names = [own.name for own in trajectories(configured(["a", "b", "c"])) if own.from_K == T]
        for number, share in enumerate(ensemble):
            for chunk in range(2):
                key = f"c{number}{chunk}"
                explore.append({"key": key, "name": f"{names[number]}.c{chunk:02d}"})
                (root / key).mkdir(parents=True)
                flags = np.arange(20) < round(20 * share)
                np.savez(root / key / "table.npz", **{"event:overlap": flags * 0, "event:five_coordinated_Si": flags})
        explore.append({"key": "other", "name": f"{GLASS}.n63.300K.t00.c00"})
        decisions = {("evaluate", 0): {"tasks": evaluate}, ("explore", 0): {"tasks": explore}}
        self.state = SimpleNamespace(decisions=decisions, done={entry["key"] for entry in explore})

    def result(self, key: str) -> Path:
        return self.root / key

    def summary(self, key: str) -> dict[str, Any]:
        return self.summaries[key]


@pytest.mark.parametrize(
    ("ensemble", "labeler", "state"),
    [
        ([0.2, 0.3, 0.25], [0.25, 0.2, 0.3], "met"),
        ([0.0, 0.05, 0.0], [0.25, 0.2, 0.3], "unmet"),
        ([0.2, 0.3], [0.25, 0.2, 0.3], "unknown"),
    ],
)
def test_shares_agree_or_not(tmp_path: Path, ensemble: list[float], labeler: list[float], state: str) -> None:
    files = ["a", "b", "c"]
    criteria = reference_criteria(Judged(tmp_path, ensemble, labeler), configured(files), 0)  # type: ignore[arg-type]
    found = {one.name: one for one in criteria}
    assert found[f"rate of five_coordinated_Si in {GLASS} at {T} K"].state == state
    if state != "unknown":
        assert found[f"rate of overlap in {GLASS} at {T} K"].state == "met"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"glass": "LBS-9-9-82"}, "the campaign has LBS-20-60-20"),
        ({"temperature_K": 1234}, "add it to explore.temperatures_K"),
        ({"files": ["a", "b"]}, "found a list of 2, must hold at least 3"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        configured(**({"files": ["a", "b", "c"]} | changes))


def test_replicas_of_the_ensemble_are_asked_for() -> None:
    with pytest.raises(Exception, match="give 3 or more"):
        param(stop=stop(["a", "b", "c"]), explore={"temperatures_K": [T], "trajectories": 2})


def test_files_are_told_apart_by_content(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.extxyz", crystal("B2O3-I") * (1 + (name == "b"), 1, 1))
    own = configured(["a.extxyz", "b.extxyz", "c.extxyz"])
    keys = [task.key for task in reference_tasks(SimpleNamespace(root=tmp_path), own)]  # type: ignore[arg-type]
    assert keys[0] == keys[2] != keys[1]
