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
from engine_kit import attempt_command, failure_of

from alloop.decisions.reference import reference_criteria, reference_tasks
from alloop.event_params import definitions
from alloop.glass.crystals import crystal
from alloop.store import Store

GLASS, T = "LBS-20-60-20", 1000


def stop(files: list[str], **changes: Any) -> dict[str, Any]:
    return {"reference": [{"glass": GLASS, "temperature_K": T, "files": files, "frame_ps": 0.5} | changes]}


def configured(files: list[str], n_atoms: list[int] | None = None, **changes: Any) -> Any:
    explore = {"temperatures_K": [300, T], "trajectories": 3}
    return param(stop=stop(files, **changes), explore=explore, glasses=[{"name": GLASS, "n_atoms": n_atoms or [63]}])


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
    assert summary["counts"].keys() == definitions(own.select.events).keys()
    assert summary["counts"]["overlap"] == 1.0, "two atoms in every second frame"
    assert summary["atoms"] == {"Si": 24, "O": 48}


def test_frames_of_two_compositions_are_no_trajectory(tmp_path: Path) -> None:
    write(tmp_path / "md.extxyz", [crystal("alpha-quartz") * (1, 1, n) for n in (2, 2, 3)])
    (task, *_) = reference_tasks(SimpleNamespace(root=tmp_path), configured(["md.extxyz"] * 3))  # type: ignore[arg-type]
    place = Store(tmp_path).prepare(task, "campaign-id", {})
    assert subprocess.run(attempt_command(place), check=False).returncode != 0
    assert "one trajectory of one cell" in failure_of(place)["message"]


CHUNKS, RECORDS = 2, 20
SI = {63: 3, 126: 6}
"""Silicon in a cell of so many atoms."""


class Judged:
    """A campaign of which the explored tables and the references are known.

    ensemble: per trajectory, silicon atoms with five neighbours in each record; labeler: in each frame of a replica.
    """

    def __init__(self, root: Path, ensemble: dict[int, list[Any]], labeler: list[float], **counts: Any) -> None:
        self.root, self.overlaps = root, counts.get("overlaps", 0)
        atoms = {"Si": SI[63], "O": 60}
        told, frames = counts.get("labeler_overlaps", 0.0), counts.get("frames", 200)
        self.summaries: dict[str, Any] = {
            f"l{n}": {"frames": frames, "atoms": atoms, "counts": {"overlap": told, "five_coordinated_Si": x}}
            for n, x in enumerate(labeler)
        }
        evaluate = [{"key": f"l{n}", "name": f"reference.{GLASS}.{T}K.r{n}"} for n in range(len(labeler))]
        self.explore: list[dict[str, Any]] = []
        for size, atoms_seen in ensemble.items():
            for number, seen in enumerate(atoms_seen):
                self.add(f"{GLASS}.n{size}.{T}K.t{number:02d}", seen)
        self.explore.append({"key": "other", "name": f"{GLASS}.n63.300K.t00.c00"})
        decisions = {("evaluate", 0): {"tasks": evaluate}, ("explore", 0): {"tasks": self.explore}}
        self.state = SimpleNamespace(decisions=decisions, done={entry["key"] for entry in self.explore})

    def add(self, name: str, seen: float | list[int]) -> None:
        """A trajectory; seen: in all of its records, or in each of them, or on average (by turns)."""
        total = CHUNKS * RECORDS
        each = seen if isinstance(seen, list) else np.diff(np.round(np.arange(total + 1) * seen)).astype(int)
        for chunk, counts in enumerate(np.array_split(np.asarray(each), CHUNKS)):
            key = f"{name}.{chunk}"
            condition = {"n_steps": 5000, "timestep_fs": 1.0}
            self.explore.append({"key": key, "name": f"{name}.c{chunk:02d}", "spec": {"condition": condition}})
            (self.root / key).mkdir(parents=True)
            columns: dict[str, Any] = {"step": 250 * np.arange(1, RECORDS + 1)}
            columns |= {"count:five_coordinated_Si": counts, "count:overlap": np.full(RECORDS, self.overlaps)}
            np.savez(self.root / key / "table.npz", **columns)

    def result(self, key: str) -> Path:
        return self.root / key

    def summary(self, key: str) -> dict[str, Any]:
        return self.summaries[key]


