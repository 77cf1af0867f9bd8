"""Make starting configurations: melt-quench snapshots, perturbed crystals, a person's own structures or data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from alloop.attempt import Context, TaskError
from alloop.frames import write_frames
from alloop.glass.composition import Glass
from alloop.glass.crystal_md import crystal_md
from alloop.glass.crystals import CRYSTALS, crystal, perturbed, supercell_near
from alloop.glass.melt_quench import MeltQuench, melt_quench
from alloop.store import write_json
from alloop.tasks.force_fields import force_field
from alloop.tasks.sources import file_hash, read_labelled, read_structures_file


def run(context: Context) -> None:
    """Write ``frames.npz`` (with ``temperature_K``, and labels for labelled data) and ``summary.json``."""
    spec = context.spec
    frames, columns = _SOURCES[spec["source"]](context)
    write_frames(context.out / "frames.npz", frames, **columns)
    summary = {"source": spec["source"], "frames": len(frames), "labelled": "energy_eV" in columns}
    write_json(context.out / "summary.json", summary)


Frames = tuple[list[Atoms], dict[str, Any]]


def _melt_quench(context: Context) -> Frames:
    spec = context.spec
    glass = Glass(**spec["glass"])
    template = context.work / "template.in"
    template.write_text(spec["template"])
    schedule = MeltQuench(**spec["schedule"])
    snapshots = melt_quench(
        glass,
        spec["counts"],
        schedule,
        seed=spec["seed"],
        directory=context.work,
        potential=force_field(context, spec["force_field"], spec["counts"]),
        template=template,
    )
    frames = [snapshot.atoms for snapshot in snapshots]
    temperatures = [snapshot.temperature_K for snapshot in snapshots]
    rng = np.random.default_rng(spec["seed"])
    for index in rng.choice(
        len(snapshots), size=spec["strained_copies"], replace=len(snapshots) < spec["strained_copies"]
    ):
        copy = perturbed(frames[index], rattle_A=spec["rattle_A"], max_strain=spec["max_strain"], rng=rng)
        frames.append(copy)
        temperatures.append(temperatures[index])
    strained = np.arange(len(frames)) >= len(snapshots)
    return frames, {"temperature_K": np.array(temperatures), "strained": strained}


def _crystal(context: Context) -> Frames:
    spec = context.spec
    ideal = crystal(spec["crystal"]) if spec["crystal"] in CRYSTALS else _own_structures(context)[0]
    rng = np.random.default_rng(spec["seed"])
    cell = supercell_near(ideal, spec["n_atoms"])
    frames = [
        perturbed(cell, rattle_A=spec["rattle_A"], max_strain=spec["max_strain"], rng=rng)
        for _ in range(spec["copies"])
    ]
    temperatures = [0.0] * len(frames)
    for temperature_K in spec["md_K"]:
        frames += crystal_md(
            cell,
            temperature_K,
            force_field(context, spec["force_field"], Counter(cell.symbols)),
            ps=spec["md_ps"],
            frames=spec["copies"],
            seed=int(rng.integers(2**31)),
            directory=context.work / f"{temperature_K:g}K",
        )
        temperatures += [temperature_K] * spec["copies"]
    return frames, {"temperature_K": np.array(temperatures)}


def _own_structures(context: Context) -> list[Atoms]:
    path = _unchanged_file(context)
    return read_structures_file(path)


def _structures(context: Context) -> Frames:
    frames = _own_structures(context)
    return frames, {"temperature_K": np.full(len(frames), np.nan)}


def _data(context: Context) -> Frames:
    path = _unchanged_file(context)
    labelled = read_labelled(path, context.spec["format"])[:: context.spec["every"]]
    width = max(len(frame.atoms) for frame in labelled)
    forces = np.zeros((len(labelled), width, 3))
    for index, frame in enumerate(labelled):
        forces[index, : len(frame.atoms)] = frame.forces_eV_A
    return [frame.atoms for frame in labelled], {
        "temperature_K": np.full(len(labelled), np.nan),
        "energy_eV": [frame.energy_eV for frame in labelled],
        "forces_eV_A": forces,
        "virial_eV": [frame.virial_eV for frame in labelled],
    }


def _unchanged_file(context: Context) -> Path:
    path = context.files["file"]
    if not path.exists() or file_hash(path) != context.spec["sha256"]:
        raise TaskError(f"{path} is not the file this task was made from; put it back as it was", kind="bug")
    return path


_SOURCES = {"melt-quench": _melt_quench, "crystal": _crystal, "structures": _structures, "data": _data}
