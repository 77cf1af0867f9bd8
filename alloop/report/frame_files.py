"""Frames of the files a person names: whatever ASE reads, and the ``frames.npz`` of a task's result."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ase import Atoms

from alloop.frames import read_columns, read_structures
from alloop.structure import from_record


def frames_of_file(path: Path, every: int = 1, types: Sequence[str] = ()) -> Iterator[Atoms]:
    """Yield every n-th frame of a file, one at a time; ValueError for one that cannot be read or holds none.

    A folder stands for the ``frames.npz`` in it, or in its ``result``. Frames of dynamics carry the temperature that
    the thermostat was to keep as ``info["temperature_K"]``. types: elements of a LAMMPS dump's atom types.
    """
    from alloop.glass.analysis import read_frames

    places = [path / "frames.npz", path / "result" / "frames.npz"] if path.is_dir() else [path]
    file = next((place for place in places if place.is_file()), path)
    return _of_result(file, every) if file.suffix == ".npz" else read_frames(file, f"::{every}", types)


def _of_result(file: Path, every: int) -> Iterator[Atoms]:
    if file.name != "frames.npz":
        raise ValueError(f"{file} is no frames.npz; of a task's result give that file or its folder")
    try:
        columns = read_columns(file.parent)
        wanted = range(0, len(columns["n_atoms"]), every)
        records = read_structures(file.parent, wanted)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} cannot be read as frames of a task: {error}") from error
    if not records:
        raise ValueError(f"{file} holds no frame; the task kept none")
    temperatures_K = columns.get("target_temperature_K")
    for number, record in zip(wanted, records, strict=True):
        atoms = from_record(record)
        if temperatures_K is not None:
            atoms.info["temperature_K"] = float(temperatures_K[number])
        yield atoms