def judged(campaign: Judged, **changes: Any) -> dict[str, Any]:
    """The criteria by event; trajectories are short, so much is tolerated unless told otherwise."""
    own = configured(["a", "b", "c"], **({"relative_tolerance": 1.0} | changes))
    return {one.name.split()[2]: one for one in reference_criteria(campaign, own, 0)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ensemble", "labeler", "state"),
    [
        ([0.2, 0.3, 0.25], [0.25, 0.2, 0.3], "met"),
        ([0.0, 0.05, 0.0], [0.25, 0.2, 0.3], "unmet"),
        ([0.2, 0.3], [0.25, 0.2, 0.3], "unknown"),
        ([2.0, 2.5, 2.25], [1.0, 1.1, 1.2], "unmet"),  # every frame shows it on either side
    ],
)
def test_atoms_that_show_an_event_are_as_many_or_not(
    tmp_path: Path, ensemble: list[float], labeler: list[float], state: str
) -> None:
    found = judged(Judged(tmp_path, {63: ensemble}, labeler))
    assert found["five_coordinated_Si"].state == state
    assert found["five_coordinated_Si"].unit == "of Si"
    if state != "unknown":
        assert found["five_coordinated_Si"].wanted == pytest.approx(np.mean(labeler) / SI[63])
        assert found["overlap"].state == "met"


def test_what_was_never_seen_is_no_exact_zero(tmp_path: Path) -> None:
    """Silicon that was looked at 12 times in a replica: up to one in twelve could have five neighbours."""
    found = judged(Judged(tmp_path / "short", {63: [0.0] * 3}, [0.0] * 3, frames=4))["five_coordinated_Si"]
    assert found.state == "unknown"
    assert "labeler never seen, below 0.083 with 95 %" in found.sentence and "0.02 should be" in found.sentence
    long = judged(Judged(tmp_path / "long", {63: [0.0] * 3}, [0.0] * 3), tolerance=0.03)
    assert long["five_coordinated_Si"].state == "met", "18 ps after the first, 0.5 ps apart: below 3 in 3 x 54"
    dense = judged(Judged(tmp_path / "dense", {63: [0.0] * 3}, [0.0] * 3), tolerance=0.03, frame_ps=0.01)
    assert dense["five_coordinated_Si"].state == "unknown", "frames 10 fs apart are all but one"


def test_noise_beside_none_does_not_agree(tmp_path: Path) -> None:
    """0.1 +- 0.1 of silicon with the ensemble, none with the labeler: within two errors, but so is much else."""
    found = judged(Judged(tmp_path, {63: [0.0, 0.0, 0.9]}, [0.0] * 3))["five_coordinated_Si"]
    assert found.state == "unknown" and "not resolved" in found.sentence


def test_only_cells_of_the_references_size_are_compared(tmp_path: Path) -> None:
    """Cells of twice the size, where so many atoms are as common by share but not by frame, and are wrong besides."""
    wrong = Judged(tmp_path / "both", {63: [0.2, 0.3, 0.25], 126: [5.0, 5.0, 5.0]}, [0.25, 0.2, 0.3])
    assert judged(wrong, n_atoms=[63, 126])["five_coordinated_Si"].state == "met"


def test_without_a_cell_of_its_size_shares_of_atoms_are_compared(tmp_path: Path) -> None:
    larger = {126: [0.4, 0.6, 0.5]}
    found = judged(Judged(tmp_path, larger, [0.25, 0.2, 0.3]), n_atoms=[126])["five_coordinated_Si"]
    assert found.state == "met" and found.found == pytest.approx(0.25 / SI[63], rel=0.02)


def test_the_start_of_each_iteration_is_left_out(tmp_path: Path) -> None:
    """The classical melt's fivefold silicon, which the ensemble has got rid of after 1 ps."""
    seen = [[3, 3, 3, 3] + [0, 1] * 18 for _ in range(3)]
    campaign = Judged(tmp_path, {63: seen}, [0.5, 0.51, 0.49])
    assert judged(campaign)["five_coordinated_Si"].state == "met"
    assert judged(campaign, skip_ps=0.0)["five_coordinated_Si"].state == "unmet"
    assert judged(campaign, skip_ps=6.0)["five_coordinated_Si"].found == pytest.approx(0.5 / SI[63])


def test_short_contacts_may_be_rarer_than_the_labelers_but_not_commoner(tmp_path: Path) -> None:
    same = [0.2, 0.3, 0.25]
    rarer = judged(Judged(tmp_path / "rarer", {63: same}, same, overlaps=0, labeler_overlaps=2.0))
    commoner = judged(Judged(tmp_path / "commoner", {63: same}, same, overlaps=2, labeler_overlaps=0.0))
    assert rarer["overlap"].state == "met" and "rarer" in rarer["overlap"].sentence
    assert commoner["overlap"].state == "unmet"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"glass": "LBS-9-9-82"}, "the campaign has LBS-20-60-20"),
        ({"temperature_K": 1234}, "add it to explore.temperatures_K"),
        ({"skip_ps": 10.0}, "nothing would be left to compare"),
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
