"""One explored and labelled iteration of alloop in DP-GEN's layout."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alloop.dpgen.layout import EXPLORE, LABEL, LISTS, FrameName, list_name
from alloop.potential.dataset import write_systems
from alloop.selection.classes import classify
from alloop.structure import LabeledFrame

_HEADER = ("step", "max_devi_v", "min_devi_v", "avg_devi_v", "max_devi_f", "min_devi_f", "avg_devi_f")
_COLUMNS = (
    "max_virial_deviation_eV",
    None,
    None,
    "max_force_deviation_eV_A",
    "min_force_deviation_eV_A",
    "mean_force_deviation_eV_A",
)
"""What alloop's tables hold of the columns of ``model_devi.out``; None is written as nan."""


@dataclass(frozen=True)
class Explored:
    """A finished chunk of dynamics: its entry in the decision, its DP-GEN system, its result and its trust levels."""

    entry: dict[str, Any]
    system: int
    result: Path
    trust_eV_A: tuple[float, float]


def write_iteration(
    folder: Path,
    job: Mapping[str, Any],
    explored: Sequence[Explored],
    picks: Sequence[Mapping[str, Any]],
    labels: Mapping[int, Sequence[LabeledFrame]],
    type_map: Sequence[str],
) -> None:
    """Write ``01.model_devi`` and ``02.fp`` of an iteration.

    Every chunk becomes an MD task. What was asked to be labelled stands first in its system's list of candidates,
    whatever its trust class; labels: system -> labelled frames. Trajectories are not kept, so the links of the
    labelling tasks lead nowhere, as DP-GEN's do once it has cleaned its trajectories.
    """
    (folder / EXPLORE).mkdir(parents=True)
    _write_json(folder / EXPLORE / "cur_job.json", job)
    names: dict[str, tuple[int, str]] = {}
    counter: defaultdict[int, int] = defaultdict(int)
    rows: defaultdict[int, dict[str, list[FrameName]]] = defaultdict(lambda: {name: [] for name in LISTS})
    for chunk in explored:
        task = f"task.{chunk.system:03d}.{counter[chunk.system]:06d}"
        counter[chunk.system] += 1
        place = f"{folder.name}/{EXPLORE}/{task}"
        names[chunk.entry["key"]] = (chunk.system, place)
        with np.load(chunk.result / "table.npz") as archive:
            table = {name: archive[name] for name in archive.files}
        _write_task(folder / EXPLORE / task, chunk, table)
        lists = rows[chunk.system]
        classes = classify(table["max_force_deviation_eV_A"], *chunk.trust_eV_A)
        for step, name in zip(table["step"].tolist(), classes.tolist(), strict=True):
            lists[name].append(FrameName(place, int(step)))
    asked: defaultdict[int, list[FrameName]] = defaultdict(list)
    for pick in picks:
        system, place = names[pick["source"]["task"]]
        asked[system].append(FrameName(place, int(pick["step"])))
    (folder / LABEL).mkdir()
    for system in sorted(rows):
        _write_lists(folder / LABEL, system, rows[system], asked[system])
    for system, frames in labels.items():
        write_systems(frames, folder / LABEL / f"data.{system:03d}", type_map)


def _write_task(place: Path, chunk: Explored, table: Mapping[str, np.ndarray]) -> None:
    """Write ``job.json`` and ``model_devi.out``, formatted as LAMMPS writes it (steps, eV per atom, eV/Å)."""
    place.mkdir()
    condition = chunk.entry["spec"]["condition"]
    job = {
        "ensemble": condition["ensemble"],
        "temps": condition["temperature_start_K"],
        "press": condition["pressure_bar"] if condition["ensemble"] == "npt" else -1,
        "model_devi_dt": condition["timestep_fs"] / 1000,
        "alloop": chunk.entry["name"],
    }
    _write_json(place / "job.json", job)
    count = len(table["step"])
    columns = [table[name] if name else np.full(count, np.nan) for name in _COLUMNS]
    header = "#" + f"{_HEADER[0]:>11}" + "".join(f" {name:>18}" for name in _HEADER[1:])
    rows = [
        f"{int(table['step'][row]):>12}" + "".join(f" {column[row]:>18.6e}" for column in columns)
        for row in range(count)
    ]
    (place / "model_devi.out").write_text("\n".join([header, *rows]) + "\n")


def _write_lists(
    folder: Path, system: int, frames: Mapping[str, Sequence[FrameName]], asked: Sequence[FrameName]
) -> None:
    first = set(asked)
    for name in LISTS:
        rest = [frame for frame in frames[name] if frame not in first]
        own = [*asked, *rest] if name == "candidate" else rest
        (folder / list_name(name, system)).write_text("".join(f"{frame.line()}\n" for frame in own))
    for number, frame in enumerate(asked):
        task = folder / f"task.{system:03d}.{number:06d}"
        task.mkdir()
        md = frame.task.rsplit("/", 1)[1]
        (task / "conf.dump").symlink_to(f"../../{EXPLORE}/{md}/traj/{frame.step}.lammpstrj")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=4) + "\n")
