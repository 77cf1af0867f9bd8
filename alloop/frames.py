"""``frames.npz``: the structures a task brings home, with what was seen in each of them.

Arrays over F frames of at most N atoms: ``symbols`` (F, N), ``n_atoms`` (F,), ``cell_A`` (F, 3, 3),
``positions_A`` (F, N, 3), and any further arrays of length F, such as ``step`` or ``max_force_deviation_eV_A``.
What has another length for each frame is stored flat: ``NAME:values``, and ``NAME:offsets`` (F + 1,) so that frame f
has ``values[offsets[f]:offsets[f + 1]]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from alloop.structure import Record, to_record

Ragged = Mapping[str, Sequence[np.ndarray]]
_VALUES, _OFFSETS = ":values", ":offsets"


def write_frames(path: Path, frames: Sequence[Atoms], ragged: Ragged | None = None, **columns: Any) -> None:
    """Write frames and their columns (each of length F, ragged ones with an array of integers per frame); F may be 0.

    ValueError for a column of another length.
    """
    count, width = len(frames), max((len(atoms) for atoms in frames), default=0)
    symbols = np.full((count, width), "", dtype="U2")
    positions = np.zeros((count, width, 3))
    cells = np.zeros((count, 3, 3))
    for index, atoms in enumerate(frames):
        record = to_record(atoms)
        symbols[index, : len(atoms)] = record["symbols"]
        positions[index, : len(atoms)] = record["positions_A"]
        cells[index] = record["cell_A"]
    sizes = np.array([len(atoms) for atoms in frames], dtype=int)
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    for name, column in {**arrays, **(ragged or {})}.items():
        if len(column) != count:
            raise ValueError(f"column {name} has {len(column)} entries for {count} frames")
    structures = {"symbols": symbols, "n_atoms": sizes, "cell_A": cells, "positions_A": positions}
    for name, parts in (ragged or {}).items():
        arrays[name + _VALUES] = np.concatenate([np.zeros(0, dtype=np.int64), *parts])
        arrays[name + _OFFSETS] = np.cumsum([0, *map(len, parts)])
    write_arrays(path, structures | arrays)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays to one compressed ``.npz`` file."""
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # its stub takes the arrays for its flag


def read_structure(result: Path, frame: int) -> Record:
    """Return the structure record of one frame of a result's ``frames.npz``."""
    return read_structures(result, [frame])[0]


def read_structures(result: Path, frames: Sequence[int]) -> list[Record]:
    """Return the structure records of some frames of a result's ``frames.npz``, reading the file once."""
    with np.load(result / "frames.npz") as archive:
        sizes, symbols = archive["n_atoms"], archive["symbols"]
        cells, positions = archive["cell_A"], archive["positions_A"]
    return [
        {
            "symbols": symbols[frame][: sizes[frame]].tolist(),
            "cell_A": cells[frame].tolist(),
            "positions_A": positions[frame][: sizes[frame]].tolist(),
        }
        for frame in frames
    ]


def read_all_structures(result: Path) -> list[Record]:
    """Return the structure records of all frames of a result's ``frames.npz``."""
    return read_structures(result, range(len(read_columns(result)["n_atoms"])))


def read_columns(result: Path) -> dict[str, np.ndarray]:
    """Return all columns of a result's ``frames.npz``, each of length F, but the structures and the ragged ones."""
    with np.load(result / "frames.npz") as archive:
        others = ("symbols", "cell_A", "positions_A")
        return {n: archive[n] for n in archive.files if n not in others and not n.endswith((_VALUES, _OFFSETS))}


def read_some_columns(result: Path, names: Iterable[str], also: str | None = None) -> dict[str, np.ndarray]:
    """Return named columns of a result's ``frames.npz``, and all that begin with `also`, reading nothing else."""
    with np.load(result / "frames.npz") as archive:
        others = [name for name in archive.files if also is not None and name.startswith(also)]
        return {name: archive[name] for name in (*names, *others)}


def read_ragged(result: Path) -> dict[str, list[np.ndarray]]:
    """Return the ragged columns of a result's ``frames.npz``: by name, an array for each of the F frames."""
    with np.load(result / "frames.npz") as archive:
        found = {}
        for name in (file.removesuffix(_OFFSETS) for file in archive.files if file.endswith(_OFFSETS)):
            values, offsets = archive[name + _VALUES], archive[name + _OFFSETS].tolist()
            found[name] = [values[begin:end] for begin, end in pairwise(offsets)]
    return found
